"""How far apart are two samples, and is the difference real?"""

from mmd_jax.two_sample.kernels import Kernel, NoBandwidthError, gaussian, median_bandwidth
from mmd_jax.two_sample.mmd import mmd2_unbiased, mmd_biased
from mmd_jax.two_sample.significance import permutation_test, wild_bootstrap_test

__all__ = [
    "Kernel",
    "NoBandwidthError",
    "gaussian",
    "median_bandwidth",
    "mmd2_unbiased",
    "mmd_biased",
    "permutation_test",
    "wild_bootstrap_test",
]
