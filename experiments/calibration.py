"""Does every test keep its level where P = Q, and how often does it see a difference where there is one?

    python -m experiments.calibration [level] [power] [--only WORDS] [--quick] [--x64] [--workdir runs/calibration]

`level` counts rejections over 5,000 pairs of samples from one distribution, for every test of `experiments.catalogue`, at
several sizes and for several kinds of data; `power` counts them where the distributions differ, beside the peers that are
installed, on the same samples. Both go on from where they were stopped, cell by cell, and end with a table and a picture.
`--x64` runs the float64 tests of `level`, in a process of their own; the tables show what all runs in the folder have found.
"""

import argparse
import csv
import hashlib
import io
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from scipy import stats

import mmd_jax.two_sample
from experiments import cells, problems, workdir
from experiments.catalogue import FULL, POWER, TESTS, Entry
from experiments.cells import Cell, SkipError
from experiments.errors import reported
from experiments.peer_process import add_options, interpreters, start
from experiments.problems import NULLS, Family
from experiments.report import calibration_plots
from experiments.trials import Counted, Trials, count, count_outside
from mmd_jax.intervals import binomial_interval

VERSION = 1  # raised where a change here changes the numbers of a cell
SIZES = ((10, 20), (50, 50), (50, 100), (200, 200))
PAIRS = ((20, 20), (50, 50), (100, 100), (200, 200))
LATER = (500, 500)  # of asymptotic tests
LARGE = (2000, 2000)
# Where the level doesn't depend on the data, these sizes are enough for those that are not normal.
FEW = {(10, 20), (50, 50), (20, 20)}
CALL_SECONDS = 600.0  # after which a call of a peer is given up, its compiling included
TABLE_LEVEL = 0.05  # the probability that any cell of the table is said to exceed its level though none does

# Name in the picture -> (name among the peers, bandwidths a kernel; 0: a single kernel).
OUTSIDERS = {
    "hyppo": ("hyppo", 0),
    "frouros": ("frouros", 0),
    "alibi-detect": ("alibi-detect", 0),
    "goodpoints CTT": ("goodpoints CTT", 0),
    "mmdagg": ("mmdagg", 10),
    "mmdfuse": ("mmdfuse", 10),
    "agginc": ("agginc", 0),
    "PermFreeMMD": ("cross-MMD", 0),
    "rff-mmd": ("rff-mmd", 0),
}

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "grids",
        nargs="*",
        metavar="level | power",
        help="which of the two; where none is named both, or level with --x64",
    )
    parser.add_argument("--trials", type=int, help="pairs of samples a cell (5,000 for level, 200 for power)")
    parser.add_argument("--alpha", type=float, default=0.05, help="nominal level")
    parser.add_argument("--permutations", type=int, default=99, help="B")
    parser.add_argument("--only", default="", help="cells whose name contains one of these words, parted by commas")
    parser.add_argument("--quick", action="store_true", help="200 trials (power: 20), samples of at most 100 rows")
    parser.add_argument("--x64", action="store_true", help="run the tests in float64, and only these")
    parser.add_argument("--peer-seconds", type=float, default=5.0, help="time of a peer for one cell")
    parser.add_argument("--workers", type=int, default=2, help="cells that run side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", default="~/data", help="where CIFAR-10 is, if it is there")
    parser.add_argument("--workdir", type=Path, default=Path("runs/calibration"))
    add_options(parser)
    options = parser.parse_args(argv)
    options.pythons = interpreters(parser, options)
    with reported():
        if strange := sorted({*options.grids} - {"level", "power"}):
            raise ValueError(f"there is no grid {strange[0]!r}; expected level, power, or both")
        if options.trials is not None and options.trials < 1:
            raise ValueError(f"trials = {options.trials}; expected at least 1")
        if not 1 / (options.permutations + 1) <= options.alpha < 1:
            raise ValueError(
                f"alpha = {options.alpha} with {options.permutations} permutations: nothing could be rejected; expected "
                "alpha below 1 and at least 1 / (permutations + 1)"
            )
        if options.x64 and "power" in options.grids:
            raise ValueError("power has no float64 tests; leave out --x64, or name level alone")
        if options.x64:
            jax.config.update("jax_enable_x64", True)
        for grid in options.grids or (("level",) if options.x64 else ("level", "power")):
            print(level(options) if grid == "level" else power(options))


