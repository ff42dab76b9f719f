"""Sentence networks from few labels: with the words of a source copied in, frozen or fine-tuned, or without."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.words.settings import Fit
from experiments.words.vectors import Words
from mmd_jax.models.layered import Network
from mmd_jax.models.sentences import sentence_network
from mmd_jax.models.skipgram import PADDING
from mmd_jax.transfer import finetune
from mmd_jax.transfer.freezing import check_frozen
from mmd_jax.transfer.inference import log_probabilities
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.types import Plan, Rows, Stage, Variables

WORDS, HIDDEN, HEAD = "words", "hidden", "head"  # the layers of a sentence network
CACHE_BYTES = 1e9  # of sentence vectors that are kept while the words are frozen


class Classifier(NamedTuple):
    """A trained sentence network.

    Attributes:
      network: its layers.
      variables: with a vector for each of V words.
      known: words whose vectors count; the others are left out of a sentence. Shape [V].
    """

    network: Network
    variables: Variables
    known: np.ndarray

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Sentences as the network takes them: words that it doesn't know are none."""
        return np.where(self.known[x], x, PADDING)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class of each sentence, [n]."""
        return log_probabilities(self.network, self.variables, self.inputs(x)).argmax(axis=-1)


def train(
    fit: Fit,
    seed: int,
    rows: Rows,
    num_classes: int,
    stages: Sequence[Stage],
    *,
    table: np.ndarray,
    known: np.ndarray,
    above: Mapping[str, Any] | None = None,
) -> Classifier:
    """Carries out the stages of a plan on labelled sentences.

    Only the vectors of words in these sentences have gradients, so only they are in the network while it is trained; the
    others are put back behind it, unchanged.

    Args:
      fit: the settings; every stage has a fixed length, and its last state counts.
      seed: of fresh layers above the words and of the order of sentences: networks of one seed start alike.
      rows: x [n, T] of word numbers, y [n].
      num_classes: C.
      stages: what is frozen, trained and new; the words are never new, for they are in `table`.
      table: the vectors that the words start from, [V, d].
      known: which words count, [V].
      above: parameters of the layers above the words; none: all of them are new in the first stage.

    Returns:
      The network, with all V words.
    """
    numbers = np.intersect1d(rows.x, np.flatnonzero(known))
    own = np.zeros(len(table), np.int32)
    own[numbers] = np.arange(1, len(numbers) + 1)
    # Numbers of words are rounded up, so that all draws share few compiled programs; number 0 is none of them.
    small = np.zeros((max(2, 1 << len(numbers).bit_length()), table.shape[1]), np.float32)
    small[1 : len(numbers) + 1] = table[numbers]

    network = network_of(num_classes, len(small), table.shape[1], fit.hidden)
    mapped = Rows(own[rows.x], rows.y)
    plan = Plan("given", "", tuple(stages), "")
    plan = with_caching(plan, network, mapped.x[:1], num_rows=len(rows.y), limit_bytes=CACHE_BYTES)
    recipe = Recipe(
        epochs=fit.epochs, batch_size=fit.batch_size, weight_decay=fit.weight_decay, clip_norm=fit.clip_norm
    )
    variables: Variables = {"params": {WORDS: {"vectors": small}, **(above or {})}}
    for number, stage in enumerate(plan.stages):
        key = jax.random.fold_in(jax.random.key(seed), number)
        prepared = finetune.prepare(key, network, variables, stage, mapped, None, recipe=recipe)
        state = finetune.begin_fit(network, prepared, learning_rate=fit.learning_rate, recipe=recipe)
        for chunk in finetune.fit(network, prepared, state, recipe=recipe):
            state = chunk[0]
        check_frozen(prepared.frozen, state.best, stage)
        variables = state.best
    whole = table.copy()
    whole[numbers] = np.asarray(variables["params"][WORDS]["vectors"])[1 : len(numbers) + 1]
    return Classifier(network, {"params": {**variables["params"], WORDS: {"vectors": whole}}}, known)


class Start(NamedTuple):
    """What a sentence network starts from: arguments of `train`.

    Attributes:
      stages: as there.
      table: as there.
      known: as there.
    """

    stages: tuple[Stage, ...]
    table: np.ndarray
    known: np.ndarray


def begin(regime: str, rows: Rows, fresh: np.ndarray, source: Words | None, *, words_rate: float) -> Start:
    """How a network begins that gets nothing but, perhaps, the words of a source.

    Args:
      regime: "scratch": fresh vectors for the words of `rows`, all else unknown; "frozen": the source's words, as they are;
        "finetuned": the source's words, and fresh vectors for those of `rows` that it lacks, trained.
      rows: the labelled sentences.
      fresh: vectors of all words, [V, d].
      source: whose words are copied; none for "scratch".
      words_rate: "finetuned": the words' learning rate, as a share of that of new layers.
    """
    there = np.isin(np.arange(len(fresh)), rows.x)
    there[PADDING] = False
    above = ((HIDDEN, 1.0), (HEAD, 1.0))
    if source is None:
        return Start((Stage((), ((WORDS, 1.0), *above), (HIDDEN, HEAD)),), fresh, there)
    if regime == "frozen":
        return Start((Stage((WORDS,), above, (HIDDEN, HEAD)),), source.table, source.known)
    table = np.where(source.known[:, None], source.table, fresh)
    return Start((Stage((), ((WORDS, words_rate), *above), (HIDDEN, HEAD)),), table, source.known | there)


@lru_cache(maxsize=64)
def network_of(num_classes: int, size: int, dim: int, hidden: int) -> Network:
    """The same object each time, so that what it compiles is compiled once."""
    return sentence_network(num_classes, size, dim=dim, hidden=hidden)
