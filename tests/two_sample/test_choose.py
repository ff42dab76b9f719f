"""The chosen test is the one it says."""

import jax
import numpy as np
import pytest

from mmd_jax.two_sample import aggregated_test, choose, gaussian, permutation_test, random_feature_test, two_sample_test


@pytest.mark.parametrize(
    ("rows", "limits"),
    [
        (150, {}),
        (150, {"ROWS_UP_TO": 100}),
        (150, {"AGGREGATED_UP_TO": 100, "ROWS_UP_TO": 100}),
        (3000, {"GRAM_UP_TO": 100, "AGGREGATED_UP_TO": 100}),
    ],
)
def test_it_says_which_test_it_was(rows, limits, key, monkeypatch):
    for name, value in {"BINS": 64, **limits}.items():
        monkeypatch.setattr(choose, name, value)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 2)).astype(np.float32), rng.normal(size=(rows // 2, 2)).astype(np.float32) + 0.2
    chosen = two_sample_test(key, x, y)
    names = {
        "aggregated_test": aggregated_test,
        "permutation_test": permutation_test,
        "random_feature_test": random_feature_test,
    }
    name, _, settings = chosen.test.removesuffix(")").partition("(")
    assert (
        name
        == ["aggregated_test", "aggregated_test", "permutation_test", "random_feature_test"][
            0 if not limits else len(limits) + ("GRAM_UP_TO" in limits)
        ]
    )
    # What it prints is a call; read without eval.
    told = {}
    if "kernels=(gaussian,)" in settings:
        told |= {"kernels": (gaussian,), "num_bandwidths": 5}
    if "bins=64" in settings:
        told["bins"] = 64
    again = names[name](key, x, y, **told)
    assert float(again.pvalue) == float(chosen.result.pvalue)
    assert str(rows + rows // 2) in chosen.reason


def test_groups_are_kept_whole(key):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 2)), 5, axis=0)
    y = np.repeat(rng.normal(size=(40, 2)), 5, axis=0)
    groups = np.arange(200) // 5
    with_groups = two_sample_test(key, x, y, groups_x=groups, groups_y=groups + 40)
    without = two_sample_test(key, x, y)
    assert "groups_x" in with_groups.test
    assert float(with_groups.result.pvalue) > float(without.result.pvalue)


def test_bad_samples_are_refused(key):
    with pytest.raises(ValueError, match="expected two axes"):
        two_sample_test(key, np.zeros(5), np.zeros((5, 1)))
    assert isinstance(jax.tree.leaves(two_sample_test(key, np.eye(9), np.eye(9) + 1).result)[0], jax.Array)
