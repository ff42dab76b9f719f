"""Does a run that is killed at any moment end as if nothing had happened?

    python -m experiments.benchmarks.kill [--kills 10] [--seed 0] [--config configs/quickstart.py] [--model.name cnn8 …]

Runs the main job once undisturbed, then once for each kill: SIGKILL, and the same command again until it ends (every
third run is killed up to three times). Half of the moments are random, spread over the undisturbed duration; the others
are aimed at a write: of a checkpoint, the decision, model/, result.json, the report. Each run must leave the same
result.json (but for `seconds`), evidence, rows of metrics.jsonl, and bit-identical variables. The exit status is 1
where one does not.
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

# About 15 seconds on two idle cores (cnn8: twice that); checkpoints are written all the time, so that kills meet them.
SETTINGS = ("--checkpoint-seconds", "0.2", "--model.name", "mlp", "--model.hidden", "64", "32")
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
      result: result.json without `seconds` and `command`.
      metrics: the rows of metrics.jsonl.
      model: {name: bytes} of the variables in model/.
      evidence: {name: bytes} of evidence.npz.
      report: whether there is one.
    """

    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    model: dict[str, bytes]
    evidence: dict[str, bytes]
    report: bool


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--config", default="configs/quickstart.py")
    known, fields = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    job = [sys.executable, "-m", "experiments.transfer", "--config", known.config, *SETTINGS, *fields]
    random = np.random.default_rng(known.seed)

    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        start = time.monotonic()
        finish([*job, "--workdir", str(undisturbed)], Path(folder) / "log")
        seconds = time.monotonic() - start
        expected = left(undisturbed)
        print(f"undisturbed: {seconds:.1f} s, {len(expected.metrics)} rows of metrics, {len(expected.model)} arrays")
        print(f"{'run':>4}  {'killed while / after':<58}  {'outcome'}")
        failed = num_kills = 0
        for number in range(known.kills):
            directory = Path(folder) / f"run{number}"
            command, log = [*job, "--workdir", str(directory)], Path(folder) / f"log{number}"
            kills: list[str] = []
            tries, wanted = 0, 3 if number % 3 == 2 else 1
            while not kills or tries < wanted:
                moment = choose(number, tries, known.kills, seconds, random)
                tries += 1
                if (ended := killed(command, directory, moment, log)) is None:
                    kills.append(moment.name)
                elif kills:
                    break
                else:  # it ended before its moment, as the machine is faster than it was: once more, from the beginning
                    seconds = min(seconds, ended)
                    shutil.rmtree(directory)
            finish(command, log)
            problems = differences(expected, left(directory))
            failed += bool(problems)
            num_kills += len(kills)
            print(f"{number:>4}  {', '.join(kills):<58}  {'; '.join(problems) or 'the same'}", flush=True)
    print(f"{known.kills - failed} of {known.kills} runs, killed {num_kills} times, ended as the undisturbed one")
    sys.exit(1 if failed else 0)


def choose(number: int, tries: int, kills: int, seconds: float, random: np.random.Generator) -> Moment:
    """First in even runs: a random moment of their slice of the duration; in odd runs: a write. Later: any moment."""
    if tries or number % 2 == 0:
        slices = 1 if tries else -(-kills // 2)
        at = (random.random() + (0 if tries else number // 2)) / slices * seconds
        return Moment(f"{at:.2f} s", lambda directory, elapsed: elapsed >= at, 0.0)
    name, pattern = WRITES[number // 2 % len(WRITES)]
    # Of the many writes of a kind, one at random: later ones are reached with the files that are there by then.
    count, delay = int(random.integers(0, 40)) if "checkpoint" in name else 0, float(random.random() * 0.02)

    def reached(directory: Path, elapsed: float) -> bool:
        rows = directory / "metrics.jsonl"
        enough = not count or (rows.exists() and rows.read_bytes().count(b"\n") >= count)
        return enough and any(True for _ in directory.glob(pattern))

    return Moment(f"{name}{f' past {count} rows' if count else ''} + {1000 * delay:.0f} ms", reached, delay)


# What stands in the work directory at the moment of a write.
WRITES = (
    ("a checkpoint half-written", "checkpoints/*/.unfinished-*"),
    ("model/ half-written", ".unfinished-model"),
    ("decision.json", "decision.json"),
    ("result.json", "result.json"),
    ("a checkpoint removed", "checkpoints/*/.discarded-*"),
    ("model/ there", "model"),
    ("evidence.npz", "evidence.npz"),
    ("figures", "figures"),
)


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


if __name__ == "__main__":
    main()
