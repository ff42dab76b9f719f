"""The settings of a decision benchmark: pairs of source and target, target sizes, and how every network is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.config import Config, Data, Decision, Model, Training, TwoSample, load_as
from experiments.config import check as check_run

# Settings that a second command may change: it then goes on, with more or fewer cells.
NOT_THE_BENCHMARK = (
    "name",
    "pairs",
    "sizes",
    "epochs",
    "batch_sizes",
    "seeds",
    "data_dir",
    "tables",
    "from_tables",
    "workers",
)


@dataclass(frozen=True)
class Pair:
    """A source and a target."""

    name: str = "digits halves"
    source: Data | None = field(default_factory=Data)
    """What the network is trained on; none: only its weights are known."""
    target: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    sizes: tuple[int, ...] = ()
    """Target sizes, some of the benchmark's; empty: all."""
    augment: bool = True
    """Images: whether ways that augment are compared too."""


@dataclass(frozen=True)
class Benchmark:
    """Cells = (pair, labelled target rows, seed)."""

    name: str = "decision_benchmark"
    pairs: tuple[Pair, ...] = ()
    sizes: tuple[int, ...] = (50, 200, 1000)
    """Labelled rows of the target, validation rows among them."""
    epochs: tuple[int, ...] = (60, 40, 20)
    """Of training on the target at each size."""
    batch_sizes: tuple[int, ...] = (16, 32, 64)
    """Rows a step at each size."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the source network, the draw of target rows, and training on them."""
    test_limit: int = 2000
    pretrain: Training = field(default_factory=Training)
    train: Training = field(default_factory=Training)
    """Epochs, rows a step, and patience (a third of the epochs) aside; its one learning rate is that of new layers."""
    test: TwoSample = field(default_factory=TwoSample)
    decision: Decision = field(default_factory=Decision)
    """Thresholds of the rules, and where the margin of a verdict comes from."""
    data_dir: str = "data"
    tables: str = ""
    """Where the tables of finished cells are written; empty: "tables" in the work directory."""
    from_tables: bool = False
    """Only make the report of the tables that are there."""
    workers: int = 2
    """Cells side by side."""


def load(argv: Sequence[str]) -> tuple[Benchmark, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`; see `experiments.config.load_as`."""
    return load_as(Benchmark, check, argv)


def check(benchmark: Benchmark) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    for name in ("pairs", "sizes", "seeds"):
        values = getattr(benchmark, name)
        if not values or len({*values}) < len(values):
            raise ValueError(f"{name} = {values}; expected one or more, all different")
    if len(benchmark.pairs) < 2:
        raise ValueError("pairs has one pair; expected two or more: thresholds for one are learned on the others")
    decision = benchmark.decision
    if decision.regime or decision.assume or decision.frozen or decision.num_frozen is not None:
        raise ValueError(
            "decision.regime, .assume, .frozen and .num_frozen choose one plan; the benchmark asks every rule"
        )
    for name in ("epochs", "batch_sizes"):
        values = getattr(benchmark, name)
        if len(values) != len(benchmark.sizes):
            raise ValueError(f"{name} = {values}; expected one for each of sizes = {benchmark.sizes}")
    if len({pair.name for pair in benchmark.pairs}) < len(benchmark.pairs):
        raise ValueError("two pairs have the same name; the name of a pair tells its cells from others")
    if len(benchmark.train.learning_rates) != 1:
        raise ValueError(
            f"train.learning_rates = {benchmark.train.learning_rates}; expected one: a grid would make each way another search"
        )
    for pair in benchmark.pairs:
        if unknown := [size for size in pair.sizes if size not in benchmark.sizes]:
            raise ValueError(f"pair {pair.name!r} has size {unknown[0]}, which is not among sizes = {benchmark.sizes}")
        if pair.source is None and not pair.model.weights:
            raise ValueError(f"pair {pair.name!r} has neither a source nor model.weights; there is nothing to reuse")
        for size in sizes_of(benchmark, pair):
            check_run(run_of(benchmark, pair, size, benchmark.seeds[0]))


def sizes_of(benchmark: Benchmark, pair: Pair) -> tuple[int, ...]:
    """The target sizes of a pair."""
    return pair.sizes or benchmark.sizes


def run_of(benchmark: Benchmark, pair: Pair, size: int, seed: int) -> Config:
    """One cell as a config of the main job."""
    place = benchmark.sizes.index(size)
    epochs = benchmark.epochs[place]
    return Config(
        name=f"{pair.name} {size} {seed}",
        source=pair.source,
        target=replace(pair.target, limit=size, test_limit=benchmark.test_limit),
        model=pair.model,
        test=benchmark.test,
        decision=benchmark.decision if pair.source else replace(benchmark.decision, margin=None, margin_from=""),
        pretrain=benchmark.pretrain,
        train=replace(
            benchmark.train, epochs=epochs, patience=max(epochs // 3, 1), batch_size=benchmark.batch_sizes[place]
        ),
        seed=seed,
        data_dir=benchmark.data_dir,
    )
