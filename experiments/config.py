"""The settings of an experiment, and how a command line becomes them.

A config is a Python file that defines `config = Config(...)`; every field can be set again on the command line:

    python -m experiments.transfer --config configs/quickstart.py --train.epochs 5
"""

import argparse
import difflib
import math
import runpy
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Data:
    """One labelled data set, and which part of it."""

    name: str = "digits"
    """digits | mnist | fashion_mnist | cifar10 | tfds:NAME[/config][:version] | folder:PATH | npz:PATH | csv:PATH | parquet:PATH
    | sentences:NAME (movie, amazon, tweets, nyt or a file, as mean GloVe vectors). A relative PATH of a table is looked for in
    `data_dir` too."""
    classes: tuple[str, ...] = ()
    """Names or indices of the classes to keep, renumbered from 0 in this order; empty: all."""
    part: tuple[int, int] | None = None
    """(i, k): the i-th of k disjoint random parts of the rows (of each split), for null controls."""
    limit: int | None = None
    """At most so many training rows, stratified by class."""
    test_limit: int | None = None
    """At most so many test rows, stratified by class."""
    per_class: int | None = None
    """Just so many training rows of each class."""
    test_per_class: int | None = None
    """Just so many test rows of each class."""
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
    """The field that names the group (writer, document, …) of a row, for tfds, npz and tables; groups are never split. Several
    columns of a table, with commas between them, name a group together."""
    label_above: float | None = None
    """Tables: the label is whether the number in column `label_key` is above this."""
    where: tuple[str, ...] = ()
    """Tables: conditions that the rows must fulfil, such as origin=EWR or month<=6 (= != < <= > >=)."""
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    """Tables: the features that are numbers, and those that are names. Both empty: all columns but the label, the group and
    those in `drop`, each by its values. A target has the source's features."""
    drop: tuple[str, ...] = ()
    """Tables: columns that are no features: what is known too late, or names a row."""
    max_categories: int = 64
    """Tables: so many values of a column keep a category of their own; the others share one."""


@dataclass(frozen=True)
class Model:
    """The network, and where its weights come from."""

    name: str = "cnn8"
    """cnn8 | mlp | efficientnet_lite0 | vgg16 | vgg19 | inception_v3 | mobilenet | mobilenet_v2 | resnet50, unless `factory`"""
    width: int = 16
    """cnn8: channels of the first convolution."""
    hidden: tuple[int, ...] = (128,)
    """mlp: sizes of the hidden layers."""
    embedding: int = 8
    """mlp on tables: numbers that stand for a category in the layer "embed"."""
    factory: str = ""
    """Your own network: "package.module:function"; called as function(num_classes)."""
    layers: tuple[str, ...] = ()
    """Names (path prefixes of the parameters) of your network's layers, in order; empty: as they are called."""
    weights: str = ""
    """Restore these weights instead of pretraining: .npz, .safetensors, .pth, .h5, .keras, an Orbax folder; or imagenet."""
    mean: tuple[float, ...] = ()
    """Preprocessing: pixels / 255, minus this mean a channel (empty: 0, or the published network's own), …"""
    std: tuple[float, ...] = ()
    """… divided by this standard deviation a channel (empty: 1). For rows that are not images: no division by 255."""
    categories: tuple[int, ...] = ()
    """The last columns of a row are codes, each of so many categories; left empty, a table's own map says."""


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

    rule: str = "evidence"
    """evidence | patent | quadrant | audit (try every way within the budget of `audit`, and take the best)"""
    regime: str = ""
    """Skip the rule: linear_probe | finetune_top | finetune_all | lp_ft | from_scratch"""
    representation: str = "inputs"
    """Where the deciding test looks: inputs, or the name of a layer."""
    similarity: Literal["pvalue", "verdict"] | None = None
    """What calls the two similar: P = Q is not rejected, or MMD is below a margin; none: the latter where there is one."""
    margin: float | None = None
    """The least MMD that matters, in kernel units at `test.bandwidth`; …"""
    margin_from: str = ""
    """… or what it is calibrated from: classes | groups (halves of the source's) | blur:WIDTH (the source, blurred)."""
    assume: Literal["similar", "different"] | None = None
    """Your own assumption, used (and recorded as such) instead of a test."""
    small: int = 5000
    """patent: a target with fewer training rows is small, …"""
    large: int = 10000
    """… with more than this, large; see `mmd_jax.transfer.decision` for what lies between."""
    small_per_class: int = 1000
    """quadrant: a target with fewer training rows a class is small."""
    pretrained_rate: float = 0.1
    """Learning rate of pretrained layers, as a share of that of new ones; the rule evidence has its own."""
    layer_decay: float = 1.0
    """… and of each of them, as a share of that of the one above it (discriminative rates)."""
    augment: bool | None = None
    """Whether images are augmented (`train.augment` says how); none: as the rule has it."""
    num_frozen: int | None = None
    """finetune_top: how many leading layers to freeze; none: the rule's own choice."""
    frozen: tuple[str, ...] = ()
    """finetune_top: the names of the layers to freeze, wherever they are, instead."""


