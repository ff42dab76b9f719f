"""The rule's map of size × similarity as a picture, with the target marked where it lies."""

import math
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.report import words
from experiments.report.run import Run, measured, number
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, VERMILION, WIDTH

KINDS = ("similar", "different")
HEIGHT = 1.5  # inches, of one band of sizes


class Place(NamedTuple):
    """Where the target lies.

    Attributes:
      size: its training rows, those of one class on average where the rule counts so.
      kind: what is known of its similarity: "similar", "different", "undecided" or "unknown".
      ratio: what was measured, over the value at which "different" begins; none where nothing measured says it.
      ends: the interval of the ratio; none where there is none.
      said: what was measured, in words; how the similarity is known, where nothing was.
      axis: what the ratio is of; empty where there is none.
    """

    size: float
    kind: str
    ratio: float | None
    ends: tuple[float, float] | None
    said: str
    axis: str


def place(run: Run) -> Place:
    """The target's place, from what the run's similarity was read off."""
    target, settings = run.result["data"]["target"], run.config["decision"]
    size = target["train_rows"] / (len(target["classes"]) if words.rule(run) == "quadrant" else 1)
    kind = run.result["similarity"]["kind"]
    if settings["assume"]:
        return Place(size, kind, None, None, f"{kind}, as the user assumes", "")
    if (verdict := run.result.get("verdict")) is not None:
        margin, (low, high) = verdict["margin"], (number(end) for end in verdict["interval"])
        mmd = math.sqrt(max(number(verdict["mmd2"]), 0))
        said = f"MMD {words.significant(mmd, 2)} in {words.significant(low, 2)} … {words.significant(high, 2)}, margin "
        return Place(
            size, kind, mmd / margin, (low / margin, high / margin), said + words.significant(margin, 2), "MMD ÷ margin"
        )
    test = next((one for one in measured(run) if one.name == settings["representation"]), None)
    if test is not None and test.threshold > 0 and math.isfinite(test.statistic):
        said = f"MMD² {words.significant(test.statistic, 2)}, p = {words.significant(test.pvalue)}"
        return Place(size, kind, test.statistic / test.threshold, None, said, "MMD² ÷ threshold of the test")
    said = {"unknown": "no source rows to measure", "undecided": "the test gave no p-value"}.get(kind, f"called {kind}")
    return Place(size, kind, None, None, said, "")


def picture(run: Run) -> Figure:
    """The map: one box for each cell of the rule, the one that was chosen marked, and the target in its place."""
    here, cells = words.cell(run), words.RULES[words.rule(run)]
    at, bands = place(run), list(reversed(words.sizes(run)))
    figure = Figure(figsize=(WIDTH, HEIGHT * len(bands) + 1.15), layout="constrained")
    axes = figure.subplots()
    y, y_ticks = size_scale(run, at.size)
    x, x_ticks = similarity_scale(at)
    for column, kind in enumerate(KINDS):
        for band, size in enumerate(reversed(bands)):
            chosen = (size, kind) == here
            look: dict[str, Any] = (
                {"fc": "#FBF7C2", "ec": BLACK, "lw": 2.4, "zorder": 1.5}
                if chosen
                else {"fc": "white", "ec": GREY, "lw": 0.9}
            )
            axes.add_patch(Rectangle((column, band), 1, 1, clip_on=False, **look))
            # The words keep away from the mark: at the foot of the box where it is in the upper half.
            below = band < y(at.size) < band + 1 and y(at.size) > band + 0.5
            describe(axes, column, band, f"{size}, {kind}", cells[size, kind][1], chosen=chosen, below=below)
    mark(axes, run, at, x, y(at.size))
    axes.set_xlim(0, 2)
    axes.set_ylim(0, len(bands))
    axes.set_xticks([x(value) for value, _ in x_ticks], [said for _, said in x_ticks])
    axes.set_yticks([y(value) for value in y_ticks], [f"{value:,.10g}" for value in y_ticks])
    axes.set_xlabel(f"similar  ←   {at.axis or 'no number says how similar'}   →  different")
    unit = "training rows a class" if words.rule(run) == "quadrant" else "training rows"
    axes.set_ylabel(f"{unit} (logarithmic)")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=3, color=GREY)
    return figure


def describe(axes: Axes, column: int, band: int, name: str, strategy: str, *, chosen: bool, below: bool) -> None:
    """The name of a cell and what its rule does there, at its head or at its foot."""
    lines = textwrap.wrap(strategy, 44)
    edge: dict[str, Any] = {"va": "bottom" if below else "top"}
    heads, words_at = (band + 0.06 + 0.12 * len(lines), band + 0.04) if below else (band + 0.95, band + 0.82)
    axes.text(column + 0.025, heads, name, weight="bold", size=9.5, **edge)
    axes.text(column + 0.025, words_at, "\n".join(lines), size=9, **edge)
    if chosen:
        axes.text(column + 0.975, heads, "chosen here", ha="right", size=8.5, style="italic", **edge)


