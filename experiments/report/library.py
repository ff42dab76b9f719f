"""A ranking of a library's entries for a new target, as text and as a picture, from ranking.json."""

from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.plots import save
from experiments.report.style import BLACK, BLUE, GREY, MATPLOTLIB, ORANGE, VERMILION, WIDTH
from experiments.report.words import percent, short, significant

Ranking = dict[str, Any]
# Of the scores, those that the table shows; ranking.json has all.
SHOWN = ("leep", "log_me", "h_score_shrunk")
MOST_LINES = 12


def figures(ranking: Ranking) -> dict[str, bytes]:
    """{file name: SVG or PNG}; the same ranking gives the same bytes."""
    with matplotlib.style.context([MATPLOTLIB]):
        figure = draw(ranking)
        return {f"ranking.{kind}": save(figure, kind) for kind in ("svg", "png")}


def draw(ranking: Ranking) -> Figure:
    """Left: distances at the inputs with intervals, nearest first. Right: what the probes are right on, and the two bars."""
    entries, standings = ranking["examined"], ranking["advice"]["standings"]
    figure = Figure(figsize=(WIDTH, 1.5 + 0.34 * max(len(entries), 2)), layout="constrained")
    near, useful = figure.subplots(1, 2)
    alike = {e["name"] for e in entries if e["tie"] is None or e["tie"] > ranking["alpha"]}
    for place, entry in enumerate(entries):
        distance, tied = entry["distance"], entry["name"] in alike
        near.hlines(
            place, distance["low"], distance["high"], color=BLUE, lw=1.5
        )  # which need not hold an estimate below 0
        near.plot(distance["mmd2"], place, "o", color=BLUE, mfc=BLUE if tied else "white", ms=6)
    near.set_title("How far? MMD² at the inputs", loc="left")
    near.set_xlabel(f"{1 - ranking['alpha']:.0%} intervals; axis: square root; filled: ties with the nearest")
    near.axvline(0, color=GREY, lw=0.8)
    # Distances of one library span orders of magnitude, and estimates may lie below 0.
    near.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    largest = max(entry["distance"]["high"] for entry in entries)
    near.set_xticks(sorted({float(f"{largest * share:.1g}") for share in (0, 0.05, 0.2, 0.5, 1)}))
    _rows(near, [entry["name"] for entry in entries])
    best = {ranking["advice"]["best"], *ranking["advice"]["ties"]}
    for place, standing in enumerate(standings):
        low, high = standing["interval"]
        ends = [[standing["accuracy"] - low], [high - standing["accuracy"]]]
        mfc = VERMILION if standing["name"] in best else "white"
        untrained = {"label": "its network untrained"} if place == 0 else {}
        useful.plot(standing["untrained"], place, "|", color=ORANGE, ms=14, mew=2, **untrained)
        useful.errorbar(standing["accuracy"], place, xerr=ends, fmt="s", color=VERMILION, mfc=mfc, capsize=3, ms=6)
    bars = ranking["advice"]["baselines"]
    useful.axvline(bars["inputs"], color=BLACK, ls="--", lw=1.2, label="raw inputs")
    useful.set_title("How useful? Linear probe on its features", loc="left")
    useful.set_xlabel("rows right; filled: recommended, or tied with it")
    useful.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _rows(useful, [standing["name"] for standing in standings])
    figure.legend(loc="outside lower right", ncols=2)
    return figure


def _rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name, 18) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def text(ranking: Ranking) -> str:
    """The ranking as lines for a terminal."""
    level, rows = f"{1 - ranking['alpha']:.0%}", ranking["rows"]
    about = f"{ranking['entries']} entries; target: {ranking['target']} ({rows} training rows). {ranking['note']}"
    lines = [about.strip(), f"By distance at the inputs (MMD², {level} interval), in one product; no network ran:"]
    lines += list(_by_distance(ranking))
    lines.append(
        "By a linear probe on their last hidden features (cross-validated on the target's rows); only these networks ran:"
    )
    lines += list(_by_probe(ranking))
    lines += [f"warning: {entry['name']}: {note}" for entry in ranking["examined"] for note in entry["notes"]]
    lines += [f"warning: {name} was left out: {why}" for name, why in ranking["left_out"].items()]
    lines.append("Distances in different networks' features are on different scales, and are not ranked.")
    return "\n".join([*lines, ranking["advice"]["sentence"]])


def _by_distance(ranking: Ranking) -> Iterator[str]:
    examined = {entry["name"]: entry for entry in ranking["examined"]}
    pairs = list(zip(ranking["near"]["names"], ranking["near"]["mmd2"]))
    shown = max(MOST_LINES, len(examined))
    for place, (name, mmd2) in enumerate(pairs[:shown], start=1):
        line = f"{place:>4}  {short(name, 24):<24} {significant(mmd2):>9}"
        if entry := examined.get(name):
            found, tie = entry["distance"], entry["tie"]
            span = f"{significant(found['low'])} … {significant(found['high'])}"
            verdict = "differs" if found["pvalue"] <= ranking["alpha"] else "not told apart from the target"
            if tie is not None:
                verdict += "; tied with the nearest" if tie > ranking["alpha"] else "; farther than the nearest"
            line += f"  {span:<20} p = {found['pvalue']:.3f}  {verdict}"
        yield line
    if len(pairs) > shown:
        yield f"      … and {len(pairs) - shown} more, up to {significant(pairs[-1][1])}"


def _by_probe(ranking: Ranking) -> Iterator[str]:
    examined = {entry["name"]: entry for entry in ranking["examined"]}
    columns = f"{'probe':>7} {'interval':>15}  {'LEEP':>7} {'LogME':>7} {'H-score':>7} {'parameters':>11}"
    yield f"      {'':<24} {columns}  MMD² at its layers (p)"
    for place, standing in enumerate(ranking["advice"]["standings"], start=1):
        entry = examined[standing["name"]]
        interval = "–".join(percent(end) for end in standing["interval"])
        scores = " ".join(f"{significant(value):>7}" for value in shown_scores(entry))
        layers = list(entry["layers"].items())
        some = {**dict(layers[:1]), **dict(layers[-2:])}
        ends = "; ".join(
            f"{name} {significant(found['mmd2'], 2)} ({found['pvalue']:.3f})" for name, found in some.items()
        )
        yield (
            f"{place:>4}  {short(standing['name'], 24):<24} {percent(standing['accuracy']):>7} {interval:>15}  {scores} "
            f"{entry['parameters']:>11,}  {ends}"
        )


def shown_scores(entry: dict[str, Any]) -> list[float | None]:
    """LEEP of the outputs; of the layer below them, LogME and the H-score."""
    found = {**entry["scores"].get(entry["hidden"], {}), **entry["scores"].get("outputs", {})}
    return [found.get(name) for name in SHOWN]
