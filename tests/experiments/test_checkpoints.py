"""What is restored is bit for bit what was saved, or an older one, said so; never a wrong value."""

import os
import random
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint
import pytest
from orbax.checkpoint import v1 as ocp

from experiments import checkpoints


class State(NamedTuple):
    params: dict
    opt_state: optax.OptState
    rest: tuple


def state(seed):
    """Every kind of leaf and node that a run's state may hold."""
    rng = np.random.default_rng(seed)
    params = {
        "conv1": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        },
        "fc8": {"kernel": jnp.asarray(rng.normal(size=(16, 2)), jnp.float32)},
    }
    labels = {"conv1": "frozen", "fc8": "trained"}
    optimizer = optax.multi_transform({"frozen": optax.set_to_zero(), "trained": optax.adamw(1e-3)}, labels)
    rest = (
        jax.random.key(seed),
        None,
        {},
        [jnp.int32(seed), jnp.asarray([seed, 2**32 - 1], jnp.uint32), rng.normal(size=3), np.float64(seed)],
        {"weak": jnp.asarray(0.1 + seed), "empty": jnp.zeros((0, 3)), "best": 0.1 + seed, "epoch": seed, "ok": True},
    )
    return State(params, optimizer.init(params), rest)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray) or isinstance(y, np.generic)
        assert isinstance(x, jax.Array) == isinstance(y, jax.Array)
        assert getattr(x, "weak_type", None) == getattr(y, "weak_type", None)
    a, b = checkpoints.flatten(a), checkpoints.flatten(b)
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in a.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in b.items()
    }


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, position, mask=0x04):
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two checkpoints, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        checkpoints.save(folder, step, state(step), {"plan": ["probe", step], "loss": 0.1 * step})
    return folder


@pytest.fixture
def copy(two, tmp_path):
    shutil.copytree(two, tmp_path / "copy")
    return tmp_path / "copy"


def test_round_trip_is_bit_identical(two):
    found = checkpoints.restore(two, state(0))
    assert (found.step, found.about, found.skipped) == (2, {"plan": ["probe", 2], "loss": 0.2}, ())
    assert_identical(found.tree, state(2))


def test_the_template_may_be_abstract_or_depend_on_what_was_saved(two):
    found = checkpoints.restore(two, lambda about: state(about["plan"][1]))
    assert_identical(found.tree, state(2))
    params = {"k": jax.random.key(1), "x": jnp.ones(3, jnp.bfloat16)}
    checkpoints.save(two / "abstract", 1, params, {})
    assert_identical(checkpoints.restore(two / "abstract", jax.eval_shape(lambda: params)).tree, params)


def test_nothing_there_is_said_by_the_step(tmp_path):
    assert checkpoints.restore(tmp_path / "none", {}) == checkpoints.Restored(None, None, {}, ())


