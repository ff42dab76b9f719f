"""Word vectors: the mean over real words, in the network that learns them and in the one that they are copied into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models import leaves
from mmd_jax.models.sentences import sentence_network
from mmd_jax.models.skipgram import skip_gram, word_vectors


def test_a_sentence_is_the_mean_of_its_real_words():
    layer = word_vectors(6, 3)
    params = layer.init(jax.random.key(0), jnp.ones((1, 4), jnp.int32))
    table = np.asarray(params["vectors"], np.float64)
    x = np.array([[1, 2, 5, 0], [3, 0, 0, 0], [0, 4, 0, 4], [0, 0, 0, 0]])
    expected = np.zeros((4, 3))
    for i, row in enumerate(x):
        real = [table[word] for word in row if word != 0]
        if real:
            expected[i] = sum(real) / len(real)
    np.testing.assert_allclose(layer.apply(params, jnp.asarray(x)), expected, atol=1e-6)


def test_padding_and_absent_words_have_no_gradient():
    layer = word_vectors(6, 3)
    params = layer.init(jax.random.key(0), jnp.ones((1, 2), jnp.int32))
    gradient = jax.grad(lambda p: (layer.apply(p, jnp.array([[1, 4, 0]])) ** 2).sum())(params)["vectors"]
    assert np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist() == [1, 4]


def test_fresh_vectors_have_squared_norm_one():
    vectors = word_vectors(4000, 25).init(jax.random.key(0), jnp.ones((1, 1), jnp.int32))["vectors"]
    assert abs(float((vectors**2).sum(axis=1).mean()) - 1) < 4 * np.sqrt(2 / 25 / 4000)


def test_scores_are_inner_products():
    network = skip_gram(5, dim=2)
    variables = network.init(jax.random.key(0), jnp.ones((1, 1), jnp.int32))
    assert not np.asarray(
        variables["params"]["contexts"]["vectors"]
    ).any()  # at first no context is likelier than another
    contexts = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    words = np.asarray(variables["params"]["words"]["vectors"])
    variables = {"params": {"words": {"vectors": words}, "contexts": {"vectors": contexts}}}
    scores, _ = network.apply(variables, jnp.array([[1], [3]]))
    np.testing.assert_allclose(scores, words[[1, 3]] @ contexts.T, rtol=1e-5)


def test_learned_words_are_copied_as_any_layer_is():
    learned = skip_gram(7, dim=3).init(jax.random.key(0), jnp.ones((1, 1), jnp.int32))
    network = sentence_network(2, 7, dim=3, hidden=4)
    fresh = network.init(jax.random.key(1), jnp.ones((1, 5), jnp.int32))
    copied = leaves.replace(fresh, learned, ["words"])
    assert (copied["params"]["words"]["vectors"] == learned["params"]["words"]["vectors"]).all()
    assert (copied["params"]["hidden"]["kernel"] == fresh["params"]["hidden"]["kernel"]).all()
    assert network.layers == ("words", "hidden", "head") and network.num_base == 2


def test_sizes_that_can_t_be_meant_are_refused():
    with pytest.raises(ValueError, match="num_words = 1"):
        skip_gram(1)
    with pytest.raises(ValueError, match="hidden = 0"):
        sentence_network(2, 9, hidden=0)
