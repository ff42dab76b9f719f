"""Supervised or unsupervised source, supervised or unsupervised target: all four pairings on one pair of image sets.

    python -m experiments.pairings --config configs/pairings.py [--workdir DIR] [--field.sub value]

S→S: a classifier of the source is fine-tuned on few labels of the target. S→U: its features are clustered on the target,
without labels; and it is trained with the MMD between both as a part of its loss. U→S: the source's autoencoder becomes a
classifier from few labels. U→U: the autoencoder's code is clustered. Each stands beside the same target without transfer. The
same command goes on where it was stopped, arm by arm.
"""

import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import cells, workdir
from experiments.cells import Cell
from experiments.errors import reported
from experiments.fits import digest
from experiments.pairing import arms, summary
from experiments.pairing.settings import NOT_THE_EXPERIMENT, Pairings, load
from experiments.report import pairings as report


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        settings, directory = load(argv)
        run(settings, directory, shlex.join(["python", "-m", "experiments.pairings", *argv]))


def run(settings: Pairings, directory: Path, command: str = "") -> None:
    """All pairings, from data to table and picture; the same call again goes on where it stopped."""
    source, target, notes = arms.load(settings, settings.seed)
    arms.check_sizes(settings, target)  # what can be refused is refused before anything is made
    nets = arms.build(settings, source, target)
    workdir.open_workdir(directory, settings, ignore=NOT_THE_EXPERIMENT)

    seed_of = functools.lru_cache(maxsize=1)(functools.partial(arms.Seed, settings, nets))
    rows = digest([(data.train_x, data.train_y, data.test_x, data.test_y) for data in (source, target)])
    grid = arms.cells_of(settings, rows)

    def run_one(cell: Cell) -> dict[str, object]:
        return arms.run(seed_of(cell.settings["seed"]), cell.settings["arm"], cell.settings["labels"])

    reached = cells.run_cells(grid, run_one, directory / "arms", label="pairings")
    about = summary.header(
        settings,
        source,
        target,
        notes,
        command,
        adapted=arms.adapted_layers(settings, nets.source),
        features=nets.features,
    )
    found = summary.summarise(about, reached)
    workdir.write_json(directory / "pairings.json", found)
    report.write(directory)
    print(f"{report.answer(found)}\nReport: {directory / 'report.html'}")


if __name__ == "__main__":
    main()
