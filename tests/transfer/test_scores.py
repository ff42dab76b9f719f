"""Scores against slow loops written from the papers, closed forms, what must not change them, and planted signals."""

import math

import jax
import numpy as np
import pytest
from scipy import linalg, optimize
from threadpoolctl import threadpool_limits

from mmd_jax.transfer import linear_probe, scores
from mmd_jax.transfer.linear_probe import Probe, probe
from mmd_jax.transfer.scores import h_score, leep, log_me, nce, trans_rate

SCORES = {
    "log_me": log_me,
    "h_score": h_score,
    "shrunk": lambda f, y, **given: h_score(f, y, shrinkage="ledoit_wolf", **given),
    "trans_rate": trans_rate,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """On a busy machine OpenBLAS's threads wait for each other longer than they work."""
    with threadpool_limits(1, user_api="blas"):
        yield


def sample(seed=0, n=60, d=5, classes=3, signal=1.0, noise=0):
    """Classes of unequal size, apart by `signal` in the first directions; `noise` more features say nothing."""
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), np.arange(classes), random.choice(classes, n - 2 * classes, p=None)])
    means = signal * random.normal(size=(classes, d))
    x = np.hstack([means[y] + random.normal(size=(n, d)), random.normal(size=(n, noise))])
    return x.astype(np.float32), y


def entropy(y):
    shares = np.bincount(y) / len(y)
    return -sum(p * math.log(p) for p in shares if p > 0)


# The papers, in loops.


def slow_leep(theta, y, classes):
    n, s = theta.shape
    joint = [[sum(theta[i][z] for i in range(n) if y[i] == c) / n for z in range(s)] for c in range(classes)]
    of_source = [sum(joint[c][z] for c in range(classes)) for z in range(s)]
    return sum(math.log(sum(joint[y[i]][z] / of_source[z] * theta[i][z] for z in range(s))) for i in range(n)) / n


def slow_nce(z, y):
    total = 0.0
    for i in range(len(y)):
        same = [j for j in range(len(y)) if z[j] == z[i]]
        total += math.log(sum(y[j] == y[i] for j in same) / len(same))
    return total / len(y)


def evidence(features, y, log_alpha, log_beta):
    """log p(y | F, α, β) as the density of a normal vector: y ~ N(0, I/β + F Fᵀ/α)."""
    cov = np.eye(len(y)) * math.exp(-log_beta) + features @ features.T * math.exp(-log_alpha)
    root = linalg.cholesky(cov, lower=True)
    half = linalg.solve_triangular(root, y, lower=True)
    return -0.5 * (half @ half + 2 * np.log(np.diag(root)).sum() + len(y) * math.log(2 * math.pi))


def slow_log_me(features, y):
    """The greatest evidence: a grid over log α/β, a search for β at each of its points."""
    features, total = np.asarray(features, np.float64), 0.0
    for c in range(y.max() + 1):
        one = (y == c).astype(float)
        total += max(
            -optimize.minimize_scalar(
                lambda b, t=t, one=one: -evidence(features, one, b + t, b), bounds=(-2, 12), method="bounded"
            ).fun
            for t in np.linspace(-6, 18, 97)
        )
    return total / (y.max() + 1) / len(y)


def slow_h_score(features, y, shrinkage=0.0):
    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    means = np.array([f[y == c].mean(0) for c in y])
    cov, between = f.T @ f / len(f), means.T @ means / len(f)
    d = f.shape[1]
    shrunk = (1 - shrinkage) * cov + shrinkage * np.trace(cov) / d * np.eye(d)
    return np.trace(np.linalg.pinv(shrunk, rcond=1e-10) @ ((1 - shrinkage) * between))


def slow_trans_rate(features, y, epsilon=1e-4):
    z = np.asarray(features, np.float64)
    z = z - z.mean(0)
    z = z / math.sqrt((z**2).sum() / len(z))

    def rate(rows):
        return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + rows.T @ rows / (epsilon * len(rows)))[1]

    return rate(z) - sum((y == c).mean() * rate(z[y == c]) for c in range(y.max() + 1))


def test_leep_and_nce_are_the_papers(key):
    random = np.random.default_rng(1)
    y, theta = random.integers(0, 4, 40), random.dirichlet(np.full(6, 0.3), 40)
    np.testing.assert_allclose(leep(theta, y, 4), slow_leep(theta, y, 4), rtol=2e-5)
    z = random.integers(0, 6, 40)
    np.testing.assert_allclose(nce(z, y), slow_nce(z, y), rtol=2e-5)
    np.testing.assert_allclose(leep(np.eye(6)[z], y, 4), nce(z, y), rtol=2e-5)