# The level


def level(options: argparse.Namespace) -> str:
    """Runs the cells that are not there yet, writes table and picture, and returns the table as text."""
    directory = options.workdir / "level"
    grid = level_cells(options)
    cells.run_cells(
        cells.select(ours(grid, options), options.only), level_cell, directory, label="level", workers=options.workers
    )
    rows = judge(cells.finished(grid, directory))
    write(directory, "level", rows, calibration_plots.level)
    return level_table(rows)


def level_cells(options: argparse.Namespace) -> list[Cell]:
    """Test × kind of data × sizes."""
    trials = options.trials or (200 if options.quick else 5000)
    grid = []
    for entry in TESTS:
        for null in (null for null in NULLS if null.data == entry.data):
            first = null.name == "normal" or entry.data != "rows"
            more = (LATER,) * (entry.level == "asymptotic") + (LARGE,) * (entry.large and null.name == "normal")
            for m, n in (*(PAIRS if entry.pairs else SIZES), *more):
                few = entry.level != "asymptotic" and not first
                if (few and (m, n) not in FEW) or (options.quick and n > 100):
                    continue
                settings = about(entry, options) | {"null": null.name, "m": m, "n": n}
                settings["trials"] = max(1, round(entry.share * trials))
                grid.append(Cell(f"{entry.name} / {null.name} / {m} x {n}", settings, cost(m, n, trials)))
    return grid


def level_cell(cell: Cell) -> Row:
    """Rejections where P = Q."""
    s = cell.settings
    null = next(null for null in NULLS if null.name == s["null"])
    return count(entry_of(s["test"]), trials_of(s, null.name, null.draw))._asdict() | {"code": code()}


def judge(rows: Sequence[Row]) -> list[Row]:
    """Rates, intervals, and whether each keeps its level: the binomial tail, Bonferroni-corrected over the rows."""
    judged = []
    for row in rows:
        level = row["alpha"]
        if row["level"] == "exact":
            level = math.floor(row["alpha"] * (row["permutations"] + 1) * (1 + 1e-6)) / (row["permutations"] + 1)
        above = stats.binom.sf(row["rejections"] - 1, row["done"], level)
        below = stats.binom.cdf(row["rejections"], row["done"], level)
        bound = TABLE_LEVEL / len(rows)
        verdict = "exceeds" if above < bound else "conservative" if below < bound else "holds"
        judged.append(with_interval(row) | {"expected": level, "tail": float(above), "verdict": verdict})
    return judged


def level_table(rows: Sequence[Row]) -> str:
    """One line for each test and kind of data, one column for each pair of sizes; then what follows from them."""
    sizes = sorted({(row["m"], row["n"]) for row in rows}, key=lambda size: (size[1], size[0]))
    by_line: dict[tuple[str, str], dict[tuple[int, int], Row]] = {}
    for row in rows:
        by_line.setdefault((row["test"], row["null"]), {})[row["m"], row["n"]] = row
    marks = {"exceeds": "!", "conservative": "-", "holds": " "}
    lines = [f"{'test':<36}{'data':<14}" + "".join(f"{f'{m} x {n}':>13}" for m, n in sizes)]
    for (test, null), found in by_line.items():
        numbers = [
            f"{found[size]['rate']:.4f}{marks[found[size]['verdict']]}" if size in found else "" for size in sizes
        ]
        lines.append(f"{test:<36}{null:<14}" + "".join(f"{number:>13}" for number in numbers))
    lines.append("! exceeds the level, - lies below it, beyond what chance explains (Bonferroni over the cells)")
    exact = [row for row in rows if row["level"] != "asymptotic"]
    if exact:
        bad = [row["cell"] for row in exact if row["verdict"] == "exceeds"]
        lines.append(
            f"{len(bad)} of {len(exact)} cells of exact tests exceed their level{': ' * bool(bad)}{'; '.join(bad)}"
        )
    for test in dict.fromkeys(row["test"] for row in rows if row["level"] == "asymptotic"):
        size = smallest_size([row for row in rows if row["test"] == test])
        lines.append(
            f"{test}: " + ("its level does not hold here" if size is None else f"its level holds from n = {size}")
        )
    if stale := sum(row["code"] != code() for row in rows):
        lines.append(f"{stale} of {len(rows)} cells were made by an earlier version of mmd_jax.two_sample")
    return "\n".join(lines)


