"""Sentence networks from few labels: with the words of a source copied in, frozen or fine-tuned, or without."""

from functools import lru_cache
from typing import NamedTuple

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

CACHE_BYTES = 1e9


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
    fit: Fit, seed: int, rows: Rows, num_classes: int, *, start: np.ndarray, source: Words | None, regime: str
) -> Classifier:
    """Trains a sentence network on labelled sentences.

    Only the vectors of words in these sentences have gradients, so only they are in the network while it is trained; the
    others are put back behind it, unchanged.

    Args:
      fit: the settings.
      seed: of the layers above the words and of the order of sentences: networks of one seed start alike.
      rows: x [n, T] of word numbers, y [n].
      num_classes: C.
      start: fresh vectors of all words, [V, d].
      source: vectors to copy in; none: nothing is copied, and the words are those of `rows`.
      regime: "frozen": the source's words, as they are; "finetuned": those and the words of `rows`, trained.

    Returns:
      The network, with all V words.
    """
    there = np.zeros(len(start), bool)
    there[np.unique(rows.x)] = True
    there[PADDING] = False
    if source is None:
        known, table = there, start
    elif regime == "frozen":
        known, table = source.known, source.table
    else:
        known, table = source.known | there, np.where(source.known[:, None], source.table, start)
    numbers = np.flatnonzero(known & there)
    own = np.zeros(len(start), np.int32)
    own[numbers] = np.arange(1, len(numbers) + 1)
    size = max(2, 1 << len(numbers).bit_length())
    small = np.zeros((size, start.shape[1]), np.float32)
    small[1 : len(numbers) + 1] = table[numbers]

    network = _network(num_classes, size, start.shape[1], fit.hidden)
    stage = _stage(network, "scratch" if source is None else regime, fit.words_rate)
    mapped = Rows(own[rows.x], rows.y)
    if stage.frozen:
        plan = Plan("given", regime, (stage,), "")
        [stage] = with_caching(plan, network, mapped.x[:1], num_rows=len(rows.y), limit_bytes=CACHE_BYTES).stages
    recipe = Recipe(
        epochs=fit.epochs, batch_size=fit.batch_size, weight_decay=fit.weight_decay, clip_norm=fit.clip_norm
    )
    variables = {"params": {"words": {"vectors": small}}}
    prepared = finetune.prepare(jax.random.key(seed), network, variables, stage, mapped, None, recipe=recipe)
    state = finetune.begin_fit(network, prepared, learning_rate=fit.learning_rate, recipe=recipe)
    for state, _ in finetune.fit(network, prepared, state, recipe=recipe):
        pass
    check_frozen(prepared.frozen, state.best, stage)
    whole = table.copy()
    whole[numbers] = np.asarray(state.best["params"]["words"]["vectors"])[1 : len(numbers) + 1]
    params = {**state.best["params"], "words": {"vectors": whole}}
    return Classifier(network, {"params": params}, known)


def _stage(network: Network, regime: str, words_rate: float) -> Stage:
    """The words are copied; the layers above are new."""
    words, *above = network.layers
    new = tuple((name, 1.0) for name in above)
    if regime == "frozen":
        return Stage((words,), new, tuple(above))
    return Stage((), ((words, 1.0 if regime == "scratch" else words_rate), *new), tuple(above))


@lru_cache(maxsize=64)
def _network(num_classes: int, size: int, dim: int, hidden: int) -> Network:
    """The same object each time, so that what it compiles is compiled once."""
    return sentence_network(num_classes, size, dim=dim, hidden=hidden)
