"""Count the rejections of a test over many pairs of samples: the same pairs whichever test is asked."""

import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.catalogue import Entry
from experiments.problems import Draw

DRAWN_AT_ONCE = 2**23  # numbers


class Trials(NamedTuple):
    """What is tested over and over.

    Attributes:
      name: of the problem: it and the seed decide the samples.
      draw: (key, m, n) -> x, y.
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
      done: trials, fewer than were asked for where the time was up.
    """

    rejections: int
    done: int


def count(entry: Entry, trials: Trials) -> Counted:
    """Rejections of one of our tests, many trials in one compiled program."""
    run = _compiled(entry, trials.permutations)
    rejected = sum(int(np.asarray(run(keys, x, y, trials.alpha))[:kept].sum()) for kept, keys, x, y in samples(trials))
    return Counted(rejected, trials.num)


def count_outside(test: Callable[..., Any], trials: Trials, seconds: float) -> Counted:
    """Rejections of a peer, one trial after the other until the time is up (one at least).

    Args:
      test: (x, y, num_permutations, seed, alpha) -> a result with `reject`.
      trials: what is tested.
      seconds: how long; the first call, which may compile, is not counted in.
    """
    rejected = done = 0
    start = 0.0
    for kept, _, xs, ys in samples(trials):
        for x, y in zip(np.asarray(xs)[:kept], np.asarray(ys)[:kept]):
            if done == 1:
                start = time.perf_counter()
            elif done > 1 and time.perf_counter() - start > seconds:
                return Counted(rejected, done)
            rejected += bool(test(x, y, trials.permutations, done, trials.alpha).reject)
            done += 1
    return Counted(rejected, done)


def samples(trials: Trials) -> Iterator[tuple[int, Array, Array, Array]]:
    """All trials, so many at a time that they fit into memory: how many of them count, keys [T], x [T, m, d], y [T, n, d].

    Trial t has the same samples however many there are. The last chunk is as long as the others, so that all share one
    program; only its first rows count.
    """
    m, n = trials.m, trials.n
    key = jax.random.fold_in(jax.random.key(trials.seed), zlib.crc32(f"{trials.name} {m} {n}".encode()))
    features = jax.eval_shape(lambda key: trials.draw(key, m, n), key)[0].shape[1]
    chunks = -(-trials.num * (m + n) * features // DRAWN_AT_ONCE)
    each = -(-trials.num // chunks)
    dtype = jnp.result_type(float)

    @jax.jit
    def draw(first: Array) -> tuple[Array, Array, Array]:
        keys = jax.vmap(lambda t: jax.random.split(jax.random.fold_in(key, t)))(first + jnp.arange(each))
        x, y = jax.vmap(lambda key: trials.draw(key, m, n))(keys[:, 0])
        return keys[:, 1], x.astype(dtype), y.astype(dtype)

    for first in range(0, trials.num, each):
        yield min(each, trials.num - first), *draw(jnp.asarray(first))


@cache
def _compiled(entry: Entry, num: int) -> Callable[..., Array]:
    """The test of many pairs of samples: keys [T], x [T, m, d], y [T, n, d], alpha -> [T]. One program a shape."""

    # One trial after the other: batches of them run a fifth faster, and take a third longer to compile, which is most of
    # the time of a cell.
    return jax.jit(lambda keys, x, y, alpha: lax.map(lambda trial: entry.run(*trial, alpha, num), (keys, x, y)))
