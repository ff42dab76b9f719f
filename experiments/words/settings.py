"""The settings of a study of words to sentiment."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.config import load_as

Regime = Literal["frozen", "finetuned"]
# Settings that a second command may change without becoming another study.
NOT_THE_STUDY = ("name", "data_dir", "workers", "draws", "labels", "glove", "regimes", "domains")


@dataclass(frozen=True)
class Text:
    """Which sentences, and how they become words."""

    rated: str = "movie"
    """movie | amazon | tweets | nyt | embedded | embedded_products | FILE of label<TAB>text lines"""
    unlabelled: str = ""
    """A FILE of lines to learn words from; empty: what is left of the rated sentences, without their labels."""
    stop_words: Literal["english", "none"] = "english"
    """Words that are left out; "english" is scikit-learn's list without its negations."""
    test: int = 2000
    """Labelled sentences that every network is tested on."""
    validation: int = 1000
    """Labelled sentences to choose settings on; see `held_out`."""
    pool: int = 2500
    """Labelled sentences that the draws are taken from."""
    held_out: Literal["test", "validation"] = "test"
    """What accuracies are of; choose settings on "validation", so that test sentences stay unseen, other domains' too."""


@dataclass(frozen=True)
class Vectors:
    """Skip-gram with negative sampling on unlabelled sentences."""

    sizes: tuple[int, ...] = (62, 1000, 0)
    """Unlabelled sentences; 0: all there are."""
    min_counts: tuple[int, ...] = (1, 2, 2)
    """For each size: words that occur less often are left out."""
    epochs: tuple[int, ...] = (40, 10, 10)
    """For each size."""
    dim: int = 50
    window: int = 5
    """How many words apart two may stand to count as near."""
    noise_words: int = 5
    """Noise words a pair."""
    batch_size: int = 1024
    learning_rate: float = 0.01
    copies: int = 4
    """Trainings on all sentences, shared out among the draws; with fewer sentences each draw has its own."""


@dataclass(frozen=True)
class Fit:
    """How every sentence network is trained: a fixed number of epochs, whose last state counts."""

    hidden: int = 32
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.003
    words_rate: float = 0.1
    """Learning rate of copied word vectors, where they are fine-tuned, as a share of that of new layers."""
    weight_decay: float = 1e-4
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Domains:
    """The network of the rated sentences, used again on others."""

    names: tuple[str, ...] = ("amazon", "tweets", "nyt")
    """As `text.rated`; none: this part is left out."""
    labels: tuple[int, ...] = (32, 512)
    """Labelled sentences of the other domain."""
    draws: int = 20
    """Random choices of them."""
    rule: str = "quadrant"
    """patent | quadrant"""
    pretrained_rate: float = 0.1
    """Learning rate of pretrained layers, as a share of that of new ones."""
    alpha: float = 0.05
    permutations: int = 999
    max_rows: int = 1000
    """At most so many sentences of each side in a test."""


@dataclass(frozen=True)
class Study:
    """Word vectors from unlabelled sentences (or from GloVe), then few labels; beside the same network without."""

    name: str = "sentiment"
    text: Text = field(default_factory=Text)
    vectors: Vectors = field(default_factory=Vectors)
    fit: Fit = field(default_factory=Fit)
    domains: Domains = field(default_factory=Domains)
    labels: tuple[int, ...] = (8, 32, 128, 512)
    regimes: tuple[Regime, ...] = ("frozen", "finetuned")
    """What becomes of the copied word vectors."""
    glove: bool = True
    """Whether GloVe's vectors are one of the sources."""
    draws: int = 200
    """Random choices of labelled and unlabelled sentences."""
    alpha: float = 0.05
    """Level of the statements together (Holm), and 1 − that of the intervals."""
    seed: int = 0
    data_dir: str = "data"
    workers: int = 2
    """Threads that train side by side."""


def load(argv: Sequence[str]) -> tuple[Study, Path]:
    """The settings and the work directory, from the command line."""
    return load_as(Study, check, argv)


