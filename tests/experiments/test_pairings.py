"""Four pairings: clusters and their scores, the statistics over seeds, and the smallest experiment from end to end."""

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import pairings, workdir
from experiments.clusters import agreement, clustered
from experiments.config import Data, Model, read
from experiments.pairing import arms, summary
from experiments.pairing.settings import Fit, Pairings, check
from experiments.report import pairings as report
from mmd_jax.intervals import holm

TINY = Pairings(
    name="tiny",
    source=Data("digits", classes=("0", "1", "2"), limit=90, test_limit=30),
    target=Data("digits", classes=("3", "4", "5"), limit=60, test_limit=30),
    seeds=2,
    labels=(6,),
    restarts=1,
    model=Model("mlp", hidden=(8, 6)),
    decoder=(8,),
    pretrain=Fit(epochs=2, batch_size=32),
    few=Fit(epochs=2, batch_size=6),
    unlabelled=Fit(epochs=2, batch_size=32),
)


def test_separate_groups_are_found_whatever_the_order_of_the_rows():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = 10 * np.eye(3)[labels] + random.normal(size=(60, 3))
    for order in (np.arange(60), random.permutation(60)):
        assert agreement(labels[order], clustered(rows[order], 3, seed=0)) == {"ari": 1.0, "nmi": 1.0}


def test_the_adjusted_rand_index_is_its_definition_over_pairs():
    """(agreeing pairs − expected) / (most − expected), the expectation over random clusterings of these sizes."""
    random = np.random.default_rng(1)
    labels, clusters = random.integers(0, 3, 40), random.integers(0, 4, 40)
    pairs = list(combinations(range(40), 2))
    same_class = np.array([labels[i] == labels[j] for i, j in pairs])
    same_cluster = np.array([clusters[i] == clusters[j] for i, j in pairs])
    expected = same_class.sum() * same_cluster.sum() / len(pairs)
    most = (same_class.sum() + same_cluster.sum()) / 2
    wanted = ((same_class & same_cluster).sum() - expected) / (most - expected)
    assert agreement(labels, clusters)["ari"] == pytest.approx(wanted)
    assert agreement(labels, (clusters + 1) % 4)["ari"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("rows", "clusters", "message"),
    [
        (np.ones((3, 2)), 4, "4 clusters of 3 rows"),
        (np.ones((3, 2)), 0, "0 clusters"),
        (np.array([[np.nan], [1.0]]), 1, "1 of 2 rows"),
    ],
)
def test_what_cannot_be_clustered_is_refused(rows, clusters, message):
    with pytest.raises(ValueError, match=message):
        clustered(rows, clusters, seed=0)


def made_up(differences, arm="S→S", beside="scratch", metric="accuracy", labels=50):
    random = np.random.default_rng(2)
    rows = []
    for seed, difference in enumerate(differences):
        level = 0.6 + 0.1 * random.random()
        rows.append({"seed": seed, "arm": arm, "labels": labels, metric: level + difference})
        rows.append({"seed": seed, "arm": beside, "labels": labels, metric: level})
    return rows


def test_differences_are_paired_by_seed_and_tested_as_such():
    """Levels that vary by far more than the difference do not hide it."""
    differences = np.array([0.010, 0.011, 0.012, 0.010, 0.013, 0.011])
    [line] = summary.lines(made_up(differences))
    low, high = stats.t.interval(0.95, 5, differences.mean(), stats.sem(differences))
    assert (line.difference.low, line.difference.high) == (pytest.approx(low), pytest.approx(high))
    assert line.pvalue == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert line.verdict == "better" and line.pairing == "S→S"
    [line] = summary.lines(made_up(-differences))
    assert line.verdict == "worse"


def test_a_side_is_taken_only_after_correction_for_all_lines():
    """A difference that would stand alone does not among others that show nothing."""
    barely = np.array([0.03, 0.05, -0.005, 0.04, 0.02, 0.01])
    assert 0.01 < stats.ttest_1samp(barely, 0).pvalue < 0.05
    assert summary.lines(made_up(barely))[0].verdict == "better"
    nothing = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.005])
    rows = [row for labels in range(10, 16) for row in made_up(nothing, labels=labels)] + made_up(barely)
    found = summary.lines(rows)
    assert {line.verdict for line in found} == {"unclear"}
    np.testing.assert_allclose(
        [line.pvalue for line in found],
        holm([stats.ttest_1samp(line.values, 0).pvalue for line in found]),
    )


def test_equal_differences_have_no_interval_and_take_no_side():
    [line] = summary.lines(made_up([0.25] * 5))
    assert line.difference.low is None and line.pvalue is None and line.verdict == "unclear"
    assert "in every seed" in report.sentence(workdir.plain(line))


