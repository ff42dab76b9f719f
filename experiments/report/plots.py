"""The pictures of a run: each as SVG and PNG bytes that depend on the run's files alone."""

import io
import math
import warnings
from collections.abc import Sequence

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from experiments.report import size_similarity, words
from experiments.report.network import plan_picture
from experiments.report.run import Curve, Measured, Run, curves, measured, number
from experiments.report.style import BLACK, BLUE, GREY, LIGHT, MATPLOTLIB, VERMILION, WIDTH

PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}%")
NAMES = {"reuse": "reuse", "from_scratch": "from scratch", "pretrain": "pretraining"}


def figures(run: Run) -> dict[str, bytes]:
    """Every figure that this run has the data for, by file name (NAME.svg and NAME.png)."""
    files = {}
    # The user's own matplotlibrc must not change a picture; a class name may hold characters that the font lacks.
    with warnings.catch_warnings(), matplotlib.style.context(["default", MATPLOTLIB]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for name, draw in (
            ("samples", samples),
            ("mmd", mmd),
            ("verdict", verdict),
            ("map", lambda run: None if run.audit else size_similarity.picture(run)),
            ("plan", plan_picture),
            ("curves", adaptation),
            ("pretraining", pretraining),
            ("accuracy", accuracy),
            ("confusion", confusion),
        ):
            if (figure := draw(run)) is not None:
                files[f"{name}.svg"] = save(figure, "svg")
                figure.set_layout_engine("none")  # what the first saving arranged stays; arranging is half of the time
                files[f"{name}.png"] = save(figure, "png")
    return files


def save(figure: Figure, kind: str) -> bytes:
    """The figure as a file of this kind, without date or version, so that the same run gives the same bytes."""
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=nothing)
    return buffer.getvalue()


def samples(run: Run) -> Figure | None:
    """Some images of each domain, each pixel a square."""
    there = [which for which in ("source", "target") if f"samples/{which}" in run.evidence]
    if not there:
        return None
    pictures = [mosaic(run.evidence[f"samples/{which}"]) for which in there]
    height = max(picture.shape[0] / picture.shape[1] for picture in pictures) * WIDTH / 2
    figure = Figure(figsize=(WIDTH / 2 * len(there), height + 0.3), layout="constrained")
    for axes, which, picture in zip(np.ravel(figure.subplots(1, len(there))), there, pictures, strict=True):
        axes.imshow(picture, interpolation="none")
        axes.set_title(f"{which}: {words.short(words.data(run, which), 44)}", loc="left")
        axes.set_axis_off()
    return figure


