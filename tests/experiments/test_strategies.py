"""The comparison of strategies: every plan trained once, resumed, tested as pairs, and the rules' choices marked."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import strategies, workdir
from experiments.config import Data, Model, Training
from experiments.report import strategies as report
from experiments.strategy import settings
from experiments.strategy.settings import Strategies
from experiments.strategy.summary import Choice, summarise
from mmd_jax.models.leaves import named_leaves
from mmd_jax.models.mlp import mlp
from tests.experiments import tiny

QUICK = Training(epochs=2, batch_size=16, learning_rates=(3e-3,))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("strategies")
    variables = mlp(5, hidden=(16, 12, 8)).init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    np.savez(folder / "weights.npz", **{name: np.asarray(leaf) for name, leaf in named_leaves(variables).items()})
    run = replace(
        tiny.config,
        source=None,
        target=Data("digits", classes=("5", "6", "7", "8", "9"), test_limit=80),
        model=Model("mlp", hidden=(16, 12, 8), weights=str(folder / "weights.npz")),
        data_dir=str(folder / "data"),
    )
    run = replace(run, decision=replace(run.decision, small=50, large=50, small_per_class=8))
    study = Strategies("tiny", run, labels=(30, 60), probe=QUICK, finetune=QUICK, scratch=QUICK)
    strategies.run(study, folder / "run", "the command")
    return study, folder / "run", workdir.read_json(folder / "run" / "strategies.json")


def test_every_strategy_and_every_choice_is_trained_at_every_number_of_labels(finished):
    _, _, found = finished
    ways = {labels: [way["way"] for way in found["ways"] if way["labels"] == labels] for labels in (30, 60)}
    both = ["linear_probe", "finetune_top 2 frozen", "finetune_all", "from_scratch"]
    assert ways[30] == [*both, "finetune_top 1 frozen augmented"]  # 6 rows a class: small for the quadrant
    assert ways[60] == both  # 12 rows a class: large
    chosen = {(c["labels"], c["rule"], c["assumed"]): c["way"] for c in found["choices"]}
    assert chosen[30, "patent", "similar"] == chosen[30, "quadrant", "similar"] == "linear_probe"
    assert chosen[30, "patent", "different"] == "from_scratch"
    assert chosen[30, "quadrant", "different"] == "finetune_top 1 frozen augmented"
    assert chosen[60, "patent", "similar"] == chosen[60, "quadrant", "different"] == "finetune_all"
    share = {(way["labels"], way["way"]): way["accuracy"]["estimate"] for way in found["ways"]}
    for choice in found["choices"]:
        best = max(value for (labels, _), value in share.items() if labels == choice["labels"])
        assert choice["cost"]["estimate"] == pytest.approx(best - share[choice["labels"], choice["way"]])


def test_the_same_command_trains_nothing_again(finished, monkeypatch):
    study, directory, found = finished
    (directory / "report.html").unlink()
    monkeypatch.setattr(strategies, "rate", lambda *_: pytest.fail("trained again"))
    strategies.run(study, directory, "the command")
    assert workdir.read_json(directory / "strategies.json") == found
    assert (directory / "report.html").exists()


def test_outputs_of_the_frozen_base_are_kept_on_disk(finished):
    study, _, found = finished
    probe = next(way for way in found["ways"] if way["way"] == "linear_probe")
    assert probe["cached"] and probe["frozen"] == 3
    kept = list((workdir.Path(study.run.data_dir) / "cache" / "features").glob("*.npz"))
    # Training, validation and test rows of two sizes, behind two and behind three layers; the test rows are the same.
    assert len(kept) == 2 * (2 * 2 + 1)


def test_the_numbers_are_those_of_the_predictions():
    true = [0, 1] * 50
    row = {"labels": 10, "true": true, "seconds": 1.0}
    rows = [
        row | {"way": "linear_probe", "regime": "linear_probe", "predicted": [0, 1] * 45 + [1, 0] * 5},
        row | {"way": "finetune_all", "regime": "finetune_all", "predicted": [1, 0] * 20 + [0, 1] * 30},
        row | {"way": "from_scratch", "regime": "from_scratch", "predicted": true},
    ]
    choices = {10: [Choice("patent", "similar", "linear_probe")]}
    found = summarise({"labels": [10]}, rows, choices)
    assert [way["accuracy"]["estimate"] for way in found["ways"]] == [0.9, 0.6, 1.0]
    [choice] = found["choices"]
    assert choice["best"] == "from_scratch" and choice["cost"]["estimate"] == pytest.approx(0.1)
    assert choice["cost"]["low"] > 0
    less = {(d["way"], d["less"]): d["estimate"] for d in found["differences"]}
    assert less["finetune_all", "linear_probe"] == pytest.approx(-0.3) and less["linear_probe", "from_scratch"] < 0
    said = report.answer(found)
    assert said.startswith("With 10 labels every way of reuse is worse than from scratch (negative transfer).")


def test_the_page_shows_every_way_and_choice(finished):
    _, directory, found = finished
    page = (directory / "report.html").read_text()
    assert "the command" in page and "1 layer frozen, augmented" in page and "<script" not in page
    assert page.count("<tr") == len(found["ways"]) + len(found["choices"]) + 2
    table = (directory / "ways.csv").read_text().splitlines()
    assert len(table) == len(found["ways"]) + 1


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"labels": ()}, "labels = ()"),
        ({"labels": (5, 5)}, "different numbers"),
        ({"epochs": (3, 2, 1)}, "epochs = (3, 2, 1)"),
        ({"frozen_share": 1.0}, "frozen_share = 1.0"),
        ({"run": tiny.config}, "set run.source to None"),
        ({"probe": replace(QUICK, epochs=0)}, "probe.epochs = 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, said):
    run = replace(tiny.config, source=None, model=Model("mlp", weights="w.npz"))
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        settings.check(replace(Strategies("x", run), **changes))
