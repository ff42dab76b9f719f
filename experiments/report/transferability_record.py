"""The end of the page of a transferability study: what it can't show, every number, and how to repeat it."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from experiments.report import transferability_plots as plots
from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.transferability_evidence import Study, level


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
                f"{len(found)} {kind} splits: intervals have {len(found) - 1} degree{'s' * (len(found) > 2)} of freedom, and a "
                "small effect can hide "
                "in them. “Not told apart” does not mean equal."
            )
    said += [shared_classes(study, kind) for kind, found in splits.items() if len(found) > 1]
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
    said += [note for note in header.get("notes", []) if "group" in note.lower()]
    data = "One data set" if data_sets(header) == 1 else "Two data sets"
    said.append(f"{data}, one network and one schedule: nothing here says what others would show.")
    return join([tag("h2", "What this can't show"), tag("ul", *(tag("li", line) for line in said))])


def shared_classes(study: Study, kind: str) -> str:
    """How much the splits of one kind have in common."""
    splits = [half for half in study["header"].get("halves", []) if half["kind"] == kind]
    agree = [max(_same_side(a, b), _same_side(a, b, exchanged=kind == "random")) for a, b in combinations(splits, 2)]
    if not agree:
        return f"The {kind} splits may share classes, so they differ less from each other than data sets do."
    classes = len(splits[0]["A"]) + len(splits[0]["B"])
    least, most = min(agree), max(agree)
    share = f"{least}" if least == most else f"at least {least} and at most {most}"
    half = study["shared_halves"].get(kind)
    fixed = f" (the whole of {half} among them: the intervals are over splits that share it)" if half else ""
    return (
        f"Any two {kind} splits have {share} of their {classes} classes on the same side{fixed}, so they differ less from each "
        "other than data sets do: the intervals are about other splits of these data."
    )


def _same_side(a: Mapping[str, Sequence[str]], b: Mapping[str, Sequence[str]], *, exchanged: bool = False) -> int:
    """Classes that two splits have on the same side; `exchanged`: with A of one beside B of the other."""
    return sum(len({*a[here]} & {*b[there]}) for here, there in zip("AB", "BA" if exchanged else "AB"))


def data_sets(header: Mapping[str, Any]) -> int:
    """How many data sets the halves are from."""
    if names := header.get("data"):
        return len(names)
    return 2 if header.get("settings", {}).get("other") else 1


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
                    "other splits. †: over splits that share a half, which says nothing about other classes there.",
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
    return text + {"splits": "", "networks of one split": " *"}.get(estimate["over"], " †")


def section(study: Study) -> Html:
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
        facts.append(("Time of all networks added up", words.seconds(header["seconds"])))
    facts += [(name, setting(value)) for name, value in header.get("settings", {}).items() if given(value)]
    command = header.get("command") or f"python -m experiments.transferability --config configs/{header['name']}.py"
    return join(
        [
            tag("h2", "How this was made"),
            tag("p", "The command that repeats it:"),
            tag("pre", command),
            table((), facts),
            *(tag("p", note) for note in header.get("notes", [])),
            tag("h3", "The halves"),
            table(("Split", "A", "B"), halves, caption="Classes, and rows for training + for testing."),
            tag(
                "p",
                "Every number here is in study.json, the curves in table.csv, the tests in statements.csv, the networks in "
                "networks.csv, and the pictures "
                "in figures/, beside this page; distances.csv has MMD² and cost by split and layer, where they were measured.",
            ),
        ]
    )


def given(value: Any) -> bool:
    """Whether a setting says anything: none and empty ones are left out."""
    return value is not None and value != "" and value != [] and value != {}


def setting(value: Any) -> str:
    """A plain value in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items() if given(inner))
    if isinstance(value, list | tuple):
        return ", ".join(setting(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
