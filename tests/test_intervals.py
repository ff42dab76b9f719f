"""Intervals against coverage, closed forms and scipy; Holm against its definition."""

import numpy as np
import pytest
from scipy import stats

from mmd_jax.intervals import binomial_interval, holm, paired_interval, t_interval


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [10, 60])
def test_binomial_interval_covers_exactly_its_level_or_more(p, n):
    counts = np.arange(n + 1)
    covered = [interval.low <= p <= interval.high for interval in (binomial_interval(int(s), n, 0.9) for s in counts)]
    assert stats.binom.pmf(counts, n, p)[covered].sum() >= 0.9


def test_binomial_interval_is_scipys_and_reaches_its_ends():
    exact = stats.binomtest(7, 50).proportion_ci(0.95, method="exact")
    interval = binomial_interval(7, 50)
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))
    assert interval.estimate == 7 / 50 and interval.num == 50
    assert binomial_interval(0, 5).low == 0 and binomial_interval(5, 5).high == 1


def test_t_interval_covers_with_three_values():
    rng = np.random.default_rng(0)
    intervals = [t_interval(values, 0.9) for values in rng.normal(size=(2000, 3))]
    coverage = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert abs(coverage - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 2000)


def test_paired_interval_is_the_t_interval_of_differences():
    a, b = np.random.default_rng(1).normal(size=(2, 20))
    assert paired_interval(a, b) == t_interval(a - b)
    each = paired_interval(a, b, groups=np.arange(20))
    np.testing.assert_allclose(each, paired_interval(a, b), rtol=1e-12)
    reverse = paired_interval(b, a)
    assert (reverse.low, reverse.high) == pytest.approx((-paired_interval(a, b).high, -paired_interval(a, b).low))


def test_groups_widen_the_interval_as_much_as_dependence_asks():
    rng = np.random.default_rng(2)
    covered = {"grouped": 0, "not": 0}
    groups = np.repeat([f"writer {g}" for g in range(20)], 5)
    for _ in range(1000):
        difference = np.repeat(rng.normal(size=20), 5) + 0.1 * rng.normal(size=100)
        grouped, plain = (paired_interval(difference, 0 * difference, groups=g) for g in (groups, None))
        assert grouped.num == 20 and grouped.estimate == plain.estimate
        covered["grouped"] += grouped.low <= 0 <= grouped.high
        covered["not"] += plain.low <= 0 <= plain.high
    assert abs(covered["grouped"] / 1000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1000)
    assert covered["not"] / 1000 < 0.75


def test_holm_is_its_definition():
    p = np.random.default_rng(3).uniform(size=9) ** 3
    adjusted = holm(p)
    for alpha in (0.01, 0.05, 0.2, 0.6):
        # Step down: reject the smallest p while p_(j) <= alpha / (k − j + 1).
        rejected, order = np.zeros(9, bool), np.argsort(p)
        for step, i in enumerate(order):
            if p[i] > alpha / (9 - step):
                break
            rejected[i] = True
        np.testing.assert_array_equal(adjusted <= alpha, rejected)
    assert (adjusted >= p).all() and adjusted.max() <= 1
    assert holm([]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binomial_interval(5, 3), "5 successes in 3 trials"),
        (lambda: binomial_interval(0, 0), "0 successes in 0 trials"),
        (lambda: binomial_interval(1, 3, 1.0), "level is 1.0"),
        (lambda: t_interval([1.0]), "at least two numbers"),
        (lambda: t_interval([1.0, np.nan]), "1 entries that are NaN"),
        (lambda: paired_interval([1, 2], [1, 2, 3]), "a has 2 scores and b has 3"),
        (lambda: paired_interval([1, 2], [1, 2], groups=["a", "a"]), "all rows are in one group"),
        (lambda: paired_interval([1, 2], [1, 2], groups=["a"]), "expected one label a row"),
        (lambda: holm([0.1, 1.2]), "numbers in \\[0, 1\\]"),
        (lambda: holm([0.1, np.nan]), "numbers in \\[0, 1\\]"),
    ],
)
def test_bad_input_has_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
