"""Rows of arms → means and paired differences over seeds, and what may be said of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments import workdir
from experiments.pairing.settings import Pairings
from experiments.sources import Dataset
from mmd_jax.intervals import holm, t_interval

LEVEL = 0.95


class Comparison(NamedTuple):
    """An arm beside another one that learnt from the target alone (or from less of the source).

    Attributes:
      pairing: "S→S", "S→U", "U→S" or "U→U".
      arm: with transfer.
      beside: the other arm.
      metrics: of "accuracy", "ari", "nmi".
    """

    pairing: str
    arm: str
    beside: str
    metrics: tuple[str, ...]


CLUSTERS = ("ari", "nmi")
COMPARISONS = (
    Comparison("S→S", "S→S", "scratch", ("accuracy",)),
    Comparison("S→U", "source", "pixels", CLUSTERS),
    Comparison("S→U", "source", "random", CLUSTERS),
    Comparison("S→U", "adapted", "pixels", CLUSTERS),
    Comparison("S→U", "adapted", "source", ("accuracy", *CLUSTERS)),
    Comparison("U→S", "U→S", "scratch", ("accuracy",)),
    Comparison("U→U", "autoencoder", "pixels", CLUSTERS),
    Comparison("U→U", "autoencoder", "random", CLUSTERS),
    Comparison("U→U", "autoencoder+", "own autoencoder", CLUSTERS),
    Comparison("U→U", "autoencoder+", "pixels", CLUSTERS),
)


class Mean(NamedTuple):
    """A mean over seeds with Student's interval; none where all values are alike.

    Attributes:
      estimate: the mean.
      low: lower end of the interval.
      high: upper end.
      num: seeds.
    """

    estimate: float
    low: float | None
    high: float | None
    num: int


class Line(NamedTuple):
    """One line of the table.

    Attributes:
      pairing, arm, beside: of a `Comparison`.
      labels: how many target rows are labelled; 0 where none is.
      metric: "accuracy", "ari" or "nmi".
      reached: by the arm.
      reached_beside: by the other.
      difference: arm − other, seed by seed.
      pvalue: of no difference, by Student's paired test, adjusted by Holm's method over all lines; none where all are alike.
      verdict: "better" or "worse" where this is at most 1 − level; else "unclear".
      values: the differences, one a seed.
    """

    pairing: str
    arm: str
    beside: str
    labels: int
    metric: str
    reached: Mean
    reached_beside: Mean
    difference: Mean
    pvalue: float | None
    verdict: str
    values: tuple[float, ...]


def summarise(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that the report shows, from the rows of the arms.

    Args:
      header: of `header`.
      rows: of `cells.run_cells`: "seed", "arm", "labels", and the arm's numbers.

    Raises:
      ValueError: an arm lacks a seed that the arm beside it has.
    """
    return workdir.plain({"header": header, "level": LEVEL, "lines": lines(rows), "arms": arms(rows), "rows": rows})


def lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Every comparison for which there are numbers."""
    found = [line for comparison in COMPARISONS for line in _lines(comparison, rows)]
    known = [i for i, line in enumerate(found) if line.pvalue is not None]
    adjusted: Sequence[float] = holm([found[i].pvalue for i in known]).tolist() if known else []
    for i, pvalue in zip(known, adjusted, strict=True):
        line = found[i]
        side = "better" if line.difference.estimate > 0 else "worse"
        found[i] = line._replace(pvalue=float(pvalue), verdict=side if pvalue <= 1 - LEVEL + 1e-12 else "unclear")
    return found


def _lines(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    pairing, arm, beside, metrics = comparison
    for labels in dict.fromkeys(row["labels"] for row in rows if row["arm"] == arm):
        for metric in metrics:
            ours, theirs = (_by_seed(rows, name, labels, metric) for name in (arm, beside))
            if not ours or not theirs:
                continue  # accuracies of the source's classes, where the target has others
            if ours.keys() != theirs.keys():
                missing = sorted(ours.keys() ^ theirs.keys())
                raise ValueError(
                    f"{arm} and {beside} were not run for the same seeds; seed {missing[0]} is missing for one"
                )
            values = [ours[seed] - theirs[seed] for seed in ours]
            pvalue = None if alike(values) else float(stats.ttest_1samp(values, 0).pvalue)
            yield Line(
                pairing,
                arm,
                beside,
                labels,
                metric,
                mean(list(ours.values())),
                mean(list(theirs.values())),
                mean(values),
                pvalue,
                "unclear",
                tuple(values),
            )


def arms(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The means of every number of every arm: {"arm", "labels", name: Mean, …}."""
    found = []
    for arm, labels in dict.fromkeys((row["arm"], row["labels"]) for row in rows):
        own = [row for row in rows if (row["arm"], row["labels"]) == (arm, labels)]
        names = [name for name in ("accuracy", "ari", "nmi", "source_accuracy", "mmd2", "explained") if name in own[0]]
        found.append({"arm": arm, "labels": labels, **{name: mean([row[name] for row in own]) for name in names}})
    return found


def mean(values: Sequence[float]) -> Mean:
    """The mean over seeds, with its interval.

    >>> mean([0.5, 0.5, 0.5])
    Mean(estimate=0.5, low=None, high=None, num=3)
    """
    estimate = float(np.mean(values))
    if len(values) < 2 or alike(values):
        return Mean(estimate, None, None, len(values))
    interval = t_interval(values, LEVEL)
    return Mean(estimate, interval.low, interval.high, len(values))


def alike(values: Sequence[float]) -> bool:
    """Whether all are equal: Student's interval then has no width, which no one can mean."""
    return bool(np.ptp(values) < 1e-12)


def _by_seed(rows: Sequence[Mapping[str, Any]], arm: str, labels: int, metric: str) -> dict[int, float]:
    return {row["seed"]: row[metric] for row in rows if row["arm"] == arm and row["labels"] == labels and metric in row}


def header(
    settings: Pairings,
    source: Dataset,
    target: Dataset,
    notes: str,
    command: str,
    *,
    adapted: Sequence[str],
    features: str,
) -> dict[str, Any]:
    """What the report needs to know beside the rows."""
    return {
        "name": settings.name,
        "source": settings.source.name,
        "target": settings.target.name,
        "source_rows": len(source.train_y),
        "target_rows": len(target.train_y),
        "test_rows": len(target.test_y),
        "classes": target.class_names,
        "same_classes": source.class_names == target.class_names,
        "clusters": settings.clusters or len(target.class_names),
        "shape": source.train_x.shape[1:],
        "notes": notes,
        "seeds": settings.seeds,
        "labels": settings.labels,
        "weight": settings.weight,
        "adapted": adapted,
        "features": features,
        "settings": workdir.plain(settings),
        "command": command,
    }
