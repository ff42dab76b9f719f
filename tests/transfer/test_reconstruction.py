"""The squared error of a reconstruction, and a linear autoencoder that finds the principal components by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.autoencoder import autoencoder
from mmd_jax.models.layered import preprocessed
from mmd_jax.models.mlp import dense, mlp_base
from mmd_jax.transfer.decision import stages_of
from mmd_jax.transfer.finetune import finetune
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.reconstruction import RECONSTRUCTION, reconstruction
from mmd_jax.types import Plan, Rows


def scaled(x):
    return jnp.asarray(x, jnp.float32) / 255


def test_loss_and_validation_are_the_mean_squared_error(key):
    """On raw bytes, against numpy; over all rows as over one batch, and whatever the labels are."""
    x = np.random.default_rng(0).integers(0, 256, (700, 3, 3, 1), np.uint8)
    network = preprocessed(autoencoder(mlp_base((5,)), (3, 3, 1), hidden=()), scaled)
    variables = network.init(key, x[:1])
    rebuilt = np.asarray(network.apply(variables, x)[0], np.float64)
    error = np.mean((rebuilt - x / 255) ** 2)
    spread = np.mean((x / 255 - (x / 255).mean(0)) ** 2)
    objective = reconstruction(scaled)
    loss, (_, metrics) = jax.jit(objective.loss(network, network.layers))(variables, (x, None), key)
    found = objective.validate(network, variables, Rows(x, np.zeros(700, np.int32)))
    for one in (float(loss), found["loss"]):
        assert one == pytest.approx(error, rel=1e-5)
    for one in (float(metrics["explained"]), found["explained"]):
        assert one == pytest.approx(1 - error / spread, abs=1e-4)


def test_a_linear_autoencoder_finds_what_the_principal_components_leave(key):
    """Two linear units cannot rebuild better than the first two principal components, and come to it within 3 %."""
    random = np.random.default_rng(1)
    x = random.normal(size=(256, 6)) * [3.0, 2.0, 1.0, 0.5, 0.3, 0.2] @ np.linalg.qr(random.normal(size=(6, 6)))[0]
    x = np.asarray(x - x.mean(0), np.float32)
    left = np.sort(np.linalg.eigvalsh(x.T @ x / len(x)))[:4].sum() / 6
    network = autoencoder([("code", dense(2, relu=False))], (6,), hidden=())
    plan = Plan("given", "from_scratch", stages_of("from_scratch", network.layers), "A test.")
    rows = Rows(x, np.zeros(len(x), np.int32))
    recipe = Recipe(epochs=60, batch_size=64, patience=60, weight_decay=0.0, clip_norm=0.0, schedule="cosine")
    run = finetune(key, network, {}, plan, rows, rows, learning_rate=0.03, recipe=recipe, objective=RECONSTRUCTION)
    *_, (state, metrics) = run
    assert left * 0.999 <= float(state.best_loss) <= left * 1.03
    assert metrics["valid_explained"] == pytest.approx(1 - metrics["valid_loss"] / np.mean(x**2), abs=1e-3)


def test_rows_without_spread_explain_nothing_and_have_a_gradient(key):
    network, x = autoencoder(mlp_base((2,)), (4,), hidden=()), jnp.ones((3, 4))
    variables = network.init(key, x)
    loss = RECONSTRUCTION.loss(network, network.layers)
    grads = jax.grad(lambda v: loss(v, (x, None), key)[0])(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert float(loss(variables, (x, None), key)[1][1]["explained"]) == 0


def test_refused(key):
    network = autoencoder(mlp_base((2,)), (4,), hidden=())
    with pytest.raises(ValueError, match=r"\[4\].*\[5\]"):
        RECONSTRUCTION.check(network, Rows(np.ones((3, 5), np.float32), np.zeros(3, np.int32)))
    with pytest.raises(ValueError, match="no rows"):
        RECONSTRUCTION.check(network, Rows(np.ones((0, 4), np.float32), np.zeros(0, np.int32)))
    with pytest.raises(ValueError, match="cached"):
        RECONSTRUCTION.loss(network, network.layers, start=1)
    assert reconstruction(scaled) is reconstruction(scaled)
