"""Which rule should one use? Every way of reuse on many pairs of data sets, and what each rule's choice would have cost.

    python -m experiments.decision_benchmark --config configs/decision_benchmark.py [--workdir DIR] [--field.sub value]

A cell is a pair of source and target, a number of labelled target rows, and a seed. All ways are carried out in it, and what
is known before is kept beside them, so that any policy can be asked afterwards. The same command goes on where it was stopped.
"""

import functools
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import cells, workdir
from experiments.cells import Cell
from experiments.errors import reported
from experiments.regret import tables
from experiments.regret.evidence import evidence
from experiments.regret.outcomes import Setting, outcomes, prepare
from experiments.regret.settings import NOT_THE_BENCHMARK, Benchmark, Pair, load, run_of, sizes_of
from experiments.regret.summary import summarise
from experiments.report import regret as report

# What no number of a cell depends on: every rule is asked, and its audit is of the cell's own curves.
NOT_THE_CELL = ("name", "data_dir", "until", "audit")
# Raised where the code changes the numbers of a cell.
VERSIONS = {"outcomes": 1, "evidence": 2}
PARTS = {"outcomes": outcomes, "evidence": evidence}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        benchmark, directory = load(argv)
        run(benchmark, directory, shlex.join(["python", "-m", "experiments.decision_benchmark", *argv]))


def run(benchmark: Benchmark, directory: Path, command: str = "") -> None:
    """The whole benchmark, from data to report; the same call again goes on where it stopped."""
    workdir.open_workdir(directory, benchmark, ignore=NOT_THE_BENCHMARK)
    there = Path(benchmark.tables) if benchmark.tables else directory / "tables"
    if not benchmark.from_tables:
        tables.write(there, rows_of(benchmark, directory))
    content = {**summarise(tables.read(there)), "name": benchmark.name, "command": command}
    workdir.write_json(directory / "decision_benchmark.json", content)
    report.write(directory)
    print(f"{report.as_markdown(content)}\n\n{report.answer(content)}\nReport: {directory / 'report.html'}")


def rows_of(benchmark: Benchmark, directory: Path) -> list[dict[str, Any]]:
    """Both parts of every cell, run or read."""
    # Cells of other pairs use the same programs, and so does a command that goes on.
    jax.config.update("jax_compilation_cache_dir", str((directory / "compiled").absolute()))
    pairs = {pair.name: pair for pair in benchmark.pairs}

    alone = threading.Lock()  # one cell trains the source's network, the others of the same source then read it

    @functools.lru_cache(maxsize=2 * benchmark.workers)
    def setting(pair: str, size: int, seed: int) -> Setting:
        return prepare(benchmark, pairs[pair], size, seed, directory / "sources")

    def run_one(cell: Cell) -> Mapping[str, Any]:
        of = cell.settings
        with alone:
            found = setting(of["pair"], of["size"], of["seed"])
        return PARTS[of["part"]](found)

    grid = [
        cell_of(benchmark, pair, size, seed, part)
        for seed in benchmark.seeds
        for pair in benchmark.pairs
        for size in sizes_of(benchmark, pair)
        for part in PARTS
    ]
    return cells.run_cells(grid, run_one, directory / "cells", label=benchmark.name, workers=benchmark.workers)


def cell_of(benchmark: Benchmark, pair: Pair, size: int, seed: int, part: str) -> Cell:
    """One part of one cell; its row is used again only for the very settings that it was made with."""
    config = run_of(benchmark, pair, size, seed)
    about = {name: value for name, value in workdir.plain(config).items() if name not in NOT_THE_CELL}
    settings = {
        "pair": pair.name,
        "size": size,
        "seed": seed,
        "part": part,
        "augment": pair.augment,
        "about": about,
        "version": VERSIONS[part],
    }
    return Cell(
        f"{pair.name} / {size} / {seed} / {part}",
        settings,
        1 + size * config.train.epochs if part == "outcomes" else 500,
    )


if __name__ == "__main__":
    main()
