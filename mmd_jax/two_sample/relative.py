"""Which of two sources is closer to the target? A normal test of the difference of two dependent MMD²s.

Both estimates see the same target rows, so they err together, and their difference errs by less than either. With
a = μ_X − μ_T, b = μ_Y − μ_T it is

    MMD²ᵤ(X, T) − MMD²ᵤ(Y, T) = ‖a‖² − ‖b‖² + 2⟨a, e_X⟩ − 2⟨b, e_Y⟩ − 2⟨a − b, e_T⟩ + degenerate parts, all uncorrelated.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite, check_precision
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced
from mmd_jax.two_sample.variance import moments, pool_many, variance_along


class RelativeResult(NamedTuple):
    """Which of two sources is closer to the target. Every field may carry leading axes from `jax.vmap`.

    Attributes:
      difference: MMD²ᵤ(x, target) − MMD²ᵤ(y, target): below 0 where x is closer. Shape [].
      standard_error: of the difference. Shape [].
      pvalue: of "x is no closer than y": small where x is closer, near 1 where y is. Shape [].
      reject: whether x is closer, at the level alpha. Shape [], bool.
      bandwidth: the bandwidths that were summed over. Shape [k].
    """

    difference: Float[Array, ""]
    standard_error: Float[Array, ""]
    pvalue: Float[Array, ""]
    reject: Bool[Array, ""]
    bandwidth: Float[Array, " k"]


def relative_test(
    x: Numbers,
    y: Numbers,
    target: Numbers,
    *,
    alpha: ArrayLike = 0.05,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> RelativeResult:
    """Test H0: MMD(x, target) >= MMD(y, target) against: x is closer.

        p = Φ((MMD²ᵤ(x, target) − MMD²ᵤ(y, target)) / standard error)

    The standard error is that of the difference, with what both owe to the target's rows, and holds where neither source
    differs from the target too. For the opposite test exchange x and y: its p is 1 − p.

    Args:
      x: sample of one source, shape [m, d], m >= 4.
      y: sample of another, shape [n, d], n >= 4.
      target: shape [t, d], t >= 4.
      alpha: level, in (0, 1).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of all rows together.
      kernel: which kernel.
      precision, mesh: as `permutation_test`.

    Returns:
      `RelativeResult`. NaN and False for bad traced values.

    Raises:
      ValueError, TypeError: bad samples, bandwidth or alpha (see `permutation_test`); fewer than four rows in a sample.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> near, far, target = (jax.random.normal(key, (200, 2)) + shift for key, shift in zip(keys, (0.2, 1.0, 0.0)))
      >>> bool(relative_test(near, far, target).reject), bool(relative_test(far, near, target).reject)
      (True, False)

    Reference: Bounliphone et al., A test of relative similarity for model selection in generative models, ICLR 2016,
    arXiv:1511.04581.
    """
    check_precision(precision)
    if not is_traced(alpha) and not (np.ndim(alpha) == 0 and 0 < float(np.asarray(alpha)) < 1):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 1, the level of the test.")
    traced = is_traced(x, y, target, bandwidth)
    pooled, sizes = pool_many({"x": x, "y": y, "target": target}, fewest=4)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    alpha = alpha if is_traced(alpha) else np.asarray(alpha, pooled.blocks.dtype)
    compiled = _with_static_sizes if traced else _with_traced_sizes
    result = compiled(pooled.blocks, sizes, bandwidth, alpha, spec=Spec((kernel,), precision, mesh))
    check_finite(result.difference, result.standard_error)
    return result


def _compare(
    blocks: Float[Array, "b t d"], sizes: Any, bandwidth: Float[Array, " k"], alpha: Any, *, spec: Spec
) -> RelativeResult:
    found = moments(Pooled(blocks, sizes[0], sizes[1] + sizes[2]), sizes, bandwidth, spec)
    means, traces, (m, n, t) = found.means, found.traces, found.sizes
    difference = means[0, 0] - 2 * means[0, 2] - means[1, 1] + 2 * means[1, 2]
    # The functions a on the rows of x, b on those of y, a − b = μ_X − μ_Y on those of the target.
    along = [
        variance_along(found, sample, jnp.array(weights)) / size
        for sample, weights, size in ((0, (1.0, 0.0, -1.0), m), (1, (0.0, 1.0, -1.0), n), (2, (1.0, -1.0, 0.0), t))
    ]
    linear = 4 * sum(along)
    degenerate = (
        2 * traces[0, 0] / (m * (m - 1))
        + 2 * traces[1, 1] / (n * (n - 1))
        + 4 * traces[0, 2] / (m * t)
        + 4 * traces[1, 2] / (n * t)
    )
    # Each is the estimate of something positive.
    standard_error = jnp.sqrt(jnp.maximum(linear, 0) + jnp.maximum(degenerate, 0))
    pvalue = jax.scipy.stats.norm.cdf(difference / standard_error)
    good = all_finite(blocks) & (alpha > 0) & (alpha < 1)
    difference, standard_error, pvalue = (
        jnp.where(good, value, jnp.nan) for value in (difference, standard_error, pvalue)
    )
    return RelativeResult(difference, standard_error, pvalue, pvalue <= alpha, bandwidth)


_with_static_sizes = partial(jax.jit, static_argnames=("sizes", "spec"))(_compare)
_with_traced_sizes = partial(jax.jit, static_argnames=("spec",))(_compare)
