"""Convolution and pooling, in the form that is fast where they run. The backend is asked here and nowhere else.

On XLA's CPU backend a convolution inside a scanned or while loop is 9 to 23 times slower than outside it; as matrix
products it is not. Those of Winograd's form take 4/9 of the multiplications of one product of shifted slices, and move less
than half of the data. On GPU and TPU the built-in convolution is the right one.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

# Winograd's form pays where products are not too narrow, and where there are so many multiplications that what it saves
# makes up for compiling it, which takes two to three times as long.
MIN_CHANNELS, MIN_MULTIPLICATIONS = 8, 2**23


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
    if jax.default_backend() != "cpu":
        return convolve_builtin(x, kernel)
    x, kernel = _one_dtype(x, kernel)
    large = kernel.shape[2] >= MIN_CHANNELS and math.prod(x.shape[:3]) * kernel.size >= MIN_MULTIPLICATIONS
    # Its sums and differences of inputs would cost a dtype of 8 bits of precision one or two of them.
    winograd = kernel.shape[:2] == (3, 3) and large and x.dtype.itemsize >= 4
    return convolve_winograd(x, kernel) if winograd else convolve_sliced(x, kernel)


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
    # First beside each other, then below: for few channels, half the time of one concatenation of all.
    beside = jnp.concatenate([padded[:, :, j : j + width] for j in range(kw)], axis=-1)
    columns = jnp.concatenate([beside[:, i : i + height] for i in range(kh)], axis=-1)
    product = columns.reshape(batch * height * width, kh * kw * c) @ kernel.reshape(kh * kw * c, d)
    return product.reshape(batch, height, width, d)


def convolve_winograd(
    x: Float[Array, "batch height width c"], kernel: Float[Array, "kh kw c d"]
) -> Float[Array, "batch height width d"]:
    """`convolve` for kernels of 3 × 3 by Winograd's F(2 × 2, 3 × 3): 16 products for 4 outputs in place of 36.

    Each 2 × 2 block of outputs is Aᵀ[(G kernel Gᵀ) ⊙ (Bᵀ t B)]A, t the 4 × 4 tile of inputs around it; ⊙ sums over c, and
    is one matrix product over all tiles for each of its 16 entries. The backward pass has the same saving. The rounding
    error is up to twice that of the other forms.

    Raises:
      ValueError: if the kernel is not 3 × 3.

    Lavin, Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
    """
    x, kernel = _one_dtype(x, kernel)
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f"the kernel has shape {kernel.shape}; Winograd's form is for 3 × 3: use convolve_sliced")
    batch, height, width, c = x.shape
    d = kernel.shape[3]
    rows, columns = -(-height // 2), -(-width // 2)
    # An odd size is computed as the next even one.
    padded = jnp.pad(x, ((0, 0), (1, 2 * rows - height + 1), (1, 2 * columns - width + 1), (0, 0)))
    inputs = [_transform_inputs(t, axis=2) for t in _transform_inputs(padded, axis=1)]
    weights = [_transform_weights(t) for t in _transform_weights(kernel)]
    # Sixteen products, not one with a batch of sixteen: XLA would copy its operands together, and lose a third.
    products = [
        [(t.reshape(batch * rows * columns, c) @ w).reshape(batch, rows, columns, d) for t, w in zip(*pair)]
        for pair in zip(inputs, weights)
    ]
    halves = [_transform_outputs(*column) for column in zip(*products)]
    blocks = [_transform_outputs(*row) for row in zip(*halves)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in blocks], axis=2)
    return y.reshape(batch, 2 * rows, 2 * columns, d)[:, :height, :width]


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


def _transform_inputs(x: Array, axis: int) -> tuple[Array, Array, Array, Array]:
    """Bᵀ along an axis, for all tiles: entries 2i … 2i + 3 of the axis give entry i of the four results."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    (t0, t2), (t1, t3) = (
        (lax.slice_in_dim(t, 0, -1, axis=axis), lax.slice_in_dim(t, 1, None, axis=axis)) for t in (even, odd)
    )
    return t0 - t2, t1 + t2, t2 - t1, t1 - t3


def _transform_weights(kernel: Array) -> tuple[Array, Array, Array, Array]:
    """G along the first axis."""
    k0, k1, k2 = kernel
    return k0, (k0 + k1 + k2) / 2, (k0 - k1 + k2) / 2, k2


def _transform_outputs(m0: Array, m1: Array, m2: Array, m3: Array) -> tuple[Array, Array]:
    """Aᵀ."""
    return m0 + m1 + m2, m1 - m2 - m3
