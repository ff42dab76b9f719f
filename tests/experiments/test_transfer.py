import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import checkpoints, fits, transfer, workdir
from experiments.benchmarks.kill import differences, left
from experiments.workdir import read_json, read_metrics
from mmd_jax.models.mlp import mlp
from mmd_jax.transfer import finetune
from mmd_jax.transfer.decision import stages_of
from mmd_jax.types import Plan, Rows
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("compiled_once")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the project catches it. The real one is in experiments/benchmarks/kill.py."""


@pytest.fixture(scope="module")
def finished(compiled_once, tmp_path_factory):
    """A run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    transfer.run(tiny.config, directory)
    return directory


def expect_the_same(finished, directory):
    assert not differences(left(finished), left(directory))


def test_the_result_has_what_the_docs_promise(finished):
    result = read_json(finished / "result.json")
    test_of_inputs = result["two_sample"]["inputs"]
    for test in (test_of_inputs, *result["two_sample"]["layers"].values()):
        assert {
            "mmd2_unbiased",
            "mmd_biased",
            "pvalue",
            "threshold",
            "reject",
            "m",
            "n",
            "permutations",
            "bandwidth",
        } <= set(test)
        assert test["reject"] == (test["mmd2_unbiased"] > test["threshold"])
        assert (test["m"], test["n"], test["permutations"]) == (50, 50, 19)
    assert list(result["two_sample"]["layers"]) == ["fc1", "fc2"]
    assert result["similarity"]["kind"] == ("different" if test_of_inputs["reject"] else "similar")
    assert {"rule", "regime", "frozen", "trained", "reinitialised", "cached", "reason"} <= set(result["plan"])
    accuracy = result["accuracy"]
    assert accuracy["paired_difference"] == pytest.approx(accuracy["chosen"] - accuracy["from_scratch"])
    assert accuracy["interval"][0] <= accuracy["paired_difference"] <= accuracy["interval"][1]
    assert accuracy["num_test"] == 60
    arrays = checkpoints.load_arrays(finished / "model")[0]
    assert result["num_parameters"]["total"] == sum(a.size for n, a in arrays.items() if n.startswith("params/"))
    assert result["frozen_unchanged"] is (True if result["plan"]["frozen"] else None)
    assert set(result["seconds"]) == {"load", "pretrain", "measure", "reuse", "from_scratch", "evaluate"}
    assert result["seed"] == 0 and result["device"] and result["versions"]["jax"]


def test_accuracies_are_those_of_the_kept_predictions(finished):
    result, evidence = read_json(finished / "result.json"), workdir.read_npz(finished / "evidence.npz")
    for arm in ("chosen", "from_scratch"):
        assert result["accuracy"][arm] == np.mean(evidence[f"test/{arm}"] == evidence["test/labels"])


def test_tested_rows_are_neither_trained_on_nor_target_test_rows(finished):
    """The splits of a run: source rows of the test are its held-out rows, and no row is in both parts."""
    splits = workdir.read_npz(finished / "splits.npz")
    for name in ("source", "target"):
        assert not set(splits[f"{name}/train"]) & set(splits[f"{name}/test"])


def test_the_same_command_again_only_remakes_what_is_missing(finished, tmp_path):
    directory = shutil.copytree(finished, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    transfer.run(tiny.config, directory)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()} == before
    (directory / "report.html").unlink()
    transfer.run(tiny.config, directory)
    assert (directory / "report.html").read_bytes() == (finished / "report.html").read_bytes()
    assert (directory / "result.json").read_bytes() == (finished / "result.json").read_bytes()


def killing(monkeypatch, at):
    """Ends the run at its `at`-th durable act: a rename (half of them before it, half after) or a row of metrics."""
    count = 0

    def interrupted(function):
        def act(*arguments, **settings):
            nonlocal count
            count += 1
            if count == at and at % 2:
                raise Killed
            function(*arguments, **settings)
            if count == at:
                raise Killed

        return act

    for module, name in ((os, "rename"), (os, "replace"), (workdir, "append_metrics")):
        monkeypatch.setattr(module, name, interrupted(getattr(module, name)))
    return lambda: count


