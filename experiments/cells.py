"""(cells, how to run them, directory) → rows: the only resumable grid, with progress and time left.

Each finished cell is one line of `cells.jsonl`, appended in one write. A run that is killed at any moment loses the cell
in flight, and the same command goes on from there. What defines a cell is hashed and kept with its row, so a row is used
again only for the very settings it was made with.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import workdir
from experiments.progress import progress

FILE = "cells.jsonl"
MOST_MAPS = 30_000


class Cell(NamedTuple):
    """One cell of a grid.

    Attributes:
      name: unique in the grid, and the same from run to run; `--only` and the tables know the cell by it.
      settings: everything that its numbers depend on, as plain values: sizes, seed, and a version that is raised by hand
        where the code that makes the numbers changes them.
      cost: how long it takes beside the others, in any unit; only the time left is reckoned with it.
    """

    name: str
    settings: Mapping[str, Any]
    cost: float = 1.0


class SkipError(Exception):
    """Raised by `run_one` with the reason why a cell can't run here; it is not kept, and tried again the next time."""


def run_cells(
    cells: Sequence[Cell],
    run_one: Callable[[Cell], Mapping[str, Any]],
    directory: Path,
    *,
    label: str,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """`run_batches` one cell at a time: `run_one` takes a cell and gives its numbers."""
    return run_batches(cells, lambda batch: [run_one(cell) for cell in batch], directory, label=label, workers=workers)


def run_batches(
    cells: Sequence[Cell],
    run_batch: Callable[[Sequence[Cell]], Sequence[Mapping[str, Any]]],
    directory: Path,
    *,
    label: str,
    workers: int = 1,
    size: int = 1,
    alike: Callable[[Cell], Hashable] = lambda cell: None,
) -> list[dict[str, Any]]:
    """Runs the cells that `directory` has no row of yet, in their order.

    Args:
      cells: the grid, or the part of it that is asked for.
      run_batch: cells → the numbers of each, which JSON can hold. What it raises ends the run; finished cells stay.
      directory: the work directory, made here; it belongs to the grid called `label`, and to one process at a time.
      label: of the grid, which its line of progress begins with.
      workers: threads that run batches side by side; it pays where a cell is mostly compiling, or small arrays. An
        interrupt then waits for the batches in flight.
      size: cells a batch, at most; a kill loses the batch in flight.
      alike: what the cells of one batch must agree in.

    Returns:
      One row a cell, in the order of `cells`: "cell", the settings, the numbers, and "seconds" (a batch's, shared out
      evenly); or "cell", the settings, and "skipped" with the reason.

    Raises:
      ValueError: two cells of one name, or a directory that holds something else (see `workdir.open_workdir`).
    """
    names = [cell.name for cell in cells]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two cells are called {twice[0]!r}; the name of a cell tells it from the others")
    directory = workdir.open_workdir(directory, {"grid": label})
    rows = {row["cell"]: row for row in finished(cells, directory)}
    missing = [cell for cell in cells if cell.name not in rows]
    total = sum(cell.cost for cell in missing) or 1.0
    show, done, number = progress(label, 100), 0.0, 0
    lock, stop = threading.Lock(), threading.Event()

    def run(batch: Sequence[Cell]) -> list[dict[str, Any]]:
        if stop.is_set():
            return []  # not an error, which might be seen before the one that stopped the run
        try:
            found = _run(batch, run_batch)
            with lock:
                for cell, row in zip(batch, found, strict=True):
                    if "skipped" not in row:
                        workdir.append_metrics(directory / FILE, {**row, "fingerprint": fingerprint(cell)})
        except BaseException:
            stop.set()
            raise
        let_go_of_programs()
        return found

    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(run, batch): batch for batch in batches(missing, size, alike)}
        for future in as_completed(futures):
            for cell, row in zip(futures[future], future.result()):
                rows[cell.name] = row
                done, number = done + cell.cost, number + 1
                show(round(100 * done / total, 1), f"{number} of {len(missing)} cells; last: {cell.name}")
    finally:
        pool.shutdown(cancel_futures=True)
        show(100, None)
    return [rows[name] for name in names]


def let_go_of_programs() -> None:
    """Forgets compiled programs where there are so many that the system would soon refuse more.

    Each holds memory maps, of which Linux allows a process 65,530 unless told otherwise; with more, XLA ends the process.
    """
    try:
        with open("/proc/self/maps", "rb") as maps:
            held = sum(1 for _ in maps)
    except OSError:
        return  # no Linux
    if held > MOST_MAPS:
        jax.clear_caches()


def batches(cells: Sequence[Cell], size: int, alike: Callable[[Cell], Hashable]) -> list[list[Cell]]:
    """The cells in batches of at most `size` that agree in `alike`, in the order of each batch's first cell."""
    found: list[list[Cell]] = []
    filling: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        batch = filling.get(kind := alike(cell))
        if batch is None or len(batch) == size:
            batch = filling[kind] = []
            found.append(batch)
        batch.append(cell)
    return found


def finished(cells: Iterable[Cell], directory: Path) -> list[dict[str, Any]]:
    """The rows that are there of these cells, made with these settings; a last line that a kill cut in two is none.

    Raises:
      ValueError: the file was changed: a line before the last is not JSON.
    """
    found = {row.get("fingerprint"): row for row in workdir.read_metrics(Path(directory) / FILE)}
    there = (found.get(fingerprint(cell)) for cell in cells)
    return [{name: value for name, value in row.items() if name != "fingerprint"} for row in there if row is not None]


def fingerprint(cell: Cell) -> str:
    """A hash of the cell's name and settings, whatever the order of these."""
    content = json.dumps([cell.name, workdir.plain(cell.settings)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def select(cells: Sequence[Cell], pattern: str) -> list[Cell]:
    """The cells whose name holds one of the words of the pattern, which commas part; an empty pattern takes all.

    Raises:
      ValueError: none does; the message lists some names.
    """
    words = [word for word in pattern.split(",") if word]
    chosen = [cell for cell in cells if not words or any(word in cell.name for word in words)]
    if not chosen:
        some = ", ".join(cell.name for cell in cells[:: max(1, len(cells) // 6)])
        raise ValueError(f"no cell's name contains {pattern!r}; there are {len(cells)} cells, such as {some}")
    return chosen


def _run(batch: Sequence[Cell], run_batch: Callable[..., Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    start = time.perf_counter()
    rows = [{"cell": cell.name, **cell.settings} for cell in batch]
    try:
        for row, numbers in zip(rows, run_batch(batch), strict=True):
            row |= numbers
        for row in rows:
            row["seconds"] = round((time.perf_counter() - start) / len(batch), 3)
    except SkipError as reason:
        for row in rows:
            row["skipped"] = str(reason)
    return workdir.plain(rows)  # as they will be read: tuples are lists
