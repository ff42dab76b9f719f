"""From probes of the same rows to a recommendation: which entries beat what can be had without them, and which tie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mmd_jax.intervals import Interval, holm, paired_interval


class Standing(NamedTuple):
    """One entry's probe against what can be had without it.

    Attributes:
      name: of the entry.
      accuracy: of the probe on its features.
      over_inputs: paired difference to the probe on raw inputs, shares of rows, with its interval.
      over_untrained: to the probe on the features of its own architecture untrained.
      untrained: accuracy of that probe.
      pvalue: of "it beats not both", adjusted by Holm over the entries.
      beats: whether it beats both.
    """

    name: str
    accuracy: float
    over_inputs: Interval
    over_untrained: Interval
    untrained: float
    pvalue: float
    beats: bool


class Advice(NamedTuple):
    """What the evidence says.

    Attributes:
      best: the entry to reuse; none: train from scratch.
      ties: other entries that beat both bars too, and are not told apart from the best.
      standings: of all entries, the best probe first.
      baselines: {"inputs", "untrained"}: accuracies of the two bars; of the best entry's architecture.
      sentence: all this in words.
    """

    best: str | None
    ties: tuple[str, ...]
    standings: tuple[Standing, ...]
    baselines: dict[str, float]
    sentence: str


def advise(
    names: Sequence[str],
    correct: Sequence[np.ndarray],
    inputs: np.ndarray,
    untrained: Sequence[np.ndarray],
    *,
    alpha: float = 0.05,
    groups: np.ndarray | None = None,
) -> Advice:
    """The entry whose probe is right most often, if it beats both bars; "none" where no entry does.

    An entry beats both where a paired test rejects, at level alpha after Holm's correction over the k entries, that it is no
    better than the one, and that it is no better than the other. An entry ties with the best where a paired test of the two
    does not reject, again after Holm.

    Args:
      names: of the entries, [k], k >= 1.
      correct: rows of which the probe on each is right, [k] of [n] bool.
      inputs: the same of the probe on raw inputs, [n].
      untrained: the same of the probe on each entry's own architecture untrained, [k] of [n].
      alpha: level.
      groups: of dependent rows, [n], or none.
    """
    values = [(_better(one, inputs, groups), _better(one, fresh, groups)) for one, fresh in zip(correct, untrained)]
    adjusted = holm([max(pair) for pair in values])
    standings = [
        Standing(
            name,
            float(one.mean()),
            paired_interval(one.astype(float), inputs.astype(float), 1 - alpha, groups=groups),
            paired_interval(one.astype(float), fresh.astype(float), 1 - alpha, groups=groups),
            float(fresh.mean()),
            float(p),
            bool(p <= alpha),
        )
        for name, one, fresh, p in zip(names, correct, untrained, adjusted)
    ]
    order = sorted(range(len(names)), key=lambda i: (-standings[i].accuracy, i))
    winners = [i for i in order if standings[i].beats]
    ranked = tuple(standings[i] for i in order)
    baselines = {"inputs": float(inputs.mean()), "untrained": standings[(winners or order)[0]].untrained}
    bars = (
        f"a linear probe on the raw inputs ({baselines['inputs']:.1%}) and one on its own network untrained "
        f"({baselines['untrained']:.1%})"
    )
    if not winners:
        top = ranked[0]
        sentence = (
            f"Recommendation: none; train from scratch. No entry beats both {bars} beyond chance (paired tests, Holm over "
            f"{len(names)}); the best, {top.name}, is right on {top.accuracy:.1%} of {len(inputs)} rows."
        )
        return Advice(None, (), ranked, baselines, sentence)
    best, others = winners[0], winners[1:]
    apart = holm([_better(correct[best], correct[i], groups) for i in others])
    ties = tuple(names[i] for i, p in zip(others, apart) if p > alpha)
    lead = standings[best]
    sentence = (
        f"Recommendation: reuse {lead.name}. A linear probe on its features is right on {lead.accuracy:.1%} of {len(inputs)} "
        f"rows, beyond chance more than {bars}; "
        + (f"it ties with {', '.join(ties)}. " if ties else "no other entry ties with it. ")
        + "Whether fine-tuning it also beats training from scratch is what `reuse` measures."
    )
    return Advice(lead.name, ties, ranked, baselines, sentence)


def _better(a: np.ndarray, b: np.ndarray, groups: np.ndarray | None) -> float:
    """One-sided p-value of "a is right no more often than b": McNemar's exact test, or Student's over groups."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if groups is None:
        return float(stats.binom.sf(only_a - 1, only_a + only_b, 0.5)) if only_a + only_b else 1.0
    found = paired_interval(a.astype(float), b.astype(float), 0.95, groups=groups)
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, found.num - 1)
    if error == 0:
        return 1.0 if found.estimate <= 0 else 0.0
    return float(stats.t.sf(found.estimate / error, found.num - 1))
