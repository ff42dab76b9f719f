"""How the unbiased estimate of MMD² is distributed when the true MMD is δ, for any δ, from one pass over the pairs.

Let a = μ_P − μ_Q be the true difference of the mean embeddings, ‖a‖ = δ, and e the error of its estimate. Then

    MMD²ᵤ = δ² + 2δ⟨u, e⟩ + (‖e‖² − E‖e‖²),   u = a / δ

whatever δ is: the normal law far from 0 and the degenerate one at 0 are its two ends. A multiplier bootstrap draws e: every row
gets a random sign W, and e_b = Σ (W_i − W̄)φ(x_i) / m − Σ (W_j − W̄)φ(y_j) / n. So ‖e_b‖² is a quadratic form of the Gram
matrix and ⟨â, e_b⟩ a sum over its rows. Near 0 the direction û = â / ‖â‖ is mostly noise: there the error along it is taken
to be as large as along the worst direction, the first eigenvector of the covariance of e.

Where rows come in groups, all rows of a group get the same sign, and the group errs by how far it is from the mean of the
other groups (the jackknife's error, and so not too small where one group is large). The estimate of MMD², and the direction,
leave out the pairs within groups.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Int8, Key

from mmd_jax.two_sample.checks import groups_are_apart
from mmd_jax.two_sample.direction import worst_variance
from mmd_jax.two_sample.gram import Problem, Reduce, Spec, Tile, prepare, visit_all
from mmd_jax.two_sample.kernels import Dot
from mmd_jax.two_sample.pooled import Pooled
from mmd_jax.two_sample.reductions import row_sums
from mmd_jax.two_sample.variance import (
    Moments,
    PairSums,
    Variance,
    as_moments,
    pair_moments,
    side_columns,
    variance_of_moments,
)

# As good as so many groups of equal size, n² / Σ n_g², are needed to estimate a variance from.
FEWEST_GROUPS = 5
# How many standard errors of the estimate the direction is given away for noise. From simulation (docs/two_sample.md).
CAUTION = 0.5


class ErrorLaw(NamedTuple):
    """The law of the unbiased estimate at any true MMD, as B draws.

    Attributes:
      mmd2: the estimate itself, unbiased. NaN where traced groups are not what is asked for. Shape [].
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
    counts = jnp.sum(sides, axis=0)
    columns: dict[str, Array] = {"sides": sides, "signs": random_signs(key, pooled.capacity, num)}
    if groups is None:
        # Centred, the signs have one degree of freedom less than there are of them.
        weights = jnp.dot(sides, (counts * (counts - 1)) ** -0.5, precision=lax.Precision.HIGHEST)
        members = jnp.ones_like(weights)
    else:
        members = jnp.zeros_like(sides[:, 0]).at[groups].add(jnp.sum(sides, axis=1))[groups]
        weights = jnp.sum(sides / (counts[None, :] - sides * members[:, None]), axis=1)
        columns |= {"signs": columns["signs"][groups], "groups": groups}
    problem = prepare(pooled, columns | {"weights": weights}, (bandwidth[None],), spec)
    sums = visit_all(problem, spec, _drawn(problem.blocks.shape[0]))
    forms, own, pairs = jax.tree.map(lambda leaf: leaf[0], sums)
    kernel, shift = spec.kernels[0], problem.shifts[0][0]
    rows = problem.blocks.reshape(pooled.capacity, -1)
    diagonal = jax.vmap(kernel.pair, in_axes=(0, 0, None))(rows, rows, bandwidth) - shift
    worst = worst_variance(rows, pooled, weights, groups, members, bandwidth, kernel)
    own = jnp.zeros_like(weights) if groups is None else own.reshape(-1)
    law = _assemble(
        _Drawn(forms, as_moments(pairs, sides, sizes), diagonal, weights, members, own, worst),
        problem,
        shift,
        groups is not None,
    )
    if groups is None:
        return law
    good = groups_are_apart(groups, pooled) & jnp.all(counts**2 / (members @ sides) >= FEWEST_GROUPS)
    return law._replace(mmd2=jnp.where(good, law.mmd2, jnp.nan))


