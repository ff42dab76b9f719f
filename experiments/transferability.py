"""How transferable is each layer? AnB, BnB, AnB+ and BnB+ over splits of the classes, in both directions, with controls.

    python -m experiments.transferability --config configs/figure2_digits.py [--workdir DIR] [--field.sub value]

The classes are split into halves A and B. A base network is trained on each; then, for every cut n, the first n layers of a
base are copied, frozen or fine-tuned, the layers above start anew, and the network is trained on A or B. Each network is
compared with the base of its own half and seed. The same command goes on where it was stopped, network by network.

Yosinski, Clune, Bengio, Lipson, "How transferable are features in deep neural networks?", NeurIPS 2014.
"""

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import cells, workdir
from experiments.cells import Cell
from experiments.errors import reported
from experiments.fits import digest
from experiments.report import transferability as report
from experiments.study import curves, treatments
from experiments.study.halves import Half, Split, class_names, load_halves, split_classes
from experiments.study.settings import NOT_THE_STUDY, Study, load
from experiments.study.treatments import Bases, Devices, Row, Task

Halves = Callable[[Split], tuple[Half, Half]]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        study, directory = load(argv)
        run(study, directory, shlex.join(["python", "-m", "experiments.transferability", *argv]))


def run(study: Study, directory: Path, command: str = "") -> None:
    """The whole study, from classes to figure; the same call again goes on where it stopped."""
    splits = split_classes(study, class_names(study.data, study), class_names(study.other, study))
    halves = functools.lru_cache(maxsize=8)(functools.partial(load_halves, study))
    layers = treatments.network_of(study, halves(splits[0])[0]).layers
    tasks = treatments.transfers(study, splits, len(layers))  # what can be refused is refused before anything is made
    workdir.open_workdir(directory, study, ignore=NOT_THE_STUDY)

    known, devices = Bases(directory / "bases"), Devices(study.workers)
    first = treatments.bases(study, splits)
    rows = train(study, first, layers, halves, known, devices, directory, size=1)
    treatments.retrain_lost(study, first, rows, halves, known)
    size = study.together or (1 if jax.default_backend() == "cpu" else 16)
    rows += train(study, tasks, layers, halves, known, devices, directory, size=size)

    summary = curves.summarise(header(study, splits, layers, halves, rows, command), rows)
    workdir.write_json(directory / "study.json", summary)
    report.write(directory)
    print(f"{report.answer(summary)}\nReport: {directory / 'report.html'}")


def train(
    study: Study,
    tasks: Sequence[Task],
    layers: Sequence[str],
    halves: Halves,
    bases: Bases,
    devices: Devices,
    directory: Path,
    *,
    size: int,
) -> list[Row]:
    """The rows of these tasks: those that are there, and those of networks trained now, at most `size` as one batch."""
    task_of = {task.name: task for task in tasks}
    contents = {
        split: digest([(half.train, half.test) for half in halves(split)])
        for split in dict.fromkeys(task.split for task in tasks)
    }

    def run_batch(batch: Sequence[Cell]) -> list[Row]:
        with devices():
            return treatments.rate_batch(study, [task_of[cell.name] for cell in batch], halves, bases)

    def alike(cell: Cell) -> Any:
        task = task_of[cell.name]
        half = halves(task.split)["AB".index(task.target)]
        return treatments.program(study, task, half, layers)

    return cells.run_batches(
        [treatments.cell_of(study, task, len(layers), contents[task.split]) for task in tasks],
        run_batch,
        directory / "networks",
        label="networks",
        workers=devices.workers,
        size=size,
        alike=alike,
    )


def header(
    study: Study, splits: Sequence[Split], layers: Sequence[str], halves: Halves, rows: Sequence[Row], command: str
) -> dict[str, Any]:
    """What the statistics and the report need to know beside the rows."""
    data = " and ".join(data.name for data in (study.data, study.other) if data is not None)
    return {
        "name": study.name,
        "data": [data.name for data in (study.data, study.other) if data is not None],
        "notes": list(dict.fromkeys(halves(split)[0].notes for split in splits if halves(split)[0].notes)),
        "title": f"How transferable are the features of {data}?",
        "layers": layers,
        "treatments": study.treatments,
        "splits": {kind: sum(split.kind == kind for split in splits) for kind in ("random", "dissimilar")},
        "seeds": study.seeds,
        "halves": [_described(split, halves(split)) for split in splits],
        "settings": workdir.plain(study),
        "seconds": sum(row["seconds"] for row in rows),
        "command": command,
    }


def _described(split: Split, halves: tuple[Half, Half]) -> dict[str, Any]:
    rows = {part: {name: len(getattr(half, part).y) for name, half in zip("AB", halves)} for part in ("train", "test")}
    return {"kind": split.kind, "split": split.number, "A": split.a, "B": split.b, **rows}


if __name__ == "__main__":
    main()
