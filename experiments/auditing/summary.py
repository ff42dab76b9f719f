"""From a contest to audit.json: what became of each candidate, who won, and what it cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import evaluation
from experiments.auditing.arms import Arm, Ground
from experiments.auditing.contest import Contest, best_of_ways
from experiments.auditing.ladder import loss_of
from experiments.auditing.regret import Choice, last_test, regrets
from mmd_jax.types import Plan


def reason(contest: Contest) -> str:
    """Why the winner is the plan, in one sentence."""
    ranked = sorted(best_of_ways(contest.climbed.rungs[-1]), key=lambda one: loss_of(one[1]))
    (winner, found), *others = ranked
    told = [f"{found['valid_loss']:.3g} nats, {found['valid_accuracy']:.1%} of the validation rows right"]
    told += [f"{arm.way} had {other['valid_loss']:.3g}" for arm, other in others[:1] if other["valid_loss"] is not None]
    return (
        f"Of {len(contest.ladder.prices)} ways that were tried on the target, {winner.way} at learning rate "
        f"{winner.learning_rate:g} had the lowest validation loss after {contest.ladder.rungs[-1].epochs} epochs "
        f"({'; '.join(told)})."
    )


def about_contest(place: Ground) -> dict[str, Any]:
    """What a reader must know of the ground that all stood on."""
    return {
        "num_valid": len(place.valid.y),
        "max_epochs": place.training.epochs,
        "schedule": place.training.schedule,
    }


def summarise(
    header: Mapping[str, Any],
    contest: Contest,
    *,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    choices: Sequence[Choice] = (),
) -> dict[str, Any]:
    """audit.json.

    Args:
      header: what the report needs to know beside.
      contest: the audit.
      labels: of the target's test rows, where candidates were tested.
      groups: of dependent test rows; or none.
      choices: of rules and scores.
    """
    ways = [about_way(contest, way, labels, groups) for way in contest.ladder.prices]
    # What diverged later on is nobody's choice.
    tested = [way for way in ways if way["test"] is not None and way["valid_loss"] is not None]
    # Of equals the first.
    oracle = max(tested, key=lambda way: way["test"]["estimate"])["way"] if tested else None
    ladder = contest.ladder
    rungs = [
        {"epochs": rung.epochs, "steps": rung.epochs * ladder.steps_per_epoch, "arms": len(arms)}
        for rung, arms in zip(ladder.rungs, contest.climbed.rungs)
    ]
    return {
        **header,
        "budget": {
            "unit": ladder.unit,
            "total": ladder.total,
            "spent": contest.spent,
            "eta": ladder.eta,
            "learning_rates": ladder.learning_rates,
            "rungs": rungs,
            "note": ladder.note,
        },
        "ways": ways,
        "winner": contest.climbed.winner.way,
        "reason": reason(contest),
        "oracle": oracle,
        "choices": [] if labels is None else regrets(contest, choices, labels, groups),
    }


def about_way(contest: Contest, way: str, labels: np.ndarray | None, groups: np.ndarray | None) -> dict[str, Any]:
    """One candidate: how far it came, what it took, and how good it was then."""
    ladder, rungs = contest.ladder, contest.climbed.rungs
    stood = [[one for one in best_of_ways(rung) if one[0].way == way] for rung in rungs]
    last = max(number for number, found in enumerate(stood) if found)
    [(arm, found)] = stood[last]
    # Where it diverged, its rate, epochs and accuracy are those of the rung before; there is none below the first.
    looked = last - 1 if last and diverged(found) else last
    [(arm, _)] = stood[looked]
    test = None if labels is None else last_test(contest, way)
    finished = test is not None and test.finished
    if test is not None and finished:
        found = test.found
    steps = steps_of(contest, way)
    if finished:
        steps += found["steps"] - dict(rungs[last])[arm]["steps"]
    return {
        "way": way,
        "regime": arm.plan.regime,
        "frozen": len(arm.plan.stages[0].frozen),
        "augmented": any(stage.augment for stage in arm.plan.stages),
        "cached": any(stage.cached for stage in arm.plan.stages),
        "learning_rate": arm.learning_rate,
        "rungs": last + 1,
        "finished": finished,
        "epochs": ladder.rungs[-1 if finished else looked].epochs,
        "steps": steps,
        "flops": steps * ladder.prices[way].flops / ladder.steps_per_epoch,
        "price": ladder.prices[way].epoch / ladder.steps_per_epoch,
        **{name: found[name] for name in ("valid_loss", "loss_error", "valid_accuracy")},
        "test": None if test is None or labels is None else _share(test.predicted == labels, groups),
    }


def steps_of(contest: Contest, way: str) -> int:
    """Training steps that the ladder gave a candidate, at all learning rates; what LP-FT shares with the linear probe aside."""
    steps: dict[Arm, int] = {}
    for rung in contest.climbed.rungs:
        # One that diverged keeps the steps that it had.
        steps |= {arm: found["steps"] for arm, found in rung if arm.way == way and "steps" in found}
    return sum(steps.values())


def diverged(found: Mapping[str, Any]) -> bool:
    """Whether an arm's loss did not stay finite."""
    return math.isinf(loss_of(found))


def winning_plan(contest: Contest) -> Plan:
    """The winner as the plan of the rule `audit`."""
    return contest.climbed.winner.plan._replace(rule="audit", reason=reason(contest))


def _share(right: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    low, high = evaluation.binomial(right, 0.95, groups=groups)
    return {"estimate": float(right.mean()), "low": low, "high": high}
