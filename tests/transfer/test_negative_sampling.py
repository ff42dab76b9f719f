"""Skip-gram's objective: its noise, its expectation, its known optimum, and that it goes through the one loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.skipgram import skip_gram
from mmd_jax.transfer import finetune
from mmd_jax.transfer.freezing import check_frozen
from mmd_jax.transfer.negative_sampling import NOISE, SKIP_GRAM, negative_sampling, with_noise
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.together import fit_together
from mmd_jax.types import Rows, Stage

BOTH = Stage((), (("words", 1.0), ("contexts", 1.0)))


def made(num_words=6, dim=4, counts=None, power=0.75):
    network = skip_gram(num_words, dim=dim)
    variables = network.init(jax.random.key(0), jnp.ones((1, 1), jnp.int32))
    random = np.random.default_rng(0)
    contexts = {"vectors": jnp.asarray(random.normal(size=(num_words, dim)), jnp.float32)}
    variables = {"params": {**variables["params"], "contexts": contexts}}
    return network, with_noise(network, variables, np.arange(num_words) if counts is None else counts, power=power)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_noise_is_the_unigram_distribution_to_the_power():
    _, variables = made(counts=[0, 1, 16, 0, 81, 0])
    share = np.diff(np.asarray(variables[NOISE]["contexts"]["cumulative"]), prepend=0)
    weights = np.array([0, 1, 8, 0, 27, 0])
    np.testing.assert_allclose(share, weights / weights.sum(), atol=1e-6)


def test_draws_have_those_frequencies_and_never_the_padding():
    # A word's context vector is its own unit vector, so that a draw can be read off the gradient.
    network, variables = made(num_words=6, dim=6, counts=[0, 1, 16, 0, 81, 0])
    params = {"words": {"vectors": jnp.ones((6, 6))}, "contexts": {"vectors": jnp.zeros((6, 6))}}
    loss = negative_sampling(4).loss(network, ())
    batch = jnp.ones((500, 1), jnp.int32), jnp.full(500, 3)

    def value(contexts):
        held = {**variables, "params": {**params, "contexts": {"vectors": contexts}}}
        return loss(held, batch, jax.random.key(1))[0]

    drawn = 2 * 500 * np.asarray(jax.grad(value)(params["contexts"]["vectors"]))[:, 0]  # at 0 each draw has slope ½
    expected = 2000 * np.array([0, 1, 8, 0, 27, 0]) / 36
    assert drawn[0] == 0 and drawn[5] == 0
    assert drawn[3] == pytest.approx(-500, rel=1e-4)  # the real context, never drawn
    spread = np.sqrt(expected * (1 - expected / 2000)) + 1e-9
    assert (np.abs(drawn - expected)[[1, 2, 4]] < 4.5 * spread[[1, 2, 4]]).all()


def test_validate_is_the_expectation_of_the_loss_and_that_of_a_loop():
    network, variables = made()
    x, y = np.array([[1], [2], [5]], np.int32), np.array([3, 1, 1], np.int32)
    objective = negative_sampling(3)
    words, contexts = (np.asarray(variables["params"][name]["vectors"], np.float64) for name in ("words", "contexts"))
    weights = np.arange(6.0) ** 0.75
    expected = 0.0
    for (w,), c in zip(x, y):
        expected -= np.log(sigmoid(words[w] @ contexts[c]))
        for v in range(6):
            expected -= 3 * weights[v] / weights.sum() * np.log(sigmoid(-words[w] @ contexts[v]))
    found = objective.validate(network, variables, Rows(x, y))["loss"]
    assert found == pytest.approx(expected / 3, rel=1e-5)

    loss = objective.loss(network, ())
    keys = jax.random.split(jax.random.key(2), 4000)
    values = np.asarray(jax.jit(jax.vmap(lambda key: loss(variables, (jnp.asarray(x), jnp.asarray(y)), key)[0]))(keys))
    assert abs(values.mean() - found) < 4.5 * values.std() / np.sqrt(4000)


def test_the_optimum_is_pointwise_mutual_information_less_log_k():
    # Levy and Goldberg, Neural word embedding as implicit matrix factorization, 2014: ⟨w, c⟩ = log P(w, c) / (P(w) P(c)) − log k.
    joint = np.array([[8, 2, 2], [2, 6, 4], [2, 4, 10]])
    pairs = np.array([(w + 1, c + 1) for w in range(3) for c in range(3) for _ in range(joint[w, c])], np.int32)
    network, variables = made(num_words=4, dim=3, counts=np.bincount(pairs[:, 1], minlength=4), power=1.0)
    rows = Rows(np.tile(pairs[:, :1], (50, 1)), np.tile(pairs[:, 1], 50))
    recipe = Recipe(epochs=600, batch_size=2000, weight_decay=0.0, clip_norm=0.0, schedule="cosine")
    objective = negative_sampling(2)
    prepared = finetune.prepare(jax.random.key(3), network, variables, BOTH, rows, None, recipe=recipe)
    state = finetune.begin_fit(network, prepared, learning_rate=0.05, recipe=recipe, objective=objective)
    *_, (state, _) = finetune.fit(network, prepared, state, recipe=recipe, objective=objective)
    scores = np.asarray(network.apply(state.best, jnp.array([[1], [2], [3]]))[0])[:, 1:]
    share = joint / joint.sum()
    expected = np.log(share / (share.sum(1, keepdims=True) * share.sum(0, keepdims=True))) - np.log(2)
    np.testing.assert_allclose(scores, expected, atol=0.12)


def test_words_of_one_topic_come_together():
    random = np.random.default_rng(0)
    topic = random.integers(2, size=3000)
    words = 1 + 5 * topic[:, None] + random.integers(5, size=(3000, 2))  # words 1–5 stand together, and 6–10
    network = skip_gram(11, dim=8)
    variables = with_noise(
        network, network.init(jax.random.key(0), words[:1, :1]), np.bincount(words.ravel(), minlength=11)
    )
    rows, recipe = (
        Rows(words[:, :1].astype(np.int32), words[:, 1].astype(np.int32)),
        Recipe(epochs=20, weight_decay=0.0),
    )
    prepared = finetune.prepare(jax.random.key(1), network, variables, BOTH, rows, None, recipe=recipe)
    state = finetune.begin_fit(network, prepared, learning_rate=0.01, recipe=recipe, objective=SKIP_GRAM)
    before = SKIP_GRAM.validate(network, variables, rows)["loss"]
    *_, (state, _) = finetune.fit(network, prepared, state, recipe=recipe, objective=SKIP_GRAM)
    assert SKIP_GRAM.validate(network, state.best, rows)["loss"] < before
    vectors = np.asarray(state.best["params"]["words"]["vectors"])[1:]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    same = np.kron(np.eye(2), np.ones((5, 5))).astype(bool) & ~np.eye(10, dtype=bool)
    across = np.kron(1 - np.eye(2), np.ones((5, 5))).astype(bool)
    assert cosine[same].min() > cosine[across].max()
    assert (state.best[NOISE]["contexts"]["cumulative"] == variables[NOISE]["contexts"]["cumulative"]).all()


@pytest.mark.parametrize("cached", [False, True])
def test_frozen_words_stand_still_cached_or_not(cached):
    network, variables = made()
    rows = Rows(np.array([[1], [2], [5], [4]], np.int32), np.array([3, 1, 1, 2], np.int32))
    stage, recipe = Stage(("words",), (("contexts", 1.0),), cached=cached), Recipe(epochs=3, batch_size=2)
    prepared = finetune.prepare(jax.random.key(1), network, variables, stage, rows, rows, recipe=recipe)
    state = finetune.begin_fit(network, prepared, learning_rate=0.01, recipe=recipe, objective=SKIP_GRAM)
    *_, (state, _) = finetune.fit(network, prepared, state, recipe=recipe, objective=SKIP_GRAM)
    check_frozen(prepared.frozen, state.train.variables, stage)
    moved = state.train.variables["params"]["contexts"]["vectors"] != variables["params"]["contexts"]["vectors"]
    assert bool(moved.any())


def test_side_by_side_as_alone():
    network, variables = made()
    rows, recipe = Rows(np.array([[1], [2], [5], [4]], np.int32), np.array([3, 1, 1, 2], np.int32)), Recipe(epochs=4)
    prepared = [
        finetune.prepare(jax.random.key(i), network, variables, BOTH, rows, None, recipe=recipe) for i in range(2)
    ]
    begin = [
        finetune.begin_fit(network, one, learning_rate=0.1, recipe=recipe, objective=SKIP_GRAM) for one in prepared
    ]
    *_, (states, _) = fit_together(network, prepared, begin, recipe=recipe, objective=SKIP_GRAM)
    *_, (alone, _) = finetune.fit(network, prepared[1], begin[1], recipe=recipe, objective=SKIP_GRAM)
    for ours, theirs in zip(jax.tree.leaves(states[1].best), jax.tree.leaves(alone.best), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_bad_input_is_named():
    network, variables = made()
    with pytest.raises(ValueError, match="num_noise = 0"):
        negative_sampling(0)
    with pytest.raises(ValueError, match="how often each of 6 words"):
        with_noise(network, variables, np.zeros(6))
    with pytest.raises(ValueError, match="how often each of 6 words"):
        with_noise(network, variables, np.ones(5))
    rows = Rows(np.array([[1], [6]], np.int32), np.array([0, 1], np.int32))
    with pytest.raises(ValueError, match=r"centre words run from 1 to 6 .* 0 … 5"):
        SKIP_GRAM.check(network, rows)
    with pytest.raises(ValueError, match="1 centre words and 2"):
        SKIP_GRAM.check(network, Rows(rows.x[:1], rows.y))
    with pytest.raises(ValueError, match="no noise distribution"):
        SKIP_GRAM.loss(network, ())(
            {"params": variables["params"]}, (jnp.ones((1, 1), jnp.int32), jnp.ones(1, jnp.int32)), jax.random.key(0)
        )
    assert negative_sampling(5) is SKIP_GRAM  # made once, compiled once
