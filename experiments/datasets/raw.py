"""A labelled data set as its reader found it, before anything is selected."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.datasets.table_map import Frame


class Rows(NamedTuple):
    """One split. Labels are at hand; inputs are read for chosen rows only, so that a large set need not be decoded.

    Attributes:
      labels: shape [n], integers.
      origin: what the rows are numbered in: a file, or a data set with its split. The same rows of equal origins are the same.
      read: (row indices) -> inputs: uint8 images [len(rows), H, W, C], or float32 rows [len(rows), d].
      groups: the group (writer, document, …) of each row, shape [n], integers; None where there are none.
      numbers: of the rows in `origin`, shape [n], where some of these were left out; None: 0 … n − 1.
    """

    origin: str
    labels: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    groups: np.ndarray | None = None
    numbers: np.ndarray | None = None


class Raw(NamedTuple):
    """What a reader returns.

    Attributes:
      train, test: the splits; test is None where the data have none.
      class_names: the name of label 0, 1, …; None where the data don't say: then labels are any integers.
      frame: the columns of `train`'s rows where the data are a table; what is read is then the rows' places in it.
      notes: what was done in reading, in sentences.
      group_names: of group 0, 1, …, where data sets may be compared by them (tables).
    """

    train: Rows
    test: Rows | None
    class_names: tuple[str, ...] | None
    frame: Frame | None = None
    notes: tuple[str, ...] = ()
    group_names: tuple[str, ...] | None = None


def codes(*groups: np.ndarray | None) -> list[np.ndarray | None]:
    """Numbers the groups of several splits from 0: the same name gets the same number in each."""
    present = [g for g in groups if g is not None]
    if not present:
        return [None for _ in groups]
    names = np.unique(np.concatenate(present))
    return [None if g is None else np.searchsorted(names, g) for g in groups]
