"""One answer to "does the difference matter?", in plain words; what a sample of this size could have found; what size it takes.

All three read the law of `error_law`. With r times the rows, ‖e‖² is r times smaller and ⟨u, e⟩ √r times: so the same draws
say what larger samples would find.
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

from mmd_jax.two_sample.bisection import bisect
from mmd_jax.two_sample.checks import allowed, check_finite
from mmd_jax.two_sample.equivalence import check_margin, conclude_interval, lay_out
from mmd_jax.two_sample.error_law import ErrorLaw, draws_at, error_law
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian, safe_root
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, is_traced
from mmd_jax.two_sample.significance import permutation_test
from mmd_jax.types import TwoSampleResult

VerdictKind = Literal["equivalent", "different_but_small", "different", "undecided"]
# Samples are never said to need more than this many times the rows there are.
MOST_TIMES = 1e6


class Verdict(NamedTuple):
    """Whether the difference between P and Q matters.

    Attributes:
      kind: "equivalent": MMD < margin, and P = Q not rejected; "different_but_small": MMD < margin, and P = Q rejected;
        "different": MMD > margin; "undecided": the samples are too small to say on which side of the margin it lies.
      sentence: the same in plain words, with the numbers.
      interval: both of its ends hold with probability 1 − alpha each. Of MMD, in kernel units.
      margin: the least MMD that matters.
      mmd2: unbiased estimate of MMD².
      pvalue: of P = Q, by permutations.
      minimum_detectable: the least MMD that a test of P = Q at these sizes finds with probability .8.
    """

    kind: VerdictKind
    sentence: str
    interval: tuple[float, float]
    margin: float
    mmd2: float
    pvalue: float
    minimum_detectable: float


class SampleSize(NamedTuple):
    """How many rows it takes until the verdict is clear; where they come in groups, in as many times the groups.

    Attributes:
      m: rows of x; as many times those there are as n of y. Infinite where the true MMD is the margin, or nearly.
      n: rows of y.
      times: n over the rows of y there are; below 1 where fewer would do.
    """

    m: float
    n: float
    times: float


def verdict(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    margin: ArrayLike,
    alpha: ArrayLike = 0.05,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    bins: int | None = None,
    test: TwoSampleResult | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> Verdict:
    """Say whether the difference between two samples matters, given the least MMD that would.

        equivalent           U < margin, P = Q not rejected
        different_but_small  U < margin, P = Q rejected
        different            L > margin
        undecided            else

    [L, U] is the interval for MMD at level 1 − 2 alpha, so that "MMD < margin" and "MMD > margin" are each said in error with
    probability alpha at most; P = Q is rejected at level alpha by permutations. Larger samples make the interval shorter, and so
    move a verdict away from "undecided" to the side on which the truth lies, whereas p falls for any difference.

    A function of concrete values: its answer is words. The parts run under `jax.jit`: `mmd_interval`, `permutation_test`.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      margin: the least MMD that matters, > 0, measured at the same kernel and bandwidth (`margin_from_splits`, …).
      alpha: of each of the claims, in (0, ½).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows, which suits no margin
        that was measured at another.
      kernel: which kernel.
      num_draws: B, of bootstrap draws and of permutations.
      groups_x, groups_y: as `mmd_interval`; the same groups are permuted. bins: of the permutations, as `permutation_test`.
      test: a test of P = Q at this alpha and bandwidth that was made already; none: `permutation_test` is made.
      precision, mesh: as `permutation_test`.

    Returns:
      `Verdict`.

    Raises:
      ValueError, TypeError: margin <= 0; or as `permutation_test`; fewer than four rows in a sample; traced input.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (400, 2)), 1.0 + jax.random.normal(y_key, (400, 2))
      >>> verdict(key, x, y, margin=0.2, bandwidth=2.0).kind  # true MMD: 0.44
      'different'
    """
    if is_traced(key, x, y, margin, alpha, bandwidth, groups_x, groups_y):
        raise TypeError("verdict needs concrete values, for its answer is words; under jax.jit use mmd_interval.")
    check_margin(margin)
    if not (np.ndim(alpha) == 0 and 0 < float(np.asarray(alpha)) < 0.5):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 0.5, the level of each claim.")
    law_key, test_key = jax.random.split(key)
    pooled, groups, bandwidth, spec = lay_out(
        law_key, x, y, bandwidth, alpha, num_draws, kernel, precision, mesh, groups_x, groups_y
    )
    found = _evidence(
        law_key, pooled, groups, bandwidth, np.asarray(alpha, pooled.blocks.dtype), spec=spec, num=num_draws
    )
    mmd2, low, high, detectable = (float(value) for value in found)
    check_finite(mmd2, low, high)
    if test is None:
        test = permutation_test(
            test_key, x, y, bandwidth=bandwidth, alpha=alpha, num_permutations=num_draws, groups_x=groups_x,
            groups_y=groups_y, bins=bins, kernel=kernel, precision=precision, mesh=mesh,
        )  # fmt: skip
    limit, pvalue = float(np.asarray(margin)), float(test.pvalue)
    kind = decide_verdict(low, high, limit, bool(test.reject))
    sizes = f"{pooled.m} and {pooled.n} rows"
    if groups_x is not None:
        sizes += f" in {len(np.unique(np.asarray(groups_x)))} and {len(np.unique(np.asarray(groups_y)))} groups"
    sentence = _in_words(kind, low, high, limit, pvalue, float(np.asarray(alpha)), sizes)
    return Verdict(kind, sentence, (low, high), limit, mmd2, pvalue, detectable)


def decide_verdict(low: float, high: float, margin: float, rejected: bool) -> VerdictKind:
    """The verdict of an interval for MMD, a margin, and whether P = Q was rejected."""
    if high < margin:
        return "different_but_small" if rejected else "equivalent"
    return "different" if low > margin else "undecided"


def _in_words(
    kind: VerdictKind, low: float, high: float, margin: float, pvalue: float, alpha: float, sizes: str
) -> str:
    numbers = f"MMD lies in [{low:.3g}, {high:.3g}] ({1 - 2 * alpha:.0%} interval), the margin is {margin:.3g}, p = {pvalue:.2g}"
    return {
        "equivalent": f"No difference was found, and none that matters can be there: {numbers}.",
        "different_but_small": f"The samples differ, but by less than matters: {numbers}.",
        "different": f"The samples differ by more than the margin allows: {numbers}.",
        "undecided": (f"These samples ({sizes}) are too small to say whether the difference matters: {numbers}."),
    }[kind]


def minimum_detectable_mmd(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    alpha: ArrayLike = 0.05,
    power: ArrayLike = 0.8,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """The least MMD that a test of P = Q on samples of these sizes finds with the given probability.

        min{δ : P(T(δ) > c) >= power},   c the 1 − alpha quantile of T(0)

    A difference below it may well be there, though P = Q was not rejected. It depends on the samples through their sizes and
    their spread, not through the difference between them, whose direction is taken to be the one of the largest error.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 4.
      y: sample of Q, shape [n, d], n >= 4.
      alpha: level of the test, in (0, 1).
      power: the probability of a rejection, in (alpha, 1).
      bandwidth, kernel, num_draws, groups_x, groups_y, precision, mesh: as `mmd_interval`.

    Returns:
      MMD, in kernel units. Shape []. NaN for bad traced values.

    Raises:
      ValueError, TypeError: power outside (alpha, 1); or as `mmd_interval`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (200, 2)), jax.random.normal(y_key, (200, 2))
      >>> round(float(minimum_detectable_mmd(key, x, y, bandwidth=2.0)), 2)
      0.11
    """
    _check_power(power, alpha)
    pooled, groups, bandwidth, spec = lay_out(
        key, x, y, bandwidth, alpha, num_draws, kernel, precision, mesh, groups_x, groups_y
    )
    dtype = pooled.blocks.dtype
    alpha, power = (value if is_traced(value) else np.asarray(value, dtype) for value in (alpha, power))
    found = _minimum_detectable(key, pooled, groups, bandwidth, alpha, power, spec=spec, num=num_draws)
    check_finite(found)
    return found


def sample_size_to_decide(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    margin: ArrayLike,
    mmd: ArrayLike,
    alpha: ArrayLike = 0.05,
    power: ArrayLike = 0.8,
    bandwidth: Numbers | None = None,
    kernel: Kernel = gaussian,
    num_draws: int = 999,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> SampleSize:
    """The sizes at which the verdict would be decided with the given probability, were `mmd` the true MMD.

    Below the margin: that "MMD < margin" is found; above it: that "different" is. x and y are a pilot sample, from which
    come the spread and the ratio of the sizes.

    Args:
      key: consumed.
      x: pilot sample of P, shape [m, d], m >= 4.
      y: pilot sample of Q, shape [n, d], n >= 4.
      margin: as `verdict`.
      mmd: the true MMD to plan for, >= 0.
      alpha: as `verdict`.
      power: the probability that the verdict is decided, in (alpha, 1).
      bandwidth, kernel, num_draws, groups_x, groups_y, precision, mesh: as `mmd_interval`.

    Returns:
      `SampleSize`.

    Raises:
      ValueError, TypeError: margin <= 0, mmd < 0, power outside (alpha, 1); or as `mmd_interval`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (200, 2)), jax.random.normal(y_key, (200, 2))
      >>> close = sample_size_to_decide(key, x, y, margin=0.05, mmd=0.04, bandwidth=2.0)
      >>> equal = sample_size_to_decide(key, x, y, margin=0.05, mmd=0.0, bandwidth=2.0)
      >>> equal.n < close.n / 5
      True
    """
    check_margin(margin)
    _check_power(power, alpha)
    if not (np.ndim(mmd) == 0 and 0 <= float(np.asarray(mmd)) < np.inf):
        raise ValueError(f"mmd is {mmd}; expected one number, at least 0: the true MMD to plan for.")
    pooled, groups, bandwidth, spec = lay_out(
        key, x, y, bandwidth, alpha, num_draws, kernel, precision, mesh, groups_x, groups_y
    )
    values = (np.asarray(value, pooled.blocks.dtype) for value in (margin, mmd, alpha, power))
    times, spread = map(float, _times_to_decide(key, pooled, groups, bandwidth, *values, spec=spec, num=num_draws))
    check_finite(spread)
    m, n = (float(np.ceil(times * rows)) if np.isfinite(times) else np.inf for rows in (pooled.m, pooled.n))
    return SampleSize(max(m, 4.0), max(n, 4.0), times)


def _check_power(power: Any, alpha: Any) -> None:
    if is_traced(power, alpha):
        return
    if not (np.ndim(power) == 0 and float(alpha) < float(power) < 1):
        raise ValueError(f"power is {power}; expected one number between alpha = {alpha} and 1.")


@partial(jax.jit, static_argnames=("spec", "num"))
def _evidence(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    alpha: Any,
    *,
    spec: Spec,
    num: int,
) -> tuple[Array, ...]:
    law = error_law(key, pooled, bandwidth, spec, num, groups)
    interval = conclude_interval(law, alpha, bandwidth, jnp.isfinite(law.mmd2))
    return law.mmd2, interval.mmd[0], interval.mmd[1], _detectable(law, alpha, jnp.asarray(0.8, law.mmd2.dtype))


@partial(jax.jit, static_argnames=("spec", "num"))
def _minimum_detectable(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    alpha: Any,
    power: Any,
    *,
    spec: Spec,
    num: int,
) -> Float[Array, ""]:
    law = error_law(key, pooled, bandwidth, spec, num, groups)
    good = all_finite(pooled.blocks) & (alpha > 0) & (alpha < power) & (power < 1)
    return jnp.where(good, _detectable(law, alpha, power), jnp.nan)


@partial(jax.jit, static_argnames=("spec", "num"))
def _times_to_decide(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidth: Float[Array, " k"],
    margin: Any,
    mmd: Any,
    alpha: Any,
    power: Any,
    *,
    spec: Spec,
    num: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How many times the rows it takes, infinite if never; and the spread of the error, not finite where the kernel overflows."""
    law = _in_the_worst_direction(error_law(key, pooled, bandwidth, spec, num, groups))

    def decided(times: Array) -> Bool[Array, ""]:
        larger = law._replace(scale=law.scale / jnp.sqrt(times), noise=law.noise / times)
        at_truth, at_margin = draws_at(larger, mmd), draws_at(larger, margin)
        # Estimates below 0 count as 0, as in the interval.
        small = jnp.maximum(jnp.quantile(at_truth, power), 0) < jnp.quantile(at_margin, alpha)
        large = jnp.quantile(at_truth, 1 - power) > jnp.quantile(at_margin, 1 - alpha)
        return jnp.where(mmd < margin, small, large)

    largest = jnp.asarray(np.log(MOST_TIMES), law.mmd2.dtype)
    _, found = bisect(lambda log_times: decided(jnp.exp(log_times)), -largest, largest)
    return jnp.where(decided(jnp.exp(largest)), jnp.exp(found), jnp.inf), law.scale + jnp.max(jnp.abs(law.noise))


def _detectable(law: ErrorLaw, alpha: Any, power: Any) -> Float[Array, ""]:
    law = _in_the_worst_direction(law)
    num = law.linear.shape[0]
    most = allowed(alpha, num).astype(jnp.int32)
    threshold = jnp.sort(law.noise)[jnp.clip(num - most, 0, num - 1)]

    def found(mmd: Array) -> Bool[Array, ""]:
        return jnp.mean(draws_at(law, mmd) > threshold) >= power

    far = law.scale * jnp.max(jnp.abs(law.linear))
    beyond = far + jnp.sqrt(far**2 + 2 * jnp.max(jnp.abs(law.noise)))
    return bisect(found, jnp.zeros_like(beyond), 1.01 * beyond)[1]


def _in_the_worst_direction(law: ErrorLaw) -> ErrorLaw:
    """For a difference that is not the one observed, and so of unknown direction."""
    return law._replace(scale=safe_root(law.worst))
