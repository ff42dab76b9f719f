"""Does the verdict hold its errors, and does it turn with the sample size? At distances that are known.

    python -m experiments.benchmarks.verdict [--sizes 100 250 1000 2000] [--trials 400 400 150 60] [--draws 199]
    python -m experiments.benchmarks.verdict --each 5 [--ungrouped]

X ~ N(0, I₁₀), Y the same moved by a shift in every coordinate; m = n; Gaussian kernel of bandwidth √20, for which the true
MMD has a closed form; margin .1; alpha .05. A line holds the shares of trials in which the interval's lower end lay above the
true MMD, its upper end below it, P = Q was rejected, and each verdict was given. With --each, rows come in groups of so
many, which share half of their variance, and the verdict is told (or, with --ungrouped, not).
"""

import argparse
import math
from typing import Any

import jax
import numpy as np

from experiments.progress import track
from mmd_jax.two_sample.verdict import verdict

FEATURES, BANDWIDTH, MARGIN = 10, math.sqrt(20), 0.1
KINDS = ("equivalent", "different_but_small", "different", "undecided")
SHIFTS = (0.05, 0.15, 0.5)
MARGINS = (0.0, 0.5, 1.0, 2.0)


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 250, 1000, 2000], help="m = n of each block")
    parser.add_argument("--trials", type=int, nargs="+", default=[400, 400, 150, 60], help="of each size")
    parser.add_argument("--draws", type=int, default=199, help="B")
    parser.add_argument("--each", type=int, default=1, help="rows of a group")
    parser.add_argument("--ungrouped", action="store_true", help="leave the groups out of the verdict's arguments")
    arguments = parser.parse_args(argv)
    if len(arguments.sizes) != len(arguments.trials) or min(*arguments.trials, arguments.draws) < 1:
        parser.error("expected a positive number of trials for each size, and at least one draw")
    if arguments.each < 1 or any(n % arguments.each for n in arguments.sizes):
        parser.error(f"--each {arguments.each} does not divide every one of the sizes")
    print(
        f"{'n':>6} {'true MMD':<16} {'trials':>6} {'L > it':>7} {'U < it':>7} {'P = Q':>7}",
        *(f"{k:>19}" for k in KINDS),
    )
    for n, trials in zip(arguments.sizes, arguments.trials, strict=True):
        for name, shift in cases():
            shares = measure(n, trials, arguments.draws, shift, arguments.each, not arguments.ungrouped)
            numbers = " ".join(
                f"{share:>{width}.3f}" for share, width in zip(shares, (7,) * 3 + (19,) * 4, strict=True)
            )
            print(f"{n:>6} {name:<16} {trials:>6} {numbers}", flush=True)


def cases() -> list[tuple[str, float]]:
    """Names and shifts: so many margins, and the shifts of docs/two_sample.md."""
    return [(f"{k:g} margins", shift_of(k * MARGIN)) for k in MARGINS] + [
        (f"{mmd(shift):.3f}, shift {shift:g}", shift) for shift in SHIFTS
    ]


def mmd(shift: float) -> float:
    """Between N(0, I) and N(shift, I)."""
    spread = BANDWIDTH**2 + 2
    scale = (BANDWIDTH**2 / spread) ** (FEATURES / 2)
    return math.sqrt(2 * scale * -math.expm1(-FEATURES * shift**2 / (2 * spread)))


def shift_of(distance: float) -> float:
    """The inverse of `mmd`."""
    spread = BANDWIDTH**2 + 2
    scale = (BANDWIDTH**2 / spread) ** (FEATURES / 2)
    return math.sqrt(-2 * spread / FEATURES * math.log1p(-(distance**2) / (2 * scale)))


def measure(n: int, trials: int, draws: int, shift: float, each: int, grouped: bool) -> list[float]:
    """The shares of one line."""
    groups = np.arange(n) // each
    known: dict[str, Any] = {"groups_x": groups, "groups_y": groups + n} if each > 1 and grouped else {}
    true, counts, rng = mmd(shift), np.zeros(3 + len(KINDS)), np.random.default_rng(n)
    for trial in track(range(trials), f"n = {n}, shift {shift:.3g}"):
        x, y = (sample(rng, n, each) for _ in range(2))
        found = verdict(
            jax.random.key(trial),
            x,
            y + np.float32(shift),
            margin=MARGIN,
            bandwidth=BANDWIDTH,
            num_draws=draws,
            **known,
        )
        low, high = found.interval
        counts[:3] += low > true + 1e-7, high < true - 1e-7, found.pvalue <= 0.05 + 1e-7
        counts[3 + KINDS.index(found.kind)] += 1
    return list(counts / trials)


def sample(rng: np.random.Generator, n: int, each: int) -> np.ndarray:
    """N(0, I), in groups of `each` rows."""
    rows = rng.standard_normal((n, FEATURES))
    if each > 1:
        rows = (rows + np.repeat(rng.standard_normal((n // each, FEATURES)), each, axis=0)) / math.sqrt(2)
    return rows.astype(np.float32)


if __name__ == "__main__":
    main()
