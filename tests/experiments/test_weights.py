"""Weight files are data, whole or refused; the user's own code is imported openly."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from experiments.weights import as_network, load_factory, load_weights
from mmd_jax.models.mlp import mlp
from tests.experiments import own
from tests.experiments.own import save_weights

ARRAYS = {
    "conv1/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.arange(3),
    "scalar": np.float32(2),
}
EXAMPLE = jax.ShapeDtypeStruct((1, 4), jnp.float32)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_saved_is_loaded(tmp_path, suffix):
    save_weights(tmp_path / f"w{suffix}", ARRAYS)
    loaded = load_weights(tmp_path / f"w{suffix}")
    assert set(loaded) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name].reshape(np.shape(array)), array)


def test_bfloat16_survives_safetensors(tmp_path):
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    save_weights(tmp_path / "w.safetensors", {"a": array})
    np.testing.assert_array_equal(load_weights(tmp_path / "w.safetensors")["a"], array)


def test_a_folder_goes_to_its_reader(tmp_path):
    assert load_weights(tmp_path, read_folder=lambda path: {"a": jnp.ones(2)})["a"].shape == (2,)
    with pytest.raises(ValueError, match="a folder, expected"):
        load_weights(tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_file_that_is_cut_off(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    save_weights(path, ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"weights at .*w\..*, or cut off"):
        load_weights(path)


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(ValueError, match=r"not readable as .npz.*allow_pickle=False"):
        load_weights(tmp_path / "w.npz")


def test_files_that_are_not_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tmp_path / "none.npz")
    (tmp_path / "w.bin").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"expected .npz, .safetensors, .pth, .h5, .keras or an Orbax folder, got '.bin'"
    ):
        load_weights(tmp_path / "w.bin")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match="there is no tensor in it"):
        load_weights(tmp_path / "empty.npz")
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.ones(2))
    with pytest.raises(ValueError, match="a single array"):
        load_weights(tmp_path / "single.npz")


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "my_own_network.py").write_text("SIZE = 3\ndef build(num_classes):\n    return num_classes * SIZE\n")
    (tmp_path / "my_broken_network.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    sys.modules.pop("my_own_network", None)


def test_a_factory_from_the_current_directory(code):
    assert load_factory("my_own_network:build")(4) == 12
    assert load_factory("mmd_jax.models.mlp:mlp") is mlp


@pytest.mark.parametrize(
    "name, message",
    [
        ("my_own_network", 'expected "package.module:function"'),
        ("my_own_network.build", 'expected "package.module:function"'),
        ("my_own_network:build:again", 'expected "package.module:function"'),
        ("my-network.py:build", 'expected "package.module:function"'),
        (":build", 'expected "package.module:function"'),
        ("my_other_network:build", "no module 'my_other_network' in"),
        ("my_own_network.deeper:build", "no module 'my_own_network.deeper'|no module 'my_own_network'"),
        ("my_own_network:construct", "'construct' is not in the module; callable there: build"),
        ("my_own_network:SIZE", "'SIZE' is not a function; callable there: build"),
    ],
)
def test_a_factory_that_cannot_be_found(code, name, message):
    with pytest.raises(ValueError, match=message):
        load_factory(name)


def test_a_module_missing_inside_the_users_module_is_the_users_to_see(code):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        load_factory("my_broken_network:build")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="out")(nn.Dense(3, name="into")(x))


def test_what_a_factory_may_return():
    network = mlp(2)
    assert as_network(network, EXAMPLE) is network
    assert as_network(network, EXAMPLE, layers=network.layers) is network
    assert as_network(Net(), EXAMPLE).layers == ("into", "out")
    assert as_network(Net(), EXAMPLE, layers=("out", "into")).layers == ("out", "into")
    pair = (lambda key, x: {"params": {"w": x}}, lambda variables, x: x, ("w",))
    assert as_network(pair, EXAMPLE).layers == ("w",)


def test_functions_of_a_linen_module_are_looked_into(key):
    """Features of every layer, and the mode of each: as from the module itself."""
    x = jax.random.normal(key, (6, 4))
    [given, whole] = as_network(own.bound(3), EXAMPLE), as_network(own.linen(3), EXAMPLE)
    assert given.layers == whole.layers and given.stochastic == whole.stochastic == {"below", "above"}
    variables = given.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, variables, whole.init(key, x))
    features = given.features(variables, x)
    assert list(features) == ["below", "above", "head"]
    jax.tree.map(np.testing.assert_array_equal, features, whole.features(variables, x))
    assert as_network(own.bound(3), EXAMPLE, layers=("below", "above", "head")).layers == given.layers
    # What is not the module's own stays the user's.
    ones = (lambda key, x: jax.tree.map(jnp.ones_like, variables), *own.bound(3)[1:])
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(as_network(ones, EXAMPLE).init(key, x)))
    wrapped = (own.bound(3)[0], lambda variables, x: own.linen(3).apply(variables, x), own.bound(3)[2])
    assert list(as_network(wrapped, EXAMPLE).features(variables, x)) == ["head"]


@pytest.mark.parametrize(
    "made, layers, message",
    [
        (mlp(2), ("fc9",), "has its own: fc1, fc2; leave model.layers empty"),
        (Net(), ("nowhere",), "'nowhere'; there are into, out"),
        (Net, (), "returned type, expected"),
        (None, (), "returned NoneType, expected a Network, a flax.linen or flax.nnx Module, or a tuple"),
    ],
)
def test_what_a_factory_may_not_return(made, layers, message):
    with pytest.raises(ValueError, match=message):
        as_network(made, EXAMPLE, layers=layers)
