"""One entry for people who don't want to choose. Nothing else in the library chooses a test."""

from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Key

from mmd_jax.two_sample.aggregated import aggregated_test
from mmd_jax.two_sample.feature_tests import random_feature_test
from mmd_jax.two_sample.kernels import gaussian
from mmd_jax.two_sample.pooled import Numbers, is_traced
from mmd_jax.two_sample.significance import permutation_test
from mmd_jax.types import TwoSampleResult

# Rows in all, above which bins of rows are permuted in place of rows, …
ROWS_UP_TO = 2_000
# … above which one bandwidth stands for several, …
AGGREGATED_UP_TO = 20_000
# … and above which random features stand for the Gram matrix.
GRAM_UP_TO = 200_000
BINS = 256
# Of the smaller sample.
FEWEST_BINS = 16
NUM_BANDWIDTHS = 5
NUM_PERMUTATIONS = 999


class Chosen(NamedTuple):
    """A test's result, and which test it was.

    Attributes:
      result: of the test.
      test: the call that makes the same result, without the samples and the key.
      reason: one sentence.
    """

    result: TwoSampleResult
    test: str
    reason: str


def two_sample_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    alpha: ArrayLike = 0.05,
    groups_x: Numbers | None = None,
    groups_y: Numbers | None = None,
) -> Chosen:
    """Test P = Q by the test that suits the size of the samples. Every one of them has an exact level.

        up to 2,000 rows in all    aggregated_test over 5 bandwidths, rows permuted
        up to 20,000               the same, 256 bins permuted: much cheaper, hardly less powerful
        up to 200,000              permutation_test at the median bandwidth, 256 bins permuted
        above                      random_feature_test, linear in the rows

    None of the tests whose level is only asymptotic is ever chosen.

    Args:
      key: consumed.
      x: sample of P, shape [m, d], m >= 2.
      y: sample of Q, shape [n, d], n >= 2.
      alpha: level, in (0, 1).
      groups_x: group of each row of x where rows depend on each other, as `permutation_test`.
      groups_y: group of each row of y.

    Returns:
      `Chosen`; `.test` says which test it was, and `.reason` why.

    Raises:
      ValueError, TypeError: as `permutation_test`.

    Example:
      >>> import jax
      >>> x_key, y_key, key = jax.random.split(jax.random.key(0), 3)
      >>> x, y = jax.random.normal(x_key, (200, 2)), jax.random.normal(y_key, (150, 2)) * 1.5
      >>> chosen = two_sample_test(key, x, y)
      >>> bool(chosen.result.reject), chosen.test
      (True, 'aggregated_test(kernels=(gaussian,), num_bandwidths=5)')
    """
    rows = sum(np.shape(sample)[0] if np.ndim(sample) else 0 for sample in (x, y))
    groups: dict[str, Any] = {"groups_x": groups_x, "groups_y": groups_y}
    grouped = ", groups_x=…, groups_y=…" if groups_x is not None else ""
    settings: dict[str, Any] = {"alpha": alpha, "num_permutations": _num_permutations(alpha), **groups}
    bins = None if rows <= ROWS_UP_TO else _num_bins(x, y, groups_x, groups_y)
    binned = "" if bins is None else f", bins={bins}"
    if rows <= AGGREGATED_UP_TO:
        result = aggregated_test(key, x, y, kernels=(gaussian,), num_bandwidths=NUM_BANDWIDTHS, bins=bins, **settings)
        return Chosen(
            result,
            f"aggregated_test(kernels=(gaussian,), num_bandwidths={NUM_BANDWIDTHS}{binned}{grouped})",
            f"With {rows} rows several bandwidths cost little, so none has to be chosen.",
        )
    if rows <= GRAM_UP_TO:
        result = permutation_test(key, x, y, bins=bins, **settings)
        return Chosen(
            result,
            f"permutation_test({(binned + grouped).removeprefix(', ')})",
            f"With {rows} rows one kernel at the median bandwidth takes seconds to a minute, and is powerful enough.",
        )
    return Chosen(
        random_feature_test(key, x, y, **settings),
        f"random_feature_test({grouped.removeprefix(', ')})",
        f"With {rows} rows the Gram matrix takes minutes; 1,024 random features take seconds.",
    )


def _num_permutations(alpha: Any) -> int:
    """So many that alpha can be met."""
    if is_traced(alpha) or not (np.ndim(alpha) == 0 and 0 < float(alpha) < 1):
        return NUM_PERMUTATIONS
    return max(NUM_PERMUTATIONS, int(np.ceil(1 / float(alpha))) - 1)


def _num_bins(x: Any, y: Any, groups_x: Any, groups_y: Any) -> int | None:
    """Bins, if each sample gets enough of them: few bins have few splits, and what fills no bin does not move."""
    units = [np.shape(sample)[0] for sample in (x, y)]
    if is_traced(groups_x, groups_y):
        return None
    if groups_x is not None and groups_y is not None:
        units = [len(np.unique(np.asarray(groups))) for groups in (groups_x, groups_y)]
    each = -(-sum(units) // BINS)
    return BINS if sum(units) >= 4 * BINS and min(units) >= FEWEST_BINS * each else None
