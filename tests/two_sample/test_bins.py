"""Permutations of bins: against a loop over bins, exact level, whole groups."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample import mmd2_unbiased, permutation_test
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.kernels import gaussian, laplace_l2, polynomial
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import pool
from mmd_jax.two_sample.splits import Scheme, begin, resampled_sums
from tests import reference


def samples(m, n, d=3, shift=0.3, seed=0):
    rng = np.random.default_rng([m, n, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


@partial(jax.jit, static_argnames=("bins", "kernel", "grouped"))
def sums_of(key, pooled, groups, bins, kernel=gaussian, grouped=False):
    scheme, spec = Scheme(6, bins=bins, grouped=grouped), Spec((kernel,))
    grid = (jnp.asarray([[1.5]]),)
    return resampled_sums(key, pooled, groups, grid, spec, scheme), begin(key, pooled, groups, grid, spec, scheme)


@pytest.mark.parametrize("kernel", [gaussian, polynomial(2)])
@pytest.mark.parametrize(("m", "n", "bins"), [(10, 7, 5), (64, 64, 16), (300, 250, 100), (300, 241, 550)])
def test_statistics_are_those_of_the_splits_that_the_bins_make(m, n, bins, kernel, key):
    x, y = samples(m, n)
    bins = min(bins, m + n)
    pooled = pool(x, y, pad=True)
    (sums, _), splits = sums_of(key, pooled, None, bins, kernel)
    rows = np.asarray(splits.problem.blocks).reshape(-1, splits.problem.blocks.shape[2])[: m + n, :3]
    bin_of_row = np.asarray(splits.problem.columns).reshape(-1)[: m + n]
    members, sizes = map(np.asarray, splits.bins)
    np.testing.assert_array_equal(np.bincount(bin_of_row, minlength=len(sizes)), sizes)
    K = (
        reference.gram(rows, [1.5])
        if kernel is gaussian
        else (1 + rows.astype(np.float64) @ rows.T.astype(np.float64) / 1.5**2) ** 2
    )
    columns = members[bin_of_row]
    np.testing.assert_array_equal(columns.sum(axis=0), m)
    exact = reference.mmd2_unbiased_of_splits(K, columns)
    np.testing.assert_allclose(unbiased(sums)[0], exact, rtol=1e-4, atol=2e-6 * K.max())
    assert float(unbiased(sums)[0, 0]) == pytest.approx(
        float(mmd2_unbiased(x, y, bandwidth=1.5, kernel=kernel)), rel=1e-3, abs=2e-6 * K.max()
    )
    assert float(biased(sums)[0, 0]) > 0


def test_left_over_rows_stay_and_bins_are_equal(key):
    pooled = pool(*samples(50, 33), pad=True)
    _, splits = sums_of(key, pooled, None, 10)
    # Bins of nine: five of x with 5 rows left, three of y with 6.
    assert np.asarray(splits.bins[1]).tolist() == [9] * 5 + [5] + [9] * 3 + [6] + [0, 0]
    members = np.asarray(splits.bins[0])
    assert (members[5] == 1).all() and (members[9] == 0).all()
    assert (members[[0, 1, 2, 3, 4, 6, 7, 8]].sum(axis=0) == 5).all()


def test_groups_stay_whole(key):
    x, y = samples(60, 44)
    pooled = pool(x, y, pad=True)
    groups = np.pad(np.concatenate([np.arange(60) // 3, 20 + np.arange(44) // 4]), (0, pooled.capacity - 104)).astype(
        np.int32
    )
    (sums, _), splits = sums_of(key, pooled, groups, 12, gaussian, grouped=True)
    bin_of_row = np.asarray(splits.problem.columns).reshape(-1)[:104]
    rows = np.asarray(splits.problem.blocks).reshape(-1, splits.problem.blocks.shape[2])[:104, :3]
    centred = np.concatenate([x, y]) - np.concatenate([x, y]).mean(axis=0)
    order = [int(np.argmin(((centred - row) ** 2).sum(axis=1))) for row in rows]
    for group in range(31):
        assert len(set(bin_of_row[groups[:104][order] == group])) == 1
    exact = reference.mmd2_unbiased_of_splits(reference.gram(rows, [1.5]), np.asarray(splits.bins[0])[bin_of_row])
    np.testing.assert_allclose(unbiased(sums)[0], exact, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize(("m", "n", "bins"), [(50, 50, 20), (45, 70, 16)])
def test_level_is_exact(m, n, bins):
    trials = 2000

    def rejects(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (m, 2)), jax.random.normal(y_key, (n, 2))
        return permutation_test(key, x, y, bandwidth=1.5, num_permutations=99, bins=bins).reject

    count = int(
        jax.jit(lambda keys: jax.lax.map(rejects, keys, batch_size=100))(
            jax.random.split(jax.random.key(1), trials)
        ).sum()
    )
    low, high = stats.binom.interval(0.998, trials, 0.05)
    assert low <= count <= high


def test_hardly_less_powerful_than_rows():
    def rates(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (100, 2)), jax.random.normal(y_key, (100, 2)) + jnp.asarray([[0.45, 0.0]])
        return jnp.stack(
            [permutation_test(key, x, y, bandwidth=1.5, num_permutations=99, bins=b).reject for b in (None, 50)]
        )

    found = jax.jit(lambda keys: jax.lax.map(rates, keys, batch_size=100))(jax.random.split(jax.random.key(2), 400))
    rows, bins = found.mean(axis=0)
    assert rows > 0.5
    # Paired trials; the standard error of the difference is below .02.
    assert bins > rows - 0.08


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        (1, "bins is 1"),
        (101, "there are 100 rows"),
        (2, "ways only"),
        (3, "more than the"),
    ],
)
def test_bad_bins(bins, message, key):
    x, y = samples(85 if bins == 3 else 50, 15 if bins == 3 else 50)
    with pytest.raises(ValueError, match=message):
        permutation_test(key, x, y, bins=bins)


def test_more_permutations_cost_no_more_products(key):
    # The engine's sums are the same arrays whatever B is.
    pooled = pool(*samples(100, 100), pad=True)
    spec = Spec((laplace_l2,))
    shapes = [
        jax.tree.map(
            jnp.shape,
            jax.eval_shape(
                lambda num=num: begin(key, pooled, None, (jnp.ones((1, 1)),), spec, Scheme(num, bins=20)).problem
            ),
        )
        for num in (10, 1000)
    ]
    assert shapes[0] == shapes[1]
