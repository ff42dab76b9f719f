"""How far apart are two samples, and is the difference real?"""

from mmd_jax.two_sample.aggregated import aggregated_test, fuse_test
from mmd_jax.two_sample.bandwidths import NoBandwidthError, bandwidth_grid, median_bandwidth
from mmd_jax.two_sample.domains import PairwiseResult, pairwise_tests
from mmd_jax.two_sample.kernels import (
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
    polynomial,
    rational_quadratic,
)
from mmd_jax.two_sample.mmd import mmd2_unbiased, mmd_biased
from mmd_jax.two_sample.sequential import Step, permutation_test_in_steps, sequential_test
from mmd_jax.two_sample.significance import permutation_test, wild_bootstrap_test

__all__ = [
    "Kernel",
    "NoBandwidthError",
    "PairwiseResult",
    "Step",
    "aggregated_test",
    "bandwidth_grid",
    "energy",
    "fuse_test",
    "gaussian",
    "inverse_multiquadric",
    "kernel_product",
    "kernel_sum",
    "laplace_l1",
    "laplace_l2",
    "linear",
    "matern12",
    "matern32",
    "matern52",
    "median_bandwidth",
    "mmd2_unbiased",
    "mmd_biased",
    "pairwise_tests",
    "permutation_test",
    "permutation_test_in_steps",
    "polynomial",
    "rational_quadratic",
    "sequential_test",
    "wild_bootstrap_test",
]
