"""One draw: which sentences are labelled and which are read, the vectors, and the networks of every number of labels."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import workdir
from experiments.cells import Cell
from experiments.clusters import agreement, clustered
from experiments.text.glove import read_glove
from experiments.words.classifiers import WORDS, begin, network_of, train
from experiments.words.corpus import Corpus
from experiments.words.settings import NOT_THE_STUDY, Study
from experiments.words.vectors import Words, fresh, kept, learn, standardised
from mmd_jax.models.skipgram import PADDING
from mmd_jax.transfer.inference import in_batches
from mmd_jax.types import Rows

VERSION = 1  # raised where a change here changes a network's numbers
NONE, GLOVE, ALL = "none", "glove", "all"


class Task(NamedTuple):
    """One source of words in one draw; what a cell of the grid stands for.

    Attributes:
      source: "none", a number of unlabelled sentences, "all", or "glove".
      draw: from 0.
    """

    source: str
    draw: int

    @property
    def name(self) -> str:
        """Unique in the study."""
        return f"words {self.source} / draw {self.draw}"


def sources(study: Study) -> list[str]:
    """Where words come from, in the order of the tables."""
    sizes = [ALL if size == 0 else str(size) for size in study.vectors.sizes]
    return [NONE, *sizes, *([GLOVE] if study.glove else [])]


def tasks(study: Study) -> list[Task]:
    """Draw after draw, so that a study that was stopped has whole draws."""
    return [Task(source, draw) for draw in range(study.draws) for source in sources(study)]


def cell_of(study: Study, task: Task, corpus: Corpus) -> Cell:
    """The task as a cell of a grid; its row is used again only for the very settings and sentences it was made with."""
    settings = {name: value for name, value in workdir.plain(study).items() if name not in NOT_THE_STUDY}
    about = json.dumps([settings, study.labels, study.regimes, corpus.digest, VERSION], sort_keys=True)
    fingerprint = hashlib.sha256(about.encode()).hexdigest()[:12]
    cost = {NONE: 0.6, GLOVE: 1.0, ALL: 1.0}.get(
        task.source, 1.0 + int(task.source) / 500 if task.source.isdigit() else 1
    )
    return Cell(task.name, {**task._asdict(), "study": fingerprint}, cost)


def rate(study: Study, task: Task, corpus: Corpus, directory: Path) -> dict[str, Any]:
    """Trains and tests the networks of one cell.

    Returns:
      {"results": [{"labels", "regime", "accuracy", "hits"}]}: the hits of all test sentences, in order, as bits in
      hexadecimal. Of a source also "coverage": the share of the test sentences' words that it knows; and, once for each
      different vectors, "ari" and "nmi" of `clusters`.
    """
    held = corpus.held[study.text.held_out].rows
    words = None if task.source == NONE else source_words(study, task, corpus, directory)
    new = fresh([study.seed, task.draw, 1], corpus.num_words, study.vectors.dim)
    results = []
    for size in study.labels:
        rows = labelled_rows(study, corpus, task.draw, size)
        for regime in ("scratch",) if words is None else study.regimes:
            seed = int(np.random.default_rng([study.seed, task.draw, 2]).integers(2**31))
            start = begin(regime, rows, new, words, words_rate=study.fit.words_rate)
            found = train(study.fit, seed, rows, len(corpus.classes), **start._asdict())
            hits = found.predict(held.x) == held.y
            results.append({"labels": size, "regime": regime, "accuracy": float(hits.mean()), "hits": as_hex(hits)})
    row: dict[str, Any] = {"results": results}
    if words is not None:
        row["coverage"] = float(words.known[held.x[held.x > 0]].mean())
        if task.draw < distinct(study, task.source):
            row |= clusters(words, held, len(corpus.classes), task.draw)
    return row


def distinct(study: Study, source: str) -> int:
    """How many different vectors the draws of a source have; those after that have them again."""
    return {GLOVE: 1, ALL: study.vectors.copies}.get(source, study.draws)


def clusters(words: Words, rows: Rows, num_classes: int, seed: int) -> dict[str, float]:
    """How well k-means on the sentence vectors alone finds the classes, as many clusters as classes.

    Returns:
      {"ari": adjusted Rand index, "nmi": normalised mutual information}, 0 where it finds nothing, 1 at best.
    """
    network = network_of(num_classes, len(words.table), words.table.shape[1], 1)
    params = {"params": {WORDS: {"vectors": words.table}}}
    x = np.where(words.known[rows.x], rows.x, PADDING)
    vectors = in_batches(lambda batch: network.apply(params, batch, stop=1)[0], x)
    return agreement(rows.y, clustered(vectors, num_classes, seed=seed, restarts=4))


def labelled_rows(study: Study, corpus: Corpus, draw: int, size: int) -> Rows:
    """`size` labelled sentences of the pool, as many of each class (up to one); a draw's larger sets hold its smaller ones."""
    return balanced(corpus.pool.rows, len(corpus.classes), size, [study.seed, draw, 3])


