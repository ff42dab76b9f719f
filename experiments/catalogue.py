"""Every two-sample test there is, one line each: what the calibration experiment measures.

A new test is one more line in `TESTS`, and one more name in `POWER` where its power belongs in the picture.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.problems import GROUP
from mmd_jax.two_sample import permutation_test, wild_bootstrap_test

# (key, x [m, d], y [n, d], alpha, B) -> whether P = Q is rejected. Traced, so that thousands run in one program.
Run = Callable[[Array, Array, Array, Any, int], Array]


class Entry(NamedTuple):
    """One test with its settings.

    Attributes:
      name: test, kernel, precision: unique, stable from run to run, and without commas.
      level: "exact": floor(alpha (B + 1)) / (B + 1) at any size. "bound": at most alpha at any size. "asymptotic": alpha,
        from some size on.
      run: the test.
      data: which null problems it is for: "rows" (independent ones), "groups", "series".
      pairs: whether it needs m = n.
      large: whether n = 2,000 is measured too: the tests that are used most.
      precision: what it computes in; float64 entries run where jax has it switched on.
    """

    name: str
    level: str
    run: Run
    data: str = "rows"
    pairs: bool = False
    large: bool = False
    precision: str = "float32"


def permuted(key: Array, x: Array, y: Array, alpha: Any, num: int, **settings: Any) -> Array:
    return permutation_test(key, x, y, alpha=alpha, num_permutations=num, **settings).reject


def group_permuted(key: Array, x: Array, y: Array, alpha: Any, num: int) -> Array:
    groups_x = np.arange(len(x)) // GROUP
    groups_y = np.arange(len(y)) // GROUP + groups_x[-1] + 1
    return permuted(key, x, y, alpha, num, groups_x=groups_x, groups_y=groups_y)


def swapped(key: Array, x: Array, y: Array, alpha: Any, num: int, **settings: Any) -> Array:
    return wild_bootstrap_test(key, x, y, alpha=alpha, num_permutations=num, **settings).reject


def several_bandwidths(key: Array, x: Array, y: Array, alpha: Any, num: int) -> Array:
    return permuted(key, x, y, alpha, num, bandwidth=jnp.array([0.5, 1.0, 2.0, 4.0]))


TESTS = (
    Entry("permutation gaussian", "exact", permuted, large=True),
    Entry("permutation gaussian × 4", "exact", several_bandwidths),
    Entry("permutation of groups", "exact", group_permuted, data="groups"),
    Entry("wild bootstrap gaussian", "exact", swapped, pairs=True),
    Entry("permutation gaussian float64", "exact", permuted, precision="float64"),
)

# Names of the tests whose power is measured, in the order of the legend.
POWER = ("permutation gaussian", "wild bootstrap gaussian")
