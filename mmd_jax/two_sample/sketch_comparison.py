"""Distances between sketches alone: one against many, with an interval, and which of two is nearer. No row is needed.

Sketches of one sample, one for each of several bandwidths and with the same rows in the same bins, stand for the mean of their
kernels: their features side by side, divided by √K, have k̂ = mean_k k̂_k for inner products.

The s bins of a sketch are independent groups of its rows, so that the spread of their means says how far the mean of all may be
off. With r_g = √c_g (mean of bin g − mean of all), c_g the rows in bin g, M = Σ_g r_g r_gᵀ / (s − 1) estimates the covariance
Σ of the features of one row without bias, and only inner products of the r_g are ever needed. All is of the kernel k̂ that the
drawn frequencies give, whose values differ from k by about 1 / √r; sketches that compare share them, and so this error.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from mmd_jax.two_sample.error_law import CAUTION
from mmd_jax.two_sample.pooled import is_traced
from mmd_jax.two_sample.sketches import Sketch, check_same

# Sketches of one sample, one a bandwidth; or one alone.
Sketches = Sketch | Sequence[Sketch]
# The unbiased estimate of tr Σ² compares four bins.
FEWEST_BINS = 4


class MeanEmbedding(NamedTuple):
    """All of a sample that its distance to others needs.

    Attributes:
      mean: of the features of the mean kernel: ‖a − b‖² is the biased MMD². Shape [R], float32, R = K·r.
      size: n, rows of the sample; each has features of length 1, so that with ‖mean‖² it gives the bias.
    """

    mean: np.ndarray
    size: int


class SketchDistance(NamedTuple):
    """How far two sketched samples are apart.

    Attributes:
      mmd2: unbiased estimate of MMD², in squared kernel units; it can be negative.
      standard_error: of this estimate.
      low: lower end of the interval for MMD²; 0 where P = Q can't be ruled out.
      high: its upper end.
    """

    mmd2: float
    standard_error: float
    low: float
    high: float


class RelativeSketchResult(NamedTuple):
    """Which of two sketched sources is closer to a sketched target.

    Attributes:
      difference: MMD²ᵤ(a, target) − MMD²ᵤ(b, target): below 0 where a is closer.
      standard_error: of the difference.
      pvalue: of "a is no closer than b": small where a is closer, near 1 where b is.
      reject: whether a is closer, at the level alpha. Not rejected either way round: a tie.
    """

    difference: float
    standard_error: float
    pvalue: float
    reject: bool


def mean_embedding(sketches: Sketches) -> MeanEmbedding:
    """The mean features of the rows of a sketch, or of sketches of the same rows with several bandwidths.

        μ̂ = (μ̂_1, …, μ̂_K) / √K,   ‖μ̂(a) − μ̂(b)‖² = mean_k MMD_k²(a, b), biased

    Args:
      sketches: of one sample.

    Returns:
      `MeanEmbedding`.

    Raises:
      ValueError: no sketch, traced ones, ones of different rows or bins, or fewer than two rows.
    """
    sums, counts = _bins(sketches)
    return MeanEmbedding((sums.sum(axis=0) / counts.sum()).astype(np.float32), int(counts.sum()))


def mmd2_from_embeddings(target: MeanEmbedding, means: Any, sizes: Any) -> np.ndarray:
    """Unbiased MMD² between one sample and each of E others, from one matrix product.

        MMD²ᵤ = ‖x̄ − ȳ‖² − (1 − ‖x̄‖²) / (m − 1) − (1 − ‖ȳ‖²) / (n − 1)

    It is the mean of `sketch_mmd2` over the bandwidths, up to rounding of some 1e-7. Estimates of one target share the error of
    its rows: of their order much more is known than of their values (`relative_sketch_test`).

    Args:
      target: of one sample.
      means: of the others: `mean_embedding(…).mean` one below the other. Shape [E, R].
      sizes: rows of each, at least 2. Shape [E].

    Returns:
      The estimates. Shape [E], float64.

    Raises:
      ValueError: shapes that don't fit, or sizes below 2.

    Example:
      >>> apart = mmd2_from_embeddings(MeanEmbedding(np.array([1.0, 0.0]), 9), np.array([[1.0, 0.0], [0.0, 1.0]]), [5, 5])
      >>> apart.tolist()
      [0.0, 2.0]
    """
    means, sizes = np.asarray(means), np.asarray(sizes, np.float64)
    if means.ndim != 2 or means.shape[1:] != target.mean.shape or sizes.shape != means.shape[:1]:
        raise ValueError(
            f"means has shape {means.shape} and sizes {sizes.shape}; expected [E, {len(target.mean)}], as wide as the target's "
            "mean, and [E]."
        )
    if min(target.size, sizes.min(initial=2)) < 2:
        raise ValueError("a sample has fewer than two rows, which have no unbiased estimate.")
    own = float(np.sum(target.mean.astype(np.float64) ** 2))
    lengths = np.einsum("er,er->e", means, means, dtype=np.float64)
    biased = lengths + own - 2 * (means @ target.mean).astype(np.float64)
    return biased - (1 - lengths) / (sizes - 1) - (1 - own) / (target.size - 1)


def sketch_distance(a: Sketches, b: Sketches, alpha: float = 0.05) -> SketchDistance:
    """MMD² between the rows of two sketches, or of two tuples of them, with an interval that holds near and far.

        {δ² : neither P(T(δ) <= MMD²ᵤ) nor P(T(δ) >= MMD²ᵤ) is below alpha / 2},   T(δ) = δ² + 2δ⟨u, e⟩ + (‖e‖² − E‖e‖²)

    where e is the error of the difference of the means: the law of `error_law`, whose covariance here comes from the bins. Far
    from 0, T(δ) is normal with the standard error of MMD²ᵤ; at 0 it is the degenerate law, a weighted sum of χ²s. Instead of
    drawing from it, its upper tail is that of the Pearson III law with its first three moments, its lower tail, which is
    shorter, that of a t law, with as many degrees of freedom as there are bins less one; both are a little wide. Where the
    direction u of the difference is mostly noise, the error along it is taken to be the largest of any direction. An estimate
    below 0 counts as 0 for the upper end.

    Args:
      a: sketch of x, or one for each bandwidth.
      b: the same for y.
      alpha: of the interval, which holds MMD² with probability 1 − alpha. Rows are independent, as in `sketch_mmd2`.

    Returns:
      `SketchDistance`.

    Raises:
      ValueError: sketches that were not made alike; fewer than four bins with rows, or fewer than four rows; an alpha outside
        (0, 1).

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012 (the two ends of the law); the trace: Himeno and Yamada,
    Estimations for some functions of covariance matrix in high dimension under non-normality, 2014.
    """
    _check_alpha(alpha)
    x, y = _spread_of_each(a=a, b=b)
    traces_x, traces_y, cross = _trace(x), _trace(y), _cross_trace(x, y)
    difference = x.mean - y.mean
    mmd2 = float(difference @ difference) - _bias(x) - _bias(y)
    along = (_along(x, difference) - traces_x / x.n - cross / y.n) / x.n
    along += (_along(y, difference) - traces_y / y.n - cross / x.n) / y.n
    along = max(along, 0.0)
    degenerate = 2 * traces_x / (x.n * (x.n - 1)) + 2 * traces_y / (y.n * (y.n - 1)) + 4 * cross / (x.n * y.n)
    # The covariance of e has the eigenvalues of this matrix.
    parts = np.concatenate([x.parts / np.sqrt((x.bins - 1) * x.n), y.parts / np.sqrt((y.bins - 1) * y.n)])
    values = np.maximum(np.linalg.eigvalsh(parts @ parts.T), 0)
    worst, estimate = float(values[-1]), max(mmd2, 0.0)
    # Few bins make the spectrum too uneven: as much as its sum of squares is too large.
    evened = np.sqrt(min(1.0, degenerate / max(2 * float(np.sum(values**2)), 1e-300)))
    third = 8 * float(np.sum(values**3)) * evened**3
    doubt = CAUTION * worst * np.sqrt(4 * along + degenerate)
    scale2 = min(worst, (along + doubt) / estimate) if estimate > 0 else worst
    law = _Law(degenerate, third, scale2, worst, min(x.bins, y.bins) - 1)
    low = _crossing(lambda mmd: _above(law, mmd, mmd2) - alpha / 2, 0.0, np.sqrt(estimate))
    high = _crossing(lambda mmd: alpha / 2 - _below(law, mmd, estimate), np.sqrt(estimate), 2.0)
    return SketchDistance(mmd2, float(np.sqrt(4 * along + degenerate)), low**2, high**2)


def relative_sketch_test(target: Sketches, a: Sketches, b: Sketches, alpha: float = 0.05) -> RelativeSketchResult:
    """Test H0: MMD(a, target) >= MMD(b, target) against: a is closer. From sketches alone.

        p = F((MMD²ᵤ(a, target) − MMD²ᵤ(b, target)) / standard error),   F of t with s − 1 degrees of freedom

    Both estimates err with the target's rows, and their difference by less than either: its error is

        2⟨μ_A − μ_T, e_A⟩ − 2⟨μ_B − μ_T, e_B⟩ − 2⟨μ_A − μ_B, e_T⟩ + degenerate parts,

    of which each is estimated from the bins of its sample. For the opposite test exchange a and b: its p is 1 − p. Where neither
    rejects, the sources are tied, as far as these rows can say.

    Args:
      target: sketch of the target, or one for each bandwidth.
      a: the same of one source.
      b: the same of another, of other rows.
      alpha: level, in (0, 1).

    Returns:
      `RelativeSketchResult`.

    Raises:
      ValueError: as `sketch_distance`.

    Reference: Bounliphone et al., A test of relative similarity for model selection in generative models, ICLR 2016.
    """
    _check_alpha(alpha)
    t, x, y = _spread_of_each(target=target, a=a, b=b)
    cross_x, cross_y = _cross_trace(x, t), _cross_trace(y, t)
    traces_x, traces_y = _trace(x), _trace(y)
    to_x, to_y = x.mean - t.mean, y.mean - t.mean
    difference = float(to_x @ to_x - to_y @ to_y) - _bias(x) + _bias(y)
    # Each squared length along a difference of means is too large by what the means err along it.
    linear = (_along(x, to_x) - traces_x / x.n - cross_x / t.n) / x.n
    linear += (_along(y, to_y) - traces_y / y.n - cross_y / t.n) / y.n
    linear += (_along(t, x.mean - y.mean) - cross_x / x.n - cross_y / y.n) / t.n
    degenerate = 2 * traces_x / (x.n * (x.n - 1)) + 2 * traces_y / (y.n * (y.n - 1))
    degenerate += 4 * cross_x / (x.n * t.n) + 4 * cross_y / (y.n * t.n)
    standard_error = float(np.sqrt(4 * max(linear, 0.0) + max(degenerate, 0.0)))
    # Samples without any spread, which are all equal or all known: nothing over nothing.
    z = difference / standard_error if standard_error > 0 else np.sign(difference) * np.inf if difference else 0.0
    pvalue = float(special.stdtr(min(x.bins, y.bins, t.bins) - 1, z))
    return RelativeSketchResult(difference, standard_error, pvalue, pvalue <= alpha)


class _Spread(NamedTuple):
    """A sample as its bins show it.

    Attributes:
      mean: of the features of all rows. Shape [R].
      parts: r_g, of the bins that have rows; their covariance is that of one row. Shape [s, R].
      n: rows.
      bins: s.
    """

    mean: np.ndarray
    parts: np.ndarray
    n: float
    bins: int


def _spread_of_each(**samples: Sketches) -> list[_Spread]:
    """Checks that all were made alike; in float64, as the bins are few."""
    first, *others = (_as_tuple(name, sketches) for name, sketches in samples.items())
    for other in others:
        if len(other) != len(first):
            raise ValueError(
                f"samples have {len(first)} and {len(other)} sketches; expected one for each bandwidth, of all."
            )
        for mine, theirs in zip(first, other, strict=True):
            check_same(mine, theirs)
    return [_spread(name, sketches) for name, sketches in samples.items()]


def _spread(name: str, sketches: Sketches) -> _Spread:
    sums, counts = _bins(sketches, name)
    used = counts > 0
    n, bins = float(counts.sum()), int(used.sum())
    if bins < FEWEST_BINS:
        raise ValueError(
            f"{name} has rows in {bins} bins; an interval from sketches needs rows in {FEWEST_BINS} at least, better in 32."
        )
    mean = sums.sum(axis=0) / n
    roots = np.sqrt(counts[used])[:, None]
    return _Spread(mean, sums[used] / roots - roots * mean[None, :], n, bins)


def _bins(sketches: Sketches, name: str = "sketches") -> tuple[np.ndarray, np.ndarray]:
    """Sums of the mean kernel's features in each bin [s, R], and the rows of each [s]; float64."""
    several = _as_tuple(name, sketches)
    counts = np.asarray(several[0].counts, np.int64)
    for sketch in several[1:]:
        if not np.array_equal(counts, np.asarray(sketch.counts, np.int64)):
            raise ValueError(
                f"the sketches of {name} differ in the rows of their bins; accumulate the same rows with the same key for each "
                "bandwidth."
            )
    if counts.sum() < 2:
        raise ValueError(f"{name} has {int(counts.sum())} rows; expected at least 2.")
    sums = [np.asarray(sketch.sums, np.float64) - np.asarray(sketch.excess, np.float64) for sketch in several]
    return np.concatenate(sums, axis=1) / np.sqrt(len(several)), counts.astype(np.float64)


