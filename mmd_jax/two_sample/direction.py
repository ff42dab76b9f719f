"""The direction in which the mean embeddings are least well known: the first eigenvector of the covariance of their error."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from mmd_jax.two_sample.kernels import Kernel, dot_highest
from mmd_jax.two_sample.pooled import Pooled

# Rows of each sample that stand for all of it; of groups so many at a time, so that small ones are mostly whole.
CHOSEN_ROWS = 512
CHOSEN_TOGETHER = 8
POWER_STEPS = 30


def worst_variance(
    rows: Float[Array, "N d"],
    pooled: Pooled,
    weights: Float[Array, " N"],
    groups: Int[Array, " N"] | None,
    members: Float[Array, " N"],
    bandwidth: Float[Array, " k"],
    kernel: Kernel,
) -> Float[Array, ""]:
    """The largest eigenvalue of Σ_g s_g s_gᵀ, s_g = Σ_{i ∈ g} w_i (φ(x_i) − μ̂), by power iteration on some of the rows.

    Args:
      rows: where the kernel is taken. Shape [N, d].
      pooled: for m, n and N.
      weights: w. Shape [N].
      groups: g of each row, numbered 0 … G − 1; none: each row is one of its own. Shape [N].
      members: rows of each row's group. Shape [N].
      bandwidth: of the kernel. Shape [k].
      kernel: which.
    """
    capacity, dtype = pooled.capacity, rows.dtype
    size, row = min(CHOSEN_ROWS, capacity), jnp.arange(capacity)
    order = row
    if groups is not None:
        side = (row >= pooled.m).astype(jnp.int32) + (row >= pooled.count)
        _, _, order = lax.sort((side, groups, row.astype(jnp.int32)), num_keys=2)
    place, counts = jnp.arange(size)[None, :], jnp.asarray([pooled.m, pooled.n], jnp.int32)[:, None]
    # Evenly spread, group by group: a group of many rows is surely among them, one of few with a known probability.
    together = 1 if groups is None else CHOSEN_TOGETHER
    times, turn = size // together, place // together
    spread = turn * (counts // times) + turn * (counts % times) // times + place % together
    spread = jnp.where(counts > size, spread, place)
    starts = jnp.asarray([0, pooled.m], jnp.int32)[:, None]
    chosen = order[jnp.minimum(starts + spread, capacity - 1)].reshape(-1)
    sides = jax.scipy.linalg.block_diag(*(place < counts).astype(dtype)[:, None])
    used = jnp.sum(sides, axis=0)
    same, taken = None, jnp.ones_like(used)
    if groups is not None:
        same = (groups[chosen][:, None] == groups[chosen][None, :]).astype(dtype) * used[None, :] * used[:, None]
        taken = jnp.maximum(jnp.sum(same, axis=1), 1)
    probability = jnp.minimum(1, (members[chosen] + together - 1) * times / jnp.repeat(counts[:, 0], size))
    # Each stands for the rest of its group, and, as in Horvitz and Thompson's estimate, for the groups that were not chosen.
    scale = used * weights[chosen] * members[chosen] / taken / jnp.sqrt(jnp.maximum(probability, 1e-30))
    some = rows[chosen]
    gram = kernel.value(kernel.compare(some, some, dot_highest), bandwidth)
    gram = gram - jnp.mean(gram)
    numbers = jnp.maximum(jnp.sum(sides, axis=1), 1)

    def centre(vector: Array) -> Array:
        return vector - (dot_highest(sides, vector[:, None])[:, 0] / numbers) @ sides

    def apply(vector: Array) -> Array:
        moved = scale * centre(dot_highest(gram, centre(scale * vector)[:, None])[:, 0])
        # A group's rows err together.
        return moved if same is None else dot_highest(same, moved[:, None])[:, 0]

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        vector, _ = state
        moved = apply(vector)
        length = jnp.linalg.norm(moved)
        return moved / jnp.where(length > 0, length, 1), length

    start = jnp.cos(1.0 + jnp.arange(2 * size, dtype=dtype) ** 2)
    start = start / jnp.linalg.norm(start)
    return lax.fori_loop(0, POWER_STEPS, step, (start, jnp.zeros((), dtype)))[1]