def test_a_run_killed_at_any_durable_act_ends_as_an_undisturbed_one(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        total = killing(patch, at=0)
        tiny.compute(tmp_path / "counted")
    assert total() > 25
    # Every act would take minutes; these are spread over the run, and the script kills at random.
    for at in sorted({2, 3, *np.linspace(5, total(), 6).astype(int).tolist()}):
        directory = tmp_path / f"killed-at-{at}"
        with monkeypatch.context() as patch:
            killing(patch, at)
            with pytest.raises(Killed):
                tiny.compute(directory)
        tiny.compute(directory)
        (directory / "report.html").write_text("not made here")
        expect_the_same(finished, directory)


def killed_in(directory, fit, step, monkeypatch):
    """A run that was killed as it wrote a row of metrics."""
    append = workdir.append_metrics

    def act(path, row):
        append(path, row)
        if (row["fit"], row["step"]) == (fit, step):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(workdir, "append_metrics", act)
        with pytest.raises(Killed):
            tiny.compute(directory)


def damage(path, how):
    largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    largest.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "one byte flipped"])
def test_a_damaged_checkpoint_is_skipped_and_named_and_the_metrics_are_cut_back(
    finished, tmp_path, monkeypatch, capsys, how
):
    directory = tmp_path / "run"
    rows = [row for row in read_metrics(finished / "metrics.jsonl") if row["fit"].startswith("reuse")]
    fit, steps = rows[0]["fit"], [row["step"] for row in rows]
    killed_in(directory, fit, steps[2], monkeypatch)
    newest, before = sorted((directory / "checkpoints" / fit).iterdir(), reverse=True)
    assert [int(newest.name), int(before.name)] == steps[1::-1]
    damage(newest, how)

    cut, seen = workdir.cut_metrics, []

    def watched(path, **settings):
        cut(path, **settings)
        seen.extend(row["step"] for row in read_metrics(path) if row["fit"] == fit == settings["fit"])

    monkeypatch.setattr(workdir, "cut_metrics", watched)
    capsys.readouterr()
    tiny.compute(directory)
    assert f"warning: checkpoint {newest} is damaged and was skipped" in capsys.readouterr().err
    assert seen == steps[:1]
    (directory / "report.html").write_text("not made here")
    expect_the_same(finished, directory)


def test_without_any_good_checkpoint_a_fit_begins_again(finished, tmp_path, monkeypatch, capsys):
    directory = tmp_path / "run"
    fit, last = (read_metrics(finished / "metrics.jsonl")[-1][name] for name in ("fit", "step"))
    killed_in(directory, fit, last, monkeypatch)
    for path in (directory / "checkpoints" / fit).iterdir():
        damage(path, "truncated")
    tiny.compute(directory)
    assert capsys.readouterr().err.count("is damaged and was skipped") == 2
    (directory / "report.html").write_text("not made here")
    expect_the_same(finished, directory)


def test_until_plan_then_the_whole_command_in_the_same_folder(finished, tmp_path, capsys):
    directory = tmp_path / "run"
    transfer.run(replace(tiny.config, until="plan"), directory)
    assert (directory / "decision.json").exists() and not (directory / "result.json").exists()
    assert not (directory / "report.html").exists()
    decided, printed = read_json(directory / "decision.json"), capsys.readouterr().out
    assert decided["plan"]["reason"] in printed and decided["similarity"]["evidence"] in printed
    for regime in ("linear_probe", "finetune_top", "finetune_all", "lp_ft", "from_scratch"):
        assert regime in printed
    tiny.compute(directory)
    (directory / "report.html").write_text("not made here")
    expect_the_same(finished, directory)


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_good_state(finished, tmp_path, monkeypatch, capsys):
    directory = tmp_path / "run"
    fit = next(row["fit"] for row in read_metrics(finished / "metrics.jsonl") if row["fit"].startswith("reuse"))
    steps = [row["step"] for row in read_metrics(finished / "metrics.jsonl") if row["fit"] == fit]
    whole = finetune.run_chunk

    def poisoned(state, *arguments, **settings):
        state, metrics = whole(state, *arguments, **settings)
        last = int(state.step) == steps[2] and (directory / "checkpoints" / fit).exists()
        return state, {**metrics, "loss": metrics["loss"] * np.nan} if last else metrics

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "run_chunk", poisoned)
        with pytest.raises(SystemExit) as exit:
            transfer.main(["--config", str(tiny.PATH), "--workdir", str(directory)])
    assert re.fullmatch(
        rf"error: {fit}: the loss became nan .* the last good state is kept in .*{fit}", exit.value.code
    )
    assert not (directory / "result.json").exists()
    assert max(int(path.name) for path in (directory / "checkpoints" / fit).iterdir()) == steps[1]
    assert [row["step"] for row in read_metrics(directory / "metrics.jsonl") if row["fit"] == fit] == steps[:2]
    # The state that was kept is good: from there the run ends as one that was never poisoned.
    tiny.compute(directory)
    (directory / "report.html").write_text("not made here")
    expect_the_same(finished, directory)


