"""The bandwidths that the pooled rows suggest. They see the rows as an unordered collection, never the labels."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from mmd_jax.two_sample.kernels import Kernel, Scale, gaussian, l1_distances, squared_distances
from mmd_jax.two_sample.pooled import (
    Numbers,
    Pooled,
    all_finite,
    check_bandwidth,
    check_rows,
    is_traced,
    stack,
    usable,
)

# The quantiles of ~half a million distances are as good as those of all, and cost less than the test.
CHOSEN_ROWS = 1024
# The grid goes from half of the lower quantile of the distances to twice the upper one (as in MMDAgg).
GRID_QUANTILES = (0.05, 0.95)


class NoBandwidthError(ValueError):
    """The distances of the pooled rows are 0, so no bandwidth can be taken from them."""


def median_bandwidth(pooled: Numbers, *, kernel: Kernel = gaussian) -> Float[Array, ""]:
    """Median of the distances between different rows of the pooled sample: the median heuristic.

        σ = median{‖z_i − z_j‖ : i ≠ j}

    Above 1,024 rows it is taken over 1,024 of them, which a hash of each row's contents chooses, and of how many equal
    rows there are before it. So it depends on the rows but neither on their order nor on which sample they came from,
    and a permutation test that uses it stays exact. It is a constant under differentiation.

    Args:
      pooled: both samples together, shape [N, d].
      kernel: whose distance is taken: L1 for `laplace_l1`, else L2.

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
    blocks, count = _laid_out(pooled)
    return jnp.asarray(_median(blocks, count, "l1" if kernel.scales == ("l1",) else "l2"))


def bandwidth_grid(pooled: Numbers, num: int = 10, *, kernel: Kernel = gaussian) -> Float[Array, " num"]:
    """Bandwidths that cover the distances between the pooled rows, spaced evenly in their logarithm.

        from half of the 5 % quantile to twice the 95 % quantile of {‖z_i − z_j‖ : i ≠ j}

    The quantiles are taken as `median_bandwidth` takes the median, from distances above 0.

    Args:
      pooled: both samples together, shape [N, d].
      num: how many, at least 1; a single one is the median.
      kernel: whose distance is taken: L1 for `laplace_l1`, else L2.

    Returns:
      The bandwidths, increasing. Shape [num].

    Raises:
      ValueError: bad rows, num < 1. NoBandwidthError: all rows coincide.

    Example:
      >>> import numpy as np
      >>> [round(float(one), 2) for one in bandwidth_grid(np.arange(5.0)[:, None], 3)]  # distances 1, 1, 1, 1, 2, 2, 2, 3, 3, 4
      [0.5, 1.88, 7.1]

    Reference: Schrab et al., MMD aggregated two-sample test, JMLR 2023, section 5.2.
    """
    if num < 1:
        raise ValueError(f"num is {num}; expected at least one bandwidth.")
    blocks, count = _laid_out(pooled)
    return jnp.asarray(grid_of_blocks(blocks, count, num, kernel))


def resolve_bandwidth(bandwidth: Numbers | None, pooled: Pooled, kernel: Kernel) -> Any:
    """The bandwidths that were given, checked, else what the kernel's scales are in the pooled rows. Shape [k]."""
    if bandwidth is not None:
        if len(kernel.scales) > 1 and np.shape(bandwidth) != (len(kernel.scales),):
            raise ValueError(
                f"bandwidth has shape {np.shape(bandwidth)}; this kernel combines {len(kernel.scales)} parts and takes one "
                f"bandwidth for each, shape ({len(kernel.scales)},)."
            )
        return check_bandwidth(bandwidth, pooled.blocks.dtype)
    found = [_default(scale, pooled) for scale in kernel.scales]
    stacked = jnp.stack if is_traced(*found) else np.stack
    return stacked([np.asarray(one) if stacked is np.stack else one for one in found])


def grid_of_blocks(blocks: Any, count: Any, num: int, kernel: Kernel) -> Any:
    """`bandwidth_grid` of rows that are laid out already."""
    scale: Scale = "l1" if kernel.scales == ("l1",) else "l2"
    if num == 1:
        return _median(blocks, count, scale).reshape(1)
    xp: Any
    if is_traced(blocks, count):
        xp, distances = jnp, _traced_distances(blocks, count, scale)
    else:
        xp, distances = np, _host_distances(blocks, count, scale)
    # Equal rows say nothing of the scale; their zeros would only pull the lower end to 0.
    low, high = xp.nanquantile(xp.where(distances > 0, distances, xp.nan), np.asarray(GRID_QUANTILES, blocks.dtype))
    return _usable_or_error(xp.geomspace(low / 2, 2 * high, num).astype(blocks.dtype), "all rows coincide")


