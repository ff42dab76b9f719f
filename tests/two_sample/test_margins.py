"""Margins: against pairs of groups computed one by one, that they do not shrink with the sample, and bad input."""

from functools import partial
from itertools import combinations

import jax
import numpy as np
import pytest

from mmd_jax.two_sample.margins import margin_from_change, margin_from_splits
from tests import reference

SIGMA = 2.0


def grouped(per_group, num_groups, spread=0.5, seed=0):
    """Rows of groups in random order, the mean of each group `spread` apart; and their labels."""
    rng = np.random.default_rng([per_group, num_groups, seed])
    groups = rng.permutation(np.repeat(np.arange(num_groups), per_group))
    x = rng.normal(size=(len(groups), 2)) + spread * groups[:, None]
    return x.astype(np.float32), groups


def test_splits_are_of_whole_groups(key):
    x, groups = grouped(15, 4)
    names = np.array(["a", "b", "c", "d"])[groups]
    one_by_one = [
        reference.mmd2_unbiased(x[groups == g], x[groups == h], [SIGMA]) for g, h in combinations(range(4), 2)
    ]
    singles = margin_from_splits(key, x, names, bandwidth=SIGMA, groups_per_side=1, num_splits=60)
    np.testing.assert_allclose(np.unique(singles.mmd2.round(5)), np.sort(one_by_one), atol=1e-4)
    halves = margin_from_splits(key, x, names, bandwidth=SIGMA, num_splits=60)
    in_halves = [
        reference.mmd2_unbiased(x[np.isin(groups, (0, g))], x[~np.isin(groups, (0, g))], [SIGMA]) for g in (1, 2, 3)
    ]
    np.testing.assert_allclose(np.unique(halves.mmd2.round(5)), np.sort(in_halves), atol=1e-4)
    assert halves.value == pytest.approx(np.sqrt(halves.mmd2.mean()))
    assert halves.bandwidth.tolist() == [SIGMA]


def test_margins_do_not_shrink_with_the_sample(key):
    small, large = (margin_from_splits(key, *grouped(size, 6), bandwidth=SIGMA).value for size in (40, 400))
    assert large == pytest.approx(small, rel=0.15)
    small, large = (
        margin_from_change(key, grouped(size, 1)[0], lambda rows: rows + 0.5, bandwidth=SIGMA).value
        for size in (200, 1500)
    )
    exactly = np.sqrt(2 * 2 / 3 * (1 - np.exp(-2 * 0.25 / 12)))
    assert large == pytest.approx(exactly, rel=0.1)
    assert small == pytest.approx(exactly, rel=0.35)


def test_a_change_may_drop_rows_and_features_follow_it(key):
    x, groups = grouped(100, 2, spread=1.5)
    labelled = np.concatenate([x, groups[:, None]], axis=1)
    found = margin_from_change(
        key, labelled, lambda rows: rows[rows[:, 2] == 0], features=lambda rows: rows[:, :2], bandwidth=SIGMA
    )
    everywhere = reference.mmd2_unbiased(x, x[groups == 0], [SIGMA])
    assert found.value == pytest.approx(np.sqrt(everywhere), rel=0.25)


def test_groups_no_farther_apart_than_random_parts_give_no_margin(key):
    with pytest.raises(ValueError, match="no farther apart than random parts"):
        # Each group holds the same rows.
        x = np.tile(np.random.default_rng(0).normal(size=(20, 2)), (4, 1))
        margin_from_splits(key, x, np.repeat(np.arange(4), 20), bandwidth=SIGMA)
    with pytest.raises(ValueError, match="can't be told from none"):
        x = np.tile(np.random.default_rng(1).normal(size=(1, 2)), (40, 1))
        margin_from_change(key, x, lambda rows: rows, bandwidth=SIGMA)


def test_margins_are_not_made_of_noise(key):
    rng = np.random.default_rng(3)

    def refused(call):
        try:
            call()
        except ValueError:
            return True
        return False

    def change(key):
        return margin_from_change(key, rng.normal(size=(60, 2)), lambda rows: rows, bandwidth=SIGMA)

    def splits(key):
        return margin_from_splits(key, rng.normal(size=(60, 2)), rng.integers(0, 4, 60), bandwidth=SIGMA)

    # At a level of 5 %, 7 or more of 40 have a probability of .4 %; half of them passed when only the sign counted.
    for call in (change, splits):
        assert sum(refused(partial(call, one)) for one in jax.random.split(key, 40)) >= 34


@pytest.mark.parametrize(
    ("groups", "knobs", "message"),
    [
        ([0] * 12, {}, "only the one label"),
        (range(12), {}, "every row is a group of its own"),
        ([0, 1] * 5, {}, "one label a row"),
        ([0, 1] * 6, {"groups_per_side": 2}, "groups_per_side is 2"),
        ([0] * 11 + [1], {}, "one row on a side"),
        ([0, 1] * 6, {"num_splits": 0}, "num_splits is 0"),
        ([0, 1] * 6, {"bandwidth": 0.0}, "bandwidth is 0"),
    ],
)
def test_splits_refuse(key, groups, knobs, message):
    with pytest.raises(ValueError, match=message):
        margin_from_splits(key, grouped(12, 1)[0], np.array(groups), **{"bandwidth": SIGMA, **knobs})


def test_change_refuses_few_rows(key):
    with pytest.raises(ValueError, match="at least 16 rows"):
        margin_from_change(key, np.zeros((15, 2)), lambda rows: rows, bandwidth=SIGMA)


def test_margins_are_for_concrete_values(key):
    x, groups = grouped(10, 2)
    for call in (
        lambda x: margin_from_splits(key, x, groups, bandwidth=SIGMA).mmd2,
        partial(margin_from_change, key, change=lambda rows: rows, bandwidth=SIGMA),
    ):
        with pytest.raises(TypeError, match="concrete"):
            jax.jit(call)(x)
