"""The settings of an experiment, and how a command line becomes them.

A config is a Python file that defines `config = Config(...)`; every field can be set again on the command line:

    python -m experiments.transfer --config configs/quickstart.py --train.epochs 5
"""

from dataclasses import dataclass, field
from typing import Literal


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
    """The grid; each arm keeps the rate with the best validation accuracy."""
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
