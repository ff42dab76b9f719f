"""Membership columns: exact sizes, uniform choice, whole groups, true pairs."""

from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample.pooled import Pooled
from mmd_jax.two_sample.resampling import (
    _smallest,
    group_permutations,
    observed_column,
    permutations,
    subsets,
    swapped_pairs,
)

draw = jax.jit(subsets, static_argnums=(1, 4))


def pooled(m, n, capacity):
    return Pooled(np.zeros((1, capacity, 1), np.float32), m, n)


@pytest.mark.parametrize(("size", "count"), [(1, 2), (2, 200), (100, 200), (199, 200), (64, 256)])
def test_subsets_have_the_exact_size_and_stay_off_the_padding(size, count):
    chosen = np.asarray(draw(jax.random.key(1), 300, size, count, 256))
    assert chosen.shape == (256, 300)
    assert set(np.unique(chosen)) <= {0, 1}
    np.testing.assert_array_equal(chosen.sum(axis=0), size)
    assert not chosen[count:].any()


def test_all_subsets_are_equally_likely():
    num = 20_000
    chosen = np.asarray(draw(jax.random.key(2), num, 3, 6, 64))[:6]
    codes = np.unique(chosen.T @ (1 << np.arange(6)), return_counts=True)[1]
    assert len(codes) == comb(6, 3)
    # A chi-squared test that fails once in 10⁶ keys; this key is fixed.
    assert stats.chisquare(codes).pvalue > 1e-6


def test_ties_go_to_the_smaller_index():
    values = jnp.asarray([[5, 7], [5, 7], [5, 1], [9, 7], [0, 7], [5, 7]], jnp.int32)
    chosen = jax.jit(_smallest)(values, jnp.int32(3), jnp.int32(6))
    np.testing.assert_array_equal(chosen[:, 0], [1, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(chosen[:, 1], [1, 1, 1, 0, 0, 0])
    chosen = jax.jit(_smallest)(jnp.full((8, 1), 2**31 - 1, jnp.int32), jnp.int32(2), jnp.int32(5))
    np.testing.assert_array_equal(chosen[:, 0], [1, 1, 0, 0, 0, 0, 0, 0])


def test_padding_does_not_change_the_subsets():
    short, long = (np.asarray(draw(jax.random.key(3), 50, 20, 60, capacity)) for capacity in (64, 256))
    np.testing.assert_array_equal(short[:60], long[:60])


def test_every_row_is_as_likely_as_any_other():
    m, n, num = 60, 140, 4000
    columns = np.asarray(jax.jit(lambda key: permutations(key, num, pooled(m, n, 256)))(jax.random.key(4)))[: m + n]
    share = m / (m + n)
    z = (columns.mean(axis=1) - share) / np.sqrt(share * (1 - share) / num)
    assert np.abs(z).max() < 5
    observed = np.asarray(observed_column(pooled(m, n, 256)))[:, 0]
    np.testing.assert_array_equal(observed, np.arange(256) < m)


def test_groups_move_whole_and_keep_their_number_on_each_side():
    groups = np.repeat(np.arange(12), np.arange(1, 13))  # 78 rows; x: the first five groups, 15 rows.
    padded = jnp.asarray(np.pad(groups, (0, 128 - 78)).astype(np.int32))
    split = jax.jit(lambda key: group_permutations(key, 500, pooled(15, 63, 128), padded))
    columns = np.asarray(split(jax.random.key(5)))
    assert not columns[78:].any()
    for g in range(12):
        member = columns[:78][groups == g]
        assert (member == member[:1]).all()
    starts = np.searchsorted(groups, np.arange(12))
    of_group = columns[starts]
    np.testing.assert_array_equal(of_group.sum(axis=0), 5)
    z = (of_group.mean(axis=1) - 5 / 12) / np.sqrt(5 / 12 * 7 / 12 / 500)
    assert np.abs(z).max() < 5


def test_pairs_swap_or_stay():
    n, num = 30, 2000
    columns = np.asarray(jax.jit(partial(swapped_pairs, num=num, pooled=pooled(n, n, 64)))(jax.random.key(6)))
    np.testing.assert_array_equal(columns[:n] + columns[n : 2 * n], 1)
    assert not columns[2 * n :].any()
    stays = columns[:n]
    assert np.abs((stays.mean(axis=1) - 0.5) / (0.5 / num**0.5)).max() < 5
    # Signs of different pairs are independent: so are the counts of swaps binomial.
    assert stays.sum(axis=0).var() == pytest.approx(n / 4, rel=0.2)
