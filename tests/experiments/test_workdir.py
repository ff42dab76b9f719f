"""Files are whole or not there; a work directory belongs to one config and one process."""

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from experiments import progress, workdir
from experiments.config import Config, Training


class Point(NamedTuple):
    x: float
    y: np.ndarray


@dataclass(frozen=True)
class Settings:
    rate: float
    sizes: tuple[int, ...]


def run_python(code, *args, **kwargs):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], text=True, stdout=subprocess.PIPE, **kwargs)


def test_json_keeps_order_and_exact_floats_and_has_null_for_what_is_not_finite(tmp_path):
    values = {
        "z": 0.1 + 0.2,
        "a": np.float32(0.1),
        "nan": float("nan"),
        "inf": [np.inf, -np.inf],
        "array": np.arange(3),
        "point": Point(1e-300, np.array([1.5, np.nan])),
        "settings": Settings(3e-3, (1, 2)),
        "half": np.array([0.5, 2.0], ml_dtypes.bfloat16),
        "path": tmp_path,
        "flag": np.True_,
        3: None,
    }
    workdir.write_json(tmp_path / "x.json", values)
    # Strict JSON: another parser than Python's must be able to read it.
    back = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert back == workdir.read_json(tmp_path / "x.json")
    assert list(back) == [str(name) for name in values]
    assert back["z"] == 0.1 + 0.2
    assert np.float32(back["a"]) == np.float32(0.1)
    assert back["nan"] is None and back["inf"] == [None, None]
    assert back["point"] == {"x": 1e-300, "y": [1.5, None]}
    assert back["settings"] == {"rate": 3e-3, "sizes": [1, 2]}
    assert (back["array"], back["half"], back["path"], back["flag"]) == ([0, 1, 2], [0.5, 2.0], str(tmp_path), True)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, object(), Point])
def test_json_refuses_what_it_cannot_hold_and_leaves_the_old_file(tmp_path, value):
    workdir.write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError, match="JSON can't hold"):
        workdir.write_json(tmp_path / "x.json", {"value": value})
    assert workdir.read_json(tmp_path / "x.json") == 1
    assert os.listdir(tmp_path) == ["x.json"]


def test_truncated_json_is_one_clear_error(tmp_path):
    workdir.write_json(tmp_path / "x.json", {"a": [1, 2, 3]})
    content = (tmp_path / "x.json").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" + content):
        (tmp_path / "x.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.json is not a readable JSON file"):
            workdir.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("stop", ["fsync", "replace"])
def test_a_write_that_is_cut_off_leaves_the_old_content(tmp_path, monkeypatch, stop):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    workdir.write_bytes(tmp_path / "f", b"old")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, stop, killed)
        workdir.write_bytes(tmp_path / "f", b"new and longer")
    assert (tmp_path / "f").read_bytes() == b"old"
    workdir.write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]  # what the cut-off write left is gone too


