"""What a training step costs before it is run in earnest: compiled FLOPs, memory, and measured time."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mmd_jax.models.layered import Network
from mmd_jax.transfer import finetune
from mmd_jax.transfer.finetune import Prepared
from mmd_jax.transfer.recipe import Recipe, data_order, schedule
from mmd_jax.transfer.train import TrainState
from mmd_jax.types import Plan, Rows, Variables

STEPS = 4  # in a timed chunk


class Cost(NamedTuple):
    """Of one training step.

    Attributes:
      flops: floating-point operations of the compiled step, as XLA counts them.
      seconds: the least measured over a few chunks, validation left out.
      megabytes: parameters, optimizer state, batch and temporaries of a compiled chunk.
    """

    flops: float
    seconds: float
    megabytes: float


class Program(NamedTuple):
    """A compiled training step.

    Attributes:
      flops, megabytes: as in `Cost`.
      seconds: runs a chunk of `STEPS` steps and gives the seconds a step.
    """

    flops: float
    megabytes: float
    seconds: Callable[[], float]


class RegimeCost(NamedTuple):
    """What carrying out a regime would take, at most: every epoch of every learning rate.

    Attributes:
      regime: its name.
      frozen: layers frozen in its first stage.
      cached: whether its frozen prefix is cached.
      steps: in all.
      seconds: steps × the measured time of a step; validation and compilation left out.
      megabytes: parameters, optimizer state, batches, temporaries and cached rows of its largest stage.
    """

    regime: str
    frozen: int
    cached: bool
    steps: int
    seconds: float
    megabytes: float


def plan_cost(
    network: Network, variables: Variables, plan: Plan, rows: Rows, recipe: Recipe, *, num_rates: int
) -> RegimeCost:
    """Measures a few steps of each stage of a plan.

    Args:
      network: with a last layer for the target's classes.
      variables: any of that network's; the cost does not depend on their values.
      plan: with its decision on caching.
      rows: the training rows.
      recipe: how it would be trained.
      num_rates: learning rates in the grid.
    """
    steps = schedule(len(rows.y), recipe)[0] * num_rates
    seconds, megabytes = 0.0, 0.0
    few, one = (Rows(*(array[:count] for array in rows)) for count in (STEPS * recipe.batch_size, 1))
    for stage in plan.stages:
        prepared = finetune.prepare(jax.random.key(0), network, variables, stage, few, one, recipe=recipe)
        kept = prepared.train.x.nbytes / len(few.y) * len(rows.y) / 1e6 if stage.cached else 0.0
        cost = step_cost(network, prepared, recipe)
        seconds += cost.seconds * steps
        megabytes = max(megabytes, cost.megabytes + kept)
    first = plan.stages[0]
    return RegimeCost(plan.regime, len(first.frozen), first.cached, steps * len(plan.stages), seconds, megabytes)


def table(costs: Sequence[RegimeCost]) -> str:
    """The costs as text, a line each."""
    lines = [f"{'regime':<14}{'frozen':>7}{'cached':>7}{'steps':>8}{'at most':>11}{'memory':>11}"]
    for cost in costs:
        lines.append(
            f"{cost.regime:<14}{cost.frozen:>7}{'yes' if cost.cached else 'no':>7}{cost.steps:>8}"
            f"{cost.seconds:>9.1f} s{cost.megabytes:>8.1f} MB"
        )
    return "\n".join(lines)


def step_cost(network: Network, prepared: Prepared, recipe: Recipe, *, norm: bool = True, repeats: int = 3) -> Cost:
    """Measures the step of one stage.

    Args:
      network, prepared, recipe, norm: as `compile_step` takes them.
      repeats: timed chunks of `STEPS` steps.
    """
    program = compile_step(network, prepared, recipe, norm=norm)
    return Cost(program.flops, min(program.seconds() for _ in range(repeats + 1)), program.megabytes)


def step_flops(network: Network, prepared: Prepared, recipe: Recipe) -> float:
    """Floating-point operations of a step as it is traced: the same on every machine, and nothing is compiled for it."""
    rows, stage = prepared.train, prepared.stage
    first = slice(0, min(recipe.batch_size, len(rows.y)))
    unvalidated = prepared._replace(valid=None)
    state = finetune.begin_fit(network, unvalidated, learning_rate=1e-3, recipe=recipe).train
    step = finetune.make_step(network, stage, recipe, state.variables["params"], start=prepared.start)
    batch = rows.x[first], rows.y[first]
    analysis = jax.jit(partial(step, key=prepared.step_key)).lower(state, batch).cost_analysis()
    return float((analysis or {}).get("flops", np.nan))


def compile_step(network: Network, prepared: Prepared, recipe: Recipe, *, norm: bool = True) -> Program:
    """The step of one stage, ready to be timed.

    Args:
      network: the network.
      prepared: of `finetune.prepare`; a few batches of its training rows are used.
      recipe: batch size, clipping, precision.
      norm: whether the gradient's norm is logged, as training does.
    """
    rows, stage = prepared.train, prepared.stage
    index = data_order(prepared.order_key, len(rows.y), 0, STEPS, min(recipe.batch_size, len(rows.y)))
    x, y = rows.x[index], rows.y[index]
    state = finetune.begin_fit(network, prepared, learning_rate=1e-3, recipe=recipe).train
    step = finetune.make_step(network, stage, recipe, state.variables["params"], start=prepared.start)
    step = partial(step, key=prepared.step_key)

    def one(state: TrainState, batch: Any) -> Any:
        after, metrics = step(state, batch)
        return (after, metrics) if norm else after

    def many(state: TrainState, batches: Any) -> Any:
        def body(state: TrainState, batch: Any) -> Any:
            after = one(state, batch)
            return after if norm else (after, None)

        return jax.lax.scan(body, state, batches)

    analysis = jax.jit(one).lower(state, (x[0], y[0])).compile().cost_analysis()
    chunk = jax.jit(many).lower(state, (x, y)).compile()
    memory = chunk.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes if memory else 0

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(chunk(state, (x, y)))
        return (time.perf_counter() - start) / STEPS

    return Program(float((analysis or {}).get("flops", np.nan)), size / 1e6, seconds)
