"""Is anything lost or half-made when several people add to a library at once, and when adds are killed?

    python -m experiments.benchmarks.library_kill [--adds 50] [--kills 20] [--seed 0]

Two writers add so many entries each, at once, and both try for five names more. Then adds are killed by SIGKILL: half of them
at a random moment, half when a file of the entry has just appeared. Then a byte of each file of an entry is flipped, at its
beginning, end and two random places. Exit status 1 where an entry is lost, half-made, or a flip is not found,
or where a writer ended before it was killed.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.collection import adding, store
from experiments.config import Config, Data, Model, Training

CONTESTED = 5
FILES = ("model", "embedding.npz", "inputs.npz", "layers.npz", "entry.json", "manifest.json")
CONFIG = Config(
    name="tiny",
    source=Data("digits", classes=("0", "1", "2"), limit=90),
    model=Model("mlp", hidden=(8,)),
    pretrain=Training(epochs=2, learning_rates=(3e-3,)),
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adds", type=int, default=50, help="of each writer")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", nargs=4, metavar=("LIBRARY", "WEIGHTS", "PREFIX", "COUNT"), help=argparse.SUPPRESS)
    known = parser.parse_args(argv)
    if known.write:
        write(Path(known.write[0]), known.write[1], known.write[2], int(known.write[3]))
        return
    random = np.random.default_rng(known.seed)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library"
        adding.from_config(library, "first", CONFIG, Path(folder) / "trained")
        weights = str(library / "first" / "model")
        failed = side_by_side(library, weights, known.adds)
        failed += kills(library, weights, known.kills, random)
        failed += flips(library, Path(folder) / "copy", random)
    print("all as it should be" if not failed else f"{failed} things are wrong")
    sys.exit(1 if failed else 0)


def write(library: Path, weights: str, prefix: str, count: int) -> None:
    """Adds PREFIX000, PREFIX001, … and then the contested names; says when it begins, and which names were taken."""
    config = replace(CONFIG, model=replace(CONFIG.model, weights=weights))
    print("begin", flush=True)
    contested = [f"both{number}" for number in range(CONTESTED)] if prefix in ("A", "B") else []
    for name in [f"{prefix}{number:03d}" for number in range(count)] + contested:
        try:
            adding.from_config(library, name, config, library)
            print(f"added {name}", flush=True)
        except ValueError as error:
            print(f"refused {name}: {error}", flush=True)


def start(library: Path, weights: str, prefix: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.benchmarks.library_kill", "--write", str(library), weights, prefix]
    return subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def side_by_side(library: Path, weights: str, adds: int) -> int:
    """Two writers at once."""
    begun = time.monotonic()
    writers = [start(library, weights, prefix, adds) for prefix in "AB"]
    said = [writer.communicate()[0].decode().splitlines() for writer in writers]
    added = [line.split()[1] for lines in said for line in lines if line.startswith("added")]
    refused = [line for lines in said for line in lines if line.startswith("refused both") and "already" in line]
    there = set(store.names(library)) - {"first"}
    wanted = {f"{prefix}{number:03d}" for prefix in "AB" for number in range(adds)}
    wanted |= {f"both{number}" for number in range(CONTESTED)}
    damaged = [name for name in there if store.problems(library / name)]
    wrong = (there != wanted) + (sorted(added) != sorted(wanted)) + (len(refused) != CONTESTED) + bool(damaged)
    wrong += bool(hidden(library))
    print(f"two writers × {adds} adds: {len(there)} entries of {len(wanted)}, {len(damaged)} damaged")
    print(
        f"  {CONTESTED} names wanted by both: added {len([n for n in added if n.startswith('both')])} times, refused by"
    )
    print(
        f"  one clear error {len(refused)} times; {len(hidden(library))} hidden folders; {time.monotonic() - begun:.0f} s"
    )
    return wrong


def hidden(library: Path) -> list[str]:
    return [path.name for path in library.glob(".*") if path.is_dir()]


def kills(library: Path, weights: str, count: int, random: np.random.Generator) -> int:
    """Adds that are killed: what was whole stays, nothing is half-made, and the next add sweeps up."""
    print(f"{'kill':>5}  {'moment':<34} {'entries':>8} {'damaged':>8} {'hidden':>7}")
    wrong = 0
    for number in range(count):
        before = set(store.names(library))
        writer = start(library, weights, f"K{number}_", 1000)
        assert writer.stdout is not None
        while writer.stdout.readline().strip() != b"begin":
            if writer.poll() is not None:
                raise RuntimeError(f"the writer of kill {number} ended by itself")
        if number % 2:
            seconds = float(random.uniform(0, 3))
            time.sleep(seconds)
            seen = True
            moment = f"{seconds:.2f} s after the beginning"
        else:
            file = FILES[number // 2 % len(FILES)]
            while not (seen := any(library.glob(f".adding-*/entry/{file}"))) and writer.poll() is None:
                time.sleep(0.0005)
            moment = f"{file} has just appeared" if seen else f"{file} never appeared"
        alone = writer.poll() is not None
        if alone:
            moment = f"ended by itself ({writer.returncode})"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        after = set(store.names(library))
        damaged = [name for name in after if store.problems(library / name)]
        left = hidden(library)
        wrong += bool(before - after) + bool(damaged) + (len(left) > 1) + (alone or not seen)
        print(f"{number:>5}  {moment:<34} {len(after):>8} {len(damaged):>8} {len(left):>7}", flush=True)
    adding.from_config(library, "last", replace(CONFIG, model=replace(CONFIG.model, weights=weights)), library)
    print(
        f"after one more add: {len(hidden(library))} hidden folders, {len(store.problems(library / 'last'))} problems"
    )
    return wrong + bool(hidden(library)) + bool(store.problems(library / "last"))


def flips(library: Path, copy: Path, random: np.random.Generator) -> int:
    """One flipped byte in each file of an entry."""
    shutil.copytree(library / "first", copy)
    files = [*store.files_of(copy), store.MANIFEST]
    found = tried = 0
    for name in files:
        path = copy / name
        content = path.read_bytes()
        places = {0, len(content) - 1, *random.integers(0, len(content), 2).tolist()} if content else set()
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1 << int(random.integers(8))
            path.write_bytes(bytes(changed))
            tried += 1
            if store.problems(copy):
                found += 1
            else:
                print(f"byte {place} of {name} was flipped, and not found")
        path.write_bytes(content)
    print(
        f"a flipped byte in each of {len(files)} files: {found} of {tried} found; put back: {store.problems(copy) or 'sound'}"
    )
    return tried - found + bool(store.problems(copy))


if __name__ == "__main__":
    main()
