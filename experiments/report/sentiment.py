"""The page of a study of words to sentiment, its tables and its pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.report import sentiment_plots as plots
from experiments.report import words
from experiments.report.markup import Html, join, table, tag
from experiments.report.page import Shower, document
from experiments.report.style import CSS
from experiments.report.transferability import as_csv
from experiments.report.transferability_record import given, setting

Study = Mapping[str, Any]
REGIMES = {"scratch": "no vectors copied", "frozen": "frozen", "finetuned": "fine-tuned"}
KINDS = {"better": "better", "worse": "worse", "unclear": "not told apart"}


def write(directory: str | Path) -> None:
    """Writes figures/, accuracies.csv, statements.csv, domains.csv (where there are domains) and report.html, the page last.

    Raises:
      FileNotFoundError: the study has no result.json yet.
    """
    directory = Path(directory)
    study = workdir.read_json(directory / "result.json")
    pictures = plots.figures(study)
    files = {f"figures/{name}": content for name, content in pictures.items()}
    files["accuracies.csv"] = as_csv(study["accuracies"])
    files["statements.csv"] = as_csv([_flat(one, "draws") for one in study["statements"]])
    if study["domains"]:
        files["domains.csv"] = as_csv(list(domain_rows(study)))
    for name in {"domains.csv", "figures/domains.svg", "figures/domains.png"} - {*files}:
        (directory / name).unlink(missing_ok=True)  # of an earlier call with more domains
    for name, content in files.items():
        workdir.write_bytes(directory / name, content)
    workdir.write_bytes(directory / "report.html", render(study, pictures))


def domain_rows(study: Study) -> Iterable[dict[str, Any]]:
    """One row a domain, number of labels and way; shares, not percent."""
    empty = dict.fromkeys(("estimate", "low", "high", "level", "num", "pvalue", "adjusted", "kind"))
    for domain in study["domains"]:
        for way in domain["ways"]:
            row = {"domain": domain["domain"], **{name: value for name, value in way.items() if name != "difference"}}
            row["planned"] = domain["plans"][str(way["labels"])]["way"] == way["way"]
            yield row | {f"difference_{name}": value for name, value in way.get("difference", empty).items()}


def render(study: Study, pictures: Mapping[str, bytes]) -> bytes:
    """The page, with the SVG files of `pictures` inside it: no script, nothing to load."""
    show = Shower(pictures)
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag("h1", question(study)),
        tag("p", "The answer", class_="label"),
        tag("p", study["answer"], class_="answer"),
        how(study),
        table_of_accuracies(study),
        show(
            "accuracy",
            "Mean accuracy against the number of labels, for every source of word vectors",
            f"Mean accuracy, with {level(study)} intervals over draws of sentences, on these {held(study)} sentences. Dotted: "
            f"always the most frequent class.{shared(study)}",
        ),
        show(
            "difference",
            "Accuracy less that without transfer, against the number of labels",
            f"The paired difference to the same network without copied vectors. The {level(study)} intervals, each on "
            f"its own, are "
            "for other draws and other test sentences.",
        ),
        statements(study),
        clusters(study),
        across(study, show),
        limits(study),
        record(study),
    )
    css = CSS + "td.number, th.number { white-space: nowrap; }\n.answer { font-size: 1.25rem; }\n"
    return document(f"{study['header']['name']}: do word vectors help?", body, css)


def question(study: Study) -> str:
    """What the study was made to find out."""
    return (
        f"Sentences of {study['header']['rated']} are to be told {' from '.join(study['header']['classes'])} from few "
        f"labels. Does it "
        "help to learn the words from other sentences first?"
    )


def how(study: Study) -> Html:
    """What was compared with what."""
    sizes, header = study["header"]["sizes"], study["header"]
    return tag(
        "p",
        tag("b", "What was done. "),
        f"Skip-gram with negative sampling learns a vector for each word from sentences without labels ({sizes['unlabelled']:,} "
        "there are in all). A sentence is the mean of its words' vectors; a hidden layer and a classifier follow, trained on "
        f"labelled sentences that are drawn anew each time, as many of each class, from {sizes['pool']:,}. Every "
        f"network is tested on "
        f"the same {sizes['held']:,} {held(study)} sentences, of which "
        f"{words.percent(header['most_frequent'])} are of the most frequent class. Networks of one draw see the same "
        f"labels in the same "
        "order and start from the same new layers; without transfer the word vectors are random at first, and trained.",
    )


def level(study: Study) -> str:
    """Of the intervals."""
    return f"{100 * study['header']['level']:g}%"


def table_of_accuracies(study: Study) -> Html:
    """A row a source and regime, a column a number of labels."""
    sizes = sorted({row["labels"] for row in study["accuracies"]})
    found = {(row["source"], row["regime"], row["labels"]): row for row in study["accuracies"]}
    kinds = list(dict.fromkeys((source, regime) for source, regime, _ in found))
    kinds.sort(key=lambda kind: list(study["header"]["sources"]).index(kind[0]))
    draws = study["header"]["settings"]["draws"]
    rows = [
        (
            f"{study['header']['sources'][source]}{'' if regime == 'scratch' else ', ' + REGIMES[regime]}",
            *(_with_half(found[source, regime, size]) for size in sizes),
        )
        for source, regime in kinds
    ]
    return join(
        [
            tag("h2", "Accuracy"),
            table(
                ("Word vectors from", *(f"{size:,} labels" for size in sizes)),
                rows,
                numbers=range(1, len(sizes) + 1),
                caption=f"Mean over {draws} draws, ± half of Student's {level(study)} interval over draws, on these "
                f"{held(study)} sentences.{shared(study)}",
            ),
        ]
    )


def held(study: Study) -> str:
    """Which sentences accuracies are of."""
    return "test" if study["header"]["held_out"] == "test" else "validation"


def shared(study: Study) -> str:
    """What the intervals of sources hold for whose vectors are not each draw's own."""
    said = ""
    for source, title in study["header"]["sources"].items():
        count = next(row["vectors"] for row in study["accuracies"] if row["source"] == source)
        if count == 1:
            said += f" {title}: for this one set of vectors."
        elif count < study["header"]["settings"]["draws"]:
            said += f" {title}: {count} trainings are shared out to the draws, and intervals are over these where that is wider."
    return said


