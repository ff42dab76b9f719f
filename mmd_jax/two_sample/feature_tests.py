"""Two-sample tests by random features and permutations of bins, for rows in memory and for sketches of them.

Whole bins change sides, so B permutations cost next to nothing beside the features of the rows.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key

from mmd_jax.two_sample import kernels
from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import (
    check_bins,
    check_both,
    check_knobs,
    check_reach,
    check_splits,
    count_splits,
    number_groups,
)
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, pool
from mmd_jax.two_sample.random_features import add_to_bins, check_kernel, draw_frequencies, empty_bins, one_bandwidth
from mmd_jax.two_sample.resampling import bin_permutations, into_bins
from mmd_jax.two_sample.significance import decide, make_close_equal
from mmd_jax.two_sample.sketches import Sketch, check_counts, check_same, estimates, mean_of_bins
from mmd_jax.types import TwoSampleResult

# Bins of both samples together that a test on rows in memory permutes.
LARGEST_BINS = 256
FEWEST_BINS = 16


def random_feature_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    num_features: int = 1024,
    bins: int | None = None,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    kernel: str = "gaussian",
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q in time (m + n) d r, by random features and permutations of bins of rows.

        T(S) = MMD²ᵤ of the split S for the kernel φ(a)ᵀφ(b)

    The rows of each sample go at random into bins of equal size, and whole bins change sides; what is left over stays on
    its side. So the level is floor(alpha (B + 1)) / (B + 1) exactly, for any m, n and whatever the features, and the
    number of permutations costs next to nothing. Few features cost power, not validity.

    Args:
      key: of frequencies, bins and permutations, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: σ, one positive number; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      num_features: r, even.
      bins: of both samples together; none: 256, or the largest power of two that m + n holds.
      groups_x: where rows depend on each other, the group of each, shape [m]; bins then hold whole groups.
      groups_y: the same for y.
      kernel: a name, see `feature_map`.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`.

    Raises:
      ValueError, TypeError: as `permutation_test` and `feature_map`.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (5000, 2)), 0.2 + jax.random.normal(y_key, (3000, 2))
      >>> bool(random_feature_test(test_key, x, y).reject)
      True

    Reference: Zhao and Meng, FastMMD, Neural Computation 2015; Domingo-Enrich et al., Cheap permutation testing,
    arXiv:2502.07672.
    """
    check_both(groups_x, groups_y)
    check_knobs(key, alpha, num_permutations)
    traced = is_traced(key, x, y, bandwidth, alpha, groups_x, groups_y)
    pooled = pool(x, y, pad=not traced)
    groups, units = None, (pooled.m, pooled.n)
    if groups_x is not None:
        groups, found = number_groups(groups_x, groups_y, pooled)
        if found is not None:
            check_splits(groups[: pooled.count], *found, alpha)
        units = found or units
    if bins is None:
        # As many as that, but so many that the smaller sample has some to move, if it has the rows.
        wanted = max(LARGEST_BINS, FEWEST_BINS * sum(units) // min(units))
        bins = min(1 << (wanted - 1).bit_length(), 1 << (sum(units).bit_length() - 1))
    check_bins(bins, *units, "rows" if groups is None else "groups", alpha)
    check_kernel(kernel, num_features)
    bandwidth = one_bandwidth(resolve_bandwidth(bandwidth, pooled, getattr(kernels, kernel)))
    return _test_rows(
        key, pooled, groups, alpha, bandwidth,
        num=num_permutations, half=num_features // 2, bins=bins, kernel=kernel, return_null=return_null,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("num", "half", "bins", "kernel", "return_null"))
def _test_rows(
    key: Array,
    pooled: Pooled,
    groups: Array | None,
    alpha: ArrayLike,
    bandwidth: ArrayLike,
    *,
    num: int,
    half: int,
    bins: int,
    kernel: str,
    return_null: bool,
) -> TwoSampleResult:
    map_key, bin_key, split_key = jax.random.split(key, 3)
    rows = jnp.asarray(pooled.blocks).reshape(pooled.capacity, -1)
    rows = rows - jnp.sum(rows, axis=0, keepdims=True) / pooled.count
    row = jnp.arange(pooled.capacity)
    sample = (row >= pooled.m).astype(jnp.int32) + (row >= pooled.count)
    binned = into_bins(bin_key, bins, sample, 2, groups)
    frequencies = draw_frequencies(map_key, rows.shape[1], half, kernel, bandwidth)
    sums, excess, counts = add_to_bins(frequencies, empty_bins(bins + 2, 2 * half), rows[binned.order], binned.bins)
    in_x = bin_permutations(split_key, num, binned).T.astype(sums.dtype)
    sizes = counts.astype(sums.dtype)
    m, n = jnp.dot(in_x, sizes), jnp.dot(1 - in_x, sizes)
    # About the pooled mean, where less cancels.
    mean = (jnp.sum(sums, axis=0) - jnp.sum(excess, axis=0)) / jnp.sum(sizes)
    centred = _without_rounding(sums - sizes[:, None] * mean[None, :] - excess, sizes)
    x = jnp.dot(in_x, centred, precision=lax.Precision.HIGHEST) / m[:, None]
    y = jnp.dot(1 - in_x, centred, precision=lax.Precision.HIGHEST) / n[:, None]
    squares = jnp.sum((x - y) ** 2, axis=1)
    lengths = [jnp.sum((side + mean[None, :]) ** 2, axis=1) for side in (x, y)]
    statistics = squares - (1 - lengths[0]) / (m - 1) - (1 - lengths[1]) / (n - 1)
    good = all_finite(pooled.blocks)
    return _conclude(make_close_equal(statistics), jnp.sqrt(squares[0]), alpha, bandwidth, good, return_null)


def sketch_test(
    key: Key[Array, ""],
    a: Sketch,
    b: Sketch,
    *,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q from two sketches alone, by permuting their bins.

        T(S) = ‖mean_{b in S} z_b − mean_{b not in S} z_b‖²,   z_b = (s/m) Σ_{i in bin b} (φ(x_i) − pooled mean), likewise y

    over random sets S of half of the 2s bins. T of the observed split is ‖x̄ − ȳ‖²; less the bias of that, which is the
    same for all splits, it is `sketch_mmd2`.

    Where the counts of the bins of a are those of b in some order (m = n, both accumulated `evenly`), bins of equal
    counts are permuted among each other and the level is floor(alpha (B + 1)) / (B + 1) exactly. Otherwise all bins are,
    and it is approximate: each z_b has mean 0 under P = Q whatever its count, and the two sides have the right variance
    for any m and n, but bins of unequal counts are not quite exchangeable.

    Args:
      key: consumed.
      a: sketch of x; at least as many rows as bins.
      b: sketch of y.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`; the statistic is `sketch_mmd2`.

    Raises:
      ValueError: sketches that differ in identity; fewer rows than bins; too few bins to reject at alpha; alpha outside
        (0, 1) or below 1 / (B + 1); B < 1.
      TypeError: a key that is not a typed key; B that is not a plain integer.

    Example:
      >>> import jax
      >>> from mmd_jax.two_sample.sketches import accumulate, new_sketch
      >>> keys = jax.random.split(jax.random.key(0), 6)
      >>> empty = new_sketch(keys[0], 2, bandwidth=1.0, num_features=256)
      >>> a = accumulate(keys[1], empty, jax.random.normal(keys[2], (5000, 2)))
      >>> b = accumulate(keys[3], empty, jax.random.normal(keys[4], (3000, 2)) + 0.2)
      >>> bool(sketch_test(keys[5], a, b).reject)
      True

    Reference: Domingo-Enrich et al., Cheap permutation testing, arXiv:2502.07672; Zhao and Meng, FastMMD, Neural
    Computation 2015.
    """
    check_knobs(key, alpha, num_permutations)
    check_same(a, b)
    bins = a.counts.shape[0]
    check_counts(a, b, bins)
    check_reach(f"{bins} bins in each sketch can be split", count_splits(bins, bins), alpha, "bins")
    return _test_bins(key, a[2:], b[2:], alpha, a.identity.bandwidth, num=num_permutations, return_null=return_null)


@partial(jax.jit, static_argnames=("num", "return_null"))
def _test_bins(
    key: Array, a: Any, b: Any, alpha: ArrayLike, bandwidth: ArrayLike, *, num: int, return_null: bool
) -> TwoSampleResult:
    counts = jnp.stack([a[2], b[2]])
    z = _influences(a, b)
    signs = _signs(key, num, counts)
    sums = jnp.dot(signs, z, precision=lax.Precision.HIGHEST) / counts.shape[1]
    squares = make_close_equal(jnp.sum(sums * sums, axis=1))
    statistic, biased = estimates(a, b)
    # The bias is that of the observed split for all, so the order stays.
    return _conclude(squares - squares[0] + statistic, biased, alpha, bandwidth, jnp.array(True), return_null)


def _influences(a: Any, b: Any) -> Float[Array, "S r"]:
    """z_b of all bins, first those of a."""
    (x, m), (y, n) = mean_of_bins(*a), mean_of_bins(*b)
    pooled = (m * x + n * y) / (m + n)

    def centred(bins: tuple[Array, Array, Array], size: Array) -> Array:
        sums, excess, counts = bins
        rows = counts.astype(jnp.float32)
        values = (sums - rows[:, None] * pooled[None, :]) - excess
        return _without_rounding(values, rows) * (counts.shape[0] / size)

    return jnp.concatenate([centred(a, m), centred(b, n)])


def _signs(key: Array, num: int, counts: Int[Array, "2 s"]) -> Float[Array, "C S"]:
    """+1 for the bins of X and −1 for those of Y: the observed split, then B random ones."""
    alike = jnp.all(jnp.sort(counts[0]) == jnp.sort(counts[1]))
    stratum = jnp.where(alike, counts, 0).ravel()
    observed = jnp.repeat(jnp.array([1, -1], jnp.int32), counts.shape[1], total_repeat_length=stratum.size)
    in_order = lax.sort((stratum, observed), num_keys=1)[1]  # stable
    bits = jax.random.bits(key, (num, stratum.size), jnp.uint32)
    index = jnp.arange(stratum.size, dtype=jnp.int32)
    strata, indices = (jnp.broadcast_to(value, bits.shape) for value in (stratum, index))
    order = lax.sort((strata, bits, indices), num_keys=2)[2]
    permuted = jax.vmap(lambda order: jnp.zeros_like(observed).at[order].set(in_order))(order)
    return jnp.concatenate([observed[None], permuted]).astype(jnp.float32)


def _without_rounding(centred: Float[Array, "s r"], sizes: Float[Array, " s"]) -> Float[Array, "s r"]:
    """What is left of sums of equal numbers is rounding: of constant rows, all splits must tie."""
    rounding = 16 * jnp.finfo(centred.dtype).eps * math.sqrt(2 / centred.shape[1]) * sizes
    return jnp.where(jnp.abs(centred) > rounding[:, None], centred, 0)


def _conclude(
    statistics: Float[Array, " C"], biased: Array, alpha: ArrayLike, bandwidth: Any, good: Array, return_null: bool
) -> TwoSampleResult:
    good = good & jnp.all(jnp.isfinite(statistics)) & (jnp.asarray(alpha) > 0) & (jnp.asarray(alpha) < 1)
    return decide(statistics, alpha, good)._replace(
        mmd_biased=jnp.where(good, biased, jnp.nan),
        bandwidth=jnp.asarray(bandwidth, statistics.dtype).reshape(1),
        null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None,
    )
