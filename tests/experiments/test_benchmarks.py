"""The benchmarks' machinery: peers are found, run in their own processes, timed and skipped."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from experiments.benchmarks import mmd, training
from experiments.peer_process import ROOT, PeerProcess
from experiments.peers import PATH_VARIABLE, aggregated_peers, median_distance, peers

# A stand-in for a repository without a package: its statistic is the difference of the means, in standard errors.
PEER = """
import time
import torch
from math import sqrt
import matplotlib.pyplot as plt
plt.style.use("seaborn-white")

def RBFkernel1(x, y, bw):
    return None

def crossMMD2sampleUnpaired(x, y, kernel_func):
    print("chatter")
    if len(x) == 13:
        raise ValueError("thirteen rows")
    if len(x) == 14:
        time.sleep(60)
    assert kernel_func.keywords["bw"] > 0
    return (y.mean() - x.mean()) / sqrt(x.var() / x.size + y.var() / y.size)
"""

SLOW_PEER = """
import time

def inc(*args, **kwargs):
    time.sleep(0.2)
    return 0, {"p-value": 1.0, "MMDInc test reject": 0}
"""


@pytest.fixture
def peer_path(tmp_path, monkeypatch):
    source = tmp_path / "permfreemmd" / "src"
    source.mkdir(parents=True)
    (source / "utils.py").write_text(PEER)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 3), np.float32), rng.standard_normal((50, 3), np.float32) + np.float32(1)


def named(name):
    return next(peer for peer in peers() if peer.name == name)


def test_median_distance_is_that_of_all_pairs(samples):
    x, y = samples
    x, y = x + np.float32(100), y + np.float32(100)
    np.testing.assert_allclose(median_distance(x, y), np.median(pdist(np.concatenate([x, y]))), rtol=1e-5)


def test_names_are_told_apart():
    for methods in (peers(), aggregated_peers()):
        assert len({peer.name for peer in methods}) == len(methods)


def test_a_peer_without_a_package_is_found_by_its_folder(peer_path, samples, monkeypatch):
    monkeypatch.setitem(sys.modules, "utils", ModuleType("utils"))  # somebody else's, already imported
    before = {name: sys.modules.get(name) for name in ("utils", "torch")}
    test = named("cross-MMD").load()
    assert {name: sys.modules.get(name) for name in before} == before
    assert str(peer_path / "permfreemmd" / "src") not in sys.path
    x, y = samples
    assert test(x, y, 200, 0, 0.05).reject and not test(y, x, 200, 0, 0.05).reject


def test_a_missing_peer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    with pytest.raises(ImportError, match="--peer-path"):
        named("mmdfuse").load()
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))
    with pytest.raises(ImportError, match=f"no folder mmdfuse in {tmp_path}"):
        named("mmdfuse").load()


@pytest.mark.parametrize("name", ["hyppo", "goodpoints CTT"])
def test_packaged_peers_see_a_shift(name, samples):
    if importlib.util.find_spec(name.split()[0]) is None:
        pytest.skip(f"{name} is not installed")
    x, y = samples
    process = PeerProcess(name)
    assert process(x, y, 99, 0, 0.05).reject and not process(x, x[::-1], 99, 0, 0.05).reject
    process.close()


def test_a_process_finds_what_this_one_finds(monkeypatch, tmp_path):
    assert (ROOT / "experiments" / "peer_process.py").is_file()
    (tmp_path / "hyppo").mkdir()
    (tmp_path / "hyppo" / "__init__.py").write_text("raise ImportError('the one on the path')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = PeerProcess("hyppo")
    process.close()
    assert "the one on the path" in process.missing


def test_a_process_answers_as_the_peer_itself_does(peer_path, samples):
    x, y = samples
    process = PeerProcess("cross-MMD")
    assert process.missing == ""
    there, here = process(x, y, 200, 0, 0.05), named("cross-MMD").load()(x, y, 200, 0, 0.05)
    assert there == here
    with pytest.raises(RuntimeError, match="ValueError: thirteen rows"):
        process(x[:13], y, 200, 0, 0.05)
    process.prepare(40, 5)
    found = process.timed(200, 0)
    assert found["seconds"] > 0 and found["megabytes"] >= 0
    process.prepare(14, 5)
    with pytest.raises(TimeoutError, match=r"stopped after 0\.1 s"):
        process.timed(200, 0, limit=0.1)
    with pytest.raises(RuntimeError, match="ended"):
        process.timed(200, 0)
    process.close()


def test_what_would_take_too_long_is_skipped():
    def row(first, warm):
        return mmd.Row(first, warm, 0)

    assert mmd._too_long({}, 1000, 120) == ""
    # 5 s of compiling, and then 10 s that grow with the square of n.
    assert mmd._too_long({1000: row(15, 10)}, 2000, 45.1) == ""
    assert "about 45 s" in mmd._too_long({1000: row(15, 10)}, 2000, 44.9)
    # Its own growth, once two sizes are known: here linear.
    assert "about 20 s" in mmd._too_long({1000: row(5, 5), 2000: row(10, 10)}, 4000, 1)
    assert "was not finished" in mmd._too_long({1000: mmd.UNFINISHED}, 2000, 1e9)


def test_the_table_sets_peers_beside_the_first(peer_path, monkeypatch, capsys):
    (peer_path / "agginc" / "agginc").mkdir(parents=True)
    (peer_path / "agginc" / "agginc" / "__init__.py").write_text("")
    (peer_path / "agginc" / "agginc" / "jax.py").write_text(SLOW_PEER)
    methods = ("cross-MMD", "agginc", "mmdfuse")
    monkeypatch.setattr(mmd, "peers", lambda: tuple(named(name) for name in methods))
    mmd.main(["--peers", "--sizes", "80", "20", "--features", "3", "--permutations", "20", "--limit", "2"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (small, slow), (large, skipped) = lines[1:3], lines[3:5]
    assert small[:5] == ["cross-MMD", "no", "20", "3", "20"] and small[7:9] == ["1.0", "1.0"]
    assert slow[:5] == ["agginc", "no", "20", "3", "20"]
    # It sleeps for a fifth of a second; what it is held against takes a few milliseconds.
    assert float(slow[6]) >= 0.2 and float(slow[8]) > 1
    assert large[2] == "80" and large[7:9] == ["1.0", "1.0"]
    assert skipped[:3] == ["agginc", "no", "80"] and skipped[5] == "skipped:"
    assert ["mmdfuse:", "not", "here:", "ImportError:", "no", "folder", "mmdfuse"] in [line[:7] for line in lines]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sizes", "1"], "sizes must be at least 2"),
        (["--peers", "--peer-path", "nowhere"], "no such folder: nowhere"),
        (["--peers", "--python", "no-python"], "no such program: no-python"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        mmd.main(arguments)
    assert message in capsys.readouterr().err


TORCH = """
__version__ = "0.0"

