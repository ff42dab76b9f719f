"""How far the test's statistics are from float64, in each precision, for the same splits of the same rows.

    python -m experiments.benchmarks.precision [--sizes 2000 10000] [--features 64] [--permutations 200]

X, Y ~ N(0, I_d), m = n. Errors of the resampled unbiased MMD² are in per cent of the null's standard deviation; counts are of
resampled statistics that reach the observed one, which p and the decision come from.
"""

import argparse
from typing import get_args

import jax
import numpy as np

from mmd_jax.two_sample import permutation_test
from mmd_jax.two_sample.kernels import Precision


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 10000], help="m = n of each block")
    parser.add_argument("--features", type=int, default=64, help="d")
    parser.add_argument("--permutations", type=int, default=200, help="B")
    arguments = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)  # float32 rows stay float32
    num = arguments.permutations
    print(f"{'n':>6} {'products':<10} {'rms %':>8} {'largest %':>10} {'observed %':>11} {'count':>6} {'float64':>8}")
    for n in arguments.sizes:
        rng = np.random.default_rng(1)
        x, y = (rng.standard_normal((n, arguments.features), np.float32) for _ in range(2))
        settings = {"bandwidth": arguments.features**0.5 * 1.4, "num_permutations": num, "return_null": True}
        exact = permutation_test(jax.random.key(0), x.astype(np.float64), y.astype(np.float64), **settings)
        unit = np.std(np.asarray(exact.null)) / 100
        for precision in get_args(Precision):
            found = permutation_test(jax.random.key(0), x, y, precision=precision, **settings)
            error = (np.asarray(found.null, np.float64) - np.asarray(exact.null)) / unit
            observed = (float(found.statistic) - float(exact.statistic)) / unit
            counts = [round(float(result.pvalue) * (num + 1)) - 1 for result in (found, exact)]
            rms, largest = np.sqrt(np.mean(error**2)), np.abs(error).max()
            numbers = f"{rms:>8.4f} {largest:>10.4f} {observed:>11.4f} {counts[0]:>6} {counts[1]:>8}"
            print(f"{n:>6} {precision:<10} {numbers}", flush=True)


if __name__ == "__main__":
    main()
