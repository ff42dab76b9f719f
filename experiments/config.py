"""The settings of an experiment, and how a command line becomes them.

A config is a Python file that defines `config = Config(...)`; every field can be set again on the command line:

    python -m experiments.transfer --config configs/quickstart.py --train.epochs 5
"""

import argparse
import math
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro


@dataclass(frozen=True)
class Data:
    """One labelled data set, and which part of it."""

    name: str = "digits"
    """digits | mnist | fashion_mnist | cifar10 | tfds:NAME[/config][:version] | folder:PATH | npz:PATH"""
    classes: tuple[str, ...] = ()
    """Names or indices of the classes to keep, renumbered from 0 in this order; empty: all."""
    part: tuple[int, int] | None = None
    """(i, k): the i-th of k disjoint random parts of the rows (of each split), for null controls."""
    limit: int | None = None
    """At most so many training rows, stratified by class."""
    test_limit: int | None = None
    """At most so many test rows, stratified by class."""
    test_fraction: float = 0.25
    """Where the data have no test split: the share of rows (or of groups) split off once."""
    size: tuple[int, int] | None = None
    """Resize images to (height, width)."""
    train_split: str = "train"
    test_split: str = "test"
    """Names of the splits, for tfds; a test_split that does not exist is split off `train_split`."""
    image_key: str = "image"
    label_key: str = "label"
    group_key: str = ""
    """The field that names the group (writer, document, …) of a row, for tfds and npz; groups are never split."""


@dataclass(frozen=True)
class Model:
    """The network, and where its weights come from."""

    name: str = "cnn8"
    """cnn8 | mlp; ignored where `factory` is given"""
    width: int = 16
    """cnn8: channels of the first convolution."""
    hidden: tuple[int, ...] = (128,)
    """mlp: sizes of the hidden layers."""
    factory: str = ""
    """Your own network: "package.module:function"; called as function(num_classes)."""
    layers: tuple[str, ...] = ()
    """Names (path prefixes of the parameters) of your network's layers, in order; empty: as they are called."""
    weights: str = ""
    """Restore these weights instead of pretraining: .npz, .safetensors, or an Orbax folder."""
    mean: tuple[float, ...] = ()
    """Preprocessing: pixels / 255, minus this mean a channel (empty: 0), …"""
    std: tuple[float, ...] = ()
    """… divided by this standard deviation a channel (empty: 1). For rows that are not images: no division by 255."""


@dataclass(frozen=True)
class TwoSample:
    """The test of P = Q."""

    alpha: float = 0.05
    permutations: int = 999
    resampling: Literal["permutation", "wild_bootstrap"] = "permutation"
    bandwidth: float | None = None
    """Of the Gaussian kernel; none: the median distance of the pooled rows."""
    max_rows: int = 1000
    """At most so many rows of each sample."""
    pooling: Literal["mean", "flatten"] = "mean"
    """How a feature map [H, W, C] becomes a vector: mean over H and W, or all of it."""


@dataclass(frozen=True)
class Decision:
    """From the evidence to a plan."""

    rule: str = "quadrant"
    """patent | quadrant"""
    regime: str = ""
    """Skip the rule: linear_probe | finetune_top | finetune_all | lp_ft | from_scratch"""
    representation: str = "inputs"
    """Where the deciding test looks: inputs, or the name of a layer."""
    assume: Literal["similar", "different"] | None = None
    """Your own assumption, used (and recorded as such) instead of a test."""
    small: int = 5000
    """patent: a target with fewer training rows is small, …"""
    large: int = 10000
    """… with more than this, large; see `mmd_jax.transfer.decision` for what lies between."""
    small_per_class: int = 1000
    """quadrant: a target with fewer training rows a class is small."""
    pretrained_rate: float = 0.1
    """Learning rate of pretrained layers, as a share of that of new ones."""
    num_frozen: int | None = None
    """finetune_top: how many leading layers to freeze; none: the rule's own choice."""