def test_the_newest_two_stay(tmp_path):
    for step in range(4):
        path = checkpoints.save(tmp_path, step, {"x": np.arange(step)}, {"step": step})
        assert path.name == f"{step:08d}"
    assert sorted(os.listdir(tmp_path)) == ["00000002", "00000003"]


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        checkpoints.save(tmp_path, 5, {"x": np.array(value)}, {})
    assert checkpoints.restore(tmp_path, {"x": np.array(0.0)}).tree["x"] == 2.0
    assert os.listdir(tmp_path) == ["00000005"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damage_to_any_file_costs_at_most_one_checkpoint(copy, damage):
    newest = copy / "00000002"
    every = [path for path in files(newest) if path.stat().st_size or damage == "remove"]
    assert len(every) > 5
    rng = random.Random(0)
    fell_back = 0
    for path in every:
        content = path.read_bytes()
        if damage == "flip":
            flip(path, rng.randrange(len(content)), 1 << rng.randrange(8))
        elif damage == "remove":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
        found = checkpoints.restore(copy, state(0))
        if found.skipped:
            fell_back += 1
            assert found.step == 1 and len(found.skipped) == 1 and str(newest) in found.skipped[0]
            assert found.about == {"plan": ["probe", 1], "loss": 0.1}
        assert_identical(found.tree, state(found.step))
        path.write_bytes(content)
    assert fell_back == len(every)
    assert checkpoints.restore(copy, state(0)).step == 2  # all damage was undone: each file was tried alone


def test_every_byte_of_the_json_is_sealed(copy):
    path = copy / "00000002" / "checkpoint.json"
    good = path.read_bytes()
    (content, arrays), rng = checkpoints._read_sealed(path.parent, path.name, "arrays"), random.Random(0)
    passed = 0
    for position in range(0, len(good), 11):
        path.write_bytes(good)
        flip(path, position, 1 << rng.randrange(8))
        try:
            again, same = checkpoints._read_sealed(path.parent, path.name, "arrays")
        except (ValueError, OSError):
            continue
        passed += 1  # white space became other white space
        assert again == content and all(same[k].tobytes() == v.tobytes() for k, v in arrays.items())
    assert passed < 0.1 * len(good) / 11


def test_the_hashes_of_the_leaves_catch_what_orbax_reads_wrongly(tmp_path, monkeypatch):
    """With the files' own hashes switched off: the leaves' must find each flipped byte of the values."""
    monkeypatch.setattr(checkpoints, "_hash_file", lambda path: "")
    tree = {"x": np.random.default_rng(0).normal(size=5000)}
    checkpoints.save(tmp_path, 1, tree, {})
    path = max(files(tmp_path / "00000001"), key=lambda p: p.stat().st_size)
    size = path.stat().st_size
    assert size >= tree["x"].nbytes  # the values themselves lie in it
    read_wrongly = 0
    for position in range(size // 3, size // 3 + 16):
        flip(path, position)
        found = checkpoints.restore(tmp_path, tree)
        assert found.step is None and len(found.skipped) == 1
        read_wrongly += "array x is not what was saved" in found.skipped[0]
        flip(path, position)
    assert checkpoints.restore(tmp_path, tree).step == 1
    assert read_wrongly > 0


def test_all_damaged_gives_none_and_a_sentence_each(copy):
    for folder in ("00000001", "00000002"):
        flip(copy / folder / "checkpoint.json", 20)
    found = checkpoints.restore(copy, state(0))
    assert found.step is None and found.tree is None and found.about == {}
    assert ["00000002" in found.skipped[0], "00000001" in found.skipped[1]] == [True, True]


def test_a_checkpoint_under_another_steps_name_is_skipped(copy):
    os.rename(copy / "00000002", copy / "00000009")
    found = checkpoints.restore(copy, state(0))
    assert found.step == 1 and "saved as step 2" in found.skipped[0]


def test_going_on_from_an_older_checkpoint_never_loses_the_new_one(tmp_path):
    """After a fall back, a damaged later checkpoint must not count as one of the newest two."""
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, step, {"x": np.array(step)}, {}, keep=3)
    for step in (20, 30):
        flip(tmp_path / f"{step:08d}" / "checkpoint.json", 30)
    assert checkpoints.restore(tmp_path, {"x": np.array(0)}).step == 10
    checkpoints.save(tmp_path, 15, {"x": np.array(15)}, {})
    assert sorted(os.listdir(tmp_path)) == ["00000010", "00000015"]
    assert checkpoints.restore(tmp_path, {"x": np.array(0)}) == checkpoints.Restored(15, {"x": np.array(15)}, {}, ())


def test_a_template_that_does_not_fit_is_an_error_with_both_shapes(tmp_path):
    saved = {"fc8": {"kernel": np.zeros((16, 2), np.float32), "bias": np.zeros(2, np.float32)}, "n": np.int32(1)}
    checkpoints.save(tmp_path, 1, saved, {})
    like = {"fc8": {"kernel": np.zeros((16, 5), np.float32)}, "n": np.uint32(1), "new": np.zeros(3)}
    with pytest.raises(ValueError, match="00000001 doesn't fit: 4 leaves differ:") as caught:
        checkpoints.restore(tmp_path, like)
    message = str(caught.value)
    assert "fc8/kernel: float32[16, 2] there, float32[16, 5] expected" in message
    assert "n: int32[] there, uint32[] expected" in message
    assert "new: nothing there, float64[3] expected" in message
    assert "fc8/bias: float32[2] there, nothing expected" in message


@pytest.mark.parametrize(
    ("tree", "error", "match"),
    [
        ({"a": {"b": np.ones(1)}, "a/b": np.ones(1)}, ValueError, "same path 'a/b'"),
        ({"a": {"name": "cnn8"}}, TypeError, "'a/name'.*str"),
        ({}, ValueError, "nothing to save"),
    ],
)
def test_what_cannot_be_saved_is_said_and_leaves_nothing(tmp_path, tree, error, match):
    with pytest.raises(error, match=match):
        checkpoints.save(tmp_path, 1, tree, {})
    assert checkpoints.restore(tmp_path, tree).step is None and os.listdir(tmp_path) == []


def test_reserved_fields_are_refused(tmp_path):
    with pytest.raises(ValueError, match="can't hold fields named files"):
        checkpoints.save_model(tmp_path / "model", {"x": np.ones(1)}, {"files": []})


@pytest.mark.parametrize("same_step", [False, True])
def test_cut_off_between_any_two_operations_leaves_the_old_or_the_new(tmp_path, monkeypatch, same_step):
    """Every call that changes the disk is made to be the last one, in turn; what Orbax does is cut off half-way."""

    class Killed(BaseException):
        pass

    calls, last = [0], [10**9]

    def count():
        calls[0] += 1
        if calls[0] > last[0]:
            raise Killed

    def cut(name):
        original = getattr(os, name)

        def wrapper(*args, **kwargs):
            count()
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, wrapper)

    def write(path, tree):  # in Orbax's place: an exception in its threads would not be the end
        path.mkdir()
        (path / "half").write_bytes(b"half")
        count()
        np.savez(path / "arrays.npz", **tree)

    monkeypatch.setattr(checkpoints, "_write_orbax", write)
    monkeypatch.setattr(checkpoints, "_read_orbax", lambda path, foreign: dict(np.load(path / "arrays.npz")))
    for name in ("rename", "replace", "mkdir", "fsync", "rmdir", "unlink"):
        cut(name)

    def tree(step):
        return {"x": np.full(5, step)}

    directory, moment, cut_off = tmp_path / "c", 0, True
    outcomes = set()
    while cut_off:
        last[0] = 10**9
        shutil.rmtree(directory, ignore_errors=True)
        checkpoints.save(directory, 1, tree(1), {})
        checkpoints.save(directory, 2, tree(2), {})
        calls[0], last[0], cut_off = 0, moment, False
        new = 2 if same_step else 3
        try:
            checkpoints.save(directory, new, tree(30), {})
        except Killed:
            cut_off = True
        last[0] = 10**9
        found = checkpoints.restore(directory, tree(0))
        assert found.skipped == ()
        assert (found.step, found.tree["x"][0]) in {(1, 1), (2, 2), (new, 30)}
        outcomes.add((found.step, int(found.tree["x"][0])))
        if not same_step:
            assert found.step >= 2
        checkpoints.save(directory, 4, tree(4), {})  # and the run goes on, with no leftovers
        assert len(os.listdir(directory)) == 2 and not [n for n in os.listdir(directory) if n.startswith(".")]
        moment += 1
    assert moment > 5 and {(2, 2), (new, 30)} <= outcomes  # both sides of the decisive moment were seen