def _with_half(row: Mapping[str, Any]) -> str:
    return f"{words.percent(row['estimate'])} ± {100 * (row['high'] - row['low']) / 2:.1f}"


def statements(study: Study) -> Html:
    """Every difference, and what may be said of it."""
    rows = [
        (
            f"{study['header']['sources'][one['source']]}, {REGIMES[one['regime']]}",
            f"{one['labels']:,}",
            words.points(one["estimate"]),
            words.span((one["draws"]["low"], one["draws"]["high"]), words.points),
            words.span((one["low"], one["high"]), words.points),
            words.significant(one["adjusted"], 2),
            KINDS[one["kind"]],
        )
        for one in study["statements"]
    ]
    two = [
        f"{study['header']['sources'][one['source']]}, {REGIMES[one['regime']]}: {words.percent(one['gained'])}, the reverse "
        f"{words.percent(one['lost'])}"
        for one in study["two_sentences"]
    ]
    fewest = min(row["labels"] for row in study["accuracies"])
    return join(
        [
            tag("h2", "Where transfer helps, and where it doesn't"),
            table(
                (
                    "Word vectors from",
                    "Labels",
                    "Difference",
                    "Other draws",
                    "and other sentences",
                    "p, adjusted",
                    "Than without",
                ),
                rows,
                numbers=(1, 2, 3, 4, 5),
                caption=f"Points of accuracy, paired by draw and test sentence; {level(study)} intervals. p is for "
                f"other draws and other "
                f"sentences, adjusted (Holm) for all {len(rows)} differences.{shared(study)}",
            ),
            tag("h3", "What two test sentences would have shown"),
            tag(
                "p",
                f"With {fewest} labels, how often two test sentences taken at random show one right without transfer "
                f"and both right with "
                f"it (and the reverse), over all draws: {'; '.join(two)}.",
            ),
        ]
    )


