"""The variance of the unbiased MMD², against U-statistics by loops and against what it is; and the test that rests on it."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import linear
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import gaussian
from mmd_jax.two_sample.relative import relative_test
from mmd_jax.two_sample.variance import mmd2_variance, moments, pool_many, variance_along
from tests import reference

SIGMA = 2.0


def rows(*shape, shift=0.0, seed=0):
    rng = np.random.default_rng([*shape, seed])
    return (rng.normal(size=shape) + shift).astype(np.float32)


def gram(a, b):
    squared = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(2)
    return np.exp(-squared / (2 * SIGMA**2))


def average(values):
    return float(np.mean(list(values)))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_equals_the_u_statistics_of_different_rows(shift):
    """The only unbiased estimates that do not look at the order of the rows, so they must agree to rounding."""
    x, y = rows(5, 2), rows(6, 2, shift=shift)

    def trace(K):  # tr Σ² = E k12² − 2 E k12 k13 + E k12 k34
        return average(
            K[a, b] ** 2 - 2 * K[a, b] * K[a, c] + K[a, b] * K[c, d] for a, b, c, d in permutations(range(len(K)), 4)
        )

    def cross(K):
        pairs = list(permutations(range(K.shape[1]), 2))
        return average(
            K[a, u] * (K[a, u] - K[b, u] - K[a, v] + K[b, v])
            for a, b in permutations(range(len(K)), 2)
            for u, v in pairs
        )

    def along(K, L):  # Var f = E f1² − E f1 f1', f = E k(·, X) − E k(·, Y), each factor with rows of its own
        pairs = list(permutations(range(L.shape[1]), 2))
        return average(
            (K[a, b] - L[a, u]) * (K[a, c] - L[a, v]) - (K[a, b] - L[a, u]) * (K[c, d] - L[c, v])
            for a, b, c, d in permutations(range(len(K)), 4)
            for u, v in pairs
        )

    xx, yy, xy = gram(x, x), gram(y, y), gram(x, y)
    m, n = len(x), len(y)
    degenerate = 2 * trace(xx) / (m * (m - 1)) + 2 * trace(yy) / (n * (n - 1)) + 4 * cross(xy) / (m * n)
    found = mmd2_variance(x, y, bandwidth=SIGMA)
    assert float(found.mmd2) == pytest.approx(reference.mmd2_unbiased(x, y, [SIGMA]), abs=1e-6)
    assert float(found.degenerate) == pytest.approx(degenerate, rel=1e-4, abs=1e-7)
    assert float(found.linear) == pytest.approx(4 * along(xx, xy) / m + 4 * along(yy, xy.T) / n, rel=1e-4, abs=1e-7)
    assert float(found.variance) == pytest.approx(float(found.linear) + float(found.degenerate), rel=1e-6)


def test_is_the_variance_of_the_estimate():
    trials = 20_000
    estimate = jax.jit(
        lambda *both: jax.lax.map(lambda pair: mmd2_variance(*pair, bandwidth=SIGMA), both, batch_size=500)
    )
    for shift in (0.0, 0.7):
        found = estimate(rows(trials, 9, 2), rows(trials, 14, 2, shift=shift))
        squares = (np.asarray(found.mmd2) - np.mean(found.mmd2)) ** 2
        error = np.hypot(squares.std(), np.std(found.variance)) / np.sqrt(trials)
        assert abs(squares.mean() - np.mean(found.variance)) < 4 * error
        assert error < 0.03 * squares.mean()


def test_linear_kernel_in_closed_form():
    """With the linear kernel, the variance along a function is that of the rows along a vector."""
    x, y = rows(400, 3), rows(300, 3, shift=1.0)
    found = mmd2_variance(x, y, bandwidth=1.0, kernel=linear)
    a = x.mean(0) - y.mean(0)
    expected = 4 * (a @ np.cov(x.T) @ a / len(x) + a @ np.cov(y.T) @ a / len(y))
    assert float(found.linear) == pytest.approx(float(expected), rel=0.05)


def test_large_samples_keep_their_precision():
    x, y = rows(1500, 8), rows(1100, 8, shift=0.1)
    K = reference.gram(np.concatenate([x, y]), [SIGMA])
    m, n = len(x), len(y)

    def trace(K):
        K = K - np.diag(np.diag(K))
        r = K.sum(1)
        size = len(K)
        return (
            ((K**2).sum() + r.sum() ** 2 / (size - 1) / (size - 2) - 2 * (r**2).sum() / (size - 2)) / size / (size - 3)
        )

    cross = K[:m, m:] - K[:m, m:].mean(0) - K[:m, m:].mean(1)[:, None] + K[:m, m:].mean()
    degenerate = 2 * trace(K[:m, :m]) / m / (m - 1) + 2 * trace(K[m:, m:]) / n / (n - 1)
    degenerate += 4 * (cross**2).sum() / (m - 1) / (n - 1) / (m * n)
    assert float(mmd2_variance(x, y, bandwidth=SIGMA).degenerate) == pytest.approx(degenerate, rel=1e-3)


def test_three_samples_share_one_pass():
    samples = {"x": rows(40, 2), "y": rows(50, 2, shift=0.5), "z": rows(30, 2, shift=1.0)}
    pooled, sizes = pool_many(samples, fewest=4)
    found = moments(pooled, sizes, jnp.array([SIGMA]), Spec((gaussian,)))
    pair = mmd2_variance(samples["y"], samples["z"], bandwidth=SIGMA)
    means = np.asarray(found.means)
    assert means[1, 1] + means[2, 2] - 2 * means[1, 2] == pytest.approx(float(pair.mmd2), abs=1e-5)
    weights = jnp.array([0.0, 1.0, -1.0])
    linear = 4 * variance_along(found, 1, weights) / 50 + 4 * variance_along(found, 2, weights) / 30
    assert float(linear) == pytest.approx(float(pair.linear), rel=1e-3)


def test_relative_test_keeps_its_level_where_both_are_as_close():
    def trial(shifts, key):
        keys = jax.random.split(key, 3)
        x, y, target = (jax.random.normal(key, (size, 2)) for key, size in zip(keys, (30, 45, 40)))
        return relative_test(x + shifts[0], y + shifts[1], target, bandwidth=SIGMA)

    keys = jax.random.split(jax.random.key(3), 2000)
    trials = jax.jit(lambda shifts: jax.lax.map(lambda key: trial(shifts, key), keys, batch_size=100))
    far, equal = (trials(np.array(shifts, np.float32)) for shifts in ((0.8, -0.8), (0.0, 0.0)))
    for found in (far, equal):
        assert float(found.reject.mean()) < 0.05 + 0.02  # normal only in the limit
        assert float(np.std(found.difference)) < 1.05 * float(np.sqrt(np.mean(np.square(found.standard_error))))
    assert float(far.reject.mean()) > 0.05 - 0.02
    assert float(np.std(far.difference)) > 0.95 * float(np.sqrt(np.mean(np.square(far.standard_error))))


def test_relative_test_finds_the_closer_source():
    x, y, target = rows(150, 2, shift=0.1), rows(140, 2, shift=0.8), rows(160, 2)
    found, opposite = relative_test(x, y, target, bandwidth=SIGMA), relative_test(y, x, target, bandwidth=SIGMA)
    difference = reference.mmd2_unbiased(x, target, [SIGMA]) - reference.mmd2_unbiased(y, target, [SIGMA])
    assert float(found.difference) == pytest.approx(difference, abs=1e-5)
    assert bool(found.reject)
    assert not bool(opposite.reject)
    assert float(found.pvalue) == pytest.approx(1 - float(opposite.pvalue), abs=1e-4)


@pytest.mark.parametrize("call", [mmd2_variance, lambda x, y: relative_test(x, y, rows(9, 2))])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (rows(3, 2), rows(9, 2), "x has 3 rows; a variance needs at least 4"),
        (rows(9, 2), rows(2, 2), "y has 2 rows"),
        (rows(1, 2), rows(9, 2), "x has shape"),
        (rows(9, 2), rows(9, 3), "features"),
    ],
)
def test_refuses(call, x, y, message):
    with pytest.raises(ValueError, match=message):
        call(x, y)


def test_relative_test_refuses_a_level_that_is_none():
    with pytest.raises(ValueError, match="alpha is 0"):
        relative_test(rows(9, 2), rows(9, 2), rows(9, 2), alpha=0)
