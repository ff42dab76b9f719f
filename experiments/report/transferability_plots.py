"""The pictures of a transferability study: the original's Figure 2, and MMD beside what freezing costs."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report import words, yosinski2014
from experiments.report.plots import PERCENT, save
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, MATPLOTLIB, ORANGE, SKY, VERMILION, WIDTH
from experiments.report.transferability_evidence import correlation

Study = dict[str, Any]

# Every treatment has a colour, a marker and a dash of its own; "+" is open and dashed.
LOOKS: dict[str, dict[str, Any]] = {
    "base": {"color": BLACK, "marker": "s", "ls": "-"},
    "long": {"color": GREY, "marker": "*", "ls": ":"},
    "BnB": {"color": BLUE, "marker": "o", "ls": "-"},
    "BnB+": {"color": SKY, "marker": "o", "ls": "--"},
    "AnB": {"color": VERMILION, "marker": "D", "ls": "-"},
    "AnB+": {"color": ORANGE, "marker": "D", "ls": "--"},
    "random": {"color": GREY, "marker": "x", "ls": ":"},
}
MEANINGS = {
    "base": "base: trained from scratch",
    "long": "long: base, trained as long as base + transfer",
    "BnB": "BnB: from the same half, frozen",
    "BnB+": "BnB+: from the same half, trained on",
    "AnB": "AnB: from the other half, frozen",
    "AnB+": "AnB+: from the other half, trained on",
    "random": "random filters, frozen",
}
KINDS = {"random": "random splits", "dissimilar": "dissimilar splits"}
SIGNED = FuncFormatter(lambda value, _: f"{100 * value:+g}%".replace("-", "−") if value else "0")
PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))


def figures(study: Study) -> dict[str, bytes]:
    """Every figure that the study has the data for, by file name; the same study gives the same bytes."""
    drawn: dict[str, Figure | None] = {name_of(kind): figure2(study, kind) for kind in kinds(study)}
    drawn["distance"] = distance(study)
    files = {}
    with warnings.catch_warnings(), matplotlib.style.context(["default", MATPLOTLIB]):
        # A layer's name may hold characters that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for name, figure in drawn.items():
            if figure is not None:
                files[f"{name}.svg"] = save(figure, "svg")
                figure.set_layout_engine("none")  # what the first saving arranged stays
                files[f"{name}.png"] = save(figure, "png")
    return files


def names() -> list[str]:
    """Of every file that `figures` may give."""
    return [f"{name}.{end}" for name in (*map(name_of, KINDS), "distance") for end in ("svg", "png")]


def kinds(study: Study) -> list[str]:
    """The kinds of splits that networks were trained on."""
    return list(dict.fromkeys(point["kind"] for point in study["curves"]))


def name_of(kind: str) -> str:
    """Of the file of a kind's figure."""
    return "figure2" if kind == "random" else f"figure2_{kind}"


# Figure 2


