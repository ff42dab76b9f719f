"""The report: one self-contained HTML page, for readers who did not write this."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import workdir
from experiments.report import audit_plots, evidence, plots, record, words
from experiments.report.markup import Html, join, table, tag
from experiments.report.run import Run, asks_similarity, pvalue_decides, read
from experiments.report.style import CSS


def write(directory: str | Path) -> None:
    """Writes figures/ and report.html, the page last: its presence means that all is there.

    Raises:
      FileNotFoundError: the run has no result.json yet.
    """
    directory = Path(directory)
    pictures = figures(directory)
    for name, content in pictures.items():
        workdir.write_bytes(directory / "figures" / name, content)
    workdir.write_bytes(directory / "report.html", render(directory, pictures))


def answer(directory: str | Path) -> str:
    """The answer in one sentence."""
    return words.answer(read(directory))


def figures(directory: str | Path) -> dict[str, bytes]:
    """Every figure of a run by file name, as SVG and as PNG; the same run gives the same bytes."""
    run = read(directory)
    return plots.figures(run) | ({} if run.audit is None else audit_plots.figures(run.audit, run.metrics))


def render(directory: str | Path, pictures: Mapping[str, bytes]) -> bytes:
    """The page, with the SVG files of `pictures` inside it: no script, nothing to load."""
    run = read(directory)
    show = Shower(pictures)
    sections = (
        first_page(run, show),
        evidence.how_far(run, show),
        evidence.what_follows(run, show),
        training(run, show),
    )
    body = tag("main", *sections, comparison(run, show), record.section(run))
    return document(f"{run.result['name']}: can the network be reused?", body)


def document(title: str, body: Html, css: str = CSS) -> bytes:
    """A whole page in UTF-8, whose policy lets nothing be loaded or run."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = tag(
        "head",
        Html(f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Html(css)),
    )
    return ("<!DOCTYPE html>\n" + tag("html", head, tag("body", body), lang="en") + "\n").encode()


class Shower:
    """Figures with their captions, numbered as they come; None where the run has no such figure."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        self.pictures = pictures
        self.shown = 0

    def __call__(self, name: str, alt: str, *caption: object) -> Html | None:
        if f"{name}.svg" not in self.pictures:
            return None
        self.shown += 1
        data = base64.b64encode(self.pictures[f"{name}.svg"]).decode()
        image = Html(tag("img", src=f"data:image/svg+xml;base64,{data}", alt=alt).removesuffix("</img>"))
        return tag("figure", image, tag("figcaption", tag("b", f"Figure {self.shown}. "), *caption))


def first_page(run: Run, show: Shower) -> Html:
    """The question, the answer, its three numbers, what it rests on, and the data."""
    return join(
        [
            tag("p", "The question", class_="label"),
            tag("h1", words.question(run)),
            tag("p", "The answer", class_="label"),
            tag("p", words.answer(run), class_=f"answer {words.verdict(run).replace(' ', '-')}"),
            cards(run),
            tag("p", tag("b", "What was done, and why. "), how(run)),
            sample_size(run),
            warnings(run),
            show(
                "samples",
                "Sample images of the source and of the target",
                "Images from the training rows of each data set"
                + (
                    ": left, what the network was trained on; right, the new data."
                    if run.config["source"]
                    else ": the new data."
                )
                + " Every pixel is drawn as a square, so that small images can be seen as the network gets them.",
            ),
        ]
    )


def cards(run: Run) -> Html:
    """The three numbers that matter."""
    accuracy, level = run.result["accuracy"], words.level(run)

    def card(name: str, number: str, below: str) -> Html:
        return tag("li", tag("span", name), tag("b", number), tag("span", below))

    scratch = card(
        "Trained from scratch",
        words.percent(accuracy["from_scratch"]),
        f"of test rows right; {level} interval {words.span(accuracy['from_scratch_interval'], words.percent)}",
    )
    if words.verdict(run) == "not reused":
        return tag("ul", scratch, class_="cards")
    return tag(
        "ul",
        card(
            "Reused network",
            words.percent(accuracy["chosen"]),
            f"of test rows right; {level} interval {words.span(accuracy['chosen_interval'], words.percent)}",
        ),
        scratch,
        card(
            "Difference, on the same test rows",
            f"{words.points(accuracy['paired_difference'])} points",
            f"percentage points; {level} interval {words.span(accuracy['interval'], words.points)}",
        ),
        class_="cards",
    )


def how(run: Run) -> Html:
    """The decision in two sentences."""
    plan = run.result["plan"]
    regime = words.REGIMES.get(plan["regime"], plan["regime"])
    evidence = run.result["similarity"]["evidence"]
    gloss = (
        " Here P is the distribution that the source's rows come from, Q the target's." if "P = Q" in evidence else ""
    )
    return join([evidence, gloss, " ", plan["reason"], f" In short ({plan['regime']}): {regime}.{augmentation(run)}"])


def augmentation(run: Run) -> str:
    """How training images were changed, if they were; from-scratch's too."""
    done = run.config["train"].get("augment") or {}
    words_of = {"flip": "mirrored", "crop": "moved", "colour": "recoloured", "mixup": "mixed in pairs"}
    named = [word for name, word in words_of.items() if done.get(name)]
    if not run.result["plan"]["augment"] or not named:
        return ""
    return f" In training, images were {', '.join(named)} at random, anew in every step, from scratch too."


