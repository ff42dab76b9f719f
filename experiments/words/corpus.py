"""The sentences of a study as numbers, split once: tested on, chosen on, drawn from, and read without labels."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.text.sentences import Rated, read_rated, read_unlabelled
from experiments.text.tokens import STOP_WORDS, Vocabulary, encode, tokens, vocabulary
from experiments.words.settings import Study
from mmd_jax.types import Rows


class Labelled(NamedTuple):
    """Sentences with labels, as numbers.

    Attributes:
      rows: x [n, T] of word numbers, y [n] of classes.
      documents: of each, [n]; none where each is its own.
    """

    rows: Rows
    documents: np.ndarray | None

    def take(self, chosen: np.ndarray) -> "Labelled":
        """Some of them."""
        documents = None if self.documents is None else self.documents[chosen]
        return Labelled(Rows(self.rows.x[chosen], self.rows.y[chosen]), documents)


class Corpus(NamedTuple):
    """The sentences of a study; all share one numbering of words.

    Attributes:
      words: the vocabulary of everything that was read.
      classes: names of the classes.
      test, validation, pool: labelled sentences that have no document in common.
      unlabelled: word numbers of the sentences that words are learned from, [n, T].
      domains: {name: the labelled sentences of another domain}.
      digest: a hash of all of it.
    """

    words: Vocabulary
    classes: tuple[str, ...]
    test: Labelled
    validation: Labelled
    pool: Labelled
    unlabelled: np.ndarray
    domains: dict[str, Labelled]
    digest: str

    @property
    def num_words(self) -> int:
        """Numbers of words, with the 0 that fills up."""
        return len(self.words.words) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of the other domains."""
        return tuple(self.domains)

    @property
    def held(self) -> dict[str, Labelled]:
        """What accuracies can be of, by name."""
        return {"test": self.test, "validation": self.validation}


def read(study: Study) -> Corpus:
    """Reads the sentences, numbers their words, and splits them by the study's seed.

    Raises:
      FileNotFoundError: a file isn't there.
      ValueError: a file can't be used, or there are too few sentences or labels for the settings.
    """
    text, data_dir = study.text, Path(study.data_dir).expanduser()
    rated = read_rated(text.rated, data_dir)
    others = {name: read_rated(name, data_dir) for name in study.domains.names}
    for name, other in others.items():
        if other.classes != rated.classes:
            raise ValueError(
                f"{name} has the labels {', '.join(other.classes)}, but {text.rated} has {', '.join(rated.classes)}; "
                f"a network is "
                "used again for the same labels only"
            )
    check_labels(study, rated)
    parts = split(study, rated)
    stop = STOP_WORDS[text.stop_words]
    tokenised = {name: [tokens(one, stop) for one in domain.texts] for name, domain in {"": rated, **others}.items()}
    if text.unlabelled:
        lines = [tokens(line, stop) for line in read_unlabelled(Path(text.unlabelled).expanduser())]
    else:
        lines = [tokenised[""][i] for i in parts["unlabelled"]]
    words = vocabulary([*(one for some in tokenised.values() for one in some), *lines])
    encoded = {name: encode(some, words) for name, some in tokenised.items()}
    unlabelled = encode(lines, words)
    if few := [size for size in study.vectors.sizes if size > len(lines)]:
        raise ValueError(
            f"vectors.sizes = {few[0]}, but there are {len(lines)} sentences to learn words from; lower it"
            + ("" if text.unlabelled else ", or text.test, text.validation and text.pool, which take the others")
        )
    labelled = {name: _labelled(encoded[name], domain) for name, domain in {"": rated, **others}.items()}
    hashed = hashlib.sha256("\n".join(words.words).encode())
    for name, part in labelled.items():
        hashed.update(name.encode() + part.rows.x.tobytes() + part.rows.y.tobytes())
    hashed.update(unlabelled.tobytes())
    return Corpus(
        words,
        rated.classes,
        labelled[""].take(parts["test"]),
        labelled[""].take(parts["validation"]),
        labelled[""].take(parts["pool"]),
        unlabelled,
        {name: part.take(np.flatnonzero(part.rows.y >= 0)) for name, part in labelled.items() if name},
        hashed.hexdigest(),
    )


def _labelled(x: np.ndarray, domain: Rated) -> Labelled:
    return Labelled(Rows(x, domain.labels.astype(np.int32)), domain.documents)


def check_labels(study: Study, rated: Rated) -> None:
    """Refuses labels or held-out sentences too few for the classes, or sentences too few for the split."""
    classes = len(rated.classes)
    for name, sizes in (("labels", study.labels), ("domains.labels", study.domains.labels)):
        if few := [size for size in sizes if size < classes]:
            raise ValueError(
                f"{name} = {few[0]}, but there are {classes} classes ({', '.join(rated.classes)}); expected at least one label a "
                "class"
            )
    text = study.text
    held = getattr(text, text.held_out)
    if classes > held:
        raise ValueError(
            f"text.{text.held_out} = {held}, but there are {classes} classes ({', '.join(rated.classes)}), and as many clusters "
            "are made of those sentences; raise it"
        )
    need, there = text.test + text.validation + text.pool, int((rated.labels >= 0).sum())
    if need > there:
        raise ValueError(
            f"text.test + text.validation + text.pool = {need}, but {text.rated} has {there} labelled sentences; lower them"
        )


def split(study: Study, rated: Rated) -> dict[str, np.ndarray]:
    """{"test", "validation", "pool", "unlabelled": which sentences}; no document is in two of them.

    Raises:
      ValueError: there are not enough documents, or the pool lacks a class.
    """
    text = study.text
    random = np.random.default_rng([study.seed, 0x5EED])
    documents = np.arange(len(rated.texts)) if rated.documents is None else rated.documents
    place = random.permutation(documents.max() + 1)[documents]  # of each sentence's document, in a random order
    upto = np.concatenate([[0], np.cumsum(np.bincount(place, weights=rated.labels >= 0))])
    parts, first = {}, 0
    for name in ("test", "validation", "pool"):
        size = getattr(text, name)
        last = int(np.searchsorted(upto, upto[first] + size))  # the first documents with so many labels
        if last == len(upto):
            raise ValueError(
                f"text.{name} = {size}, but too few documents of {text.rated} are left for that, as they are kept whole; lower it"
            )
        inside = np.flatnonzero((first <= place) & (place < last) & (rated.labels >= 0))
        parts[name], first = np.sort(random.permutation(inside)[:size]), last
    parts["unlabelled"] = np.flatnonzero(place >= first)
    if lacking := set(range(len(rated.classes))) - set(rated.labels[parts["pool"]].tolist()):
        raise ValueError(
            f"the pool of {text.pool} sentences has none of the class {rated.classes[min(lacking)]!r}; raise text.pool"
        )
    return parts
