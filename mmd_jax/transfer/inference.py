"""From rows on the host to outputs on the host, a batch of one size at a time."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.train import cross_entropy, eval_step
from mmd_jax.types import Rows, Tree, Variables


def validate(
    network: Network, variables: Variables, rows: Rows, *, start: int = 0, precision: str = "float32"
) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy) on some rows."""
    log_probabilities = predict(network, variables, rows.x, start=start, precision=precision)
    losses = cross_entropy(jnp.asarray(log_probabilities), jnp.asarray(rows.y))
    return float(losses.mean()), float((log_probabilities.argmax(-1) == rows.y).mean())


def predict(
    network: Network,
    variables: Variables,
    x: np.ndarray,
    *,
    start: int = 0,
    precision: str = "float32",
    batch_size: int = 512,
) -> np.ndarray:
    """Log-probabilities [n, classes] of rows on the host, a batch at a time."""
    return in_batches(
        lambda batch: _predict(variables, batch, network=network, start=start, precision=precision), x, batch_size
    )


@partial(jax.jit, static_argnames=("network", "start", "precision"))
def _predict(variables: Variables, x: Array, *, network: Network, start: int, precision: str) -> Array:
    return eval_step(network, variables, x, start=start, dtype=precision)


def in_batches(apply: Callable[..., Tree], x: np.ndarray, batch_size: int = 512) -> Tree:
    """`apply` on batches of one size (the last is padded by repeating its last row), outputs put together on the host.

    Args:
      apply: [batch, ...] -> pytree of [batch, ...].
      x: [n, ...], n > 0.
      batch_size: rows a call, or all of them where there are fewer.

    Returns:
      The pytree of numpy arrays [n, ...].
    """
    batch_size = min(batch_size, len(x))
    outputs = []
    for first in range(0, len(x), batch_size):
        batch = x[first : first + batch_size]
        missing = batch_size - len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        outputs.append(jax.tree.map(np.asarray, apply(padded)))
    outputs[-1] = jax.tree.map(lambda leaf: leaf[: len(batch)], outputs[-1])
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)
