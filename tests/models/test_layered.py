"""A sliceable stack: entering and leaving it anywhere is the same function; modes and keys go by layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.layered import Layer, from_layers, preprocessed
from mmd_jax.models.leaves import named_leaves, take


class Block(nn.Module):
    """Without arguments for its mode: it follows the network's."""

    width: int
    rate: float = 0.0

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm()(nn.Dense(self.width)(x))
        return nn.Dropout(self.rate)(nn.relu(x)) if self.rate else nn.relu(x)


def linear(units):
    return Layer(lambda key, x: {"w": jax.random.normal(key, (x.shape[1], units))}, lambda p, x: x @ p["w"])


def mixed():
    return from_layers(
        [("stem", linear(5)), ("body/one", Block(6)), ("body/two", Block(4, 0.5)), ("head", nn.Dense(3))],
        num_base=2,
        stochastic=["body/two"],
    )


@pytest.fixture
def setup(key):
    network = mixed()
    x = jax.random.normal(jax.random.fold_in(key, 1), (16, 7))
    return network, network.init(key, x), x


def test_variables_lie_under_their_layers_names(setup):
    network, variables, _ = setup
    assert set(variables) == {"params", "batch_stats"}
    assert variables["params"]["body"]["one"]["Dense_0"]["kernel"].shape == (5, 6)
    assert set(named_leaves(variables)) == {path for name in network.layers for path in take(variables, [name])}
    assert (network.num_base, network.whole, network.stochastic) == (2, "", {"body/two"})


@pytest.mark.parametrize("cut", range(5))
def test_two_slices_compose_to_the_whole(setup, cut):
    network, variables, x = setup
    middle, _ = network.apply(variables, x, stop=cut)
    y, state = network.apply(variables, middle, start=cut)
    whole, _ = network.apply(variables, x)
    np.testing.assert_array_equal(y, whole)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state["batch_stats"], variables["batch_stats"]))


def test_features_are_the_slices_in_order(setup):
    network, variables, x = setup
    features = network.features(variables, x)
    assert tuple(features) == network.layers
    for stop, name in enumerate(network.layers, 1):
        np.testing.assert_array_equal(features[name], network.apply(variables, x, stop=stop)[0])


def test_statistics_move_only_in_layers_in_training_mode(setup):
    network, variables, x = setup
    _, state = network.apply(variables, x, train=("body/one",))
    before, after = named_leaves(variables["batch_stats"]), named_leaves(state["batch_stats"])
    assert {path for path in before if not np.array_equal(before[path], after[path])} == {
        "body/one/BatchNorm_0/mean",
        "body/one/BatchNorm_0/var",
    }


def test_training_mode_normalises_by_the_batch(setup):
    network, variables, x = setup
    shifted = x + 3.0
    frozen, _ = network.apply(variables, shifted, stop=2)
    trained, _ = network.apply(variables, shifted, stop=2, train=network.layers[:2])
    # Batch statistics remove the mean of a shift; the running ones of a fresh network (0, 1) do not.
    assert float(jnp.abs(frozen - trained).max()) > 0.5


def test_dropout_needs_a_key_and_is_off_where_not_trained(setup, key):
    network, variables, x = setup
    with pytest.raises(ValueError, match="'body/two' draws random numbers"):
        network.apply(variables, x, train=("body/two",))
    one, _ = network.apply(variables, x, stop=3, train=("body/two",), key=key)
    other, _ = network.apply(variables, x, stop=3, train=("body/two",), key=jax.random.fold_in(key, 9))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(
        network.apply(variables, x, train=("head",), key=key)[0], network.apply(variables, x)[0]
    )


def test_an_undeclared_dropout_is_an_error(key):
    network = from_layers([("drop", Block(4, 0.5)), ("head", linear(2))])
    variables = network.init(key, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="'drop' draws random numbers: name it in `stochastic`"):
        network.apply(variables, jnp.ones((2, 3)), train=("drop",), key=key)


