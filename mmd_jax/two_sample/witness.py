"""Where do P and Q differ? The witness function: the function whose mean differs most between the two.

    f(z) = mean_i k(z, x_i) − mean_j k(z, y_j)

It is positive where P has more mass than Q, at the kernel's resolution, and negative where Q has more.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.gram import Spec, prepare, visit_all
from mmd_jax.two_sample.kernels import Kernel, dot_highest, gaussian
from mmd_jax.two_sample.pooled import Numbers, Pooled, all_finite, check_rows, is_traced, pool, stack
from mmd_jax.two_sample.reductions import row_sums


class Witness(NamedTuple):
    """The witness function at the samples' own rows.

    Attributes:
      x: at the rows of x, in squared kernel units. Shape [m].
      y: at the rows of y. Shape [n].
    """

    x: Float[Array, " m"]
    y: Float[Array, " n"]


class Places(NamedTuple):
    """The rows that show best where P and Q differ.

    Attributes:
      x: indices of the rows of x where P exceeds Q most, the clearest first. Shape [num], int32.
      y: indices of the rows of y where Q exceeds P most, the clearest first. Shape [num], int32.
      at_x: the witness function at these rows of x, falling; above 0 where P exceeds Q. Shape [num].
      at_y: the witness function at these rows of y, rising; below 0 where Q exceeds P. Shape [num].
    """

    x: Int[Array, " num"]
    y: Int[Array, " num"]
    at_x: Float[Array, " num"]
    at_y: Float[Array, " num"]


def witness(
    points: Numbers, x: Numbers, y: Numbers, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Float[Array, " p"]:
    """The witness function at any points.

        f(z) = mean_i k(z, x_i) − mean_j k(z, y_j)

    Its values at the samples' own rows are too large for x and too small for y, as each row is compared with itself too;
    `witness_at_samples` leaves it out. It is differentiable, and one pass over points × rows, in tiles.

    Args:
      points: z, shape [p, d], p >= 1.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      f, in squared kernel units. Shape [p]. NaN for bad traced values.

    Raises:
      ValueError: points that are not a matrix of finite numbers with the samples' features; bad samples or bandwidth
        (see `permutation_test`). TypeError: entries that are not real numbers.

    Example:
      >>> import numpy as np
      >>> x, y = np.array([[0.0], [0.0]]), np.array([[3.0], [3.0]])
      >>> [round(float(value), 2) for value in witness([[0.0], [1.5], [3.0]], x, y, bandwidth=1.0)]
      [0.99, 0.0, -0.99]

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 2.3.
    """
    traced = is_traced(points, x, y, bandwidth)
    pooled = pool(x, y, pad=not traced)
    at = _check_points(points, np.shape(x)[1])
    blocks = stack((at,), pad=not traced)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    return _at_points(blocks, pooled, bandwidth, kernel=kernel)[: at.shape[0]]


def witness_at_samples(
    x: Numbers, y: Numbers, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Witness:
    """The witness function at the samples' own rows, each compared with the others only.

        f(x_i) = Σ_{j≠i} k(x_i, x_j) / (m − 1) − mean_j k(x_i, y_j),   f(y_j) likewise

    So under P = Q its mean is 0 at every row, and always mean f(x_i) − mean f(y_j) = MMD²ᵤ. One symmetric streamed pass.

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      `Witness`. NaN for bad traced values.

    Raises:
      ValueError, TypeError: bad samples or bandwidth (see `permutation_test`).

    Example:
      >>> import numpy as np
      >>> at = witness_at_samples(np.array([[0.0], [1.0]]), np.array([[5.0], [6.0]]), bandwidth=1.0)
      >>> [round(float(value), 2) for value in (*at.x, *at.y)]
      [0.61, 0.61, -0.61, -0.61]

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 2.3.
    """
    traced = is_traced(x, y, bandwidth)
    pooled = pool(x, y, pad=not traced)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    compiled = _with_static_counts if traced else _with_traced_counts
    values = compiled(pooled.blocks, pooled.m, pooled.n, bandwidth, kernel=kernel)
    if is_traced(values):
        return Witness(values[: pooled.m], values[pooled.m : pooled.count])
    # Cut on the host, where a new size compiles nothing.
    on_host = np.asarray(values)
    return Witness(jnp.asarray(on_host[: pooled.m]), jnp.asarray(on_host[pooled.m : pooled.count]))


def where_different(
    x: Numbers, y: Numbers, num: int = 10, *, bandwidth: Numbers | None = None, kernel: Kernel = gaussian
) -> Places:
    """The rows of x that are most typical of P and not of Q, and the rows of y most typical of Q and not of P.

    Those are the rows of x with the largest values of the witness function, and the rows of y with the smallest. Whether
    the difference is real is for a test to say: under P = Q some rows have the largest value too.

    Args:
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      num: how many rows of each, 1 … min(m, n).
      bandwidth: of the kernel, or several [k] to sum over; none: `median_bandwidth` of the pooled rows.
      kernel: which kernel.

    Returns:
      `Places`; rows of equal value in the order of the sample.

    Raises:
      ValueError: num is out of range; bad samples or bandwidth (see `permutation_test`). TypeError: num is no integer.

    Example:
      >>> import numpy as np
      >>> x, y = np.array([[0.0], [0.1], [7.0]]), np.array([[0.0], [0.1], [0.9]])
      >>> where_different(x, y, 1, bandwidth=1.0).y.tolist()
      [2]

    Reference: Gretton et al., A kernel two-sample test, JMLR 2012, section 2.3; Lloyd and Ghahramani, Statistical model
    criticism using kernel two sample tests, NIPS 2015.
    """
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num is {num!r}; expected a plain integer, since it is a shape.")
    at = witness_at_samples(x, y, bandwidth=bandwidth, kernel=kernel)
    fewest = min(at.x.shape[0], at.y.shape[0])
    if not 1 <= num <= fewest:
        raise ValueError(f"num is {num}; expected from 1 to {fewest}, the rows of the smaller sample.")
    xp: Any = jnp if is_traced(at.x) else np
    of_x, of_y = (xp.argsort(xp.asarray(value), stable=True)[:num] for value in (-at.x, at.y))
    return Places(
        jnp.asarray(of_x, jnp.int32),
        jnp.asarray(of_y, jnp.int32),
        jnp.asarray(xp.asarray(at.x)[of_x]),
        jnp.asarray(xp.asarray(at.y)[of_y]),
    )


def _check_points(points: Any, width: int) -> Any:
    if not is_traced(points):
        points = np.asarray(points)
    if points.ndim == 2 and points.shape[0] == 1:
        # One point is enough here, which it is not for a sample.
        xp: Any = jnp if is_traced(points) else np
        points = check_rows("points", xp.concatenate([points, points]))[:1]
    else:
        points = check_rows("points", points)
    if points.shape[1] != width:
        raise ValueError(f"points has {points.shape[1]} features and the samples have {width}; expected the same.")
    return points


@partial(jax.jit, static_argnames=("kernel",))
def _at_points(
    points: Float[Array, "q s d"], pooled: Pooled, bandwidth: Float[Array, " k"], *, kernel: Kernel
) -> Float[Array, " p"]:
    blocks = jnp.asarray(pooled.blocks)
    b, t, _ = blocks.shape
    if kernel.translation_invariant:
        centre = jnp.sum(blocks, axis=(0, 1), keepdims=True) / pooled.count
        blocks, points = blocks - centre, points - centre
    row = jnp.arange(b * t)
    weights = jnp.where(row < pooled.m, 1 / pooled.m, jnp.where(row < pooled.count, -1 / pooled.n, 0))
    weights = weights.astype(blocks.dtype).reshape(b, t)
    # Values around 0 keep what values around the mean would lose; the weights sum to 0, so this changes nothing.
    shift = lax.stop_gradient(jnp.mean(kernel.tile(points[0], blocks[0], bandwidth)))

    @jax.checkpoint  # else reverse mode keeps every tile
    def one(left: Array, right: Array, weights: Array) -> Array:
        return dot_highest(kernel.tile(left, right, bandwidth) - shift, weights[:, None])[:, 0]

    def along(left: Array) -> Array:
        def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
            return total + one(left, *block), None

        return lax.scan(add, jnp.zeros(left.shape[0], left.dtype), (blocks, weights))[0]

    values = lax.map(along, points).reshape(-1)
    good = all_finite(points) & all_finite(pooled.blocks)
    return jnp.where(good, values, jnp.nan)


def _at_rows(
    blocks: Float[Array, "b t d"], m: Any, n: Any, bandwidth: Float[Array, " k"], *, kernel: Kernel
) -> Float[Array, " N"]:
    row = jnp.arange(blocks.shape[0] * blocks.shape[1])
    in_x, in_y = row < m, (row >= m) & (row < m + n)
    columns = jnp.stack([in_x, in_y], axis=1).astype(jnp.int8)
    spec = Spec((kernel,))
    problem = prepare(Pooled(blocks, m, n), columns, (bandwidth[None],), spec)
    # The diagonal is 0, so a row is left out of its own sum; the shift cancels between the two means.
    to_x, to_y = visit_all(problem, spec, row_sums(blocks.shape[0]))[0].reshape(-1, 2).T
    values = to_x / jnp.where(in_x, m - 1, m) - to_y / jnp.where(in_y, n - 1, n)
    return jnp.where(all_finite(blocks), values, jnp.nan)


_with_static_counts = partial(jax.jit, static_argnames=("m", "n", "kernel"))(_at_rows)
_with_traced_counts = partial(jax.jit, static_argnames=("kernel",))(_at_rows)
