"""The frozen prefix of a stage: what it makes of a row is computed once and kept, where that is worth its bytes."""

from functools import partial
from typing import Literal

import jax
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import Watch, in_batches
from mmd_jax.transfer.train import forward
from mmd_jax.types import Plan, Rows, Stage, Variables


def num_prefix(network: Network, stage: Stage) -> int:
    """How many leading layers the stage freezes without a gap."""
    flags = [name in stage.frozen for name in network.layers]
    return flags.index(False) if False in flags else len(flags)


def prefix_rows(
    network: Network,
    variables: Variables,
    stage: Stage,
    rows: Rows,
    *,
    precision: str = "float32",
    watch: Watch = iter,
) -> Rows:
    """The rows as they leave the stage's frozen prefix, computed once: Rows with x [n, ...] of float32.

    Args:
      network: the network.
      variables: its variables.
      stage: what is frozen.
      rows: the network's own inputs.
      precision: of the computation, as in training: "float32" or "bfloat16".
      watch: as in `in_batches`.
    """
    stop = num_prefix(network, stage)

    def outputs(x: np.ndarray) -> Array:
        return _prefix(variables, x, network=network, stop=stop, precision=precision)

    return Rows(in_batches(outputs, rows.x, watch=watch), rows.y)


@partial(jax.jit, static_argnames=("network", "stop", "precision"))
def _prefix(variables: Variables, x: Array, *, network: Network, stop: int, precision: str) -> Array:
    return forward(network, variables, x, stop=stop, dtype=precision)[0]


def with_caching(
    plan: Plan,
    network: Network,
    x: np.ndarray,
    *,
    num_rows: int,
    limit_bytes: float,
    cache: Literal["auto", "always", "never"] = "auto",
) -> Plan:
    """Says of each stage whether its frozen prefix is cached, and why; and takes augmentation back where it can't be.

    Frozen layers run in evaluation mode, so nothing before the cut is random: the outputs are a function of the row. Where
    inputs are augmented they are not the same twice, so it is one or the other.

    Args:
      plan: of `decide`.
      network: the network.
      x: a batch of inputs, for the shapes.
      num_rows: training and validation rows together.
      limit_bytes: above this the outputs are computed again in every epoch.
      cache: "auto" prefers the plan's augmentation to a cache, "always" a cache to augmentation; "never" makes none.

    Returns:
      The plan, with `cached` and `cache_reason` filled in, and `augment` where something hinders it.
    """

    def decide(stage: Stage) -> Stage:
        stage = stage._replace(cached=False)
        if stage.augment and np.ndim(x) != 4:
            plain = decide(stage._replace(augment=False))
            return plain._replace(cache_reason=f"{plain.cache_reason} Not augmented: the rows are not images.")
        stop = num_prefix(network, stage)
        if not stop:
            reason = "frozen layers don't form a prefix" if stage.frozen else "no layer is frozen"
            return stage._replace(cache_reason=f"Not cached: {reason}.")
        if network.whole:
            return stage._replace(cache_reason=f"Not cached: {network.whole}.")
        if cache == "never":
            return stage._replace(cache_reason="Not cached: the caller wants no cache.")
        if stage.augment and cache == "auto":
            return stage._replace(cache_reason="Not cached: the inputs are augmented, so they are not the same twice.")
        output = jax.eval_shape(lambda x: network.apply(network.init(jax.random.key(0), x), x, stop=stop)[0], x[:1])
        size = output.size * output.dtype.itemsize * num_rows
        need = f"{num_rows} rows need {size / 1e6:.1f} MB after {network.layers[stop - 1]}"
        numbers = f"{need}, the limit is {limit_bytes / 1e6:.0f} MB"
        if size > limit_bytes:
            return stage._replace(cache_reason=f"Not cached: {numbers}.")
        off = " Augmentation is off: what is kept are the outputs of the images as they are." if stage.augment else ""
        return stage._replace(cached=True, augment=False, cache_reason=f"Cached: {numbers}.{off}")

    return plan._replace(stages=tuple(decide(stage) for stage in plan.stages))
