"""Random features and sketches: the kernel they stand for, sums that merge, the level of their tests, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.two_sample import kernels, mmd2_unbiased
from mmd_jax.two_sample.feature_tests import random_feature_test, sketch_test
from mmd_jax.two_sample.random_features import KERNELS, _cos_sin, embed, feature_map
from mmd_jax.two_sample.sketches import accumulate, from_arrays, merge, new_sketch, sketch_mmd2, to_arrays


def normal(n, d=3, shift=0.0, seed=0):
    return (np.random.default_rng([n, d, seed]).normal(size=(n, d)) + shift).astype(np.float32)


def empty(d=3, **knobs):
    return new_sketch(jax.random.key(5), d, **{"bandwidth": 1.5, "num_features": 64, "bins": 8, **knobs})


@pytest.mark.parametrize("kernel", KERNELS)
def test_error_of_the_kernel_shrinks_with_the_root_of_the_number_of_features(kernel):
    rows = jnp.asarray(normal(20))
    exact = getattr(kernels, kernel).tile(rows, rows, jnp.array([1.7], jnp.float32))
    off = ~np.eye(20, dtype=bool)
    # Over draws of the frequencies, each entry has the mean k and at most the variance 1 / r.
    for num in (64, 1024):
        maps = jax.vmap(lambda key, num=num: feature_map(key, 3, num, bandwidth=1.7, kernel=kernel))
        phi = jax.vmap(embed, (0, None))(maps(jax.random.split(jax.random.key(1), 200)), rows)
        products = np.asarray(jnp.einsum("fir,fjr->fij", phi, phi, precision="highest"))
        np.testing.assert_allclose(products[:, ~off], 1, atol=1e-5)
        errors = products - np.asarray(exact)
        rms = np.sqrt((errors[:, off] ** 2).mean())
        assert 0.2 < rms * np.sqrt(num) < 1
        assert np.abs(errors.mean(0)).max() < 5 / np.sqrt(num * 200)


def test_cosine_and_sine_are_those_of_numpy():
    phase = np.linspace(-60, 60, 200_001, dtype=np.float32)[:, None]
    # A float32 phase is itself known to a relative 6e-8.
    tolerance = 4e-7 + 1.5e-7 * np.abs(phase)
    for ours, exact in zip(_cos_sin(jnp.asarray(phase)), (np.cos, np.sin)):
        assert (np.abs(np.asarray(ours, np.float64) - exact(phase.astype(np.float64))) < tolerance).all()


def test_sums_over_a_million_rows_are_as_good_as_in_float64():
    rows = normal(1_000_000, 2)
    sketch = accumulate(jax.random.key(0), empty(2, num_features=4, bins=2), rows)
    phase = rows.astype(np.float64) @ np.asarray(sketch.frequencies, np.float64)
    exact = np.concatenate([np.cos(phase), np.sin(phase)], axis=1).sum(0) / np.sqrt(2)
    found = np.asarray(sketch.sums, np.float64).sum(0) - np.asarray(sketch.excess, np.float64).sum(0)
    assert int(sketch.counts.sum()) == 1_000_000
    # A plain float32 sum is off by some 10 here; the error of the mean is to be far below its spread, 1e-3 / √2.
    np.testing.assert_allclose(found, exact, atol=0.05)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_merging_in_any_order_gives_the_same_sketch(chunk):
    rows, key = normal(100), jax.random.key(3)
    parts = [
        accumulate(jax.random.fold_in(key, start), empty(), rows[start : start + chunk])
        for start in range(0, 100, chunk)
    ]
    forwards = parts[0]
    for part in parts[1:]:
        forwards = merge(forwards, part)
    order = np.random.default_rng(0).permutation(len(parts))
    shuffled = [parts[i] for i in order]
    while len(shuffled) > 1:  # as a tree
        shuffled = [
            merge(*shuffled[i : i + 2]) if i + 1 < len(shuffled) else shuffled[i] for i in range(0, len(shuffled), 2)
        ]
    np.testing.assert_array_equal(forwards.counts, shuffled[0].counts)
    np.testing.assert_allclose(forwards.sums, shuffled[0].sums, atol=2e-5)
    whole = accumulate(key, empty(), rows)
    np.testing.assert_allclose(forwards.sums.sum(0), whole.sums.sum(0), atol=2e-5)


def test_statistic_is_the_unbiased_estimate_for_the_kernel_of_the_features():
    x, y = normal(300), normal(200, shift=0.3, seed=1)
    a, b = (accumulate(jax.random.key(i), empty(), rows) for i, rows in enumerate((x, y)))
    phi, psi = (
        np.asarray(embed(feature_map(jax.random.key(5), 3, 64, bandwidth=1.5), rows), np.float64) for rows in (x, y)
    )
    xx, yy = phi @ phi.T, psi @ psi.T
    off = (xx.sum() - np.trace(xx)) / (300 * 299) + (yy.sum() - np.trace(yy)) / (200 * 199)
    assert float(sketch_mmd2(a, b)) == pytest.approx(off - 2 * (phi @ psi.T).mean(), abs=1e-6)
    assert float(sketch_test(jax.random.key(2), a, b).statistic) == pytest.approx(float(sketch_mmd2(a, b)), abs=1e-7)


def test_other_identities_are_refused_and_named():
    sketch = empty()
    others = {
        "seed": new_sketch(jax.random.key(6), 3, bandwidth=1.5, num_features=64, bins=8),
        "bandwidth": empty(bandwidth=1.6),
        "kernel": empty(kernel="laplace_l2"),
        "bins": empty(bins=16),
        "num_features": empty(num_features=32),
        "d": empty(4),
        "preprocessing": empty(preprocessing="features of layer 3"),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"{name} is "):
            merge(sketch, other)
        with pytest.raises(ValueError, match=f"{name} is "):
            sketch_mmd2(sketch, other)
        assert sketch.identity.fingerprint != other.identity.fingerprint


def test_saved_sketches_come_back_and_go_on(tmp_path):
    rows = normal(50)
    sketch = accumulate(jax.random.key(1), empty(preprocessing="centred"), rows)
    np.savez(tmp_path / "sketch.npz", **to_arrays(sketch))
    with np.load(tmp_path / "sketch.npz", allow_pickle=False) as file:
        loaded = from_arrays(file)
    assert loaded.identity == sketch.identity
    again = accumulate(jax.random.key(2), loaded, rows)
    np.testing.assert_array_equal(again.sums, accumulate(jax.random.key(2), sketch, rows).sums)


def sketch_trial(key, m, n, sample, *, start, evenly=False):
    keys = jax.random.split(key, 5)
    a, b = (accumulate(keys[i], start, sample(keys[2 + i], size), evenly=evenly) for i, size in enumerate((m, n)))
    return sketch_test(keys[4], a, b, num_permutations=99).reject


def rows_trial(key, m, n, sample, *, start):
    keys = jax.random.split(key, 3)
    x, y = (sample(k, size) for k, size in zip(keys, (m, n)))
    return random_feature_test(keys[2], x, y, bandwidth=1.5, num_permutations=99, num_features=32, bins=32).reject


def gauss(key, size):
    return jax.random.normal(key, (size, 2))


def sorted_classes(key, size):
    """Two classes far apart, as many of each as chance has it, sorted by class."""
    class_key, row_key = jax.random.split(key)
    center = jnp.sort(jax.random.bernoulli(class_key, 0.5, (size,)).astype(jnp.float32))
    return 3 * center[:, None] + 0.5 * jax.random.normal(row_key, (size, 2))


def rejections(trial, trials, *sizes, sample):
    start = empty(2, num_features=32, bins=16)
    many = jax.jit(lambda keys: jax.lax.map(lambda key: trial(key, *sizes, sample, start=start), keys, batch_size=200))
    return float(many(jax.random.split(jax.random.key(11), trials)).mean())


@pytest.mark.parametrize(
    ("trial", "m", "n", "sample"),
    [
        (partial(sketch_trial, evenly=True), 100, 100, gauss),  # exact: counts of 6 and 7 on both sides
        (sketch_trial, 100, 100, sorted_classes),
        (sketch_trial, 80, 400, gauss),
        (rows_trial, 60, 140, sorted_classes),
    ],
)
def test_level(trial, m, n, sample):
    rate = rejections(trial, 2000, m, n, sample=sample)
    assert abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_power_is_that_of_the_exact_kernel():
    x, y = normal(2000, 2), normal(1500, 2, seed=1)
    y[:, 0] *= 1.2
    a, b = (accumulate(jax.random.key(i), empty(2), rows) for i, rows in enumerate((x, y)))
    for result in (sketch_test(jax.random.key(2), a, b), random_feature_test(jax.random.key(2), x, y)):
        assert (
            bool(result.reject) and float(result.pvalue) <= 0.05 and float(result.statistic) > float(result.threshold)
        )


def test_features_in_plenty_give_the_estimate_of_the_kernel_itself():
    x, y = normal(200), normal(150, shift=0.2)
    result = random_feature_test(jax.random.key(0), x, y, num_features=8192)
    assert float(result.statistic) == pytest.approx(float(mmd2_unbiased(x, y)), abs=5e-3)


def test_constant_rows_are_never_different():
    rows = np.full((300, 3), 0.7, np.float32)
    a, b = (accumulate(jax.random.key(i), empty(), rows) for i in range(2))
    assert float(sketch_test(jax.random.key(2), a, b).pvalue) == 1
    assert float(random_feature_test(jax.random.key(2), rows, rows[:200], bandwidth=1.0).pvalue) == 1


def test_chunks_of_new_lengths_compile_nothing(caplog):
    sketch, key = empty(), jax.random.key(0)
    accumulate(key, sketch, normal(600))
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        sketch = accumulate(key, sketch, normal(700))
        accumulate(key, sketch, normal(1000))
    assert not [record for record in caplog.records if "Compiling" in record.message]


def test_bad_sketches_and_rows_are_refused():
    sketch, key = empty(), jax.random.key(0)
    arrays = to_arrays(accumulate(key, sketch, normal(50)))
    for rows, message in (
        (normal(5, 4), "has 4 features; this sketch is of rows with 3"),
        ([[1.0, 2.0, np.nan]], "NaN or infinite"),
        ([1.0, 2.0, 3.0], "two axes"),
    ):
        with pytest.raises(ValueError, match=message):
            accumulate(key, sketch, rows)
    assert accumulate(key, sketch, np.zeros((0, 3))) is sketch
    with pytest.raises(ValueError, match="of 3 rows; expected at least 8"):
        sketch_test(key, accumulate(key, sketch, normal(3)), sketch)
    with pytest.raises(ValueError, match="of 0 rows; expected at least 2"):
        sketch_mmd2(sketch, sketch)
    for change, message in (
        ({"sums": arrays["sums"][:4]}, "sums has shape"),
        ({"sums": arrays["sums"] * 1000}, "larger than its counts allow"),
        ({"counts": -arrays["counts"]}, "larger than its counts allow"),
        ({"identity": np.array("{}")}, "can't be read"),
        ({"identity": np.array(str(arrays["identity"]).replace('"bins": 8', '"bins": "8"'))}, "bins = '8'"),
        ({"identity": np.array(str(arrays["identity"]).replace("threefry2x32", "nobody"))}, "generator"),
    ):
        with pytest.raises(ValueError, match=message):
            from_arrays({**arrays, **change})
    with pytest.raises(ValueError, match="missing: counts"):
        from_arrays({name: array for name, array in arrays.items() if name != "counts"})
    with pytest.raises(ValueError, match="random features are known for gaussian"):
        empty(kernel="energy")
    with pytest.raises(ValueError, match="expected an even number"):
        empty(num_features=7)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda key: new_sketch(key, 3, bandwidth=1.0).counts)(key)
