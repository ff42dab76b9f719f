"""Tests without resampling: their null distributions against enumeration and closed forms, their level and power."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample import energy, gaussian, mmd2_unbiased, mmd_biased, permutation_test, polynomial
from mmd_jax.two_sample.asymptotic import (
    _moments,
    cross_mmd_test,
    distribution_free_test,
    gamma_test,
    spectral_test,
)
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.pooled import pool
from mmd_jax.two_sample.saddlepoint import quadratic_form_above, quadratic_form_quantile
from tests import reference

KEY = jax.random.key(5)
above, quantile = jax.jit(quadratic_form_above), jax.jit(quadratic_form_quantile)
TESTS = {
    "gamma": lambda key, x, y, **knobs: gamma_test(x, y, **knobs),
    "spectral": lambda key, x, y, **knobs: spectral_test(x, y, **knobs),
    "bound": lambda key, x, y, **knobs: distribution_free_test(x, y, **knobs),
    "cross": cross_mmd_test,
}


def samples(m, n, d=3, shift=0.0, seed=0):
    rng = np.random.default_rng([m, n, d, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


def test_variance_is_that_over_all_splits():
    x, y = samples(3, 5)
    K = reference.gram(np.concatenate([x, y]), [1.3])
    columns = np.array([[i in chosen for i in range(8)] for chosen in itertools.combinations(range(8), 3)]).T
    splits = reference.mmd2_unbiased_of_splits(K, columns)
    moments = _moments(pool(x, y, pad=True), jnp.array([1.3]), Spec((gaussian,)))
    assert splits.mean() == pytest.approx(0, abs=1e-12)
    assert float(moments.variance) == pytest.approx(splits.var(), rel=1e-4)
    assert float(moments.trace) == pytest.approx(1 - (K.sum() - 8) / 56, rel=1e-4)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_sum_of_equal_squares_is_chi_squared(size):
    weights = jnp.full(size, 1 / math.sqrt(2 * size))
    for share in (0.9, 0.5, 0.2, 0.05, 0.01, 1e-4):
        value = (stats.chi2.isf(share, size) - size) / math.sqrt(2 * size)
        # The approximation's own error, largest for one term.
        assert float(above(jnp.float32(value), weights)) == pytest.approx(share, rel=0.1 / size**0.5)
        assert float(quantile(jnp.float32(share), weights)) == pytest.approx(value, abs=0.1 / size**0.5)


def test_a_sum_of_unequal_squares_of_both_signs():
    rng = np.random.default_rng(0)
    weights = np.concatenate([0.7 ** np.arange(30), -0.1 * rng.random(20)])
    drawn = (rng.normal(size=(200_000, 50)) ** 2 - 1) @ weights
    for share in (0.5, 0.1, 0.05, 0.01):
        found = float(
            quadratic_form_above(jnp.float32(np.quantile(drawn, 1 - share)), jnp.asarray(weights, jnp.float32))
        )
        assert found == pytest.approx(share, rel=0.04)


def test_the_statistics_are_the_estimates():
    x, y = samples(50, 70, shift=0.3)
    for test in (gamma_test, spectral_test, distribution_free_test):
        result = test(x, y)
        assert float(result.statistic) == pytest.approx(float(mmd2_unbiased(x, y)), rel=1e-4)
        assert float(result.mmd_biased) == pytest.approx(float(mmd_biased(x, y)), rel=1e-4)
        assert int(result.num_permutations) == 0
        np.testing.assert_array_equal(result.pvalue_interval, [result.pvalue, result.pvalue])


@pytest.mark.parametrize("test", [gamma_test, spectral_test])
@pytest.mark.parametrize(("m", "n"), [(60, 60), (30, 90)])
def test_p_is_near_that_of_permutations(test, m, n):
    for seed, shift in enumerate((0.0, 0.15, 0.3)):
        x, y = samples(m, n, shift=shift, seed=seed)
        exact = permutation_test(KEY, x, y, num_permutations=1999)
        found = test(x, y)
        # Monte Carlo's three errors, and an approximation's.
        tolerance = 3 * math.sqrt(float(exact.pvalue) / 2000) + 0.1 * float(exact.pvalue) + 2e-3
        assert float(found.pvalue) == pytest.approx(float(exact.pvalue), abs=tolerance)
        assert float(found.threshold) == pytest.approx(float(exact.threshold), rel=0.2)


@pytest.mark.parametrize("name", TESTS)
def test_it_rejects_where_the_statistic_exceeds_the_threshold(name):
    for seed in range(12):
        x, y = samples(40, 60, shift=0.03 * seed if name != "bound" else 0.25 * seed, seed=seed)
        result = TESTS[name](KEY, x, y)
        assert bool(result.reject) == (float(result.statistic) > float(result.threshold))
        assert bool(result.reject) == (float(result.pvalue) <= 0.05)
    assert bool(result.reject)


@pytest.mark.parametrize(("name", "m", "n"), [("gamma", 25, 40), ("spectral", 40, 25), ("cross", 50, 50)])
def test_level(name, m, n):
    def trial(key):
        x_key, y_key, key = jax.random.split(key, 3)
        return TESTS[name](key, jax.random.normal(x_key, (m, 3)), jax.random.normal(y_key, (n, 3))).reject

    trials = 400
    rate = float(jnp.mean(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))(jax.random.split(KEY, trials))))
    # It may differ from .05 by .01 at this size.
    assert abs(rate - 0.05) < 3 * math.sqrt(0.05 * 0.95 / trials) + 0.01


def test_bound_is_that_of_the_paper_for_a_kernel_that_is_not_negative():
    x, y = samples(40, 60)
    result = distribution_free_test(x, y, alpha=0.1)
    largest = math.sqrt(1 / 40 + 1 / 60) * (1 + math.sqrt(math.log(10)))
    gap = float(result.mmd_biased) ** 2 - float(result.statistic)
    assert float(result.threshold) + gap == pytest.approx(largest**2, rel=1e-4)
    twice = distribution_free_test(x, y, alpha=0.1, bound=2.0, bandwidth=[1.0, 2.0])
    gap = float(twice.mmd_biased) ** 2 - float(twice.statistic)
    assert float(twice.threshold) + gap == pytest.approx(2 * largest**2, rel=1e-4)


def test_cross_statistic_is_one_of_two_halves():
    x, y = samples(4, 5, shift=0.5)

    def half(first_x, first_y):
        second_x, second_y = (
            [i for i in range(size) if i not in first] for size, first in ((4, first_x), (5, first_y))
        )

        def f(z):
            return np.mean([reference.gaussian(z, x[i], [1.0]) for i in second_x]) - np.mean(
                [reference.gaussian(z, y[j], [1.0]) for j in second_y]
            )

        u, v = [f(x[i]) for i in first_x], [f(y[j]) for j in first_y]
        return np.mean(u) - np.mean(v), math.sqrt(np.var(u, ddof=1) / len(u) + np.var(v, ddof=1) / len(v))

    ways = [half(a, b) for a in itertools.combinations(range(4), 2) for b in itertools.combinations(range(5), 3)]
    seen = set()
    for seed in range(10):
        result = cross_mmd_test(jax.random.key(seed), x, y, bandwidth=1.0)
        found = float(result.statistic), float(result.threshold) / stats.norm.isf(0.05)
        distance = [np.abs(np.subtract(found, way)).max() for way in ways]
        assert min(distance) < 1e-5
        assert float(result.pvalue) == pytest.approx(stats.norm.sf(found[0] / found[1]), rel=1e-3)
        seen.add(int(np.argmin(distance)))
    assert len(seen) > 5


def test_bad_traced_values_give_nan():
    x, y = samples(20, 20)
    result = jax.jit(lambda x: gamma_test(x, y))(x * np.float32(np.nan))
    assert np.isnan(result.pvalue) and np.isnan(result.statistic) and not bool(result.reject)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: gamma_test(x, y, alpha=1.5), "alpha is 1.5"),
        (lambda x, y: spectral_test(x, y[:, :2]), "x has 3 features and y has 2"),
        (lambda x, y: distribution_free_test(x, y, kernel=energy), "bound is missing"),
        (lambda x, y: distribution_free_test(x, y, kernel=polynomial(2), bound=-1.0), "bound is -1"),
        (lambda x, y: cross_mmd_test(KEY, x[:3], y), "expected at least 4 each"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*samples(10, 12))
