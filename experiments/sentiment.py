"""Words to sentiment: word vectors from unlabelled sentences, a mean a sentence, one hidden layer, few labels.

    python -m experiments.sentiment --config configs/sentiment.py [--workdir DIR] [--field.sub value]

Skip-gram learns word vectors from sentences without labels; they are copied into a network that classifies sentences from few
labels, frozen or trained on, beside the same network without. Every number of labels and of unlabelled sentences is drawn at
random many times, and tested on many sentences. Then the network is used again on other domains of sentences: how far they
are, what a rule makes of that, and what each way of reuse gives. The same command goes on where it was stopped.
"""

import shlex
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments import cells, workdir
from experiments.cells import Cell
from experiments.errors import reported
from experiments.report import sentiment as report
from experiments.words import domains, draws
from experiments.words.classifiers import Classifier
from experiments.words.corpus import Corpus, read
from experiments.words.settings import NOT_THE_STUDY, Study, load
from experiments.words.summary import summarise
from experiments.words.vectors import Words


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        study, directory = load(argv)
        run(study, directory, shlex.join(["python", "-m", "experiments.sentiment", *argv]))


def run(study: Study, directory: Path, command: str = "") -> None:
    """The whole study, from sentences to the page; the same call again goes on where it stopped."""
    corpus = read(study)
    for name in study.domains.names:
        domains.split(study, corpus, name)  # what can be refused is refused before anything is made
    if study.glove:
        draws.source_words(study, draws.Task(draws.GLOVE, 0), corpus, directory)
    workdir.open_workdir(directory, study, ignore=NOT_THE_STUDY)

    rows = networks(study, corpus, directory)
    domain_rows = across_domains(study, corpus, directory)
    seconds = sum(row["seconds"] for row in [*rows, *domain_rows])
    summary = summarise(study, corpus, rows, domain_rows, {"command": command, "seconds": seconds})
    workdir.write_json(directory / "result.json", summary)
    report.write(directory)
    print(f"{summary['answer']}\nReport: {directory / 'report.html'}")


def networks(study: Study, corpus: Corpus, directory: Path) -> list[dict[str, Any]]:
    """The rows of every source and draw: those that are there, and those of networks trained now."""
    task_of = {task.name: task for task in draws.tasks(study)}
    return cells.run_cells(
        [draws.cell_of(study, task, corpus) for task in task_of.values()],
        lambda cell: draws.rate(study, task_of[cell.name], corpus, directory),
        directory / "networks",
        label="networks",
        workers=study.workers,
    )


def across_domains(study: Study, corpus: Corpus, directory: Path) -> list[dict[str, Any]]:
    """The rows of every other domain: its distance, and its networks in every draw."""
    task_of = {task.name: task for task in domains.tasks(study)}

    @lru_cache(maxsize=1)
    def source() -> tuple[Classifier, Words]:
        return domains.source_network(study, corpus, directory)

    def run_one(cell: Cell) -> dict[str, Any]:
        task = task_of[cell.name]
        if task.draw < 0:
            return domains.measured(study, corpus, task.domain, source()[0])
        return domains.rate(study, corpus, task, *source())

    if not task_of:
        return []
    return cells.run_cells(
        [domains.cell_of(study, task, corpus) for task in task_of.values()],
        run_one,
        directory / "domains",
        label="domains",
        workers=study.workers,
    )


if __name__ == "__main__":
    main()
