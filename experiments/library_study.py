"""Does a library's ranking foretell what reuse reaches? Every entry is reused on every target, and each signal is held to it.

    python -m experiments.library_study --config configs/library_study.py [--workdir DIR] [--field.sub value]

A cell is an entry, a target and a draw of its labels. The same command goes on where it was stopped.
"""

import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import cells, workdir
from experiments.cells import Cell
from experiments.collection.agreement import agreements, by_signal, by_target
from experiments.collection.trial import SCRATCH, WAYS, Study, build_library, load, load_target, measured, scratch
from experiments.errors import reported
from experiments.sources import Dataset

VERSION = 1  # raised where the code changes the numbers of a cell
NOT_THE_STUDY = ("name", "data_dir", "targets", "seeds")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        study, directory = load(argv)
        run(study, directory, shlex.join(["python", "-m", "experiments.library_study", *argv]))


def run(study: Study, directory: Path, command: str = "") -> None:
    """The whole study, from data to tables; the same call again goes on where it stopped."""
    workdir.open_workdir(directory, study, ignore=NOT_THE_STUDY)
    jax.config.update("jax_compilation_cache_dir", str((directory / "compiled").absolute()))
    library = build_library(study, directory)
    targets = {target.name: target for target in study.targets}

    @functools.lru_cache(maxsize=len(targets) * len(study.seeds))  # 200 rows each, and those that they are tested on
    def data(name: str, seed: int) -> Dataset:
        return load_target(study, targets[name], seed)

    def run_one(cell: Cell) -> Mapping[str, Any]:
        of = cell.settings
        target = data(of["target"], of["seed"])
        if of["entry"] == SCRATCH:
            return scratch(study, target, of["seed"])
        return measured(study, library, of["entry"], target, of["seed"])

    names = [entry.name for entry in study.entries]
    grid = [
        cell_of(study, entry, target, seed) for entry in [*names, SCRATCH] for seed in study.seeds for target in targets
    ]
    rows = cells.run_cells(grid, run_one, directory / "cells", label=study.name)
    found = summary(study, rows)
    workdir.write_json(directory / "study.json", {**found, "command": command})
    workdir.write_bytes(directory / "cells.csv", as_csv(rows).encode())
    workdir.write_bytes(directory / "correlations.csv", correlations(found).encode())
    print(text(found))


def cell_of(study: Study, entry: str, target: str, seed: int) -> Cell:
    """One entry on one target, with everything that its numbers depend on."""
    plain = workdir.plain(study)
    about = {name: plain[name] for name in ("labels", "model", "pretrain", "train", "seed")}
    about["entry"] = next((one for one in plain["entries"] if one["name"] == entry), None)
    about["target"] = next(one for one in plain["targets"] if one["name"] == target)
    settings = {"entry": entry, "target": target, "seed": seed, "about": about, "version": VERSION}
    return Cell(f"{entry} / {target} / {seed}", settings)


def summary(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rank correlations of every signal with each way's accuracy, and the accuracies."""
    reused = [row for row in rows if row["entry"] != SCRATCH]
    alone = by_target([row for row in rows if row["entry"] == SCRATCH], SCRATCH)
    signals = by_signal(reused)
    found: dict[str, Any] = {"entries": len(study.entries), "targets": len(study.targets), "labels": study.labels}
    for way in WAYS:
        accuracy = by_target(reused, way)
        abroad = by_target([row for row in reused if row["about"]["entry"]["data"]["name"] != data_of(row)], way)
        found[way] = {
            "agreements": agreements(accuracy, signals, seed=study.seed),
            "of_other_data": agreements(abroad, signals, seed=study.seed),
            "accuracy": accuracy,
        }
    return workdir.plain({**found, "from_scratch": {target: of[SCRATCH] for target, of in alone.items()}})


def data_of(row: Mapping[str, Any]) -> str:
    return row["about"]["target"]["data"]["name"]


def text(found: Mapping[str, Any]) -> str:
    """The tables, one a way: over all entries, and over those that were trained on another data set than the target's."""
    lines = [
        f"{found['entries']} entries, {found['targets']} targets of {found['labels']} labels; 95 % t-intervals over targets"
    ]
    for way in WAYS:
        others = {row["signal"]: row for row in found[way]["of_other_data"]}
        lines += ["", f"accuracy reached by: {way}"]
        lines.append(
            f"{'signal':<28} {'Spearman':>9} {'interval':>16} {'Kendall':>8} {'lost, points':>13}   of other data sets"
        )
        for row in found[way]["agreements"]:
            tau, points = row["kendall"]["estimate"], 100 * row["lost"]["estimate"]
            abroad = _span(others[row["signal"]]["spearman"]) if row["signal"] in others else ""
            lines.append(f"{row['signal']:<28} {_span(row['spearman'])} {tau:>+8.2f} {points:>13.1f} {abroad:>26}")
    return "\n".join(lines)


def _span(interval: Mapping[str, float]) -> str:
    ends = f"{interval['low']:+.2f} … {interval['high']:+.2f}"
    return f"{interval['estimate']:>+9.2f} {ends:>16}"


def correlations(found: Mapping[str, Any]) -> str:
    """One line a way, set of entries and signal, as CSV."""
    numbers = [f"{name}{end}" for name in ("spearman", "kendall", "lost") for end in ("", "_low", "_high")]
    lines = [",".join(["way", "entries", "signal", *numbers])]
    for way in WAYS:
        for kind, name in (("agreements", "all"), ("of_other_data", "of other data sets")):
            for row in found[way][kind]:
                values = [
                    row[one][end] for one in ("spearman", "kendall", "lost") for end in ("estimate", "low", "high")
                ]
                signal = row["signal"].replace(", ", "@")
                lines.append(",".join([way, name, signal, *(f"{value:.4f}" for value in values)]))
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a cell: accuracies, and every signal."""
    names = sorted({f"{name}, {where}" for row in rows for where, of in row.get("signals", {}).items() for name in of})
    lines = [
        ",".join(["entry", "target", "seed", "rows", *WAYS, SCRATCH, *(name.replace(", ", "@") for name in names)])
    ]
    for row in rows:
        values = {f"{name}, {where}": v for where, of in row.get("signals", {}).items() for name, v in of.items()}
        cells_of = [row["accuracy"].get(way) for way in (*WAYS, SCRATCH)] + [values.get(name) for name in names]
        said = ["" if value is None else f"{value:.6g}" for value in cells_of]
        lines.append(",".join([row["entry"], row["target"], str(row["seed"]), str(row.get("rows", "")), *said]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