def sample_size(run: Run) -> Html | None:
    """What a p-value can't say, wherever one decides."""
    if not pvalue_decides(run):
        return None
    test = run.result["two_sample"]["inputs"]
    m, n = f"{test['m']:,}", f"{test['n']:,}"
    if run.result["similarity"]["kind"] == "similar":
        here = (
            "Here the test did not reject that source and target are alike. That is no proof that they are: “not "
            "rejected” mostly says “small sample”."
        )
    else:
        here = "Here the test rejected that source and target are alike; it does not say that the difference matters."
    return tag(
        "div",
        tag("b", "This decision reads the sample size too. "),
        f"How to reuse the network was decided by a p-value, from {m} source rows and {n} target rows. With more rows "
        f"the same difference is more easily called different. {here} The size of the difference (MMD, below) does not "
        "grow with the number of rows; the p-value shrinks with it.",
        class_="note",
    )


def warnings(run: Run) -> Html | None:
    """What the run says about its own test."""
    two_sample = run.result["two_sample"]
    found = []
    if two_sample is None and run.config["source"] is None:
        found.append(
            "No MMD was measured because the network came without source rows"
            + (
                "."
                if not asks_similarity(run) or run.config["decision"]["assume"]
                else "; the row for dissimilar data applies."
            )
        )
    if run.config["decision"]["assume"]:
        found.append(
            f"That source and target are {run.config['decision']['assume']} is the user's own assumption. No test "
            "stands behind it."
        )
    if two_sample and two_sample["note"]:
        found.append(two_sample["note"])
    if words.verdict(run) == "worse":
        found.append(
            "Negative transfer: on this target the reused network is worse than one that knows nothing of the source. The folder "
            "model/ holds the reused network all the same; the same command with --decision.regime from_scratch, in another work "
            "directory, keeps the other."
        )
    return join([tag("p", line, class_="warning") for line in found]) if found else None


def training(run: Run, show: Shower) -> Html:
    """Learning curves."""
    reused = words.verdict(run) != "not reused"
    rates = [words.significant(rate) for rate in run.config["train"]["learning_rates"]]
    return join(
        [
            tag("h2", "How the training went"),
            tag(
                "p",
                "Both ways of training got the same target rows, the same learning rates to choose from "
                f"({', '.join(rates)}), the same validation rows (held out from the training rows) and the same rule "
                "for when to stop. The learning rate and the moment with the lowest validation loss were kept; test "
                "rows played no part in it."
                if reused
                else f"Each learning rate ({', '.join(rates)}) was tried; the one with the lowest validation loss, at "
                "its best moment, was kept. Test rows played no part in it.",
            ),
            show(
                "curves",
                "Validation loss and accuracy against training steps",
                "Loss (lower is better) and accuracy (higher is better) on validation rows while training on the "
                "target. ",
                "Solid blue: reuse; dashed vermilion: from scratch. " if reused else "",
                "Bold: the learning rate that was kept; pale: the others. The open mark is the network that was kept. "
                "A line ends where its training stopped, for lack of improvement or at the last epoch.",
                " A dotted vertical line is where the second stage began."
                if len(run.result["plan"]["stages"]) > 1
                else "",
            ),
            show(
                "pretraining",
                "Validation loss and accuracy of pretraining on the source",
                "The same for the network's training on the source, before it met the target. This run did it itself; "
                "its validation rows are source rows, so these numbers can't be compared with those above.",
            ),
        ]
    )


