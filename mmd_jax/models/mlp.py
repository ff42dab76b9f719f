"""A stack of dense layers."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.layered import Layer, Network, from_layers


def mlp(num_classes: int, *, hidden: Sequence[int] = (128,)) -> Network:
    """Layers fc1, fc2, …, with ReLU between them, on inputs [batch, ...] that are flattened; by default 784-128-10.

    Weights are He's, biases 0; the base is all layers but the last; the dtype is that of parameters and inputs.

    Args:
      num_classes: units of the last layer, > 0.
      hidden: units of the others, each > 0.

    >>> network = mlp(10)
    >>> jax.tree.map(jnp.shape, network.init(jax.random.key(0), jnp.ones((1, 28, 28, 1))))["params"]["fc1"]["kernel"]
    (784, 128)
    """
    if num_classes < 1 or min(hidden, default=1) < 1:
        raise ValueError(f"num_classes and hidden must be positive, got {num_classes} and {tuple(hidden)}")
    return from_layers([*mlp_base(hidden), (f"fc{len(hidden) + 1}", dense(num_classes, relu=False))])


def mlp_base(hidden: Sequence[int]) -> list[tuple[str, Layer]]:
    """The layers of `mlp` without the last, for `from_layers` or `autoencoder`."""
    return [(f"fc{i}", dense(units)) for i, units in enumerate(hidden, 1)]


def dense(units: int, *, relu: bool = True) -> Layer:
    """Flatten, multiply, add, and (unless it is an output layer) ReLU; He's initialisation."""

    def init(key: Array, x: Array):
        shape = (math.prod(x.shape[1:]), units)
        return {"kernel": he_normal(key, shape, x.dtype, gain=2.0 if relu else 1.0), "bias": jnp.zeros(units, x.dtype)}

    def apply(params, x: Array) -> Array:
        y = x.reshape(x.shape[0], math.prod(x.shape[1:])) @ params["kernel"] + params["bias"][None]
        return jax.nn.relu(y) if relu else y

    return Layer(init, apply)


def he_normal(key: Array, shape: Sequence[int], dtype: jnp.dtype, *, gain: float = 2.0) -> Array:
    """N(0, gain / inputs a unit): with ReLU and gain 2 the second moment stays as it is from layer to layer.

    Args:
      shape: of the weights; the last axis counts the units.

    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    # Drawn flat: XLA's CPU backend takes 2 s to compile the draw of a four-axis shape, a tenth of that for a flat one.
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return flat.reshape(shape) * math.sqrt(gain / math.prod(shape[:-1]))
