"""Step by step, the test is the test; stopped early, its p-value is valid."""

import jax
import numpy as np
import pytest
from scipy import stats

from mmd_jax.two_sample import permutation_test, permutation_test_in_steps, sequential_test


def samples(m, n, shift=0.1, seed=0):
    rng = np.random.default_rng([m, n, seed])
    return rng.normal(size=(m, 3)).astype(np.float32), (rng.normal(size=(n, 3)) + shift).astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"bins": 60, "precision": "tf32"}])
def test_steps_end_where_the_test_ends_also_after_an_interruption(settings, key):
    x, y = samples(300, 250)
    whole = permutation_test(key, x, y, num_permutations=99, return_null=True, **settings)
    steps = list(
        permutation_test_in_steps(key, x, y, num_permutations=99, return_null=True, tiles_per_step=4, **settings)
    )
    assert [step.done for step in steps] == [4, 8, 12, 15] and steps[0].total == 15
    assert all(step.result is None for step in steps[:-1])
    np.testing.assert_array_equal(steps[-1].result.null, whole.null)
    assert float(steps[-1].result.pvalue) == float(whole.pvalue)

    kept = jax.tree.map(np.asarray, steps[1])  # as a file would have it
    rest = list(
        permutation_test_in_steps(
            key, x, y, num_permutations=99, return_null=True, tiles_per_step=4, resume=kept, **settings
        )
    )
    assert [step.done for step in rest] == [12, 15]
    np.testing.assert_array_equal(rest[-1].result.null, whole.null)


def test_a_step_of_another_problem_is_refused(key):
    x, y = samples(300, 250)
    step = next(permutation_test_in_steps(key, x, y, num_permutations=99, tiles_per_step=4))
    with pytest.raises(ValueError, match="the step to resume from is of another problem"):
        next(permutation_test_in_steps(key, x, y, num_permutations=199, resume=step))
    with pytest.raises(ValueError, match="tiles_per_step is 0"):
        next(permutation_test_in_steps(key, x, y, tiles_per_step=0))


def test_sequential_p_values_are_valid_and_cheap():
    rng = np.random.default_rng(0)
    results = [
        sequential_test(
            jax.random.key(i), *rng.normal(size=(2, 20, 2)).astype(np.float32), bandwidth=1.5,
            max_permutations=300, exceedances=5, batch=50,
        )
        for i in range(400)
    ]  # fmt: skip
    p = np.array([float(result.pvalue) for result in results])
    for level in (0.05, 0.1, 0.3):
        assert (p <= level + 1e-6).sum() <= stats.binom.ppf(0.999, 400, level)
    used = np.array([int(result.num_permutations) for result in results])
    # About h (1 + log(B / h)) = 25 on average, where the whole test takes 300.
    assert used.mean() < 60 and used.max() == 300
    assert all(bool(result.reject) == (float(result.pvalue) <= 0.05 + 1e-7) for result in results)


def test_a_clear_difference_takes_all_permutations(key):
    x, y = samples(40, 40, shift=3.0)
    result = sequential_test(key, x, y, max_permutations=400, batch=100)
    assert int(result.num_permutations) == 400 and float(result.pvalue) == pytest.approx(1 / 401)
    assert bool(result.reject)


@pytest.mark.parametrize("settings", [{"exceedances": 0}, {"batch": 0}, {"max_permutations": 50, "batch": 100}])
def test_bad_settings(settings, key):
    with pytest.raises(ValueError, match="exceedances is"):
        sequential_test(key, *samples(20, 20), **settings)


def test_other_data_or_another_key_are_another_problem(key):
    x, y = samples(300, 250)
    step = next(permutation_test_in_steps(key, x, y, num_permutations=99, tiles_per_step=4))
    for other in ((jax.random.key(7), x, y), (key, x, y[::-1].copy())):
        with pytest.raises(ValueError, match="another problem"):
            next(permutation_test_in_steps(*other, num_permutations=99, resume=step))


def test_settings_that_a_sequential_test_has_not_are_refused(key):
    with pytest.raises(TypeError, match="has no bins, num_permutations"):
        sequential_test(key, *samples(20, 20), num_permutations=20, bins=5)
    with pytest.raises(ValueError, match="alpha"):
        sequential_test(key, *samples(3, 3), alpha=0.01)
