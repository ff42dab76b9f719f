"""The middle of the report: what was measured, and the plan that follows."""

from collections.abc import Callable

from experiments.report import contest, size_similarity, words
from experiments.report.markup import Html, join, table, tag
from experiments.report.plots import units
from experiments.report.run import Measured, Run, asks_similarity, measured

# (name of a figure, what a screen reader says, caption …) -> the figure, or none where the run has no such picture.
Show = Callable[..., Html | None]


def how_far(run: Run, show: Show) -> Html:
    """How far the target is from the source: MMD on the inputs and layer by layer."""
    rows = measured(run)
    title = tag("h2", "How far the new data are from the old")
    if not rows:
        known = run.result["similarity"]["kind"] != "unknown"
        evidence = tag("p", run.result["similarity"]["evidence"]) if known else None
        return join([title, evidence, tag("p", nothing_measured(run))])
    settings, numbers = run.config["test"], run.result["two_sample"]["inputs"]
    return join(
        [
            title,
            tag("p", run.result["similarity"]["evidence"], " ", what_decides(run)),
            tag(
                "p",
                tag("b", "How to read it. "),
                "The maximum mean discrepancy (MMD) is a distance between two distributions, here P of the source and "
                "Q of the target: 0 if they are the same, and larger the more a smooth function can tell rows of one "
                "from rows of the other. It is estimated from samples, so even for P = Q it is not exactly 0. How far "
                "chance alone takes it is found by mixing up which rows are source and which are target, "
                f"{numbers['permutations']:,} times ({resampling(run)}): these values are the null distribution. The "
                "p-value is the share of them, the observed one counted in, that is at least as large as the observed "
                f"one; it can't be below {words.significant(1 / (numbers['permutations'] + 1), 2)} here. “Rejected” "
                f"means p ≤ {settings['alpha']:g}: the observed MMD² lies beyond the threshold.",
            ),
            show(
                "mmd",
                "Observed MMD² of each representation against its null distribution and threshold",
                "One line a representation: the network's inputs, then the output of each layer. Grey: where MMD² "
                "falls if P = Q. Black bar: the test's threshold. Diamond or dot: what was observed. On the right: ",
                unit_in_words(rows),
                " Units differ from line to line, so compare each mark with its own grey shape; a layer with a larger "
                "number is not “farther” in any absolute sense. "
                + (
                    "The highlighted line decides; the others only describe."
                    if any(row.decides for row in rows)
                    else ""
                ),
            ),
            evidence_table(run),
            tag("p", sample(run)),
            verdict(run, show),
        ]
    )


def verdict(run: Run, show: Show) -> Html | None:
    """Whether the difference matters, where a margin says from when on it does."""
    found = run.result.get("verdict")
    if found is None:
        return None
    low, high = found["interval"]
    level = f"{100 * (1 - 2 * run.config['test']['alpha']):g}%"
    kinds = {
        "equivalent": "equivalent: below the margin, and P = Q is not rejected",
        "different_but_small": "different, but by less than the margin",
        "different": "different by more than the margin",
        "undecided": "undecided: the interval holds the margin, so more rows are needed to tell",
    }
    return join(
        [
            tag("h3", "Does the difference matter?"),
            tag(
                "p",
                "A p-value says whether there is a difference; with enough rows there always is. The verdict compares "
                "the distance itself with a margin, the least MMD that matters, and more rows only make its interval "
                "shorter.",
            ),
            show(
                "verdict",
                "Interval for MMD beside the margin",
                "Blue: the interval for MMD. Dashed: the margin; what lies left of it does not matter.",
            ),
            table(
                ("Verdict", f"MMD, {level} interval", "Margin", "The margin is", "Least MMD that these rows can find"),
                [
                    (
                        kinds[found["kind"]],
                        words.span((low, high), words.significant),
                        words.significant(found["margin"]),
                        found["margin_from"],
                        words.significant(found["minimum_detectable"]),
                    )
                ],
            ),
        ]
    )


def nothing_measured(run: Run) -> str:
    """Why there is no MMD."""
    if run.config["source"] is None:
        row = (
            ""
            if not asks_similarity(run) or run.config["decision"]["assume"]
            else (" Where similarity is unknown, the rule's row for dissimilar data applies.")
        )
        return f"No MMD was measured because the network came without source rows.{row}"
    return "No MMD was measured in this run."


def what_decides(run: Run) -> str:
    """Which of the tests the plan rests on."""
    if run.config["decision"]["assume"]:
        return "This is the user's own assumption, used in place of a test; the tests below only describe."
    if run.result["plan"]["rule"] == "given":
        return "The user chose the regime, so no test decided anything; the tests below only describe."
    if run.audit is not None:
        return "The regime was chosen by trying every one on the target, so no test decided anything; the tests only describe."
    if not asks_similarity(run):
        rule = run.result["plan"]["rule"]
        return f"The rule “{rule}” takes one way whatever the similarity, so no test decided anything; the tests only describe."
    name = run.config["decision"]["representation"]
    where = "the network's inputs" if name == "inputs" else f"layer {name}"
    level = f"{run.config['test']['alpha']:g}"
    if run.result.get("verdict") is not None:
        return f"The verdict was asked of {where}, as named before the run; the tests only describe."
    return f"The deciding test was named before the run: {where}, at level {level}. The others only describe."


def resampling(run: Run) -> str:
    """How the null distribution was made."""
    if run.config["test"]["resampling"] == "wild_bootstrap":
        return "wild bootstrap: source and target rows are swapped pair by pair, at random"
    return "permutations"


def unit_in_words(rows: list[Measured]) -> str:
    """The number beside each line of the picture."""
    if units(rows)[1]:
        return "observed MMD² as a multiple of its threshold (beyond 1× the test rejects), and the p-value."
    return "observed MMD² in standard deviations of its null distribution, and the p-value."


