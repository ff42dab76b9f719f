"""What a library fixes when it is made, so that sketches of all its entries compare; library.json holds it."""

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import workdir
from experiments.collection.seal import sealed, unsealed
from experiments.config import from_json
from experiments.datasets.images import to_format

FILE = "library.json"
WHAT = "mmd_jax library"
VERSION = 1
# Distances between two images of independent pixels in [0, 1] are about this, times the root of their number.
IMAGE_SCALE, ROW_SCALE = 0.35, math.sqrt(2)


class Format(NamedTuple):
    """What a library fixes.

    Attributes:
      kind: "image" or "rows".
      shape: of one input: (height, width, channels), or (numbers,).
      centre: what is taken off each number of an input (of an image: of its pixels / 255) before it is sketched.
      scale: σ of the kernel on inputs, for the multiple 1, in the units of these numbers.
      multiples: the kernel is the mean over these multiples of σ; at a layer, of the entry's own median distance there.
      num_features: random features a multiple, of the inputs.
      layer_features: the same at each layer.
      bins: of each sketch, which tests permute; a sample needs as many rows at least.
      kernel: a name, of `mmd_jax.two_sample.random_features.feature_map`.
      seed: of the frequencies.
    """

    kind: str
    shape: tuple[int, ...]
    centre: float
    scale: float
    multiples: tuple[float, ...] = (0.5, 1.0, 2.0)
    num_features: int = 1024
    layer_features: int = 256
    bins: int = 32
    kernel: str = "gaussian"
    seed: int = 0


def format_for(shape: Sequence[int], *, scale: float | None = None, centre: float | None = None) -> Format:
    """The format of a library of such inputs, where no rows say what the scale is.

    Raises:
      ValueError: a shape that is neither (height, width, channels) nor (numbers,), or a scale that is no scale.
    """
    shape = tuple(int(size) for size in shape)
    if len(shape) not in (1, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"shape = {list(shape)}; expected HEIGHT WIDTH CHANNELS of images, with 1 or 3 channels, or the LENGTH of a row"
        )
    image = len(shape) == 3
    if scale is None:
        scale = (IMAGE_SCALE if image else ROW_SCALE) * math.sqrt(math.prod(shape))
    if not 0 < scale < math.inf:
        raise ValueError(f"scale = {scale}; expected a positive number")
    if centre is None:
        centre = 0.5 if image else 0.0
    return Format("image" if image else "rows", shape, centre, float(np.float32(scale)))


def create(library: Path, format: Format) -> Format:
    """Makes a library in a folder that is empty or not there; of two who do it at once, the first one's format holds.

    Returns:
      The library's format.

    Raises:
      ValueError: the folder holds other things, or a library of another format.
      OSError: it can't be made or written to; one sentence says why.
    """
    library = Path(library)
    if (library / FILE).exists():
        there = read(library)
        if there != format:
            raise ValueError(f"there is already a library in {library}, of another format: {describe(there)}")
        return there
    refuse_foreign(library)
    try:
        library.mkdir(parents=True, exist_ok=True)
        temporary = library / f".{FILE}.{secrets.token_hex(4)}.unfinished"
        try:
            workdir.write_bytes(temporary, sealed({"what": WHAT, "version": VERSION, "format": format}))
            with contextlib.suppress(FileExistsError):  # someone else was first
                os.link(temporary, library / FILE)
        finally:
            temporary.unlink(missing_ok=True)
        workdir.sync_folder(library)
    except OSError as error:
        raise OSError(
            f"no library can be made in {library} ({reason(error)}); choose a folder that you may write to"
        ) from None
    return read(library)


