"""What an epoch of each candidate costs: in FLOPs, which are the same everywhere, and in seconds, which are measured here."""

import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from experiments import checkpoints
from experiments.auditing.arms import Ground, prepare, recipe_of
from experiments.auditing.budget import Price
from experiments.costs import step_flops
from experiments.progress import track
from mmd_jax.transfer import finetune, objectives
from mmd_jax.transfer.finetune import Prepared
from mmd_jax.transfer.recipe import data_order, rate_factors, schedule
from mmd_jax.types import Plan

STEPS = 4  # that are timed, where an epoch has more
REPEATS = 2


def prices(place: Ground, plans: Mapping[str, Plan], *, unit: str) -> dict[str, Price]:
    """The price of each candidate; in steps of the whole network, whose prices need no clock, or in seconds.

    Args:
      place: what the candidates stand on.
      plans: the candidates; "from_scratch" among them, whose step trains every layer.
      unit: "steps" or "seconds".
    """
    how = recipe_of(place, 1)
    steps = schedule(len(place.train.y), how)[0]
    stages = dict(zip(plans, last_stages(place, plans.values())))
    flops = {name: step_flops(place.network, stage, how) for name, stage in stages.items()}
    if unit == "steps":
        whole = flops["from_scratch"]
        return {name: Price(flops[name] * steps, flops[name] / whole * steps) for name in plans}
    seconds: dict[Any, float] = {}
    found = {}
    for name, stage in track(stages.items(), "audit: what an epoch takes", len(stages)):
        # Candidates that are compiled to one program take one time.
        program = tuple(finetune.compiled_for(place.network, stage, how).values())
        if program not in seconds:
            seconds[program] = epoch_seconds(place, stage, steps)
        found[name] = Price(flops[name] * steps, seconds[program])
    return found


def last_stages(place: Ground, plans: Iterable[Plan]) -> list[Prepared]:
    """The last stage of each plan, as if the stages before had changed nothing: what a step costs does not depend on values."""
    found = []
    for plan in plans:
        prepared = prepare(place, plan, 0, place.variables)
        for number in range(1, len(plan.stages)):
            prepared = prepare(place, plan, number, prepared.variables)
        found.append(prepared)
    return found


def epoch_seconds(place: Ground, prepared: Prepared, steps: int) -> float:
    """Seconds of an epoch of training, with its validation, once all is compiled."""
    how = recipe_of(place, 1)
    few = min(steps, STEPS)
    batch = min(how.batch_size, len(place.train.y))
    rows = data_order(prepared.order_key, len(prepared.train.y), 0, few, batch)
    chunk = prepared.train.x[rows], prepared.train.y[rows], rate_factors(how, 0, few, few), prepared.step_key
    state = finetune.begin_fit(place.network, prepared, learning_rate=1e-3, recipe=how).train
    program = finetune.compiled_for(place.network, prepared, how)

    def step() -> None:
        jax.block_until_ready(finetune.run_chunk(state, *chunk, **program))

    def validate() -> None:
        assert prepared.valid is not None
        objectives.validate(
            place.network, state.variables, prepared.valid, start=prepared.start, precision=how.precision
        )

    return least(step) / few * steps + least(validate)


def least(run: Any) -> float:
    """The least seconds of a few runs, after one that compiles."""
    run()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def keeping_seconds(place: Ground, plan: Plan) -> float:
    """Seconds that it takes to keep one arm's state and to read it again, which is done on every rung."""
    how = recipe_of(place, 1)
    state = finetune.begin_fit(place.network, prepare(place, plan, 0, place.variables), learning_rate=1e-3, recipe=how)
    folder = place.directory / "checkpoints" / "audit-timing"

    def run() -> None:
        checkpoints.save(folder, 0, state, {})
        checkpoints.restore(folder, state)

    found = least(run)
    shutil.rmtree(folder)
    return found