@pytest.mark.parametrize("n, d, noise", [(40, 4, 0), (24, 3, 40)], ids=["d < n", "d > n"])
def test_layer_scores_are_the_papers(n, d, noise):
    x, y = sample(2, n=n, d=d, noise=noise)
    x = x * np.linspace(0.5, 3, d + noise, dtype=np.float32)
    np.testing.assert_allclose(log_me(x, y), slow_log_me(x, y), atol=1e-3)
    np.testing.assert_allclose(h_score(x, y), slow_h_score(x, y), rtol=1e-3)
    np.testing.assert_allclose(h_score(x, y, shrinkage=0.3), slow_h_score(x, y, 0.3), rtol=1e-3)
    np.testing.assert_allclose(trans_rate(x, y), slow_trans_rate(x, y), rtol=1e-3)
    np.testing.assert_allclose(trans_rate(x, y, epsilon=0.5), slow_trans_rate(x, y, 0.5), rtol=1e-3)


@pytest.mark.parametrize("noise", [0, 80])
def test_the_shrinkage_is_that_of_scikit_learn(noise):
    from sklearn.covariance import ledoit_wolf_shrinkage

    x, y = sample(3, noise=noise)
    shrinkage = ledoit_wolf_shrinkage(x.astype(np.float64))
    assert 0 < shrinkage < 1
    np.testing.assert_allclose(SCORES["shrunk"](x, y), slow_h_score(x, y, shrinkage), rtol=1e-3)


def test_closed_forms():
    y = np.repeat(np.arange(3), [5, 10, 15])
    constant = np.full((30, 4), 0.25)
    np.testing.assert_allclose(leep(constant, y, 3), -entropy(y), rtol=1e-5)
    np.testing.assert_allclose(nce(np.zeros(30, int), y), -entropy(y), rtol=1e-5)
    assert float(nce((y + 1) % 3, y)) == 0.0  # a renaming
    np.testing.assert_allclose(leep(np.eye(3)[y], y, 3), 0, atol=1e-6)
    one_hot = np.eye(3)[y]
    np.testing.assert_allclose(h_score(one_hot, y), 2, rtol=1e-5)
    # Features of zero: y ~ N(0, I/β) with the best β, which is 1 / mean(y).
    shares = np.bincount(y) / 30
    expected = np.mean([-0.5 * (math.log(2 * math.pi * p) + 1) for p in shares])
    np.testing.assert_allclose(log_me(np.zeros((30, 2)), y), expected, rtol=1e-4)
    for name in ("h_score", "shrunk", "trans_rate"):
        np.testing.assert_allclose(SCORES[name](np.ones((30, 2)), y), 0, atol=1e-5)
    # One feature at ±1 says all, and the rates are equal: a class's rows are measured from the mean of all.
    np.testing.assert_allclose(trans_rate(np.repeat([1.0, -1.0], 10)[:, None], np.repeat([0, 1], 10)), 0, atol=1e-3)
    # The corners of a simplex, each of length 1: all rows fill three directions evenly, a class one.
    one_hot = np.eye(4)[np.arange(40) % 4]
    expected = 0.5 * (3 * math.log1p(1e4 / 3) - math.log1p(1e4))
    np.testing.assert_allclose(trans_rate(one_hot, np.arange(40) % 4), expected, rtol=1e-4)


def test_independent_labels_give_the_floor():
    random = np.random.default_rng(4)
    y, theta = random.integers(0, 3, 20_000), random.dirichlet(np.ones(5), 20_000)
    assert -entropy(y) <= float(leep(theta, y, 3)) < -entropy(y) + 1e-3
    x = random.normal(size=(2_000, 50))
    np.testing.assert_allclose(h_score(x, y[:2_000]), 2 * 50 / 2_000, atol=0.03)  # (C − 1) d / n, of noise
    assert float(SCORES["shrunk"](x, y[:2_000])) < 0.2 * float(h_score(x, y[:2_000]))


