"""What an audit may cost, and the ladder of rungs that this buys: settled once, kept in audit_budget.json, and held to."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import workdir

FILE = "audit_budget.json"


class Price(NamedTuple):
    """What one epoch of a candidate costs.

    Attributes:
      flops: of its training steps, as they are traced: the same on every machine.
      epoch: in the budget's unit: steps of the whole network (its FLOPs over those of a step that trains every layer), or
        seconds, validation among them.
    """

    flops: float
    epoch: float


class Rung(NamedTuple):
    """One rung of the ladder.

    Attributes:
      epochs: that an arm on it has been trained for, all rungs below among them.
      arms: how many stand on it, ties aside.
      allotted: what it may cost at most, in the budget's unit.
    """

    epochs: int
    arms: int
    allotted: float


class Ladder(NamedTuple):
    """An audit's budget, spelt out.

    Attributes:
      unit: "steps" of the whole network, or "seconds" of training.
      total: the budget for training, in that unit.
      eta: of the arms on a rung, 1 / eta go on to the next.
      steps_per_epoch: the same for every candidate.
      learning_rates: the grid, or its first where the budget has no room for more.
      prices: of each candidate, by its name.
      rungs: from the first.
      note: what the budget had no room for, in sentences; may be empty.
    """

    unit: str
    total: float
    eta: int
    steps_per_epoch: int
    learning_rates: tuple[float, ...]
    prices: dict[str, Price]
    rungs: tuple[Rung, ...]
    note: str


def allot(
    total: float,
    prices: Mapping[str, Price],
    *,
    unit: str,
    eta: int,
    max_epochs: int,
    steps_per_epoch: int,
    learning_rates: Sequence[float],
    aside: float = 0.0,
) -> Ladder:
    """The tallest ladder of successive halving that the budget pays for, whichever arms go on.

    An arm is a candidate at a learning rate. Of n arms on a rung ⌈n / η⌉ go on, and are trained η times as long in all,
    until at most η are left. The first rung is as long as can be paid when the dearest arms always go on. Where not even
    an epoch can, there is one learning rate; then there are fewer rungs.

    Args:
      total: the budget, in `unit`.
      prices: of each candidate.
      unit: "steps" or "seconds".
      eta: η, at least 2.
      max_epochs: of a candidate in all: those of the config's training.
      steps_per_epoch: of every candidate.
      learning_rates: the grid.
      aside: part of the budget that is not for training.

    Raises:
      ValueError: the budget does not pay for one epoch of each candidate; says what does.

    Reference: Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
    """
    for rates in dict.fromkeys([tuple(learning_rates), tuple(learning_rates[:1])]):
        costs = sorted([price.epoch for price in prices.values()] * len(rates), reverse=True)
        full = num_rungs(len(costs), eta)
        # Fewer learning rates before fewer rungs: a rung is a second look at what is not yet clear.
        for height in range(full, 0, -1) if len(rates) == 1 else [full]:
            first = _longest(total - aside, costs, eta, height, max_epochs)
            if first:
                note = _left_out(rates, learning_rates, height, full)
                rungs = rungs_of(first, costs, eta, height, max_epochs)
                kept = tuple(rates), dict(prices), tuple(rungs), note
                return Ladder(unit, total - aside, eta, steps_per_epoch, *kept)
    least = sum(price.epoch for price in prices.values())
    raise ValueError(_too_small(total, least + aside, unit, len(prices)))


def num_rungs(num_arms: int, eta: int) -> int:
    """How many rungs there are until at most eta arms are left, and the best of them wins.

    >>> [num_rungs(n, 3) for n in (1, 3, 4, 9, 10, 24)]
    [1, 1, 2, 2, 3, 3]
    """
    rungs = 1
    while num_arms > eta:
        num_arms, rungs = -(-num_arms // eta), rungs + 1
    return rungs


def rungs_of(first: int, costs: Sequence[float], eta: int, height: int, max_epochs: int) -> list[Rung]:
    """The rungs above and with a first of so many epochs; `costs` are of an epoch of each arm, dearest first."""
    rungs: list[Rung] = []
    arms, before = len(costs), 0
    for number in range(height):
        epochs = min(first * eta**number, max_epochs)
        if epochs > before:  # where the first rung is as long as training ever is, it is the only one
            rungs.append(Rung(epochs, arms, (epochs - before) * math.fsum(costs[:arms])))
        arms, before = -(-arms // eta), epochs
    return rungs


def write(directory: Path, ladder: Ladder) -> None:
    """Keeps the ladder, so that a resumed audit climbs the same."""
    workdir.write_json(directory / FILE, ladder)


def read(directory: Path) -> Ladder | None:
    """The ladder that this work directory holds to; none where there is none yet."""
    if not (directory / FILE).exists():
        return None
    content: dict[str, Any] = workdir.read_json(directory / FILE)
    return Ladder(
        **content
        | {
            "learning_rates": tuple(content["learning_rates"]),
            "prices": {name: Price(**price) for name, price in content["prices"].items()},
            "rungs": tuple(Rung(**rung) for rung in content["rungs"]),
        }
    )


def _longest(total: float, costs: Sequence[float], eta: int, height: int, max_epochs: int) -> int:
    """Epochs of the longest first rung that can be paid; 0 where none can."""
    low, high = 0, max_epochs
    while low < high:
        middle = (low + high + 1) // 2
        needed = math.fsum(rung.allotted for rung in rungs_of(middle, costs, eta, height, max_epochs))
        low, high = (middle, high) if needed <= total else (low, middle - 1)
    return low


def _left_out(rates: Sequence[float], grid: Sequence[float], height: int, full: int) -> str:
    said = []
    if len(rates) < len(grid):
        said.append(
            f"The budget has no room for {len(grid)} learning rates: every candidate is trained at {rates[0]:g} alone."
        )
    if height < full:
        said.append(f"It pays for {height} of {full} rungs.")
    return " ".join(said)


def _too_small(total: float, least: float, unit: str, count: int) -> str:
    what = f"one epoch of each of {count} candidates at one learning rate"
    if unit == "steps":
        return (
            f"audit.steps = {total:g} is too small: {what} costs {math.ceil(least)} steps of the whole network; give at least "
            "that, or fewer rows (target.limit)"
        )
    minutes = math.ceil(100 * least / 60) / 100
    return (
        f"audit.minutes = {total / 60:g} is too small: {what} takes about {minutes:g} minutes here; give at least that, or "
        "fewer rows (target.limit)"
    )
