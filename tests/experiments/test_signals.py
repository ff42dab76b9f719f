import jax
import numpy as np
import pytest

from experiments import networks
from experiments.candidates import candidates
from experiments.config import Decision, Model
from experiments.signals import OF_LAYERS, OF_OUTPUTS, SIGNALS, deepest, signals
from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.mlp import mlp
from mmd_jax.models.whole import from_functions
from mmd_jax.types import Rows

CNN = cnn8(4, width=2)


def digits(n=90, classes=3):
    from sklearn.datasets import load_digits

    data = load_digits()
    kept = np.flatnonzero(data.target < classes)[:n]
    return Rows((data.images[kept] * (255 / 16)).astype(np.uint8)[..., None], data.target[kept].astype(np.int32))


@pytest.fixture(scope="module")
def trained():
    """A network with a hidden layer that tells the classes apart, and a head that names them in another order."""
    rows = digits()
    network = networks.build(Model("mlp", hidden=(8,)), 4, rows.x[:1])
    variables = network.init(jax.random.key(0), rows.x[:1])
    return network, variables, rows


def test_every_score_of_the_inputs_the_hidden_layers_and_the_head(trained, key):
    network, variables, rows = trained
    found = signals(jax.random.clone(key), network, variables, rows, num_classes=3)
    assert list(found) == ["inputs", "fc1", "outputs"]
    assert tuple(found["inputs"]) == tuple(found["fc1"]) == OF_LAYERS and tuple(found["outputs"]) == OF_OUTPUTS
    assert all(np.isfinite(list(scores.values())).all() for scores in found.values())
    assert found == signals(jax.random.clone(key), network, variables, rows, num_classes=3)
    assert "outputs" not in signals(jax.random.clone(key), network, variables, rows, num_classes=3, source_head=False)
    assert set(OF_LAYERS) | set(OF_OUTPUTS) == set(SIGNALS)


def test_a_planted_layer_and_a_planted_head_are_found(key):
    """The inputs are noise with one clear direction in 40, which the layer keeps alone, as the head does."""
    random = np.random.default_rng(0)
    y = np.arange(80, dtype=np.int32) % 2
    x = random.normal(size=(80, 40)).astype(np.float32)
    x[:, 3] = 3 * (2 * y - 1) + random.normal(size=80)
    network = mlp(2, hidden=(2,))
    variables = network.init(jax.random.clone(key), x)
    variables["params"]["fc1"]["kernel"] = np.zeros((40, 2), np.float32)
    variables["params"]["fc1"]["kernel"][3] = 1, -1
    variables["params"]["fc2"]["kernel"] = np.array([[-3.0, 3.0], [3.0, -3.0]], np.float32)
    found = signals(jax.random.clone(key), network, variables, Rows(x, y), num_classes=2)
    assert found["fc1"]["probe"] > 0.9 and found["fc1"]["log_me"] > found["inputs"]["log_me"]
    assert found["outputs"]["leep"] > -0.1 > -np.log(2)
    assert deepest({name: found[name]["log_me"] for name in ("inputs", "fc1")}, network) == "linear_probe"
    blind = jax.tree.map(np.zeros_like, variables)
    found = signals(jax.random.clone(key), network, blind, Rows(x, y), num_classes=2)
    np.testing.assert_allclose(found["outputs"]["leep"], -np.log(2), rtol=1e-4)
    assert found["fc1"]["h_score"] == 0 and found["fc1"]["probe"] <= 0.6
    assert deepest({name: found[name]["probe"] for name in ("inputs", "fc1")}, network) == "from_scratch"


def test_rows_are_capped_and_wide_features_projected(trained, key):
    network, variables, rows = trained
    few = signals(jax.random.clone(key), network, variables, rows, num_classes=3, max_rows=30, max_width=16)
    assert few != signals(jax.random.clone(key), network, variables, rows, num_classes=3)
    assert few == signals(jax.random.clone(key), network, variables, rows, num_classes=3, max_rows=30, max_width=16)
    assert few["inputs"]["h_score"] <= 2.001
    # 64 inputs in 16 random directions still tell three digits apart.
    narrow = signals(jax.random.clone(key), network, variables, rows, num_classes=3, max_width=16)
    assert narrow["inputs"]["probe"] > 0.9


