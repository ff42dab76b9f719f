"""The witness function against loops, its link with the estimates, and where it looks for differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import laplace_l1, mmd2_unbiased, polynomial
from mmd_jax.two_sample.witness import where_different, witness, witness_at_samples
from tests import reference


def samples(m, n, d=3, shift=0.5):
    rng = np.random.default_rng([m, n, d])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


def slow(z, x, y, kernel=reference.gaussian, bandwidths=(1.3,)):
    return math.fsum(kernel(z, a, bandwidths) for a in x) / len(x) - math.fsum(
        kernel(z, b, bandwidths) for b in y
    ) / len(y)


@pytest.mark.parametrize(("m", "n", "p"), [(5, 9, 1), (70, 60, 3), (100, 31, 90)])
def test_at_points_it_is_the_difference_of_means(m, n, p):
    x, y = samples(m, n)
    points = np.random.default_rng(p).normal(size=(p, 3)).astype(np.float32)
    found = witness(points, x, y, bandwidth=[1.3, 0.4])
    expected = [slow(z, x, y, bandwidths=(1.3, 0.4)) for z in points]
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_at_the_samples_a_row_is_left_out_of_its_own_mean():
    x, y = samples(40, 33)
    at = witness_at_samples(x, y, bandwidth=1.3)
    expected_x = [slow(x[i], np.delete(x, i, axis=0), y) for i in range(len(x))]
    expected_y = [slow(y[j], x, np.delete(y, j, axis=0)) for j in range(len(y))]
    np.testing.assert_allclose(at.x, expected_x, atol=3e-6)
    np.testing.assert_allclose(at.y, expected_y, atol=3e-6)


@pytest.mark.parametrize("kernel", [laplace_l1, polynomial(2)])
def test_its_means_over_the_samples_are_the_unbiased_estimate(kernel):
    x, y = samples(150, 90)
    at = witness_at_samples(x, y, kernel=kernel)
    estimate = float(mmd2_unbiased(x, y, kernel=kernel))
    assert float(jnp.mean(at.x) - jnp.mean(at.y)) == pytest.approx(estimate, rel=1e-4, abs=1e-6)
    # With the row itself, the biased one would come out.
    biased = float(jnp.mean(witness(x, x, y, kernel=kernel)) - jnp.mean(witness(y, x, y, kernel=kernel)))
    assert biased > estimate + 0.005


def test_at_the_peak_its_derivative_is_finite_and_points_from_q_to_p():
    x, y = samples(30, 30, shift=2.0)
    gradient = jax.grad(lambda z: witness(z[None], x, y, bandwidth=1.0)[0])
    assert np.isfinite(gradient(jnp.asarray(x[0]))).all()
    between = jnp.asarray((x.mean(axis=0) + y.mean(axis=0)) / 2)
    assert np.all(np.asarray(gradient(between)) < 0)


def test_traced_gives_the_same_as_concrete():
    x, y = samples(30, 41)
    concrete = witness_at_samples(x, y), witness(x[:4], x, y)
    traced = jax.jit(lambda x, y: (witness_at_samples(x, y), witness(x[:4], x, y)))(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), concrete, traced)
    assert np.isnan(jax.jit(witness_at_samples)(x, y * np.float32(np.nan)).x).all()


def test_it_finds_the_rows_that_only_one_sample_has():
    x, y = samples(200, 150, shift=0.0)
    x[17:29] += 6
    y[100:110] -= 6
    places = where_different(x, y, 10)
    assert set(np.asarray(places.x)) <= set(range(17, 29))
    assert set(np.asarray(places.y)) == set(range(100, 110))
    assert np.all(np.asarray(places.at_x) > 0) and np.all(np.diff(places.at_x) <= 0)
    assert np.all(np.asarray(places.at_y) < 0) and np.all(np.diff(places.at_y) >= 0)
    traced = jax.jit(lambda x, y: where_different(x, y, 10))(x, y)
    assert set(np.asarray(traced.y)) == set(np.asarray(places.y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: witness(x[:, :2], x, y), "points has 2 features and the samples have 3"),
        (lambda x, y: witness(x[0], x, y), "points has shape"),
        (lambda x, y: witness(x * np.inf, x, y), "points has 20 rows with NaN"),
        (lambda x, y: where_different(x, y, 16), "num is 16; expected from 1 to 15"),
        (lambda x, y: where_different(x, y, 0), "num is 0"),
    ],
)
def test_bad_input_is_named(call, message):
    x, y = samples(20, 15)
    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        call(x, y)
