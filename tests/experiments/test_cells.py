"""The grid goes on where it was stopped, and reuses a row only for the settings it was made with."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments import cells
from experiments.cells import FILE, Cell, SkipError


def grid(num=4, **settings):
    return [Cell(f"cell {i}", {"i": i, **settings}) for i in range(num)]


class Counter:
    """A `run_one` that remembers what it was asked."""

    def __init__(self, fail_at=None):
        self.asked, self.fail_at = [], fail_at

    def __call__(self, cell):
        self.asked.append(cell.name)
        if cell.name == self.fail_at:
            raise RuntimeError("no")
        return {"square": cell.settings["i"] ** 2}


def run(tmp_path, counter, some, **knobs):
    return cells.run_cells(some, counter, tmp_path / "grid", label="squares", **knobs)


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_come_in_the_order_of_the_cells_with_settings_and_numbers(tmp_path, workers):
    rows = run(tmp_path, Counter(), grid(9), workers=workers)
    assert [(row["cell"], row["i"], row["square"]) for row in rows] == [(f"cell {i}", i, i**2) for i in range(9)]
    assert run(tmp_path, Counter(), grid(9), workers=workers) == rows == cells.finished(grid(9), tmp_path / "grid")


def test_finished_cells_are_not_run_again(tmp_path):
    first, second = Counter(fail_at="cell 2"), Counter()
    with pytest.raises(RuntimeError):
        run(tmp_path, first, grid())
    assert [row["cell"] for row in cells.finished(grid(), tmp_path / "grid")] == ["cell 0", "cell 1"]
    run(tmp_path, second, grid())
    assert second.asked == ["cell 2", "cell 3"]
    run(tmp_path, second, grid())
    assert second.asked == ["cell 2", "cell 3"]


def test_the_error_that_stopped_the_run_is_told_whatever_ends_first(tmp_path, monkeypatch):
    class Slow(threading.Event):
        def set(self):
            super().set()
            time.sleep(0.1)  # in which the other worker goes through what is left

    monkeypatch.setattr(cells.threading, "Event", Slow)
    with pytest.raises(RuntimeError, match="no"):
        run(tmp_path, Counter(fail_at="cell 0"), grid(40), workers=2)


def test_a_cell_with_other_settings_is_run_again_and_the_old_row_stays_good_for_the_old_ones(tmp_path):
    run(tmp_path, Counter(), grid(trials=5))
    counter = Counter()
    rows = run(tmp_path, counter, grid(trials=6))
    assert len(counter.asked) == 4 and all(row["trials"] == 6 for row in rows)
    assert [row["trials"] for row in run(tmp_path, counter, grid(trials=5))] == [5] * 4
    assert len(counter.asked) == 4


def test_the_order_of_settings_does_not_matter_their_types_do():
    one = Cell("a", {"x": 1, "y": (2, 3)})
    assert cells.fingerprint(one) == cells.fingerprint(Cell("a", {"y": [2, 3], "x": 1}))
    others = [Cell("b", one.settings), Cell("a", {"x": "1", "y": (2, 3)}), Cell("a", {"x": 1})]
    assert len({cells.fingerprint(cell) for cell in (one, *others)}) == 4


def test_a_torn_last_line_is_dropped_and_only_that_cell_is_run_again(tmp_path):
    run(tmp_path, Counter(), grid())
    file = tmp_path / "grid" / FILE
    content = file.read_bytes()
    for cut in (1, 10, len(content.splitlines()[-1])):
        file.write_bytes(content[:-1][:-cut])
        counter = Counter()
        run(tmp_path, counter, grid())
        assert counter.asked == ["cell 3"]
        assert len(file.read_bytes().splitlines()) == 4
        assert all(json.loads(line) for line in file.read_bytes().splitlines())


def test_a_line_changed_by_hand_is_an_error(tmp_path):
    run(tmp_path, Counter(), grid())
    file = tmp_path / "grid" / FILE
    file.write_bytes(file.read_bytes().replace(b'{"cell": "cell 1"', b"{cell 1"))
    with pytest.raises(ValueError, match="line 2 of"):
        run(tmp_path, Counter(), grid())


def test_what_is_skipped_is_told_and_tried_again(tmp_path):
    def elsewhere(cell):
        raise SkipError("no data here")

    rows = run(tmp_path, elsewhere, grid(2))
    assert [row["skipped"] for row in rows] == ["no data here"] * 2
    assert cells.finished(grid(2), tmp_path / "grid") == []
    counter = Counter()
    assert "skipped" not in run(tmp_path, counter, grid(2))[0]
    assert len(counter.asked) == 2


def test_part_of_a_grid_first_and_the_rest_later(tmp_path):
    counter = Counter()
    run(tmp_path, counter, cells.select(grid(), "cell 1,cell 3"))
    assert counter.asked == ["cell 1", "cell 3"]
    run(tmp_path, counter, cells.select(grid(), ""))
    assert counter.asked == ["cell 1", "cell 3", "cell 0", "cell 2"]
    with pytest.raises(ValueError, match="no cell's name contains 'sell'; there are 4 cells, such as cell 0"):
        cells.select(grid(), "sell")


def test_two_cells_of_one_name_and_a_strange_directory_are_errors(tmp_path):
    with pytest.raises(ValueError, match="two cells are called 'cell 1'"):
        run(tmp_path, Counter(), [*grid(), Cell("cell 1", {"i": 7})])
    run(tmp_path, Counter(), grid())
    with pytest.raises(ValueError, match="was started by another config"):
        cells.run_cells(grid(), Counter(), tmp_path / "grid", label="cubes")


SCRIPT = """
import sys, time
from pathlib import Path
from experiments import cells

def slow(cell):
    print(cell.name, flush=True)
    time.sleep(0.02 if cell.settings["i"] < 3 else 60)
    return {"square": cell.settings["i"] ** 2}

grid = [cells.Cell(f"cell {i}", {"i": i}) for i in range(5)]
cells.run_cells(grid, slow, Path(sys.argv[1]), label="squares")
"""


def test_a_killed_run_loses_the_cell_in_flight_only(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "grid")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        for line in process.stdout:
            if line.strip() == "cell 3":
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    counter = Counter()
    rows = run(tmp_path, counter, grid(5))
    assert counter.asked == ["cell 3", "cell 4"]
    assert [row["square"] for row in rows] == [0, 1, 4, 9, 16]


def test_batches_hold_cells_that_are_alike_and_each_has_its_row(tmp_path):
    asked = []

    def run_batch(batch):
        asked.append([cell.settings["i"] for cell in batch])
        return [{"square": cell.settings["i"] ** 2} for cell in batch]

    def parity(cell):
        return cell.settings["i"] % 2

    knobs = {"label": "squares", "size": 2, "alike": parity}
    rows = cells.run_batches(grid(7), run_batch, tmp_path / "grid", **knobs)
    assert [row["square"] for row in rows] == [i**2 for i in range(7)]
    assert asked == [[0, 2], [1, 3], [4, 6], [5]]
    # Of a batch that is not whole, only what is missing is run.
    assert cells.run_batches(grid(9), run_batch, tmp_path / "grid", **knobs)[:7] == rows
    assert asked[4:] == [[7], [8]]


def test_a_batch_must_give_a_row_for_each_cell(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        cells.run_batches(grid(2), lambda batch: [{}], tmp_path / "grid", label="squares", size=2)
    assert cells.finished(grid(2), tmp_path / "grid") == []
