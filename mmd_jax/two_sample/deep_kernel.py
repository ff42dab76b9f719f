"""A kernel learned for power: trained on one half of the rows to tell P from Q, then tested on the other half.

    k(a, b) = [(1 − ε) κ(φ(a), φ(b)) + ε] q(a, b)

κ and q are Gaussian kernels of features and of inputs, φ a feature function with parameters. The kernel is a `Kernel` of
rows that hold the features, then the inputs; its bandwidths are [σ of κ, σ of q, ε].
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from mmd_jax.two_sample.bandwidths import median_bandwidth
from mmd_jax.two_sample.checks import check_knobs
from mmd_jax.two_sample.kernels import Dot, Kernel, squared_distances
from mmd_jax.two_sample.pooled import Numbers, check_rows, is_traced
from mmd_jax.two_sample.significance import permutation_test
from mmd_jax.types import Tree, TwoSampleResult

# (params, rows [n, d]) -> features [n, h]
Features = Callable[[Tree, Array], Array]
# Multiples of the median distance that both bandwidths may start from; the best by the objective does.
STARTS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
START_EPSILON = 0.1
REGULARISATION = 1e-8


class LearnedKernel(NamedTuple):
    """What training found.

    Attributes:
      params: of the feature function.
      bandwidth: σ of κ, σ of q, and ε. Shape [3].
      objective: MMD²ᵤ / σ_H1 of each step's batch, before the step: the larger, the more power. Shape [steps].
    """

    params: Tree
    bandwidth: Float[Array, "3"]
    objective: Float[Array, " steps"]


class DeepKernelResult(NamedTuple):
    """A test with a learned kernel.

    Attributes:
      result: of the permutation test on the half that was not trained on.
      learned: the kernel.
    """

    result: TwoSampleResult
    learned: LearnedKernel


class Weights(NamedTuple):
    """What is trained, without bounds.

    Attributes:
      params: of the feature function.
      log_bandwidths: of κ and q. Shape [2].
      logit: of ε. Shape [].
    """

    params: Tree
    log_bandwidths: Float[Array, "2"]
    logit: Float[Array, ""]


def scaled(params: Float[Array, " d"], rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Features without a network: each input times exp(params), so that κ has a bandwidth of its own for each input."""
    return rows * jnp.exp(params)[None, :]


def deep_kernel_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    features: Features = scaled,
    params: Tree = None,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int = 300,
    batch_size: int = 256,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
) -> DeepKernelResult:
    """Test P = Q with a kernel that is learned on one half of each sample and tested on the other by permutations."""
    check_knobs(key, alpha, num_permutations)
    x, y = _check_samples(x, y, least=4)
    split_x, split_y, learn_key, test_key = jax.random.split(key, 4)
    (train_x, test_x), (train_y, test_y) = _halves(split_x, x), _halves(split_y, y)
    learned = learn_kernel(
        learn_key, train_x, train_y,
        features=features, params=params, optimizer=optimizer, num_steps=num_steps, batch_size=batch_size,
    )  # fmt: skip
    rows_x, rows_y = (join(features, learned.params, rows) for rows in (test_x, test_y))
    kernel = deep_kernel(rows_x.shape[1] - x.shape[1])
    result = permutation_test(
        test_key,
        rows_x,
        rows_y,
        kernel=kernel,
        bandwidth=learned.bandwidth,
        alpha=alpha,
        num_permutations=num_permutations,
    )
    return DeepKernelResult(result, learned)


def learn_kernel(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    features: Features = scaled,
    params: Tree = None,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int = 300,
    batch_size: int = 256,
) -> LearnedKernel:
    """Learn the feature function's parameters and the bandwidths, to maximise the power of a test."""
    x, y = _check_samples(x, y, least=2)
    if params is None:
        if features is not scaled:
            raise ValueError("params is missing; give the initial parameters of the feature function.")
        params = jnp.zeros(x.shape[1], x.dtype)
    size = min(batch_size, x.shape[0], y.shape[0])
    return _learn(
        key, jnp.asarray(x), jnp.asarray(y), params,
        features=features, optimizer=optimizer or _adam(), num_steps=num_steps, size=size,
    )  # fmt: skip


@cache
def _adam() -> optax.GradientTransformation:
    return optax.adam(0.01)


def join(features: Features, params: Tree, rows: Float[Array, "n d"]) -> Float[Array, "n hd"]:
    """The rows that `deep_kernel` takes: features, then inputs."""
    return jnp.concatenate([_join(params, jnp.asarray(rows), features=features), rows], axis=1)


@partial(jax.jit, static_argnames=("features",))
def _join(params: Tree, rows: Array, *, features: Features) -> Array:
    return features(params, rows)