def test_npz_round_trip_is_exact_and_its_bytes_depend_on_the_arrays_alone(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "layers/conv1/null": rng.normal(size=(5, 3)).astype(np.float32),
        "file": np.arange(4, dtype=np.uint8),
        "allow_pickle": np.array(True),
        "names": np.array(["a", "βγ"]),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(rng.normal(size=(2, 3))),
    }
    workdir.write_npz(tmp_path / "a.npz", arrays)
    workdir.write_npz(tmp_path / "b.npz", dict(reversed(arrays.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:  # no clock in it
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    back = workdir.read_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as theirs:
        assert set(back) == set(theirs.files) == set(arrays)
        for name, array in arrays.items():
            for other in (back[name], theirs[name]):
                assert other.dtype == array.dtype and other.shape == array.shape and np.array_equal(other, array)


def test_a_damaged_npz_gives_an_error_or_the_same_values_never_others(tmp_path):
    arrays = {"a": np.arange(50.0), "b": np.ones((2, 3), np.int32)}
    path = tmp_path / "x.npz"
    workdir.write_npz(path, arrays)
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 3):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        try:
            back = workdir.read_npz(path)
        except ValueError as error:
            assert "x.npz is not a readable .npz file" in str(error)
            refused += 1
        else:
            for name in set(back) & set(arrays):
                assert np.array_equal(back[name], arrays[name])
    assert refused > 0.8 * len(good) / 3  # the rest are fields of the zip format that nobody reads
    for length in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="not a readable"):
            workdir.read_npz(path)


def test_npz_never_holds_objects(tmp_path):
    with pytest.raises(ValueError, match=r"'x'.*object"):
        workdir.write_npz(tmp_path / "x.npz", {"x": np.array([{}])})
    with pytest.raises(ValueError, match=r"'x'.*bfloat16.*cast"):
        workdir.write_npz(tmp_path / "x.npz", {"x": np.zeros(2, ml_dtypes.bfloat16)})
    assert not os.listdir(tmp_path)
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{}]))
    (tmp_path / "foreign.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="plain arrays"):
        workdir.read_npz(tmp_path / "foreign.npz")


def test_a_work_directory_begins_with_its_config_and_opens_again_for_the_same(tmp_path):
    path = workdir.open_workdir(tmp_path / "a" / "b", asdict(Config()))
    assert os.listdir(path) == ["config.json"]
    assert workdir.read_json(path / "config.json") == json.loads(json.dumps(asdict(Config())))
    workdir.write_json(path / "result.json", 1)
    assert workdir.open_workdir(tmp_path / "a" / "b", Config()) == path  # a dataclass does, too
    assert workdir.read_json(path / "result.json") == 1


def test_another_config_is_refused_and_every_differing_field_named(tmp_path):
    old = Config()
    new = replace(old, seed=7, train=replace(old.train, epochs=3, learning_rates=(1e-2,)), until="plan", source=None)
    workdir.open_workdir(tmp_path / "run", asdict(old))
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="started by another config") as caught:
        workdir.open_workdir(tmp_path / "run", asdict(new), ignore=("until", "data_dir"))
    message = str(caught.value)
    assert "seed: 0 there, 7 now" in message
    assert f"train.epochs: {Training().epochs} there, 3 now" in message
    assert "train.learning_rates: [0.003, 0.001] there, [0.01] now" in message
    assert "source: {" in message and "null now" in message
    assert "until" not in message and "test." not in message
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_fields_that_came_or_went_are_named_too(tmp_path):
    workdir.open_workdir(tmp_path / "run", {"a": {"old": 1}})
    with pytest.raises(ValueError, match=r"a\.old: 1 there, nothing now\n  a\.new: nothing there, 2 now"):
        workdir.open_workdir(tmp_path / "run", {"a": {"new": 2}})


def test_ignored_fields_may_differ_and_the_file_holds_the_new_ones(tmp_path):
    workdir.open_workdir(tmp_path / "run", {"until": "plan", "seed": 1, "io": {"every": 1}})
    workdir.open_workdir(tmp_path / "run", {"until": "report", "seed": 1, "io": {"every": 2}}, ignore=("until", "io"))
    assert workdir.read_json(tmp_path / "run" / "config.json") == {"until": "report", "seed": 1, "io": {"every": 2}}


def test_a_strange_or_damaged_folder_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex.*no config\.json"):
        workdir.open_workdir(tmp_path, {})
    assert os.listdir(tmp_path) == ["thesis.tex"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="not a readable JSON"):
        workdir.open_workdir(tmp_path / "run", {})


