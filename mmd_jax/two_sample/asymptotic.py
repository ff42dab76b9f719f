"""Tests that do not resample: the null distribution of the statistic is approximated, bounded, or made normal.

    gamma_test              a gamma distribution of the null's moments: one streamed pass, hardly more than the statistic
    spectral_test           a weighted sum of χ², whose weights are the eigenvalues of a centred Gram matrix
    distribution_free_test  a bound that holds at every size and for every P; hardly ever rejects a small difference
    cross_mmd_test          a statistic of two halves that is normal under P = Q; less power, no null to estimate

The level of all but the bound is asymptotic: see each one's table, and `SMALLEST_N`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaincc, ndtri
from jax.scipy.stats import norm
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.bisection import bisect
from mmd_jax.two_sample.checks import check_finite, check_key, check_precision
from mmd_jax.two_sample.gram import Reduce, Spec, Tile, prepare, visit_all
from mmd_jax.two_sample.kernels import (
    Dot,
    Kernel,
    Precision,
    gaussian,
    inverse_multiquadric,
    laplace_l1,
    laplace_l2,
    matern32,
    matern52,
)
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, pool
from mmd_jax.two_sample.reductions import as_split_sums, quadratic_forms, row_sums
from mmd_jax.two_sample.resampling import observed_column, subsets
from mmd_jax.two_sample.saddlepoint import quadratic_form_above, quadratic_form_quantile
from mmd_jax.types import TwoSampleResult

# Rows of the smaller sample from which a test holds its level: no cell of its table, at 5 % or 1 %, lies more than three
# standard errors above it. For the reader; `python -m experiments.calibration level` measures it anew.
SMALLEST_N = {"gamma_test": 20, "spectral_test": 50, "distribution_free_test": 2, "cross_mmd_test": 50}
# Pooled rows whose Gram matrix is kept and decomposed.
SPECTRAL_ROWS = 1024
# Kernels with 0 <= k(a, b) <= k(a, a) = 1, for one bandwidth.
_UP_TO_ONE = (gaussian, laplace_l1, laplace_l2, matern32, matern52, inverse_multiquadric)


class Moments(NamedTuple):
    """What one pass tells of the statistic and of its null distribution.

    Attributes:
      unbiased: MMD²ᵤ. Shape [].
      biased: MMD_b. Shape [].
      variance: of MMD²ᵤ over all splits of the pooled rows into m and n, exactly; their mean is 0. Shape [].
      trace: E k(z, z) − E k(z, z') of pooled rows: the sum of the eigenvalues of the centred kernel. Shape [].
    """

    unbiased: Float[Array, ""]
    biased: Float[Array, ""]
    variance: Float[Array, ""]
    trace: Float[Array, ""]


def gamma_test(
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> TwoSampleResult:
    """Test P = Q by a gamma distribution with the mean and the variance of the null: one pass, no resampling.

        MMD²ᵤ + μ ~ Gamma(shape μ²/V, scale V/μ),   μ = (1/m + 1/n) (mean k(z_i, z_i) − mean_{i≠j} k(z_i, z_j))

    V is the exact variance of MMD²ᵤ over all splits of the pooled rows into m and n, a function of ΣK² and the sums of K's
    rows; its mean over them is 0. (The paper has m = n, and estimates V from h.) There is no proof that the level
    converges to alpha, since the null is not quite a gamma distribution.

    Share of rejections at alpha = .05 (and .01) under P = Q, 2,000 trials a cell (two standard errors: .010, .004), the
    bandwidth near the median; it holds from n = 20 on, the smallest that was tried:

        m = n            20            50            100           200
        normal, d = 2    .049 (.010)   .048 (.012)   .056 (.011)
        normal, d = 10   .053 (.013)   .050 (.010)   .052 (.014)   .047 (.011)
        normal, d = 100  .050 (.011)   .045 (.011)   .055 (.011)
        t (1.5), d = 10  .052 (.016)   .054 (.015)
        normal, d = 10, m = 10, n = 40: .046 (.012); m = 30, n = 120: .044 (.011)

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.

    Returns:
      `TwoSampleResult` with `num_permutations` 0 and both ends of `pvalue_interval` the p-value. NaN for bad traced values.

    Raises:
      ValueError, TypeError: as `permutation_test`; also kernel values that are not finite.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> bool(gamma_test(rng.normal(size=(100, 2)), 0.7 + rng.normal(size=(120, 2))).reject)
      True

    Reference: Gretton et al., A fast, consistent kernel two-sample test, NIPS 2009, section 3.
    """
    pooled, bandwidth, alpha = _lay_out(x, y, bandwidth, alpha, kernel, precision)
    return _checked(_gamma(pooled, bandwidth, alpha, spec=Spec((kernel,), precision, mesh)))


def spectral_test(
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> TwoSampleResult:
    """Test P = Q by a weighted sum of χ² variables, whose weights are the eigenvalues of a centred Gram matrix.

        MMD²ᵤ / √V ~ Σ_i λ_i (Z_i² − 1),   2 Σ λ_i² = 1,   Z_i independent standard normals

    λ are proportional to the eigenvalues of the Gram matrix of pooled rows whose diagonal is left out and whose rows are
    then centred to sums of 0: of all rows, or of 1,024 spread evenly over both samples. V is the exact variance of MMD²ᵤ
    over all splits of all pooled rows, as in `gamma_test`. (The paper centres K with its diagonal and simulates the sum;
    here its tail is a saddlepoint approximation, good to a few per cent of p, so p has no Monte-Carlo error.)

    Share of rejections as in `gamma_test`; it holds from n = 50 on (in 5,000 trials, at 10 v 20: .062):

        m = n            20            50            100
        normal, d = 2    .050 (.008)
        normal, d = 10   .055 (.009)   .048 (.007)   .051 (.012)
        normal, d = 100  .053 (.010)

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.

    Returns:
      `TwoSampleResult` as `gamma_test`. It keeps up to 1,024² numbers and decomposes them, besides the pass.

    Raises:
      ValueError, TypeError: as `gamma_test`.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> bool(spectral_test(rng.normal(size=(100, 2)), 0.7 + rng.normal(size=(120, 2))).reject)
      True

    Reference: Gretton et al., A fast, consistent kernel two-sample test, NIPS 2009, section 2; Kuonen, Saddlepoint
    approximations for distributions of quadratic forms in normal variables, Biometrika 1999.
    """
    pooled, bandwidth, alpha = _lay_out(x, y, bandwidth, alpha, kernel, precision)
    return _checked(_spectral(pooled, bandwidth, alpha, spec=Spec((kernel,), precision, mesh)))


def distribution_free_test(
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    bound: ArrayLike | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> TwoSampleResult:
    """Test P = Q by a bound on MMD_b that holds for every P, every kernel in [0, K], and all sizes.

        reject where MMD_b >= √(K (1/m + 1/n)) (1 + √(log 1/alpha)),   p = exp(−(MMD_b / √(K (1/m + 1/n)) − 1)²₊)

    It needs only that the kernel was not chosen on these rows; the median bandwidth is no such choice in practice, though in
    theory it is one. Its level is far below alpha and its power is low: it is for guarantees, or many rows. The paper has
    √(2 log 1/alpha), from rows of the feature space at most 2√K apart, and m = n; where k >= 0 they are at most √(2K)
    apart, which is what the kernel's bounds mean, and the same inequality (McDiarmid's) then gives the above, for all m, n.

    Measured: no rejection in 2,000 null trials a cell at alpha = .05, m = n = 20, 50, 100, 200 (d = 10).

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      bound: K, with 0 <= k(a, b) <= K for all rows; none: the number of bandwidths, for the kernels whose largest value
        is 1 (Gaussian, Laplace, Matérn, inverse multiquadric). The bound is no estimate: it must hold for all rows.
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.

    Returns:
      `TwoSampleResult` as `gamma_test`. The test compares MMD_b; `statistic` is MMD²ᵤ all the same, and `threshold` is less
      the difference MMD_b² − MMD²ᵤ of these samples.

    Raises:
      ValueError: a bound that is missing or not positive; or as `gamma_test`. TypeError: as `gamma_test`.

    Example:
      >>> import numpy as np
      >>> x, y = np.zeros((100, 1)), np.ones((100, 1))
      >>> bool(distribution_free_test(x, y, bandwidth=0.5).reject)
      True

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, Theorem 8 and Corollary 9.
    """
    pooled, bandwidth, alpha = _lay_out(x, y, bandwidth, alpha, kernel, precision)
    if bound is None:
        if kernel not in _UP_TO_ONE:
            raise ValueError(
                "bound is missing; give a number K with 0 <= k(a, b) <= K for all rows, which is known only of the kernels "
                "whose largest value is 1."
            )
        bound = np.shape(bandwidth)[0]
    elif not is_traced(bound):
        _check_bound(bound)
    bound = bound if is_traced(bound) else np.asarray(bound, pooled.blocks.dtype)
    return _checked(_bounded(pooled, bandwidth, alpha, bound, spec=Spec((kernel,), precision, mesh)))


def cross_mmd_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> TwoSampleResult:
    """Test P = Q by the studentised MMD between one half of the rows and the other: normal under P = Q, nothing to estimate.

        f(z) = mean k(z, x₂) − mean k(z, y₂),   T = (mean f(x₁) − mean f(y₁)) / √(var f(x₁) / m₁ + var f(y₁) / n₁)

    It rejects where T exceeds the normal quantile. x₁, x₂ and y₁, y₂ are random halves of each sample. The price is power:
    at n = 100 it finds a shift of .3 in one of two normal features with probability .28, a permutation test with .43.

    Share of rejections as in `gamma_test`; it holds from n = 50 on:

        m = n            20            50            100           200
        normal, d = 2    .052 (.018)   .045 (.012)   .044 (.010)
        normal, d = 10   .057 (.016)   .058 (.011)   .053 (.012)   .052 (.010)
        normal, d = 100  .049 (.015)   .047 (.012)   .054 (.012)
        t (1.5), d = 10  .065 (.015)   .058 (.006)
        normal, d = 10, m = 10, n = 40: .066 (.021); m = 30, n = 120: .058 (.015)

    Args:
      key: of the halves, consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1).
      kernel: which kernel.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.

    Returns:
      `TwoSampleResult` as `gamma_test`. `statistic` is the numerator of T, an unbiased estimate of MMD² like MMD²ᵤ, with a
      larger variance. `mmd_biased` is NaN.

    Raises:
      ValueError: fewer than four rows; or as `gamma_test`. TypeError: as `gamma_test`; a key that is not typed.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (100, 2)), 1 + jax.random.normal(y_key, (120, 2))
      >>> bool(cross_mmd_test(test_key, x, y).reject)
      True

    Reference: Shekhar, Kim and Ramdas, A permutation-free kernel two-sample test, NeurIPS 2022.
    """
    check_key(key)
    pooled, bandwidth, alpha = _lay_out(x, y, bandwidth, alpha, kernel, precision)
    if min(pooled.m, pooled.n) < 4:
        raise ValueError(
            f"x has {pooled.m} rows and y has {pooled.n}; expected at least 4 each, as the variance within a half needs two."
        )
    return _checked(_cross(key, pooled, bandwidth, alpha, spec=Spec((kernel,), precision, mesh)))


def _check_bound(bound: Any) -> None:
    if not (np.ndim(bound) == 0 and 0 < float(bound) < np.inf):
        raise ValueError(f"bound is {bound}; expected a positive number, the largest value of the kernel.")


def _lay_out(x: Any, y: Any, bandwidth: Any, alpha: Any, kernel: Kernel, precision: Any) -> tuple[Pooled, Any, Any]:
    check_precision(precision)
    if not is_traced(alpha) and not (np.ndim(alpha) == 0 and 0 < float(alpha) < 1):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 1, the level of the test.")
    pooled = pool(x, y, pad=not is_traced(x, y, bandwidth, alpha))
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    return pooled, bandwidth, alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)


def _checked(result: TwoSampleResult) -> TwoSampleResult:
    check_finite(
        result.pvalue, unless=" Or they do not vary, as all rows are equally far apart: then use a permutation test."
    )
    return result


@partial(jax.jit, static_argnames=("spec",))
def _gamma(pooled: Pooled, bandwidth: Float[Array, " k"], alpha: Float[Array, ""], *, spec: Spec) -> TwoSampleResult:
    moments = _moments(pooled, bandwidth, spec)
    mean = (1 / pooled.m + 1 / pooled.n) * moments.trace
    shape, scale = mean**2 / moments.variance, moments.variance / mean

    def above(value: Array) -> Array:
        return gammaincc(shape, jnp.maximum(value + mean, 0) / scale)

    spread = jnp.sqrt(moments.variance)
    _, threshold = bisect(lambda value: above(value) <= alpha, -mean, 40 * spread)
    return _conclude(moments, above(moments.unbiased), threshold, alpha, bandwidth, pooled)


@partial(jax.jit, static_argnames=("spec",))
def _spectral(pooled: Pooled, bandwidth: Float[Array, " k"], alpha: Float[Array, ""], *, spec: Spec) -> TwoSampleResult:
    moments = _moments(pooled, bandwidth, spec)
    weights = jnp.linalg.eigvalsh(_centred_gram(pooled, bandwidth, spec.kernels[0]))
    weights = weights / jnp.sqrt(2 * jnp.sum(weights**2))
    spread = jnp.sqrt(moments.variance)

    pvalue = quadratic_form_above(moments.unbiased / spread, weights)
    threshold = spread * quadratic_form_quantile(alpha, weights)
    return _conclude(moments, pvalue, threshold, alpha, bandwidth, pooled)


@partial(jax.jit, static_argnames=("spec",))
def _bounded(
    pooled: Pooled, bandwidth: Float[Array, " k"], alpha: Float[Array, ""], bound: Float[Array, ""], *, spec: Spec
) -> TwoSampleResult:
    moments = _moments(pooled, bandwidth, spec)
    mean = jnp.sqrt(bound * (1 / pooled.m + 1 / pooled.n))
    excess = jnp.maximum(moments.biased / mean - 1, 0)
    largest = mean * (1 + jnp.sqrt(-jnp.log(alpha)))
    threshold = largest**2 - (moments.biased**2 - moments.unbiased)
    return _conclude(moments, jnp.exp(-(excess**2)), threshold, alpha, bandwidth, pooled)


@partial(jax.jit, static_argnames=("spec",))
def _cross(
    key: Key[Array, ""], pooled: Pooled, bandwidth: Float[Array, " k"], alpha: Float[Array, ""], *, spec: Spec
) -> TwoSampleResult:
    m, n, capacity = pooled.m, pooled.n, pooled.capacity
    x_key, y_key = jax.random.split(key)
    row = jnp.arange(capacity)
    in_x, in_y = row < m, (row >= m) & (row < pooled.count)
    chosen_x = subsets(x_key, 1, m // 2, m, capacity)[:, 0] == 1
    chosen_y = subsets(y_key, 1, n // 2, n, capacity)[jnp.maximum(row - m, 0), 0] == 1
    second_x, second_y = in_x & chosen_x, in_y & chosen_y
    first_x, first_y = in_x & ~chosen_x, in_y & ~chosen_y
    dtype = jnp.asarray(pooled.blocks).dtype
    columns = jnp.stack([second_x, second_y], axis=1).astype(jnp.int8)
    problem = prepare(pooled, columns, (bandwidth[None],), spec)
    to_x, to_y = visit_all(problem, spec, row_sums(problem.blocks.shape[0]))[0].reshape(-1, 2).T
    values = to_x / (m // 2) - to_y / (n // 2)

    def mean_and_variance(of: Array) -> tuple[Array, Array]:
        size = jnp.sum(of, dtype=dtype)
        mean = jnp.sum(values, where=of) / size
        return mean, jnp.sum((values - mean) ** 2, where=of) / (size * (size - 1))

    (mean_x, variance_x), (mean_y, variance_y) = mean_and_variance(first_x), mean_and_variance(first_y)
    statistic, error = mean_x - mean_y, jnp.sqrt(variance_x + variance_y)
    nan = jnp.asarray(jnp.nan, dtype)
    moments = Moments(statistic, nan, error**2, nan)
    threshold = error * ndtri(1 - alpha)
    return _conclude(moments, norm.sf(statistic / error), threshold, alpha, bandwidth, pooled)


def _moments(pooled: Pooled, bandwidth: Float[Array, " k"], spec: Spec) -> Moments:
    problem = prepare(pooled, observed_column(pooled), (bandwidth[None],), spec)
    forms, rows, squares = visit_all(problem, spec, _sums(problem.blocks.shape[0]))
    sums = as_split_sums(forms, problem)
    m, n, N = pooled.m, pooled.n, pooled.count
    total = forms.within[0, -1]
    # The rows' means taken off both ways, the diagonal left out: what is left sums to 0 along every row.
    centred = squares[0] - 2 * jnp.sum(rows[0] ** 2) / (N - 2) + total**2 / ((N - 1.0) * (N - 2))
    # Then MMD²ᵤ = c sᵀAs for the 0/1 column s of a split.
    c = 1 / (m * (m - 1.0)) + 1 / (n * (n - 1.0)) + 2 / (m * 1.0 * n)
    share = (m / N) * ((m - 1) / (N - 1)) * (n / (N - 2)) * ((n - 1) / (N - 3))
    trace = forms.diagonal[0, -1] / N - total / (N * (N - 1.0))
    return Moments(unbiased(sums)[0, 0], biased(sums)[0, 0], 2 * c**2 * share * centred, trace)


def _sums(num_blocks: int) -> Reduce:
    """The forms of the observed split, K1, and the sum of squares of K."""
    rows = row_sums(num_blocks)

    def reduce(tile: Tile, dot: Dot) -> Any:
        ones = tile._replace(left=tile.left_present[:, None], right=tile.right_present[:, None])
        present = tile.left_present[:, None] * tile.right_present[None, :]
        twice = 1 + (tile.i != tile.j)
        return quadratic_forms(tile, dot), rows(ones, dot), twice * jnp.sum(tile.values**2 * present)

    return reduce


def _centred_gram(pooled: Pooled, bandwidth: Float[Array, " k"], kernel: Kernel) -> Float[Array, "s s"]:
    """A Gram matrix of pooled rows, spread over both samples, without its diagonal and with rows that sum to 0."""
    flat = jnp.asarray(pooled.blocks).reshape(pooled.capacity, -1)
    size = min(pooled.capacity, SPECTRAL_ROWS)
    count = jnp.minimum(pooled.count, size)
    place = jnp.arange(size)
    # In floats: the product of two sizes may leave int32.
    spread = jnp.floor(place * (pooled.count / count)).astype(jnp.int32)
    rows = flat[jnp.clip(spread, 0, pooled.count - 1)]
    if kernel.translation_invariant:
        rows = rows - jnp.mean(rows, axis=0, keepdims=True)
    present = place < count
    pairs = present[:, None] & present[None, :] & ~jnp.eye(size, dtype=bool)
    K = kernel.tile(rows, rows, bandwidth)
    K = jnp.where(pairs, K - jnp.sum(K, where=pairs) / jnp.sum(pairs), 0)
    sums = jnp.sum(K, axis=1)
    return jnp.where(
        pairs, K - (sums[:, None] + sums[None, :]) / (count - 2) + jnp.sum(sums) / ((count - 1.0) * (count - 2)), 0
    )


def _conclude(
    moments: Moments, pvalue: Array, threshold: Array, alpha: Any, bandwidth: Float[Array, " k"], pooled: Pooled
) -> TwoSampleResult:
    good = all_finite(pooled.blocks) & (alpha > 0) & (alpha < 1) & jnp.isfinite(pvalue)
    nan = jnp.asarray(jnp.nan, moments.unbiased.dtype)
    pvalue = jnp.where(good, pvalue, nan)
    return TwoSampleResult(
        statistic=jnp.where(good, moments.unbiased, nan),
        pvalue=pvalue,
        threshold=jnp.where(good, threshold, nan),
        reject=good & (pvalue <= alpha),
        mmd_biased=jnp.where(good, moments.biased, nan),
        bandwidth=bandwidth,
        num_permutations=jnp.zeros((), jnp.int32),
        pvalue_interval=jnp.stack([pvalue, pvalue]),
    )
