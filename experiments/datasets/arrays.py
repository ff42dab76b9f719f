"""Data that lie in memory at once: scikit-learn's digits, and npz files."""

from pathlib import Path

import numpy as np

from experiments.datasets.raw import Raw, Rows, codes
from experiments.workdir import read_npz


def open_digits() -> Raw:
    """The 1,797 handwritten digits of scikit-learn: 8×8 pixels of 17 levels, brought to 0…255; no test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Raw(_in_memory("digits", images, digits.target), None, tuple(str(i) for i in range(10)))


def open_npz(path: Path, group_key: str) -> Raw:
    """Reads arrays x, y and, where there are any, x_test, y_test, class_names, and a group for each row.

    Args:
      path: an npz file. x: uint8 images [N, H, W, C] or [N, H, W], or rows [N, d] of numbers; y: integers [N].
      group_key: the array that holds the groups of x (those of x_test: the same with "_test"); empty: "groups", if the
        file has it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not an npz file, or its arrays aren't as described.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise ValueError(f"{error}; expected what np.savez(path, x=…, y=…) writes") from error
    if missing := {"x", "y"} - set(arrays):
        raise ValueError(f"{path} has no array {sorted(missing)[0]!r}; it has {sorted(arrays)}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"{path} has one of x_test and y_test but not the other")
    if group_key and group_key not in arrays:
        raise ValueError(f"{path} has no array {group_key!r} (group_key); it has {sorted(arrays)}")
    key = group_key or "groups"
    groups, test_groups = codes(arrays.get(key), arrays.get(f"{key}_test"))
    names = tuple(str(n) for n in arrays["class_names"]) if "class_names" in arrays else None
    origin = str(path.resolve())
    train = _in_memory(origin, as_inputs(arrays["x"], f"x in {path}"), arrays["y"], groups)
    test = None
    if "x_test" in arrays:
        x_test = as_inputs(arrays["x_test"], f"x_test in {path}")
        test = _in_memory(f"{origin} (test)", x_test, arrays["y_test"], test_groups)
    return Raw(train, test, names)


def as_inputs(x: np.ndarray, where: str) -> np.ndarray:
    """uint8 images [N, H, W, C], or float32 rows [N, d], from an array of a file; `where` names it in an error."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"{where} holds {x.dtype}, not numbers")
    if x.ndim == 2:
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused as such later
            return x.astype(np.float32)
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{where} has shape {list(x.shape)}: expected images [N, H, W, C] or [N, H, W], or rows [N, d]"
        )
    if x.dtype != np.uint8:
        whole = np.issubdtype(x.dtype, np.integer) and x.size > 0 and x.min() >= 0 and x.max() <= 255
        if not whole:
            raise ValueError(
                f"{where} holds images as {x.dtype}: images are uint8, 0…255 (the network's preprocessing scales "
                "them). For pixels in [0, 1]: np.round(255 * x).astype(np.uint8); for other data: x.reshape(N, -1)"
            )
        x = x.astype(np.uint8)
    if x.ndim == 3:
        return x[..., None]
    if x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise ValueError(f"{where} has shape {list(x.shape)}: channels come last, x.transpose(0, 2, 3, 1)")
    return x


def _in_memory(origin: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Rows:
    if y.ndim != 1 or not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise ValueError(f"labels in {origin} must be integers of shape [N], not {y.dtype} {list(y.shape)}")
    if len(x) != len(y):
        raise ValueError(f"x and y in {origin} differ in length: {len(x)} inputs, {len(y)} labels")
    if groups is not None and groups.shape != y.shape:
        raise ValueError(f"groups in {origin} have shape {list(groups.shape)}, labels {list(y.shape)}")
    return Rows(origin, y.astype(np.int64), lambda rows: x[rows], groups)