def test_a_kill_before_the_first_file_is_no_obstacle(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", killed)
        workdir.open_workdir(tmp_path / "run", {"a": 1})
    assert len(os.listdir(tmp_path / "run")) == 1  # the temporary file
    workdir.open_workdir(tmp_path / "run", {"a": 2})
    assert os.listdir(tmp_path / "run") == ["config.json"]


@pytest.mark.parametrize("path", ["file", "file/run", "file/a/b"])
def test_a_path_under_a_regular_file_is_one_clear_error(tmp_path, path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"can't be made .*choose"):
        workdir.open_workdir(tmp_path / path, {})
    assert (tmp_path / "file").read_text() == "text"


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    code = (
        "import sys; from experiments import workdir; workdir.open_workdir(sys.argv[1], {}); print('open', flush=True)"
    )
    with run_python(f"{code}; sys.stdin.read()", tmp_path / "run", stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match="in use by another process"):
            workdir.open_workdir(tmp_path / "run", {})
        other.kill()
    workdir.open_workdir(tmp_path / "run", {})
    workdir.open_workdir(tmp_path / "run", {})  # the same process may
    with run_python(code, tmp_path / "run", stderr=subprocess.PIPE) as other:
        output, errors = other.communicate()
    assert other.returncode != 0 and output == "" and "in use by another process" in errors


def test_a_folder_made_anew_is_locked_anew(tmp_path):
    path = workdir.open_workdir(tmp_path / "run", {})
    os.rename(path, tmp_path / "gone")
    path = workdir.open_workdir(tmp_path / "run", {})
    code = "import sys; from experiments import workdir; workdir.open_workdir(sys.argv[1], {})"
    with run_python(code, path, stderr=subprocess.PIPE) as other:
        assert "in use" in other.communicate()[1]


def test_metrics_come_back_as_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert workdir.read_metrics(path) == []
    rows = [{"fit": "pretrain", "step": step, "loss": 1 / (step + 1)} for step in range(3)]
    for row in rows:
        workdir.append_metrics(path, row)
    workdir.append_metrics(path, {"fit": "pretrain", "step": 3, "loss": float("nan")})
    assert workdir.read_metrics(path) == [*rows, {"fit": "pretrain", "step": 3, "loss": None}]


def test_a_row_cut_at_any_byte_is_lost_alone_and_later_rows_are_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"fit": "a", "step": 0}, {"fit": "a", "step": 1, "name": "é"}]
    for row in rows:
        workdir.append_metrics(path, row)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content) + 1):
        path.write_bytes(content[:end])
        kept = rows if end >= len(content) - 1 else rows[:1]  # without its newline, the row is whole
        assert workdir.read_metrics(path) == kept
        workdir.append_metrics(path, {"fit": "b"})
        assert workdir.read_metrics(path) == [*kept, {"fit": "b"}]


def test_a_damaged_row_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "m").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(ValueError, match="line 2 of"):
        workdir.read_metrics(tmp_path / "m")


def test_cutting_drops_one_fit_after_a_step_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"fit": fit, "step": step} for step in range(4) for fit in ("a", "b")] + [{"note": "no fit"}]
    for row in rows:
        workdir.append_metrics(path, row)
    assert workdir.cut_metrics(path, fit="a", step=1) == 2
    assert workdir.read_metrics(path) == [row for row in rows if not (row.get("fit") == "a" and row["step"] > 1)]
    before = path.stat()
    assert workdir.cut_metrics(path, fit="a", step=1) == 0
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert workdir.cut_metrics(tmp_path / "none", fit="a", step=0) == 0 and not (tmp_path / "none").exists()


def test_needs_no_jax():
    code = "import sys, experiments.workdir, experiments.progress; print('jax' in sys.modules)"
    with run_python(code) as other:
        assert other.communicate()[0] == "False\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "terminal", "shown"), [(1.0, True, True), (0.1, True, False), (1.0, False, False)])
def test_progress_is_for_long_work_on_a_terminal(monkeypatch, clock, seconds, terminal, shown):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    done = []
    for item in progress.track(range(10), "pretrain"):
        clock[0] += seconds
        done.append(item)
    assert done == list(range(10))
    text = stream.getvalue()
    assert bool(text) == shown
    if shown:
        assert "pretrain  4/10  1/s  0:06 left" in text
        assert "pretrain  1/10" not in text  # the first two seconds are quiet
        assert text.endswith("\r\x1b[K")  # nothing is left on the terminal


def test_progress_removes_its_line_when_the_work_fails(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError):
        for _ in progress.track(iter(range(10)), "work", total=10):
            clock[0] += 3
            if clock[0] > 6:
                raise ZeroDivisionError
    assert "work  1/10  3 s each  0:27 left" in sys.stderr.getvalue()
