"""Networks known only by init and apply: names, features and modes are found from outside."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.leaves import named_leaves
from mmd_jax.models.whole import from_functions, from_linen


class Block(nn.Module):
    units: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(self.units)(x))
        return nn.Dropout(0.5, deterministic=not train)(nn.relu(x))


class WithTrain(nn.Module):
    """Called in an order that is not that of the alphabet, its mode passed on by position."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = Block(6, name="zeta")(x, train)
        x = Block(5, name="alpha")(x, train)
        return nn.Dense(3, name="head")(x)


class WithDeterministic(nn.Module):
    def setup(self):
        self.first = nn.Dense(6)
        self.norm = nn.BatchNorm(momentum=0.5)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Dense(3)

    def __call__(self, x, *, deterministic=True):
        x = self.norm(self.first(x), use_running_average=deterministic)
        return self.last(self.drop(nn.relu(x), deterministic=deterministic))


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(6)(x)))


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        token = self.param("token", nn.initializers.ones, (x.shape[1],))
        for i in (2, 1):
            x = nn.remat(nn.Dense)(x.shape[1], name=f"block_{i}")(x + token[None])
        return x


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(Encoder(name="encoder")(x))


EXAMPLE = jax.ShapeDtypeStruct((1, 7), jnp.float32)
NESTED = ("encoder/token", "encoder/block_2", "encoder/block_1", "head")


@pytest.fixture
def x(key):
    return jax.random.normal(jax.random.fold_in(key, 1), (16, 7))


@pytest.mark.parametrize(
    "module, layers, stochastic",
    [
        (WithTrain(), ("zeta", "alpha", "head"), {"zeta", "alpha"}),
        (WithDeterministic(), ("first", "norm", "last"), {"last"}),
        # Python makes the outer module first, and it is called last.
        (Plain(), ("Dense_1", "Dense_0"), set()),
        (Nested(), ("encoder", "head"), set()),
        (Encoder(), ("token", "block_2", "block_1"), set()),
    ],
)
def test_layers_are_found_in_call_order(module, layers, stochastic, key, x):
    network = from_linen(module, EXAMPLE)
    assert network.layers == layers
    assert network.num_base == len(layers) - 1
    # A dropout between layers goes with the layer that reads it.
    assert network.stochastic == stochastic
    assert "no way to enter between layers" in network.whole
    assert tuple(network.features(network.init(key, x), x)) == tuple(name for name in layers if name != "token")


@pytest.mark.parametrize("module", [WithTrain(), WithDeterministic()])
def test_evaluation_mode_is_the_modules_own(module, key, x):
    network = from_linen(module, EXAMPLE)
    variables = network.init(key, x)
    mode = {"train": False} if isinstance(module, WithTrain) else {"deterministic": True}
    np.testing.assert_array_equal(network.apply(variables, x)[0], module.apply(variables, x, **mode))
    jax.tree.map(np.testing.assert_array_equal, variables, module.init(key, x, **mode))


def test_training_mode_is_the_modules_own(key, x):
    network = from_linen(WithTrain(), EXAMPLE)
    variables = network.init(key, x)
    y, state = network.apply(variables, x, train=network.layers, key=key)
    expected, after = WithTrain().apply(variables, x, train=True, rngs={"params": key}, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, expected)
    jax.tree.map(np.testing.assert_array_equal, state, after)


@pytest.mark.parametrize("train", [("zeta",), ("alpha",), ("zeta", "alpha"), ("head",), ()])
def test_statistics_move_only_in_trained_layers(key, x, train):
    network = from_linen(WithTrain(), EXAMPLE)
    variables = network.init(key, x)
    _, state = network.apply(variables, x, train=train, key=key)
    before, after = named_leaves(variables["batch_stats"]), named_leaves(state["batch_stats"])
    moved = {path.split("/")[0] for path in before if not np.array_equal(before[path], after[path])}
    assert moved == set(train) - {"head"}


