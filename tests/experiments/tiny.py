"""The smallest run of the main job that goes through every phase; a config, and what the tests of runs share."""

from dataclasses import replace
from pathlib import Path

from experiments import phases, transfer
from experiments.config import Config, Data, Decision, Model, Training, TwoSample

training = Training(epochs=3, batch_size=32, learning_rates=(3e-3,))

config = Config(
    name="tiny",
    source=Data("digits", classes=("0", "1", "2", "3", "4"), limit=100, test_limit=60),
    target=Data("digits", classes=("5", "6", "7", "8", "9"), limit=60, test_limit=60),
    model=Model("mlp", hidden=(16,)),
    test=TwoSample(permutations=19, max_rows=50),
    decision=Decision(rule="quadrant"),
    pretrain=training,
    train=training,
    checkpoint_seconds=0.0,
)

PATH = Path(__file__)


def compute(directory, **changes):
    """A run without its report. `model={"factory": …}` changes fields of a section, `source=None` replaces it."""
    transfer.compute(changed(**changes), directory)


def decide(directory, **changes):
    """A run as far as decision.json, without the costs that `--until plan` estimates."""
    config = changed(**changes)
    data = phases.load(config)
    networks, keys = phases.build(config, data), phases.make_keys(config.seed)
    phases.open_workdir(config, directory)
    pretrained = phases.pretrain(config, directory, keys.pretrain, networks, data)
    return phases.measure_and_decide(config, directory, keys.measure, networks, pretrained, data)


def changed(**changes):
    sections = {
        name: replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **sections)
