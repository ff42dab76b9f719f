"""Tests over many kernels: against one pass a kernel, exact level, power where one bandwidth has none, layers together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample import (
    aggregated_test,
    bandwidth_grid,
    fuse_test,
    gaussian,
    kernel_sum,
    laplace_l1,
    laplace_l2,
    linear,
    mmd2_unbiased,
    mmd_biased,
    permutation_test,
)


def samples(m=60, n=50, d=3, scale=1.3, seed=0):
    rng = np.random.default_rng([m, n, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (scale * rng.normal(size=(n, d))).astype(np.float32)


def test_each_kernel_is_what_it_is_alone(key):
    x, y = samples()
    kernels = (laplace_l1, gaussian, linear)
    result = aggregated_test(key, x, y, kernels=kernels, num_bandwidths=2, num_permutations=199)
    table = result.kernels
    assert table.kernel.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_allclose(
        table.bandwidth[:2], bandwidth_grid(np.concatenate([x, y]), 2, kernel=laplace_l1), rtol=1e-5
    )
    for i in range(5):
        kernel, bandwidth = kernels[int(table.kernel[i])], float(table.bandwidth[i])
        alone = permutation_test(key, x, y, kernel=kernel, bandwidth=bandwidth, num_permutations=199)
        assert float(table.statistic[i]) == pytest.approx(
            float(mmd2_unbiased(x, y, kernel=kernel, bandwidth=bandwidth)), rel=1e-3, abs=1e-6
        )
        # The same permutations, so the same p, to the counts.
        assert float(table.pvalue[i]) == pytest.approx(float(alone.pvalue), abs=1e-6)
    best = int(np.flatnonzero(np.asarray(table.bandwidth) == float(result.bandwidth[0]))[0])
    kernel = kernels[int(table.kernel[best])]
    assert float(result.mmd_biased) == pytest.approx(
        float(mmd_biased(x, y, kernel=kernel, bandwidth=result.bandwidth)), rel=1e-3
    )


def test_fuse_is_the_published_statistic(key):
    x, y = samples(40, 40)
    widths = np.array([0.5, 1.0, 3.0], np.float32)
    result = fuse_test(key, x, y, kernels=(gaussian,), bandwidths=(widths,), num_permutations=19)
    rows = np.concatenate([x, y]).astype(np.float64)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    terms = []
    for width in widths:
        K = np.exp(-squared / (2 * width**2))
        np.fill_diagonal(K, 0)
        mmd2 = K[:40, :40].sum() / (40 * 39) + K[40:, 40:].sum() / (40 * 39) - 2 * K[:40, 40:].mean()
        terms.append(np.sqrt(40 * 39) * mmd2 / np.sqrt((K**2).sum() / (80 * 79)))
    assert float(result.statistic) == pytest.approx(np.log(np.mean(np.exp(terms))), rel=1e-3)


@pytest.mark.parametrize(("test", "m", "n", "bins"), [(aggregated_test, 40, 25, 20), (fuse_test, 30, 30, None)])
def test_level_is_exact(test, m, n, bins):
    trials = 1500

    def rejects(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (m, 2)), jax.random.normal(y_key, (n, 2))
        return test(key, x, y, kernels=(gaussian,), num_bandwidths=3, num_permutations=99, bins=bins).reject

    found = jax.jit(lambda keys: jax.lax.map(rejects, keys, batch_size=100))(
        jax.random.split(jax.random.key(3), trials)
    )
    low, high = stats.binom.interval(0.998, trials, 0.05)
    assert low <= int(found.sum()) <= high


def test_power_where_the_median_bandwidth_has_none():
    # A fine ripple on a wide distribution: far below the median distance.
    def rates(key):
        x_key, y_key, flip_key, key = jax.random.split(key, 4)
        x = jax.random.uniform(x_key, (150, 1)) * 20
        y = jnp.round(jax.random.uniform(y_key, (150, 1)) * 20) + 0.05 * jax.random.normal(flip_key, (150, 1))
        many = aggregated_test(key, x, y, kernels=(gaussian,), num_bandwidths=8, num_permutations=99).reject
        return jnp.stack([many, permutation_test(key, x, y, num_permutations=99).reject])

    many, median = jax.jit(lambda keys: jax.lax.map(rates, keys, batch_size=20))(
        jax.random.split(jax.random.key(4), 40)
    ).mean(0)
    assert many > 0.8 and median < 0.4


def test_layers_share_the_permutations_and_one_level(key):
    x, y = samples()
    layers_x, layers_y = {"a": x, "b": x[:, :2]}, {"a": y, "b": y[:, :2]}
    both = aggregated_test(key, layers_x, layers_y, num_bandwidths=2, num_permutations=99, return_null=True)
    each = [
        aggregated_test(key, layers_x[k], layers_y[k], num_bandwidths=2, num_permutations=99, return_null=True)
        for k in "ab"
    ]
    assert both.kernels.layer.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(both.null, np.maximum(each[0].null, each[1].null), rtol=1e-5)
    with pytest.raises(ValueError, match="x has the layers a, b and y has a"):
        aggregated_test(key, layers_x, {"a": y})
    with pytest.raises(ValueError, match="one row a layer"):
        aggregated_test(key, {"a": x, "b": x[:-1]}, layers_y)


def test_sums_of_kernels_and_other_precisions(key):
    x, y = samples()
    result = aggregated_test(
        key, x, y, kernels=(kernel_sum(gaussian, laplace_l2), gaussian), num_bandwidths=2, num_permutations=99
    )
    assert result.kernels.statistic.shape == (3,)
    full = aggregated_test(key, x, y, kernels=(gaussian,), num_bandwidths=2, num_permutations=199)
    half = aggregated_test(key, x, y, kernels=(gaussian,), num_bandwidths=2, num_permutations=199, precision="bfloat16")
    assert float(half.statistic) == pytest.approx(float(full.statistic), abs=0.05)
    assert float(half.pvalue) == pytest.approx(float(full.pvalue), abs=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": ()}, "kernels is empty"),
        ({"num_bandwidths": 0}, "num_bandwidths is 0"),
        ({"bandwidths": (1.0,)}, "one vector for each of the 2 kernels"),
        ({"bandwidths": ([1.0], [-1.0])}, "bandwidth is"),
    ],
)
def test_bad_settings(settings, message, key):
    with pytest.raises(ValueError, match=message):
        aggregated_test(key, *samples(), **settings)


def test_kernels_that_see_nothing_are_no_evidence(key):
    x, y = samples(20, 20, d=64)
    # The values underflow to 0: no size to divide by, and p must not be the smallest.
    result = jax.jit(lambda x, y: fuse_test(key, x, y, kernels=(gaussian,), bandwidths=([0.1],), num_permutations=19))(
        x, y
    )
    assert float(result.pvalue) == 1 and not bool(result.reject)


def test_bad_traced_rows_give_nan_everywhere(key):
    x, y = samples()
    x[3, 1] = np.nan
    result = jax.jit(lambda x, y: aggregated_test(key, x, y, bandwidths=([1.0], [1.0]), num_permutations=19))(x, y)
    assert np.isnan(result.pvalue) and np.isnan(result.kernels.pvalue).all() and not bool(result.reject)
