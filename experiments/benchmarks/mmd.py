"""Time and memory of the permutation test, against the least that the same arithmetic takes here, or against peers.

    python -m experiments.benchmarks.mmd [--sizes 1000 2000 5000 10000] [--features 64] [--permutations 200]
    python -m experiments.benchmarks.mmd --peers [--peer-path DIR] [--python PYTHON] [--limit 120]
    python -m experiments.benchmarks.mmd --aggregated [--peer-path DIR]

Each row runs in a process of its own. X, Y ~ N(0, I_d), m = n, float32, Gaussian kernel, median bandwidth. The floor is
the time of what every tile cannot do without, two products and an exponential of an array that is in the cache already, for
as many tiles of the same shape as the test visits. Calls of the test and of the floor take turns, and the fastest of each
counts. MB is the peak of memory above that of the process with jax started and the two samples made.

--peers sets other libraries' tests beside ours (`pip install .[bench]`; those without a package: see peers.py). For each
n, d and B every method starts a process, all make their first call in turn, and then their warm calls in turn, so that
what else the machine does meets them alike. The ratios are to our test. What would pass the limit, going by the growth
from smaller n, is skipped. --aggregated does the same for tests over 10 bandwidths of a Laplace and a Gaussian kernel.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.peer_process import PeerProcess, add_options, interpreters, peak_megabytes, start
from experiments.peers import Peer, aggregated_peers, peers

NUM_BANDWIDTHS = 10


class Row(NamedTuple):
    """What a method took.

    Attributes:
      first: seconds of the first call, with compiling.
      warm: seconds of the fastest later call.
      megabytes: peak of memory above the started process.
    """

    first: float
    warm: float
    megabytes: float


UNFINISHED = Row(math.inf, math.inf, math.nan)


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="n = m of each row")
    parser.add_argument("--features", type=int, nargs="+", default=[64], help="d")
    parser.add_argument("--permutations", type=int, nargs="+", default=[200], help="B")
    parser.add_argument("--repeats", type=int, default=5, help="warm calls, of which the fastest counts")
    parser.add_argument("--peers", action="store_true", help="beside other libraries' tests")
    parser.add_argument("--aggregated", action="store_true", help="tests over many kernels, beside MMDAgg and MMD-FUSE")
    parser.add_argument("--methods", nargs="+", help="only peers whose name has one of these in it, and ours")
    parser.add_argument(
        "--limit", type=float, default=120, metavar="SECONDS", help="skip peers' calls that take longer"
    )
    add_options(parser)
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    sizes = arguments.sizes or ([5000] if arguments.aggregated else [1000, 2000, 5000, 10000])
    if min(sizes) < 2 or min(*arguments.features, *arguments.permutations, arguments.repeats) < 1:
        parser.error("sizes must be at least 2, and features, permutations and repeats at least 1")
    pythons = interpreters(parser, arguments)
    shapes = list(itertools.product(arguments.features, arguments.permutations, sorted(sizes)))
    if arguments.row:
        (d, num, n), *_ = shapes
        print(json.dumps(measure(n, d, num, arguments.repeats)))
    elif arguments.peers or arguments.aggregated:
        num_bandwidths = NUM_BANDWIDTHS if arguments.aggregated else 0
        methods = aggregated_peers(num_bandwidths) if num_bandwidths else peers()
        wanted = [name.lower() for name in arguments.methods or [""]]
        methods = tuple(m for i, m in enumerate(methods) if i == 0 or any(name in m.name.lower() for name in wanted))
        print_beside(methods, num_bandwidths, shapes, arguments.repeats, arguments.limit, pythons)
    else:
        print(f"{'n':>7} {'d':>5} {'B':>5} {'first s':>8} {'warm s':>8} {'floor s':>8} {'ratio':>6} {'MB':>6}")
        for d, num, n in shapes:
            row = in_own_process(n, d, num, arguments.repeats)
            print(
                f"{n:7d} {d:5d} {num:5d} {row['first']:8.2f} {row['warm']:8.3f} "
                f"{row['floor']:8.3f} {row['warm'] / row['floor']:6.2f} {row['megabytes']:6.0f}",
                flush=True,
            )


def print_beside(
    methods: Sequence[Peer],
    num_bandwidths: int,
    shapes: Sequence[tuple[int, int, int]],
    repeats: int,
    limit: float,
    pythons: Sequence[str],
) -> None:
    """The table of several methods for each (d, B, n) of `shapes`; the first method is what the others are held against.

    A method runs in the first of `pythons` that can import it; a peer's call of more than `limit` seconds is stopped.
    """
    homes, missing = {}, {}
    for method in methods:
        process = start(method.name, num_bandwidths, pythons)
        homes[method.name], missing[method.name] = process.python, process.missing
        process.close()
    there = [method for method in methods if not missing[method.name]]
    print(
        f"{'method':<19} {'exact':<5} {'n':>7} {'d':>5} {'B':>5} {'first s':>8} {'warm s':>8} "
        f"{'× first':>8} {'× warm':>8} {'MB':>6}"
    )
    taken: dict[tuple[str, int, int], dict[int, Row]] = {}
    for d, num, n in shapes:
        reasons: dict[str, str] = {}
        processes: dict[str, PeerProcess] = {}
        for method in there:
            reason = _too_long(taken.get((method.name, d, num), {}), n, limit)
            if reason and method is not methods[0]:
                reasons[method.name] = reason
                continue
            process = PeerProcess(method.name, num_bandwidths=num_bandwidths, python=homes[method.name])
            process.prepare(n, d)
            processes[method.name] = process
        rows = _take_turns(processes, num, repeats, limit, reasons)
        for method in there:
            row = rows.get(method.name, UNFINISHED)
            taken.setdefault((method.name, d, num), {})[n] = row
            label = f"{method.name:<19} {'yes' if method.exact else 'no':<5} {n:7d} {d:5d} {num:5d}"
            if method.name in reasons:
                print(f"{label} {reasons[method.name]}", flush=True)
                continue
            ours = rows.get(methods[0].name)
            first, warm = (f"{row[i] / ours[i]:.1f}" if ours else "–" for i in range(2))
            print(f"{label} {row.first:8.2f} {row.warm:8.3f} {first:>8} {warm:>8} {row.megabytes:6.0f}", flush=True)
    for method in methods:
        if missing[method.name]:
            print(f"{method.name}: not here: {missing[method.name]}")
        elif method.note:
            print(f"{method.name}: {method.note}")


def _too_long(taken: dict[int, Row], n: int, limit: float) -> str:
    """Why a call with n rows is not made, or empty: from what calls with fewer rows took."""
    if not taken:
        return ""
    *before, last = sorted(taken)
    first, warm, _ = taken[last]
    if math.isinf(warm):
        return f"skipped, as n = {last} was not finished"
    power = 2.0
    if before:
        power = max(1.0, math.log(warm / taken[before[-1]].warm) / math.log(last / before[-1]))
    # What the first call takes longer is compiling, which does not grow with n.
    expected = max(first - warm, 0) + warm * (n / last) ** power
    return f"skipped: about {expected:.0f} s, going by n = {last}" if expected > limit else ""


def _take_turns(
    processes: dict[str, PeerProcess], num: int, repeats: int, limit: float, reasons: dict[str, str]
) -> dict[str, Row]:
    """First all first calls, then round after round of warm ones. A method that fails gets no row, but a reason."""
    rows: dict[str, Row] = {}
    for turn in range(1 + repeats):
        for name, process in processes.items():
            # One warm call says enough of a slow method.
            if name in reasons or (turn > 1 and rows[name].warm > limit / 6):
                continue
            try:
                found = process.timed(num, turn, limit=limit)
            except (TimeoutError, RuntimeError) as error:
                reasons[name] = str(error)
                rows.pop(name, None)
                continue
            seconds, megabytes = found["seconds"], found["megabytes"]
            row = rows.get(name, UNFINISHED)
            first, warm = (row.first, min(row.warm, seconds)) if turn else (seconds, row.warm)
            rows[name] = Row(first, warm, megabytes)
    for process in processes.values():
        process.close()
    return rows


def in_own_process(n: int, d: int, num: int, repeats: int) -> dict[str, float]:
    """`measure` in a fresh interpreter, whose peak of memory is this row's alone."""
    command = [sys.executable, "-m", "experiments.benchmarks.mmd", "--row", "--sizes", str(n)]
    command += ["--features", str(d), "--permutations", str(num), "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the row n = {n} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(n: int, d: int, num: int, repeats: int) -> dict[str, float]:
    """First and warm seconds, the floor's seconds, and megabytes above the process."""
    import jax
    import numpy as np

    from mmd_jax.two_sample import permutation_test

    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, d), np.float32) for _ in range(2))
    key = jax.random.key(0)
    jax.block_until_ready(jax.jit(lambda a: a @ a)(np.ones((64, 64), np.float32)))  # starts the backend

    def test() -> Any:
        return jax.block_until_ready(permutation_test(key, x, y, num_permutations=num))

    before = peak_megabytes()
    first = seconds(test)
    seconds(test)
    megabytes = peak_megabytes() - before
    least = floor(2 * n, d, num)
    # In turns: whatever else the machine does then slows both.
    turns = [(seconds(test), least()) for _ in range(repeats)]
    warm, bound = map(min, zip(*turns, strict=True))
    return {"first": first, "warm": warm, "floor": bound, "megabytes": megabytes}


def floor(N: int, d: int, num: int) -> Callable[[], float]:
    """Measures the seconds that the two products and the exponential of all the test's tiles would take alone."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    from mmd_jax.two_sample.gram import count_tiles
    from mmd_jax.two_sample.pooled import stack

    t = stack((np.zeros((N, 1), np.float32),), pad=True).shape[1]
    rows, columns, tile = jnp.ones((t, d)), jnp.ones((t, num + 1)), jnp.ones((t, t))

    @jax.jit
    def work(rows: Any, columns: Any, tile: Any) -> Any:
        # Each product depends on the one before, so none is dropped; sixteen of them hide the call's own time.
        def once(_: Any, carry: Any) -> Any:
            rows, columns, tile = carry
            distances = jnp.dot(rows, rows.T, precision=lax.Precision.HIGHEST)
            product = jnp.dot(jnp.exp(-1e-6 * (tile + distances)), columns, precision=lax.Precision.HIGHEST)
            return rows * 0.999, product * 1e-3, distances

        return lax.fori_loop(0, 16, once, (rows, columns, tile))

    call = lambda: jax.block_until_ready(work(rows, columns, tile))  # noqa: E731
    call()
    return lambda: seconds(call) / 16 * count_tiles(N, t)


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
