"""Every bad input of the main job: one line on stderr that says what is wrong, exit status not 0, nothing written."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments import networks, transfer
from experiments.datasets import stock
from tests.experiments import tiny
from tests.experiments.own import save_weights


def refused(tmp_path, *flags, config=tiny.PATH):
    """The error of a command, which must have left no trace."""
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    workdir = tmp_path / "run"
    with pytest.raises(SystemExit) as exit:
        transfer.main(["--config", str(config), "--workdir", str(workdir), *map(str, flags)])
    message = exit.value.code
    assert isinstance(message, str) and message.startswith("error: ") and "\n" not in message, message
    assert not workdir.exists()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    return message


@pytest.mark.parametrize(
    "flags, expected",
    [
        ("--train.epoch 5", "perhaps you meant --train.epochs"),
        ("--target.name mnsit", "no data set 'mnsit'; there are digits, mnist, fashion_mnist, cifar10, tfds:"),
        ("--model.name resnet51", "unknown model 'resnet51'; there are cnn8, mlp"),
        ("--decision.rule vibes", "decision.rule = 'vibes'; there are patent, quadrant, evidence"),
        ("--decision.regime lora", "decision.regime = 'lora'; there are linear_probe, finetune_top, finetune_all"),
        ("--decision.representation fc9", "decision.representation = 'fc9'; there are inputs, fc1, fc2"),
        ("--decision.num-frozen -1", "decision.num_frozen = -1; the network has 2 layers"),
        ("--decision.num-frozen 2", "expected 0 … 1"),
        ("--target.classes 5 cat", "no class 'cat'; there are 0, 1, 2"),
        ("--target.classes 5", "a single class, '5'"),
        ("--target.limit 2", "2 rows can't hold the 5 classes"),
        ("--target.size 0 4", "height and width must be at least 1"),
        ("--target.part 2 2", "(i, k) is part i = 0 … k−1"),
        ("--test.alpha 0.01", "below which nothing is ever rejected"),
        ("--test.alpha 1", "a level between 0 and 1"),
        ("--test.bandwidth 0", "test.bandwidth = 0.0; expected a positive number"),
        ("--test.permutations 0", "test.permutations = 0"),
        ("--train.learning-rates -1", "train.learning_rates = (-1.0,)"),
        ("--pretrain.batch-size 0", "pretrain.batch_size = 0"),
        ("--model.std 0", "model.std = (0.0,); expected positive, finite numbers"),
        ("--model.std inf", "model.std = (inf,); expected positive, finite numbers"),
        ("--model.std nan", "model.std = (nan,); expected positive, finite numbers"),
        ("--model.mean nan", "model.mean = (nan,); expected finite numbers"),
        ("--model.mean 1e39", "model.mean = (1e+39,); expected finite numbers"),
        ("--model.mean 1 2", "model.mean has 2 values, but the inputs have 1 channels"),
        ("--model.factory nonsense", 'expected "package.module:function"'),
        ("--model.factory no_such_module:f", "no module 'no_such_module'"),
        ("--model.factory tests.experiments.own:nothing", "callable there: from_layers, Block, Own, linen"),
        ("--model.factory tests.experiments.own:wrong_output", "has shape (6,); expected (5,)"),
        (
            "--model.factory tests.experiments.own:named_inputs",
            "a layer named 'inputs', which in a report is the test of",
        ),
        ("--model.factory tests.experiments.own:linen --model.layers below head", "belongs to none of the layers"),
        ("--model.weights nowhere.npz", "no weights at nowhere.npz"),
    ],
)
def test_settings(tmp_path, flags, expected):
    assert expected in refused(tmp_path, *flags.split())


def test_wild_bootstrap_needs_pairs(tmp_path):
    message = refused(
        tmp_path, "--test.resampling", "wild_bootstrap", "--test.max-rows", 1000, "--source.test-limit", 50
    )
    assert "m = 50 and n = 60; set test.max_rows to at most 50, or use 'permutation'" in message


def test_missing_config(tmp_path):
    assert "no config at" in refused(tmp_path, config=tmp_path / "nope.py")
    with pytest.raises(SystemExit, match="error: --config is missing"):
        transfer.main(["--workdir", str(tmp_path / "run")])


def test_a_data_set_that_is_absent_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(stock, "_reachable", lambda builder_class: False)
    assert "run `make data`" in refused(tmp_path, "--target.name", "mnist", "--data-dir", tmp_path / "none")
    message = refused(tmp_path, "--target.name", "tfds:no_such_set", "--data-dir", tmp_path / "none")
    assert "no_such_set" in message
    assert "there is no folder" in refused(tmp_path, "--target.name", f"folder:{tmp_path / 'none'}")
    assert "there is no file" in refused(tmp_path, "--target.name", f"npz:{tmp_path / 'none.npz'}")


def test_an_image_file_that_is_none(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), 10 * i).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "dog" / "2.png").write_text("not an image")
    flags = ["--target.name", f"folder:{tmp_path / 'images'}", "--data-dir", tmp_path / "data", "--target.classes"]
    assert "dog/2.png is not an image" in refused(tmp_path, *flags)


RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(40, 6)), np.arange(40) % 2


def with_bad(value):
    x = X.copy()
    x[7, 3] = value
    return x


@pytest.mark.parametrize(
    "arrays, expected",
    [
        ({"x": with_bad(np.nan), "y": Y}, "NaN or infinite numbers (first: column 3 of row 7)"),
        ({"x": with_bad(np.inf), "y": Y}, "NaN or infinite numbers (first: column 3 of row 7)"),
        ({"x": X[:1], "y": Y[:1]}, "single row"),
        ({"x": X[:0], "y": Y[:0]}, "no rows"),
        ({"x": X, "y": 0 * Y}, "a single class, '0'"),
        ({"x": X[:3], "y": np.arange(3)}, "one row of each class"),
        ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "has no test rows"),
        ({"x": X, "y": Y, "x_test": X[:3], "y_test": np.array([0, 1, 7])}, "classes that have no training rows: 7"),
        ({"x": X, "y": Y[:30]}, "40 inputs, 30 labels"),
        ({"x": X, "y": Y / 2}, "labels in"),
        ({"x": X}, "has no array 'y'"),
        ({"x": X.astype(str), "y": Y}, "not numbers"),
        ({"x": X[:, :4], "y": Y}, "source and target differ in feature size: rows [6] and rows [4]"),
        (
            {"x": np.zeros((40, 8, 8), np.uint8), "y": Y},
            "source and target differ in feature size: rows [6] and images",
        ),
    ],
)
def test_rows(tmp_path, arrays, expected):
    np.savez(tmp_path / "source.npz", x=X, y=Y)
    np.savez(tmp_path / "target.npz", **arrays)
    names = ["--source.name", f"npz:{tmp_path / 'source.npz'}", "--target.name", f"npz:{tmp_path / 'target.npz'}"]
    empty = ["--source.classes", "--target.classes", "--source.limit", "None", "--target.limit", "None"]
    limits = ["--source.test-limit", "None", "--target.test-limit", "None"]
    assert expected in refused(tmp_path, *names, *empty, *limits)


def test_a_file_that_is_cut_off(tmp_path):
    np.savez(tmp_path / "target.npz", x=X, y=Y)
    content = (tmp_path / "target.npz").read_bytes()
    (tmp_path / "target.npz").write_bytes(content[: len(content) // 2])
    message = refused(tmp_path, "--target.name", f"npz:{tmp_path / 'target.npz'}", "--target.classes")
    assert "not a readable .npz file" in message


def weights_file(tmp_path, **changes):
    """Weights of the mlp of `tiny`, 64 → 16 → 5."""
    arrays = {
        "fc1/kernel": np.ones((64, 16), np.float32),
        "fc1/bias": np.zeros(16, np.float32),
        "fc2/kernel": np.ones((16, 5), np.float32),
        "fc2/bias": np.zeros(5, np.float32),
    }
    path = tmp_path / "weights.npz"
    save_weights(path, {name: a for name, a in {**arrays, **changes}.items() if a is not None})
    return path


@pytest.mark.parametrize(
    "changes, expected",
    [
        (
            {"fc1/kernel": np.ones((64, 32), np.float32)},
            "shape (64, 32), the network's params/fc1/kernel has shape (64, 16)",
        ),
        ({"fc1/bias": None}, "no tensor for params/fc1/bias"),
        ({"fc2/bias": np.full(5, np.nan, np.float32)}, "NaN or infinite"),
        (
            {"fc2/kernel": np.ones((16, 10), np.float32), "fc2/bias": np.zeros(10, np.float32)},
            "has 10 outputs and the source sample has 5 classes; give a source with the classes that the network was trained on",
        ),
        (
            {"fc2/kernel": None, "fc2/bias": None},
            "no tensors for the last layer 'fc2', which rows of the source need; give",
        ),
        (
            {"fc2/kernel": np.ones((8, 5), np.float32)},
            "shape (8, 5), the network's params/fc2/kernel has shape (16, 5)",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, changes, expected):
    assert expected in refused(tmp_path, "--model.weights", weights_file(tmp_path, **changes))


def test_tensors_without_a_place_are_named(tmp_path, capsys):
    path = weights_file(tmp_path, **{"ema/fc2/kernel": np.ones((16, 5), np.float32), "step": np.int64(7)})
    example, model = np.zeros((1, 8, 8, 1), np.uint8), replace(tiny.config.model, weights=str(path))
    for with_head in (True, False):
        networks.restore(model, networks.build(model, 5, example), example, with_head=with_head)
        expected = f"warning: {path} has tensors that the network has no place for: ema/fc2/kernel, step\n"
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "weights.bin"])
def test_weight_files_that_are_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00garbage" * 100)
    assert f"weights at {tmp_path / name}" in refused(tmp_path, "--model.weights", tmp_path / name)


def test_weights_in_a_folder_that_is_no_checkpoint(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.txt").write_text("hello")
    assert "is not an Orbax checkpoint" in refused(tmp_path, "--model.weights", tmp_path / "folder")


def test_work_directories_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for workdir, expected in (
        (tmp_path / "file", "can't be made"),
        (tmp_path / "file" / "below", "can't be made"),
        (tmp_path / "full", "holds files (thesis.tex) but no config.json"),
    ):
        with pytest.raises(SystemExit) as exit:
            transfer.main(["--config", str(tiny.PATH), "--workdir", str(workdir)])
        assert exit.value.code.startswith(f"error: the work directory {workdir}") and expected in exit.value.code
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_through_the_shell(tmp_path):
    command = [sys.executable, "-m", "experiments.transfer", "--config", str(tiny.PATH)]
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run"), "--target.name", "mnsit"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: there is no data set 'mnsit'") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
