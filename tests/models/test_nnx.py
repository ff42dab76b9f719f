"""An nnx module is a network as any other: plain variables, layers by name, modes layer by layer, trained by the one loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmd_jax.models.leaves import named_leaves, take
from mmd_jax.models.nnx import from_nnx

X = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)


class Small(nnx.Module):
    """Defined in another order than called, with a Dropout between two layers."""

    def __init__(self, classes, *, rngs):
        self.out = nnx.Linear(4, classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.out(self.dropout(x))


@pytest.fixture(scope="module")
def network():
    return from_nnx(lambda rngs: Small(5, rngs=rngs), X)


@pytest.fixture(scope="module")
def variables(network):
    return jax.jit(network.init)(jax.random.key(1), X)


def test_layers_are_in_the_order_of_calls(network):
    assert network.layers == ("conv", "norm", "blocks/0", "blocks/1", "out")
    assert network.stochastic == {"out"}
    named = ("conv", "norm", "blocks", "out")
    assert from_nnx(lambda rngs: Small(5, rngs=rngs), X, layers=named).layers == named


def test_variables_and_outputs_are_those_of_the_module(network, variables):
    module = Small(5, rngs=nnx.Rngs(jax.random.key(1)))
    module.eval()
    np.testing.assert_allclose(network.apply(variables, X)[0], module(X), rtol=1e-5, atol=1e-6)
    found = jax.jit(network.features)(variables, X)
    np.testing.assert_allclose(found["out"], module(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["conv"], module.conv(X), rtol=1e-5, atol=1e-6)
    other = network.init(jax.random.key(2), X)
    assert not np.allclose(other["params"]["out"]["kernel"], variables["params"]["out"]["kernel"])


def test_modes_go_layer_by_layer(network, variables):
    key = jax.random.key(3)
    before = named_leaves(variables)
    for train, moves, draws in ((("norm",), True, False), (("out",), False, True), (("conv",), False, False)):
        y, state = network.apply(variables, X, train=train, key=key)
        after = named_leaves({**variables, **state})
        assert after.keys() == before.keys()
        assert (not np.allclose(after["batch_stats/norm/mean"], before["batch_stats/norm/mean"])) is moves
        again, _ = network.apply(variables, X, train=train, key=jax.random.key(4))
        assert (not np.allclose(y, again)) is draws
    with pytest.raises(ValueError, match="'out' draws random numbers"):
        network.apply(variables, X, train=("out",))


def test_gradients_pass_through_batch_statistics(network, variables):
    def loss(params):
        y, state = network.apply({**variables, "params": params}, X, train=network.layers, key=jax.random.key(0))
        return (y**2).mean(), state

    gradient, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["conv"]["kernel"]).max() > 0
    assert not np.allclose(state["batch_stats"]["norm"]["var"], 1)


def test_a_module_that_always_draws_is_refused():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.rngs, self.out = rngs, nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(x + jax.random.normal(self.rngs(), x.shape))

    with pytest.raises(ValueError, match="in evaluation mode too"):
        from_nnx(Noisy, jnp.ones((2, 3)))


def test_names_that_own_nothing_are_refused():
    with pytest.raises(ValueError, match="no leaf's path starts with the layer name 'head'"):
        from_nnx(lambda rngs: Small(5, rngs=rngs), X, layers=("conv", "norm", "blocks", "head"))


def test_taken_apart_by_layer(variables):
    assert set(take(variables, ["norm"])) == {
        "params/norm/scale",
        "params/norm/bias",
        "batch_stats/norm/mean",
        "batch_stats/norm/var",
    }
