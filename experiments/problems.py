"""Pairs of distributions with a known answer: one and the same (for the level), or different by a known amount (power).

A problem draws one pair of samples; `jax.vmap` over keys draws many. Where problems that share their sizes differ in
features, the fewer are filled up with zeros, which change no distance, so that one compiled test serves them all.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import config, sources

# (key, m, n) -> x [m, d], y [n, d]
Draw = Callable[[Array, int, int], tuple[Array, Array]]

WIDTH = 10  # features of the samples under P = Q, those with d > n aside
GROUP = 2  # rows of a group
CANDIDATES = 64  # of which a rejection sampler takes the first that is accepted: all fail once in 2⁶⁴ rows


class Problem(NamedTuple):
    """Two distributions.

    Attributes:
      name: unique, and stable from run to run.
      draw: (key, m, n) -> x [m, d], y [n, d], float32.
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
      axis: what `points` are, for the axis.
      points: of the horizontal axis.
      draw: (point, key, m, n) -> x, y.
      n: rows of each sample.
    """

    name: str
    title: str
    axis: str
    points: tuple[float, ...]
    draw: Callable[[float, Array, int, int], tuple[Array, Array]]
    n: int


def null(name: str, sample: Callable[[Array, int], Array], data: str = "rows") -> Problem:
    """Both samples from one distribution: sample(key, rows) -> [rows, d]."""

    def draw(key: Array, m: int, n: int) -> tuple[Array, Array]:
        x_key, y_key = jax.random.split(key)
        return sample(x_key, m), sample(y_key, n)

    return Problem(name, draw, data)


def normal(key: Array, rows: int, d: int = WIDTH) -> Array:
    """N(0, I_d)."""
    return jax.random.normal(key, (rows, d))


def heavy_tails(key: Array, rows: int) -> Array:
    """Student's t with 1.5 degrees of freedom in every feature: a mean, but no variance."""
    return jax.random.t(key, 1.5, (rows, WIDTH))


def ties(key: Array, rows: int) -> Array:
    """Whole numbers 0, 1, 2 in two features: nine different rows, so most rows of a sample have equals."""
    return widen(jax.random.randint(key, (rows, 2), 0, 3).astype(jnp.float32), WIDTH)


