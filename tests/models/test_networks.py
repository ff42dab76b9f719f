"""cnn8 and mlp: shapes, initialisation, dtype; and that eight layers learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.leaves import named_leaves
from mmd_jax.models.mlp import mlp


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size, after", [(8, (8, 4, 4, 4, 2)), (28, (14, 7, 7, 7, 3)), (32, (16, 8, 8, 8, 4))])
def test_cnn8_shapes(key, size, after, channels):
    network = cnn8(5, width=4)
    x = jnp.ones((2, size, size, channels))
    features = jax.eval_shape(lambda: network.features(network.init(key, x), x))
    shapes = {name: features[name].shape for name in network.layers}
    assert shapes == {
        **{f"conv{i}": (2, side, side, 4 * m) for i, (side, m) in enumerate(zip(after, (1, 2, 3, 3, 2)), 1)},
        "fc6": (2, 32),
        "fc7": (2, 32),
        "fc8": (2, 5),
    }
    assert network.num_base == 5


@pytest.mark.parametrize(
    "network, x", [(cnn8(3, width=4), jnp.ones((2, 8, 8, 1))), (mlp(3, hidden=(5, 4)), jnp.ones((2, 6)))]
)
def test_slices_and_features_agree(key, network, x):
    @jax.jit
    def everything(key, x):
        variables = network.init(key, x)
        features = network.features(variables, x)
        into = {name: network.apply(variables, x, stop=i)[0] for i, name in enumerate(network.layers, 1)}
        out = {name: network.apply(variables, features[name], start=i)[0] for i, name in enumerate(network.layers, 1)}
        return features, into, out

    features, into, out = everything(key, x)
    for name in network.layers:
        np.testing.assert_allclose(into[name], features[name], atol=1e-5)
        np.testing.assert_allclose(out[name], features[network.layers[-1]], atol=1e-5)


def test_mlp_is_784_128_10_and_general(key):
    shapes = {
        path: leaf.shape
        for path, leaf in named_leaves(jax.eval_shape(mlp(10).init, key, jnp.ones((1, 28, 28, 1)))).items()
    }
    assert shapes == {
        "params/fc1/bias": (128,),
        "params/fc1/kernel": (784, 128),
        "params/fc2/bias": (10,),
        "params/fc2/kernel": (128, 10),
    }
    network = mlp(2, hidden=())
    assert (network.layers, network.num_base) == (("fc1",), 0)


def test_he_initialisation_keeps_the_second_moment(key):
    """Each layer's pre-activations have twice the second moment of its inputs, within what width and rows allow."""
    network = mlp(8, hidden=(2000,))
    x = jax.random.normal(key, (64, 500))
    hidden = network.apply(network.init(key, x), x, stop=1)[0]
    # E relu(z)² = E z² / 2 = E x² = 1; the error of 64 rows of 500 inputs is about sqrt(2/500/64) + 1/sqrt(2000).
    assert float(jnp.mean(hidden**2)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("network", [cnn8(3, width=4), mlp(3)])
def test_bfloat16_all_the_way(key, network):
    x = jax.random.normal(key, (4, 8, 8, 1))
    variables = jax.jit(network.init)(key, x)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    features = jax.jit(network.features)(half, x.astype(jnp.bfloat16))
    assert {y.dtype for y in features.values()} == {jnp.dtype(jnp.bfloat16)}
    full = jax.jit(network.features)(variables, x)[network.layers[-1]]
    # Eight significant bits, eight layers.
    np.testing.assert_allclose(
        features[network.layers[-1]].astype(jnp.float32), full, atol=0.05 * float(jnp.abs(full).max())
    )


@pytest.mark.parametrize("frozen", [3, 5, 7])
def test_frozen_prefix_costs_no_backward_pass(key, frozen):
    """By XLA's own count, at 32 × 32 × 3: at most .67, .44 and .35 of full training's work."""
    network = cnn8(10, width=32)
    x = jnp.ones((4, 32, 32, 3))
    params = jax.eval_shape(network.init, key, x)["params"]

    def flops(frozen):
        def loss(params):
            stopped = {n: jax.lax.stop_gradient(p) if n in network.layers[:frozen] else p for n, p in params.items()}
            return jnp.sum(network.apply({"params": stopped}, x)[0] ** 2)

        return jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]

    assert flops(frozen) / flops(0) <= {3: 0.67, 5: 0.44, 7: 0.35}[frozen]


def test_cnn8_learns(key):
    """Whether a bright spot is in the upper or lower half: chance is .5."""
    network = cnn8(2, width=4)
    rows, columns, noise = (jax.random.fold_in(key, i) for i in range(3))
    i, j = jax.random.randint(rows, 128, 0, 8), jax.random.randint(columns, 128, 0, 8)
    x = 0.1 * jax.random.normal(noise, (128, 8, 8, 1)).at[jnp.arange(128), i, j, 0].add(30.0)
    labels = i // 4
    params = jax.jit(network.init)(key, x)["params"]

    def loss(params):
        logits = jax.nn.log_softmax(network.apply({"params": params}, x)[0])
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], 1))

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)), None

    params, _ = jax.jit(lambda params: jax.lax.scan(step, params, None, length=100))(params)
    logits = jax.jit(network.features)({"params": params}, x)["fc8"]
    assert float(jnp.mean(logits.argmax(1) == labels)) > 0.95


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: cnn8(0), "num_classes and width must be positive, got 0"),
        (lambda: cnn8(2, width=-1), "got 2 and -1"),
        (lambda: mlp(2, hidden=(0,)), "must be positive"),
        (lambda: jax.eval_shape(cnn8(2).init, jax.random.key(0), jnp.ones((1, 3, 8, 1))), "at least 4 × 4"),
        (lambda: jax.eval_shape(cnn8(2).init, jax.random.key(0), jnp.ones((1, 64))), r"got \(1, 64\)"),
    ],
)
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()
