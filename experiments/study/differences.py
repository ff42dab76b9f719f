"""Every network of the transferability study beside the base network of its own: same split, half and seed.

Halves differ in how hard they are, often by more than a treatment changes, so an accuracy is compared with nothing but the
base network that was tested on the same rows. Splits are the independent units: networks are averaged within a split.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmd_jax.intervals import t_interval

BASE, LONG = "base", "long"  # the treatments without copied layers
OVER_SPLITS, OVER_NETWORKS = "splits", "networks of one split"


class Key(NamedTuple):
    """What a network shares with its base network.

    Attributes:
      kind: how the classes were split, "random" or "dissimilar".
      split: its number within the kind.
      target: the half it was trained on last and tested on, "A" or "B".
      seed: of the initial weights and the order of the rows.
    """

    kind: str
    split: int
    target: str
    seed: int


class Network(NamedTuple):
    """One network beside its base network.

    Attributes:
      key: what both share.
      treatment: such as "AnB+".
      n: layers copied; 0 for "base" and "long".
      accuracy: share of the target half's test rows that are right.
      base: the base network's.
      difference: accuracy − base.
      relative: difference / base; NaN where base is 0.
    """

    key: Key
    treatment: str
    n: int
    accuracy: float
    base: float
    difference: float
    relative: float


class Estimate(NamedTuple):
    """A mean with its interval.

    Attributes:
      estimate: mean over splits of the means within a split.
      low: lower end; none where there is no interval: of one unit, or of units that are all equal.
      high: upper end.
      over: what the interval is over: "splits"; "splits that share half B" (or A), which says nothing about other classes
        there; "networks of one split", which says nothing about other splits; or none.
      num: units behind it.
    """

    estimate: float
    low: float | None
    high: float | None
    over: str | None
    num: int


def paired(rows: Sequence[Mapping[str, Any]]) -> list[Network]:
    """Every trained network beside its base network.

    Args:
      rows: one a network (those of distances are passed over), with "kind", "split", "target", "seed", "treatment", "n"
        and "accuracy".

    Returns:
      One a row, in their order; the base networks too, with difference 0.

    Raises:
      ValueError: a network without its base, a network that is there twice, an accuracy outside [0, 1], or no network.
    """
    rows = [row for row in rows if row["treatment"] != "distance"]
    if not rows:
        raise ValueError("there is no row of a trained network; run the study first")
    seen = set()
    for row in rows:
        name = (key_of(row), row["treatment"], row["n"])
        if name in seen:
            raise ValueError(f"two rows are of the network {_words(row)}; expected each network once")
        seen.add(name)
        if row["accuracy"] is None or not 0 <= row["accuracy"] <= 1:
            raise ValueError(f"accuracy of {_words(row)} is {row['accuracy']}; expected a share between 0 and 1")
    base = {key_of(row): float(row["accuracy"]) for row in rows if row["treatment"] == BASE}
    networks = []
    for row in rows:
        key, accuracy = key_of(row), float(row["accuracy"])
        if key not in base:
            raise ValueError(
                f"the network {_words(row)} has no base network of the same split, half and seed to be compared with; "
                "train it too"
            )
        difference = accuracy - base[key]
        relative = difference / base[key] if base[key] else math.nan
        networks.append(Network(key, row["treatment"], row["n"], accuracy, base[key], difference, relative))
    return networks


def key_of(row: Mapping[str, Any]) -> Key:
    """What this row's network shares with its base network."""
    return Key(row["kind"], row["split"], row["target"], row["seed"])


def shared_halves(halves: Sequence[Mapping[str, Any]], networks: Sequence[Network]) -> dict[str, str]:
    """The kinds whose splits all have the same classes in a half, so that they are no independent draws: it differs from
    split to split by initialisation alone.

    Args:
      halves: of each split "kind", "split" and the classes of "A" and "B".
      networks: whose splits count.

    Returns:
      Kind -> "half B", say; kinds with one split are not among them.
    """
    trained = {network.key[:2] for network in networks}
    found = {}
    for kind in dict.fromkeys(kind for kind, _ in trained):
        splits = [half for half in halves if half["kind"] == kind and (kind, half["split"]) in trained]
        same = [name for name in "AB" if len({frozenset(split[name]) for split in splits}) == 1]
        if len(splits) > 1 and same:
            found[kind] = "half " + " and half ".join(same)
    return found


def split_means(values: Mapping[Key, float]) -> dict[int, float]:
    """Mean over directions and seeds within each split of one kind, by the split's number."""
    splits = sorted({key.split for key in values})
    return {split: float(np.mean([value for key, value in values.items() if key.split == split])) for split in splits}


def alike(values: Sequence[float]) -> bool:
    """Whether all are equal, as shares of few rows may be: Student's interval then has no width, which no one can mean.

    Differences of shares that are equal in exact arithmetic differ by some 1e-17.
    """
    return bool(np.ptp(values) < 1e-12)


def estimate(values: Mapping[Key, float], level: float = 0.95, *, shared: str = "") -> Estimate:
    """The mean over splits with Student's interval, degrees of freedom = splits − 1.

    With one split the interval is over its networks (directions and seeds) and marked so; with one network, or where all
    are alike, there is none.

    Args:
      values: of one kind of split, by network.
      level: nominal coverage.
      shared: the half that all splits have in common; "": none.

    Returns:
      The estimate; NaN with no interval where a value is NaN.
    """
    means = list(split_means(values).values())
    mean = float(np.mean(means))
    over_splits = f"{OVER_SPLITS} that share {shared}" if shared else OVER_SPLITS
    units, over = (means, over_splits) if len(means) > 1 else (list(values.values()), OVER_NETWORKS)
    if len(units) < 2 or not np.isfinite(units).all() or alike(units):
        return Estimate(mean, None, None, None, len(units))
    interval = t_interval(units, level)
    return Estimate(mean, interval.low, interval.high, over, interval.num)


def _words(row: Mapping[str, Any]) -> str:
    return f"{row['treatment']}, n = {row['n']}, {row['kind']} split {row['split']}, half {row['target']}, seed {row['seed']}"