def smallest_size(rows: Sequence[Row]) -> int | None:
    """The least n (of the smaller sample) from which on no cell exceeds its level, whatever the data."""
    sizes = sorted({min(row["m"], row["n"]) for row in rows})
    too_small = [min(row["m"], row["n"]) for row in rows if row["verdict"] == "exceeds"]
    return next((size for size in sizes if size > max(too_small, default=0)), None)


# The power


def power(options: argparse.Namespace) -> str:
    """The same as `level`, where the distributions differ; then the peers, one at a time, on the same samples."""
    directory = options.workdir / "power"
    families = (*problems.FAMILIES, problems.cifar10(options.data_dir))
    grid = power_cells(options, families)
    chosen = cells.select(ours(grid, options), options.only)
    with Outsiders(options.pythons) as outsiders:
        run_one = partial(power_cell, families=families, outsiders=outsiders, seconds=options.peer_seconds)
        rows = []
        for foreign, workers in ((False, options.workers), (True, 1)):
            part = [cell for cell in chosen if (cell.settings["test"] in OUTSIDERS) == foreign]
            rows += cells.run_cells(part, run_one, directory, label="power", workers=workers)
    reasons = [f"{row['test']}, {row['family']}: {row['skipped']}" for row in rows if "skipped" in row]
    found = cells.finished(grid, directory)
    reasons += [f"{row['test']}, {row['family']}: too slow" for row in found if not row["done"]]
    found = [with_interval(row) for row in found if row["done"]]
    write(directory, "power", found, partial(calibration_plots.power, families=families))
    return "\n".join([power_table(found), *(f"skipped {reason}" for reason in dict.fromkeys(reasons))])


def power_cells(options: argparse.Namespace, families: Sequence[Family]) -> list[Cell]:
    """Test × family × point; the peers come last, since they take longest."""
    trials = options.trials or (20 if options.quick else 200)
    grid = []
    for name in (*POWER, *OUTSIDERS):
        for family in families:
            if options.quick and family.n > 100:
                continue
            settings = about(entry_of(name), options) if name in POWER else about(None, options) | {"test": name}
            settings |= {"family": family.name, "m": family.n, "n": family.n, "trials": trials}
            seconds = cost(family.n, family.n, trials)
            if name in OUTSIDERS:
                settings["limit"] = seconds = options.peer_seconds
            for point in family.points:
                grid.append(Cell(f"{name} / {family.name} / {point:g}", {**settings, "point": point}, seconds))
    return grid


def power_cell(cell: Cell, families: Sequence[Family], outsiders: "Outsiders", seconds: float) -> Row:
    """Rejections where P and Q differ."""
    s = cell.settings
    family = next(family for family in families if family.name == s["family"])
    trials = trials_of(s, f"{family.name} {s['point']:g}", partial(family.draw, s["point"]))
    try:
        if s["test"] in POWER:
            return count(entry_of(s["test"]), trials)._asdict() | {"code": code()}
        return outsiders.count(s["test"], trials, seconds)._asdict()
    except (FileNotFoundError, ImportError) as error:  # no CIFAR-10 here, or no such peer
        raise SkipError(str(error).splitlines()[0]) from None


