"""The settings of a transferability study: which classes are halved, and how each network is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.config import Data, Model, load_as

Treatment = Literal["AnB", "BnB", "AnB+", "BnB+"]
Control = Literal["long", "random"]
# Settings that a second command may change without becoming another study: it then goes on, with more or fewer networks.
NOT_THE_STUDY = (
    "name",
    "splits",
    "dissimilar_splits",
    "seeds",
    "treatments",
    "controls",
    "cuts",
    "data_dir",
    "workers",
    "together",
)


@dataclass(frozen=True)
class Fit:
    """How every network is trained: a fixed number of epochs, whose last state counts."""

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.02
    """The highest, of the schedule."""
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "sgd"
    """sgd: with momentum 0.9, as in the original."""
    weight_decay: float = 5e-4
    clip_norm: float = 1.0
    """Global norm at which gradients are clipped; 0: not at all."""
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Distance:
    """The MMD between both halves' held-out rows, on each layer of a base."""

    permutations: int = 199
    max_rows: int = 500
    """At most so many rows of each half."""
    pooling: Literal["mean", "flatten"] = "mean"
    """How a feature map [H, W, C] becomes a vector: mean over H and W, or all of it."""


@dataclass(frozen=True)
class Study:
    """AnB, BnB, AnB+ and BnB+ at every cut, over splits of the classes and seeds."""

    name: str = "transferability"
    data: Data = field(default_factory=Data)
    """Whose classes are split into halves; its `classes` and `limit` stay empty, see below."""
    other: Data | None = None
    """A second data set, for dissimilar splits: half A from `data`, half B from this one."""
    splits: int = 5
    """Random splits of the classes of `data` into halves."""
    dissimilar_splits: int = 0
    """Splits by kind: half A from `kind_a`, half B from `kind_b` or from `other`."""
    kind_a: tuple[str, ...] = ()
    """The classes that half A is drawn from in a split by kind; empty: all of `data`, where there is an `other`."""
    kind_b: tuple[str, ...] = ()
    """The classes that half B is drawn from in a split by kind; empty: all of `other`."""
    seeds: int = 1
    """Networks of each kind a split and direction: their weights and the order of their batches."""
    images_per_class: int | None = None
    """Training rows of each class; none: all there are. Fewer of them give the reduced-data curve."""
    test_per_class: int | None = None
    """Test rows of each class; none: all."""
    treatments: tuple[Treatment, ...] = ("AnB", "BnB", "AnB+", "BnB+")
    controls: tuple[Control, ...] = ("long", "random")
    """long: a base trained for as long as base and transfer together; random: the first layers frozen as initialised."""
    cuts: tuple[int, ...] = ()
    """n: how many layers are copied; empty: 1 … L − 1."""
    copied_rate: float = 1.0
    """Learning rate of copied layers that are trained, as a share of that of new ones; 1 in the original."""
    keep: int = 0
    """Further layers above the cut that are copied too, but trained (AnB and BnB)."""
    model: Model = field(default_factory=Model)
    fit: Fit = field(default_factory=Fit)
    distance: Distance = field(default_factory=Distance)
    seed: int = 0
    data_dir: str = "data"
    workers: int | None = None
    """Networks trained side by side; none: one a device, or two on a CPU that has two cores or more."""
    together: int | None = None
    """Networks that one program trains as a batch; none: 1 on CPU, 16 elsewhere. A batch rounds otherwise than one alone."""


def load(argv: Sequence[str]) -> tuple[Study, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`; see `experiments.config.load_as`."""
    return load_as(Study, check, argv)


def check(study: Study) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    problems = []

    def expect(holds: bool, name: str, expected: str) -> None:
        if not holds:
            value = study
            for part in name.split("."):
                value = getattr(value, part)
            problems.append(f"{name} = {value!r}; expected {expected}")

    for name in ("splits", "dissimilar_splits", "keep"):
        expect(getattr(study, name) >= 0, name, "0 or more")
    expect(study.seeds >= 1, "seeds", "at least 1")
    if study.splits + study.dissimilar_splits < 1:
        problems.append("splits and dissimilar_splits are both 0; expected at least one split")
    for name in ("images_per_class", "test_per_class", "workers", "together"):
        expect(getattr(study, name) is None or getattr(study, name) >= 1, name, "at least 1")
    for name in ("treatments", "controls", "cuts"):
        values = getattr(study, name)
        expect(len(set(values)) == len(values), name, "each once")
    expect(min(study.cuts, default=1) >= 1, "cuts", "1 or more layers")
    expect(0 < study.copied_rate < math.inf, "copied_rate", "a positive share")
    for name, data in (("data", study.data), ("other", study.other)):
        if data is not None:
            for unused in ("classes", "limit", "test_limit", "per_class", "test_per_class"):
                expect(
                    getattr(data, unused) in ((), None),
                    f"{name}.{unused}",
                    "nothing: classes are halved here; use kind_a and kind_b, images_per_class, test_per_class",
                )
            expect(0 < data.test_fraction < 1, f"{name}.test_fraction", "a share between 0 and 1")
    if study.dissimilar_splits and study.other is None and not (study.kind_a and study.kind_b):
        problems.append(
            "dissimilar_splits needs kind_a and kind_b, the classes of each kind, or other, a second data set"
        )
    if study.other is None and (both := sorted({*study.kind_a} & {*study.kind_b})):
        problems.append(f"kind_a and kind_b share {', '.join(both)}; expected two kinds without a class in common")
    if study.other is not None and not study.dissimilar_splits:
        problems.append("other is given, but dissimilar_splits is 0; expected at least 1 split of data against other")
    fit, inf = study.fit, math.inf
    expect(fit.epochs >= 1, "fit.epochs", "at least 1")
    expect(fit.batch_size >= 1, "fit.batch_size", "at least 1")
    expect(0 < fit.learning_rate < inf, "fit.learning_rate", "a positive number")
    expect(0 <= fit.warmup_epochs <= fit.epochs, "fit.warmup_epochs", "0 … fit.epochs")
    expect(0 <= fit.weight_decay < inf, "fit.weight_decay", "0 or more")
    expect(0 <= fit.clip_norm < inf, "fit.clip_norm", "0 (no clipping) or more")
    expect(not study.model.weights, "model.weights", "nothing: a study trains its own networks")
    expect(study.model.width >= 1, "model.width", "at least 1")
    expect(min(study.model.hidden, default=1) >= 1, "model.hidden", "sizes of at least 1")
    expect(study.distance.permutations >= 1, "distance.permutations", "at least 1")
    expect(study.distance.max_rows >= 2, "distance.max_rows", "at least 2")
    expect(0 <= study.seed < 2**32, "seed", "0 … 2³² − 1")
    if problems:
        raise ValueError("; ".join(problems))
