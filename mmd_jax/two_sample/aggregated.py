"""Power without choosing a kernel or a bandwidth: one test over many, and over the layers of a network too.

All kernels, bandwidths and layers meet the same permutations, so what any one of them shows is compared with the
largest of what chance shows to all. The combined statistic treats the observed split as one of the columns, no
different from the others: the level is that of a permutation test, exact, and there is a p-value.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Key

from mmd_jax.two_sample.bandwidths import grid_of_blocks, resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite, check_knobs, check_precision
from mmd_jax.two_sample.gram import Spec, visit_all
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian, laplace_l1
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, check_bandwidth, is_traced
from mmd_jax.two_sample.reductions import sum_of_squares, together
from mmd_jax.two_sample.significance import decide, is_good, lay_out, make_ties_equal
from mmd_jax.two_sample.splits import Scheme, begin, conclude, permute, reduction
from mmd_jax.types import KernelTable, TwoSampleResult

# How the kernels' statistics become one: the largest normal score, or a soft maximum.
Combine = Literal["max", "fuse"]


def aggregated_test(
    key: Key[Array, ""],
    x: Numbers | Mapping[str, Numbers],
    y: Numbers | Mapping[str, Numbers],
    *,
    kernels: tuple[Kernel, ...] = (laplace_l1, gaussian),
    num_bandwidths: int = 10,
    bandwidths: tuple[Numbers, ...] | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    bins: int | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q by the largest of many kernels' statistics, each on the scale of its own permutations (MMDAgg's idea).

        T(c) = max_k z_k(MMD²_k(split c)),    p = (1 + #{b : T(permutation b) >= T(observed)}) / (1 + B)

    z_k is Wilson and Hilferty's normal score of a gamma distribution with the mean, variance and skewness that kernel k
    has over all splits, so that a wide and a narrow bandwidth count alike however skewed their nulls are. It rejects
    where any kernel's score is too large: `kernels.reject` says which. Unlike the published MMDAgg it needs one set of
    permutations, not two, and gives a p-value. Its level is exact, as `permutation_test`'s; see there for what both
    share.

    Args:
      key: consumed.
      x: sample of P, shape [m, d]; or {layer: [m, d of the layer]}: all are tested together, at one family-wise level.
      y: sample of Q, shape [n, d], or the same layers.
      kernels: which.
      num_bandwidths: for each kernel, taken from the pooled rows by `bandwidth_grid`; kernels without a distance, and
        sums and products, get their default bandwidth alone.
      bandwidths: in place of these, for each kernel a vector, shape [g].
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      groups_x: group of each row of x, as `permutation_test`.
      groups_y: group of each row of y.
      bins: as `permutation_test`.
      precision: as `permutation_test`.
      mesh: as `permutation_test`.
      return_null: whether to return the B resampled T.

    Returns:
      `TwoSampleResult` with T as its statistic, in standard deviations, and `kernels`: what each found. `bandwidth` and
      `mmd_biased` are those of the kernel with the largest score.

    Raises:
      ValueError, TypeError: as `permutation_test`; layers that differ between x and y.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (80, 2)), 2 * jax.random.normal(y_key, (80, 2))
      >>> result = aggregated_test(test_key, x, y, num_bandwidths=3)
      >>> bool(result.reject), result.kernels.statistic.shape
      (True, (6,))

    Reference: Schrab et al., MMD aggregated two-sample test, JMLR 2023; Westfall and Young, Resampling-based multiple
    testing, 1993; Wilson and Hilferty, The distribution of chi-square, 1931.
    """
    scheme = Scheme(num_permutations, permute, bins, bins is not None and groups_x is not None)
    return _aggregated(
        key, x, y, kernels, num_bandwidths, bandwidths, alpha, groups_x, groups_y, precision, mesh, scheme,
        return_null, "max",
    )  # fmt: skip


