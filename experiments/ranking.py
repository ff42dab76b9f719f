"""ROC AUC with its jackknife over groups: how well scores tell two classes apart, whatever the threshold."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from mmd_jax.intervals import Interval, binomial_interval


class Ranking(NamedTuple):
    """ROC AUC of some rows.

    Attributes:
      auc: share of the pairs of a positive and a negative row in which the positive one has the larger score; ties count
        half. In [0, 1].
      without: the same without each group in turn, shape [k].
      least: units of the class (or of the groups) that has the fewest.
    """

    auc: float
    without: np.ndarray
    least: int


def roc_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None) -> Ranking | None:
    """ROC AUC, and what it would be without each group: U-statistics, from one sorting of the rows.

        AUC = U / PN,  AUC without g = (U − Σ_{i∈g} w_i + U_g) / (P − P_g)(N − N_g)

    where w_i counts the pairs that row i takes part in and that are in the right order.

    Args:
      labels: 1 for a positive row, 0 for a negative one, [n].
      scores: larger for rows that are more likely positive, [n].
      groups: of rows that depend on each other, [n]; none: each row is its own, as in DeLong's variance.

    Returns:
      The ranking; None where it is not defined, with all rows or without one of the groups: there is no pair.

    Reference: DeLong, DeLong and Clarke-Pearson, Biometrics 1988; Obuchowski, Nonparametric analysis of clustered ROC curve
    data, Biometrics 1997.
    """
    positive = np.asarray(labels) == 1
    scores = np.asarray(scores, np.float64)
    own = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    k = int(own.max()) + 1 if len(own) else 0
    in_group = np.stack([np.bincount(own[side], minlength=k) for side in (positive, ~positive)])
    total = in_group.sum(axis=1)
    left = (total[:, None] - in_group).prod(axis=0)
    if k < 2 or not total.all() or not left.all():
        return None
    # The rank among all less the rank among one's own: how many of the other class lie below, ties half.
    below = stats.rankdata(scores)
    for side in (positive, ~positive):
        below[side] -= stats.rankdata(scores[side])
    won = np.where(positive, below, total[0] - below)
    pairs = won[positive].sum()
    inside = np.zeros(k) if groups is None else _inside(positive, scores, own, k)
    without = (pairs - np.bincount(own, weights=won, minlength=k) + inside) / left
    return Ranking(float(pairs / total.prod()), without, int(min(*total, k)))


def _inside(positive: np.ndarray, scores: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """Of the pairs whose rows are both in the group, how many are in the right order, [k]."""
    found = np.zeros(k)
    order = np.argsort(own, kind="stable")
    for g, rows in enumerate(np.split(order, np.cumsum(np.bincount(own, minlength=k))[:-1])):
        a, b = scores[rows][positive[rows]], np.sort(scores[rows][~positive[rows]])
        found[g] = (np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")).sum() / 2
    return found


def auc_interval(ranking: Ranking, level: float = 0.95) -> Interval:
    """The interval of an AUC, by the jackknife over groups; within [0, 1]."""
    return _within(_jackknife(ranking.auc, ranking.without, level, ranking.least), 0.0)


def auc_difference(a: Ranking, b: Ranking, level: float = 0.95) -> Interval:
    """The interval of a's AUC less b's, on the same rows; within [−1, 1]."""
    return _within(_jackknife(a.auc - b.auc, a.without - b.without, level, min(a.least, b.least)), -1.0)


def jackknife_variance(without: np.ndarray) -> float:
    """(k − 1)/k Σ_g (θ_(g) − mean θ_(·))², of the k values without one group each."""
    k = len(without)
    return float((k - 1) / k * ((without - without.mean()) ** 2).sum())


def _jackknife(estimate: float, without: np.ndarray, level: float, least: int) -> Interval:
    k = len(without)
    half = stats.t.ppf((1 + level) / 2, k - 1) * np.sqrt(jackknife_variance(without))
    if half < 1e-12:
        half = unseen(least, level)
    return Interval(estimate, float(estimate - half), float(estimate + half), level, k)


def unseen(least: int, level: float) -> float:
    """Half a width where nothing varies, as where all pairs are in order: so many units show an error only if not too rare."""
    return 1 - binomial_interval(least, least, level).low


def _within(interval: Interval, low: float) -> Interval:
    return interval._replace(low=max(low, interval.low), high=min(1.0, interval.high))
