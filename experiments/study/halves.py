"""The classes of a data set in two halves, A and B, over and over; and the rows of each half."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from experiments import config, sources
from experiments.study.settings import Study
from mmd_jax.types import Rows


class Split(NamedTuple):
    """One way of halving the classes.

    Attributes:
      kind: "random", or "dissimilar" for a split by kind.
      number: from 0 within its kind.
      a, b: the names of the classes of each half.
    """

    kind: str
    number: int
    a: tuple[str, ...]
    b: tuple[str, ...]

    def classes(self, half: str) -> tuple[str, ...]:
        """Of half "A" or "B"."""
        return self.a if half == "A" else self.b


class Half(NamedTuple):
    """The rows of one half's classes, labelled 0 … classes − 1.

    Attributes:
      train: to train on.
      test: held out: for the accuracy, and for the distance between both halves.
      classes: their names.
      notes: what was done to bring the rows in shape, and what to beware of, in sentences.
    """

    train: Rows
    test: Rows
    classes: tuple[str, ...]
    notes: str = ""


def split_classes(study: Study, names: Sequence[str], other: Sequence[str]) -> list[Split]:
    """The study's splits, random ones first.

    A longer list begins with the shorter one's splits, so that a study can be given more of them. No split comes twice,
    nor with A and B exchanged: both directions are run anyway.

    Args:
      study: how many splits, of which kinds.
      names: the classes of `study.data`.
      other: those of `study.other`; empty where there is none.

    Raises:
      ValueError: unknown classes, too few of them, or more splits than there are.
    """
    random = np.random.default_rng([study.seed, *b"halves"])
    found = [Split("random", number, *halves) for number, halves in enumerate(_halves(names, study.splits, random))]
    if not study.dissimilar_splits:
        return found
    kind_a = study.kind_a or tuple(names)
    kind_b = study.kind_b or tuple(other)
    for setting, kind, there in (("kind_a", kind_a, names), ("kind_b", kind_b, other or names)):
        if unknown := [name for name in kind if name not in there]:
            raise ValueError(f"{setting} names {', '.join(unknown)}; the classes are {', '.join(there)}")
        if len(kind) < 2:
            raise ValueError(f"{setting} has the one class {', '.join(kind)}; expected two or more to tell apart")
    random = np.random.default_rng([study.seed, *b"kinds"])
    drawn = _by_kind(kind_a, kind_b, max(2, len(names) // 2), study.dissimilar_splits, random)
    return found + [Split("dissimilar", number, *halves) for number, halves in enumerate(drawn)]


def _halves(
    names: Sequence[str], count: int, random: np.random.Generator
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    half = len(names) // 2
    possible = comb(len(names), half) // (1 if len(names) % 2 else 2)
    if count and (half < 2 or count > possible):
        raise ValueError(
            f"splits = {count}, but {len(names)} classes have {possible if half > 1 else 0} splits into halves of two classes "
            "or more"
        )
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    seen: set[frozenset[frozenset[str]]] = set()
    while len(found) < count:
        order = [names[i] for i in random.permutation(len(names))]
        # In the data's own order, so that labels follow it; an odd class out goes to B.
        a, b = (tuple(name for name in names if name in part) for part in (order[:half], order[half:]))
        if (pair := frozenset({frozenset(a), frozenset(b)})) not in seen:
            seen.add(pair)
            found.append((a, b))
    return found


def _by_kind(
    kind_a: Sequence[str], kind_b: Sequence[str], half: int, count: int, random: np.random.Generator
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """A single split takes half of all classes from each kind, as a random split has, or all that the kind has.

    Several take as many from each, and leave a choice in both. Each half is drawn by itself, so two splits may still share
    one; they would say little of others, and nothing is tested where all do.
    """
    sizes = min(half, len(kind_a)), min(half, len(kind_b))
    if count > 1 and (both := min(*sizes, len(kind_a) - 1, len(kind_b) - 1)) > 1:
        sizes = both, both
    possible = comb(len(kind_a), sizes[0]) * comb(len(kind_b), sizes[1])
    if count > possible:
        raise ValueError(
            f"dissimilar_splits = {count}, but {sizes[0]} of {len(kind_a)} and {sizes[1]} of {len(kind_b)} classes can be chosen "
            f"in {possible} ways"
        )
    ways = [list(combinations(kind, size)) for kind, size in zip((kind_a, kind_b), sizes)]
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    while len(found) < count:
        a, b = (way[int(random.integers(len(way)))] for way in ways)
        if (a, b) not in found:
            found.append((a, b))
    return found


def class_names(data: config.Data | None, study: Study) -> tuple[str, ...]:
    """The classes of a data set; none of none."""
    return () if data is None else sources.load(data, seed=study.seed, data_dir=study.data_dir).class_names


def load_halves(study: Study, split: Split) -> tuple[Half, Half]:
    """Both halves in one format, A's where they come from two data sets.

    Raises:
      FileNotFoundError: the data are not there.
      ValueError: as `sources.load`; fewer rows of a class than are asked for.
    """
    second = study.other if split.kind == "dissimilar" and study.other is not None else study.data
    a, b, notes = sources.common_format(_load(study, study.data, split.a), _load(study, second, split.b))
    if any(data.train_groups is not None for data in (a, b)):
        notes += " Rows come in groups, which the p-values of the distance do not take into account."
    return _half(a, notes), _half(b, notes)


def _load(study: Study, data: config.Data, classes: tuple[str, ...]) -> sources.Dataset:
    chosen = replace(data, classes=classes, per_class=study.images_per_class, test_per_class=study.test_per_class)
    found = sources.load(chosen, seed=study.seed, data_dir=study.data_dir)
    if found.table is not None:
        raise ValueError(
            f"data.name = {data.name!r} is a table; a study of transferability takes images or rows of numbers"
        )
    return found


def _half(data: sources.Dataset, notes: str) -> Half:
    return Half(Rows(data.train_x, data.train_y), Rows(data.test_x, data.test_y), data.class_names, notes.strip())
