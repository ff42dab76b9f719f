"""The observed split of the pooled rows and the resampled ones, and what the engine sums up for all of them in one pass.

Two forms: each split a column of the rows, or, much cheaper for many splits, a column of bins of rows. A pass can be
made at once, or from outside over ranges of tiles: `begin`, `gram.accumulate`, `conclude`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Int8, Key

from mmd_jax.two_sample.gram import Problem, Reduce, Spec, prepare, visit_all
from mmd_jax.two_sample.pooled import Pooled
from mmd_jax.two_sample.reductions import (
    SplitSums,
    as_split_sums,
    block_sums,
    quadratic_forms,
    split_sums_of_bins,
)
from mmd_jax.two_sample.resampling import (
    bin_permutations,
    group_permutations,
    into_bins,
    observed_column,
    permutations,
    swapped_pairs,
)

# (key, B, pooled, groups or None) -> columns [N, B]
Resampling = Callable[[Array, int, Pooled, Array | None], Array]


def permute(key: Array, num: int, pooled: Pooled, groups: Array | None) -> Array:
    """Rows, or whole groups, change sides, as many as were there."""
    return permutations(key, num, pooled) if groups is None else group_permutations(key, num, pooled, groups)


def swap(key: Array, num: int, pooled: Pooled, groups: Array | None) -> Array:
    """The members of random pairs change sides."""
    return swapped_pairs(key, num, pooled)


class Scheme(NamedTuple):
    """How splits are resampled: all that is static about it.

    Attributes:
      num: B.
      resample: what changes sides, where `bins` is none.
      bins: number of bins, of which whole ones change sides.
      grouped: whether the bins hold groups, and so differ in size.
    """

    num: int
    resample: Resampling = permute
    bins: int | None = None
    grouped: bool = False


class Splits(NamedTuple):
    """The splits, the observed one first, and the engine's problem that they make.

    Attributes:
      problem: its columns are the splits of the rows, or the bins of the rows.
      bins: which bins are X, shape [s + 2, 1 + B], int8, and the rows in each, shape [s + 2]; none where rows are split.
    """

    problem: Problem
    bins: tuple[Int8[Array, "u C"], Int[Array, " u"]] | None

    def units(self) -> tuple[Int8[Array, "u C"], Int[Array, " u"]]:
        """Which units are X, shape [u, 1 + B], and how many rows each is, shape [u]: bins, or rows with padding."""
        if self.bins is not None:
            return self.bins
        b, t, _ = self.problem.blocks.shape
        sizes = (jnp.arange(b * t) < self.problem.count).astype(jnp.int32)
        return self.problem.columns.reshape(b * t, -1), sizes


def resampled_sums(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidths: tuple[Array, ...],
    spec: Spec,
    scheme: Scheme,
) -> tuple[SplitSums, Splits]:
    """The sums of kernel values of the observed and the resampled splits, for every kernel, in one pass.

    Args:
      key: consumed.
      pooled: the rows.
      groups: of each row, permuted whole; or none. Shape [N].
      bandwidths: for each kernel, its grid. Shapes [g, k].
      spec: kernels, precision, devices.
      scheme: how splits are resampled.

    Returns:
      The sums, shapes [K, 1 + B], and the splits.
    """
    splits = begin(key, pooled, groups, bandwidths, spec, scheme)
    return conclude(visit_all(splits.problem, spec, reduction(scheme, splits.problem)), splits), splits


def begin(
    key: Key[Array, ""],
    pooled: Pooled,
    groups: Int[Array, " N"] | None,
    bandwidths: tuple[Array, ...],
    spec: Spec,
    scheme: Scheme,
) -> Splits:
    """Draw the splits and lay out the problem. Arguments as `resampled_sums`."""
    if scheme.bins is None:
        columns = jnp.concatenate([observed_column(pooled), scheme.resample(key, scheme.num, pooled, groups)], axis=1)
        return Splits(prepare(pooled, columns, bandwidths, spec), None)
    bins_key, permutations_key = jax.random.split(key)
    row = jnp.arange(pooled.capacity)
    sample = (row >= pooled.m).astype(jnp.int32) + (row >= pooled.count)
    bins = into_bins(bins_key, scheme.bins, sample, 2, groups)
    blocks = jnp.asarray(pooled.blocks)
    rows = blocks.reshape(-1, blocks.shape[2])[bins.order]
    problem = prepare(pooled._replace(blocks=rows.reshape(blocks.shape)), bins.bins, bandwidths, spec)
    return Splits(problem, (bin_permutations(permutations_key, scheme.num, bins), bins.sizes))


def conclude(sums: Any, splits: Splits) -> SplitSums:
    """From what the `reduction` gave over all tiles to the sums of every split."""
    problem = splits.problem
    if splits.bins is None:
        return as_split_sums(sums, problem)
    members, sizes = splits.bins
    return split_sums_of_bins(sums, sizes.astype(problem.blocks.dtype), members, jnp.concatenate(problem.shifts))


def reduction(scheme: Scheme, problem: Problem) -> Reduce:
    """What a tile of this problem adds."""
    b, t, _ = problem.blocks.shape
    return quadratic_forms if scheme.bins is None else _block_sums(scheme.bins, scheme.grouped, b, t)


@cache
def _block_sums(num_bins: int, grouped: bool, b: int, t: int) -> Reduce:
    if grouped:
        return block_sums(num_bins + 2, num_bins + 2)
    # More than half of the capacity is rows (see `padded_size`; 4/5 of a large one), so a bin holds at least this many of
    # them; two bins hold left-over rows.
    rows = b * t // 2 if b * t <= 8192 else b * t * 4 // 5
    smallest = max(1, rows // num_bins)
    return block_sums(num_bins + 2, t // smallest + 4)