@dataclass(frozen=True)
class Augment:
    """What is done to images in training, where the plan asks for it; drawn anew in every step."""

    flip: bool = False
    """Mirror left to right with probability 1/2; for classes that a mirror leaves as they are."""
    crop: float = 0.125
    """Move by up to this share of the sides."""
    colour: float = 0.2
    """Change brightness, contrast and saturation by up to this share."""
    mixup: float = 0.2
    """α of the share in which images and labels are mixed in pairs; 0: they are not."""


@dataclass(frozen=True)
class Training:
    """How a network is trained; the same settings serve reuse and from-scratch."""

    epochs: int = 30
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (3e-3, 1e-3)
    """The grid; each arm keeps the rate with the lowest validation loss."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    """Of sgd; 0: none."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate over the epochs; cosine falls to 0."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate first rises from 0."""
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    """Global norm at which gradients are clipped; 0: not at all."""
    validation_fraction: float = 0.2
    patience: int = 5
    """Stop after so many epochs without a better validation loss."""
    precision: Literal["float32", "bfloat16"] = "float32"
    cache_limit_mb: float = 1024.0
    """Outputs of a frozen prefix are kept if they need no more than this."""
    cache: Literal["auto", "always", "never"] = "auto"
    """Keep them; auto: but where the plan augments, augment; always: rather than augment; never."""
    augment: Augment = field(default_factory=Augment)


@dataclass(frozen=True)
class Audit:
    """What `experiments.audit`, and the rule audit, may spend on trying every way to reuse the network."""

    minutes: float | None = 5.0
    """Of training, all ways together; measured and turned into steps once. Compiling and testing come on top."""
    steps: int | None = None
    """Instead: so many steps of the whole network; a cheaper step counts by its FLOPs. Needs no clock."""
    eta: int = 3
    """Of the ways on a rung of the ladder, 1 / eta go on to the next, and are trained eta times as long."""


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
    audit: Audit = field(default_factory=Audit)
    seed: int = 0
    data_dir: str = "data"
    """Where `make data` put the real data sets."""
    checkpoint_seconds: float = 10.0
    """Write a checkpoint at most this often."""
    until: Literal["plan", "report"] = "report"
    """plan: stop after the decision, with the estimated cost of each regime."""


def load(argv: Sequence[str], *, suffix: str = "") -> tuple[Config, Path]:
    """`load_as` for the main job, and for others that read its config, whose default work directory is runs/NAME + suffix."""
    return load_as(Config, check, argv, suffix=suffix)


def load_as(
    kind: type[Settings], check: Callable[[Settings], None], argv: Sequence[str], *, suffix: str = ""
) -> tuple[Settings, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`.

    Args:
      kind: the dataclass that the file's `config` is one of; it has a `name`, and a default for every field.
      check: refuses values that can't be meant, by a ValueError.
      argv: the arguments after the program's name.
      suffix: of the default work directory's name.

    Returns:
      The checked settings, and the work directory (default: runs/NAME + suffix).

    Raises:
      ValueError: if the file defines no such config, a field is misspelt (with the nearest names), or a value is of another
        type or out of its range.
      FileNotFoundError: if there is no such file.
      SystemExit: on a value that can't be read, or --help.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--workdir", type=Path)
    known, changes = parser.parse_known_args(argv)
    if known.config is None and not {"-h", "--help"} & set(changes):
        raise ValueError("--config is missing; name a file, for example --config configs/quickstart.py")
    default = read(known.config, kind) if known.config else kind()
    check_flags(changes, default)
    config = tyro.cli(
        kind,
        args=changes,
        default=default,
        prog="--config FILE [--workdir DIR]",
        description="Every field of the config can be set here.",
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    check(config)
    return config, known.workdir or Path("runs") / (getattr(config, "name") + suffix)  # noqa: B009 (mypy: any dataclass)


def read(path: Path, kind: type[Settings]) -> Settings:
    """The `config` that a Python file defines. The file is the user's own code and is run."""
    if not path.is_file():
        there = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) or "no .py file"
        raise FileNotFoundError(f"no config at {path}; in {path.parent} there is {there}")
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:  # the user's code raises what it likes; a misspelt field is a TypeError
        raise ValueError(f"the config {path} can't be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, kind):
        found = f"config is {type(config).__name__}"
        other = "; another script reads it" if is_dataclass(config) else ""
        raise ValueError(f"{path} must define config = {kind.__name__}(...), but {found}{other}")
    for name, value, expected in _fields(kind, config):
        if not _fits(value, expected):
            said = str(expected).removeprefix("typing.") if get_args(expected) else expected.__name__
            raise ValueError(f"{path}: {name} = {value!r}; expected {said}")
    return config


def check_flags(argv: Sequence[str], settings: Any) -> None:
    """Refuses a flag that is no field of a dataclass, naming the nearest; in one line, where tyro would fill a page."""
    known = {f"--{name}".replace("_", "-") for name, _, _ in _fields(type(settings), settings)} | {"--help"}
    for flag in argv:
        name = flag.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists them"
            raise ValueError(f"there is no field {name}; {hint}")


def _fields(settings: Any, value: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value, type) of every field; those of a section that is none are left out."""
    for name, kind in get_type_hints(settings).items():
        inner = getattr(value, name)
        if is_dataclass(inner):
            yield from _fields(type(inner), inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner, kind


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type, of the kinds of types that stand in this file."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin in (types.UnionType, Union):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def from_json(section: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a section as they were before JSON turned its tuples into lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def wants_verdict(config: Config) -> bool:
    """Whether similarity is judged against a margin."""
    decision = config.decision
    return decision.similarity == "verdict" or (
        decision.similarity is None and (decision.margin is not None or decision.margin_from != "")
    )


def _is_margin_source(text: str) -> bool:
    name, colon, width = text.partition(":")
    if name != "blur":
        return text in ("", "classes", "groups")
    try:
        return colon == ":" and 0 < float(width) < math.inf
    except ValueError:
        return False


def check(config: Config) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    problems = []

    def expect(holds: bool, name: str, value: object, expected: str) -> None:
        if not holds:
            problems.append(f"{name} = {value!r}; expected {expected}")

    test, decision, inf = config.test, config.decision, math.inf
    expect(0 < test.alpha < 1, "test.alpha", test.alpha, "a level between 0 and 1")
    expect(test.permutations >= 1, "test.permutations", test.permutations, "at least 1")
    if 0 < test.alpha < 1 and test.permutations >= 1:
        least = 1 / (test.permutations + 1)
        nothing = f"at least 1 / (permutations + 1) = {least:.4g}, below which nothing is ever rejected"
        expect(test.alpha * (1 + 1e-6) >= least, "test.alpha", test.alpha, nothing)
    expect(test.bandwidth is None or 0 < test.bandwidth < inf, "test.bandwidth", test.bandwidth, "a positive number")
    expect(test.max_rows >= 2, "test.max_rows", test.max_rows, "at least 2")
    margin = decision.margin
    expect(margin is None or 0 < margin < inf, "decision.margin", margin, "a positive number")
    sources = "classes, groups, or blur:WIDTH with a width in pixels above 0"
    expect(_is_margin_source(decision.margin_from), "decision.margin_from", decision.margin_from, sources)
    if margin is not None and decision.margin_from:
        problems.append("decision.margin and decision.margin_from are both set; give one")
    if wants_verdict(config):
        if margin is None and not decision.margin_from:
            problems.append("decision.similarity = 'verdict' needs decision.margin or decision.margin_from")
        expect(
            test.alpha < 0.5,
            "test.alpha",
            test.alpha,
            "below 0.5, as each end of the verdict's interval has this level",
        )
        expect(test.max_rows >= 4, "test.max_rows", test.max_rows, "at least 4, which the verdict's interval needs")
        if config.source is None:
            problems.append("a margin judges the distance to the source, but source is none; leave decision.margin out")
        if margin is not None and test.bandwidth is None:
            problems.append("decision.margin is in units of the kernel, so test.bandwidth must be given with it")
    expect(0 < decision.small <= decision.large, "decision.small", decision.small, "0 < small <= large")
    expect(decision.small_per_class > 0, "decision.small_per_class", decision.small_per_class, "a positive number")
    rate = decision.pretrained_rate
    expect(0 < rate < inf, "decision.pretrained_rate", rate, "a positive share")
    if decision.frozen and decision.num_frozen is not None:
        problems.append("decision.frozen and decision.num_frozen are both set; give one")
    decay = decision.layer_decay
    expect(0 < decay <= 1, "decision.layer_decay", decay, "above 0, at most 1")
    expect(config.model.width >= 1, "model.width", config.model.width, "at least 1")
    expect(min(config.model.hidden, default=1) >= 1, "model.hidden", config.model.hidden, "sizes of at least 1")
    expect(config.model.embedding >= 1, "model.embedding", config.model.embedding, "at least 1")
    categories = config.model.categories
    expect(min(categories, default=1) >= 1, "model.categories", categories, "numbers of codes, each at least 1")
    for name, training in (("pretrain", config.pretrain), ("train", config.train)):
        expect(training.epochs >= 1, f"{name}.epochs", training.epochs, "at least 1")
        expect(training.batch_size >= 1, f"{name}.batch_size", training.batch_size, "at least 1")
        rates = training.learning_rates
        positive = len(rates) > 0 and all(0 < rate < inf for rate in rates)
        expect(positive, f"{name}.learning_rates", rates, "one or more positive numbers")
        # Each names a folder of checkpoints by six digits.
        expect(len({f"{rate:g}" for rate in rates}) == len(rates), f"{name}.learning_rates", rates, "different numbers")
        fraction = training.validation_fraction
        expect(0 < fraction < 1, f"{name}.validation_fraction", fraction, "a share between 0 and 1")
        expect(training.patience >= 1, f"{name}.patience", training.patience, "at least 1")
        expect(0 <= training.weight_decay < inf, f"{name}.weight_decay", training.weight_decay, "0 or more")
        expect(0 <= training.momentum < 1, f"{name}.momentum", training.momentum, "0 (none) or more, below 1")
        warmup = training.warmup_epochs
        expect(0 <= warmup <= training.epochs, f"{name}.warmup_epochs", warmup, f"0 … {name}.epochs")
        for part, most in (("crop", 0.5), ("colour", 1.0), ("mixup", inf)):
            value = getattr(training.augment, part)
            expect(0 <= value <= most, f"{name}.augment.{part}", value, f"0 … {most:g}" if most < inf else "0 or more")
        expect(0 <= training.clip_norm < inf, f"{name}.clip_norm", training.clip_norm, "0 (no clipping) or more")
        expect(training.cache_limit_mb >= 0, f"{name}.cache_limit_mb", training.cache_limit_mb, "0 (no cache) or more")
    for name, data in (("source", config.source), ("target", config.target)):
        if data is not None:
            fraction = data.test_fraction
            expect(0 < fraction < 1, f"{name}.test_fraction", fraction, "a share between 0 and 1")
            expect(data.limit is None or data.limit >= 2, f"{name}.limit", data.limit, "at least 2 rows")
            expect(data.max_categories >= 1, f"{name}.max_categories", data.max_categories, "at least 1")
    audit = config.audit
    if audit.minutes is None and audit.steps is None:
        problems.append("audit.minutes and audit.steps are both none; give one")
    expect(audit.minutes is None or 0 < audit.minutes < inf, "audit.minutes", audit.minutes, "a positive number")
    expect(audit.steps is None or audit.steps >= 1, "audit.steps", audit.steps, "at least 1")
    expect(audit.eta >= 2, "audit.eta", audit.eta, "at least 2")
    if config.source is None and not config.model.weights:
        problems.append("source is none and model.weights is empty; give data to pretrain on, or weights to restore")
    expect(0 <= config.seed < 2**32, "seed", config.seed, "0 … 2³² − 1")
    expect(config.checkpoint_seconds >= 0, "checkpoint_seconds", config.checkpoint_seconds, "0 or more")
    if problems:
        raise ValueError("; ".join(problems))
