"""Every two-sample test there is, one line each: what the calibration experiment measures.

A new test is one more line in `TESTS` (in `FULL`, for its power only), and one more name in `POWER` where its power
belongs in the picture.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.problems import GROUP
from mmd_jax.two_sample import (
    Kernel,
    energy,
    gaussian,
    inverse_multiquadric,
    kernel_product,
    kernel_sum,
    laplace_l1,
    laplace_l2,
    linear,
    matern12,
    matern32,
    matern52,
    median_bandwidth,
    permutation_test,
    polynomial,
    rational_quadratic,
    wild_bootstrap_test,
)
from mmd_jax.two_sample.aggregated import aggregated_test, fuse_test
from mmd_jax.two_sample.asymptotic import cross_mmd_test, distribution_free_test, gamma_test, spectral_test
from mmd_jax.two_sample.deep_kernel import deep_kernel_test
from mmd_jax.two_sample.feature_tests import random_feature_test, sketch_test
from mmd_jax.two_sample.linear_time import block_test, incomplete_test, linear_test
from mmd_jax.two_sample.sequential import sequential_test
from mmd_jax.two_sample.sketches import accumulate, new_sketch
from mmd_jax.two_sample.time_series import time_series_test

# (key, x [m, d], y [n, d], alpha, B) -> whether P = Q is rejected.
Run = Callable[[Array, Any, Any, Any, int], Any]

BINS = 16  # few enough for the smallest samples here


class Entry(NamedTuple):
    """One test with its settings.

    Attributes:
      name: unique, stable from run to run, and without commas, which part the words of `--only`.
      level: "exact": floor(alpha (B + 1)) / (B + 1) at any size. "bound": at most alpha at any size. "asymptotic": alpha,
        from some size on.
      run: the test.
      data: which null problems it is for: "rows" (independent ones), "groups", "series".
      pairs: whether it needs m = n.
      large: whether n = 2,000 is measured too: the test that most people use.
      precision: float64 runs where jax has it switched on, all others where not.
      traced: whether `run` can be traced, so that thousands run in one program; else it gets numpy arrays, one at a time.
      share: of the trials, where they take long.
    """

    name: str
    level: str
    run: Run
    data: str = "rows"
    pairs: bool = False
    large: bool = False
    precision: str = "float32"
    traced: bool = True
    share: float = 1.0


def resampled(test: Callable[..., Any], **settings: Any) -> Run:
    """A test that takes a key and a number of permutations."""
    return lambda key, x, y, alpha, num: test(key, x, y, alpha=alpha, num_permutations=num, **settings).reject


def halved(test: Callable[..., Any], **settings: Any) -> Run:
    """A test that takes a key only: for the order of the rows."""
    return lambda key, x, y, alpha, num: test(key, x, y, alpha=alpha, **settings).reject


def keyless(test: Callable[..., Any], **settings: Any) -> Run:
    """A test that draws nothing."""
    return lambda key, x, y, alpha, num: test(x, y, alpha=alpha, **settings).reject


def grouped(**settings: Any) -> Run:
    """The permutation test of the groups that `problems.grouped` makes."""

    def run(key: Array, x: Array, y: Array, alpha: Any, num: int) -> Array:
        groups_x = np.arange(len(x)) // GROUP
        groups_y = np.arange(len(y)) // GROUP + groups_x[-1] + 1
        return resampled(permutation_test, groups_x=groups_x, groups_y=groups_y, **settings)(key, x, y, alpha, num)

    return run


def sequential(key: Array, x: np.ndarray, y: np.ndarray, alpha: float, num: int) -> bool:
    """At most B permutations, a third of them at a time; 10 exceedances are enough to stop."""
    settings = {"max_permutations": num, "exceedances": 10, "batch": -(-num // 3)}
    return bool(sequential_test(key, x, y, alpha=float(alpha), **settings).reject)


def sketched(key: Array, x: np.ndarray, y: np.ndarray, alpha: float, num: int) -> bool:
    """Two sketches of as many bins as the smaller sample has rows, 8 at most."""
    bandwidth = float(median_bandwidth(np.concatenate([x, y])))
    keys = jax.random.split(key, 4)
    empty = new_sketch(keys[0], x.shape[1], bandwidth=bandwidth, num_features=128, bins=min(8, len(x), len(y)))
    a, b = (accumulate(k, empty, rows, evenly=True) for k, rows in ((keys[1], x), (keys[2], y)))
    return bool(sketch_test(keys[3], a, b, alpha=float(alpha), num_permutations=num).reject)


def learned(key: Array, x: np.ndarray, y: np.ndarray, alpha: float, num: int) -> bool:
    """The deep kernel, hardly trained: what it learns may cost power, never level."""
    found = deep_kernel_test(key, x, y, num_steps=20, batch_size=32, alpha=float(alpha), num_permutations=num)
    return bool(found.result.reject)


def permuted(kernel: Kernel) -> Run:
    """The permutation test with another kernel."""
    return resampled(permutation_test, kernel=kernel)


TESTS = (
    Entry("permutation gaussian", "exact", resampled(permutation_test), large=True),
    Entry("permutation gaussian x 4", "exact", resampled(permutation_test, bandwidth=jnp.array([0.5, 1.0, 2.0, 4.0]))),
    Entry("permutation laplace l1", "exact", permuted(laplace_l1)),
    Entry("permutation laplace l2", "exact", permuted(laplace_l2)),
    Entry("permutation inverse multiquadric", "exact", permuted(inverse_multiquadric)),
    Entry("permutation rational quadratic", "exact", permuted(rational_quadratic())),
    Entry("permutation matern 1/2", "exact", permuted(matern12)),
    Entry("permutation matern 3/2", "exact", permuted(matern32)),
    Entry("permutation matern 5/2", "exact", permuted(matern52)),
    Entry("permutation linear", "exact", permuted(linear)),
    Entry("permutation polynomial", "exact", permuted(polynomial())),
    Entry("permutation energy", "exact", permuted(energy)),
    Entry("permutation gaussian + laplace", "exact", permuted(kernel_sum(gaussian, laplace_l1))),
    Entry("permutation gaussian x laplace", "exact", permuted(kernel_product(gaussian, laplace_l1))),
    Entry("permutation gaussian tf32", "exact", resampled(permutation_test, precision="tf32"), precision="tf32"),
    Entry("permutation gaussian bfloat16", "exact", resampled(permutation_test, precision="bfloat16"), precision="bfloat16"),
    Entry("permutation gaussian float64", "exact", resampled(permutation_test), precision="float64"),
    Entry("permutation of bins", "exact", resampled(permutation_test, bins=BINS)),
    Entry("permutation of groups", "exact", grouped(), data="groups"),
    Entry("permutation of groups in bins", "exact", grouped(bins=8), data="groups"),
    Entry("sequential", "bound", sequential, traced=False),
    Entry("wild bootstrap gaussian", "exact", resampled(wild_bootstrap_test), pairs=True),
    Entry("wild bootstrap gaussian float64", "exact", resampled(wild_bootstrap_test), pairs=True, precision="float64"),
    Entry("aggregated 2 x 2", "exact", resampled(aggregated_test, num_bandwidths=2)),
    Entry("aggregated 2 x 2 of bins", "exact", resampled(aggregated_test, num_bandwidths=2, bins=BINS)),
    Entry("aggregated 2 x 2 float64", "exact", resampled(aggregated_test, num_bandwidths=2), precision="float64"),
    Entry("fuse 2 x 2", "exact", resampled(fuse_test, num_bandwidths=2)),
    Entry("fuse 2 x 2 float64", "exact", resampled(fuse_test, num_bandwidths=2), precision="float64"),
    Entry("incomplete", "exact", resampled(incomplete_test)),
    Entry("random features", "exact", resampled(random_feature_test, num_features=128, bins=BINS)),
    Entry("deep kernel", "exact", learned, traced=False, share=0.1),
    Entry("sketches", "asymptotic", sketched, traced=False),
    Entry("distribution free", "bound", keyless(distribution_free_test)),
    Entry("gamma", "asymptotic", keyless(gamma_test)),
    Entry("spectral", "asymptotic", keyless(spectral_test)),
    Entry("cross-MMD", "asymptotic", halved(cross_mmd_test)),
    Entry("time series", "asymptotic", resampled(time_series_test), data="series"),
    Entry("linear time", "asymptotic", halved(linear_test)),
    Entry("blocks", "asymptotic", halved(block_test)),
)  # fmt: skip

# With as many bandwidths as they are used with; for the level a few are enough, and each costs its time.
FULL = (
    Entry("aggregated 2 x 10", "exact", resampled(aggregated_test)),
    Entry("fuse 2 x 10", "exact", resampled(fuse_test)),
)

# Names of the tests whose power is measured, in the order of the legend.
POWER = (
    "permutation gaussian",
    "permutation laplace l1",
    "permutation of bins",
    "aggregated 2 x 10",
    "fuse 2 x 10",
    "incomplete",
    "spectral",
    "cross-MMD",
    "blocks",
)