@cache
def deep_kernel(width: int) -> Kernel:
    """The kernel of rows whose first `width` entries are features, the rest inputs; bandwidths [σ of κ, σ of q, ε]."""

    def pair(a: Array, b: Array, bandwidth: Array) -> Array:
        squared = (a - b) ** 2
        return value((jnp.sum(squared[:width]), jnp.sum(squared[width:])), bandwidth)

    def compare(A: Array, B: Array, dot: Dot) -> Any:
        return squared_distances(A[:, :width], B[:, :width], dot), squared_distances(A[:, width:], B[:, width:], dot)

    return Kernel(pair, compare, value, ("l2", "l2", "one"), True)


def value(compared: Any, bandwidth: Float[Array, "3"]) -> Array:
    of_features, of_inputs = compared
    kappa = jnp.exp(of_features * (-0.5 / bandwidth[0] ** 2))
    return ((1 - bandwidth[2]) * kappa + bandwidth[2]) * jnp.exp(of_inputs * (-0.5 / bandwidth[1] ** 2))


def power(
    x: Float[Array, "b hd"], y: Float[Array, "b hd"], bandwidth: Float[Array, "3"], *, kernel: Kernel
) -> Float[Array, ""]:
    """MMD²ᵤ / σ_H1 of as many rows of each: for many rows the power of the test grows with it."""
    n = x.shape[0]
    xy = kernel.tile(x, y, bandwidth)
    h = kernel.tile(x, x, bandwidth) + kernel.tile(y, y, bandwidth) - xy - xy.T
    h = jnp.where(jnp.eye(n, dtype=bool), 0, h)
    rows = jnp.sum(h, axis=1)
    estimate = jnp.sum(rows) / (n * (n - 1))
    variance = 4 * jnp.mean((rows / n) ** 2) - 4 * (jnp.mean(rows) / n) ** 2
    return estimate / jnp.sqrt(jnp.maximum(variance, 0) + REGULARISATION)


@partial(jax.jit, static_argnames=("features", "optimizer", "num_steps", "size"))
def _learn(
    key: Key[Array, ""],
    x: Float[Array, "m d"],
    y: Float[Array, "n d"],
    params: Tree,
    *,
    features: Features,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    size: int,
) -> LearnedKernel:
    def bandwidth_of(weights: Weights) -> Array:
        return jnp.concatenate([jnp.exp(weights.log_bandwidths), jax.nn.sigmoid(weights.logit)[None]])

    def batch(key: Array) -> tuple[Array, Array]:
        x_key, y_key = jax.random.split(key)
        return tuple(
            rows if len(rows) == size else rows[jax.random.permutation(one, len(rows))[:size]]
            for one, rows in ((x_key, x), (y_key, y))
        )

    def objective(weights: Weights, x: Array, y: Array) -> Array:
        of_x, of_y = features(weights.params, x), features(weights.params, y)
        rows_x, rows_y = jnp.concatenate([of_x, x], axis=1), jnp.concatenate([of_y, y], axis=1)
        return power(rows_x, rows_y, bandwidth_of(weights), kernel=deep_kernel(of_x.shape[1]))

    start_key, train_key = jax.random.split(key)
    x0, y0 = batch(start_key)
    both = jnp.concatenate([x0, y0])
    medians = jnp.stack([median_bandwidth(features(params, both)), median_bandwidth(both)])
    logit = jnp.asarray(jnp.log(START_EPSILON / (1 - START_EPSILON)), x.dtype)

    def start(multiple: Array) -> Weights:
        return Weights(params, jnp.log(multiple * medians), logit)

    starts = jnp.asarray(STARTS, x.dtype)
    best = jnp.argmax(lax.map(lambda multiple: objective(start(multiple), x0, y0), starts))
    weights = start(starts[best])

    def step(state: Any, key: Array) -> Any:
        weights, optimizer_state = state
        found, gradient = jax.value_and_grad(lambda weights: -objective(weights, *batch(key)))(weights)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, weights)
        return (optax.apply_updates(weights, updates), optimizer_state), -found

    (weights, _), objectives = lax.scan(
        step, (weights, optimizer.init(weights)), jax.random.split(train_key, num_steps)
    )
    return LearnedKernel(weights.params, bandwidth_of(weights), objectives)


def _check_samples(x: Any, y: Any, least: int) -> tuple[Any, Any]:
    x, y = check_rows("x", x), check_rows("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} features and y has {y.shape[1]}; expected the same features.")
    if min(len(x), len(y)) < least:
        raise ValueError(f"x has {len(x)} rows and y has {len(y)}; expected at least {least} each.")
    return tuple(
        rows.astype(jax.dtypes.canonicalize_dtype(jnp.promote_types(jnp.float32, rows.dtype))) for rows in (x, y)
    )


def _halves(key: Key[Array, ""], rows: Any) -> tuple[Any, Any]:
    order = jax.random.permutation(key, len(rows))
    half = len(rows) // 2
    if not is_traced(order, rows):
        order = np.asarray(order)
    return rows[order[:half]], rows[order[half:]]
