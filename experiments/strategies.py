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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import cells, phases, workdir
from experiments.candidates import name_of
from experiments.cells import Cell
from experiments.config import Training
from experiments.errors import reported
from experiments.fits import digest
from experiments.phases import Loaded, Networks
from experiments.plans import plan_by_rule
from experiments.report import strategies as report
from experiments.strategy.settings import NOT_THE_STUDY, Strategies, load, training_of
from experiments.strategy.summary import Choice, summarise
from mmd_jax.transfer import decision
from mmd_jax.types import Plan, Similarity

VERSION = 1  # raised where the code changes the numbers of a cell
ASSUMPTIONS = ("similar", "different")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        study, directory = load(argv)
        run(study, directory, shlex.join(["python", "-m", "experiments.strategies", *argv]))


def run(study: Strategies, directory: Path, command: str = "") -> None:
    """The whole comparison, from data to report; the same call again goes on where it stopped."""

    @functools.lru_cache(maxsize=1)  # images in memory, one set at a time
    def setting(labels: int) -> tuple[Loaded, Networks, str]:
        config = replace(study.run, target=replace(study.run.target, limit=labels))
        data = phases.load(config)
        if not data.target.image:
            raise ValueError(
                f"run.target.name = {config.target.name!r} holds rows; strategies compares networks on images"
            )
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
    phases.save_tensors(study.run, directory, nets)

    def run_one(cell: Cell) -> Mapping[str, Any]:
        data, nets, _ = setting(cell.settings["labels"])
        plans, _ = plans_of(study, nets, data)
        labels, way = cell.settings["labels"], cell.settings["way"]
        training = training_of(study, labels, plans[way])
        # Another cell of this name, of other settings, has a folder of its own.
        folder = directory / "fits" / f"{cell.name.replace(' ', '_')}-{cells.fingerprint(cell)}"
        return rate(study, folder, plans[way], training, data, nets)

    rows = cells.run_cells(grid, run_one, directory / "cells", label="strategies")
    assert header is not None
    workdir.write_json(directory / "strategies.json", summarise(header, rows, choices))
    report.write(directory)
    print(f"{report.as_text(workdir.read_json(directory / 'strategies.json'))}\nReport: {directory / 'report.html'}")


def plans_of(study: Strategies, nets: Networks, data: Loaded) -> tuple[dict[str, Plan], list[Choice]]:
    """{way: its plan}: the strategies, from-scratch, and what else a rule would choose; and who would choose what."""
    network, settings = nets.target, study.run.decision
    top = min(round(study.frozen_share * network.num_base), network.num_base - 1)
    augment = bool(settings.augment)
    plans: dict[str, Plan] = {}
    for regime in ("linear_probe", "finetune_top", "finetune_all", "from_scratch"):
        config = replace(study.run, decision=replace(settings, num_frozen=top))
        plan = phases.given_plan(config, network, regime, "A strategy.", augment=augment and regime != "linear_probe")
        plans[name_of(plan)] = plan
    choices = []
    for rule, assumed in itertools.product(decision.MAPS, ASSUMPTIONS):
        plan = plan_by_rule(study.run, rule, network, Similarity(assumed, "Assumed."), data.target)
        same = next((way for way, known in plans.items() if known.stages == plan.stages), name_of(plan))
        plans.setdefault(same, plan)
        choices.append(Choice(rule, assumed, same))
    return plans, choices


def cell_of(study: Strategies, labels: int, way: str, plan: Plan, content: str) -> Cell:
    """One plan at one number of labels."""
    training = training_of(study, labels, plan)
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
    deep = 0.02 if training == study.probe else 1.0
    return Cell(f"{labels} {way}", settings, labels * training.epochs * len(training.learning_rates) * deep + 1)


def rate(
    study: Strategies, directory: Path, plan: Plan, training: Training, data: Loaded, nets: Networks
) -> dict[str, Any]:
    """Carries out one plan and tests it: predicted classes of the test rows, and what was chosen on validation rows."""
    config = replace(study.run, train=training)
    plan = phases.cached(config, nets.target, plan, data.target)
    directory.mkdir(parents=True, exist_ok=True)
    key = phases.make_keys(config.seed).adapt
    variables = {} if plan.regime == "from_scratch" else nets.restored
    assert variables is not None
    arm = phases.reuse(config, directory, key, nets, variables, plan, data)
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
        "held_out": study.finetune.validation_fraction,
        "note": data.note,
        "command": command,
    }


if __name__ == "__main__":
    main()
