"""Where word vectors come from: skip-gram on unlabelled sentences, or GloVe; and the vectors of a new word."""

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import workdir
from experiments.text.tokens import near_pairs
from experiments.words.settings import Vectors
from mmd_jax.models.layered import Network
from mmd_jax.models.skipgram import PADDING, skip_gram
from mmd_jax.transfer import finetune
from mmd_jax.transfer.negative_sampling import negative_sampling, with_noise
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.types import Rows, Stage

VERSION = 1  # raised where a change here changes the vectors


class Words(NamedTuple):
    """Vectors of words by their number.

    Attributes:
      table: shape [V, d] float32; 0 where `known` is False.
      known: which words have one; never the number 0. Shape [V].
    """

    table: np.ndarray
    known: np.ndarray


def learn(settings: Vectors, seed: list[int], x: np.ndarray, num_words: int, *, min_count: int, epochs: int) -> Words:
    """Skip-gram's word vectors of some sentences, centred and scaled.

    Numbers of pairs and of words are rounded up to few sizes, so that all draws share few compiled programs: pairs by
    repeating some of them, words by numbers that occur nowhere.

    Args:
      settings: of skip-gram.
      seed: of everything that is random.
      x: word numbers of the sentences, [n, T].
      num_words: V.
      min_count: rarer words are left out, before anything else.
      epochs: passes over the pairs.

    Raises:
      ValueError: no two words stand near each other.
    """
    counts = np.bincount(x[x != PADDING], minlength=num_words)
    known = counts >= min_count
    known[PADDING] = False
    numbers = np.flatnonzero(known)
    own = np.zeros(num_words, np.int32)
    own[numbers] = np.arange(1, len(numbers) + 1)
    pairs = near_pairs(_closed_up(own[x]), settings.window)
    if not len(pairs):
        raise ValueError(
            f"no word vectors can be learned from {len(x)} sentences: no two of the {len(numbers)} words that occur at least "
            f"{min_count} times stand near each other; give more text, or lower vectors.min_counts"
        )
    random = np.random.default_rng(seed)
    pairs = np.concatenate([pairs, pairs[random.permutation(len(pairs))[: rounded(len(pairs)) - len(pairs)]]])
    size = 1 << len(numbers).bit_length()  # above len(numbers), as number 0 is none of them
    own_counts = np.zeros(size)
    own_counts[1 : len(numbers) + 1] = counts[numbers]

    network, objective = _skip_gram(size, settings.dim), negative_sampling(settings.noise_words)
    init_key, fit_key = jax.random.split(jax.random.key(int(random.integers(2**32))))
    rows = Rows(pairs[:, :1], pairs[:, 1])
    variables = with_noise(network, jax.jit(network.init)(init_key, rows.x[:1]), own_counts)
    recipe = Recipe(epochs=epochs, batch_size=settings.batch_size, weight_decay=0.0, clip_norm=0.0)
    stage = Stage((), tuple((name, 1.0) for name in network.layers))
    prepared = finetune.prepare(fit_key, network, variables, stage, rows, None, recipe=recipe)
    state = finetune.begin_fit(
        network, prepared, learning_rate=settings.learning_rate, recipe=recipe, objective=objective
    )
    for chunk in finetune.fit(network, prepared, state, recipe=recipe, objective=objective):
        state = chunk[0]
    table = np.zeros((num_words, settings.dim), np.float32)
    table[numbers] = np.asarray(state.best["params"]["words"]["vectors"])[1 : len(numbers) + 1]
    return standardised(Words(table, known))


def standardised(words: Words) -> Words:
    """The vectors less their mean, scaled to a mean squared norm of 1, which is that of fresh ones.

    So one learning rate suits the vectors of every source, and a word without a vector, which counts as 0, is an average one.
    """
    table = np.zeros_like(words.table)
    given = words.table[words.known]
    given = given - given.mean(axis=0)
    scale = np.sqrt((given**2).sum(axis=1).mean())
    table[words.known] = given / (scale if scale > 0 else 1)
    return Words(table, words.known)


def fresh(seed: list[int], num_words: int, dim: int) -> np.ndarray:
    """Vectors from N(0, 1/d) for every word, as in a network that nothing is copied into. Shape [V, d] float32."""
    return np.random.default_rng(seed).standard_normal((num_words, dim), np.float32) / np.float32(np.sqrt(dim))


def kept(directory: Path, about: dict[str, object], make: Callable[[], Words], words: tuple[str, ...]) -> Words:
    """What `make()` gives, from a file in `directory` where it was made before; the file has the vocabulary too.

    Args:
      directory: of such files.
      about: everything that the vectors depend on.
      make: makes them.
      words: the word of number i + 1.
    """
    digest = hashlib.sha256(json.dumps([VERSION, workdir.plain(about)], sort_keys=True).encode()).hexdigest()[:16]
    path = directory / f"{digest}.npz"
    if path.exists():
        found = workdir.read_npz(path)
        table = np.zeros((len(words) + 1, found["vectors"].shape[1]), np.float32)
        known = np.zeros(len(table), bool)
        table[found["numbers"]], known[found["numbers"]] = found["vectors"], True
        return Words(table, known)
    made = make()
    numbers = np.flatnonzero(made.known)
    spelt = np.array([words[i - 1] for i in numbers])
    workdir.write_npz(path, {"words": spelt, "numbers": numbers, "vectors": made.table[numbers]})
    return made


def rounded(number: int) -> int:
    """The next of few sizes, at most an eighth more.

    >>> [rounded(n) for n in (1, 7, 17, 100, 1000)]
    [1, 7, 18, 104, 1024]
    """
    step = 1 << max(0, number.bit_length() - 4)
    return -(-number // step) * step


def _closed_up(x: np.ndarray) -> np.ndarray:
    """Each row's words moved to its front, in order: what is left out leaves no gap between its neighbours."""
    return np.take_along_axis(x, np.argsort(x == PADDING, axis=1, kind="stable"), axis=1)


@lru_cache(maxsize=64)
def _skip_gram(size: int, dim: int) -> Network:
    """The same object each time, so that what it compiles is compiled once."""
    return skip_gram(size, dim=dim)
