"""The middle of the page of a transferability study: statements tested, difficulty of the halves, MMD beside the cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.page import Shower

Study = dict[str, Any]
NAMES = {"random": "Random splits", "dissimilar": "Dissimilar splits"}


def level(study: Study) -> str:
    """Of the intervals."""
    return f"{100 * study['level']:g}%"


def claims(study: Study) -> Html:
    """The statements that people read off the figure, tested."""
    found = study["statements"]
    parts = [tag("h2", "What people read off this figure, tested"), *(tag("p", line) for line in untested(study))]
    for kind in dict.fromkeys(statement["kind"] for statement in found):
        inside = [statement for statement in found if statement["kind"] == kind]
        parts += [
            tag("h3", NAMES.get(kind, kind)),
            table(
                ("Read off as", f"What was seen, with its {level(study)} interval", "p", "p, Holm", "Splits"),
                [
                    (
                        statement["name"],
                        statement["sentence"],
                        pvalue(statement["pvalue"]),
                        pvalue(statement["adjusted"]),
                        statement["num_splits"],
                    )
                    for statement in inside
                ],
                numbers=(2, 3, 4),
                caption=f"Points of accuracy, with Student's interval over splits. “Holm”: adjusted for the "
                f"{len(inside)} statements of this table "
                f"together; a sentence takes a side only where it is at most {1 - study['level']:.2g}. The intervals are "
                "not adjusted.",
            ),
        ]
    return join(parts)


def untested(study: Study) -> list[str]:
    """Why nothing is tested on a kind of splits: a sentence a kind without statements."""
    said, tested = [], {statement["kind"] for statement in study["statements"]}
    for kind in dict.fromkeys(network["kind"] for network in study["networks"]):
        splits = len({network["split"] for network in study["networks"] if network["kind"] == kind})
        if kind in tested:
            continue
        if splits == 1:
            said.append(f"There is one {kind} split, so nothing can be tested over {kind} splits.")
        elif half := study["shared_halves"].get(kind):
            said.append(
                f"Nothing is tested over the {splits} {kind} splits: {half} has the same classes in all of them, so they are no "
                "independent draws: what differs there is mostly how the networks were initialised."
            )
        else:
            said.append(f"No statement is about the treatments that were run on {kind} splits, so nothing is tested.")
    return said


# Difficulty


def difficulty(study: Study) -> Html:
    """Base accuracies of both halves."""
    largest = study["largest_gap"]
    said = "Only one half of each split was a target, so halves can't be compared."
    if largest:
        said = (
            f"The halves of one split differ by up to {words.points(abs(largest['gap'])).lstrip('+')} points (mean accuracy of "
            f"base, {largest['kind']} split {largest['split']}: A {words.percent(largest['A'])}, B "
            f"{words.percent(largest['B'])}). Where a curve rests on A halves and another on B halves, as the original's + "
            "curves do, this difference is mistaken for one of treatments; here every network is compared with its own "
            "half's base."
        )
    return join(
        [
            tag("h2", "How hard the halves are"),
            tag("p", said),
            table(
                ("Split", "Base on A", "Base on B", "A − B"),
                [
                    (f"{row['kind']} {row['split']}", words.percent(row["A"]), words.percent(row["B"]), words.points(row["gap"]))
                    for row in study["difficulty"]
                ],
                numbers=(1, 2, 3),
                caption="Mean over seeds; the difference in points.",
            ),
        ]
    )  # fmt: skip


# MMD


def distance(study: Study, show: Shower) -> Html | None:
    """Whether MMD predicts what freezing costs."""
    if not study["beside"]:
        return None
    layers = study["header"]["layers"]
    parts = [
        tag("h2", "Does the MMD at layer n predict what freezing n layers costs?"),
        *(tag("p", found["sentence"]) for found in study["predictions"]),
        show(
            "distance",
            "MMD² by layer, cost of freezing by layer, and both beside each other within layers",
            "Left: unbiased MMD² between held-out rows of the two halves, in the features of the other half's base network. "
            "Middle: accuracy of base less that of AnB with n layers frozen. Where both trend with depth they go together "
            "over depth, which is no evidence that one predicts the other. Right: each number is a layer n of one split, "
            "both axes less the layer's mean over the splits of its kind, in standard "
            "deviations over these: what is left is whether a split with a larger MMD² than others of its kind also loses more.",
        ),
    ]
    for found in study["predictions"]:
        shared = "".join(
            f"All {kind} splits share {half}. "
            for kind, half in study["shared_halves"].items()
            if kind in found["splits"].split(" and ")
        )
        splits = [split for split in study["beside"] if split["kind"] in found["splits"].split(" and ")]
        rows = [(f"{n}: {layers[n - 1]}", found["within"][n - 1], told_apart(splits, n)) for n in range(1, len(layers))]
        rows.append(("all, each layer centred and scaled, kind by kind", found["pooled"], ""))
        parts.append(
            table(
                ("Layer n", "r over splits", f"{level(study)} interval", "p", "Splits", "Halves told apart", ""),
                [
                    (
                        name,
                        correlation(one["r"]),
                        "–" if one["low"] is None else words.span((one["low"], one["high"]), correlation),
                        pvalue(one["pvalue"]),
                        one["num_splits"],
                        apart,
                        one["reason"],
                    )
                    for name, one, apart in rows
                ],
                numbers=(1, 2, 3, 4, 5),
                caption=f"{found['splits'].capitalize()} splits. {shared}In a layer: Pearson's correlation with Fisher's "
                "interval, not adjusted for the number of layers. All: jackknife over splits on Fisher's scale; p of "
                "shuffling whole splits within their kind. “Halves told apart”: how many tests of P = Q at this layer reject, "
                "over splits, directions and seeds. "
                "Without centring, over all layers and splits: r = "
                f"{correlation(found['naive'])}, which a trend of both with depth is enough to make.",
            )
        )
    return join(parts)


def told_apart(splits: Sequence[Mapping[str, Any]], n: int) -> str:
    """How many of the tests at layer n reject that the halves are alike."""
    rejected, tested = (sum(split[name][n - 1] for split in splits) for name in ("rejected", "tested"))
    return f"{rejected} of {tested}" if tested else "–"


def pvalue(value: float | None) -> str:
    """
    >>> pvalue(0.0123), pvalue(1e-5), pvalue(None)
    ('0.012', '<0.001', '–')
    """
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.2g}"


def correlation(value: float | None) -> str:
    """A correlation with its sign.

    >>> correlation(-0.456), correlation(None)
    ('−0.46', '–')
    """
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")
