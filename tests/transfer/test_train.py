import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.layered import from_layers
from mmd_jax.models.mlp import mlp
from mmd_jax.transfer.decision import stages_of
from mmd_jax.transfer.finetune import begin_fit, make_step, prepare
from mmd_jax.transfer.freezing import stage_labels, staged_optimizer
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.train import classification_loss, cross_entropy, eval_step, init_state, train_step
from mmd_jax.types import Rows, Stage


def batch(key, shape=(16, 8, 8, 1), classes=3):
    return jax.random.normal(key, shape), jnp.arange(shape[0]) % classes


def first_state(network, variables, stage, rows, recipe, rate):
    rows = Rows(*map(np.asarray, rows))
    prepared = prepare(
        jax.random.key(3), network, variables, stage._replace(reinitialised=()), rows, rows, recipe=recipe
    )
    return begin_fit(network, prepared, learning_rate=rate, recipe=recipe).train


def steps(network, stage, recipe, rows, count=3, rate=0.1):
    variables = network.init(jax.random.key(0), rows[0])
    step = jax.jit(make_step(network, stage, recipe, variables["params"]))
    state = first_state(network, variables, stage, rows, recipe, rate)
    for _ in range(count):
        state, metrics = step(state, rows, jax.random.key(1))
    return variables, state, metrics


def test_one_step_is_gradient_descent_done_by_hand(key):
    network = mlp(3, hidden=(4,))
    x, y = batch(key, (6, 5))
    variables = network.init(key, x)

    def loss(params):
        hidden = jax.nn.relu(x @ params["fc1"]["kernel"] + params["fc1"]["bias"][None])
        logits = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"][None]
        return -jax.nn.log_softmax(logits)[jnp.arange(6), y].mean()

    gradients = jax.grad(loss)(variables["params"])
    stage = Stage((), (("fc1", 0.1), ("fc2", 1.0)))
    labels = stage_labels(variables["params"], stage)
    optimizer = staged_optimizer(optax.sgd, labels)
    state, metrics = train_step(
        init_state(variables, optimizer, learning_rate=0.5),
        (x, y),
        key,
        loss=classification_loss(network, network.layers),
        optimizer=optimizer,
        labels=labels,
    )
    for layer, rate in stage.trained:
        expected = jax.tree.map(lambda p, g, r=rate: p - 0.5 * r * g, variables["params"][layer], gradients[layer])
        found = state.variables["params"][layer]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    np.testing.assert_allclose(metrics["loss"], loss(variables["params"]), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradients), rtol=1e-5)
    assert int(state.step) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "frozen", [(), ("conv1", "conv2", "conv3"), ("conv2", "fc7"), tuple(cnn8(3, width=2).layers[:-1])]
)
def test_frozen_leaves_keep_every_bit_and_trained_ones_move(key, frozen, optimizer):
    network = cnn8(3, width=2)
    stage = Stage(frozen, tuple((name, 1.0) for name in network.layers if name not in frozen))
    recipe = Recipe(optimizer=optimizer, weight_decay=0.1, clip_norm=1.0)
    before, state, _ = steps(network, stage, recipe, batch(key), rate=1e-2)
    for name in network.layers:
        for old, new in zip(jax.tree.leaves(before["params"][name]), jax.tree.leaves(state.variables["params"][name])):
            if name in frozen:
                assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
            elif old.any():
                assert (np.asarray(old) != np.asarray(new)).any(), name


def test_negative_zero_in_a_frozen_leaf_stays_negative(key):
    network = mlp(2, hidden=(3,))
    x, y = batch(key, (4, 3), 2)
    variables = network.init(key, x)
    variables["params"]["fc1"]["bias"] = jnp.full(3, -0.0)
    stage = stages_of("linear_probe", network.layers)[0]
    labels = stage_labels(variables["params"], stage)
    optimizer = staged_optimizer(optax.adamw, labels)
    state, _ = train_step(
        init_state(variables, optimizer, learning_rate=0.1), (x, y), key,
        loss=classification_loss(network, ("fc2",)), optimizer=optimizer, labels=labels,
    )  # fmt: skip
    assert np.signbit(state.variables["params"]["fc1"]["bias"]).all()


def flops(network, stage, recipe, rows):
    variables = network.init(jax.random.key(0), rows[0])
    state = first_state(network, variables, stage, rows, recipe, 0.1)
    step = make_step(network, stage, recipe, variables["params"])
    return jax.jit(step).lower(state, rows, jax.random.key(0)).compile().cost_analysis()["flops"]


def test_frozen_layers_cost_no_backward_pass_even_with_clipping_and_a_logged_norm(key):
    network, rows = cnn8(3, width=8), batch(key, (16, 16, 16, 1))
    recipe = Recipe(clip_norm=1.0)
    full = flops(network, stages_of("finetune_all", network.layers)[0], recipe, rows)
    shares = [
        flops(network, stages_of("finetune_top", network.layers, num_frozen=n)[0], recipe, rows) / full
        for n in (3, 5, 7)
    ]
    # A backward pass costs two forward passes, and the layers below the cut need none of it.
    assert shares[0] < 0.67 and shares[1] < 0.44 and shares[2] < 0.37, shares


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_stand_still_in_frozen_layers_only(key, frozen):
    network = from_layers([("body", Normed()), ("head", nn.Dense(3))])
    rows = batch(key, (8, 5))
    stage = Stage(("body",), (("head", 1.0),)) if frozen else Stage((), (("body", 1.0), ("head", 1.0)))
    before, state, _ = steps(network, stage, Recipe(), rows)
    old, new = (jax.tree.leaves(v["batch_stats"]) for v in (before, state.variables))
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(old, new)) == frozen


def test_low_precision_computes_low_and_keeps_high(key):
    network, rows = cnn8(3, width=2), batch(key)
    variables, state, metrics = steps(
        network, stages_of("finetune_all", network.layers)[0], Recipe(precision="bfloat16"), rows
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    high = eval_step(network, variables, rows[0])
    low = eval_step(network, variables, rows[0], dtype="bfloat16")
    assert low.dtype == jnp.float32 and (high != low).any()
    np.testing.assert_allclose(high, low, atol=0.1)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    log_probabilities = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    found = cross_entropy(log_probabilities, jnp.array([1, 0]))
    np.testing.assert_allclose(found, -np.log([0.75, 0.5]), rtol=1e-6)
