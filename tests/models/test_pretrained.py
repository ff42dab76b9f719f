"""Foreign tensors by name: what matched, was missing, was left over; what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.leaves import named_leaves
from mmd_jax.models.mlp import mlp
from mmd_jax.models.pretrained import from_arrays

NETWORK = mlp(3, hidden=(4,))


@pytest.fixture
def variables(key):
    return NETWORK.init(key, jnp.ones((1, 5)))


def arrays(style="params/{}/{}"):
    shapes = {"fc1": {"kernel": (5, 4), "bias": (4,)}, "fc2": {"kernel": (4, 3), "bias": (3,)}}
    return {style.format(a, b): np.full(s, 7.0, np.float64) for a, leaf in shapes.items() for b, s in leaf.items()}


@pytest.mark.parametrize("style", ["params/{}/{}", "{}/{}", "{}.{}", "params.{}.{}"])
def test_every_spelling_matches(variables, style):
    loaded = from_arrays({**arrays(style), "step": np.int64(3)}, variables)
    assert all((leaf == 7).all() and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(loaded.variables))
    assert dict(loaded.matched)["params/fc1/kernel"] == style.format("fc1", "kernel")
    assert (loaded.missing, loaded.left_over) == ((), ("step",))


def test_fresh_layers_keep_their_values(variables):
    given = {**arrays("{}.{}"), "fc2.kernel": np.zeros((9, 9))}
    del given["fc2.bias"]
    loaded = from_arrays(given, variables, fresh=["fc2"])
    np.testing.assert_array_equal(loaded.variables["params"]["fc2"]["kernel"], variables["params"]["fc2"]["kernel"])
    assert (loaded.variables["params"]["fc1"]["kernel"] == 7).all()
    assert loaded.missing == ("params/fc2/bias", "params/fc2/kernel")
    assert loaded.left_over == ("fc2.kernel",)


def test_collections_are_matched_apart():
    variables = {"params": {"bn": {"scale": jnp.ones(2)}}, "batch_stats": {"bn": {"mean": jnp.zeros(2)}}}
    loaded = from_arrays({"bn.scale": np.full(2, 3.0), "bn.mean": np.full(2, 4.0)}, variables)
    assert {path: float(leaf[0]) for path, leaf in named_leaves(loaded.variables).items()} == {
        "batch_stats/bn/mean": 4.0,
        "params/bn/scale": 3.0,
    }
    twins = {"params": {"a": {"w": jnp.ones(1)}}, "ema": {"a": {"w": jnp.ones(1)}}}
    with pytest.raises(ValueError, match=r"'a.w' could be .*put the collection in its name"):
        from_arrays({"a.w": np.ones(1)}, twins)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"fc1.kernel": np.ones((6, 4))},
            r"'fc1.kernel' has shape \(6, 4\), the network's params/fc1/kernel has shape \(5, 4\)",
        ),
        ({"fc1/kernel": np.ones((5, 4))}, "two tensors for params/fc1/kernel"),
        ({"fc1.bias": np.array([1, 2, np.nan, 4])}, "'fc1.bias' for params/fc1/bias has values that are NaN"),
        ({"fc1.bias": np.array(list("abcd"))}, "expected real numbers"),
        ({"fc1.bias": np.ones(4, complex)}, "expected real numbers"),
    ],
)
def test_what_does_not_fit(variables, change, message):
    with pytest.raises(ValueError, match=message):
        from_arrays({**arrays("{}.{}"), **change}, variables)


def test_missing_tensors_are_all_listed(variables):
    given = {name: array for name, array in arrays("{}.{}").items() if "bias" not in name}
    with pytest.raises(ValueError, match=r"no tensor for params/fc1/bias, params/fc2/bias; the tensors are fc1.kernel"):
        from_arrays(given, variables)


def test_an_unknown_fresh_layer(variables):
    with pytest.raises(ValueError, match="fresh names 'fc3', which owns no leaf"):
        from_arrays(arrays(), variables, fresh=["fc3"])
