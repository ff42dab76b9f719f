"""How far apart are two samples, is the difference real, and does it matter?

The tests and estimates that have a use of their own are here; what goes with one of them is in its module
(`mmd_jax.two_sample.sketches`, `.deep_kernel`, `.margins`, …).
"""

from mmd_jax.two_sample.aggregated import aggregated_test, fuse_test
from mmd_jax.two_sample.asymptotic import cross_mmd_test, distribution_free_test, gamma_test, spectral_test
from mmd_jax.two_sample.bandwidths import NoBandwidthError, bandwidth_grid, median_bandwidth
from mmd_jax.two_sample.choose import Chosen, two_sample_test
from mmd_jax.two_sample.deep_kernel import deep_kernel_test
from mmd_jax.two_sample.domains import PairwiseResult, pairwise_tests
from mmd_jax.two_sample.equivalence import equivalence_test, mmd_interval
from mmd_jax.two_sample.feature_tests import random_feature_test, sketch_test
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
from mmd_jax.two_sample.linear_time import block_test, incomplete_test, linear_test
from mmd_jax.two_sample.margins import margin_from_change, margin_from_splits
from mmd_jax.two_sample.mmd import mmd2_unbiased, mmd_biased
from mmd_jax.two_sample.relative import relative_test
from mmd_jax.two_sample.sequential import Step, permutation_test_in_steps, sequential_test
from mmd_jax.two_sample.significance import permutation_test, wild_bootstrap_test
from mmd_jax.two_sample.subsampled import mmd2_block, mmd2_incomplete, mmd2_linear, mmd2_nystrom
from mmd_jax.two_sample.time_series import time_series_test
from mmd_jax.two_sample.variance import mmd2_variance
from mmd_jax.two_sample.verdict import Verdict, minimum_detectable_mmd, sample_size_to_decide
from mmd_jax.two_sample.witness import where_different

__all__ = [
    "Chosen",
    "Kernel",
    "NoBandwidthError",
    "PairwiseResult",
    "Step",
    "Verdict",
    "aggregated_test",
    "bandwidth_grid",
    "block_test",
    "cross_mmd_test",
    "deep_kernel_test",
    "distribution_free_test",
    "energy",
    "equivalence_test",
    "fuse_test",
    "gamma_test",
    "gaussian",
    "incomplete_test",
    "inverse_multiquadric",
    "kernel_product",
    "kernel_sum",
    "laplace_l1",
    "laplace_l2",
    "linear",
    "linear_test",
    "margin_from_change",
    "margin_from_splits",
    "matern12",
    "matern32",
    "matern52",
    "median_bandwidth",
    "minimum_detectable_mmd",
    "mmd2_block",
    "mmd2_incomplete",
    "mmd2_linear",
    "mmd2_nystrom",
    "mmd2_unbiased",
    "mmd2_variance",
    "mmd_biased",
    "mmd_interval",
    "pairwise_tests",
    "permutation_test",
    "permutation_test_in_steps",
    "polynomial",
    "random_feature_test",
    "rational_quadratic",
    "relative_test",
    "sample_size_to_decide",
    "sequential_test",
    "sketch_test",
    "spectral_test",
    "time_series_test",
    "two_sample_test",
    "where_different",
    "wild_bootstrap_test",
]
