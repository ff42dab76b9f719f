"""Count the rejections of a test over many pairs of samples: the same pairs whichever test is asked."""

import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.catalogue import Entry
from experiments.problems import Draw

FEWEST = 20  # trials that say anything at all
NUMBERS_AT_ONCE = 2**23  # of the samples that go to one compiled call


class Trials(NamedTuple):
    """What is tested over and over.

    Attributes:
      name: of the problem: with sizes and seed, it decides the samples.
      draw: a pair of samples.
      m, n: rows of x and y.
      num: how many pairs of samples.
      alpha: level of the test.
      permutations: B.
      seed: of everything that is random.
    """

    name: str
    draw: Draw
    m: int
    n: int
    num: int
    alpha: float
    permutations: int
    seed: int


class Counted(NamedTuple):
    """What came of it.

    Attributes:
      rejections: of P = Q.
      done: trials; fewer than were asked for where the time was up.
    """

    rejections: int
    done: int


def count(entry: Entry, trials: Trials) -> Counted:
    """Rejections of one of our tests, many trials in one compiled program."""
    dtype = jnp.result_type(float)
    one_x, one_y = sample(trials, 0)
    # Chunks of one length share one program; the last one's surplus is drawn and does not count.
    chunks = -(-trials.num * (one_x.size + one_y.size) // NUMBERS_AT_ONCE)
    each = -(-trials.num // chunks)
    keys = jax.random.split(jax.random.key(_number(trials)), chunks * each)
    rejected = 0
    for first in range(0, trials.num, each):
        pairs = [sample(trials, t) for t in range(first, first + each)]
        xs, ys = (np.stack([pair[side] for pair in pairs]).astype(dtype) for side in (0, 1))
        found = _compiled(entry, trials.permutations)(keys[first : first + each], xs, ys, trials.alpha)
        rejected += int(np.asarray(found)[: trials.num - first].sum())
    return Counted(rejected, trials.num)


def count_outside(test: Callable[..., Any], trials: Trials, seconds: float) -> Counted:
    """Rejections of a peer, one trial after the other until the time is up.

    Args:
      test: (x, y, num_permutations, seed, alpha) -> a result with `reject`.
      trials: what is tested.
      seconds: how long; the first call, which may compile, is not counted in. Where they are too few for `FEWEST` trials,
        none is done.
    """
    rejected, start = 0, 0.0
    for t in range(trials.num):
        spent = time.perf_counter() - start
        if t == 2 and spent * min(FEWEST, trials.num) > seconds:
            return Counted(0, 0)
        if t > 1 and spent > seconds:
            return Counted(rejected, t)
        x, y = (rows.astype(np.float32) for rows in sample(trials, t))
        if t == 1:
            start = time.perf_counter()
        rejected += bool(test(x, y, trials.permutations, t, trials.alpha).reject)
    return Counted(rejected, trials.num)


def sample(trials: Trials, t: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples of trial t: x [m, d], y [n, d], float64."""
    return trials.draw(np.random.default_rng([_number(trials), t]), trials.m, trials.n)


def _number(trials: Trials) -> int:
    return zlib.crc32(f"{trials.name} {trials.m} {trials.n} {trials.seed}".encode())


@cache
def _compiled(entry: Entry, num: int) -> Callable[..., Any]:
    """The test of many pairs of samples: keys [T], x [T, m, d], y [T, n, d], alpha -> [T]. One program a shape."""
    if not entry.traced:

        def loop(keys: Array, xs: np.ndarray, ys: np.ndarray, alpha: float) -> Any:
            return np.array([entry.run(*trial, alpha, num) for trial in zip(keys, xs, ys)])

        return loop

    # One trial after the other: batches of them run a fifth faster, and take a third longer to compile, which is most of
    # the time of a cell.
    @jax.jit
    def run(keys: Array, xs: Array, ys: Array, alpha: Any) -> Array:
        return lax.map(lambda trial: entry.run(trial[0], trial[1], trial[2], alpha, num), (keys, xs, ys))

    return run