def check(study: Study) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    problems = []

    def expect(holds: bool, name: str, value: object, expected: str) -> None:
        if not holds:
            problems.append(f"{name} = {value!r}; expected {expected}")

    text, vectors, fit, domains, inf = study.text, study.vectors, study.fit, study.domains, math.inf
    expect(text.test >= 2, "text.test", text.test, "at least 2 sentences")
    expect(text.validation >= 0, "text.validation", text.validation, "0 or more")
    if text.held_out == "validation":
        expect(text.validation >= 2, "text.validation", text.validation, "at least 2, to choose settings on")
    numbers: tuple[tuple[str, tuple[int, ...], int], ...] = (
        ("labels", study.labels, 2),
        ("domains.labels", domains.labels, 2),
        ("vectors.sizes", vectors.sizes, 0),
        ("vectors.min_counts", vectors.min_counts, 1),
        ("vectors.epochs", vectors.epochs, 1),
    )
    for name, values, least in numbers:
        expect(min(values, default=least) >= least, name, values, f"numbers of at least {least}")
    for name, some in (("labels", study.labels), ("vectors.sizes", vectors.sizes), ("domains.names", domains.names)):
        expect(len(set(some)) == len(some), name, some, "different ones")
    expect(len(study.labels) > 0, "labels", study.labels, "at least one number")
    expect(text.pool >= max(study.labels, default=0), "text.pool", text.pool, f"at least labels = {study.labels}")
    for name, values in (("vectors.min_counts", vectors.min_counts), ("vectors.epochs", vectors.epochs)):
        expect(len(values) == len(vectors.sizes), name, values, f"one for each of vectors.sizes = {vectors.sizes}")
    for name in ("dim", "window", "noise_words", "batch_size", "copies"):
        expect(getattr(vectors, name) >= 1, f"vectors.{name}", getattr(vectors, name), "at least 1")
    for name in ("hidden", "epochs", "batch_size"):
        expect(getattr(fit, name) >= 1, f"fit.{name}", getattr(fit, name), "at least 1")
    for name, value in (
        ("vectors.learning_rate", vectors.learning_rate),
        ("fit.learning_rate", fit.learning_rate),
        ("fit.words_rate", fit.words_rate),
        ("domains.pretrained_rate", domains.pretrained_rate),
    ):
        expect(0 < value < inf, name, value, "a positive number")
    for name in ("weight_decay", "clip_norm"):
        expect(0 <= getattr(fit, name) < inf, f"fit.{name}", getattr(fit, name), "0 or more")
    dims = "50, which is what GloVe's have; or set glove to False"
    expect(not study.glove or vectors.dim == 50, "vectors.dim", vectors.dim, dims)
    expect(study.draws >= 2, "draws", study.draws, "at least 2, for an interval")
    expect(domains.draws >= 2, "domains.draws", domains.draws, "at least 2, for an interval")
    expect(domains.max_rows >= 4, "domains.max_rows", domains.max_rows, "at least 4")
    for name, value in (("alpha", study.alpha), ("domains.alpha", domains.alpha)):
        expect(0 < value < 0.5, name, value, "a level between 0 and 0.5")
    reach = 1 / (domains.permutations + 1) if domains.permutations >= 1 else inf
    expect(domains.alpha >= reach, "domains.permutations", domains.permutations, "at least 1 / domains.alpha − 1")
    expect(
        len(study.regimes) > 0 and len(set(study.regimes)) == len(study.regimes), "regimes", study.regimes, "one or two"
    )
    expect(bool(vectors.sizes) or study.glove, "vectors.sizes", vectors.sizes, "a size, or glove = True")
    expect(0 <= study.seed < 2**32, "seed", study.seed, "0 … 2³² − 1")
    expect(study.workers >= 1, "workers", study.workers, "at least 1")
    if problems:
        raise ValueError("; ".join(problems))
