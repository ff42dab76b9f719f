"""Sketches of unbounded data: sums of random features in bins, of which MMD and a test can be had at any time.

The sums, the counts and the identity of the features are the sketch. Rows are added as they come, sketches of other rows
in any order; memory does not grow.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Key

from mmd_jax.two_sample.checks import check_knobs
from mmd_jax.two_sample.kernels import safe_root
from mmd_jax.two_sample.pooled import Numbers, check_rows, is_traced, padded_size
from mmd_jax.two_sample.random_features import add_to_bins, check_integer, empty_bins, feature_map

# Rows that travel to the device together.
CHUNK_ROWS = 1 << 16
# A file may not ask for more numbers in the frequencies than this.
LARGEST_MAP = 1 << 31
# Changes when equal identities would no longer mean equal features.
VERSION = 1


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
    check_integer("bins", bins)
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
    return Sketch(identity, frequencies, *empty_bins(bins, num_features))


def _probe(frequencies: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in np.ravel(np.asarray(frequencies))[:4])


def accumulate(
    key: Key[Array, ""], sketch: Sketch, rows: Numbers, *, evenly: bool = False, bins: Numbers | None = None
) -> Sketch:
    """Add rows to a sketch: each goes to a random bin, so it does not matter in which order rows come.

    New numbers of rows compile nothing, but for each power of two once.

    Args:
      key: of the bins, consumed; another one for each call.
      sketch: unchanged.
      rows: shape [N, d], N >= 0. In float32 their phases lose what they have in common: centre them near 0.
      evenly: deal the rows of this call out so that the bins hold equal counts, or nearly; which row goes where stays
        random. Then `sketch_test` can be exact; but only where a call holds the whole sample, or where rows come in
        random order. If they come sorted by class, the bins would be more alike than the samples are.
      bins: the bin of each row, 0 … s − 1, shape [N], where rows depend on each other and whole groups are to share one: by a
        hash of the group, say, that knows nothing of the rows. None: as above.

    Returns:
      The sketch of all rows.

    Raises:
      ValueError: rows that are not a matrix of finite numbers with d features; bins that are not one a row, in 0 … s − 1, or
        given with `evenly`.
      TypeError: a key that is not a typed key; entries that are not real numbers.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> sketch = new_sketch(keys[0], 3, bandwidth=1.0)
      >>> sketch = accumulate(keys[1], sketch, jax.random.normal(keys[2], (1000, 3)))
      >>> int(sketch.counts.sum())
      1000
    """
    check_knobs(key, 0.5, 1)
    checked = _check_chunk(rows, sketch.frequencies.shape[0])
    count = checked.shape[0]
    if count == 0:
        return sketch
    traced = is_traced(key, checked, *sketch[2:])
    start = jnp.argmin(sketch.counts).astype(jnp.int32) if evenly else 0
    capacity = count if traced else padded_size(count)
    num_bins = sketch.counts.shape[0]
    if bins is None:
        bins = _draw_bins(key, count, start, capacity=capacity, num_bins=num_bins, evenly=evenly)
    else:
        _check_given_bins(bins, count, num_bins, evenly)
    sums = sketch[2:]
    if traced:
        return Sketch(*sketch[:2], *add_to_bins(sketch.frequencies, sums, jnp.asarray(checked), jnp.asarray(bins)))
    of_row = np.asarray(bins)
    for first in range(0, count, CHUNK_ROWS):
        here = slice(first, min(first + CHUNK_ROWS, count))
        size = padded_size(here.stop - first)
        # In numpy: an eager jnp.pad would compile once for every size.
        chunk, chunk_bins = np.zeros((size, checked.shape[1]), np.float32), np.full(size, num_bins, np.int32)
        chunk[: here.stop - first], chunk_bins[: here.stop - first] = checked[here], of_row[here]
        sums = add_to_bins(sketch.frequencies, sums, chunk, chunk_bins)
    return Sketch(*sketch[:2], *sums)


def _check_given_bins(bins: Any, count: int, num_bins: int, evenly: bool) -> None:
    if evenly:
        raise ValueError("bins are given and evenly is set; give one.")
    if np.shape(bins) != (count,) or is_traced(bins):
        raise ValueError(f"bins has shape {np.shape(bins)}; expected a bin for each of the {count} rows, not traced.")
    if not np.issubdtype(np.asarray(bins).dtype, np.integer) or np.min(bins) < 0 or np.max(bins) >= num_bins:
        raise ValueError(f"bins run from {np.min(bins)} to {np.max(bins)}; expected whole numbers 0 … {num_bins - 1}.")


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
    check_same(a, b)
    total = a.sums + b.sums
    # Knuth's two-sum: the rounding error of the sum, exactly.
    part = total - a.sums
    lost = (a.sums - (total - part)) + (b.sums - part)
    return Sketch(a.identity, a.frequencies, total, a.excess + b.excess - lost, a.counts + b.counts)


def check_same(a: Sketch, b: Sketch) -> None:
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
    try:
        key = jax.random.wrap_key_data(jnp.asarray(identity.seed, jnp.uint32), impl=identity.generator)
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"this jax has no generator {identity.generator!r} of such seeds: {error}") from error
    sketch = new_sketch(
        key, identity.d, bandwidth=identity.bandwidth, num_features=identity.num_features, bins=identity.bins,
        kernel=identity.kernel, preprocessing=identity.preprocessing,
    )  # fmt: skip
    sums, excess = (jnp.asarray(found[name], jnp.float32) for name in ("sums", "excess"))
    loaded = Sketch(identity, sketch.frequencies, sums, excess, jnp.asarray(counts, jnp.int32))
    check_same(loaded, sketch)
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
        items: Any = value if isinstance(like, tuple) else (value,)
        kind = type(like[0] if isinstance(like, tuple) else like)
        if not all(type(item) is kind for item in items):
            raise ValueError(f"the identity of the sketch has {name} = {value!r}; expected {kind.__name__}.")
    if identity.d * identity.num_features > LARGEST_MAP:
        raise ValueError(f"the identity of the sketch asks for {identity.d} × {identity.num_features} features.")
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
    check_same(a, b)
    check_counts(a, b, 2)
    return estimates(a[2:], b[2:])[0]


def check_counts(a: Sketch, b: Sketch, least: int) -> None:
    for name, sketch in (("first", a), ("second", b)):
        if not is_traced(sketch.counts) and (rows := int(np.asarray(sketch.counts, np.int64).sum())) < least:
            raise ValueError(f"the {name} sketch is of {rows} rows; expected at least {least}.")


@jax.jit
def estimates(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """MMD²ᵤ and MMD_b."""
    (x, m), (y, n) = mean_of_bins(*a), mean_of_bins(*b)
    squared = jnp.sum((x - y) ** 2)
    bias = (1 - jnp.sum(x * x)) / (m - 1) + (1 - jnp.sum(y * y)) / (n - 1)
    return squared - bias, safe_root(squared)


def mean_of_bins(sums: Array, excess: Array, counts: Array) -> tuple[Array, Array]:
    size = jnp.sum(counts.astype(jnp.float32))
    return (jnp.sum(sums, axis=0) - jnp.sum(excess, axis=0)) / size, size
