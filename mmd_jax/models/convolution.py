"""Convolution and pooling, in the form that is fast where they run. The backend is asked here and nowhere else.

On XLA's CPU backend a convolution inside a scanned or while loop is 9 to 23 times slower than outside it; as one matrix
product of shifted slices it is not. On GPU and TPU the built-in convolution is the right one.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def convolve(
    x: Float[Array, "batch height width c"], kernel: Float[Array, "kh kw c d"]
) -> Float[Array, "batch height width d"]:
    """Convolution with stride 1 that keeps the size ("SAME"), in the form that suits the backend it is compiled for.

    y[b, i, j, o] = sum over u, v, c of x[b, i + u - (kh-1)//2, j + v - (kw-1)//2, c] kernel[u, v, c, o], x = 0 outside.

    Args:
      x: inputs, channels last.
      kernel: weights; x and it are promoted to one dtype, in which the result is.

    Returns:
      the outputs; bias and nonlinearity are the caller's.

    >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    # Not lax.platform_dependent: under grad its branches carry each other's residuals, so a GPU would get the columns.
    return convolve_sliced(x, kernel) if jax.default_backend() == "cpu" else convolve_builtin(x, kernel)


def convolve_builtin(
    x: Float[Array, "batch height width c"], kernel: Float[Array, "kh kw c d"]
) -> Float[Array, "batch height width d"]:
    """`convolve` by `lax.conv_general_dilated`."""
    x, kernel = _one_dtype(x, kernel)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve_sliced(
    x: Float[Array, "batch height width c"], kernel: Float[Array, "kh kw c d"]
) -> Float[Array, "batch height width d"]:
    """`convolve` by kh·kw shifted slices, concatenated, and one matrix product."""
    x, kernel = _one_dtype(x, kernel)
    batch, height, width, _ = x.shape
    kh, kw, c, d = kernel.shape
    padded = jnp.pad(x, ((0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
    columns = jnp.concatenate(shifted, axis=-1).reshape(batch * height * width, kh * kw * c)
    return (columns @ kernel.reshape(kh * kw * c, d)).reshape(batch, height, width, d)


def max_pool(x: Float[Array, "batch height width c"]) -> Float[Array, "batch height//2 width//2 c"]:
    """The largest of each 2 × 2 block; an odd last row or column is dropped.

    By maxima of slices, which is faster on CPU than `lax.reduce_window` and its gradient.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    Array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    batch, height, width, c = x.shape
    height, width = height // 2, width // 2
    blocks = x[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, c)
    rows = jnp.maximum(blocks[:, :, 0], blocks[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def _one_dtype(x: Array, kernel: Array) -> tuple[Array, Array]:
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)
