"""Both estimates against a double loop in float64, and as a divergence that can be differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import median_bandwidth, mmd2_unbiased, mmd_biased
from tests import reference


def samples(m, n, d=3, shift=0.4, dtype=np.float64):
    rng = np.random.default_rng([m, n, d])
    return rng.normal(size=(m, d)).astype(dtype), (rng.normal(size=(n, d)) + shift).astype(dtype)


@pytest.mark.parametrize(
    ("m", "n", "d", "bandwidth"),
    [(2, 2, 1, [1.3]), (5, 3, 2, [0.7]), (60, 140, 3, [0.5, 1.0, 3.0]), (100, 90, 5, [2.0])],
)
def test_both_estimates_agree_with_a_double_loop_in_float64(m, n, d, bandwidth):
    x, y = samples(m, n, d)
    with jax.enable_x64(True):
        unbiased, biased = mmd2_unbiased(x, y, bandwidth=bandwidth), mmd_biased(x, y, bandwidth=bandwidth)
        traced = jax.jit(lambda x, y: mmd2_unbiased(x, y, bandwidth=np.array(bandwidth)))(x, y)
    assert unbiased.dtype == biased.dtype == np.float64
    exact = reference.mmd2_unbiased(x, y, bandwidth)
    assert float(unbiased) == pytest.approx(exact, rel=1e-10)
    assert float(traced) == pytest.approx(exact, rel=1e-10)
    assert float(biased) == pytest.approx(reference.mmd_biased(x, y, bandwidth), rel=1e-10)


@pytest.mark.parametrize(("m", "n"), [(2, 3), (60, 140), (100, 90)])
def test_both_estimates_in_float32(m, n):
    x, y = samples(m, n, dtype=np.float32)
    # The null's deviation is about 1/n here, and .05 % of it is the error allowed.
    allowed = 5e-4 / max(m, n)
    assert float(mmd2_unbiased(x, y, bandwidth=1.3)) == pytest.approx(reference.mmd2_unbiased(x, y, [1.3]), abs=allowed)
    assert float(mmd_biased(x, y, bandwidth=1.3)) == pytest.approx(reference.mmd_biased(x, y, [1.3]), abs=allowed)


def test_the_default_bandwidth_is_the_median_of_the_pooled_rows():
    x, y = samples(30, 20)
    median = float(median_bandwidth(np.concatenate([x, y])))
    assert float(mmd2_unbiased(x, y)) == pytest.approx(float(mmd2_unbiased(x, y, bandwidth=median)), rel=1e-4)


def test_it_is_a_divergence():
    x, y = samples(40, 50, dtype=np.float32)
    assert float(mmd_biased(x, x, bandwidth=1.0)) == pytest.approx(0, abs=1e-3)
    assert float(mmd_biased(x, y, bandwidth=1.0)) == pytest.approx(float(mmd_biased(y, x, bandwidth=1.0)), rel=1e-4)
    order = np.random.default_rng(0).permutation(40)
    assert float(mmd2_unbiased(x[order], y, bandwidth=1.0)) == pytest.approx(
        float(mmd2_unbiased(x, y, bandwidth=1.0)), rel=1e-4
    )
    near, far = (float(mmd2_unbiased(x, y + shift, bandwidth=1.0)) for shift in (0.5, 1.5))
    assert near < far


def test_the_unbiased_estimate_has_mean_zero_under_the_null():
    rows = jax.random.normal(jax.random.key(0), (4000, 30, 2))
    values = jax.jit(jax.vmap(lambda rows: mmd2_unbiased(rows[:10], rows[10:], bandwidth=1.0)))(rows)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 4000**0.5
    assert float(values.min()) < 0


def test_many_data_sets_and_bandwidths_at_once():
    x, y = samples(20, 30, dtype=np.float32)
    xs, bandwidths = np.stack([x, x + 1, x + 2]), np.array([0.5, 1.0, 2.0], np.float32)
    each = [float(mmd2_unbiased(x, y, bandwidth=b)) for x, b in zip(xs, bandwidths)]
    found = jax.vmap(lambda x, b: mmd2_unbiased(x, y, bandwidth=b))(jnp.asarray(xs), jnp.asarray(bandwidths))
    np.testing.assert_allclose(found, each, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimate", [mmd2_unbiased, mmd_biased])
def test_derivative_agrees_with_finite_differences(estimate):
    x, y = samples(70, 60, d=2)  # Three blocks of rows: tiles on and off the diagonal.
    direction = np.random.default_rng(5).normal(size=x.shape)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: estimate(x, y, bandwidth=1.1))(x)
        ends = [float(estimate(x + step * direction, y, bandwidth=1.1)) for step in (1e-5, -1e-5)]
    assert float(np.sum(np.asarray(gradient) * direction)) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_derivative_is_finite_at_coincident_points():
    x = np.ones((6, 2), np.float32)
    x[3:] = 0
    for estimate in (mmd2_unbiased, mmd_biased):
        assert np.isfinite(jax.grad(lambda x, f=estimate: f(x, x, bandwidth=1.0))(x)).all()
        assert np.isfinite(jax.grad(lambda x, f=estimate: f(x, x[:4]))(x)).all()


def test_memory_of_the_derivative_grows_with_n_and_not_with_its_square():
    def bytes_for(n):
        rows = jax.ShapeDtypeStruct((n, 4), jnp.float32)
        gradient = jax.jit(jax.grad(lambda x, y: mmd2_unbiased(x, y, bandwidth=1.0)))
        return gradient.lower(rows, rows).compile().memory_analysis().temp_size_in_bytes

    small, large = bytes_for(4096), bytes_for(8192)
    # Storing every tile would take 2·(2n)² bytes: 134 MB and 537 MB.
    assert large < 60e6
    assert large - small < 10e6


def test_bad_traced_values_are_nan():
    x, y = samples(10, 10, dtype=np.float32)
    assert np.isnan(jax.jit(mmd2_unbiased)(np.where(x > 1.2, np.nan, x), y))
    assert np.isnan(jax.jit(mmd_biased)(np.where(x > 1.2, np.inf, x), y))
    at = jax.jit(lambda b: mmd2_unbiased(x, y, bandwidth=b))
    assert np.isfinite(at(1.0))
    for bandwidth in (0.0, -1.0, np.inf, np.nan):
        assert np.isnan(at(bandwidth))
