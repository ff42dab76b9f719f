"""Pooling by maxima and sums of shifted slices, which on CPU is faster than `lax.reduce_window` and its gradient."""

from functools import reduce

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmd_jax.models.convolution import window_of, with_padding


def max_pool(x: Float[Array, "batch height width c"]) -> Float[Array, "batch height//2 width//2 c"]:
    """The largest of each 2 × 2 block; an odd last row or column is dropped.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    batch, height, width, c = x.shape
    height, width = height // 2, width // 2
    blocks = x[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, c)
    rows = jnp.maximum(blocks[:, :, 0], blocks[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def max_pool_overlapping(x: Float[Array, "batch height width c"]) -> Float[Array, "batch rows columns c"]:
    """The largest of each 3 × 3 window, a window for every second row and column, none across the border.

    >>> max_pool_overlapping(jnp.arange(25.0).reshape(1, 5, 5, 1))[0, :, :, 0]
    Array([[12., 14.],
           [22., 24.]], dtype=float32)
    """
    rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:3])
    return reduce(jnp.maximum, [window_of(x, i, j, (rows, columns), 2) for i in range(3) for j in range(3)])


def average_pool(x: Float[Array, "batch height width c"]) -> Float[Array, "batch height width c"]:
    """The mean over the 3 × 3 window around each position, of those of its entries that there are.

    >>> average_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, :, :, 0]
    Array([[1.5, 1.5],
           [1.5, 1.5]], dtype=float32)
    """

    def total(x: Array) -> Array:
        padded, size = with_padding(x, (3, 3), 1, "SAME")
        return sum(window_of(padded, i, j, size, 1) for i in range(3) for j in range(3))  # type: ignore[return-value]

    return total(x) / total(jnp.ones_like(x[:1, :, :, :1]))


def global_mean(x: Float[Array, "batch height width c"]) -> Float[Array, "batch c"]:
    """The mean over all positions."""
    return x.mean((1, 2))
