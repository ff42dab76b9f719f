"""Kernels, for one pair of rows and for a tile of pairs, and the bandwidth that the pooled rows suggest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, UInt32

from mmd_jax.two_sample.pooled import Numbers, all_finite, check_bandwidth, check_rows, is_traced, stack, usable

# The median of ~half a million distances is as good a bandwidth as that of all, and costs less than the test.
MEDIAN_ROWS = 1024


class Kernel(NamedTuple):
    """A positive definite function of two rows. Make one from any two functions; hashable, so `jit` takes it as static.

    Attributes:
      pair: (a [d], b [d], bandwidth [k]) -> k(a, b), shape []: the definition.
      tile: (A [s, d], B [t, d], bandwidth [k]) -> all pairs, shape [s, t]: the same, fast.
      translation_invariant: whether k(a + c, b + c) = k(a, b); the rows are then centred, for accuracy.
    """

    pair: Callable[[Array, Array, Array], Array]
    tile: Callable[[Array, Array, Array], Array]
    translation_invariant: bool = False


def gaussian_pair(a: Float[Array, " d"], b: Float[Array, " d"], bandwidth: Float[Array, " k"]) -> Float[Array, ""]:
    """Gaussian kernel of two rows, summed over the bandwidths: Σ_σ exp(−‖a − b‖² / 2σ²)."""
    return jnp.sum(jnp.exp(-jnp.sum((a - b) ** 2) / (2 * bandwidth**2)))


def gaussian_tile(A: Float[Array, "s d"], B: Float[Array, "t d"], bandwidth: Float[Array, " k"]) -> Float[Array, "s t"]:
    """Gaussian kernel of all pairs of rows of A and B, summed over the bandwidths, which share the distances."""
    distances = squared_distances(A, B)
    rates = -0.5 / bandwidth**2
    # A Python sum, so that XLA makes one pass over the tile for all bandwidths.
    return sum((jnp.exp(distances * rates[i]) for i in range(1, bandwidth.shape[0])), jnp.exp(distances * rates[0]))


gaussian = Kernel(gaussian_pair, gaussian_tile, translation_invariant=True)


def squared_distances(A: Float[Array, "s d"], B: Float[Array, "t d"]) -> Float[Array, "s t"]:
    """‖a − b‖² of all pairs of rows, by one product. No root is taken, so the derivative is finite at a = b."""
    squares_a, squares_b = jnp.sum(A * A, axis=1), jnp.sum(B * B, axis=1)
    # HIGHEST: a GPU would otherwise multiply in TF32, ten bits of mantissa.
    product = jnp.dot(A, B.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum(squares_a[:, None] + squares_b[None, :] - 2 * product, 0)


class NoBandwidthError(ValueError):
    """The median distance of the pooled rows is 0, so no bandwidth can be taken from them."""


def median_bandwidth(pooled: Numbers) -> Float[Array, ""]:
    """Median of the distances between different rows of the pooled sample: the median heuristic.

        σ = median{‖z_i − z_j‖ : i ≠ j}

    Above 1,024 rows it is taken over 1,024 of them, which a hash of each row's contents chooses, and of how many equal
    rows there are before it. So it depends on the rows but neither on their order nor on which sample they came from,
    and a permutation test that uses it stays exact. It is a constant under differentiation.

    Args:
      pooled: both samples together, shape [N, d].

    Returns:
      σ, in the units of the rows. Shape []. NaN where it does not exist and the rows are traced.

    Raises:
      ValueError: bad rows (see `permutation_test`).
      NoBandwidthError: a median of 0 (half of the pairs or more coincide).

    Example:
      >>> import numpy as np
      >>> float(median_bandwidth(np.array([[0.0], [1.0], [3.0]])))  # distances 1, 2, 3
      2.0

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 8.
    """
    rows = check_rows("pooled", pooled)
    traced = is_traced(rows)
    return median_of_blocks(stack((rows,), pad=not traced), rows.shape[0])


def resolve_bandwidth(bandwidth: Numbers | None, blocks: Any, count: int) -> Any:
    """The bandwidths that were given, checked, else the median of the pooled rows. Shape [k]."""
    if bandwidth is None:
        return median_of_blocks(blocks, count).reshape(1)
    return check_bandwidth(bandwidth, blocks.dtype)


def median_of_blocks(blocks: Any, count: int) -> Array:
    """`median_bandwidth` of rows that are laid out already."""
    median = _median(blocks, count)
    if not is_traced(median) and not median > 0:
        raise NoBandwidthError(
            "the median distance of the pooled rows is 0, because at least half of the pairs of rows coincide (or are "
            "too close for their precision); there is no bandwidth to take from them. Pass bandwidth=, or use features "
            "that vary."
        )
    return median


@jax.jit
def _median(blocks: Float[Array, "b t d"], count: ArrayLike) -> Float[Array, ""]:
    rows = lax.stop_gradient(blocks).reshape(-1, blocks.shape[2])
    count = jnp.asarray(count, jnp.int32)
    finite = all_finite(blocks)
    valid = jnp.arange(rows.shape[0]) < count
    if rows.shape[0] > MEDIAN_ROWS:
        chosen = _choose(rows, valid)
        rows, valid = rows[chosen], valid[chosen]
        count = jnp.minimum(count, MEDIAN_ROWS)
    # Relative to a row, not to the mean: equal rows become exact zeros.
    rows = jnp.where(valid[:, None], rows - rows[:1], 0)
    squares = jnp.sum(rows * rows, axis=1)
    distances = squared_distances(rows, rows)
    # What is left of ‖a‖² + ‖b‖² − 2ab between equal rows is rounding, not distance.
    rounding = 16 * jnp.finfo(rows.dtype).eps * (squares[:, None] + squares[None, :])
    distances = jnp.where(distances > rounding, distances, 0)
    pairs = valid[:, None] & valid[None, :] & ~jnp.eye(rows.shape[0], dtype=bool)
    low, high = _middle(jnp.where(pairs, distances, jnp.inf), count * (count - 1))
    median = (jnp.sqrt(low) + jnp.sqrt(high)) / 2
    return jnp.where(finite & usable(median), median, jnp.nan)


def _choose(rows: Float[Array, "N d"], valid: Bool[Array, " N"]) -> Int[Array, " R"]:
    """Which rows the median is taken over: pseudo-random, yet a function of the rows as an unordered collection.

    Equal rows have equal hashes, and all or none would be in. So each is hashed again with its number among its equals,
    which are interchangeable: whichever of them stands first, the same contents are chosen.
    """
    index = jnp.arange(rows.shape[0], dtype=jnp.int32)
    # Stable, so padding, which looks like rows of zeros and comes last, is numbered after these.
    first, second, order = lax.sort((*_hash_rows(rows), index), num_keys=2)
    starts = (index == 0) | (first != jnp.roll(first, 1)) | (second != jnp.roll(second, 1))
    number = index - lax.cummax(jnp.where(starts, index, 0))
    again = _mix(first + _mix(second + number.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)))
    _, _, chosen = lax.sort((~valid[order], again, order), num_keys=2)
    return chosen[:MEDIAN_ROWS]


def _hash_rows(rows: Float[Array, "N d"]) -> tuple[UInt32[Array, " N"], UInt32[Array, " N"]]:
    """64 bits for each row that depend on its contents alone, wherever it stands and whatever zeros widen it."""
    # −0 is 0; adding 0 would say so too, but XLA removes that.
    words = lax.bitcast_convert_type(jnp.where(rows == 0, 0, rows), jnp.uint32).reshape(rows.shape[0], -1)
    position = _mix(jnp.arange(words.shape[1], dtype=jnp.uint32) + 1)

    def total(seed: int) -> Array:
        # A sum of the words times constants would collide for rows of few different numbers, such as 0 and 1.
        mixed = _mix(words ^ _mix(position + jnp.uint32(seed))[None, :])
        return jnp.sum(jnp.where(words == 0, 0, mixed), axis=1, dtype=jnp.uint32)

    return total(0), total(0x85EBCA77)


def _mix(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finalizer of MurmurHash3: every bit of the input moves every bit of the result."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _middle(values: Float[Array, "N N"], size: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The two middle ones of `size` numbers >= 0, the other entries being infinite, by counting: a sort is slower.

    Floats >= 0 are ordered as their bits are, so bisecting the bits finds the value exactly.
    """
    integer = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    bits = lax.bitcast_convert_type(values, integer)
    rank = size // 2

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        below, at_least = bounds
        middle = below + (at_least - below) // 2
        enough = jnp.sum(bits <= middle, dtype=jnp.int32) >= rank
        return jnp.where(enough, below, middle), jnp.where(enough, middle, at_least)

    top = lax.bitcast_convert_type(jnp.asarray(jnp.inf, values.dtype), integer)
    steps = 8 * values.dtype.itemsize - 1
    _, found = lax.fori_loop(0, steps, halve, (jnp.asarray(-1, integer), top))
    low = lax.bitcast_convert_type(found, values.dtype)
    above = jnp.min(jnp.where(values > low, values, jnp.inf))
    return low, jnp.where(jnp.sum(bits <= found, dtype=jnp.int32) > rank, low, above)
