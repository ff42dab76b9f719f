"""Who would choose which way, from what is known of a cell; and policies whose thresholds other pairs' cells give.

Plain numbers and names: nothing here trains, measures or reads a file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Ways that every network has (`experiments.candidates.roles`), and so the fixed policies; those that augment last.
FIXED = (
    "linear_probe",
    "finetune_top 1",
    "finetune_top 0.6",
    "finetune_top 0.4",
    "lp_ft",
    "finetune_all",
    "finetune_all full rate",
    "from_scratch",
    "finetune_top 0.4 augmented",
    "finetune_all augmented",
    "finetune_all full rate augmented",
    "from_scratch augmented",
)
ETA = 3  # of successive halving: one way in so many goes on


class Case(NamedTuple):
    """A cell: what each way reached, and what was known before.

    Attributes:
      pair, size, seed: which cell.
      accuracy: {way: on test rows}.
      valid_loss: {way: of its best state, nats a row}.
      steps: {way: training steps}.
      roles: {role of FIXED: way}.
      known: {signal: value}; NaN where there is none.
      choices: {policy: way} of those that need no other pairs.
      audit: (way chosen by successive halving, training steps that took).
    """

    pair: str
    size: int
    seed: int
    accuracy: Mapping[str, float]
    valid_loss: Mapping[str, float]
    steps: Mapping[str, int]
    roles: Mapping[str, str]
    known: Mapping[str, float]
    choices: Mapping[str, str]
    audit: tuple[str, int]

    def regret(self, way: str) -> float:
        """Accuracy that choosing this way gives away, against the best on the test rows."""
        return max(self.accuracy.values()) - self.accuracy[way]


class Split(NamedTuple):
    """A rule with one threshold: `above` where the signal is at least the threshold, else `below`; `unknown` where it is NaN.

    Attributes:
      signal: a name in `Case.known`.
      threshold: in its unit.
      below, above, unknown: roles.
    """

    signal: str
    threshold: float
    below: str
    above: str
    unknown: str

    def __call__(self, case: Case) -> str:
        value = case.known[self.signal]
        if math.isnan(value):
            return self.unknown
        return self.above if value >= self.threshold else self.below

    def __str__(self) -> str:
        if self.below == self.above:
            return self.above
        return f"{self.above} where {self.signal} ≥ {self.threshold:.4g}, else {self.below}"


def regrets_of_roles(cases: Sequence[Case]) -> np.ndarray:
    """What each fixed policy gives away in each case, [cases, roles]."""
    return np.array([[case.regret(case.roles[role]) for role in FIXED] for case in cases])


def weights(cases: Sequence[Case]) -> np.ndarray:
    """Each pair counts the same, however many cells it has: [cases], of sum 1."""
    names = [case.pair for case in cases]
    counts = {name: names.count(name) for name in names}
    return np.array([1 / (counts[name] * len(counts)) for name in names])


def best_fixed(cases: Sequence[Case]) -> str:
    """The fixed policy with the lowest mean regret."""
    return FIXED[int(np.argmin(weights(cases) @ regrets_of_roles(cases)))]


def best_split(cases: Sequence[Case], signal: str, num_thresholds: int = 15) -> Split:
    """The threshold and the two roles that give the lowest mean regret on these cases.

    Thresholds lie midway between neighbouring values, at most `num_thresholds` of them, at even quantiles.
    """
    values = np.array([case.known[signal] for case in cases])
    costs, share = regrets_of_roles(cases), weights(cases)
    unknown = best_fixed(cases)
    there = np.isfinite(values)
    distinct = np.unique(values[there])
    middles = (distinct[1:] + distinct[:-1]) / 2
    if len(middles) > num_thresholds:
        middles = middles[np.linspace(0, len(middles) - 1, num_thresholds).round().astype(int)]
    found = (share @ costs).min(), Split(signal, -math.inf, unknown, unknown, unknown)
    for threshold in middles:
        below, above = there & (values < threshold), there & (values >= threshold)
        sums = [share[part] @ costs[part] for part in (below, above, ~there)]
        total = sums[0].min() + sums[1].min() + (sums[2][FIXED.index(unknown)] if (~there).any() else 0.0)
        if total < found[0] - 1e-12:
            low, high = (FIXED[int(np.argmin(part))] for part in sums[:2])
            found = total, Split(signal, float(threshold), low, high, unknown)
    return found[1]


def left_out(cases: Sequence[Case], learn: Callable[..., Split]) -> list[str]:
    """The way that a rule takes in each case, learned on the cases of all other pairs."""
    rules = {name: learn([case for case in cases if case.pair != name]) for name in {case.pair for case in cases}}
    return [case.roles[rules[case.pair](case)] for case in cases]


def halving(curves: Mapping[str, Sequence[Sequence[float]]], epochs: int) -> tuple[str, int]:
    """Successive halving on validation losses: of n ways ⌈n/3⌉ and then ⌈n/9⌉ go on, from where they stand.

    All are trained for a ninth of the epochs, the best third for a third of them, and the best of these to their end.

    Args:
      curves: {way: [step, validation loss] at each validation}, one an epoch, until it was stopped early.
      epochs: that a way is trained for at most.

    Returns:
      (the way with the lowest loss in the end, training steps in all).

    Reference: Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
    """
    left, spent = list(curves), dict.fromkeys(curves, 0)
    for rung in (math.ceil(epochs / ETA**2), math.ceil(epochs / ETA), None):
        reached = {way: list(curves[way][:rung]) for way in left}
        losses = {way: min(loss for _, loss in curve) for way, curve in reached.items()}
        spent |= {way: int(curve[-1][0]) for way, curve in reached.items()}
        ranked = sorted(left, key=losses.__getitem__)
        left = ranked[: math.ceil(len(left) / ETA)] if rung else ranked
    return left[0], sum(spent.values())
