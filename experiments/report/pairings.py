"""The page of the four pairings: one table, one picture, and what they are too small to show."""

from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.report import pairings_plots as plots
from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.page import Shower, document
from experiments.report.transferability import as_csv

Found = dict[str, Any]
Line = dict[str, Any]

# What is done, and what stands beside it, in words.
ARMS = {
    "S→S": "the source's classifier, fine-tuned",
    "U→S": "the source's autoencoder as a classifier, fine-tuned",
    "scratch": "the same classifier from scratch",
    "source": "the source's classifier",
    "adapted": "the source's classifier with MMD² in its loss",
    "autoencoder": "code of the source's autoencoder",
    "autoencoder+": "code of the source's autoencoder, trained further on the target",
    "own autoencoder": "code of an autoencoder of the target alone",
    "pixels": "pixels",
    "random": "features of the network before training",
}
METRICS = {"accuracy": "accuracy", "ari": "adjusted Rand index", "nmi": "normalised mutual information"}
PAIRINGS = {
    "S→S": "Supervised → supervised",
    "S→U": "Supervised → unsupervised",
    "U→S": "Unsupervised → supervised",
    "U→U": "Unsupervised → unsupervised",
}
# (pairing, arm, beside, metric): what the answer names, if it is there.
FIRST = (
    ("S→S", "S→S", "scratch", "accuracy"),
    ("S→U", "source", "pixels", "ari"),
    ("S→U", "adapted", "source", "accuracy"),
    ("U→S", "U→S", "scratch", "accuracy"),
    ("U→U", "autoencoder+", "pixels", "ari"),
)


def write(directory: str | Path) -> None:
    """Writes figures/, table.csv, arms.csv and report.html from pairings.json, the page last.

    Raises:
      FileNotFoundError: the experiment has no pairings.json yet.
    """
    directory = Path(directory)
    found = workdir.read_json(directory / "pairings.json")
    pictures = plots.figures(found)
    for name, content in pictures.items():
        workdir.write_bytes(directory / "figures" / name, content)
    workdir.write_bytes(directory / "table.csv", as_csv(table_rows(found)))
    workdir.write_bytes(directory / "arms.csv", as_csv(arm_rows(found)))
    workdir.write_bytes(directory / "report.html", render(found, pictures))


def table_rows(found: Found) -> list[dict[str, Any]]:
    """One row a line of the table; shares and indices as they are, empty where there is no interval."""
    rows = []
    for line in found["lines"]:
        row = {name: line[name] for name in ("pairing", "arm", "beside", "labels", "metric")}
        for name in ("reached", "reached_beside", "difference"):
            row |= {name: line[name]["estimate"], f"{name}_low": line[name]["low"], f"{name}_high": line[name]["high"]}
        rows.append(row | {"seeds": line["difference"]["num"], "p_holm": line["pvalue"], "verdict": line["verdict"]})
    return rows


def arm_rows(found: Found) -> list[dict[str, Any]]:
    """One row an arm, seed and number of labels."""
    names = ("accuracy", "ari", "nmi", "source_accuracy", "mmd2", "explained", "seconds")
    return [
        {"seed": row["seed"], "arm": row["arm"], "labels": row["labels"], **{name: row.get(name) for name in names}}
        for row in found["rows"]
    ]


def answer(found: Found) -> str:
    """A sentence a pairing."""
    return " ".join(answers(found))


def answers(found: Found) -> list[str]:
    """A sentence a pairing and number of labels, each no stronger than its adjusted p-value allows."""
    said = []
    for wanted in FIRST:
        there = [
            line
            for line in found["lines"]
            if tuple(line[name] for name in ("pairing", "arm", "beside", "metric")) == wanted
        ]
        said += [sentence(line) for line in sorted(there, key=lambda line: line["labels"])]
    return said


def sentence(line: Line) -> str:
    """What one line shows."""
    where = line["pairing"] + (f", {line['labels']} labels" if line["labels"] else "")
    reached = f"{METRICS[line['metric']]} {value(line, 'reached')} beside {value(line, 'reached_beside')}"
    told = {"better": "better", "worse": "worse", "unclear": "not told apart"}[line["verdict"]]
    return f"{where}: {ARMS[line['arm']]} against {ARMS[line['beside']]}: {told} ({reached}, {spanned(line)})."


def value(line: Line, name: str) -> str:
    """A mean in its unit."""
    number = line[name]["estimate"]
    return words.percent(number) if line["metric"] == "accuracy" else f"{number:.3f}".replace("-", "−")


def spanned(line: Line) -> str:
    """The difference with its interval, accuracies in points."""
    difference = line["difference"]

    def text(number: float) -> str:
        return words.points(number) if line["metric"] == "accuracy" else f"{number:+.3f}".replace("-", "−")

    unit = " points" if line["metric"] == "accuracy" else ""
    if difference["low"] is None:
        return f"{text(difference['estimate'])}{unit} in every seed"
    return f"{text(difference['estimate'])}{unit} [{text(difference['low'])} … {text(difference['high'])}]"


