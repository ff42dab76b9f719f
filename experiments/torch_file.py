"""Weight files of PyTorch, read without PyTorch. A pickle can name any function and have it run; here it can't.

Two layouts: a zip archive (PyTorch ≥ 1.6), and before it five pickles in a row with the numbers behind them.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Strings, not dtypes: what a pickle gets hold of must have nothing that it could change.
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Storage(NamedTuple):
    """Where numbers lie: under `key`, `size` of them."""

    key: str
    dtype: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in numbers and not in bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(pickle.UnpicklingError):
    """A pickle asks for something that is not plain tensors."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a .pth, .pt or .bin file; names of nested dictionaries are joined by ".".

    Whatever is no tensor (a number of epochs, say) is left out. Nothing that stands in the file is run.

    Raises:
      ValueError: it holds code or anything but tensors, plain containers and plain values; or it is cut off, or no such file.
    """
    try:
        with path.open("rb") as stream:
            found = _read_zip(stream) if zipfile.is_zipfile(stream) else _read_legacy(stream)
    except Refused as error:
        raise ValueError(
            f"weights at {path}: {error}; only plain tensors are read, and nothing in it was run"
        ) from error
    # What a pickle that is damaged makes the unpickler raise could be anything.
    except Exception as error:
        raise ValueError(
            f"weights at {path}: not readable as a PyTorch file, or cut off ({type(error).__name__}: {error})"
        ) from error
    return found


def _read_zip(stream: BinaryIO) -> dict[str, np.ndarray]:
    stream.seek(0)
    with zipfile.ZipFile(stream) as file:
        pickles = [name for name in file.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in file.namelist() and file.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        with file.open(pickles[0]) as inside:
            tensors = _tensors(_Unpickler(inside).load())
        return _filled(tensors, {s.key: file.read(f"{folder}data/{s.key}") for s, *_ in tensors.values()})


def _read_legacy(stream: BinaryIO) -> dict[str, np.ndarray]:
    stream.seek(0)
    if (_Unpickler(stream).load(), _Unpickler(stream).load()) != (MAGIC, PROTOCOL):
        raise ValueError("it does not begin as one")
    if not _Unpickler(stream).load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors = _tensors(_Unpickler(stream).load())
    storages = {storage.key: storage for storage, *_ in tensors.values()}
    data = {}
    for key in _Unpickler(stream).load():
        storage = storages[key]
        if (count := int.from_bytes(stream.read(8), "little")) != storage.size:
            raise ValueError(f"storage {key} has {count} numbers, expected {storage.size}")
        data[key] = stream.read(count * np.dtype(_dtype(storage)).itemsize)
    return _filled(tensors, data)


class _Unpickler(pickle.Unpickler):
    """Knows the few names that plain tensors need."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        # Made anew for each file: a pickle can set attributes of what it is given.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Tensor(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise Refused(f"there is code in it: it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage":
            raise Refused(f"it asks for {kind!r}")
        if dtype not in STORAGES.values():
            raise Refused(f"it asks for numbers of {dtype!r}")
        return Storage(key, dtype, count)


def _tensors(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    if isinstance(tree, Tensor):
        return {prefix: tree}
    if not isinstance(tree, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        found.update(_tensors(value, f"{prefix}.{name}" if prefix else str(name)))
    return found


def _filled(tensors: Mapping[str, Tensor], data: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        # Bounds first: a view out of them would read another's memory.
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        inside = math.prod(shape) == 0 or (
            min((offset, *strides)) >= 0
            and min(shape, default=0) >= 0
            and last < storage.size
            and math.prod(shape) <= storage.size  # a stride of 0 would make much of little
        )
        if not inside:
            raise ValueError(f"{name} lies outside of its storage")
        numbers = np.frombuffer(data[storage.key], _dtype(storage), count=storage.size)
        if math.prod(shape) == 0:
            arrays[name] = np.zeros(shape, numbers.dtype)
            continue
        steps = tuple(step * numbers.itemsize for step in strides)
        arrays[name] = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()
    return arrays


def _dtype(storage: Storage) -> Any:
    return ml_dtypes.bfloat16 if storage.dtype == "bfloat16" else storage.dtype
