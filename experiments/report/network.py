"""The plan as a picture of the network: layers as boxes in order, one band a stage."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from experiments.report import words
from experiments.report.run import Run
from experiments.report.style import BLACK, GREY, WIDTH

# What happens to a layer -> fill, hatching, width of the edge.
LOOKS = {
    "frozen": ("#E3E3E3", "////", 0.8),
    "trained": ("#CFE6F7", "", 1.4),
    "new": ("#FBE3B5", "", 2.6),
}
MOST = 12  # Boxes of one network; neighbours that are treated alike are drawn as one where there would be more.
CELL, LINE = (
    (1.35, 2.0),
    0.95,
)  # inches: at most so wide a box of one layer, of several, with its gap; so high a line of boxes


class Box(NamedTuple):
    """Neighbouring layers that are treated alike.

    Attributes:
      layers: their names, in order.
      fate: "frozen", "trained" or "new".
      rate: the share of the learning rate; 0 where frozen.
    """

    layers: tuple[str, ...]
    fate: str
    rate: float


def plan_picture(run: Run) -> Figure:
    """Each stage as a line (or several) of boxes from the inputs to the classifier."""
    stages = run.result["plan"]["stages"]
    rows = []
    for i, stage in enumerate(stages):
        found = boxes(stage)
        per_line = 8 if max(len(label(box)) for box in found) <= 10 else 6
        lines = [found[at : at + per_line] for at in range(0, len(found), per_line)]
        rows += [(i, stage, line, number, len(lines)) for number, line in enumerate(lines)]
    heights = [
        LINE + 0.3 * (number == 0 and len(stages) > 1) + 0.25 * stage["cached"] for _, stage, _, number, _ in rows
    ]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.35))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, sum(heights) + 0.35)
    axes.set_axis_off()
    top = sum(heights)
    for (i, stage, line, number, of), height in zip(rows, heights, strict=True):
        if number == 0 and len(stages) > 1:
            axes.text(0.05, top - 0.12, f"Stage {i + 1} of {len(stages)}", weight="bold", va="center")
        draw_line(
            axes, line, top - height + 0.44 + 0.25 * stage["cached"], stage, first=number == 0, last=number == of - 1
        )
        top -= height
    handles = [
        Patch(fc=fill, ec=BLACK, hatch=hatch, lw=edge, label=text)
        for (fill, hatch, edge), text in zip(
            LOOKS.values(),
            ("frozen: kept exactly as it is", "pretrained, trained further", "new: starts from random weights"),
            strict=True,
        )
    ]
    figure.legend(handles=handles, loc="upper left", ncols=3, handlelength=2.6, handleheight=1.1, bbox_to_anchor=(0, 1))
    return figure


def boxes(stage: dict[str, Any]) -> list[Box]:
    """The layers in the network's order (frozen ones come first in every regime); neighbours are joined if many."""
    rates = dict(stage["trained"])
    new = set(stage["reinitialised"])
    found = [Box((name,), "frozen", 0.0) for name in stage["frozen"]]
    found += [Box((name,), "new" if name in new else "trained", rate) for name, rate in rates.items()]
    if len(found) <= MOST:
        return found
    joined: list[Box] = []
    for box in found:
        if joined and joined[-1][1:] == box[1:]:
            joined[-1] = joined[-1]._replace(layers=joined[-1].layers + box.layers)
        else:
            joined.append(box)
    return joined


def draw_line(axes, line: Sequence[Box], y: float, stage: dict[str, Any], *, first: bool, last: bool) -> None:
    """Boxes with arrows between them, centred at height y; a bracket under those whose outputs are kept."""
    ends = 0.62 if first or last else 0.2
    cell = min(CELL[any(len(box.layers) > 1 for box in line)], (WIDTH - 2 * ends) / len(line))
    arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    left = ends if first else 0.4
    axes.text(0.05, y, "inputs" if first else "…", va="center", color=GREY)
    for i, box in enumerate(line):
        fill, hatch, edge = LOOKS[box.fate]
        x = left + i * cell
        axes.annotate("", (x + 0.12, y), (x - 0.1 if i else left - 0.1, y), arrowprops=arrow)
        width = cell - 0.22
        axes.add_patch(
            FancyBboxPatch(
                (x + 0.12, y - 0.36),
                width,
                0.72,
                boxstyle="round,pad=0,rounding_size=0.06",
                fc=fill,
                ec="#8A8A8A" if hatch else fill,
                hatch=hatch,
                lw=0,
            )
        )
        axes.add_patch(
            FancyBboxPatch(
                (x + 0.12, y - 0.36),
                width,
                0.72,
                boxstyle="round,pad=0,rounding_size=0.06",
                fc="none",
                ec=BLACK,
                lw=edge,
            )
        )
        said = box.fate if len(box.layers) == 1 else f"{len(box.layers)} layers, {box.fate}"
        under = said if box.fate == "frozen" else f"{said}\nrate × {words.significant(box.rate)}"
        back = {"fc": fill, "ec": "none", "pad": 1.5} if hatch else None
        size = 9 if max(map(len, label(box).split("\n"))) * 0.083 < width else 7.5
        axes.text(
            x + 0.12 + width / 2, y + 0.17, label(box), ha="center", va="center", weight="bold", size=size, bbox=back
        )
        axes.text(x + 0.12 + width / 2, y - 0.14, under, ha="center", va="center", size=8, bbox=back, linespacing=1.1)
    end = left + len(line) * cell
    axes.annotate("", (end + 0.12, y), (end - 0.1, y), arrowprops=arrow)
    axes.text(end + 0.15, y, "classes" if last else "…", va="center", color=GREY)
    kept = sum(box.fate == "frozen" for box in line) if stage["cached"] else 0
    if kept:
        right = left + kept * cell - 0.1
        axes.plot([left + 0.12, left + 0.12, right, right], [y - 0.42, y - 0.5, y - 0.5, y - 0.42], color=BLACK, lw=1)
        axes.text((left + 0.12 + right) / 2, y - 0.58, "computed once and kept", ha="center", va="center", size=8)


def label(box: Box) -> str:
    """The name, or the first and the last."""
    if len(box.layers) == 1:
        return words.short(box.layers[0], 16)
    return f"{words.short(box.layers[0], 16)}\n… {words.short(box.layers[-1], 16)}"