def fuse_test(
    key: Key[Array, ""],
    x: Numbers | Mapping[str, Numbers],
    y: Numbers | Mapping[str, Numbers],
    *,
    kernels: tuple[Kernel, ...] = (laplace_l1, gaussian),
    num_bandwidths: int = 10,
    bandwidths: tuple[Numbers, ...] | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    bins: int | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q by a soft maximum of many kernels' statistics, each divided by its kernel's size (MMD-FUSE).

        T(c) = log mean_k exp(λ MMD²_k(split c) / √N_k),    N_k = mean_{i≠j} k(z_i, z_j)²,    λ = √(n(n − 1))

    with n the smaller sample. Where several bandwidths agree they add up, which the maximum of `aggregated_test` does
    not see. Arguments, results and errors are those of `aggregated_test`.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (80, 2)), 2 * jax.random.normal(y_key, (80, 2))
      >>> bool(fuse_test(test_key, x, y, num_bandwidths=3).reject)
      True

    Reference: Biggs, Schrab and Gretton, MMD-FUSE: learning and combining kernels for two-sample testing without data
    splitting, NeurIPS 2023.
    """
    scheme = Scheme(num_permutations, permute, bins, bins is not None and groups_x is not None)
    return _aggregated(
        key, x, y, kernels, num_bandwidths, bandwidths, alpha, groups_x, groups_y, precision, mesh, scheme,
        return_null, "fuse",
    )  # fmt: skip


def _aggregated(
    key: Any, x: Any, y: Any, kernels: tuple[Kernel, ...], num_bandwidths: int, bandwidths: Any, alpha: Any,
    groups_x: Any, groups_y: Any, precision: Precision, mesh: Mesh | None, scheme: Scheme, return_null: bool,
    combine: Combine,
) -> TwoSampleResult:  # fmt: skip
    check_precision(precision)
    check_knobs(key, alpha, scheme.num)
    kernels = tuple(kernels)
    _check_grid(kernels, num_bandwidths, bandwidths)
    spec = Spec(kernels, precision, mesh)
    found, table = [], []
    for number, (one_x, one_y) in enumerate(_layers(x, y)):
        # One key for all layers: the same rows change sides in each.
        pooled, groups = lay_out(key, one_x, one_y, bandwidths, alpha, groups_x, groups_y, scheme.bins)
        grids = tuple(
            _grid(kernel, pooled, num_bandwidths, None if bandwidths is None else bandwidths[i])
            for i, kernel in enumerate(kernels)
        )
        level = alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)
        found.append(_statistics(key, pooled, groups, grids, level, spec=spec, scheme=scheme, combine=combine))
        for place, grid in enumerate(grids):
            table.append((np.full(len(grid), number), np.full(len(grid), place), grid[:, 0]))
    result = _combine(tuple(found), _stack(table), level, return_null=return_null, combine=combine)
    check_finite(result.statistic)
    return result


def _layers(x: Any, y: Any) -> list[tuple[Any, Any]]:
    if isinstance(x, Mapping) != isinstance(y, Mapping):
        raise TypeError("one of x and y is a mapping of layers and the other is not; give both alike.")
    if not isinstance(x, Mapping):
        return [(x, y)]
    if set(x) != set(y) or not x:
        there = [", ".join(map(str, sample)) for sample in (x, y)]
        raise ValueError(f"x has the layers {there[0]} and y has {there[1]}; expected the same, at least one.")
    for name, sample in (("x", x), ("y", y)):
        rows = {layer: len(one) for layer, one in sample.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(
                f"the layers of {name} have {rows} rows; expected one row a layer for each row of the sample."
            )
    return [(x[layer], y[layer]) for layer in x]


def _check_grid(kernels: tuple[Kernel, ...], num_bandwidths: int, bandwidths: Any) -> None:
    if not kernels:
        raise ValueError("kernels is empty; expected at least one.")
    if num_bandwidths < 1:
        raise ValueError(f"num_bandwidths is {num_bandwidths}; expected at least 1.")
    if bandwidths is None:
        return
    if not isinstance(bandwidths, tuple | list) or len(bandwidths) != len(kernels):
        raise ValueError(f"bandwidths must hold one vector for each of the {len(kernels)} kernels.")
    if any(len(kernel.scales) > 1 for kernel in kernels):
        raise ValueError("bandwidths can't be given for sums and products of kernels; leave them to the median.")


def _grid(kernel: Kernel, pooled: Pooled, num: int, given: Any) -> Any:
    """The kernel's bandwidths, shape [g, 1]; for sums and products, one point with a bandwidth for each part."""
    if given is not None:
        return check_bandwidth(given, pooled.blocks.dtype)[:, None]
    if kernel.scales[0] in ("l1", "l2") and len(kernel.scales) == 1:
        return grid_of_blocks(pooled.blocks, pooled.count, num, kernel)[:, None]
    return resolve_bandwidth(None, pooled, kernel)[None]


