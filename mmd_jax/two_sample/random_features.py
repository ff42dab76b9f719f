"""Random Fourier features: MMD in linear time, from sketches of unbounded data that merge.

A translation-invariant kernel is the mean of cosines over its spectral distribution. With frequencies w_1 … w_{r/2} drawn
from it,

    φ(x) = √(2/r) (cos w₁ᵀx, …, cos w_{r/2}ᵀx, sin w₁ᵀx, …, sin w_{r/2}ᵀx),   φ(a)ᵀφ(b) ≈ k(a, b),   ‖φ(x)‖ = 1,

so MMD² is the squared distance of two mean vectors, which sums of φ over bins of rows give. The sums, the counts and the
identity of φ are the sketch: rows and sketches are added in any order, and the bins can be permuted for a test.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key

from mmd_jax.two_sample import kernels
from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_bins, check_knobs, check_reach, count_splits, number_groups
from mmd_jax.two_sample.pooled import (
    Numbers,
    Pooled,
    all_finite,
    check_bandwidth,
    check_rows,
    is_traced,
    padded_size,
    pool,
)
from mmd_jax.two_sample.resampling import bin_permutations, into_bins
from mmd_jax.two_sample.significance import decide
from mmd_jax.types import TwoSampleResult

# Degrees of freedom of the spectral distribution: a multivariate t for the Matérn kernels (laplace_l2 is Matérn ½).
DEGREES_OF_FREEDOM = {"laplace_l2": 1, "matern12": 1, "matern32": 3, "matern52": 5}
KERNELS = ("gaussian", "laplace_l1", *DEGREES_OF_FREEDOM)
# Rows at a time whose features stay in the processor's cache; and that travel to the device together.
BLOCK_ROWS = 512
CHUNK_ROWS = 1 << 16
# Bins of both samples together that a test on rows in memory permutes.
LARGEST_BINS = 256
# Changes when equal identities would no longer mean equal features.
VERSION = 1


class FeatureMap(NamedTuple):
    """Random Fourier features of one kernel.

    Attributes:
      frequencies: drawn from the kernel's spectral distribution, in 1 / units of the rows. Shape [d, r/2], float32.
    """

    frequencies: Array


@jax.tree_util.register_static
class Identity(NamedTuple):
    """What two sketches must share to be added or compared: plain values, static under `jax.jit`.

    Attributes:
      seed: the data of the key that the frequencies were drawn from.
      generator: name of that key's generator.
      kernel: one of `KERNELS`.
      bandwidth: σ, in the units of the rows.
      d: features of a row.
      num_features: r.
      bins: s.
      preprocessing: the caller's name for what was done to the rows before.
      version: of the way that rows become sums.
      probe: a few of the frequencies; another version of jax might draw others from the same key.
    """

    seed: tuple[int, ...]
    generator: str
    kernel: str
    bandwidth: float
    d: int
    num_features: int
    bins: int
    preprocessing: str
    version: int
    probe: tuple[float, ...]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that differ where identities do (the probe aside, which rounding may move)."""
        return hashlib.sha256(json.dumps(self[:-1]).encode()).hexdigest()[:12]


class Sketch(NamedTuple):
    """Sums of features over the rows seen so far, in bins. Add rows with `accumulate`, other sketches with `merge`.

    Attributes:
      identity: of the feature map, the bins and the preprocessing.
      frequencies: shape [d, r/2], float32.
      sums: of the features of the rows of each bin. Shape [s, r], float32.
      excess: what rounding added to `sums` too much (Kahan's compensation). Shape [s, r], float32.
      counts: rows in each bin. Shape [s], int32.
    """

    identity: Identity
    frequencies: Array
    sums: Array
    excess: Array
    counts: Array


