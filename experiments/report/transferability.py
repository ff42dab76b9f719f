"""The page of a transferability study: what was asked, what was seen, and what it is too small to show."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.report import transferability_plots as plots
from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.page import Shower
from experiments.report.style import CSS

Study = dict[str, Any]
NAMES = {"random": "Random splits", "dissimilar": "Dissimilar splits"}


def write(directory: str | Path) -> None:
    """Writes figures/, table.csv, networks.csv and report.html from study.json, the page last.

    Raises:
      FileNotFoundError: the study has no study.json yet.
    """
    directory = Path(directory)
    study = workdir.read_json(directory / "study.json")
    pictures = plots.figures(study)
    for name, content in pictures.items():
        workdir.write_bytes(directory / "figures" / name, content)
    workdir.write_bytes(directory / "table.csv", as_csv(curve_rows(study)))
    workdir.write_bytes(directory / "networks.csv", as_csv(study["networks"]))
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
        claims(study),
        difficulty(study),
        distance(study, show),
        limits(study),
        numbers(study),
        record(study),
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = tag(
        "head",
        Html(f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{header['name']}: how transferable are the features?"),
        tag("style", Html(CSS)),
    )
    return ("<!DOCTYPE html>\n" + tag("html", head, tag("body", body), lang="en") + "\n").encode()


# Question and answer


def question(study: Study) -> str:
    """What the study was made to find out."""
    return (
        f"How transferable are the features of a network of {len(study['header']['layers'])} layers on "
        f"{study['header']['title']}: what does it cost, or gain, to take its first n layers from the other half of the "
        "classes?"
    )


def answer(study: Study) -> str:
    """The two statements that matter most, in the words that their intervals allow."""
    first = plots.kinds(study)[0]
    found = {
        statement["name"]: statement["sentence"] for statement in study["statements"] if statement["kind"] == first
    }
    fine = "AnB+ above longer training" if "AnB+ above longer training" in found else "AnB+ above base"
    chosen = [found[name] for name in ("AnB below base at its deepest", fine) if name in found]
    if chosen:
        return " ".join(chosen)
    deepest = {p["treatment"]: p for p in study["curves"] if p["kind"] == first and p["n"]}  # the last n of each
    said = [
        f"{name} at n = {deepest[name]['n']}: {words.points(deepest[name]['difference']['estimate'])} points"
        for name in ("AnB", "AnB+", "BnB", "BnB+")
        if name in deepest
    ]
    if not said:
        return "No network with copied layers was trained, so there is nothing to compare."
    return f"One {first} split only, so nothing is said of other splits. Mean difference to base: {', '.join(said)}."


def how(study: Study) -> Html:
    """What the letters mean, and what is compared with what."""
    return tag(
        "p",
        tag("b", "What was done. "),
        "The classes are split into halves A and B, and a base network is trained on each. For every n, a network takes its "
        "first n layers from a base network, the layers above start afresh, and it is trained on B. AnB: the n layers come "
        "from A's network; BnB: from B's own. They stay frozen, or (+) are trained on with the others. Every split is used "
        "in both directions. Each network is compared with the base network of its own split, half and seed; networks are "
        f"averaged within a split, and the {level(study)} intervals are Student's over splits, splits − 1 degrees of "
        "freedom.",
    )


def level(study: Study) -> str:
    """Of the intervals."""
    return f"{100 * study['level']:g}%"


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
    return join(
        [
            tag("h2", f"{NAMES.get(kind, kind)}: accuracy and change by depth"),
            show(
                plots.name_of(kind),
                f"Accuracy of every network, and mean relative change to base, against the number of copied layers; {kind}",
                f"Top: every network on its half's test rows; intervals here hold how much the halves differ in difficulty. "
                f"Bottom: the change relative to base, paired, so that difficulty is out of it. {over} A bar that leaves the "
                "panel goes on; an arrow at the lower edge is a mean below it, with its number. ",
                "Pale: the original's relative changes on halves of ImageNet, paired likewise where its logs allow; its + "
                "curves rest on one or two networks a point."
                if len(study["header"]["layers"]) == plots.yosinski2014.NUM_LAYERS
                else "",
            ),
        ]
    )


def claims(study: Study) -> Html:
    """The statements that people read off the figure, tested."""
    found = study["statements"]
    title = tag("h2", "What people read off this figure, tested")
    if not found:
        return join([title, tag("p", "There is one split of each kind, so nothing can be tested over splits.")])
    parts: list[Html] = [title]
    for kind in dict.fromkeys(statement["kind"] for statement in found):
        inside = [statement for statement in found if statement["kind"] == kind]
        parts += [
            tag("h3", f"{NAMES.get(kind, kind)}: {max(s['num_splits'] for s in inside)}"),
            tag("ul", *(tag("li", statement["sentence"]) for statement in inside)),
            table(
                ("Read off as", "Compared", "Effect", f"{level(study)} interval", "p", "p (Holm)", "Splits"),
                [
                    (
                        statement["name"],
                        statement["contrast"],
                        words.points(statement["effect"]) + (" a layer" if statement["unit"].endswith("layer") else ""),
                        words.span((statement["low"], statement["high"]), words.points),
                        words.significant(statement["pvalue"], 2),
                        words.significant(statement["adjusted"], 2),
                        statement["num_splits"],
                    )
                    for statement in inside
                ],
                numbers=(2, 3, 4, 5, 6),
                caption=f"Effects in points of accuracy. “Holm”: adjusted for the {len(inside)} statements of this table "
                f"together; a sentence takes a side only where it is at most {1 - study['level']:.2g}. The intervals are "
                "not adjusted.",
            ),
        ]
    return join(parts)


# Difficulty


def difficulty(study: Study) -> Html:
    """Base accuracies of both halves."""
    largest = study["largest_gap"]
    said = "Only one half of each split was a target, so halves can't be compared."
    if largest:
        said = (
            f"The halves of one split differ by up to {words.points(abs(largest['gap'])).lstrip('+')} points (mean accuracy of "
            f"base, {largest['kind']} split {largest['split']}: A {words.percent(largest['A'])}, B "
            f"{words.percent(largest['B'])}). Where a curve rests on A halves and another on B halves, as the original's + "
            "curves do, this difference is mistaken for one of treatments; here every network is compared with its own "
            "half's base."
        )
    return join(
        [
            tag("h2", "How hard the halves are"),
            tag("p", said),
            table(
                ("Split", "Base on A", "Base on B", "A − B"),
                [
                    (f"{row['kind']} {row['split']}", words.percent(row["A"]), words.percent(row["B"]), words.points(row["gap"]))
                    for row in study["difficulty"]
                ],
                numbers=(1, 2, 3),
                caption="Mean over seeds; the difference in points.",
            ),
        ]
    )  # fmt: skip


# MMD


def distance(study: Study, show: Shower) -> Html | None:
    """Whether MMD predicts what freezing costs."""
    if not study["beside"]:
        return None
    layers = study["header"]["layers"]
    parts = [
        tag("h2", "Does the MMD at layer n predict what freezing n layers costs?"),
        *(tag("p", found["sentence"]) for found in study["predictions"]),
        show(
            "distance",
            "MMD² by layer, cost of freezing by layer, and both beside each other within layers",
            "Left: unbiased MMD² between held-out rows of the two halves, in the features of the other half's base network. "
            "Middle: accuracy of base less that of AnB with n layers frozen, in points. Both rise with depth in any study "
            "in which deep layers are specific, so that they go together over depth is no evidence that one predicts the "
            "other. Right: each number is a layer n of one split, both axes less the layer's mean over splits, in standard "
            "deviations over splits: what is left is whether a split with a larger MMD² also loses more.",
        ),
    ]
    for found in study["predictions"]:
        rows = [(f"{n}: {layers[n - 1]}", found["within"][n - 1]) for n in range(1, len(layers))]
        rows.append(("all, each layer centred and scaled", found["pooled"]))
        parts.append(
            table(
                ("Layer n", "r over splits", f"{level(study)} interval", "p", "Splits", ""),
                [
                    (
                        name,
                        correlation(one["r"]),
                        "–" if one["low"] is None else words.span((one["low"], one["high"]), correlation),
                        words.significant(one["pvalue"], 2),
                        one["num_splits"],
                        one["reason"],
                    )
                    for name, one in rows
                ],
                numbers=(1, 2, 3, 4),
                caption=f"{found['splits'].capitalize()} splits. In a layer: Pearson's correlation with Fisher's interval, not "
                "adjusted for the number of layers. All: jackknife over splits on Fisher's scale; p of shuffling whole "
                "splits. Without centring, over all layers and splits: r = "
                f"{correlation(found['naive'])}, which both changing with depth is enough to make.",
            )
        )
    return join(parts)


def correlation(value: float | None) -> str:
    """A correlation with its sign.

    >>> correlation(-0.456), correlation(None)
    ('−0.46', '–')
    """
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


# Limits, numbers and record


def limits(study: Study) -> Html:
    """What the study can't show."""
    header = study["header"]
    splits = {kind: {n["split"] for n in study["networks"] if n["kind"] == kind} for kind in plots.kinds(study)}
    said = []
    for kind, found in splits.items():
        if len(found) == 1:
            said.append(f"One {kind} split: whatever it shows may be a matter of these two sets of classes.")
        elif len(found) < 10:
            said.append(
                f"{len(found)} {kind} splits: intervals have {len(found) - 1} degrees of freedom, and a small effect can hide "
                "in them. “Not told apart” does not mean equal."
            )
    shared = len(splits.get("random", ())) > 1
    if shared:
        said.append(
            "The splits share their classes and rows, so they are less different from each other than data sets are: the "
            "intervals are about other splits of these data."
        )
    if rows := min((half["test"][name] for half in header.get("halves", []) for name in half["test"]), default=0):
        said.append(
            f"A half has as few as {rows:,} test rows: one row there is {words.points(1 / rows).lstrip('+')} points."
        )
    for kind in study["ceiling"]:
        base = next(p for p in study["curves"] if p["kind"] == kind and p["treatment"] == "base")["accuracy"][
            "estimate"
        ]
        said.append(
            f"Ceiling: on {kind} splits base is right on {words.percent(base)} of test rows, so a gain can be "
            f"{words.points(1 - base).lstrip('+')} points at most, and benefits of transfer can't show."
        )
    if header.get("seeds") == 1:
        said.append("One seed a network: what a seed changes can't be told from what a split changes.")
    said.append("One data set, one network and one schedule: nothing here says what others would show.")
    return join([tag("h2", "What this can't show"), tag("ul", *(tag("li", line) for line in said))])


