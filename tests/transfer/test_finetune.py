import jax
import numpy as np
import pytest

from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.mlp import mlp
from mmd_jax.models.whole import from_functions
from mmd_jax.transfer import finetune as ft
from mmd_jax.transfer import inference, objectives, prefix
from mmd_jax.transfer import recipe as recipes
from mmd_jax.transfer.decision import REGIMES, stages_of
from mmd_jax.transfer.finetune import begin_fit, finetune, fit, prepare
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.transfer.recipe import Recipe, data_order, rate_factors, schedule
from mmd_jax.types import Plan, Rows, Stage


def images(count=48, classes=3, seed=0):
    """Uint8 images that a small network can learn: each class is bright somewhere else."""
    random = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int32) % classes
    x = random.integers(0, 80, (count, 8, 8, 1))
    for row, label in zip(x, y):
        row[label * 2 : label * 2 + 2] += 150
    return Rows(x.astype(np.uint8), y)


def network_on_bytes(width=4):
    from mmd_jax.models.layered import preprocessed

    return preprocessed(cnn8(3, width=width), scaled)


def scaled(x):
    return x.astype("float32") / 255


NETWORK = network_on_bytes()
TRAIN, VALID = images(), images(24, seed=1)
VARIABLES = NETWORK.init(jax.random.key(5), jax.numpy.asarray(TRAIN.x))
FAST = Recipe(epochs=4, batch_size=16, patience=4)


def plan(regime, **settings):
    return Plan("given", regime, stages_of(regime, NETWORK.layers, **settings), "a test")


@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_learns_and_changes_only_what_it_may(regime):
    chosen = plan(regime, num_frozen=3)
    recipe = Recipe(epochs=15, batch_size=16, patience=15)
    outcome = list(
        finetune(jax.random.key(1), NETWORK, VARIABLES, chosen, TRAIN, VALID, learning_rate=1e-2, recipe=recipe)
    )
    state, metrics = outcome[-1]
    assert metrics["valid_accuracy"] > 0.8
    assert metrics["stage"] == len(chosen.stages) - 1
    ever_trained = {name for stage in chosen.stages for name, _ in stage.trained}
    for name in set(NETWORK.layers) - ever_trained:
        for a, b in zip(jax.tree.leaves(VARIABLES["params"][name]), jax.tree.leaves(state.best["params"][name])):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def started(stage, *, rate=1e-2, recipe=FAST, variables=VARIABLES, network=NETWORK, train=TRAIN, valid=VALID):
    stage = stage._replace(reinitialised=())
    prepared = prepare(jax.random.key(2), network, variables, stage, train, valid, recipe=recipe)
    return prepared, begin_fit(network, prepared, learning_rate=rate, recipe=recipe)


def leaves_equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def test_a_resumed_fit_repeats_an_undisturbed_one_bit_for_bit():
    stage = plan("finetune_top", num_frozen=2).stages[0]
    prepared, begin = started(stage)
    whole = [state for state, _ in fit(NETWORK, prepared, begin, recipe=FAST)]
    assert len(whole) == 4
    for stop in range(len(whole)):
        # Through the host, as a checkpoint would.
        saved = jax.tree.map(jax.numpy.asarray, jax.tree.map(np.asarray, whole[stop]))
        resumed = [state for state, _ in fit(NETWORK, started(stage)[0], saved, recipe=FAST)]
        assert len(resumed) == len(whole) - stop - 1
        assert all(leaves_equal(a, b) for a, b in zip(resumed, whole[stop + 1 :], strict=True))


def test_the_best_state_is_the_one_with_the_lowest_validation_loss_the_start_included():
    stage = plan("finetune_all").stages[0]
    prepared, begin = started(stage)
    states = list(fit(NETWORK, prepared, begin, recipe=FAST))
    losses = [float(begin.best_loss)] + [metrics["valid_loss"] for _, metrics in states]
    best = states[-1][0]
    assert float(best.best_loss) == pytest.approx(min(losses))
    assert int(best.best_step) == 3 * int(np.argmin(losses))
    assert objectives.validate(NETWORK, best.best, VALID)["loss"] == pytest.approx(min(losses), rel=1e-5)
    # A rate that only does harm leaves the network as it was.
    prepared, harmful = started(stage, rate=30.0, variables=best.best)
    *_, (after, _) = fit(NETWORK, prepared, harmful, recipe=FAST)
    assert leaves_equal(after.best, harmful.best)


