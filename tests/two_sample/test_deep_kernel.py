"""Learned kernels: the kernel and the objective against loops, its gradient, its power and its level."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmd_jax.two_sample import permutation_test
from mmd_jax.two_sample.deep_kernel import deep_kernel, deep_kernel_test, join, learn_kernel, power, scaled

KEY = jax.random.key(3)


def slow_kernel(a, b, width, bandwidth):
    def gaussian(a, b, sigma):
        return math.exp(-sum((float(s) - float(t)) ** 2 for s, t in zip(a, b)) / (2 * sigma**2))

    of_features, of_inputs, epsilon = (float(value) for value in bandwidth)
    kappa = gaussian(a[:width], b[:width], of_features)
    return ((1 - epsilon) * kappa + epsilon) * gaussian(a[width:], b[width:], of_inputs)


def blobs(key, m, n, ratio=6.0):
    """A 3 × 3 grid of round normals, and of ones stretched along the diagonal, 10 apart."""
    place_key, noise_key = jax.random.split(key)
    centres = 10.0 * jax.random.randint(place_key, (m + n, 2), 0, 3)
    noise = jax.random.normal(noise_key, (m + n, 2))
    along, across = noise[m:, 0] * math.sqrt(ratio), noise[m:, 1]
    turned = jnp.stack([along - across, along + across], axis=1) / math.sqrt(2)
    return np.asarray(centres[:m] + noise[:m]), np.asarray(centres[m:] + turned)


def network(params, rows):
    for weight, bias in params[:-1]:
        rows = jax.nn.softplus(rows @ weight + bias[None, :])
    weight, bias = params[-1]
    return rows @ weight + bias[None, :]


def initial(key, sizes):
    return [
        (jax.random.normal(one, (a, b)) / math.sqrt(a), jnp.zeros(b))
        for one, a, b in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:])
    ]


def test_kernel_is_the_product_of_its_parts():
    rng = np.random.default_rng(0)
    A, B = jnp.asarray(rng.normal(size=(4, 5))), jnp.asarray(rng.normal(size=(6, 5)))
    bandwidth = jnp.array([0.8, 1.7, 0.2])
    kernel = deep_kernel(2)
    expected = [[slow_kernel(a, b, 2, bandwidth) for b in B] for a in A]
    np.testing.assert_allclose(kernel.tile(A, B, bandwidth), expected, rtol=2e-5)
    assert float(kernel.pair(A[0], B[0], bandwidth)) == pytest.approx(expected[0][0], rel=1e-5)


def test_objective_is_that_of_the_paper():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)).astype(np.float32), (rng.normal(size=(12, 3)) + 0.5).astype(np.float32)
    bandwidth, n = jnp.array([0.8, 1.7, 0.2]), 12

    def k(a, b):
        return slow_kernel(a, b, 1, bandwidth)

    h = np.array([[k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j]) for j in range(n)] for i in range(n)])
    estimate = (h.sum() - np.trace(h)) / (n * (n - 1))
    variance = 4 / n**3 * sum(h[i].sum() ** 2 for i in range(n)) - 4 / n**4 * h.sum() ** 2
    found = float(power(jnp.asarray(x), jnp.asarray(y), bandwidth, kernel=deep_kernel(1)))
    assert found == pytest.approx(estimate / math.sqrt(variance + 1e-8), rel=1e-3)


def test_gradient_is_finite_where_rows_coincide():
    rows = jnp.ones((8, 2))

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2))
    def gradient(params, x, y):
        x, y = (jnp.concatenate([scaled(params, rows), rows], axis=1) for rows in (x, y))
        return power(x, y, jnp.array([1.0, 1.0, 0.1]), kernel=deep_kernel(2))

    for y in (rows, rows.at[:4].set(2.0)):
        assert all(np.isfinite(part).all() for part in gradient(jnp.zeros(2), rows, y))


def test_training_raises_the_objective_and_finds_the_feature_that_differs():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 200, 6)).astype(np.float32)
    y[:, 0] *= 2
    learned = learn_kernel(KEY, x, y, num_steps=150, optimizer=optax.adam(0.05))
    assert np.isfinite(learned.objective).all() and learned.objective[-1] > 1.2 * learned.objective[0]
    assert int(np.argmax(learned.params)) == 0


def test_on_blobs_it_beats_the_median_bandwidth():
    wins = {"learned": 0, "median": 0}
    for seed in range(6):
        key, test_key = jax.random.split(jax.random.key(seed))
        x, y = blobs(key, 240, 240)
        found = deep_kernel_test(test_key, x, y, num_permutations=99, num_steps=60)
        wins["learned"] += int(found.result.reject)
        wins["median"] += int(permutation_test(test_key, x, y, num_permutations=99).reject)
    # 33 and 2 of 40 other trials.
    assert wins["learned"] >= 4
    assert wins["learned"] >= 2 + wins["median"]


def test_a_network_learns_too():
    x, y = blobs(KEY, 240, 240)
    params = initial(KEY, (2, 16, 8))
    result, learned = deep_kernel_test(
        KEY, x, y, features=network, params=params, optimizer=optax.adam(0.01), num_steps=60, num_permutations=99
    )
    assert bool(result.reject)
    assert jax.tree.structure(learned.params) == jax.tree.structure(params)
    assert join(network, learned.params, x).shape == (240, 10)


def test_level():
    trials = 200

    def trial(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (24, 2)), jax.random.normal(y_key, (30, 2))
        return deep_kernel_test(key, x, y, num_permutations=19, num_steps=10).result.reject

    rate = float(jnp.mean(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=20))(jax.random.split(KEY, trials))))
    assert abs(rate - 0.05) < 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: deep_kernel_test(KEY, x, y, features=network), "params is missing"),
        (lambda x, y: deep_kernel_test(KEY, x[:3], y), "expected at least 4 each"),
        (lambda x, y: deep_kernel_test(KEY, x[:, :1], y), "x has 1 features and y has 2"),
        (lambda x, y: learn_kernel(KEY, x * np.nan, y), "x has 20 rows with NaN"),
        (lambda x, y: learn_kernel(KEY, x, y, features=lambda params, rows: rows[0], params=0.0), "features returned"),
        (lambda x, y: learn_kernel(KEY, x, y, num_steps=0), "num_steps is 0"),
        (lambda x, y: learn_kernel(KEY, x, y, batch_size=1), "batch_size is 1"),
    ],
)
def test_bad_input_is_named(call, message):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 2)).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        call(x, y)
