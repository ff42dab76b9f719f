import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import networks, predict, transfer, workdir
from experiments.config import Config, Data
from experiments.workdir import read_json
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def finished(compiled_once, tmp_path_factory):
    """A run whose network has learnt something, so that right and wrong predictions differ."""
    directory = tmp_path_factory.mktemp("runs") / "learnt"
    training = {"epochs": 12, "learning_rates": (3e-2,)}
    tiny.compute(directory, train=training, pretrain=training)
    return directory


def lines(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def command(*arguments):
    predict.main([str(argument) for argument in arguments])


def refused(*arguments):
    with pytest.raises(SystemExit) as exit:
        command(*arguments)
    assert exit.value.code.startswith("error: ") and "\n" not in exit.value.code
    return exit.value.code


def test_the_target_gives_the_reported_accuracy(finished, tmp_path, capsys):
    out = tmp_path / "p.csv"
    command(finished / "model", "target", "--out", out)
    reported = read_json(finished / "result.json")["accuracy"]
    rows, evidence = lines(out), workdir.read_npz(finished / "evidence.npz")
    assert 0.3 < reported["chosen"] < 1
    assert np.mean([row["class"] == row["label"] for row in rows]) == reported["chosen"]
    classes = read_json(finished / "model" / "description.json")["classes"]
    assert [classes.index(row["class"]) for row in rows] == evidence["test/chosen"].tolist()
    assert [classes.index(row["label"]) for row in rows] == evidence["test/labels"].tolist()
    assert [int(row["row"]) for row in rows] == workdir.read_npz(finished / "splits.npz")["target/test"].tolist()
    right = round(reported["chosen"] * reported["num_test"])
    assert f"accuracy {reported['chosen']:.6g} ({right} of 60 rows" in capsys.readouterr().out


@pytest.mark.parametrize("worse", [True, False, None, "absent"])
def test_a_network_that_lost_to_from_scratch_says_so(worse, finished, tmp_path, capsys, monkeypatch):
    network, variables, description = networks.load_network(finished / "model")
    assert description["negative_transfer"] == read_json(finished / "result.json")["negative_transfer"]
    del description["negative_transfer"]  # as in the folder of an older run
    description |= {} if worse == "absent" else {"negative_transfer": worse}
    monkeypatch.setattr(networks, "load_network", lambda path: (network, variables, description))
    command(finished / "model", "target", "--out", tmp_path / "p.csv")
    assert ("negative transfer" in capsys.readouterr().err) == (worse is True)


def test_load_model_is_all_that_one_needs(finished, tmp_path):
    """Logits of `load_model` lead to the predictions and probabilities of the command."""
    apply, variables, classes = networks.load_model(finished / "model")
    assert classes == ("5", "6", "7", "8", "9")
    command(finished / "model", "target", "--out", tmp_path / "p.csv")
    target = transfer.phases.load(tiny.config).target
    logits = np.asarray(apply(variables, target.test_x), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = lines(tmp_path / "p.csv")
    assert [row["class"] for row in rows] == [classes[i] for i in logits.argmax(-1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities.max(-1), atol=2e-6)


def test_the_same_settings_by_name_and_the_training_rows(finished, tmp_path, capsys):
    command(finished / "model", "target", "--out", tmp_path / "a.csv")
    settings = ["--data.classes", "5", "6", "7", "8", "9", "--data.test-limit", "60"]
    command(finished / "model", "digits", *settings, "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    command(finished / "model", "target", "--split", "train", "--out", tmp_path / "c.csv")
    splits = workdir.read_npz(finished / "splits.npz")
    assert [int(row["row"]) for row in lines(tmp_path / "c.csv")] == splits["target/train"].tolist()


def test_labels_are_compared_by_name_not_by_number(finished, tmp_path, capsys):
    """Classes in another order, and one that the network does not know."""
    out = tmp_path / "p.csv"
    command(finished / "model", "digits", "--data.classes", "9", "3", "5", "--data.test-limit", "40", "--out", out)
    rows = lines(out)
    known = [row for row in rows if row["label"] != "3"]
    right = sum(row["class"] == row["label"] for row in known)
    printed = capsys.readouterr().out
    assert f"({right} of {len(known)} rows" in printed
    assert f"{len(rows) - len(known)} rows are of other classes than the network's (5, 6, 7, 8, 9)" in printed
    command(finished / "model", "digits", "--data.classes", "0", "1", "--out", out)
    assert "accuracy unknown" in capsys.readouterr().out


def test_inputs_without_labels(finished, tmp_path, capsys):
    """An npz file with x alone and a folder with images directly in it are predicted as the labelled rows are."""
    target = transfer.phases.load(tiny.config).target
    np.savez(tmp_path / "x.npz", x=target.test_x)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(target.test_x):
        Image.fromarray(image[..., 0]).save(tmp_path / "images" / f"{i:03d}.png")
    command(finished / "model", "target", "--out", tmp_path / "labelled.csv")
    capsys.readouterr()
    command(finished / "model", f"npz:{tmp_path / 'x.npz'}", "--out", tmp_path / "npz.csv")
    command(finished / "model", f"folder:{tmp_path / 'images'}", "--out", tmp_path / "folder.csv")
    assert "accuracy" not in capsys.readouterr().out
    expected = [(row["class"], row["probability"]) for row in lines(tmp_path / "labelled.csv")]
    for name, first in (("npz", "0"), ("folder", "000.png")):
        rows = lines(tmp_path / f"{name}.csv")
        assert [(row["class"], row["probability"]) for row in rows] == expected
        assert rows[0]["row"] == first and "label" not in rows[0]


def test_images_are_brought_to_the_networks_format(finished, tmp_path):
    """Coloured 16×16 images whose every pixel is four times a grey one of 8×8: the fixed map undoes it."""
    target = transfer.phases.load(tiny.config).target
    large = np.repeat(target.test_x.repeat(2, axis=1).repeat(2, axis=2), 3, axis=3)
    np.savez(tmp_path / "small.npz", x=target.test_x)
    np.savez(tmp_path / "large.npz", x=large)
    for name in ("small", "large"):
        command(finished / "model", f"npz:{tmp_path / name}.npz", "--out", tmp_path / f"{name}.csv")
    small, large = (lines(tmp_path / f"{name}.csv") for name in ("small", "large"))
    # PIL's bilinear filter reaches beyond the four pixels, so that near ties may turn.
    assert np.mean([a["class"] == b["class"] for a, b in zip(small, large)]) > 0.7


def test_bad_input_is_refused_and_nothing_is_written(finished, tmp_path):
    out = ("--out", tmp_path / "p.csv")
    assert "there is no folder" in refused(tmp_path / "nowhere", "target", *out)
    assert "expected the model/ folder of a run" in refused(finished, "target", *out)
    assert "there are digits" in refused(finished / "model", "mnsit", *out)
    assert "perhaps you meant --data.classes" in refused(finished / "model", "digits", "--data.clases", "1", *out)
    np.savez(tmp_path / "rows.npz", x=np.ones((4, 3)))
    message = refused(finished / "model", f"npz:{tmp_path / 'rows.npz'}", *out)
    assert "float32 [3], but the network takes uint8 [8, 8, 1]" in message
    np.savez(tmp_path / "empty.npz", x=np.ones((0, 8, 8), np.uint8))
    assert "has no rows" in refused(finished / "model", f"npz:{tmp_path / 'empty.npz'}", *out)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"not an image")
    assert "a.png is not an image" in refused(finished / "model", f"folder:{tmp_path / 'images'}", *out)
    assert not (tmp_path / "p.csv").exists()


def test_a_changed_byte_in_the_model_is_noticed(finished, tmp_path):
    path = shutil.copytree(finished / "model", tmp_path / "model")
    content = (path / "description.json").read_text()
    (path / "description.json").write_text(re.sub(r'"classes": \[\s*"5"', '"classes": ["4"', content))
    assert "is damaged" in refused(path, "target", "--out", tmp_path / "p.csv")


def test_rows_that_are_not_images(compiled_once, tmp_path):
    """Float rows go from training to prediction without a change of format; a NaN among them is refused."""
    random = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = random.normal(size=(120, 5)) + 2 * np.eye(3, 5)[y]
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    data = Data(f"npz:{tmp_path / 'rows.npz'}")
    config = Config(**{**vars(tiny.config), "source": data, "target": data})
    transfer.compute(config, tmp_path / "run")
    command(tmp_path / "run" / "model", "target", "--out", tmp_path / "p.csv")
    rows = lines(tmp_path / "p.csv")
    reported = read_json(tmp_path / "run" / "result.json")["accuracy"]["chosen"]
    assert np.mean([row["class"] == row["label"] for row in rows]) == reported
    x[7, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=x)
    message = refused(tmp_path / "run" / "model", f"npz:{tmp_path / 'nan.npz'}", "--out", tmp_path / "q.csv")
    assert "row 7" in message and not (tmp_path / "q.csv").exists()


def test_a_network_of_half_precision_predicts_in_half_precision(finished, tmp_path):
    directory = tmp_path / "run"
    weights = {"weights": str(finished / "model")}
    tiny.compute(directory, source=None, model=weights, train={"precision": "bfloat16", "learning_rates": (3e-2,)})
    command(directory / "model", "target", "--out", tmp_path / "p.csv")
    classes = read_json(directory / "model" / "description.json")["classes"]
    predicted = workdir.read_npz(directory / "evidence.npz")["test/chosen"]
    assert [classes.index(row["class"]) for row in lines(tmp_path / "p.csv")] == predicted.tolist()
