"""The pictures of an audit: accuracy of each way, and how its validation loss fell until it was dropped."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.report.plots import save
from experiments.report.style import GREY, MATPLOTLIB, WIDTH
from experiments.report.ways import LOOKS, short

_FIT = re.compile(r"audit-(?P<way>.+)-rate(?P<rate>.+)-stage(?P<stage>\d+)")


def figures(audit: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Every picture, as SVG and as PNG; the same audit gives the same bytes."""
    files = {}
    with matplotlib.style.context(["default", MATPLOTLIB]):
        for name, figure in (("ways", ways(audit)), ("contest", contest(audit, metrics))):
            if figure is not None:
                for kind in ("svg", "png"):
                    files[f"{name}.{kind}"] = save(figure, kind)
    return files


def ways(audit: Mapping[str, Any]) -> Figure | None:
    """Test accuracy of each way with its interval, and who would have chosen it; none where nothing was tested."""
    rows = sorted((way for way in audit["ways"] if way["test"]), key=lambda way: way["test"]["estimate"])
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.34 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    last = len(audit["budget"]["rungs"])
    for height, way in enumerate(rows):
        found = way["test"]
        reached = way["rungs"] == last or way["finished"]
        low, high = found["estimate"] - found["low"], found["high"] - found["estimate"]
        look = look_of(way["way"])
        axes.errorbar(
            100 * found["estimate"],
            height,
            xerr=[[100 * low], [100 * high]],
            capsize=2,
            elinewidth=1.1,
            color=look["color"],
            marker=look["marker"],
            mfc=look["color"] if reached else "white",
            ms=7,
        )
        if said := chosen_by(audit, way["way"]):
            axes.annotate(
                f"◂ {said}", (100 * found["high"], height), (6, 0), textcoords="offset points", va="center", size=8
            )
    axes.set_yticks(range(len(rows)), [short(way["way"]) for way in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("test rows right, %")
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.55 * (high - low))  # room for the words
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= min(high, 100)])
    return figure


def chosen_by(audit: Mapping[str, Any], way: str) -> str:
    """Who chose a way, in a line; the audit first."""
    names = ["the audit"] if audit["winner"] == way else []
    names += [choice["by"] for choice in audit["choices"] if choice["way"] == way]
    names += ["oracle"] if audit["oracle"] == way else []
    return "; ".join(names)


def contest(audit: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Validation loss against epochs."""
    curves = curves_of(audit, metrics)
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    rungs = audit["budget"]["rungs"]
    per_epoch = rungs[0]["steps"] / rungs[0]["epochs"]
    for way in sorted(curves, key=lambda way: way == audit["winner"]):
        epochs, loss = curves[way][0] / per_epoch, curves[way][1]
        look = look_of(way)
        bold = 2.4 if way == audit["winner"] else 1.3
        axes.plot(epochs, loss, color=look["color"], lw=0.6, alpha=0.35)
        axes.plot(epochs, np.minimum.accumulate(loss), color=look["color"], ls=look["ls"], lw=bold)
        label = short(way) + (" (wins)" if way == audit["winner"] else "")
        best = np.minimum.accumulate(loss)[-1]
        mark = {"marker": look["marker"], "mfc": look.get("mfc", look["color"]), "ms": 5.5, "lw": bold}
        axes.plot(epochs[-1:], [best], color=look["color"], ls=look["ls"], label=label, **mark)
    for rung in rungs[:-1]:
        axes.axvline(rung["epochs"], color=GREY, ls=":", lw=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epochs of its last stage")
    axes.set_ylabel("validation loss, nats")
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def curves_of(
    audit: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{way: (steps, validation loss)} of its last stage at the learning rate that it was last looked at with."""
    names = {way["way"].replace(" ", "_"): way for way in audit["ways"]}
    fits: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for row in metrics:
        match = _FIT.fullmatch(str(row.get("fit")))
        way = names.get(match["way"]) if match else None
        if match and way and match["rate"] == f"{way['learning_rate']:g}" and row["valid_loss"] is not None:
            fits.setdefault(way["way"], {}).setdefault(int(match["stage"]), []).append(row)
    found = {}
    for name, stages in fits.items():
        rows = stages[max(stages)]
        found[name] = np.array([row["step"] for row in rows]), np.array([row["valid_loss"] for row in rows])
    return found


def look_of(way: str) -> dict[str, Any]:
    """Colour, mark and dash of a way; those of augmented ones are dotted, at the full rate dashed."""
    look = {"ls": "-", **LOOKS[way.split(" ")[0]]}
    if "augmented" in way.split(" "):
        return look | {"ls": ":", "mfc": "white"}
    return look | ({"ls": "--"} if "full" in way.split(" ") else {})
