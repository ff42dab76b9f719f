"""How well each signal ranks the entries of a library: rank correlation with what reuse reached, over targets."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mmd_jax.intervals import Interval, t_interval

DRAWS = 200  # of the random ranking, for each target


class Agreement(NamedTuple):
    """One signal.

    Attributes:
      signal: its name.
      spearman: mean over targets of the rank correlation between signal and accuracy, with Student's interval.
      kendall: the same of Kendall's τ_b.
      lost: mean over targets of (best accuracy of any entry − accuracy of the entry that the signal puts first).
    """

    signal: str
    spearman: Interval
    kendall: Interval
    lost: Interval


def agreements(
    accuracy: Mapping[str, Mapping[str, float]],
    signals: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    seed: int = 0,
) -> list[Agreement]:
    """Every signal that all entries have on all targets, the highest mean first; and a random ranking.

    Args:
      accuracy: {target: {entry: share of test rows}}.
      signals: {signal: {target: {entry: value, higher for better}}}.
      seed: of the random rankings.
    """
    random = np.random.default_rng(seed)
    found = [_agreement(name, accuracy, of) for name, of in signals.items() if _complete(of, accuracy)]
    found.sort(key=lambda one: -one.spearman.estimate)
    return [*found, _random(accuracy, random)]


def _complete(of: Mapping[str, Mapping[str, float]], accuracy: Mapping[str, Mapping[str, float]]) -> bool:
    return all(
        entry in of.get(target, {}) and np.isfinite(of[target][entry])
        for target in accuracy
        for entry in accuracy[target]
    )


def _agreement(
    name: str, accuracy: Mapping[str, Mapping[str, float]], of: Mapping[str, Mapping[str, float]]
) -> Agreement:
    values = [_of_target([of[t][e] for e in reached], list(reached.values())) for t, reached in accuracy.items()]
    return Agreement(name, *(t_interval(column) for column in zip(*values, strict=True)))


def _of_target(signal: Sequence[float], reached: Sequence[float]) -> tuple[float, float, float]:
    """(ρ, τ_b, lost); entries that all have one value are not ranked at all, which is a correlation of 0."""
    x, y = np.asarray(signal, float), np.asarray(reached, float)
    lost = float(y.max() - y[x == x.max()].mean())
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 0.0, lost
    return float(stats.spearmanr(x, y).statistic), float(stats.kendalltau(x, y).statistic), lost


def _random(accuracy: Mapping[str, Mapping[str, float]], random: np.random.Generator) -> Agreement:
    """The mean of many random rankings of each target: no correlation, and the loss of a blind choice."""
    values = []
    for reached in accuracy.values():
        draws = [_of_target(list(random.permutation(len(reached))), list(reached.values())) for _ in range(DRAWS)]
        values.append(np.mean(draws, axis=0))
    return Agreement("random", *(t_interval(column) for column in zip(*values, strict=True)))


def by_signal(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """{signal: {target: {entry: value}}} of the cells of a study; a signal's name says where it looks."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        values = {f"{name}, {where}": v for where, of in row["signals"].items() for name, v in of.items()}
        for name, value in {**values, "size of the source": row["rows"]}.items():
            sums.setdefault((name, row["target"], row["entry"]), []).append(np.nan if value is None else value)
    for (name, target, entry), several in sums.items():
        found.setdefault(name, {}).setdefault(target, {})[entry] = float(np.mean(several))
    return found


def by_target(rows: Sequence[Mapping[str, Any]], way: str) -> dict[str, dict[str, float]]:
    """{target: {entry: accuracy}} of one way, the mean over seeds."""
    sums: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        sums.setdefault(row["target"], {}).setdefault(row["entry"], []).append(row["accuracy"][way])
    return {target: {entry: float(np.mean(v)) for entry, v in of.items()} for target, of in sums.items()}
