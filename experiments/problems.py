"""Pairs of distributions with a known answer: one and the same (for the level), or different by a known amount (power).

In numpy, since a sampler takes longer to compile than to run. Problems that share their sizes share their number of
features too: the fewer are filled up with zeros, which change no distance, so that one compiled test serves them all.
"""

import threading
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from experiments import config, sources

# (random numbers, m, n) -> x [m, d], y [n, d]
Draw = Callable[[Generator, int, int], tuple[np.ndarray, np.ndarray]]

WIDTH = 10  # features of the samples under P = Q, those with d > n aside
GROUP = 2  # rows of a group
CANDIDATES = 64  # of which a rejection sampler takes the first that is accepted: all fail once in 2⁶⁴ rows


class Problem(NamedTuple):
    """Two distributions.

    Attributes:
      name: unique, and stable from run to run.
      draw: a pair of samples.
      data: "rows" that are independent; "groups" of two consecutive rows that depend on each other; a "series".
    """

    name: str
    draw: Draw
    data: str = "rows"


class Family(NamedTuple):
    """Problems of growing (or falling) difficulty: one panel of the power picture.

    Attributes:
      name: unique, and stable from run to run.
      title: of the panel.
      axis: what `points` are.
      points: of the horizontal axis.
      draw: (point, random numbers, m, n) -> x, y.
      n: rows of each sample.
    """

    name: str
    title: str
    axis: str
    points: tuple[float, ...]
    draw: Callable[[float, Generator, int, int], tuple[np.ndarray, np.ndarray]]
    n: int


def null(name: str, sample: Callable[[Generator, int], np.ndarray], data: str = "rows") -> Problem:
    """Both samples from one distribution: sample(random numbers, rows) -> [rows, d]."""
    return Problem(name, lambda rng, m, n: (sample(rng, m), sample(rng, n)), data)


def normal(rng: Generator, rows: int, d: int = WIDTH) -> np.ndarray:
    """N(0, I_d)."""
    return rng.standard_normal((rows, d))


def heavy_tails(rng: Generator, rows: int) -> np.ndarray:
    """Student's t with 1.5 degrees of freedom in every feature: a mean, but no variance."""
    return rng.standard_t(1.5, (rows, WIDTH))


def ties(rng: Generator, rows: int) -> np.ndarray:
    """Whole numbers 0, 1, 2 in two features: nine different rows, so most rows of a sample have equals."""
    return widen(rng.integers(0, 3, (rows, 2)), WIDTH)