def clusters(study: Study) -> Html:
    """Whether the classes are there without any label."""
    rows = [
        (
            study["header"]["sources"][one["source"]],
            words.percent(one["coverage"]),
            *(_score(one[name]) for name in ("ari", "nmi")),
        )
        for one in study["clusters"]
    ]
    return join(
        [
            tag("h2", "Without any label"),
            table(
                ("Word vectors from", "Words known", "Adjusted Rand index", "Normalised mutual information"),
                rows,
                numbers=(1, 2, 3),
                caption="k-means on the test sentences' vectors, as many clusters as classes, against the classes: 0 "
                "is chance, 1 is "
                "all of them found. Where vectors were trained several times, ± half of Student's interval over trainings.",
            ),
        ]
    )


def _score(one: Mapping[str, Any]) -> str:
    if one["num"] < 2:
        return f"{one['estimate']:.3f}"
    return f"{one['estimate']:.3f} ± {(one['high'] - one['low']) / 2:.3f}"


def across(study: Study, show: Shower) -> Html | None:
    """The network used again on other domains."""
    if not study["domains"]:
        return None
    pieces: list[Any] = [
        tag("h2", "The network on other domains"),
        tag(
            "p",
            f"A network trained on all {study['header']['sizes']['pool']:,} labelled sentences of "
            f"{study['header']['rated']}, its "
            f"word vectors from {list(study['header']['sources'].values())[-1]} and fine-tuned, is used again. "
            + (
                "Half of a domain's documents are for training, half for testing. "
                if held(study) == "test"
                else "A quarter of a domain's documents is for training, another for validation; the others stay unseen. "
            )
            + "Distances are between sentence vectors of that network, "
            "whole documents "
            "permuted; the margin is how far the network holds the classes of its own domain apart.",
        ),
        table(
            ("Domain", "MMD²", "p", "p, one a document", "90% interval of MMD", "Margin", "Known words", "As it is"),
            [_distance(domain) for domain in study["domains"]],
            numbers=range(1, 8),
            caption="As it is: accuracy of the network on the domain's {held(study)} sentences without a label of it; on its own "
            f"{held(study)} sentences {words.percent(study['domains'][0]['own_accuracy'])}.",
        ),
        show(
            "domains",
            "Accuracy of every way of using the network again, by domain",
            f"{level(study)} intervals for other draws of labels and other test documents. Large, with a black edge: "
            f"what the rule "
            "chooses. Dotted: always the most frequent class.",
        ),
    ]
    for domain in study["domains"]:
        pieces += [tag("h3", domain["domain"]), tag("p", *verdict_of(study, domain)), _ways(study, domain)]
    return join(pieces)


def _distance(domain: Mapping[str, Any]) -> tuple[str, ...]:
    test, verdict = domain["layers"]["words"], domain["verdict"]
    alone = domain.get("one_a_document")
    return (
        domain["domain"],
        words.significant(test["mmd2"]),
        words.significant(test["pvalue"], 2),
        "–" if alone is None else words.significant(alone["pvalue"], 2),
        "–" if verdict is None else words.span(verdict["interval"], words.significant),
        "–" if verdict is None else words.significant(verdict["margin"]),
        words.percent(domain["known"]),
        words.percent(domain["accuracy"]),
    )


