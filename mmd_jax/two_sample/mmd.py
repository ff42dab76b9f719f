"""How far apart two samples are: the biased and the unbiased estimate of the maximum mean discrepancy."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, gaussian, safe_root
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced, pool
from mmd_jax.two_sample.reductions import SplitSums, split_sums
from mmd_jax.two_sample.resampling import observed_column


class Estimates(NamedTuple):
    """Both estimates from one pass.

    Attributes:
      unbiased: of MMD², shape [].
      biased: of MMD, shape [].
    """

    unbiased: Float[Array, ""]
    biased: Float[Array, ""]


def mmd2_unbiased(
    x: Numbers, y: Numbers, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Float[Array, ""]:
    """Unbiased estimate of the squared MMD between the distributions of x and y.

        MMD²ᵤ = Σ_{i≠j} k(x_i, x_j) / m(m − 1) + Σ_{i≠j} k(y_i, y_j) / n(n − 1) − 2 Σ_{ij} k(x_i, y_j) / mn

    It has a finite derivative with respect to the rows everywhere; a median bandwidth counts as a constant.

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      MMD²ᵤ, in squared kernel units; negative values are no error. Shape []. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples or bandwidth (see `permutation_test`).

    Example:
      >>> import numpy as np
      >>> x, y = np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])
      >>> round(float(mmd2_unbiased(x, y, bandwidth=1.0)), 4)  # 1 + 1 − 2·exp(−1/2)
      0.7869

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, Lemma 6.
    """
    return _estimates(x, y, bandwidth, kernel).unbiased


def mmd_biased(
    x: Numbers, y: Numbers, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Float[Array, ""]:
    """Biased estimate of MMD: the largest difference of means over the unit ball of the kernel's function space.

        MMD_b = sup_{‖f‖ ≤ 1} (mean f(x_i) − mean f(y_j)) = √(Σ_{ij} k(x_i, x_j) / m² + … − 2 Σ_{ij} k(x_i, y_j) / mn)

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      MMD_b >= 0, in kernel units. Shape []. Its derivative is 0 where it is 0. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples or bandwidth (see `permutation_test`).

    Example:
      >>> import numpy as np
      >>> x, y = np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])
      >>> round(float(mmd_biased(x, y, bandwidth=1.0)), 4)  # √(1 + 1 − 2·exp(−1/2))
      0.8871

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, equation (5).
    """
    return _estimates(x, y, bandwidth, kernel).biased


def unbiased(sums: SplitSums) -> Float[Array, "K C"]:
    """MMD²ᵤ of every split. A constant added to all kernel values off the diagonal cancels."""
    m, n = sums.m, sums.n
    return sums.xx / (m * (m - 1)) + sums.yy / (n * (n - 1)) - 2 * sums.xy / (m * n)


def biased(sums: SplitSums) -> Float[Array, "K C"]:
    """MMD_b of every split. The shift of the diagonal and that of the rest cancel too, being the same."""
    m, n = sums.m, sums.n
    squared = (sums.xx + sums.x_diagonal) / m**2 + (sums.yy + sums.y_diagonal) / n**2 - 2 * sums.xy / (m * n)
    return jnp.where(jnp.isnan(squared), jnp.nan, safe_root(squared))


def _estimates(x: Any, y: Any, bandwidth: Any, kernel: Kernel) -> Estimates:
    traced = is_traced(x, y, bandwidth)
    pooled = pool(x, y, pad=not traced)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    # Counts that are static give the loop over tiles a derivative; traced ones let a new size reuse the program.
    compiled = _with_static_counts if traced else _with_traced_counts
    found = compiled(pooled.blocks, pooled.m, pooled.n, bandwidth, kernel=kernel)
    check_finite(found.unbiased)
    return found


def _estimate(
    blocks: Float[Array, "b t d"], m: Any, n: Any, bandwidth: Float[Array, " k"], *, kernel: Kernel
) -> Estimates:
    pooled = Pooled(blocks, m, n)
    sums = split_sums(pooled, observed_column(pooled), (bandwidth[None],), Spec((kernel,)))
    good = all_finite(blocks)
    return Estimates(*(jnp.where(good, value[0, 0], jnp.nan) for value in (unbiased(sums), biased(sums))))


_with_static_counts = partial(jax.jit, static_argnames=("m", "n", "kernel"))(_estimate)
_with_traced_counts = partial(jax.jit, static_argnames=("kernel",))(_estimate)
