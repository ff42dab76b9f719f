"""Interval, equivalence and verdict: the law of the estimate against dense algebra, coverage, levels, and bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mmd_jax.two_sample import energy, gaussian, linear, permutation_test, polynomial
from mmd_jax.two_sample.checks import number_groups
from mmd_jax.two_sample.closeness import closeness_test, normalised_mmd
from mmd_jax.two_sample.equivalence import (
    count_above,
    count_below,
    equivalence_test,
    lower_end,
    mmd_interval,
    upper_end,
)
from mmd_jax.two_sample.error_law import draws_at, error_law, random_signs
from mmd_jax.two_sample.gram import Spec
from mmd_jax.two_sample.variance import pool_many
from mmd_jax.two_sample.verdict import decide_verdict, minimum_detectable_mmd, sample_size_to_decide, verdict
from tests import reference
from tests.two_sample.test_significance import Compilations

D, SIGMA = 3, 2.0
TESTS = [mmd_interval, partial(equivalence_test, margin=0.1), normalised_mmd, partial(closeness_test, margin=0.1)]
TESTS += [minimum_detectable_mmd, partial(sample_size_to_decide, margin=0.1, mmd=0.0), partial(verdict, margin=0.1)]


def samples(m, n, d=D, shift=0.0, seed=0):
    rng = np.random.default_rng([m, n, d, seed])
    return rng.normal(size=(m, d)).astype(np.float32), (rng.normal(size=(n, d)) + shift).astype(np.float32)


def true_mmd(shift, d=D):
    """Of N(0, I) and N(shift, I), by the Gaussian kernel."""
    scale = (SIGMA**2 / (SIGMA**2 + 2)) ** (d / 2)
    return np.sqrt(2 * scale * (1 - np.exp(-d * shift**2 / (2 * (SIGMA**2 + 2)))))


def shift_of(mmd, d=D):
    scale = (SIGMA**2 / (SIGMA**2 + 2)) ** (d / 2)
    return np.sqrt(-2 * (SIGMA**2 + 2) / d * np.log(1 - mmd**2 / (2 * scale)))


@partial(jax.jit, static_argnames=("kernel", "num"))
def make_law(key, pooled, kernel, num, groups=None):
    return error_law(key, pooled, jnp.array([SIGMA]), Spec((kernel,)), num, groups)


def law_of(x, y, kernel=gaussian, num=199, key=None):
    key = jax.random.key(5) if key is None else key
    pooled, _ = pool_many({"x": x, "y": y}, fewest=4)
    return make_law(key, pooled, kernel, num), random_signs(key, pooled.capacity, num)


@pytest.mark.parametrize("kernel", [gaussian, linear])
def test_law_equals_dense_algebra(kernel):
    """Also where k(x, x) differs from row to row."""
    m, n = 37, 50
    x, y = samples(m, n, shift=0.5)
    law, signs = law_of(x, y, kernel)
    rows = np.concatenate([x, y]).astype(np.float64)
    rows -= rows.mean(0)  # as the engine does for these kernels; ⟨μ, e⟩ of the linear one depends on it
    K = reference.gram(rows, [SIGMA]) if kernel is gaussian else rows @ rows.T / SIGMA**2
    weights = np.asarray(signs, np.float64)[: m + n]
    weights[:m] = (weights[:m] - weights[:m].mean(0)) / np.sqrt(m * (m - 1))
    weights[m:] = (weights[m:] - weights[m:].mean(0)) / np.sqrt(n * (n - 1))
    errors = np.sum(weights * (K @ weights), axis=0)
    np.testing.assert_allclose(law.squared, errors, atol=2e-5 * errors.max())
    np.testing.assert_allclose(law.noise, errors - errors.mean(), atol=2e-5 * errors.max())

    without = K - np.diag(np.diag(K))
    of_x, of_y = without[:, :m].sum(1), without[:, m:].sum(1)
    own = np.arange(m + n) < m
    witness = of_x / (m - own) - of_y / (n - ~own)
    along = weights.T @ witness
    np.testing.assert_allclose(law.linear, (along - along.mean()) / along.std(), atol=1e-3)
    norms = weights[:m].T @ (of_x / (m - 1))[:m] - weights[m:].T @ (of_y / (n - 1))[m:]
    np.testing.assert_allclose(law.norms, norms, atol=1e-4 * np.abs(norms).max())

    H = np.eye(m + n)
    H[:m, :m] -= 1 / m
    H[m:, m:] -= 1 / n
    scale = np.where(own, (m * (m - 1)) ** -0.5, (n * (n - 1)) ** -0.5)
    assert float(law.worst) == pytest.approx(np.linalg.eigvalsh(scale[:, None] * (H @ K @ H) * scale)[-1], rel=1e-3)
    if kernel is gaussian:
        assert float(law.biased) == pytest.approx(reference.mmd_biased(x, y, [SIGMA]) ** 2, abs=1e-6)


def law_of_groups(x, y, groups_x, groups_y, num):
    pooled, _ = pool_many({"x": x, "y": y}, fewest=4)
    numbers, (in_x, in_y) = number_groups(groups_x, groups_y, pooled)
    signs = random_signs(jax.random.key(5), pooled.capacity, num)[: in_x + in_y]
    law = make_law(jax.random.key(5), pooled, gaussian, num, jnp.asarray(numbers))
    return law, np.asarray(signs, np.float64), numbers[: len(x) + len(y)]


@pytest.mark.parametrize("equal", [True, False])
def test_law_of_groups_is_that_of_their_sums(equal):
    """Of jackknife errors: how far each group is from the mean of the others."""
    m, n, num = 40, 54, 199
    x, y = samples(m, n, shift=0.5)
    groups = (
        (np.arange(m) % 10, np.arange(n) // 6 + 10) if equal else (np.arange(m) % 11, 11 + np.arange(n) ** 2 // 200)
    )
    law, signs, number = law_of_groups(x, y, *groups, num)
    K = reference.gram(np.concatenate([x, y]).astype(np.float64), [SIGMA])
    own = np.arange(m + n) < m
    errors = np.zeros((len(signs), m + n))  # coefficients of φ(z_i)
    for g in range(len(signs)):
        side, inside = (own, number == g) if own[number == g].all() else (~own, number == g)
        others = side & ~inside
        errors[g] = inside.sum() / side.sum() * (inside / inside.sum() - others / others.sum())
    products = errors @ K @ errors.T
    squared = np.sum(signs * (products @ signs), axis=0)
    np.testing.assert_allclose(law.squared, squared, atol=2e-5 * squared.max())
    assert float(law.worst) == pytest.approx(np.linalg.eigvalsh(products)[-1], rel=1e-3)

    apart = number[:, None] != number[None, :]
    of_x, of_y, across = (
        (K[a][:, b] * apart[a][:, b]).sum() / apart[a][:, b].sum() for a, b in ((own, own), (~own, ~own), (own, ~own))
    )
    assert float(law.mmd2) == pytest.approx(of_x + of_y - 2 * across, abs=2e-6)
    witness = (K * apart * own).sum(1) / (apart & own).sum(1) - (K * apart * ~own).sum(1) / (apart & ~own).sum(1)
    along = signs.T @ (errors @ witness)
    np.testing.assert_allclose(law.linear, (along - along.mean()) / along.std(), atol=1e-3)


@pytest.mark.parametrize(("giant", "label"), [(0, 0), (700, 0), (700, 400)])
def test_the_worst_direction_is_found_on_some_of_the_rows(giant, label):
    """Wherever a large group stands among the others, and however many there are that are not looked at."""
    m, each = 2400, 4
    rng = np.random.default_rng(3)
    numbers = np.r_[np.full(giant, label), np.repeat(np.arange(1000, 2000), each)[: m - giant]]
    x, y = ((rng.normal(size=(2000, D))[numbers] + rng.normal(size=(m, D))) / np.sqrt(2) for _ in range(2))
    law, signs, number = law_of_groups(np.float32(x), np.float32(y), numbers, numbers + 10_000, 19)
    features = np.cos(
        np.concatenate([x, y]) @ rng.normal(size=(D, 400)) / SIGMA + rng.uniform(0, 2 * np.pi, 400)
    ) / np.sqrt(200)
    total = 0
    for side in (slice(0, m), slice(m, 2 * m)):
        centred = features[side] - features[side].mean(0)
        sizes = np.bincount(number[side], minlength=len(signs))
        sums = np.zeros((len(signs), 400))
        np.add.at(sums, number[side], centred)
        sums /= np.maximum(m - sizes, 1)[:, None]
        total = total + sums.T @ sums
    # Random features are off by a tenth; a giant's rows are one in five.
    assert float(law.worst) == pytest.approx(np.linalg.eigvalsh(total)[-1], rel=0.35)


@pytest.fixture(scope="module")
def grouped_trials():
    """Intervals at level .9, with groups and without: the rows of a group share half of their variance."""
    sizes = [20, 12, 9, 7, 6, 5, 4, 4, 3, 3, 2, 2, 1, 1, 1]
    groups, num_groups = np.repeat(np.arange(len(sizes)), sizes), len(sizes)

    def sample(key):
        shared, own = jax.random.normal(key, (2, len(groups), D))
        return (shared[groups] + own) / np.sqrt(2)

    def trial(shift, key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = sample(x_key), sample(y_key) + shift
        interval = partial(mmd_interval, key, x, y, level=0.9, bandwidth=SIGMA, num_draws=99)
        return interval(groups_x=groups, groups_y=groups + num_groups).mmd, interval().mmd

    keys = jax.random.split(jax.random.key(17), 400)
    return jax.jit(lambda shift: jax.lax.map(partial(trial, shift), keys, batch_size=100))


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_interval_covers_where_rows_come_in_groups(grouped_trials, shift):
    """One for independent rows is far too short, and too high."""
    grouped, independent = map(np.asarray, grouped_trials(jnp.float32(shift)))
    truth, most = true_mmd(shift), 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(grouped))
    assert np.mean(grouped[:, 0] > truth + 1e-7) <= most
    assert np.mean(grouped[:, 1] < truth - 1e-7) <= most
    assert np.mean(independent[:, 0] > truth + 1e-7) > 2 * most
    # Nor is it safe by being empty of information.
    assert np.median(grouped, axis=0)[1] < truth + 0.6


def test_groups_that_say_too_little_are_refused(key):
    x, y = samples(20, 20)
    few, many, giant = np.arange(20) // 5, 9 + np.arange(20), np.maximum(np.arange(20), 10)
    refused = "they tell as much as 4.0 groups of equal size do, and an interval needs 5"
    with pytest.raises(ValueError, match=f"groups_x has 4 groups, the largest with 5 of 20 rows: {refused}"):
        mmd_interval(key, x, y, bandwidth=SIGMA, groups_x=few, groups_y=many)
    with pytest.raises(ValueError, match="groups_y has 10 groups, the largest with 11 of 20 rows"):
        equivalence_test(key, x, y, margin=0.1, bandwidth=SIGMA, groups_x=many + 20, groups_y=giant)
    with pytest.raises(ValueError, match="groups_y is missing"):
        verdict(key, x, y, margin=0.1, groups_x=many)
    interval = jax.jit(lambda a, b: mmd_interval(key, x, y, bandwidth=SIGMA, num_draws=99, groups_x=a, groups_y=b).mmd)
    assert np.isfinite(interval(many, many + 20)).all()
    for bad in ((few, many), (many, many), (many + 20, giant)):
        assert np.isnan(interval(*bad)).all()


def test_ends_are_where_the_counts_say():
    """Against a fine grid of δ: in the interval are those for which the estimate is neither too small nor too large."""
    law, _ = law_of(*samples(50, 70, shift=0.6))
    tail, most = 0.05, 10  # of 200
    low, high = float(lower_end(law, tail)), float(upper_end(law, tail))
    assert 0 < low < np.sqrt(float(law.mmd2)) < high
    grid = np.linspace(0, 1, 500)
    draws = np.stack([np.asarray(draws_at(law, jnp.float32(mmd))) for mmd in grid])
    inside = (1 + (draws <= float(law.mmd2)).sum(1) > most) & (1 + (draws >= float(law.mmd2)).sum(1) > most)
    assert grid[inside].min() == pytest.approx(low, abs=0.003)
    assert grid[inside].max() == pytest.approx(high, abs=0.003)
    assert int(count_below(law, high * 1.001)) < most <= int(count_below(law, high * 0.999))
    assert int(count_above(law, low * 0.999)) < most <= int(count_above(law, low * 1.001))


def test_lower_end_is_zero_exactly_where_the_bootstrap_test_of_equality_does_not_reject():
    for shift in (0.0, 0.2, 0.35, 0.6):
        law, _ = law_of(*samples(50, 70, shift=shift))
        rejects = 1 + int(np.sum(np.asarray(law.noise) >= float(law.mmd2))) <= 10
        assert (float(lower_end(law, 0.05)) > 0) == rejects


TRIALS = 800


@pytest.fixture(scope="module")
def trials():
    """Intervals at level .9 over trials at a shift: one program for all shifts and both distances."""

    def trial(shift, key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (40, D)), jax.random.normal(y_key, (60, D)) + shift
        return normalised_mmd(key, x, y, level=0.9, bandwidth=SIGMA, num_draws=199), mmd_interval(
            key, x, y, level=0.9, bandwidth=SIGMA, num_draws=199
        )

    keys = jax.random.split(jax.random.key(11), TRIALS)
    return jax.jit(lambda shift: jax.lax.map(partial(trial, shift), keys, batch_size=100))


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3, 0.6, 1.2])
def test_interval_covers_near_and_far(trials, shift):
    """At a true MMD of 0, where the estimate is degenerate, and through the bridge to where it is normal."""
    scaled, plain = trials(jnp.float32(shift))
    mmd = true_mmd(shift)
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)
    denominator = 4 - 2 * (SIGMA**2 / (SIGMA**2 + 2)) ** (D / 2)
    for interval, truth in ((plain.mmd, mmd), (plain.mmd2_interval, mmd**2), (scaled.interval, mmd**2 / denominator)):
        low, high = np.asarray(interval).T
        assert np.mean(low > truth + 1e-7) <= most
        assert np.mean(high < truth - 1e-7) <= most
    # Nor is it safe by being empty of information.
    low, high = np.median(plain.mmd, axis=0)
    assert high < mmd + 0.25
    assert (low > 0.5 * mmd) == (shift >= 0.6)
    if shift == 0:
        assert np.mean(np.asarray(plain.mmd)[:, 0] > 0) > 0.05 - 3 * np.sqrt(0.05 * 0.95 / TRIALS)
    if shift == 1.2:
        assert np.mean(np.asarray(plain.mmd)[:, 1] < mmd) > 0.015


def test_equivalence_at_the_margin_and_at_equality():
    margin = 0.25

    def trial(shift, key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (120, D)), jax.random.normal(y_key, (120, D)) + shift
        return equivalence_test(key, x, y, margin=margin, bandwidth=SIGMA, num_draws=99)

    keys = jax.random.split(jax.random.key(12), 400)
    rejections = jax.jit(lambda shift: jax.lax.map(partial(trial, shift), keys, batch_size=50))
    at_margin, at_zero = (rejections(jnp.float32(shift)) for shift in (shift_of(margin), 0.0))
    assert float(at_margin.reject.mean()) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert float(at_zero.reject.mean()) > 0.95
    np.testing.assert_array_equal(at_zero.reject, np.asarray(at_zero.upper) < margin)


def test_equivalence_agrees_with_the_interval(key):
    x, y = samples(50, 70, shift=0.3)
    high = float(mmd_interval(key, x, y, level=0.9, bandwidth=SIGMA, num_draws=199).mmd[1])
    for margin, rejects in ((high * 1.001, True), (high * 0.999, False)):
        found = equivalence_test(key, x, y, margin=margin, alpha=0.05, bandwidth=SIGMA, num_draws=199)
        assert bool(found.reject) == rejects
        assert float(found.upper) == pytest.approx(high, rel=1e-5)


def test_normal_and_bootstrap_methods_are_what_they_say(key):
    x, y = samples(50, 70, shift=0.5)
    margin, law = 0.3, law_of(x, y, num=199, key=key)[0]
    test = partial(equivalence_test, key, x, y, bandwidth=SIGMA, num_draws=199)
    error = np.sqrt(max(float(law.variance.linear), 0) + float(np.var(law.noise)))
    normal = test(margin=margin, method="normal")
    assert float(normal.pvalue) == pytest.approx(scipy.stats.norm.cdf((float(law.mmd2) - margin**2) / error), rel=1e-3)
    norms, distance = np.sqrt(np.asarray(law.squared)), reference.mmd_biased(x, y, [SIGMA])
    for margin in (distance + np.median(norms), distance + 1.1 * norms.max()):
        bootstrap = test(margin=margin, method="bootstrap")
        count = np.sum(norms >= margin - distance)
        assert float(bootstrap.pvalue) == pytest.approx((1 + count) / 200, abs=0.006)
        assert bool(bootstrap.reject) == (float(bootstrap.upper) < margin) == (1 + count <= 10)


def test_an_estimate_below_zero_is_no_evidence_of_closeness():
    """The upper end is then that of an estimate of 0: a lucky sample gives no short interval."""
    law, _ = law_of(*samples(50, 70))
    unlucky = law._replace(mmd2=jnp.float32(0.0))
    lucky = law._replace(mmd2=jnp.float32(-0.01))
    assert float(upper_end(lucky, 0.05)) == float(upper_end(unlucky, 0.05)) > 0
    assert float(lower_end(lucky, 0.05)) == 0


@pytest.mark.parametrize(
    ("low", "high", "rejected", "kind"),
    [
        (0.0, 0.09, False, "equivalent"),
        (0.01, 0.09, True, "different_but_small"),
        (0.11, 0.2, True, "different"),
        (0.0, 0.1, False, "undecided"),
        (0.05, 0.2, True, "undecided"),
    ],
)
def test_decision(low, high, rejected, kind):
    assert decide_verdict(low, high, 0.1, rejected) == kind


@pytest.mark.parametrize(
    ("n", "shift", "margin", "kind", "words"),
    [
        (500, 0.0, 0.2, "equivalent", "No difference was found"),
        (500, 0.2, 0.25, "different_but_small", "by less than matters"),
        (500, 1.0, 0.2, "different", "more than the margin"),
        (500, 0.3, 0.15, "undecided", "too small to say"),
    ],
)
def test_verdicts(key, n, shift, margin, kind, words):
    x, y = samples(n, n, shift=shift, seed=2)
    found = verdict(key, x, y, margin=margin, bandwidth=SIGMA, num_draws=199)
    assert found.kind == kind, found.sentence
    assert words in found.sentence
    assert f"{found.interval[1]:.3g}" in found.sentence
    assert found.sentence.endswith(".")
    assert found.interval[0] <= true_mmd(shift) <= found.interval[1]
    assert 0 < found.minimum_detectable < 1
    p = permutation_test(jax.random.split(key)[1], x, y, bandwidth=SIGMA, num_permutations=199).pvalue
    assert found.pvalue == float(p)


def test_minimum_detectable_mmd_is_found_with_that_probability(key):
    """In the direction that a shift takes, the worst one for this kernel."""
    x, y = samples(100, 100)
    mmd = float(minimum_detectable_mmd(key, x, y, bandwidth=SIGMA, num_draws=199))
    assert float(minimum_detectable_mmd(key, x, y, bandwidth=SIGMA, num_draws=199, power=0.5)) < mmd
    shift = shift_of(mmd)

    def trial(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (100, D)), jax.random.normal(y_key, (100, D)) + shift
        return permutation_test(key, x, y, bandwidth=SIGMA, num_permutations=99).reject

    power = np.mean(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))(jax.random.split(key, 300)))
    assert abs(power - 0.8) < 0.1  # binomial error .023; and the spread of mmd itself


def test_sample_size_to_decide(key):
    x, y = samples(60, 120)
    plan = partial(sample_size_to_decide, key, x, y, bandwidth=SIGMA, margin=0.15, num_draws=199)
    sizes = [plan(mmd=mmd).n for mmd in (0.0, 0.07, 0.12)]
    assert sizes == sorted(sizes)
    beyond = [plan(mmd=mmd).n for mmd in (0.4, 0.25, 0.18)]
    assert beyond == sorted(beyond)
    assert plan(mmd=0.15).n == np.inf
    one = plan(mmd=0.0)
    assert one.m == pytest.approx(one.n / 2, abs=1)
    assert one.times == pytest.approx(one.n / 120, abs=0.01)
    # Half the margin takes four times the rows: all is in units of ‖e‖² ~ 1/n.
    assert plan(mmd=0.0, margin=0.075).times == pytest.approx(4 * one.times, rel=1e-3)
    # And at that size the verdict is what was promised.
    n = int(one.n)

    def trial(key):
        x_key, y_key, key = jax.random.split(key, 3)
        x, y = jax.random.normal(x_key, (n // 2, D)), jax.random.normal(y_key, (n, D))
        return equivalence_test(key, x, y, margin=0.15, bandwidth=SIGMA, num_draws=99).reject

    power = np.mean(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=25))(jax.random.split(key, 200)))
    assert abs(power - 0.8) < 0.12  # binomial error .028; and the spread of the pilot sample


def test_normalised_mmd_is_the_scaled_estimate(key):
    x, y = samples(40, 50, shift=0.8)
    found = normalised_mmd(key, x, y, bandwidth=SIGMA, num_draws=199)
    means = [np.mean(reference.gram(z, [SIGMA])[~np.eye(len(z), dtype=bool)]) for z in (x, y)]
    assert float(found.estimate) == pytest.approx(reference.mmd2_unbiased(x, y, [SIGMA]) / (4 - sum(means)), rel=1e-4)
    low, high = (float(end) for end in found.interval)
    assert 0 < low < float(found.estimate) < high < 1


@pytest.mark.parametrize("kernel", [linear, energy, polynomial()])
def test_normalised_mmd_refuses_kernels_without_a_bound(key, kernel):
    with pytest.raises(ValueError, match="no bound"):
        normalised_mmd(key, *samples(9, 9), kernel=kernel)


def test_new_values_and_sizes_compile_nothing(key):
    knobs = {"num_draws": 199}
    mmd_interval(key, *samples(50, 70, d=7), level=0.9, **knobs)
    verdict(key, *samples(500, 500, d=7), margin=0.3, **knobs)
    keys = list(jax.random.split(key, 2))
    with Compilations() as later:
        mmd_interval(keys[0], *samples(60, 68, d=7, shift=1), level=0.8, **knobs)
        mmd_interval(keys[1], *samples(64, 64, d=5), bandwidth=1.5, level=0.9, **knobs)
        verdict(keys[0], *samples(300, 600, d=7, shift=1), margin=0.1, alpha=0.1, **knobs)
    assert later.names == []


@pytest.mark.parametrize("call", TESTS)
@pytest.mark.parametrize(
    ("x", "y", "knobs", "message"),
    [
        (np.zeros((1, 2)), np.zeros((9, 2)), {}, "x has shape"),
        (np.zeros((9, 2)), np.zeros((3, 2)), {}, "y has 3 rows; a variance needs at least 4"),
        (np.zeros((9, 2)), np.zeros((9, 2)), {"bandwidth": -1.0}, "bandwidth is -1"),
        (np.eye(9), np.full((9, 9), np.nan), {}, "NaN"),
    ],
)
def test_refuses_bad_samples(key, call, x, y, knobs, message):
    with pytest.raises(ValueError, match=message):
        call(key, x, y, **knobs)


@pytest.mark.parametrize("margin", [0, -0.1, np.inf, np.nan])
@pytest.mark.parametrize("test", [equivalence_test, closeness_test, verdict, partial(sample_size_to_decide, mmd=0.1)])
def test_refuses_margins_that_are_none(key, test, margin):
    with pytest.raises(ValueError, match="margin is"):
        test(key, *samples(9, 9), margin=margin)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(mmd_interval, level=1.0), "level is 1.0"),
        (partial(mmd_interval, level=0.99, num_draws=99), "99 draws are too few: use at least 199 draws"),
        (partial(equivalence_test, margin=0.1, alpha=0.0005), "alpha is 0.0005"),
        (partial(closeness_test, margin=1.0), "margin is 1.0; expected a number below 1"),
        (partial(minimum_detectable_mmd, power=0.01), "power is 0.01"),
        (partial(sample_size_to_decide, margin=0.1, mmd=-1.0), "mmd is -1"),
        (partial(verdict, margin=0.1, alpha=0.5), "alpha is 0.5"),
    ],
)
def test_refuses_bad_knobs(key, call, message):
    with pytest.raises(ValueError, match=message):
        call(key, *samples(9, 9))


def test_verdict_refuses_traced_values(key):
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda x, y: verdict(key, x, y, margin=0.1).mmd2)(*samples(9, 9))


def test_traced_values_give_the_same_and_bad_ones_nan(key):
    x, y = samples(64, 64, shift=0.3)
    traced = jax.jit(lambda x, y: mmd_interval(key, x, y, bandwidth=SIGMA, num_draws=199))
    plain = mmd_interval(key, x, y, bandwidth=SIGMA, num_draws=199)
    for one, other in zip(plain, traced(x, y)):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)
    bad = traced(x * np.nan, y)
    assert np.isnan(bad.mmd).all()
    assert np.isnan(bad.mmd2)
