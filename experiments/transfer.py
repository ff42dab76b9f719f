"""Reuse a trained network on a new data set: measure, test, decide, fine-tune, report.

python -m experiments.transfer --config configs/quickstart.py [--workdir DIR] [--field.sub value]
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import config as configs
from experiments import phases, results
from experiments.config import Config
from experiments.errors import reported
from experiments.report import page


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        config, directory = configs.load(argv)
        run(config, directory, shlex.join(["python", "-m", "experiments.transfer", *argv]))


def run(config: Config, directory: Path, command: str = "") -> None:
    """One run, from data to report; the same call again goes on where it stopped, or only remakes a missing report."""
    if not (directory / "result.json").exists():
        compute(config, directory, command)
    else:
        phases.open_workdir(config, directory)
    if not (directory / "result.json").exists():  # --until plan
        return
    if not (directory / "report.html").exists():
        page.write(directory)
    print(f"{page.answer(directory)}\nReport: {directory / 'report.html'}")


def compute(config: Config, directory: Path, command: str = "") -> None:
    """Everything up to result.json, which keeps the command."""
    clock = phases.Clock()
    with clock("load"):
        # Everything that can be refused is refused before the work directory is made.
        data = phases.load(config)
        given, config = config, phases.with_table(config, data)
        networks = phases.build(config, data)
    phases.open_workdir(given, directory)
    phases.save_splits(directory, data)
    phases.save_tensors(config, directory, networks)
    keys = phases.make_keys(config.seed)

    with clock("pretrain"):
        pretrained = phases.pretrain(config, directory, keys.pretrain, networks, data)
    with clock("measure"):
        decided = phases.measure_and_decide(config, directory, keys.measure, networks, pretrained, data)
    print(f"{decided.similarity.evidence}\n{decided.plan.reason}\nRegime: {decided.plan.regime}")
    if config.until == "plan":
        print(phases.costs(config, directory, keys.adapt, networks, decided.plan, data))
        return
    with clock("reuse"):
        chosen = phases.reuse(config, directory, keys.adapt, networks, pretrained, decided.plan, data)
    with clock("from_scratch"):
        scratch = phases.from_scratch(config, directory, keys.adapt, networks, chosen, data)
    with clock("evaluate"):
        outcome = phases.evaluate(config, networks.target, chosen, scratch, data)
    phases.save_model(config, directory, networks.target, chosen, outcome, data)
    results.write(config, directory, decided, chosen, scratch, outcome, clock.seconds, command)


if __name__ == "__main__":
    main()
