"""The first stage of a ranking: how far every entry's inputs are from the target's, in one product; no network runs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.collection import entries, settings, sketching
from experiments.collection.settings import Format
from experiments.collection.sketching import Sketches
from experiments.sources import Dataset
from mmd_jax.two_sample.sketch_comparison import mean_embedding, mmd2_from_embeddings


class Near(NamedTuple):
    """All entries by their distance to the target at the inputs.

    Attributes:
      names: nearest first.
      mmd2: unbiased estimates of MMD², in squared kernel units, in that order, [E].
      sketches: of the target's inputs.
      note: what was done to the target to compare it; may be empty.
      damaged: {name: why it can't be read}.
    """

    names: tuple[str, ...]
    mmd2: np.ndarray
    sketches: Sketches
    note: str
    damaged: dict[str, str]


def nearest(library: Path, format: Format, target: Dataset, *, name: str) -> Near:
    """Every entry, nearest first.

    Args:
      library: the folder.
      format: of the library.
      target: whose training rows are compared.
      name: of the target, for what is said.

    Raises:
      ValueError: an empty library, rows that can't be brought to its format, or fewer of them than it has bins.
    """
    x, note = settings.adapted(format, target.train_x, name=name)
    if len(x) < format.bins:
        raise ValueError(
            f"{name} has {len(x)} training rows; this library's sketches need at least one for each of their {format.bins} bins"
        )
    sketches = sketching.sketch_inputs(format, entries.key_of(format, "target", 2), x, target.train_groups)
    names, mmd2, damaged = compared(library, format, sketches)
    if not names:
        reasons = "; ".join(f"{entry}: {why}" for entry, why in list(damaged.items())[:3])
        raise ValueError(
            f"the library {library} has no entry that can be read" + (f" ({reasons})" if reasons else ": add one first")
        )
    order = np.argsort(mmd2, kind="stable")
    return Near(tuple(names[i] for i in order), mmd2[order], sketches, note, damaged)


def compared(library: Path, format: Format, sketches: Sketches) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """The names of all entries, their unbiased MMD², and {name: why} of those that can't be read; some at a time."""
    mine = mean_embedding(sketches)
    names: list[str] = []
    found, damaged = [np.zeros(0)], dict[str, str]()
    for some in entries.embeddings(library, format):
        names += some.names
        found.append(mmd2_from_embeddings(mine, some.means, some.sizes))
        damaged |= some.damaged
    return names, np.concatenate(found), damaged