def random_signs(key: Key[Array, ""], capacity: int, num: int) -> Int8[Array, "N B"]:
    """Independent −1 and 1, one column a draw. A row's signs depend on its place, not on the capacity."""
    bits = jax.random.bits(key, (capacity, -(-num // 8)), jnp.uint8)
    each = lax.shift_right_logical(bits[:, :, None], jnp.arange(8, dtype=jnp.uint8)[None, None, :]) & 1
    return (2 * each.reshape(capacity, -1)[:, :num].astype(jnp.int8) - 1).astype(jnp.int8)


def _drawn(num_blocks: int) -> Reduce:
    """The quadratic forms of the weighted signs, each row's sum with the rest of its group, and the moments of the samples."""
    moments, sums_of_rows = pair_moments(num_blocks), row_sums(num_blocks)

    def reduce(tile: Tile, dot: Dot) -> tuple[Float[Array, " B"], Any, PairSums]:
        left, right = (
            columns["signs"].astype(tile.values.dtype) * (columns["weights"] * present)[:, None]
            for columns, present in ((tile.left, tile.left_present), (tile.right, tile.right_present))
        )
        twice = (tile.i != tile.j).astype(left.dtype)
        forms = (1 + twice) * jnp.sum(left * dot(tile.values, right), axis=0)
        own = None
        if "groups" in tile.left:
            same = tile.left["groups"][:, None] == tile.right["groups"][None, :]
            ones = jnp.ones((len(same), 1), left.dtype)
            own = sums_of_rows(tile._replace(values=jnp.where(same, tile.values, 0), left=ones, right=ones), dot)
        return forms, own, moments(tile._replace(left=tile.left["sides"], right=tile.right["sides"]), dot)

    return reduce


class _Drawn(NamedTuple):
    """What the pass over the pairs gave; K has no diagonal.

    Attributes:
      forms: wᵀKw of the weighted signs, before they are centred. Shape [B].
      moments: of the two samples.
      diagonal: k(x, x), less the shift. Shape [N].
      weights: of the signs. Shape [N].
      members: rows of each row's group. Shape [N].
      own: sum of each row's kernel values with the others of its group. Shape [N].
      worst: the largest variance of e in any direction. Shape [].
    """

    forms: Float[Array, " B"]
    moments: Moments
    diagonal: Float[Array, " N"]
    weights: Float[Array, " N"]
    members: Float[Array, " N"]
    own: Float[Array, " N"]
    worst: Float[Array, ""]


def _assemble(drawn: _Drawn, problem: Problem, shift: Float[Array, ""], grouped: bool) -> ErrorLaw:
    found, weights, diagonal, worst = drawn.moments, drawn.weights, drawn.diagonal, drawn.worst
    sides, n = found.sides, found.sizes
    # ⟨φ_i, μ̂_g⟩ with the row itself, and without it and its group.
    with_self = (found.rows + sides * diagonal[:, None]) / n[None, :]
    without = (found.rows - sides * drawn.own[:, None]) / (n[None, :] - sides * drawn.members[:, None])
    witness = without[:, 0] - without[:, 1]
    # Signs are symmetric, so those of Y carry the minus of e = e_X − e_Y already.
    of_norms = sides[:, 0] * without[:, 0] - sides[:, 1] * without[:, 1]
    per_row = weights[:, None] * jnp.concatenate([sides, with_self, jnp.stack([witness, of_norms], 1)], 1)
    averages = jnp.dot(sides.T / n[:, None], jnp.stack([witness, of_norms], 1), precision=lax.Precision.HIGHEST)
    # Σ w W of each side: what centring takes off.
    a, b, with_x, with_y, linear, norms = _times_signs(per_row, problem)
    means = jnp.dot(sides.T, with_self, precision=lax.Precision.HIGHEST) / n[:, None]  # ⟨μ̂_g, μ̂_h⟩
    squared = drawn.forms + jnp.sum(weights**2 * diagonal)
    squared += -2 * (a * with_x + b * with_y) + a**2 * means[0, 0] + b**2 * means[1, 1] + 2 * a * b * means[0, 1]
    linear = linear - a * averages[0, 0] - b * averages[1, 0]
    norms = norms - a * averages[0, 1] - b * averages[1, 1]

    biased = means[0, 0] + means[1, 1] - 2 * means[0, 1]
    noise = squared - jnp.mean(squared)
    variance = variance_of_moments(found)
    if grouped:
        totals = jnp.dot(sides.T, found.rows, precision=lax.Precision.HIGHEST)
        apart = (jnp.diagonal(totals) - drawn.own @ sides) / (n**2 - drawn.members @ sides)
        # â errs too, so ⟨â, e_b⟩ varies by ‖Σ_e‖² more than ⟨a, e_b⟩ does; 2‖Σ_e‖² is the variance of ‖e_b‖².
        degenerate = jnp.var(squared)
        along = jnp.var(linear) - degenerate / 2
        mmd2 = jnp.sum(apart) - 2 * totals[0, 1] / (n[0] * n[1])
        variance = Variance(mmd2, 4 * along + degenerate, 4 * along, degenerate)
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