def comparison(run: Run, show: Shower) -> Html:
    """Accuracies, other scores and the confusion matrix."""
    accuracy = run.result["accuracy"]
    reused = words.verdict(run) != "not reused"
    arms = [("Reused network", "chosen")] if reused else []
    arms += [("Trained from scratch", "from_scratch")]
    rows = [
        (
            name,
            words.percent(accuracy[key]),
            words.span(accuracy[f"{key}_interval"], words.percent),
            words.percent(accuracy["balanced"][key]),
            words.percent(accuracy["macro_f1"][key]),
            words.significant(run.result["learning_rate"][key]),
        )
        for name, key in arms
    ]
    level = words.level(run)
    return join(
        [
            tag("h2", "How good the networks are"),
            show(
                "accuracy",
                "Test accuracies and their paired difference, with intervals",
                f"Left: the share of the {accuracy['num_test']:,} test rows that each network gets right, with its "
                f"{level} interval. ",
                f"Right: the difference on the same rows, row by row: {words.points(accuracy['paired_difference'])} "
                f"points, interval {words.span(accuracy['interval'], words.points)}. Read the right side to compare: "
                "the two intervals on the left may overlap although the paired difference is clear. Where its line "
                "crosses the dashed 0, the run can't tell the two apart."
                if reused
                else "",
            ),
            table_of_scores(rows, level),
            ranking(run, arms),
            show(
                "confusion",
                "Confusion matrix of the chosen network",
                "Which classes the chosen network (the one in model/) takes for which: each row is a true class, each "
                "column what the network said; the numbers count test rows, and the shade is their share of the row. "
                "All that is right lies on the diagonal. ",
                confused(run),
            ),
        ]
    )


def ranking(run: Run, arms: Sequence[tuple[str, str]]) -> Html | None:
    """ROC AUC, where there are two classes."""
    auc = run.result["accuracy"].get("roc_auc")
    if auc is None:
        return None
    names = run.result["data"]["target"]["classes"]
    difference = (
        f" Difference on the same rows: {words.significant(auc['paired_difference'])}, interval "
        f"{words.span(auc['interval'], words.significant)}."
        if len(arms) > 1
        else ""
    )
    return table(
        ("", "ROC AUC", f"{words.level(run)} interval"),
        [
            (name, words.significant(auc[key]), words.span(auc[f"{key}_interval"], words.significant))
            for name, key in arms
        ],
        numbers=(1, 2),
        caption=f"ROC AUC: how often, of a random test row of class {names[1]} and one of class {names[0]}, the first gets "
        "the higher probability of it; 0.5 is guessing, and a rare class counts as much as a frequent one. Intervals by the "
        f"jackknife, over whole groups where rows have groups.{difference}",
    )


def table_of_scores(rows: Sequence[tuple[str, ...]], level: str) -> Html:
    """Accuracy and the scores that do not let a large class hide a small one."""
    return table(
        ("", "Accuracy", f"{level} interval", "Balanced accuracy", "Macro-F1", "Learning rate kept"),
        rows,
        numbers=(1, 2, 3, 4, 5),
        caption="Balanced accuracy is the mean over classes of the share that is right in each class. Macro-F1 is the "
        "mean over classes of F1, which also counts rows wrongly given to the class. Both treat rare and frequent "
        "classes alike.",
    )


def confused(run: Run) -> str:
    """The most frequent mistakes in words."""
    if "test/labels" not in run.evidence:
        return ""
    counts = plots.confusion_matrix(run, "chosen")
    names = [words.short(name, 30) for name in run.result["data"]["target"]["classes"]]
    pairs = sorted(
        ((int(counts[i, j]), i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i, j]),
        key=lambda pair: (-pair[0], pair[1:]),
    )
    if not pairs:
        return "There is no mistake."
    said = [f"{names[i]} taken for {names[j]} ({count} of {counts[i].sum()})" for count, i, j in pairs[:3]]
    return f"Most frequent mistakes: {'; '.join(said)}."
