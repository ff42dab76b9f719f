"""Where a condition that changes once, changes: intervals, thresholds and sample sizes are all found so."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

# To the last bit of float32, over a range whose ends are a thousand times as far apart as the answer is from 0.
HALVINGS = 40


def bisect(enough: Callable[[Array], Any], low: Any, high: Any) -> tuple[Array, Array]:
    """The last argument known not to be enough, and the first known to be.

    Args:
      enough: false up to some argument, true from there on. Shape [] to [].
      low: where the search begins. Shape [].
      high: where it ends; what is enough nowhere gives this. Shape [].
    """

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        found = enough(middle)
        return jnp.where(found, low, middle), jnp.where(found, middle, high)

    return lax.fori_loop(0, HALVINGS, halve, (jnp.asarray(low), jnp.asarray(high)))
