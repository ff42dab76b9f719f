"""What became of each way that an audit tried: for the page of an audit, and for that of a run whose rule is `audit`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.ways import short

# (name of a figure, what a screen reader says, caption …) -> the figure, or none where there is no such picture.
Show = Callable[..., Html | None]


def how(audit: Mapping[str, Any]) -> str:
    """The procedure, in a paragraph."""
    budget = audit["budget"]
    rungs = [f"{rung['arms']} for {rung['epochs']} epochs ({rung['steps']:,} steps)" for rung in budget["rungs"]]
    if budget["unit"] == "steps":
        paid = f"{budget['total']:,.0f} steps of the whole network, of which {budget['spent']:,.0f} were planned for"
    else:
        total, spent = (words.seconds(budget[name]) for name in ("total", "spent"))
        paid = f"{total} of training (keeping what was trained is set aside), of which {spent} were planned for"
    rates = ", ".join(f"{rate:g}" for rate in budget["learning_rates"])
    held = ""
    if audit["schedule"] != "constant":
        held = f" The learning rate stays where it is, though train.schedule is {audit['schedule']}: who goes on is not known."
    return (
        f"Each of {len(audit['ways'])} ways, at each learning rate ({rates}), was trained on the target's training rows but for "
        f"{audit['num_valid']:,} that were held out for validation. On the first rung of the ladder stood "
        f"{'; of these the best went on, from where they stood: '.join(rungs)}. Who goes on, and who wins, the validation loss "
        f"says; test rows played no part in it. The budget was {paid}. {budget['note']}{held}"
    )


def warnings(audit: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers can't say."""
    if audit["num_valid"] < 100:
        yield (
            f"The winner was picked by {audit['num_valid']} validation rows. So few rows hardly tell ways apart that are not far "
            "from each other: the standard error of each loss stands in the table."
        )


def section(audit: Mapping[str, Any], show: Show) -> Html:
    """Pictures and table of the ways; in the report of a main run too."""
    tested = audit["oracle"] is not None
    return join(
        [
            show(
                "ways",
                "Test accuracy of each way with its interval",
                "Share of the test rows that each way gets right, at the end of its training, with 95 % intervals over test "
                "rows. Filled: it reached the last rung, or was trained on to its length for comparison; hollow: it was dropped "
                "before, and would have become better. Arrows: what was chosen by whom.",
            ),
            show(
                "contest",
                "Validation loss against epochs, a line for each way",
                "Validation loss of each way, at the learning rate that was best when it was last looked at: the lowest so far "
                "in bold strokes, and each epoch's own pale. Dotted lines: where the worst were dropped.",
            ),
            ways_table(audit),
            tag(
                "p",
                tag("b", "The oracle. "),
                f"On the test rows “{short(audit['oracle'])}” was best. Nobody could have known: the largest of "
                f"{len(audit['ways'])} accuracies is too large on average, as luck is part of what makes it the largest.",
            )
            if tested
            else None,
        ]
    )


def ways_table(audit: Mapping[str, Any]) -> Html:
    """A row a way, the best validation loss first among those that came equally far."""
    rows, marked = [], None
    ranked = sorted(audit["ways"], key=lambda way: (-way["rungs"], number(way["valid_loss"])))
    last = len(audit["budget"]["rungs"])
    for place, way in enumerate(ranked):
        names = [name for name, found in (("wins", "winner"), ("oracle", "oracle")) if audit[found] == way["way"]]
        if way["way"] == audit["winner"]:
            marked = place
        end = ""
        if way["rungs"] < last:
            after = audit["budget"]["rungs"][way["rungs"] - 1]["epochs"]
            end = f", dropped after {after} epochs" + (", then trained on to compare" if way["finished"] else "")
        rows.append(
            (
                short(way["way"]) + (f" ({', '.join(names)})" if names else "") + end,
                f"{way['steps']:,}",
                f"{way['flops'] / 1e9:,.3g}",
                "diverged"
                if way["valid_loss"] is None
                else f"{way['valid_loss']:.3f} ± {number(way['loss_error']):.3f}",
                words.percent(way["valid_accuracy"]),
                "" if way["test"] is None else share(way["test"]),
            )
        )
    head = ("way", "steps", "GFLOPs", "validation loss", "right, validation", "right, test (95 % interval)")
    tested = audit["oracle"] is not None
    return table(
        head if tested else head[:-1],
        rows if tested else [row[:-1] for row in rows],
        numbers=(1, 2, 3, 4, 5),
        marked=marked,
        caption="Steps and floating-point operations are of all learning rates together; the classifier that “classifier, then "
        "all” begins with is the frozen base's, and counted there. Losses are in nats, ± one standard error over validation "
        "rows.",
    )


def share(found: Mapping[str, float]) -> str:
    """A share of rows with its interval."""
    return f"{found['estimate']:.1%} ({found['low']:.1%} … {found['high']:.1%})"


def number(value: float | None) -> float:
    """JSON has null where a number was not finite."""
    return float("inf") if value is None else float(value)
