"""A layer owns the leaves under its name, by whole components, in every collection."""

import jax.numpy as jnp
import pytest

from mmd_jax.models.leaves import check_cover, layer_of, named_leaves, replace, take

VARIABLES = {
    "params": {"conv1": {"kernel": jnp.ones(2)}, "conv10": {"kernel": jnp.ones(3)}, "enc": {"b1": {"w": jnp.ones(4)}}},
    "batch_stats": {"conv1": {"mean": jnp.zeros(2)}},
}
LAYERS = ("conv1", "conv10", "enc/b1")


@pytest.mark.parametrize(
    "path, owner",
    [
        ("conv1/kernel", "conv1"),
        ("conv10/kernel", "conv10"),
        ("enc/b1/w", "enc/b1"),
        ("enc/b10/w", None),
        ("enc", None),
    ],
)
def test_only_whole_components_count(path, owner):
    assert layer_of(path, LAYERS) == owner


def test_a_layer_may_be_a_single_leaf():
    assert layer_of("token", ("token",)) == "token"


def test_sequences_and_attributes_have_names_too():
    assert list(named_leaves({"params": [{"w": 1.0}, (2.0,)]})) == ["params/0/w", "params/1/0"]


def test_take_reaches_every_collection():
    assert list(take(VARIABLES, ["conv1"])) == ["batch_stats/conv1/mean", "params/conv1/kernel"]


def test_replace_copies_the_named_layers_and_no_others():
    other = {
        "params": {"conv1": {"kernel": jnp.full(2, 5.0)}, "conv10": {"kernel": jnp.full(3, 5.0)}},
        "batch_stats": {"conv1": {"mean": jnp.full(2, 5.0)}},
    }
    got = named_leaves(replace(VARIABLES, other, ["conv1"]))
    assert {path: float(leaf[0]) for path, leaf in got.items()} == {
        "batch_stats/conv1/mean": 5.0,
        "params/conv1/kernel": 5.0,
        "params/conv10/kernel": 1.0,
        "params/enc/b1/w": 1.0,
    }


def test_replace_names_both_shapes():
    with pytest.raises(ValueError, match=r"params/conv1/kernel has shape \(2,\) here and \(7,\)"):
        replace({"params": VARIABLES["params"]}, {"params": {"conv1": {"kernel": jnp.ones(7)}}}, ["conv1"])


def test_replace_names_what_is_missing():
    with pytest.raises(ValueError, match="batch_stats/conv1/mean is missing"):
        replace(VARIABLES, {"params": VARIABLES["params"]}, ["conv1"])


@pytest.mark.parametrize(
    "function", [lambda names: take(VARIABLES, names), lambda names: check_cover(VARIABLES, names)]
)
def test_an_unknown_name_is_an_error_that_prints_the_names(function):
    with pytest.raises(ValueError, match=r"'conv'; there are .*conv1, conv10, enc/b1"):
        function(["conv"])


def test_every_leaf_has_one_owner():
    check_cover(VARIABLES, LAYERS)
    with pytest.raises(ValueError, match="params/enc/b1/w belongs to none"):
        check_cover(VARIABLES, ("conv1", "conv10"))
    with pytest.raises(ValueError, match="params/enc/b1/w belongs to more than one layer: enc, enc/b1"):
        check_cover(VARIABLES, ("conv1", "conv10", "enc", "enc/b1"))