def grouped(key: Array, rows: int) -> Array:
    """N(0, I), where each `GROUP` consecutive rows share half of their variance."""
    shared_key, own_key = jax.random.split(key)
    shared = jnp.repeat(normal(shared_key, -(-rows // GROUP)), GROUP, axis=0)[:rows]
    return (shared + normal(own_key, rows)) / jnp.sqrt(2.0)


def autoregressive(key: Array, rows: int, rho: float = 0.5) -> Array:
    """A stationary series of N(0, I) rows, each rho times the one before, and noise."""
    noise = normal(key, rows)

    def step(before: Array, noise: Array) -> tuple[Array, Array]:
        now = rho * before + jnp.sqrt(1 - rho**2) * noise
        return now, now

    return jnp.concatenate([noise[:1], jax.lax.scan(step, noise[0], noise[1:])[1]])


NULLS = (
    null("normal", normal),
    null("heavy tails", heavy_tails),
    null("ties", ties),
    null("d = 300", partial(normal, d=300)),
    null("groups", grouped, "groups"),
    null("AR(1)", autoregressive, "series"),
)


def perturbed_uniform(d: int, perturbations: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
    """The uniform on [0, 1]^d, and a density with so many bumps and dents an axis, whose signs each draw chooses.

    Schrab et al., MMD aggregated two-sample test, JMLR 2023, equation 17, with s = 1, c_1 = 2.7 and c_2 = 7.3.
    """
    p, c = int(perturbations), {1: 2.7, 2: 7.3}[d]
    x_key, sign_key, place_key, accept_key = jax.random.split(key, 4)
    signs = jax.random.rademacher(sign_key, (p,) * d, jnp.float32)
    places = jax.random.uniform(place_key, (n, CANDIDATES, d))
    cell = jnp.minimum((places * p).astype(jnp.int32), p - 1)
    bumps = jnp.prod(_bump(places * p - cell - 1), axis=-1)
    excess = c / p * signs[tuple(cell[..., i] for i in range(d))] * bumps
    highest = 1 + c / p * jnp.exp(-float(d))
    accepted = jax.random.uniform(accept_key, (n, CANDIDATES)) * highest <= 1 + excess
    y = jnp.take_along_axis(places, jnp.argmax(accepted, axis=1)[:, None, None], axis=1)[:, 0]
    return widen(jax.random.uniform(x_key, (m, d)), 2), widen(y, 2)


def _bump(t: Array) -> Array:
    """A smooth bump on (−1, −½) and its mirror image, a dent, on (−½, 0)."""

    def hill(u: Array) -> Array:
        inside = jnp.abs(u) < 1
        return jnp.where(inside, jnp.exp(-1 / (1 - jnp.where(inside, u, 0) ** 2)), 0)

    return jnp.where(t < -0.5, hill(4 * t + 3), -hill(4 * t + 1))


def blobs(ratio: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
    """A 3 × 3 grid of round normals, and of ones stretched along the diagonal: variances ratio : 1, 10 apart.

    Gretton et al., Optimal kernel choice for large-scale two-sample tests, NeurIPS 2012.
    """
    place_key, noise_key = jax.random.split(key)
    centres = 10 * jax.random.randint(place_key, (m + n, 2), 0, 3).astype(jnp.float32)
    noise = jax.random.normal(noise_key, (m + n, 2))
    along, across = noise[m:, 0] * jnp.sqrt(ratio), noise[m:, 1]
    turned = jnp.stack([along - across, along + across], axis=1) / jnp.sqrt(2.0)
    return centres[:m] + noise[:m], centres[m:] + turned


def gaussian_mixture(d: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
    """Two normals half apart in each of d features; in Q, the first two features correlate by ±½ (HDGM).

    Liu et al., Learning deep kernels for non-parametric two-sample tests, ICML 2020.
    """
    which_key, noise_key = jax.random.split(key)
    second = jax.random.bernoulli(which_key, 0.5, (m + n,))
    noise = jax.random.normal(noise_key, (m + n, int(d)))
    correlation = jnp.where(second, 0.5, -0.5) * (jnp.arange(m + n) >= m)
    mixed = correlation * noise[:, 0] + jnp.sqrt(1 - correlation**2) * noise[:, 1]
    rows = noise.at[:, 1].set(mixed) + 0.5 * second[:, None]
    return widen(rows[:m], 20), widen(rows[m:], 20)


def mean_shift(shift: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
    """N(0, I), and the same moved by `shift` in every feature."""
    rows = normal(key, m + n)
    return rows[:m], rows[m:] + shift


def variance_shift(scale: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
    """N(0, I), and N(0, scale² I)."""
    rows = normal(key, m + n)
    return rows[:m], rows[m:] * scale


FAMILIES = (
    Family("uniform1", "Perturbed uniform, d = 1", "perturbations", (1, 2, 3, 4), partial(perturbed_uniform, 1), 300),
    Family(
        "uniform2", "Perturbed uniform, d = 2", "perturbations an axis", (1, 2, 3), partial(perturbed_uniform, 2), 500
    ),
    Family("blobs", "Blobs", "ratio of variances", (1, 2, 4, 8), blobs, 300),
    Family("mixture", "Gaussian mixtures (HDGM)", "d", (2, 5, 10, 20), gaussian_mixture, 500),
    Family("mean", "Mean shift, d = 10", "shift a feature, sd", (0.0, 0.1, 0.2, 0.3), mean_shift, 100),
    Family("variance", "Variance shift, d = 10", "standard deviation", (1.0, 1.1, 1.2, 1.3), variance_shift, 100),
)


def cifar10(data_dir: str) -> Family:
    """CIFAR-10's cats, and a mixture of cats and dogs, as pixels of a quarter of the resolution.

    The data are read at the first draw, which raises FileNotFoundError where they are not there; the message says how to
    get them.
    """

    def draw(share: float, key: Array, m: int, n: int) -> tuple[Array, Array]:
        cats, dogs = (jnp.asarray(rows) for rows in _cats_and_dogs(data_dir))
        cat_key, dog_key, mix_key = jax.random.split(key, 3)
        chosen = cats[jax.random.permutation(cat_key, len(cats))[: m + n]]
        others = dogs[jax.random.permutation(dog_key, len(dogs))[:n]]
        mixed = jax.random.bernoulli(mix_key, share, (n, 1))
        return chosen[:m], jnp.where(mixed, others, chosen[m:])

    return Family("cifar10", "CIFAR-10: cats v. cats and dogs", "share of dogs", (0.0, 0.25, 0.5, 1.0), draw, 200)


@cache
def _cats_and_dogs(data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    settings = config.Data(name="cifar10", classes=("cat", "dog"), size=(16, 16))
    data = sources.load(settings, seed=0, data_dir=data_dir)
    pixels = data.train_x.reshape(len(data.train_x), -1).astype(np.float32) / 255
    return pixels[data.train_y == 0], pixels[data.train_y == 1]


def widen(rows: Array, width: int) -> Array:
    """Features of 0 added up to `width`."""
    return jnp.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))