def mosaic(images: np.ndarray, *, columns: int = 8, pixels: int = 96) -> np.ndarray:
    """Images [k, H, W, C] side by side, [rows, columns, 3]; nearest-neighbour enlarged to about `pixels` each."""
    images = images[..., None] if images.ndim == 3 else images
    images = images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, axis=-1)
    zoom = max(1, round(pixels / max(images.shape[1:3])))
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap = max(2, images.shape[1] // 16)
    images = np.pad(images, ((0, -len(images) % columns), (0, gap), (0, gap), (0, 0)), constant_values=255)
    images[:, -gap:], images[:, :, -gap:] = 255, 255
    k, height, width, _ = images.shape
    grid = images.reshape(k // columns, columns, height, width, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(k // columns * height, columns * width, 3)


def mmd(run: Run) -> Figure | None:
    """For each representation: where the observed MMD² lies against its null distribution, in thresholds."""
    rows = measured(run)
    if not rows:
        return None
    unit, in_thresholds = units(rows)
    at = np.array([row.statistic for row in rows]) / unit
    high = float(np.nanmax(np.append(at, 2.0)))
    each = 0.42 if len(rows) <= 20 else 0.27
    figure = Figure(figsize=(WIDTH, each * len(rows) + 1.0), layout="constrained")
    axes = figure.subplots()
    for y, (row, scale, x) in enumerate(zip(rows, unit, at, strict=True)):
        if row.decides:
            axes.axhspan(y - 0.7, y + 0.26, color="#F0E442", alpha=0.35, lw=0)
        if row.null is not None and np.isfinite(row.null).all():
            counts, edges = np.histogram(row.null / scale, bins=30)
            axes.stairs(y - 0.6 * counts / counts.max(), edges, baseline=y, fill=True, color="#B5B5B5")
        axes.plot([row.threshold / scale] * 2, [y - 0.66, y + 0.12], color=BLACK, lw=1.4)
        if math.isfinite(x):
            marker, color = ("D", VERMILION) if row.reject else ("o", BLUE)
            axes.plot(x, y, marker=marker, color=color, ms=7, mec="white", mew=0.8, ls="none", clip_on=False, zorder=3)
        said = f"{words.significant(x, 3)}×" if in_thresholds else f"{words.significant(x, 3)} sd"
        beside = [(1.088, said, "right"), (1.105, f"p = {words.significant(row.pvalue)}", "left")]
        for at_x, text, side in beside if math.isfinite(x) else [(1.012, "not computable", "left")]:
            weight = "bold" if row.decides else "normal"
            axes.text(at_x, y, text, transform=axes.get_yaxis_transform(), va="center", ha=side, fontweight=weight)
    axes.axhline(0.33, color=GREY, lw=0.6)
    axes.set_yticks(
        range(len(rows)), [words.short(row.name, 22) + (" (decides)" if row.decides else "") for row in rows]
    )
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.decides else "normal")
    axes.set_ylim(len(rows) - 0.6, -0.85)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel(
        "MMD² ÷ threshold of the test" if in_thresholds else "MMD² ÷ standard deviation of its null distribution"
    )
    nulls = [row.null / scale for row, scale in zip(rows, unit, strict=True) if row.null is not None]
    everything = np.concatenate([at, *nulls, [-1.0]])
    stretch(axes, float(np.nanmin(everything)), high)
    marks = [
        matplotlib.lines.Line2D([], [], color="#B5B5B5", lw=7, label="if P = Q (resampled)"),
        matplotlib.lines.Line2D([], [], color=BLACK, lw=0, marker="|", ms=11, mew=1.4, label="threshold"),
        matplotlib.lines.Line2D([], [], color=VERMILION, lw=0, marker="D", ms=7, label="observed, rejected"),
        matplotlib.lines.Line2D([], [], color=BLUE, lw=0, marker="o", ms=7, label="observed, not rejected"),
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=4)
    return figure


def verdict(run: Run) -> Figure | None:
    """The interval for MMD beside the margin."""
    found = run.result.get("verdict")
    if found is None:
        return None
    figure = Figure(figsize=(WIDTH, 1.1), layout="constrained")
    axes = figure.subplots()
    low, high = found["interval"]
    axes.plot([low, high], [0, 0], color=BLUE, linewidth=5, solid_capstyle="butt")
    axes.plot([max(found["mmd2"], 0) ** 0.5], [0], "D", color=BLACK, markersize=5)
    axes.axvline(found["margin"], color=VERMILION, linestyle="--")
    axes.annotate(
        "margin",
        (found["margin"], 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -9),
        textcoords="offset points",
        color=VERMILION,
    )
    axes.set_xlim(0, 1.15 * max(high, found["margin"]))
    axes.set_yticks([])
    axes.set_xlabel("MMD, in units of the kernel")
    return figure


def units(rows: Sequence[Measured]) -> tuple[np.ndarray, bool]:
    """What one unit of the picture is in each row: its threshold, or the null's deviation where one is not positive."""
    thresholds = np.array([row.threshold for row in rows])
    if np.all(np.isnan(thresholds) | (thresholds > 0)):
        return np.where(np.isnan(thresholds), 1.0, thresholds), True
    deviations = np.array([1.0 if row.null is None else float(np.std(row.null)) for row in rows])
    return np.where(deviations > 0, deviations, 1.0), False


def stretch(axes, low: float, high: float) -> None:
    """A linear axis up to 2, and logarithmic from there where the observed values go far beyond."""
    if high <= 6:
        axes.set_xlim(low - 0.2, high + 0.35)
        return
    axes.set_xscale("symlog", linthresh=2, linscale=1.3)
    axes.set_xlim(low - 0.2, high * 1.35)
    ticks = [t for t in (-2, -1, 0, 1, 2) if t >= low - 0.2]
    ticks += [m * 10**e for e in range(9) for m in (1, 2, 5) if 2 < m * 10**e <= high * 1.35]
    axes.set_xticks(ticks if len(ticks) < 14 else [t for t in ticks if t <= 2 or str(t)[0] == "1"])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))
    axes.axvspan(2, high * 1.35, color=LIGHT, lw=0, zorder=0)
    axes.text(
        2.1, 1.005, "logarithmic from here", transform=axes.get_xaxis_transform(), va="bottom", size=8, color=GREY
    )


def adaptation(run: Run) -> Figure | None:
    """Validation loss and accuracy of reuse and of from-scratch."""
    found = [curve for curve in curves(run) if curve.arm != "pretrain"]
    return learning_curves(found, {"reuse": (BLUE, "-", "o"), "from_scratch": (VERMILION, "--", "s")})


def pretraining(run: Run) -> Figure | None:
    """The same for the network's own training on the source, where this run did it."""
    return learning_curves([c for c in curves(run) if c.arm == "pretrain"], {"pretrain": (BLACK, "-", "o")})