def verdict_of(study: Study, domain: Mapping[str, Any]) -> list[Any]:
    """Negative transfer first, where the rule's plan is worse than from-scratch; then the verdict, the plan, and its cost."""
    said: list[Any] = []
    ways = {(way["labels"], way["way"]): way for way in domain["ways"]}
    for size, plan in domain["plans"].items():
        way = ways[int(size), plan["way"]]
        best = max((w for w in domain["ways"] if w["labels"] == int(size)), key=lambda w: w["estimate"])
        difference = way.get("difference")
        text = f"With {size} labels the rule takes “{plots.WAYS[plan['way']]}”"
        if difference is not None:
            text += (
                f": {words.points(difference['estimate'])} points beside from-scratch "
                f"({words.span((difference['low'], difference['high']), words.points)})"
            )
        if best is not way:
            cost = words.points(best["estimate"] - way["estimate"]).lstrip("+")
            text += f"; the best mean, “{plots.WAYS[best['way']]}”, is {cost} points above it"
        worse = difference is not None and difference["kind"] == "worse"
        said.insert(0, tag("b", f"Negative transfer. {text}. ")) if worse else said.append(f"{text}. ")
    return [*said, domain["similarity"]["evidence"]]


def _ways(study: Study, domain: Mapping[str, Any]) -> Html:
    sizes = list(dict.fromkeys(way["labels"] for way in domain["ways"]))
    found = {(way["way"], way["labels"]): way for way in domain["ways"]}
    rows = []
    for name, title in plots.WAYS.items():
        row: list[Any] = [title]
        for size in sizes:
            way = found[name, size]
            difference = way.get("difference")
            mark = " ◆" if domain["plans"][str(size)]["way"] == name else ""
            row.append(
                f"{words.percent(way['estimate'])} ({words.span((way['low'], way['high']), words.percent)}){mark}"
            )
            row.append(
                "–"
                if difference is None
                else f"{words.points(difference['estimate'])} "
                f"({words.span((difference['low'], difference['high']), words.points)}) "
                f"{KINDS[difference['kind']]}"
            )
        rows.append(row)
    unit = "documents" if domain["documents"] else "sentences"
    return table(
        ("", *(head for size in sizes for head in (f"{size} labels", "less from scratch"))),
        rows,
        numbers=range(1, 1 + 2 * len(sizes)),
        caption=f"{domain['test']:,} {held(study)} sentences; intervals for other draws and other {unit}. “Better” and “worse” "
        f"hold together "
        "over all domains (Holm). ◆: what the rule chooses.",
    )


def limits(study: Study) -> Html:
    """What the study can't show."""
    sources = list(study["header"]["sources"])
    said = [
        "The draws share one pool of labelled sentences, so draws of many labels have sentences in common: the intervals are for "
        "other draws from this pool.",
        "One split of the sentences, one architecture and one set of settings for all: nothing here says what others would show.",
    ]
    if empty := study["header"]["sizes"]["wordless"]:
        said.append(f"{empty:,} held-out sentences have no word left and are told by nothing.")
    if "all" in sources:
        copies = study["header"]["settings"]["vectors"]["copies"]
        said.insert(
            1,
            f"The vectors of all unlabelled sentences were trained {copies} times, not once a draw: so few say little of others.",
        )
    if "glove" in sources:
        said.insert(
            1,
            "GloVe's vectors are one set, the same in every draw: nothing here says what others would show.",
        )
    return join([tag("h2", "What this can't show"), tag("ul", *(tag("li", line) for line in said))])


def record(study: Study) -> Html:
    """What it takes to repeat the study."""
    header = study["header"]
    facts = [("Time of all cells added up", words.seconds(header["seconds"]))]
    facts += [(name, setting(value)) for name, value in header["settings"].items() if given(value)]
    return join(
        [
            tag("h2", "How this was made"),
            tag("p", "The command that repeats it:"),
            tag("pre", header["command"] or f"python -m experiments.sentiment --config configs/{header['name']}.py"),
            table((), facts),
            tag(
                "p",
                "Every number here is in result.json, the tables in accuracies.csv, statements.csv and domains.csv, "
                "the pictures in "
                "figures/, each network in networks/cells.jsonl and domains/cells.jsonl, learned words with their "
                "vectors in vectors/, "
                "beside this page.",
            ),
        ]
    )


def _flat(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    inner = {f"{name}_{key}": value for key, value in row[name].items() if key in ("low", "high")}
    return {key: value for key, value in row.items() if key != name} | inner
