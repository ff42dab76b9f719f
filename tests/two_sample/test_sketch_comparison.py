"""Comparisons of sketches: against the sketches' own MMD², against closed forms of the features' means, and by simulation."""

import jax
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample.relative import relative_test
from mmd_jax.two_sample.sketch_comparison import (
    MeanEmbedding,
    mean_embedding,
    mmd2_from_embeddings,
    relative_sketch_test,
    sketch_distance,
)
from mmd_jax.two_sample.sketches import Sketch, accumulate, merge, new_sketch, sketch_mmd2
from mmd_jax.two_sample.variance import mmd2_variance

BANDWIDTHS = (1.0, 2.0, 4.0)
D, R, BINS = 3, 64, 16
EMPTY = tuple(
    new_sketch(jax.random.key(i), D, bandwidth=bandwidth, num_features=R, bins=BINS)
    for i, bandwidth in enumerate(BANDWIDTHS)
)


def sketched(rows, seed=0, empty=EMPTY):
    return tuple(accumulate(jax.random.key(seed), one, np.asarray(rows, np.float32), evenly=True) for one in empty)


def gaussian(n, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D)) + shift * np.eye(D)[0]


# In numpy, so that thousands of sketches take seconds.


def quick(rows, random, evenly=True):
    bins = random.permutation(len(rows)) % BINS if evenly else random.integers(0, BINS, len(rows))
    members = np.eye(BINS)[bins]
    found = []
    for one in EMPTY:
        phase = rows @ np.asarray(one.frequencies, np.float64)
        sums = members.T @ np.concatenate([np.cos(phase), np.sin(phase)], axis=1) / np.sqrt(R / 2)
        sums = sums.astype(np.float32)
        found.append(Sketch(one.identity, one.frequencies, sums, np.zeros_like(sums), members.sum(0).astype(np.int32)))
    return tuple(found)


def true_mmd2(shift):
    """Of N(0, I) and N(shift · e_1, I), by the characteristic function at the frequencies that were drawn."""
    total = 0.0
    for one in EMPTY:
        w = np.asarray(one.frequencies, np.float64)
        size, turn = np.exp(-np.sum(w**2, axis=0) / 2), shift * w[0]
        total += np.mean((size * (np.cos(turn) - 1)) ** 2 + (size * np.sin(turn)) ** 2)
    return total / len(EMPTY)


def test_embeddings_give_the_mean_over_bandwidths_of_the_sketches_mmd2():
    target = sketched(gaussian(200))
    others = [sketched(gaussian(n, shift, seed=n), seed=n) for n, shift in ((100, 0.0), (150, 0.5), (300, 2.0))]
    embeddings = [mean_embedding(other) for other in others]
    assert embeddings[0].mean.shape == (len(BANDWIDTHS) * R,) and embeddings[0].mean.dtype == np.float32
    found = mmd2_from_embeddings(
        mean_embedding(target), np.stack([e.mean for e in embeddings]), [e.size for e in embeddings]
    )
    expected = [np.mean([float(sketch_mmd2(x, y)) for x, y in zip(target, other)]) for other in others]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose([sketch_distance(target, other).mmd2 for other in others], expected, atol=2e-6)
    # One sketch stands for itself.
    alone = mmd2_from_embeddings(mean_embedding(target[0]), mean_embedding(others[1][0]).mean[None], [150])
    np.testing.assert_allclose(alone, [float(sketch_mmd2(target[0], others[1][0]))], atol=2e-6)


def test_a_thousand_embeddings_need_no_loop():
    random = np.random.default_rng(0)
    means = random.normal(size=(1000, 96)).astype(np.float32) / 20
    target = MeanEmbedding(means[0], 50)
    found = mmd2_from_embeddings(target, means, np.full(1000, 80))
    squared = ((means[7].astype(float) - means[0]) ** 2).sum()
    bias = (1 - (means[7].astype(float) ** 2).sum()) / 79 + (1 - (means[0].astype(float) ** 2).sum()) / 49
    np.testing.assert_allclose(found[7], squared - bias, rtol=1e-5)


