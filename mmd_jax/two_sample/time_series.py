"""Do two series differ, whose rows depend on the rows before them? Neither permutations nor signs of single rows know."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite, check_knobs, check_precision
from mmd_jax.two_sample.gram import Spec, prepare, visit_all
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, is_traced, pool
from mmd_jax.two_sample.reductions import ColumnSums, as_split_sums, quadratic_forms
from mmd_jax.two_sample.resampling import observed_column
from mmd_jax.two_sample.significance import decide, is_good
from mmd_jax.types import TwoSampleResult


def time_series_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    block_length: ArrayLike | None = None,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test whether two stationary series, independent of each other, have the same distribution of one row.

        p = (1 + #{b : V_b >= MMD_b²}) / (1 + B),   V_b = ‖Σ_s W̃_s φ(x_s) / m − Σ_t W̃'_t φ(y_t) / n‖²
        W_t = e^(−1/l) W_{t−1} + √(1 − e^(−2/l)) ε_t,   W̃_t = (W_t − mean W) / √v

    A wild bootstrap: multipliers that change as slowly as l = `block_length` keep what neighbouring rows share, where a
    permutation would tear them apart and reject far too often. They are centred in each sample, and divided by √v, where
    v = 1 − Var(mean W) is what centring leaves of their variance; the papers do without, and reject too often. Rows must
    forget sooner than l, and the series be many times as long: the level is asymptotic.

    Level measured at alpha = .05 on AR(1) series of one feature, 300 trials a cell (two standard errors: .025), l given;
    `without` is the papers' form. With l = 2 √n and coefficient .5, over 1,000 trials (.015), it was .086, .065 and .073 at
    n = 50, 100 and 200, where `permutation_test` rejected .26, .25 and .25.

        coefficient      0      .5     .8     .9
        n = 50, l = 10   .06    .10    .16    .28
          without        .16    .19    .29    .39
        n = 100, l = 20  .04    .09    .11    .14
          without        .13    .16    .18    .22
        n = 200, l = 20  .07    .07    .07    .14
          without        .13    .11    .10    .21

    Args:
      key: of the multipliers, consumed.
      x: series of P, one row a time, in the order of time. Shape [m, d], m >= 2.
      y: series of Q, shape [n, d], n >= 2.
      block_length: l, in rows, above 0 and below min(m, n): a few times as long as rows depend on each other; longer ones
        cost power. None: 2 √min(m, n), at most half of min(m, n).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B, how many sets of multipliers.
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`. The test compares MMD_b²; `statistic` is MMD²ᵤ all the same, and `threshold` and `null` are less
      the difference of the two. NaN for bad traced values.

    Raises:
      ValueError: a block length out of range, or as `permutation_test`. TypeError: as `permutation_test`.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (100, 2)), 1 + jax.random.normal(y_key, (80, 2))
      >>> bool(time_series_test(test_key, x, y, block_length=5.0).reject)
      True

    Reference: Chwialkowski, Sejdinovic and Gretton, A wild bootstrap for degenerate kernel tests, NIPS 2014; Leucht and
    Neumann, Dependent wild bootstrap for degenerate U- and V-statistics, J. Multivariate Analysis 2013.
    """
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    pooled = pool(x, y, pad=not is_traced(key, x, y, bandwidth, alpha, block_length))
    fewest = min(pooled.m, pooled.n)
    if block_length is None:
        block_length = min(2 * math.sqrt(fewest), fewest / 2)
    elif not is_traced(block_length):
        _check_length(block_length, fewest)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    dtype = pooled.blocks.dtype
    alpha, block_length = (value if is_traced(value) else np.asarray(value, dtype) for value in (alpha, block_length))
    spec = Spec((kernel,), precision, mesh)
    result = _run(key, pooled, bandwidth, alpha, block_length, spec=spec, num=num_permutations, return_null=return_null)
    check_finite(result.statistic)
    return result


