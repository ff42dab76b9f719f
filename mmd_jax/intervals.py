"""Intervals and multiplicity for the numbers of a report. Plain statistics: nothing here knows what MMD is."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """An estimate with its confidence interval.

    Attributes:
      estimate: in the unit of the values.
      low: lower end.
      high: upper end.
      level: nominal coverage.
      num: independent units behind it: trials, values, pairs or groups.
    """

    estimate: float
    low: float
    high: float
    level: float
    num: int


def binomial_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Clopper–Pearson interval of a proportion: it covers with at least its level, for any n and proportion.

        [Beta⁻¹(α/2; s, n − s + 1), Beta⁻¹(1 − α/2; s + 1, n − s)],  α = 1 − level

    Args:
      successes: s, in 0 … n.
      n: trials, at least 1.
      level: nominal coverage, in (0, 1).

    Returns:
      The proportion s / n and its interval.

    Raises:
      ValueError: counts that do not fit, or a level outside (0, 1).

    Example:
      >>> interval = binomial_interval(8, 10)
      >>> round(interval.low, 3), round(interval.high, 3)
      (0.444, 0.975)

    Reference: Clopper and Pearson, Biometrika 1934.
    """
    _check_level(level)
    if n != int(n) or successes != int(successes) or not (n >= 1 and 0 <= successes <= n):
        raise ValueError(
            f"{successes} successes in {n} trials: expected whole numbers with 0 <= successes <= n, n >= 1."
        )
    successes, n = int(successes), int(n)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else stats.beta.ppf(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else stats.beta.ppf(1 - tail, successes + 1, n - successes)
    return Interval(successes / n, float(low), float(high), level, n)


def t_interval(values: Any, level: float = 0.95) -> Interval:
    """Student's interval of a mean: mean ± t(level; k − 1) · s / √k.

    Over seeds or splits, give one mean a split: a bootstrap of three splits covers .75 where .95 is meant.

    Args:
      values: independent, shape [k], k >= 2.
      level: nominal coverage, in (0, 1).

    Returns:
      The mean and its interval.

    Raises:
      ValueError: fewer than two values, values that are not finite, or a level outside (0, 1).

    Example:
      >>> interval = t_interval([1.0, 2.0, 3.0])
      >>> round(interval.estimate, 3), round(interval.low, 3), round(interval.high, 3)
      (2.0, -0.484, 4.484)
    """
    _check_level(level)
    values = _check_values("values", values)
    k = len(values)
    half = stats.t.ppf((1 + level) / 2, k - 1) * values.std(ddof=1) / np.sqrt(k)
    mean = values.mean()
    return Interval(float(mean), float(mean - half), float(mean + half), level, k)


def paired_interval(a: Any, b: Any, level: float = 0.95, groups: Any = None) -> Interval:
    """Interval of the mean difference between paired scores, such as two networks' hits on the same rows.

        mean d ± t(level; k − 1) · √(k/(k − 1) · Σ_g (Σ_{i∈g} (d_i − mean d))²) / n,  d = a − b

    Rows of one group (one writer, one document) may depend on each other: the sum over a group is then the unit, and k
    the number of groups. Without groups every row is its own, and this is `t_interval` of the differences. Both have no
    width where all differences are equal.

    Hits (scores that are all 0 or 1) without groups have Tango's score interval instead: the differences Δ that are not
    rejected, given b rows where only a hits and c where only b hits,

        |b − c − nΔ| ≤ z √(n (2q + Δ(1 − Δ))),  q the likeliest share of rows where only b hits, given Δ

    It has a width even where both arms hit the same rows, stays within [−1, 1], and covers better on few rows.

    Args:
      a: score of each row, shape [n].
      b: score of the same rows, shape [n].
      level: nominal coverage, in (0, 1).
      groups: the group of each row, shape [n]: numbers or names.

    Returns:
      The mean of a − b over rows, and its interval.

    Raises:
      ValueError: different lengths, fewer than two rows or groups, values that are not finite, or a bad level.

    Example:
      >>> interval = paired_interval([1, 1, 1, 1], [1, 1, 1, 1])  # no difference seen, in four rows
      >>> interval.estimate, round(interval.low, 2), round(interval.high, 2)
      (0.0, -0.49, 0.49)

    Reference: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design, Statistics in Medicine 1998; Cameron and Miller, A practitioner's guide to cluster-robust inference, 2015.
    """
    _check_level(level)
    a, b = _check_values("a", a), _check_values("b", b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} scores and b has {len(b)}; pairs need as many of each, in the same order.")
    differences = a - b
    if groups is None:
        hits = np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()
        return _score_interval(differences, level) if hits else t_interval(differences, level)
    if np.shape(groups) != (len(a),):
        raise ValueError(f"groups has shape {np.shape(groups)}; expected one label a row, ({len(a)},).")
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    k = int(numbers.max()) + 1
    if k < 2:
        raise ValueError("all rows are in one group; an interval needs at least two, being independent.")
    mean = differences.mean()
    sums = np.bincount(numbers, weights=differences - mean, minlength=k)
    error = np.sqrt(k / (k - 1) * np.sum(sums**2)) / len(differences)
    half = stats.t.ppf((1 + level) / 2, k - 1) * error
    return Interval(float(mean), float(mean - half), float(mean + half), level, k)


def crossed_interval(scores: Any, level: float = 0.95, groups: Any = None) -> Interval:
    """Interval of the mean of scores by runs and rows, such as hits of R networks on the same n test rows.

        mean e ± t(level; min(R, G) − 1) · √max(V_runs + V_groups − V_both, V_runs, V_groups)

    with V_c = Σ_c (Σ_{(r, i) in c} (e_ri − mean e))² / (R n)² over the R runs, over the G groups of rows, and over the R·G
    crossings, the first two times R/(R − 1) and G/(G − 1). It holds for other runs and for other rows at once, where
    `t_interval` of the runs' means holds for other runs on these rows only.

    Args:
      scores: shape [R, n], R >= 2; of differences, for pairs.
      level: nominal coverage, in (0, 1).
      groups: the group of each row, shape [n], numbers or names; none: each row is its own.

    Returns:
      The mean of all scores and its interval; `num` is min(R, G).

    Raises:
      ValueError: another shape, fewer than two runs or groups, values that are not finite, or a bad level.

    Example:
      >>> interval = crossed_interval([[1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 1, 1]])
      >>> round(interval.estimate, 2), round(interval.low, 2), round(interval.high, 2)
      (0.67, -0.35, 1.68)

    Reference: Cameron, Gelbach and Miller, Robust inference with multiway clustering, 2011.
    """
    _check_level(level)
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or min(scores.shape) < 2 or not np.isfinite(scores).all():
        raise ValueError(f"scores has shape {scores.shape}; expected finite [runs, rows], at least two of each.")
    if groups is None:
        groups = np.arange(scores.shape[1])
    if np.shape(groups) != scores.shape[1:]:
        raise ValueError(f"groups has shape {np.shape(groups)}; expected one label a row, ({scores.shape[1]},).")
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    num_groups = int(numbers.max()) + 1
    if num_groups < 2:
        raise ValueError("all rows are in one group; an interval needs at least two, being independent.")
    mean, num_runs = scores.mean(), len(scores)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(num_groups))
    both = np.add.reduceat((scores - mean)[:, order], starts, axis=1)
    of_runs = num_runs / (num_runs - 1) * np.sum(both.sum(axis=1) ** 2)
    of_groups = num_groups / (num_groups - 1) * np.sum(both.sum(axis=0) ** 2)
    error = np.sqrt(max(of_runs + of_groups - np.sum(both**2), of_runs, of_groups)) / scores.size
    num = min(num_runs, num_groups)
    half = stats.t.ppf((1 + level) / 2, num - 1) * error
    return Interval(float(mean), float(mean - half), float(mean + half), level, num)


