"""Words to sentiment: what is drawn and split, what is learned, frozen and put back, and what may be said of it."""

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import sentiment, workdir
from experiments.config import read
from experiments.report import sentiment as report
from experiments.text.sentences import Rated
from experiments.words import classifiers, corpus, domains, draws, settings, summary, vectors
from experiments.words.settings import Study, Text, Vectors
from mmd_jax import intervals
from mmd_jax.types import Rows


@pytest.fixture(scope="module")
def tiny():
    found = read(Path(__file__).parents[2] / "configs" / "sentiment_tiny.py", Study)
    return changed(
        found,
        draws=2,
        labels=(4,),
        regimes=("frozen",),
        vectors={"sizes": (0,), "min_counts": (1,), "epochs": (2,)},
        domains={"draws": 2, "permutations": 19},
    )


def changed(study, **sections):
    return replace(
        study, **{k: replace(getattr(study, k), **v) if isinstance(v, dict) else v for k, v in sections.items()}
    )


# What is read and split


def test_documents_stay_whole_and_parts_disjoint():
    random = np.random.default_rng(0)
    documents = random.integers(60, size=300)
    labels = random.integers(-1, 2, size=300)
    rated = Rated(("a",) * 300, labels, documents, ("bad", "good"))
    parts = corpus.split(Study(text=Text(test=50, validation=20, pool=40)), rated)
    assert [len(parts[name]) for name in ("test", "validation", "pool")] == [50, 20, 40]
    for a, b in combinations(parts, 2):
        assert not set(documents[parts[a]]) & set(documents[parts[b]]), (a, b)
    assert all((labels[parts[name]] >= 0).all() for name in ("test", "validation", "pool"))
    assert len(parts["unlabelled"]) > 0 and (labels[parts["unlabelled"]] < 0).any()
    with pytest.raises(ValueError, match=r"text\.pool = 200, but too few documents"):
        corpus.split(Study(text=Text(test=50, validation=20, pool=200)), rated)


def test_too_few_labels_are_refused(tiny):
    with pytest.raises(ValueError, match=r"= 14\d, but embedded has 80 labelled"):
        corpus.read(changed(tiny, text={"pool": 120}))
    three = Rated(("a",) * 3, np.arange(3), None, ("x", "y", "z"))
    with pytest.raises(ValueError, match=r"labels = 2, but there are 3 classes \(x, y, z\)"):
        corpus.check_labels(replace(tiny, labels=(2,)), three)
    with pytest.raises(ValueError, match=r"text\.validation = 2, but there are 3 classes \(x, y, z\)"):
        corpus.check_labels(changed(tiny, text={"held_out": "validation", "validation": 2}), three)
    with pytest.raises(ValueError, match=r"vectors\.sizes = 500, but there are 40 sentences to learn words from"):
        corpus.read(changed(tiny, vectors={"sizes": (500,)}))


def test_settings_that_can_t_be_meant_are_refused(tiny):
    settings.check(tiny)
    for change, message in (
        ({"labels": (1,)}, "labels = "),
        ({"draws": 1}, "draws = 1"),
        ({"vectors": {"epochs": (5, 5)}}, r"vectors\.epochs = \(5, 5\); expected one for each"),
        ({"text": {"pool": 3}}, r"text\.pool = 3; expected at least labels"),
        ({"domains": {"permutations": 3}}, r"domains\.permutations = 3"),
        ({"fit": {"words_rate": 0.0}}, r"fit\.words_rate = 0\.0"),
        ({"regimes": ()}, "regimes = "),
    ):
        with pytest.raises(ValueError, match=message):
            settings.check(changed(tiny, **change))


def test_a_domain_s_documents_are_on_one_side(tiny):
    read_ = corpus.read(tiny)
    parts = domains.split(tiny, read_, "embedded_products")
    assert not set(parts.train.documents) & set(parts.test.documents)
    assert len(parts.train.rows.y) + len(parts.test.rows.y) == 26
    with pytest.raises(ValueError, match=r"domains\.labels asks for 40"):
        domains.split(changed(tiny, domains={"labels": (40,)}), read_, "embedded_products")


