"""One topic's model reused for the next: ROC AUC at several numbers of labelled target rows, beside from-scratch and boosting.

    python -m experiments.topics --config configs/flights_ewr_to_jfk.py [--labels 200 2000 20000 0] [--draws 5] [--only WORDS]

The config is one of the main job, on tables of two classes; its network is trained on the source once. For each number of
labelled rows (0: all there are) and each draw of them, every way of `experiments.ways` makes a classifier from the same
rows, which is tested on the same test rows. The same command goes on where it was stopped, cell by cell.
"""

import argparse
import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from experiments import cells, phases, workdir
from experiments import config as configs
from experiments.cells import Cell
from experiments.config import Config
from experiments.datasets.select import stratified
from experiments.errors import reported
from experiments.fits import digest
from experiments.ranking import jackknife_variance, roc_auc, unseen
from experiments.report import topics as report
from experiments.ways import AS_IS, WAYS, Topic, with_rows, without_margin
from mmd_jax.intervals import Interval, holm

VERSION = 2  # raised where the code changes the numbers of a cell
LEVEL = 0.95
MOST_CATEGORIES = 255  # of a column, that scikit-learn's boosting takes


class Gain(NamedTuple):
    """A paired difference of ROC AUC.

    Attributes:
      estimate, low, high: its mean over the draws and the ends of its own interval.
      pvalue: of the difference being 0, two-sided.
      adjusted: the same after Holm, over all differences to the same way in the study.
    """

    estimate: float
    low: float
    high: float
    pvalue: float
    adjusted: float


class Row(NamedTuple):
    """One way at one number of labels, over the draws.

    Attributes:
      way: its name.
      labels: labelled rows of the target; all of them where 0 was asked for.
      auc: mean ROC AUC over the draws.
      gain: the same less that of the network from scratch, on the same draws and test rows; none for that one.
      beside_boosting: the same less that of boosting on the target's rows; none for that one.
      chosen: what was chosen, of each draw.
      seconds: of a draw, on average.
    """

    way: str
    labels: int
    auc: Interval
    gain: Gain | None
    beside_boosting: Gain | None
    chosen: tuple[str, ...]
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with reported():
        argv = sys.argv[1:] if argv is None else list(argv)
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--labels", type=int, nargs="+", default=[200, 2000, 20000, 0])
        parser.add_argument("--draws", type=int, default=5)
        parser.add_argument("--only", default="", help="run only cells whose name holds one of these words")
        own, others = parser.parse_known_args(argv)
        config, directory = configs.load(others)
        if directory == Path("runs") / config.name:
            directory = directory.with_name(f"{config.name}_topics")
        command = shlex.join(["python", "-m", "experiments.topics", *argv])
        run(config, directory, labels=own.labels, draws=own.draws, only=own.only, command=command)


def run(
    config: Config, directory: Path, *, labels: Sequence[int], draws: int, only: str = "", command: str = ""
) -> list[Row]:
    """Runs the cells that are missing, and writes topics.json, the picture and report.html."""
    whole, topic = prepare(config, directory, labels, draws)
    target = whole.data.target
    content = digest([target.train_x, target.train_y, target.test_x, target.test_y, whole.pretrained])

    @functools.lru_cache(maxsize=1)
    def labelled(count: int, draw: int) -> Topic:
        return topic(count, draw)

    def run_one(cell: Cell) -> Mapping[str, Any]:
        return rate(labelled(cell.settings["labels"], cell.settings["draw"]), cell.settings["way"])

    grid = cells_of(config, labels, draws, len(target.train_y), content)
    rows = cells.run_cells(cells.select(grid, only), run_one, directory / "cells", label="topics")
    found = summarise(rows)
    summary = {
        "name": config.name,
        "target": config.target.name,
        "note": whole.data.note,
        "classes": target.class_names,
        "test_rows": len(target.test_y),
        "test_groups": None if target.test_groups is None else len(np.unique(target.test_groups)),
        "draws": draws,
        "level": LEVEL,
        "rows": found,
        "seconds": sum(row["seconds"] for row in rows),
        "command": command,
    }
    workdir.write_json(directory / "topics.json", summary)
    report.write(directory)
    print(f"{report.as_text(workdir.read_json(directory / 'topics.json'))}\nReport: {directory / 'report.html'}")
    return found


def prepare(config: Config, directory: Path, labels: Sequence[int], draws: int) -> tuple[Topic, Any]:
    """The topic with all labelled rows, its network trained on the source; and (labels, draw) -> the topic with some.

    Raises:
      ValueError: settings that can't be meant; a target without two classes, or other than the source's.
    """
    if config.source is None:
        raise ValueError("source is none, but the model of the first topic is trained on the source's table; name it")
    if draws < 2 or min(labels) < 0:
        raise ValueError(
            f"draws = {draws}, labels = {list(labels)}; expected 2 draws or more, and numbers of rows or 0 (all)"
        )
    config = without_margin(replace(config, target=replace(config.target, limit=None)))
    data = phases.load(config)
    given, config = config, phases.with_table(config, data)
    assert data.source is not None
    names, target = data.source.class_names, data.target
    if len(names) != 2 or names != target.class_names:
        raise ValueError(
            f"the classes are {', '.join(names)} and {', '.join(target.class_names)}; expected the same two in source and target"
        )
    if max(labels) > len(target.train_y):
        raise ValueError(f"labels = {max(labels)}, but the target has {len(target.train_y)} training rows; 0 takes all")
    categories = data.target.table.categories if data.target.table else ()
    if large := [c for c in categories if len(c.values) >= MOST_CATEGORIES]:
        raise ValueError(
            f"column {large[0].name!r} has {len(large[0].values)} categories and “other”; boosting takes {MOST_CATEGORIES} "
            f"in all: set source.max_categories to at most {MOST_CATEGORIES - 1}"
        )
    nets = phases.build(config, data)
    phases.open_workdir(given, directory)
    keys = phases.make_keys(config.seed)
    pretrained = phases.pretrain(config, directory, keys.pretrain, nets, data)

    def topic(count: int, draw: int) -> Topic:
        rows = np.arange(len(target.train_y))
        if count:
            random = np.random.default_rng([config.seed, count, draw])
            rows = stratified(target.train_y, count, random, f"{count} labels")
        key = jax.random.fold_in(jax.random.fold_in(keys.adapt, count), draw)
        # The validation rows are drawn anew too.
        own = replace(config, seed=config.seed + draw)
        return Topic(own, nets, pretrained, data._replace(target=with_rows(target, rows)), key, {})

    return Topic(config, nets, pretrained, data, keys.adapt, {}), topic