def _as_tuple(name: str, sketches: Sketches) -> tuple[Sketch, ...]:
    several = (sketches,) if isinstance(sketches, Sketch) else tuple(sketches)
    if not several:
        raise ValueError(f"{name} has no sketch; expected one for each bandwidth.")
    if any(is_traced(sketch.sums, sketch.counts) for sketch in several):
        raise ValueError(f"{name} is traced; compare sketches outside of jit, vmap and grad.")
    return several


def _bias(x: _Spread) -> float:
    """What ‖mean‖² owes to the rows' being compared with themselves: each has features of length 1."""
    return (1 - float(x.mean @ x.mean)) / (x.n - 1)


def _along(x: _Spread, direction: np.ndarray) -> float:
    """directionᵀ M direction: the variance of a row's features along it."""
    return float(np.sum((x.parts @ direction) ** 2)) / (x.bins - 1)


def _trace(x: _Spread) -> float:
    """tr Σ², without bias for iid bins: that of M alone is too large by about (tr Σ)² / s."""
    s, gram = x.bins, x.parts @ x.parts.T
    lengths = np.diagonal(gram)
    squared, trace = float(np.sum(gram**2)) / (s - 1) ** 2, float(lengths.sum()) / (s - 1)
    fourth = float(np.sum(lengths**2)) / (s - 1)
    found = (s - 1) / (s * (s - 2) * (s - 3)) * ((s - 1) * (s - 2) * squared + trace**2 - s * fourth)
    # It is at least (tr Σ)² / R, and the estimate may not be: with few bins it can even be below 0.
    return max(found, trace**2 / x.parts.shape[1])