def _laid_out(pooled: Numbers) -> tuple[Any, int]:
    rows = check_rows("pooled", pooled)
    return stack((rows,), pad=not is_traced(rows)), rows.shape[0]


def _default(scale: Scale, pooled: Pooled) -> Any:
    if scale in ("l1", "l2"):
        return _median(pooled.blocks, pooled.count, scale)
    one = np.ones((), pooled.blocks.dtype)
    if scale == "one":
        return one
    xp: Any = jnp if is_traced(pooled.blocks, pooled.count) else np
    rows = lax.stop_gradient(pooled.blocks) if xp is jnp else pooled.blocks
    # By the largest entry, whose square may be as large as a float can be.
    largest = xp.max(xp.abs(rows))
    scaled = rows / xp.where(largest > 0, largest, 1)
    squared = xp.sum(xp.square(scaled)) / pooled.count
    return _usable_or_error((largest * xp.sqrt(squared)).astype(rows.dtype), "all rows are 0")


def _median(blocks: Any, count: Any, scale: Scale) -> Any:
    why = (
        "the median distance of the pooled rows is 0, because at least half of the pairs of rows coincide (or are too "
    )
    if is_traced(blocks, count):
        return _usable_or_error(_traced_median(blocks, count, scale), why)
    distances = _host_distances(blocks, count, scale)
    middle = distances.size // 2
    parted = np.partition(distances, middle)
    # One rank is found in half of the time that two take; the one below it is the largest of those below.
    median = parted[middle] if distances.size % 2 else (parted[:middle].max() + parted[middle]) / 2
    return _usable_or_error(np.asarray(median, blocks.dtype), why + "close for their precision)")


def _usable_or_error(bandwidth: Any, why: str) -> Any:
    if is_traced(bandwidth):
        return jnp.where(usable(bandwidth), bandwidth, jnp.nan)
    if not np.all(usable(bandwidth)):
        raise NoBandwidthError(
            f"{why}; there is no bandwidth to take from them. Pass bandwidth=, or use features that vary."
        )
    return bandwidth


def _host_distances(blocks: np.ndarray, count: int, scale: Scale) -> np.ndarray:
    """Distances between the chosen rows, each pair once. In numpy, so that nothing is compiled for it."""
    rows = np.asarray(blocks).reshape(-1, blocks.shape[2])[:count]
    if count > CHOSEN_ROWS:
        rows = rows[_choose_on_host(rows)]
    if scale == "l1":
        from scipy.spatial.distance import pdist

        return pdist(rows, "cityblock").astype(rows.dtype)
    rows = rows - _central(rows, np.ones(len(rows), bool))
    pairs = np.triu(np.ones((len(rows), len(rows)), bool), 1)
    squares = np.einsum("nd,nd->n", rows, rows)
    both = (squares[:, None] + squares[None, :])[pairs]
    squared = (rows @ rows.T)[pairs]
    squared *= -2
    squared += both
    return np.sqrt(_without_rounding(squared, both))


def _central(rows: Any, valid: Any) -> Any:
    """The row that is nearest to the mean, shape [1, d]. Relative to a row, equal ones become exact zeros; one of the many
    has small distances where a far-off one, as the first might be, would drown them in rounding.
    """
    xp: Any = jnp if is_traced(rows) else np
    mean = xp.sum(rows, axis=0, where=valid[:, None]) / xp.sum(valid)
    far = xp.sum(xp.square(rows - mean[None, :]), axis=1)
    return rows[xp.argmin(xp.where(valid, far, xp.inf))][None]


def _without_rounding(squared: Any, both: Any) -> Any:
    # What is left of ‖a‖² + ‖b‖² − 2ab between equal rows is rounding, not distance.
    xp: Any = jnp if is_traced(squared) else np
    return xp.where(squared > 16 * jnp.finfo(squared.dtype).eps * both, squared, 0).astype(squared.dtype)


def _choose_on_host(rows: np.ndarray) -> np.ndarray:
    """`_choose`, in numpy."""
    # In parts: the words and their hashes take as much memory as the rows. −0 is 0.
    parts = range(0, len(rows), 2048)
    hashes = [_hash_rows((rows[i : i + 2048] + 0).view(np.uint32), np) for i in parts]
    first, second = (np.concatenate(part) for part in zip(*hashes, strict=True))
    order = np.argsort(first.astype(np.uint64) << np.uint64(32) | second, kind="stable")
    first, second, index = first[order], second[order], np.arange(len(rows))
    starts = (index == 0) | (first != np.roll(first, 1)) | (second != np.roll(second, 1))
    again = _hash_again(first, second, index - np.maximum.accumulate(np.where(starts, index, 0)))
    return order[np.argsort(again, kind="stable")[:CHOSEN_ROWS]]


