"""Which strategy for how many labels? One trained network, three ways to reuse it and from-scratch, on growing target sets.

    python -m experiments.strategies --config configs/efficientnet_to_cifar10.py [--workdir DIR] [--field.sub value]

At each number of labels the base is frozen, some layers are frozen, or everything is trained; the same network is trained
from scratch beside them; and so is every plan that a rule would choose if source and target were similar, or different. All
are tested on the same rows, as pairs. The same command goes on where it was stopped.
"""

import functools
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import cells, evaluation, phases, workdir
from experiments.cells import Cell
from experiments.config import Config, Training, load_as
from experiments.config import check as check_run
from experiments.errors import reported
from experiments.fits import adapt, digest
from experiments.phases import Loaded, Networks
from experiments.report import strategies as report
from mmd_jax.intervals import paired_interval
from mmd_jax.transfer import decision
from mmd_jax.types import Plan, Similarity

VERSION = 1  # raised where the code changes the numbers of a cell
# Settings that a second command may change: it then goes on, with more or fewer cells.
NOT_THE_STUDY = ("name", "labels", "run.data_dir", "run.checkpoint_seconds")
ASSUMPTIONS = ("similar", "different")


@dataclass(frozen=True)
class Strategies:
    """The network and its target, and how each strategy trains."""

    name: str = "strategies"
    run: Config = field(default_factory=Config)
    """Data, model and rules, as in the main job; its `train` is replaced by one of the following."""
    labels: tuple[int, ...] = (400, 2000)
    """Training rows of the target, validation rows among them; each set is stratified by class."""
    frozen_share: float = 0.6
    """Train some, freeze the others: the share of the base's layers that are frozen."""
    probe: Training = field(default_factory=Training)
    """Where only the classifier is trained."""
    finetune: Training = field(default_factory=Training)
    """Where pretrained layers are trained too."""
    scratch: Training = field(default_factory=Training)
    """From scratch."""


class Choice(NamedTuple):
    """What a rule would choose at one number of labels, under one assumption."""

    rule: str
    assumed: str
    way: str


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        study, directory = load_as(Strategies, check, argv)
        run(study, directory, shlex.join(["python", "-m", "experiments.strategies", *argv]))


def check(study: Strategies) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    check_run(study.run)
    for name in ("probe", "finetune", "scratch"):
        try:
            check_run(replace(study.run, train=getattr(study, name)))
        except ValueError as error:
            raise ValueError(str(error).replace("train.", f"{name}.")) from None
    if not study.labels or min(study.labels) < 2 or len({*study.labels}) < len(study.labels):
        raise ValueError(f"labels = {study.labels}; expected one or more different numbers of rows, each at least 2")
    if not 0 < study.frozen_share < 1:
        raise ValueError(f"frozen_share = {study.frozen_share}; expected a share between 0 and 1")
    if study.run.source is not None or not study.run.model.weights:
        raise ValueError(
            "strategies compares ways to reuse trained weights: set run.source to None and run.model.weights to a file; "
            "to train on a source first, use experiments.transfer"
        )


def run(study: Strategies, directory: Path, command: str = "") -> None:
    """The whole comparison, from data to report; the same call again goes on where it stopped."""

    @functools.lru_cache(maxsize=1)  # images in memory, one set at a time
    def setting(labels: int) -> tuple[Loaded, Networks, str]:
        config = replace(study.run, target=replace(study.run.target, limit=labels))
        data = phases.load(config)
        nets = phases.build(config, data)
        target = data.target
        content = digest([target.train_x, target.train_y, target.test_x, target.test_y, nets.restored])
        return data, nets, content

    grid, choices, header = [], {}, None
    for labels in study.labels:
        data, nets, content = setting(labels)
        plans, choices[labels] = plans_of(study, nets, data)
        grid += [cell_of(study, labels, way, plan, content) for way, plan in plans.items()]
        header = header or about(study, data, nets, command)
    workdir.open_workdir(directory, study, ignore=NOT_THE_STUDY)

    def run_one(cell: Cell) -> Mapping[str, Any]:
        data, nets, _ = setting(cell.settings["labels"])
        plans, _ = plans_of(study, nets, data)
        return rate(study, directory / "fits" / cell.name.replace(" ", "_"), plans[cell.settings["way"]], data, nets)

    rows = cells.run_cells(grid, run_one, directory / "cells", label="strategies")
    assert header is not None
    workdir.write_json(directory / "strategies.json", summarise(header, rows, choices))
    report.write(directory)
    print(f"{report.as_text(workdir.read_json(directory / 'strategies.json'))}\nReport: {directory / 'report.html'}")


def plans_of(study: Strategies, nets: Networks, data: Loaded) -> tuple[dict[str, Plan], list[Choice]]:
    """{way: its plan}: the strategies, from-scratch, and what else a rule would choose; and who would choose what."""
    network, target, settings = nets.target, data.target, study.run.decision
    top = min(round(study.frozen_share * network.num_base), network.num_base - 1)
    augment = bool(settings.augment)
    plans: dict[str, Plan] = {}
    for regime in ("linear_probe", "finetune_top", "finetune_all", "from_scratch"):
        config = replace(study.run, decision=replace(settings, num_frozen=top))
        plan = phases.given_plan(config, network, regime, "A strategy.", augment=augment and regime != "linear_probe")
        plans[way_of(plan)] = plan
    choices = []
    for rule, assumed in itertools.product(decision.RULES, ASSUMPTIONS):
        plan = decision.decide(
            rule,
            Similarity(assumed, "Assumed."),
            network,
            num_rows=len(target.train_y),
            num_classes=len(target.class_names),
            small=settings.small,
            large=settings.large,
            small_per_class=settings.small_per_class,
            pretrained_rate=settings.pretrained_rate,
            layer_decay=settings.layer_decay,
        )
        same = next((way for way, known in plans.items() if known.stages == plan.stages), way_of(plan))
        plans.setdefault(same, plan)
        choices.append(Choice(rule, assumed, same))
    return plans, choices