def _cross_trace(x: _Spread, y: _Spread) -> float:
    """tr Σ_X Σ_Y, without bias."""
    return float(np.sum((x.parts @ y.parts.T) ** 2)) / ((x.bins - 1) * (y.bins - 1))


class _Law(NamedTuple):
    """Of MMD²ᵤ at any true MMD.

    Attributes:
      degenerate: variance of ‖e‖².
      third: third cumulant of ‖e‖².
      scale2: variance of ⟨u, e⟩.
      worst: the largest variance of e in any direction.
      dof: degrees of freedom of the variances.
    """

    degenerate: float
    third: float
    scale2: float
    worst: float
    dof: int


def _above(law: _Law, mmd: float, mmd2: float) -> float:
    """P(T(mmd) >= mmd2), not too small."""
    variance = max(law.degenerate + 4 * mmd**2 * law.scale2, 1e-30)
    # E⟨u, e⟩²(‖e‖² − E‖e‖²) = 2uᵀΣ²u, at most 2 · worst · uᵀΣu.
    skew = (law.third + 24 * mmd**2 * law.worst * law.scale2) / variance**1.5
    z = (mmd2 - mmd**2) / np.sqrt(variance)
    # Pearson III is a gamma law, shifted and scaled; with little skew, the t law covers it.
    shape = 4 / max(skew, 1e-2) ** 2
    gamma = special.gammaincc(shape, max(shape + z * np.sqrt(shape), 0.0))
    return max(float(gamma), float(special.stdtr(law.dof, -z)))


def _below(law: _Law, mmd: float, mmd2: float) -> float:
    """P(T(mmd) <= mmd2), not too small."""
    variance = max(law.degenerate + 4 * mmd**2 * law.scale2, 1e-30)
    return float(special.stdtr(law.dof, (mmd2 - mmd**2) / np.sqrt(variance)))


def _crossing(function: Any, low: float, high: float) -> float:
    """Where a function that grows passes 0, by bisection; an end where it does not."""
    if function(low) >= 0:
        return float(low)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) >= 0 else (middle, high)
    return float(high)


def _check_alpha(alpha: float) -> None:
    if not (np.ndim(alpha) == 0 and 0 < float(alpha) < 1):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 1.")