def test_patience_ends_a_fit_and_a_finished_fit_yields_nothing():
    recipe = Recipe(epochs=50, batch_size=16, patience=2)
    stage = plan("linear_probe").stages[0]
    prepared, begin = started(stage, rate=30.0, recipe=recipe)
    states = list(fit(NETWORK, prepared, begin, recipe=recipe))
    assert int(states[-1][0].train.step) - int(states[-1][0].best_step) == 2 * 3 < 50 * 3
    assert list(fit(NETWORK, prepared, states[-1][0], recipe=recipe)) == []


def test_a_loss_that_is_not_finite_stops_the_fit():
    stage = plan("finetune_all").stages[0]
    recipe = FAST._replace(clip_norm=0.0, optimizer="sgd")
    prepared, begin = started(stage, rate=1e20, recipe=recipe)
    with pytest.raises(ft.NonFiniteLossError, match="lower the learning rate"):
        list(fit(NETWORK, prepared, begin, recipe=recipe))


def test_cached_features_train_the_same_network():
    uncached = plan("finetune_top", num_frozen=5)
    cached = with_caching(uncached, NETWORK, TRAIN.x, num_rows=72, limit_bytes=1e9)
    assert cached.stages[0].cached and "conv5" in cached.stages[0].cache_reason
    (*_, (a, _)), (*_, (b, _)) = (
        finetune(jax.random.key(1), NETWORK, VARIABLES, p, TRAIN, VALID, learning_rate=1e-2, recipe=FAST)
        for p in (uncached, cached)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4), a.best, b.best)


def test_caching_is_off_for_a_reason_that_the_plan_gives():
    def reason(stage, network=NETWORK, limit=1e9):
        found = with_caching(
            Plan("given", "x", (stage,), ""), network, TRAIN.x, num_rows=100, limit_bytes=limit
        ).stages[0]
        assert not found.cached
        return found.cache_reason

    layers = NETWORK.layers
    assert "no layer is frozen" in reason(Stage((), tuple((n, 1.0) for n in layers)))
    assert "prefix" in reason(Stage(layers[1:2], tuple((n, 1.0) for n in layers if n != layers[1])))
    assert "limit" in reason(plan("linear_probe").stages[0], limit=10.0)
    whole = from_functions(
        lambda key, x: {"params": {"a": x[0], "b": x[0]}},
        lambda v, x: x @ v["params"]["a"] @ v["params"]["b"],
        ["a", "b"],
    )
    assert whole.whole in reason(Stage(("a",), (("b", 1.0),)), whole)


def test_the_estimate_of_the_cache_is_its_size():
    stage = with_caching(plan("linear_probe"), NETWORK, TRAIN.x, num_rows=48, limit_bytes=1e9).stages[0]
    rows = prefix.prefix_rows(NETWORK, VARIABLES, stage, TRAIN)
    assert f"{rows.x.nbytes / 1e6:.1f} MB" in stage.cache_reason


@pytest.mark.parametrize("rows, batch", [(10, 4), (7, 7), (300, 1), (5, 2)])
def test_the_order_of_the_data_visits_every_row_once_a_pass_and_can_be_cut_anywhere(key, rows, batch):
    whole = data_order(key, rows, 0, 24, batch)
    assert whole.shape == (24, batch)
    for start in range(0, whole.size - rows + 1, rows):
        assert sorted(whole.ravel()[start : start + rows]) == list(range(rows))
    for step, count in ((0, 5), (5, 1), (11, 13)):
        np.testing.assert_array_equal(data_order(key, rows, step, count, batch), whole[step : step + count])
    assert (data_order(jax.random.key(9), rows, 0, 24, batch) != whole).any()


