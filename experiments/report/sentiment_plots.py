"""The pictures of a study of words to sentiment."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.plots import PERCENT, save
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, MATPLOTLIB, ORANGE, SKY, VERMILION, WIDTH
from experiments.report.transferability_plots import SIGNED

Study = Mapping[str, Any]
COLOURS = (SKY, ORANGE, BLUE, VERMILION)
MARKERS = ("v", "D", "o", "^")
REGIMES = {"frozen": "Copied vectors stay as they are", "finetuned": "Copied vectors are trained on"}
WAYS = {
    "as_is": "as it is, no label",
    "linear_probe": "new classifier only",
    "finetune_top": "words frozen, rest trained",
    "finetune_all": "all fine-tuned",
    "lp_ft": "classifier first, then all",
    "words": "its first vectors only",
    "from_scratch": "from scratch",
}


def figures(study: Study) -> dict[str, bytes]:
    """Every figure that the study has the data for, by file name; the same study gives the same bytes."""
    with matplotlib.style.context(["default", MATPLOTLIB]):
        drawn = {"accuracy": accuracy(study), "difference": difference(study)}
        if study["domains"]:
            drawn["domains"] = domains(study)
        files = {}
        for name, figure in drawn.items():
            files[f"{name}.svg"] = save(figure, "svg")
            figure.set_layout_engine("none")  # what the first saving arranged stays
            files[f"{name}.png"] = save(figure, "png")
    return files


def accuracy(study: Study) -> Figure:
    """Accuracy against the number of labels, one panel a regime, without transfer in each."""
    figure, panels, labels = _panels(study)
    for axes, regime in panels:
        _lines(axes, [one for one in study["accuracies"] if one["regime"] == "scratch"], labels, study, 0)
        for one in list(study["header"]["sources"])[1:]:
            rows = [row for row in study["accuracies"] if (row["source"], row["regime"]) == (one, regime)]
            _lines(axes, rows, labels, study, 0)
        axes.axhline(study["header"]["most_frequent"], color=GREY, ls=":", lw=1, zorder=1)
        axes.yaxis.set_major_formatter(PERCENT)
    panels[0][0].set_ylabel("accuracy on held-out sentences")
    _legend(figure, panels[0][0])
    return figure


def difference(study: Study) -> Figure:
    """The paired difference to the network without transfer, for other draws and other test sentences."""
    figure, panels, labels = _panels(study)
    for axes, regime in panels:
        axes.axhline(0, color=BLACK, lw=1, zorder=1)
        sources = list(study["header"]["sources"])[1:]
        for i, one in enumerate(sources):
            rows = [row for row in study["statements"] if (row["source"], row["regime"]) == (one, regime)]
            _lines(axes, rows, labels, study, (i - (len(sources) - 1) / 2) * 0.14)
        axes.yaxis.set_major_formatter(SIGNED)
    panels[0][0].set_ylabel("accuracy less that without transfer")
    _legend(figure, panels[0][0])
    return figure


def domains(study: Study) -> Figure:
    """Every way of using the network again beside from-scratch, one panel a domain."""
    found = study["domains"]
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True, sharex=True))
    ways = list(WAYS)[::-1]
    sizes = list(dict.fromkeys(way["labels"] for way in found[0]["ways"]))
    for axes, domain in zip(panels, found):
        for j, size in enumerate(sizes):
            shift = ((len(sizes) - 1) / 2 - j) * 0.24
            for way in (way for way in domain["ways"] if way["labels"] == size):
                planned = domain["plans"][str(size)]["way"] == way["way"]
                y = ways.index(way["way"]) + shift
                colour = (BLUE, VERMILION, ORANGE, SKY)[j % 4]
                axes.plot([way["low"], way["high"]], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                axes.plot(
                    way["estimate"],
                    y,
                    marker="os^D"[j % 4],
                    ms=8 if planned else 4.5,
                    mfc=colour,
                    mec=BLACK if planned else colour,
                    mew=1.6 if planned else 0.5,
                    ls="",
                    label=f"{size} labels" if way["way"] == "as_is" else None,
                )
        axes.axvline(domain["share"], color=GREY, ls=":", lw=1)
        for y in range(0, len(ways), 2):
            axes.axhspan(y - 0.5, y + 0.5, color=LIGHT, lw=0, zorder=0)
        axes.set_title(domain["domain"])
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set_ylim(-0.6, len(ways) - 0.4)
    panels[0].set_yticks(range(len(ways)), [WAYS[way] for way in ways])
    figure.supxlabel("accuracy on the domain's test sentences", fontsize=9)
    _legend(figure, panels[0])
    return figure


def _panels(study: Study) -> tuple[Figure, list[tuple[Axes, str]], list[int]]:
    regimes = [name for name in REGIMES if any(row["regime"] == name for row in study["statements"])]
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    panels = list(zip(np.atleast_1d(figure.subplots(1, len(regimes), sharey=True)), regimes))
    labels = sorted({row["labels"] for row in study["accuracies"]})
    for axes, regime in panels:
        axes.set_title(REGIMES[regime])
        axes.set_xticks(range(len(labels)), [f"{label:,}" for label in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_xlabel("labelled sentences")
        axes.grid(axis="y", color=LIGHT, zorder=0)
    return figure, panels, labels


def _lines(axes: Axes, rows: Sequence[Mapping[str, Any]], labels: Sequence[int], study: Study, shift: float) -> None:
    """One source: its means, joined, and their intervals."""
    if not rows:
        return
    sources = list(study["header"]["sources"])
    number = sources.index(rows[0]["source"]) - 1
    look: dict[str, Any] = (
        {"color": BLACK, "marker": "s", "ls": "--"}
        if number < 0
        else {"color": COLOURS[number % 4], "marker": MARKERS[number % 4]}
    )
    x = [labels.index(row["labels"]) + shift for row in rows]
    y = np.array([row["estimate"] for row in rows])
    ends = np.array([[row["low"], row["high"]] for row in rows]).T
    axes.errorbar(
        x,
        y,
        yerr=np.abs(ends - y),
        lw=1.4,
        ms=5,
        capsize=2.5,
        label=study["header"]["sources"][rows[0]["source"]],
        zorder=3,
        **look,
    )


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), columnspacing=1.4)