@dataclass(frozen=True)
class Training:
    """How a network is trained; the same settings serve reuse and from-scratch."""

    epochs: int = 30
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (3e-3, 1e-3)
    """The grid; each arm keeps the rate with the lowest validation loss."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    """Global norm at which gradients are clipped; 0: not at all."""
    validation_fraction: float = 0.2
    patience: int = 5
    """Stop after so many epochs without a better validation loss."""
    precision: Literal["float32", "bfloat16"] = "float32"
    cache_limit_mb: float = 1024.0
    """Outputs of a frozen prefix are kept if they need no more than this."""


@dataclass(frozen=True)
class Config:
    """One run: measure, test, decide, fine-tune, report."""

    name: str = "quickstart"
    source: Data | None = field(default_factory=Data)
    """The data the network was trained on; none: only its weights are known."""
    target: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    test: TwoSample = field(default_factory=TwoSample)
    decision: Decision = field(default_factory=Decision)
    pretrain: Training = field(default_factory=Training)
    train: Training = field(default_factory=Training)
    seed: int = 0
    data_dir: str = "data"
    """Where `make data` put the real data sets."""
    checkpoint_seconds: float = 10.0
    """Write a checkpoint at most this often."""
    until: Literal["plan", "report"] = "report"
    """plan: stop after the decision, with the estimated cost of each regime."""


def load(argv: Sequence[str]) -> tuple[Config, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`.

    Args:
      argv: the arguments after the program's name.

    Returns:
      The checked settings, and the work directory (default: runs/NAME).

    Raises:
      ValueError: if the file defines no Config, or a value is out of its range.
      FileNotFoundError: if there is no such file.
      SystemExit: on a misspelt field (with the nearest name), or --help.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--workdir", type=Path)
    known, fields = parser.parse_known_args(argv)
    if known.config is None and not {"-h", "--help"} & set(fields):
        raise ValueError("--config is missing; name a file, for example --config configs/quickstart.py")
    default = read(known.config) if known.config else Config()
    config = tyro.cli(
        Config,
        args=fields,
        default=default,
        prog="--config FILE [--workdir DIR]",
        description="Every field of the config can be set here.",
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    check(config)
    return config, known.workdir or Path("runs") / config.name


def read(path: Path) -> Config:
    """The `config` that a Python file defines. The file is the user's own code and is run."""
    if not path.is_file():
        there = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) or "no .py file"
        raise FileNotFoundError(f"no config at {path}; in {path.parent} there is {there}")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Config):
        raise ValueError(f"{path} must define config = Config(...), but config is {type(config).__name__}")
    return config


def from_json(section: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a section as they were before JSON turned its tuples into lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def check(config: Config) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    problems = []

    def expect(holds: bool, name: str, value: object, expected: str) -> None:
        if not holds:
            problems.append(f"{name} = {value!r}; expected {expected}")

    test, decision = config.test, config.decision
    expect(0 < test.alpha < 1, "test.alpha", test.alpha, "a level between 0 and 1")
    expect(test.permutations >= 1, "test.permutations", test.permutations, "at least 1")
    if 0 < test.alpha < 1 and test.permutations >= 1:
        least = f"at least 1 / (permutations + 1) = {1 / (test.permutations + 1):.4g}, below which nothing is ever rejected"
        expect(test.alpha * (test.permutations + 1) >= 1, "test.alpha", test.alpha, least)
    expect(test.bandwidth is None or 0 < test.bandwidth < math.inf, "test.bandwidth", test.bandwidth, "a positive number")
    expect(test.max_rows >= 2, "test.max_rows", test.max_rows, "at least 2")
    expect(0 < decision.small <= decision.large, "decision.small", decision.small, "0 < small <= large")
    expect(decision.small_per_class > 0, "decision.small_per_class", decision.small_per_class, "a positive number of rows")
    expect(decision.pretrained_rate > 0, "decision.pretrained_rate", decision.pretrained_rate, "a positive share")
    for name, training in (("pretrain", config.pretrain), ("train", config.train)):
        expect(training.epochs >= 1, f"{name}.epochs", training.epochs, "at least 1")
        expect(training.batch_size >= 1, f"{name}.batch_size", training.batch_size, "at least 1")
        rates = training.learning_rates
        expect(len(rates) > 0 and min(rates, default=0) > 0, f"{name}.learning_rates", rates, "one or more positive numbers")
        expect(0 < training.validation_fraction < 1, f"{name}.validation_fraction", training.validation_fraction, "0 … 1")
        expect(training.patience >= 1, f"{name}.patience", training.patience, "at least 1")
        expect(training.weight_decay >= 0, f"{name}.weight_decay", training.weight_decay, "0 or more")
        expect(training.clip_norm >= 0, f"{name}.clip_norm", training.clip_norm, "0 (no clipping) or more")
    for name, data in (("source", config.source), ("target", config.target)):
        if data is not None:
            expect(0 < data.test_fraction < 1, f"{name}.test_fraction", data.test_fraction, "0 … 1")
            expect(data.limit is None or data.limit >= 2, f"{name}.limit", data.limit, "at least 2 rows")
    if config.source is None and not config.model.weights:
        problems.append("source is none and model.weights is empty; give the data to pretrain on, or weights to restore")
    expect(config.checkpoint_seconds >= 0, "checkpoint_seconds", config.checkpoint_seconds, "0 or more")
    if problems:
        raise ValueError("; ".join(problems))
