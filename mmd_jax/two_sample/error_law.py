"""How the unbiased estimate of MMD² is distributed when the true MMD is δ, for any δ, from one pass over the pairs.

Let a = μ_P − μ_Q be the true difference of the mean embeddings, ‖a‖ = δ, and e the error of its estimate. Then

    MMD²ᵤ = δ² + 2δ⟨u, e⟩ + (‖e‖² − E‖e‖²),   u = a / δ

whatever δ is: the normal law far from 0 and the degenerate one at 0 are its two ends. A multiplier bootstrap draws e: every row
gets a random sign W, and e_b = Σ (W_i − W̄)φ(x_i) / m − Σ (W_j − W̄)φ(y_j) / n. So ‖e_b‖² is a quadratic form of the Gram
matrix and ⟨â, e_b⟩ a sum over its rows. Near 0 the direction û = â / ‖â‖ is mostly noise: there the error along it is taken
to be as large as along the worst direction, the first eigenvector of the covariance of e.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int8, Key

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

# Rows of each sample that the worst direction is estimated from; with fewer it only seems worse.
DIRECTION_ROWS = 512
POWER_STEPS = 30
# How many standard errors of the estimate the direction is given away for noise. From simulation (docs/two_sample.md).
CAUTION = 0.5


class ErrorLaw(NamedTuple):
    """The law of the unbiased estimate at any true MMD, as B draws.

    Attributes:
      mmd2: the estimate itself, unbiased. Shape [].
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


def error_law(key: Key[Array, ""], pooled: Pooled, bandwidth: Float[Array, " k"], spec: Spec, num: int) -> ErrorLaw:
    """Draw the errors and sum up all that the law needs, in one pass.

    Args:
      key: consumed.
      pooled: the rows, at least four of each sample.
      bandwidth: of the one kernel of `spec`. Shape [k].
      spec: kernel, precision, devices.
      num: B.
    """
    sizes = (pooled.m, pooled.n)
    sides = side_columns(pooled, sizes)
    m, n = (jnp.asarray(size, jnp.int32).astype(sides.dtype) for size in sizes)
    # The centred signs have m − 1 degrees of freedom.
    weights = jnp.sum(sides * jnp.stack([(m * (m - 1)) ** -0.5, (n * (n - 1)) ** -0.5])[None, :], axis=1)
    signs = random_signs(key, pooled.capacity, num)
    problem = prepare(pooled, {"sides": sides, "weights": weights, "signs": signs}, (bandwidth[None],), spec)
    sums = visit_all(problem, spec, _drawn(problem.blocks.shape[0]))
    forms, pairs = jax.tree.map(lambda leaf: leaf[0], sums)
    found = as_moments(pairs, sides, sizes)
    kernel, shift = spec.kernels[0], problem.shifts[0][0]
    rows = problem.blocks.reshape(pooled.capacity, -1)
    diagonal = jax.vmap(kernel.pair, in_axes=(0, 0, None))(rows, rows, bandwidth) - shift
    return _assemble(forms, found, diagonal, weights, problem, _worst_variance(rows, m, n, bandwidth, kernel), shift)


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


def _assemble(
    forms: Float[Array, " B"],
    found: Moments,
    diagonal: Float[Array, " N"],
    weights: Float[Array, " N"],
    problem: Problem,
    worst: Float[Array, ""],
    shift: Float[Array, ""],
) -> ErrorLaw:
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
    factor = jnp.sqrt(n / (n - 1))
    a, b = factor[0] * mean, factor[1] * other
    means = jnp.dot(sides.T, with_self, precision=lax.Precision.HIGHEST) / n[:, None]  # ⟨μ̂_g, μ̂_h⟩
    squared = forms + jnp.sum(weights**2 * diagonal)
    squared += -2 * (a * with_x + b * with_y) + a**2 * means[0, 0] + b**2 * means[1, 1] + 2 * a * b * means[0, 1]
    # Centred signs: Σ w(W_i − W̄)h_i.
    linear = linear - factor[0] * mean * averages[0, 0] - factor[1] * other * averages[1, 0]
    norms = norms - factor[0] * mean * averages[0, 1] - factor[1] * other * averages[1, 1]

    variance = variance_of_moments(found)
    biased = means[0, 0] + means[1, 1] - 2 * means[0, 1]
    noise = squared - jnp.mean(squared)
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


def _worst_variance(
    rows: Float[Array, "N d"], m: Float[Array, ""], n: Float[Array, ""], bandwidth: Float[Array, " k"], kernel: Kernel
) -> Float[Array, ""]:
    """The largest eigenvalue of Σ_P / m + Σ_Q / n, by power iteration on a part of the rows."""
    size = min(DIRECTION_ROWS, rows.shape[0])
    place = jnp.arange(size)

    def of_sample(start: Any, count: Array) -> tuple[Array, Bool[Array, " s"]]:
        whole = count.astype(jnp.int32)
        return start + place * jnp.maximum(whole // size, 1), place < whole

    (first, in_x), (second, in_y) = of_sample(0, m), of_sample(m.astype(jnp.int32), n)
    chosen = rows[jnp.minimum(jnp.concatenate([first, second]), rows.shape[0] - 1)]
    gram = kernel.value(kernel.compare(chosen, chosen, dot_highest), bandwidth)
    none = jnp.zeros(size, rows.dtype)
    sides = jnp.stack(
        [jnp.concatenate([in_x.astype(rows.dtype), none]), jnp.concatenate([none, in_y.astype(rows.dtype)])]
    )
    used = jnp.sum(sides, axis=1)
    weights = jnp.sum(sides / jnp.sqrt(jnp.stack([m, n]) * (used - 1))[:, None], axis=0)
    gram = gram - jnp.mean(gram)

    def apply(vector: Array) -> Array:
        # Centred on both sides within each sample.
        def centre(vector: Array) -> Array:
            return vector - (dot_highest(sides, vector[:, None])[:, 0] / used) @ sides

        spread = centre(weights * vector)
        return weights * centre(dot_highest(gram, spread[:, None])[:, 0])

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        vector, _ = state
        moved = apply(vector)
        length = jnp.linalg.norm(moved)
        return moved / jnp.where(length > 0, length, 1), length

    start = jnp.cos(1.0 + jnp.arange(2 * size, dtype=rows.dtype) ** 2)
    start = start / jnp.linalg.norm(start)
    return lax.fori_loop(0, POWER_STEPS, step, (start, jnp.zeros((), rows.dtype)))[1]
