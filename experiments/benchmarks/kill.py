"""Does a run that is killed at any moment end as if nothing had happened?

    python -m experiments.benchmarks.kill [--kills 10] [--seed 0] [--config configs/quickstart.py] [--model.name cnn8 …]
    python -m experiments.benchmarks.kill --job transferability [--config configs/figure2_tiny.py]

Runs a job once undisturbed, then once for each kill: SIGKILL, and the same command again until it ends (every
third run is killed up to three times). Half of the moments are random, spread over the undisturbed duration; the others
are aimed at a write: of a checkpoint, the decision, model/, result.json, the report; in a study, of a base or a row. Each run
must leave the same result (but for `seconds`), evidence, rows, and bit-identical variables. The exit status is 1 where one
does not.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import checkpoints, workdir

POLL = 0.002  # seconds


class Moment(NamedTuple):
    """When to kill.

    Attributes:
      name: for the table.
      reached: (work directory, seconds since the start) -> whether the moment has come.
      delay: seconds from there to the kill.
    """

    name: str
    reached: Callable[[Path, float], bool]
    delay: float


class Left(NamedTuple):
    """What a run left, but for times.

    Attributes:
      result: result.json (a study's study.json) without `seconds` and `command`.
      metrics: the rows of metrics.jsonl; of a study's networks, by name and without `seconds`.
      model: {name: bytes} of the variables in model/; of a study's bases.
      evidence: {name: bytes} of evidence.npz; of a study's tables.
      report: whether there is one.
    """

    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    model: dict[str, bytes]
    evidence: dict[str, bytes]
    report: bool


class Job(NamedTuple):
    """What is run and killed.

    Attributes:
      config: the default.
      settings: fields that are set on the command line.
      writes: (name, pattern of a file that stands in the work directory at the moment of a write, how many rows may stand
        before it at most: of what is written over and over, a write past a random number of rows is met).
      rows: the file of rows, by which a moment within many writes of one kind is found.
      left: reads what a run left.
    """

    config: str
    settings: tuple[str, ...]
    writes: tuple[tuple[str, str, int], ...]
    rows: str
    left: Callable[[Path], Left]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--job", choices=tuple(JOBS), default="transfer")
    parser.add_argument("--config", help="of the job; quickstart or figure2_tiny where none is named")
    known, fields = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    about = JOBS[known.job]
    job = [sys.executable, "-m", f"experiments.{known.job}", "--config", known.config or about.config]
    job += [*about.settings, *fields]
    random = np.random.default_rng(known.seed)

    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        start = time.monotonic()
        finish([*job, "--workdir", str(undisturbed)], Path(folder) / "log")
        seconds = time.monotonic() - start
        expected = about.left(undisturbed)
        print(f"undisturbed: {seconds:.1f} s, {len(expected.metrics)} rows of metrics, {len(expected.model)} arrays")
        print(f"{'run':>4}  {'killed while / after':<58}  {'outcome'}")
        failed = num_kills = 0
        for number in range(known.kills):
            directory = Path(folder) / f"run{number}"
            command, log = [*job, "--workdir", str(directory)], Path(folder) / f"log{number}"
            kills: list[str] = []
            tries, wanted = 0, 3 if number % 3 == 2 else 1
            while not kills or tries < wanted:
                moment = choose(about, number, tries, known.kills, seconds, random)
                tries += 1
                if (ended := killed(command, directory, moment, log)) is None:
                    kills.append(moment.name)
                elif kills:
                    break
                else:  # it ended before its moment, as the machine is faster than it was: once more, from the beginning
                    seconds = min(seconds, ended)
                    shutil.rmtree(directory)
            finish(command, log)
            problems = differences(expected, about.left(directory))
            failed += bool(problems)
            num_kills += len(kills)
            print(f"{number:>4}  {', '.join(kills):<58}  {'; '.join(problems) or 'the same'}", flush=True)
    print(f"{known.kills - failed} of {known.kills} runs, killed {num_kills} times, ended as the undisturbed one")
    sys.exit(1 if failed else 0)


def choose(job: Job, number: int, tries: int, kills: int, seconds: float, random: np.random.Generator) -> Moment:
    """First in even runs: a random moment of their slice of the duration; in odd runs: a write. Later: any moment."""
    if tries or number % 2 == 0:
        slices = 1 if tries else -(-kills // 2)
        at = (random.random() + (0 if tries else number // 2)) / slices * seconds
        return Moment(f"{at:.2f} s", lambda directory, elapsed: elapsed >= at, 0.0)
    name, pattern, most = job.writes[number // 2 % len(job.writes)]
    # Of the many writes of a kind, one at random: later ones are reached with the files that are there by then.
    count, delay = int(random.integers(0, most + 1)), float(random.random() * 0.02)

    def reached(directory: Path, elapsed: float) -> bool:
        rows = directory / job.rows
        enough = not count or (rows.exists() and rows.read_bytes().count(b"\n") >= count)
        return enough and any(True for _ in directory.glob(pattern))

    return Moment(f"{name}{f' past {count} rows' if count else ''} + {1000 * delay:.0f} ms", reached, delay)


def killed(command: list[str], directory: Path, moment: Moment, log: Path) -> float | None:
    """Starts the job and kills it at a moment; where it ended before, after how many seconds it did."""
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        start = time.monotonic()
        while process.poll() is None:
            if moment.reached(directory, time.monotonic() - start):
                time.sleep(moment.delay)
                os.killpg(process.pid, signal.SIGKILL)
                if process.wait() == -signal.SIGKILL:
                    return None
            time.sleep(POLL)
    if process.returncode:
        raise RuntimeError(f"the job failed by itself:\n{log.read_text(errors='replace')[-2000:]}")
    return time.monotonic() - start


def finish(command: list[str], log: Path) -> None:
    """Runs the job to its end."""
    with open(log, "ab") as output:
        code = subprocess.run(command, stdout=output, stderr=output).returncode
    if code:
        raise RuntimeError(f"exit status {code}:\n{log.read_text(errors='replace')[-2000:]}")


def left(directory: Path) -> Left:
    """Reads what a run left."""
    result = workdir.read_json(directory / "result.json")
    del result["seconds"], result["command"]  # it names the work directory
    return Left(
        result,
        workdir.read_metrics(directory / "metrics.jsonl"),
        in_bytes(checkpoints.load_arrays(directory / "model")[0]),
        in_bytes(workdir.read_npz(directory / "evidence.npz")),
        (directory / "report.html").stat().st_size > 0,
    )


def in_bytes(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: f"{a.dtype}{a.shape}".encode() + np.ascontiguousarray(a).tobytes() for name, a in arrays.items()}


def left_of_study(directory: Path) -> Left:
    """The same of a study."""
    result = workdir.read_json(directory / "study.json")
    del result["header"]["seconds"], result["header"]["command"]
    rows = sorted(workdir.read_metrics(directory / "networks" / "cells.jsonl"), key=lambda row: row["cell"])
    bases = {
        f"{path.name}/{name}": array
        for path in sorted((directory / "bases").glob("*.npz"))
        for name, array in workdir.read_npz(path).items()
    }
    tables = {name: (directory / name).read_bytes() for name in sorted(p.name for p in directory.glob("*.csv"))}
    for row in rows:
        del row["seconds"]
    return Left(result, rows, in_bytes(bases), tables, (directory / "report.html").stat().st_size > 0)


def differences(expected: Left, found: Left) -> list[str]:
    """What differs, by name."""
    problems = []
    for field in Left._fields:
        a, b = getattr(expected, field), getattr(found, field)
        if a == b:
            continue
        if isinstance(a, dict):
            names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
            problems.append(f"{field} differs in {', '.join(names[:4])}")
        elif isinstance(a, list):
            same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            problems.append(f"{field}: {len(b)} rows for {len(a)}, the first difference in row {same}")
        else:
            problems.append(f"{field}: {b} for {a}")
    return problems


JOBS = {
    "transfer": Job(
        "configs/quickstart.py",
        # About 15 seconds on two idle cores (cnn8: twice that); checkpoints are written all the time, so that kills meet them.
        ("--checkpoint-seconds", "0.2", "--model.name", "mlp", "--model.hidden", "64", "32"),
        (
            ("a checkpoint half-written", "checkpoints/*/.unfinished-*", 39),
            ("model/ half-written", ".unfinished-model", 0),
            ("decision.json", "decision.json", 0),
            ("result.json", "result.json", 0),
            ("a checkpoint removed", "checkpoints/*/.discarded-*", 39),
            ("model/ there", "model", 0),
            ("evidence.npz", "evidence.npz", 0),
            ("figures", "figures", 0),
        ),
        "metrics.jsonl",
        left,
    ),
    "transferability": Job(
        "configs/figure2_tiny.py",
        (),
        (
            ("a network's row", "networks/cells.jsonl", 45),
            ("a base half-written", "bases/.*.unfinished", 2),
            ("study.json", "study.json", 0),
            ("figures", "figures", 0),
            ("a base", "bases/*.npz", 3),
        ),
        "networks/cells.jsonl",
        left_of_study,
    ),
}


if __name__ == "__main__":
    main()
