"""The picture of the four pairings: every arm beside the same target without transfer, and their difference."""

from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report.plots import save
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, MATPLOTLIB, VERMILION, WIDTH

SHORT = {
    "S→S": "classifier, fine-tuned",
    "U→S": "autoencoder, fine-tuned",
    "scratch": "from scratch",
    "source": "classifier",
    "adapted": "classifier with MMD² loss",
    "autoencoder": "autoencoder",
    "autoencoder+": "autoencoder, trained further",
    "own autoencoder": "target's autoencoder",
    "pixels": "pixels",
    "random": "untrained network",
}
METRICS = {"accuracy": "accuracy", "ari": "Rand index"}
SIGNED = FuncFormatter(lambda value, _: f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-9 else "0")


def figures(found: dict[str, Any]) -> dict[str, bytes]:
    """The figure by file name, as SVG and PNG; the same numbers give the same bytes."""
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = draw(found)
        files = {"pairings.svg": save(figure, "svg")}
        figure.set_layout_engine("none")  # what the first saving arranged stays
        return files | {"pairings.png": save(figure, "png")}


def draw(found: dict[str, Any]) -> Figure:
    """One row a line of the table, those in mutual information left out: they repeat the Rand index."""
    lines = [line for line in found["lines"] if line["metric"] in METRICS]
    figure = Figure(figsize=(WIDTH, 0.33 * len(lines) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    names, before = [], None
    for y, line in enumerate(lines):
        if line["pairing"] != before and before is not None:
            for axes in (left, right):
                axes.axhline(y - 0.5, color=GREY, lw=0.6)
        first, before = line["pairing"] != before, line["pairing"]
        labels = f", {line['labels']} labels" if line["labels"] else ""
        said = f"{SHORT[line['arm']]} | {SHORT[line['beside']]}{labels} · {METRICS[line['metric']]}"
        names.append(said)
        if first:
            left.text(0.02, y, line["pairing"], weight="bold", va="center")
        bar(left, line["reached_beside"], y + 0.14, VERMILION, "s", filled=False)
        bar(left, line["reached"], y - 0.14, BLUE, "o", filled=True)
        told = line["verdict"] != "unclear"
        bar(
            right,
            line["difference"],
            y,
            {"better": BLUE, "worse": VERMILION}.get(line["verdict"], BLACK),
            "D",
            filled=told,
        )
    left.set_yticks(range(len(lines)), names)
    left.set_ylim(len(lines) - 0.4, -0.6)
    left.set_xlim(0, 1.02)
    left.set_title("What each reaches", loc="left")
    right.set_title("Difference, seed by seed", loc="left")
    right.axvline(0, color=GREY, lw=1.2, ls="--", zorder=0)
    right.xaxis.set_major_formatter(SIGNED)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", color=LIGHT)
        axes.set_axisbelow(True)
    marks = [
        Line2D([], [], color=BLUE, marker="o", lw=1.6, label="with transfer (left of |)"),
        Line2D([], [], color=VERMILION, marker="s", mfc="white", lw=1.6, label="beside it (right of |)"),
        Line2D([], [], color=BLACK, marker="D", mfc="white", lw=1.6, label="difference, not told apart"),
        Line2D([], [], color=GREY, marker="D", lw=1.6, label="difference that stands (blue: better)"),
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=4)
    return figure


def bar(axes: Axes, mean: dict[str, Any], y: float, color: str, marker: str, *, filled: bool) -> None:
    """A mean with its interval."""
    if mean["low"] is not None:
        axes.plot([mean["low"], mean["high"]], [y, y], color=color, lw=1.6, solid_capstyle="butt")
    axes.plot(mean["estimate"], y, marker=marker, color=color, mfc=color if filled else "white", ms=5.5, ls="none")
