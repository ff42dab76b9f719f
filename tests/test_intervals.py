"""Intervals against coverage, closed forms and scipy; Holm against its definition."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import xlogy

from mmd_jax.intervals import binomial_interval, crossed_interval, holm, paired_interval, t_interval


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


def hits(both, only_a, only_b, neither):
    return np.repeat([[1, 1, 0, 0], [1, 0, 1, 0]], [both, only_a, only_b, neither], axis=1)


@pytest.mark.parametrize("counts", [(9, 5, 2, 4), (30, 1, 0, 9), (0, 3, 3, 0), (40, 0, 0, 10), (3, 12, 1, 0)])
def test_interval_of_hits_is_where_the_score_test_rejects(counts):
    a, b = hits(*counts)
    n, only_a, only_b = len(a), counts[1], counts[2]
    interval = paired_interval(a, b, 0.9)
    assert interval.estimate == pytest.approx((a - b).mean()) and interval.num == n

    def score(delta):
        # The likeliest shares by brute force: p(only a) = q + delta, p(only b) = q, and 1 - 2q - delta for the rest.
        q = np.linspace(max(0, -delta), (1 - delta) / 2, 400_001)
        cells = ((only_a, q + delta), (only_b, q), (n - only_a - only_b, 1 - 2 * q - delta))
        likelihood = sum(xlogy(count, np.maximum(share, 0)) for count, share in cells)
        q = q[np.argmax(likelihood)]
        return (only_a - only_b - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta)))

    z = stats.norm.ppf(0.95)
    assert score(interval.low) == pytest.approx(z, abs=1e-3)
    assert score(interval.high) == pytest.approx(-z, abs=1e-3)


def test_interval_of_hits_always_has_a_width_and_mirrors():
    for n in (2, 7):
        for only_a in range(n + 1):
            for only_b in range(n + 1 - only_a):
                a, b = hits(n - only_a - only_b, only_a, only_b, 0)
                interval, mirror = paired_interval(a, b), paired_interval(b, a)
                assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
                assert interval.high - interval.low > 0.1
                assert (interval.low, interval.high) == (-mirror.high, -mirror.low)
    # Both right on all of 1,000 rows: z² / (n + z²), as after the rule of three.
    assert paired_interval(np.ones(1000), np.ones(1000)).high == pytest.approx(1.96**2 / (1000 + 1.96**2), rel=1e-3)
    # Other scores, and groups, keep Student's.
    assert paired_interval([0.5, 1, 0], [0, 1, 0.25]) == t_interval([0.5, 0, -0.25])
    a, b = hits(3, 4, 2, 1)
    grouped = paired_interval(a, b, groups=np.arange(10))
    assert grouped.low == pytest.approx(t_interval(a - b).low)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(20, 0.2, 0.1), (40, 0.1, 0.1), (40, 0.3, 0.02), (200, 0.02, 0.01)]
)
def test_interval_of_hits_covers(n, only_a, only_b):
    draws = np.random.default_rng(4).multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=2000)
    kinds, times = np.unique(draws, axis=0, return_counts=True)
    intervals = [paired_interval(*hits(rest, a, b, 0)) for a, b, rest in kinds]
    covered = np.array([interval.low <= only_a - only_b <= interval.high for interval in intervals])
    # Counts are few, so that no interval covers with .95 exactly: two hundredths either way, and the simulation's error.
    assert abs(times[covered].sum() / 2000 - 0.95) < 0.02 + 3 * np.sqrt(0.95 * 0.05 / 2000)


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


@pytest.mark.parametrize(("of_runs", "of_rows", "of_both"), [(1, 1, 1), (0, 1, 1), (1, 0, 0.5), (0, 0, 1)])
def test_crossed_interval_covers_where_runs_rows_or_neither_vary(of_runs, of_rows, of_both):
    rng, hits, narrow = np.random.default_rng(1), 0, 0
    for _ in range(500):
        parts = (
            of_runs * rng.normal(size=(15, 1)),
            of_rows * rng.normal(size=(1, 40)),
            of_both * rng.normal(size=(15, 40)),
        )
        scores = sum(parts)
        found, over_runs = crossed_interval(scores, 0.9), t_interval(scores.mean(axis=1), 0.9)
        hits += found.low <= 0 <= found.high
        narrow += over_runs.low <= 0 <= over_runs.high
    assert hits / 500 > 0.9 - 3 * np.sqrt(0.9 * 0.1 / 500)
    if of_rows > of_runs:
        assert narrow / 500 < 0.6  # the interval over runs is for these rows only


def test_crossed_interval_of_grouped_rows_covers_where_rows_alone_do_not():
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(20), 5)
    hits, naive = 0, 0
    for _ in range(400):
        scores = rng.normal(size=20)[groups] + rng.normal(size=(10, 100))
        hits += (found := crossed_interval(scores, 0.9, groups)).low <= 0 <= found.high
        naive += (alone := crossed_interval(scores, 0.9)).low <= 0 <= alone.high
    assert hits / 400 > 0.9 - 3 * np.sqrt(0.9 * 0.1 / 400) > 0.75 > naive / 400
    assert found.num == 10


def test_crossed_interval_with_nothing_but_runs_is_the_interval_over_runs():
    means = np.array([0.1, 0.4, 0.2, 0.9])
    found, over_runs = crossed_interval(np.repeat(means[:, None], 50, axis=1)), t_interval(means)
    assert found.num == 4 and found.estimate == pytest.approx(over_runs.estimate)
    assert (found.low, found.high) == pytest.approx((over_runs.low, over_runs.high), rel=1e-9)
    # … and by the order of neither axis, nor by the names of groups.
    rng = np.random.default_rng(0)
    scores, groups = rng.random((5, 12)), np.arange(12) // 3
    turned = crossed_interval(scores[::-1, ::-1], groups=np.array(list("dddcccbbbaaa")))
    assert turned == pytest.approx(crossed_interval(scores, groups=groups))


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [1.0, 2.0]]])
def test_crossed_interval_refuses_what_has_no_interval(scores):
    with pytest.raises(ValueError, match="scores has shape"):
        crossed_interval(scores)


def test_crossed_interval_refuses_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="one label a row"):
        crossed_interval(np.eye(3), groups=[0, 1])
    with pytest.raises(ValueError, match="in one group"):
        crossed_interval(np.eye(3), groups=[0, 0, 0])
