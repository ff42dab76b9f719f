"""Word vectors, and the skip-gram network that learns them from which words stand near each other."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.layered import Layer, Network, from_layers

# The number that fills sentences up to one length, and stands for words that have no vector; its vector is never read.
PADDING = 0


def skip_gram(num_words: int, *, dim: int = 50) -> Network:
    """Predicts the words around a word: layers words [V, d] → contexts [V, d].

        score of context c for word w = ⟨words_w, contexts_c⟩

    Inputs are numbers of words, [batch, T] (T = 1: one centre word; more: the mean of their vectors), outputs the scores of all
    words, [batch, V]. Trained by `mmd_jax.transfer.negative_sampling`, which never computes all of them.

    Args:
      num_words: V, with the number 0 that fills up.
      dim: d, numbers a vector.

    Raises:
      ValueError: fewer than two words, or no dimension.

    Reference: Mikolov, Sutskever, Chen, Corrado, Dean, Distributed representations of words and phrases and their
    compositionality, NeurIPS 2013.

    >>> network = skip_gram(7, dim=3)
    >>> variables = network.init(jax.random.key(0), jnp.ones((1, 1), jnp.int32))
    >>> network.apply(variables, jnp.ones((5, 1), jnp.int32))[0].shape
    (5, 7)
    """
    return from_layers([("words", word_vectors(num_words, dim)), ("contexts", _contexts(num_words))])


def word_vectors(num_words: int, dim: int) -> Layer:
    """The mean of the vectors of a row's words, [batch, T] of numbers → [batch, d]; 0 where it has none.

        y = Σ_{t: x_t ≠ 0} vectors[x_t] / max(1, #{t: x_t ≠ 0})

    Vectors start from N(0, 1/d), so that their squared norm is 1 on average.
    """
    if num_words < 2 or dim < 1:
        raise ValueError(f"num_words = {num_words} and dim = {dim}; expected at least 2 (0 fills up) and at least 1")

    def init(key: Array, x: Array):
        return {"vectors": jax.random.normal(key, (num_words, dim)) / math.sqrt(dim)}

    def apply(params, x: Array) -> Array:
        vectors = params["vectors"]
        real = (x != PADDING).astype(vectors.dtype)
        total = (vectors[x] * real[..., None]).sum(axis=1)
        return total / jnp.maximum(real.sum(axis=1, keepdims=True), 1)

    return Layer(init, apply)


def _contexts(num_words: int) -> Layer:
    # From zero, as in the authors' program: at first every context is as likely as not.
    def init(key: Array, x: Array):
        return {"vectors": jnp.zeros((num_words, x.shape[-1]), x.dtype)}

    return Layer(init, lambda params, x: x @ params["vectors"].T)
