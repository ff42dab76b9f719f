"""Kernels: the tile against the pair, and the median bandwidth against a sort of all distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import NoBandwidthError, gaussian, median_bandwidth, mmd2_unbiased
from mmd_jax.two_sample.bandwidths import CHOSEN_ROWS, _choose
from tests import reference


def rows(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("bandwidth", [[1.0], [0.5, 1.0, 4.0]])
def test_tile_is_the_pair_for_all_pairs(bandwidth):
    a, b = jnp.asarray(rows(0, 7, 3)), jnp.asarray(rows(1, 5, 3))
    bandwidth = jnp.asarray(bandwidth)
    pairs = jax.vmap(jax.vmap(gaussian.pair, (None, 0, None)), (0, None, None))(a, b, bandwidth)
    np.testing.assert_allclose(gaussian.tile(a, b, bandwidth), pairs, rtol=1e-5)
    assert float(pairs[2, 3]) == pytest.approx(reference.gaussian(a[2], b[3], bandwidth), rel=1e-5)


def test_several_bandwidths_are_summed():
    a, b = jnp.asarray(rows(0, 4, 2)), jnp.asarray(rows(1, 4, 2))
    each = sum(gaussian.tile(a, b, jnp.asarray([s])) for s in (0.5, 1.0, 4.0))
    np.testing.assert_allclose(gaussian.tile(a, b, jnp.asarray([0.5, 1.0, 4.0])), each, rtol=1e-6)


def test_derivative_is_finite_at_coincident_points():
    a = jnp.ones((3, 2))
    gradient = jax.grad(lambda a: gaussian.tile(a, jnp.ones((3, 2)), jnp.ones(1)).sum())(a)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("count", [2, 3, 10, 65, 130])
def test_median_bandwidth_is_the_median_distance(count):
    pooled = rows(count, count, 3)
    assert float(median_bandwidth(pooled)) == pytest.approx(reference.median_distance(pooled), rel=1e-5)
    assert float(jax.jit(median_bandwidth)(pooled)) == pytest.approx(reference.median_distance(pooled), rel=1e-5)


def test_median_bandwidth_in_float64():
    pooled = rows(0, 40, 3, dtype=np.float64) + 100
    with jax.enable_x64(True):
        assert float(median_bandwidth(pooled)) == pytest.approx(reference.median_distance(pooled), rel=1e-12)


def test_median_bandwidth_of_many_rows_is_near_that_of_all_and_blind_to_their_order():
    pooled = np.concatenate([rows(0, 1500, 4), 1 + rows(1, 1500, 4)])
    assert len(pooled) > CHOSEN_ROWS
    found = float(median_bandwidth(pooled))
    # 1,024 rows: the standard error of a median of distances is about 1 %.
    assert found == pytest.approx(reference.median_distance(pooled[::5]), rel=0.05)
    # The subsample is chosen by contents: labels, which only say where a row stands, can't reach it.
    shuffled = np.random.default_rng(2).permutation(pooled)
    assert float(median_bandwidth(shuffled)) == pytest.approx(found, rel=1e-5)
    assert float(jax.jit(median_bandwidth)(pooled)) == pytest.approx(found, rel=1e-5)


def test_median_bandwidth_of_many_rows_survives_repeated_ones():
    # A fifth of the rows are zeros, as where a ReLU layer is silent: so is a 25th of the pairs, and no more.
    pooled = np.where((np.arange(4000) % 5 > 0)[:, None], rows(0, 4000, 5), 0)
    found = float(median_bandwidth(pooled))
    assert found == pytest.approx(reference.median_distance(pooled[::6]), rel=0.05)
    assert float(median_bandwidth(np.random.default_rng(1).permutation(pooled))) == pytest.approx(found, rel=1e-6)
    assert float(jax.jit(median_bandwidth)(pooled)) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chosen_rows_are_the_same_in_any_order_and_width_and_represent_all(dtype):
    rng = np.random.default_rng(2)
    kinds = {
        "few numbers": rng.integers(0, 2, size=(3000, 16)),
        "copies": np.repeat(rng.normal(size=(40, 3)), 75, axis=0),
        "zeros": rng.normal(size=(3000, 3)) * (np.arange(3000) < 1800)[:, None],
        # Equal in float32, so float64 has to look at all of its bits.
        "close": 1 + 1e-12 * np.arange(3000)[:, None],
    }

    def chosen(pooled, width, padding):
        padded = np.zeros((len(pooled) + padding, width), dtype)
        padded[: len(pooled), : pooled.shape[1]] = pooled
        return padded[np.asarray(_choose(jnp.asarray(padded), jnp.arange(len(padded)) < len(pooled)))][
            :, : pooled.shape[1]
        ]

    with jax.enable_x64(dtype is np.float64):
        for pooled in kinds.values():
            found = chosen(pooled, pooled.shape[1], 0)
            signed = np.where((pooled == 0) & (rng.random(pooled.shape) < 0.5), -0.0, pooled)
            np.testing.assert_array_equal(chosen(rng.permutation(signed), 64, 1096), found)
        # 40 % zeros, by chance as in a sample without replacement.
        error = np.sqrt(0.4 * 0.6 / CHOSEN_ROWS)
        share = (chosen(kinds["zeros"], 3, 0) == 0).all(axis=1).mean()
        assert abs(share - 0.4) < 4 * error
        # Every copy has the same chance: 25.6 of 75, give or take.
        copies = np.unique(chosen(kinds["copies"], 3, 0), axis=0, return_counts=True)[1]
        assert len(copies) == 40 and abs(copies - 25.6).max() < 4.5 * np.sqrt(75 * 0.34 * 0.66)


def test_median_bandwidth_scales_and_ignores_translation():
    pooled = rows(0, 50, 3)
    found = float(median_bandwidth(pooled))
    assert float(median_bandwidth(1e-3 * pooled)) == pytest.approx(1e-3 * found, rel=1e-5)
    assert float(median_bandwidth(pooled + 64)) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("pooled", [np.full((10, 3), 0.1), np.repeat(np.eye(10)[:2], [9, 1], axis=0)])
def test_no_median_bandwidth_without_distances(pooled):
    with pytest.raises(NoBandwidthError, match="median distance of the pooled rows is 0"):
        median_bandwidth(pooled)
    with pytest.raises(NoBandwidthError):
        mmd2_unbiased(pooled, pooled)
    assert issubclass(NoBandwidthError, ValueError)
    assert np.isnan(jax.jit(median_bandwidth)(pooled))


@pytest.mark.parametrize("scale", [1e-18, 6e17])
def test_a_median_bandwidth_can_be_used(scale):
    x, y = np.full((5, 4), scale, np.float32), np.full((5, 4), -scale, np.float32)
    statistic = mmd2_unbiased(x, y)
    # 25 of 45 distances are the median itself: each sample coincides, and the other is one bandwidth away.
    assert float(statistic) == pytest.approx(2 - 2 * np.exp(-0.5), rel=1e-5)


def test_a_median_distance_whose_square_vanishes_is_no_bandwidth():
    with pytest.raises(ValueError, match="too close for their precision"):
        median_bandwidth(rows(0, 10, 3) * np.float32(1e-20))


def test_median_bandwidth_of_bad_traced_rows_is_nan():
    pooled = rows(0, 10, 3)
    pooled[3, 1] = np.nan
    assert np.isnan(jax.jit(median_bandwidth)(pooled))
    with pytest.raises(ValueError, match=r"pooled has 1 rows with NaN or infinite entries \(the first is row 3"):
        median_bandwidth(pooled)
