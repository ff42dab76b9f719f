"""Is the difference real? Membership columns and the engine become a `TwoSampleResult`.

The observed split is one of the columns: the observed and the resampled statistics come from the same kernel values, in
the same arithmetic, so the level is exact whatever the precision.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Int8, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import (
    allowed,
    check_bins,
    check_both,
    check_finite,
    check_knobs,
    check_memory,
    check_precision,
    check_reach,
    check_splits,
    count_splits,
    groups_are_apart,
    number_groups,
)
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, pool
from mmd_jax.two_sample.reductions import SplitSums
from mmd_jax.two_sample.splits import Scheme, Splits, permute, resampled_sums, swap
from mmd_jax.types import TwoSampleResult

# Of the normal distribution, for the Monte-Carlo interval of p: 95 %.
Z = 1.959964


def permutation_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    bins: int | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test whether x and y come from one distribution, by comparing MMD²ᵤ with its values under random relabelling.

        p = (1 + #{b : MMD²ᵤ(permutation b) >= MMD²ᵤ(observed)}) / (1 + B)

    It rejects where p <= alpha, decided on the integer count, which is where the statistic exceeds `threshold`. Under
    P = Q it rejects with probability floor(alpha (B + 1)) / (B + 1) exactly (less where statistics tie), for any m, n.
    A resampled statistic that equals the observed one but for rounding is made equal, and so counts: where the split is
    the observed one or its mirror image, and where equal rows or groups have changed places. The bandwidth must not
    have been chosen on the labels; the default is a function of the unordered pooled rows.

    It compiles once for each capacity (m + n and d are padded to one of few sizes), B and number of bandwidths; new values
    of anything else, of m, n and d within the capacity too, compile nothing. `jax.vmap` and `jax.jit` apply to it; then each
    shape compiles once.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 2. Integers and booleans are converted to float32, float64 too without x64.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      groups_x: where rows depend on each other (one writer, one document), the group of each row of x, shape [m]: whole
        groups are then permuted, with as many on each side as there were. Numbers or names; give both or neither.
      groups_y: the same for y, shape [n]. A label that both samples use is an error: such a group can't change sides.
      bins: how many bins of ceil(N / bins) rows (or groups) are permuted in place of rows, left-over rows staying put. As
        exact, hardly less powerful with 128, and B costs next to nothing. None: rows (or groups) are permuted.
      kernel: which kernel.
      precision: of the products: "highest" (float32, or float64 under x64), or faster on some machines "tf32" or
        "bfloat16". The level is exact in each.
      mesh: devices that share the work; each holds all rows. None: the default device.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`. Where the input is bad and traced, so that nothing can raise, its numbers are NaN and `reject`
      is False.

    Raises:
      ValueError: samples that are not matrices of finite numbers with at least two rows each and the same features; a
        bandwidth that is not positive, or too small or large to square; alpha outside (0, 1), or so small that nothing
        could be rejected; B < 1; groups that do not fit the rows, or span both samples; rows or groups too few to
        reject. `NoBandwidthError`, a kind of ValueError: a median distance of 0.
      TypeError: a key that is not a typed `jax.random.key`; entries that are not real numbers.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (50, 2)), 1 + jax.random.normal(y_key, (70, 2))
      >>> result = permutation_test(test_key, x, y)
      >>> bool(result.reject), round(float(result.pvalue), 3)
      (True, 0.001)

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012; Phipson and Smyth, Permutation P-values should never
    be zero, 2010.
    """
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    pooled, groups = lay_out(key, x, y, bandwidth, alpha, groups_x, groups_y, bins)
    check_memory(pooled.capacity, num_permutations, bins)
    scheme = Scheme(num_permutations, permute, bins, bins is not None and groups is not None)
    return _test(key, pooled, groups, bandwidth, alpha, Spec((kernel,), precision, mesh), scheme, return_null)


