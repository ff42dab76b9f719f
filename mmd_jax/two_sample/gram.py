"""The engine: streams the Gram matrix of the pooled rows in tiles, for all kernels and columns at once, never storing it.

K is symmetric, so one half of the tiles is visited. Kernels and bandwidths share each tile's distances. What a visit
adds up is a function of the tile, a `Reduce`; there are three:

    quadratic_forms   diag(SᵀKS), SᵀK1 for the columns S [N, C]: one split of the rows into X (1) and Y (0) each
    block_sums        sums of K between bins of rows: whatever permutes whole bins needs no more
    row_sums          K S for few columns S, a row each: witness functions and variances

K has a zero diagonal here, and a constant is subtracted from it elsewhere (the estimate of its mean): the unbiased
statistic does not change, and float32 sums of numbers around 0 keep what sums of numbers around the mean would lose.
Sums over tiles are compensated, as there are hundreds of tiles. Memory is tile² + N·C, also for derivatives, where each
tile is computed again. On a mesh of devices each visits its share of the tiles.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmd_jax.two_sample.kernels import DOTS, Dot, Kernel, Precision, dot_highest
from mmd_jax.two_sample.pooled import Pooled

# Rows that the shift is estimated from: its error is then far below the spread of the kernel values.
SHIFT_ROWS = 256


class Spec(NamedTuple):
    """What is static about a visit of the tiles.

    Attributes:
      kernels: those that share the visit.
      precision: of the products.
      mesh: the devices that share the tiles, whatever its axes; none: the default device.
    """

    kernels: tuple[Kernel, ...]
    precision: Precision = "highest"
    mesh: Mesh | None = None

    @property
    def dot(self) -> Dot:
        return DOTS[self.precision]


class Problem(NamedTuple):
    """What every tile needs.

    Attributes:
      blocks: rows, centred where the kernels allow. Shape [b, t, d].
      columns: what the `Reduce` wants to know of the rows, a tree of arrays of shape [b, t, ...].
      count: rows that are not padding. Shape [].
      bandwidths: for each kernel, its grid of bandwidths. Shapes [g, k].
      shifts: for each kernel and each point of its grid, what is subtracted. Shapes [g].
    """

    blocks: Float[Array, "b t d"]
    columns: Any
    count: Any
    bandwidths: tuple[Float[Array, "_ _"], ...]
    shifts: tuple[Float[Array, " _"], ...]


class Tile(NamedTuple):
    """One tile of one kernel's Gram matrix.

    Attributes:
      values: less the shift; 0 on the diagonal of the whole matrix. Padding is not 0. Shape [t, t].
      diagonal: k(x, x), less the shift, of the left rows. Shape [t].
      i: number of the left block of rows.
      j: number of the right one.
      left: the left block's columns. Shapes [t, ...].
      right: the right block's.
      left_present: 1 for rows, 0 for padding. Shape [t].
      right_present: the same on the right.
    """

    values: Float[Array, "t t"]
    diagonal: Float[Array, " t"]
    i: Any
    j: Any
    left: Any
    right: Any
    left_present: Float[Array, " t"]
    right_present: Float[Array, " t"]


# (tile, dot) -> tree of arrays, which are summed over the tiles
Reduce = Callable[[Tile, Dot], Any]


class Progress(NamedTuple):
    """Where a visit of the tiles stands: for each kernel a tree of sums with a leading axis [g].

    Attributes:
      sums: over the tiles visited so far.
      excess: what rounding added to them too much (Kahan's compensation), still to be taken off.
    """

    sums: tuple[Any, ...]
    excess: tuple[Any, ...]


def visit_all(problem: Problem, spec: Spec, reduce: Reduce) -> Any:
    """The sums of `reduce` over all tiles, for every kernel and bandwidth: a tree with a leading axis [K].

    K counts the points of the first kernel's grid, then those of the second, … Where the problem's count is a plain
    integer, the number of tiles is static and there is a reverse derivative.
    """
    num_tiles = count_tiles(problem.count, problem.blocks.shape[1])
    progress = accumulate(initial(problem, spec, reduce), 0, num_tiles, problem, spec, reduce)
    return finish(progress)


def prepare(pooled: Pooled, columns: Any, bandwidths: tuple[Array, ...], spec: Spec) -> Problem:
    """Centre the rows where that changes no MMD, round them to the precision, and estimate the shifts.

    Args:
      pooled: the rows.
      columns: a tree of arrays of shape [N with padding, ...].
      bandwidths: for each kernel, its grid. Shapes [g, k].
      spec: kernels and precision.
    """
    blocks, count = jnp.asarray(pooled.blocks), pooled.count
    b, t, d = blocks.shape
    # ‖a‖² + ‖b‖² − 2ab loses what the rows have in common.
    if all(kernel.translation_invariant for kernel in spec.kernels):
        blocks = blocks - jnp.sum(blocks, axis=(0, 1), keepdims=True) / count
    # Rounded before they are squared, or ‖a‖² + ‖b‖² − 2ab would not be a distance.
    if spec.precision != "highest":
        mantissa = {"tf32": 10, "bfloat16": 7}[spec.precision]
        blocks = lax.reduce_precision(blocks, exponent_bits=8, mantissa_bits=mantissa)
    shifts = tuple(
        lax.stop_gradient(_mean_off_diagonal(blocks.reshape(b * t, d), count, grid, kernel))
        for kernel, grid in zip(spec.kernels, bandwidths, strict=True)
    )
    columns = jax.tree.map(lambda column: column.reshape(b, t, *column.shape[1:]), columns)
    return Problem(blocks, columns, count, bandwidths, shifts)


def count_tiles(count: Any, tile: int) -> Any:
    """How many tiles on and above the diagonal hold rows that are not padding."""
    b = -(-count // tile)
    return b * (b + 1) // 2


def initial(problem: Problem, spec: Spec, reduce: Reduce) -> Progress:
    """Nothing visited yet."""
    shapes = jax.eval_shape(lambda problem: _visit(0, problem, spec, reduce), problem)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Progress(nothing, nothing)


def accumulate(progress: Progress, first: Any, last: Any, problem: Problem, spec: Spec, reduce: Reduce) -> Progress:
    """Add tiles first, …, last − 1. Plain integers give the loop a reverse derivative, traced ones do not."""
    mesh = spec.mesh
    if mesh is None:
        return _accumulate(progress, first, last, problem, spec, reduce)
    axes = mesh.axis_names

    def on_device(first: Any, last: Any, problem: Problem) -> Progress:
        start, end = share_of(lax.axis_index(axes), mesh.size, first, last)
        nothing = initial(problem, spec, reduce)
        return lax.psum(_accumulate(nothing, start, end, problem, spec, reduce), axes)

    everywhere = PartitionSpec()
    # Carries of the loop start equal on all devices and end different; there is nothing for a check to find.
    shared = jax.shard_map(
        on_device, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )(jnp.asarray(first, jnp.int32), jnp.asarray(last, jnp.int32), problem)  # fmt: skip
    return jax.tree.map(jnp.add, progress, shared)


def share_of(device: Any, num_devices: int, first: Any, last: Any) -> tuple[Any, Any]:
    """The range of tiles that one device visits: equal shares, but for one tile."""
    each, more = jnp.divmod(last - first, num_devices)
    return first + each * device + jnp.minimum(device, more), first + each * (device + 1) + jnp.minimum(
        device + 1, more
    )


def finish(progress: Progress) -> Any:
    """The sums, one leading axis for all kernels and bandwidths."""
    compensated = jax.tree.map(jnp.subtract, progress.sums, progress.excess)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *compensated)


def _accumulate(progress: Progress, first: Any, last: Any, problem: Problem, spec: Spec, reduce: Reduce) -> Progress:
    one_tile = jax.checkpoint(partial(_visit, spec=spec, reduce=reduce))  # else reverse mode keeps every tile

    def add(index: Any, progress: Progress) -> Progress:
        # Hundreds of tiles: without compensation, float32 would lose ten times as much here as within the tiles.
        terms = jax.tree.map(jnp.subtract, one_tile(index, problem), progress.excess)
        sums = jax.tree.map(jnp.add, progress.sums, terms)
        excess = jax.tree.map(lambda new, old, term: (new - old) - term, sums, progress.sums, terms)
        return Progress(sums, excess)

    return lax.fori_loop(first, last, add, progress)


def _visit(index: Any, problem: Problem, spec: Spec, reduce: Reduce) -> tuple[Any, ...]:
    """One tile's part. Tiles are numbered along wrapped diagonals: (0, 0), (1, 1), …, (0, 1), (1, 2), …, (b − 1, 0), …

    So a linear index needs no root to become a pair (i, j), whatever the number of blocks, and ranges of it can be
    handed out. Wrapping visits (b − 1, 0) for (0, b − 1), the same tile transposed.
    """
    t, dtype = problem.blocks.shape[1], problem.blocks.dtype
    b = -(-problem.count // t)
    i = lax.rem(index, b)
    j = lax.rem(i + lax.div(index, b), b)
    (rows, left), (others, right) = (
        jax.tree.map(
            lambda array, at=at: lax.dynamic_index_in_dim(array, at, keepdims=False), (problem.blocks, problem.columns)
        )
        for at in (i, j)
    )
    left_present, right_present = ((at * t + jnp.arange(t) < problem.count).astype(dtype) for at in (i, j))
    on_diagonal = (i == j) & jnp.eye(t, dtype=bool)
    comparisons = {
        compare: compare(rows, others, spec.dot) for compare in dict.fromkeys(kernel.compare for kernel in spec.kernels)
    }

    def one(kernel: Kernel, bandwidth: Array, shift: Array) -> Any:
        values = jnp.where(on_diagonal, 0, kernel.value(comparisons[kernel.compare], bandwidth) - shift)
        diagonal = jax.vmap(kernel.pair, in_axes=(0, 0, None))(rows, rows, bandwidth) - shift
        return reduce(Tile(values, diagonal, i, j, left, right, left_present, right_present), spec.dot)

    def grid(kernel: Kernel, bandwidths: Array, shifts: Array) -> Any:
        if len(bandwidths) == 1:
            return jax.tree.map(lambda leaf: leaf[None], one(kernel, bandwidths[0], shifts[0]))
        # One after the other: a tile each would not stay in the cache.
        return lax.map(lambda point: one(kernel, *point), (bandwidths, shifts))

    return tuple(map(grid, spec.kernels, problem.bandwidths, problem.shifts))


def _mean_off_diagonal(
    rows: Float[Array, "N d"], count: Any, bandwidths: Float[Array, "g k"], kernel: Kernel
) -> Float[Array, " g"]:
    size = max(2, min(SHIFT_ROWS, rows.shape[0] // 4))
    # Spread over the whole sample; a repeated row (where count < size) is not a pair.
    chosen = jnp.minimum(jnp.arange(size) * jnp.maximum(count // size, 1), count - 1)
    compared = kernel.compare(rows[chosen], rows[chosen], dot_highest)
    different = chosen[:, None] != chosen[None, :]

    def mean(bandwidth: Array) -> Array:
        return jnp.sum(jnp.where(different, kernel.value(compared, bandwidth), 0)) / jnp.sum(different)

    return jax.vmap(mean)(bandwidths)