def test_an_arm_without_its_seed_beside_it_is_an_error():
    with pytest.raises(ValueError, match="seed 3 is missing"):
        summary.lines(made_up([0.1, 0.2, 0.15, 0.1])[:-1])


@pytest.fixture(scope="module")
def finished(compiled_once, tmp_path_factory):
    """The work directory of the tiny experiment, which was stopped half-way and resumed."""
    directory = tmp_path_factory.mktemp("pairings") / "run"
    whole, ran = arms.run, []

    def stopped(seed, arm, labels):
        if len(ran) == 12:
            raise RuntimeError("stopped")
        ran.append((seed.number, arm))
        return whole(seed, arm, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "run", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            pairings.run(TINY, directory, "command")
    assert not (directory / "report.html").exists()
    pairings.run(TINY, directory, "python -m experiments.pairings --config <tiny>")
    return directory


def test_the_experiment_ends_with_every_arm_of_every_seed(finished):
    found = json.loads((finished / "pairings.json").read_text())
    assert len(found["rows"]) == 2 * (7 + 3)
    assert {row["seed"] for row in found["rows"]} == {0, 1}
    assert {line["pairing"] for line in found["lines"]} == {"S→S", "S→U", "U→S", "U→U"}
    for row in found["rows"]:
        for metric in ("accuracy", "nmi"):
            assert 0 <= row.get(metric, 0) <= 1 + 1e-9
        assert -1 <= row.get("ari", 0) <= 1
    # The classes differ, so the source's own cannot be right or wrong on the target.
    assert not any(line["metric"] == "accuracy" for line in found["lines"] if line["pairing"] == "S→U")
    adapted = [row for row in found["rows"] if row["arm"] == "adapted"]
    assert all("mmd2" in row and "accuracy" not in row for row in adapted)


def test_a_resumed_experiment_repeats_nothing_and_gives_the_same(finished, tmp_path):
    """The second seed was cut in two: its arms on either side of the cut are those of an undisturbed run."""
    found = json.loads((finished / "pairings.json").read_text())["rows"]
    seed = arms.Seed(TINY, arms.build(TINY, *arms.load(TINY, 0)[:2]), 1)
    for name in ("source", "own autoencoder"):
        row = next(row for row in found if row["seed"] == 1 and row["arm"] == name)
        again = arms.run(seed, name, 0)
        assert {metric: row[metric] for metric in again} == pytest.approx(again)
    before = (finished / "arms" / "cells.jsonl").read_bytes()
    pairings.run(TINY, finished, "python -m experiments.pairings --config <tiny>")
    assert (finished / "arms" / "cells.jsonl").read_bytes() == before


def test_table_picture_and_page_are_there_and_agree(finished):
    found = json.loads((finished / "pairings.json").read_text())
    with open(finished / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["lines"])
    for row, line in zip(rows, found["lines"], strict=True):
        assert float(row["difference"]) == line["difference"]["estimate"]
        assert row["verdict"] == line["verdict"] and int(row["seeds"]) == 2
    content = (finished / "report.html").read_text()
    assert "&lt;tiny&gt;" in content and "<script" not in content and content.count("<img") == 1
    assert "https://" not in content
    assert {path.name for path in (finished / "figures").iterdir()} == {"pairings.svg", "pairings.png"}
    for one in report.answers(found):
        assert one.split(":")[0] in content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (2,)}, "labels = 2, but digits has 3 classes"),
        ({"labels": (61,)}, "labels = 61"),
        ({"clusters": 61}, "clusters = 61, but there are 60 rows"),
        ({"adapted": ("conv1",)}, "conv1"),
        ({"target": Data("no such set")}, "no such set"),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_made(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pairings.run(replace(TINY, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seeds": 1}, "seeds"),
        ({"labels": ()}, "labels"),
        ({"labels": (5, 5)}, "labels"),
        ({"clusters": 1}, "clusters"),
        ({"weight": -1.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"model": Model("resnet50")}, "model.name"),
        ({"model": Model("mlp", hidden=())}, "model.hidden"),
        ({"model": Model(weights="w.npz")}, "model.weights"),
        ({"few": Fit(epochs=0)}, "few.epochs"),
        ({"pretrain": Fit(batch_size=1)}, "pretrain.batch_size"),
        ({"unlabelled": Fit(learning_rate=0.0)}, "unlabelled.learning_rate"),
    ],
)
def test_settings_that_cannot_be_meant(changes, name):
    with pytest.raises(ValueError, match=name):
        check(replace(TINY, **changes))


def test_the_published_config_is_one_that_can_be_meant():
    check(read(Path(__file__).parents[2] / "configs" / "pairings.py", Pairings))