def test_the_estimates_are_without_bias_and_the_standard_error_is_theirs():
    """Of an even and of an uneven share of rows, over 200 pairs."""
    for shift, evenly in ((0.0, True), (0.5, False), (1.5, True)):
        random = np.random.default_rng(3)
        found = []
        for _ in range(200):
            x, y = random.normal(size=(150, D)), random.normal(size=(100, D)) + shift * np.eye(D)[0]
            found.append(sketch_distance(quick(x, random, evenly), quick(y, random, evenly))[:2])
        mmd2, errors = np.array(found).T
        assert abs(mmd2.mean() - true_mmd2(shift)) < 4 * mmd2.std() / np.sqrt(200)
        assert 0.85 < errors.mean() / mmd2.std() < (1.5 if shift == 0 else 1.2)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 1.0, 3.0])
def test_the_interval_covers_near_and_far(shift):
    reps, alpha, truth = 200, 0.1, true_mmd2(shift)
    random = np.random.default_rng(4)
    low = high = 0
    for _ in range(reps):
        x, y = random.normal(size=(120, D)), random.normal(size=(200, D)) + shift * np.eye(D)[0]
        found = sketch_distance(quick(x, random), quick(y, random), alpha)
        assert 0 <= found.low <= max(found.mmd2, 0) <= found.high
        low, high = low + (found.low > truth), high + (found.high < truth)
    most = stats.binom.ppf(0.999, reps, alpha / 2)
    assert low <= most and high <= most
    if shift == 3.0:  # far away it is not wide for nothing
        assert low + high >= stats.binom.ppf(0.001, reps, alpha) / 2


def test_the_interval_narrows_with_rows_and_finds_differences():
    few, many = (
        sketch_distance(sketched(gaussian(n, seed=1), 1), sketched(gaussian(n, 0.6, seed=2), 2)) for n in (100, 2000)
    )
    assert many.high - many.low < 0.4 * (few.high - few.low)
    assert many.low > 0
    same = sketch_distance(sketched(gaussian(500, seed=3), 3), sketched(gaussian(500, seed=4), 4))
    assert same.low == 0 and 0 < same.high < few.high
    wider = sketch_distance(sketched(gaussian(500, seed=3), 3), sketched(gaussian(500, seed=4), 4), alpha=0.001)
    assert wider.high > same.high


@pytest.fixture(scope="module")
def fine():
    """One bandwidth with many features, whose kernel is the Gaussian, nearly."""
    return (new_sketch(jax.random.key(9), D, bandwidth=2.0, num_features=4096, bins=64),)


def test_standard_errors_agree_with_those_from_rows(fine):
    x, y, t = gaussian(600, 0.4, seed=5), gaussian(500, 1.0, seed=6), gaussian(700, seed=7)
    sketches = [sketched(rows, seed, fine) for seed, rows in enumerate((x, y, t))]
    exact, found = mmd2_variance(x, y, bandwidth=2.0), sketch_distance(*sketches[:2])
    np.testing.assert_allclose(found.mmd2, float(exact.mmd2), rtol=0.1)
    np.testing.assert_allclose(found.standard_error, float(exact.variance) ** 0.5, rtol=0.3)
    exact, found = relative_test(x, y, t, bandwidth=2.0), relative_sketch_test(sketches[2], *sketches[:2])
    np.testing.assert_allclose(found.difference, float(exact.difference), rtol=0.1)
    np.testing.assert_allclose(found.standard_error, float(exact.standard_error), rtol=0.3)
    assert found.reject and bool(exact.reject)