class Outsiders:
    """The peers' processes; all end with the `with` block."""

    def __init__(self, pythons: Sequence[str] = (sys.executable,)) -> None:
        self._pythons = pythons
        self._running: dict[str, Any] = {}

    def __enter__(self) -> "Outsiders":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.close()

    def count(self, name: str, trials: Trials, seconds: float) -> Counted:
        """`count_outside`. SkipError where the peer fails, or is still at one call after `CALL_SECONDS`."""
        test = partial(self.test(name), limit=CALL_SECONDS)
        try:
            return count_outside(test, trials, seconds)
        except (RuntimeError, TimeoutError) as error:
            # It may have ended; the next cell starts another.
            self._running.pop(name).close()
            raise SkipError(str(error).splitlines()[0]) from None

    def test(self, name: str) -> Callable[..., Any]:
        """(x, y, num_permutations, seed, alpha) -> a result with `reject`. ImportError where the peer is missing."""
        if name not in self._running:
            peer, num_bandwidths = OUTSIDERS[name]
            self._running[name] = start(peer, num_bandwidths, self._pythons)
        if missing := self._running[name].missing:
            raise ImportError(missing)
        return self._running[name]


def power_table(rows: Sequence[Row]) -> str:
    """For each family, one line a test, one column a point."""
    lines = []
    for family in dict.fromkeys(row["family"] for row in rows):
        inside = [row for row in rows if row["family"] == family]
        points = sorted({row["point"] for row in inside})
        lines.append(f"{family + ', n = ' + str(inside[0]['n']):<36}" + "".join(f"{point:>8g}" for point in points))
        for test in dict.fromkeys(row["test"] for row in inside):
            rates = {row["point"]: row["rate"] for row in inside if row["test"] == test}
            lines.append(f"  {test:<34}" + "".join(f"{rates.get(point, math.nan):>8.3f}" for point in points))
    return "\n".join(lines)


# What both share


def about(entry: Entry | None, options: argparse.Namespace) -> Row:
    """What the numbers of every cell depend on."""
    own = {} if entry is None else {"test": entry.name, "level": entry.level, "precision": entry.precision}
    names = ("alpha", "permutations", "seed")
    return own | {name: getattr(options, name) for name in names} | {"version": VERSION}


def trials_of(settings: Any, name: str, draw: problems.Draw) -> Trials:
    """The trials of a cell."""
    s = settings
    return Trials(name, draw, s["m"], s["n"], s["trials"], s["alpha"], s["permutations"], s["seed"])


def ours(grid: Sequence[Cell], options: argparse.Namespace) -> list[Cell]:
    """The cells that this process can run: float64 is switched on for all of a process, or off."""
    return [cell for cell in grid if (cell.settings.get("precision") == "float64") == options.x64]


def entry_of(name: str) -> Entry:
    """The test of this name."""
    return next(entry for entry in (*TESTS, *FULL) if entry.name == name)


def cost(m: int, n: int, trials: int) -> float:
    """About how many seconds a cell takes: to compile, and then a trial goes with the rows until products outweigh."""
    rows = m + n
    return 2 + trials * (5e-6 * rows + 2e-9 * rows**2)


def code() -> str:
    """A hash of the tests' source, so that the table can say which rows are older than the code."""
    files = sorted(Path(mmd_jax.two_sample.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def with_interval(row: Row) -> Row:
    """The row, with the rate and its 95 % interval."""
    interval = binomial_interval(row["rejections"], row["done"])
    return row | {"rate": interval.estimate, "low": interval.low, "high": interval.high}


def write(directory: Path, name: str, rows: Sequence[Row], draw: Callable[..., dict[str, bytes]]) -> None:
    """NAME.json, NAME.csv, and the picture, from the rows that are there."""
    workdir.write_json(directory / f"{name}.json", rows)
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    workdir.write_bytes(directory / f"{name}.csv", text.getvalue().encode())
    for file, content in draw(rows).items():
        workdir.write_bytes(directory / file, content)


if __name__ == "__main__":
    main()
