"""The two pictures of the calibration experiment, drawn from the rows of its finished cells."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from experiments.report.plots import save
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, MATPLOTLIB, ORANGE, SKY, VERMILION, WIDTH

GREEN, PURPLE, YELLOW = "#009E73", "#CC79A7", "#B8A900"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = "osD^vPX<>*"
DASHES = ("-", "--", ":", "-.")
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}%")

Row = dict[str, Any]


def level(rows: Sequence[Row]) -> dict[str, bytes]:
    """Rejection rates where P = Q: a line a test, a panel a kind of data, a mark for each pair of sizes."""
    if not rows:
        return {}
    tests, nulls = (list(dict.fromkeys(row[name] for row in rows)) for name in ("test", "null"))
    sizes = sorted({(row["m"], row["n"]) for row in rows}, key=lambda size: (size[1], size[0]))
    look: dict[Any, dict[str, Any]] = {
        size: {"color": COLORS[i % 8], "marker": MARKERS[i % 10]} for i, size in enumerate(sizes)
    }
    most = max(row["alpha"] for row in rows) * 2.4
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(figsize=(WIDTH * 1.15, 1.3 + 0.3 * len(tests)), layout="constrained")
        panels = figure.subplots(1, len(nulls), sharey=True, squeeze=False)[0]
        for axes, null in zip(panels, nulls, strict=True):
            axes.set_title(null, loc="left")
            axes.axvline(max(row["expected"] for row in rows), color=BLACK, lw=0.8)
            for line, test in enumerate(tests):
                if line % 2:
                    axes.axhspan(line - 0.5, line + 0.5, color=LIGHT, lw=0, zorder=0)
                there = {(r["m"], r["n"]): r for r in rows if r["test"] == test and r["null"] == null}
                for place, size in enumerate(size for size in sizes if size in there):
                    _interval(axes, there[size], line + 0.76 * ((place + 0.5) / len(there) - 0.5), most, look[size])
            axes.set_xlim(0, most)
            axes.set_xticks([most / 2.4 * k for k in range(3)])
            axes.xaxis.set_major_formatter(PERCENT)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(tests)), tests)
        panels[0].set_ylim(len(tests) - 0.5, -0.5)
        marks = [Line2D([], [], ls="none", ms=5, label=f"{m} × {n}", **look[m, n]) for m, n in sizes]
        marks.append(Line2D([], [], ls="none", marker="o", ms=8, mfc="none", mec=BLACK, label="level exceeded"))
        figure.legend(handles=marks, loc="outside upper left", ncols=min(9, len(marks)), columnspacing=1.2)
        figure.supxlabel(
            f"rejections where P = Q, of {rows[0]['trials']:,} trials, with 95% intervals; line: the level", fontsize=9
        )
        return _files("level", figure)


def _interval(axes: Axes, row: Row, y: float, most: float, look: dict[str, Any]) -> None:
    at = row["rate"]
    if at > most:  # far beyond: an arrow at the edge, and the number
        axes.annotate(
            f"{100 * at:.0f}%", (most, y), (most * 0.8, y), va="center", ha="right", fontsize=7,
            color=look["color"], arrowprops={"arrowstyle": "->", "color": look["color"]}, annotation_clip=False,
        )  # fmt: skip
        return
    axes.plot([row["low"], min(row["high"], most)], [y, y], color=look["color"], lw=1.2, zorder=2)
    axes.plot(at, y, ls="none", ms=3.6, zorder=3, **look)
    if row["verdict"] == "exceeds":
        axes.plot(at, y, ls="none", marker="o", ms=8, mfc="none", mec=BLACK, zorder=4)


def power(rows: Sequence[Row], families: Sequence[Any]) -> dict[str, bytes]:
    """Rejection rates where P and Q differ: a panel a family, a curve a test.

    Args:
      rows: of the finished cells.
      families: with name, title, axis, and n, in the order of the panels.
    """
    families = [family for family in families if any(row["family"] == family.name for row in rows)]
    if not families:
        return {}
    tests = list(dict.fromkeys(row["test"] for row in rows))
    columns = min(3, len(families))
    lines = math.ceil(len(families) / columns)
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(figsize=(WIDTH * 1.15, 0.9 + 2.5 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes, family in zip(panels, families):
            points = sorted({row["point"] for row in rows if row["family"] == family.name})
            for index, test in enumerate(tests):
                found = {row["point"]: row for row in rows if row["family"] == family.name and row["test"] == test}
                there = [point for point in points if point in found]
                # Side by side, so that intervals of curves that meet can be told apart.
                shift = 0.22 * ((index + 0.5) / len(tests) - 0.5)
                at = [points.index(point) + shift for point in there]
                rate, low, high = ([found[point][name] for point in there] for name in ("rate", "low", "high"))
                axes.plot(at, rate, label=test, **_curve(index))
                axes.vlines(at, low, high, color=COLORS[index % 8], lw=0.8, alpha=0.7)
            axes.axhline(rows[0]["alpha"], color=GREY, lw=0.8, ls=":")
            axes.set_title(f"{family.title}, n = {family.n}", loc="left")
            axes.set_xlabel(family.axis)
            axes.set_xticks(range(len(points)), [f"{point:g}" for point in points])
            axes.set_ylim(-0.02, 1.02)
        for axes in panels[len(families) :]:
            axes.set_visible(False)
        for axes in panels[::columns]:
            axes.set_ylabel("rejected")
            axes.yaxis.set_major_formatter(PERCENT)
        marks = [Line2D([], [], label=test, **_curve(index)) for index, test in enumerate(tests)]
        figure.legend(handles=marks, loc="outside upper left", ncols=4, columnspacing=1.2)
        return _files("power", figure)


def _curve(index: int) -> dict[str, Any]:
    """Colours repeat after 8 curves, and then the dashes differ."""
    look = {"color": COLORS[index % 8], "marker": MARKERS[index % 10], "ls": DASHES[index // 8 % 4]}
    return look | {"lw": 1.3, "ms": 4, "mec": "white", "mew": 0.4}


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    svg = save(figure, "svg")
    figure.set_layout_engine("none")  # what the first saving arranged stays
    return {f"{name}.svg": svg, f"{name}.png": save(figure, "png")}