def test_a_learning_rate_that_diverges(tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"pretrain-rate1e\+30-stage0: the loss became .* lower the learning rate"
    ):
        tiny.compute(tmp_path / "run", pretrain={"learning_rates": (1e30,), "optimizer": "sgd", "clip_norm": 0.0})


def test_a_learning_rate_that_diverges_beside_one_that_does_not(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)).astype(np.float32)
    rows = Rows(x, (x[:, 0] > 0).astype(np.int32))
    train, valid = Rows(rows.x[:40], rows.y[:40]), Rows(rows.x[40:], rows.y[40:])
    network = mlp(2, hidden=(4,))
    plan = Plan("given", "from_scratch", stages_of("from_scratch", network.layers), "")

    def adapted(directory, *rates):
        directory.mkdir(exist_ok=True)
        settings = replace(tiny.training, learning_rates=rates, optimizer="sgd", clip_norm=0.0)
        place = (directory, "reuse", jax.random.key(0), network, {}, plan, train, valid, settings)
        return fits.adapt(*place, checkpoint_seconds=0.0)

    alone = adapted(tmp_path / "alone", 0.1)
    found = adapted(tmp_path / "both", 1e30, 0.1)
    assert "learning rate 1e+30 is left out: reuse-rate1e+30-stage0: the loss became" in capsys.readouterr().err
    again = adapted(tmp_path / "both", 1e30, 0.1)  # goes on from where each of them stands
    for one in (found, again):
        assert (one.learning_rate, one.valid_loss) == (0.1, alone.valid_loss)
        jax.tree.map(np.testing.assert_array_equal, one.variables, alone.variables)
    with pytest.raises(finetune.NonFiniteLossError, match="reuse-rate1e\\+29-stage0: the loss became"):
        adapted(tmp_path / "none", 1e30, 1e29)


def test_a_work_directory_of_another_config(finished, tmp_path):
    directory = shutil.copytree(finished, tmp_path / "copy")
    (directory / "result.json").unlink()
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as exit:
        transfer.main(["--config", str(tiny.PATH), "--workdir", str(directory), "--train.epochs", "7", "--seed", "1"])
    assert exit.value.code.startswith(f"error: the work directory {directory} was started by another config")
    assert "train.epochs: 3 there, 7 now" in exit.value.code and "seed: 0 there, 1 now" in exit.value.code
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_a_resumed_run_holds_to_the_plan_it_began_with(finished, tmp_path):
    directory = shutil.copytree(finished, tmp_path / "copy")
    (directory / "result.json").unlink()
    decision = read_json(directory / "decision.json")
    [stage] = decision["plan"]["stages"]
    stage["frozen"], stage["trained"] = ["fc1"], stage["trained"][1:]
    (directory / "decision.json").write_text(json.dumps(decision))
    with pytest.raises(ValueError, match=r"was trained under another plan than the one in decision\.json"):
        tiny.compute(directory)


@pytest.mark.slow
def test_the_command_and_its_exit_status(finished, tmp_path):
    """Through the shell: a finished run prints its answer; an error is one line on stderr and status 1."""
    directory = shutil.copytree(finished, tmp_path / "copy")
    command = [sys.executable, "-m", "experiments.transfer", "--config", str(tiny.PATH), "--workdir", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and f"Report: {directory / 'report.html'}" in done.stdout
    command[-1] = str(tmp_path / "new")
    refused = subprocess.run([*command, "--decision.rule", "vibes"], capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.count("\n") == 1 and refused.stderr.startswith("error: ")
    assert not (tmp_path / "new").exists()
