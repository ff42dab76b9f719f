import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from experiments import config as configs
from experiments.collection import trial
from experiments.config import Config, Data, Model, Training
from experiments.pairing import settings as pairing_settings
from experiments.regret import settings as regret_settings
from experiments.strategy import settings as strategy_settings
from experiments.study import settings as study_settings
from experiments.words import settings as word_settings
from tests.experiments import tiny

HERE = Path(__file__).parents[2]
# Of scripts with settings of their own; all others read a `Config`.
LOADERS = {
    "decision_benchmark": regret_settings.load,
    "library_study": trial.load,
    "transferability": study_settings.load,
    "strategies": strategy_settings.load,
    "pairings": pairing_settings.load,
    "sentiment": word_settings.load,
}


def load(*argv, config=tiny.PATH):
    return configs.load(["--config", str(config), *argv])


def test_a_config_file_is_read_and_any_field_can_be_set_again():
    config, directory = load("--train.epochs", "7", "--target.classes", "1", "cat", "--decision.num-frozen", "3")
    expected = replace(
        tiny.config,
        train=replace(tiny.config.train, epochs=7),
        target=replace(tiny.config.target, classes=("1", "cat")),
        decision=replace(tiny.config.decision, num_frozen=3),
    )
    assert config == expected and directory == Path("runs/tiny")
    assert load("--workdir", "elsewhere")[1] == Path("elsewhere")
    assert load("--train.learning_rates=1e-2")[0].train.learning_rates == (1e-2,)
    assert load("--test.bandwidth", "None")[0].test.bandwidth is None


