"""How far the unbiased estimate of MMD² strays from the truth: its variance, without bias, from one pass.

With a = μ_P − μ_Q the difference of the mean embeddings, and Σ_P, Σ_Q the covariances of the features,

    MMD²ᵤ = ‖a‖² + 2⟨a, e⟩ + U,   e the error of the estimated a, U a degenerate U-statistic, uncorrelated with ⟨a, e⟩,
    Var MMD²ᵤ = 4 aᵀΣ_P a / m + 4 aᵀΣ_Q a / n + 2 tr Σ_P² / m(m − 1) + 2 tr Σ_Q² / n(n − 1) + 4 tr Σ_P Σ_Q / mn.

The first two terms rule where P and Q are far apart, the last three where they are not. Each factor has an unbiased
estimate from two kinds of sums over the kernel values, which samples of any number share: of rows, and of squares.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite
from mmd_jax.two_sample.gram import Reduce, Spec, Tile, prepare, visit_all
from mmd_jax.two_sample.kernels import Dot, Kernel, Precision, gaussian
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, check_rows, is_traced, stack
from mmd_jax.two_sample.reductions import row_sums


class Moments(NamedTuple):
    """What the estimates of MMD² between k samples, and of their errors, are made of. Kernel values are less the shift.

    Attributes:
      means: of the kernel between two samples, and between different rows within one. Shape [k, k].
      traces: unbiased estimate of tr Σ_g Σ_h. Shape [k, k].
      rows: sum of each row's kernel values with each sample's rows, itself left out. Shape [N with padding, k].
      sides: 1 where a row is of a sample. Shape [N with padding, k].
      sizes: rows in each sample. Shape [k].
    """

    means: Float[Array, "k k"]
    traces: Float[Array, "k k"]
    rows: Float[Array, "N k"]
    sides: Float[Array, "N k"]
    sizes: Float[Array, " k"]


class Variance(NamedTuple):
    """The unbiased estimate of MMD², and how much it varies. Each may carry leading axes from `jax.vmap`.

    Attributes:
      mmd2: unbiased estimate of MMD². Shape [].
      variance: unbiased estimate of its variance; it can be negative where the variance is small. Shape [].
      linear: of this, what the true difference contributes: 4 aᵀ(Σ_P / m + Σ_Q / n)a; it can be negative. Shape [].
      degenerate: and what is there without a difference. Shape [].
    """

    mmd2: Float[Array, ""]
    variance: Float[Array, ""]
    linear: Float[Array, ""]
    degenerate: Float[Array, ""]


def mmd2_variance(
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
) -> Variance:
    """The unbiased estimate of MMD² with an unbiased estimate of its variance, whether or not P = Q.

        Var MMD²ᵤ = 4 aᵀ(Σ_P / m + Σ_Q / n)a + 2 tr Σ_P² / m(m − 1) + 2 tr Σ_Q² / n(n − 1) + 4 tr Σ_P Σ_Q / mn

    Args:
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.
      precision: of the products.

    Returns:
      `Variance`. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples or bandwidth (see `permutation_test`), fewer than four rows, or a kernel that overflows.

    Example:
      >>> import jax
      >>> x_key, y_key = jax.random.split(jax.random.key(0))
      >>> found = mmd2_variance(jax.random.normal(x_key, (200, 2)), 1 + jax.random.normal(y_key, (200, 2)), bandwidth=2.0)
      >>> round(float(found.mmd2), 2), round(float(found.variance**0.5), 3)
      (0.17, 0.025)

    Reference: Sutherland and Deka, Unbiased estimators for the variance of MMD estimators, arXiv:1906.02104.
    """
    traced = is_traced(x, y, bandwidth)
    pooled, sizes = pool_many({"x": x, "y": y}, fewest=4)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    compiled = _with_static_sizes if traced else _with_traced_sizes
    found = compiled(pooled.blocks, sizes, bandwidth, spec=Spec((kernel,), precision))
    check_finite(found.mmd2, found.variance)
    return found


def _estimate(blocks: Float[Array, "b t d"], sizes: Any, bandwidth: Float[Array, " k"], *, spec: Spec) -> Variance:
    pooled = Pooled(blocks, *sizes)
    found = variance_of_moments(moments(pooled, sizes, bandwidth, spec))
    good = all_finite(blocks)
    return Variance(*(jnp.where(good, value, jnp.nan) for value in found))


_with_static_sizes = partial(jax.jit, static_argnames=("sizes", "spec"))(_estimate)
_with_traced_sizes = partial(jax.jit, static_argnames=("spec",))(_estimate)


def variance_of_moments(found: Moments) -> Variance:
    """The estimate of MMD² between the first two samples, and its variance."""
    difference = jnp.array([1.0, -1.0])
    m, n = found.sizes[0], found.sizes[1]
    linear = 4 * (variance_along(found, 0, difference) / m + variance_along(found, 1, difference) / n)
    traces = found.traces
    degenerate = 2 * traces[0, 0] / (m * (m - 1)) + 2 * traces[1, 1] / (n * (n - 1)) + 4 * traces[0, 1] / (m * n)
    mmd2 = found.means[0, 0] + found.means[1, 1] - 2 * found.means[0, 1]
    return Variance(mmd2, linear + degenerate, linear, degenerate)


def variance_along(found: Moments, g: int, weights: Float[Array, " k"]) -> Float[Array, ""]:
    """Unbiased estimate of bᵀΣ_g b for b = Σ_h weights_h μ_h, the variance of the function b over the rows of sample g.

    The function's value at row i, with the sum over its own sample divided by n_g − 2, differs from that at row j by what
    the rows other than i and j say of b: so the sample variance is off by no more than the error of b, which is known.
    """
    weights = weights.astype(found.rows.dtype)
    own = jnp.arange(found.sizes.shape[0]) == g
    divisors = jnp.where(own, found.sizes - 2, found.sizes)
    values = jnp.sum(found.rows * (weights / divisors)[None, :], axis=1)
    side, size = found.sides[:, g], found.sizes[g]
    deviations = side * (values - jnp.sum(side * values) / size)
    return jnp.sum(deviations**2) / (size - 1) - jnp.sum(weights**2 * found.traces[g] / divisors)


def pool_many(samples: dict[str, Any], *, fewest: int) -> tuple[Pooled, tuple[int, ...]]:
    """Check any number of samples and lay them out, one after the other; and the rows of each.

    Args:
      samples: by the name that errors call them.
      fewest: rows that each must have.

    Returns:
      The rows, with those of all samples but the first counted as y; and the sizes, plain integers.
    """
    rows = {name: check_rows(name, sample) for name, sample in samples.items()}
    widths = {name: sample.shape[1] for name, sample in rows.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"the samples have {', '.join(f'{width} features in {name}' for name, width in widths.items())}; all must be "
            "measured in the same features: pass them through one fixed map first."
        )
    for name, sample in rows.items():
        if sample.shape[0] < fewest:
            raise ValueError(
                f"{name} has {sample.shape[0]} rows; a variance needs at least {fewest}, as its estimate compares {fewest} "
                "different rows of the same sample."
            )
    sizes = tuple(sample.shape[0] for sample in rows.values())
    blocks = stack(tuple(rows.values()), pad=not is_traced(*rows.values()))
    return Pooled(blocks, sizes[0], sum(sizes[1:])), sizes


def moments(pooled: Pooled, sizes: Any, bandwidth: Float[Array, " k"], spec: Spec) -> Moments:
    """The moments of samples that lie one after the other, for the one kernel of `spec`, from one pass."""
    sides = side_columns(pooled, sizes)
    problem = prepare(pooled, sides, (bandwidth[None],), spec)
    sums = visit_all(problem, spec, pair_moments(problem.blocks.shape[0]))
    return as_moments(jax.tree.map(lambda leaf: leaf[0], sums), sides, sizes)


def side_columns(pooled: Pooled, sizes: Any) -> Float[Array, "N k"]:
    """1 where a row is of a sample: samples lie one after the other."""
    ends = jnp.cumsum(jnp.asarray(sizes, jnp.int32))
    row = jnp.arange(pooled.capacity)[:, None]
    starts = ends - jnp.asarray(sizes, jnp.int32)
    return ((row >= starts[None, :]) & (row < ends[None, :])).astype(pooled.blocks.dtype)


class PairSums(NamedTuple):
    """Sums of kernel values, less the shift; K has no diagonal.

    Attributes:
      rows: of each row with each sample. Shape [b, t, k].
      squares: of K² between two samples, both orders within one. Shape [k, k].
    """

    rows: Float[Array, "b t k"]
    squares: Float[Array, "k k"]


def pair_moments(num_blocks: int) -> Reduce:
    """A `Reduce` to `PairSums`, for columns that say which sample a row is of, shape [t, k] on each side."""
    sums_of_rows = row_sums(num_blocks)

    def reduce(tile: Tile, dot: Dot) -> PairSums:
        left, right = tile.left * tile.left_present[:, None], tile.right * tile.right_present[:, None]
        squares = jnp.dot(left.T, dot(jnp.square(tile.values), right), precision=lax.Precision.HIGHEST)
        twice = (tile.i != tile.j).astype(squares.dtype)
        return PairSums(sums_of_rows(tile, dot), squares + twice * squares.T)

    return reduce


def as_moments(sums: PairSums, sides: Float[Array, "N k"], sizes: Any) -> Moments:
    """From the sums over all tiles to means and unbiased traces."""
    dtype = sides.dtype
    rows = sums.rows.reshape(sides.shape)
    n = jnp.asarray(sizes, jnp.int32).astype(dtype)
    within = jnp.eye(n.shape[0], dtype=bool)
    totals = jnp.dot(sides.T, rows, precision=lax.Precision.HIGHEST)
    pairs = n[:, None] * n[None, :]
    means = totals / jnp.where(within, pairs - n[:, None], pairs)
    # Σ_i (Σ_j K_ij)² over the rows i of one sample, j of the other.
    squared_rows = jnp.dot(sides.T, rows**2, precision=lax.Precision.HIGHEST)
    between = sums.squares - squared_rows / n[None, :] - squared_rows.T / n[:, None] + totals**2 / pairs
    # Of four different rows each: the U-centred form, in which a constant cancels as in the doubly centred one.
    own, one = jnp.diagonal(totals), jnp.diagonal(squared_rows)
    centred = jnp.diagonal(sums.squares) + own**2 / ((n - 1) * (n - 2)) - 2 * one / (n - 2)
    traces = jnp.where(within, jnp.diag(centred / (n * (n - 3))), between / (pairs - n[:, None] - n[None, :] + 1))
    return Moments(means, traces, rows, sides, n)
