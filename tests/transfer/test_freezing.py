import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmd_jax.transfer.decision import REGIMES, stages_of
from mmd_jax.transfer.freezing import (
    check_frozen,
    freeze_labels,
    frozen_hashes,
    leaf_hash,
    stage_labels,
    staged_optimizer,
    stop_frozen,
)
from mmd_jax.types import Stage

PARAMS = {
    "conv1": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)},
    "conv10": {"kernel": np.ones((2, 3), np.float32)},
    "head": {"kernel": np.ones(4, np.float32)},
}


def test_labels_follow_whole_path_components():
    labels = freeze_labels(PARAMS, ["conv1"])
    assert labels["conv1"] == {"kernel": "frozen", "bias": "frozen"}
    assert labels["conv10"] == {"kernel": "trained"} and labels["head"] == {"kernel": "trained"}


def test_labels_take_any_pytree():
    assert freeze_labels([{"w": 1.0}, (2.0, 3.0)], ["1/0"]) == [{"w": "trained"}, ("frozen", "trained")]


def test_a_name_that_matches_nothing_is_an_error_that_prints_those_there_are():
    with pytest.raises(ValueError, match=r"'conv2'.*conv1, conv10, head"):
        freeze_labels(PARAMS, ["conv2"])


def test_a_leaf_without_a_layer_is_an_error():
    with pytest.raises(ValueError, match="head/kernel"):
        stage_labels(PARAMS, Stage(("conv1",), (("conv10", 1.0),)))


def test_stopped_leaves_get_zero_gradients_and_the_others_their_own():
    labels = freeze_labels(PARAMS, ["conv10"])

    def loss(params):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(stop_frozen(params, labels)))

    gradients = jax.grad(loss)(PARAMS)
    assert not gradients["conv10"]["kernel"].any()
    np.testing.assert_allclose(gradients["head"]["kernel"], 2.0)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_optimizer_moves_each_layer_at_its_own_rate_and_frozen_ones_not_at_all(regime):
    layers = tuple(PARAMS)
    for stage in stages_of(regime, layers, num_frozen=1, pretrained_rate=0.1):
        labels = stage_labels(PARAMS, stage)
        optimizer = staged_optimizer(optax.sgd, labels)
        state = optimizer.init(PARAMS)
        state = state._replace(hyperparams={"learning_rate": jnp.float32(0.5)})
        updates, _ = optimizer.update(jax.tree.map(np.ones_like, PARAMS), state, PARAMS)
        rates = {**dict.fromkeys(stage.frozen, 0.0), **dict(stage.trained)}
        for layer in layers:
            for leaf in jax.tree.leaves(updates[layer]):
                np.testing.assert_allclose(leaf, -0.5 * rates[layer], rtol=1e-6)


def test_weight_decay_and_moments_skip_frozen_leaves():
    stage = stages_of("linear_probe", tuple(PARAMS))[0]
    optimizer = staged_optimizer(
        lambda rate: optax.adamw(rate, weight_decay=10.0), stage_labels(PARAMS, stage), clip_norm=1.0
    )
    state = optimizer.init(PARAMS)
    updates, _ = optimizer.update(jax.tree.map(np.ones_like, PARAMS), state, PARAMS)
    assert not any(leaf.any() for name in stage.frozen for leaf in jax.tree.leaves(updates[name]))
    assert abs(updates["head"]["kernel"]).min() > 1.0
    moments = [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf)]
    assert sorted(leaf.shape for leaf in moments) == [(4,), (4,)]  # Adam's two, of the head alone


def test_clipping_sees_only_trained_gradients():
    stage = Stage(("conv1", "conv10"), (("head", 1.0),))
    labels = stage_labels(PARAMS, stage)
    optimizer = staged_optimizer(optax.sgd, labels, clip_norm=1.0)
    gradients = jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(stop_frozen(p, labels))))(PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(np.linalg.norm(updates["head"]["kernel"]), 1.0, rtol=1e-6)


def test_a_changed_bit_in_a_frozen_leaf_is_found_in_every_collection():
    stage = Stage(("conv1",), (("conv10", 1.0), ("head", 1.0)))
    variables = {"params": PARAMS, "batch_stats": {"conv1": {"mean": np.zeros(3, np.float32)}}}
    before = frozen_hashes(variables, stage)
    assert set(before) == {"params/conv1/kernel", "params/conv1/bias", "batch_stats/conv1/mean"}
    check_frozen(before, variables, stage)
    trained = {**PARAMS, "head": {"kernel": np.zeros(4, np.float32)}}
    check_frozen(before, {**variables, "params": trained}, stage)
    for value in (-0.0, 1e-45):  # another bit pattern of the same number, and the smallest other number
        moved = {"conv1": {"mean": np.array([value, 0, 0], np.float32)}}
        with pytest.raises(RuntimeError, match="batch_stats/conv1/mean"):
            check_frozen(before, {**variables, "batch_stats": moved}, stage)


def test_a_hash_tells_dtype_shape_and_bits_apart():
    arrays = [
        np.zeros(4, np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros(4, np.int32),
        np.full(4, -0.0, np.float32),
    ]
    assert len({leaf_hash(array) for array in arrays}) == len(arrays)
    assert leaf_hash(arrays[0]) == leaf_hash(jnp.zeros(4))
    assert leaf_hash(jnp.zeros(4, jnp.bfloat16)) != leaf_hash(arrays[0])