@pytest.mark.parametrize("path", sorted((HERE / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_that_comes_with_the_project_is_valid(path):
    load_of = LOADERS.get(re.search(r"python -m experiments\.(\w+) --config", path.read_text())[1], configs.load)
    config, directory = load_of(["--config", str(path)])
    assert config.name == path.stem == directory.name
    assert f"--config configs/{path.name}" in path.read_text()


def test_a_section_survives_json():
    data = Data("digits", classes=("1", "2"), part=(0, 2), size=(8, 8))
    as_json = {f.name: list(v) if isinstance(v := getattr(data, f.name), tuple) else v for f in fields(data)}
    assert Data(**configs.from_json(as_json)) == data


def test_no_config():
    with pytest.raises(ValueError, match="--config is missing; name a file, for example --config configs/quickstart"):
        configs.load([])
    with pytest.raises(FileNotFoundError, match=r"no config at .*nope\.py; in .* there is .*tiny\.py"):
        load(config=tiny.PATH.with_name("nope.py"))


@pytest.mark.parametrize(
    "content, message",
    [
        ("config = 3", "must define config = Config"),
        ("", "must define config = Config"),
        ("config = Config(nam='x')", "can't be run: TypeError: .*unexpected keyword argument 'nam'"),
        ("config = Config(", "can't be run: SyntaxError"),
        ("config = Config(train=Training(epochs='5'))", r"train\.epochs = '5'; expected int"),
        ("config = Config(train=Training(epochs=5.0))", r"train\.epochs = 5\.0; expected int"),
        (
            "config = Config(train=Training(learning_rates=1e-3))",
            r"train\.learning_rates = 0\.001; expected tuple\[float, \.\.\.\]",
        ),
        ("config = Config(target=Data(classes=['1', '2']))", r"target\.classes = \['1', '2'\]; expected tuple\[str"),
        (
            "config = Config(target=Data(size=(8, 8, 1)))",
            r"target\.size = \(8, 8, 1\); expected tuple\[int, int\] \| None",
        ),
        ("config = Config(test=TwoSample(resampling='x'))", r"test\.resampling = 'x'; expected .*'permutation'"),
        ("config = Config(seed=True)", "seed = True; expected int"),
        ("config = Config(target='digits')", "target = 'digits'; expected Data"),
    ],
)
def test_config_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "own.py"
    path.write_text(f"from experiments.config import *\n{content}\n")
    with pytest.raises(ValueError, match=message) as error:
        load(config=path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--train.epoch 5", "there is no field --train.epoch; perhaps you meant --train.epochs"),
        ("--tran.epochs=5", "perhaps you meant --train.epochs"),
        ("--qqq 5", "there is no field --qqq; --help lists them"),
    ],
)
def test_misspelt_fields_are_named_with_the_nearest(flags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(*flags.split())


@pytest.mark.parametrize("flags", ["--train.epochs five", "--test.resampling jackknife", "--seed"])
def test_values_that_cannot_be_read(flags, capsys):
    with pytest.raises(SystemExit) as exit:
        load(*flags.split())
    assert exit.value.code not in (0, None)
    assert flags.split()[0] in capsys.readouterr().err


OUT_OF_RANGE = [
    *[("test.alpha", value) for value in ("0", "1", "-0.1", "1.5", "nan", "0.04")],  # 19 permutations: p >= 0.05
    *[("test.bandwidth", value) for value in ("0", "-1", "nan", "inf")],
    *[("test.permutations", value) for value in ("0", "-5")],
    *[("test.max-rows", value) for value in ("1", "0")],
    *[(f"{part}.learning-rates", value) for part in ("train", "pretrain") for value in ("0", "-1e-3", "nan", "inf")],
    ("train.learning-rates", "1e-3 nan"),
    ("train.learning-rates", "1e-3 0.001"),
    ("train.learning-rates", ""),
    *[(f"{part}.batch-size", value) for part in ("train", "pretrain") for value in ("0", "-8")],
    *[("train.epochs", value) for value in ("0", "-1")],
    *[("train.patience", value) for value in ("0",)],
    *[("train.validation-fraction", value) for value in ("0", "1", "nan")],
    *[("train.weight-decay", value) for value in ("-1", "inf", "nan")],
    *[("train.clip-norm", value) for value in ("-1", "nan")],
    ("train.cache-limit-mb", "-1"),
    *[("decision.pretrained-rate", value) for value in ("0", "-1", "inf", "nan")],
    *[("decision.small", value) for value in ("0", "20000")],
    ("decision.small-per-class", "0"),
    *[("target.limit", value) for value in ("0", "1", "-3")],
    *[("target.test-fraction", value) for value in ("0", "1")],
    ("model.width", "0"),
    ("model.hidden", "16 0"),
    *[("seed", value) for value in ("-1", str(2**32))],
    ("checkpoint-seconds", "-1"),
]


@pytest.mark.parametrize("field, value", OUT_OF_RANGE)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"{field.replace('-', '_')} = .*; expected "):
        load(f"--{field}", *value.split())


def test_the_smallest_level_at_which_something_can_be_rejected():
    assert load("--test.alpha", "0.05")[0].test.permutations == 19
    assert load("--test.permutations", "99", "--test.alpha", "0.01")
    assert load("--test.permutations", "28", "--test.alpha", str(1 / 29))


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"test.alpha = 2.*; train.epochs = 0"):
        load("--test.alpha", "2", "--train.epochs", "0")


def test_without_source_there_must_be_weights():
    config = replace(tiny.config, source=None)
    with pytest.raises(ValueError, match=r"source is none and model\.weights is empty"):
        configs.check(config)
    configs.check(replace(config, model=Model(weights="w.npz")))


def test_every_field_has_a_type_that_the_check_knows():
    """The default of each field passes the check of types, and a wrong one of each is refused."""
    for name, value, kind in configs._fields(Config, Config()):
        assert configs._fits(value, kind), name
        assert not configs._fits(object(), kind), name


def test_sections_can_be_hashed_and_compared():
    assert len({Config(), Config(), Config(seed=1)}) == 2
    assert all(is_dataclass(section) for section in (Data(), Model(), Training()))
