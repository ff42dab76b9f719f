"""Estimates from a part of the pairs: what they equal, their mean and variance, the level of their tests, gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import kernels, mmd2_unbiased
from mmd_jax.two_sample.linear_time import block_test, incomplete_test, linear_test
from mmd_jax.two_sample.subsampled import mmd2_block, mmd2_incomplete, mmd2_linear, mmd2_nystrom
from tests import reference

KEY = jax.random.key(0)


def samples(m, n, d=3, shift=0.0, seed=0):
    rng = np.random.default_rng([m, n, d, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


def test_one_block_is_the_full_estimate():
    x, y = samples(60, 60, shift=0.4)
    estimate, variance = mmd2_block(KEY, x, y, block_size=60, bandwidth=1.5)
    assert float(estimate) == pytest.approx(reference.mmd2_unbiased(x, y, [1.5]), abs=1e-6)
    assert np.isnan(variance)


def test_all_superdiagonals_are_all_pairs():
    x, y = samples(50, 50, shift=0.4)
    K = reference.gram(np.concatenate([x, y]), [1.5])
    # The paired form leaves out k(x_i, y_i); which y stands beside which x is drawn, so permute K by its mean over draws.
    full = reference.mmd2_unbiased(x, y, [1.5])
    paired = [float(mmd2_incomplete(jax.random.key(i), x, y, num_superdiagonals=49, bandwidth=1.5)) for i in range(200)]
    cross = K[:50, 50:]
    spread = 2 * cross.std() / np.sqrt(50) / 49
    assert abs(np.mean(paired) - full) < 4 * spread / np.sqrt(200)
    assert 0.7 < np.std(paired) / spread < 1.3


def test_all_landmarks_give_the_full_estimate():
    x, y = samples(40, 60, shift=0.4)
    found = mmd2_nystrom(KEY, x, y, num_landmarks=100, bandwidth=1.5)
    assert float(found) == pytest.approx(reference.mmd2_unbiased(x, y, [1.5]), abs=2e-4)


ESTIMATES = {
    "linear": lambda *args, **knobs: mmd2_linear(*args, **knobs).estimate,
    "block": lambda *args, **knobs: mmd2_block(*args, **knobs).estimate,
    "incomplete": partial(mmd2_incomplete, num_superdiagonals=5),
    "nystrom": mmd2_nystrom,
}


@pytest.mark.parametrize("name", ["linear", "block", "incomplete"])
def test_estimates_are_unbiased(name):
    # MMD² of N(0, I) and N(μ, I) by a Gaussian kernel of bandwidth σ in d dimensions.
    d, sigma, shift, m, n = 2, 1.3, 0.5, 30, 41
    exact = 2 * (sigma**2 / (sigma**2 + 2)) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * (sigma**2 + 2))))

    def draw(key):
        keys = jax.random.split(key, 3)
        x, y = jax.random.normal(keys[0], (m, d)), jax.random.normal(keys[1], (n, d)) + shift
        return ESTIMATES[name](keys[2], x, y, bandwidth=sigma)

    values = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 3000)))
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(3000)


@pytest.mark.parametrize("estimator", [mmd2_linear, partial(mmd2_block, block_size=4)])
def test_variance_is_that_of_the_estimate(estimator):
    def draw(key):
        keys = jax.random.split(key, 3)
        x, y = jax.random.normal(keys[0], (40, 2)), jax.random.normal(keys[1], (40, 2)) + 0.5
        return estimator(keys[2], x, y, bandwidth=1.0)

    estimate, variance = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 3000))
    assert float(variance.mean()) == pytest.approx(float(estimate.var(ddof=1)), rel=0.1)


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("kernel", [kernels.gaussian, kernels.laplace_l2, kernels.laplace_l1, kernels.matern32])
def test_gradient_is_finite_where_rows_coincide(name, kernel):
    x, y = samples(20, 20)
    x[:10] = y[:10] = x[0]
    gradient = jax.jit(jax.grad(lambda x: ESTIMATES[name](KEY, x, y, bandwidth=1.0, kernel=kernel)))(x)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def gauss(key, size):
    return jax.random.normal(key, (size, 2))


def rejections(test, m, n, trials=2000, sample=gauss, **knobs):
    def trial(key):
        keys = jax.random.split(key, 3)
        return test(keys[2], sample(keys[0], m), sample(keys[1], n), **knobs).reject

    keys = jax.random.split(jax.random.key(11), trials)
    return float(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=100))(keys).mean())


@pytest.mark.parametrize("m,n", [(60, 60), (40, 90)])
def test_level_of_the_incomplete_test_is_exact(m, n):
    rate = rejections(incomplete_test, m, n, num_superdiagonals=10, num_permutations=99, bandwidth=1.5)
    assert abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(("test", "least"), [(linear_test, 0.045), (block_test, 0.02)])
def test_level_of_the_asymptotic_tests(test, least):
    rate = rejections(test, 50, 50, bandwidth=1.5)  # the docstrings have their levels
    error = 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert least - error < rate < 0.05 + error


def test_level_where_rows_are_sorted_by_class():
    def two_classes(key, size):
        class_key, row_key = jax.random.split(key)
        center = jnp.sort(jax.random.bernoulli(class_key, 0.5, (size,)).astype(jnp.float32))
        return 3 * center[:, None] + 0.5 * jax.random.normal(row_key, (size, 2))

    rate = rejections(linear_test, 60, 40, sample=two_classes, bandwidth=1.5)
    assert abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("test", [linear_test, block_test, incomplete_test])
def test_power(test):
    x, y = samples(2000, 1500, shift=0.5)
    result = test(KEY, x, y)
    assert bool(result.reject) and float(result.pvalue) <= 0.05
    assert float(result.statistic) > float(result.threshold)


@pytest.mark.parametrize("name", ESTIMATES)
def test_traced_and_concrete_agree(name):
    x, y = samples(40, 33, shift=0.3)
    compiled = jax.jit(partial(ESTIMATES[name], bandwidth=1.5))(KEY, jnp.asarray(x), jnp.asarray(y))
    assert np.isfinite(compiled)
    assert float(compiled) == pytest.approx(float(mmd2_unbiased(x, y, bandwidth=1.5)), abs=0.3)


def test_sizes_that_do_not_fit_are_refused():
    x, y = samples(10, 3)
    for call, message in (
        (lambda: mmd2_block(KEY, x, y, block_size=4), "block_size is 4, more than the 3 rows"),
        (lambda: mmd2_block(KEY, x, y, block_size=1), "expected at least 2"),
        (lambda: linear_test(KEY, x, y), "there are 1 pairs of rows"),
        (lambda: block_test(KEY, x, y, block_size=2), "there are 1 blocks of 2 rows"),
        (lambda: incomplete_test(KEY, x, y), "3 pairs can be swapped in 4 ways only"),
        (lambda: mmd2_incomplete(KEY, x, y, num_superdiagonals=0), "expected at least 1"),
        (lambda: mmd2_nystrom(KEY, x, y, num_landmarks=14), "at most m \\+ n = 13"),
        (lambda: mmd2_nystrom(KEY, x, y, kernel=kernels.energy), "not positive definite"),
        (lambda: linear_test(KEY, x, x, alpha=1.5), "alpha is 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("test", [linear_test, block_test])
def test_no_variance_no_decision(test):
    result = test(KEY, np.zeros((40, 2)), np.ones((40, 2)), bandwidth=1.0)
    assert np.isnan(result.pvalue) and not result.reject