class Noise(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x + jax.random.normal(self.make_rng("noise"), x.shape))


@pytest.mark.parametrize("stochastic", [[], ["noise"]])
def test_a_layer_that_draws_in_evaluation_mode_is_an_error(key, stochastic):
    network = from_layers([("noise", Noise()), ("head", linear(2))], stochastic=stochastic)
    with pytest.raises(ValueError, match="'noise' draws random numbers in evaluation mode too"):
        network.init(key, jnp.ones((2, 3)))


def test_gradients_stop_where_leaves_are_stopped(setup):
    network, variables, x = setup

    def loss(params):
        params = {**params, "stem": jax.lax.stop_gradient(params["stem"])}
        return jnp.sum(network.apply({**variables, "params": params}, x)[0] ** 2)

    gradients = jax.grad(loss)(variables["params"])
    assert not jnp.any(gradients["stem"]["w"])
    assert float(jnp.abs(gradients["body"]["one"]["Dense_0"]["kernel"]).max()) > 0


def test_jit_and_scan_give_what_eager_code_gives(setup, key):
    network, variables, x = setup
    train = network.layers

    def step(state, _):
        y, state = network.apply({**variables, **state}, x, train=train, key=key)
        return state, y

    state = {"batch_stats": variables["batch_stats"]}
    scanned, ys = jax.jit(lambda state: jax.lax.scan(step, state, None, length=2))(state)
    for i in range(2):
        state, y = step(state, None)
        np.testing.assert_allclose(ys[i], y, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), scanned, state)


def test_init_does_not_read_the_values_and_keys_differ_by_layer(key):
    network = from_layers([("a", linear(3)), ("b", linear(3))])
    one, other = network.init(key, jnp.ones((2, 3))), network.init(key, jnp.full((9, 3), jnp.nan))
    np.testing.assert_array_equal(one["params"]["a"]["w"], other["params"]["a"]["w"])
    assert not np.array_equal(one["params"]["a"]["w"], one["params"]["b"]["w"])


def test_preprocessing_comes_before_the_first_layer_only(key):
    network = from_layers([("a", linear(3)), ("b", linear(2))])
    raw = preprocessed(network, lambda x: x.reshape(x.shape[0], 4) / 255)
    x = jax.random.uniform(key, (5, 2, 2)) * 255
    variables = raw.init(key, x)
    expected = network.features(variables, x.reshape(5, 4) / 255)
    np.testing.assert_array_equal(raw.apply(variables, x)[0], expected["b"])
    np.testing.assert_array_equal(raw.features(variables, x)["a"], expected["a"])
    np.testing.assert_array_equal(raw.apply(variables, expected["a"], start=1)[0], expected["b"])
    assert raw.layers == network.layers


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: from_layers([]), "at least one layer"),
        (lambda: from_layers([("a", linear(1)), ("a", linear(1))]), "same leaves"),
        (lambda: from_layers([("a", linear(1)), ("a/b", linear(1))]), "same leaves"),
        (lambda: from_layers([("a", linear(1))], num_base=1), "num_base=1: expected 0 … 0; the last of the 1 layers"),
        (lambda: from_layers([("a", linear(1))], stochastic=["b"]), "'b', which is not a layer; the layers are a"),
        (
            lambda: from_layers([("a", Layer(lambda key, x: {}, lambda p, x: x))]).init(
                jax.random.key(0), jnp.ones((1, 1))
            ),
            "'a' has no parameters",
        ),
    ],
)
def test_what_is_no_network(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"start": 3, "stop": 2}, "start=3, stop=2"),
        ({"stop": 5}, "stop=5"),
        ({"start": -1}, "start=-1"),
        ({"train": ("body",)}, "'body', which is not a layer; the layers are stem, body/one, body/two, head"),
        ({"train": "head"}, "collection of layer names, got the string 'head'"),
    ],
)
def test_what_cannot_be_applied(setup, arguments, message):
    network, variables, x = setup
    with pytest.raises(ValueError, match=message):
        network.apply(variables, x, **arguments)
