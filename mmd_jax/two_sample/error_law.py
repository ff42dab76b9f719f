"""How the unbiased estimate of MMD² is distributed when the true MMD is δ, for any δ, from one pass over the pairs.

Let a = μ_P − μ_Q be the true difference of the mean embeddings, ‖a‖ = δ, and e the error of its estimate. Then

    MMD²ᵤ = δ² + 2δ⟨u, e⟩ + (‖e‖² − E‖e‖²),   u = a / δ

whatever δ is: the normal law far from 0 and the degenerate one at 0 are its two ends. A multiplier bootstrap draws e: every row
gets a random sign W, and e_b = Σ (W_i − W̄)φ(x_i) / m − Σ (W_j − W̄)φ(y_j) / n. So ‖e_b‖² is a quadratic form of the Gram
matrix and ⟨â, e_b⟩ a sum over its rows. Near 0 the direction û = â / ‖â‖ is mostly noise: there the error along it is taken
to be as large as along the worst direction, the first eigenvector of the covariance of e.

Where rows come in groups, all rows of a group get the same sign. The pairs within groups then drop out of ‖e_b‖² − E‖e_b‖²,
and with ‖â‖² − E‖e_b‖² for the estimate, out of that too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Int8, Key

from mmd_jax.two_sample.gram import Problem, Reduce, Spec, Tile, prepare, visit_all
from mmd_jax.two_sample.kernels import Dot, Kernel, dot_highest
from mmd_jax.two_sample.pooled import Pooled
from mmd_jax.two_sample.variance import (
    Moments,
    PairSums,
    Variance,
    as_moments,
    pair_moments,
    side_columns,
    variance_of_moments,
)

# Rows of each sample that the worst direction is estimated from, and of how many groups; with fewer it only seems worse.
DIRECTION_ROWS = 512
DIRECTION_GROUPS = 64
POWER_STEPS = 30
# How many standard errors of the estimate the direction is given away for noise. From simulation (docs/two_sample.md).
CAUTION = 0.5


class ErrorLaw(NamedTuple):
    """The law of the unbiased estimate at any true MMD, as B draws.

    Attributes:
      mmd2: the estimate itself, unbiased; with groups, up to the noise of a mean over the draws. Shape [].
      biased: the biased one of MMD², ‖â‖². Shape [].
      scale: standard deviation of ⟨u, e⟩, never too small by much. Shape [].
      linear: draws of ⟨u, e⟩ / scale, of mean 0 and variance 1. Shape [B].
      noise: draws of ‖e‖² − E‖e‖². Shape [B].
      squared: draws of ‖e‖². Shape [B].
      norms: draws of ⟨μ_P, e_X⟩ + ⟨μ_Q, e_Y⟩, the half of the error of ‖μ_P‖² + ‖μ_Q‖². Shape [B].
      worst: the largest variance of e in any direction. Shape [].
      variance: of the estimate, where the truth is as estimated.
      moments: of the two samples.
      shift: what was subtracted from kernel values in `moments`. Shape [].
    """

    mmd2: Float[Array, ""]
    biased: Float[Array, ""]
    scale: Float[Array, ""]
    linear: Float[Array, " B"]
    noise: Float[Array, " B"]
    squared: Float[Array, " B"]
    norms: Float[Array, " B"]
    worst: Float[Array, ""]
    variance: Variance
    moments: Moments
    shift: Float[Array, ""]


def draws_at(law: ErrorLaw, mmd: Any) -> Float[Array, " B"]:
    """Draws of the unbiased estimate where the true MMD is `mmd`."""
    return mmd**2 + 2 * mmd * law.scale * law.linear + law.noise


def error_law(
    key: Key[Array, ""],
    pooled: Pooled,
    bandwidth: Float[Array, " k"],
    spec: Spec,
    num: int,
    groups: Int[Array, " N"] | None = None,
) -> ErrorLaw:
    """Draw the errors and sum up all that the law needs, in one pass.

    Args:
      key: consumed.
      pooled: the rows, at least four of each sample.
      bandwidth: of the one kernel of `spec`. Shape [k].
      spec: kernel, precision, devices.
      num: B.
      groups: of each row, whose rows depend on each other, numbered 0 … G − 1; or none. Shape [N].
    """
    sizes = (pooled.m, pooled.n)
    sides = side_columns(pooled, sizes)
    signs = random_signs(key, pooled.capacity, num)
    rows = jnp.sum(sides, axis=0)
    units = rows
    if groups is not None:
        signs = signs[groups]
        units = jnp.sum(jnp.zeros_like(sides).at[groups].max(sides), axis=0)
    # Centred, the signs have one degree of freedom less than there are of them.
    factor = jnp.sqrt(units / (units - 1))
    weights = jnp.dot(sides, factor / rows, precision=lax.Precision.HIGHEST)
    problem = prepare(pooled, {"sides": sides, "weights": weights, "signs": signs}, (bandwidth[None],), spec)
    sums = visit_all(problem, spec, _drawn(problem.blocks.shape[0]))
    forms, pairs = jax.tree.map(lambda leaf: leaf[0], sums)
    found = as_moments(pairs, sides, sizes)
    kernel, shift = spec.kernels[0], problem.shifts[0][0]
    flat = problem.blocks.reshape(pooled.capacity, -1)
    diagonal = jax.vmap(kernel.pair, in_axes=(0, 0, None))(flat, flat, bandwidth) - shift
    worst = _worst_variance(flat, _chosen(pooled, groups), rows, bandwidth, kernel)
    return _assemble(_Drawn(forms, found, diagonal, weights, factor, worst), problem, shift, groups is not None)


def random_signs(key: Key[Array, ""], capacity: int, num: int) -> Int8[Array, "N B"]:
    """Independent −1 and 1, one column a draw. A row's signs depend on its place, not on the capacity."""
    bits = jax.random.bits(key, (capacity, -(-num // 8)), jnp.uint8)
    each = lax.shift_right_logical(bits[:, :, None], jnp.arange(8, dtype=jnp.uint8)[None, None, :]) & 1
    return (2 * each.reshape(capacity, -1)[:, :num].astype(jnp.int8) - 1).astype(jnp.int8)


def _drawn(num_blocks: int) -> Reduce:
    """The quadratic forms of the weighted signs, and the moments of the samples."""
    moments = pair_moments(num_blocks)

    def reduce(tile: Tile, dot: Dot) -> tuple[Float[Array, " B"], PairSums]:
        left, right = (
            columns["signs"].astype(tile.values.dtype) * (columns["weights"] * present)[:, None]
            for columns, present in ((tile.left, tile.left_present), (tile.right, tile.right_present))
        )
        twice = (tile.i != tile.j).astype(left.dtype)
        forms = (1 + twice) * jnp.sum(left * dot(tile.values, right), axis=0)
        return forms, moments(tile._replace(left=tile.left["sides"], right=tile.right["sides"]), dot)

    return reduce


class _Drawn(NamedTuple):
    """What the pass over the pairs gave; K has no diagonal.

    Attributes:
      forms: wᵀKw of the weighted signs, before they are centred. Shape [B].
      moments: of the two samples.
      diagonal: k(x, x), less the shift. Shape [N].
      weights: of the signs. Shape [N].
      factor: weights · rows of the sample. Shape [2].
      worst: the largest variance of e in any direction. Shape [].
    """

    forms: Float[Array, " B"]
    moments: Moments
    diagonal: Float[Array, " N"]
    weights: Float[Array, " N"]
    factor: Float[Array, "2"]
    worst: Float[Array, ""]


def _assemble(drawn: _Drawn, problem: Problem, shift: Float[Array, ""], grouped: bool) -> ErrorLaw:
    found, weights, diagonal, worst = drawn.moments, drawn.weights, drawn.diagonal, drawn.worst
    sides, n = found.sides, found.sizes
    # ⟨φ_i, μ̂_g⟩ with the row itself, and without.
    with_self = (found.rows + sides * diagonal[:, None]) / n[None, :]
    without = found.rows / (n[None, :] - sides)
    witness = without[:, 0] - without[:, 1]
    # Signs are symmetric, so those of Y carry the minus of e = e_X − e_Y already.
    of_norms = sides[:, 0] * without[:, 0] - sides[:, 1] * without[:, 1]
    per_row = jnp.concatenate(
        [sides / n[None, :], weights[:, None] * jnp.stack([*with_self.T, witness, of_norms], 1)], 1
    )
    averages = jnp.dot(sides.T / n[:, None], jnp.stack([witness, of_norms], 1), precision=lax.Precision.HIGHEST)
    mean, other, with_x, with_y, linear, norms = _times_signs(per_row, problem)
    a, b = drawn.factor[0] * mean, drawn.factor[1] * other
    means = jnp.dot(sides.T, with_self, precision=lax.Precision.HIGHEST) / n[:, None]  # ⟨μ̂_g, μ̂_h⟩
    squared = drawn.forms + jnp.sum(weights**2 * diagonal)
    squared += -2 * (a * with_x + b * with_y) + a**2 * means[0, 0] + b**2 * means[1, 1] + 2 * a * b * means[0, 1]
    # Centred signs: Σ w(W_i − W̄)h_i.
    linear = linear - a * averages[0, 0] - b * averages[1, 0]
    norms = norms - a * averages[0, 1] - b * averages[1, 1]

    biased = means[0, 0] + means[1, 1] - 2 * means[0, 1]
    noise = squared - jnp.mean(squared)
    variance = variance_of_moments(found)
    if grouped:
        # â is â = a + e itself, so ⟨â, e_b⟩ varies by ‖Σ_e‖² more than ⟨a, e_b⟩ does; 2‖Σ_e‖² is the variance of ‖e_b‖².
        degenerate = jnp.var(squared)
        along = jnp.var(linear) - degenerate / 2
        variance = Variance(biased - jnp.mean(squared), 4 * along + degenerate, 4 * along, degenerate)
    along = jnp.maximum(variance.linear, 0) / 4
    doubt = CAUTION * worst * jnp.sqrt(4 * along + jnp.var(squared))
    estimate = jnp.maximum(variance.mmd2, 0)
    scale2 = jnp.minimum(worst * estimate, along + doubt) / jnp.where(estimate > 0, estimate, 1)
    scale2 = jnp.where(estimate > 0, scale2, worst)
    spread = jnp.std(linear)
    standard = (linear - jnp.mean(linear)) / jnp.where(spread > 0, spread, 1)
    return ErrorLaw(
        variance.mmd2, biased, jnp.sqrt(scale2), standard, noise, squared, norms, worst, variance, found, shift
    )


def _times_signs(per_row: Float[Array, "N c"], problem: Problem) -> Float[Array, "c B"]:
    """per_rowᵀ signs, block by block: the signs as floats would take four times their memory."""
    signs = problem.columns["signs"]
    blocks = per_row.reshape(*signs.shape[:2], -1)

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        values, signs = block
        return total + jnp.dot(values.T, signs.astype(values.dtype), precision=lax.Precision.HIGHEST), None

    return lax.scan(add, jnp.zeros((per_row.shape[1], signs.shape[2]), per_row.dtype), (blocks, signs))[0]


class _Chosen(NamedTuple):
    """The rows of each sample that stand for all of it.

    Attributes:
      rows: which. Shape [2, s].
      used: whether there are so many. Shape [2, s].
      stands_for: of how many rows of its own group each is one. Shape [2].
      groups: of the chosen rows; none: each is one of its own. Shape [2, s].
    """

    rows: Int[Array, "2 s"]
    used: Bool[Array, "2 s"]
    stands_for: Float[Array, "2"]
    groups: Int[Array, "2 s"] | None


def _chosen(pooled: Pooled, groups: Int[Array, " N"] | None) -> _Chosen:
    """Rows that are spread over the whole sample; with groups whole ones, or every so many rows of large ones."""
    capacity, dtype = pooled.capacity, pooled.blocks.dtype
    size = min(DIRECTION_ROWS, capacity)
    place, row = jnp.arange(size), jnp.arange(capacity)
    starts, counts = jnp.asarray([0, pooled.m], jnp.int32), jnp.asarray([pooled.m, pooled.n], jnp.int32)
    if groups is None:
        rows = starts[:, None] + place[None, :] * jnp.maximum(counts // size, 1)[:, None]
        return _Chosen(jnp.minimum(rows, capacity - 1), place[None, :] < counts[:, None], jnp.ones(2, dtype), None)
    side = (row >= pooled.m).astype(jnp.int32) + (row >= pooled.count)
    # Neighbours by number may be alike; odd, so that no two groups get the same bits.
    mixed = groups.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    _, _, order = lax.sort((side, mixed, row), num_keys=2)
    in_sample = jnp.zeros((2, capacity), jnp.int32).at[jnp.minimum(side, 1), groups].max((side < 2).astype(jnp.int32))
    wanted = DIRECTION_GROUPS * counts // (jnp.sum(in_sample, axis=1) * size)
    step = jnp.clip(wanted, 1, -(-counts // size))
    places = place[None, :] * step[:, None]
    rows = order[jnp.minimum(starts[:, None] + places, capacity - 1)]
    return _Chosen(rows, places < counts[:, None], step.astype(dtype), groups[rows])


def _worst_variance(
    rows: Float[Array, "N d"], chosen: _Chosen, counts: Float[Array, "2"], bandwidth: Float[Array, " k"], kernel: Kernel
) -> Float[Array, ""]:
    """The largest eigenvalue of the covariance of e, Σ_P / m + Σ_Q / n for independent rows, by power iteration."""
    size, dtype = chosen.rows.shape[1], rows.dtype
    some = rows[chosen.rows.reshape(-1)]
    gram = kernel.value(kernel.compare(some, some, dot_highest), bandwidth)
    sides = jax.scipy.linalg.block_diag(*chosen.used.astype(dtype)[:, None])
    used = jnp.sum(sides, axis=1)
    units, same = used, None
    if chosen.groups is not None:
        # Numbers differ between the samples, but for those of rows that are not used.
        groups = chosen.groups.reshape(-1)
        same = (groups[:, None] == groups[None, :]).astype(dtype) * jnp.sum(sides, axis=0)[None, :]
        units = dot_highest(sides, (1 / jnp.maximum(jnp.sum(same, axis=1), 1))[:, None])[:, 0]
    scale = chosen.stands_for * units / (counts * used * (units - 1))
    weights = jnp.sum(sides * jnp.sqrt(scale)[:, None], axis=0)
    gram = gram - jnp.mean(gram)

    def apply(vector: Array) -> Array:
        # Centred on both sides within each sample.
        def centre(vector: Array) -> Array:
            return vector - (dot_highest(sides, vector[:, None])[:, 0] / used) @ sides

        spread = centre(weights * vector)
        moved = weights * centre(dot_highest(gram, spread[:, None])[:, 0])
        # A group's rows err together.
        return moved if same is None else dot_highest(same, moved[:, None])[:, 0]

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        vector, _ = state
        moved = apply(vector)
        length = jnp.linalg.norm(moved)
        return moved / jnp.where(length > 0, length, 1), length

    start = jnp.cos(1.0 + jnp.arange(2 * size, dtype=dtype) ** 2)
    start = start / jnp.linalg.norm(start)
    return lax.fori_loop(0, POWER_STEPS, step, (start, jnp.zeros((), dtype)))[1]