@pytest.mark.parametrize("shift_a, shift_b", [(0.0, 0.0), (0.8, -0.8), (0.8, 0.8)])
def test_the_relative_test_keeps_its_level_at_equal_distances(shift_a, shift_b):
    reps, alpha = 250, 0.1
    random = np.random.default_rng(8)
    pvalues = []
    for _ in range(reps):
        target = quick(random.normal(size=(120, D)), random)
        a = quick(random.normal(size=(150, D)) + shift_a * np.eye(D)[0], random)
        b = quick(random.normal(size=(150, D)) + shift_b * np.eye(D)[0], random)
        pvalues.append(relative_sketch_test(target, a, b, alpha).pvalue)
    most = stats.binom.ppf(0.999, reps, alpha)
    assert np.sum(np.array(pvalues) <= alpha) <= most and np.sum(np.array(pvalues) >= 1 - alpha) <= most


def test_the_relative_test_has_power_through_the_shared_target():
    """Sources that differ by less than either's distance to the target is known: what the target's rows add cancels."""
    random = np.random.default_rng(9)
    hits, apart = 0, []
    for _ in range(40):
        target = quick(random.normal(size=(60, D)), random)
        a = quick(random.normal(size=(1500, D)) + 1.0 * np.eye(D)[0], random)
        b = quick(random.normal(size=(1500, D)) + 1.25 * np.eye(D)[0], random)
        found, back = relative_sketch_test(target, a, b), relative_sketch_test(target, b, a)
        np.testing.assert_allclose(found.pvalue + back.pvalue, 1, rtol=1e-9)
        alone = np.hypot(sketch_distance(target, a).standard_error, sketch_distance(target, b).standard_error)
        apart.append(alone / found.standard_error)
        hits += found.reject
    assert hits > 28
    assert np.median(apart) > 2


def test_rows_without_spread():
    same, other = sketched(np.ones((40, D))), sketched(np.zeros((40, D)))
    found = sketch_distance(same, same)
    assert abs(found.mmd2) < 1e-6 and found.low == 0 and found.high < 1e-5
    found = sketch_distance(same, other)
    np.testing.assert_allclose([found.low, found.high], found.mmd2, rtol=1e-3)
    assert relative_sketch_test(same, same, other).reject and not relative_sketch_test(same, other, same).reject


def test_merged_sketches_compare_as_one():
    rows, other = gaussian(160, seed=10), sketched(gaussian(200, 0.5, seed=11), 3)
    halves = tuple(map(merge, sketched(rows[:80], 1), sketched(rows[80:], 2)))
    whole = sketch_distance(sketched(rows, 1), other)
    np.testing.assert_allclose(sketch_distance(halves, other).mmd2, whole.mmd2, atol=1e-6)


def test_what_does_not_compare_is_told():
    a, b = sketched(gaussian(50)), sketched(gaussian(60, 1.0), 1)
    strange = sketched(
        gaussian(50), empty=tuple(one._replace(identity=one.identity._replace(preprocessing="x")) for one in EMPTY)
    )
    for call, message in (
        (lambda: sketch_distance(a, strange), "not made alike"),
        (lambda: sketch_distance(a, b[:2]), "3 and 2 sketches"),
        (lambda: sketch_distance((a[0], b[1]), b[:2]), "differ in the rows"),
        (lambda: sketch_distance(a, EMPTY), "0 rows"),
        (lambda: sketch_distance(a, sketched(gaussian(3))), "in 3 bins"),
        (lambda: sketch_distance(a, ()), r"3 and 0 sketches|no sketch"),
        (lambda: sketch_distance(a, b, 1.0), "alpha is 1.0"),
        (lambda: relative_sketch_test(a, b, strange), "not made alike"),
        (lambda: mean_embedding(()), "no sketch"),
        (lambda: jax.jit(lambda a: mean_embedding(a).size)(a), "traced"),
        (lambda: mmd2_from_embeddings(mean_embedding(a), np.zeros((2, 5)), [3, 3]), r"expected \[E, 192\]"),
        (lambda: mmd2_from_embeddings(mean_embedding(a), np.zeros((1, 192)), [1]), "fewer than two"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
