"""Any objective goes through the one loop: least squares by it has the closed form's solution."""

import jax
import jax.numpy as jnp
import numpy as np

from mmd_jax import from_layers, stages_of
from mmd_jax.models.mlp import dense
from mmd_jax.transfer.finetune import finetune
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.train import forward
from mmd_jax.types import Objective, Plan, Rows


def squares(network, train, *, start=0, dtype="float32"):
    def loss(variables, batch, key):
        x, y = batch
        found, state = forward(network, variables, x, start=start, dtype=dtype, train=tuple(train), key=key)
        return jnp.square(found - y).mean(), (state, {})

    return loss


def validate(network, variables, rows, *, start=0, precision="float32"):
    loss, _ = squares(network, (), start=start)(
        variables, (jnp.asarray(rows.x), jnp.asarray(rows.y)), jax.random.key(0)
    )
    return {"loss": float(loss), "root": float(loss) ** 0.5}


def test_least_squares_by_the_loop_is_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = (x @ rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(64, 1)) + 2).astype(np.float32)
    network = from_layers([("only", dense(1, relu=False))])
    plan = Plan("given", "from_scratch", stages_of("from_scratch", network.layers), "")
    recipe = Recipe(
        epochs=300, batch_size=64, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0, patience=300
    )
    objective = Objective(squares, validate, lambda network, *rows: None)
    rows = Rows(x, y)
    *_, (state, metrics) = finetune(
        jax.random.key(0), network, network.init(jax.random.key(1), x), plan, rows, rows,
        learning_rate=0.1, recipe=recipe, objective=objective,
    )  # fmt: skip
    exact, *_ = np.linalg.lstsq(np.concatenate([x, np.ones((64, 1))], 1), y, rcond=None)
    np.testing.assert_allclose(state.best["params"]["only"]["kernel"], exact[:3], atol=1e-4)
    np.testing.assert_allclose(state.best["params"]["only"]["bias"], exact[3], atol=1e-4)
    assert set(metrics) == {"stage", "step", "loss", "grad_norm", "valid_loss", "valid_root"}


def test_momentum_is_the_recipes():
    """Two steps of gradient descent on y = w by hand, with and without momentum."""
    network = from_layers([("only", dense(1, relu=False))])
    rows = Rows(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    variables = {"params": {"only": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}}
    plan = Plan("given", "finetune_all", (stages_of("from_scratch", network.layers)[0]._replace(reinitialised=()),), "")
    objective = Objective(squares, validate, lambda network, *rows: None)
    for momentum in (0.0, 0.5):
        recipe = Recipe(epochs=2, batch_size=4, optimizer="sgd", momentum=momentum, weight_decay=0.0, clip_norm=0.0)
        *_, (state, _) = finetune(
            jax.random.key(0),
            network,
            variables,
            plan,
            rows,
            rows,
            learning_rate=0.1,
            recipe=recipe,
            objective=objective,
        )
        # loss (w + b)², slope 2 (w + b) in both: w + b goes 1, 0.6, then 0.6 − 0.24 − 0.4 · momentum.
        total = state.train.variables["params"]["only"]
        np.testing.assert_allclose(total["kernel"][0, 0] + total["bias"][0], 0.36 - 0.4 * momentum, atol=1e-6)