def get_num_threads():
    return 1
"""


def test_training_prints_a_rate_for_each_way(monkeypatch, capsys):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.setattr(training, "start_torch", lambda pythons: (None, "no torch"))
    monkeypatch.setitem(training.SHAPES, "8x8x1", training.Shape(8, 1, 2, 4))
    monkeypatch.setattr(training, "PAUSE", 0.0)
    training.main(["--shapes", "8x8x1", "--repeats", "2", "--seconds", "0.01"])
    _, _, *rows, missing = capsys.readouterr().out.splitlines()
    assert missing == "torch: not here: no torch"
    assert [row.split()[3] for row in rows] == ["scanned", "loop", "forward"]
    for row in rows:
        wall, against, core, _ = row.split()[4:]
        assert int(wall) > 0 and int(core) > 0 and against == "–"


def test_training_looks_for_torch_in_the_folder_and_says_why_not(tmp_path, monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    if importlib.util.find_spec("torch") is None:
        torch, why = training.start_torch([sys.executable])
        assert torch is None and "No module named 'torch'" in why
        (tmp_path / "torch.py").write_text(TORCH)
        monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))
    torch, _ = training.start_torch([sys.executable])
    assert torch is not None and torch.version.startswith("torch ")
    with pytest.raises(RuntimeError, match="KeyError: 'no such way'"):
        torch.timed("no such way", 1)
    torch.close()


def test_rounds_are_compared_in_turn(monkeypatch, capsys):
    """Ours is twice as fast as torch in each round, though the machine is ten times slower in one of them."""
    rates = {
        "scanned": training.Rates([200.0, 20.0, 200.0], [100.0, 100.0, 100.0]),
        "torch": training.Rates([100.0, 10.0, 100.0], [400.0, 400.0, 400.0]),
    }
    monkeypatch.setattr(training, "start_torch", lambda pythons: (None, ""))
    monkeypatch.setattr(training, "measure", lambda *arguments: rates)
    training.main(["--shapes", "28x28x1"])
    first = capsys.readouterr().out.splitlines()[2].split()
    assert first[3:] == ["scanned", "200", "2.00", "100", "0.25"]
