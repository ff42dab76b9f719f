"""One large test, driven step by step, with progress and time left: seconds, the floor's seconds, and peak memory.

    python -m experiments.benchmarks.large [--size 100000] [--features 64] [--permutations 1000] [--bins 0]

X, Y ~ N(0, I_d), m = n, float32, Gaussian kernel, median bandwidth. The floor is that of
`experiments.benchmarks.mmd`, measured after the test.
"""

import argparse

import jax
import numpy as np

from experiments.benchmarks.mmd import floor, seconds
from experiments.peer_process import peak_megabytes
from experiments.progress import track
from mmd_jax.two_sample import permutation_test_in_steps
from mmd_jax.two_sample.gram import count_tiles
from mmd_jax.two_sample.pooled import stack


def main(argv: list[str] | None = None) -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="n = m")
    parser.add_argument("--features", type=int, default=64, help="d")
    parser.add_argument("--permutations", type=int, default=1000, help="B")
    parser.add_argument("--bins", type=int, default=0, help="bins that are permuted in place of rows; 0: rows")
    arguments = parser.parse_args(argv)
    n, d, num = arguments.size, arguments.features, arguments.permutations
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, d), np.float32) for _ in range(2))
    tile = stack((np.zeros((2 * n, 1), np.float32),), pad=True).shape[1]
    tiles = count_tiles(2 * n, tile)
    each = -(-tiles // 200)

    def test() -> None:
        steps = permutation_test_in_steps(
            jax.random.key(0), x, y, num_permutations=num, bins=arguments.bins or None, tiles_per_step=each
        )
        for step in track(steps, "steps", -(-tiles // each)):
            last = step
        assert last.result is not None
        print(f"p = {float(last.result.pvalue):.4g}")

    took = seconds(test)
    peak = peak_megabytes()
    bound = floor(2 * n, d, 0 if arguments.bins else num)
    least = min(bound() for _ in range(5))
    print(
        f"n = m = {n}, d = {d}, B = {num}: {took:.0f} s, floor {least:.0f} s, ratio {took / least:.2f}, {peak:.0f} MB in all"
    )


if __name__ == "__main__":
    main()