def figure2(study: Study, kind: str) -> Figure:
    """Top: accuracy of every network. Bottom: mean change relative to the same half's base network, joined."""
    layers = study["header"]["layers"]
    points = {t: [p for p in study["curves"] if p["kind"] == kind and p["treatment"] == t] for t in LOOKS}
    points = {treatment: found for treatment, found in points.items() if found}
    networks = [network for network in study["networks"] if network["kind"] == kind]
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(figsize=(WIDTH, 8.2), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
        accuracies(top, points, networks, study["level"], study["shared_halves"].get(kind, ""))
        changes(bottom, points, kind, len(layers))
        for axes in (top, bottom):
            for n in range(1, len(layers), 2):
                axes.axvspan(n - 0.5, n + 0.5, color=LIGHT, lw=0, zorder=0)
        bottom.set_xlim(-0.5, len(layers) - 0.5)
        below = ["0\nnone", *(f"{n}\n{words.short(layers[n - 1], 10)}" for n in range(1, len(layers)))]
        bottom.set_xticks(range(len(layers)), below)
        bottom.tick_params(axis="x", length=0)
        bottom.set_xlabel("n: layers copied, and the last of them")
        figure.legend(handles=legend(points, kind, len(layers)), loc="outside upper left", ncols=3, columnspacing=1.4)
        return figure


def legend(points: dict[str, Any], kind: str, num_layers: int) -> list[Line2D]:
    """What each sign is."""
    marks = {name: Line2D([], [], label=MEANINGS[name], lw=1.4, **marked(name, 6)) for name in points}
    if num_layers == yosinski2014.NUM_LAYERS and any(yosinski2014.relative(kind, name) for name in points):
        marks["original"] = Line2D([], [], color=GREY, alpha=0.3, lw=5, label="pale: Yosinski et al. 2014, ImageNet")
    # Filled column by column: controls, own half, other half.
    order = ("base", "long", "random", "BnB", "BnB+", "original", "AnB", "AnB+")
    return [marks[name] for name in order if name in marks]


def marked(treatment: str, size: float) -> dict[str, Any]:
    """Line and marker of a treatment."""
    look = LOOKS[treatment]
    face = "white" if treatment.endswith("+") else look["color"]
    return {**look, "ms": size, "mfc": face, "mec": look["color"], "mew": 1.2}


def accuracies(
    axes: Axes, points: dict[str, Any], networks: Sequence[dict[str, Any]], level: float, shared: str = ""
) -> None:
    """Every network a dot, every split's mean an open mark, the mean over splits with its interval.

    `shared`: the half that all splits have in common.
    """
    lanes = [name for name in points if name not in ("base", "long")]
    own = {name: (i + 0.5) / len(lanes) - 0.5 for i, name in enumerate(lanes)}
    own |= {"base": -0.15 if "long" in points else 0.0, "long": 0.15}
    low, high = _range([n["accuracy"] for n in networks if n["treatment"] != "random"], 0.08)
    low, high = max(low, -0.02), min(high, 1.02)
    for treatment, found in points.items():
        color = LOOKS[treatment]["color"]
        for point in found:
            x = point["n"] + 0.84 * own[treatment]
            mean = point["accuracy"]
            if mean["estimate"] < low:
                _beyond(axes, x, low, words.percent(mean["estimate"]), color)
                continue
            there = sorted(
                (n["split"], n["accuracy"]) for n in networks if (n["treatment"], n["n"]) == (treatment, point["n"])
            )
            # A little to the left, so that they don't hide the interval.
            axes.plot(
                [x - 0.035] * len(there), [a for _, a in there], ".", color=color, ms=4, alpha=0.5, mew=0, zorder=2
            )
            splits = [values[0] for values in point["splits"].values()]
            if len(splits) > 1:
                axes.plot([x - 0.035] * len(splits), splits, "_", color=color, ms=5, mew=1, zorder=2)
            _bar(axes, x + 0.035, mean, color)
            axes.plot(x + 0.035, mean["estimate"], zorder=4, **{**marked(treatment, 5), "ls": "none"})
    if "base" in points:
        axes.axhline(points["base"][0]["accuracy"]["estimate"], color=BLACK, lw=0.7, ls=(0, (6, 4)), zorder=1)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_ylabel("accuracy on the target half's test rows")
    axes.set_title("Every network", loc="left")
    single = all(len(point["splits"]) == 1 for found in points.values() for point in found)
    bar = "its networks" if single else f"splits that share\n{shared}" if shared else "splits"
    axes.text(
        1.015, 0.98,
        "small dot: a network\n"
        + ("" if single else "tick: mean of a split\n")
        + f"mark: mean, with its\n{100 * level:g}% interval over\n{bar}\nbroken line: base",
        transform=axes.transAxes, va="top", fontsize=8, color=GREY, linespacing=1.35,
    )  # fmt: skip


def changes(axes: Axes, points: dict[str, Any], kind: str, num_layers: int) -> None:
    """Means joined from base on, each with its interval, and what was seen written at the end of each line."""
    mains = [name for name in points if name not in ("base", "random")]
    original = (
        {name: yosinski2014.relative(kind, name) for name in points} if num_layers == yosinski2014.NUM_LAYERS else {}
    )
    shown = [p["relative"]["estimate"] for name in mains for p in points[name]]
    shown += [change for curve in original.values() for _, change, _ in curve] + [0.0]
    ends = [p["relative"][end] for name in mains for p in points[name] for end in ("low", "high")]
    low, high = _limits([value for value in shown if value is not None], [end for end in ends if end is not None])
    for name, pale in original.items():
        if pale:
            at_n, at_y = [0, *(n for n, _, _ in pale)], [0.0, *(change for _, change, _ in pale)]
            axes.plot(at_n, at_y, color=LOOKS[name]["color"], lw=6, alpha=0.22, solid_capstyle="round", zorder=1)
    axes.axhline(0, color=BLACK, lw=0.7, ls=(0, (6, 4)), zorder=1)
    lines = [name for name in points if name not in ("base", "long")]
    labels = []
    for i, name in enumerate(lines):
        curve = [p for p in points[name] if p["relative"]["estimate"] is not None]
        inside = [p for p in curve if p["relative"]["estimate"] >= low]
        shift = 0.12 * (i - (len(lines) - 1) / 2)
        x, y = [p["n"] + shift for p in inside], [p["relative"]["estimate"] for p in inside]
        style = marked(name, 5.5)
        style |= {"lw": 1.0 if name == "random" else 1.7}
        if inside:
            axes.plot([0, x[0]], [0, y[0]], color=style["color"], ls=style["ls"], lw=style["lw"], zorder=2)
            axes.plot(x, y, zorder=3, **style)
        for p, at in zip(inside, x, strict=True):
            _bar(axes, at, p["relative"], style["color"])
        for p in curve:
            if p not in inside:
                _beyond(axes, p["n"] + shift, low, words.percent(p["relative"]["estimate"]).replace("-", "−"), GREY)
        if curve and name != "random":
            labels.append((max(curve[-1]["relative"]["estimate"], low), name, seen(name, curve, num_layers)))
    if "long" in points:
        _bar(axes, 0.0, points["long"][0]["relative"], GREY)
        axes.plot(0.0, points["long"][0]["relative"]["estimate"], zorder=4, **{**marked("long", 8), "ls": "none"})
    axes.plot(0, 0, zorder=5, **{**marked("base", 5), "ls": "none"})
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(SIGNED)
    axes.set_ylabel("relative change in accuracy to base")
    axes.set_title("Mean change, each network beside the base network of its own half and seed", loc="left")
    _write(axes, labels, low, high, num_layers - 1)


def seen(treatment: str, curve: Sequence[dict[str, Any]], num_layers: int) -> str:
    """What the line shows, in two short lines."""
    if treatment == "AnB":
        return f"AnB: {_percent(curve[-1]['relative']['estimate'])}\nat n = {curve[-1]['n']}"
    inside = curve
    if treatment == "BnB":
        first = max(1, min(3, num_layers - 2))
        inside = [p for p in curve if first <= p["n"] <= num_layers - 2] or curve
    mean = float(np.mean([p["relative"]["estimate"] for p in inside]))
    between = ", " if len(inside) == 2 else " … "
    depths = between.join(str(n) for n in dict.fromkeys((inside[0]["n"], inside[-1]["n"])))
    return f"{treatment}: {_percent(mean)}\n{'mean of' if len(inside) > 1 else 'at'} n = {depths}"


def _write(axes: Axes, labels: list[tuple[float, str, str]], low: float, high: float, last: int) -> None:
    """Labels right of the panel, moved apart where lines end close together."""
    apart = 0.115 * (high - low)
    labels = sorted(labels)
    at = [y for y, _, _ in labels]
    for _ in range(100):
        for i in range(1, len(at)):
            if at[i] - at[i - 1] < apart:
                middle = (at[i] + at[i - 1]) / 2
                at[i - 1], at[i] = middle - apart / 2, middle + apart / 2
        if at:
            shift = max(0.0, low + apart / 2 - at[0]) - max(0.0, at[-1] - high + apart / 2)
            at = [y + shift for y in at]
    for (end, name, said), y in zip(labels, at, strict=True):
        axes.annotate(
            said, (last + 0.3, end), (last + 0.75, y), va="center", fontsize=8.5, weight="bold", linespacing=1.1,
            color=_dark(LOOKS[name]["color"]), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": LOOKS[name]["color"], "lw": 0.8, "shrinkA": 1, "relpos": (0, 0.5)},
        )  # fmt: skip


def _bar(axes: Axes, x: float, estimate: dict[str, Any], color: str) -> None:
    if estimate["low"] is not None:
        axes.plot([x, x], [estimate["low"], estimate["high"]], color=color, lw=1.3, solid_capstyle="butt", zorder=3)


def _beyond(axes: Axes, x: float, low: float, said: str, color: str) -> None:
    """An arrow at the panel's lower edge, with the number that lies below it."""
    axes.annotate(
        said, (x, low), (0, 11), textcoords="offset points", ha="center", va="bottom", fontsize=6.5, rotation=90,
        color=color, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _range(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = pad * (high - low) or 0.01
    return low - pad, high + pad


def _limits(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """All means inside; intervals too, unless one is so wide that it would flatten the rest."""
    low, high = min(values), max(values)
    room = 0.5 * (high - low) or 0.01
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    return _range((low, high), 0.06)


def _percent(value: float) -> str:
    return f"{100 * value:+.1f}%".replace("-", "−")


def _dark(color: str) -> str:
    """Orange and sky blue are too pale for text on white."""
    return {ORANGE: "#8A5A00", SKY: "#1F6E9E"}.get(color, color)


# MMD beside the drop


def distance(study: Study) -> Figure | None:
    """MMD² by layer, what freezing up to this layer costs, and both beside each other within layers."""
    splits = study["beside"]
    if not splits:
        return None
    layers = study["header"]["layers"]
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08)  # type: ignore[union-attr,call-arg]
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
        for axes, name, title in (
            (left, "mmd2", "MMD² between the halves"),
            (middle, "drop", "Cost of freezing n layers"),
        ):
            axes.axhline(0, color=GREY, lw=0.7)
            for kind, (color, marker, dash, _) in SPLITS.items():
                values = [
                    np.array([math.nan if v is None else v for v in s[name]]) for s in splits if s["kind"] == kind
                ]
                for one in values:
                    axes.plot(range(1, len(one) + 1), one, color=color, ls=dash, lw=0.8, alpha=0.5, marker=".", ms=3)
                if values:
                    mean = np.mean(values, axis=0)
                    axes.plot(range(1, len(mean) + 1), mean, color=color, ls=dash, lw=2, marker=marker, ms=5)
            axes.set_title(title, loc="left")
            axes.set_xticks(range(1, len(layers) + 1), [f"{n} {words.short(x, 9)}" for n, x in enumerate(layers, 1)])
            axes.tick_params(axis="x", rotation=90, labelsize=7.5)
            axes.set_xlim(0.5, len(layers) + 0.5)
            axes.yaxis.set_major_locator(MaxNLocator(6))
        middle.set_ylabel("accuracy of base − of AnB")
        left.yaxis.set_major_formatter(PLAIN)
        middle.yaxis.set_major_formatter(PERCENT)
        scatter(right, study)
        there = [kind for kind in SPLITS if any(split["kind"] == kind for split in splits)]
        marks = [
            Line2D([], [], color=SPLITS[k][0], marker=SPLITS[k][1], ls=SPLITS[k][2], lw=2, ms=5, label=SPLITS[k][3])
            for k in there
        ]
        figure.legend(handles=marks, loc="outside upper left", ncols=2)
        return figure


# Kind -> colour, marker, dash, words.
SPLITS = {
    "random": (BLUE, "o", "-", "random splits (thin: a split, bold: mean)"),
    "dissimilar": (VERMILION, "D", "--", "dissimilar splits"),
}


def scatter(axes: Axes, study: Study) -> None:
    """Every split and layer, less the layer's mean; the number is the layer."""
    found = study["predictions"][0]
    one = found["pooled"]
    axes.axhline(0, color=LIGHT, lw=1)
    axes.axvline(0, color=LIGHT, lw=1)
    for kind, _, n, x, y in found["points"]:
        weight = "normal" if kind == "random" else "bold"
        axes.text(x, y, str(n), color=SPLITS[kind][0], weight=weight, ha="center", va="center", fontsize=8)
    reach = 1.15 * max([1.0, *(abs(value) for point in found["points"] for value in point[3:])])
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    if one["r"] is None:
        axes.text(
            0, 0, f"no correlation:\n{one['reason']}", ha="center", va="center", fontsize=8, color=GREY, wrap=True
        )
        axes.set_title("Within layers", loc="left")
    else:
        numbers = f"r = {correlation(one['r'])}"
        if one["low"] is not None:
            numbers += f" ({correlation(one['low'])} … {correlation(one['high'])})"
        inside = "Within layers and kinds" if one["num_kinds"] > 1 else "Within layers"
        axes.set_title(f"{inside}:\n{numbers}", loc="left")
    axes.set_xlabel("MMD² at layer n, centred (sd)")
    axes.set_ylabel("cost of freezing n layers, centred (sd)")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_major_formatter(PLAIN)
