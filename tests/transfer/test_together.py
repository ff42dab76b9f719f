"""Networks fitted as one batch are those fitted alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.mlp import mlp
from mmd_jax.transfer import together
from mmd_jax.transfer.decision import stages_of
from mmd_jax.transfer.finetune import NonFiniteLossError, begin_fit, fit, prepare
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.together import fit_together
from mmd_jax.types import Rows, Stage

NETWORK = mlp(3, hidden=(8, 6))
RECIPE = Recipe(epochs=6, batch_size=8, schedule="cosine", optimizer="sgd")


def rows(seed, count=40):
    random = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int32) % 3
    return Rows(random.normal(size=(count, 5)).astype(np.float32) + np.eye(3, 5, dtype=np.float32)[y], y)


def several(frozen, k=3, cached=False):
    stage = stages_of("finetune_top" if frozen else "finetune_all", NETWORK.layers, num_frozen=frozen)[0]
    stage = stage._replace(cached=cached)
    prepared = []
    for i in range(k):
        data = rows(i)
        variables = NETWORK.init(jax.random.key(i), jnp.asarray(data.x))
        prepared.append(prepare(jax.random.key(10 + i), NETWORK, variables, stage, data, None, recipe=RECIPE))
    return prepared, [begin_fit(NETWORK, one, learning_rate=0.05, recipe=RECIPE) for one in prepared]


@pytest.mark.parametrize("frozen, cached", [(0, False), (1, False), (1, True)])
def test_a_batch_of_networks_is_each_of_them_alone_to_rounding(frozen, cached):
    prepared, starts = several(frozen, cached=cached)
    *_, (states, metrics) = fit_together(NETWORK, prepared, starts, recipe=RECIPE)
    for one, start, state, row in zip(prepared, starts, states, metrics, strict=True):
        *_, (alone, alone_row) = fit(NETWORK, one, start, recipe=RECIPE)
        assert int(state.train.step) == int(alone.train.step) == row["step"]
        assert row["loss"] == pytest.approx(alone_row["loss"], rel=1e-5)
        for a, b in zip(jax.tree.leaves(state.best), jax.tree.leaves(alone.best), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        if frozen:  # bit for bit
            np.testing.assert_array_equal(
                state.best["params"]["fc1"]["kernel"], one.variables["params"]["fc1"]["kernel"]
            )


def test_a_second_batch_compiles_nothing():
    for _ in range(2):
        prepared, starts = several(1)
        list(fit_together(NETWORK, prepared, starts, recipe=RECIPE))
        compiled = together._run_chunks._cache_size()
        fresh = [begin_fit(NETWORK, one, learning_rate=0.2, recipe=RECIPE) for one in prepared]
        list(fit_together(NETWORK, prepared, fresh, recipe=RECIPE))
        assert together._run_chunks._cache_size() == compiled


def test_networks_that_share_no_program_are_refused():
    prepared, starts = several(1)
    other = [prepared[0], prepared[1]._replace(stage=Stage((), tuple((name, 1.0) for name in NETWORK.layers)))]
    with pytest.raises(ValueError, match="there are 2 kinds among 2"):
        next(fit_together(NETWORK, other, starts[:2], recipe=RECIPE))
    with pytest.raises(ValueError, match="there are 3 stages and 2 states"):
        next(fit_together(NETWORK, prepared, starts[:2], recipe=RECIPE))
    with pytest.raises(ValueError, match="valid=None"):
        next(fit_together(NETWORK, [prepared[0]._replace(valid=rows(0))], starts[:1], recipe=RECIPE))


def test_one_network_s_infinite_loss_is_counted():
    prepared, _ = several(0)
    prepared[1].train.x[:] = np.inf
    starts = [begin_fit(NETWORK, one, learning_rate=0.05, recipe=RECIPE) for one in prepared]
    with pytest.raises(NonFiniteLossError, match="the loss of 1 of 3 networks became NaN"):
        list(fit_together(NETWORK, prepared, starts, recipe=RECIPE))
