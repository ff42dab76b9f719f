"""Accuracies and their intervals: over rows, or over groups of rows that depend on each other."""

import numpy as np
from scipy import stats

from experiments.evaluation import binomial, compare, negative_transfer


def test_without_groups_the_intervals_are_clopper_and_pearsons():
    labels = np.arange(50) % 2
    found = compare(labels, np.where(np.arange(50) < 40, labels, 1 - labels), 1 - labels, None)
    for name, right in (("chosen", 40), ("from_scratch", 0)):
        exact = stats.binomtest(right, 50).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(found[f"{name}_interval"], exact, rtol=1e-9)


def test_with_groups_of_equal_rows_the_groups_are_what_is_counted():
    """Every row ten times says no more than every row once: the interval is that of one mean a group."""
    random = np.random.default_rng(0)
    labels, once = np.arange(30) % 2, random.integers(0, 2, (2, 30))
    found = compare(labels.repeat(10), *once.repeat(10, axis=1), np.arange(30).repeat(10))
    for name, arm in zip(("chosen", "from_scratch"), once):
        right = (arm == labels).astype(float)
        expected = stats.t.interval(0.95, 29, right.mean(), stats.sem(right))
        np.testing.assert_allclose(found[f"{name}_interval"], expected, rtol=1e-9)


def test_intervals_of_shares_are_shares():
    groups = np.arange(5).repeat(4)
    almost = np.ones(20, bool)
    almost[0] = False
    low, high = binomial(almost, 0.95, groups=groups)
    assert 0 < low < 0.95 and high == 1.0
    # All right: five independent groups can't show more than five trials can.
    assert binomial(np.ones(20, bool), 0.95, groups=groups) == binomial(np.ones(5, bool), 0.95)
    assert binomial(np.zeros(20, bool), 0.95, groups=groups) == binomial(np.zeros(5, bool), 0.95)


def test_the_clustered_interval_covers():
    """Of 300 experiments with 20 writers whose rows agree, about 95 % cover; an interval over rows would cover half."""
    random, rows = np.random.default_rng(1), 25
    groups, covered = np.arange(20).repeat(rows), {"groups": 0, "rows": 0}
    for _ in range(300):
        right = random.random(20 * rows) < random.beta(2, 1, 20).repeat(rows)  # a writer's own share, .667 on average
        for name, of in (("groups", groups), ("rows", None)):
            low, high = binomial(right, 0.95, groups=of)
            covered[name] += low <= 2 / 3 <= high
    # Four standard errors of a binomial below .95, and Student's own error with 20 skewed means.
    assert covered["groups"] >= 300 * 0.95 - 4 * np.sqrt(300 * 0.95 * 0.05)
    assert covered["rows"] < 300 * 0.7


def test_negative_transfer_is_found_where_it_is_planted_and_seldom_else():
    """Of 200 runs in which reuse is really 10 points worse nearly all are found; of as many without a difference, about 2.5 %."""
    random = np.random.default_rng(3)

    def found(share: float) -> bool | None:
        labels = np.arange(800) % 2
        reused, scratch = (np.where(random.random(800) < right, labels, 1 - labels) for right in (share, 0.8))
        return negative_transfer(compare(labels, reused, scratch, None), reused=True)

    assert np.mean([found(0.7) is True for _ in range(200)]) > 0.95
    alike = [found(0.8) for _ in range(200)]
    assert np.mean([one is True for one in alike]) < 0.07
    assert np.mean([one is None for one in alike]) > 0.88