def feature_map(
    key: Key[Array, ""], d: int, num_features: int, *, bandwidth: Numbers, kernel: str = "gaussian"
) -> FeatureMap:
    """Draw the frequencies of random Fourier features.

        gaussian     exp(−‖δ‖² / 2σ²)                      w ~ N(0, I / σ²)
        laplace_l1   exp(−‖δ‖₁ / σ)                        w_j ~ Cauchy(0, 1 / σ)
        laplace_l2   exp(−‖δ‖ / σ), also called matern12   w ~ t₁(0, I / σ²), multivariate
        matern32     (1 + √3 ‖δ‖/σ) exp(−√3 ‖δ‖/σ)         w ~ t₃(0, I / σ²)
        matern52     (1 + √5 ‖δ‖/σ + 5‖δ‖²/3σ²) exp(…)     w ~ t₅(0, I / σ²)

    The error of φ(a)ᵀφ(b) has mean 0 and a standard deviation of at most 1 / √r.

    Args:
      key: consumed.
      d: features of a row.
      num_features: r, even.
      bandwidth: σ, one positive number.
      kernel: a name from the list.

    Returns:
      The map, for `embed`.

    Raises:
      ValueError: an unknown kernel; d < 1; r odd or < 2; a bandwidth that is not one positive number.
      TypeError: a key that is not a typed `jax.random.key`; d or r that is not a plain integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> map_ = feature_map(jax.random.key(0), 3, 4096, bandwidth=1.0)
      >>> phi = embed(map_, jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
      >>> bool(abs(phi[0] @ phi[1] - jnp.exp(-0.5)) < 0.05)
      True

    Reference: Rahimi and Recht, Random features for large-scale kernel machines, NIPS 2007.
    """
    _check_key(key)
    _check_integer("d", d)
    if d < 1:
        raise ValueError(f"d is {d}; expected at least one feature.")
    _check_kernel(kernel, num_features)
    bandwidth = _one_bandwidth(check_bandwidth(bandwidth, np.float32))
    return FeatureMap(_draw_frequencies(key, d, num_features // 2, kernel, bandwidth))


def _check_kernel(kernel: Any, num_features: Any) -> None:
    _check_integer("num_features", num_features)
    if num_features < 2 or num_features % 2:
        raise ValueError(f"num_features is {num_features}; expected an even number, since each frequency has two.")
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}; random features are known for {', '.join(KERNELS)}.")


def _one_bandwidth(bandwidth: Any) -> Any:
    if bandwidth.shape != (1,):
        raise ValueError(f"bandwidth has {bandwidth.shape[0]} numbers; random features belong to one bandwidth.")
    return bandwidth[0]


@partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_frequencies(key: Array, d: int, half: int, kernel: str, bandwidth: ArrayLike) -> Array:
    # float32 also under x64, where the generator would draw other numbers and no sketch would fit another.
    if kernel == "laplace_l1":
        unit = jax.random.cauchy(key, (d, half), jnp.float32)
    else:
        normal_key, divisor_key = jax.random.split(key)
        unit = jax.random.normal(normal_key, (d, half), jnp.float32)
        if kernel in DEGREES_OF_FREEDOM:
            dof = DEGREES_OF_FREEDOM[kernel]
            chi2 = jnp.sum(jax.random.normal(divisor_key, (dof, half), jnp.float32) ** 2, axis=0)
            # Not below rounding: an infinite frequency has no cosine.
            unit = unit / jnp.sqrt(jnp.maximum(chi2 / dof, 1e-12))[None, :]
    return unit / jnp.asarray(bandwidth, jnp.float32)


def embed(feature_map: FeatureMap, rows: Float[Array, "N d"]) -> Float[Array, "N r"]:
    """Random features of rows: φ of each. Shape [N, r], float32, rows of length 1; differentiable."""
    return _features(feature_map.frequencies, jnp.asarray(rows))


def _features(frequencies: Float[Array, "d h"], rows: Float[Array, "t d"]) -> Float[Array, "t r"]:
    # HIGHEST: TF32 has ten bits of mantissa, and the phase can be large.
    phase = jnp.dot(rows.astype(jnp.float32), frequencies, precision=lax.Precision.HIGHEST)
    return jnp.concatenate(_cos_sin(phase), axis=1) / math.sqrt(frequencies.shape[1])


def _cos_sin(phase: Float[Array, "t h"]) -> tuple[Float[Array, "t h"], Float[Array, "t h"]]:
    """Both from one reduction to a half turn and two short series: six times as fast as the library's on a CPU."""
    half_turns = phase * (1 / math.pi)
    nearest = jnp.round(half_turns)
    a = (half_turns - nearest) * math.pi
    square = a * a
    sine = a * _series(square, 1)
    cosine = _series(square, 0)
    sign = 1 - 2 * (nearest - 2 * jnp.floor(nearest / 2))
    return sign * cosine, sign * sine


def _series(square: Array, first: int) -> Array:
    """Taylor's series of cos a (first = 0) or of sin(a) / a (first = 1) in a², for |a| <= π/2: errors below 1e-7."""
    total = jnp.zeros_like(square)
    for power in range(7, -1, -1):
        total = total * square + (-1) ** power / math.factorial(2 * power + first)
    return total


def new_sketch(
    key: Key[Array, ""],
    d: int,
    *,
    bandwidth: Numbers,
    num_features: int = 1024,
    bins: int = 128,
    kernel: str = "gaussian",
    preprocessing: str = "",
) -> Sketch:
    """An empty sketch. Sketches that are to be merged or compared are made from the same arguments, the same key too.

    Args:
      key: of the frequencies, consumed; concrete, since it is part of the identity.
      d: features of a row.
      bandwidth: σ, one positive number, chosen before the rows are seen (from a pilot of both samples, say).
      num_features: r, even.
      bins: s. A test permutes 2s of them; each should get many rows.
      kernel: a name, see `feature_map`.
      preprocessing: a name for what was done to the rows before; sketches of other preprocessing are refused.

    Returns:
      A sketch of no rows; it takes 8·s·r bytes and those of the frequencies.

    Raises:
      ValueError: fewer than 2 bins; a traced key or bandwidth; or as `feature_map`.
      TypeError: as `feature_map`.

    Example:
      >>> import jax
      >>> new_sketch(jax.random.key(0), 3, bandwidth=1.0).sums.shape
      (128, 1024)
    """
    _check_integer("bins", bins)
    if bins < 2:
        raise ValueError(f"bins is {bins}; expected at least 2: a test permutes them.")
    if is_traced(key, bandwidth):
        raise ValueError("key and bandwidth are part of a sketch's identity; make it outside of jit, vmap and grad.")
    if not isinstance(preprocessing, str):
        raise TypeError(f"preprocessing is {type(preprocessing).__name__}; expected a name, a str.")
    frequencies = feature_map(key, d, num_features, bandwidth=bandwidth, kernel=kernel).frequencies
    identity = Identity(
        seed=tuple(int(word) for word in np.ravel(jax.random.key_data(key))),
        generator=str(jax.random.key_impl(key)),
        kernel=kernel,
        bandwidth=float(np.float32(np.ravel(bandwidth)[0])),
        d=int(d),
        num_features=int(num_features),
        bins=int(bins),
        preprocessing=preprocessing,
        version=VERSION,
        probe=_probe(frequencies),
    )
    return Sketch(identity, frequencies, *_nothing(bins, num_features))


def _probe(frequencies: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in np.ravel(np.asarray(frequencies))[:4])


def _nothing(bins: int, num_features: int) -> tuple[Array, Array, Array]:
    zeros = jnp.zeros((bins, num_features), jnp.float32)
    return zeros, zeros, jnp.zeros(bins, jnp.int32)


def accumulate(key: Key[Array, ""], sketch: Sketch, rows: Numbers, *, evenly: bool = False) -> Sketch:
    """Add rows to a sketch: each goes to a random bin, so it does not matter in which order rows come.

    New numbers of rows compile nothing, but for each power of two once.

    Args:
      key: of the bins, consumed; another one for each call.
      sketch: unchanged.
      rows: shape [N, d], N >= 0. In float32 their phases lose what they have in common: centre them near 0.
      evenly: deal the rows of this call out so that the bins hold equal counts, or nearly; which row goes where stays
        random. Then `sketch_test` can be exact; but only where a call holds the whole sample, or where rows come in
        random order. If they come sorted by class, the bins would be more alike than the samples are.

    Returns:
      The sketch of all rows.

    Raises:
      ValueError: rows that are not a matrix of finite numbers with d features.
      TypeError: a key that is not a typed key; entries that are not real numbers.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> sketch = new_sketch(keys[0], 3, bandwidth=1.0)
      >>> sketch = accumulate(keys[1], sketch, jax.random.normal(keys[2], (1000, 3)))
      >>> int(sketch.counts.sum())
      1000
    """
    _check_key(key)
    rows = _check_chunk(rows, sketch.frequencies.shape[0])
    count = rows.shape[0]
    if count == 0:
        return sketch
    traced = is_traced(key, rows, *sketch[2:])
    start = jnp.argmin(sketch.counts) if evenly else 0
    capacity = count if traced else padded_size(count)
    num_bins = sketch.counts.shape[0]
    bins = _draw_bins(key, count, start, capacity=capacity, num_bins=num_bins, evenly=evenly)
    sums = sketch[2:]
    if traced:
        return Sketch(*sketch[:2], *_add(sketch.frequencies, sums, jnp.asarray(rows), bins))
    of_row = np.asarray(bins)
    for first in range(0, count, CHUNK_ROWS):
        here = slice(first, min(first + CHUNK_ROWS, count))
        size = padded_size(here.stop - first)
        # In numpy: an eager jnp.pad would compile once for every size.
        chunk, chunk_bins = np.zeros((size, rows.shape[1]), np.float32), np.full(size, num_bins, np.int32)
        chunk[: here.stop - first], chunk_bins[: here.stop - first] = rows[here], of_row[here]
        sums = _add(sketch.frequencies, sums, chunk, chunk_bins)
    return Sketch(*sketch[:2], *sums)


def _check_chunk(rows: Any, d: int) -> Any:
    if not is_traced(rows):
        rows = np.asarray(rows)
        if rows.ndim == 2 and len(rows) == 1:
            check_rows("rows", np.repeat(rows, 2, axis=0))  # which wants two
    if rows.ndim != 2 or len(rows) > 1:
        rows = check_rows("rows", rows)
    if rows.shape[1] != d:
        raise ValueError(f"rows has {rows.shape[1]} features; this sketch is of rows with {d}.")
    return rows


@partial(jax.jit, static_argnames=("capacity", "num_bins", "evenly"))
def _draw_bins(key: Array, count: Any, start: Any, *, capacity: int, num_bins: int, evenly: bool) -> Array:
    """The bin of each row, shape [capacity]; that of padding is `num_bins`, which there isn't."""
    index = jnp.arange(capacity, dtype=jnp.int32)
    if evenly:
        bits = jax.random.bits(key, (capacity,), jnp.uint32)
        _, _, order = lax.sort(((index >= count).astype(jnp.int32), bits, index), num_keys=2)
        bins = jnp.zeros(capacity, jnp.int32).at[order].set((start + index) % num_bins)
    else:
        bins = jax.random.randint(key, (capacity,), 0, num_bins, jnp.int32)
    return jnp.where(index < count, bins, num_bins)


@jax.jit
def _add(frequencies: Array, sums: tuple[Array, Array, Array], rows: Array, bins: Array) -> tuple[Array, Array, Array]:
    num_bins = sums[2].shape[0]
    block = min(BLOCK_ROWS, rows.shape[0])
    spare = -rows.shape[0] % block
    rows = jnp.pad(rows, ((0, spare), (0, 0))).reshape(-1, block, rows.shape[1])
    bins = jnp.pad(bins, (0, spare), constant_values=num_bins).reshape(-1, block)

    def add(state: tuple[Array, Array, Array], chunk: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        total, excess, counts = state
        rows, bins = chunk
        # Padding has a bin out of range, which is dropped.
        term = jax.ops.segment_sum(_features(frequencies, rows), bins, num_bins) - excess
        new = total + term
        counts = counts + jax.ops.segment_sum(jnp.ones_like(bins), bins, num_bins)
        return (new, (new - total) - term, counts), None

    return lax.scan(add, sums, (rows, bins))[0]


def merge(a: Sketch, b: Sketch) -> Sketch:
    """The sketch of the rows of both: bin by bin, so commutative, and associative but for rounding.

    Args:
      a: a sketch.
      b: another of the same identity, of other rows.

    Returns:
      Their sum.

    Raises:
      ValueError: identities that differ; it names what differs.

    Reference: Agarwal et al., Mergeable summaries, PODS 2012.
    """
    _check_same(a, b)
    total = a.sums + b.sums
    # Knuth's two-sum: the rounding error of the sum, exactly.
    part = total - a.sums
    lost = (a.sums - (total - part)) + (b.sums - part)
    return Sketch(a.identity, a.frequencies, total, a.excess + b.excess - lost, a.counts + b.counts)


def _check_same(a: Sketch, b: Sketch) -> None:
    mine, other = a.identity, b.identity
    differ = [name for name in Identity._fields[:-1] if getattr(mine, name) != getattr(other, name)]
    if not differ and not np.allclose(mine.probe, other.probe, rtol=1e-3, atol=0):
        differ = ["probe"]
    if differ:
        raise ValueError(
            "the sketches were not made alike: "
            + "; ".join(f"{name} is {getattr(mine, name)!r} and {getattr(other, name)!r}" for name in differ)
            + ". Their sums can't be added or compared; sketch the rows again from the same arguments of new_sketch."
        )


def to_arrays(sketch: Sketch) -> dict[str, np.ndarray]:
    """A sketch as plain arrays, to be saved by `numpy.savez`; the identity is JSON, the frequencies are left out."""
    identity = np.array(json.dumps(sketch.identity._asdict()))
    return {"identity": identity, **{name: np.asarray(getattr(sketch, name)) for name in ("sums", "excess", "counts")}}


def from_arrays(arrays: Mapping[str, Any]) -> Sketch:
    """The sketch that `to_arrays` took apart; the frequencies are drawn again from the seed.

    Args:
      arrays: "identity", "sums", "excess" and "counts", for instance from `numpy.load(file, allow_pickle=False)`.

    Returns:
      The sketch.

    Raises:
      ValueError: arrays missing or not as an identity says; an identity that this version can't repeat.
    """
    missing = [name for name in ("identity", "sums", "excess", "counts") if name not in arrays]
    if missing:
        raise ValueError(f"a sketch has the arrays identity, sums, excess and counts; missing: {', '.join(missing)}.")
    identity = _read_identity(arrays["identity"])
    shape = (identity.bins, identity.num_features)
    found = {name: np.asarray(arrays[name]) for name in ("sums", "excess", "counts")}
    for name, expected, kind in (("sums", shape, "f"), ("excess", shape, "f"), ("counts", shape[:1], "i")):
        array = found[name]
        if array.shape != expected or array.dtype.kind != kind or not np.isfinite(array).all():
            raise ValueError(
                f"{name} has shape {array.shape} and type {array.dtype}; the sketch's identity asks for finite numbers "
                f"of shape {expected} and kind {kind!r}."
            )
    counts = found["counts"]
    # No entry of φ is larger than √(2/r).
    largest = 1.001 * np.sqrt(2 / identity.num_features) * np.maximum(counts, 0)[:, None]
    if (counts < 0).any() or (np.abs(found["sums"]) > largest).any():
        raise ValueError("the sums of the sketch are larger than its counts allow; it is not what to_arrays gave.")
    key = jax.random.wrap_key_data(np.array(identity.seed, np.uint32), impl=identity.generator)
    sketch = new_sketch(
        key, identity.d, bandwidth=identity.bandwidth, num_features=identity.num_features, bins=identity.bins,
        kernel=identity.kernel, preprocessing=identity.preprocessing,
    )  # fmt: skip
    sums, excess = (jnp.asarray(found[name], jnp.float32) for name in ("sums", "excess"))
    loaded = Sketch(identity, sketch.frequencies, sums, excess, jnp.asarray(counts, jnp.int32))
    _check_same(loaded, sketch)
    return loaded


def _read_identity(text: Any) -> Identity:
    try:
        fields = json.loads(str(np.asarray(text)[()]))
        fields = {**fields, "seed": tuple(fields["seed"]), "probe": tuple(fields["probe"])}
        identity = Identity(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the identity of the sketch can't be read: {error!r}") from error
    template = Identity((0,), "", "", 0.0, 0, 0, 0, "", 0, (0.0,))
    for name, value, like in zip(Identity._fields, identity, template):
        items, kind = (value, type(like[0])) if isinstance(like, tuple) else ((value,), type(like))
        if not all(type(item) is kind for item in items):
            raise ValueError(f"the identity of the sketch has {name} = {value!r}; expected {kind.__name__}.")
    if identity.version != VERSION:
        raise ValueError(f"the sketch is of version {identity.version}; this library reads version {VERSION}.")
    return identity


def sketch_mmd2(a: Sketch, b: Sketch) -> Float[Array, ""]:
    """Unbiased estimate of MMD² between the rows of two sketches, for the kernel of their features.

        MMD²ᵤ = ‖x̄ − ȳ‖² − (1 − ‖x̄‖²) / (m − 1) − (1 − ‖ȳ‖²) / (n − 1),   x̄ = mean φ(x_i), ȳ = mean φ(y_j)

    It is `mmd2_unbiased` with k̂(a, b) = φ(a)ᵀφ(b) for k; over draws of the frequencies its mean is that with k itself.

    Args:
      a: sketch of x, of at least two rows.
      b: sketch of y.

    Returns:
      MMD²ᵤ, in squared kernel units. Shape [].

    Raises:
      ValueError: sketches that differ in identity, or of fewer than two rows.
    """
    _check_same(a, b)
    _check_counts(a, b, 2)
    return _estimates(a[2:], b[2:])[0]


def _check_counts(a: Sketch, b: Sketch, least: int) -> None:
    for name, sketch in (("first", a), ("second", b)):
        if not is_traced(sketch.counts) and (rows := int(np.asarray(sketch.counts, np.int64).sum())) < least:
            raise ValueError(f"the {name} sketch is of {rows} rows; expected at least {least}.")


@jax.jit
def _estimates(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """MMD²ᵤ and MMD_b."""
    (x, m), (y, n) = _mean(*a), _mean(*b)
    squared = jnp.sum((x - y) ** 2)
    bias = (1 - jnp.sum(x * x)) / (m - 1) + (1 - jnp.sum(y * y)) / (n - 1)
    return squared - bias, kernels.safe_root(squared)


def _mean(sums: Array, excess: Array, counts: Array) -> tuple[Array, Array]:
    size = jnp.sum(counts.astype(jnp.float32))
    return (jnp.sum(sums, axis=0) - jnp.sum(excess, axis=0)) / size, size


def sketch_test(
    key: Key[Array, ""],
    a: Sketch,
    b: Sketch,
    *,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q from two sketches alone, by permuting their bins.

        T(S) = ‖mean_{b in S} z_b − mean_{b not in S} z_b‖²,   z_b = (s/m) Σ_{i in bin b} (φ(x_i) − pooled mean), likewise y

    over random sets S of half of the 2s bins. T of the observed split is ‖x̄ − ȳ‖²; less the bias of that, which is the
    same for all splits, it is `sketch_mmd2`.

    Where the counts of the bins of a are those of b in some order (m = n, both accumulated `evenly`), bins of equal
    counts are permuted among each other and the level is floor(alpha (B + 1)) / (B + 1) exactly. Otherwise all bins are,
    and it is approximate: each z_b has mean 0 under P = Q whatever its count, and the two sides have the right variance
    for any m and n, but bins of unequal counts are not quite exchangeable.

    Args:
      key: consumed.
      a: sketch of x; at least as many rows as bins.
      b: sketch of y.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`; the statistic is `sketch_mmd2`.

    Raises:
      ValueError: sketches that differ in identity; fewer rows than bins; too few bins to reject at alpha; alpha outside
        (0, 1) or below 1 / (B + 1); B < 1.
      TypeError: a key that is not a typed key; B that is not a plain integer.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 6)
      >>> empty = new_sketch(keys[0], 2, bandwidth=1.0, num_features=256)
      >>> a = accumulate(keys[1], empty, jax.random.normal(keys[2], (5000, 2)))
      >>> b = accumulate(keys[3], empty, jax.random.normal(keys[4], (3000, 2)) + 0.2)
      >>> bool(sketch_test(keys[5], a, b).reject)
      True

    Reference: Domingo-Enrich et al., Cheap permutation testing, arXiv:2502.07672; Zhao and Meng, FastMMD, Neural
    Computation 2015.
    """
    check_knobs(key, alpha, num_permutations)
    _check_same(a, b)
    bins = a.counts.shape[0]
    _check_counts(a, b, bins)
    check_reach(f"{bins} bins in each sketch can be split", count_splits(bins, bins), alpha, "bins")
    return _test_bins(key, a[2:], b[2:], alpha, a.identity.bandwidth, num=num_permutations, return_null=return_null)


@partial(jax.jit, static_argnames=("num", "return_null"))
def _test_bins(
    key: Array, a: Any, b: Any, alpha: ArrayLike, bandwidth: ArrayLike, *, num: int, return_null: bool
) -> TwoSampleResult:
    counts = jnp.stack([a[2], b[2]])
    z = _influences(a, b)
    signs = _signs(key, num, counts)
    sums = jnp.dot(signs, z, precision=lax.Precision.HIGHEST) / counts.shape[1]
    squares = _make_ties_equal(jnp.sum(sums * sums, axis=1))
    statistic, biased = _estimates(a, b)
    # The bias is that of the observed split for all, so the order stays.
    return _conclude(squares - squares[0] + statistic, biased, alpha, bandwidth, jnp.array(True), return_null)


def _influences(a: Any, b: Any) -> Float[Array, "S r"]:
    """z_b of all bins, first those of a."""
    (x, m), (y, n) = _mean(*a), _mean(*b)
    pooled = (m * x + n * y) / (m + n)

    def centred(sums: Array, excess: Array, counts: Array, size: Array) -> Array:
        counts = counts.astype(jnp.float32)[:, None]
        values = (sums - counts * pooled[None, :]) - excess
        return _without_rounding(values, counts[:, 0]) * (counts.shape[0] / size)

    return jnp.concatenate([centred(*a, m), centred(*b, n)])


def _without_rounding(centred: Float[Array, "s r"], sizes: Float[Array, " s"]) -> Float[Array, "s r"]:
    """What is left of sums of equal numbers is rounding: of constant rows, all splits must tie."""
    rounding = 16 * jnp.finfo(centred.dtype).eps * math.sqrt(2 / centred.shape[1]) * sizes
    return jnp.where(jnp.abs(centred) > rounding[:, None], centred, 0)


def _signs(key: Array, num: int, counts: Int[Array, "2 s"]) -> Float[Array, "C S"]:
    """+1 for the bins of X and −1 for those of Y: the observed split, then B random ones."""
    alike = jnp.all(jnp.sort(counts[0]) == jnp.sort(counts[1]))
    stratum = jnp.where(alike, counts, 0).ravel()
    observed = jnp.repeat(jnp.array([1, -1], jnp.int32), counts.shape[1], total_repeat_length=stratum.size)
    in_order = lax.sort((stratum, observed), num_keys=1)[1]  # stable
    bits = jax.random.bits(key, (num, stratum.size), jnp.uint32)
    index = jnp.arange(stratum.size, dtype=jnp.int32)
    strata, indices = (jnp.broadcast_to(value, bits.shape) for value in (stratum, index))
    order = lax.sort((strata, bits, indices), num_keys=2)[2]
    permuted = jax.vmap(lambda order: jnp.zeros_like(observed).at[order].set(in_order))(order)
    return jnp.concatenate([observed[None], permuted]).astype(jnp.float32)


def _make_ties_equal(values: Float[Array, " C"]) -> Float[Array, " C"]:
    """Splits that tie are summed in another order: close is equal, but never so coarsely that other values are."""
    rounding = 64 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    rounding = jnp.minimum(rounding, 1e-3 * jnp.std(values))
    return jnp.where(jnp.abs(values - values[0]) <= rounding, values[0], values)


def _conclude(
    statistics: Float[Array, " C"], biased: Array, alpha: ArrayLike, bandwidth: Any, good: Array, return_null: bool
) -> TwoSampleResult:
    good = good & jnp.all(jnp.isfinite(statistics)) & (jnp.asarray(alpha) > 0) & (jnp.asarray(alpha) < 1)
    return decide(statistics, alpha, good)._replace(
        mmd_biased=jnp.where(good, biased, jnp.nan),
        bandwidth=jnp.asarray(bandwidth, statistics.dtype).reshape(1),
        null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None,
    )


def random_feature_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    num_features: int = 1024,
    bins: int | None = None,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
    kernel: str = "gaussian",
    return_null: bool = False,
) -> TwoSampleResult:
    """Test P = Q in time (m + n) d r, by random features and permutations of bins of rows.

        T(S) = MMD²ᵤ of the split S for the kernel φ(a)ᵀφ(b)

    The rows of each sample go at random into bins of equal size, and whole bins change sides; what is left over stays on
    its side. So the level is floor(alpha (B + 1)) / (B + 1) exactly, for any m, n and whatever the features, and the
    number of permutations costs next to nothing. Few features cost power, not validity.

    Args:
      key: of frequencies, bins and permutations, consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: σ, one positive number; none: `median_bandwidth` of the pooled rows.
      alpha: level, in (0, 1), at least 1 / (B + 1).
      num_permutations: B.
      num_features: r, even.
      bins: of both samples together; none: 256, or the largest power of two that m + n holds.
      groups_x: where rows depend on each other, the group of each, shape [m]; bins then hold whole groups.
      groups_y: the same for y.
      kernel: a name, see `feature_map`.
      return_null: whether to return the B resampled statistics.

    Returns:
      `TwoSampleResult`.

    Raises:
      ValueError, TypeError: as `permutation_test` and `feature_map`.

    Example:
      >>> import jax
      >>> x_key, y_key, test_key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (5000, 2)), 0.2 + jax.random.normal(y_key, (3000, 2))
      >>> bool(random_feature_test(test_key, x, y).reject)
      True

    Reference: Zhao and Meng, FastMMD, Neural Computation 2015; Domingo-Enrich et al., Cheap permutation testing,
    arXiv:2502.07672.
    """
    if (groups_x is None) != (groups_y is None):
        missing = "groups_y" if groups_y is None else "groups_x"
        raise ValueError(f"{missing} is missing; give the groups of both samples, or of neither.")
    check_knobs(key, alpha, num_permutations)
    traced = is_traced(key, x, y, bandwidth, alpha, groups_x, groups_y)
    pooled = pool(x, y, pad=not traced)
    groups, units = None, (pooled.m, pooled.n)
    if groups_x is not None:
        groups, found = number_groups(groups_x, groups_y, pooled, alpha)
        units = found or units
    if bins is None:
        bins = min(LARGEST_BINS, 1 << (sum(units).bit_length() - 1))
    check_bins(bins, *units, "rows" if groups is None else "groups", alpha)
    _check_kernel(kernel, num_features)
    bandwidth = _one_bandwidth(resolve_bandwidth(bandwidth, pooled, getattr(kernels, kernel)))
    return _test_rows(
        key, pooled, groups, alpha, bandwidth,
        num=num_permutations, half=num_features // 2, bins=bins, kernel=kernel, return_null=return_null,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("num", "half", "bins", "kernel", "return_null"))
def _test_rows(
    key: Array,
    pooled: Pooled,
    groups: Array | None,
    alpha: ArrayLike,
    bandwidth: ArrayLike,
    *,
    num: int,
    half: int,
    bins: int,
    kernel: str,
    return_null: bool,
) -> TwoSampleResult:
    map_key, bin_key, split_key = jax.random.split(key, 3)
    rows = jnp.asarray(pooled.blocks).reshape(pooled.capacity, -1)
    rows = rows - jnp.sum(rows, axis=0, keepdims=True) / pooled.count
    binned = into_bins(bin_key, bins, pooled, groups)
    frequencies = _draw_frequencies(map_key, rows.shape[1], half, kernel, bandwidth)
    sums, excess, counts = _add(frequencies, _nothing(bins + 2, 2 * half), rows[binned.order], binned.bins)
    in_x = bin_permutations(split_key, num, binned).T.astype(sums.dtype)
    sizes = counts.astype(sums.dtype)
    m, n = jnp.dot(in_x, sizes), jnp.dot(1 - in_x, sizes)
    # About the pooled mean, where less cancels.
    mean = (jnp.sum(sums, axis=0) - jnp.sum(excess, axis=0)) / jnp.sum(sizes)
    centred = _without_rounding(sums - sizes[:, None] * mean[None, :] - excess, sizes)
    x = jnp.dot(in_x, centred, precision=lax.Precision.HIGHEST) / m[:, None]
    y = jnp.dot(1 - in_x, centred, precision=lax.Precision.HIGHEST) / n[:, None]
    squares = jnp.sum((x - y) ** 2, axis=1)
    lengths = [jnp.sum((side + mean[None, :]) ** 2, axis=1) for side in (x, y)]
    statistics = squares - (1 - lengths[0]) / (m - 1) - (1 - lengths[1]) / (n - 1)
    good = all_finite(pooled.blocks)
    return _conclude(_make_ties_equal(statistics), jnp.sqrt(squares[0]), alpha, bandwidth, good, return_null)


def _check_key(key: Any) -> None:
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key is {type(key).__name__}; expected a typed key, as jax.random.key(seed) makes it.")
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}; expected one key. For many tests, use jax.vmap over the keys.")


def _check_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; expected a plain integer, since it is a shape.")
