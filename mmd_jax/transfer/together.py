"""Several fits of one shape as one program: a batch of networks, for accelerators, which one small network leaves idle."""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.finetune import FitState, NonFiniteLossError, Prepared, compiled_for, run_chunk
from mmd_jax.transfer.objectives import CLASSIFICATION
from mmd_jax.transfer.recipe import Recipe, data_order, rate_factors, schedule
from mmd_jax.transfer.train import TrainState
from mmd_jax.types import Objective, Stage


def fit_together(
    network: Network,
    prepared: Sequence[Prepared],
    states: Sequence[FitState],
    *,
    recipe: Recipe,
    objective: Objective = CLASSIFICATION,
) -> Iterator[tuple[list[FitState], list[dict[str, float]]]]:
    """As `fit` on each of them, without validation, side by side under `jax.vmap`.

    Each network sees the batches and the keys that it would see alone; the sums in its products may be taken in another
    order. On CPU it pays to fit one after another (`fit`), as one small network fills the cores there.

    Args:
      network: the network.
      prepared: k stages, each of its own weights, rows and keys, that agree in what they freeze and train, in whether the
        prefix is cached, and in the number of rows; without rows to validate on.
      states: where each stands, all at one step.
      recipe: the settings.
      objective: what is minimised.

    Yields:
      (k states, the metrics of each) once a chunk.

    Raises:
      ValueError: they can't share one program.
      NonFiniteLossError: when a loss becomes NaN or infinite.
    """
    num_rows, step = check_alike(network, prepared, states, recipe)
    total, chunk, _ = schedule(num_rows, recipe, validated=False)
    static = compiled_for(network, prepared[0], recipe, objective)
    keys = jnp.stack([one.step_key for one in prepared])
    trained = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state.train for state in states))
    while step < total:
        size = min(recipe.batch_size, num_rows)
        orders = [data_order(one.order_key, num_rows, step, chunk, size) for one in prepared]
        x, y = (
            np.stack([getattr(one.train, name)[rows] for one, rows in zip(prepared, orders, strict=True)])
            for name in ("x", "y")
        )
        trained, means = _run_chunks(trained, x, y, rate_factors(recipe, step, chunk, total), keys, **static)
        step += chunk
        values = {name: np.asarray(mean) for name, mean in means.items()}
        if not np.isfinite(values["loss"]).all():
            raise NonFiniteLossError(
                f"the loss of {int((~np.isfinite(values['loss'])).sum())} of {len(prepared)} networks became NaN or "
                f"infinite between steps {step - chunk} and {step}; lower the learning rate, or clip gradients"
            )
        split = [jax.tree.map(lambda leaf, i=i: leaf[i], trained) for i in range(len(prepared))]
        yield (
            [
                FitState(one, one.variables, state.best_loss, jnp.int32(step))
                for one, state in zip(split, states, strict=True)
            ],
            [{"step": step, **{name: float(mean[i]) for name, mean in values.items()}} for i in range(len(prepared))],
        )


def check_alike(
    network: Network, prepared: Sequence[Prepared], states: Sequence[FitState], recipe: Recipe
) -> tuple[int, int]:
    """(rows, step) that the fits have in common; refuses those that can't share one program."""
    if not prepared or len(prepared) != len(states):
        raise ValueError(f"there are {len(prepared)} stages and {len(states)} states; expected as many, at least one")
    if any(one.valid is not None for one in prepared):
        raise ValueError("fits side by side have one fixed length: prepare them with valid=None")
    programs = {
        (compiled_for(network, one, recipe)["stage"], one.start, one.train.x.shape, int(state.train.step))
        for one, state in zip(prepared, states, strict=True)
    }
    if len(programs) > 1:
        raise ValueError(
            f"fits side by side must agree in frozen and trained layers, cached prefix, shape of the rows, and step; there are "
            f"{len(programs)} kinds among {len(prepared)}"
        )
    [(_, _, shape, step)] = programs
    return shape[0], step


@partial(jax.jit, static_argnames=("network", "stage", "recipe", "start", "objective"))
def _run_chunks(
    states: TrainState,
    x: Array,
    y: Array,
    factors: Array,
    keys: Array,
    *,
    network: Network,
    stage: Stage,
    recipe: Recipe,
    start: int,
    objective: Objective,
) -> tuple[TrainState, dict[str, Array]]:
    one = partial(run_chunk, network=network, stage=stage, recipe=recipe, start=start, objective=objective)
    return jax.vmap(one, in_axes=(0, 0, 0, None, 0))(states, x, y, factors, keys)
