"""New values, and new sizes within a capacity, find a compiled program: alpha, bandwidth, margin, key, data, m and n."""

import jax
import numpy as np
import pytest

from mmd_jax.two_sample import aggregated_test, gaussian, permutation_test, two_sample_test
from mmd_jax.two_sample.verdict import verdict
from tests.two_sample.test_significance import Compilations


def compilations(call):
    """Names of the programs that were compiled during the call."""
    with Compilations() as found:
        jax.block_until_ready(call())
    return found.names


def of_bins(key, x, y, alpha, bandwidth, margin):
    return permutation_test(key, x, y, alpha=alpha, bandwidth=bandwidth, bins=30, num_permutations=99)


def of_kernels(key, x, y, alpha, bandwidth, margin):
    return aggregated_test(key, x, y, kernels=(gaussian,), alpha=alpha, num_bandwidths=3, num_permutations=99)


def of_margin(key, x, y, alpha, bandwidth, margin):
    return verdict(key, x, y, alpha=alpha, bandwidth=bandwidth, margin=margin, num_draws=99).interval


def chosen(key, x, y, alpha, bandwidth, margin):
    return two_sample_test(key, x, y, alpha=alpha).result


def test_the_counter_counts():
    assert compilations(lambda: jax.jit(lambda x: 3 * x + 0.123)(np.ones(3)))


@pytest.mark.parametrize("call", [of_bins, of_kernels, of_margin, chosen])
def test_new_values_and_sizes_compile_nothing(call):
    def samples(m, n):
        rng = np.random.default_rng([m, n])
        return rng.normal(size=(m, 5)).astype(np.float32), rng.normal(size=(n, 5)).astype(np.float32)

    keys = [jax.random.key(seed) for seed in range(3)]
    call(keys[0], *samples(90, 80), 0.05, 2.0, 0.1)
    assert not compilations(lambda: call(keys[1], *samples(90, 80), 0.1, 3.0, 0.2))
    assert not compilations(lambda: call(keys[2], *samples(70, 110), 0.02, 1.0, 0.3))