@pytest.mark.parametrize("name", SCORES)
def test_what_changes_nothing(name):
    score = SCORES[name]
    x, y = sample(5)
    random = np.random.default_rng(5)
    expected = float(score(x, y))
    order = random.permutation(len(y))
    rotation = linalg.qr(random.normal(size=(5, 5)))[0]
    same = [(x[order], y[order]), (x, (y + 1) % 3), (7 * x, y), (1e-4 * x, y), (x @ rotation, y)]
    same += [] if name == "log_me" else [(x + 3, y)]
    same += [(x @ (np.eye(5) + random.normal(size=(5, 5))), y)] if name == "h_score" else []
    for rows, labels in same:
        np.testing.assert_allclose(score(rows, labels), expected, rtol=2e-3)
    # What it does change.
    if name != "h_score":
        assert abs(float(score(x * np.array([20.0, 1, 1, 1, 1]), y)) - expected) > 1e-2


@pytest.mark.parametrize("name", [*SCORES, "probe"])
def test_more_signal_scores_higher(name, key):
    def score(x, y):
        return float(probe(jax.random.clone(key), x, y).accuracy if name == "probe" else SCORES[name](x, y))

    values = np.array([[score(*sample(seed, n=120, signal=s)) for s in (0.0, 0.7, 2.0)] for seed in range(3)])
    assert (np.diff(values.mean(0)) > 0).all()
    assert (values[:, 2] > values[:, 0]).all()


def test_ranges():
    for seed in range(5):
        x, y = sample(seed, n=30, d=4, noise=(0, 60)[seed % 2], signal=0.3)
        assert 0 <= float(h_score(x, y)) <= 2.0001 and 0 <= float(SCORES["shrunk"](x, y)) <= 2
        assert float(trans_rate(x, y)) >= 0
        z, theta = np.arange(30) % 4, np.random.default_rng(seed).dirichlet(np.ones(4), 30)
        assert -entropy(y) - 1e-6 <= float(nce(z, y)) <= 0 and float(leep(theta, y, 3)) <= 0
    np.testing.assert_allclose(h_score(*sample(1, n=30, noise=60)), 2, rtol=1e-4)  # d > n: whatever the labels
    np.testing.assert_allclose(h_score(*sample(1), shrinkage=1.0), 0, atol=1e-6)


