"""What somebody's choice costs: accuracy of the audit's winner less that of the choice, on the same test rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.auditing.contest import Contest, Tested
from mmd_jax.intervals import paired_interval


class Choice(NamedTuple):
    """What a rule or a score would have chosen.

    Attributes:
      by: who chooses, in a few words.
      way: the candidate.
    """

    by: str
    way: str


def regrets(
    contest: Contest, choices: Sequence[Choice], labels: np.ndarray, groups: np.ndarray | None
) -> list[dict[str, Any]]:
    """Of each choice its regret, in accuracy, and where the two were compared.

    Where the choice reached the winner's last rung, or was trained on for that, both are compared there; else on the last
    rung that they share. There each has the learning rate that was best at that time.

    Args:
      contest: with test rows.
      choices: whose.
      labels: of the test rows, [n].
      groups: of dependent test rows, [n], or none.
    """
    return [choice._asdict() | regret(contest, choice.way, labels, groups) for choice in choices]


def regret(contest: Contest, way: str, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    """{"epochs", "at", "regret"}: after how many epochs both were compared, where that was, and the paired difference.

    Raises:
      ValueError: the way is none of the audit's.
    """
    if way not in contest.ladder.prices:
        raise ValueError(f"{way!r} is none of the ways that were tried: {', '.join(contest.ladder.prices)}")
    winner, rungs = contest.climbed.winner.way, contest.ladder.rungs
    theirs = last_test(contest, way)
    if theirs is None:
        return {"epochs": None, "at": "its loss did not stay finite", "regret": None}
    ours = last_test(contest, winner, theirs.rung)
    assert ours is not None  # the winner stood on every rung
    at = "the end, trained on for this" if theirs.finished else "the end"
    if theirs.rung + 1 < len(rungs):
        at = f"rung {theirs.rung + 1}, the last that they share"
    difference = None
    if way != winner:
        a, b = ((one.predicted == labels).astype(float) for one in (ours, theirs))
        found = paired_interval(a, b, groups=groups)
        difference = {"estimate": float(found.estimate), "low": float(found.low), "high": float(found.high)}
    return {"epochs": rungs[theirs.rung].epochs, "at": at, "regret": difference}


def last_test(contest: Contest, way: str, rung: int | None = None) -> Tested | None:
    """The last time that a candidate was tested, or on that rung; none where it never was."""
    found = [one for one in contest.tested if one.way == way and rung in (None, one.rung)]
    return found[-1] if found else None