def render(found: Found, pictures: dict[str, bytes]) -> bytes:
    """The page, with the SVG files of `pictures` inside it: no script, nothing to load."""
    header, show = found["header"], Shower(pictures)
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag(
            "h1",
            f"What does {header['source']} give {header['target']}, with labels on either side, on both, or on neither?",
        ),
        tag("p", "The answer", class_="label"),
        tag("ul", *(tag("li", one) for one in answers(found))),
        how(found),
        show(
            "pairings",
            "Every arm beside the target without transfer, and their paired differences, with intervals over seeds",
            "Left: what each reaches, filled with transfer, open without. Right: the difference seed by seed. Bars are "
            f"{level(found)} intervals over {header['seeds']} seeds. Where a bar on the right crosses 0 the two are not told "
            "apart; a filled mark there is a difference that stands after Holm's correction over all lines.",
        ),
        whole_table(found),
        adaptation(found),
        limits(found),
        record(found),
    )
    return document(f"{header['name']}: four pairings", body)


def how(found: Found) -> Html:
    """What was done."""
    header = found["header"]
    adapted = ", ".join(header["adapted"])
    return tag(
        "p",
        tag("b", "What was done. "),
        f"{header['seeds']} times, {header['source_rows']:,} rows of {header['source']} were drawn, and {header['target']} was "
        f"split into {header['target_rows']:,} rows to learn from and {header['test_rows']:,} to test on. With a supervised "
        "target only some of its rows have labels. With an unsupervised one none has: its rows are clustered by k-means into "
        f"{header['clusters']} clusters, and these are compared with the classes, which nothing had seen. The classifiers and "
        "the encoder of the autoencoder have the same layers; what is clustered is the output of "
        f"{header['features']}. All fits have a fixed length, so no label of the target chose anything. “MMD² as a loss” is "
        f"the cross-entropy on the source plus {header['weight']:g} × MMD² between source and target in {adapted}: it sees the "
        "target's rows, not their labels.",
    )


def whole_table(found: Found) -> Html:
    """The table."""
    lines = found["lines"]
    return join(
        [
            tag("h2", "All comparisons"),
            table(
                (
                    "Pairing",
                    "With transfer",
                    "Beside",
                    "Labels",
                    "Metric",
                    "With",
                    "Beside",
                    "Difference",
                    "p (Holm)",
                    "",
                ),
                [
                    (
                        line["pairing"],
                        ARMS[line["arm"]],
                        ARMS[line["beside"]],
                        line["labels"] or "none",
                        METRICS[line["metric"]],
                        value(line, "reached"),
                        value(line, "reached_beside"),
                        spanned(line),
                        words.significant(line["pvalue"], 2),
                        line["verdict"],
                    )
                    for line in lines
                ],
                numbers=(3, 5, 6, 7, 8),
                caption=f"Means over seeds; in brackets Student's {level(found)} interval of the paired difference, not adjusted "
                f"for there being {len(lines)} lines. p is adjusted by Holm's method over all of them, and the last column takes "
                f"a side only where it is at most {1 - found['level']:.2g}.",
            ),
        ]
    )


def adaptation(found: Found) -> Html | None:
    """Whether training with MMD² brought the two sets together inside the network."""
    arms = {arm["arm"]: arm for arm in found["arms"] if "mmd2" in arm}
    if not {"source", "adapted"} <= arms.keys():
        return None
    return join(
        [
            tag("h2", "Did the loss do what it says?"),
            table(
                ("", f"MMD² in {found['header']['features']}", "Accuracy on the source's test rows"),
                [
                    (
                        ARMS[name],
                        *(
                            interval(arms[name][key], text)
                            for key, text in (("mmd2", words.significant), ("source_accuracy", words.percent))
                        ),
                    )
                    for name in ("source", "adapted")
                ],
                numbers=(1, 2),
                caption="Unbiased MMD² between held-out rows of source and target, with a Gaussian kernel whose bandwidth is the "
                "median distance in that layer of that network; means and intervals over seeds.",
            ),
        ]
    )


def interval(mean: dict[str, Any], text: Any) -> str:
    """A mean with its interval."""
    if mean["low"] is None:
        return text(mean["estimate"])
    return f"{text(mean['estimate'])} [{text(mean['low'])} … {text(mean['high'])}]"


def limits(found: Found) -> Html:
    """What the experiment can't show."""
    header = found["header"]
    said = [
        f"{header['seeds']} seeds draw from one source and one target; the intervals are over such draws and say nothing of "
        "other data sets, networks or schedules.",
        "“Unclear” does not mean equal: a small effect can hide in an interval.",
        "k-means was told how many classes there are, which an unlabelled target does not tell.",
    ]
    if not header["same_classes"]:
        said.append(
            "Source and target have different classes, so no accuracy can be given without labels of the target."
        )
    return join([tag("h2", "What this can't show"), tag("ul", *(tag("li", line) for line in said))])


def record(found: Found) -> Html:
    """How to repeat it."""
    header = found["header"]
    seconds = sum(row["seconds"] for row in found["rows"])
    return join(
        [
            tag("h2", "How to repeat this"),
            tag("pre", header["command"]) if header["command"] else None,
            tag("p", f"{len(found['rows'])} arms took {words.seconds(seconds)} in all. {header['notes']}"),
        ]
    )


def level(found: Found) -> str:
    """Of the intervals."""
    return f"{100 * found['level']:g}%"
