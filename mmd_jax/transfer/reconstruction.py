"""What an autoencoder minimises: the squared error of its reconstruction. Labels play no part in it."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.train import forward
from mmd_jax.types import LossFn, Objective, Rows, Variables


def as_it_is(x: Array) -> Array:
    """What is rebuilt where nothing else is said: the input, as float32."""
    return jnp.asarray(x, jnp.float32)


@cache
def reconstruction(wanted: Callable[[Array], Array] = as_it_is) -> Objective:
    """The mean squared error between a network's output and what it was given.

        (1/n) Σ_i ‖f_θ(x_i) − w(x_i)‖² / d,  d numbers a row

    Args:
      wanted: w, of raw rows [batch, ...]: what the output should be. The preprocessing, where the network begins with one
        (`preprocessed`), so that both are in the same units.

    Returns:
      An Objective for rows whose labels are ignored; it reports "explained", the share of the rows' variance (about the mean of
      each batch) that the reconstruction explains. One object for each function, so that a chunk is compiled once.

    Example:
      >>> from mmd_jax.models.autoencoder import autoencoder
      >>> from mmd_jax.models.mlp import mlp_base
      >>> x = np.ones((4, 3), np.float32)
      >>> network = autoencoder(mlp_base((2,)), (3,), hidden=())
      >>> variables = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), x))
      >>> reconstruction().validate(network, variables, Rows(x, np.zeros(4, np.int32)))["loss"]  # 0 for 1
      1.0
    """
    return Objective(partial(_loss, wanted), partial(_validate, wanted), partial(_check, wanted))


def _loss(
    wanted: Callable[[Array], Array], network: Network, train: Sequence[str], *, start: int = 0, dtype: str = "float32"
) -> LossFn:
    _check_start(start)

    def loss(
        variables: Variables, batch: tuple[Array, Any], key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        x, _ = batch
        found, model_state = forward(network, variables, x, dtype=dtype, train=tuple(train), key=key)
        aim = wanted(x)
        error = jnp.square(found - aim).mean()
        spread = jnp.square(aim - aim.mean(axis=0, keepdims=True)).mean()
        explained = jnp.where(spread > 0, 1 - error / jnp.where(spread > 0, spread, 1), 0)
        return error, (model_state, {"explained": explained})

    return loss


def _validate(
    wanted: Callable[[Array], Array],
    network: Network,
    variables: Variables,
    rows: Rows,
    *,
    start: int = 0,
    precision: str = "float32",
) -> dict[str, float]:
    _check_start(start)

    def errors(x: np.ndarray) -> tuple[Array, Array]:
        return _errors(variables, x, network=network, wanted=wanted, precision=precision)

    error, aim = in_batches(errors, rows.x)
    spread = float(np.square(aim - aim.mean(axis=0, keepdims=True)).mean())
    loss = float(error.mean())
    return {"loss": loss, "explained": 1 - loss / spread if spread else 0.0}


@partial(jax.jit, static_argnames=("network", "wanted", "precision"))
def _errors(
    variables: Variables, x: Array, *, network: Network, wanted: Callable[[Array], Array], precision: str
) -> tuple[Array, Array]:
    """(mean squared error of each row [batch], what was wanted [batch, ...])."""
    found, _ = forward(network, variables, x, dtype=precision)
    aim = wanted(x)
    return jnp.square(found - aim).reshape(len(x), -1).mean(axis=1), aim


def _check(wanted: Callable[[Array], Array], network: Network, *parts: Rows) -> None:
    for x, _ in parts:
        if not len(x):
            raise ValueError("there are no rows to rebuild; expected at least one")
        aim = jax.eval_shape(wanted, x[:1]).shape[1:]
        found = jax.eval_shape(lambda row: network.apply(network.init(jax.random.key(0), row), row)[0], x[:1]).shape[1:]
        if found != aim:
            raise ValueError(
                f"the network's output for one row has shape {list(found)}, and what it should rebuild {list(aim)}; build the "
                "autoencoder for that shape"
            )


def _check_start(start: int) -> None:
    if start:
        raise ValueError(
            f"the rows are inputs of layer number {start + 1}, behind a cached prefix, from which the network's own inputs can't "
            "be rebuilt; leave the stage's `cached` off"
        )


RECONSTRUCTION = reconstruction()