# Under tracing the rows have no values to look at, so the same is done on the device.
def _traced_rows(blocks: Float[Array, "b t d"], count: ArrayLike) -> tuple[Array, Array]:
    rows = lax.stop_gradient(blocks).reshape(-1, blocks.shape[2])
    valid = jnp.arange(rows.shape[0]) < count
    if rows.shape[0] > CHOSEN_ROWS:
        chosen = _choose(rows, valid)
        rows, valid = rows[chosen], valid[chosen]
    return jnp.where(valid[:, None], rows - _central(rows, valid), 0), valid


def _traced_matrix(blocks: Float[Array, "b t d"], count: ArrayLike, scale: Scale) -> tuple[Array, Array]:
    """All distances (L1) or their squares (L2), and which are of two different rows."""
    rows, valid = _traced_rows(blocks, count)
    pairs = valid[:, None] & valid[None, :] & ~jnp.eye(rows.shape[0], dtype=bool)
    if scale == "l1":
        return l1_distances(rows, rows), pairs
    squares = jnp.sum(rows * rows, axis=1)
    return _without_rounding(squared_distances(rows, rows), squares[:, None] + squares[None, :]), pairs


@partial(jax.jit, static_argnames=("scale",))
def _traced_distances(blocks: Float[Array, "b t d"], count: ArrayLike, scale: Scale) -> Float[Array, "N N"]:
    distances, pairs = _traced_matrix(blocks, count, scale)
    good = jnp.where(all_finite(blocks), 0, jnp.nan)
    return jnp.where(jnp.triu(pairs, 1), distances if scale == "l1" else jnp.sqrt(distances), 0) + good


@partial(jax.jit, static_argnames=("scale",))
def _traced_median(blocks: Float[Array, "b t d"], count: ArrayLike, scale: Scale) -> Float[Array, ""]:
    distances, pairs = _traced_matrix(blocks, count, scale)
    low, high = _middle(jnp.where(pairs, distances, jnp.inf), jnp.sum(pairs, dtype=jnp.int32))
    median = (low + high) / 2 if scale == "l1" else (jnp.sqrt(low) + jnp.sqrt(high)) / 2
    return jnp.where(all_finite(blocks), median, jnp.nan)


def _choose(rows: Float[Array, "N d"], valid: Bool[Array, " N"]) -> Int[Array, " R"]:
    """Which rows the quantiles are taken over: pseudo-random, yet a function of the rows as an unordered collection.

    Equal rows have equal hashes, and all or none would be in. So each is hashed again with its number among its equals,
    which are interchangeable: whichever of them stands first, the same contents are chosen.
    """
    index = jnp.arange(rows.shape[0], dtype=jnp.int32)
    # −0 is 0; adding 0 would say so too, but XLA removes that.
    words = lax.bitcast_convert_type(jnp.where(rows == 0, 0, rows), jnp.uint32).reshape(rows.shape[0], -1)
    # Stable, so padding, which looks like rows of zeros and comes last, is numbered after these.
    first, second, order = lax.sort((*_hash_rows(words, jnp), index), num_keys=2)
    starts = (index == 0) | (first != jnp.roll(first, 1)) | (second != jnp.roll(second, 1))
    again = _hash_again(first, second, index - lax.cummax(jnp.where(starts, index, 0)))
    _, _, chosen = lax.sort((~valid[order], again, order), num_keys=2)
    return chosen[:CHOSEN_ROWS]


def _hash_rows(words: Any, xp: Any) -> tuple[Any, Any]:
    """Twice 32 bits for each row that depend on its contents alone, wherever it stands and whatever zeros widen it."""
    position = _mix(np.arange(1, words.shape[1] + 1, dtype=np.uint32))
    # Mixed before they are summed: rows of few different numbers, such as 0 and 1, would collide.
    mixed = xp.where(words == 0, np.uint32(0), _mix(words ^ position[None, :]))
    return tuple(xp.sum(one, axis=1, dtype=np.uint32) for one in (mixed, mixed * (mixed >> np.uint32(7))))


def _hash_again(first: Any, second: Any, number: Any) -> Any:
    return _mix(first + _mix(second + number.astype(np.uint32) * np.uint32(0x9E3779B1)))


def _mix(bits: Any) -> Any:
    """The finalizer of MurmurHash3: every bit of the input moves every bit of the result."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


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
