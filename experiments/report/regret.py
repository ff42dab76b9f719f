"""The page of a decision benchmark: what every policy's choices cost, what predicts the gain of reuse, and which rule to use."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from experiments import workdir
from experiments.report.markup import table, tag
from experiments.report.page import Shower, document
from experiments.report.plots import save
from experiments.report.style import BLACK, BLUE, GREY, MATPLOTLIB, ORANGE, SKY, VERMILION, WIDTH

Study = dict[str, Any]

KINDS = {
    "fixed": ("the same way always", GREY, "o"),
    "rule": ("a rule of the sources", VERMILION, "s"),
    "layer score": ("freeze up to the best layer", SKY, "^"),
    "split": ("a threshold on one signal", BLUE, "D"),
    "search": ("some or all ways are tried", ORANGE, "P"),
}


def write(directory: str | Path) -> None:
    """Writes figures/ and report.html from decision_benchmark.json, the page last."""
    directory = Path(directory)
    study = workdir.read_json(directory / "decision_benchmark.json")
    pictures = figures(study)
    for name, content in pictures.items():
        workdir.write_bytes(directory / "figures" / name, content)
    workdir.write_bytes(directory / "report.html", render(study, pictures))


def answer(study: Study) -> str:
    """Which rule to use, in one paragraph."""
    found = study["evidence"]
    costs = {cost["policy"]: cost for cost in study["policies"] if cost["kind"] != "split"}
    best = costs[found["fixed"]]
    said = [
        f"On {len(study['pairs'])} pairs of source and target, {len(study['sizes'])} sizes and {len(study['seeds'])} seeds the "
        f"best way to always take is “{found['fixed']}”, which gives away {points(best)} of accuracy on average."
    ]
    rules = [cost for cost in study["policies"] if cost["kind"] == "rule"]
    said.append(
        "The rules of the sources cost " + "; ".join(f"{cost['policy']}: {points(cost)}" for cost in rules) + "."
    )
    said += [
        f"{tried['rule'].capitalize()} ({tried['learned']}) gives away {100 * tried['regret']:.1f} points on pairs that "
        f"it was not learned on, {signed(tried['difference'])} points against “{found['fixed']}”."
        for tried in found["tried"]
    ]
    end = (
        "the rule `evidence` is: " + found["rule"]
        if found["beats"]
        else f"no rule beats “{found['fixed']}”, which is the rule `evidence`"
    )
    return " ".join([*said, f"So {end}."])


def points(cost: dict[str, Any]) -> str:
    """A share as points, with its interval."""
    if cost["low"] is None:
        return f"{100 * cost['mean']:.1f} points"
    return f"{100 * cost['mean']:.1f} points ({100 * cost['low']:.1f} … {100 * cost['high']:.1f})"


def signed(found: dict[str, Any]) -> str:
    """A difference in points, with its interval."""
    if found["low"] is None:
        return f"{100 * found['mean']:+.1f}"
    return f"{100 * found['mean']:+.1f} ({100 * found['low']:+.1f} … {100 * found['high']:+.1f})"


def as_markdown(study: Study) -> str:
    """Both tables, as they stand in docs/decision.md and on a terminal."""
    head = (
        "policy",
        "kind",
        "mean regret (95 %)",
        *(f"{size} rows" for size in study["by_size"]),
        "worst pair",
        "worst cell",
        "steps",
    )
    lines = [head, ["---"] * len(head)]
    for cost in study["policies"]:
        sizes = [f"{100 * of[cost['policy']]:.1f}" for of in study["by_size"].values()]
        lines.append(
            [
                cost["policy"],
                cost["kind"],
                points(cost).replace(" points", ""),
                *sizes,
                *worst(cost),
                f"{cost['steps']:,.0f}",
            ]
        )
    second = [("signal", "Spearman's correlation with the gain of reuse (95 %)"), ["---"] * 2]
    second += [(found["signal"], correlation(found)) for found in ordered(study)]
    return "\n\n".join("\n".join(f"| {' | '.join(map(str, line))} |" for line in part) for part in (lines, second))


def worst(cost: dict[str, Any]) -> tuple[str, str]:
    """The worst pair's mean, and the worst cell."""
    pair = max(cost["pairs"], key=cost["pairs"].__getitem__)
    return f"{100 * cost['pairs'][pair]:.1f} ({pair})", f"{100 * cost['worst']:.1f}"


