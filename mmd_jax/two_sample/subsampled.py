"""MMD from a part of the pairs of rows: linear-time, block, incomplete and Nyström estimates.

The first three average h(i, j) = k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(x_j, y_i) over some pairs (i, j). Which rows
stand in which place is drawn from the key, so samples may come sorted. Where m ≠ n, the first three use min(m, n) rows of
each sample; the others are left out at random.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, Int, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_knobs
from mmd_jax.two_sample.kernels import Kernel, energy, gaussian
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, padded_size, pool

# Rows of a tile of the incomplete statistic.
TILE_ROWS = 128
# Entries of the tiles that small blocks are computed in together.
BATCH_ENTRIES = 1 << 18


class Estimate(NamedTuple):
    """An estimate with its own error.

    Attributes:
      estimate: of MMD², unbiased, in squared kernel units. Shape [].
      variance: of the estimate, unbiased. Shape []. NaN for a single term.
    """

    estimate: Float[Array, ""]
    variance: Float[Array, ""]


def mmd2_linear(
    key: Key[Array, ""], x: Numbers, y: Numbers, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Estimate:
    """Linear-time estimate of MMD²: the mean of h over disjoint pairs of places.

        MMD²ₗ = mean_i h(2i, 2i + 1),   variance: that of h over the number of pairs

    Args:
      key: of the order of the rows, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      `Estimate`, from min(m, n) // 2 pairs; differentiable, finite at coincident rows. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples or bandwidth (see `permutation_test`).

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (5000, 2)), 1 + jax.random.normal(y_key, (5000, 2))
      >>> estimate, variance = mmd2_linear(key, x, y)
      >>> bool(estimate > 5 * variance**0.5)
      True

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 6.
    """
    inputs = lay_out(key, x, y, bandwidth, kernel)
    return linear_estimate(key, *inputs, kernel=kernel)[0]


def mmd2_block(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    block_size: int | None = None,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
) -> Estimate:
    """Block estimate of MMD²: the mean of MMD²ᵤ over disjoint blocks of rows.

        MMD²_B = mean_b MMD²ᵤ(x rows of block b, y rows of block b),   variance: that over blocks by their number

    Args:
      key: of the order of the rows, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      block_size: rows of each sample in a block, 2 … min(m, n); none: the largest power of two up to √min(m, n).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      `Estimate`, from min(m, n) // block_size blocks; differentiable. Time and memory go with min(m, n) · block_size and
      block_size². NaN for bad traced values.

    Raises:
      ValueError, TypeError: a bad block size; bad samples or bandwidth (see `permutation_test`).

    Reference: Zaremba et al., B-tests: low variance kernel two-sample tests, NIPS 2013.
    """
    inputs = lay_out(key, x, y, bandwidth, kernel)
    return block_estimate(key, *inputs, size=resolve_block_size(block_size, inputs[0]), kernel=kernel)[0]


def mmd2_incomplete(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    num_superdiagonals: int = 200,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
) -> Float[Array, ""]:
    """Incomplete estimate of MMD²: the mean of h over the R superdiagonals of the matrix of all h(i, j).

        MMD²_R = Σ_{r = 1 … R} Σ_i h(i, i + r) / (R n − R (R + 1) / 2),   n = min(m, n)

    With R = n − 1 these are all pairs.

    Args:
      key: of the order of the rows, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      num_superdiagonals: R; where it is more than min(m, n) − 1, all there are.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      Unbiased estimate of MMD². Shape []. Time goes with n · R; differentiable. NaN for bad traced values.

    Raises:
      ValueError, TypeError: R < 1; bad samples or bandwidth (see `permutation_test`).

    Reference: Schrab et al., Efficient aggregated kernel tests using incomplete U-statistics, NeurIPS 2022.
    """
    inputs = lay_out(key, x, y, bandwidth, kernel)
    band = check_count("num_superdiagonals", num_superdiagonals, 1)
    return incomplete_estimates(key, *inputs, band=band, num=0, kernel=kernel)[0]


def mmd2_nystrom(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    num_landmarks: int | None = None,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
) -> Float[Array, ""]:
    """Nyström estimate of MMD²: MMD²ᵤ for the kernel of features that are projected on those of a few rows.

        k̃(a, b) = k(a, L) k(L, L)⁻¹ k(L, b),   L: landmarks, drawn at random from the pooled rows

    With all rows as landmarks k̃ is k on the samples; with fewer, MMD is that between projections, and so on the whole
    smaller.

    Args:
      key: of the landmarks, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      num_landmarks: ℓ <= m + n; none: the least power of two from √(m + n), and from 32 where there are as many rows.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel, positive definite.

    Returns:
      The estimate. Shape []. Time goes with (m + n) ℓ² + ℓ³; differentiable, through the landmarks too. NaN for bad
      traced values.

    Raises:
      ValueError, TypeError: bad number of landmarks; the energy kernel, which is not positive definite; bad samples or
        bandwidth (see `permutation_test`).

    Reference: Chatalic et al., Nyström kernel mean embeddings, ICML 2022; An efficient permutation-based kernel
    two-sample test, 2025.
    """
    if kernel is energy:
        raise ValueError("the energy kernel is not positive definite, so it has no Nyström features; use laplace_l2.")
    pooled, bandwidth, _ = lay_out(key, x, y, bandwidth, kernel)
    count = pooled.count
    if num_landmarks is None:
        num_landmarks = min(max(32, 1 << math.ceil(math.log2(count) / 2)), count)
    num_landmarks = check_count("num_landmarks", num_landmarks, 1)
    if num_landmarks > count:
        raise ValueError(f"num_landmarks is {num_landmarks}; expected at most m + n = {count}, the rows there are.")
    return _nystrom(key, pooled, bandwidth, num=num_landmarks, kernel=kernel)


def lay_out(key: Any, x: Any, y: Any, bandwidth: Any, kernel: Kernel) -> tuple[Pooled, Any, int]:
    """The checked rows, the bandwidths, and room for min(m, n) rows: padded as the rows are, so a new size compiles nothing."""
    check_knobs(key, 0.5, 1)
    pooled = pool(x, y, pad=not is_traced(key, x, y, bandwidth))
    rows, traced = min(pooled.m, pooled.n), is_traced(key, x, y, bandwidth)
    return pooled, resolve_bandwidth(bandwidth, pooled, kernel), rows if traced else padded_size(rows)


def check_count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; expected a plain integer, since it is a shape.")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}.")
    return int(value)


def resolve_block_size(block_size: int | None, pooled: Pooled) -> int:
    rows = min(pooled.m, pooled.n)
    if block_size is None:
        return max(2, 1 << (math.isqrt(rows).bit_length() - 1))
    block_size = check_count("block_size", block_size, 2)
    if block_size > rows:
        raise ValueError(f"block_size is {block_size}, more than the {rows} rows of the smaller sample.")
    return block_size


def _paired(key: Array, pooled: Pooled, kernel: Kernel, capacity: int) -> tuple[Array, Array]:
    """Rows of x and of y in random order, shape [capacity, d] each; from min(m, n) on, any rows."""
    index = jnp.arange(pooled.capacity, dtype=jnp.int32)
    side = (index >= pooled.m).astype(jnp.int32) + (index >= pooled.count)
    bits = jax.random.bits(key, (pooled.capacity,), jnp.uint32)
    order = lax.sort((side, bits, index), num_keys=2)[2]
    rows = _flat(pooled, kernel)
    place = jnp.arange(capacity, dtype=jnp.int32)
    return rows[order[place]], rows[order[jnp.minimum(place + pooled.m, pooled.capacity - 1)]]


def _flat(pooled: Pooled, kernel: Kernel) -> Float[Array, "N d"]:
    rows = jnp.asarray(pooled.blocks).reshape(pooled.capacity, -1)
    # ‖a‖² + ‖b‖² − 2ab loses what the rows have in common.
    return rows - jnp.sum(rows, axis=0, keepdims=True) / pooled.count if kernel.translation_invariant else rows


@partial(jax.jit, static_argnames=("capacity", "kernel"))
def linear_estimate(
    key: Array, pooled: Pooled, bandwidth: Float[Array, " k"], capacity: int, *, kernel: Kernel
) -> tuple[Estimate, Int[Array, ""]]:
    x, y = _paired(key, pooled, kernel, capacity)
    pair = jax.vmap(kernel.pair, in_axes=(0, 0, None))
    (x1, x2), (y1, y2) = ((rows[0 : 2 * (capacity // 2) : 2], rows[1::2]) for rows in (x, y))
    h = pair(x1, x2, bandwidth) + pair(y1, y2, bandwidth) - pair(x1, y2, bandwidth) - pair(x2, y1, bandwidth)
    terms = jnp.minimum(pooled.m, pooled.n) // 2
    return _mean_of(h, terms, pooled), terms


@partial(jax.jit, static_argnames=("capacity", "size", "kernel"))
def block_estimate(
    key: Array, pooled: Pooled, bandwidth: Float[Array, " k"], capacity: int, *, size: int, kernel: Kernel
) -> tuple[Estimate, Int[Array, ""]]:
    num = capacity // size
    blocks = tuple(rows[: num * size].reshape(num, size, -1) for rows in _paired(key, pooled, kernel, capacity))
    others = ~jnp.eye(size, dtype=bool)

    @jax.checkpoint  # else reverse mode keeps the tiles of all blocks
    def one(block: tuple[Array, Array]) -> Array:
        x, y = block
        within = kernel.tile(x, x, bandwidth) + kernel.tile(y, y, bandwidth)
        return jnp.sum(within, where=others) / (size * (size - 1)) - 2 * jnp.mean(kernel.tile(x, y, bandwidth))

    values = lax.map(one, blocks, batch_size=max(1, min(num, BATCH_ENTRIES // size**2)))
    terms = jnp.minimum(pooled.m, pooled.n) // size
    return _mean_of(values, terms, pooled), terms


def _mean_of(values: Float[Array, " t"], terms: Any, pooled: Pooled) -> Estimate:
    """Mean of the first `terms` values and its variance."""
    used = jnp.arange(len(values)) < terms
    mean = jnp.sum(values, where=used) / terms
    squares = jnp.sum((values - mean) ** 2, where=used)
    variance = jnp.where(terms > 1, squares / (jnp.maximum(terms - 1, 1) * terms), jnp.nan)
    good = all_finite(pooled.blocks)
    return Estimate(jnp.where(good, mean, jnp.nan), jnp.where(good, variance, jnp.nan))


@partial(jax.jit, static_argnames=("capacity", "band", "num", "kernel"))
def incomplete_estimates(
    key: Array, pooled: Pooled, bandwidth: Float[Array, " k"], capacity: int, *, band: int, num: int, kernel: Kernel
) -> Float[Array, " C"]:
    """Of the observed signs (all one) and of `num` random sets."""
    order_key, sign_key = jax.random.split(key)
    x, y = _paired(order_key, pooled, kernel, capacity)
    size = jnp.minimum(pooled.m, pooled.n)
    band = min(band, capacity - 1)
    t = min(TILE_ROWS, capacity)
    num_tiles = -(-capacity // t)
    spare = ((0, num_tiles * t + band - capacity), (0, 0))
    flips = jax.random.bits(sign_key, (capacity, num), jnp.uint8) >> 7
    signs = jnp.concatenate([jnp.ones((capacity, 1), jnp.int8), 1 - 2 * flips.astype(jnp.int8)], axis=1)
    x, y, signs = (jnp.pad(values, spare) for values in (x, y, signs))
    row, column = jnp.arange(t)[:, None], jnp.arange(t + band)[None, :]
    in_band = (column > row) & (column <= row + band)

    @jax.checkpoint  # else reverse mode keeps all tiles
    def one(first: Array) -> Array:
        here, ahead = (tuple(lax.dynamic_slice_in_dim(v, first, n) for v in (x, y, signs)) for n in (t, t + band))
        h = _h(here, ahead, bandwidth, kernel)
        h = jnp.where(in_band & (column + first < size), h, 0)
        product = jnp.dot(h, ahead[2].astype(h.dtype), precision=lax.Precision.HIGHEST)
        return jnp.sum(here[2] * product, axis=0)

    def add(total: Array, first: Array) -> tuple[Array, None]:
        return total + one(first), None

    totals = lax.scan(add, jnp.zeros(num + 1, x.dtype), t * jnp.arange(num_tiles))[0]
    used = jnp.minimum(band, size - 1).astype(x.dtype)
    pairs = used * size - used * (used + 1) / 2
    return jnp.where(all_finite(pooled.blocks), totals / pairs, jnp.nan)


def _h(one: Any, two: Any, bandwidth: Array, kernel: Kernel) -> Float[Array, "s t"]:
    """h of the pairs (x, y) of `one` with those of `two`."""
    tile = partial(kernel.tile, bandwidth=bandwidth)
    return tile(one[0], two[0]) + tile(one[1], two[1]) - tile(one[0], two[1]) - tile(one[1], two[0])


@partial(jax.jit, static_argnames=("num", "kernel"))
def _nystrom(
    key: Array, pooled: Pooled, bandwidth: Float[Array, " k"], *, num: int, kernel: Kernel
) -> Float[Array, ""]:
    rows = _flat(pooled, kernel)
    index = jnp.arange(pooled.capacity, dtype=jnp.int32)
    bits = jax.random.bits(key, (pooled.capacity,), jnp.uint32)
    order = lax.sort(((index >= pooled.count).astype(jnp.int32), bits, index), num_keys=2)[2]
    landmarks = rows[order[:num]]
    gram = kernel.tile(landmarks, landmarks, bandwidth)
    # Landmarks that coincide, or nearly, make it singular; rounding leaves no smaller eigenvalues anyway.
    ridge = 10 * num * jnp.finfo(gram.dtype).eps * jnp.mean(jnp.diag(gram))
    root = jnp.linalg.cholesky(gram + ridge * jnp.eye(num, dtype=gram.dtype))
    m, n = pooled.m, pooled.n
    member = jnp.stack([index < m, (index >= m) & (index < pooled.count)], axis=1).astype(rows.dtype)

    @jax.checkpoint  # else reverse mode keeps the features of all rows
    def one(rows: Array, member: Array) -> tuple[Array, Array]:
        features = solve_triangular(root, kernel.tile(landmarks, rows, bandwidth), lower=True)
        product = partial(jnp.dot, precision=lax.Precision.HIGHEST)
        return product(features, member), product(jnp.sum(features**2, axis=0), member)

    def add(total: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        return jax.tree.map(jnp.add, total, one(*block)), None

    b, t, _ = pooled.blocks.shape
    nothing = (jnp.zeros((num, 2), rows.dtype), jnp.zeros(2, rows.dtype))
    (sums, squares), _ = lax.scan(add, nothing, (rows.reshape(b, t, -1), member.reshape(b, t, 2)))
    x, y = sums[:, 0] / m, sums[:, 1] / n
    # Of ‖mean‖², the diagonal is taken away: what lies between the biased and the unbiased estimate.
    bias = (squares[0] / m - x @ x) / (m - 1) + (squares[1] / n - y @ y) / (n - 1)
    return jnp.where(all_finite(pooled.blocks), jnp.sum((x - y) ** 2) - bias, jnp.nan)
