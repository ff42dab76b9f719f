"""The page of a comparison of strategies: accuracy against labels, what each rule would choose, and what that costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments import workdir
from experiments.report.markup import Html, table, tag
from experiments.report.page import Shower, document
from experiments.report.plots import save
from experiments.report.style import CSS, GREY, MATPLOTLIB, WIDTH
from experiments.report.transferability import as_csv
from experiments.report.ways import LOOKS, compared, points, short

Study = dict[str, Any]


def write(directory: str | Path) -> None:
    """Writes figures/, ways.csv, choices.csv and report.html from strategies.json, the page last.

    Raises:
      FileNotFoundError: there is no strategies.json yet.
    """
    directory = Path(directory)
    study = workdir.read_json(directory / "strategies.json")
    pictures = figures(study)
    files = {f"figures/{name}": content for name, content in pictures.items()}
    files |= {"ways.csv": as_csv(list(flat_ways(study))), "choices.csv": as_csv(list(flat_choices(study)))}
    for name, content in files.items():
        workdir.write_bytes(directory / name, content)
    workdir.write_bytes(directory / "report.html", render(study, pictures))


def flat_ways(study: Study) -> Iterator[dict[str, Any]]:
    """One row a way and number of labels; shares, not percent."""
    for way in study["ways"]:
        row = {name: way[name] for name in ("labels", "way", "frozen", "cached", "augmented", "learning_rate")}
        row |= {"accuracy": way["accuracy"]["estimate"], "low": way["accuracy"]["low"], "high": way["accuracy"]["high"]}
        for base in ("linear_probe", "from_scratch"):
            found = difference(study, way["labels"], way["way"], base)
            row |= {f"less_{base}{end}": None if found is None else found[key] for end, key in ENDS}
        yield row | {"seconds": way["seconds"]}


ENDS = (("", "estimate"), ("_low", "low"), ("_high", "high"))


def flat_choices(study: Study) -> Iterator[dict[str, Any]]:
    """One row a number of labels, rule and assumption."""
    for choice in study["choices"]:
        row = {name: choice[name] for name in ("labels", "rule", "assumed", "way", "best")}
        yield row | {f"cost{end}": choice["cost"][key] for end, key in ENDS}


def difference(study: Study, labels: int, way: str, less: str) -> dict[str, float] | None:
    """The paired difference of two ways at one number of labels; none of a way and itself."""
    wanted = {"labels": labels, "way": way, "less": less}
    return next((row for row in study["differences"] if wanted.items() <= row.items()), None)


def answer(study: Study) -> str:
    """What the intervals allow to say of the largest number of labels; negative transfer first, where it is seen."""
    labels = max(study["labels"])
    ways = {way["way"]: way for way in study["ways"] if way["labels"] == labels}
    reused = [name for name in ways if ways[name]["regime"] != "from_scratch"]
    worse = [
        name for name in reused if (found := difference(study, labels, name, "from_scratch")) and found["high"] < 0
    ]
    best = max(reused, key=lambda name: ways[name]["accuracy"]["estimate"])
    said = []
    if best in worse:
        said.append(f"With {labels:,} labels every way of reuse is worse than from scratch (negative transfer).")
    elif worse:
        listed = ", ".join(f"“{short(name)}”" for name in worse)
        said.append(f"With {labels:,} labels some ways of reuse are worse than from scratch: {listed}.")
    share = f"{ways[best]['accuracy']['estimate']:.1%}"
    said.append(f"With {labels:,} labels the best reuse was “{short(best)}”, {share} of the test rows right.")
    if best != "linear_probe" and (found := difference(study, labels, best, "linear_probe")):
        said.append(f"It is {compared(found)} the frozen base ({points(found)}).")
    if found := difference(study, labels, best, "from_scratch"):
        said.append(f"It is {compared(found)} from scratch ({points(found)}).")
    return " ".join(said)


def as_text(study: Study) -> str:
    """The table of ways, for a terminal."""
    lines = [f"{'labels':>7}  {'way':32} {'accuracy':>9}  {'interval':14} {'seconds':>8}"]
    for way in study["ways"]:
        found = way["accuracy"]
        interval = f"{found['low']:.3f} … {found['high']:.3f}"
        lines.append(
            f"{way['labels']:>7}  {short(way['way']):32} {found['estimate']:>9.3f}  {interval:14} {way['seconds']:>8.0f}"
        )
    return "\n".join([*lines, answer(study)])


def figures(study: Study) -> dict[str, bytes]:
    """The picture, as SVG and as PNG; the same study gives the same bytes."""
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        curves(above, study)
        chosen(below, study)
        below.set_xlabel("labelled rows of the target (validation rows among them)")
        return {f"strategies.{kind}": save(figure, kind) for kind in ("svg", "png")}


def curves(axes: Any, study: Study) -> None:
    """Accuracy of each way against the number of labels."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for way in study["ways"]:
        ways.setdefault(way["way"], []).append(way)
    for number, (name, points_of) in enumerate(ways.items()):
        shift = 1.02 ** (
            number - (len(ways) - 1) / 2
        )  # so that intervals at one number of labels don't hide each other
        found = [way["accuracy"] for way in points_of]
        axes.errorbar(
            [way["labels"] * shift for way in points_of],
            [100 * one["estimate"] for one in found],
            yerr=[
                [100 * (one["estimate"] - one["low"]) for one in found],
                [100 * (one["high"] - one["estimate"]) for one in found],
            ],
            label=short(name),
            capsize=2,
            elinewidth=0.9,
            **look(name),
        )
    axes.set_xscale("log")
    axes.set_xticks(study["labels"])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_ylabel("test rows right, %")
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def chosen(axes: Any, study: Study) -> None:
    """Which of them each rule would choose, under either assumption, in the marks of the curves."""
    kinds = list(dict.fromkeys((choice["rule"], choice["assumed"]) for choice in study["choices"]))
    for choice in study["choices"]:
        row = kinds.index((choice["rule"], choice["assumed"]))
        axes.plot(choice["labels"], row, **{**look(choice["way"]), "ls": "none", "ms": 8})
    axes.set_yticks(range(len(kinds)), [f"{rule}, if {assumed}" for rule, assumed in kinds])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_title("what the rules would choose", loc="left")
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)