def numbers(study: Study) -> Html:
    """Every point of the curves."""
    return join(
        [
            tag("h2", "Every point"),
            tag(
                "details",
                tag("summary", "Accuracy, difference and relative change by treatment and n (table.csv)"),
                table(
                    (
                        "Treatment, n",
                        "Splits",
                        "Accuracy",
                        "Difference",
                        f"{level(study)} interval",
                        "Relative",
                        "Networks",
                    ),
                    [
                        (
                            f"{p['treatment']}, {p['n']}",
                            p["kind"],
                            words.percent(p["accuracy"]["estimate"]),
                            words.points(p["difference"]["estimate"]),
                            interval(p["difference"]),
                            relative(p["relative"]["estimate"]),
                            p["num_networks"],
                        )
                        for p in study["curves"]
                    ],
                    numbers=(2, 3, 4, 5, 6),
                    caption="Difference to base in points. *: over the networks of one split, which says nothing about "
                    "other splits.",
                ),
            ),
        ]
    )


def relative(value: float | None) -> str:
    """A relative change; none where base is right on no row."""
    return "–" if value is None else f"{words.points(value)}%"


def interval(estimate: Mapping[str, Any]) -> str:
    """An interval in points, marked where it is not over splits."""
    if estimate["low"] is None:
        return "–"
    text = words.span((estimate["low"], estimate["high"]), words.points)
    return text if estimate["over"] == "splits" else f"{text} *"


