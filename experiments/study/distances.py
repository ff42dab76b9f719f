"""Does the MMD at layer n predict what freezing n layers costs? Both change with depth, so it is asked within layers.

And within kinds of splits, which differ in both for reasons of their own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.report.transferability_evidence import correlation as text
from experiments.study.correlation import Correlation, naive, pooled, standardised, within
from experiments.study.differences import Key, Network, key_of


class Beside(NamedTuple):
    """Distance and cost of one split: means over directions and seeds.

    Attributes:
      kind: of the split.
      split: its number.
      mmd2: unbiased MMD² between the halves at layers 1 … L, [L], in units of the kernel; NaN at a dead layer.
      drop: accuracy of base − of AnB with n layers frozen, for n = 1 … L − 1, [L − 1], as a share; NaN where n was left out.
      rejected: of the tests at each layer, how many reject that the halves are alike, [L].
      tested: and how many there were, [L].
    """

    kind: str
    split: int
    mmd2: np.ndarray
    drop: np.ndarray
    rejected: np.ndarray
    tested: np.ndarray


class Prediction(NamedTuple):
    """What a set of splits says.

    Attributes:
      splits: their kinds: "random and dissimilar", "random", or "dissimilar".
      within: one correlation a layer 1 … L − 1; without an interval over two kinds.
      pooled: from all layers, each centred and scaled over the splits of each kind.
      naive: of all layers and splits without centring, shown as a warning; none where it is not defined.
      points: what `pooled` is the correlation of: (kind, split, n, MMD², drop) of each split and layer that went in, both
        less their mean over the splits of their kind and in units of their standard deviation over these.
      verdict: "more" (a larger MMD² goes with a larger drop), "less", or "open".
      sentence: the same in words, no stronger than interval and p-value.
    """

    splits: str
    within: list[Correlation]
    pooled: Correlation
    naive: float | None
    points: list[tuple[str, int, int, float, float]]
    verdict: str
    sentence: str


def beside(
    rows: Sequence[Mapping[str, Any]], networks: Sequence[Network], num_layers: int, level: float = 0.95
) -> list[Beside]:
    """MMD² and drop of every split that has both.

    Args:
      rows: of the study; those with treatment "distance" are read, with "mmd2" and "pvalue" of L numbers or none.
      networks: the networks, paired with their base.
      num_layers: L.
      level: a test rejects at 1 − level.

    Returns:
      One a split, random ones first.

    Raises:
      ValueError: a distance with other than L numbers.
    """
    distances: dict[Key, tuple[np.ndarray, np.ndarray]] = {}
    for row in rows:
        if row["treatment"] == "distance":
            distances[key_of(row)] = _numbers(row, "mmd2", num_layers), _numbers(row, "pvalue", num_layers)
    drops: dict[Key, np.ndarray] = {}
    for network in networks:
        if network.treatment == "AnB" and network.key in distances:
            drops.setdefault(network.key, np.full(num_layers - 1, math.nan))[network.n - 1] = -network.difference
    found = []
    for kind, split in sorted({(key.kind, key.split) for key in drops}, key=lambda name: (name[0] != "random", name)):
        keys = [key for key in drops if (key.kind, key.split) == (kind, split)]
        pvalues = np.array([distances[key][1] for key in keys])
        found.append(
            Beside(
                kind,
                split,
                # A layer that is dead in one of the networks has no mean: it would be one of other networks.
                np.mean([distances[key][0] for key in keys], axis=0),
                np.mean([drops[key] for key in keys], axis=0),
                (pvalues <= 1 - level).sum(axis=0),
                np.isfinite(pvalues).sum(axis=0),
            )
        )
    return found


def predictions(found: Sequence[Beside], level: float = 0.95) -> list[Prediction]:
    """What all splits together say, each compared with those of its kind, and the random ones alone; once where there is
    one kind only. The single split of a kind has nothing to be compared with: it is left out, and the sentence says so."""
    kinds = {kind: [split for split in found if split.kind == kind] for kind in dict.fromkeys(s.kind for s in found)}
    used = [kind for kind, splits in kinds.items() if len(splits) > 1] or list(kinds)[:1]
    sets = [used, ["random"]] if len(used) > 1 and "random" in used else [used] if used else []
    alone = " ".join(
        f"The one {kind} split is left out: there is no other of its kind to compare it with."
        for kind in kinds
        if kind not in used
    )
    made = [_predicted(" and ".join(names), [s for kind in names for s in kinds[kind]], level) for names in sets]
    return [one._replace(sentence=f"{one.sentence} {alone}".rstrip()) for one in made]


def _predicted(name: str, splits: Sequence[Beside], level: float) -> Prediction:
    drop, kinds = np.array([split.drop for split in splits]), [split.kind for split in splits]
    mmd2 = np.array([split.mmd2 for split in splits])[:, : drop.shape[1]]
    one, trend = pooled(mmd2, drop, level, kinds=kinds), naive(mmd2, drop)
    columns = list(one.columns)
    x, y = standardised(mmd2[:, columns], kinds), standardised(drop[:, columns], kinds)
    points = [
        (split.kind, split.split, column + 1, float(x[i, k]), float(y[i, k]))
        for i, split in enumerate(splits)
        for k, column in enumerate(columns)
    ]
    verdict = _verdict(one, 1 - level)
    sentence = _sentence(name, one, trend, verdict, 1 - level)
    return Prediction(name, within(mmd2, drop, level, kinds=kinds), one, trend, points, verdict, sentence)


def _verdict(one: Correlation, alpha: float) -> str:
    """A side is taken only where both the interval and the permutations allow it."""
    if one.low is None or one.high is None or one.pvalue is None or one.pvalue > alpha:
        return "open"
    return "more" if one.low > 0 else "less" if one.high < 0 else "open"


def _sentence(splits: str, one: Correlation, trend: float | None, verdict: str, alpha: float) -> str:
    inside = "Within layers and kinds" if one.num_kinds > 1 else "Within layers"
    where = f"over {one.num_splits} {splits} split{'' if one.num_splits == 1 else 's'}"
    if one.r is None:
        said = f"Whether the MMD at layer n predicts what freezing n layers costs can't be said {where}: {one.reason}."
    elif one.low is None:
        said = f"{inside}, {where}, MMD² and the cost of freezing correlate with r = {text(one.r)}; {one.reason}."
    else:
        numbers = f"r = {text(one.r)} ({text(one.low)} … {text(one.high)}), permutation p = {one.pvalue:.2g}"
        claim = {
            "more": "splits whose halves are farther apart at layer n lose more from freezing n layers",
            "less": "splits whose halves are farther apart at layer n lose less from freezing n layers",
            "open": "the MMD² at layer n is not seen to predict what freezing n layers costs",
        }[verdict]
        split_minds = verdict == "open" and ((one.pvalue or 0.0) <= alpha or one.low * (one.high or 0.0) > 0)
        doubt = "; interval and permutation test do not agree, so no side is taken" if split_minds else ""
        said = f"{inside}, {where}, {claim}: {numbers}{doubt}."
    if trend is not None:
        said += (
            f" (All layers and splits together, without centring, give r = {text(trend)}; a trend of both with depth is "
            "enough for that, so it is no evidence.)"
        )
    return said


def _numbers(row: Mapping[str, Any], name: str, num_layers: int) -> np.ndarray:
    given = row.get(name)
    values = np.array([math.nan if value is None else value for value in given or [None] * num_layers], float)
    if len(values) != num_layers:
        raise ValueError(
            f"{name} of {row['kind']} split {row['split']}, half {row['target']}, seed {row['seed']} has {len(values)} "
            f"numbers; expected one for each of the {num_layers} layers"
        )
    return values
