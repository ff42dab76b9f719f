"""What is done to each channel alone: depthwise convolution, means, scale and shift; in the form that suits the backend.

On XLA's CPU backend a depthwise convolution of its own is twenty times slower than shifted slices, and a sum over all axes
but the last goes through memory channel by channel; as a matrix product it does not.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from mmd_jax.models.convolution import Padding, one_dtype, prefers_builtin, window_of, with_padding


def convolve_depthwise(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns c"]:
    """Convolution of each channel with a kernel of its own, in the form that suits the backend it is compiled for.

    y[b, i, j, c] = sum over u, v of p[b, s i + u, s j + v, c] kernel[u, v, c]; stride s and padding as in `convolve`.

    >>> convolve_depthwise(jnp.ones((1, 2, 2, 2)), jnp.array([[[1.0, 2.0]]]))[0, 0]
    Array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    if prefers_builtin():
        return depthwise_builtin(x, kernel, stride=stride, padding=padding)
    return depthwise_shifted(x, kernel, stride=stride, padding=padding)


def depthwise_builtin(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns c"]:
    """`convolve_depthwise` by `lax.conv_general_dilated`."""
    x, kernel = one_dtype(x, kernel)
    numbers, groups = ("NHWC", "HWIO", "NHWC"), x.shape[3]
    return lax.conv_general_dilated(
        x, kernel[:, :, None], (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def depthwise_shifted(
    x: Float[Array, "batch height width c"],
    kernel: Float[Array, "kh kw c"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "batch rows columns c"]:
    """`convolve_depthwise` by kh·kw shifted slices, multiplied and added; it has a first derivative in reverse mode.

    The derivative is its own: that of slices would add up kh·kw arrays as large as x, and sum products channel by channel.
    """
    x, kernel = one_dtype(x, kernel)
    padded, size = with_padding(x, kernel.shape[:2], stride, padding)
    return _depthwise(padded, kernel, size, stride)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(padded: Array, kernel: Array, size: tuple[int, int], stride: int) -> Array:
    # Behind a barrier, or the loop over the outputs would ask of every input whether it is padding.
    padded = lax.optimization_barrier(padded)
    return sum(window_of(padded, u, v, size, stride) * kernel[None, None, None, u, v] for u, v in _taps(kernel))  # type: ignore


def _depthwise_forward(padded: Array, kernel: Array, size: tuple[int, int], stride: int):
    return _depthwise(padded, kernel, size, stride), (padded, kernel)


def _depthwise_backward(size: tuple[int, int], stride: int, saved: tuple[Array, Array], g: Array):
    padded, kernel = saved
    kh, kw, c = kernel.shape
    fixed = lax.optimization_barrier(padded)
    reach = [stride * (n - 1) + 1 for n in size]

    def of_weight(tap: Array) -> Array:
        window = lax.dynamic_slice(fixed, (0, tap // kw, tap % kw, 0), (len(g), *reach, c))
        return g.size // c * channel_means(window_of(window, 0, 0, size, stride) * g)

    # In a loop: written out, the taps of a whole network would take longer to compile than many an epoch.
    weights = lax.map(of_weight, jnp.arange(kh * kw)).reshape(kernel.shape)
    height, width = padded.shape[1:3]
    # The gradient with stride - 1 zeros between its entries, and so many around that its windows cover the inputs.
    edges = [(k - 1, n - 1 - stride * (m - 1), stride - 1) for k, n, m in zip((kh, kw), (height, width), size)]
    spread = lax.optimization_barrier(lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *edges, (0, 0, 0)]))
    flipped = kernel[::-1, ::-1]
    inputs = sum(
        window_of(spread, u, v, (height, width), 1) * flipped[None, None, None, u, v] for u, v in _taps(kernel)
    )
    return inputs, weights


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def channel_means(x: Float[Array, "... c"]) -> Float[Array, " c"]:
    """The mean of each channel over all other axes, in the form that suits the backend it is compiled for.

    >>> channel_means(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    Array([2., 4.], dtype=float32)
    """
    rows = x.reshape(-1, x.shape[-1])
    if prefers_builtin():
        return rows.mean(0)
    # A matrix product: XLA's own sum over rows goes through memory channel by channel.
    return (jnp.full((1, len(rows)), 1 / len(rows), x.dtype) @ rows)[0]


def scale_and_shift(
    x: Float[Array, "... c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "... c"]:
    """x · scale + shift for each channel; it has a first derivative in reverse mode, in the form that suits the backend.

    >>> scale_and_shift(jnp.ones((1, 2)), jnp.array([2.0, 3.0]), jnp.array([0.0, 1.0]))
    Array([[2., 4.]], dtype=float32)
    """
    return _affine(x, scale, shift)


def _affine_plain(x: Array, scale: Array, shift: Array) -> Array:
    return x * lax.broadcast_to_rank(scale, x.ndim) + lax.broadcast_to_rank(shift, x.ndim)


_affine = jax.custom_vjp(_affine_plain)


def _affine_forward(x: Array, scale: Array, shift: Array):
    return _affine_plain(x, scale, shift), (x, scale)


def _affine_backward(saved: tuple[Array, Array], g: Array):
    x, scale = saved
    count = g.size // g.shape[-1]
    sums = (count * channel_means(g * x), count * channel_means(g))
    inwards = (g * lax.broadcast_to_rank(scale, g.ndim)).astype(x.dtype)
    return (inwards, *(value.astype(scale.dtype) for value in sums))


_affine.defvjp(_affine_forward, _affine_backward)


def _taps(kernel: Array) -> list[tuple[int, int]]:
    return [(u, v) for u in range(kernel.shape[0]) for v in range(kernel.shape[1])]
