"""Every public edge tells of a kernel that overflows on concrete rows, and of a key that is none."""

import inspect

import jax
import numpy as np
import pytest

from mmd_jax.two_sample import (
    block_test,
    cross_mmd_test,
    equivalence_test,
    gamma_test,
    incomplete_test,
    linear_test,
    margin_from_change,
    margin_from_splits,
    minimum_detectable_mmd,
    mmd2_variance,
    mmd_interval,
    pairwise_tests,
    polynomial,
    relative_test,
    sample_size_to_decide,
)
from mmd_jax.two_sample.deep_kernel import learn_kernel

NOISE = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

# On these rows the squares of kernel values overflow too, before the values themselves do.
OF_SQUARES = {
    "mmd2_variance": lambda key, x, y, **knobs: mmd2_variance(x, y, **knobs),
    "mmd_interval": mmd_interval,
    "equivalence_test": lambda key, x, y, **knobs: equivalence_test(key, x, y, margin=1.0, **knobs),
    "relative_test": lambda key, x, y, **knobs: relative_test(x, y, x, **knobs),
    "linear_test": linear_test,
    "block_test": block_test,
    "margin_from_change": lambda key, x, y, **knobs: margin_from_change(key, x, lambda rows: 2 * rows, **knobs),
}
OF_VALUES = {
    "incomplete_test": incomplete_test,
    "minimum_detectable_mmd": minimum_detectable_mmd,
    "sample_size_to_decide": lambda key, x, y, **knobs: sample_size_to_decide(key, x, y, margin=0.1, mmd=0.0, **knobs),
    "gamma_test": lambda key, x, y, **knobs: gamma_test(x, y, **knobs),
    "pairwise_tests": lambda key, x, y, **knobs: pairwise_tests(key, {"x": x, "y": y}, **knobs),
    "margin_from_splits": lambda key, x, y, **knobs: margin_from_splits(key, x, np.arange(20) % 2, **knobs),
}


@pytest.mark.parametrize(("name", "degree"), [*((name, 2) for name in OF_SQUARES), *((name, 5) for name in OF_VALUES)])
def test_a_kernel_that_overflows_is_told(name, degree, key):
    x = 1e5 * (1 + np.abs(NOISE))
    with pytest.raises(ValueError, match="overflows on these rows"):
        (OF_SQUARES | OF_VALUES)[name](key, x, 2 * x, kernel=polynomial(degree), bandwidth=1.0)


@pytest.mark.parametrize("test", [cross_mmd_test, learn_kernel, margin_from_change])
def test_old_keys_are_refused(test):
    # Without the annotations' own check, which only tests have.
    with pytest.raises(TypeError, match="expected a typed key"):
        inspect.unwrap(test)(
            jax.random.PRNGKey(0), NOISE, NOISE, **{"bandwidth": 1.0} if test is margin_from_change else {}
        )
