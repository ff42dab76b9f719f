"""Arrays that were expensive to make, kept on disk under the fingerprint of what they were made from."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from experiments.workdir import read_npz, write_npz


def fingerprint(*parts: object) -> str:
    """A name that changes when any of the parts does: arrays by type, shape and content, all else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def cached(directory: Path, key: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays kept under `key` in `directory`; where there are none, computes them and keeps them.

    A file that is cut off or damaged (the archive's checksums tell) is made again. Where the directory can't be
    written, the arrays are computed each time.

    Args:
      directory: made when needed.
      key: from `fingerprint`.
      compute: returns {name: array}; no arrays of objects.
    """
    path = directory / f"{key}.npz"
    with contextlib.suppress(OSError, ValueError):
        return read_npz(path)
    arrays = {name: np.asarray(array) for name, array in compute().items()}
    with contextlib.suppress(OSError):
        write_npz(path, arrays)
    return arrays
