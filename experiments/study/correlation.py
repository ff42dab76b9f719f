"""Does x go with y from split to split, within each layer? Both may trend with depth, which must not count.

Plain statistics of two tables, splits × layers: nothing here knows what x and y are.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

EXACT = 5040  # permutations of the splits up to which all are tried (7 splits)
RANDOM = 4999  # drawn where there are more
_NEAR_ONE = 1 - 1e-12  # Fisher's z of ±1 is infinite


class Correlation(NamedTuple):
    """A correlation over splits.

    Attributes:
      r: in [−1, 1]; none where it is not defined.
      low: lower end of its interval; none where there is no interval.
      high: upper end.
      pvalue: two-sided, that x and y are unrelated; of permutations for pooled layers, else none.
      num_splits: independent units behind it.
      columns: which columns of the tables went in, numbered from 0.
      reason: why r or its interval is missing; "" where nothing is.
    """

    r: float | None
    low: float | None
    high: float | None
    pvalue: float | None
    num_splits: int
    columns: tuple[int, ...]
    reason: str


def within(x: Any, y: Any, level: float = 0.95) -> list[Correlation]:
    """Pearson's correlation over splits in each layer by itself, with Fisher's interval.

        tanh(atanh r ± Φ⁻¹((1 + level)/2) / √(S − 3))

    Args:
      x: one value a split and layer, shape [S, K]; NaN where there is none.
      y: likewise.
      level: nominal coverage.

    Returns:
      One correlation a layer, over the splits that have both values; an interval from four splits on.

    Raises:
      ValueError: tables of different shapes.
    """
    x, y = _tables(x, y)
    return [_pearson(x[:, k], y[:, k], k, level) for k in range(x.shape[1])]


def pooled(x: Any, y: Any, level: float = 0.95, *, seed: int = 0) -> Correlation:
    """One correlation from all layers, of what is left when every layer's own mean and scale are taken out.

        r = 1/K Σ_k r_k,  r_k the correlation over splits in layer k

    It is the correlation of all S·K standardised points. The layers of a split depend on each other, so the splits are
    the units: the interval is tanh(z ± t(level; S − 1) · e), with z = atanh r and its jackknife error e over splits,

        e² = (S − 1)/S Σ_i (z₋ᵢ − mean z₋)²

    and the p-value shuffles whole splits, all layers together: every order where there are at most 5,040, else 4,999 at
    random and the observed one. Over 4,000 draws of 4, 5, 6 and 10 normal splits with seven layers each, of every mix of
    correlations between layers tried and r = 0, .5 and .8, the 95 % interval covered between .938 and .985.

    Args:
      x: one value a split and layer, shape [S, K]; NaN where there is none.
      y: likewise.
      level: nominal coverage.
      seed: of the random orders.

    Returns:
      The correlation over the layers in which every split has both values and neither is constant; none with fewer than
      four splits.

    Raises:
      ValueError: tables of different shapes.
    """
    x, y = _tables(x, y)
    whole = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    varies = np.array([_varies(x[:, k]) and _varies(y[:, k]) for k in range(x.shape[1])], bool)
    columns = tuple(int(k) for k in np.flatnonzero(whole & varies))
    splits = len(x)
    if splits < 4:
        return Correlation(None, None, None, None, splits, columns, f"{_splits(splits)}; at least 4 are needed")
    if not columns:
        return Correlation(
            None, None, None, None, splits, columns, "no layer has both values, and varying, in every split"
        )
    x, y = x[:, columns], y[:, columns]
    r = _mean_correlation(x, y)
    pvalue = _permuted(x, y, seed)
    left_out = []
    for i in range(splits):
        a, b = np.delete(x, i, axis=0), np.delete(y, i, axis=0)
        if not all(_varies(column) for column in (*a.T, *b.T)):
            reason = "without one of the splits a layer does not vary, so there is no interval"
            return Correlation(r, None, None, pvalue, splits, columns, reason)
        left_out.append(_fisher(_mean_correlation(a, b)))
    error = math.sqrt((splits - 1) * np.var(left_out))
    half = float(stats.t.ppf((1 + level) / 2, splits - 1)) * error
    z = _fisher(r)
    return Correlation(r, math.tanh(z - half), math.tanh(z + half), pvalue, splits, columns, "")


def naive(x: Any, y: Any) -> float | None:
    """Pearson's correlation of all splits and layers together: what a trend of both with depth alone makes large.

    Args:
      x: shape [S, K]; NaN where there is no value.
      y: likewise.

    Returns:
      r, or none where it is not defined.
    """
    x, y = _tables(x, y)
    there = np.isfinite(x) & np.isfinite(y)
    if there.sum() < 3 or not (_varies(x[there]) and _varies(y[there])):
        return None
    return _mean_correlation(x[there][:, None], y[there][:, None])


def standardised(x: Any) -> np.ndarray:
    """Each column less its mean, in units of its standard deviation over splits; 0 where it does not vary. [S, K]."""
    x = np.asarray(x, np.float64)
    spread = np.array([np.std(column, ddof=1) if len(column) > 1 and _varies(column) else math.inf for column in x.T])
    return (x - x.mean(axis=0, keepdims=True)) / spread[None]


def _tables(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; expected the same shape, [splits, layers]")
    return x, y


def _pearson(x: np.ndarray, y: np.ndarray, column: int, level: float) -> Correlation:
    there = np.isfinite(x) & np.isfinite(y)
    x, y, splits = x[there], y[there], int(there.sum())
    if splits < 3:
        return Correlation(None, None, None, None, splits, (column,), f"{_splits(splits)}; at least 3 are needed")
    if not (_varies(x) and _varies(y)):
        return Correlation(None, None, None, None, splits, (column,), "one of the two is the same in every split")
    r = _mean_correlation(x[:, None], y[:, None])
    if splits < 4:
        return Correlation(r, None, None, None, splits, (column,), f"{_splits(splits)}; an interval needs at least 4")
    half = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(splits - 3)
    z = _fisher(r)
    return Correlation(r, math.tanh(z - half), math.tanh(z + half), None, splits, (column,), "")


def _varies(values: np.ndarray) -> bool:
    """False for what differs by rounding only."""
    return bool(np.ptp(values) > 1e-12 * np.abs(values).max(initial=0.0))


def _mean_correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0, keepdims=True), y - y.mean(axis=0, keepdims=True)
    each = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return float(np.clip(each.mean(), -1, 1))


def _fisher(r: float) -> float:
    return math.atanh(max(-_NEAR_ONE, min(_NEAR_ONE, r)))


def _permuted(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    # products[i, j] is what split i's x beside split j's y adds to r, so each order costs S additions.
    products = standardised(x) @ standardised(y).T
    splits = len(x)
    if math.factorial(splits) <= EXACT:
        orders = np.array(list(itertools.permutations(range(splits))))[1:]  # without the observed order, the first
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(splits), (RANDOM, 1)), axis=1)
    found = np.abs(products[orders, np.arange(splits)[None]].sum(axis=1))
    observed = abs(np.trace(products))
    # Orders that give the same value in exact arithmetic must count as equal.
    return float((1 + (found >= observed * (1 - 1e-9) - 1e-12).sum()) / (1 + len(orders)))


def _splits(count: int) -> str:
    return f"only {count} split{'' if count == 1 else 's'}"
