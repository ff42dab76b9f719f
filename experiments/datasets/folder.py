"""Folders of images: a sub-folder is a class."""

from pathlib import Path

import numpy as np

from experiments.cache import cached, fingerprint
from experiments.datasets import images
from experiments.datasets.raw import Raw, Rows
from experiments.progress import track


def open_folder(path: Path, *, train: str, test: str, size: tuple[int, int] | None, cache_dir: Path) -> Raw:
    """Reads PATH/CLASS/IMAGE or, where PATH has the sub-folders `train` and `test`, PATH/SPLIT/CLASS/IMAGE.

    Names that begin with a dot are skipped; classes and images are taken in the order of their names.

    Args:
      path: the folder.
      train, test: names of the sub-folders.
      size: resize images to (height, width).
      cache_dir: where decoded images are kept.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has no class folders, something else lies where they or images should, or an image can't be read.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    has_splits = (path / train).is_dir() and (path / test).is_dir()
    origins = [path / s for s in (train, test)] if has_splits else [path]
    splits = [_list(origin) for origin in origins]
    names = tuple(sorted({name for split in splits for name, _ in split}))
    rows = [_rows(str(o.resolve()), split, names, size, cache_dir) for o, split in zip(origins, splits)]
    return Raw(rows[0], rows[1] if has_splits else None, names)


def _list(path: Path) -> list[tuple[str, list[Path]]]:
    """[(class, its files)], by name."""
    found = []
    for folder in sorted(path.iterdir()):
        if folder.name.startswith("."):
            continue
        if not folder.is_dir():
            raise ValueError(f"{folder} lies beside the class folders of {path}: expected {path}/CLASS/IMAGE")
        files = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
        if nested := [f for f in files if f.is_dir()]:
            raise ValueError(f"{nested[0]} is a folder inside the class folder {folder}: expected {path}/CLASS/IMAGE")
        found.append((folder.name, files))
    if not found:
        raise ValueError(f"{path} has no class folders: expected {path}/CLASS/IMAGE")
    return found


def _rows(origin: str, split: list[tuple[str, list[Path]]], names: tuple[str, ...], size, cache_dir: Path) -> Rows:
    files = [f for _, of_class in split for f in of_class]
    labels = np.array([names.index(name) for name, of_class in split for _ in of_class], np.int64)

    def read(rows: np.ndarray) -> np.ndarray:
        chosen = [files[r] for r in rows]
        stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in chosen]
        return cached(cache_dir, fingerprint("folder", stamps, size), lambda: {"x": decode(chosen)})["x"]

    def decode(chosen: list[Path]) -> np.ndarray:
        decoded = (images.decode(f, str(f), size=size) for f in track(chosen, "reading images"))
        return images.stack(decoded, [str(f) for f in chosen])

    return Rows(origin, labels, read)
