"""The page of an audit: every way that was tried, who won, and what the choice of each rule and score costs beside it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments import workdir
from experiments.report import audit_plots, words
from experiments.report.contest import how, number, section, share, warnings
from experiments.report.markup import Html, join, table, tag
from experiments.report.page import Shower, document
from experiments.report.style import CSS
from experiments.report.transferability import as_csv
from experiments.report.ways import compared, points, short

Audit = Mapping[str, Any]


def write(directory: str | Path) -> None:
    """Writes figures/, ways.csv, choices.csv and report.html from audit.json and metrics.jsonl, the page last.

    Raises:
      FileNotFoundError: there is no audit.json yet.
    """
    directory = Path(directory)
    audit = workdir.read_json(directory / "audit.json")
    pictures = audit_plots.figures(audit, workdir.read_metrics(directory / "metrics.jsonl"))
    files = {f"figures/{name}": content for name, content in pictures.items()}
    files["ways.csv"] = as_csv([flat(way, "test") for way in audit["ways"]])
    if audit["choices"]:
        files["choices.csv"] = as_csv([flat(choice, "regret") for choice in audit["choices"]])
    for name, content in files.items():
        workdir.write_bytes(directory / name, content)
    workdir.write_bytes(directory / "report.html", render(audit, pictures))


def flat(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row with an interval in three columns."""
    ends = row[name] or {"estimate": None, "low": None, "high": None}
    rest = {key: value for key, value in row.items() if key != name}
    return rest | {f"{name}_{key}" if key != "estimate" else name: value for key, value in ends.items()}


def render(audit: Audit, pictures: Mapping[str, bytes]) -> bytes:
    """The page, with its pictures inside it."""
    show = Shower(pictures)
    body = tag(
        "main",
        tag("p", "The question", class_="label"),
        tag("h1", question(audit)),
        tag("p", "The answer", class_="label"),
        tag("p", answer(audit), class_="answer"),
        tag("p", tag("b", "How it was found. "), how(audit)),
        *[tag("p", note, class_="warning") for note in warnings(audit)],
        tag("h2", "What became of each way"),
        section(audit, show),
        tag("h2", "What rules and scores would have chosen"),
        regrets(audit),
        scores_table(audit),
        tag("h2", "How to repeat it"),
        tag("pre", audit["command"]),
        tag("p", f"Seed {audit['seed']}. {audit['note']}"),
    )
    return document(f"{audit['name']}: an audit", body, CSS + "td.number, th.number { white-space: nowrap; }\n")


def question(audit: Audit) -> str:
    """What was asked."""
    source = f"trained on {audit['source']}" if audit["source"] else "with trained weights"
    return (
        f"Which way to reuse {audit['network']}, {source}, is best for {audit['target']} "
        f"({audit['num_train']:,} labelled rows, {len(audit['classes'])} classes)?"
    )


def answer(audit: Audit) -> str:
    """The winner, how good it is, and what the rules would have lost."""
    way = way_of(audit, audit["winner"])
    said = [f"“{short(way['way'])}” won on the validation rows"]
    if way["test"]:
        said[0] += f" and is right on {share(way['test'])} of {audit['num_test']:,} test rows"
    return ". ".join([*said, *verdicts(audit)]) + "."


def verdicts(audit: Audit) -> Iterator[str]:
    """What can be said of the choices of rules and scores; better and worse only of those compared on the last rung."""
    choices, last = audit["choices"], audit["budget"]["rungs"][-1]["epochs"]
    others = [choice for choice in choices if choice["way"] != audit["winner"]]
    if choices and not others:
        yield "Every rule and score that was asked would have chosen it too"
    late = [choice for choice in others if choice["regret"] and choice["epochs"] == last]
    worse = [choice["by"] for choice in late if choice["regret"]["low"] > 0]
    better = [choice["by"] for choice in late if choice["regret"]["high"] < 0]
    if worse:
        yield f"It is better than what these would have chosen: {'; '.join(worse)}"
    if better:
        yield f"What these would have chosen is better, though: {'; '.join(better)}"
    if near := [choice["by"] for choice in late if choice["by"] not in (*worse, *better)]:
        yield f"These test rows don't tell it apart from what these would have chosen: {'; '.join(near)}"
    if early := [choice for choice in others if choice["regret"] and choice["epochs"] != last]:
        yield (
            f"Compared on an earlier rung alone, which says nothing of the end: {'; '.join(one['by'] for one in early)} "
            f"({len(early)} of {len(choices)})"
        )
    if lost := [choice["by"] for choice in others if not choice["regret"]]:
        yield f"Not compared, as the loss did not stay finite: {'; '.join(lost)}"