def _stack(table: list[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    xp: Any = jnp if is_traced(*(grid for _, _, grid in table)) else np
    layer, kernel, bandwidth = (xp.concatenate(column) for column in zip(*table, strict=True))
    return layer.astype(np.int32), kernel.astype(np.int32), bandwidth


@partial(jax.jit, static_argnames=("spec", "scheme", "combine"))
def _statistics(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    grids: tuple[Array, ...],
    alpha: Float[Array, ""],
    *,
    spec: Spec,
    scheme: Scheme,
    combine: Combine,
) -> tuple[Float[Array, "K C"], Float[Array, "K C"], Float[Array, " K"], Bool[Array, ""]]:
    """MMD²ᵤ of every kernel and split, their scores, the observed split's MMD_b, and whether the input is good."""
    splits = begin(key, pooled, groups, grids, spec, scheme)
    reduce = reduction(scheme, splits.problem)
    if combine == "max":
        sums = visit_all(splits.problem, spec, reduce)
    else:
        sums, squares = visit_all(splits.problem, spec, together(reduce, sum_of_squares))
    of_splits = conclude(sums, splits)
    statistics = make_ties_equal(unbiased(of_splits), of_splits, splits)
    good = is_good(pooled, alpha, scheme.num, groups) & jnp.all(jnp.isfinite(statistics))
    if combine == "max":
        scores = _normal_scores(statistics)
    else:
        m, n, shift = of_splits.m[:, 0], of_splits.n[:, 0], of_splits.shift
        pairs = (m + n) * (m + n - 1)
        total = of_splits.xx[:, 0] + of_splits.yy[:, 0] + 2 * of_splits.xy[:, 0]
        size = (squares + 2 * shift * total) / pairs + shift**2
        smaller = jnp.minimum(m, n)
        # A kernel that is 0 between all rows has no size, and no evidence.
        scale = jnp.where(size > 0, jnp.sqrt(smaller * (smaller - 1) / jnp.where(size > 0, size, 1)), 0)
        scores = scale[:, None] * statistics
    return statistics, scores, biased(of_splits)[:, 0], good


def _normal_scores(statistics: Float[Array, "K C"]) -> Float[Array, "K C"]:
    """What the statistics would be if their gamma-like nulls were standard normal. A symmetric function of the splits."""
    centred = statistics - jnp.mean(statistics, axis=1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True))
    # Where all splits are alike (constant rows) there is no scale, and no evidence.
    standard = centred / jnp.where(deviation > 0, deviation, 1)
    skewness = jnp.clip(jnp.mean(standard**3, axis=1, keepdims=True), 0.01, 4)
    # Below its lower end a gamma variable has no score; the root is odd, so order is kept there too.
    return 6 / skewness * (jnp.cbrt(skewness / 2 * standard + 1) - 1) + skewness / 6


@partial(jax.jit, static_argnames=("return_null", "combine"))
def _combine(
    found: tuple[Any, ...], table: tuple[Any, Any, Any], alpha: Any, *, return_null: bool, combine: Combine
) -> TwoSampleResult:
    statistics, scores, biased_each = (jnp.concatenate([one[i] for one in found]) for i in range(3))
    good = jnp.all(jnp.stack([one[3] for one in found]))
    soft = jax.nn.logsumexp(scores, axis=0) - jnp.log(len(scores))
    combined = jnp.max(scores, axis=0) if combine == "max" else soft
    # A column that ties with the observed one in every kernel has the same scores to the last bit, so T too.
    good = good & jnp.all(jnp.isfinite(combined))
    result = decide(combined, alpha, good)
    best = jnp.argmax(scores[:, 0])
    layer, kernel, bandwidth = table

    def known(value: Array) -> Array:
        return jnp.where(good, value, jnp.nan)

    return result._replace(
        mmd_biased=known(biased_each[best]),
        bandwidth=jnp.asarray(bandwidth)[best][None],
        null=known(combined[1:]) if return_null else None,
        kernels=KernelTable(
            layer=jnp.asarray(layer),
            kernel=jnp.asarray(kernel),
            bandwidth=jnp.asarray(bandwidth),
            statistic=known(statistics[:, 0]),
            pvalue=known((1 + jnp.sum(statistics[:, 1:] >= statistics[:, :1], axis=1)) / statistics.shape[1]),
            reject=(scores[:, 0] > result.threshold) & result.reject,
        ),
    )
