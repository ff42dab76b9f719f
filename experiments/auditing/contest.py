"""The candidates against each other: priced, allotted, climbed; each arm on each rung is a cell that survives a kill."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import cells, workdir
from experiments.auditing import arms, budget
from experiments.auditing.arms import Arm, Ground
from experiments.auditing.budget import Ladder, Rung
from experiments.auditing.ladder import Climbed, climb, cost, loss_of
from experiments.auditing.prices import keeping_seconds, prices
from experiments.cells import Cell
from experiments.config import Audit
from mmd_jax.transfer import finetune
from mmd_jax.transfer.recipe import schedule
from mmd_jax.types import Plan, Rows

ON_RUNGS = 1.5  # rungs that an arm stands on, on average, where a third go on each time: 1 + 1/3 + 1/9 + …
VERSION = 1  # raised where the code changes the numbers of a cell

# What is found of an arm; one that diverged has no steps.
FOUND = ("valid_loss", "loss_error", "valid_accuracy", "steps", "best_step", "diverged")


class Tested(NamedTuple):
    """A candidate on the target's test rows, by the learning rate that was best at that time.

    Attributes:
      way: the candidate's name.
      rung: number of the rung; that of the last where it was finished.
      finished: whether it was trained on after the ladder, for the comparison.
      found: of its arm, as `Climbed.rungs` has it.
      predicted: classes of the test rows, [n].
    """

    way: str
    rung: int
    finished: bool
    found: Mapping[str, Any]
    predicted: np.ndarray


class Contest(NamedTuple):
    """What an audit found.

    Attributes:
      ladder: the budget, spelt out.
      climbed: what became of the arms.
      tested: every candidate after each of its rungs; empty without test rows.
      spent: what training cost, what was finished among it, in the budget's unit.
    """

    ladder: Ladder
    climbed: Climbed
    tested: tuple[Tested, ...]
    spent: float


def hold(
    place: Ground, plans: Mapping[str, Plan], settings: Audit, *, test: Rows | None = None, finish: Sequence[str] = ()
) -> Contest:
    """Lets the candidates compete within the budget, from where an earlier process left off.

    Args:
      place: what they stand on.
      plans: the candidates by name; "linear_probe" before "lp_ft".
      settings: the budget.
      test: test rows of the target; none: no candidate is tested.
      finish: candidates that are trained as long as the winner afterwards, in this order, while the budget lasts.

    Raises:
      ValueError: the budget is too small, belongs to other candidates, or no candidate has a finite loss.
    """
    ladder = settled_ladder(place, plans, settings)
    contestants = [Arm(way, plan, rate) for way, plan in plans.items() for rate in ladder.learning_rates]
    tested: list[Tested] = []

    def train(number: int, rung: Rung, standing: Sequence[Arm]) -> list[dict[str, Any]]:
        arms.forget(place, standing)
        rows = train_arms(place, ladder, standing, rung.epochs, f"rung {number + 1}")
        if test is not None:
            best = best_of_ways(list(zip(standing, rows)))
            tested.extend(test_arms(place, ladder, best, test, number, f"rung {number + 1}"))
        return rows

    climbed = climb(ladder, contestants, train)
    if math.isinf(loss_of(dict(climbed.rungs[-1])[climbed.winner])):
        raise ValueError(
            "no candidate's loss stayed finite on the last rung; lower train.learning_rates, or clip gradients"
        )
    spent = climbed.spent
    if test is not None:
        for arm, epochs in unfinished(climbed, ladder, finish):
            dear = cost(ladder, [arm], epochs, ladder.rungs[-1].epochs)
            if spent + dear > ladder.total:
                continue
            spent += dear
            rows = train_arms(place, ladder, [arm], ladder.rungs[-1].epochs, "finished")
            last = len(ladder.rungs) - 1
            tested += test_arms(place, ladder, [(arm, rows[0])], test, last, "finished", finished=True)
    return Contest(ladder, climbed, tuple(tested), spent)


def settled_ladder(place: Ground, plans: Mapping[str, Plan], settings: Audit) -> Ladder:
    """The ladder that the budget buys; settled by the first process, read by every other."""
    ladder = budget.read(place.directory)
    if ladder is None:
        unit = "steps" if settings.steps is not None else "seconds"
        found = prices(place, plans, unit=unit)
        one = arms.recipe_of(place, 1)
        total, aside = float(settings.steps or 0), 0.0
        if settings.steps is None and settings.minutes is not None:
            each = keeping_seconds(place, plans["from_scratch"])
            total = 60 * settings.minutes
            aside = ON_RUNGS * each * len(plans) * len(place.training.learning_rates)
        ladder = budget.allot(
            total,
            found,
            unit=unit,
            eta=settings.eta,
            max_epochs=place.training.epochs,
            steps_per_epoch=schedule(len(place.train.y), one)[0],
            learning_rates=place.training.learning_rates,
            aside=aside,
        )
        budget.write(place.directory, ladder)
    if ladder.prices.keys() != plans.keys():
        other = ", ".join(sorted(ladder.prices.keys() ^ plans.keys()))
        raise ValueError(
            f"the audit in {place.directory} was begun with other candidates ({other}); start again in a new work directory"
        )
    return ladder


def train_arms(place: Ground, ladder: Ladder, standing: Sequence[Arm], epochs: int, when: str) -> list[dict[str, Any]]:
    """Trains arms up to so many epochs, a cell each, and gives what the validation rows say of them."""
    known = {f"{when}: {name_of(arm)}": arm for arm in standing}

    def run_one(cell: Cell) -> dict[str, Any]:
        arm = known[cell.name]
        try:
            state = arms.trained(place, arm, epochs, ladder.rungs[0].epochs)
        except finetune.NonFiniteLossError as error:
            return {"valid_loss": None, "loss_error": None, "valid_accuracy": None, "diverged": str(error)}
        found = arms.log_probabilities(place, arm, state, place.valid)
        y = place.valid.y
        losses = -found[np.arange(len(y)), y].astype(np.float64)
        return {
            "valid_loss": float(state.best_loss),
            "loss_error": standard_error(losses, place.valid_groups),
            "valid_accuracy": float((found.argmax(-1) == y).mean()),
            "steps": int(state.train.step),
            "best_step": int(state.best_step),
        }

    grid = [
        Cell(name, about_cell(place, ladder, arm, epochs), ladder.prices[arm.way].epoch) for name, arm in known.items()
    ]
    rows = cells.run_cells(grid, run_one, place.directory / "audit", label="audit")
    return [{name: row[name] for name in FOUND if name in row} for row in rows]


def standard_error(losses: np.ndarray, groups: np.ndarray | None) -> float:
    """Of the mean loss: √(k/(k − 1) · Σ_g (Σ_{i∈g} (l_i − mean l))²) / n over k groups; each row is one where there are none.

    Of a single group nothing is known, and 0 is given: no arm is then tied.

    Args:
      losses: of the validation rows, [n].
      groups: of dependent rows, [n]; or none.
    """
    numbers = np.unique(np.arange(len(losses)) if groups is None else groups, return_inverse=True)[1]
    sums = np.bincount(numbers, weights=losses - losses.mean())
    k = len(sums)
    return float(np.sqrt(k / (k - 1) * (sums**2).sum()) / len(losses)) if k > 1 else 0.0


def test_arms(
    place: Ground,
    ladder: Ladder,
    best: Sequence[tuple[Arm, Mapping[str, Any]]],
    test: Rows,
    number: int,
    when: str,
    *,
    finished: bool = False,
) -> list[Tested]:
    """Each of these arms on the test rows, a cell each."""
    best = [(arm, found) for arm, found in best if not math.isinf(loss_of(found))]
    known = {f"{when}, test: {name_of(arm)}": (arm, found) for arm, found in best}
    epochs = ladder.rungs[number].epochs

    def run_one(cell: Cell) -> dict[str, Any]:
        arm, _ = known[cell.name]
        state = arms.trained(place, arm, epochs, ladder.rungs[0].epochs)  # restored: nothing is left to train
        return {"predicted": arms.log_probabilities(place, arm, state, test).argmax(-1)}

    grid = [Cell(name, about_cell(place, ladder, arm, epochs)) for name, (arm, _) in known.items()]
    rows = cells.run_cells(grid, run_one, place.directory / "audit", label="audit")
    return [
        Tested(arm.way, number, finished, found, np.asarray(row["predicted"]))
        for row, (arm, found) in zip(rows, known.values(), strict=True)
    ]


def best_of_ways(rung: Sequence[tuple[Arm, Mapping[str, Any]]]) -> list[tuple[Arm, Mapping[str, Any]]]:
    """Of each candidate on a rung the arm with the lowest validation loss."""
    best: dict[str, tuple[Arm, Mapping[str, Any]]] = {}
    for arm, found in rung:
        if arm.way not in best or loss_of(found) < loss_of(best[arm.way][1]):
            best[arm.way] = arm, found
    return list(best.values())


def unfinished(climbed: Climbed, ladder: Ladder, ways: Sequence[str]) -> list[tuple[Arm, int]]:
    """(arm, epochs it has been trained for) of each of these candidates that was dropped before the last rung, not having
    diverged."""
    found = []
    for way in dict.fromkeys(ways):
        numbers = [number for number, rung in enumerate(climbed.rungs) if any(arm.way == way for arm, _ in rung)]
        if numbers and numbers[-1] + 1 < len(climbed.rungs):
            arm, its = next(one for one in best_of_ways(climbed.rungs[numbers[-1]]) if one[0].way == way)
            if not math.isinf(loss_of(its)):
                found.append((arm, ladder.rungs[numbers[-1]].epochs))
    return found


def name_of(arm: Arm) -> str:
    """An arm in few words."""
    return f"{arm.way} at {arm.learning_rate:g}"


def about_cell(place: Ground, ladder: Ladder, arm: Arm, epochs: int) -> dict[str, Any]:
    """All that an arm's numbers depend on."""
    return {
        "way": arm.way,
        "learning_rate": arm.learning_rate,
        "epochs": epochs,
        "first_rung": ladder.rungs[0].epochs,
        "plan": workdir.plain(arm.plan.stages),
        "training": workdir.plain(place.training),
        "content": place.content,
        "version": VERSION,
    }
