"""The page of a study of topics: ROC AUC against the number of labels, for every way, with the differences that matter."""

import warnings
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
from experiments.report.style import BLACK, BLUE, GREY, MATPLOTLIB, ORANGE, SKY, VERMILION, WIDTH

Topics = dict[str, Any]

# Every way has a colour, a marker and a dash of its own; trees are dashed.
LOOKS: dict[str, dict[str, Any]] = {
    "source network": {"color": GREY, "marker": "x", "ls": ":"},
    "linear_probe": {"color": SKY, "marker": "v", "ls": "-"},
    "finetune_all": {"color": BLUE, "marker": "o", "ls": "-"},
    "chosen": {"color": BLUE, "marker": "*", "ls": "-."},
    "head kept": {"color": BLACK, "marker": "s", "ls": "-"},
    "from_scratch": {"color": VERMILION, "marker": "D", "ls": "-"},
    "source boosting": {"color": GREY, "marker": "+", "ls": "--"},
    "boosting": {"color": ORANGE, "marker": "^", "ls": "--"},
    "boosting on both": {"color": ORANGE, "marker": "P", "ls": "--"},
}
MEANINGS = {
    "source network": "source network, as it is",
    "linear_probe": "linear probe (new head)",
    "finetune_all": "fine-tuned (new head)",
    "chosen": "chosen by the rule",
    "head kept": "fine-tuned, head kept",
    "from_scratch": "network from scratch",
    "source boosting": "boosting on the source, as it is",
    "boosting": "boosting on the target",
    "boosting on both": "boosting on both",
}


def write(directory: str | Path) -> None:
    """Writes figures/ and report.html from topics.json, the page last.

    Raises:
      FileNotFoundError: there is no topics.json yet.
    """
    directory = Path(directory)
    topics = workdir.read_json(directory / "topics.json")
    pictures = figures(topics)
    for name, content in pictures.items():
        workdir.write_bytes(directory / "figures" / name, content)
    workdir.write_bytes(directory / "report.html", render(topics, pictures))


def figures(topics: Topics) -> dict[str, bytes]:
    """The picture, as SVG and as PNG; the same study gives the same bytes."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", MATPLOTLIB]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = curves(topics)
        files = {"auc.svg": save(figure, "svg")}
        figure.set_layout_engine("none")
        return files | {"auc.png": save(figure, "png")}


def curves(topics: Topics) -> Figure:
    """Left: AUC against labels. Right: AUC less that of the network from scratch, with intervals."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = sorted({row["labels"] for row in topics["rows"]})
    ways = list(dict.fromkeys(row["way"] for row in topics["rows"]))
    for number, way in enumerate(ways):
        rows = sorted((row for row in topics["rows"] if row["way"] == way), key=lambda row: row["labels"])
        look = {**LOOKS[way], "ms": 5, "lw": 1.3}
        left.plot([r["labels"] for r in rows], [r["auc"]["estimate"] for r in rows], label=MEANINGS[way], **look)
        gains = [row for row in rows if row["gain"]]
        if not gains:
            continue
        # Side by side, so that no interval hides another.
        places = [row["labels"] * 1.07 ** (number - len(ways) / 2) for row in gains]
        middle = [row["gain"]["estimate"] for row in gains]
        ends = [[row["gain"]["estimate"] - row["gain"]["low"] for row in gains]]
        ends.append([row["gain"]["high"] - row["gain"]["estimate"] for row in gains])
        right.errorbar(places, middle, ends, **{**look, "ls": "none", "lw": 1.1})
    right.axhline(0, color=VERMILION, lw=0.9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("labelled rows of the target")
    left.set_title("ROC AUC on the test rows", loc="left")
    right.set_title(f"less that of the network from scratch, {topics['level']:.0%} interval", loc="left")
    right.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{round(value, 4):+g}".replace("-", "−") if value else "0")
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def render(topics: Topics, pictures: dict[str, bytes]) -> bytes:
    """The page."""
    show = Shower(pictures)
    groups = topics["test_groups"]
    over = f"over {groups} whole groups of the test rows" if groups else "over the test rows"
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag("h1", f"{topics['name']}: what is the source's model worth for the target, label by label?"),
        tag("p", "The answer", class_="label"),
        *(tag("p", line) for line in statements(topics)),
        show(
            "auc",
            "ROC AUC of each way against the number of labelled rows, and its difference to training from scratch",
            f"Means over {topics['draws']} draws of the labelled rows. Each way gets the same rows, validation rows taken "
            "from among them, and the same test rows.",
        ),
        auc_table(topics),
        difference_table(topics, "gain", "the network from scratch"),
        difference_table(topics, "beside_boosting", "boosting on the target's rows"),
        tag(
            "p",
            f"{topics['test_rows']:,} test rows. Intervals hold both sources of variation: the jackknife {over}, and the "
            "spread over draws; each holds by itself. A difference is called better or worse, and is bold, where it is beyond 0 "
            f"at the level {1 - topics['level']:.2g} after Holm's adjustment over all differences of its table.",
        ),
        tag("p", topics["note"]),
        tag("pre", topics["command"]),
    )
    return document(f"{topics['name']}: topics", body)


