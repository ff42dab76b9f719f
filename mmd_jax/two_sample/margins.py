"""What MMD would matter? A margin taken from the source: its natural variation, or what a named change does to it.

Never from random halves of the rows: their distance is the noise of the sample and shrinks with its size, so with enough rows
every difference would matter. A margin means nothing at another kernel or bandwidth, so these have no default here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_finite, check_key, check_precision
from mmd_jax.two_sample.gram import Spec, prepare, visit_all
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.pooled import Numbers, Pooled, check_rows, is_traced, stack
from mmd_jax.two_sample.reductions import block_sums
from mmd_jax.two_sample.variance import mmd2_variance

# Random labels of the rows that the groups are compared with: fewer for more groups than this, as each takes longer.
MANY_GROUPS = 64
RELABELLINGS = 99
FEW_RELABELLINGS = 19
# Of the normal distribution: 95 %.
ONE_SIDED = 1.645
# Labellings times groups that one pass over the pairs sums up.
COLUMNS = 2048


class Margin(NamedTuple):
    """The least MMD that matters, as far as the source tells.

    Attributes:
      value: the margin: root of the mean of `mmd2`. In kernel units.
      mmd2: unbiased estimates of MMD² that it is made of, one a split. Shape [s], numpy.
      bandwidth: at which it was measured; give the same to the test. Shape [k], numpy.
    """

    value: float
    mmd2: np.ndarray
    bandwidth: np.ndarray


def margin_from_splits(
    key: Key[Array, ""],
    x: Numbers,
    groups: Numbers,
    *,
    bandwidth: Numbers,
    groups_per_side: int | None = None,
    num_splits: int = 200,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> Margin:
    """How far the source is from itself when whole groups of it (classes, writers, periods) are on either side.

        margin = √(mean over random splits of MMD²ᵤ(rows of some groups, rows of as many others))

    It estimates a property of the groups, not of the sample: more rows make it more exact, not smaller. More groups do make
    halves of them more alike; to compare a fixed number, set `groups_per_side` (1: two writers). Groups whose mean MMD² is not
    above the 95 % quantile of random relabellings of the rows are refused: there the margin would be noise.

    Args:
      key: consumed.
      x: sample of the source, shape [m, d].
      groups: the group of each row, numbers or names, shape [m]; at least two groups.
      bandwidth: of the kernel, or several [k] to sum over: the same that the test will use.
      groups_per_side: of each split, at most half of the groups; none: half of them.
      num_splits: random splits to average over.
      kernel: which kernel.
      precision, mesh: as `permutation_test`.

    Returns:
      `Margin`.

    Raises:
      ValueError: one group only; one for each row, which is a random split; a split with fewer than two rows on a side; groups
        that are no farther apart than random parts; and, TypeError too, bad samples, key or bandwidth (see `permutation_test`).

    Example:
      >>> import jax, numpy as np
      >>> x_key, key = jax.random.split(jax.random.key(0))
      >>> writer = np.repeat(np.arange(8), 50)
      >>> x = jax.random.normal(x_key, (400, 2)) + 0.2 * writer[:, None]
      >>> 0.1 < margin_from_splits(key, x, writer, bandwidth=2.0).value < 0.2
      True
    """
    check_precision(precision)
    check_key(key)
    _refuse_traced(key, x, groups, bandwidth)
    x = np.asarray(check_rows("x", x))
    names, numbers, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if np.shape(groups) != (len(x),):
        raise ValueError(f"groups has shape {np.shape(groups)}; expected one label a row, ({len(x)},).")
    if len(names) < 2:
        raise ValueError(f"groups has only the one label {names[0]}; a split of the source needs at least two groups.")
    if len(names) == len(x):
        raise ValueError(
            "every row is a group of its own: such splits are random halves, whose distance shrinks with the sample. Group rows "
            "by class, writer or period."
        )
    each = len(names) // 2 if groups_per_side is None else groups_per_side
    if isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= len(names) // 2:
        raise ValueError(f"groups_per_side is {each}; expected from 1 to half of the {len(names)} groups.")
    if num_splits < 1:
        raise ValueError(f"num_splits is {num_splits}; expected at least 1.")
    if np.sort(counts)[:each].sum() < 2:
        raise ValueError(
            f"a split could have one row on a side, as a group has only one; drop such groups, or use more than {each} a side."
        )
    pooled = Pooled(stack((x,), pad=True), len(x), 0)
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    # A few sizes only, so that a new number of groups finds a compiled program.
    capacity = 1 << max(3, (len(names) - 1).bit_length())
    splits_key, labels_key = jax.random.split(key)
    shuffled = np.argsort(np.asarray(jax.random.bits(splits_key, (num_splits, len(names)))), axis=1)
    found = []
    num = RELABELLINGS if capacity <= MANY_GROUPS else FEW_RELABELLINGS
    for chunk in _relabelled(labels_key, numbers, num, capacity, pooled.capacity):
        sums = _between_groups(pooled, chunk, bandwidth, num_bins=capacity, spec=Spec((kernel,), precision, mesh))
        between = np.asarray(sums, np.float64)[:, : len(names), : len(names)]
        found += [_of_splits(one, counts, shuffled[:, :each], shuffled[:, each : 2 * each]) for one in between]
    relabelled = np.mean(found[1 : 1 + num], axis=1)
    # As many as this, with the true labels themselves, are one in twenty. Equal up to rounding is equal.
    noise = np.sort(relabelled)[-(1 + num) // 20] + 1e-5 * np.std(relabelled)
    return _margin(found[0], noise, bandwidth, "these groups are no farther apart than random parts of the source")


def margin_from_change(
    key: Key[Array, ""],
    x: Any,
    change: Callable[[Any], Any],
    *,
    bandwidth: Numbers,
    features: Callable[[Any], Any] | None = None,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
) -> Margin:
    """How far the source is from itself after a change of known size: blurred by this width, without this share of a class.

        margin = √((MMD²ᵤ(A, change(B)) + MMD²ᵤ(B, change(A))) / 2),   A and B random halves of the rows

    No row is on both sides, so the estimate has no bias from rows that resemble their own changed selves. A mean MMD² of less
    than 1.645 of its standard errors is refused: the margin would be noise.

    Args:
      key: consumed.
      x: rows of the source, shape [m, ...], m >= 16.
      change: rows [h, ...] -> rows; it may drop or add some.
      bandwidth: as `margin_from_splits`.
      features: rows -> [h, d], after the change, for instance by a network; none: the rows themselves.
      kernel: which kernel.
      precision: as `permutation_test`.

    Returns:
      `Margin`, of two splits.

    Raises:
      ValueError: a change that can't be told from none in this many rows; and, TypeError too, as `margin_from_splits`.

    Example:
      >>> import jax
      >>> x_key, key = jax.random.split(jax.random.key(0))
      >>> x = jax.random.normal(x_key, (400, 2))
      >>> 0.2 < margin_from_change(key, x, lambda rows: rows + 0.5, bandwidth=2.0).value < 0.3  # exactly: 0.235
      True
    """
    check_precision(precision)
    check_key(key)
    _refuse_traced(key, x, bandwidth)
    x = np.asarray(x)
    if x.ndim < 1 or len(x) < 16:
        raise ValueError(f"x has shape {x.shape}; expected at least 16 rows, to split them in halves.")
    order = np.argsort(np.asarray(jax.random.bits(key, (len(x),))))
    seen: Callable[[Any], Any] = (lambda rows: rows) if features is None else features
    a, b = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    estimates = [
        mmd2_variance(seen(kept), seen(change(other)), bandwidth=bandwidth, kernel=kernel, precision=precision)
        for kept, other in ((a, b), (b, a))
    ]
    mmd2 = np.array([float(estimate.mmd2) for estimate in estimates])
    # Each part is the estimate of something positive. Both estimates are of the same rows: their mean varies as each does.
    variance = np.mean([max(float(e.linear), 0) + max(float(e.degenerate), 0) for e in estimates])
    noise = ONE_SIDED * float(variance) ** 0.5
    return _margin(mmd2, noise, np.ravel(np.asarray(bandwidth)), "this change can't be told from none in so few rows")


def _refuse_traced(*values: Any) -> None:
    if is_traced(*values):
        raise TypeError("a margin is calibrated once, from concrete values, outside of jax.jit, vmap and grad.")


def _relabelled(key: Key[Array, ""], labels: np.ndarray, num: int, padding: int, rows: int) -> np.ndarray:
    """The labels and at least `num` shuffles of them, in chunks for one pass each. Shape [chunks, r, N with padding]."""
    each = max(1, min(1 + num, COLUMNS // padding))
    chunks = -(-(1 + num) // each)
    found = np.full((chunks * each, rows), padding, np.int32)
    drawn = np.asarray(jax.random.bits(key, found.shape))[:, : len(labels)]
    found[:, : len(labels)] = labels[np.argsort(drawn, axis=1)]
    found[0, : len(labels)] = labels
    return found.reshape(chunks, each, rows)


@partial(jax.jit, static_argnames=("num_bins", "spec"))
def _between_groups(
    pooled: Pooled, labels: Int[Array, "r N"], bandwidth: Float[Array, " k"], *, num_bins: int, spec: Spec
) -> Float[Array, "r s s"]:
    def one(labels: Int[Array, " N"]) -> Float[Array, "s s"]:
        problem = prepare(pooled, labels, (bandwidth[None],), spec)
        # The shift is a constant off the diagonal, which no unbiased estimate sees.
        return visit_all(problem, spec, block_sums(num_bins, num_bins)).between[0]

    # All labellings share each tile's kernel values; with as many bins in reach as there are, labels may come in any order.
    return jax.vmap(one)(labels)


def _of_splits(between: np.ndarray, counts: np.ndarray, in_x: np.ndarray, in_y: np.ndarray) -> np.ndarray:
    """MMD²ᵤ between the rows of the groups in_x [s, g] and those of in_y [s, g]. Shape [s]."""
    x, y = (np.zeros((len(members), len(counts))) for members in (in_x, in_y))
    np.put_along_axis(x, in_x, 1.0, axis=1)
    np.put_along_axis(y, in_y, 1.0, axis=1)
    m, n = x @ counts, y @ counts
    xx, yy, xy = (np.sum((left @ between) * right, axis=1) for left, right in ((x, x), (y, y), (x, y)))
    return xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * xy / (m * n)


def _margin(mmd2: np.ndarray, noise: float, bandwidth: Any, why: str) -> Margin:
    check_finite(mmd2, noise)
    mean = float(np.mean(mmd2))
    if mean <= max(noise, 0):
        raise ValueError(
            f"the estimated MMD² is {mean:.2g}, and chance alone gives up to {max(noise, 0):.2g}: {why}, so there is no margin "
            "in it."
        )
    return Margin(mean**0.5, mmd2, np.asarray(bandwidth))
