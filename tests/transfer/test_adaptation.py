"""MMD as a loss: its value by loops, λ = 0 as plain training, BatchNorm in one pass, and domains that it brings together."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.layered import from_layers
from mmd_jax.models.mlp import dense, mlp
from mmd_jax.transfer import finetune
from mmd_jax.transfer.adaptation import BANDWIDTHS, adaptation, averaged_mmd2, paired
from mmd_jax.transfer.decision import stages_of
from mmd_jax.transfer.objectives import CLASSIFICATION
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.train import classification_loss
from mmd_jax.types import Plan, Rows, Stage
from tests import reference


def pairs(n=12, d=3, shift=1.0, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 2, d)).astype(np.float32)
    x[:, 1] += shift
    return x, random.integers(0, 2, n).astype(np.int32)


def test_the_loss_is_its_definition_by_loops(key):
    x, y = pairs()
    network = mlp(2, hidden=(4, 5))
    variables = jax.jit(network.init)(key, x[:1, 0])
    loss = adaptation(("fc2", "fc3"), weight=0.7).loss(network, network.layers)
    value, (_, metrics) = jax.jit(loss)(variables, (x, y), key)

    source, target = (jax.jit(network.features)(variables, x[:, side]) for side in (0, 1))
    mmd2 = 0.0
    for name in ("fc2", "fc3"):
        a, b = np.asarray(source[name], np.float64), np.asarray(target[name], np.float64)
        median = reference.median_distance(np.concatenate([a, b]))
        mmd2 += np.mean([reference.mmd2_unbiased(a, b, [median * multiple]) for multiple in BANDWIDTHS])
    logits = np.asarray(source["fc3"], np.float64)
    entropy = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])
    assert float(value) == pytest.approx(entropy + 0.7 * mmd2, rel=1e-4)
    assert float(metrics["mmd2"]) == pytest.approx(mmd2, rel=1e-3)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == y))
    found = adaptation(("fc2", "fc3"), weight=0.7).validate(network, variables, Rows(x, y))
    assert found["loss"] == pytest.approx(float(value), rel=1e-4)


def test_without_weight_it_is_training_on_the_source(key):
    """Value and gradient, whatever the target's rows are."""
    x, y = pairs(shift=50.0)
    network = mlp(2, hidden=(4,))
    variables = jax.jit(network.init)(key, x[:1, 0])
    ours = adaptation(("fc1",), weight=0.0).loss(network, network.layers)
    plain = classification_loss(network, network.layers)

    def slope(loss, rows):
        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, (rows, y), key)[1])

    for first, second in zip(slope(ours, x), slope(plain, x[:, 0]), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_slices_are_one_pass_in_training_mode(key):
    """Batch statistics are of source and target together, and stand still where a layer is frozen."""
    norm = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=False, momentum=0.5)])
    network = from_layers([("one", norm), ("two", dense(3)), ("three", dense(2, relu=False))])
    x, y = pairs()
    variables = jax.jit(network.init)(key, x[:1, 0])
    both = jnp.concatenate([x[:, 0], x[:, 1]])
    for train in (network.layers, ("two", "three")):
        loss = adaptation(("one", "two")).loss(network, train)
        _, (state, _) = jax.jit(loss)(variables, (x, y), key)
        _, expected = network.apply(variables, both, train=train)
        for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_it_does_not_see_the_order_of_the_targets_rows(key):
    x, y = pairs()
    network = mlp(2, hidden=(4,))
    variables = jax.jit(network.init)(key, x[:1, 0])
    loss = jax.jit(adaptation(("fc1", "fc2")).loss(network, network.layers))
    other = np.stack([x[:, 0], x[::-1, 1]], axis=1)
    assert float(loss(variables, (x, y), key)[0]) == pytest.approx(float(loss(variables, (other, y), key)[0]), rel=1e-5)


def test_a_dead_layer_asks_for_nothing(key):
    """All outputs equal: there is no median distance, so MMD² is 0 and its gradient finite."""
    x = jnp.ones((6, 3))
    value, grad = jax.value_and_grad(lambda a: averaged_mmd2(a, jnp.ones((5, 3)), BANDWIDTHS))(x)
    assert float(value) == 0 and np.isfinite(grad).all()