def balanced(rows: Rows, num_classes: int, size: int, seed: list[int]) -> Rows:
    """`size` random rows, the classes in turn; where one is used up, the others go on."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows.y))
    turn = np.empty(len(order), int)
    for label in range(num_classes):
        of_class = rows.y[order] == label
        turn[of_class] = np.arange(of_class.sum()) * num_classes + label
    chosen = order[np.argsort(turn, kind="stable")][:size]
    return Rows(rows.x[chosen], rows.y[chosen])


def source_words(study: Study, task: Task, corpus: Corpus, directory: Path) -> Words:
    """The word vectors that a task copies."""
    if task.source == GLOVE:
        return _glove(study.data_dir, corpus.words.words)
    settings = study.vectors
    sizes = [ALL if size == 0 else str(size) for size in settings.sizes]
    number = sizes.index(task.source)
    about = {"min_count": settings.min_counts[number], "epochs": settings.epochs[number]}
    x = corpus.unlabelled
    if task.source != ALL:
        chosen = np.random.default_rng([study.seed, task.draw, 4]).permutation(len(x))[: int(task.source)]
        return learn(settings, [study.seed, task.draw, 5], x[np.sort(chosen)], corpus.num_words, **about)
    copy = task.draw % settings.copies
    return all_words(study, corpus, directory, copy, **about)


def source_of_all(study: Study, corpus: Corpus, directory: Path) -> Words:
    """The vectors of the largest source: GloVe's where it is one, else those of the most sentences (of draw 0)."""
    return source_words(study, Task(sources(study)[-1], 0), corpus, directory)


def all_words(study: Study, corpus: Corpus, directory: Path, copy: int, *, min_count: int, epochs: int) -> Words:
    """Vectors of all unlabelled sentences; trained once a copy and kept, with their words."""
    about = {"vectors": study.vectors, "seed": study.seed, "copy": copy, "corpus": corpus.digest}
    about |= {"min_count": min_count, "epochs": epochs}

    def make() -> Words:
        seed = [study.seed, copy, 6]
        return learn(study.vectors, seed, corpus.unlabelled, corpus.num_words, min_count=min_count, epochs=epochs)

    return kept(directory / "vectors", about, make, corpus.words.words)


@lru_cache(maxsize=4)
def _glove(data_dir: str, words: tuple[str, ...]) -> Words:
    vectors, known = read_glove(Path(data_dir).expanduser(), words)
    if not known.any():
        raise ValueError("GloVe knows none of the words of these sentences; set glove to False")
    pad = np.zeros((1, vectors.shape[1]), np.float32)
    return standardised(Words(np.concatenate([pad, vectors]), np.concatenate([[False], known])))


def as_hex(hits: np.ndarray) -> str:
    """Bits, eight to a byte, in hexadecimal."""
    return np.packbits(hits).tobytes().hex()


def from_hex(text: str, num: int) -> np.ndarray:
    """The `num` hits of `as_hex`.

    >>> from_hex(as_hex(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:num].astype(bool)
