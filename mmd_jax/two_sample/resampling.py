"""Membership columns: which rows of the pooled sample count as X in each resampled split.

Every function gives int8 columns over the rows with padding, [N, C]; entries of padding are 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Int, Int8, Key, UInt32

from mmd_jax.two_sample.pooled import Pooled

# Columns whose random numbers are drawn at a time: few enough for the processor's cache, and for the peak of memory.
DRAWN_AT_ONCE = 32


def observed_column(pooled: Pooled) -> Int8[Array, "N 1"]:
    """The split that was observed: the first m rows are X."""
    return (jnp.arange(pooled.capacity) < pooled.m).astype(jnp.int8)[:, None]


def permutations(key: Key[Array, ""], num: int, pooled: Pooled) -> Int8[Array, "N B"]:
    """Random subsets of m of the N rows, each as likely as any other.

    Args:
      key: consumed.
      num: B, how many.
      pooled: for m and N.

    Returns:
      One subset a column.
    """
    return subsets(key, num, pooled.m, pooled.count, pooled.capacity)


def group_permutations(key: Key[Array, ""], num: int, pooled: Pooled, groups: Int[Array, " N"]) -> Int8[Array, "N B"]:
    """Random splits of whole groups: as many groups become X as were X, each choice of groups as likely as any other.

    Args:
      key: consumed.
      num: B, how many.
      pooled: for m and N.
      groups: the group of each row, numbered 0 … G − 1 without gaps; none has rows of both x and y.

    Returns:
      One split a column. X has as many groups in each, but not as many rows, where groups differ in size.
    """
    row = jnp.arange(pooled.capacity)
    groups = jnp.where(row < pooled.count, groups, 0)
    num_groups = jnp.max(groups) + 1
    in_x = jnp.zeros(pooled.capacity, jnp.int32).at[groups].max((row < pooled.m).astype(jnp.int32))
    chosen = subsets(key, num, jnp.sum(in_x), num_groups, pooled.capacity)
    return jnp.where((row < pooled.count)[:, None], chosen[groups], 0).astype(jnp.int8)


def swapped_pairs(key: Key[Array, ""], num: int, pooled: Pooled) -> Int8[Array, "N B"]:
    """Rademacher signs: each pair (x_i, y_i) changes sides with probability one half. Needs m = n.

    Args:
      key: consumed.
      num: B, how many.
      pooled: for m = n.

    Returns:
      One set of swaps a column.
    """
    row = jnp.arange(pooled.capacity)
    swapped = _draw(key, num, pooled.capacity, lambda bits: (bits >> 31).astype(jnp.int8))
    swapped = swapped[jnp.where(row < pooled.m, row, row - pooled.m)]
    is_x = (row < pooled.m).astype(jnp.int8)[:, None]
    return jnp.where((row < pooled.count)[:, None], swapped ^ is_x, 0).astype(jnp.int8)


class Bins(NamedTuple):
    """Rows of D samples put into bins, of which whole ones change sides.

    Attributes:
      order: the rows, bin by bin, padding last. Shape [N].
      bins: the bin of each row in that order. Numbers do not decrease: the bins of the first sample, its left-over rows
        in one more, the bins of the second, its left-over rows, … Shape [N], int32.
      counts: how many bins each sample has, without the left-over rows. Shape [D].
      sizes: rows in each bin. Shape [s + D].
    """

    order: Int[Array, " N"]
    bins: Int[Array, " N"]
    counts: Int[Array, " D"]
    sizes: Int[Array, " sD"]

    @property
    def firsts(self) -> Int[Array, " D"]:
        """The first bin of each sample."""
        return jnp.cumsum(self.counts + 1) - (self.counts + 1)


def into_bins(
    key: Key[Array, ""], num_bins: int, sample: Int[Array, " N"], num_samples: int, groups: Int[Array, " N"] | None
) -> Bins:
    """Puts the rows of each sample at random into bins of equal numbers of rows, or of groups.

    Args:
      key: consumed.
      num_bins: s: there are as many bins as N / ceil(N / s) and the sizes of the samples allow, s at most.
      sample: of each row, 0 … D − 1; D for padding, which comes last.
      num_samples: D.
      groups: of each row, numbered 0 … G − 1; a bin then holds whole groups. None: each row for itself.

    Returns:
      The bins; what does not fill one more bin is left over.
    """
    capacity, last = sample.shape[0], num_bins + num_samples
    row = jnp.arange(capacity, dtype=jnp.int32)
    here = sample < num_samples
    unit = row if groups is None else jnp.where(here, groups, capacity - 1)
    side = jnp.full(capacity, num_samples, jnp.int32).at[unit].min(sample.astype(jnp.int32))
    units = jnp.sum(side[None, :] == jnp.arange(num_samples)[:, None], axis=1)
    each = -(-jnp.sum(units) // num_bins)
    counts = units // each
    # Shuffled within its sample, each unit has a place there, and the place is in a bin.
    bits = jax.random.bits(key, (capacity,), jnp.uint32)
    _, _, shuffled = lax.sort((side, bits, row), num_keys=2)
    place = jnp.zeros(capacity, jnp.int32).at[shuffled].set(row)
    known = jnp.minimum(side, num_samples - 1)
    place = place - (jnp.cumsum(units) - units)[known]
    first = (jnp.cumsum(counts + 1) - (counts + 1))[known]
    of_unit = jnp.where(side < num_samples, first + jnp.minimum(place // each, counts[known]), last)
    of_row = jnp.where(here, of_unit[unit], last)
    bins, order = lax.sort((of_row, row), num_keys=1)
    sizes = jnp.zeros(last, jnp.int32).at[of_row].add(1, mode="drop")
    return Bins(order, bins, counts, sizes)


def bin_permutations(key: Key[Array, ""], num: int, bins: Bins, a: Any = 0, b: Any = 1) -> Int8[Array, "sD B1"]:
    """The observed split of the bins of two samples, and random ones; left-over rows stay on their side.

    Args:
      key: consumed.
      num: B, how many random ones.
      bins: which.
      a: the sample that is X.
      b: the sample that is Y.

    Returns:
      One split a column, 1 for the bins of X, the observed one first. Bins of other samples are 0. Shape [s + D, B + 1].
    """
    number = jnp.arange(len(bins.sizes))
    first_a, first_b = bins.firsts[a], bins.firsts[b]
    count_a, count_b = bins.counts[a], bins.counts[b]
    is_a = (number >= first_a) & (number <= first_a + count_a)
    is_b = (number >= first_b) & (number < first_b + count_b)
    left_over = number == first_a + count_a
    capacity = max(1, len(bins.sizes) - len(bins.counts))
    chosen = subsets(key, num, count_a, count_a + count_b, capacity)
    place = jnp.clip(jnp.where(is_a, number - first_a, count_a + number - first_b), 0, capacity - 1)
    moved = jnp.where(((is_a & ~left_over) | is_b)[:, None], chosen[place] == 1, is_a[:, None])
    return jnp.concatenate([is_a[:, None], moved], axis=1).astype(jnp.int8)


def subsets(key: Key[Array, ""], num: int, size: Any, count: Any, capacity: int) -> Int8[Array, "N B"]:
    """Random subsets of `size` of the first `count` of `capacity` items, uniform, one a column.

    Every item draws 31 random bits, and the items with the smallest are the subset; ties go to the smaller index. Only
    the threshold is needed, not the order, so it is searched by counting: several times faster than a sort.
    """
    size, count = jnp.asarray(size, jnp.int32), jnp.asarray(count, jnp.int32)
    return _draw(key, num, capacity, lambda bits: _smallest((bits >> 1).astype(jnp.int32), size, count))


def _draw(
    key: Key[Array, ""], num: int, capacity: int, member: Callable[[UInt32[Array, "N c"]], Int8[Array, "N c"]]
) -> Int8[Array, "N B"]:
    """`member` of random bits for each of `num` sets, a few sets at a time.

    An item's bits depend on its index and its set, not on the capacity (with jax's default generator): padding changes
    no set.
    """
    width = min(num, DRAWN_AT_ONCE)
    rounds = -(-num // width)
    keys = jax.random.split(key, rounds)

    def draw(i: Any, columns: Int8[Array, "N B"]) -> Int8[Array, "N B"]:
        drawn = member(jax.random.bits(keys[i], (capacity, width), jnp.uint32))
        # The last ones lie over some of those before, where B is no multiple of their number.
        return lax.dynamic_update_slice(columns, drawn, (0, i * width))

    # In place: sets side by side would be copied twice, and these are the largest array of a test.
    return lax.fori_loop(0, rounds, draw, jnp.zeros((capacity, num), jnp.int8))


def _smallest(values: Int[Array, "N c"], size: Int[Array, ""], count: Int[Array, ""]) -> Int8[Array, "N c"]:
    """Mark the `size` smallest of the first `count` entries of each column of random numbers in [0, 2³¹)."""
    capacity, num = values.shape
    top = 2**31 - 1
    index = jnp.arange(capacity, dtype=jnp.int32)[:, None]
    values = jnp.where(index < count, jnp.minimum(values, top - 1), top)

    def below(threshold: Int[Array, " c"]) -> Int[Array, " c"]:
        return jnp.sum(values < threshold[None, :], axis=0, dtype=jnp.int32)

    threshold, found = _search(below, size, jnp.full(num, top), jnp.full(num, count))

    # Rarely, equal numbers straddle the threshold, and too many are found: of these, the smaller indices are in.
    tied, less = values == threshold[None, :] - 1, values < threshold[None, :] - 1

    def up_to(cut: Int[Array, " c"]) -> Int[Array, " c"]:
        return jnp.sum(less | (tied & (index < cut[None, :])), axis=0, dtype=jnp.int32)

    cut, _ = _search(up_to, size, jnp.full(num, capacity), found)
    return (less | (tied & (index < cut[None, :]))).astype(jnp.int8)


def _search(
    counts: Callable[[Int[Array, " c"]], Int[Array, " c"]],
    target: Int[Array, ""],
    high: Int[Array, " c"],
    counts_high: Int[Array, " c"],
) -> tuple[Int[Array, " c"], Int[Array, " c"]]:
    """An argument in (0, high] where the increasing `counts` is the target, else the least where it is more.

    Interpolates, since random numbers are spread evenly: about eight passes where bisection takes 31. Every second pass
    bisects once that has taken too long, so it always ends soon.
    """

    def unfinished(low: Array, high: Array, counts_high: Array) -> Array:
        return (counts_high != target) & (high - low > 1)

    def go_on(state: Any) -> Array:
        _, low, _, high, counts_high = state
        return jnp.any(unfinished(low, high, counts_high))

    def narrow(state: Any) -> Any:
        passes, low, counts_low, high, counts_high = state
        share = (target - counts_low + 0.5) / jnp.maximum(counts_high - counts_low + 1, 1)
        share = jnp.where((passes >= 6) & (passes % 2 == 0), 0.5, share).astype(jnp.float32)
        step = ((high - low).astype(jnp.float32) * share).astype(jnp.int32)
        guess = jnp.clip(low + step, low + 1, jnp.maximum(high - 1, low + 1))
        guessed = counts(guess)
        active, enough = unfinished(low, high, counts_high), guessed >= target
        lower, upper = active & ~enough, active & enough
        return (
            passes + 1,
            jnp.where(lower, guess, low),
            jnp.where(lower, guessed, counts_low),
            jnp.where(upper, guess, high),
            jnp.where(upper, guessed, counts_high),
        )

    zeros = jnp.zeros_like(high)
    _, _, _, high, counts_high = lax.while_loop(go_on, narrow, (jnp.int32(0), zeros, zeros, high, counts_high))
    return high, counts_high
