"""Every kernel: against its formula in float64, tile = pair, gradient, MMDs that are known by other names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from mmd_jax.two_sample import (
    bandwidth_grid,
    energy,
    gaussian,
    inverse_multiquadric,
    kernel_product,
    kernel_sum,
    laplace_l1,
    laplace_l2,
    linear,
    matern32,
    matern52,
    median_bandwidth,
    mmd2_unbiased,
    mmd_biased,
    permutation_test,
    polynomial,
    rational_quadratic,
)
from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.kernels import dot_bfloat16, dot_highest, dot_tf32, l1_distances
from mmd_jax.two_sample.pooled import pool

FORMULAS = {
    "gaussian": (gaussian, lambda A, B, s: np.exp(-(cdist(A, B) ** 2) / (2 * s**2))),
    "laplace l1": (laplace_l1, lambda A, B, s: np.exp(-cdist(A, B, "cityblock") / s)),
    "laplace l2": (laplace_l2, lambda A, B, s: np.exp(-cdist(A, B) / s)),
    "matern 3/2": (matern32, lambda A, B, s: (1 + 3**0.5 * cdist(A, B) / s) * np.exp(-(3**0.5) * cdist(A, B) / s)),
    "matern 5/2": (
        matern52,
        lambda A, B, s: (
            (1 + 5**0.5 * cdist(A, B) / s + 5 * cdist(A, B) ** 2 / (3 * s**2)) * np.exp(-(5**0.5) * cdist(A, B) / s)
        ),
    ),
    "inverse multiquadric": (inverse_multiquadric, lambda A, B, s: (1 + cdist(A, B) ** 2 / s**2) ** -0.5),
    "rational quadratic": (rational_quadratic(1.7), lambda A, B, s: (1 + cdist(A, B) ** 2 / (3.4 * s**2)) ** -1.7),
    "polynomial": (polynomial(3, 0.5), lambda A, B, s: (A @ B.T / s**2 + 0.5) ** 3),
    "linear": (linear, lambda A, B, s: A @ B.T / s**2),
    "energy": (energy, lambda A, B, s: -cdist(A, B) / s),
}
KERNELS = [kernel for kernel, _ in FORMULAS.values()]


def rows(seed, n, d=3):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("name", FORMULAS)
def test_tile_and_pair_are_the_formula(name):
    kernel, formula = FORMULAS[name]
    a, b = rows(0, 7, 12), rows(1, 5, 12)
    exact = formula(a.astype(np.float64), b.astype(np.float64), 1.7)
    bandwidth = jnp.asarray([1.7])
    np.testing.assert_allclose(kernel.tile(jnp.asarray(a), jnp.asarray(b), bandwidth), exact, rtol=2e-5, atol=2e-5)
    pairs = jax.vmap(jax.vmap(kernel.pair, (None, 0, None)), (0, None, None))(jnp.asarray(a), jnp.asarray(b), bandwidth)
    np.testing.assert_allclose(pairs, exact, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_mmd_is_that_of_the_full_matrix(name):
    kernel, formula = FORMULAS[name]
    x, y = rows(2, 30), rows(3, 40) + 0.5
    z = np.concatenate([x, y]).astype(np.float64)
    K = formula(z, z, 1.3)
    biased = np.sqrt(K[:30, :30].mean() + K[30:, 30:].mean() - 2 * K[:30, 30:].mean())
    assert float(mmd_biased(x, y, kernel=kernel, bandwidth=1.3)) == pytest.approx(biased, rel=2e-4)
    np.fill_diagonal(K, 0)
    unbiased = K[:30, :30].sum() / (30 * 29) + K[30:, 30:].sum() / (40 * 39) - 2 * K[:30, 30:].mean()
    assert float(mmd2_unbiased(x, y, kernel=kernel, bandwidth=1.3)) == pytest.approx(unbiased, rel=1e-3, abs=2e-5)


def test_gradients_are_finite_at_coincident_points():
    x = jnp.ones((4, 3))
    for kernel in KERNELS:
        gradient = jax.grad(lambda x, kernel=kernel: kernel.tile(x, jnp.ones((4, 3)), jnp.ones(1)).sum())(x)
        assert np.isfinite(gradient).all()


def test_energy_and_linear_kernels_are_known_distances():
    x, y = rows(4, 50, 1), rows(5, 70, 1) + 0.7
    assert float(mmd_biased(x, y, kernel=energy)) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]), rel=1e-4)
    x, y = rows(4, 50), rows(5, 70) + 0.7
    assert float(mmd_biased(x, y, kernel=linear)) == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), rel=1e-4)


def test_sums_and_products_take_a_bandwidth_for_each_part():
    a, b = jnp.asarray(rows(0, 6)), jnp.asarray(rows(1, 4))
    widths = jnp.asarray([0.8, 2.0, 1.5])
    parts = [gaussian.tile(a, b, widths[:1]), laplace_l1.tile(a, b, widths[1:2]), laplace_l2.tile(a, b, widths[2:])]
    np.testing.assert_allclose(kernel_sum(gaussian, laplace_l1, laplace_l2).tile(a, b, widths), sum(parts), rtol=1e-5)
    nested = kernel_product(kernel_sum(gaussian, laplace_l1), laplace_l2)
    np.testing.assert_allclose(nested.tile(a, b, widths), (parts[0] + parts[1]) * parts[2], rtol=1e-5)
    assert nested is kernel_product(kernel_sum(gaussian, laplace_l1), laplace_l2)  # so that jit finds its program
    assert nested.translation_invariant and not kernel_product(gaussian, linear).translation_invariant
    with pytest.raises(ValueError, match="takes one bandwidth for each"):
        mmd2_unbiased(np.asarray(a), np.asarray(b), kernel=nested, bandwidth=1.0)
    defaults = resolve_bandwidth(None, pool(np.asarray(a), np.asarray(b), pad=True), nested)
    pooled = np.concatenate([a, b])
    l1, l2 = np.median(pdist(pooled, "cityblock")), np.median(pdist(pooled))
    assert defaults.tolist() == pytest.approx([l2, l1, l2], rel=1e-5)


def test_bandwidths_are_of_the_kernels_own_distance():
    pooled = rows(6, 60)
    l1 = np.median(pdist(pooled, "cityblock"))
    assert float(median_bandwidth(pooled, kernel=laplace_l1)) == pytest.approx(l1, rel=1e-5)
    assert float(jax.jit(lambda z: median_bandwidth(z, kernel=laplace_l1))(pooled)) == pytest.approx(l1, rel=1e-5)
    for kernel, metric in ((gaussian, "euclidean"), (laplace_l1, "cityblock")):
        low, high = np.quantile(pdist(pooled, metric), [0.05, 0.95])
        grid = bandwidth_grid(pooled, 5, kernel=kernel)
        np.testing.assert_allclose(grid, np.geomspace(low / 2, 2 * high, 5), rtol=1e-4)
        np.testing.assert_allclose(
            jax.jit(lambda z, kernel=kernel: bandwidth_grid(z, 5, kernel=kernel))(pooled), grid, rtol=1e-4
        )


def test_l1_distances_of_any_width():
    for d in (1, 3, 6, 64):
        a, b = rows(0, 5, d), rows(1, 4, d)
        np.testing.assert_allclose(l1_distances(jnp.asarray(a), jnp.asarray(b)), cdist(a, b, "cityblock"), rtol=1e-5)


@pytest.mark.parametrize(("dot", "bits"), [(dot_highest, 22), (dot_tf32, 10), (dot_bfloat16, 7)])
def test_products_are_as_precise_as_they_say(dot, bits):
    a, b = rows(0, 20, 64), rows(1, 64, 30)
    error = np.abs(np.asarray(dot(jnp.asarray(a), jnp.asarray(b))) - a.astype(np.float64) @ b.astype(np.float64)).max()
    assert error < 30 * 2.0**-bits
    assert dot is dot_highest or error > 2.0**-bits / 30  # else it would not be rounded at all


def test_a_kernel_that_overflows_is_told(key):
    x = np.full((20, 3), 1e15, np.float32) * (1 + rows(0, 20))
    with pytest.raises(ValueError, match="overflows on these rows"):
        permutation_test(key, x, 2 * x, kernel=polynomial(5), bandwidth=1.0, num_permutations=19)
    with pytest.raises(ValueError, match="all rows are 0"):
        mmd2_unbiased(np.zeros((5, 2)), np.zeros((4, 2)), kernel=polynomial())


BAD = [lambda: polynomial(0), lambda: polynomial(2, -1.0), lambda: rational_quadratic(0.0), lambda: kernel_sum()]


@pytest.mark.parametrize("make", BAD)
def test_bad_kernels(make):
    with pytest.raises(ValueError, match=r"expected|needs at least one"):
        make()


def test_a_product_with_a_linear_part_is_not_centred():
    x, y = rows(0, 6) + 3, rows(1, 7) + 2
    kernel, widths = kernel_product(kernel_sum(linear, gaussian), gaussian), jnp.ones(3)
    z = jnp.asarray(np.concatenate([x, y]))
    K = np.array(jax.vmap(jax.vmap(kernel.pair, (None, 0, None)), (0, None, None))(z, z, widths), np.float64)
    np.fill_diagonal(K, 0)
    exact = K[:6, :6].sum() / 30 + K[6:, 6:].sum() / 42 - 2 * K[:6, 6:].mean()
    assert float(mmd2_unbiased(x, y, kernel=kernel, bandwidth=np.ones(3))) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("where", [0, 57, 199])
def test_the_median_does_not_hang_on_which_row_is_first(where):
    pooled = rows(2, 200, 2)
    pooled = np.insert(pooled, where, [1e4, 1e4], axis=0)
    assert float(median_bandwidth(pooled)) == pytest.approx(np.median(pdist(pooled)), rel=1e-4)
    assert float(jax.jit(median_bandwidth)(pooled)) == pytest.approx(np.median(pdist(pooled)), rel=1e-4)