def test_the_probe_is_logistic_regression_cross_validated(key):
    """The same penalties, folds and standardisation by scikit-learn: the same probabilities, nearly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = sample(6, n=150, d=6, noise=10, signal=0.8)
    x[:, 1] *= 50
    fold = np.asarray(linear_probe._stratified_folds(jax.random.clone(key), jax.numpy.asarray(y), 5))
    for c in range(3):
        assert np.ptp(np.bincount(fold[y == c], minlength=5)) <= 1
    assert np.ptp(np.bincount(fold)) <= 1

    def fitted(rows, scaler, penalty):
        model = LogisticRegression(C=1 / (penalty * rows.sum()), tol=1e-8, max_iter=5000)
        return model.fit(scaler.transform(x[rows]), y[rows])

    loss, hits = np.zeros(150), np.zeros(150, bool)
    for k in range(5):
        trains, chooses, tries = fold != k, fold == (k + 1) % 5, fold == k
        scaler = StandardScaler().fit(x[trains])
        inner = []
        for penalty in linear_probe.PENALTIES:
            found = fitted(trains & ~chooses, scaler, penalty).predict_log_proba(scaler.transform(x[chooses]))
            inner.append(-found[np.arange(chooses.sum()), y[chooses]].mean())
        model = fitted(trains, scaler, linear_probe.PENALTIES[int(np.argmin(inner))])
        found = model.predict_log_proba(scaler.transform(x[tries]))
        loss[tries], hits[tries] = -found[np.arange(tries.sum()), y[tries]], found.argmax(1) == y[tries]
    result = probe(jax.random.clone(key), x, y)
    assert isinstance(result, Probe) and result.correct.shape == (150,)
    np.testing.assert_allclose(result.log_loss, loss.mean(), atol=5e-3)
    assert (np.asarray(result.correct) != hits).sum() <= 1
    np.testing.assert_allclose(result.accuracy, np.asarray(result.correct).mean(), rtol=1e-6)


def test_the_probe_does_not_see_the_held_out_rows(key):
    """Labels without signal: a fit that saw them would be right too often with d > n."""
    x, y = sample(7, n=90, d=2, noise=150, signal=0.0)
    assert float(probe(jax.random.clone(key), x, y).accuracy) < 0.33 + 4 * math.sqrt(0.33 * 0.67 / 90)
    dead = np.hstack([x, np.zeros((90, 3)), np.full((90, 1), 5.0)])
    np.testing.assert_array_equal(
        probe(jax.random.clone(key), dead, y).correct, probe(jax.random.clone(key), x, y).correct
    )
    assert np.isfinite(float(probe(jax.random.clone(key), np.ones((90, 2)), y).log_loss))


def test_under_jit_and_for_equal_widths_one_program():
    x, y = sample(8)
    for name, score in SCORES.items():
        jitted = jax.jit(lambda x, y, score=score: score(x, y, num_classes=3))(x, y)
        np.testing.assert_allclose(jitted, score(x, y), rtol=1e-4, err_msg=name)
    theta = np.full((60, 2), 0.5)
    np.testing.assert_allclose(jax.jit(lambda t, y: leep(t, y, 3))(theta, y), leep(theta, y, 3), rtol=1e-5)
    jitted = jax.jit(lambda z, y: nce(z, y, num_source=3, num_classes=3))(y, y)
    np.testing.assert_allclose(jitted, 0, atol=1e-6)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(log_me)(x, y)
    before = scores._log_me._cache_size()
    log_me(x[:, :2], y)
    log_me(x[:, :4], y)
    assert scores._log_me._cache_size() == before  # all widths up to 64


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (np.where(np.arange(5) == 2, np.nan, x), y), "NaN"),
        (lambda x, y: (x[0], y), "two axes"),
        (lambda x, y: (x[:1], y[:1]), "at least 2 rows"),
        (lambda x, y: (x, y[:-1]), "one for each of the 60 rows"),
        (lambda x, y: (x, y + 0.5), "expected integers"),
        (lambda x, y: (x, y - 1), "run from -1"),
        (lambda x, y: (x, np.zeros_like(y)), "at least two classes"),
        (lambda x, y: (x, np.where(y == 1, 7, y)), "class 1 of 8 has no row"),
    ],
)
def test_bad_features_and_labels(change, message, key):
    x, y = change(*sample())
    for score in (*SCORES.values(), lambda x, y: probe(jax.random.clone(key), x, y)):
        with pytest.raises(ValueError, match=message):
            score(x, y)


def test_bad_knobs(key):
    x, y = sample()
    for call, message in (
        (lambda: h_score(x, y, shrinkage="oas"), "ledoit_wolf"),
        (lambda: h_score(x, y, shrinkage=1.5), "from 0 to 1"),
        (lambda: trans_rate(x, y, epsilon=0.0), "positive"),
        (lambda: probe(jax.random.clone(key), x, y, 2), "at least 3"),
        (lambda: probe(jax.random.clone(key), x[:5], np.array([0, 0, 0, 0, 1])), "half as many"),
        (lambda: probe(jax.random.clone(key), x, np.where(np.arange(60) == 0, 3, y)), "one row"),
        (lambda: log_me(x, y, num_classes=2), "0 … 1"),
        (lambda: leep(x, y, 3), "probabilities"),
        (lambda: leep(np.full((60, 2), 0.6), y, 3), "sum to 1.2"),
        (lambda: nce(y[:-1], y), "source_labels has shape"),
        (lambda: nce(-y, y), "source_labels run from -2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="plain integer"):
        probe(jax.random.clone(key), x, y, True)


def test_a_small_feature_counts_beside_a_huge_one(key):
    y = np.arange(60) % 2
    noise = np.asarray(jax.random.normal(key, (60,)))
    features = np.stack([1e6 * noise, y - 0.5 + 0.01 * noise], axis=1)
    assert float(probe(key, features, y).accuracy) == 1


def test_the_probe_tries_no_group_that_it_was_fitted_on(key):
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    x = random.normal(size=(40, 20))[groups] + 0.01 * random.normal(size=(400, 20))
    y = random.integers(0, 2, 40)[groups]
    # Copies of a group give its label away.
    assert float(probe(jax.random.clone(key), x, y).accuracy) > 0.9
    found = probe(jax.random.clone(key), x, y, groups=groups)
    assert 0.2 < float(found.accuracy) < 0.8
    fold = np.asarray(linear_probe._folds_of_groups(key, groups, y, 5))
    assert all(len({*fold[groups == group]}) == 1 for group in range(40))
    shares = np.array([[np.sum(y[fold == k] == c) for c in (0, 1)] for k in range(5)])
    assert shares.sum(axis=1).tolist() == [80] * 5 and np.ptp(shares, axis=0).max() <= 10


def test_the_probe_refuses_too_few_groups(key):
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    with pytest.raises(ValueError, match="4 groups can't fill 5 folds"):
        probe(jax.random.clone(key), x, y, groups=np.arange(60) % 4)
    with pytest.raises(ValueError, match="expected 60 integers"):
        probe(key, x, y, groups=np.arange(59))