def evidence_table(run: Run) -> Html:
    """All numbers of all tests."""
    rows = measured(run)
    level = run.config["test"]["alpha"]
    return table(
        (
            "Representation",
            "MMD² (unbiased)",
            "MMD (biased)",
            "Threshold of MMD²",
            "p",
            "p (Holm)",
            "P = Q",
            "Bandwidth",
        ),
        [
            (
                f"{row.name} (decides)" if row.decides else row.name,
                words.significant(row.statistic, 4),
                words.significant(row.mmd_biased, 4),
                words.significant(row.threshold, 4),
                words.significant(row.pvalue),
                "" if row.pvalue_holm is None else words.significant(row.pvalue_holm),
                "rejected" if row.reject else "not rejected",
                ", ".join(words.significant(h) for h in row.bandwidth),
            )
            for row in rows
        ],
        numbers=(1, 2, 3, 4, 5),
        marked=next((i for i, row in enumerate(rows) if row.decides), None),
        caption="“Unbiased” may fall below 0 where P and Q are close. “Biased” is the largest difference of "
        "means over the unit ball of the kernel's function space; it is never below 0, and too large on average, less "
        "so with more rows. “Rejected” is at level "
        f"{level:g} without adjustment. “Holm” adjusts the layers' p-values for there being many layers: read that "
        "column when asking whether any particular layer differs. The kernel is Gaussian, exp(−distance² / (2 "
        "bandwidth²))"
        + (
            "; the bandwidth is the median distance of the pooled rows."
            if run.config["test"]["bandwidth"] is None
            else "; the bandwidth was set by the user."
        ),
    )


def sample(run: Run) -> str:
    """Which rows were tested."""
    test, settings = run.result["two_sample"]["inputs"], run.config["test"]
    pooled = {
        "mean": "A feature map (height × width × channels) becomes a vector by its mean over height and width.",
        "flatten": "A feature map (height × width × channels) becomes a vector as it is, flattened.",
    }[settings["pooling"]]
    return (
        f"Tested were {test['m']:,} rows of the source's test split (the network was not trained on them, unless a "
        f"note above says that this is not known) and {test['n']:,} training rows of the target; no target test row "
        f"was looked at. Both samples went through the same fixed preprocessing and the same network. {pooled}"
    )


def what_follows(run: Run, show: Show) -> Html:
    """What is done with the network, and why."""
    plan = run.result["plan"]
    rule = "The user chose it; no rule was asked." if plan["rule"] == "given" else f"Rule “{plan['rule']}”."
    caches = dict.fromkeys(stage["cache_reason"] for stage in plan["stages"] if stage["cache_reason"])
    return join(
        [
            tag("h2", "What follows for the network"),
            tag(
                "p",
                plan["reason"],
                f" {rule} The regime is called “{plan['regime']}”: "
                f"{words.REGIMES.get(plan['regime'], plan['regime'])}.",
            ),
            show(
                "plan",
                f"The network's layers with what happens to each: frozen {words.listed(plan['frozen']) or 'none'}; new "
                f"{words.listed(plan['reinitialised']) or 'none'}",
                "The network from its inputs to the classes, one box a layer. Hatched: frozen, no number in it "
                "changes. Blue: pretrained and trained further. Thick edge: new, trained from random weights. “rate ×” "
                "is the layer's learning rate as a share of the one that the training settings name."
                + (" The stages are carried out one after the other." if len(plan["stages"]) > 1 else ""),
            ),
            tag("p", tag("b", "Kept outputs of frozen layers (cache). "), " ".join(caches)) if caches else None,
            *asked(run, show),
        ]
    )


def asked(run: Run, show: Show) -> list[Html | None]:
    """The rule's map and table; or, where the audit chose, what it tried."""
    if run.audit is not None:
        notes = [tag("p", note, class_="warning") for note in contest.warnings(run.audit)]
        done = tag("p", contest.how(run.audit))
        return [tag("h3", "What the audit tried"), done, *notes, contest.section(run.audit, show)]
    heading = "The rule" if asks_similarity(run) else "What the sources say:"
    return [
        tag("h3", f"{heading} “{words.rule(run)}” on the map of size × similarity"),
        show("map", size_similarity.described(run), size_similarity.caption(run)),
        grid(run),
    ]


def grid(run: Run) -> Html | None:
    """The rule's table, with this run's cell marked."""
    rule = run.result["plan"]["rule"]
    if rule not in words.RULES:
        return None
    here, sizes, cells = words.cell(run), words.sizes(run), words.RULES[rule]
    columns = ("similar", "different")
    rows = [
        tag(
            "tr",
            tag("th", f"{size}: {meaning}", scope="row"),
            *(
                tag("td", cells[size, kind][1], " ◀ this run", class_="here")
                if (size, kind) == here
                else tag("td", cells[size, kind][1])
                for kind in columns
            ),
        )
        for size, meaning in sizes.items()
    ]
    target = run.result["data"]["target"]
    classes = len(target["classes"])
    return join(
        [
            tag(
                "table",
                tag(
                    "caption",
                    f"The target has {target['train_rows']:,} training rows in {classes} classes "
                    f"({target['train_rows'] / classes:.0f} a class). “Different” also takes in what is undecided or "
                    "unknown.",
                ),
                tag(
                    "thead",
                    tag(
                        "tr",
                        tag("th", "target", scope="col"),
                        tag("th", "similar to the source", scope="col"),
                        tag("th", "different", scope="col"),
                    ),
                ),
                tag("tbody", *rows),
                class_="grid",
            ),
        ]
    )
