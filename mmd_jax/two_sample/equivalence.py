"""Does the difference matter? An interval for MMD that holds at and near 0, and a test that MMD is below a margin.

Both ask of every δ whether the estimate is too small or too large for a true MMD of δ, by the law of `error_law`.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.bisection import bisect
from mmd_jax.two_sample.checks import allowed, check_both, check_finite, check_knobs, check_precision, number_groups
from mmd_jax.two_sample.error_law import FEWEST_GROUPS, ErrorLaw, draws_at, error_law
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian, safe_root
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced
from mmd_jax.two_sample.variance import pool_many

# How the p-value of an equivalence test is found: see `equivalence_test`.
Method = Literal["law", "normal", "bootstrap"]
METHODS = ("law", "normal", "bootstrap")


class MMDInterval(NamedTuple):
    """A confidence interval for MMD. Every field may carry leading axes from `jax.vmap`.

    Attributes:
      mmd2: unbiased estimate of MMD²; it can be negative. Shape [].
      standard_error: of this estimate. Shape [].
      mmd: the interval, in kernel units; it starts at 0 where P = Q can't be ruled out. Shape [2].
      mmd2_interval: the same squared, an interval for MMD². Shape [2].
      bandwidth: the bandwidths that were summed over; the interval is of the MMD at these. Shape [k].
    """

    mmd2: Float[Array, ""]
    standard_error: Float[Array, ""]
    mmd: Float[Array, "2"]
    mmd2_interval: Float[Array, "2"]
    bandwidth: Float[Array, " k"]


class EquivalenceResult(NamedTuple):
    """What a test of H0: MMD >= margin found. Every field may carry leading axes from `jax.vmap`.

    Attributes:
      statistic: unbiased estimate of MMD². Shape [].
      pvalue: small where the samples are closer than the margin allows. Shape [].
      reject: whether they are equivalent: MMD < margin at the level alpha. Shape [], bool.
      upper: the least margin at which it would have rejected. Shape [].
      bandwidth: the bandwidths that were summed over. Shape [k].
    """

    statistic: Float[Array, ""]
    pvalue: Float[Array, ""]
    reject: Bool[Array, ""]
    upper: Float[Array, ""]
    bandwidth: Float[Array, " k"]


def mmd_interval(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    level: ArrayLike = 0.95,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> MMDInterval:
    """Confidence interval for MMD that covers whether P and Q are equal, near or far.

        {δ : neither #{b : T_b(δ) <= MMD²ᵤ} nor #{b : T_b(δ) >= MMD²ᵤ} is too small},   T_b(δ) = δ² + 2δ l_b + q_b

    T_b(δ) are draws of the estimate where the true MMD is δ: the degenerate law at 0, nearly normal far from it. Each end is
    wrong with probability (1 − level) / 2 at most, up to the error of the bootstrap; measured: docs/two_sample.md. The lower end
    is above 0 exactly where the bootstrap test of P = Q rejects at that level. For the upper end an estimate below 0 counts as 0.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      level: probability that the interval holds the true MMD, in (0, 1), at most 1 − 2 / (B + 1).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.
      num_draws: B, bootstrap draws. They cost as much as so many permutations.
      groups_x: where rows depend on each other (one writer, one document), the group of each row of x, shape [m]: the groups
        are then what varies, and there must be as good as 5 of equal size, n² / Σ n_g². Give both or neither.
      groups_y: the same for y, shape [n]. No label may be in both.
      precision: of the products, as `permutation_test`.
      mesh: devices that share the work, as `permutation_test`.

    Returns:
      `MMDInterval`. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples, key, bandwidth, level or number of draws (see `permutation_test`); fewer than four
        rows in a sample; groups too few, or that do not fit the rows, or span both samples.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (200, 2)), 0.5 + jax.random.normal(y_key, (300, 2))
      >>> found = mmd_interval(key, x, y, bandwidth=2.0)  # true MMD: 0.235
      >>> bool(found.mmd[0] < 0.235 < found.mmd[1])
      True

    Reference: the law with its two ends: Gretton et al., A kernel two-sample test, JMLR 2012, theorem 12 and corollary 16.
    """
    tail = checked_tail(level, num_draws)
    pooled, groups, bandwidth, spec = lay_out(
        key, x, y, bandwidth, tail, num_draws, kernel, precision, mesh, groups_x, groups_y
    )
    found = _interval(key, pooled, groups, bandwidth, tail, spec=spec, num=num_draws)
    check_finite(found.mmd2, found.standard_error, found.mmd)
    return found


def equivalence_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    margin: ArrayLike,
    alpha: ArrayLike = 0.05,
    method: Method = "law",
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> EquivalenceResult:
    """Test H0: MMD(P, Q) >= margin against MMD < margin: a rejection says that P and Q are as good as equal.

        p = (1 + #{b : T_b(margin) <= max(MMD²ᵤ, 0)}) / (1 + B)

    Methods: "law" takes T_b(margin), the draws of the estimate where MMD is the margin (see `mmd_interval`, whose upper end at
    level 1 − 2 alpha is `upper`). "normal" takes the normal law with the estimated variance, which fits only where the margin
    is large beside the noise. "bootstrap" holds by the triangle inequality, MMD_b >= margin − ‖e‖, with draws of the norm of the
    error: p = (1 + #{b : ‖e_b‖ >= margin − MMD_b}) / (1 + B); safest, and much less powerful.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      margin: the least MMD that matters, > 0, in kernel units, measured at this same bandwidth and kernel.
      alpha: level: the probability of a rejection though MMD >= margin.
      method: "law", "normal" or "bootstrap".
      bandwidth, kernel, num_draws, groups_x, groups_y, precision, mesh: as `mmd_interval`.

    Returns:
      `EquivalenceResult`. NaN and False for bad traced values.

    Raises:
      ValueError: margin <= 0; and, TypeError too, as `mmd_interval`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (500, 2)), jax.random.normal(y_key, (500, 2))
      >>> bool(equivalence_test(key, x, y, margin=0.2, bandwidth=2.0).reject)
      True

    Reference: Liu and Gandy, Kernel tests of equivalence, arXiv:2603.10886 ("normal", "bootstrap").
    """
    check_margin(margin)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    pooled, groups, bandwidth, spec = lay_out(
        key, x, y, bandwidth, alpha, num_draws, kernel, precision, mesh, groups_x, groups_y
    )
    dtype = pooled.blocks.dtype
    margin, alpha = (value if is_traced(value) else np.asarray(value, dtype) for value in (margin, alpha))
    result = _equivalence(key, pooled, groups, bandwidth, margin, alpha, spec=spec, num=num_draws, method=method)
    check_finite(result.statistic, result.upper)
    return result


def check_margin(margin: Any) -> None:
    """One finite positive number."""
    if is_traced(margin):
        return
    if not (np.ndim(margin) == 0 and 0 < float(margin) < np.inf):
        raise ValueError(
            f"margin is {margin}; expected one number above 0: the least MMD that matters to you. A margin of 0 can never be "
            "shown; to calibrate one, see margin_from_splits and margin_from_change."
        )


def checked_tail(level: Any, num: Any) -> Any:
    """How often each end of an interval may be wrong."""
    if is_traced(level):
        return (1 - level) / 2
    if not (np.ndim(level) == 0 and 0 < float(level) < 1):
        raise ValueError(f"level is {level}; expected one number between 0 and 1, the coverage of the interval.")
    tail = (1 - float(level)) / 2
    if isinstance(num, int) and num > 0 and allowed(np.float64(tail), num) < 1:
        fewest = int(np.ceil(1 / tail - 1e-6)) - 1
        raise ValueError(
            f"level is {level}, for which {num} draws are too few: use at least {fewest} draws, or a lower level."
        )
    return tail


def lay_out(
    key: Any, x: Any, y: Any, bandwidth: Any, alpha: Any, num: Any, kernel: Kernel, precision: Any, mesh: Any,
    groups_x: Any = None, groups_y: Any = None,
) -> tuple[Pooled, Any, Any, Spec]:  # fmt: skip
    """The pooled rows, the number of each row's group or none, the bandwidths, and what is static."""
    check_precision(precision)
    check_knobs(key, alpha, num)
    check_both(groups_x, groups_y)
    pooled, _ = pool_many({"x": x, "y": y}, fewest=4)
    groups = None
    if groups_x is not None:
        groups, _ = number_groups(groups_x, groups_y, pooled)
        check_groups(groups_x, groups_y)
    return pooled, groups, resolve_bandwidth(bandwidth, pooled, kernel), Spec((kernel,), precision, mesh)


def check_groups(groups_x: Any, groups_y: Any) -> None:
    """Groups enough, and none too large, to estimate from them how much groups vary."""
    if is_traced(groups_x, groups_y):
        return
    for name, groups in (("groups_x", groups_x), ("groups_y", groups_y)):
        _, sizes = np.unique(np.asarray(groups), return_counts=True)
        if np.sum(sizes) ** 2 < FEWEST_GROUPS * np.sum(sizes**2):
            raise ValueError(
                f"{name} has {len(sizes)} groups, the largest with {sizes.max()} of {sizes.sum()} rows: they tell as much as "
                f"{np.sum(sizes) ** 2 / np.sum(sizes**2):.1f} groups of equal size do, and an interval needs {FEWEST_GROUPS}. "
                "Gather more groups, or take fewer rows of the largest."
            )


@partial(jax.jit, static_argnames=("spec", "num"))
def _interval(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    tail: Any,
    *,
    spec: Spec,
    num: int,
) -> MMDInterval:
    law = error_law(key, pooled, bandwidth, spec, num, groups)
    good = all_finite(pooled.blocks) & jnp.isfinite(law.mmd2) & (tail > 0) & (tail < 0.5)
    return conclude_interval(law, tail, bandwidth, good)


def conclude_interval(law: ErrorLaw, tail: Any, bandwidth: Float[Array, " k"], good: Bool[Array, ""]) -> MMDInterval:
    """The interval whose ends are each wrong with probability `tail`."""
    ends = jnp.stack([lower_end(law, tail), upper_end(law, tail)])
    standard_error = jnp.sqrt(jnp.maximum(law.variance.linear, 0) + jnp.var(law.noise))
    mmd2, standard_error, ends = (jnp.where(good, value, jnp.nan) for value in (law.mmd2, standard_error, ends))
    return MMDInterval(mmd2, standard_error, ends, ends**2, bandwidth)


@partial(jax.jit, static_argnames=("spec", "num", "method"))
def _equivalence(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    margin: Any,
    alpha: Any,
    *,
    spec: Spec,
    num: int,
    method: Method,
) -> EquivalenceResult:
    law = error_law(key, pooled, bandwidth, spec, num, groups)
    good = all_finite(pooled.blocks) & jnp.isfinite(law.mmd2) & (margin > 0) & (alpha > 0) & (alpha < 1)
    most = allowed(alpha, num)
    if method == "law":
        count = count_below(law, margin)
        pvalue, reject = (1 + count) / (1 + num), 1 + count <= most
        upper = upper_end(law, alpha)
    elif method == "bootstrap":
        norms, distance = safe_root(law.squared), safe_root(law.biased)
        count = jnp.sum(norms >= margin - distance)
        pvalue, reject = (1 + count) / (1 + num), 1 + count <= most
        upper = distance + jnp.sort(norms)[jnp.clip(num - most, 0, num - 1).astype(jnp.int32)]
    else:
        deviation = jnp.sqrt(jnp.maximum(law.variance.linear, 0) + jnp.var(law.noise))
        pvalue = jax.scipy.stats.norm.cdf((law.mmd2 - margin**2) / deviation)
        reject = pvalue <= alpha
        upper = safe_root(law.mmd2 - jax.scipy.stats.norm.ppf(alpha) * deviation)
    pvalue = pvalue.astype(law.mmd2.dtype)
    statistic, pvalue, upper = (jnp.where(good, value, jnp.nan) for value in (law.mmd2, pvalue, upper))
    return EquivalenceResult(statistic, pvalue, good & jnp.isfinite(upper) & reject, upper, bandwidth)


def count_below(law: ErrorLaw, mmd: Any) -> Int[Array, ""]:
    """How many draws at a true MMD are no larger than the estimate; one below 0 counts as 0, or luck would pass for closeness."""
    return jnp.sum(draws_at(law, mmd) <= jnp.maximum(law.mmd2, 0))


def count_above(law: ErrorLaw, mmd: Any) -> Int[Array, ""]:
    """How many draws at a true MMD are no smaller than the estimate."""
    return jnp.sum(draws_at(law, mmd) >= law.mmd2)


def upper_end(law: ErrorLaw, tail: Any) -> Float[Array, ""]:
    """The largest MMD that the estimate is not too small for."""
    most = allowed(tail, law.linear.shape[0])
    estimate = jnp.maximum(law.mmd2, 0)
    far = law.scale * jnp.max(jnp.abs(law.linear))
    # No draw is below the estimate there: (δ − far)² > far² + estimate + max|noise|.
    beyond = far + jnp.sqrt(far**2 + estimate + jnp.max(jnp.abs(law.noise))) * 1.01
    return bisect(lambda mmd: 1 + count_below(law, mmd) <= most, safe_root(estimate), beyond)[1]


def lower_end(law: ErrorLaw, tail: Any) -> Float[Array, ""]:
    """The smallest MMD that the estimate is not too large for."""
    most = allowed(tail, law.linear.shape[0])
    found, _ = bisect(lambda mmd: 1 + count_above(law, mmd) > most, jnp.zeros_like(law.mmd2), safe_root(law.mmd2))
    return jnp.where(1 + count_above(law, 0.0) <= most, found, 0)