def test_domains_come_together_and_the_target_is_classified_better():
    """Planted: the class is in the first coordinate, which the target has shifted by as much as the classes lie apart; the
    second tells the domain. Training with the MMD finds the features that agree; without it the target is misread."""
    random = np.random.default_rng(0)

    def domain(which, n):
        y = random.integers(0, 2, n).astype(np.int32)
        first = 2.0 * y - 1 + 1.3 * which + 0.3 * random.normal(size=n)
        return Rows(np.stack([first, which + 0.05 * random.normal(size=n)], axis=1).astype(np.float32), y)

    source, target, test = (domain(which, 512) for which in (0, 1, 1))
    network = mlp(2, hidden=(16, 8))
    start = jax.jit(network.init)(jax.random.key(1), source.x[:1])
    stage = Stage((), tuple((name, 1.0) for name in network.layers))
    recipe = Recipe(epochs=20, batch_size=64, schedule="cosine")
    with_mmd = adaptation(("fc2",))
    held_out = Rows(np.stack([source.x, test.x], axis=1), source.y)
    found = []
    for objective, rows in ((CLASSIFICATION, source), (with_mmd, paired(source, target.x, random))):
        prepared = finetune.prepare(jax.random.key(0), network, start, stage, rows, None, recipe=recipe)
        state = finetune.begin_fit(network, prepared, learning_rate=1e-2, recipe=recipe, objective=objective)
        *_, (state, _) = finetune.fit(network, prepared, state, recipe=recipe, objective=objective)
        right = CLASSIFICATION.validate(network, state.best, test)["accuracy"]
        found.append((with_mmd.validate(network, state.best, held_out), right))
    (plain, misread), (adapted, right) = found
    assert plain["accuracy"] > 0.95 and adapted["accuracy"] > 0.95
    assert adapted["mmd2"] < 0.2 * plain["mmd2"]
    assert right > misread + 0.2


def test_a_plan_with_new_layers_is_carried_out_on_pairs(key):
    """The copied layer stays where it is frozen; the new one has the shape that a source row gives it."""
    x, y = pairs(n=16, d=3)
    network = mlp(2, hidden=(4,))
    variables = jax.jit(mlp(7, hidden=(4,)).init)(key, x[:1, 0])
    plan = Plan("given", "linear_probe", stages_of("linear_probe", network.layers), "A test.")
    objective = adaptation(("fc2",), weight=0.5)
    recipe = Recipe(epochs=2, batch_size=8)
    rows = Rows(x, y)
    run = finetune.finetune(
        key, network, variables, plan, rows, rows, learning_rate=0.1, recipe=recipe, objective=objective
    )
    *_, (state, metrics) = run
    params = state.train.variables["params"]
    np.testing.assert_array_equal(params["fc1"]["kernel"], variables["params"]["fc1"]["kernel"])
    assert params["fc2"]["kernel"].shape == (4, 2)
    assert {"valid_mmd2", "valid_accuracy", "valid_loss", "mmd2"} <= metrics.keys()


def test_paired_uses_every_target_row_alike():
    random = np.random.default_rng(0)
    source = Rows(np.arange(10.0)[:, None], np.zeros(10, np.int32))
    rows = paired(source, np.arange(4.0)[:, None], random)
    np.testing.assert_array_equal(rows.x[:, 0], source.x)
    counts = np.bincount(rows.x[:, 1, 0].astype(int), minlength=4)
    assert counts.min() >= 2 and counts.max() <= 3
    assert len(paired(source, np.arange(30.0)[:, None], random).x) == 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adaptation(()), "layers"),
        (lambda: adaptation(("fc1", "fc1")), "once"),
        (lambda: adaptation(("fc1",), weight=-1.0), "weight"),
        (lambda: adaptation(("fc1",), weight=float("nan")), "weight"),
        (lambda: adaptation(("fc1",), bandwidths=()), "bandwidths"),
        (lambda: adaptation(("fc1",), bandwidths=(0.0,)), "bandwidths"),
        (lambda: adaptation(("fc9",)).check(mlp(2), Rows(*pairs())), "fc9.*fc1, fc2"),
        (lambda: adaptation(("fc1",)).check(mlp(2), Rows(pairs()[0][:, 0], pairs()[1])), "pairs"),
        (lambda: adaptation(("fc1",)).check(mlp(2), Rows(*pairs(n=1))), "at least 2"),
        (lambda: adaptation(("fc1",)).check(mlp(2), Rows(pairs()[0], pairs()[1] + 2)), "labels run"),
        (lambda: adaptation(("fc1",)).loss(mlp(2), ("fc1",), start=1), "cached"),
        (
            lambda: paired(Rows(np.ones((3, 2)), np.zeros(3)), np.ones((0, 2)), np.random.default_rng(0)),
            "no target rows",
        ),
        (lambda: paired(Rows(np.ones((3, 2)), np.zeros(3)), np.ones((3, 4)), np.random.default_rng(0)), "one format"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("asked", ["cached", "augment"])
def test_pairs_are_neither_cached_nor_augmented(key, asked):
    x, y = pairs()
    network = mlp(2, hidden=(4,))
    variables = jax.jit(network.init)(key, x[:1, 0])
    stage = Stage(("fc1",), (("fc2", 1.0),), **{asked: True})
    with pytest.raises(ValueError, match=rf"`{asked}` is on.*\[2, 3\].*_replace\({asked}=False\)"):
        finetune.prepare(
            key, network, variables, stage, Rows(x, y), None, recipe=Recipe(), objective=adaptation(("fc2",))
        )
