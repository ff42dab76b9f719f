"""Both tests: their level, their p-values to the last integer, what compiles again, and bad input."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import median_bandwidth, mmd2_unbiased, mmd_biased, permutation_test, wild_bootstrap_test
from mmd_jax.two_sample.pooled import pool
from mmd_jax.two_sample.resampling import group_permutations, permutations
from tests import reference

TESTS = [permutation_test, wild_bootstrap_test]


def samples(m, n, d=3, shift=0.0, seed=0):
    rng = np.random.default_rng([m, n, d, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


def rejection_rate(test, m, n, *, trials=2000, num=99, sample=None, **knobs):
    """Share of rejections over null trials, all compiled at once; and the p-values."""

    def trial(key):
        x_key, y_key, test_key = jax.random.split(key, 3)
        draw = sample or (lambda key, size: jax.random.normal(key, (size, 2)))
        result = test(test_key, draw(x_key, m), draw(y_key, n), num_permutations=num, **knobs)
        return result.reject, result.pvalue

    keys = jax.random.split(jax.random.key(7), trials)
    reject, pvalue = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))(keys)
    return float(reject.mean()), np.asarray(pvalue)


def three_errors(level, trials):
    return 3 * np.sqrt(level * (1 - level) / trials)


@pytest.mark.parametrize(
    ("test", "m", "n", "num"),
    [
        (permutation_test, 100, 100, 99),
        (permutation_test, 60, 140, 99),
        (wild_bootstrap_test, 100, 100, 99),
        # floor(.05 · 51) / 51 = .039: the exact level, which is not .05.
        (permutation_test, 60, 140, 50),
    ],
)
def test_level_is_exact(test, m, n, num):
    rate, pvalues = rejection_rate(test, m, n, num=num)
    level = np.floor(0.05 * (num + 1) + 1e-9) / (num + 1)
    assert abs(rate - level) < three_errors(level, 2000)
    assert pvalues.min() >= 1 / (num + 1) - 1e-7
    assert abs(pvalues.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 2000) + 1 / num


def test_level_needs_whole_groups_where_rows_depend_on_each_other():
    def in_tens(key, size):
        group_key, row_key = jax.random.split(key)
        groups = jnp.repeat(jax.random.normal(group_key, (size // 10, 2)), 10, axis=0)
        return groups + 0.3 * jax.random.normal(row_key, (size, 2))

    labels = np.arange(100) // 10
    trials = 600
    whole, _ = rejection_rate(
        permutation_test, 100, 100, trials=trials, sample=in_tens, groups_x=labels, groups_y=100 + labels
    )
    assert abs(whole - 0.05) < three_errors(0.05, trials)
    torn, _ = rejection_rate(permutation_test, 100, 100, trials=100, sample=in_tens)
    assert torn > 0.5


@pytest.mark.parametrize("test", TESTS)
def test_power_grows_with_the_shift(test):
    @jax.jit
    def rate(shift):
        def trial(key):
            keys = jax.random.split(key, 3)
            x, y = (jax.random.normal(k, (50, 2)) for k in keys[:2])
            return test(keys[2], x, y + shift, bandwidth=1.5, num_permutations=99).reject

        return jax.vmap(trial)(jax.random.split(jax.random.key(0), 200)).mean()

    small, medium, large = (float(rate(shift)) for shift in (0.0, 0.4, 1.5))
    assert small < 0.15 < medium - 0.2 and medium < large == 1.0


@pytest.mark.parametrize(("m", "n"), [(25, 25), (40, 23)])
def test_null_threshold_and_pvalue_are_what_they_say(m, n, key):
    x, y = samples(m, n, shift=0.3)
    num = 99
    result = permutation_test(key, x, y, bandwidth=1.5, num_permutations=num, return_null=True)
    pooled = pool(x, y, pad=True)
    columns = np.asarray(jax.jit(lambda key: permutations(key, num, pooled))(key))[: m + n]
    exact = reference.mmd2_unbiased_of_splits(reference.gram(np.concatenate([x, y]), [1.5]), columns)
    np.testing.assert_allclose(result.null, exact, atol=5e-4 * exact.std())
    assert float(result.statistic) == pytest.approx(reference.mmd2_unbiased(x, y, [1.5]), abs=5e-4 * exact.std())
    assert float(result.mmd_biased) == pytest.approx(reference.mmd_biased(x, y, [1.5]), rel=1e-4)
    assert result.null.shape == (num,) and result.bandwidth.tolist() == [1.5]

    count = int((np.asarray(result.null) >= float(result.statistic)).sum())
    assert float(result.pvalue) == pytest.approx((1 + count) / (1 + num), rel=1e-6)
    assert float(result.threshold) == np.sort(result.null)[-5]  # floor(.05 · 100) = 5


def test_statistic_threshold_pvalue_and_decision_agree_at_every_level():
    def at(alpha, seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        x, y = (jax.random.normal(k, (20, 2)) for k in keys[:2])
        return permutation_test(keys[2], x, y + 0.3, alpha=alpha, bandwidth=1.5, num_permutations=99)

    alphas = np.arange(1, 100) / 100  # .07, .14, .28, .29, .55, …: k / 100 is often just below in binary.
    results = jax.jit(jax.vmap(jax.vmap(at, (0, None)), (None, 0)))(alphas, np.arange(20))
    count = np.rint(np.asarray(results.pvalue) * 100).astype(int)  # 1 + the number of the null at or above
    np.testing.assert_array_equal(results.reject, count <= np.arange(1, 100))
    np.testing.assert_array_equal(results.reject, np.asarray(results.statistic) > np.asarray(results.threshold))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_splits_that_tie_are_counted_whatever_the_rounding(dtype):
    # Of three v three far away there are 20 splits; two of them, the observed and its mirror image, are the extreme.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5)).astype(dtype), (rng.normal(size=(3, 5)) + 9).astype(dtype)
    num = 1999
    with jax.enable_x64(dtype is np.float64):
        key = jax.random.key(3)
        result = permutation_test(key, x, y, alpha=0.2, num_permutations=num, return_null=True)
        pooled = pool(x, y, pad=True)
        columns = np.asarray(jax.jit(lambda key: permutations(key, num, pooled))(key))[:6]
    extreme = int(np.isin(columns.T @ (1 << np.arange(6)), [0b000111, 0b111000]).sum())
    assert 150 < extreme < 250
    assert float(result.pvalue) == pytest.approx((1 + extreme) / (1 + num), rel=1e-6)
    # Equal in the null too, but for what rounding makes of them.
    assert int(np.isclose(result.null, float(result.statistic), rtol=1e-5).sum()) == extreme


@pytest.mark.parametrize("seed", [0, 3])
def test_splits_of_large_groups_that_tie_are_counted(seed):
    # 6,000 rows a side: the null is some 1e-5, and what cancels in it, whose rounding stays, 1e-2.
    rng = np.random.default_rng(seed)
    contents = rng.normal(size=(8, 1500, 2)).astype(np.float32)
    contents[4] = contents[0]  # The first groups of x and of y are copies: splits that exchange them tie, too.
    x, y = contents[:4].reshape(-1, 2), contents[4:].reshape(-1, 2)
    labels, num, key = np.repeat(np.arange(8), 1500), 499, jax.random.key(3)
    result = permutation_test(
        key, x, y, num_permutations=num, groups_x=labels[:6000], groups_y=labels[6000:], return_null=True
    )

    pooled = pool(x, y, pad=True)
    numbers = jnp.asarray(np.pad(labels, (0, pooled.capacity - 12000)), jnp.int32)
    columns = np.asarray(jax.jit(lambda key: group_permutations(key, num, pooled, numbers))(key))[:12000:1500]
    kinds = np.array([0, 1, 2, 3, 0, 5, 6, 7])
    in_x = [tuple(sorted(kinds[column > 0])) for column in columns.T]
    tied = np.array([groups in ((0, 1, 2, 3), (0, 5, 6, 7)) for groups in in_x])
    repeated = np.isin(columns.T @ (1 << np.arange(8)), [0b00001111, 0b11110000])
    assert 5 < repeated.sum() < tied.sum() < 60
    # These and no others: the next split is some hundredths of a standard deviation away.
    null, statistic = np.asarray(result.null), float(result.statistic)
    np.testing.assert_array_equal(np.abs(null - statistic) < 1e-3 * null.std(), tied)
    assert (null[tied] >= statistic).all()
    assert float(result.pvalue) == pytest.approx((1 + int((null >= statistic).sum())) / (1 + num), rel=1e-6)


@pytest.mark.parametrize("test", TESTS)
def test_pvalue_is_never_zero(test, key):
    x, y = samples(40, 40, shift=9)
    result = test(key, x, y, num_permutations=99)
    assert float(result.pvalue) == pytest.approx(0.01)
    assert bool(result.reject)


@pytest.mark.parametrize("test", TESTS)
def test_jit_and_padding_change_nothing(test, key):
    x, y = samples(45, 45, shift=0.3)
    plain = test(key, x, y, return_null=True)
    compiled = jax.jit(partial(test, return_null=True))(key, x, y)
    # The same resamples: p agrees exactly, the statistics but for the order of summation.
    assert float(plain.pvalue) == float(compiled.pvalue)
    np.testing.assert_allclose(plain.null, compiled.null, atol=1e-6)
    np.testing.assert_allclose(plain.bandwidth, compiled.bandwidth, rtol=1e-5)
    assert float(plain.statistic) == pytest.approx(float(mmd2_unbiased(x, y)), abs=1e-6)
    assert float(plain.mmd_biased) == pytest.approx(float(mmd_biased(x, y)), abs=1e-5)
    assert float(plain.bandwidth[0]) == pytest.approx(float(median_bandwidth(np.concatenate([x, y]))))


def test_vmap_over_bandwidths_keys_and_data_sets(key):
    x, y = samples(30, 50, shift=0.3)
    xs, keys = np.stack([x, x + 0.2, x + 0.4]), jax.random.split(key, 3)
    bandwidths = np.array([0.5, 1.0, 3.0], np.float32)
    together = jax.vmap(lambda k, x, b: permutation_test(k, x, y, bandwidth=b, num_permutations=99))(
        keys, xs, bandwidths
    )
    each = [permutation_test(k, x, y, bandwidth=b, num_permutations=99) for k, x, b in zip(keys, xs, bandwidths)]
    np.testing.assert_allclose(together.statistic, [float(r.statistic) for r in each], atol=1e-6)
    np.testing.assert_allclose(together.pvalue, [float(r.pvalue) for r in each])
    assert together.bandwidth.shape == (3, 1)


def test_bandwidths_are_summed(key):
    x, y = samples(30, 50, shift=0.3)
    result = permutation_test(key, x, y, bandwidth=[0.5, 2.0])
    assert float(result.statistic) == pytest.approx(reference.mmd2_unbiased(x, y, [0.5, 2.0]), abs=1e-6)
    assert result.bandwidth.tolist() == [0.5, 2.0]


class Compilations(logging.Handler):
    """Counts programs that XLA compiles."""

    def __init__(self):
        super().__init__()
        self.names = []

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Compiling"):
            self.names.append(message.split()[1])

    def __enter__(self):
        self.log = jax.log_compiles(True)
        self.log.__enter__()
        logging.getLogger("jax").addHandler(self)
        return self

    def __exit__(self, *error):
        logging.getLogger("jax").removeHandler(self)
        self.log.__exit__(*error)


@pytest.mark.parametrize("test", TESTS)
def test_new_values_and_sizes_compile_nothing(test, key):
    keys = jax.random.split(key, 4)
    knobs = {"num_permutations": 37}
    with Compilations() as first:
        test(keys[0], *samples(70, 70, d=7), **knobs)
    assert first.names, "the counter counts nothing"
    calls = [samples(70, 70, d=7, shift=1), samples(65, 65, d=7), samples(100, 100, d=7), samples(128, 128, d=7)]
    if test is permutation_test:
        calls += [samples(30, 200, d=7), samples(200, 40, d=7), samples(81, 82, d=7)]
    calls = [(x, jnp.asarray(x), y) for x, y in calls]  # Outside: jax compiles a copy for each new shape.
    with Compilations() as later:
        for x, x_on_device, y in calls:
            test(keys[1], x, y, alpha=0.3, **knobs)
            test(keys[2], x.astype(np.float64), y, bandwidth=1.5, alpha=0.1, **knobs)
            test(keys[3], x_on_device, y.tolist(), bandwidth=[2.5], **knobs)
    assert later.names == []


def test_new_values_and_sizes_compile_no_estimate():
    mmd2_unbiased(*samples(70, 70, d=6))
    with Compilations() as later:
        for m, n in ((100, 30), (128, 128), (65, 64)):
            x, y = samples(m, n, d=6)
            mmd2_unbiased(x, y)
            mmd_biased(x, y, bandwidth=0.7)
    assert later.names == []


def test_groups_may_have_names_or_numbers(key):
    x, y = samples(40, 60)
    test = partial(permutation_test, num_permutations=99, return_null=True)
    names_x, names_y = np.repeat([f"a{i}" for i in range(8)], 5), np.repeat([f"b{i}" for i in range(6)], 10)
    named = test(key, x, y, groups_x=names_x, groups_y=list(names_y))
    numbered = test(key, x, y, groups_x=np.repeat(np.arange(8), 5), groups_y=np.repeat(10 + np.arange(6), 10))
    assert float(named.pvalue) == float(numbered.pvalue)
    # Every row its own group: the plain test.
    rows = test(key, x, y, groups_x=np.arange(40), groups_y=40 + np.arange(60))
    np.testing.assert_allclose(rows.null, test(key, x, y).null, atol=1e-7)


def test_a_number_and_a_name_that_look_alike_are_two_groups(key):
    x, y = samples(40, 60)
    test = partial(permutation_test, num_permutations=99, return_null=True)
    in_x, in_y = np.repeat(np.arange(8), 5), np.repeat(np.arange(6), 10)
    mixed = test(key, x, y, groups_x=in_x, groups_y=in_y.astype(str))
    np.testing.assert_array_equal(mixed.null, test(key, x, y, groups_x=in_x, groups_y=10 + in_y).null)


def test_samples_are_refused_only_where_nothing_could_be_rejected(key):
    # Of 4 v 4 there are 35 different splits, and 1 / 35 < .05; of six pairs 32 sets of swaps.
    for test, m, n in ((permutation_test, 4, 4), (permutation_test, 2, 5), (wild_bootstrap_test, 6, 6)):
        assert test(key, *samples(m, n, shift=9)).pvalue < 0.1
    # As many groups as this have more splits than a float can hold.
    x, y = samples(1200, 1200)
    labels = np.arange(1200) // 2
    assert permutation_test(key, x, y, num_permutations=19, groups_x=labels, groups_y=600 + labels).pvalue > 0


X, Y = samples(12, 15)
NAN = np.where(np.arange(12)[:, None] == 4, np.nan, X)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda k: permutation_test(k, NAN, Y), ValueError, "x has 1 rows with NaN or infinite.*row 4"),
        (lambda k: permutation_test(k, X, np.full((15, 3), -np.inf)), ValueError, "y has 15 rows with NaN or infinite"),
        (lambda k: permutation_test(k, X * 1e30, Y), ValueError, "x has entries as large as .*overflow float32"),
        (lambda k: permutation_test(k, X, Y[:, :2]), ValueError, "x has 3 features and y has 2"),
        (lambda k: permutation_test(k, X[:1], Y), ValueError, r"x has shape \(1, 3\); expected at least 2 rows"),
        (lambda k: permutation_test(k, X, Y[:0]), ValueError, r"y has shape \(0, 3\); expected at least 2 rows"),
        (lambda k: permutation_test(k, X[:, :0], Y[:, :0]), ValueError, "expected at least 2 rows and 1 feature"),
        (lambda k: permutation_test(k, X[:, 0], Y), ValueError, r"x has shape \(12,\).*Flatten.*x.reshape\(-1, 1\)"),
        (lambda k: permutation_test(k, X, Y[None]), ValueError, r"y has shape \(1, 15, 3\).*y.reshape\(len\(y\), -1\)"),
        (lambda k: permutation_test(k, X.astype(complex), Y), TypeError, "x has entries of type complex128"),
        (lambda k: permutation_test(k, X.astype(str), Y), TypeError, "x has entries of type <U"),
        (lambda k: permutation_test(k, [[1.0, 2.0], [3.0]], Y), ValueError, "x is not a rectangular array"),
        (lambda k: permutation_test(k, 0 * X, 0 * Y), ValueError, "median distance of the pooled rows is 0"),
        (lambda k: permutation_test(k, X, Y, bandwidth=0.0), ValueError, "bandwidth is 0.0; expected finite numbers"),
        (lambda k: permutation_test(k, X, Y, bandwidth=[1.0, -2.0]), ValueError, "bandwidth is .*; expected finite"),
        (lambda k: permutation_test(k, X, Y, bandwidth=np.inf), ValueError, "bandwidth is inf"),
        (lambda k: permutation_test(k, X, Y, bandwidth=1e-25), ValueError, "bandwidth is 1e-25; .* from 1.5e-19 to"),
        (lambda k: wild_bootstrap_test(k, X, Y[:12], bandwidth=1e19), ValueError, r"bandwidth is 1e\+19; .* to 6.5e"),
        (lambda k: mmd2_unbiased(X, Y, bandwidth=[1.0, 1e-60]), ValueError, "bandwidth is .1.0, 1e-60.; expected"),
        (lambda k: mmd2_unbiased(X, Y, bandwidth=1e300), ValueError, r"bandwidth is 1e\+300; expected finite"),
        (lambda k: permutation_test(k, X, Y, bandwidth=[]), ValueError, r"bandwidth has shape \(0,\)"),
        (lambda k: permutation_test(k, X, Y, bandwidth=[[1.0]]), ValueError, r"bandwidth has shape \(1, 1\)"),
        (lambda k: permutation_test(k, X, Y, alpha=0.0), ValueError, "alpha is 0.0; expected one number between"),
        (lambda k: permutation_test(k, X, Y, alpha=1.0), ValueError, "alpha is 1.0; expected one number between"),
        (lambda k: permutation_test(k, X, Y, alpha=np.nan), ValueError, "alpha is nan"),
        (
            lambda k: permutation_test(k, X, Y, alpha=0.05, num_permutations=18),
            ValueError,
            r"alpha is 0.05, below .* 1 / 19.*nothing could ever be rejected. Use at least 19 permutations",
        ),
        (lambda k: permutation_test(k, X, Y, num_permutations=0), ValueError, "num_permutations is 0"),
        (lambda k: permutation_test(k, X, Y, num_permutations=-3), ValueError, "num_permutations is -3"),
        (lambda k: permutation_test(k, X, Y, groups_x=range(12)), ValueError, "groups_y is missing"),
        (
            lambda k: permutation_test(k, X, Y, groups_x=range(11), groups_y=range(20, 35)),
            ValueError,
            r"groups_x has shape \(11,\); expected one label a row, \(12,\)",
        ),
        (
            lambda k: permutation_test(k, X, Y, groups_x=range(12), groups_y=range(10, 25)),
            ValueError,
            r"2 groups have rows in both samples \(10, 11\)",
        ),
        (
            lambda k: permutation_test(k, X, Y, groups_x=[0] * 6 + [1] * 6, groups_y=[2] * 8 + [3] * 7),
            ValueError,
            "2 groups in x and 2 in y can be split in 3 ways only",
        ),
        (
            lambda k: permutation_test(k, X, Y, groups_x=[0] * 12, groups_y=range(1, 16), alpha=0.2),
            ValueError,
            "could leave one row on a side",
        ),
        (
            lambda k: permutation_test(k, X[:2], Y[:2]),
            ValueError,
            r"2 rows in x and 2 in y can be split in 3 ways only.* 1 / 3 and alpha = 0.05 could never be met; .*more rows",
        ),
        (lambda k: permutation_test(k, X[:3], Y[:3], alpha=0.09), ValueError, "3 in y can be split in 10 ways only"),
        (lambda k: permutation_test(k, X[:2], Y[:4]), ValueError, "2 rows in x and 4 in y can be split in 15 ways"),
        (lambda k: wild_bootstrap_test(k, X[:5], Y[:5]), ValueError, "5 pairs can be swapped in 16 ways only"),
        (lambda k: wild_bootstrap_test(k, X, Y), ValueError, "x has 12 rows and y has 15; the wild bootstrap swaps"),
        (lambda k: wild_bootstrap_test(k, NAN, Y[:12]), ValueError, "x has 1 rows with NaN or infinite"),
        (lambda k: mmd2_unbiased(NAN, Y), ValueError, "x has 1 rows with NaN or infinite"),
        (lambda k: mmd_biased(X, Y, bandwidth=-1.0), ValueError, "bandwidth is -1.0"),
    ],
)
def test_bad_input_has_one_clear_error(call, error, message, key):
    with pytest.raises(error, match=message):
        call(key)


def test_columns_larger_than_memory_are_refused_with_their_bytes(key):
    x = np.zeros((10_000, 1), np.float32) + np.arange(10_000)[:, None]
    with pytest.raises(ValueError, match=r"take [\d,]+ bytes, and this machine has [\d,]+; permute bins"):
        permutation_test(key, x, x, num_permutations=10**9)


def test_a_key_must_be_typed_and_one():
    for key in (jax.random.PRNGKey(0), 0, jax.random.split(jax.random.key(0))):
        with pytest.raises((TypeError, ValueError)):
            permutation_test(key, X, Y)


@pytest.mark.parametrize("test", TESTS)
def test_bad_traced_input_gives_nan_and_no_rejection(test, key):
    x, y = samples(20, 20, shift=9)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, 0, 0))
    def run(x, y, bandwidth, alpha):
        return test(key, x, y, bandwidth=bandwidth, alpha=alpha, num_permutations=99)

    nan, infinite = x.copy(), x.copy()
    nan[3, 1], infinite[0, 0] = np.nan, np.inf
    bad = [
        (nan, 1.0, 0.05),
        (infinite, 1.0, 0.05),
        (x, 0.0, 0.05),
        (x, -1.0, 0.05),
        (x, np.nan, 0.05),
        (x, np.inf, 0.05),
        (x, 1e-25, 0.05),
        (x, 1e25, 0.05),
        (x, 1.0, 0.0),
        (x, 1.0, 1.0),
        (x, 1.0, np.nan),
        (x, 1.0, 0.005),
        (x, 1.0, 0.05),
    ]
    xs, bandwidths, alphas = (np.array(values, np.float32) for values in zip(*bad))
    result = run(xs, y, bandwidths, alphas)
    for numbers in (result.statistic, result.pvalue, result.threshold, result.mmd_biased):
        assert np.isnan(numbers[:-1]).all() and np.isfinite(numbers[-1])
    assert result.reject.tolist() == [False] * (len(bad) - 1) + [True]

    # Constant rows have no median distance.
    nothing = jax.jit(lambda x: test(key, x, x, num_permutations=99))(np.ones_like(x))
    assert np.isnan(nothing.statistic) and np.isnan(nothing.pvalue) and not nothing.reject


def test_traced_groups_that_span_both_samples_give_nan(key):
    x, y = samples(20, 20, shift=9)
    run = jax.jit(lambda gx, gy: permutation_test(key, x, y, groups_x=gx, groups_y=gy, num_permutations=99))
    apart, shared = run(np.arange(20), np.arange(20, 40)), run(np.arange(20), np.arange(19, 39))
    assert bool(apart.reject) and float(apart.pvalue) == pytest.approx(0.01)
    assert np.isnan(shared.statistic) and np.isnan(shared.pvalue) and not shared.reject


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16, "bfloat16"])
def test_other_number_types_become_float32(dtype, key):
    x, y = samples(20, 25, shift=0.5)
    x, y = (np.round(3 * v).astype(jnp.dtype(dtype)) for v in (np.abs(x), np.abs(y)))
    result = permutation_test(key, x, y, bandwidth=1.0, num_permutations=99)
    assert result.statistic.dtype == np.float32
    exact = mmd2_unbiased(x.astype(np.float32), y.astype(np.float32), bandwidth=1.0)
    assert float(result.statistic) == pytest.approx(float(exact), abs=1e-6)


def test_float64_stays_float64_where_jax_allows_it():
    x, y = samples(20, 25, shift=0.5)
    with jax.enable_x64(True):
        result = permutation_test(
            jax.random.key(0), x.astype(np.float64), y.astype(np.float64), bandwidth=1.0, return_null=True
        )
        assert result.statistic.dtype == result.null.dtype == np.float64
    assert float(result.statistic) == pytest.approx(reference.mmd2_unbiased(x, y, [1.0]), rel=1e-10)