def read(library: Path) -> Format:
    """The format of a library.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the folder is no library, one of a newer version, or library.json was changed.
    """
    library = Path(library)
    if not library.is_dir():
        raise FileNotFoundError(
            f"there is no library at {library}: no such folder; make one with `create`, or by the first `add`"
        )
    if not (library / FILE).is_file():
        refuse_foreign(library)
        raise ValueError(f"{library} is empty and no library yet; make one with `create`, or by the first `add`")
    content = unsealed(library / FILE)
    check_version(content, WHAT, VERSION, library / FILE)
    try:
        return Format(**from_json(content["format"]))
    except TypeError:
        raise ValueError(f"{library / FILE} lacks a field of a library's format, or has one too many") from None


def check_version(content: Any, what: str, version: int, path: Path) -> None:
    """Refuses what is not ours, or newer; older versions are read.

    Raises:
      ValueError: says which.
    """
    if not isinstance(content, dict) or content.get("what") != what:
        raise ValueError(f'{path} is not that of a library of this project (its field "what" is no {what!r})')
    found = content.get("version")
    if type(found) is not int or not 1 <= found <= version:
        raise ValueError(
            f"{path} is of version {json.dumps(found)}; this program reads versions 1 to {version}"
            + ("; update it" if type(found) is int and found > version else "")
        )


def refuse_foreign(library: Path) -> None:
    """Refuses a folder of other things.

    Raises:
      ValueError: names some.
    """
    if library.exists() and not library.is_dir():
        raise ValueError(f"{library} is a file; a library is a folder")
    if library.is_dir() and (there := sorted(p.name for p in library.iterdir() if not p.name.startswith("."))):
        some = ", ".join(there[:3]) + (", …" if len(there) > 3 else "")
        raise ValueError(f"{library} holds files ({some}) but no {FILE}, so it is no library; choose another folder")


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    return (error.strerror or str(error)).lower()


def adapted(format: Format, x: np.ndarray, *, name: str) -> tuple[np.ndarray, str]:
    """Rows in the library's input format, and what was done to them, in a sentence (empty: nothing).

    Args:
      format: of the library.
      x: uint8 images [n, H, W, C], or float32 rows [n, d].
      name: of the data, for the error.

    Raises:
      ValueError: rows for images, images for rows, or rows of another length.
    """
    return to_shape(x, format.shape, name=name, wanted="the library holds")


def to_shape(x: np.ndarray, shape: Sequence[int], *, name: str, wanted: str) -> tuple[np.ndarray, str]:
    """As `adapted`, for any shape; `wanted` says in the error whose it is."""
    shape = tuple(shape)
    if x.shape[1:] == shape:
        return x, ""
    if x.ndim != 4 or len(shape) != 3:
        raise ValueError(
            f"{wanted} {shape_name(shape)} and {name} holds {shape_name(x.shape[1:])}; no fixed map joins them, so nothing "
            "can be compared"
        )
    note = f"Images of {name} were brought from {shape_name(x.shape[1:])} to {shape_name(shape)}"
    return to_format(x, *shape), f"{note} (bilinear; grey to RGB by repeating, RGB to grey by luma)."


def shape_name(shape: Sequence[int]) -> str:
    """
    >>> shape_name((28, 28, 1)), shape_name((14,))
    ('images of 28x28 pixels, grey', 'rows of 14 numbers')
    """
    if len(shape) == 1:
        return f"rows of {shape[0]} numbers"
    colour = {1: "grey", 3: "RGB"}.get(shape[2], f"{shape[2]} channels")
    return f"images of {shape[0]}x{shape[1]} pixels, {colour}"


def digest(format: Format) -> str:
    """What tells one format from another: the sha256 of its fields."""
    return hashlib.sha256(json.dumps(workdir.plain(format), sort_keys=True).encode()).hexdigest()


def describe(format: Format) -> str:
    """A format in one line."""
    multiples = ", ".join(f"{multiple:g}" for multiple in format.multiples)
    return (
        f"{shape_name(format.shape)}; {format.kernel} kernel, σ = {format.scale:.4g} × ({multiples}), "
        f"{format.num_features} random features each, {format.bins} bins, seed {format.seed}"
    )