def record(study: Study) -> Html:
    """What it takes to repeat the study."""
    header = study["header"]
    halves = [
        (
            f"{half['kind']} {half['split']}",
            *(
                f"{', '.join(str(name) for name in half[which])} ({half['train'][which]:,} + {half['test'][which]:,} rows)"
                for which in "AB"
            ),
        )
        for half in header.get("halves", [])
    ]
    facts = [("Networks", f"{len(study['networks']):,}"), ("Seeds", header.get("seeds", "–"))]
    if header.get("seconds") is not None:
        facts.append(("Time", words.seconds(header["seconds"])))
    facts += [(name, setting(value)) for name, value in header.get("settings", {}).items()]
    command = header.get("command") or f"python -m experiments.transferability --config configs/{header['name']}.py"
    return join(
        [
            tag("h2", "How this was made"),
            tag("p", "The command that repeats it:"),
            tag("pre", command),
            table((), facts),
            tag("h3", "The halves"),
            table(("Split", "A", "B"), halves, caption="Classes, and rows for training + for testing."),
            tag(
                "p",
                "Every number here is in study.json, the curves in table.csv, the networks in networks.csv, and the pictures "
                "in figures/, beside this page.",
            ),
        ]
    )


def setting(value: Any) -> str:
    """A plain value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(setting(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
