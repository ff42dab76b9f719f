"""All pairs among data sets: each as if it were tested alone, at one level for all."""

import jax
import numpy as np
import pytest
from scipy import stats

from mmd_jax.intervals import holm
from mmd_jax.two_sample import laplace_l2, mmd2_unbiased, pairwise_tests, permutation_test


def domains(seed=0, sizes=(60, 90, 75), shifts=(0.0, 0.0, 0.8)):
    rng = np.random.default_rng(seed)
    return {
        f"d{i}": (rng.normal(size=(n, 2)) + s).astype(np.float32)
        for i, (n, s) in enumerate(zip(sizes, shifts, strict=True))
    }


@pytest.mark.parametrize("settings", [{}, {"kernel": laplace_l2, "bandwidth": 1.3}])
def test_every_pair_is_what_it_is_alone(settings, key):
    data = domains()
    result = pairwise_tests(key, data, bins=100, num_permutations=1999, **settings)
    bandwidth = float(result.bandwidth[0])
    rows = list(data.values())
    for a in range(3):
        assert float(result.statistic[a, a]) == 0 and float(result.pvalue[a, a]) == 1
        for b in range(a):
            alone = settings | {"bandwidth": bandwidth}
            assert float(result.statistic[a, b]) == pytest.approx(
                float(mmd2_unbiased(rows[a], rows[b], **alone)), abs=2e-5
            )
            tested = float(permutation_test(key, rows[a], rows[b], num_permutations=1999, **alone).pvalue)
            # Other bins, other permutations: both are estimates of nearly the same p.
            assert float(result.pvalue[a, b]) == pytest.approx(tested, abs=0.08)
    np.testing.assert_array_equal(result.pvalue, np.asarray(result.pvalue).T)
    pairs = np.triu_indices(3, 1)
    np.testing.assert_allclose(np.asarray(result.pvalue_holm)[pairs], holm(np.asarray(result.pvalue)[pairs]), rtol=1e-5)
    assert result.names == ("d0", "d1", "d2")
    assert result.reject.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_the_family_wise_level_holds():
    rng = np.random.default_rng(1)
    wrong = sum(
        bool(
            pairwise_tests(
                jax.random.key(i), domains(rng, (30, 24, 36), (0, 0, 0)), bins=30, bandwidth=1.5, num_permutations=399
            ).reject.any()
        )
        for i in range(400)
    )
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ({"a": np.eye(4)}, {}, "there are 1 data sets"),
        ({"a": np.eye(4), "b": np.eye(3)}, {}, "different numbers of features"),
        (domains(), {"bins": 5}, "at least two for each of the 3"),
        (domains(sizes=(1000, 20, 30)), {"bins": 20}, "use at least"),
        (domains(), {"num_permutations": 30}, "use at least 59 permutations"),
    ],
)
def test_bad_input(data, settings, message, key):
    with pytest.raises(ValueError, match=message):
        pairwise_tests(key, data, **settings)
