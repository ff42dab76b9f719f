"""The library as its users have it: add, list, rank, reuse; what its distances are, and what it recommends."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import library as script
from experiments import networks, phases, workdir
from experiments.collection import adding, demonstration, entries, examining, nearness, settings, sketching, store
from experiments.collection.advice import advise
from experiments.collection.agreement import agreements
from experiments.config import Config, Data, Model, Training
from mmd_jax.two_sample.sketch_comparison import mean_embedding, mmd2_from_embeddings
from mmd_jax.two_sample.sketches import merge, sketch_mmd2

pytestmark = pytest.mark.usefixtures("compiled_once")

TRAINING = Training(epochs=3, learning_rates=(1e-2,))
FLAGS = [
    "--target.name",
    "digits",
    "--target.classes",
    "0",
    "1",
    "2",
    "--target.limit",
    "60",
    "--target.test-limit",
    "60",
]


def config(classes, **changes):
    source = Data("digits", classes=tuple(classes), limit=150, test_limit=60)
    return Config(
        **{"name": "tiny", "source": source, "model": Model("mlp", hidden=(16,)), "pretrain": TRAINING, **changes}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    """A library of three, the work directory of one of them, and an npz file of inverted digits."""
    folder = tmp_path_factory.mktemp("library")
    adding.from_config(folder / "lib", "same", config("012"), folder / "same")
    adding.from_config(folder / "lib", "others", config("789"), folder / "others")
    rows = settings_rows()
    workdir.write_npz(folder / "inverted.npz", {"x": 255 - rows[0], "y": rows[1]})
    source = Data(f"npz:{folder / 'inverted.npz'}")
    adding.from_config(folder / "lib", "inverted", config("012", source=source), folder / "inverted", sample=4)
    return folder


def settings_rows():
    from experiments.datasets.arrays import open_digits

    raw = open_digits().train
    rows = np.flatnonzero(raw.labels < 3)
    return raw.read(rows), raw.labels[rows].astype(np.int32)


@pytest.fixture
def library(made, tmp_path):
    shutil.copytree(made / "lib", tmp_path / "lib")
    return tmp_path / "lib"


def said(capsys, *argv):
    script.main([str(a) for a in argv])
    return capsys.readouterr().out


def refused(*argv):
    with pytest.raises(SystemExit) as raised:
        script.main([str(a) for a in argv])
    assert str(raised.value.code).startswith("error: ")
    return str(raised.value.code)


def test_list_show_verify_remove(library, capsys):
    out = said(capsys, "list", library)
    assert "3 entries of images of 8x8 pixels, grey" in out and out.count("digits (0, 1, 2)") == 1
    out = said(capsys, "show", library, "same")
    assert "fc1 (16)" in out and "kept 0" in out and "MB" in out
    assert said(capsys, "verify", library).count("as it was added") == 3
    path = library / "same" / "layers.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert "1 of 3 entries are damaged: same" in refused("verify", library)
    assert "sha256" in refused("reuse", library, "same", *FLAGS)
    said(capsys, "remove", library, "same")
    assert store.names(library) == ["inverted", "others"]
    assert "no entry 'same'; there are inverted, others" in refused("show", library, "same")


def test_no_row_leaves_its_owner_unasked(made):
    rows = settings_rows()[0].reshape(-1, 64)
    for name in store.names(made / "lib"):
        folder = made / "lib" / name
        assert (folder / "sample.npz").exists() == (name == "inverted")
        for file in folder.glob("*.npz"):
            for array in workdir.read_npz(file).values():
                assert file.name == "sample.npz" or array.dtype != np.uint8
    kept = workdir.read_npz(made / "lib" / "inverted" / "sample.npz")
    assert kept["x"].shape == (4, 8, 8, 1)
    assert all((255 - x.reshape(64) == rows).all(axis=1).any() for x in kept["x"])


def test_rank_finds_the_same_distribution_and_draws_it(library, tmp_path, capsys):
    out = said(capsys, "rank", library, *FLAGS, "--top", "2", "--permutations", "199", "--out", tmp_path / "rank")
    found = json.loads((tmp_path / "rank" / "ranking.json").read_text())
    assert found["near"]["names"][0] == "same" and found["near"]["names"][-1] == "inverted"
    first, second = found["examined"]
    assert first["name"] == "same" and first["distance"]["pvalue"] > 0.05 and first["tie"] is None
    assert second["distance"]["pvalue"] < 0.05 and second["tie"] < 0.05 and not second["shared"]
    assert first["distance"]["low"] <= max(first["distance"]["mmd2"], 0) <= first["distance"]["high"]
    assert set(first["layers"]) == {"fc1", "fc2"}
    assert first["notes"] and "was trained on" in first["notes"][0] and not second["notes"]
    assert "Recommendation: " in out and "farther than the nearest" in out and "are not ranked" in out
    assert (tmp_path / "rank" / "ranking.png").read_bytes()[:4] == b"\x89PNG"


def test_the_first_stage_runs_no_network(library, monkeypatch):
    monkeypatch.setattr(networks, "load_network", lambda path: pytest.fail("a network was loaded"))
    format = settings.read(library)
    target = adding.sources.load(Data("digits", classes=("7", "8", "9"), limit=90), seed=1, data_dir="data")
    near = nearness.nearest(library, format, target, name="digits")
    assert near.names == ("others", "same", "inverted") and (np.diff(near.mmd2) > 0).all()


def test_rows_that_an_entry_was_trained_on_are_known(made, library, tmp_path, capsys, monkeypatch):
    entry = entries.read(library, "same")
    mine = adding.sources.load(config("012").source, seed=0, data_dir="data")
    assert entries.seen_among(entry, mine.origins[0], mine.train_rows) == 150
    assert entries.seen_among(entry, mine.origins[1], mine.test_rows) == 0
    assert entries.seen_among(entry, "elsewhere", mine.train_rows) == 0
    other = adding.sources.load(config("012").source, seed=3, data_dir="data")
    expected = len(np.intersect1d(mine.train_rows, other.test_rows))
    assert expected == entries.seen_among(entry, other.origins[1], other.test_rows) > 0
    # The same split holds out the same rows; another one does not.
    monkeypatch.setattr(phases, "costs", lambda *args: "")
    for seed, warned in ((0, False), (3, True)):
        flags = [
            *FLAGS,
            "--seed",
            seed,
            "--until",
            "plan",
            "--test.permutations",
            "19",
            "--workdir",
            tmp_path / str(seed),
        ]
        script.main([str(a) for a in ("reuse", library, "same", *flags)])
        assert (f"same was trained on {expected} of the 60 rows" in capsys.readouterr().err) == warned
    # A run hands on what its network saw before.
    run = tmp_path / "run"
    workdir.write_npz(run / "splits.npz", {"source/origin": np.array("o"), "source/train": np.arange(3)})
    found = adding.before(run, {"model": {"weights": str(library / "same" / "model")}})
    assert [len(one.rows) for one in found] == [3, 150] and found[0] == (entries.seen_of("o", [])[0], found[0].rows)


def test_an_entry_of_another_library_is_named_and_left_out(library, tmp_path, capsys):
    other = tmp_path / "other"
    settings.create(other, settings.read(library)._replace(seed=7))
    shutil.copytree(library / "same", other / "same")
    assert "same was made for a library of another format" in refused("rank", other, *FLAGS)
    assert "same was made for a library of another format" in refused("reuse", other, "same", *FLAGS)
    assert not (tmp_path / "runs").exists()


def test_one_bad_entry_does_not_end_a_ranking(library, tmp_path, capsys, monkeypatch):
    real = examining.signals

    def broken(key, network, variables, rows, **settings):
        if len(rows.x) and variables["params"] and not calls:
            calls.append(1)
            raise ValueError("features that are not finite")
        return real(key, network, variables, rows, **settings)

    calls = []
    monkeypatch.setattr(examining, "signals", broken)
    flags = [*FLAGS, "--top", "2", "--permutations", "19", "--out", tmp_path / "rank"]
    out = said(capsys, "rank", library, *flags)
    assert "warning: same was left out: features that are not finite" in out
    found = json.loads((tmp_path / "rank" / "ranking.json").read_text())
    assert [entry["name"] for entry in found["examined"]] == ["others"] and found["examined"][0]["tie"] is None


def test_what_would_be_refused_after_training_is_refused_before(library, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "trained", lambda *args: pytest.fail("it was trained"))
    few = Data("digits", classes=("0", "1"), limit=20)
    workdir.write_npz(tmp_path / "rows.npz", {"x": np.zeros((90, 5), np.float32), "y": np.arange(90) % 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for folder, name, changes, sample, words in (
        (library, "same", {}, 0, "has an entry 'same' already"),
        (library, "new", {}, -1, "sample = -1"),
        (library, "new", {"source": few}, 0, "there are 20 training rows"),
        (library, "new", {"source": Data(f"npz:{tmp_path / 'rows.npz'}")}, 0, "rows of 5 numbers"),
        (tmp_path / "full", "new", {}, 0, "holds files"),
    ):
        with pytest.raises(ValueError, match=words):
            adding.from_config(folder, name, config("012", **changes), tmp_path / "run", sample=sample)
    assert not (tmp_path / "run").exists()


def test_rows_that_are_said_are_those_behind_the_sketches(tmp_path, made, monkeypatch):
    monkeypatch.setattr(sketching, "MOST_INPUTS", 100)
    monkeypatch.setattr(sketching, "MOST_LAYERS", 40)
    weights = Model("mlp", hidden=(16,), weights=str(made / "lib" / "same" / "model"))
    adding.from_config(tmp_path / "lib", "one", config("012", model=weights), tmp_path / "run")
    rows = entries.read_about(tmp_path / "lib" / "one")["rows"]
    assert rows == {"inputs": 100, "layers": 40, "trained": 150, "kept": 0}


def test_a_rare_class_is_not_cut_away():
    y = np.repeat([0, 1, 2], [4000, 990, 6]).astype(np.int32)
    x, rows = np.arange(len(y), dtype=np.float32)[:, None], np.arange(len(y))
    target = adding.Dataset(x, y, x, y, ("a", "b", "c"), rows // 2, None, rows, rows, ("o", "o"), "", False)
    chosen, groups = examining.some_rows(target, seed=0)
    assert len(chosen.y) == examining.MOST_ROWS and np.bincount(chosen.y)[2] >= examining.FOLDS
    assert np.array_equal(chosen.y, y[chosen.x[:, 0].astype(int)]) and np.array_equal(groups, chosen.x[:, 0] // 2)
    assert np.bincount(chosen.y)[0] == pytest.approx(2000 * 4000 / 4996, abs=10)


@pytest.mark.parametrize("argv", [["rank"], ["reuse", "same"], ["add", "new", "--config", "configs/quickstart.py"]])
def test_help_lists_the_fields(library, argv, capsys):
    with pytest.raises(SystemExit) as raised:
        script.main([argv[0], str(library), *argv[1:], "--help"])
    assert raised.value.code == 0 and "--target.name" in capsys.readouterr().out


def test_of_two_first_adds_the_faster_one_s_format_holds(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
    real = sketching.scale_of

    def slow(rows):
        monkeypatch.undo()
        adding.library_for(tmp_path / "lib", x // 2)
        return real(rows)

    monkeypatch.setattr(sketching, "scale_of", slow)
    first = adding.library_for(tmp_path / "lib", x)
    assert first == settings.read(tmp_path / "lib") and first.scale == pytest.approx(real(x.reshape(40, -1) // 2 / 255))


def test_the_same_classes_by_name_only(library, made, tmp_path, capsys):
    flags = ["--target.name", f"npz:{made / 'inverted.npz'}", "--target.limit", "60", "--permutations", "199"]
    out = said(capsys, "rank", library, *flags, "--out", tmp_path / "rank")
    assert "warning: same: It shares the classes 0, 1, 2 with the target by name, but" in out
    assert "warning: inverted: It shares" not in out


def test_bad_targets(library, tmp_path):
    workdir.write_npz(tmp_path / "rows.npz", {"x": np.zeros((60, 5), np.float32), "y": np.arange(60) % 2})
    error = refused("rank", library, "--target.name", f"npz:{tmp_path / 'rows.npz'}")
    assert "images of 8x8 pixels, grey" in error and "rows of 5 numbers" in error
    assert "--target.name is missing" in refused("rank", library)
    assert "no such folder" in refused("rank", tmp_path / "nowhere", *FLAGS)
    assert "at least one for each of their 32 bins" in refused("rank", library, *FLAGS[:-4], "--target.limit", "20")
    assert "is a table" in refused("rank", library, "--target.name", "csv:a.csv")
    assert "no field --target.nme" in refused("rank", library, *FLAGS, "--target.nme", "x")
    settings.create(tmp_path / "empty", settings.format_for((8, 8, 1)))
    assert "has no entry yet" in refused("rank", tmp_path / "empty", *FLAGS)


def test_neither_damaged_entries_nor_another_size_stop_a_ranking(library, tmp_path, capsys, monkeypatch):
    path = library / "inverted" / "embedding.npz"
    path.write_bytes(path.read_bytes()[:100])
    (library / "stranger").mkdir()
    listed = store.names(library)
    monkeypatch.setattr(store, "names", lambda folder: [*listed, "gone"])
    flags = [*FLAGS, "--target.size", "12", "10", "--permutations", "19", "--out", tmp_path / "rank"]
    out = said(capsys, "rank", library, *flags)
    assert "brought from images of 12x10 pixels, grey to images of 8x8 pixels, grey" in out
    assert "warning: inverted was left out" in out and "warning: stranger was left out" in out and "gone" not in out


def test_an_entry_of_a_newer_version_or_with_code_is_refused(library, made, tmp_path):
    about = library / "same" / "entry.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 9', 1))
    assert "of version 9; this program reads versions 1 to 1; update it" in refused("show", library, "same")
    with pytest.raises(ValueError, match="neither holds nor runs"):
        adding.from_config(library, "mine", config("012", model=Model(factory="os:system")), tmp_path)
    description = workdir.read_json(library / "others" / "model" / "description.json")
    description["model"]["factory"] = "os:system"
    workdir.write_json(library / "others" / "model" / "description.json", description)
    entry = entries.read(made / "lib", "others")._replace(folder=library / "others")
    with pytest.raises(ValueError, match="neither holds nor runs"):
        entries.load_network(entry)


def test_reuse_goes_through_the_main_job_and_its_run_can_be_added(library, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    small = ["--train.epochs", "2", "--train.learning-rates", "0.01", "--test.permutations", "99", "--workdir", run]
    monkeypatch.setattr(phases, "costs", lambda *args: "the costs")
    assert said(capsys, "reuse", library, "others", *FLAGS, *small, "--until", "plan").endswith("the costs\n")
    assert (run / "decision.json").exists() and not (run / "result.json").exists()
    assert "leave --source out" in refused("reuse", library, "others", *FLAGS, *small, "--source.name", "digits")
    out = said(capsys, "reuse", library, "others", *FLAGS, *small)
    assert "on the inputs, 150 source rows against 60 target rows" in out and "Report: " in out
    result = workdir.read_json(run / "result.json")
    assert set(result["two_sample"]["layers"]) == {"fc1", "fc2"} and result["similarity"]["kind"] == "different"
    assert "holds no source rows" in (run / "report.html").read_text()
    again = said(capsys, "reuse", library, "others", *FLAGS, *small)
    assert again.splitlines()[-2:] == out.splitlines()[-2:]
    # Another target's answer is not shown in the place of this one's.
    assert "target.limit: 60 there, 70 now" in refused(
        "reuse", library, "others", *FLAGS, "--target.limit", "70", *small
    )
    out = said(capsys, "add", library, "tuned", "--run", run)
    assert out.startswith("added tuned: mlp") and "digits (0, 1, 2)" in out
    about = entries.read_about(library / "tuned")
    assert about["from"]["kind"] == "run" and about["metrics"]["accuracy"] == result["accuracy"]["chosen"]
    assert "already" in refused("add", library, "tuned", "--run", run)
    assert "no finished run" in refused("add", library, "more", "--run", tmp_path)
    assert "one of the two" in refused("add", library, "more")


def test_joined_sketches_are_of_the_mean_kernel():
    format = settings.format_for((5,))._replace(num_features=64, bins=8)
    x, y = (np.random.default_rng(i).normal(i, 1, (40 + i, 5)).astype(np.float32) for i in (0, 1))
    a, b = (sketching.sketch_inputs(format, jax.random.key(i), rows) for i, rows in enumerate((x, y)))
    mean = np.mean([sketch_mmd2(*pair) for pair in zip(a, b)])
    assert sketch_mmd2(sketching.joined(a), sketching.joined(b)) == pytest.approx(mean, rel=1e-4)
    # Stage 1 reads what stage 2 computes with in full.
    assert mmd2_from_embeddings(mean_embedding(a), mean_embedding(b).mean[None], [41])[0] == pytest.approx(
        mean, rel=1e-4
    )
    back = sketching.from_file(sketching.to_file({"inputs": a, "fc/1": b}))
    assert float(sketch_mmd2(back["inputs"][0], back["fc/1"][0])) == float(sketch_mmd2(a[0], b[0]))
    both = [merge(*pair) for pair in zip(a, b)]
    assert int(both[0].counts.sum()) == 81


def test_whole_groups_share_a_bin():
    format = settings.format_for((3,))._replace(num_features=32, bins=8)
    groups = np.repeat(np.arange(24), 5)
    x = np.random.default_rng(0).normal(0, 1, (120, 3)).astype(np.float32)
    sketches = sketching.sketch_inputs(format, jax.random.key(0), x, groups)
    assert all(np.array_equal(sketch.counts, [15] * 8) for sketch in sketches)
    bins = sketching._bins_of_groups(jax.random.key(0), groups, 8)
    assert all(len({*bins[groups == group]}) == 1 for group in range(24)) and len({*bins}) == 8
    with pytest.raises(ValueError, match="5 groups for 8 bins"):
        sketching.sketch_inputs(format, jax.random.key(0), x, np.arange(120) % 5)


def hits(accuracy, n=400, seed=0):
    return np.random.default_rng(seed).permutation(n) < accuracy * n


@pytest.mark.parametrize("groups", [None, np.arange(400) // 4])
def test_advice(groups):
    low, high = hits(0.5, seed=1), hits(0.8, seed=2)
    found = advise(["a", "b"], [low, hits(0.5, seed=3)], low, [hits(0.45, seed=4)] * 2, groups=groups)
    assert found.best is None and "none; train from scratch" in found.sentence
    found = advise(["a", "b", "c"], [low, high, hits(0.79, seed=5)], hits(0.5, seed=6), [low] * 3, groups=groups)
    assert found.best == "b" and found.ties == ("c",) and "it ties with c" in found.sentence
    assert [s.name for s in found.standings] == ["b", "c", "a"]
    assert "no other entry ties" in advise(["a"], [high], low, [low], groups=groups).sentence
    # Better than one bar alone is not enough.
    assert advise(["a"], [high], hits(0.82, seed=7), [low], groups=groups).best is None
    # The bar of an untrained network is each entry's own.
    own = [hits(0.82, seed=8), low]
    found = advise(["a", "b"], [high, hits(0.75, seed=9)], low, own, groups=groups)
    assert found.best == "b" and found.baselines["untrained"] == low.mean()


def test_advice_keeps_its_level():
    random, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        rows = random.random((5, 60)) < 0.6
        wrong += advise(list("abc"), list(rows[:3]), rows[3], [rows[4]] * 3).best is not None
    assert wrong <= 5


def test_agreement_of_planted_signals():
    random = np.random.default_rng(0)
    accuracy = {f"t{i}": {f"e{j}": float(random.random()) for j in range(8)} for i in range(12)}
    signals = {
        "right": accuracy,
        "wrong": {t: {e: -v for e, v in of.items()} for t, of in accuracy.items()},
        "same": {t: dict.fromkeys(of, 1.0) for t, of in accuracy.items()},
        "missing": {"t0": accuracy["t0"]},
    }
    found = {one.signal: one for one in agreements(accuracy, signals)}
    assert list(found) == ["right", "same", "wrong", "random"]
    assert found["right"].spearman.estimate == pytest.approx(1) and found["right"].lost.estimate == 0
    assert found["wrong"].kendall.estimate == pytest.approx(-1)
    assert found["same"].spearman.estimate == 0
    assert abs(found["random"].spearman.estimate) < 0.1 and found["random"].lost.estimate > 0.2


def test_the_demonstration_s_data_differ_as_they_should(tmp_path):
    found = {}
    for number, variant in enumerate(demonstration.VARIANTS):
        demonstration._write(tmp_path / "a.npz", variant, seed=number)
        found[variant.name] = workdir.read_npz(tmp_path / "a.npz")
    assert len(found) >= 6 and all(of["x"].shape[1:] == (12, 12, 1) for of in found.values())
    means = {name: of["x"].mean() for name, of in found.items()}
    assert means["inverted_0-4"] > 150 > 60 > means["moved_0-4"]
    assert means["shuffled_0-4"] == pytest.approx(means["moved_0-4"], rel=1e-6)
    where = {name: of["x"].std(axis=0).astype(float) for name, of in found.items()}
    assert (where["still_0-4"][:2] == 0).all() and (where["moved_0-4"][:2] > 0).any()
    assert set(found["moved_0-1"]["y"]) == {0, 1} and list(found["moved_0-1"]["class_names"]) == ["0", "1"]
