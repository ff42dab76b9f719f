"""MNIST, Fashion-MNIST and CIFAR-10 as TFDS has them (names, versions, features), prepared without TensorFlow.

The stock builders read their files and encode their images with TensorFlow. These subclasses read the files with numpy
and yield PIL images; the files are those of `make data` where they are there, else TFDS downloads its own.
"""

import contextlib
import gzip
import io
import json
import socket
import sys
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

STOCK = ("mnist", "fashion_mnist", "cifar10")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def prepare(name: str, data_dir: Path, *, raw: Path) -> None:
    """Writes the data set to `data_dir` as array_record; takes 10 to 20 seconds.

    Args:
      name: one of `STOCK`.
      data_dir: a TFDS data directory.
      raw: the folder with the files of `make data`; where it does not exist, TFDS downloads its own.

    Raises:
      FileNotFoundError: there is no such folder, and TFDS can't download.
      ValueError: the files are not what they should be.
    """
    import tensorflow_datasets as tfds  # half a second: only those who need it pay it

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    has_files = raw.is_dir()
    builder_class = _builder_class(name, raw if has_files else None)
    absent = f"the data set {name!r} is not in {data_dir}: run `make data`"
    if not has_files and not _reachable(builder_class):
        raise FileNotFoundError(f"{absent} (TFDS can't download it: there is no network)")
    print(f"preparing {name} in {data_dir}, once", file=sys.stderr)
    builder = builder_class(data_dir=str(data_dir), file_format="array_record")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what it prints says nothing more
            builder.download_and_prepare()
    except Exception as error:  # gzip, PIL, TFDS and its downloader each have their own
        if Path(builder.data_path).is_dir():
            return  # another process was faster
        if has_files:
            raise ValueError(
                f"{raw} does not hold what `make data` puts there; delete it and run `make data`: {error}"
            ) from error
        raise FileNotFoundError(f"{absent} (TFDS could not download it: {error})") from error


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file of bytes (the format of MNIST), gzipped or not.

    Returns:
      uint8 array of the shape that the file's header says.

    Raises:
      ValueError: it is no such file, or it is cut off.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\0\0\x08":  # two zeros, then the type: 8 is unsigned byte
        raise ValueError(f"{path} is not an idx file of bytes: it begins with {content[:4]!r}")
    num_axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", num_axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} should hold {np.prod(shape)} bytes {shape}, but holds {values.size}")
    return values.reshape(shape)


def read_cifar_png(images: Path, width: int = 32) -> np.ndarray:
    """Reads a PNG of which each row is one image, row-major: uint8 [N, width, width, 3]."""
    with Image.open(images) as image:
        rows = np.asarray(image.convert("RGB"))
    return rows.reshape(len(rows), width, width, 3)


def _builder_class(name: str, raw: Path | None) -> type:
    import tensorflow_datasets as tfds

    stock = tfds.builder_cls(name)
    generate = _generate_cifar10 if name == "cifar10" else _generate_mnist

    with tfds.core.registered.skip_registration():

        class Prepared(stock):  # type: ignore[misc, valid-type]
            name = stock.name
            url_infos = stock.url_infos  # the sha256 of what TFDS downloads

            def _split_generators(self, dl_manager):
                return {split: generate(self, raw, dl_manager, split) for split in ("train", "test")}

    return Prepared


def _reachable(builder_class: type) -> bool:
    """Whether TFDS has a chance to download: without a network it would try for minutes."""
    if urllib.request.getproxies():
        return True
    url = urllib.parse.urlparse(next(iter(builder_class.url_infos)))  # type: ignore[attr-defined]
    try:
        socket.create_connection((url.hostname, url.port or {"https": 443}.get(url.scheme, 80)), timeout=5).close()
    except OSError:
        return False
    return True


def _generate_mnist(builder, raw: Path | None, dl_manager, split: str) -> Iterator[tuple[int, dict]]:
    prefix = {"train": "train", "test": "t10k"}[split]
    files = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
    if raw is None:
        paths = [Path(p) for p in dl_manager.download([builder.URL + f + ".gz" for f in files])]
    else:
        paths = [p if (p := raw / f).exists() else raw / (f + ".gz") for f in files]
    images, labels = map(read_idx, paths)
    _check_lengths(images, labels, paths)
    for i, (image, label) in enumerate(zip(images, labels)):
        yield i, {"image": Image.fromarray(image), "label": int(label)}


def _generate_cifar10(builder, raw: Path | None, dl_manager, split: str) -> Iterator[tuple[int, dict]]:
    builder.info.features["label"].names = list(CIFAR10_NAMES)
    if raw is None:
        images, labels = _read_cifar_binary(Path(dl_manager.download(builder._cifar_info.url)), split)
        paths = [Path(builder._cifar_info.url)]
    else:
        paths = sorted(raw.glob("data_batch_*.png")) if split == "train" else [raw / "test_batch.png"]
        paths.append(raw / f"{split}_lables.json")  # the package spells it so
        images = np.concatenate([read_cifar_png(p) for p in paths[:-1]])
        labels = np.array(json.loads(paths[-1].read_text()))
    _check_lengths(images, labels, paths)
    for i, (image, label) in enumerate(zip(images, labels)):
        yield i, {"id": f"{split}_{i:05d}", "image": Image.fromarray(image), "label": int(label)}


def _read_cifar_binary(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the authors' archive: a row is the label, then the image as [3, 32, 32]."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    with tarfile.open(path) as archive:
        members = [archive.extractfile(f"cifar-10-batches-bin/{n}") for n in names]
        rows = np.concatenate([np.frombuffer(m.read(), np.uint8).reshape(-1, 3073) for m in members if m])
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


def _check_lengths(images: np.ndarray, labels: np.ndarray, paths: list[Path]) -> None:
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels in {', '.join(map(str, paths))}")
