"""What a visit of the Gram matrix adds up: quadratic forms of splits, sums between bins, sums of rows.

With XX = diag(SᵀKS), r = K1 and T = 1ᵀr for a split's 0/1 column S (K without its diagonal), the sums between the two
sides are XY = Sᵀr − XX and YY = T − 2Sᵀr + XX: every quadratic-time MMD is a combination of these.
"""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from mmd_jax.two_sample.gram import Problem, Reduce, Spec, Tile, prepare, visit_all
from mmd_jax.two_sample.kernels import Dot
from mmd_jax.two_sample.pooled import Pooled


class ColumnSums(NamedTuple):
    """Quadratic forms of columns; the last column is that of a split with all rows in X: its `within` is 1ᵀK1.

    Attributes:
      within: diag(SᵀKS). Shape [..., C + 1].
      total: SᵀK1. Shape [..., C + 1].
      diagonal: of k(x, x), less the shift, times S². Shape [..., C + 1].
      size: rows of X. Shape [..., C + 1].
    """

    within: Float[Array, "*K C1"]
    total: Float[Array, "*K C1"]
    diagonal: Float[Array, "*K C1"]
    size: Float[Array, "*K C1"]


class SplitSums(NamedTuple):
    """Sums of kernel values, less `shift` each, for every kernel and split. K has no diagonal here.

    Attributes:
      xx: over ordered pairs of different rows of X. Shape [K, C].
      xy: over pairs of a row of X and one of Y. Shape [K, C].
      yy: over ordered pairs of different rows of Y. Shape [K, C].
      x_diagonal: of k(x, x), over the rows of X. Shape [K, C].
      y_diagonal: of k(y, y), over the rows of Y. Shape [K, C].
      m: rows of X. Shape [K, C].
      n: rows of Y. Shape [K, C].
      shift: what was subtracted from every kernel value, the diagonal's too. Shape [K].
    """

    xx: Float[Array, "K C"]
    xy: Float[Array, "K C"]
    yy: Float[Array, "K C"]
    x_diagonal: Float[Array, "K C"]
    y_diagonal: Float[Array, "K C"]
    m: Float[Array, "K C"]
    n: Float[Array, "K C"]
    shift: Float[Array, " K"]


class BlockSums(NamedTuple):
    """Sums of kernel values, less the shift, between bins of rows.

    Attributes:
      between: over ordered pairs of different rows, one of each bin. Symmetric. Shape [..., s, s].
      diagonal: of k(x, x) within each bin. Shape [..., s].
    """

    between: Float[Array, "*K s s"]
    diagonal: Float[Array, "*K s"]


def split_sums(pooled: Pooled, columns: Array, bandwidths: tuple[Array, ...], spec: Spec) -> SplitSums:
    """Sums of kernel values within and between the two sides of every split, for every kernel.

    Args:
      pooled: rows; where m and n are plain integers, the number of tiles is static and there is a reverse derivative.
      columns: membership, 1 for X, one split a column. Shape [N with padding, C]; what it says of padding is ignored.
      bandwidths: for each kernel, its grid. Shapes [g, k].
      spec: kernels, precision, devices.
    """
    problem = prepare(pooled, columns, bandwidths, spec)
    return as_split_sums(visit_all(problem, spec, quadratic_forms), problem)


def as_split_sums(sums: ColumnSums, problem: Problem) -> SplitSums:
    """From the quadratic forms to the sums within and between the two sides."""
    within, total, diagonal, size = (value[:, :-1] for value in sums)
    return SplitSums(
        xx=within,
        xy=total - within,
        yy=sums.within[:, -1:] - 2 * total + within,
        x_diagonal=diagonal,
        y_diagonal=sums.diagonal[:, -1:] - diagonal,
        m=size,
        n=sums.size[:, -1:] - size,
        shift=jnp.concatenate(problem.shifts),
    )


def quadratic_forms(tile: Tile, dot: Dot) -> ColumnSums:
    """diag(SᵀKS) and SᵀK1 of columns S, shape [t, C] on each side: membership as int8, or real weights."""
    left, right = _with_ones(tile.left, tile.left_present), _with_ones(tile.right, tile.right_present)
    product = dot(tile.values, right)
    ones = left[:, -1]
    within = jnp.sum(left * product, axis=0)
    # Few rows: full precision costs nothing.
    across = jnp.dot(ones, product, precision=lax.Precision.HIGHEST)  # 1ᵀK S_j
    # S_iᵀK 1 belongs to the transposed tile, which is not visited.
    back = jnp.dot(product[:, -1], left, precision=lax.Precision.HIGHEST)
    twice = (tile.i != tile.j).astype(left.dtype)
    nothing = jnp.zeros_like(within)
    # These two are no sums over pairs: few tiles have a part in them.
    diagonal, size = lax.cond(
        tile.i == tile.j,
        lambda: (jnp.sum(tile.diagonal[:, None] * left * left, axis=0), jnp.sum(left, axis=0)),
        lambda: (nothing, nothing),
    )
    return ColumnSums((1 + twice) * within, across + twice * back, diagonal, size)