def learning_curves(found: Sequence[Curve], styles: dict[str, tuple[str, str, str]]) -> Figure | None:
    """Loss (left) and accuracy (right) on validation rows against training steps."""
    if not any(len(curve.step) for curve in found):
        return None
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve in sorted(found, key=lambda curve: curve.kept):
        color, line, marker = styles[curve.arm]
        bold = {"lw": 2.2, "alpha": 1.0} if curve.kept else {"lw": 1.1, "alpha": 0.4}
        label = f"{NAMES[curve.arm]}, learning rate {curve.rate}" + (" (kept)" if curve.kept else "")
        for axes, values in ((left, curve.loss), (right, curve.accuracy)):
            single = {"marker": "."} if len(curve.step) == 1 else {}
            axes.plot(curve.step, values, color=color, ls=line, label=label if axes is left else None, **bold, **single)
            if curve.kept:
                for step in curve.boundaries:
                    axes.axvline(step, color=color, lw=0.9, ls=":")
                if np.isfinite(curve.loss).any():
                    best = best_index(curve)
                    axes.plot(
                        curve.step[best], values[best], marker=marker, ms=8, mfc="white", mec=color, mew=2, zorder=4
                    )
    losses = np.concatenate([curve.loss for curve in found])
    losses = losses[np.isfinite(losses)]
    if len(losses) and losses.min() > 0 and losses.max() > 10 * losses.min():
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if losses.max() < 200 * losses.min() else (1,)))
        left.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())
        left.set_title("Validation loss (logarithmic)", loc="left")
    else:
        left.set_title("Validation loss", loc="left")
    right.set_title("Validation accuracy", loc="left")
    right.yaxis.set_major_formatter(PERCENT)
    for axes in (left, right):
        axes.set_xlabel("training steps (one batch each)")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2, handlelength=3)
    return figure


def best_index(curve: Curve) -> int:
    """Where the kept network was: the lowest loss of the last stage."""
    last = curve.step > (curve.boundaries[-1] if curve.boundaries else -1)
    return int(np.nanargmin(np.where(last & np.isfinite(curve.loss), curve.loss, np.inf)))


def accuracy(run: Run) -> Figure:
    """Both accuracies, and their paired difference, with intervals."""
    section = run.result["accuracy"]
    reused = words.verdict(run) != "not reused"
    figure = Figure(figsize=(WIDTH, 1.75 if reused else 1.3), layout="constrained")
    left, right = figure.subplots(1, 2) if reused else (figure.subplots(), None)
    arms = [("chosen", "reuse", BLUE, "o")] if reused else []
    arms += [("from_scratch", "from scratch", VERMILION, "s")]
    for y, (key, _, color, marker) in enumerate(arms):
        interval(left, section[key], section[f"{key}_interval"], y, color, marker, words.percent)
    left.set_yticks(range(len(arms)), [label for _, label, _, _ in arms])
    left.set_ylim(len(arms) - 0.4, -0.75)
    left.xaxis.set_major_formatter(PERCENT)
    left.set_title(f"Test accuracy, {words.level(run)} interval", loc="left")
    if right is not None:
        ends = [100 * number(end) for end in section["interval"]]
        interval(
            right, 100 * number(section["paired_difference"]), ends, 0, BLACK, "D", lambda v: words.points(v / 100)
        )
        right.axvline(0, color=GREY, lw=1.2, ls="--")
        right.set_yticks([0], ["reuse − from scratch"])
        right.set_ylim(0.8, -0.8)
        right.set_title(f"Paired difference in points, {words.level(run)} interval", loc="left")
        shown = [*ends, 100 * number(section["paired_difference"])]
        reach = max([abs(value) for value in shown if math.isfinite(value)] + [0.5]) * 1.15
        right.set_xlim(-reach, reach)
        right.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+g}".replace("-", "−") if v else "0"))
    for axes in filter(None, (left, right)):
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def interval(axes, value, ends, y, color, marker, text) -> None:
    """A dot with its interval, and its number above it."""
    low, high = (number(end) for end in ends)
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=color, lw=2.5, solid_capstyle="butt")
        axes.plot([low, high], [y, y], color=color, ls="none", marker="|", ms=10, mew=2)
    if value is not None and math.isfinite(value):
        axes.plot(value, y, color=color, marker=marker, ms=8, mec="white", mew=0.8)
        white = {"fc": "white", "ec": "none", "pad": 1}  # over the line of 0
        above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(text(value), (value, y), weight="bold", bbox=white, **above)


def confusion(run: Run) -> Figure | None:
    """True classes against those that the chosen network predicts."""
    if "test/labels" not in run.evidence or not len(run.evidence["test/labels"]):
        return None
    names = [words.short(name) for name in run.result["data"]["target"]["classes"]]
    counts = confusion_matrix(run, "chosen")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    written = len(names) <= 15
    side = min(WIDTH - 2, max(2.2, 0.42 * len(names))) if written else 5.2
    figure = Figure(figsize=(side + 2.2, side + 0.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)  # type: ignore[operator]
    if written:
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                weight = "bold" if i == j else "normal"
                color = "white" if shares[i, j] > 0.55 else BLACK
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, weight=weight)
    if len(names) <= 40:
        across = 0 if written and max(map(len, names)) <= 4 else 90
        axes.set_xticks(range(len(names)), names, rotation=across)
        axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def confusion_matrix(run: Run, arm: str) -> np.ndarray:
    """Counts of (true, predicted), [classes, classes]."""
    size = len(run.result["data"]["target"]["classes"])
    counts = np.zeros((size, size), int)
    np.add.at(counts, (run.evidence["test/labels"], run.evidence[f"test/{arm}"]), 1)
    return counts
