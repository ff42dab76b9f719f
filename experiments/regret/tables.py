"""Finished cells as small CSV files, from which every number of the report comes; and cases back from them."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.regret.policies import Case, halving
from experiments.signals import OF_OUTPUTS

KEYS = ("pair", "size", "seed")
WAYS, KNOWN, CHOICES = "ways.csv", "known.csv", "choices.csv"


def write(directory: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes ways.csv, known.csv and choices.csv of the cells of which both parts are finished."""
    parts: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        parts[tuple(row[name] for name in KEYS)][row["part"]] = row
    whole = {cell: of for cell, of in sorted(parts.items()) if len(of) == 2}
    ways, known, choices = [], [], []
    for cell, of in whole.items():
        outcomes, evidence = of["outcomes"]["ways"], of["evidence"]
        for way, found in outcomes.items():
            numbers = (f"{found[name]:.5f}" for name in ("accuracy", "valid_loss", "valid_accuracy"))
            ways.append([*cell, way, *numbers, found["steps"], round(of["outcomes"]["num_test"])])
        known += [[*cell, name, f"{value:.6g}"] for name, value in signals_of(cell[1], evidence).items()]
        epochs = of["outcomes"]["about"]["train"]["epochs"]
        chosen, steps = halving({way: found["curve"] for way, found in outcomes.items()}, epochs)
        policies = {
            **evidence["choices"],
            **{f"deepest {score}": way for score, way in evidence["deepest"].items()},
            "audit": chosen,
        }
        choices += [[*cell, "role", role, way, ""] for role, way in evidence["roles"].items()]
        choices += [[*cell, "policy", name, way, steps if name == "audit" else ""] for name, way in policies.items()]
    _write(directory / WAYS, [*KEYS, "way", "accuracy", "valid_loss", "valid_accuracy", "steps", "num_test"], ways)
    _write(directory / KNOWN, [*KEYS, "signal", "value"], known)
    _write(directory / CHOICES, [*KEYS, "kind", "name", "way", "steps"], choices)


def signals_of(size: int, evidence: Mapping[str, Any]) -> dict[str, float]:
    """One number each, alike in networks of any depth: of their layers, the first, the middle and the last hidden one."""
    found = {"rows": float(size), "rows a class": size / evidence["num_classes"]}
    said = evidence["signals"]
    hidden = [name for name in said if name not in ("inputs", "outputs")]
    places = {"inputs": "inputs", "first": hidden[0], "middle": hidden[len(hidden) // 2], "last": hidden[-1]}
    for place, name in places.items():
        found[f"MMD² {place}"] = evidence["distances"].get(name, math.nan)
        found |= {f"{score} {place}": value for score, value in said[name].items()}
    found |= {score: said.get("outputs", {}).get(score, math.nan) for score in OF_OUTPUTS}
    found["p-value"] = evidence["pvalues"].get("inputs", math.nan)
    for asked, kind in evidence["similarity"].items():
        found[f"similar, {asked}"] = math.nan if kind == "unknown" else float(kind == "similar")
    found["probe gain"] = found["probe last"] - found["probe inputs"]
    found["log_me gain"] = found["log_me last"] - found["log_me inputs"]
    return found


def read(directory: Path) -> list[Case]:
    """The cases of the tables.

    Raises:
      FileNotFoundError: there are none.
      ValueError: a table that is not what `write` writes.
    """
    found: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    try:
        for cell, row in _read(directory / WAYS):
            for name, kind in (("accuracy", float), ("valid_loss", float), ("steps", int)):
                found[cell][name][row["way"]] = kind(row[name])
        for cell, row in _read(directory / KNOWN):
            found[cell]["known"][row["signal"]] = float(row["value"])
        for cell, row in _read(directory / CHOICES):
            found[cell][row["kind"]][row["name"]] = row["way"]
            if row["steps"]:
                found[cell]["audit"] = {"chosen": row["way"], "steps": int(row["steps"])}
        return [
            Case(
                *cell,
                of["accuracy"],
                of["valid_loss"],
                of["steps"],
                of["role"],
                of["known"],
                of["policy"],
                (of["audit"]["chosen"], of["audit"]["steps"]),
            )
            for cell, of in found.items()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the tables in {directory} are not those of a decision benchmark ({error!r}); run it again"
        ) from None


def _write(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    workdir.write_bytes(path, buffer.getvalue().encode())


def _read(path: Path) -> Iterable[tuple[tuple[str, int, int], dict[str, str]]]:
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}; run python -m experiments.decision_benchmark first")
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield (row["pair"], int(row["size"]), int(row["seed"])), row
