"""Inputs without labels: a folder with images directly in it, an npz file with x alone, a table without the target column."""

from pathlib import Path

import numpy as np

from experiments.config import Data
from experiments.datasets import images
from experiments.datasets.arrays import as_inputs
from experiments.datasets.table import locate, open_table
from experiments.datasets.table_map import TableMap, apply
from experiments.progress import track
from experiments.workdir import read_npz


def read_unlabelled(name: str, size: tuple[int, int]) -> tuple[np.ndarray, list[str]] | None:
    """Reads folder:PATH or npz:PATH where there are no labels.

    Args:
      name: as in `config.Data`.
      size: (height, width) that image files are resized to.

    Returns:
      The inputs (uint8 images [N, H, W, C] or float32 rows [N, d]) and the name of each row (a file's name, or a
      number); None where the data have labels, or are of another kind.

    Raises:
      ValueError: a file that is no image, an array that is no input, or no rows.
    """
    kind, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    if kind == "folder" and path.is_dir():
        files = sorted(f for f in path.iterdir() if not f.name.startswith("."))
        if not files or any(f.is_dir() for f in files):
            return None
        decoded = (images.decode(f, str(f), size=size) for f in track(files, "reading images"))
        return images.stack(decoded, [str(f) for f in files]), [f.name for f in files]
    if kind == "npz" and path.is_file():
        arrays = read_npz(path)
        if "x" not in arrays or "y" in arrays:
            return None
        x = as_inputs(arrays["x"], f"x in {path}")
        if len(x) == 0:
            raise ValueError(f"x in {path} has no rows")
        return x, [str(i) for i in range(len(x))]
    return None


def read_unlabelled_table(data: Data, data_dir: Path, table: TableMap) -> tuple[np.ndarray, list[str]] | None:
    """Reads the rows of a table that lacks its target column.

    Args:
      data: whose `where` chooses rows.
      data_dir: where a relative path is looked for too.
      table: the map of the network's source.

    Returns:
      float32 rows and the number of each in the file; None where the target column is there.

    Raises:
      FileNotFoundError, ValueError: as `open_table`.
    """
    if data.label_key in locate(data, data_dir).names:
        return None
    raw = open_table(data, data_dir, table, labelled=False)
    assert raw.frame is not None and raw.train.numbers is not None
    return apply(table, raw.frame), [str(number) for number in raw.train.numbers]