def regrets(audit: Audit) -> Html:
    """A row a rule or score."""
    if not audit["choices"]:
        return tag("p", "Nobody else was asked.")
    known = [tag("p", evidence) for evidence in audit["evidence"].values()]
    rows = []
    for choice in audit["choices"]:
        found = choice["regret"]
        same = choice["way"] == audit["winner"]
        cost = "none: the same way" if same else "–" if found is None else points(found)
        told = "" if found is None else f"the winner is {compared(found)} it"
        rows.append((choice["by"], short(choice["way"]), choice["at"], cost, told))
    return join(
        [
            *known,
            table(
                ("who", "would choose", "compared at", "regret", "read as"),
                rows,
                numbers=(3,),
                caption="Regret: test accuracy of the winner less that of the choice, paired over the same test rows, with 95 % "
                "intervals. It is of these networks as they were trained: how much another draw of rows, or another seed, would "
                "change it, the intervals don't say. Below 0 the choice was better than the audit's winner.",
            ),
        ]
    )


def scores_table(audit: Audit) -> Html | None:
    """Every score of every representation; the highest of each column is what its score chooses by."""
    scores = audit.get("scores") or {}
    if not scores:
        return tag("p", audit["scores_note"]) if audit.get("scores_note") else None
    columns = list(dict.fromkeys(score for values in scores.values() for score in values))
    known = {score: [number_or(values.get(score)) for values in scores.values()] for score in columns}
    best = {score: max(values) for score, values in known.items()}

    def cell(score: str, value: float | None) -> Html | str:
        if value is None:
            return ""
        return tag("b", words.significant(value)) if value == best[score] else words.significant(value)

    rows = [(name, *(cell(score, values.get(score)) for score in columns)) for name, values in scores.items()]
    return join(
        [
            tag("h3", "Transferability scores of the target's training rows"),
            table(
                ("representation", *columns),
                rows,
                numbers=range(1, len(columns) + 1),
                caption="Of the network as it came, before anything was trained on the target; in each column the highest is "
                "bold. Different columns are different scales. A score of layers chooses to freeze all layers up to its highest; "
                "leep and nce are of the source's own outputs, and choose nothing here.",
            ),
        ]
    )


def number_or(value: float | None) -> float:
    """A score; what is none, or was not finite, is below all."""
    return float("-inf") if value is None else float(value)


def way_of(audit: Audit, name: str) -> dict[str, Any]:
    """The row of a way."""
    return next(way for way in audit["ways"] if way["way"] == name)


def as_text(audit: Audit) -> str:
    """The tables, for a terminal."""
    lines = [f"{'way':34} {'rungs':>5} {'epochs':>6} {'steps':>7} {'loss':>7} {'± se':>6}  test"]
    for way in sorted(audit["ways"], key=lambda way: (-way["rungs"], number(way["valid_loss"]))):
        test = (
            ""
            if way["test"] is None
            else f"{way['test']['estimate']:.3f} ({way['test']['low']:.3f} … {way['test']['high']:.3f})"
        )
        loss, error = number(way["valid_loss"]), number(way["loss_error"])
        numbers = f"{way['rungs']:>5} {way['epochs']:>6} {way['steps']:>7} {loss:>7.3f} {error:>6.3f}"
        lines.append(f"{short(way['way']):34} {numbers}  {test}")
    if audit["choices"]:
        lines += ["", f"{'who':28} {'would choose':34} regret, points (95 % interval)"]
    for choice in audit["choices"]:
        found = choice["regret"]
        cost = (
            "none"
            if choice["way"] == audit["winner"]
            else "–"
            if found is None
            else f"{points(found)} at {choice['at']}"
        )
        lines.append(f"{choice['by']:28} {short(choice['way']):34} {cost}")
    return "\n".join([*lines, "", answer(audit)])
