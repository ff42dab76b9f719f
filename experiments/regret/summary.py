"""Cases → what every policy's choices cost, what predicts the gain of reuse, and the rule that the evidence supports."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from experiments.regret.policies import FIXED, Case, Split, best_fixed, best_split, left_out
from mmd_jax.intervals import t_interval

# What a rule of `mmd_jax.transfer.decision` is given.
GIVEN = ("rows", "rows a class", "similar, pvalue", "similar, verdict")
AUDIT, VALIDATION, ORACLE = "audit", "all, then the lowest validation loss", "oracle"


def summarise(cases: Sequence[Case]) -> dict[str, Any]:
    """All that the report shows.

    Returns:
      {"cells", "pairs", "sizes", "seeds", "policies": [of `cost_of`], "predicts": [of `predictions`], "evidence": of `evidence`}
    """
    signals = [name for name in cases[0].known if any(np.isfinite(case.known[name]) for case in cases)]
    chosen = chosen_by(cases, signals)
    plain = _regrets(cases, chosen["fixed", best_fixed(cases)])
    costs = [
        cost_of(cases, name, kind, ways, [_steps(case, name, way) for case, way in zip(cases, ways)], plain)
        for (kind, name), ways in chosen.items()
    ]
    return {
        "cells": len(cases),
        "pairs": sorted({case.pair for case in cases}),
        "sizes": sorted({case.size for case in cases}),
        "seeds": sorted({case.seed for case in cases}),
        "policies": sorted(costs, key=lambda cost: cost["mean"]),
        "by_size": {size: _by_size(cases, chosen, size) for size in sorted({case.size for case in cases})},
        "predicts": [predictions(cases, name) for name in signals if name not in ("rows", "rows a class")],
        "evidence": evidence(cases, signals),
    }


def chosen_by(cases: Sequence[Case], signals: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """{(kind, policy): the way it takes in each case}. Splits on a signal are learned on the cases of all other pairs."""
    found = {("fixed", role): [case.roles[role] for case in cases] for role in FIXED}
    for name in cases[0].choices:
        kind = "search" if name == AUDIT else "layer score" if name.startswith("deepest") else "rule"
        found[kind, name] = [case.choices[name] for case in cases]
    for name in signals:
        found["split", name] = left_out(cases, partial(best_split, signal=name))
    found["search", VALIDATION] = [min(case.valid_loss, key=case.valid_loss.__getitem__) for case in cases]
    found["search", ORACLE] = [max(case.accuracy, key=case.accuracy.__getitem__) for case in cases]
    return found


def _steps(case: Case, name: str, way: str) -> int:
    """Training steps on the target: those of the way that is taken, or of all that were tried."""
    if name == AUDIT:
        return case.audit[1]
    return sum(case.steps.values()) if name == VALIDATION else case.steps[way]


def over_pairs(cases: Sequence[Case], values: Sequence[float]) -> dict[str, Any]:
    """Mean over pairs of the pairs' means, with a t-interval over pairs: cells of a pair are not independent."""
    names = sorted({case.pair for case in cases})
    means = [float(np.mean([v for case, v in zip(cases, values) if case.pair == name])) for name in names]
    if len(means) < 2:
        return {"mean": means[0], "low": None, "high": None, "pairs": dict(zip(names, means))}
    interval = t_interval(means)
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high, "pairs": dict(zip(names, means))}


def _interval(found: Mapping[str, Any]) -> dict[str, Any]:
    return {end: found[end] for end in ("mean", "low", "high")}


def cost_of(
    cases: Sequence[Case], name: str, kind: str, ways: Sequence[str], steps: Sequence[int], plain: Sequence[float]
) -> dict[str, Any]:
    """What a policy's choices give away; `plain` is what the best fixed policy does.

    Returns:
      {"policy", "kind", "mean", "low", "high", "pairs": {pair: mean}, "difference": from `plain`, with interval, "worst",
      "worst_cell", "steps"}
    """
    regrets = _regrets(cases, ways)
    worst = int(np.argmax(regrets))
    return {
        "policy": name,
        "kind": kind,
        **over_pairs(cases, regrets),
        "difference": _interval(over_pairs(cases, np.subtract(regrets, plain).tolist())),
        "worst": regrets[worst],
        "worst_cell": [cases[worst].pair, cases[worst].size, cases[worst].seed],
        "steps": over_pairs(cases, steps)["mean"],
    }


def _regrets(cases: Sequence[Case], ways: Sequence[str]) -> list[float]:
    return [case.regret(way) for case, way in zip(cases, ways, strict=True)]


