"""From rows on the host to outputs on the host, a batch of one size at a time."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.train import eval_step
from mmd_jax.types import Tree, Variables

# Takes the sequence of what is iterated over and gives the same items: tqdm, or a function like it.
Watch = Callable[[Any], Iterable[Any]]


def log_probabilities(
    network: Network,
    variables: Variables,
    x: np.ndarray,
    *,
    start: int = 0,
    precision: str = "float32",
    batch_size: int = 512,
    watch: Watch = iter,
) -> np.ndarray:
    """Log-probabilities [n, classes] of rows on the host.

    Args:
      network: its last layer gives logits.
      variables: its variables.
      x: inputs of layer `start`, [n, ...].
      start: the layer whose inputs x are.
      precision: of the computation, "float32" or "bfloat16".
      batch_size: rows a call.
      watch: as in `in_batches`.
    """

    def outputs(batch: np.ndarray) -> Array:
        return _log_probabilities(variables, batch, network=network, start=start, precision=precision)

    return in_batches(outputs, x, batch_size, watch=watch)


@partial(jax.jit, static_argnames=("network", "start", "precision"))
def _log_probabilities(variables: Variables, x: Array, *, network: Network, start: int, precision: str) -> Array:
    return eval_step(network, variables, x, start=start, dtype=precision)


def in_batches(apply: Callable[..., Tree], x: np.ndarray, batch_size: int = 512, *, watch: Watch = iter) -> Tree:
    """`apply` on batches of one size (the last is padded by repeating its last row), outputs put together on the host.

    Args:
      apply: [batch, ...] -> pytree of [batch, ...].
      x: [n, ...], n > 0.
      batch_size: rows a call; where there are fewer, the next power of two, so that few sizes are compiled.
      watch: wraps the sequence of batches that are iterated over, for progress.

    Returns:
      The pytree of numpy arrays [n, ...].
    """
    batch_size = min(batch_size, 1 << (len(x) - 1).bit_length())
    outputs = []
    for first in watch(range(0, len(x), batch_size)):
        batch = x[first : first + batch_size]
        missing = batch_size - len(batch)
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        outputs.append(jax.tree.map(np.asarray, apply(padded)))
    outputs[-1] = jax.tree.map(lambda leaf: leaf[: len(batch)], outputs[-1])
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)
