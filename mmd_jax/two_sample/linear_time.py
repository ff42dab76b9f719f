"""Two-sample tests on the estimates from a part of the pairs: linear-time and block (asymptotic), incomplete (exact)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key

from mmd_jax.two_sample.checks import check_finite, check_knobs, check_reach
from mmd_jax.two_sample.kernels import Kernel, gaussian
from mmd_jax.two_sample.pooled import Numbers
from mmd_jax.two_sample.significance import decide, make_close_equal
from mmd_jax.two_sample.subsampled import (
    Estimate,
    block_estimate,
    check_count,
    incomplete_estimates,
    lay_out,
    linear_estimate,
    resolve_block_size,
)
from mmd_jax.types import TwoSampleResult


def linear_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    kernel: Kernel = gaussian,
) -> TwoSampleResult:
    """Test P = Q by `mmd2_linear` over its standard error, against Student's t with one degree less than pairs.

    The level is asymptotic. At .05, over 20,000 null trials of five-dimensional Gaussian rows, it rejected .049, .047,
    .049 and .047 at m = n = 20, 50, 100 and 200; with rows of Student's t of three degrees .048, .049, .048 (to 100).

    Args:
      key: of the order of the rows, consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      kernel: which kernel.

    Returns:
      `TwoSampleResult` without resampling: `num_permutations` is 0, `mmd_biased` NaN. Where all terms are equal there
      is no error to compare with: p is NaN.

    Raises:
      ValueError, TypeError: fewer than two pairs; as `permutation_test`.

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 6.
    """
    check_knobs(key, alpha, 10**9)
    inputs = lay_out(key, x, y, bandwidth, kernel)
    _check_terms(min(inputs[0].m, inputs[0].n) // 2, "pairs of rows")
    estimate, terms = linear_estimate(key, *inputs, kernel=kernel)
    check_finite(*estimate)
    return _student(estimate, terms, alpha, inputs[1])


def block_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    block_size: int | None = None,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    kernel: Kernel = gaussian,
) -> TwoSampleResult:
    """Test P = Q by `mmd2_block` over its standard error, against Student's t with one degree less than blocks.

    The level is asymptotic, in the number of blocks. A block's MMD²ᵤ is skewed to the right, so the test is cautious:
    at .05, over 20,000 null trials of five-dimensional Gaussian rows, it rejected .025, .029, .027 and .033 at
    m = n = 20, 50, 100 and 200 with the default blocks; with rows of Student's t of three degrees .026, .030, .027
    (to 100). The normal distribution of the paper gives .051, .040, .038, .038, and at .01 twice the level at m = n = 20.

    Args:
      key: of the order of the rows, consumed.
      x: sample of P, shape [m, d].
      y: sample of Q, shape [n, d].
      block_size: see `mmd2_block`; at least two blocks must fit.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      kernel: which kernel.

    Returns:
      `TwoSampleResult`, as `linear_test`.

    Raises:
      ValueError, TypeError: fewer than two blocks; as `permutation_test`.

    Reference: Zaremba et al., B-tests: low variance kernel two-sample tests, NIPS 2013.
    """
    check_knobs(key, alpha, 10**9)
    inputs = lay_out(key, x, y, bandwidth, kernel)
    size = resolve_block_size(block_size, inputs[0])
    _check_terms(min(inputs[0].m, inputs[0].n) // size, f"blocks of {size} rows")
    estimate, terms = block_estimate(key, *inputs, size=size, kernel=kernel)
    check_finite(*estimate)
    return _student(estimate, terms, alpha, inputs[1])


def incomplete_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    num_superdiagonals: int = 200,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    kernel: Kernel = gaussian,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q by `mmd2_incomplete` and a wild bootstrap: random pairs (x_i, y_i) change sides.

        p = (1 + #{b : Σ ε_i ε_j h(i, j) >= Σ h(i, j)}) / (1 + B),   ε = ±1, over the pairs of the design

    The level is floor(alpha (B + 1)) / (B + 1) exactly (less where statistics tie), for any m, n.

    Args:
      key: of the order of the rows and of the signs, consumed.
      x: sample of P, shape [m, d].
      y: sample of Q, shape [n, d].
      num_superdiagonals: R, see `mmd2_incomplete`.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B, how many sets of signs.
      kernel: which kernel.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`; `mmd_biased` is NaN.

    Raises:
      ValueError, TypeError: as `permutation_test` and `mmd2_incomplete`.

    Reference: Schrab et al., Efficient aggregated kernel tests using incomplete U-statistics, NeurIPS 2022.
    """
    check_knobs(key, alpha, num_permutations)
    inputs = lay_out(key, x, y, bandwidth, kernel)
    pairs = min(inputs[0].m, inputs[0].n)
    check_reach(f"{pairs} pairs can be swapped", 2 ** min(pairs - 1, 64), alpha, "pairs")
    band = check_count("num_superdiagonals", num_superdiagonals, 1)
    statistics = incomplete_estimates(key, *inputs, band=band, num=num_permutations, kernel=kernel)
    result = _decide(statistics, alpha, inputs[1], return_null=return_null)
    check_finite(result.statistic)
    return result


def _check_terms(terms: int, what: str) -> None:
    if terms < 2:
        raise ValueError(
            f"there are {terms} {what}; a variance needs at least 2. Gather more rows or use a resampling test."
        )


@jax.jit
def _student(estimate: Estimate, terms: Int[Array, ""], alpha: ArrayLike, bandwidth: Any) -> TwoSampleResult:
    value, variance = estimate
    dof = (terms - 1).astype(value.dtype)
    error = jnp.sqrt(variance)
    # Terms that are equal but for rounding say nothing of their error.
    error = jnp.where(error > 4 * jnp.finfo(value.dtype).eps * jnp.abs(value), error, jnp.nan)
    # Wallace's map of t to a normal deviate and back: both in closed form, and good to three digits from 2 degrees on.
    shrink = (8 * dof + 1) / (8 * dof + 3)
    t = value / error
    z = jnp.sign(t) * shrink * jnp.sqrt(dof * jnp.log1p(t**2 / dof))
    limit = ndtri(1 - jnp.asarray(alpha, value.dtype))
    threshold = jnp.sign(limit) * error * jnp.sqrt(dof * jnp.expm1((limit / shrink) ** 2 / dof))
    good = jnp.isfinite(z) & (jnp.asarray(alpha) > 0) & (jnp.asarray(alpha) < 1)
    nan = jnp.asarray(jnp.nan, value.dtype)
    pvalue = jnp.where(good, norm.sf(z), nan)
    return TwoSampleResult(
        statistic=jnp.where(good, value, nan),
        pvalue=pvalue,
        threshold=jnp.where(good, threshold, nan),
        reject=good & (z >= limit),
        mmd_biased=nan,
        bandwidth=jnp.asarray(bandwidth),
        num_permutations=jnp.zeros((), jnp.int32),
        pvalue_interval=jnp.stack([pvalue, pvalue]),
    )


@partial(jax.jit, static_argnames="return_null")
def _decide(statistics: Float[Array, " C"], alpha: ArrayLike, bandwidth: Any, *, return_null: bool) -> TwoSampleResult:
    statistics = make_close_equal(statistics)  # signs tie for rows that coincide
    good = jnp.all(jnp.isfinite(statistics)) & (jnp.asarray(alpha) > 0) & (jnp.asarray(alpha) < 1)
    return decide(statistics, alpha, good)._replace(
        bandwidth=jnp.asarray(bandwidth), null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None
    )