def auc_table(topics: Topics) -> Html:
    """ROC AUC with its interval."""
    return _table(topics, lambda row: row["auc"], "ROC AUC", lambda value: f"{value:.3f}")


def difference_table(topics: Topics, field: str, what: str) -> Html:
    """Paired differences, bold where they are beyond 0 after adjustment."""
    return _table(topics, lambda row: row[field], f"ROC AUC less that of {what}", lambda value: f"{value:+.3f}")


def _table(topics: Topics, pick: Any, caption: str, form: Any) -> Html:
    counts = sorted({row["labels"] for row in topics["rows"]})
    found = {(row["way"], row["labels"]): pick(row) for row in topics["rows"]}
    lines = []
    for way in dict.fromkeys(way for way, _ in found):
        if any(found.get((way, count)) for count in counts):
            cells = (found.get((way, count)) for count in counts)
            lines.append([MEANINGS[way], *(_cell(cell, form, _side(cell, topics["level"])) for cell in cells)])
    head = ["", *(f"{count:,} labels" for count in counts)]
    return table(head, lines, numbers=range(1, len(head)), caption=caption + ", with its interval.")


def _cell(interval: dict[str, float] | None, form: Any, mark: int = 0) -> str:
    if not interval:
        return "–"
    low, middle, high = (form(interval[name]).replace("-", "−") for name in ("low", "estimate", "high"))
    text = f"{middle} ({low} … {high})"
    return tag("b", text) if mark else text


def statements(topics: Topics) -> list[str]:
    """A sentence a number of labels, no stronger than the adjusted p-values."""
    lines = []
    for count in sorted({row["labels"] for row in topics["rows"]}):
        rows = [row for row in topics["rows"] if row["labels"] == count]
        better, worse, above, below = (
            [row for row in rows if _side(row[field], topics["level"]) == side]
            for field in ("gain", "beside_boosting")
            for side in (1, -1)
        )
        best = max(rows, key=lambda row: row["auc"]["estimate"])
        line = f"With {count:,} labelled rows, better than the network from scratch, after Holm's adjustment: {_names(better)}"
        line += f"; worse: {_names(worse)}. Better than boosting on the target's rows: {_names(above)}; worse: "
        line += f"{_names(below)}. "
        lines.append(f"{line}The largest AUC, {best['auc']['estimate']:.3f}, is that of: {MEANINGS[best['way']]}.")
    return lines


def _side(gain: dict[str, float] | None, level: float) -> int:
    """1 where a difference is above 0, −1 below, at the level and after adjustment; 0 else, and for what is no difference."""
    if not gain or gain.get("adjusted", 1.0) > 1 - level:
        return 0
    return 1 if gain["estimate"] > 0 else -1


def _names(rows: list[dict[str, Any]]) -> str:
    return ", ".join(MEANINGS[row["way"]] for row in rows) or "none"


def as_text(topics: Topics) -> str:
    """The AUCs as a table in Markdown, then the sentences."""
    counts = sorted({row["labels"] for row in topics["rows"]})
    found = {(row["way"], row["labels"]): row["auc"] for row in topics["rows"]}
    lines = ["| ROC AUC | " + " | ".join(f"{count:,}" for count in counts) + " |", "|---|" + "---|" * len(counts)]
    for way in dict.fromkeys(way for way, _ in found):
        cells = (_cell(found.get((way, count)), lambda value: f"{value:.3f}") for count in counts)
        lines.append(f"| {MEANINGS[way]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *statements(topics)])