def _by_size(cases: Sequence[Case], chosen: dict[tuple[str, str], list[str]], size: int) -> dict[str, float]:
    here = [i for i, case in enumerate(cases) if case.size == size]
    some = [cases[i] for i in here]
    return {
        name: over_pairs(some, _regrets(some, [ways[i] for i in here]))["mean"] for (_, name), ways in chosen.items()
    }


def gain_of(case: Case) -> float:
    """What reuse adds on test rows: its way with the lowest validation loss against from-scratch with the lowest."""
    scratch = [way for way in case.accuracy if way.startswith("from_scratch")]
    reused = [way for way in case.accuracy if way not in scratch]
    best = [min(ways, key=case.valid_loss.__getitem__) for ways in (reused, scratch)]
    return case.accuracy[best[0]] - case.accuracy[best[1]]


def predictions(cases: Sequence[Case], signal: str) -> dict[str, Any]:
    """How well a signal orders pairs by the gain of reuse: Spearman's correlation over pairs at each size and seed, averaged.

    The interval is of a jackknife that leaves out a pair at a time, with t quantiles: cells of a pair stay together.

    Returns:
      {"signal", "correlation", "low", "high", "cells": behind it}; a distance should have a negative one
    """
    there = [case for case in cases if np.isfinite(case.known[signal])]
    names = sorted({case.pair for case in there})
    groups = sorted({(case.size, case.seed) for case in there})

    def correlation(left: set[str]) -> float | None:
        found = []
        for group in groups:
            here = [case for case in there if (case.size, case.seed) == group and case.pair not in left]
            if len(here) >= 4:
                value = spearman([case.known[signal] for case in here], [gain_of(case) for case in here])
                if value is not None:
                    found.append(value)
        return float(np.mean(found)) if found else None

    whole = correlation(set())
    parts = [correlation({name}) for name in names]
    if whole is None or any(part is None for part in parts):
        return {"signal": signal, "correlation": whole, "low": None, "high": None, "cells": len(there)}
    pseudo = [len(names) * whole - (len(names) - 1) * part for part in parts if part is not None]
    interval = t_interval(pseudo)
    low, high = max(interval.low - interval.estimate + whole, -1.0), min(interval.high - interval.estimate + whole, 1.0)
    return {"signal": signal, "correlation": whole, "low": low, "high": high, "cells": len(there)}


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; none where one of them does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(stats.spearmanr(x, y).statistic)


def evidence(cases: Sequence[Case], signals: Sequence[str]) -> dict[str, Any]:
    """The simplest rule that beats every fixed policy when each pair in turn is left out; else the best fixed policy.

    A rule is a split on the one thing of those that a rule is given (`GIVEN`) that does best on the pairs that are not left out.
    What a split on the best of all signals would do is told beside it. To beat is to be better by more than noise: of several
    rules one is ahead by chance.

    Returns:
      {"fixed", "fixed_regret": of the best fixed policy (on all pairs), "tried": [{"rule", "learned" (on all pairs), "regret"
      (pairs left out), "difference" (from the best fixed policy, with interval)}], "rule": in words, "signal", "threshold",
      "below", "above", "unknown", "beats": whether a split beats the fixed policies}
    """
    fixed = best_fixed(cases)
    plain = [case.regret(case.roles[fixed]) for case in cases]
    given = [name for name in GIVEN if name in signals]
    tried, rules = [], []
    for name, some in (("a split on size or similarity", given), ("a split on any one signal", list(signals))):
        learn = partial(_best_of, signals=some)
        regrets = _regrets(cases, left_out(cases, learn))
        difference = _interval(over_pairs(cases, np.subtract(regrets, plain).tolist()))
        rules.append(learn(cases))
        tried.append(
            {
                "rule": name,
                "learned": str(rules[-1]),
                "regret": over_pairs(cases, regrets)["mean"],
                "difference": difference,
            }
        )
    high = tried[0]["difference"]["high"]
    beats = high is not None and high < 0
    rule = rules[0] if beats else Split(given[0], -np.inf, fixed, fixed, fixed)
    return {
        "fixed": fixed,
        "fixed_regret": over_pairs(cases, plain)["mean"],
        "tried": tried,
        "rule": str(rule),
        **rule._asdict(),
        "beats": beats,
    }


def _best_of(cases: Sequence[Case], signals: Sequence[str]) -> Split:
    """Of the best split on each signal, the one that does best when pairs are left out of these cases in turn."""
    if len(signals) == 1:
        return best_split(cases, signals[0])

    def loss(signal: str) -> float:
        return over_pairs(cases, _regrets(cases, left_out(cases, partial(best_split, signal=signal))))["mean"]

    return best_split(cases, min(signals, key=loss))
