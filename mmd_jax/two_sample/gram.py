"""The engine: streams the Gram matrix of the pooled rows in tiles, for all membership columns at once.

Let K be the N × N Gram matrix with a zero diagonal, and S [N, C] hold one 0/1 column for each way of splitting the rows
into X (1) and Y (0). Every quadratic-time MMD is a combination of a few numbers a column:

    XX = diag(SᵀKS),   XY = SᵀK1 − XX,   YY = 1ᵀK1 − 2SᵀK1 + XX

K is symmetric, so one half of the tiles is visited. A constant is subtracted from K off the diagonal (the estimate of
its mean): the unbiased statistic does not change, and float32 sums of numbers around 0 keep what sums of numbers around
the mean would lose. Memory is tile² + N·C, also for derivatives, where each tile is computed again.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int8

from mmd_jax.two_sample.kernels import Kernel
from mmd_jax.two_sample.pooled import Pooled

# Rows that the shift is estimated from: its error is then far below the spread of the kernel values.
SHIFT_ROWS = 256


class TileSums(NamedTuple):
    """What has been added up over the tiles visited so far; sums of disjoint ranges of tiles add up to the whole.

    The last column of each is that of a split with all rows in X: its `within` is 1ᵀK1.

    Attributes:
      within: diag(SᵀKS). Shape [C + 1].
      total: SᵀK1. Shape [C + 1].
      diagonal: of k(x, x), less the shift, over the rows of X. Shape [C + 1].
      size: rows of X. Shape [C + 1].
    """

    within: Float[Array, " C1"]
    total: Float[Array, " C1"]
    diagonal: Float[Array, " C1"]
    size: Float[Array, " C1"]


class Progress(NamedTuple):
    """Where a visit of the tiles stands.

    Attributes:
      sums: over the tiles visited so far.
      excess: what rounding added to them too much (Kahan's compensation), still to be taken off.
    """

    sums: TileSums
    excess: TileSums


class SplitSums(NamedTuple):
    """Sums of kernel values, less `shift` each, for every split. K has no diagonal here.

    Attributes:
      xx: over ordered pairs of different rows of X. Shape [C].
      xy: over pairs of a row of X and one of Y. Shape [C].
      yy: over ordered pairs of different rows of Y. Shape [C].
      x_diagonal: of k(x, x), over the rows of X. Shape [C].
      y_diagonal: of k(y, y), over the rows of Y. Shape [C].
      m: rows of X. Shape [C].
      n: rows of Y. Shape [C].
      shift: what was subtracted from every kernel value, the diagonal's too. Shape [].
    """

    xx: Float[Array, " C"]
    xy: Float[Array, " C"]
    yy: Float[Array, " C"]
    x_diagonal: Float[Array, " C"]
    y_diagonal: Float[Array, " C"]
    m: Float[Array, " C"]
    n: Float[Array, " C"]
    shift: Float[Array, ""]


class Problem(NamedTuple):
    """What every tile needs.

    Attributes:
      blocks: rows, centred where the kernel allows. Shape [b, t, d].
      columns: membership. Shape [b, t, C], int8.
      count: rows that are not padding. Shape [].
      bandwidth: shape [k].
      shift: shape [].
    """

    blocks: Float[Array, "b t d"]
    columns: Int8[Array, "b t C"]
    count: Any
    bandwidth: Float[Array, " k"]
    shift: Float[Array, ""]


def split_sums(pooled: Pooled, columns: Int8[Array, "N C"], bandwidth: Float[Array, " k"], kernel: Kernel) -> SplitSums:
    """Sums of kernel values within and between the two sides of every split.

    Args:
      pooled: rows; where m and n are plain integers, the number of tiles is static and there is a reverse derivative.
      columns: membership, 1 for X, one split a column. Shape [N with padding, C]; what it says of padding is ignored.
      bandwidth: the kernel's. Shape [k].
      kernel: static.

    Returns:
      The sums, each of shape [C].
    """
    problem = prepare(pooled, columns, bandwidth, kernel)
    num_tiles = count_tiles(pooled.count, pooled.blocks.shape[1])
    return finish(accumulate(initial(problem), 0, num_tiles, problem, kernel), problem.shift)


def prepare(pooled: Pooled, columns: Int8[Array, "N C"], bandwidth: Float[Array, " k"], kernel: Kernel) -> Problem:
    """Centre the rows where that changes no kernel value, and estimate the shift."""
    blocks, count = jnp.asarray(pooled.blocks), pooled.count
    b, t, d = blocks.shape
    # ‖a‖² + ‖b‖² − 2ab loses what the rows have in common.
    if kernel.translation_invariant:
        blocks = blocks - jnp.sum(blocks, axis=(0, 1), keepdims=True) / count
    shift = lax.stop_gradient(_mean_off_diagonal(blocks.reshape(b * t, d), count, bandwidth, kernel))
    return Problem(blocks, columns.reshape(b, t, -1), count, bandwidth, shift)


def count_tiles(count: Any, tile: int) -> Any:
    """How many tiles on and above the diagonal hold rows that are not padding."""
    b = -(-count // tile)
    return b * (b + 1) // 2


def initial(problem: Problem) -> Progress:
    """Nothing visited yet."""
    zeros = jnp.zeros(problem.columns.shape[2] + 1, problem.blocks.dtype)
    nothing = TileSums(zeros, zeros, zeros, zeros)
    return Progress(nothing, nothing)


def accumulate(progress: Progress, first: Any, last: Any, problem: Problem, kernel: Kernel) -> Progress:
    """Add tiles first, …, last − 1. Plain integers give the loop a reverse derivative, traced ones do not."""
    one_tile = jax.checkpoint(partial(_visit, kernel))  # else reverse mode keeps every tile

    def add(index: Any, progress: Progress) -> Progress:
        # Hundreds of tiles: without compensation, float32 would lose ten times as much here as within the tiles.
        terms = jax.tree.map(jnp.subtract, one_tile(index, problem), progress.excess)
        sums = jax.tree.map(jnp.add, progress.sums, terms)
        excess = jax.tree.map(lambda new, old, term: (new - old) - term, sums, progress.sums, terms)
        return Progress(sums, excess)

    return lax.fori_loop(first, last, add, progress)


def finish(progress: Progress, shift: Float[Array, ""]) -> SplitSums:
    """From the sums over all tiles to those within and between the two sides."""
    sums = progress.sums
    within, total, diagonal, size = (value[:-1] for value in sums)
    return SplitSums(
        xx=within,
        xy=total - within,
        yy=sums.within[-1] - 2 * total + within,
        x_diagonal=diagonal,
        y_diagonal=sums.diagonal[-1] - diagonal,
        m=size,
        n=sums.size[-1] - size,
        shift=shift,
    )


def _visit(kernel: Kernel, index: Any, problem: Problem) -> TileSums:
    """One tile's part. Tiles are numbered along wrapped diagonals: (0, 0), (1, 1), …, (0, 1), (1, 2), …, (b − 1, 0), …

    So a linear index needs no root to become a pair (i, j), whatever the number of blocks, and ranges of it can be
    handed out. Wrapping visits (b − 1, 0) for (0, b − 1), the same tile transposed.
    """
    t = problem.blocks.shape[1]
    b = -(-problem.count // t)
    i = lax.rem(index, b)
    j = lax.rem(i + lax.div(index, b), b)
    rows, left = _block(problem, i)
    others, right = _block(problem, j)

    on_diagonal = (i == j) & jnp.eye(t, dtype=bool)
    values = kernel.tile(rows, others, problem.bandwidth) - problem.shift
    values = jnp.where(on_diagonal, 0, values)
    product = jnp.dot(values, right, precision=lax.Precision.HIGHEST)

    ones = left[:, -1]
    within = jnp.sum(left * product, axis=0)
    across = jnp.dot(ones, product, precision=lax.Precision.HIGHEST)  # 1ᵀK S_j
    diagonal = jax.vmap(kernel.pair, in_axes=(0, 0, None))(rows, rows, problem.bandwidth) - problem.shift
    # S_iᵀK 1 belongs to the transposed tile, which is not visited; the other two are no sums over pairs.
    back, x_diagonal, size = jnp.dot(jnp.stack([product[:, -1], diagonal, ones]), left, precision=lax.Precision.HIGHEST)
    once = (i == j).astype(rows.dtype)
    twice = 1 - once
    return TileSums((1 + twice) * within, across + twice * back, once * x_diagonal, once * size)


def _block(problem: Problem, index: Any) -> tuple[Float[Array, "t d"], Float[Array, "t C1"]]:
    """A block's rows, and its columns with one of ones; padding has 0 in all of them, so it counts nowhere."""
    rows, columns = (
        lax.dynamic_index_in_dim(array, index, keepdims=False) for array in (problem.blocks, problem.columns)
    )
    t = rows.shape[0]
    ones = (index * t + jnp.arange(t) < problem.count).astype(jnp.int8)[:, None]
    return rows, jnp.concatenate([columns * ones, ones], axis=1).astype(rows.dtype)


def _mean_off_diagonal(
    rows: Float[Array, "N d"], count: Any, bandwidth: Float[Array, " k"], kernel: Kernel
) -> Float[Array, ""]:
    size = max(2, min(SHIFT_ROWS, rows.shape[0] // 4))
    # Spread over the whole sample; a repeated row (where count < size) is not a pair.
    chosen = jnp.minimum(jnp.arange(size) * jnp.maximum(count // size, 1), count - 1)
    values = kernel.tile(rows[chosen], rows[chosen], bandwidth)
    different = chosen[:, None] != chosen[None, :]
    return jnp.sum(jnp.where(different, values, 0)) / jnp.sum(different)