def _check_length(block_length: Any, fewest: int) -> None:
    if not (np.ndim(block_length) == 0 and 0 < float(block_length) < fewest):
        raise ValueError(
            f"block_length is {block_length}; expected a number of rows above 0 and below {fewest}, the shorter series."
        )


@partial(jax.jit, static_argnames=("spec", "num", "return_null"))
def _run(
    key: Key[Array, ""],
    pooled: Pooled,
    bandwidth: Float[Array, " k"],
    alpha: Float[Array, ""],
    block_length: Float[Array, ""],
    *,
    spec: Spec,
    num: int,
    return_null: bool,
) -> TwoSampleResult:
    dtype = jnp.asarray(pooled.blocks).dtype
    weights = wild_weights(key, num, pooled, block_length)
    differences = [_as_difference(one, pooled) for one in (jnp.ones_like(weights[:, :1]), weights)]
    columns = jnp.concatenate([observed_column(pooled).astype(dtype), *differences], axis=1)
    problem = prepare(pooled, columns, (bandwidth[None],), spec)
    forms = visit_all(problem, spec, quadratic_forms)
    # Each column sums to 0, so the shift cancels.
    squared = (forms.within + forms.diagonal)[0, 1:-1]
    sums = as_split_sums(ColumnSums(*(value[:, jnp.array([0, -1])] for value in forms)), problem)
    estimate, root = unbiased(sums)[0, 0], biased(sums)[0, 0]
    good = is_good(pooled, alpha, num, None) & (block_length > 0) & (block_length < jnp.minimum(pooled.m, pooled.n))
    good = good & jnp.all(jnp.isfinite(squared))
    # In units of MMD²ᵤ, from which MMD_b² differs by a constant of the sample.
    statistics = jnp.concatenate([estimate[None], squared[1:] - (squared[0] - estimate)])
    return decide(statistics, alpha, good)._replace(
        mmd_biased=jnp.where(good, root, jnp.nan),
        bandwidth=bandwidth,
        null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None,
    )


def wild_weights(key: Key[Array, ""], num: int, pooled: Pooled, block_length: Any) -> Float[Array, "N B"]:
    """Autoregressive multipliers of the rows: one set a column, each sample's with mean 0 and of expected variance 1."""
    dtype = jnp.asarray(pooled.blocks).dtype
    row = jnp.arange(pooled.capacity)
    decay, fresh = jnp.exp(-1 / block_length), jnp.sqrt(-jnp.expm1(-2 / block_length))
    noise = jax.random.normal(key, (pooled.capacity, num), dtype)

    def step(before: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        row, noise = at
        # Each sample's series starts afresh, from the stationary distribution.
        now = jnp.where((row == 0) | (row == pooled.m), noise, decay * before + fresh * noise)
        return now, now

    weights = lax.scan(step, jnp.zeros(num, dtype), (row, noise))[1]

    def centred(of: Array, size: Any) -> Array:
        mean = jnp.sum(weights, axis=0, where=of[:, None], keepdims=True) / size
        # Var(mean W) = Σ_st e^(−|s − t| / l) / size²
        pairs = jnp.where(row < size, (1 + (row > 0)) * (1 - row / size) * jnp.exp(-row / block_length), 0)
        return (weights - mean) / jnp.sqrt(1 - jnp.sum(pairs) / size)

    in_x = row < pooled.m
    in_y = (row >= pooled.m) & (row < pooled.count)
    return jnp.where(in_x[:, None], centred(in_x, pooled.m), centred(in_y, pooled.n)).astype(dtype)


def _as_difference(weights: Float[Array, "N C"], pooled: Pooled) -> Float[Array, "N C"]:
    """Columns v with vᵀKv = V_b: the weights of means."""
    row = jnp.arange(pooled.capacity)[:, None]
    return jnp.where(row < pooled.m, weights / pooled.m, jnp.where(row < pooled.count, -weights / pooled.n, 0))