def ordered(study: Study) -> list[dict[str, Any]]:
    """The signals by how well they order pairs; a distance is good where it is negative."""
    known = [found for found in study["predicts"] if found["correlation"] is not None]
    return sorted(known, key=lambda found: -abs(found["correlation"]))


def correlation(found: dict[str, Any]) -> str:
    """A correlation with its interval."""
    if found["low"] is None:
        return f"{found['correlation']:+.2f}"
    return f"{found['correlation']:+.2f} ({found['low']:+.2f} … {found['high']:+.2f})"


def figures(study: Study) -> dict[str, bytes]:
    """Regret of every policy beside what predicts the gain of reuse, as SVG and as PNG."""
    with matplotlib.style.context(["default", MATPLOTLIB]):
        figure = Figure(
            figsize=(WIDTH, 0.17 * max(len(study["policies"]), len(study["predicts"])) + 1.2), layout="constrained"
        )
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        costs(left, study)
        predicts(right, study)
        return {f"decision_benchmark.{kind}": save(figure, kind) for kind in ("svg", "png")}


def costs(axes: Any, study: Study) -> None:
    """Mean regret of each policy with its interval over pairs, the smallest above."""
    seen = set()
    for place, cost in enumerate(reversed(study["policies"])):
        label, colour, marker = KINDS[cost["kind"]]
        mean = 100 * cost["mean"]
        if cost["low"] is not None:
            axes.plot([100 * max(cost["low"], 0), 100 * cost["high"]], [place, place], color=colour, lw=1.2)
        axes.plot(mean, place, marker, color=colour, ms=4.5, label=None if label in seen else label)
        seen.add(label)
    names = [cost["policy"] for cost in reversed(study["policies"])]
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.set_ylim(-1, len(names))
    axes.set_xlabel("points of accuracy given away\n(mean over pairs, 95 % interval)")
    axes.set_title("What a policy's choices cost", loc="left")
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.8), fontsize=7)


def predicts(axes: Any, study: Study) -> None:
    """How well each signal orders the pairs by the gain of reuse."""
    found = list(reversed(ordered(study)))
    for place, one in enumerate(found):
        colour = VERMILION if one["signal"].startswith(("MMD", "p-value")) else BLUE
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color=colour, lw=1.2)
        axes.plot(one["correlation"], place, "s" if colour == VERMILION else "o", color=colour, ms=4.5)
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.set_yticks(range(len(found)), [one["signal"] for one in found], fontsize=6.5)
    axes.set_ylim(-1, len(found))
    axes.set_xlim(-1, 1)
    axes.set_xlabel("rank correlation over pairs\nwith the gain of reuse")
    axes.set_title("What predicts the gain of reuse", loc="left")
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)


def render(study: Study, pictures: dict[str, bytes]) -> bytes:
    """The page."""
    show = Shower(pictures)
    rows = [
        [
            cost["policy"],
            KINDS[cost["kind"]][0],
            points(cost),
            signed(cost["difference"]),
            *worst(cost),
            f"{cost['steps']:,.0f}",
        ]
        for cost in study["policies"]
    ]
    caption = (
        "Regret: accuracy of the best way in the cell less that of the policy's choice, both on test rows; the best of several "
        "is too high by chance, the same for every policy. Intervals are over pairs. Thresholds come from the other pairs."
    )
    head = ["policy", "kind", "mean regret", "against the best fixed way", "worst pair", "worst cell", "steps"]
    signals = [[found["signal"], correlation(found)] for found in ordered(study)]
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag("h1", "Which rule should one use to choose how to reuse a network?"),
        tag("p", "The answer", class_="label"),
        tag("p", answer(study), class_="answer"),
        show(
            "decision_benchmark",
            "Points and intervals of every policy and signal",
            "What a policy's choices cost, and what predicts the gain of reuse.",
        ),
        tag("h2", "Policies"),
        table(head, rows, numbers=(2, 3, 5, 6), caption=caption),
        tag("h2", "What predicts the gain of reuse"),
        table(["signal", "rank correlation"], signals, numbers=(1,)),
        tag("p", f"{study['cells']} cells. Made with ", tag("code", study["command"]), "."),
    )
    return document("Which rule should one use?", body)