def test_a_frozen_layer_ignores_the_mode_it_is_passed(key, x):
    """The module passes train=True on to every block; the frozen one still normalises by its running statistics."""
    network = from_linen(WithTrain(), EXAMPLE, layers=("zeta", "alpha", "head"))
    variables = network.init(key, x)
    variables["batch_stats"]["zeta"]["norm"] = {"mean": jnp.full(6, 9.0), "var": jnp.ones(6)}
    outputs = []

    def keep(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        if context.module.path == ("zeta",):
            outputs.append(y)
        return y

    with nn.intercept_methods(keep):
        network.apply(variables, x, train=("alpha", "head"), key=key)
        network.apply(variables, x, train=("zeta",), key=key)
    frozen, trained = outputs
    np.testing.assert_array_equal(frozen, network.features(variables, x)["zeta"])
    assert not np.array_equal(frozen, trained)


def test_dropout_needs_a_key_and_is_off_where_not_trained(key, x):
    network = from_linen(WithTrain(), EXAMPLE)
    variables = network.init(key, x)
    with pytest.raises(ValueError, match="'zeta' draws random numbers"):
        network.apply(variables, x, train=("zeta", "head"))
    np.testing.assert_array_equal(network.apply(variables, x, train=("head",))[0], network.apply(variables, x)[0])
    one, other = (network.apply(variables, x, train=("alpha",), key=jax.random.fold_in(key, i))[0] for i in range(2))
    assert not np.array_equal(one, other)


def test_features_are_the_layers_outputs(key, x):
    network = from_linen(Plain(), EXAMPLE)
    variables = network.init(key, x)
    features = jax.jit(network.features)(variables, x)
    params = variables["params"]
    np.testing.assert_allclose(
        features["Dense_1"], x @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"][None], atol=1e-5
    )
    np.testing.assert_allclose(features["Dense_0"], network.apply(variables, x)[0], atol=1e-5)


def test_a_dropout_between_layers_goes_with_the_layer_that_reads_it(key, x):
    network = from_linen(WithDeterministic(), EXAMPLE)
    variables = network.init(key, x)
    still = network.apply(variables, x)[0]
    np.testing.assert_array_equal(network.apply(variables, x, train=("first",))[0], still)
    assert not np.array_equal(network.apply(variables, x, train=("last",), key=key)[0], still)


def test_layers_given_by_the_user(key, x):
    network = from_linen(Nested(), EXAMPLE, layers=NESTED, num_base=2)
    features = network.features(network.init(key, x), x)
    assert tuple(features) == ("encoder/block_2", "encoder/block_1", "head")
    assert network.num_base == 2


@pytest.mark.parametrize(
    "layers, message",
    [
        (("encoder/block", "head"), r"'encoder/block'; there are encoder/block_1, encoder/block_2, encoder, head"),
        (("encoder/token", "encoder/block_1", "head"), "params/encoder/block_2/bias belongs to none"),
        (("encoder", "encoder/block_1", "head"), "same leaves"),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(ValueError, match=message):
        from_linen(Nested(), EXAMPLE, layers=layers)


class Sampler(nn.Module):
    """Draws whatever its mode, as a decoder that samples would."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x + jax.random.normal(self.make_rng("noise"), x.shape))


def test_a_module_that_is_no_fixed_function():
    with pytest.raises(ValueError, match=r"^Sampler draws random numbers in evaluation mode too"):
        from_linen(Sampler(), EXAMPLE)


@pytest.mark.parametrize("num_base", [-1, 2])
def test_the_base_leaves_the_output_layer_out(num_base):
    for make in (lambda: from_linen(Plain(), EXAMPLE, num_base=num_base), lambda: functions(num_base=num_base)):
        with pytest.raises(ValueError, match=rf"num_base={num_base}: expected 0 … 1; the last of the 2 layers"):
            make()
    assert functions(num_base=1).num_base == 1


@pytest.mark.parametrize("arguments", [{"start": 1}, {"stop": 1}])
def test_it_runs_only_as_a_whole(key, x, arguments):
    for network in (from_linen(Plain(), EXAMPLE), functions()):
        with pytest.raises(ValueError, match="runs only as a whole"):
            network.apply(network.init(key, x), x, **arguments)


def functions(**more):
    def init(key, x):
        one, two = jax.random.split(key)
        return {"params": [{"w": jax.random.normal(one, (x.shape[1], 4))}, {"w": jax.random.normal(two, (4, 3))}]}

    def apply(variables, x):
        one, two = variables["params"]
        return jax.nn.relu(x @ one["w"]) @ two["w"]

    return from_functions(init, apply, more.pop("layers", ("0", "1")), **more)


def test_pure_functions(key, x):
    network = functions()
    variables = network.init(key, x)
    y, state = network.apply(variables, x, train=("1",), key=key)
    assert (y.shape, state) == ((16, 3), {})
    np.testing.assert_array_equal(network.features(variables, x)["1"], y)
    assert list(network.features(variables, x)) == ["1"]


def test_pure_functions_with_features(key, x):
    network = functions(features=lambda variables, x: {"1": x, "0": x[:, :2]})
    assert list(network.features(network.init(key, x), x)) == ["0", "1"]


def test_pure_functions_that_do_not_fit(key, x):
    with pytest.raises(ValueError, match="params/1/w belongs to none"):
        functions(layers=("0",)).init(key, x)
    bare = from_functions(lambda key, x: [x], lambda variables, x: x, ["0"])
    with pytest.raises(ValueError, match=r'init must give \{"params": tree'):
        bare.init(key, x)
