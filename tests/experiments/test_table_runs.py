"""The main job and the study of topics on a small table, from CSV to report, with a planted rule that both sides share."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments import networks, phases, predict, topics, transfer, workdir
from experiments.config import Config, Data, Model, Training, TwoSample
from experiments.report import topics as report
from experiments.ways import WAYS
from tests.experiments import tables

training = Training(epochs=10, batch_size=16, learning_rates=(1e-2,), patience=4)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    settings = {"label_key": "delay", "label_above": 15, "group_key": "day", "test_fraction": 0.4}
    source = Data(f"csv:{tables.write(folder / 'a.csv', tables.columns(0, 1500))}", **settings, drop=("tail", "origin"))
    target = Data(f"csv:{tables.write(folder / 'b.csv', tables.columns(1, 900, shift=100))}", **settings, limit=60)
    return Config(
        "table", source, target, Model("mlp", hidden=(8,)), TwoSample(permutations=19, max_rows=60),
        pretrain=training, train=training, checkpoint_seconds=100.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(config, tmp_path_factory, compiled_once):
    directory = tmp_path_factory.mktemp("main") / "run"
    transfer.run(config, directory)
    return directory


def test_the_main_job_on_a_table(config, run):
    result = json.loads((run / "result.json").read_text())
    assert set(result["two_sample"]["layers"]) == {"embed", "fc1", "fc2"}
    assert result["plan"]["trained"] and result["data"]["target"]["classes"] == ["delay ≤ 15", "delay > 15"]
    auc = result["accuracy"]["roc_auc"]
    # 60 rows and the source's network tell late from early; the planted rule's own AUC is about .9.
    assert auc["chosen"] > 0.7 and auc["chosen_interval"][0] < auc["chosen"] < auc["chosen_interval"][1]
    assert "ROC AUC" in (run / "report.html").read_text()
    # The config's own words are kept; what the map says of the rows is with the model.
    assert json.loads((run / "config.json").read_text())["model"]["categories"] == []
    description = json.loads((run / "model" / "description.json").read_text())
    assert description["model"]["categories"] == [len(c["values"]) + 1 for c in description["table"]["categories"]]
    transfer.run(config, run)  # the same command again finds everything there


def test_predict_repeats_what_the_run_reported(run, tmp_path, capsys):
    predict.main([str(run / "model"), "target", "--out", str(tmp_path / "p.csv")])
    reported = json.loads((run / "result.json").read_text())["accuracy"]
    said = capsys.readouterr().out
    assert float(said.split("accuracy ")[1].split()[0]) == pytest.approx(reported["chosen"], abs=1e-5)
    # Over whole days, as the run's.
    low, high = reported["chosen_interval"]
    assert f"95% interval {low:.3f} … {high:.3f}" in said


def test_a_map_comes_with_the_weights(config, run):
    # No source: the network's own map, and not one fitted on the target.
    alone = replace(config, source=None, model=replace(config.model, weights=str(run / "model")))
    kept = networks.table_of(alone.model)
    assert workdir.plain(kept) == json.loads((run / "model" / "description.json").read_text())["table"]
    data = phases.load(alone)
    assert data.target.table == kept
    assert phases.build(phases.with_table(alone, data), data).restored is not None


@pytest.fixture(scope="module")
def study(config, tmp_path_factory, compiled_once):
    directory = tmp_path_factory.mktemp("topics") / "run"
    return directory, topics.run(config, directory, labels=[40, 0], draws=2, command="the command")


def test_topics_compares_every_way_on_the_same_rows(config, study):
    directory, rows = study
    assert {row.way for row in rows} == set(WAYS) and len(rows) == 2 * len(WAYS)
    found = {(row.way, row.labels): row for row in rows}
    counts = sorted({row.labels for row in rows})
    assert counts[0] == 40 and counts[1] > 400
    # The source's rule is the target's: with few labels, what knows the source is better than what does not.
    for way in ("source network", "head kept"):
        assert found[way, 40].gain.estimate > 0.02, way
    for way in ("source boosting", "boosting on both"):
        assert found[way, 40].beside_boosting.estimate > 0.2, way  # 32 rows are too few to grow a tree
    assert found["from_scratch", 40].gain is None and found["boosting", 40].beside_boosting is None
    assert found["source boosting", 40].auc == found["source boosting", counts[1]].auc
    assert all(0 <= row.auc.low <= row.auc.estimate <= row.auc.high <= 1 for row in rows)
    page = (directory / "report.html").read_text()
    assert "data:image/svg+xml" in page and "boosting on both" in page and "the command" in page


def test_topics_goes_on_where_it_stopped(config, study, monkeypatch):
    directory, rows = study
    before = (directory / "cells" / "cells.jsonl").read_text()
    monkeypatch.setattr(topics, "rate", lambda *_: pytest.fail("a finished cell is run again"))
    assert topics.run(config, directory, labels=[40, 0], draws=2) == rows
    assert (directory / "cells" / "cells.jsonl").read_text() == before


def test_topics_refuses(config, tmp_path):
    with pytest.raises(ValueError, match="expected 2 draws or more"):
        topics.run(config, tmp_path / "a", labels=[40], draws=1)
    with pytest.raises(ValueError, match="labels = 9999, but the target has"):
        topics.run(config, tmp_path / "b", labels=[9999], draws=2)
    other = replace(config, target=replace(config.target, label_above=30.0))
    with pytest.raises(ValueError, match="expected the same two in source and target"):
        topics.run(other, tmp_path / "c", labels=[40], draws=2)
    assert not list(tmp_path.iterdir())


def test_over_draws_holds_both_sources_of_variation():
    # AUCs as sums of an effect of the draw and effects of groups: the interval's width has both parts.
    random = np.random.default_rng(0)
    k, draws = 50, 6
    of_group = random.normal(size=k)
    rows = []
    for draw in range(draws):
        auc = 0.7 + 0.02 * random.normal()
        without = auc - 0.3 * (of_group - of_group.mean()) / k
        rows.append({"draw": draw, "auc": auc, "without": without.tolist()})
    found, pvalue = topics.over_draws(rows)
    aucs = np.array([row["auc"] for row in rows])
    expected = (k - 1) / k * (0.3 / k) ** 2 * ((of_group - of_group.mean()) ** 2).sum() + aucs.var(ddof=1) / draws
    half = (found.high - found.low) / 2
    assert 1.96 < half / np.sqrt(expected) < 2.6  # a t of 5 to many degrees of freedom
    assert pvalue < 1e-4  # 0.7 is many such errors away from 0
    # p is .05 exactly where the interval ends at 0.
    shifted = [
        {**row, "auc": row["auc"] - found.low, "without": np.subtract(row["without"], found.low)} for row in rows
    ]
    assert topics.over_draws(shifted)[1] == pytest.approx(0.05, rel=1e-6)
    # The same pair by pair, or every pair of rows in order: no certainty, but what so many groups can show.
    same, pvalue = topics.over_draws(rows, rows)
    assert same.estimate == 0 and same.high == -same.low == pytest.approx(1 - 0.025 ** (1 / k)) and pvalue == 1
    perfect = [{"draw": draw, "auc": 1.0, "without": [1.0] * 9, "least": 6} for draw in range(2)]
    assert topics.over_draws(perfect)[0].low == pytest.approx(0.025 ** (1 / 6))


def test_differences_are_adjusted_for_being_many():
    def row(pvalue):
        gain = None if pvalue is None else topics.Gain(0.1, 0.01, 0.2, pvalue, pvalue)
        return topics.Row("boosting", 10, None, gain, None, (), 0.0)

    found = topics.adjust([row(0.01), row(None), row(0.04), row(0.03)], "gain")
    assert [r.gain and round(r.gain.adjusted, 6) for r in found] == [0.03, None, 0.06, 0.06]
    assert [r.gain and r.gain.pvalue for r in found] == [0.01, None, 0.04, 0.03]
    assert topics.adjust(found, "beside_boosting") == found


def test_sentences_are_no_stronger_than_adjusted_pvalues():
    def row(way, estimate, adjusted):
        gain = {
            "estimate": estimate,
            "low": estimate - 0.01,
            "high": estimate + 0.01,
            "pvalue": 0.01,
            "adjusted": adjusted,
        }
        return {"way": way, "labels": 200, "auc": gain, "gain": gain, "beside_boosting": gain}

    rows = [row("head kept", 0.03, 0.04), row("chosen", 0.02, 0.06), row("linear_probe", -0.03, 0.05)]
    [line] = report.statements({"rows": rows, "level": 0.95})
    assert "adjustment: fine-tuned, head kept; worse: linear probe (new head)." in line
    assert "than boosting on the target's rows: fine-tuned, head kept; worse: linear probe (new head)." in line
    marked = str(report.difference_table({"rows": rows, "level": 0.95}, "gain", "x"))
    assert marked.count("<b>") == 2 and "<b>+0.020" not in marked


def test_more_categories_than_boosting_takes_are_refused(config, tmp_path):
    found = {name: values + values for name, values in tables.columns(0, 700).items()}  # each tail twice
    path = tables.write(tmp_path / "many.csv", found)
    many = replace(config.source, name=f"csv:{path}", drop=("origin",), max_categories=255, test_fraction=0.2)
    with pytest.raises(ValueError, match="column 'tail' has 255 categories and “other”; boosting takes 255 in all"):
        topics.run(replace(config, source=many), tmp_path / "run", labels=[40], draws=2)
    assert not (tmp_path / "run").exists()


def test_the_planted_rule_is_found_at_all(config):
    # The bound for every AUC above: of the probabilities that the labels were drawn from.
    found = tables.columns(1, 900, shift=100)
    late = [float(v) > 15 for v in found["delay"]]
    known = [i for i, carrier in enumerate(found["carrier"]) if carrier != "NA"]
    odds = [(float(found["distance"][i]) - 1000) / 150 + 2 * tables.CARRIERS.index(found["carrier"][i]) for i in known]
    assert roc_auc_score([late[i] for i in known], odds) > 0.9