CHILD = """
import sys
import numpy as np
from experiments import checkpoints

def tree(step):
    return {f"leaf{i}": np.random.default_rng([step, i]).normal(size=1000) for i in range(8)}

found = checkpoints.restore(sys.argv[1], tree(0))
step = found.step or 0
assert not found.skipped and (not step or all((found.tree[k] == v).all() for k, v in tree(step).items()))
while True:
    step += 1
    checkpoints.save(sys.argv[1], step, tree(step), {"step": step})
    print(step, flush=True)
"""


def test_kill_9_in_the_middle_of_saving(tmp_path):
    rng, reached = random.Random(0), 0

    def tree(step):
        return {f"leaf{i}": np.random.default_rng([step, i]).normal(size=1000) for i in range(8)}

    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True) as child:
            first = int(child.stdout.readline())
            assert first == reached + 1  # it went on from where the last one was
            second = int(child.stdout.readline())
            try:
                child.wait(rng.uniform(0, 0.2))
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
            done = max([second, *map(int, child.stdout.read().split())])
            assert child.wait() == -signal.SIGKILL
        found = checkpoints.restore(tmp_path, tree(0))
        assert found.skipped == () and found.step in (done, done + 1) and found.about == {"step": found.step}
        assert_identical(found.tree, tree(found.step))
        reached = found.step


def test_tree_hashes_tell_every_kind_of_difference():
    tree = {"a": {"b": np.array([0.0, 1.0], np.float32)}, "c": (jnp.zeros((2, 3)), None)}
    hashes = checkpoints.tree_hashes(tree)
    assert list(hashes) == ["a/b", "c/0"] and all(len(h) == 64 for h in hashes.values())
    assert checkpoints.tree_hashes(jax.tree.map(jnp.asarray, tree)) == hashes
    for other in (np.array([-0.0, 1.0], np.float32), np.array([0, 1065353216], np.int32), np.float32([[0.0], [1.0]])):
        assert checkpoints.tree_hashes({"a": {"b": other}})["a/b"] != hashes["a/b"]