def mark(axes: Axes, run: Run, at: Place, x: Callable[[float], float], y: float) -> None:
    """The target: a mark where its similarity was measured, a line over all that it may be where it was not."""
    known = at.kind in KINDS
    color = {"similar": BLUE, "different": VERMILION}.get(at.kind, BLACK)
    centre = {"similar": 0.5, "different": 1.5}.get(at.kind, 1.0)
    if at.ratio is not None:
        # A mark on the line itself would be on neither side, though the test took one.
        lowest, highest = {"similar": (0.03, 0.985), "different": (1.015, 1.97)}.get(at.kind, (0.03, 1.97))
        centre = min(max(x(at.ratio), lowest), highest)
    if at.ends is not None or not known:
        low, high = (0.5, 1.5) if at.ends is None else (min(max(x(end), 0.02), 1.98) for end in at.ends)
        axes.plot([low, high], [y, y], color=color, lw=2.5, marker="|", ms=11, mew=2, zorder=3, solid_capstyle="butt")
    axes.plot(centre, y, "D", ms=11, color=color, mfc=color if at.ratio is not None else "white", mew=2, zorder=4)
    unit = " rows a class" if words.rule(run) == "quadrant" else " rows"
    rows = f"{at.size:,.0f}" if at.size >= 10 else words.significant(at.size, 2)
    text = f"{words.short(run.config['target']['name'], 36)}: {rows}{unit}\n{at.said}"
    # Between the mark and the nearer end of its box, or away from it where that leaves no room: never over the cell's words.
    inside = y % 1
    above = inside < 1 / 3 or 1 / 2 < inside < 2 / 3
    axes.annotate(
        text,
        (centre, y),
        xytext=(-10 if centre > 1.65 else 10 if centre < 0.35 else 0, 11 if above else -11),
        textcoords="offset points",
        ha="right" if centre > 1.65 else "left" if centre < 0.35 else "center",
        va="bottom" if above else "top",
        size=8.5,
        bbox={"fc": "white", "ec": LIGHT, "pad": 1.5, "alpha": 0.9},
        zorder=3.5,
    )


def similarity_scale(at: Place) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """(ratio → 0 … 2, the line between similar and different at 1; [(ratio, its label)]): linear below 1, logarithmic above."""
    if at.ratio is None:
        return (lambda ratio: ratio), []
    highest = max(at.ratio, *(at.ends or (0.0,)))
    decades = max(1, math.ceil(math.log10(max(highest, 1)) + 0.05))
    least = 0.0 if at.ends is not None else -1.0  # an unbiased estimate may be below 0, a distance may not

    def scale(ratio: float) -> float:
        if ratio <= 1:
            return (max(ratio, least) - least) / (1 - least)
        return 1 + math.log10(ratio) / decades

    ticks = [(0.0, "0"), (1.0, "1×")] + [(10.0**power, f"{10**power:,}×") for power in range(1, decades + 1)]
    return scale, ticks


def size_scale(run: Run, size: float) -> tuple[Callable[[float], float], list[float]]:
    """(rows → band of sizes and place in it, from 0; rows to write beside the axis), logarithmic within each band."""
    settings = run.config["decision"]
    edges = [settings["small_per_class"]] if words.rule(run) == "quadrant" else [settings["small"], settings["large"]]
    below = max(3.0, math.log10(edges[0] / max(size, 1e-9)) + 0.3)
    above = max(3.0, math.log10(max(size, 1e-9) / edges[-1]) + 0.3)

    def scale(rows: float) -> float:
        if rows < edges[0]:
            return 1 + math.log10(rows / edges[0]) / below
        if rows > edges[-1]:
            return len(edges) + math.log10(rows / edges[-1]) / above
        # Between two edges that are one, there is nothing: it stands in the middle.
        width = math.log(edges[-1] / edges[0])
        return 1 + (len(edges) - 1) * (math.log(rows / edges[0]) / width if width else 0.5)

    decades = [10.0**power for power in range(-2, 12) if -0.01 < scale(10.0**power) < len(edges) + 1.01]
    near = [value for value in decades if all(abs(scale(value) - scale(edge)) > 0.15 for edge in edges)]
    return scale, sorted({*near, *map(float, edges)})


def described(run: Run) -> str:
    """The picture in words, for who can't see it."""
    at, here = place(run), words.cell(run)
    unit = "training rows a class" if words.rule(run) == "quadrant" else "training rows"
    where = (
        f"in the cell {here[0]}, {here[1]}: {words.RULES[words.rule(run)][here][1]}"
        if here
        else "and no cell is marked, as no rule chose"
    )
    lies = {"similar": "on the side of similar", "different": "on the side of different"}.get(
        at.kind, "over both sides"
    )
    return (
        f"Map of size × similarity of the rule {words.rule(run)}; the target, with {at.size:,.4g} {unit}, lies {lies} "
        f"({at.said}), {where}"
    )


def caption(run: Run) -> str:
    """What the picture shows, and what stands behind the mark."""
    at = place(run)
    beside = (
        "Across: how similar it is, by what decided; left of the middle it counts as similar, right of it the scale is "
        "logarithmic."
        if at.ratio is not None
        else "Across: how similar it is; nothing measured says so, hence the open mark."
    )
    why = {"undecided": " The rows are too few to tell", "unknown": " Similarity is unknown"}.get(at.kind)
    both = f"{why}, so the mark lies over both sides; the rule then takes its cell for different data." if why else ""
    asked = run.result["plan"]["rule"]
    if words.cell(run):
        chosen = "The thick box is the one that the rule chose."
    elif asked == "given":
        chosen = "No box is marked: the user chose, and no rule was asked; this is what the rule would have said."
    else:
        chosen = (
            f"No box is marked: the rule {asked} chose, which asks for neither; this is what {words.rule(run)} says."
        )
    return f"Diamond: the target. Up: how many labelled rows it has. {beside}{both} {chosen}"
