"""Kernels: for one pair of rows as the definition, and for a tile of pairs in two steps, of which the first is shared.

Comparing two blocks of rows (their distances, or their products) costs far more than what a kernel makes of it. So a
kernel says how it compares, and kernels that compare alike share one comparison for all their bandwidths.
"""

from collections.abc import Callable
from functools import cache, partial, reduce
from operator import add, mul
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

# How the inner loops multiply: in full ("highest": float32, or float64 under x64), or faster and coarser.
Precision = Literal["highest", "tf32", "bfloat16"]
PRECISIONS = ("highest", "tf32", "bfloat16")
# (A [s, d], B [d, t]) -> A B [s, t]
Dot = Callable[[Array, Array], Array]
# What a bandwidth is measured by where none is given: the median distance, the root mean square of the rows, or 1.
Scale = Literal["l2", "l1", "norm", "one"]


class Kernel(NamedTuple):
    """A symmetric positive definite function of two rows; a new one is made of plain functions. Static under `jit`.

    Attributes:
      pair: (a [d], b [d], bandwidth [k]) -> k(a, b), shape []: the definition.
      compare: (A [s, d], B [t, d], dot) -> arrays [s, t] that hold what the kernel needs of all pairs but the
        bandwidth. Kernels with the same function share its result.
      value: (compared, bandwidth [k]) -> kernel values, shape [s, t].
      scales: what each bandwidth is taken from by default. One scale: the kernel is summed over any number of
        bandwidths. Several (sums and products of kernels): one bandwidth for each.
      translation_invariant: whether moving all rows by one vector leaves MMD as it is; they are then centred, for
        accuracy.
    """

    pair: Callable[[Array, Array, Array], Array]
    compare: Callable[[Array, Array, Dot], Any]
    value: Callable[[Any, Array], Array]
    scales: tuple[Scale, ...] = ("l2",)
    translation_invariant: bool = False

    def tile(self, A: Array, B: Array, bandwidth: Array) -> Array:
        """Kernel values of all pairs of rows of A [s, d] and B [t, d], shape [s, t]."""
        return self.value(self.compare(A, B, dot_highest), bandwidth)


def dot_highest(A: Float[Array, "s d"], B: Float[Array, "d t"]) -> Float[Array, "s t"]:
    """A B without loss: a GPU would by default multiply float32 in TF32, with ten bits of mantissa."""
    return jnp.dot(A, B, precision=lax.Precision.HIGHEST)


def dot_tf32(A: Float[Array, "s d"], B: Float[Array, "d t"]) -> Float[Array, "s t"]:
    """A B of operands that are rounded to ten bits of mantissa; float32 sums."""
    A, B = (lax.reduce_precision(matrix, exponent_bits=8, mantissa_bits=10) for matrix in (A, B))
    return jnp.dot(A, B, precision=lax.Precision.HIGH)


def dot_bfloat16(A: Float[Array, "s d"], B: Float[Array, "d t"]) -> Float[Array, "s t"]:
    """A B of operands that are rounded to bfloat16, seven bits of mantissa; float32 sums."""
    return jnp.dot(A.astype(jnp.bfloat16), B.astype(jnp.bfloat16), preferred_element_type=A.dtype)


DOTS: dict[str, Dot] = {"highest": dot_highest, "tf32": dot_tf32, "bfloat16": dot_bfloat16}


def squared_distances(A: Float[Array, "s d"], B: Float[Array, "t d"], dot: Dot = dot_highest) -> Float[Array, "s t"]:
    """‖a − b‖² of all pairs of rows, by one product. No root is taken, so the derivative is finite at a = b.

    What rounding leaves of ‖a‖² + ‖b‖² − 2ab between equal rows is made 0: of its root much would be left.
    """
    squares_a, squares_b = jnp.sum(A * A, axis=1), jnp.sum(B * B, axis=1)
    both = squares_a[:, None] + squares_b[None, :]
    squared = both - 2 * dot(A, B.T)
    return jnp.where(squared > 4 * jnp.finfo(A.dtype).eps * both, squared, 0)