def test_choosing_settings_leaves_test_sentences_unseen(tiny):
    study = changed(tiny, text={"held_out": "validation", "validation": 15})
    read_, name = corpus.read(study), "embedded_products"
    final, choosing = (
        domains.split(changed(study, text={"held_out": held}), read_, name) for held in ("test", "validation")
    )
    assert set(choosing.train.documents) | set(choosing.test.documents) == set(final.train.documents)
    assert not set(choosing.train.documents) & set(choosing.test.documents)
    assert choosing.train.rows.y.size and choosing.test.rows.y.size
    # Whatever stands in the test sentences of either domain, what is measured is the same.
    unseen = np.isin(read_.domains[name].documents, final.test.documents)
    blank = read_._replace(
        test=read_.test._replace(rows=Rows(0 * read_.test.rows.x, 0 * read_.test.rows.y)),
        domains={name: read_.domains[name]._replace(rows=blanked(read_.domains[name].rows, unseen))},
    )
    network = classifiers.network_of(2, read_.num_words, 4, 4)
    variables = {"params": network.init(jax.random.key(0), read_.pool.rows.x[:1])["params"]}
    one = classifiers.Classifier(network, variables, np.arange(read_.num_words) > 0)
    first, second = (workdir.plain(domains.measured(study, part, name, one)) for part in (read_, blank))
    assert first == second


def blanked(rows, which):
    return Rows(np.where(which[:, None], 0, rows.x), np.where(which, 0, rows.y))


# What is drawn


def test_draws_are_balanced_nested_and_their_own(tiny):
    rows = Rows(np.arange(60).reshape(60, 1), np.array([0] * 50 + [1] * 10, np.int32))
    small, large = (draws.balanced(rows, 2, size, [0, 1]) for size in (8, 16))
    assert np.bincount(small.y).tolist() == [4, 4] and np.bincount(large.y).tolist() == [8, 8]
    assert set(small.x.ravel()) <= set(large.x.ravel()) and len(set(large.x.ravel())) == 16
    assert set(draws.balanced(rows, 2, 8, [0, 2]).x.ravel()) != set(small.x.ravel())
    used_up = draws.balanced(rows, 2, 40, [0, 1])
    assert np.bincount(used_up.y).tolist() == [30, 10]


# What is learned


def test_rare_words_are_left_out_and_what_is_learned_is_centred_and_scaled():
    x = np.array([[1, 2, 3, 0], [2, 1, 4, 0], [1, 2, 0, 0], [2, 1, 3, 3]] * 5, np.int32)
    x[0, 3] = 5  # once
    one = Vectors(dim=4, batch_size=64)
    found = vectors.learn(one, [0], x, 7, min_count=2, epochs=2)
    assert found.known.tolist() == [False, True, True, True, True, False, False]
    assert not found.table[~found.known].any()
    given = found.table[found.known]
    np.testing.assert_allclose(given.mean(axis=0), 0, atol=1e-6)
    assert (given**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)
    again = vectors.learn(one, [0], x, 7, min_count=2, epochs=2)
    assert (again.table == found.table).all()
    with pytest.raises(ValueError, match="no two of the 0 words that occur at least 99 times"):
        vectors.learn(one, [0], x, 7, min_count=99, epochs=2)


def test_a_rare_word_leaves_no_gap(monkeypatch):
    seen = {}

    def near_pairs(x, window):
        seen["x"] = x
        return np.ones((2, 2), np.int32)

    monkeypatch.setattr(vectors, "near_pairs", near_pairs)
    vectors.learn(Vectors(dim=2), [0], np.array([[1, 3, 2], [0, 2, 1]]), 4, min_count=2, epochs=1)
    assert seen["x"].tolist() == [[1, 2, 0], [2, 1, 0]]


