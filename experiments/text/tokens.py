"""Sentences → padded arrays of word numbers, by one fixed vocabulary."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from mmd_jax.models.skipgram import PADDING

# Words that turn a sentence into its opposite say nothing of its topic, which is why lists of stop words hold them, and
# everything of its mood; they are kept.
NEGATIONS = frozenset(
    {"no", "not", "nor", "never", "none", "nobody", "nothing", "neither", "cannot", "cant", "without"}
)
STOP_WORDS = {"none": frozenset[str](), "english": frozenset(ENGLISH_STOP_WORDS) - NEGATIONS}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_LINK = re.compile(r"(?:https?://|www\.)\S+")


class Vocabulary(NamedTuple):
    """The words that have a number, by how often they occur.

    Attributes:
      words: the word of number i + 1; number 0 fills up, and stands for every word that is not here.
      counts: how often each occurs in the sentences that the vocabulary was made from. Shape [len(words)].
    """

    words: tuple[str, ...]
    counts: np.ndarray


def tokens(text: str, stop_words: frozenset[str] = frozenset()) -> list[str]:
    """The words of a sentence in lower case, without links, stop words, and what is no letter; apostrophes stay inside words.

    >>> tokens("It's NOT a film I'd see -- 2 hours of  'plot'! http://x.y", STOP_WORDS["english"])
    ["it's", 'not', 'film', "i'd", 'hours', 'plot']
    """
    text = _LINK.sub(" ", text.lower().replace("’", "'"))
    return [word for word in _WORD.findall(text) if word not in stop_words]


def vocabulary(sentences: Iterable[Sequence[str]], *, min_count: int = 1) -> Vocabulary:
    """The words of some sentences, the frequent first and equals by alphabet; those that occur less often are left out.

    Raises:
      ValueError: no word is left.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    kept = sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
    if not kept:
        raise ValueError(
            f"no word is in the vocabulary: {len(counts)} different words were read, none of them {min_count} times; lower "
            "min_count, or give more text"
        )
    return Vocabulary(tuple(kept), np.array([counts[word] for word in kept]))


def encode(sentences: Sequence[Sequence[str]], known: Vocabulary) -> np.ndarray:
    """Numbers of the words that are known, in order, filled up with 0 to the longest sentence: [n, T] int32, T >= 1."""
    number = {word: i for i, word in enumerate(known.words, start=1)}
    rows = [[number[word] for word in sentence if word in number] for sentence in sentences]
    found = np.full((len(rows), max([len(row) for row in rows], default=0) or 1), PADDING, np.int32)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


def near_pairs(x: np.ndarray, window: int) -> np.ndarray:
    """Every (word, word near it) of encoded sentences, both ways round: [pairs, 2] int32, in a fixed order.

    Args:
      x: of `encode`, [n, T].
      window: how many words apart two may stand.

    >>> near_pairs(np.array([[5, 6, 7], [8, 9, 0]]), 1).tolist()
    [[5, 6], [6, 7], [8, 9], [6, 5], [7, 6], [9, 8]]
    """
    found = [np.zeros((0, 2), np.int32)]
    for apart in range(1, min(window, x.shape[1] - 1) + 1):
        left, right = x[:, :-apart], x[:, apart:]
        both = (left != PADDING) & (right != PADDING)
        pairs = np.stack([left[both], right[both]], axis=1)
        found += [pairs, pairs[:, ::-1]]
    return np.concatenate(found).astype(np.int32)