def wild_bootstrap_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q by swapping the members of random pairs (x_i, y_i): a wild bootstrap with Rademacher signs.

        p = (1 + #{b : MMD²ᵤ(swaps b) >= MMD²ᵤ(observed)}) / (1 + B)

    Its level is exact where a pair and its mirror image are equally likely under P = Q, as they are for independent
    samples, and also for natural pairs (before and after) that permuting the rows would tear apart. Which row of y
    stands beside which of x matters. Otherwise it is `permutation_test`; see there for what both share.

    Args:
      key: consumed.
      x: sample of P, shape [n, d], n >= 2.
      y: sample of Q, shape [n, d].
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B, how many sets of swaps.
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`, as `permutation_test`.

    Raises:
      ValueError: m != n, or as `permutation_test`.
      TypeError: as `permutation_test`.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (60, 2)), 1 + jax.random.normal(y_key, (60, 2))
      >>> bool(wild_bootstrap_test(test_key, x, y).reject)
      True

    Reference: Fromont et al., Kernels based tests with non-asymptotic bootstrap approaches for two-sample problems,
    COLT 2012.
    """
    traced = is_traced(key, x, y, bandwidth, alpha)
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    pooled = pool(x, y, pad=not traced)
    if pooled.m != pooled.n:
        raise ValueError(
            f"x has {pooled.m} rows and y has {pooled.n}; the wild bootstrap swaps pairs, so it needs as many of each. "
            "Use permutation_test, or drop rows at random from the larger sample."
        )
    if not traced:
        # A set of swaps and the opposite set have the same statistic.
        check_reach(f"{pooled.n} pairs can be swapped", 2 ** min(pooled.n - 1, 64), alpha, "pairs")
    spec, scheme = Spec((kernel,), precision, mesh), Scheme(num_permutations, swap)
    return _test(key, pooled, None, bandwidth, alpha, spec, scheme, return_null)


def lay_out(
    key: Any, x: Any, y: Any, bandwidth: Any, alpha: Any, groups_x: Any, groups_y: Any, bins: int | None
) -> tuple[Pooled, Any]:
    """The pooled rows and the number of each row's group, or none; refuses samples that can't be split enough."""
    check_both(groups_x, groups_y)
    traced = is_traced(key, x, y, bandwidth, alpha, groups_x, groups_y)
    pooled = pool(x, y, pad=not traced)
    if groups_x is not None:
        groups, units = number_groups(groups_x, groups_y, pooled)
        if units is not None:
            check_splits(groups[: pooled.count], *units, alpha)
    else:
        groups, units = None, (pooled.m, pooled.n)
        if not traced:
            ways = count_splits(pooled.m, pooled.n)
            check_reach(f"{pooled.m} rows in x and {pooled.n} in y can be split", ways, alpha, "rows")
    if bins is not None:
        in_x, in_y = units or (pooled.m, pooled.n)
        check_bins(bins, in_x, in_y, "rows" if groups is None else "groups", alpha)
    return pooled, groups


def _test(
    key: Any, pooled: Pooled, groups: Any, bandwidth: Any, alpha: Any, spec: Spec, scheme: Scheme, return_null: bool
) -> TwoSampleResult:
    bandwidth = resolve_bandwidth(bandwidth, pooled, spec.kernels[0])
    alpha = alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)
    result = _run(key, pooled, groups, bandwidth, alpha, spec=spec, scheme=scheme, return_null=return_null)
    check_finite(result.statistic)
    return result


# The one public edge that is jitted. The samples' sizes are traced, and so are alpha and the bandwidths.
@partial(jax.jit, static_argnames=("spec", "scheme", "return_null"))
def _run(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    alpha: Float[Array, ""],
    *,
    spec: Spec,
    scheme: Scheme,
    return_null: bool,
) -> TwoSampleResult:
    sums, splits = resampled_sums(key, pooled, groups, (bandwidth[None],), spec, scheme)
    good = is_good(pooled, alpha, scheme.num, groups)
    return conclude_test(sums, splits, alpha, bandwidth, good, return_null)


def is_good(pooled: Pooled, alpha: Any, num: int, groups: Array | None) -> Bool[Array, ""]:
    """Whether traced input is what was asked for: what would be an error, were it concrete."""
    apart = jnp.array(True) if groups is None else groups_are_apart(groups, pooled)
    return all_finite(pooled.blocks) & (alpha > 0) & (alpha < 1) & (allowed(alpha, num) >= 1) & apart


def conclude_test(
    sums: SplitSums, splits: Splits, alpha: Any, bandwidth: Float[Array, " k"], good: Bool[Array, ""], return_null: bool
) -> TwoSampleResult:
    """The result of a test with one kernel, from the sums of the observed split (the first) and the resampled ones."""
    statistics = make_ties_equal(unbiased(sums), sums, splits)[0]
    good = good & jnp.all(jnp.isfinite(statistics))
    return decide(statistics, alpha, good)._replace(
        mmd_biased=jnp.where(good, biased(sums)[0, 0], jnp.nan),
        bandwidth=bandwidth,
        null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None,
    )


def make_ties_equal(statistics: Float[Array, "K C"], sums: SplitSums, splits: Splits) -> Float[Array, "K C"]:
    """Let no column that ties with the observed one (the first) fall below its statistic by rounding.

    The same split in another column is summed in another order. Where few splits exist such ties are common, and
    counting them by chance would make p too small.
    """
    shared, size = _shared_rows(*splits.units())
    observed = (shared == size[0]) & (size == size[0])
    mirror = (shared == 0) & (size == sums.n[0, 0].astype(jnp.int32))

    # Other splits tie where equal rows have changed places. These only the numbers can tell, whose rounding goes with
    # the terms that cancel; but never so coarsely that statistics which merely lie close together count as equal.
    m, n = sums.m, sums.n
    terms = jnp.stack([sums.xx / (m * (m - 1)), sums.yy / (n * (n - 1)), 2 * sums.xy / (m * n)])
    rounding = 64 * jnp.finfo(statistics.dtype).eps * jnp.max(jnp.abs(terms), axis=(0, 2))
    rounding = jnp.minimum(rounding, 1e-3 * jnp.std(statistics, axis=1))
    close = jnp.abs(statistics - statistics[:, :1]) <= rounding[:, None]
    # Only upwards: what is above the observed statistic reaches it anyway.
    tied = (observed | mirror)[None, :] | close
    return jnp.where(tied, jnp.maximum(statistics, statistics[:, :1]), statistics)


def make_close_equal(statistics: Float[Array, " C"]) -> Float[Array, " C"]:
    """As `make_ties_equal`, where only the numbers tell what ties: close to the first is equal to it.

    Sums in another order differ by rounding; but never so coarsely that statistics which merely lie close count as equal.
    """
    rounding = 64 * jnp.finfo(statistics.dtype).eps * jnp.max(jnp.abs(statistics))
    rounding = jnp.minimum(rounding, 1e-3 * jnp.std(statistics))
    return jnp.where(jnp.abs(statistics - statistics[0]) <= rounding, statistics[0], statistics)


def _shared_rows(members: Int8[Array, "u C"], sizes: Int[Array, " u"]) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
    """How many rows of X each split shares with the observed one, and how many it has."""
    # A few units at a time: as integers of 32 bits the members would be four times as large.
    at_once = next(size for size in (1024, 64, 1) if len(members) % size == 0) if len(members) > 1024 else len(members)

    def add(totals: tuple[Array, Array], chunk: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        rows = chunk[0] * chunk[1][:, None]
        found = (jnp.sum(one, axis=0, dtype=jnp.int32) for one in (rows * chunk[0][:, :1], rows))
        return tuple(map(jnp.add, totals, found)), None  # type: ignore[return-value]

    nothing = jnp.zeros(members.shape[1], jnp.int32)
    chunks = members.reshape(-1, at_once, members.shape[1]), sizes.astype(jnp.int32).reshape(-1, at_once)
    return lax.scan(add, (nothing, nothing), chunks)[0]


def decide(statistics: Float[Array, " C"], alpha: Any, good: Bool[Array, ""]) -> TwoSampleResult:
    """The observed statistic (the first) among the resampled ones; what the sums alone tell is left NaN."""
    statistic, null = statistics[0], statistics[1:]
    num = null.shape[0]
    count = jnp.sum(null >= statistic)
    most = allowed(alpha, num).astype(jnp.int32)
    # reject: 1 + count <= most. The most-th largest of the null then lies below the statistic: the threshold.
    threshold = jnp.sort(null)[jnp.clip(num - most, 0, num - 1)]
    nan = jnp.asarray(jnp.nan, null.dtype)
    return TwoSampleResult(
        statistic=jnp.where(good, statistic, nan),
        pvalue=jnp.where(good, (1 + count) / (1 + num), nan).astype(null.dtype),
        threshold=jnp.where(good, threshold, nan),
        reject=good & (1 + count <= most),
        mmd_biased=nan,
        bandwidth=nan[None],
        num_permutations=jnp.asarray(num, jnp.int32),
        pvalue_interval=jnp.where(good, monte_carlo_interval(count, num), nan).astype(null.dtype),
    )


def monte_carlo_interval(count: Any, num: Any) -> Float[Array, "2"]:
    """Wilson's 95 % interval for the share of all resamplings that reach the statistic, when `count` of `num` did."""
    share, z2 = count / num, Z**2
    middle = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = Z * jnp.sqrt(share * (1 - share) / num + z2 / (4 * num**2)) / (1 + z2 / num)
    return jnp.stack([jnp.maximum(middle - half, 0), jnp.minimum(middle + half, 1)])
