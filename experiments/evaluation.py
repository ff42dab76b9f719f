"""From predictions to numbers: accuracy, balanced accuracy, macro-F1, ROC AUC, and paired differences with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score

from experiments.ranking import auc_difference, auc_interval, roc_auc
from mmd_jax.intervals import binomial_interval, paired_interval


def compare(
    labels: np.ndarray,
    chosen: np.ndarray,
    from_scratch: np.ndarray,
    groups: np.ndarray | None,
    *,
    level: float = 0.95,
    scores: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """The `accuracy` section of a result: both arms on the same test rows, as pairs.

    Args:
      labels: true classes of the test rows, [n].
      chosen: classes predicted by the reused network, [n].
      from_scratch: classes predicted by the network trained from scratch, [n].
      groups: of dependent rows, [n], or none; the intervals are then over groups.
      level: of the intervals.
      scores: where there are two classes: log-odds of class 1 by the reused network and by the other, each [n].

    Returns:
      {"chosen", "from_scratch", "paired_difference" (chosen − from_scratch), "interval" (of the difference), "level",
      "num_test", "chosen_interval", "from_scratch_interval", "balanced", "macro_f1"}; and, given scores, "roc_auc":
      {"chosen", "from_scratch", "chosen_interval", "from_scratch_interval", "paired_difference", "interval"}, unless the test
      rows are of one class.
    """
    right, right_scratch = (chosen == labels).astype(float), (from_scratch == labels).astype(float)
    difference = paired_interval(right, right_scratch, level, groups=groups)
    arms = {"chosen": chosen, "from_scratch": from_scratch}
    return {
        "chosen": float(right.mean()),
        "from_scratch": float(right_scratch.mean()),
        "paired_difference": float(difference.estimate),
        "interval": [float(difference.low), float(difference.high)],
        "level": level,
        "num_test": len(labels),
        **{f"{name}_interval": binomial(arm == labels, level, groups=groups) for name, arm in arms.items()},
        "balanced": {name: float(balanced_accuracy_score(labels, arm)) for name, arm in arms.items()},
        "macro_f1": {
            name: float(f1_score(labels, arm, average="macro", zero_division=0)) for name, arm in arms.items()
        },
        **({} if scores is None else _ranked(labels, *scores, groups, level)),
    }


def _ranked(
    labels: np.ndarray, chosen: np.ndarray, from_scratch: np.ndarray, groups: np.ndarray | None, level: float
) -> dict[str, Any]:
    """The `roc_auc` section; empty where it is not defined."""
    a, b = roc_auc(labels, chosen, groups), roc_auc(labels, from_scratch, groups)
    if a is None or b is None:
        return {}
    difference = auc_difference(a, b, level)
    intervals = {name: auc_interval(arm, level) for name, arm in (("chosen", a), ("from_scratch", b))}
    return {
        "roc_auc": {
            **{name: found.estimate for name, found in intervals.items()},
            **{f"{name}_interval": [found.low, found.high] for name, found in intervals.items()},
            "paired_difference": difference.estimate,
            "interval": [difference.low, difference.high],
        }
    }


def negative_transfer(accuracy: Mapping[str, Any], *, reused: bool) -> bool | None:
    """Whether reuse is worse than training from scratch, in accuracy or in ROC AUC, beyond the interval of the paired difference.

    Args:
      accuracy: with "interval", of chosen − from scratch, and where there are two classes the same in "roc_auc"; the ends
        may be no numbers.
      reused: whether the network was reused at all.

    Returns:
      True: one of the intervals lies wholly below 0. False: none does, and one lies above. None: it can't be told, or there is
      nothing to tell.

    >>> [negative_transfer({"interval": ends}, reused=True) for ends in ([-0.3, -0.1], [0.1, 0.2], [-0.1, 0.2])]
    [True, False, None]
    >>> negative_transfer({"interval": [-0.1, 0.2], "roc_auc": {"interval": [-0.2, -0.1]}}, reused=True)
    True
    """
    sides = [_side(part["interval"]) for part in (accuracy, accuracy.get("roc_auc")) if part]
    if not reused:
        return None
    return True if -1 in sides else False if 1 in sides else None


def _side(interval: Sequence[float | None]) -> int:
    """-1 where the interval lies below 0, 1 above, 0 where it holds 0 or is not known."""
    low, high = (np.nan if end is None else float(end) for end in interval)
    return int(low > 0) - int(high < 0)


def binomial(right: np.ndarray, level: float, *, groups: np.ndarray | None = None) -> list[float]:
    """The interval of a share of rows, [low, high] in [0, 1]; over groups where rows depend on each other."""
    if groups is None:
        interval = binomial_interval(int(right.sum()), len(right), level)
    elif right.all() or not right.any():
        # The groups' sums don't vary, and Student's interval would be a point: here each group is one trial.
        count = len(np.unique(groups))
        interval = binomial_interval(count if right.all() else 0, count, level)
    else:
        interval = paired_interval(right.astype(float), np.zeros(len(right)), level, groups=groups)
    return [max(0.0, float(interval.low)), min(1.0, float(interval.high))]
