"""The settings of the four pairings: one source, one target, and how each network is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.config import Data, Model, load_as

# Settings that a second command may change without becoming another experiment: it then goes on, with more or fewer cells.
NOT_THE_EXPERIMENT = ("name", "seeds", "labels", "data_dir")


@dataclass(frozen=True)
class Fit:
    """How a network is trained: a fixed number of epochs, whose last state counts; no label of the target chooses anything."""

    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 1e-3
    """The highest, of the schedule."""
    schedule: Literal["constant", "cosine"] = "cosine"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    """Global norm at which gradients are clipped; 0: not at all."""


@dataclass(frozen=True)
class Pairings:
    """Supervised and unsupervised source and target, in all four combinations, each beside the target without transfer."""

    name: str = "pairings"
    source: Data = field(default_factory=Data)
    """With labels where the pairing says supervised; without them else."""
    target: Data = field(default_factory=Data)
    """Brought to the source's format. Its training rows have `labels` labels, or none; its test rows are for accuracies."""
    seeds: int = 6
    """Each draws source rows, the split of the target, the labelled rows and the initial weights anew."""
    labels: tuple[int, ...] = (50, 200)
    """How many target rows are labelled where the target is supervised; one experiment each."""
    clusters: int | None = None
    """Of k-means, where the target is unsupervised; none: as many as the target has classes."""
    restarts: int = 10
    """Of k-means, from other centres; the one with the least spread is kept."""
    model: Model = field(default_factory=lambda: Model(width=8))
    """cnn8 or mlp. Its layers but the last are the encoder of the autoencoder too."""
    decoder: tuple[int, ...] = (256,)
    """Sizes of the hidden layers of the autoencoder's decoder."""
    weight: float = 1.0
    """Of MMD² beside the cross-entropy, in training with both (deep adaptation)."""
    adapted: tuple[str, ...] = ()
    """The layers that this MMD² is of; empty: those behind the base, the last one among them."""
    pretrain: Fit = field(default_factory=Fit)
    """On the source: the classifier, the autoencoder, and deep adaptation, whose steps are as many."""
    few: Fit = field(default_factory=lambda: Fit(epochs=120, batch_size=32))
    """On the target's labelled rows: with transfer and from scratch alike."""
    unlabelled: Fit = field(default_factory=lambda: Fit(epochs=20))
    """On the target's rows without labels: the autoencoder, from the source's or from scratch."""
    seed: int = 0
    """The first of the seeds."""
    data_dir: str = "data"


def load(argv: Sequence[str]) -> tuple[Pairings, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`; see `experiments.config.load_as`."""
    return load_as(Pairings, check, argv)


def check(settings: Pairings) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    problems = []

    def expect(holds: bool, name: str, expected: str) -> None:
        if not holds:
            value = settings
            for part in name.split("."):
                value = getattr(value, part)
            problems.append(f"{name} = {value!r}; expected {expected}")

    inf = math.inf
    expect(settings.seeds >= 2, "seeds", "at least 2, since the intervals are over seeds")
    labels = settings.labels
    expect(min(labels, default=0) >= 1 and len(set(labels)) == len(labels), "labels", "positive numbers, each once")
    expect(settings.clusters is None or settings.clusters >= 2, "clusters", "at least 2")
    expect(settings.restarts >= 1, "restarts", "at least 1")
    expect(min(settings.decoder, default=1) >= 1, "decoder", "sizes of at least 1")
    expect(0 <= settings.weight < inf, "weight", "0 or a positive number")
    model = settings.model
    expect(model.name in ("cnn8", "mlp"), "model.name", "cnn8 or mlp")
    expect(not model.factory, "model.factory", "nothing: the encoder is made of the layers of cnn8 or mlp")
    expect(not model.weights, "model.weights", "nothing: every network is trained here, on the source's rows")
    expect(model.width >= 1, "model.width", "at least 1")
    expect(len(model.hidden) >= 1 and min(model.hidden) >= 1, "model.hidden", "at least one size, each at least 1")
    for name in ("pretrain", "few", "unlabelled"):
        fit = getattr(settings, name)
        expect(fit.epochs >= 1, f"{name}.epochs", "at least 1")
        expect(fit.batch_size >= 2, f"{name}.batch_size", "at least 2")
        expect(0 < fit.learning_rate < inf, f"{name}.learning_rate", "a positive number")
        expect(0 <= fit.weight_decay < inf, f"{name}.weight_decay", "0 or more")
        expect(0 <= fit.clip_norm < inf, f"{name}.clip_norm", "0 (no clipping) or more")
    expect(0 <= settings.seed < 2**31, "seed", "0 … 2³¹ − 1")
    if problems:
        raise ValueError("; ".join(problems))