def _score_interval(differences: np.ndarray, level: float) -> Interval:
    n, only_a, only_b = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    z = float(stats.norm.ppf((1 + level) / 2))
    low, high = _score_limit(only_a, only_b, n, z), -_score_limit(only_b, only_a, n, z)
    return Interval((only_a - only_b) / n, low, high, level, n)


def _score_limit(only_a: int, only_b: int, n: int, z: float) -> float:
    """The least difference that the score test does not reject, by bisection between −1 and the estimate."""

    def rejected(delta: float) -> bool:
        # The constrained estimate is the larger root of 2n q² + linear · q + constant.
        linear = (2 * n - only_a + only_b) * delta - only_a - only_b
        constant = -only_b * delta * (1 - delta)
        share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        return only_a - only_b - n * delta > z * math.sqrt(max(variance, 0.0))

    low, high = -1.0, (only_a - only_b) / n
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def holm(pvalues: Any) -> np.ndarray:
    """p-values adjusted for having tested several hypotheses, by Holm's method, whatever their dependence.

        p̃_(i) = max_{j <= i} min(1, (k − j + 1) p_(j)),  p_(1) <= … <= p_(k)

    Rejecting where p̃ <= α makes one false rejection or more with probability at most α.

    Args:
      pvalues: shape [k], in [0, 1].

    Returns:
      Adjusted p-values in the order given. Shape [k].

    Raises:
      ValueError: values outside [0, 1].

    Example:
      >>> [round(float(p), 2) for p in holm([0.01, 0.04, 0.03])]
      [0.03, 0.06, 0.06]

    Reference: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    pvalues = np.asarray(pvalues, np.float64)
    if pvalues.ndim != 1 or not ((pvalues >= 0) & (pvalues <= 1)).all():
        raise ValueError(f"pvalues is {pvalues}; expected a vector of numbers in [0, 1].")
    order = np.argsort(pvalues, kind="stable")
    steps = np.minimum(1, (len(pvalues) - np.arange(len(pvalues))) * pvalues[order])
    adjusted = np.empty_like(pvalues)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95.")


def _check_values(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name} has shape {values.shape}; expected a vector of at least two numbers.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int((~np.isfinite(values)).sum())} entries that are NaN or infinite.")
    return values
