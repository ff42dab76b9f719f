"""Categories: codes → one-hot blocks → embeddings, and what a network does with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import networks
from experiments.config import Model
from mmd_jax.models.mlp import embed, mlp

SIZES = (3, 5)
ROWS = np.array([[0.5, -1.0, 0, 4], [0.5, -1.0, 2, 4], [0.5, -1.0, 2, 1]], np.float32)


def test_an_embedding_is_a_look_up(key):
    layer = embed(SIZES, 4)
    blocks = np.concatenate([ROWS[:, :2], np.eye(3)[ROWS[:, 2].astype(int)], np.eye(5)[ROWS[:, 3].astype(int)]], axis=1)
    params = layer.init(key, jnp.asarray(blocks, jnp.float32))
    assert {name: table.shape for name, table in params.items()} == {"table1": (3, 3), "table2": (5, 4)}
    found = layer.apply(params, jnp.asarray(blocks, jnp.float32))
    codes = ROWS.astype(int)
    expected = np.concatenate([ROWS[:, :2], params["table1"][codes[:, 2]], params["table2"][codes[:, 3]]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_that_differ_in_one_category_are_1_apart():
    preprocess = networks.preprocessing(Model("mlp", categories=SIZES, mean=(0.5,), std=(2.0,)), image=False)
    x = np.asarray(preprocess(ROWS))
    assert x.shape == (3, 2 + 3 + 5)
    np.testing.assert_allclose(x[:, :2], [[0.0, -0.75]] * 3)  # mean and std are of the numbers alone
    np.testing.assert_allclose([np.linalg.norm(x[0] - x[1]), np.linalg.norm(x[0] - x[2])], [1.0, 2**0.5], rtol=1e-6)


def test_the_network_has_a_layer_of_that_name(key):
    network = networks.build(Model("mlp", hidden=(6,), categories=SIZES, embedding=2), 2, ROWS)
    assert network.layers == ("embed", "fc1", "fc2") and network.num_base == 2
    variables = jax.jit(network.init)(key, jnp.asarray(ROWS))
    features = jax.jit(network.features)(variables, jnp.asarray(ROWS))
    assert features["embed"].shape == (3, 2 + 2 + 2)
    logits, _ = jax.jit(network.apply)(variables, jnp.asarray(ROWS))
    later, _ = jax.jit(functools.partial(network.apply, start=1))(variables, features["embed"])
    np.testing.assert_allclose(logits, later, rtol=1e-5)
    # Only the category that changed moves, and only its own table has a gradient.
    assert (features["embed"][0] != features["embed"][1]).tolist() == [False, False, True, True, False, False]
    total = jax.jit(jax.grad(lambda variables: network.apply(variables, jnp.asarray(ROWS[:1]))[0].sum()))
    gradient = total(variables)["params"]["embed"]
    assert (np.abs(gradient["table1"]).sum(axis=1) > 0).tolist() == [True, False, False]


def test_refusals():
    with pytest.raises(ValueError, match="rows have 2 numbers, but the blocks of their categories 8"):
        mlp(2, categories=SIZES).init(jax.random.key(0), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="must be positive"):
        mlp(2, categories=(0,))
    with pytest.raises(ValueError, match="is for rows, but the data are images"):
        networks.preprocessing(Model("mlp", categories=SIZES), image=True)
    with pytest.raises(ValueError, match="names 2 columns of codes, but rows have"):
        networks.preprocessing(Model("mlp", categories=SIZES), image=False)(np.ones((2, 1), np.float32))
