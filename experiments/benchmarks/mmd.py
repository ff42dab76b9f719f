"""Time and memory of the permutation test, against the least that the same arithmetic takes here.

    python -m experiments.benchmarks.mmd [--sizes 1000 2000 5000 10000] [--features 64] [--permutations 200]

Each row runs in a process of its own. X, Y ~ N(0, I_d), m = n, float32, Gaussian kernel, median bandwidth. The floor is
the time of the products and exponentials of one half of the Gram matrix, at the speed that large ones reach in the same
process: N²/2 · (2d + 2B) operations and N²/2 exponentials. MB is the peak of memory above that of the process with jax
started and the two samples made.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

TARGET_MB = 400  # at n = 10,000, d = 64, B = 200


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 5000, 10000], help="n = m of each row")
    parser.add_argument("--features", type=int, default=64, help="d")
    parser.add_argument("--permutations", type=int, default=200, help="B")
    parser.add_argument("--repeats", type=int, default=3, help="warm calls, of which the fastest counts")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if min(arguments.sizes) < 2 or min(arguments.features, arguments.permutations, arguments.repeats) < 1:
        parser.error("sizes must be at least 2, and features, permutations and repeats at least 1")
    if arguments.row:
        print(json.dumps(measure(arguments.sizes[0], arguments.features, arguments.permutations, arguments.repeats)))
        return
    print(f"{'n':>7} {'d':>5} {'B':>5} {'first s':>8} {'warm s':>8} {'floor s':>8} {'ratio':>6} {'MB':>6}")
    for n in arguments.sizes:
        row = in_own_process(n, arguments.features, arguments.permutations, arguments.repeats)
        print(
            f"{n:7d} {arguments.features:5d} {arguments.permutations:5d} {row['first']:8.2f} {row['warm']:8.3f} "
            f"{row['floor']:8.3f} {row['warm'] / row['floor']:6.2f} {row['megabytes']:6.0f}",
            flush=True,
        )


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
    warm = min(seconds(test) for _ in range(repeats))
    after = peak_megabytes()
    return {"first": first, "warm": warm, "floor": floor(2 * n, d, num, repeats), "megabytes": after - before}


def floor(N: int, d: int, num: int, repeats: int) -> float:
    """Seconds that the products and exponentials alone would take at their best speed, in tiles of 1,024 rows."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    t = 1024
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
    return min(seconds(call) for _ in range(max(3, repeats))) / 16 / t**2 * N**2 / 2


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_megabytes() -> float:
    """The largest resident size this process has had."""
    try:
        # Not getrusage: its maximum is inherited from the process that started this one.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
