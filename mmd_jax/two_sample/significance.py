"""Is the difference real? Membership columns and the engine become a `TwoSampleResult`.

The observed split is one of the columns: the observed and the resampled statistics come from the same kernel values, in
the same arithmetic, so the level is exact whatever the precision.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Int8, Key

from mmd_jax.two_sample.gram import SplitSums, split_sums
from mmd_jax.two_sample.kernels import Kernel, gaussian, resolve_bandwidth
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, pool
from mmd_jax.two_sample.resampling import group_permutations, observed_column, permutations, swapped_pairs
from mmd_jax.types import TwoSampleResult

# (key, B, pooled, groups or None) -> columns [N, B]
Resampling = Callable[[Array, int, Pooled, Array | None], Array]


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
    kernel: Kernel = gaussian,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test whether x and y come from one distribution, by comparing MMD²ᵤ with its values under random relabelling.

        p = (1 + #{b : MMD²ᵤ(permutation b) >= MMD²ᵤ(observed)}) / (1 + B)

    It rejects where p <= alpha, decided on the integer count, which is where the statistic exceeds `threshold`. Under
    P = Q it rejects with probability floor(alpha (B + 1)) / (B + 1) exactly (less where statistics tie), for any m, n.
    A resampled statistic that equals the observed one but for rounding is made equal, and so counts: where the split is
    the observed one or its mirror image, and where equal rows or groups have changed places. The bandwidth must not
    have been chosen on the labels; the default is a function of the unordered pooled rows.

    It compiles once for each capacity (the next power of two of m + n), d, B and number of bandwidths; new values of
    anything else, of m and n within the capacity too, compile nothing. `jax.vmap` and `jax.jit` apply to it; then each
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
      kernel: which kernel.
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
    if (groups_x is None) != (groups_y is None):
        missing = "groups_y" if groups_y is None else "groups_x"
        raise ValueError(f"{missing} is missing; give the groups of both samples, or of neither.")
    traced = is_traced(key, x, y, bandwidth, alpha, groups_x, groups_y)
    _check_knobs(key, alpha, num_permutations)
    pooled = pool(x, y, pad=not traced)
    groups = None if groups_x is None else _number_groups(groups_x, groups_y, pooled, alpha)
    if groups is None and not traced:
        ways = _count_splits(pooled.m, pooled.n)
        _check_reach(f"{pooled.m} rows in x and {pooled.n} in y can be split", ways, alpha, "rows")
    bandwidth = resolve_bandwidth(bandwidth, pooled.blocks, pooled.count)
    alpha = alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)
    return _run(
        key, pooled, groups, bandwidth, alpha,
        num=num_permutations, kernel=kernel, resample=_permute, return_null=return_null,
    )  # fmt: skip


def wild_bootstrap_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    kernel: Kernel = gaussian,
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
    _check_knobs(key, alpha, num_permutations)
    pooled = pool(x, y, pad=not traced)
    if pooled.m != pooled.n:
        raise ValueError(
            f"x has {pooled.m} rows and y has {pooled.n}; the wild bootstrap swaps pairs, so it needs as many of each. "
            "Use permutation_test, or drop rows at random from the larger sample."
        )
    if not traced:
        # A set of swaps and the opposite set have the same statistic.
        _check_reach(f"{pooled.n} pairs can be swapped", 2 ** min(pooled.n - 1, 64), alpha, "pairs")
    bandwidth = resolve_bandwidth(bandwidth, pooled.blocks, pooled.count)
    alpha = alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)
    return _run(
        key, pooled, None, bandwidth, alpha,
        num=num_permutations, kernel=kernel, resample=_swap, return_null=return_null,
    )  # fmt: skip


def _check_knobs(key: Any, alpha: Any, num: Any) -> None:
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key is {type(key).__name__}; expected a typed key, as jax.random.key(seed) makes it.")
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}; expected one key. For many tests, use jax.vmap over the keys.")
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num_permutations is {num!r}; expected a plain integer, since it is a shape.")
    if num < 1:
        raise ValueError(f"num_permutations is {num}; expected at least 1.")
    if is_traced(alpha):
        return
    if not (np.ndim(alpha) == 0 and 0 < float(alpha) < 1):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 1, the level of the test.")
    if _allowed(np.float64(alpha), num) < 1:
        raise ValueError(
            f"alpha is {alpha}, below 1 / (num_permutations + 1) = 1 / {num + 1}, the smallest possible p: nothing "
            f"could ever be rejected. Use at least {math.ceil(1 / float(alpha)) - 1} permutations, or a larger alpha."
        )


def _number_groups(groups_x: Any, groups_y: Any, pooled: Pooled, alpha: Any) -> Any:
    """The group of each row as a number 0 … G − 1, with padding. Shape [N]."""
    for name, groups, rows in (("groups_x", groups_x, pooled.m), ("groups_y", groups_y, pooled.n)):
        if np.shape(groups) != (rows,):
            raise ValueError(f"{name} has shape {np.shape(groups)}; expected one label a row, ({rows},).")
    if is_traced(groups_x, groups_y):
        labels = jnp.concatenate([jnp.asarray(groups_x), jnp.asarray(groups_y)])
        numbers = jnp.unique(labels, return_inverse=True, size=labels.size)[1]
        return jnp.pad(numbers.astype(jnp.int32), (0, pooled.capacity - labels.size))
    x_labels, y_labels = set(np.asarray(groups_x).tolist()), set(np.asarray(groups_y).tolist())
    both = sorted(x_labels & y_labels, key=str)
    if both:
        raise ValueError(
            f"{len(both)} groups have rows in both samples ({', '.join(map(str, both[:5]))}{', …' * (len(both) > 5)}); "
            "their rows depend on each other across x and y, so no permutation of whole groups moves them. Drop these "
            "rows, or, if the samples only number their groups alike, give them different labels."
        )
    # Apart: numpy would turn the number 1 beside the name "1" into a name, and two groups into one.
    in_x, in_y = (np.unique(np.asarray(groups), return_inverse=True)[1] for groups in (groups_x, groups_y))
    num_x, num_y = int(in_x.max()) + 1, int(in_y.max()) + 1
    numbers = np.concatenate([in_x, in_y + num_x])
    _check_splits(num_x, num_y, np.sort(np.bincount(numbers)), alpha)
    return np.pad(numbers.astype(np.int32), (0, pooled.capacity - numbers.size))


def _check_splits(in_x: int, in_y: int, sizes: np.ndarray, alpha: Any) -> None:
    if min(sizes[:in_x].sum(), sizes[:in_y].sum()) < 2:
        raise ValueError(
            f"with {in_x} groups in x and {in_y} in y, a permutation could leave one row on a side, where the unbiased "
            "estimate needs two; drop the groups of a single row."
        )
    _check_reach(f"{in_x} groups in x and {in_y} in y can be split", _count_splits(in_x, in_y), alpha, "groups")


def _check_reach(what: str, ways: int, alpha: Any, more: str) -> None:
    if not is_traced(alpha) and ways * float(alpha) < 1:
        raise ValueError(
            f"{what} in {ways} ways only, so p is never far below 1 / {ways} and alpha = {alpha} could never be met; "
            f"gather more {more}, or use a larger alpha."
        )


def _count_splits(in_x: int, in_y: int) -> int:
    """How many statistics the splits have; a billion or more are not counted to the end, as no float may hold it."""
    few = min(in_x, in_y, 17)
    # With as many on both sides, each split and its mirror image have the same statistic.
    return math.comb(in_x + in_y, few) // (2 if in_x == in_y else 1)


def _permute(key: Array, num: int, pooled: Pooled, groups: Array | None) -> Array:
    return permutations(key, num, pooled) if groups is None else group_permutations(key, num, pooled, groups)


def _swap(key: Array, num: int, pooled: Pooled, groups: Array | None) -> Array:
    return swapped_pairs(key, num, pooled)


# The one public edge that is jitted. The samples' sizes are traced, and so are alpha and the bandwidths.
@partial(jax.jit, static_argnames=("num", "kernel", "resample", "return_null"))
def _run(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    alpha: Float[Array, ""],
    *,
    num: int,
    kernel: Kernel,
    resample: Resampling,
    return_null: bool,
) -> TwoSampleResult:
    columns = jnp.concatenate([observed_column(pooled), resample(key, num, pooled, groups)], axis=1)
    sums = split_sums(pooled, columns, bandwidth, kernel)
    statistics = _make_ties_equal(unbiased(sums), sums, columns)
    good = (
        all_finite(pooled.blocks)
        & jnp.all(jnp.isfinite(statistics))
        & (alpha > 0) & (alpha < 1) & (_allowed(alpha, num) >= 1)
        & (jnp.array(True) if groups is None else _groups_are_apart(groups, pooled))
    )  # fmt: skip
    return _decide(statistics, biased(sums)[0], alpha, bandwidth, good, return_null)


def _groups_are_apart(groups: Int[Array, " N"], pooled: Pooled) -> Bool[Array, ""]:
    row = jnp.arange(pooled.capacity)
    nobody = jnp.zeros(pooled.capacity, bool)
    in_x = nobody.at[groups].max(row < pooled.m)
    in_y = nobody.at[groups].max((row >= pooled.m) & (row < pooled.count))
    return ~jnp.any(in_x & in_y)


def _make_ties_equal(
    statistics: Float[Array, " C"], sums: SplitSums, columns: Int8[Array, "N C"]
) -> Float[Array, " C"]:
    """Give every column that ties with the observed one (the first) its statistic, to the last bit.

    The same split in another column is summed in another order. Where few splits exist such ties are common, and
    counting them by chance would make p too small.
    """
    shared = jnp.sum(columns * columns[:, :1], axis=0, dtype=jnp.int32)
    size = jnp.sum(columns, axis=0, dtype=jnp.int32)
    observed = (shared == size[0]) & (size == size[0])
    mirror = (shared == 0) & (size == sums.n[0].astype(jnp.int32))

    # Other splits tie where equal rows have changed places. These only the numbers can tell, whose rounding goes with
    # the terms that cancel; but never so coarsely that statistics which merely lie close together count as equal.
    m, n = sums.m, sums.n
    terms = jnp.stack([sums.xx / (m * (m - 1)), sums.yy / (n * (n - 1)), 2 * sums.xy / (m * n)])
    rounding = 64 * jnp.finfo(statistics.dtype).eps * jnp.max(jnp.abs(terms))
    rounding = jnp.minimum(rounding, 1e-3 * jnp.std(statistics))
    close = jnp.abs(statistics - statistics[0]) <= rounding
    return jnp.where(observed | mirror | close, statistics[0], statistics)


def _decide(
    statistics: Float[Array, " C"],
    mmd_biased: Float[Array, ""],
    alpha: Float[Array, ""],
    bandwidth: Float[Array, " k"],
    good: Bool[Array, ""],
    return_null: bool,
) -> TwoSampleResult:
    """The observed statistic (the first) among the resampled ones."""
    statistic, null = statistics[0], statistics[1:]
    num = null.shape[0]
    count = jnp.sum(null >= statistic)
    allowed = _allowed(alpha, num).astype(jnp.int32)
    # reject: 1 + count <= allowed. The allowed-th largest of the null then lies below the statistic: the threshold.
    threshold = jnp.sort(null)[jnp.clip(num - allowed, 0, num - 1)]
    nan = jnp.nan
    return TwoSampleResult(
        statistic=jnp.where(good, statistic, nan),
        pvalue=jnp.where(good, (1 + count) / (1 + num), nan).astype(null.dtype),
        threshold=jnp.where(good, threshold, nan),
        reject=good & (1 + count <= allowed),
        mmd_biased=jnp.where(good, mmd_biased, nan),
        bandwidth=bandwidth,
        null=jnp.where(good, null, nan) if return_null else None,
    )


def _allowed(alpha: Any, num: Any) -> Any:
    """floor(alpha (B + 1)): how many of the B + 1 statistics may be as large as the observed one in a rejection.

    alpha (B + 1) is often meant to be whole and is not in binary: .29 · 100 is 28.999999999999996.
    """
    floor = jnp.floor if is_traced(alpha) else np.floor
    return floor(alpha * (num + 1) * (1 + 1e-6))
