"""Series: the bootstrap against loops, its multipliers, and its level beside that of permutations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import mmd2_unbiased, mmd_biased, permutation_test
from mmd_jax.two_sample.pooled import pool
from mmd_jax.two_sample.time_series import time_series_test, wild_weights
from tests import reference

KEY = jax.random.key(11)


def autoregressive(key, rows, rho):
    noise = jax.random.normal(key, (rows, 1))

    def step(before, noise):
        now = rho * before + math.sqrt(1 - rho**2) * noise
        return now, now

    return jnp.concatenate([noise[:1], jax.lax.scan(step, noise[0], noise[1:])[1]])


def samples(m=40, n=30, shift=0.0):
    rng = np.random.default_rng([m, n])
    return rng.normal(size=(m, 2)).astype(np.float32), (rng.normal(size=(n, 2)) + shift).astype(np.float32)


def test_multipliers_are_autoregressive_and_independent_between_the_samples():
    m, n, length = 300, 200, 4.0
    pooled = pool(np.zeros((m, 1), np.float32), np.zeros((n, 1), np.float32), pad=True)
    weights = np.asarray(wild_weights(KEY, 800, pooled, length))
    x, y = weights[:m], weights[m : m + n]
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
    # Centring takes about the same off every covariance, and variances are 1 again; 800 sets are averaged.
    lost = sum(math.exp(-abs(s - t) / length) for s in range(m) for t in range(m)) / m**2
    for lag in (0, 1, 4, 20):
        covariance = np.mean(x[: m - lag] * x[lag:])
        assert covariance == pytest.approx((math.exp(-lag / length) - lost) / (1 - lost), abs=0.01)
    assert abs(np.mean(x[-1] * y[0])) < 4 / math.sqrt(800)


def test_it_is_the_bootstrap_of_the_paper():
    x, y = samples()
    m, n = len(x), len(y)
    result = time_series_test(KEY, x, y, block_length=3.0, bandwidth=1.3, num_permutations=50, return_null=True)
    weights = np.asarray(wild_weights(KEY, 50, pool(x, y, pad=True), np.float32(3.0)), np.float64)
    K = reference.gram(np.concatenate([x, y]), [1.3])
    wx, wy = weights[:m], weights[m : m + n]
    expected = [
        sum(wx[i, b] * wx[j, b] * K[i, j] for i in range(m) for j in range(m)) / m**2
        + sum(wy[i, b] * wy[j, b] * K[m + i, m + j] for i in range(n) for j in range(n)) / n**2
        - 2 * sum(wx[i, b] * wy[j, b] * K[i, m + j] for i in range(m) for j in range(n)) / (m * n)
        for b in range(50)
    ]
    observed = float(mmd_biased(x, y, bandwidth=1.3)) ** 2
    estimate = float(mmd2_unbiased(x, y, bandwidth=1.3))
    np.testing.assert_allclose(result.null, np.array(expected) - observed + estimate, atol=2e-6)
    assert float(result.statistic) == pytest.approx(estimate, abs=1e-6)
    assert float(result.mmd_biased) ** 2 == pytest.approx(observed, rel=1e-4)
    assert float(result.pvalue) == pytest.approx((1 + np.sum(np.array(expected) >= observed)) / 51)


def test_level_on_a_series_where_permutations_reject_too_often():
    rows, rho, trials = 100, 0.5, 300

    def trial(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = (autoregressive(key, rows, rho) for key in (x_key, y_key))
        knobs = {"num_permutations": 99}
        return time_series_test(key, x, y, **knobs).reject, permutation_test(key, x, y, **knobs).reject

    rejections = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=20))(jax.random.split(KEY, trials))
    series, permuted = (float(jnp.mean(rejected)) for rejected in rejections)
    # .065 and .247 over 1,000 other trials.
    assert series < 0.065 + 3 * math.sqrt(0.065 * 0.935 / trials)
    assert permuted > 0.247 - 3 * math.sqrt(0.247 * 0.753 / trials)


def test_it_sees_a_shift():
    x_key, y_key, key = jax.random.split(KEY, 3)
    x, y = (autoregressive(key, 300, 0.5) for key in (x_key, y_key))
    assert bool(time_series_test(key, x, y + 1.0, num_permutations=199).reject)
    assert float(time_series_test(key, x, y + 1.0, num_permutations=199).pvalue) == pytest.approx(1 / 200)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"block_length": 0.0}, "block_length is 0.0"),
        ({"block_length": 30.0}, "above 0 and below 30"),
        ({"block_length": np.nan}, "block_length is nan"),
        ({"num_permutations": 10}, "below 1 / "),
    ],
)
def test_bad_input_is_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        time_series_test(KEY, *samples(), **knobs)


def test_bad_traced_values_give_nan():
    x, y = samples()
    result = jax.jit(lambda length: time_series_test(KEY, x, y, block_length=length, num_permutations=39))(-1.0)
    assert np.isnan(result.pvalue) and not bool(result.reject)
