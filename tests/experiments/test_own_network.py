"""A user's own network and weights through the whole main job: as a linen module, as (init, apply), and as a stack."""

import csv
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoints, measure, phases, predict, transfer, workdir
from experiments.config import Data
from experiments.workdir import read_json
from mmd_jax.models.leaves import layer_of, named_leaves
from mmd_jax.models.whole import WHOLE
from tests.experiments import own, tiny
from tests.experiments.own import save_weights

pytestmark = pytest.mark.usefixtures("compiled_once")

FACTORY = "tests.experiments.own:"
LAYERS = ["below", "above", "head"]


@pytest.fixture(scope="module")
def folder(compiled_once, tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def arrays():
    """A trained network's tensors, as a user has them: by "/"-joined names without the collection."""
    variables = own.Own(5).init(jax.random.key(7), jnp.zeros((1, 8, 8, 1)))
    random = np.random.default_rng(7)
    return {
        path.partition("/")[2]: np.asarray(leaf)
        + np.abs(random.normal(size=np.shape(leaf)) * 0.1).astype(np.float32) * path.startswith("batch_stats")
        for path, leaf in named_leaves(variables).items()
    }


@pytest.fixture(scope="module")
def weights(folder, arrays):
    path = folder / "own.npz"
    save_weights(path, arrays)
    return str(path)


@pytest.fixture(scope="module")
def linen_run(folder, arrays):
    """The linen module with its own safetensors weights, source rows at hand, report and all."""
    path = folder / "own.safetensors"
    save_weights(path, {name.replace("/", "."): array for name, array in arrays.items()})
    config = tiny.changed(
        model={"factory": FACTORY + "linen", "weights": str(path), "mean": (0.3,), "std": (0.4,)},
        decision={"regime": "finetune_top", "num_frozen": 1},
    )
    transfer.run(config, folder / "linen")
    return folder / "linen"


def result_of(directory):
    return read_json(directory / "result.json")


def model_of(directory):
    return checkpoints.load_arrays(directory / "model")[0]


def layers_of(arrays, layer):
    return {name: a for name, a in arrays.items() if layer_of(name.partition("/")[2], (layer,))}


def expect_predict_reproduces_the_accuracy(directory, out):
    predict.main([str(directory / "model"), "target", "--out", str(out)])
    with open(out, newline="") as file:
        right = [row["class"] == row["label"] for row in csv.DictReader(file)]
    assert np.mean(right) == result_of(directory)["accuracy"]["chosen"]


def test_linen_with_its_own_weights(linen_run, arrays, tmp_path):
    result, model = result_of(linen_run), model_of(linen_run)
    assert list(result["two_sample"]["layers"]) == LAYERS
    assert "The network was restored" in result["two_sample"]["note"]
    tensors = read_json(linen_run / "tensors.json")
    assert {name.replace(".", "/") for _, name in tensors["matched"]} == set(arrays)
    assert not tensors["fresh"] and not tensors["left_over"]
    assert (result["plan"]["frozen"], result["plan"]["trained"]) == (["below"], ["above", "head"])
    assert result["frozen_unchanged"] is True
    assert not result["plan"]["cached"] and WHOLE in result["plan"]["stages"][0]["cache_reason"]
    given = {name: arrays[name.partition("/")[2]] for name in model}
    # Frozen: parameters and batch statistics are the file's, bit for bit. Trained: both have moved.
    for name, array in layers_of(model, "below").items():
        assert array.tobytes() == given[name].tobytes(), name
    moved = {name for name, array in layers_of(model, "above").items() if array.tobytes() != given[name].tobytes()}
    assert moved == set(layers_of(model, "above")) and any("batch_stats" in name for name in moved)
    assert (linen_run / "report.html").stat().st_size > 1000
    expect_predict_reproduces_the_accuracy(linen_run, tmp_path / "p.csv")


def test_only_init_and_apply(folder, tmp_path):
    """Pretrained on the source here; features of the last layer alone, freezing by name, no cache and why."""
    directory = folder / "functions"
    tiny.compute(directory, model={"factory": FACTORY + "functions"}, decision={"regime": "linear_probe"})
    result, model = result_of(directory), model_of(directory)
    assert list(result["two_sample"]["layers"]) == ["b"]
    assert (result["plan"]["frozen"], result["plan"]["trained"]) == (["a"], ["b"])
    assert not result["plan"]["cached"] and WHOLE in result["plan"]["stages"][0]["cache_reason"]
    [fit] = [path for path in (directory / "checkpoints").iterdir() if path.name.startswith("pretrain")]
    newest = sorted(fit.iterdir())[-1]
    pretrained = checkpoints.load_arrays(newest / "arrays")[0]
    assert pretrained["best/params/a"].tobytes() == model["params/a"].tobytes()
    assert pretrained["best/params/b"].tobytes() != model["params/b"].tobytes()
    expect_predict_reproduces_the_accuracy(directory, tmp_path / "p.csv")


def test_nnx(folder, tmp_path):
    """Pretrained on the source here, a part of it frozen: parameters and batch statistics stay, bit for bit."""
    directory = folder / "nnx"
    decision = {"regime": "finetune_top", "num_frozen": 2}
    tiny.compute(directory, model={"factory": FACTORY + "Module"}, decision=decision)
    result, model = result_of(directory), model_of(directory)
    names = ["below", "below_norm", "above", "above_norm", "head"]
    assert list(result["two_sample"]["layers"]) == names
    assert (result["plan"]["frozen"], result["plan"]["trained"]) == (names[:2], names[2:])
    assert result["frozen_unchanged"] is True
    [fit] = [path for path in (directory / "checkpoints").iterdir() if path.name.startswith("pretrain")]
    pretrained = checkpoints.load_arrays(sorted(fit.iterdir())[-1] / "arrays")[0]
    for name in names:
        same = {a.tobytes() == pretrained[f"best/{path}"].tobytes() for path, a in layers_of(model, name).items()}
        assert same == {name in names[:2]}, name
    assert not np.array_equal(pretrained["best/batch_stats/below_norm/mean"], np.zeros(16))  # it was in training mode
    expect_predict_reproduces_the_accuracy(directory, tmp_path / "p.csv")


def stack(weights, directory, *, decision=None, **changes):
    """A run of the stack without source rows: nothing to pretrain, nothing to measure."""
    model = {"factory": FACTORY + "stack", "weights": str(weights)}
    tiny.compute(directory, source=None, model=model, decision=decision or {}, **changes)
    return result_of(directory)


REGIMES = {
    "linear_probe": (LAYERS[:2], LAYERS[2:], True),
    "finetune_top": (LAYERS[:1], LAYERS[1:], True),
    "finetune_all": ([], LAYERS, False),
    "lp_ft": ([], LAYERS, True),
    "from_scratch": ([], LAYERS, False),
}


@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_of_a_stack_that_can_be_cut(regime, folder, weights, arrays):
    result = stack(weights, folder / regime, decision={"regime": regime, "num_frozen": 1})
    model, plan = model_of(folder / regime), result["plan"]
    frozen, trained, cached = REGIMES[regime]
    assert (plan["rule"], plan["regime"]) == ("given", regime)
    assert (set(plan["frozen"]), set(plan["trained"]), plan["cached"]) == (set(frozen), set(trained), cached)
    assert result["frozen_unchanged"] is (True if cached else None)
    for layer in LAYERS:
        same = [
            array.tobytes() == arrays[name.partition("/")[2]].tobytes()
            for name, array in layers_of(model, layer).items()
        ]
        assert all(same) if layer in frozen else not any(same)
    stages = [stage["cached"] for stage in plan["stages"]]
    assert stages == ([True, False] if regime == "lp_ft" else [cached])
    if regime == "from_scratch":
        assert result["accuracy"]["paired_difference"] == 0
        assert not [path for path in (folder / regime / "checkpoints").iterdir() if path.name.startswith("reuse")]


def test_a_cached_prefix_changes_the_cost_and_not_the_network(folder, weights):
    directory = folder / "uncached"
    result = stack(weights, directory, decision={"regime": "linear_probe"}, train={"cache_limit_mb": 0.0})
    assert not result["plan"]["cached"] and "the limit is 0 MB" in result["plan"]["stages"][0]["cache_reason"]
    if not (folder / "linear_probe").exists():
        stack(weights, folder / "linear_probe", decision={"regime": "linear_probe", "num_frozen": 1})
    cached, uncached = model_of(folder / "linear_probe"), model_of(directory)
    for name in cached:
        np.testing.assert_allclose(cached[name], uncached[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule, regime", [("quadrant", "finetune_top"), ("patent", "from_scratch")])
def test_without_source_rows_nothing_is_measured_and_the_dissimilar_row_applies(rule, regime, folder, weights):
    directory = folder / f"unknown-{rule}"
    result = stack(weights, directory, decision={"rule": rule})
    assert result["two_sample"] is None
    assert result["similarity"] == {
        "kind": "unknown",
        "evidence": "The network came without source rows, so nothing could be measured.",
    }
    assert (result["plan"]["rule"], result["plan"]["regime"]) == (rule, regime)
    assert "not known to be similar" in result["plan"]["reason"]
    assert not [name for name in workdir.read_npz(directory / "evidence.npz") if name.startswith("null/")]


def test_an_assumption_is_used_and_recorded_as_the_users_own(folder, weights):
    result = stack(weights, folder / "assumed", decision={"assume": "similar", "rule": "patent"})
    assert result["similarity"]["kind"] == "similar" and "The user assumes" in result["similarity"]["evidence"]
    assert result["plan"]["regime"] == "linear_probe" and result["two_sample"] is None


def test_an_assumption_beside_a_measurement(linen_run, folder, tmp_path):
    """Where there are source rows the tests are reported all the same; they just don't decide."""
    model = {"factory": FACTORY + "linen", "weights": str(folder / "own.safetensors"), "mean": (0.3,), "std": (0.4,)}
    tiny.decide(tmp_path / "run", model=model, decision={"assume": "similar", "rule": "patent"})
    decided = read_json(tmp_path / "run" / "decision.json")
    assert decided["similarity"]["kind"] == "similar" and "assumes" in decided["similarity"]["evidence"]
    assert decided["two_sample"]["inputs"] == result_of(linen_run)["two_sample"]["inputs"]


@pytest.mark.parametrize("part", ["model", "model/variables"])
def test_weights_from_an_orbax_folder(part, linen_run, tmp_path):
    """The model/ folder of a run, and the plain Orbax folder inside it; frozen layers show that the values arrived."""
    decision = {"regime": "linear_probe"}
    tiny.compute(
        tmp_path / "run",
        source=None,
        model={"factory": FACTORY + "linen", "weights": str(linen_run / part)},
        decision=decision,
    )
    before, after = model_of(linen_run), model_of(tmp_path / "run")
    for layer in LAYERS[:2]:
        for name, array in layers_of(before, layer).items():
            assert after[name].tobytes() == array.tobytes(), name


def test_own_layer_names_given_by_the_config(folder, weights):
    """Finer layers than the outermost modules: path prefixes, in order."""
    names = ("below/Dense_0", "below/BatchNorm_0", "above", "head")
    model = {"factory": FACTORY + "linen", "weights": str(weights), "layers": names}
    tiny.compute(folder / "finer", source=None, model=model, decision={"regime": "finetune_top", "num_frozen": 2})
    assert result_of(folder / "finer")["plan"]["frozen"] == list(names[:2])


def test_a_network_that_gives_nan_is_stopped(tmp_path):
    with pytest.raises(FloatingPointError, match=r"pretrain.*the loss became nan"):
        tiny.compute(tmp_path / "run", model={"factory": FACTORY + "breaks"})


def test_a_dead_layer_is_named_and_left_out(tmp_path, arrays):
    """A layer whose features are all alike has no bandwidth; the run goes on without its test, unless it decides."""
    dead = {**arrays, "above/BatchNorm_0/bias": np.full(8, -1e6, np.float32)}
    save_weights(tmp_path / "dead.npz", dead)
    model = {"factory": FACTORY + "stack", "weights": str(tmp_path / "dead.npz")}
    tiny.decide(tmp_path / "run", model=model)
    two_sample = read_json(tmp_path / "run" / "decision.json")["two_sample"]
    assert list(two_sample["layers"]) == ["below"]
    assert "Not tested: above, head." in two_sample["note"]
    with pytest.raises(ValueError, match="P = Q can't be tested on above, where at least half"):
        tiny.decide(tmp_path / "other", model=model, decision={"representation": "above"})


def grouped(path, *, seed, **more):
    """20 writers with 6 rows each, in two classes."""
    random = np.random.default_rng(seed)
    groups, y = np.repeat(np.arange(20), 6), np.tile([0, 0, 0, 1, 1, 1], 20)
    x = random.normal(size=(120, 4)) + random.normal(size=(20, 4))[groups] + y[:, None]
    np.savez(
        path, x=x, y=y, writer=groups, **{name: {"x": x, "y": y, "writer": groups}[of] for name, of in more.items()}
    )
    return Data(f"npz:{path}", group_key="writer")


def test_groups_are_permuted_whole_and_never_split(tmp_path):
    """Both sets number their writers from 0: they are different writers all the same, as the files differ."""
    config = replace(
        tiny.config, source=grouped(tmp_path / "a.npz", seed=0), target=grouped(tmp_path / "b.npz", seed=1)
    )
    transfer.compute(config, tmp_path / "run")
    splits, result = workdir.read_npz(tmp_path / "run" / "splits.npz"), result_of(tmp_path / "run")
    assert not set(splits["target/train"] // 6) & set(splits["target/test"] // 6)
    assert result["accuracy"]["num_test"] == 30
    data = phases.load(config)
    source, target = measure.groups_of(config, data.source, data.target)
    assert not set(source) & set(target)
    np.testing.assert_array_equal(np.diff(target) != 0, np.diff(data.target.train_groups) != 0)


def test_groups_that_no_permutation_can_move(tmp_path):
    config = replace(
        tiny.config, source=grouped(tmp_path / "a.npz", seed=0), target=grouped(tmp_path / "b.npz", seed=1)
    )
    with pytest.raises(ValueError, match=r"wild_bootstrap.* tears groups apart"):
        pairs = replace(config.test, resampling="wild_bootstrap", max_rows=30)
        transfer.compute(replace(config, test=pairs), tmp_path / "no")
    both = grouped(tmp_path / "both.npz", seed=2, x_test="x", y_test="y", writer_test="writer")
    with pytest.raises(
        ValueError, match=r"20 groups of npz:.* both in the source's test split and in the target's training"
    ):
        transfer.compute(replace(config, source=both, target=both), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    # One split by group: the source's test rows and the target's training rows come from different writers.
    same = replace(config, target=config.source)
    data = phases.load(same)
    source, target = measure.groups_of(same, data.source, data.target)
    np.testing.assert_array_equal(target, data.target.train_groups)
    assert not set(source) & set(target)


def test_a_copy_of_the_folder_is_all_that_predict_needs(linen_run, tmp_path):
    model = shutil.copytree(linen_run / "model", tmp_path / "elsewhere")
    predict.main([str(model), "target", "--out", str(tmp_path / "a.csv")])
    predict.main([str(linen_run / "model"), "target", "--out", str(tmp_path / "b.csv")])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