def l1_distances(A: Float[Array, "s d"], B: Float[Array, "t d"], dot: Dot = dot_highest) -> Float[Array, "s t"]:
    """Σ|a_f − b_f| of all pairs of rows, a few features at a time: there is no product that gives it."""
    d = A.shape[1]
    step = next(size for size in (8, 4, 2, 1) if d % size == 0)
    chunks = tuple(jnp.moveaxis(rows.reshape(len(rows), d // step, step), 0, 2) for rows in (A, B))

    def add_features(total: Array, chunk: tuple[Array, ...]) -> tuple[Array, None]:
        a, b = chunk
        return total + sum(jnp.abs(a[f][:, None] - b[f][None, :]) for f in range(step)), None

    return lax.scan(add_features, jnp.zeros((len(A), len(B)), A.dtype), chunks)[0]


def inner_products(A: Float[Array, "s d"], B: Float[Array, "t d"], dot: Dot = dot_highest) -> Float[Array, "s t"]:
    """a·b of all pairs of rows."""
    return dot(A, B.T)


def safe_root(squared: Array) -> Array:
    """√ with derivative 0 at 0, where it would be infinite: two wheres, as a masked infinity times 0 is NaN."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _summed(value: Callable[[Any, Array], Array], compared: Any, bandwidth: Float[Array, " k"]) -> Array:
    # A Python sum, so that XLA makes one pass over the tile for all bandwidths.
    return reduce(add, (value(compared, bandwidth[i]) for i in range(bandwidth.shape[0])))


def _of_squared_distance(value: Callable[[Array, Array], Array]) -> Kernel:
    summed = partial(_summed, value)
    return Kernel(
        lambda a, b, bandwidth: summed(jnp.sum((a - b) ** 2), bandwidth), squared_distances, summed, ("l2",), True
    )


def _of_distance(value: Callable[[Array, Array], Array], scale: Scale = "l2") -> Kernel:
    kernel = _of_squared_distance(lambda squared, bandwidth: value(safe_root(squared), bandwidth))
    return kernel._replace(scales=(scale,))


# exp(−r² / 2σ²)
gaussian = _of_squared_distance(lambda squared, bandwidth: jnp.exp(squared * (-0.5 / bandwidth**2)))
# exp(−r / σ), r = ‖a − b‖₂; it is also the Matérn kernel of smoothness ½.
laplace_l2 = matern12 = _of_distance(lambda r, bandwidth: jnp.exp(-r / bandwidth))
# (1 + √3 r/σ) exp(−√3 r/σ)
matern32 = _of_distance(lambda r, bandwidth: _matern32(3**0.5 * r / bandwidth))
# (1 + √5 r/σ + 5r²/3σ²) exp(−√5 r/σ)
matern52 = _of_distance(lambda r, bandwidth: _matern52(5**0.5 * r / bandwidth))
# −r / σ, with σ = 1 by default: then MMD² is the energy distance 2E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖.
energy = _of_distance(lambda r, bandwidth: -r / bandwidth, scale="one")
# (1 + r²/σ²)^(−½)
inverse_multiquadric = _of_squared_distance(lambda squared, bandwidth: lax.rsqrt(1 + squared / bandwidth**2))


def _matern32(r: Array) -> Array:
    return (1 + r) * jnp.exp(-r)


def _matern52(r: Array) -> Array:
    return (1 + r + r**2 / 3) * jnp.exp(-r)


def _laplace_l1_value(compared: Array, bandwidth: Array) -> Array:
    return jnp.exp(-compared / bandwidth)


# exp(−‖a − b‖₁ / σ), with σ the median L1 distance by default.
laplace_l1 = Kernel(
    lambda a, b, bandwidth: _summed(_laplace_l1_value, jnp.sum(jnp.abs(a - b)), bandwidth),
    l1_distances,
    partial(_summed, _laplace_l1_value),
    ("l1",),
    True,
)


@cache
def rational_quadratic(shape: float = 1.0) -> Kernel:
    """(1 + r² / 2ασ²)^(−α): Gaussian kernels of many bandwidths at once, more alike the larger α = `shape` > 0 is."""
    if not shape > 0:
        raise ValueError(f"shape is {shape}; expected a positive number.")
    return _of_squared_distance(
        lambda squared, bandwidth: jnp.exp(-shape * jnp.log1p(squared / (2 * shape * bandwidth**2)))
    )


@cache
def polynomial(degree: int = 3, offset: float = 1.0) -> Kernel:
    """(a·b / σ² + offset)^degree: sees the moments up to `degree` >= 1 alone. σ² is by default the mean of ‖z‖²."""
    if degree < 1 or int(degree) != degree or offset < 0:
        raise ValueError(f"degree is {degree} and offset {offset}; expected a whole degree of at least 1, offset >= 0.")
    value = partial(_summed, lambda product, bandwidth: (product / bandwidth**2 + offset) ** int(degree))
    return Kernel(lambda a, b, bandwidth: value(jnp.sum(a * b), bandwidth), inner_products, value, ("norm",))


def _linear_value(product: Array, bandwidth: Array) -> Array:
    return product / bandwidth**2


# a·b / σ², with σ = 1 by default: then MMD is the distance of the means.
linear = Kernel(
    lambda a, b, bandwidth: _summed(_linear_value, jnp.sum(a * b), bandwidth),
    inner_products,
    partial(_summed, _linear_value),
    ("one",),
    # The kernel moves, its MMD does not: what a translation adds is a function of one row at a time, and cancels.
    True,
)


@cache
def kernel_sum(*kernels: Kernel) -> Kernel:
    """k₁ + k₂ + …; it takes one bandwidth for each of its parts, in their order."""
    return _combined(add, kernels)


@cache
def kernel_product(*kernels: Kernel) -> Kernel:
    """k₁ · k₂ · …; it takes one bandwidth for each of its parts, in their order."""
    return _combined(mul, kernels)


def _combined(combine: Callable[[Any, Any], Any], kernels: tuple[Kernel, ...]) -> Kernel:
    if not kernels:
        raise ValueError("a sum or a product needs at least one kernel.")
    if len(kernels) == 1:
        return kernels[0]
    comparisons = tuple(dict.fromkeys(kernel.compare for kernel in kernels))
    ends = [sum(len(kernel.scales) for kernel in kernels[: i + 1]) for i in range(len(kernels))]

    def part(i: int, bandwidth: Array) -> Array:
        return bandwidth[ends[i] - len(kernels[i].scales) : ends[i]]

    def pair(a: Array, b: Array, bandwidth: Array) -> Array:
        return reduce(combine, (kernel.pair(a, b, part(i, bandwidth)) for i, kernel in enumerate(kernels)))

    def value(compared: Any, bandwidth: Array) -> Array:
        return reduce(
            combine,
            (
                kernel.value(compared[comparisons.index(kernel.compare)], part(i, bandwidth))
                for i, kernel in enumerate(kernels)
            ),
        )

    scales = tuple(scale for kernel in kernels for scale in kernel.scales)
    # A factor whose MMD alone is invariant (the linear kernel's) makes a product whose MMD is not.
    only_distances = all(_of_distances(kernel.compare) for kernel in kernels)
    invariant = all(kernel.translation_invariant for kernel in kernels) and (combine is add or only_distances)
    compare: Any = _Together(comparisons)
    return Kernel(pair, compare, value, scales, invariant)


class _Together(NamedTuple):
    """Several comparisons as one."""

    comparisons: tuple[Callable[[Array, Array, Dot], Any], ...]

    def __call__(self, A: Array, B: Array, dot: Dot, /) -> Any:
        return tuple(compare(A, B, dot) for compare in self.comparisons)


def _of_distances(compare: Callable[[Array, Array, Dot], Any]) -> bool:
    if isinstance(compare, _Together):
        return all(map(_of_distances, compare.comparisons))
    return compare in (squared_distances, l1_distances)