def way_of(plan: Plan) -> str:
    """The plan in few words, which name its cell."""
    frozen, augmented = len(plan.stages[0].frozen), any(stage.augment for stage in plan.stages)
    name = f"{plan.regime} {frozen} frozen" if plan.regime == "finetune_top" else plan.regime
    return f"{name} augmented" if augmented else name


def training_of(study: Strategies, plan: Plan) -> Training:
    """The settings that this plan is carried out with."""
    if plan.regime == "from_scratch":
        return study.scratch
    only_head = len(plan.stages) == 1 and len(plan.stages[0].trained) == 1
    return study.probe if only_head else study.finetune


def cell_of(study: Strategies, labels: int, way: str, plan: Plan, content: str) -> Cell:
    """One plan at one number of labels."""
    training = training_of(study, plan)
    settings = {
        "labels": labels,
        "way": way,
        "regime": plan.regime,
        "plan": workdir.plain(plan.stages),
        "training": workdir.plain(training),
        "model": workdir.plain(replace(study.run.model, weights="")),
        "seed": study.run.seed,
        "content": content,
        "version": VERSION,
    }
    deep = 0.02 if training is study.probe else 1.0
    return Cell(f"{labels} {way}", settings, labels * training.epochs * len(training.learning_rates) * deep + 1)


def rate(study: Strategies, directory: Path, plan: Plan, data: Loaded, nets: Networks) -> dict[str, Any]:
    """Carries out one plan and tests it: predicted classes of the test rows, and what was chosen on validation rows."""
    config = replace(study.run, train=training_of(study, plan))
    plan = phases.cached(config, nets.target, plan, data.target)
    directory.mkdir(parents=True, exist_ok=True)
    key, variables = phases.make_keys(config.seed).adapt, nets.restored
    assert variables is not None
    if plan.regime == "from_scratch":
        variables = {}
    arm = adapt(
        directory,
        plan.regime,
        key,
        nets.target,
        variables,
        plan,
        *phases.split(data.target, config.train, config.seed),
        config.train,
        checkpoint_seconds=config.checkpoint_seconds,
        keep_for=phases.kept_features(config),
    )
    found = phases.test_log_probabilities(config, nets.target, arm, data.target, plan.regime)
    return {
        "predicted": found.argmax(-1).tolist(),
        "true": data.target.test_y.tolist(),
        "learning_rate": arm.learning_rate,
        "valid_loss": arm.valid_loss,
        "cached": any(stage.cached for stage in plan.stages),
        "augmented": any(stage.augment for stage in plan.stages),
        "frozen": len(plan.stages[0].frozen),
    }


def about(study: Strategies, data: Loaded, nets: Networks, command: str) -> dict[str, Any]:
    """What the report needs to know beside the rows."""
    target = data.target
    return {
        "name": study.name,
        "network": study.run.model.factory or study.run.model.name,
        "target": study.run.target.name,
        "input": list(target.train_x.shape[1:]),
        "layers": list(nets.target.layers),
        "classes": list(target.class_names),
        "num_test": len(target.test_y),
        "labels": list(study.labels),
        "note": data.note,
        "command": command,
    }


def summarise(
    header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], choices: Mapping[int, Sequence[Choice]]
) -> dict[str, Any]:
    """strategies.json: accuracy of each way with its interval, its paired difference to others, and what rules would cost."""
    right = {(row["labels"], row["way"]): np.equal(row["predicted"], row["true"]).astype(float) for row in rows}
    ways = [
        {name: row[name] for name in row if name not in ("predicted", "true", "plan", "training", "model", "content")}
        | {"accuracy": _share(right[row["labels"], row["way"]])}
        for row in rows
    ]
    return {
        **header,
        "ways": ways,
        "differences": list(_differences(right)),
        "choices": list(_regrets(right, choices)),
        "seconds": sum(row["seconds"] for row in rows),
    }


def _share(right: np.ndarray) -> dict[str, float]:
    low, high = evaluation.binomial(right == 1, 0.95)
    return {"estimate": float(right.mean()), "low": low, "high": high}


def _differences(right: Mapping[tuple[int, str], np.ndarray]) -> Iterator[dict[str, Any]]:
    """Every way less the frozen base, and less from-scratch, at its number of labels."""
    for (labels, way), own in right.items():
        for base in ("linear_probe", "from_scratch"):
            if way != base:
                yield {"labels": labels, "way": way, "less": base, **_paired(own, right[labels, base])}


def _regrets(
    right: Mapping[tuple[int, str], np.ndarray], choices: Mapping[int, Sequence[Choice]]
) -> Iterator[dict[str, Any]]:
    """What each rule's choice falls short of the best way at its number of labels."""
    for labels, made in choices.items():
        best = max((way for count, way in right if count == labels), key=lambda way: right[labels, way].mean())
        for choice in made:
            cost = _paired(right[labels, best], right[labels, choice.way])
            yield {"labels": labels, **choice._asdict(), "best": best, "cost": cost}


def _paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    interval = paired_interval(a, b)
    return {"estimate": float(interval.estimate), "low": float(interval.low), "high": float(interval.high)}


if __name__ == "__main__":
    main()
