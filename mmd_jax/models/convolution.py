"""Convolution, in the form that is fast where they run. The backend is asked here and nowhere else.

On XLA's CPU backend a convolution inside a scanned or while loop is 9 to 23 times slower than outside it; as matrix
products it is not. Those of Winograd's form take 4/9 of the multiplications of one product of shifted slices, and move less
than half of the data. On GPU and TPU the built-in convolution is the right one.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Padding = Literal["SAME", "VALID"]

# Winograd's form pays where products are not too narrow, and where there are so many multiplications that what it saves
# makes up for compiling it, which takes two to three times as long.
MIN_CHANNELS, MIN_MULTIPLICATIONS = 8, 2**23


def convolve(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns d"]:
    """Convolution, in the form that suits the backend it is compiled for.

    y[b, i, j, o] = sum over u, v, c of p[b, s i + u, s j + v, c] kernel[u, v, c, o], s the stride and p the padded inputs.

    Args:
      x: inputs, channels last.
      kernel: weights; x and it are promoted to one dtype, in which the result is.
      stride: of both axes.
      padding: "VALID": none. "SAME": zeros, such that there is an output for each stride-th input, as many before as
        after, or one less.

    Returns:
      the outputs; bias and nonlinearity are the caller's.

    >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    # Not lax.platform_dependent: under grad its branches carry each other's residuals, so a GPU would get the columns.
    if prefers_builtin():
        return convolve_builtin(x, kernel, stride=stride, padding=padding)
    x, kernel = one_dtype(x, kernel)
    large = kernel.shape[2] >= MIN_CHANNELS and math.prod(x.shape[:3]) * kernel.size >= MIN_MULTIPLICATIONS
    # Its sums and differences of inputs would cost a dtype of 8 bits of precision one or two of them.
    if (kernel.shape[:2], stride, padding) == ((3, 3), 1, "SAME") and large and x.dtype.itemsize >= 4:
        return convolve_winograd(x, kernel)
    return convolve_sliced(x, kernel, stride=stride, padding=padding)


def prefers_builtin() -> bool:
    """Whether the backend that is compiled for runs XLA's own convolutions and sums well. The one place that asks."""
    return jax.default_backend() != "cpu"


def convolve_builtin(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns d"]:
    """`convolve` by `lax.conv_general_dilated`."""
    x, kernel = one_dtype(x, kernel)
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve_sliced(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns d"]:
    """`convolve` by kh·kw shifted slices, concatenated, and one matrix product."""
    x, kernel = one_dtype(x, kernel)
    kh, kw, c, d = kernel.shape
    padded, (rows, width) = with_padding(x, (kh, kw), stride, padding)
    # First beside each other, then below: for few channels, half the time of one concatenation of all.
    beside = [_strided(padded, 2, j, width, stride) for j in range(kw)]
    joined = jnp.concatenate(beside, axis=-1) if kw > 1 else beside[0]
    below = [_strided(joined, 1, i, rows, stride) for i in range(kh)]
    columns = jnp.concatenate(below, axis=-1) if kh > 1 else below[0]
    product = columns.reshape(len(x) * rows * width, kh * kw * c) @ kernel.reshape(kh * kw * c, d)
    return product.reshape(len(x), rows, width, d)


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
    x, kernel = one_dtype(x, kernel)
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


def one_dtype(x: Array, kernel: Array) -> tuple[Array, Array]:
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


def with_padding(x: Array, window: tuple[int, ...], stride: int, padding: Padding) -> tuple[Array, tuple[int, int]]:
    """(x with its padding, (rows, columns) of the outputs)."""
    sizes = x.shape[1:3]
    if padding == "VALID":
        rows, columns = ((n - k) // stride + 1 for n, k in zip(sizes, window))
        return x, (rows, columns)
    rows, columns = (-(-n // stride) for n in sizes)
    missing = [max((m - 1) * stride + k - n, 0) for m, k, n in zip((rows, columns), window, sizes)]
    if any(missing):
        x = jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)))
    return x, (rows, columns)


def _strided(x: Array, axis: int, first: int, count: int, stride: int) -> Array:
    """Entries first, first + stride, … of an axis, `count` of them."""
    return lax.slice_in_dim(x, first, first + stride * (count - 1) + 1, stride, axis)


def window_of(x: Array, u: int, v: int, size: tuple[int, int], stride: int) -> Array:
    return _strided(_strided(x, 1, u, size[0], stride), 2, v, size[1], stride)


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