@pytest.mark.parametrize("rows, batch", [(10, 4), (3, 64), (100_000, 64), (20_000, 32)])
def test_the_schedule_is_whole_chunks_that_cover_the_epochs(rows, batch):
    recipe = Recipe(epochs=3, batch_size=batch, patience=2)
    total, chunk, patience = schedule(rows, recipe)
    assert total % chunk == 0 and patience % chunk == 0 and 1 <= chunk <= recipes.MAX_CHUNK
    epoch = -(-rows // min(batch, rows))
    assert 3 * epoch <= total < 3 * (epoch + recipes.MAX_CHUNK)


def test_a_second_learning_rate_compiles_nothing():
    stage = plan("finetune_top", num_frozen=1).stages[0]
    for rate in (1e-3, 1e-2, 1e-1):
        prepared, begin = started(stage, rate=rate)
        list(fit(NETWORK, prepared, begin, recipe=FAST))
        if rate == 1e-3:
            compiled = ft.run_chunk._cache_size()
    assert ft.run_chunk._cache_size() == compiled


def test_prediction_in_batches_is_prediction_at_once():
    network = mlp(4, hidden=(6,))
    x = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
    variables = network.init(jax.random.key(0), jax.numpy.asarray(x))
    whole = inference.log_probabilities(network, variables, x)
    assert whole.shape == (37, 4)
    np.testing.assert_allclose(
        inference.log_probabilities(network, variables, x, batch_size=10), whole, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(np.exp(whole).sum(-1), 1, rtol=1e-5)


def test_weights_without_a_finite_loss_lose_to_any_that_have_one():
    """A negative variance, as after a bad restore, gives NaN until training has moved it."""
    import flax.linen as nn

    from mmd_jax.models.layered import from_layers

    network = from_layers([("norm", nn.BatchNorm(momentum=0.0)), ("head", nn.Dense(3))])
    rows = Rows(TRAIN.x.reshape(len(TRAIN.x), -1) / np.float32(255), TRAIN.y)
    variables = network.init(jax.random.key(0), jax.numpy.asarray(rows.x))
    variables["batch_stats"]["norm"]["var"] -= 2
    [stage] = stages_of("finetune_all", network.layers)
    prepared, state = started(stage, variables=variables, network=network, train=rows, valid=rows)
    *_, (state, _) = fit(network, prepared, state, recipe=FAST)
    assert int(state.best_step) > 0 and np.isfinite(float(state.best_loss))


@pytest.mark.parametrize(
    "rows, recipe, message",
    [
        (Rows(TRAIN.x, TRAIN.y + 1), FAST, "labels run from 1 to 3, but the network has 3 outputs"),
        (Rows(TRAIN.x, TRAIN.y - 1), FAST, "labels run from -1 to 1"),
        (Rows(TRAIN.x[:5], TRAIN.y), FAST, "5 rows of inputs and 48 labels"),
        (Rows(TRAIN.x[:0], TRAIN.y[:0]), FAST, "0 rows"),
        (Rows(TRAIN.x, TRAIN.y.astype(float)), FAST, "labels have dtype float64"),
        (TRAIN, FAST._replace(batch_size=0), "batch_size = 0"),
        (TRAIN, FAST._replace(epochs=0), "epochs = 0"),
        (TRAIN, FAST._replace(precision="bf16"), "unknown precision 'bf16'"),
        (TRAIN, FAST._replace(optimizer="adam"), "unknown optimizer 'adam'"),
    ],
)
def test_bad_input_is_named(rows, recipe, message):
    with pytest.raises(ValueError, match=message):
        next(
            finetune(
                jax.random.key(0),
                NETWORK,
                VARIABLES,
                plan("linear_probe"),
                rows,
                VALID,
                learning_rate=1e-2,
                recipe=recipe,
            )
        )


def test_low_precision_preprocesses_in_full_precision_cached_or_not():
    """Inputs 1000 ± 1, whose mean the preprocessing takes off: bfloat16 could not tell them apart."""
    from mmd_jax.models.layered import preprocessed

    network = preprocessed(mlp(3, hidden=(8,)), lambda x: x - 1000)
    x = 1000 + np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    variables = network.init(jax.random.key(0), x)
    high, low = (inference.log_probabilities(network, variables, x, precision=p) for p in ("float32", "bfloat16"))
    np.testing.assert_allclose(low, high, atol=0.05)
    stage = stages_of("linear_probe", network.layers)[0]
    cached = prefix.prefix_rows(network, variables, stage, Rows(x, np.zeros(32, np.int32)), precision="bfloat16")
    again = inference.log_probabilities(network, variables, cached.x, start=1, precision="bfloat16")
    np.testing.assert_array_equal(again, low)


def test_without_validation_rows_a_fit_has_its_whole_length_and_keeps_the_last_state():
    stage = plan("finetune_top", num_frozen=2).stages[0]
    recipe = FAST._replace(schedule="cosine", warmup_epochs=1.0, patience=1)
    prepared, begin = started(stage, recipe=recipe, valid=None)
    states = [state for state, metrics in fit(NETWORK, prepared, begin, recipe=recipe)]
    assert int(states[-1].train.step) == 4 * 3 == schedule(48, recipe, validated=False)[0]
    assert leaves_equal(states[-1].best, states[-1].train.variables)
    assert not leaves_equal(states[-1].best, begin.best)
    assert list(fit(NETWORK, prepared, states[-1], recipe=recipe)) == []
    # The learning rate that is kept is the schedule's highest, so that a resumed fit goes on with the same one.
    assert float(states[-1].train.opt_state.hyperparams["learning_rate"]) == pytest.approx(1e-2)


def test_a_fit_without_validation_resumes_bit_for_bit(monkeypatch):
    monkeypatch.setattr(recipes, "MAX_CHUNK", 3)  # an epoch a chunk
    recipe = FAST._replace(schedule="cosine")
    prepared, begin = started(plan("finetune_all").stages[0], recipe=recipe, valid=None)
    states = [state for state, _ in fit(NETWORK, prepared, begin, recipe=recipe)]
    assert len(states) == 4
    *_, (resumed, _) = fit(NETWORK, prepared, states[1], recipe=recipe)
    assert leaves_equal(resumed, states[-1])


@pytest.mark.parametrize("rows, batch, epochs", [(10, 4, 7), (3, 64, 5), (5000, 8, 3), (150, 25, 40), (150, 25, 80)])
def test_without_validation_chunks_hold_whole_epochs_where_they_can(rows, batch, epochs):
    total, chunk, patience = schedule(rows, Recipe(epochs=epochs, batch_size=batch), validated=False)
    epoch = -(-rows // min(batch, rows))
    assert total % chunk == 0 and chunk <= recipes.MAX_CHUNK and patience >= total - chunk
    if epoch <= recipes.MAX_CHUNK:
        assert total == epochs * epoch and chunk % epoch == 0


def test_the_learning_rate_follows_its_schedule():
    total = 20
    whole = rate_factors(Recipe(epochs=10, schedule="cosine", warmup_epochs=2.0), 0, total, total)
    np.testing.assert_allclose(whole[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(whole[4:], (1 + np.cos(np.pi * np.arange(16) / 16)) / 2, rtol=1e-6)
    for step, count in ((0, 7), (7, 13)):
        part = rate_factors(Recipe(epochs=10, schedule="cosine", warmup_epochs=2.0), step, count, total)
        np.testing.assert_array_equal(part, whole[step : step + count])
    assert (rate_factors(Recipe(), 0, total, total) == 1).all()
    # Plain SGD without momentum's past: one step at half the factor moves half as far.
    recipe = Recipe(optimizer="sgd", weight_decay=0.0, clip_norm=0.0)
    prepared, begin = started(plan("finetune_all").stages[0], recipe=recipe, valid=None)
    static = ft.compiled_for(NETWORK, prepared, recipe)
    x, y = TRAIN.x[None, :16], TRAIN.y[None, :16]
    moved = []
    for factor in (1.0, 0.5):
        state, _ = ft.run_chunk(begin.train, x, y, np.float32([factor]), prepared.step_key, **static)
        kernel = state.variables["params"]["fc8"]["kernel"]
        moved.append(np.asarray(kernel - begin.train.variables["params"]["fc8"]["kernel"]))
    np.testing.assert_allclose(moved[1], moved[0] / 2, atol=1e-7)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schedule": "linear"}, "unknown schedule 'linear'; there are constant, cosine"),
        ({"warmup_epochs": 5.0}, "warmup_epochs = 5.0; expected 0 … 4"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ft.check_recipe(FAST._replace(**change))
