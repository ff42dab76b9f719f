"""MMD² as a share of what it could be: the norm-scaled distance, which compares across data sets and kernels' bandwidths.

MMD² shrinks where P and Q are spread out, as all kernel values are then small. Divided by 4K − ‖μ_P‖² − ‖μ_Q‖², with K = k(x, x),
it lies between 0 and 1.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Key

from mmd_jax.two_sample.bisection import bisect
from mmd_jax.two_sample.checks import allowed, check_finite
from mmd_jax.two_sample.equivalence import EquivalenceResult, check_margin, checked_tail, lay_out
from mmd_jax.two_sample.error_law import ErrorLaw, error_law
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian, safe_root
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced


class NormalisedMMD(NamedTuple):
    """The norm-scaled MMD² and an interval for it. Every field may carry leading axes from `jax.vmap`.

    Attributes:
      estimate: MMD²ᵤ / (4K − ‖μ_P‖² − ‖μ_Q‖²); it can be negative. Shape [].
      interval: within [0, 1]. Shape [2].
      bandwidth: the bandwidths that were summed over. Shape [k].
    """

    estimate: Float[Array, ""]
    interval: Float[Array, "2"]
    bandwidth: Float[Array, " k"]


def normalised_mmd(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    level: ArrayLike = 0.95,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> NormalisedMMD:
    """Norm-scaled distance between P and Q, NAMMD, with a confidence interval that holds at and near 0.

        NAMMD = MMD² / (4K − ‖μ_P‖² − ‖μ_Q‖²),   K = k(x, x) for all x

    The interval is that of `mmd_interval`, with the error of the denominator, drawn along with it.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      level: probability that the interval holds the true value.
      bandwidth, num_draws, precision, mesh: as `mmd_interval`.
      kernel: one whose k(x, x) is the same for all x and the largest value: all but linear, polynomial and energy.

    Returns:
      `NormalisedMMD`. NaN for bad traced values.

    Raises:
      ValueError: a kernel that is not bounded by k(x, x); and, TypeError too, as `mmd_interval`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (200, 2)), 1.0 + jax.random.normal(y_key, (200, 2))
      >>> found = normalised_mmd(key, x, y, bandwidth=2.0)  # the truth: 0.189 / 2.667 = 0.071
      >>> bool(found.interval[0] < 0.071 < found.interval[1])
      True

    Reference: Zhou et al., A kernel distribution closeness testing, arXiv:2507.12843.
    """
    tail = checked_tail(level, num_draws)
    pooled, _, bandwidth, spec = lay_out(key, x, y, bandwidth, tail, num_draws, kernel, precision, mesh)
    _check_bounded(kernel, bandwidth)
    found = _interval(key, pooled, bandwidth, tail, spec=spec, num=num_draws)
    check_finite(found.estimate, found.interval)
    return found


def closeness_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    margin: ArrayLike,
    alpha: ArrayLike = 0.05,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> EquivalenceResult:
    """Test H0: NAMMD(P, Q) >= margin against NAMMD < margin, as `equivalence_test` does for MMD.

    Args:
      key, x, y, bandwidth, num_draws, precision, mesh: as `mmd_interval`.
      margin: the least norm-scaled distance that matters, in (0, 1); it is squared already, as MMD² is.
      alpha: level: the probability of a rejection though NAMMD >= margin.
      kernel: as `normalised_mmd`.

    Returns:
      `EquivalenceResult`; its statistic and upper are norm-scaled distances.

    Raises:
      ValueError: margin outside (0, 1); and, TypeError too, as `equivalence_test` and `normalised_mmd`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (500, 2)), jax.random.normal(y_key, (500, 2))
      >>> bool(closeness_test(key, x, y, margin=0.02, bandwidth=2.0).reject)
      True

    Reference: Zhou et al., A kernel distribution closeness testing, arXiv:2507.12843.
    """
    check_margin(margin)
    if not is_traced(margin) and float(np.asarray(margin)) >= 1:
        raise ValueError(f"margin is {margin}; expected a number below 1, which no norm-scaled distance exceeds.")
    pooled, _, bandwidth, spec = lay_out(key, x, y, bandwidth, alpha, num_draws, kernel, precision, mesh)
    _check_bounded(kernel, bandwidth)
    dtype = pooled.blocks.dtype
    margin, alpha = (value if is_traced(value) else np.asarray(value, dtype) for value in (margin, alpha))
    result = _test(key, pooled, bandwidth, margin, alpha, spec=spec, num=num_draws)
    check_finite(result.statistic, result.upper)
    return result


def _check_bounded(kernel: Kernel, bandwidth: Any) -> None:
    """That k(x, x) is one positive number, as for kernels that fall with the distance."""
    bandwidth = np.ones(np.shape(bandwidth), np.float32)
    with jax.ensure_compile_time_eval():
        diagonal = [float(kernel.pair(row, row, jnp.asarray(bandwidth))) for row in jnp.array([[0.0], [1.0], [-3.0]])]
    if not (kernel.translation_invariant and diagonal[0] > 0 and len(set(diagonal)) == 1):
        raise ValueError(
            "this kernel has no bound k(x, x), the same for all x, for the norm-scaled distance to be a share of; use one that "
            "falls with the distance, such as the Gaussian, or the interval for MMD itself."
        )


class _Scaled(NamedTuple):
    """The law of the numerator less ν times the denominator.

    Attributes:
      law: of MMD²ᵤ.
      denominator: 4K − ‖μ_P‖² − ‖μ_Q‖², unbiased. Shape [].
    """

    law: ErrorLaw
    denominator: Float[Array, ""]


def _scaled(key: Key[Array, ""], pooled: Pooled, bandwidth: Float[Array, " k"], spec: Spec, num: int) -> _Scaled:
    law = error_law(key, pooled, bandwidth, spec, num)
    origin = jnp.zeros(pooled.blocks.shape[2], pooled.blocks.dtype)
    peak = spec.kernels[0].pair(origin, origin, bandwidth)
    means = law.moments.means
    return _Scaled(law, 4 * peak - means[0, 0] - means[1, 1] - 2 * law.shift)


def _errors_at(scaled: _Scaled, share: Any) -> Float[Array, " B"]:
    """Draws of MMD²ᵤ − ν · denominator where the true NAMMD is ν."""
    law = scaled.law
    mmd = safe_root(share * scaled.denominator)
    return 2 * mmd * law.scale * law.linear + law.noise + 2 * share * (law.norms - jnp.mean(law.norms))


def _count_below(scaled: _Scaled, share: Any) -> Int[Array, ""]:
    observed = jnp.maximum(scaled.law.mmd2, 0) - share * scaled.denominator
    return jnp.sum(_errors_at(scaled, share) <= observed)


def _count_above(scaled: _Scaled, share: Any) -> Int[Array, ""]:
    return jnp.sum(_errors_at(scaled, share) >= scaled.law.mmd2 - share * scaled.denominator)


def _upper(scaled: _Scaled, tail: Any) -> Float[Array, ""]:
    most = allowed(tail, scaled.law.linear.shape[0])
    estimate = jnp.maximum(scaled.law.mmd2, 0) / scaled.denominator
    return bisect(lambda share: 1 + _count_below(scaled, share) <= most, estimate, jnp.ones_like(estimate))[1]


def _lower(scaled: _Scaled, tail: Any) -> Float[Array, ""]:
    most = allowed(tail, scaled.law.linear.shape[0])
    estimate = jnp.maximum(scaled.law.mmd2, 0) / scaled.denominator
    found, _ = bisect(lambda share: 1 + _count_above(scaled, share) > most, jnp.zeros_like(estimate), estimate)
    return jnp.where(1 + _count_above(scaled, 0.0) <= most, found, 0)


@partial(jax.jit, static_argnames=("spec", "num"))
def _interval(
    key: Key[Array, ""], pooled: Pooled, bandwidth: Float[Array, " k"], tail: Any, *, spec: Spec, num: int
) -> NormalisedMMD:
    scaled = _scaled(key, pooled, bandwidth, spec, num)
    good = _good(scaled, pooled) & (tail > 0) & (tail < 0.5)
    estimate = scaled.law.mmd2 / scaled.denominator
    ends = jnp.stack([_lower(scaled, tail), _upper(scaled, tail)])
    return NormalisedMMD(jnp.where(good, estimate, jnp.nan), jnp.where(good, ends, jnp.nan), bandwidth)


@partial(jax.jit, static_argnames=("spec", "num"))
def _test(
    key: Key[Array, ""], pooled: Pooled, bandwidth: Float[Array, " k"], margin: Any, alpha: Any, *, spec: Spec, num: int
) -> EquivalenceResult:
    scaled = _scaled(key, pooled, bandwidth, spec, num)
    good = _good(scaled, pooled) & (margin > 0) & (margin < 1) & (alpha > 0) & (alpha < 1)
    count = _count_below(scaled, margin)
    estimate = scaled.law.mmd2 / scaled.denominator
    pvalue = ((1 + count) / (1 + num)).astype(estimate.dtype)
    statistic, pvalue, upper = (jnp.where(good, value, jnp.nan) for value in (estimate, pvalue, _upper(scaled, alpha)))
    reject = good & jnp.isfinite(upper) & (1 + count <= allowed(alpha, num))
    return EquivalenceResult(statistic, pvalue, reject, upper, bandwidth)


def _good(scaled: _Scaled, pooled: Pooled) -> Bool[Array, ""]:
    return all_finite(pooled.blocks) & jnp.isfinite(scaled.law.mmd2)
