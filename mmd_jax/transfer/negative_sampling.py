"""Skip-gram's objective: a word's real context against words drawn from noise. One more loss for the one train step."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.train import forward
from mmd_jax.types import LossFn, Objective, Rows, Variables

# The collection, beside "params", that holds the noise: data, not weights, so that tables of one size share one program.
NOISE = "noise"


def with_noise(network: Network, variables: Variables, counts: Any, *, power: float = 0.75) -> Variables:
    """The variables with the distribution that noise words are drawn from.

        P(v) = counts_v^power / Σ_u counts_u^power

    Args:
      network: of `skip_gram`.
      variables: its parameters.
      counts: how often each word occurs, [V]; 0 for numbers that stand for none, which are then never drawn.
      power: 1 draws words as often as they occur, 0 all alike.

    Raises:
      ValueError: counts of another shape, negative, not finite, or all 0.
    """
    counts = np.asarray(counts, np.float64)
    size = variables["params"][network.layers[-1]]["vectors"].shape[0]
    if counts.shape != (size,) or not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
        raise ValueError(
            f"counts has shape {counts.shape}, from {counts.min(initial=0):g} to {counts.max(initial=0):g}; expected how often "
            f"each of {size} words occurs, 0 or more, and at least one more than 0"
        )
    weights = np.where(counts > 0, counts, 1.0) ** power * (counts > 0)
    cumulative = np.cumsum(weights) / weights.sum()
    # Rounding must leave nothing above the last word that occurs.
    cumulative[np.flatnonzero(counts)[-1] :] = 1.0
    return {**variables, NOISE: {network.layers[-1]: {"cumulative": jnp.asarray(cumulative, jnp.float32)}}}


def negative_sampling(num_noise: int = 5) -> Objective:
    """The objective of `skip_gram` on rows x [n, 1], the centre words, and y [n], a word near each.

        −log σ(⟨w, c_y⟩) − Σ_{j=1}^{k} log σ(−⟨w, c_j⟩),  c_j ~ P(noise)

    `validate` has the expectation over the noise in place of draws. The variables hold the noise: `with_noise`.

    Args:
      num_noise: k, noise words a pair.

    Raises:
      ValueError: k < 1; in use: no noise in the variables, or rows that are not numbers of words.

    Reference: Mikolov, Sutskever, Chen, Corrado, Dean, Distributed representations of words and phrases and their
    compositionality, NeurIPS 2013, equation 4.
    """
    if num_noise < 1:
        raise ValueError(f"num_noise = {num_noise}; expected at least one noise word a pair")
    return _objective(num_noise)


@lru_cache
def _objective(num_noise: int) -> Objective:
    """The same object each time: what is compiled for it is compiled once."""
    return Objective(partial(_loss, num_noise), partial(_validate, num_noise), _check)


def _loss(num_noise: int, network: Network, train: Sequence[str], *, start: int = 0, dtype: str = "float32") -> LossFn:
    def loss(
        variables: Variables, batch: tuple[Array, Array], key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        x, y = batch
        words = _centres(network, variables, x, start=start, dtype=dtype)
        contexts = variables["params"][network.layers[-1]]["vectors"]
        draws = jax.random.uniform(key, (len(y), num_noise))
        # From the right, so that a draw of exactly 0 is no word that never occurs.
        noise = jnp.searchsorted(_cumulative(network, variables), draws, side="right")
        real = (words * contexts[y]).sum(axis=-1)
        drawn = jnp.einsum("bd,bkd->bk", words, contexts[noise])
        value = (jax.nn.softplus(-real) + jax.nn.softplus(drawn).sum(axis=-1)).mean()
        state = {name: tree for name, tree in variables.items() if name != "params"}
        return value, (state, {"told_apart": (real > drawn.mean(axis=-1)).mean(dtype=jnp.float32)})

    return loss


def _validate(
    num_noise: int, network: Network, variables: Variables, rows: Rows, *, start: int = 0, precision: str = "float32"
) -> dict[str, float]:
    cumulative = _cumulative(network, variables)
    y = np.asarray(rows.y, np.int32)

    def losses(chosen: np.ndarray) -> Array:
        x = rows.x[chosen]
        return _expected(
            variables, x, y[chosen], cumulative, network=network, num=num_noise, start=start, dtype=precision
        )

    # x and y go through in step: what is batched are the numbers of the rows.
    values = in_batches(losses, np.arange(len(y)))
    return {"loss": float(values.mean())}


@partial(jax.jit, static_argnames=("network", "num", "start", "dtype"))
def _expected(
    variables: Variables, x: Array, y: Array, cumulative: Array, *, network: Network, num: int, start: int, dtype: str
) -> Array:
    scores, _ = forward(network, variables, x, start=start, dtype=dtype)
    share = jnp.diff(cumulative, prepend=0)
    real = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
    return jax.nn.softplus(-real) + num * (jax.nn.softplus(scores) @ share)


def _check(network: Network, *parts: Rows) -> None:
    for x, y in parts:
        if not len(y) or len(x) != len(y):
            raise ValueError(
                f"there are {len(x)} centre words and {len(y)} words near them; expected as many, at least one"
            )
        shape = jax.eval_shape(lambda row: network.apply(network.init(jax.random.key(0), row), row)[0], x[:1]).shape
        for name, numbers in (("centre words", np.asarray(x)), ("words near them", np.asarray(y))):
            if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() >= shape[-1]:
                raise ValueError(
                    f"the {name} run from {numbers.min()} to {numbers.max()} ({numbers.dtype}); expected numbers of words, "
                    f"0 … {shape[-1] - 1}"
                )


def _centres(network: Network, variables: Variables, x: Array, *, start: int, dtype: str) -> Array:
    last = len(network.layers) - 1
    return x if start == last else forward(network, variables, x, start=start, stop=last, dtype=dtype)[0]


def _cumulative(network: Network, variables: Variables) -> Any:
    if NOISE not in variables:
        raise ValueError("the variables hold no noise distribution; make them by `with_noise`")
    return variables[NOISE][network.layers[-1]]["cumulative"]


SKIP_GRAM = negative_sampling()