def look(way: str) -> dict[str, Any]:
    """Colour, mark and dash of a way; those of augmented ones are hollow and dotted."""
    plain = {"ls": "-", "ms": 6, "lw": 1.5, **LOOKS[way.split(" ")[0]]}
    return plain | {"ls": ":", "mfc": "white"} if way.endswith("augmented") else plain


def render(study: Study, pictures: dict[str, bytes]) -> bytes:
    """The page, with the picture inside it."""
    show = Shower(pictures)
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag(
            "h1",
            f"A trained {study['network']}, a new data set ({study['target']}): train all of it, some of it, or only a new "
            "classifier? And what do labels change?",
        ),
        tag("p", "The answer", class_="label"),
        tag("p", answer(study), class_="answer"),
        how(study),
        tag("h2", "Accuracy and labels"),
        show(
            "strategies",
            "Accuracy against the number of labels, a curve for each way",
            f"Share of {study['num_test']:,} test rows that are right, with 95 % intervals over test rows. Each point is one "
            "set of labelled rows and one training; how much another draw of either would change it, the intervals don't say. "
            "Below: which way each rule would choose if source and target were similar, or different.",
        ),
        ways_table(study),
        tag("h2", "What the rules would choose"),
        choices_table(study),
        tag("h2", "How to repeat it"),
        tag("pre", study["command"]),
        tag("p", f"{study['seconds'] / 60:.0f} minutes of computing."),
    )
    return document(f"{study['name']}: strategies", body, CSS + "td.number, th.number { white-space: nowrap; }\n")


def how(study: Study) -> Html:
    """What was done, in a paragraph."""
    height, width, *_ = study["input"]
    return tag(
        "p",
        f"The network has {len(study['layers'])} layers, the last of them new; inputs are {height} × {width} pixels. Learning "
        f"rate and the epoch that counts are chosen on {study['held_out']:.0%} of the labelled rows, held out; all ways are "
        f"tested on the same {study['num_test']:,} rows. {study['note']}",
    )


def ways_table(study: Study) -> Html:
    rows = []
    for way in study["ways"]:
        found = way["accuracy"]
        differences = [difference(study, way["labels"], way["way"], base) for base in ("linear_probe", "from_scratch")]
        rows.append(
            (
                f"{way['labels']:,}",
                short(way["way"]),
                f"{found['estimate']:.1%} ({found['low']:.1%} … {found['high']:.1%})",
                *("" if one is None else points(one) for one in differences),
                f"{way['seconds']:.0f}",
            )
        )
    head = ("labels", "way", "right (95 % interval)", "less frozen base", "less from scratch", "seconds")
    return table(
        head, rows, numbers=(2, 3, 4, 5), caption="Differences are paired over the same test rows, with 95 % intervals."
    )


def choices_table(study: Study) -> Html:
    rows = [
        (
            f"{choice['labels']:,}",
            choice["rule"],
            choice["assumed"],
            short(choice["way"]),
            short(choice["best"]),
            "none" if choice["way"] == choice["best"] else points(choice["cost"]),
        )
        for choice in study["choices"]
    ]
    return table(
        ("labels", "rule", "if assumed", "it would choose", "best here", "cost of the choice"),
        rows,
        numbers=(5,),
        caption="The source's rows did not come with the network, so whether source and target are similar is unknown: both "
        "assumptions are shown. The cost is the accuracy of the best way less that of the choice, on the same test rows; the "
        "best was picked on these very rows, so costs are a little too high.",
    )