def cells_of(config: Config, labels: Sequence[int], draws: int, all_rows: int, content: str) -> list[Cell]:
    """Every way at every number of labels and draw; those that look at no label once a draw."""
    found = []
    for draw in range(draws):
        for count in labels:
            for way in WAYS:
                if way in AS_IS and count != labels[0]:
                    continue
                settings = {
                    "way": way,
                    "labels": count,
                    "all": all_rows,
                    "draw": draw,
                    "data": content,
                    "train": workdir.plain(config.train),
                    "decision": workdir.plain(config.decision),
                    "seed": config.seed,
                    "version": VERSION,
                }
                cost = 20_000.0 + (80_000 if way in ("boosting on both", "source boosting") else count or all_rows)
                found.append(Cell(f"{count or 'all'} {way} {draw}", settings, cost))
    return found


def rate(topic: Topic, way: str) -> Mapping[str, Any]:
    """ROC AUC of one way on the target's test rows, and without each group of these."""
    scored = WAYS[way](topic)
    ranking = roc_auc(topic.data.target.test_y, scored.scores, topic.data.target.test_groups)
    if ranking is None:
        raise ValueError("the target's test rows are of one class, or all of one class in one group: no ROC AUC")
    return {"auc": ranking.auc, "without": ranking.without, "least": ranking.least, "chosen": scored.chosen}


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a way and number of labels; ways that look at no label stand at each."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["way"], row["labels"] or row["all"]), []).append(row)
    counts = sorted({count for _, count in found})
    for way in AS_IS:
        there = [found[way, count] for count in counts if (way, count) in found]
        found |= {(way, count): there[0] for count in counts if there}
    summary = []
    for count in counts:
        for way in WAYS:
            if (way, count) not in found:
                continue
            draws = sorted(found[way, count], key=lambda row: row["draw"])
            auc, _ = over_draws(draws)
            base, trees = found.get(("from_scratch", count)), found.get(("boosting", count))
            summary.append(
                Row(
                    way,
                    count,
                    auc._replace(low=max(0.0, auc.low), high=min(1.0, auc.high)),
                    None if way == "from_scratch" or not base else _gain(draws, base),
                    None if way == "boosting" or not trees else _gain(draws, trees),
                    tuple(row["chosen"] for row in draws),
                    float(np.mean([row["seconds"] for row in draws])),
                )
            )
    return adjust(adjust(summary, "gain"), "beside_boosting")


def _gain(draws: Sequence[Mapping[str, Any]], less: Sequence[Mapping[str, Any]]) -> Gain:
    interval, pvalue = over_draws(draws, less)
    return Gain(interval.estimate, interval.low, interval.high, pvalue, pvalue)


def adjust(rows: Sequence[Row], field: str) -> list[Row]:
    """The rows with the p-values of one family of differences, "gain" or "beside_boosting", adjusted by Holm's method."""
    places = [i for i, row in enumerate(rows) if getattr(row, field)]
    adjusted, found = holm([getattr(rows[i], field).pvalue for i in places]), list(rows)
    for i, value in zip(places, adjusted, strict=True):
        found[i] = rows[i]._replace(**{field: getattr(rows[i], field)._replace(adjusted=float(value))})
    return found


def over_draws(draws: Sequence[Mapping[str, Any]], less: Sequence[Mapping[str, Any]] = ()) -> tuple[Interval, float]:
    """The mean AUC over the draws, less that of others on the same draws, with both sources of variation; and p of its being 0.

        mean ± t(level; ν) √(V + s² / D),   V: the jackknife over groups of test rows, of the mean over draws;
                                            s: standard deviation over the D draws

    and ν by Welch and Satterthwaite. Draws share their test rows, so their spread alone would be too small an interval;
    and the jackknife holds the draws fixed. Where nothing varies, the width is `ranking.unseen`, and p is 1.
    """
    pairs = {row["draw"]: row for row in less}
    both = [(row, pairs.get(row["draw"])) for row in draws if not less or row["draw"] in pairs]
    auc = np.array([a["auc"] - (b["auc"] if b else 0.0) for a, b in both])
    without = np.array([np.subtract(a["without"], b["without"] if b else 0.0) for a, b in both]).mean(axis=0)
    parts = [(jackknife_variance(without), len(without) - 1)]
    if len(auc) > 1:
        parts.append((float(auc.var(ddof=1)) / len(auc), len(auc) - 1))
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / df for variance, df in parts) if total else 1.0
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total))
    mean = float(auc.mean())
    if half < 1e-12:
        least = min(row.get("least", len(without)) for pair in both for row in pair if row)
        half, pvalue = unseen(least, LEVEL), 1.0
    else:
        pvalue = float(2 * stats.t.sf(abs(mean) / np.sqrt(total), freedom))
    return Interval(mean, mean - half, mean + half, LEVEL, len(without)), pvalue


if __name__ == "__main__":
    main()
