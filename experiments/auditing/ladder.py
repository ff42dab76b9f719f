"""Successive halving: every arm a little, the best of them longer, from where they stand."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.auditing.arms import Arm
from experiments.auditing.budget import Ladder, Rung

# (number of the rung, the rung, its arms) -> of each, {"valid_loss", "loss_error", …}: the shell trains and writes down.
TrainRung = Callable[[int, Rung, Sequence[Arm]], Sequence[Mapping[str, Any]]]


class Climbed(NamedTuple):
    """What became of the arms.

    Attributes:
      rungs: of each rung that was climbed, its arms with what was found of each; the last is the ladder's, unless every arm
        diverged before.
      winner: the arm with the lowest validation loss on the last rung.
      spent: what training cost, in the budget's unit.
    """

    rungs: tuple[tuple[tuple[Arm, Mapping[str, Any]], ...], ...]
    winner: Arm
    spent: float


def climb(ladder: Ladder, arms: Sequence[Arm], train: TrainRung) -> Climbed:
    """Climbs the ladder; an arm that is dropped is not trained again.

    Args:
      ladder: of `budget.allot`.
      arms: every candidate at every learning rate, in the order in which they are to be trained.
      train: trains the arms of a rung.
    """
    standing, rungs, spent, before = list(arms), [], 0.0, 0
    for number, rung in enumerate(ladder.rungs):
        found = train(number, rung, standing)
        rungs.append(tuple(zip(standing, found, strict=True)))
        spent += cost(ladder, standing, before, rung.epochs)
        before = rung.epochs
        if number + 1 < len(ladder.rungs):
            standing = going_on(ladder, number, rungs[-1])
            if not standing:
                break
    winner, _ = min(rungs[-1], key=lambda one: loss_of(one[1]))
    return Climbed(tuple(rungs), winner, spent)


def cost(ladder: Ladder, arms: Sequence[Arm], before: int, epochs: int) -> float:
    """What it costs to take these arms from so many epochs to so many, in the budget's unit; patience may make it less."""
    return (epochs - before) * math.fsum(ladder.prices[arm.way].epoch for arm in arms)


def going_on(ladder: Ladder, number: int, rung: Sequence[tuple[Arm, Mapping[str, Any]]]) -> list[Arm]:
    """The arms of a rung that go on: the best 1 / η by validation loss, and what can't be told from the last of them.

    Such ties (a loss within one standard error, its own, of the last one's) go on as long as the next rung, whose
    allotment is for the dearest arms, has room for them. What diverged does not go on, even where there is room.
    """
    next_rung = ladder.rungs[number + 1]
    finite = [one for one in rung if not math.isinf(loss_of(one[1]))]
    ranked = sorted(finite, key=lambda one: loss_of(one[1]))
    best, rest = ranked[: next_rung.arms], ranked[next_rung.arms :]
    last = loss_of(best[-1][1]) if best else math.inf
    chosen = [arm for arm, _ in best]
    for arm, found in rest:
        tied = loss_of(found) - last <= (found["loss_error"] or 0.0)
        room = cost(ladder, [*chosen, arm], ladder.rungs[number].epochs, next_rung.epochs) <= next_rung.allotted
        if tied and room:
            chosen.append(arm)
    return [arm for arm, _ in rung if arm in chosen]


def loss_of(found: Mapping[str, Any]) -> float:
    """The validation loss; one that is no number loses to any."""
    loss = found["valid_loss"]
    return math.inf if loss is None or math.isnan(loss) else float(loss)