def test_kept_vectors_come_back_with_their_words(tmp_path):
    known = np.array([False, True, False, True])
    table = np.where(known[:, None], np.arange(8.0, dtype=np.float32).reshape(4, 2), 0)
    made = []

    def make():
        made.append(1)
        return vectors.Words(table, known)

    for _ in range(2):
        found = vectors.kept(tmp_path, {"a": 1}, make, ("x", "y", "z"))
        assert (found.table == table).all() and (found.known == known).all()
    vectors.kept(tmp_path, {"a": 2}, make, ("x", "y", "z"))
    assert len(made) == 2
    assert workdir.read_npz(next(tmp_path.glob("*.npz")))["words"].tolist() == ["x", "z"]


def planted(n=60, seed=0):
    """Sentences of three words whose class is that of their words: 1–6 bad, 7–12 good; a source that knows all but 12."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(np.int32)
    x = (1 + 6 * y[:, None] + random.integers(6, size=(n, 3))).astype(np.int32)
    table = np.zeros((14, 4), np.float32)
    table[1:7, 0], table[7:12, 0] = -1, 1
    return Rows(x, y), vectors.Words(table, table.any(axis=1))


@pytest.mark.parametrize("regime", ["scratch", "frozen", "finetuned"])
def test_what_each_regime_copies_trains_and_knows(regime):
    rows, source = planted()
    few = Rows(rows.x[:8], rows.y[:8])
    new = vectors.fresh([1], 14, 4)
    start = classifiers.begin(regime, few, new, None if regime == "scratch" else source, words_rate=0.1)
    fit = settings.Fit(hidden=8, epochs=40, learning_rate=0.02)
    found = classifiers.train(fit, 0, few, 2, **start._asdict())
    table = np.asarray(found.variables["params"]["words"]["vectors"])
    there = np.isin(np.arange(14), few.x)
    if regime == "frozen":
        assert (table == source.table).all() and (found.known == source.known).all()
    else:
        before = new if regime == "scratch" else np.where(source.known[:, None], source.table, new)
        assert ((table != before).any(axis=1) == there).all()  # only the words of the labelled sentences are trained
        assert (found.known == (there if regime == "scratch" else there | source.known)).all()
    accuracy = (found.predict(rows.x) == rows.y).mean()
    assert accuracy > (0.6 if regime == "scratch" else 0.95)
    # Unknown words are none: a sentence of such words is as an empty one.
    assert (found.inputs(np.array([[13, 0, 0]])) == 0).all()


def test_a_network_is_used_again_by_every_regime(tiny):
    rows, source = planted()
    new = vectors.fresh([1], 14, 4)
    study = changed(tiny, fit={"epochs": 5, "hidden": 4}, domains={"pretrained_rate": 0.5})
    start = classifiers.begin("finetuned", rows, new, source, words_rate=0.1)
    first = classifiers.train(study.fit, 0, rows, 2, **start._asdict())
    before = {name: np.asarray(first.variables["params"]["hidden"][name]) for name in ("kernel", "bias")}
    few = Rows(rows.x[:8], rows.y[:8])
    for way, frozen in (("linear_probe", True), ("finetune_top", False), ("finetune_all", False), ("lp_ft", False)):
        found = domains.reuse(study, way, 0, few, first, new)
        after = found.variables["params"]["hidden"]["kernel"]
        assert bool((np.asarray(after) == before["kernel"]).all()) == frozen
        words_still = (
            np.asarray(found.variables["params"]["words"]["vectors"]) == first.variables["params"]["words"]["vectors"]
        ).all()
        assert bool(words_still) == (way in ("linear_probe", "finetune_top"))


# What may be said


def hits(shares, num=400, num_draws=30, seed=0):
    random = np.random.default_rng(seed)
    return {key: random.random((num_draws, num)) < share for key, share in shares.items()}


def test_statements_find_planted_differences_and_no_others(tiny):
    study = replace(changed(tiny, vectors={"copies": 30}), labels=(4, 8), draws=30, alpha=0.05)
    found = summary.statements(
        study,
        hits(
            {
                ("none", "scratch", 4): 0.5,
                ("none", "scratch", 8): 0.7,
                ("all", "frozen", 4): 0.6,
                ("all", "frozen", 8): 0.6,
                ("20", "frozen", 4): 0.5,
                ("20", "frozen", 8): 0.7,
            }
        ),
    )
    kinds = {(one["source"], one["labels"]): one["kind"] for one in found}
    assert kinds == {("all", 4): "better", ("all", 8): "worse", ("20", 4): "unclear", ("20", 8): "unclear"}
    assert all(one["adjusted"] >= one["pvalue"] for one in found)
    text = summary.answer({"statements": found, "domains": []})
    assert text.startswith(
        "Negative transfer: worse than without, beyond the interval, are all unlabelled sentences, frozen, with 8"
    )
    assert "help: better than without are all unlabelled sentences, frozen, with 4 labels (+" in text


def test_negative_transfer_on_a_domain_is_said_first():
    difference = {"kind": "worse", "estimate": -0.06}
    ways = [{"labels": 32, "way": "lp_ft", "difference": difference}, {"labels": 32, "way": "from_scratch"}]
    domain = {"domain": "tweets", "plans": {"32": {"way": "lp_ft"}}, "ways": ways}
    said = summary.answer({"statements": [], "domains": [domain]})
    assert said.startswith("Negative transfer on tweets") and "with 32 labels (−6.0 points)" in said
    for plan, kind in (("from_scratch", "worse"), ("lp_ft", "unclear")):
        domain["plans"]["32"]["way"], difference["kind"] = plan, kind
        assert summary.answer({"statements": [], "domains": [domain]}) == "Nothing was compared."


def test_an_interval_over_draws_alone_is_not_what_statements_rest_on(tiny):
    # The same few sentences are hit in every draw: other draws would say so again, other sentences need not.
    without = np.tile(np.arange(40) < 20, (30, 1))
    [found] = summary.statements(
        tiny, {("none", "scratch", 4): without, ("all", "frozen", 4): np.tile(np.arange(40) < 21, (30, 1))}
    )
    assert (found["draws"]["low"], found["draws"]["high"]) == pytest.approx((1 / 40, 1 / 40))
    assert found["low"] < 0 < found["high"] and found["kind"] == "unclear"


def test_draws_that_share_vectors_count_as_their_trainings(tiny):
    # Two trainings, one 20 points above the other: 30 draws of each know their own mean well, and not that of other trainings.
    study, levels = changed(tiny, draws=60, vectors={"copies": 2}), np.where(np.arange(60) % 2, 0.75, 0.55)[:, None]
    some = np.random.default_rng(0).random((60, 400)) < levels
    found = {
        ("none", "scratch", 4): np.random.default_rng(1).random((60, 400)) < 0.5,
        ("all", "frozen", 4): some,
        ("20", "frozen", 4): some,
    }
    rows = {one["source"]: one for one in summary.accuracies(study, found)}
    assert rows["all"]["num"] == rows["all"]["vectors"] == 2 and rows["20"]["num"] == 60
    means = some.mean(axis=1)
    wanted = intervals.t_interval([means[0::2].mean(), means[1::2].mean()])
    assert (rows["all"]["low"], rows["all"]["high"]) == pytest.approx((max(0, wanted.low), min(1, wanted.high)))
    kinds = {one["source"]: one for one in summary.statements(study, found)}
    assert kinds["all"]["kind"] == "unclear" and kinds["all"]["low"] < 0 and kinds["all"]["draws"]["low"] < 0
    assert kinds["20"]["kind"] == "better" and kinds["20"]["estimate"] == pytest.approx(kinds["all"]["estimate"])
    # As many trainings as draws: each draw has its own.
    assert len(summary.by_training(changed(study, vectors={"copies": 60}), "all", some)) == 1


def test_all_right_in_few_documents_is_not_certain():
    found = summary._alone(np.ones(30, bool), 0.95, np.repeat(np.arange(6), 5))
    assert found.low == pytest.approx(0.025 ** (1 / 6)) and (found.estimate, found.high, found.num) == (1, 1, 6)


def test_two_sentences_are_counted_as_pairs(tiny):
    found = hits({("none", "scratch", 4): 0.5, ("all", "frozen", 4): 0.7}, num=12, num_draws=3)
    [one] = summary.two_sentences(tiny, found)
    without, with_ = found["none", "scratch", 4], found["all", "frozen", 4]
    pairs = list(combinations(range(12), 2))
    gained = [np.mean([without[d][[i, j]].sum() == 1 and with_[d][[i, j]].all() for i, j in pairs]) for d in range(3)]
    assert one["gained"] == pytest.approx(np.mean(gained))


# The whole


@pytest.mark.usefixtures("compiled_once")
def test_from_command_to_page_and_again(tiny, tmp_path, capsys):
    sentiment.run(tiny, tmp_path / "run", "a command")
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["answer"] in said
    assert [one["source"] for one in result["accuracies"]].count("all") == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "networks" / "cells.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        for one in row["results"]:
            assert one["accuracy"] == draws.from_hex(one["hits"], 20).mean()
    [domain] = result["domains"]
    assert {way["way"] for way in domain["ways"]} == {"as_is", *domains.WAYS}
    assert domain["plans"]["4"]["way"] in domains.WAYS
    page = (tmp_path / "run" / "report.html").read_text()
    for part in ("Where transfer helps", "Without any label", "other domains", "What two test sentences", "a command"):
        assert part in page
    with (tmp_path / "run" / "domains.csv").open() as opened:
        table = list(csv.DictReader(opened))
    assert len(table) == 7 and sum(row["planned"] == "True" for row in table) == 1

    # Again, with one more draw: the others are not trained again.
    files = [tmp_path / "run" / name / "cells.jsonl" for name in ("networks", "domains")]
    before = [file.read_text() for file in files]
    sentiment.run(replace(tiny, draws=3), tmp_path / "run", "a command")
    after = [file.read_text() for file in files]
    assert after[0].startswith(before[0]) and after[0].count("\n") == 4 + 2
    assert after[1] == before[1]

    # A figure of what is no longer there goes.
    result = json.loads((tmp_path / "run" / "result.json").read_text()) | {"domains": []}
    workdir.write_json(tmp_path / "run" / "result.json", result)
    report.write(tmp_path / "run")
    assert not (tmp_path / "run" / "domains.csv").exists()
    assert not (tmp_path / "run" / "figures" / "domains.svg").exists()


def test_one_s_own_files(tiny, tmp_path, capsys):
    rated = [f"{label}\t{word} day {i}" for i in range(30) for label, word in (("sad", "grey"), ("glad", "bright"))]
    (tmp_path / "rated.txt").write_text("\n".join(rated))
    (tmp_path / "lines.txt").write_text("a bright sunny day\na grey rainy day\n" * 20)
    study = changed(
        tiny,
        text={"rated": str(tmp_path / "rated.txt"), "unlabelled": str(tmp_path / "lines.txt"), "test": 30, "pool": 20},
        domains={"names": ()},
    )
    sentiment.run(study, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["header"]["classes"] == ["glad", "sad"] and found["header"]["sizes"]["unlabelled"] == 40
    capsys.readouterr()


def test_errors_are_one_line(tmp_path, capsys):
    argv = ["--config", "configs/sentiment.py", "--data-dir", str(tmp_path), "--workdir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"error: the rated sentences of 'movie' are not at .* vader"):
        sentiment.main(argv)
    assert not (tmp_path / "run").exists()