def test_inputs_are_preprocessed_unless_the_network_runs_as_a_whole(key):
    rows = digits()
    plain, scaled = Model("mlp", hidden=(4,)), Model("mlp", hidden=(4,), mean=(0.5,), std=(0.1,))
    found = {}
    for name, model in (("plain", plain), ("scaled", scaled)):
        network = networks.build(model, 3, rows.x[:1])
        found[name] = signals(
            jax.random.clone(key), network, network.init(jax.random.clone(key), rows.x[:1]), rows, num_classes=3
        )["inputs"]
    # Shifts and scales move LogME, which has no intercept, and not the H-score.
    np.testing.assert_allclose(found["plain"]["h_score"], found["scaled"]["h_score"], rtol=1e-3)
    assert abs(found["plain"]["log_me"] - found["scaled"]["log_me"]) > 1e-3
    whole = from_functions(
        lambda key, x: {"params": [np.ones((64, 3), np.float32)]},
        lambda v, x: x.reshape(len(x), 64).astype("float32") @ v["params"][0],
        ["0"],
    )
    found = signals(jax.random.clone(key), whole, whole.init(jax.random.clone(key), rows.x), rows, num_classes=3)
    assert list(found) == ["inputs", "outputs"]


def test_classes_of_one_row_are_left_out(trained, key):
    network, variables, rows = trained
    y = rows.y.copy()
    y[0] = 4  # class 3 has no row, class 4 one
    kept = Rows(rows.x[1:], rows.y[1:])
    with_one = signals(jax.random.clone(key), network, variables, rows._replace(y=y), num_classes=5)
    assert with_one == signals(jax.random.clone(key), network, variables, kept, num_classes=3)


def test_bad_rows(trained, key):
    network, variables, rows = trained
    for bad, message in (
        (rows._replace(y=rows.y - 1), "run from -1"),
        (rows._replace(y=rows.y + 1), "expected 0 … 2"),
        (rows._replace(y=rows.y[1:]), "for each of 90 rows"),
        (Rows(rows.x[:5], rows.y[:5]), "six rows of two classes"),
        (rows._replace(y=rows.y * 0), "six rows of two classes"),
    ):
        with pytest.raises(ValueError, match=message):
            signals(jax.random.clone(key), network, variables, bad, num_classes=3)
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), variables)
    with pytest.raises(ValueError, match=r"no scores of fc1: .*NaN"):
        signals(jax.random.clone(key), network, broken, rows, num_classes=3)


@pytest.mark.parametrize(
    "best, name",
    [
        ("inputs", "from_scratch"),
        ("conv1", "finetune_all full rate"),
        ("conv2", "finetune_top 2 frozen"),
        ("conv4", "finetune_top 3 frozen"),
        ("conv5", "finetune_top 5 frozen"),
        ("fc6", "finetune_top 5 frozen"),
        ("fc7", "linear_probe"),
    ],
)
def test_the_policy_freezes_up_to_the_best_layer(best, name):
    values = dict.fromkeys(["inputs", *CNN.layers[:-1]], 0.5) | {best: 0.9}
    assert deepest(values, CNN) == name
    assert name in candidates(CNN, Decision(), augment=False)


def test_the_policy_names_ways_as_the_same_settings_do():
    settings = Decision(pretrained_rate=1.0)
    known = candidates(CNN, settings, augment=True)
    found = {
        deepest(dict.fromkeys(["inputs", *CNN.layers[:-1]], 0.5) | {best: 0.9}, CNN, settings=settings)
        for best in ("inputs", *CNN.layers[:-1])
    }
    assert found <= {*known} and "finetune_top 3 frozen full rate" in found


def test_ties_take_the_deepest_and_bad_values_are_told():
    assert deepest({"inputs": 1.0, "conv1": 1.0, "fc7": 1.0}, CNN) == "linear_probe"
    assert deepest({"inputs": 1.0, "fc7": float("nan")}, CNN) == "from_scratch"
    with pytest.raises(ValueError, match="finite"):
        deepest({"inputs": float("nan")}, CNN)
    with pytest.raises(ValueError, match="'fc8' is neither"):
        deepest({"fc8": 1.0}, CNN)