VARIABLES = {
    "params": {"conv1": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}, "fc": [np.ones(2, np.float32)]},
    "batch_stats": {"bn": {"mean": np.array([1.5], ml_dtypes.bfloat16), "none": np.zeros((0,), np.int32)}},
}


def test_model_round_trip_is_bit_identical_and_replaces_an_older_one(tmp_path):
    description = {"network": "cnn8", "classes": ["ant", "Käfer"], "mean": (0.1, 0.2), "log": {"nan": float("nan")}}
    checkpoints.save_model(tmp_path / "model", {"params": np.zeros(3)}, {})
    checkpoints.save_model(tmp_path / "model", jax.tree.map(jnp.asarray, VARIABLES), description)
    assert os.listdir(tmp_path) == ["model"]
    assert sorted(os.listdir(tmp_path / "model")) == ["description.json", "variables"]
    arrays, back = checkpoints.load_arrays(tmp_path / "model")
    assert back == {"network": "cnn8", "classes": ["ant", "Käfer"], "mean": [0.1, 0.2], "log": {"nan": None}}
    expected = {
        "params/conv1/kernel": VARIABLES["params"]["conv1"]["kernel"],
        "params/fc/0": VARIABLES["params"]["fc"][0],
        "batch_stats/bn/mean": VARIABLES["batch_stats"]["bn"]["mean"],
        "batch_stats/bn/none": VARIABLES["batch_stats"]["bn"]["none"],
    }
    assert_identical(arrays, expected)
    assert_identical(checkpoints.fill(VARIABLES, arrays), VARIABLES)


def test_a_models_variables_are_an_ordinary_orbax_folder(tmp_path):
    checkpoints.save_model(tmp_path / "model", {"params": VARIABLES["params"]}, {})
    theirs = ocp.load(tmp_path / "model" / "variables")
    assert np.array_equal(theirs["params"]["conv1"]["kernel"], VARIABLES["params"]["conv1"]["kernel"])


def test_a_model_with_a_flipped_byte_in_any_file_is_refused(tmp_path):
    checkpoints.save_model(tmp_path / "model", VARIABLES, {"classes": ["a", "b"]})
    rng = random.Random(1)
    for path in files(tmp_path / "model"):
        if not (content := path.read_bytes()):
            continue
        flip(path, rng.randrange(len(content)))
        with pytest.raises(ValueError, match=r"the model in .* is damaged: "):
            checkpoints.load_arrays(tmp_path / "model")
        path.write_bytes(content)
    checkpoints.load_arrays(tmp_path / "model")


FOREIGN = {
    "params": {"fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3, jnp.bfloat16)}},
    "steps": [np.arange(2)],
}


def save_standard(path):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, FOREIGN)


@pytest.mark.parametrize(
    "save", [lambda path: ocp.save(path, {**FOREIGN, "name": "no array"}), save_standard], ids=["v1", "standard"]
)
def test_a_foreign_orbax_folder_gives_its_arrays_by_name(tmp_path, save):
    save(tmp_path / "foreign")
    arrays, description = checkpoints.load_arrays(tmp_path / "foreign")
    assert description == {}
    expected = {
        "params/fc/bias": np.zeros(3, ml_dtypes.bfloat16),
        "params/fc/kernel": np.ones((2, 3), np.float32),
        "steps/0": np.arange(2),
    }
    assert_identical(arrays, expected)


def test_a_foreign_folder_needs_none_of_the_devices_that_saved_it(tmp_path):
    code = (
        "import sys, jax, jax.numpy as jnp; from jax.sharding import *; from orbax.checkpoint import v1 as ocp\n"
        "rows = NamedSharding(jax.make_mesh((4,), ('d',)), PartitionSpec('d'))\n"
        "ocp.save(sys.argv[1], {'x': jax.device_put(jnp.arange(8.0), rows)})"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], env={**os.environ, **flags}, check=True)
    assert_identical(checkpoints.load_arrays(tmp_path / "x")[0], {"x": np.arange(8, dtype=np.float32)})


def test_what_is_no_model_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*none"):
        checkpoints.load_arrays(tmp_path / "none")
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ValueError, match="is not an Orbax checkpoint; give the folder that holds"):
        checkpoints.load_arrays(tmp_path)


def test_nothing_is_printed(tmp_path):
    code = (
        "import sys, numpy as np; from experiments import checkpoints as c\n"
        "for step in range(3): c.save(sys.argv[1], step, {'x': np.ones(3)}, {})\n"
        "assert c.restore(sys.argv[1], {'x': np.ones(3)}).step == 2"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
