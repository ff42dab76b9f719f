"""How long does the first stage of a ranking take in a large library, and does its memory grow?

    python -m experiments.benchmarks.library [--entries 100 300 1000] [--repeats 3]

Entries are synthetic: sketches of random rows, no networks, which the first stage does not read. Each size runs in a process of
its own. Exit status 1 where one of them takes a second or more.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import workdir
from experiments.collection import entries, nearness, settings, sketching
from experiments.collection.settings import Format
from experiments.sources import Dataset

SHAPE = (16, 16, 1)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    known = parser.parse_args(argv)
    if known.measure:
        print(json.dumps(measure(known.measure, known.repeats)))
        return
    print(f"{'entries':>8} {'first stage, s':>15} {'memory above start, MB':>23}")
    slowest = 0.0
    for count in known.entries:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), count)
            command = [sys.executable, "-m", "experiments.benchmarks.library", "--measure", folder]
            output = subprocess.run([*command, "--repeats", str(known.repeats)], check=True, capture_output=True).stdout
        found = json.loads(output.decode().splitlines()[-1])
        slowest = max(slowest, found["seconds"])
        print(f"{count:>8} {found['seconds']:>15.3f} {found['megabytes']:>23.1f}")
    sys.exit(1 if slowest >= 1 else 0)


def fill(library: Path, count: int) -> None:
    """A library of so many entries, each with what the first stage reads."""
    format = settings.create(library, settings.format_for(SHAPE))
    of_format = np.array(settings.digest(format))
    random = np.random.default_rng(0)
    width = len(format.multiples) * format.num_features
    for number in range(count):
        mean = random.normal(0, 0.5 / np.sqrt(width), width).astype(np.float32)
        folder = library / f"entry{number:05d}"
        folder.mkdir()
        workdir.write_npz(folder / "embedding.npz", {"mean": mean, "size": np.int64(1000), "format": of_format})
        workdir.write_json(folder / "entry.json", {"what": entries.WHAT, "version": entries.VERSION})


def measure(library: Path, repeats: int) -> dict[str, float]:
    """The least seconds of a few, and the most memory; the target's own sketches, which are made once, are left out."""
    format = settings.read(library)
    target = a_target(format)
    sketches = sketching.sketch_inputs(format, jax.random.key(0), target.train_x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        names, mmd2, _ = nearness.compared(library, format, sketches)
        _ = [names[i] for i in np.argsort(mmd2)]
        seconds = min(seconds, time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (after - before) / 1024}


def a_target(format: Format) -> Dataset:
    x = np.asarray(jax.random.randint(jax.random.key(0), (200, *format.shape), 0, 256), np.uint8)
    y = np.arange(200, dtype=np.int32) % 2
    rows = np.arange(200)
    return Dataset(x, y, x, y, ("a", "b"), None, None, rows, rows, ("a", "b"), "", True)


if __name__ == "__main__":
    main()