def _with_ones(columns: Array, present: Float[Array, " t"]) -> Float[Array, "t C1"]:
    """Padding has 0 in all columns, so it counts nowhere; the last column is 1 for rows."""
    return jnp.concatenate([columns.astype(present.dtype) * present[:, None], present[:, None]], axis=1)


def sum_of_squares(tile: Tile, dot: Dot) -> Float[Array, ""]:
    """Σ k(z_i, z_j)², shifted, over ordered pairs of different rows."""
    squares = jnp.dot(tile.values * tile.values, tile.right_present, precision=lax.Precision.HIGHEST)
    return (1 + (tile.i != tile.j)) * jnp.dot(tile.left_present, squares, precision=lax.Precision.HIGHEST)


@cache
def together(*reduces: Reduce) -> Reduce:
    """Several reductions of one visit: their sums as a tuple."""
    return lambda tile, dot: tuple(reduce(tile, dot) for reduce in reduces)


def block_sums(num_bins: int, widest: int) -> Reduce:
    """Sums of K between bins, whose numbers do not decrease from row to row.

    Args:
      num_bins: s. Rows of a number >= s are left out.
      widest: the most bins that a block of rows can touch.

    Returns:
      A `Reduce` for columns that are bin numbers, int32, shape [t] on each side.
    """
    reach = min(widest, num_bins)

    def reduce(tile: Tile, dot: Dot) -> BlockSums:
        (i, left), (j, right) = (
            _one_hot(bins, present, num_bins, reach)
            for bins, present in ((tile.left, tile.left_present), (tile.right, tile.right_present))
        )
        part = dot(left.T, dot(tile.values, right))
        where = jnp.zeros((num_bins, num_bins), part.dtype)
        between = lax.dynamic_update_slice(where, part, (i, j))
        twice = (tile.i != tile.j).astype(part.dtype)
        between = between + twice * lax.dynamic_update_slice(where, part.T, (j, i))
        diagonal = lax.dynamic_update_slice(where[0], (1 - twice) * _full(tile.diagonal, left), (i,))
        return BlockSums(between, diagonal)

    return reduce


def _one_hot(
    bins: Int[Array, " t"], present: Float[Array, " t"], num_bins: int, reach: int
) -> tuple[Array, Float[Array, "t r"]]:
    """The first bin that a block touches, and which of those from it on each row is in."""
    first = jnp.clip(bins[0], 0, num_bins - reach)
    return first, (bins[:, None] - first == jnp.arange(reach)[None, :]).astype(present.dtype) * present[:, None]


def split_sums_of_bins(
    sums: BlockSums, sizes: Float[Array, " s"], columns: Array, shift: Float[Array, " K"]
) -> SplitSums:
    """From sums between bins to the sums within and between the two sides of splits of whole bins.

    Args:
      sums: with a leading axis [K].
      sizes: rows in each bin. Shape [s].
      columns: which bins are X, one split a column. Shape [s, C].
      shift: what was subtracted from the kernel values. Shape [K].
    """
    columns = columns.astype(sums.between.dtype)
    within = jnp.sum(columns[None] * _full(sums.between, columns), axis=1)
    rows = jnp.sum(sums.between, axis=2)
    total, diagonal = _full(rows, columns), _full(sums.diagonal, columns)
    size = jnp.broadcast_to(_full(sizes, columns)[None], within.shape)
    return SplitSums(
        xx=within,
        xy=total - within,
        yy=jnp.sum(rows, axis=1, keepdims=True) - 2 * total + within,
        x_diagonal=diagonal,
        y_diagonal=jnp.sum(sums.diagonal, axis=1, keepdims=True) - diagonal,
        m=size,
        n=jnp.sum(sizes) - size,
        shift=shift,
    )


def _full(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def row_sums(num_blocks: int) -> Reduce:
    """K S, a row for each row of the sample: for columns S of real numbers, shape [t, C] on each side.

    Args:
      num_blocks: b, as in `Problem.blocks`.

    Returns:
      A `Reduce` whose sums have shape [b, t, C].
    """

    def reduce(tile: Tile, dot: Dot) -> Any:
        left = tile.left.astype(tile.values.dtype) * tile.left_present[:, None]
        right = tile.right.astype(tile.values.dtype) * tile.right_present[:, None]
        where = jnp.zeros((num_blocks, *left.shape), left.dtype)
        here = dot(tile.values, right) * tile.left_present[:, None]
        there = dot(tile.values.T, left) * tile.right_present[:, None] * (tile.i != tile.j)
        sums = lax.dynamic_update_index_in_dim(where, here, tile.i, 0)
        return sums + lax.dynamic_update_index_in_dim(where, there, tile.j, 0)

    return reduce
