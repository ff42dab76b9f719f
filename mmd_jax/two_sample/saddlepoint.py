"""Tail probabilities of weighted sums of χ² variables: the law of a degenerate statistic, by the saddlepoint approximation.

Reference: Kuonen, Saddlepoint approximations for distributions of quadratic forms in normal variables, Biometrika 1999.
"""

import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm
from jaxtyping import Float

from mmd_jax.two_sample.bisection import bisect


def quadratic_form_above(value: Float[Array, ""], weights: Float[Array, " s"]) -> Float[Array, ""]:
    """P(Σ w_i (Z_i² − 1) >= value) of independent standard normal Z_i, by the saddlepoint approximation."""
    low, high = _saddlepoints(weights)
    _, t = bisect(lambda t: _saddle(t, weights)[0] >= value, low, high)
    return _saddle(t, weights)[1]


def quadratic_form_quantile(share: Float[Array, ""], weights: Float[Array, " s"]) -> Float[Array, ""]:
    """The value above which Σ w_i (Z_i² − 1) lies with this probability."""
    low, high = _saddlepoints(weights)
    _, t = bisect(lambda t: _saddle(t, weights)[1] <= share, low, high)
    return _saddle(t, weights)[0]


def _saddlepoints(weights: Float[Array, " s"]) -> tuple[Array, Array]:
    """Between these the cumulants K(t) = Σ −½ log(1 − 2wt) − wt are finite."""
    return 0.5 / jnp.minimum(jnp.min(weights), -1e-6), 0.5 / jnp.maximum(jnp.max(weights), 1e-6)


def _saddle(t: Float[Array, ""], weights: Float[Array, " s"]) -> tuple[Array, Array]:
    """The value K'(t) whose saddlepoint is t, and the probability above it (Barndorff-Nielsen's form)."""
    rest = 1 - 2 * weights * t
    value = jnp.sum(2 * weights**2 * t / rest)
    curvature = jnp.sum(2 * (weights / rest) ** 2)
    cumulant = jnp.sum(-0.5 * jnp.log1p(-2 * weights * t) - weights * t)
    w = jnp.sign(t) * jnp.sqrt(jnp.maximum(2 * (t * value - cumulant), 0))
    # At the mean it is 0/0; its limit there holds to three digits as far as this.
    near = jnp.abs(w) < 0.02
    safe = jnp.where(near, 1, w)
    skewness = 8 * jnp.sum(weights**3) / jnp.sum(2 * weights**2) ** 1.5
    correction = jnp.where(near, skewness / 6, jnp.log(jnp.where(near, 1, t * jnp.sqrt(curvature) / safe)) / safe)
    return value, norm.sf(w + correction)