def grouped(rng: Generator, rows: int) -> np.ndarray:
    """N(0, I), where each `GROUP` consecutive rows share half of their variance."""
    shared = np.repeat(normal(rng, -(-rows // GROUP)), GROUP, axis=0)[:rows]
    return (shared + normal(rng, rows)) / np.sqrt(2)


def autoregressive(rng: Generator, rows: int, rho: float = 0.5) -> np.ndarray:
    """A stationary series of N(0, I) rows: each is rho times the one before, and noise."""
    series = normal(rng, rows)
    for i in range(1, rows):
        series[i] = rho * series[i - 1] + np.sqrt(1 - rho**2) * series[i]
    return series


NULLS = (
    null("normal", normal),
    null("heavy tails", heavy_tails),
    null("ties", ties),
    null("d = 300", partial(normal, d=300)),
    null("groups", grouped, "groups"),
    null("AR(1)", autoregressive, "series"),
)


def perturbed_uniform(d: int, perturbations: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The uniform on [0, 1]^d, and a density with so many bumps and dents an axis, whose signs each draw chooses.

    Schrab et al., MMD aggregated two-sample test, JMLR 2023, equation 17, with s = 1, c_1 = 2.7 and c_2 = 7.3.
    """
    p, c = int(perturbations), {1: 2.7, 2: 7.3}[d]
    signs = rng.choice([-1.0, 1.0], (p,) * d)
    places = rng.random((n, CANDIDATES, d))
    cell = np.minimum((places * p).astype(int), p - 1)
    bumps = np.prod(_bump(places * p - cell - 1), axis=-1)
    density = 1 + c / p * signs[tuple(np.moveaxis(cell, -1, 0))] * bumps
    accepted = rng.random((n, CANDIDATES)) * (1 + c / p * np.exp(-d)) <= density
    y = places[np.arange(n), accepted.argmax(axis=1)]
    return widen(rng.random((m, d)), 2), widen(y, 2)


def _bump(t: np.ndarray) -> np.ndarray:
    """A smooth bump on (−1, −½) and its mirror image, a dent, on (−½, 0)."""

    def hill(u: np.ndarray) -> np.ndarray:
        inside = np.abs(u) < 1
        return np.where(inside, np.exp(-1 / (1 - np.where(inside, u, 0) ** 2)), 0)

    return np.where(t < -0.5, hill(4 * t + 3), -hill(4 * t + 1))


def blobs(ratio: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A 3 × 3 grid, 10 apart, of round normals, and of ones with variances ratio : 1 along and across the diagonal.

    Gretton et al., Optimal kernel choice for large-scale two-sample tests, NeurIPS 2012.
    """
    x, y = (10.0 * rng.integers(0, 3, (rows, 2)) for rows in (m, n))
    along, across = rng.standard_normal((2, n)) * np.array([[np.sqrt(ratio)], [1.0]])
    return x + rng.standard_normal((m, 2)), y + np.stack([along - across, along + across], axis=1) / np.sqrt(2)


def gaussian_mixture(d: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two normals, ½ apart in each of d features; in Q, the first two features correlate by −½ and ½ (HDGM).

    Liu et al., Learning deep kernels for non-parametric two-sample tests, ICML 2020.
    """
    second = rng.random(m + n) < 0.5
    rows = rng.standard_normal((m + n, int(d)))
    correlation = np.where(second, 0.5, -0.5) * (np.arange(m + n) >= m)
    rows[:, 1] = correlation * rows[:, 0] + np.sqrt(1 - correlation**2) * rows[:, 1]
    rows = widen(rows + 0.5 * second[:, None], 20)
    return rows[:m], rows[m:]


def mean_shift(shift: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """N(0, I), and the same moved by `shift` in every feature."""
    return normal(rng, m), normal(rng, n) + shift


def variance_shift(scale: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """N(0, I), and N(0, scale² I)."""
    return normal(rng, m), normal(rng, n) * scale


FAMILIES = (
    Family("uniform1", "Perturbed uniform, d = 1", "perturbations", (1, 2, 3, 4), partial(perturbed_uniform, 1), 250),
    Family(
        "uniform2", "Perturbed uniform, d = 2", "perturbations an axis", (1, 2, 3), partial(perturbed_uniform, 2), 500
    ),
    Family("blobs", "Blobs", "ratio of variances", (1, 2, 4, 8), blobs, 250),
    Family("mixture", "Gaussian mixtures (HDGM)", "d", (2, 5, 10, 20), gaussian_mixture, 250),
    Family("mean", "Mean shift, d = 10", "shift a feature, sd", (0.0, 0.1, 0.2, 0.3), mean_shift, 100),
    Family("variance", "Variance shift, d = 10", "standard deviation", (1.0, 1.1, 1.2, 1.3), variance_shift, 100),
)


def cifar10(data_dir: str) -> Family:
    """CIFAR-10's cats, and a mixture of cats and dogs, as pixels of a quarter of the resolution.

    The data are read at the first draw, which raises FileNotFoundError where they are not there; the message says how to
    get them.
    """

    def draw(share: float, rng: Generator, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        with _reading:
            cats, dogs = _cats_and_dogs(data_dir)
        chosen = cats[rng.permutation(len(cats))[: m + n]]
        others = dogs[rng.permutation(len(dogs))[:n]]
        return chosen[:m], np.where(rng.random((n, 1)) < share, others, chosen[m:])

    return Family("cifar10", "CIFAR-10: cats v. cats and dogs", "share of dogs", (0.0, 0.25, 0.5, 1.0), draw, 200)


_reading = threading.Lock()  # cells run side by side, and their data are read once


@cache
def _cats_and_dogs(data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    settings = config.Data(name="cifar10", classes=("cat", "dog"), size=(16, 16))
    data = sources.load(settings, seed=0, data_dir=data_dir)
    pixels = data.train_x.reshape(len(data.train_x), -1).astype(np.float32) / 255
    return pixels[data.train_y == 0], pixels[data.train_y == 1]


def widen(rows: np.ndarray, width: int) -> np.ndarray:
    """Features of 0 added up to `width`."""
    return np.pad(rows.astype(float), ((0, 0), (0, max(0, width - rows.shape[1]))))
