"""The study: what each network copies and trains, that it is what it says, and that nothing is lost."""

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import transferability
from experiments.cells import fingerprint
from experiments.config import Data, Model
from experiments.study import settings as study
from experiments.study import treatments
from experiments.study.halves import Half, Split, load_halves, split_classes
from experiments.study.settings import Fit, Study
from experiments.study.treatments import Bases, Task
from experiments.workdir import read_json, read_metrics
from mmd_jax.models.leaves import take
from mmd_jax.transfer import finetune
from mmd_jax.types import Rows

PATH = Path("configs/figure2_tiny.py")
TINY: Study = runpy.run_path(str(PATH))["config"]
DIGITS = tuple("0123456789")


def rows_of(directory):
    """The rows of a study by name, without times."""
    rows = read_metrics(directory / "networks" / "cells.jsonl")
    return {row["cell"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study") / "run"
    transferability.run(TINY, directory, "the command")
    return directory


# The whole


def test_a_study_has_every_network_once_and_its_report(finished):
    rows = rows_of(finished)
    # A split, half and seed: base, long, two cuts of four treatments and of random filters, and a distance.
    assert len(rows) == 2 * 2 * (1 + 1 + 2 * 5 + 1)
    assert {(row["treatment"], row["n"]) for row in rows.values()} == {
        ("base", 0),
        ("long", 0),
        ("distance", 0),
        *((treatment, n) for treatment in ("AnB", "BnB", "AnB+", "BnB+", "random") for n in (1, 2)),
    }
    assert all(0 <= row["accuracy"] <= 1 for row in rows.values() if "accuracy" in row)
    summary = read_json(finished / "study.json")
    assert summary["header"]["layers"] == ["fc1", "fc2", "fc3"]
    for name in ("report.html", "table.csv", "figures/figure2.svg", "figures/figure2.png"):
        assert (finished / name).stat().st_size > 0
    assert "the command" in (finished / "report.html").read_text()


def test_the_same_command_again_trains_nothing_and_more_seeds_go_on(finished, tmp_path, monkeypatch, capsys):
    before = (finished / "networks" / "cells.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(treatments, "rate_batch", lambda *_: pytest.fail("a finished network was trained again"))
        transferability.main(["--config", str(PATH), "--workdir", str(finished)])
    assert (finished / "networks" / "cells.jsonl").read_bytes() == before
    assert f"Report: {finished / 'report.html'}" in capsys.readouterr().out

    # Another study in the same folder is refused; a larger one of the same settings is a continuation.
    with pytest.raises(SystemExit, match=r"(?s)started by another config.*fit\.epochs: 6 there, 7 now"):
        transferability.main(["--config", str(PATH), "--workdir", str(finished), "--fit.epochs", "7"])
    splits = split_classes(TINY, DIGITS, ())
    assert split_classes(replace(TINY, splits=7), DIGITS, ())[:2] == splits
    more = replace(TINY, seeds=2, splits=3, controls=(), workers=1)

    def prints(settings, rows="the rows"):
        found = treatments.transfers(settings, split_classes(settings, DIGITS, ()), 3)
        return {fingerprint(treatments.cell_of(settings, task, 3, rows)) for task in found if task.treatment == "AnB"}

    assert prints(TINY) < prints(more)
    assert not prints(TINY) & prints(replace(TINY, fit=Fit(epochs=7)))
    assert not prints(TINY) & prints(TINY, "other rows")


def test_a_study_that_was_stopped_goes_on_and_a_lost_base_comes_out_the_same(finished, tmp_path, monkeypatch, capsys):
    directory, done = tmp_path / "run", []
    whole = treatments.rate_batch

    def stopped(study, tasks, *others):
        if len(done) == 9:
            raise RuntimeError("stopped here")
        done.append(tasks)
        return whole(study, tasks, *others)

    alone = replace(TINY, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(treatments, "rate_batch", stopped)
        with pytest.raises(RuntimeError, match="stopped here"):
            transferability.run(alone, directory)
    assert len(rows_of(directory)) == 9
    [first, second, *_] = sorted((directory / "bases").glob("*.npz"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-200])
    transferability.run(alone, directory)
    assert len(re.findall("is missing or changed; it is trained again", capsys.readouterr().err)) == 2
    assert rows_of(directory) == rows_of(finished)
    tables = [(folder / "table.csv").read_text() for folder in (directory, finished)]
    assert tables[0] == tables[1]


def test_networks_trained_as_a_batch_are_those_trained_alone(finished, tmp_path):
    transferability.run(replace(TINY, together=3, workers=1, controls=("random",)), tmp_path / "run")
    alone = rows_of(finished)
    for name, row in rows_of(tmp_path / "run").items():
        if "loss" in row:
            assert row["loss"] == pytest.approx(alone[name]["loss"], rel=1e-3), name
            assert abs(row["accuracy"] - alone[name]["accuracy"]) <= 0.011  # a row of the 100 near the boundary


def test_a_study_compiles_a_program_a_cut_and_not_a_network(tmp_path):
    # Sizes that no other test has, so that nothing is compiled already.
    small = replace(TINY, images_per_class=11, model=Model("mlp", hidden=(13, 7)), splits=1, controls=())
    before = finetune.run_chunk._cache_size()
    transferability.run(small, tmp_path / "one")
    once = finetune.run_chunk._cache_size()
    assert once - before == 3  # all layers trained; one frozen; two frozen
    transferability.run(replace(small, splits=2, seeds=2), tmp_path / "two")
    assert finetune.run_chunk._cache_size() == once


def test_several_devices_share_the_networks_and_agree(finished, tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
import jax
from experiments import transferability
from experiments.study import treatments
assert treatments.Devices(None).workers == jax.local_device_count() == 2
used = set()
whole = treatments.rate_batch
def watched(*arguments):
    used.add(jax.config.jax_default_device)
    return whole(*arguments)
treatments.rate_batch = watched
transferability.main(["--config", {str(PATH)!r}, "--workdir", {str(tmp_path / "run")!r}, "--controls"])
assert len(used) == 2, used
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, timeout=300)
    alone = rows_of(finished)
    for name, row in rows_of(tmp_path / "run").items():
        if "loss" in row:
            assert row["loss"] == pytest.approx(alone[name]["loss"], rel=1e-3), name


# What each network is


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every network of one split before and after training, by treatment and n; cnn8's eight layers, a few steps."""
    settings = replace(TINY, model=Model("cnn8", width=2), fit=Fit(epochs=1, batch_size=50), splits=1, keep=0)
    [split] = split_classes(settings, DIGITS, ())
    pair = load_halves(settings, split)
    bases = Bases(tmp_path_factory.mktemp("bases"))
    networks = {}
    for half in "AB":
        task = Task(split, half, 0, "base")
        [row] = treatments.rate_batch(settings, [task], lambda _: pair, bases)
        network = treatments.network_of(settings, pair[0])
        template = jax.eval_shape(network.init, jax.random.key(0), pair[0].train.x[:1])
        assert bases.there(task, row, template)
    for treatment in ("base", "AnB", "BnB", "AnB+", "BnB+", "random"):
        for n in (0,) if treatment == "base" else (3, 7):
            task = Task(split, "B", 0, treatment, n)
            prepared = treatments.prepare(settings, network, task, pair[1], bases)
            [state], _ = treatments.train(network, [prepared], treatments.recipe_of(settings, treatment), 0.05)
            networks[treatment, n] = prepared, state.best
    return network, {half: bases.get(task, half) for half in "AB"}, networks


def same(first, second, layers):
    ours, theirs = (take(variables, layers) for variables in (first, second))
    return {path: np.array_equal(ours[path], theirs[path]) for path in ours}


@pytest.mark.parametrize("n", [3, 7])
@pytest.mark.parametrize("treatment", ["AnB", "BnB", "AnB+", "BnB+"])
def test_the_first_layers_are_the_named_base_s_and_frozen_ones_stay_so_bit_for_bit(trained, treatment, n):
    network, bases, networks = trained
    own, other = (bases["A"], bases["B"]) if treatment.startswith("A") else (bases["B"], bases["A"])
    prepared, after = networks[treatment, n]
    below, above = network.layers[:n], network.layers[n:]
    assert all(same(prepared.variables, own, below).values())
    kernels = [path for path in take(own, below) if path.endswith("kernel")]
    assert not any(same(prepared.variables, other, below)[path] for path in kernels)
    assert not any(same(prepared.variables, own, above)[path] for path in take(own, above) if path.endswith("kernel"))
    moved = same(prepared.variables, after, below)
    assert all(moved.values()) if not treatment.endswith("+") else not any(moved[path] for path in kernels)
    assert not any(ok for path, ok in same(prepared.variables, after, above).items() if path.endswith("kernel"))


def test_new_layers_are_the_same_for_all_treatments_and_not_those_the_base_began_with(trained):
    network, _, networks = trained
    head = (network.layers[-1],)
    starts = {name: prepared.variables for name, (prepared, _) in networks.items()}
    reference = starts["AnB", 3]
    for name, variables in starts.items():
        kernel = f"params/{head[0]}/kernel"
        assert same(variables, reference, head)[kernel] == (name[0] != "base")
    orders = {name: np.asarray(jax.random.key_data(one.order_key)).tolist() for name, (one, _) in networks.items()}
    assert all((order == orders["AnB", 3]) == (name[0] != "base") for name, order in orders.items())
    # Random filters are neither those of the new layers' key nor a base's.
    filters = starts["random", 3]
    assert not any(ok for p, ok in same(filters, starts["AnB", 7], network.layers[:3]).items() if p.endswith("kernel"))
    assert all(same(networks["random", 3][1], filters, network.layers[:3]).values())


def test_kept_layers_are_copied_and_trained_and_copied_ones_may_have_a_smaller_rate():
    layers = ("a", "b", "c", "d")
    stage = treatments.stage_of(Study(keep=1, copied_rate=0.1), layers, "AnB", 2)
    assert (stage.frozen, stage.trained, stage.reinitialised) == (("a", "b"), (("c", 0.1), ("d", 1.0)), ("d",))
    stage = treatments.stage_of(Study(keep=9), layers, "BnB", 2)
    assert stage.reinitialised == ("d",)
    stage = treatments.stage_of(Study(keep=1, copied_rate=0.1), layers, "AnB+", 2)
    assert stage.frozen == () and stage.trained == (("a", 0.1), ("b", 0.1), ("c", 1.0), ("d", 1.0))
    assert stage.reinitialised == ("c", "d")
    assert treatments.stage_of(Study(keep=1), layers, "random", 2).reinitialised == ("c", "d")
    assert treatments.stage_of(Study(), layers, "base", 0).reinitialised == layers


def few_rows(seed, *, shuffled=False, classes=2, per_class=12):
    """Two halves whose classes can be told apart, with error; or labels that say nothing."""
    random = np.random.default_rng(seed)

    def rows(count):
        y = np.repeat(np.arange(classes), count).astype(np.int32)
        x = random.normal(size=(len(y), 6)).astype(np.float32) + 1.2 * np.eye(classes, 6, dtype=np.float32)[y]
        return Rows(x, random.permutation(y) if shuffled else y)

    return tuple(Half(rows(per_class), rows(200), tuple(f"{half}{c}" for c in range(classes))) for half in ("a", "b"))


def accuracies(settings, pair, tasks, directory):
    bases = Bases(directory)
    rows = treatments.rate_batch(settings, tasks, lambda _: pair, bases)
    return np.array([row["accuracy"] for row in rows])


SMALL = Study(model=Model("mlp", hidden=(8,)), fit=Fit(epochs=4, batch_size=8, learning_rate=0.05))
SPLIT = Split("random", 0, ("a0", "a1"), ("b0", "b1"))


def test_bnb_at_cut_zero_is_a_base_in_distribution(tmp_path):
    pair = few_rows(0)
    found = [
        accuracies(SMALL, pair, [Task(SPLIT, "B", seed, treatment) for seed in range(60)], tmp_path)
        for treatment in ("base", "BnB")
    ]
    assert not np.array_equal(*found)
    assert stats.ks_2samp(*found).pvalue > 1e-3
    assert stats.ttest_ind(*found).pvalue > 1e-3
    assert found[0].std() > 0.005  # else the comparison would say nothing


def test_shuffled_labels_bring_every_curve_to_chance(tmp_path):
    means = {}
    for seed in range(6):
        pair = few_rows(seed, shuffled=True)
        bases = Bases(tmp_path / str(seed))
        for half in "AB":
            task = Task(SPLIT, half, seed, "base")
            [row] = treatments.rate_batch(SMALL, [task], lambda _, pair=pair: pair, bases)
            network = treatments.network_of(SMALL, pair[0])
            assert bases.there(task, row, jax.eval_shape(network.init, jax.random.key(0), pair[0].train.x[:1]))
            means.setdefault("base", []).append(row["accuracy"])
        for treatment in ("long", "AnB", "BnB", "AnB+", "BnB+", "random"):
            for half in "AB":
                task = Task(SPLIT, half, seed, treatment, 0 if treatment == "long" else 1)
                [row] = treatments.rate_batch(SMALL, [task], lambda _, pair=pair: pair, bases)
                means.setdefault(treatment, []).append(row["accuracy"])
    for treatment, values in means.items():
        # Test labels are independent of everything: each accuracy is a binomial share of 400 rows.
        assert abs(np.mean(values) - 0.5) < 4.5 * 0.5 / np.sqrt(400 * len(values)), treatment
    # The same rows with their own labels are learnt, so the test above can fail.
    assert accuracies(SMALL, few_rows(0), [Task(SPLIT, "A", 0, "base")], tmp_path)[0] > 0.6


# Splits of the classes


def test_random_splits_halve_the_classes_and_none_comes_twice():
    splits = split_classes(Study(splits=100), DIGITS, ())
    assert [split.number for split in splits] == list(range(100))
    for split in splits:
        assert len(split.a) == len(split.b) == 5 and {*split.a, *split.b} == {*DIGITS}
        assert list(split.a) == sorted(split.a)
    assert len({frozenset({frozenset(split.a), frozenset(split.b)}) for split in splits}) == 100
    share = np.mean(["0" in split.a for split in splits])
    assert 0.3 < share < 0.7
    assert split_classes(Study(splits=126), DIGITS, ())  # all there are
    with pytest.raises(ValueError, match="splits = 127, but 10 classes have 126 splits"):
        split_classes(Study(splits=127), DIGITS, ())
    with pytest.raises(ValueError, match="splits = 1, but 3 classes have 0 splits"):
        split_classes(Study(splits=1), DIGITS[:3], ())


def test_splits_by_kind_draw_each_half_from_its_kind():
    by_kind = Study(splits=1, dissimilar_splits=60, kind_a=("0", "1", "2", "3"), kind_b=("4", "5", "6", "7", "8", "9"))
    splits = [split for split in split_classes(by_kind, DIGITS, ()) if split.kind == "dissimilar"]
    assert len({(split.a, split.b) for split in splits}) == 60
    for split in splits:
        assert len(split.a) == len(split.b) == 3 and {*split.a} <= {*by_kind.kind_a} and {*split.b} <= {*by_kind.kind_b}
    [single] = split_classes(replace(by_kind, splits=0, dissimilar_splits=1), DIGITS, ())
    assert single.a == by_kind.kind_a and len(single.b) == 5
    with pytest.raises(ValueError, match=r"dissimilar_splits = 81, but .* in 80 ways"):
        split_classes(replace(by_kind, dissimilar_splits=81), DIGITS, ())
    with pytest.raises(ValueError, match="kind_b names x; the classes are 0, 1"):
        split_classes(replace(by_kind, kind_b=("x", "4")), DIGITS, ())


def test_two_data_sets_are_the_halves_of_a_dissimilar_split():
    two = Study(splits=0, dissimilar_splits=1, other=Data("digits", size=(6, 6)), images_per_class=4, test_per_class=3)
    [split] = split_classes(two, DIGITS, DIGITS)
    a, b = load_halves(two, split)
    assert a.train.x.shape == b.train.x.shape == (20, 8, 8, 1)  # B is brought to A's format
    assert (np.bincount(a.train.y) == 4).all() and (np.bincount(b.test.y) == 3).all()


def test_each_class_has_its_rows_or_the_study_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    y = np.repeat(["a", "b", "c", "d"], [60, 20, 20, 20])
    np.savez(tmp_path / "rows.npz", x=x, y=np.unique(y, return_inverse=True)[1])
    settings = Study(data=Data(f"npz:{tmp_path / 'rows.npz'}"), splits=1, images_per_class=10, test_per_class=3)
    [split] = split_classes(settings, ("0", "1", "2", "3"), ())
    for half in load_halves(settings, split):
        assert np.bincount(half.train.y).tolist() == [10, 10] and np.bincount(half.test.y).tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"^per_class of npz:.* = 16, but the smallest class has 15 rows"):
        load_halves(replace(settings, images_per_class=16), split)


def test_other_rows_under_the_same_name_are_not_taken_for_the_old_ones(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "rows.npz"
    settings = replace(
        TINY, data=Data(f"npz:{path}"), splits=1, cuts=(1,), treatments=(), controls=(), test_per_class=None
    )
    settings = replace(settings, fit=Fit(epochs=1, batch_size=16))
    found = []
    for _ in range(2):
        x = random.normal(size=(160, 4)).astype(np.float32)
        np.savez(path, x=x, y=np.arange(160) % 4)
        transferability.run(settings, tmp_path / "run")
        found.append(read_metrics(tmp_path / "run" / "networks" / "cells.jsonl"))
    assert len(found[1]) == 2 * len(found[0])


# Bad input


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"splits": 0}, "splits and dissimilar_splits are both 0"),
        ({"splits": -1}, "splits = -1; expected 0 or more"),
        ({"seeds": 0}, "seeds = 0; expected at least 1"),
        ({"images_per_class": 0}, "images_per_class = 0; expected at least 1"),
        ({"cuts": (0, 1)}, r"cuts = \(0, 1\); expected 1 or more"),
        ({"cuts": (1, 1)}, "expected each once"),
        ({"copied_rate": 0.0}, "copied_rate = 0.0; expected a positive share"),
        ({"keep": -1}, "keep = -1"),
        ({"dissimilar_splits": 1}, "needs kind_a and kind_b"),
        ({"dissimilar_splits": 1, "kind_a": ("0", "1"), "kind_b": ("1", "2")}, "share 1;"),
        ({"other": Data("digits")}, "other is given, but dissimilar_splits is 0"),
        ({"data": Data("digits", classes=("0", "1"))}, "data.classes = .* classes are halved here"),
        ({"data": Data("digits", limit=5)}, "data.limit = 5"),
        ({"fit": Fit(epochs=0)}, "fit.epochs = 0"),
        ({"fit": Fit(learning_rate=float("nan"))}, "fit.learning_rate = nan"),
        ({"fit": Fit(warmup_epochs=99)}, "fit.warmup_epochs = 99"),
        ({"model": Model(weights="x.npz")}, "a study trains its own networks"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        study.check(replace(Study(), **changes))


def test_a_cut_beyond_the_network_and_the_other_script_s_config_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"cuts = \(3,\); the network has 3 layers .* expected 1 … 2"):
        transferability.main(["--config", str(PATH), "--workdir", str(tmp_path / "run"), "--cuts", "3"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit, match=r"must define config = Study.* config is Config; another script reads it"):
        transferability.main(["--config", "configs/quickstart.py"])
    with pytest.raises(SystemExit, match="the network has one layer, which is always new"):
        transferability.main(["--config", str(PATH), "--workdir", str(tmp_path / "run"), "--model.hidden"])
    with pytest.raises(SystemExit, match="there is no field --sedes; perhaps you meant --seeds"):
        transferability.main(["--config", str(PATH), "--sedes", "3"])


def test_a_loss_that_is_not_finite_names_the_network(tmp_path):
    pair = few_rows(0)
    wild = replace(SMALL, fit=Fit(epochs=3, batch_size=8, learning_rate=1e30, clip_norm=0.0))
    with pytest.raises(FloatingPointError, match="random 0 / B / seed 3 / base: the loss became"):
        treatments.rate_batch(wild, [Task(SPLIT, "B", 3, "base")], lambda _: pair, Bases(tmp_path))


def test_a_section_that_only_the_file_has_can_be_set(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(
        "from experiments.config import Data\nfrom experiments.study.settings import Study\n"
        "config = Study(splits=0, dissimilar_splits=1, other=Data('digits'))\n"
    )
    found, _ = study.load(["--config", str(path), "--other.size", "6", "6"])
    assert found.other == Data("digits", size=(6, 6))
