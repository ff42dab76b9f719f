"""The engine: sums over tiles against a full Gram matrix in float64, and what it promises on precision and memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import gaussian
from mmd_jax.two_sample.gram import Spec, accumulate, count_tiles, finish, initial, prepare
from mmd_jax.two_sample.kernels import polynomial
from mmd_jax.two_sample.mmd import unbiased
from mmd_jax.two_sample.pooled import padded_size, pool
from mmd_jax.two_sample.reductions import as_split_sums, quadratic_forms, split_sums
from mmd_jax.two_sample.resampling import observed_column, permutations
from tests import reference


def samples(m, n, d=3, shift=0.0):
    rng = np.random.default_rng([m, n])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


@partial(jax.jit, static_argnames="num")
def columns_of(pooled, num=5):
    return jnp.concatenate([observed_column(pooled), permutations(jax.random.key(0), num, pooled)], axis=1)


@partial(jax.jit, static_argnames="kernel")
def sums_of(pooled, columns, bandwidth, kernel=gaussian):
    return split_sums(pooled, columns, (bandwidth[None],), Spec((kernel,)))


@pytest.mark.parametrize(
    ("m", "n", "pad"),
    [
        (2, 2, True),
        (2, 2, False),
        (3, 60, True),
        (100, 33, True),
        (100, 33, False),
        (300, 241, True),
        (513, 512, False),
    ],
)
def test_sums_of_every_split_agree_with_the_full_matrix(m, n, pad):
    x, y = samples(m, n, shift=0.5)
    pooled = pool(x, y, pad=pad)
    columns = columns_of(pooled)
    sums = jax.tree.map(lambda leaf: leaf[0], sums_of(pooled, columns, jnp.asarray([1.5])))
    K = reference.gram(np.concatenate([x, y]), [1.5])
    np.fill_diagonal(K, 0)
    for c, column in enumerate(np.asarray(columns)[: m + n].T.astype(bool)):
        within, between, other = K[np.ix_(column, column)], K[np.ix_(column, ~column)], K[np.ix_(~column, ~column)]
        # The shift is taken off every ordered pair of different rows.
        shift = float(sums.shift)
        mm, nn = column.sum(), (~column).sum()
        for value, exact, pairs in (
            (sums.xx[c], within.sum(), mm * (mm - 1)),
            (sums.xy[c], between.sum(), mm * nn),
            (sums.yy[c], other.sum(), nn * (nn - 1)),
        ):
            assert float(value) == pytest.approx(exact - shift * pairs, abs=2e-6 * (m + n) ** 2)
        assert (float(sums.m[c]), float(sums.n[c])) == (mm, nn)
        assert float(sums.x_diagonal[c]) == pytest.approx(mm * (1 - shift), rel=1e-4)


@pytest.mark.parametrize("count", [1, 64, 65, 128, 129, 500])
def test_numbered_tiles_cover_one_half_of_the_matrix_once(count):
    tile = 64
    b = -(-count // tile)
    seen = [frozenset((k % b, (k % b + k // b) % b)) for k in range(count_tiles(count, tile))]
    assert len(set(seen)) == len(seen)
    assert set(seen) == {frozenset((i, j)) for i in range(b) for j in range(i, b)}


def test_ranges_of_tiles_add_up():
    x, y = samples(200, 180)
    pooled = pool(x, y, pad=True)
    columns = columns_of(pooled)
    spec = Spec((gaussian,))
    problem = jax.jit(lambda: prepare(pooled, columns, (jnp.asarray([[1.0]]),), spec))()
    last = count_tiles(pooled.count, pooled.blocks.shape[1])
    add = jax.jit(lambda progress, first, last: accumulate(progress, first, last, problem, spec, quadratic_forms))
    halves = add(add(initial(problem, spec, quadratic_forms), 0, 4), 4, last)
    parted = jax.jit(lambda progress: unbiased(as_split_sums(finish(progress), problem)))(halves)
    np.testing.assert_allclose(parted, unbiased(sums_of(pooled, columns, jnp.asarray([1.0]))), rtol=1e-5, atol=1e-7)


def test_float32_agrees_with_float64_within_a_thousandth_of_the_nulls_deviation():
    # 2,000 rows a sample, far from the origin: without centring and the shift the error is some per cent.
    x, y = samples(2000, 2000, d=16)
    x, y = x + 8, y + 8
    pooled = pool(x, y, pad=True)
    columns = columns_of(pooled, num=60)
    values = np.asarray(unbiased(sums_of(pooled, columns, jnp.asarray([5.6])))[0], np.float64)
    K = reference.gram(np.concatenate([x, y]), [np.float32(5.6)])
    exact = reference.mmd2_unbiased_of_splits(K, np.asarray(columns)[:4000])
    null = exact[1:].std()
    assert np.abs(values - exact).max() < 5e-4 * null


def test_padding_and_its_membership_change_nothing():
    x, y = samples(70, 50)
    pooled = pool(x, y, pad=True)
    columns = np.array(columns_of(pooled))
    dirty = columns.copy()
    dirty[120:] = 1
    clean, soiled = (unbiased(sums_of(pooled, jnp.asarray(c), jnp.asarray([1.0]))) for c in (columns, dirty))
    np.testing.assert_array_equal(clean, soiled)
    assert pooled.blocks.shape[0] * pooled.blocks.shape[1] == padded_size(120) == 128


def test_a_kernel_that_is_not_translation_invariant():
    # (1 + a·b)²: the diagonal is not constant, and centring the rows would change the values.
    x, y = samples(30, 40, shift=1.0)
    pooled = pool(x, y, pad=True)
    sums = sums_of(pooled, columns_of(pooled), jnp.asarray([2.0]), polynomial(2))
    rows = np.concatenate([x, y]).astype(np.float64)
    K = (1 + rows @ rows.T / 4) ** 2
    observed = (np.arange(70) < 30)[:, None]
    assert float(unbiased(sums)[0, 0]) == pytest.approx(reference.mmd2_unbiased_of_splits(K, observed)[0], rel=1e-4)
    shift = float(sums.shift[0])
    assert float(sums.x_diagonal[0, 0]) == pytest.approx(np.diag(K)[:30].sum() - 30 * shift, rel=1e-4)
    assert float(sums.y_diagonal[0, 0]) == pytest.approx(np.diag(K)[30:].sum() - 40 * shift, rel=1e-4)
