"""The page of a transferability study: what was asked, what was seen, and what it is too small to show."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.report import transferability_evidence as evidence
from experiments.report import transferability_plots as plots
from experiments.report import transferability_record as record
from experiments.report import words
from experiments.report.markup import Html, join, tag
from experiments.report.page import Shower, document
from experiments.report.style import CSS
from experiments.report.transferability_evidence import NAMES, Study


def write(directory: str | Path) -> None:
    """Writes figures/, table.csv, networks.csv and report.html from study.json, the page last; and, where there
    is something to write, statements.csv and distances.csv. What an earlier call wrote of a larger study is removed.

    Raises:
      FileNotFoundError: the study has no study.json yet.
    """
    directory = Path(directory)
    study = workdir.read_json(directory / "study.json")
    pictures = plots.figures(study)
    files = {f"figures/{name}": content for name, content in pictures.items()}
    files |= {"table.csv": as_csv(curve_rows(study)), "networks.csv": as_csv(study["networks"])}
    if study["statements"]:
        rows = [{name: value for name, value in row.items() if name != "by_split"} for row in study["statements"]]
        files["statements.csv"] = as_csv(rows)
    if distances := distance_rows(study):
        files["distances.csv"] = as_csv(distances)
    for name, content in files.items():
        workdir.write_bytes(directory / name, content)
    for name in {"statements.csv", "distances.csv", *(f"figures/{picture}" for picture in plots.names())} - {*files}:
        (directory / name).unlink(missing_ok=True)
    workdir.write_bytes(directory / "report.html", render(study, pictures))


def curve_rows(study: Study) -> list[dict[str, Any]]:
    """One row a kind of split, treatment and n; shares, not percent; empty where there is no interval."""
    layers = study["header"]["layers"]
    rows = []
    for point in study["curves"]:
        accuracy, difference, relative = (point[name] for name in ("accuracy", "difference", "relative"))
        row = {name: point[name] for name in ("kind", "treatment", "n")}
        row |= {"layer": layers[point["n"] - 1] if point["n"] else ""}
        row |= {"accuracy": accuracy["estimate"], "accuracy_low": accuracy["low"], "accuracy_high": accuracy["high"]}
        row |= {"difference": difference["estimate"], "low": difference["low"], "high": difference["high"]}
        row |= {"num": difference["num"], "interval_over": difference["over"]}
        row |= {"relative": relative["estimate"], "relative_low": relative["low"], "relative_high": relative["high"]}
        rows.append(row | {"networks": point["num_networks"]})
    return rows


def distance_rows(study: Study) -> list[dict[str, Any]]:
    """One row a split and layer: MMD² there, and what freezing up to this layer costs, as a share."""
    names, rows = study["header"]["layers"], []
    for split in study["beside"]:
        for n, layer in enumerate(names, start=1):
            row = {"kind": split["kind"], "split": split["split"], "n": n, "layer": layer, "mmd2": split["mmd2"][n - 1]}
            row |= {"drop": split["drop"][n - 1] if n < len(names) else None}
            rows.append(row | {"rejected": split["rejected"][n - 1], "tests": split["tested"][n - 1]})
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table with a head; none is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def render(study: Study, pictures: Mapping[str, bytes]) -> bytes:
    """The page, with the SVG files of `pictures` inside it: no script, nothing to load."""
    header, show = study["header"], Shower(pictures)
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag("h1", question(study)),
        tag("p", "The answer", class_="label"),
        tag("p", answer(study), class_="answer"),
        how(study),
        *(figure(study, kind, show) for kind in plots.kinds(study)),
        evidence.claims(study),
        evidence.difficulty(study),
        evidence.distance(study, show),
        record.limits(study),
        record.numbers(study),
        record.section(study),
    )
    return document(
        f"{header['name']}: how transferable are the features?",
        body,
        CSS + "td.number, th.number { white-space: nowrap; }\n",
    )


# Question and answer


def question(study: Study) -> str:
    """What the study was made to find out."""
    return (
        f"{study['header']['title']} What does it cost, or gain, to take the first n of a network's "
        f"{len(study['header']['layers'])} layers from the other half of the classes?"
    )


def answer(study: Study) -> str:
    """The two statements that matter most, in the words that their intervals allow."""
    first = plots.kinds(study)[0]
    found = {
        statement["name"]: statement["sentence"] for statement in study["statements"] if statement["kind"] == first
    }
    fine = "AnB+ above longer training" if "AnB+ above longer training" in found else "AnB+ above base"
    said = [
        f"{gloss}: {found[name]}"
        for gloss, name in (
            ("Layers of the other half, frozen", "AnB below base at its deepest"),
            ("Layers of the other half, trained on", fine),
        )
        if name in found
    ]
    if said or found:
        return " ".join(said or list(found.values())[:2])
    deepest = {p["treatment"]: p for p in study["curves"] if p["kind"] == first and p["n"]}  # the last n of each
    said = [
        f"{name} at n = {deepest[name]['n']}: {words.points(deepest[name]['difference']['estimate'])} points"
        for name in ("AnB", "AnB+", "BnB", "BnB+")
        if name in deepest
    ]
    if not said:
        return "No network with copied layers was trained, so there is nothing to compare."
    one = len({network["split"] for network in study["networks"] if network["kind"] == first}) == 1
    lead = f"One {first} split only, so nothing is said of other splits. " if one else "Nothing was tested. "
    return f"{lead}Mean difference to base: {', '.join(said)}."


def how(study: Study) -> Html:
    """What the letters mean, and what is compared with what."""
    return tag(
        "p",
        tag("b", "What was done. "),
        "The classes are split into halves A and B, and a base network is trained on each. For every n, a network takes its "
        "first n layers from a base network, the layers above start afresh, and it is trained on B. AnB: the n layers come "
        "from A's network; BnB: from B's own. They stay frozen, or (+) are trained on with the others. Every split is used "
        "in both directions. Each network is compared with the base network of its own split, half and seed; networks are "
        f"averaged within a split, and the {evidence.level(study)} intervals are Student's over splits, splits − 1 degrees of "
        "freedom.",
    )


# Figure 2


def figure(study: Study, kind: str, show: Shower) -> Html:
    """The figure of one kind of split, and what its intervals are over."""
    splits = len({network["split"] for network in study["networks"] if network["kind"] == kind})
    over = f"The intervals are over {splits} splits."
    if splits == 1:
        over = (
            "There is one split of this kind, so there is no interval over splits: the bars are over its networks "
            "(directions and seeds) and say nothing about other splits."
        )
    elif half := study["shared_halves"].get(kind):
        over = (
            f"The intervals are over {splits} splits that share {half}: they say nothing about other classes there, and little "
            "about other splits."
        )
    return join(
        [
            tag("h2", f"{NAMES.get(kind, kind)}: accuracy and change by depth"),
            show(
                plots.name_of(kind),
                f"Accuracy of every network, and mean relative change to base, against the number of copied layers; {kind}",
                f"Top: every network on its half's test rows; intervals here hold how much the halves differ in difficulty. "
                f"Bottom: the change relative to base, paired, so that difficulty is out of it. {over} A bar that leaves the "
                "panel goes on; an arrow at the lower edge is a mean below it, with its number. ",
                original(study, kind),
            ),
        ]
    )


def original(study: Study, kind: str) -> str:
    """What the pale curves are, where they are drawn."""
    if len(study["header"]["layers"]) != plots.yosinski2014.NUM_LAYERS:
        return ""
    if kind == "random":
        return (
            "Pale: the original's relative changes on random halves of ImageNet's classes, paired likewise; its + curves "
            "rest on one or two networks a point."
        )
    return "Pale: the original's AnB on natural and man-made halves of ImageNet, paired likewise; two networks a point."
