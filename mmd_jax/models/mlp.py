"""A stack of dense layers."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.layered import Layer, Network, from_layers


def mlp(
    num_classes: int, *, hidden: Sequence[int] = (128,), categories: Sequence[int] = (), embedding: int = 8
) -> Network:
    """Layers fc1, fc2, …, with ReLU between them, on inputs [batch, ...] that are flattened; by default 784-128-10.

    Weights are He's, biases 0; the base is all layers but the last; the dtype is that of parameters and inputs.

    Args:
      num_classes: units of the last layer, > 0.
      hidden: units of the others, each > 0.
      categories: sizes of the one-hot blocks with which a row ends, for rows of a table; a layer "embed" comes first then.
      embedding: as of `embed`.

    >>> network = mlp(10)
    >>> jax.tree.map(jnp.shape, network.init(jax.random.key(0), jnp.ones((1, 28, 28, 1))))["params"]["fc1"]["kernel"]
    (784, 128)
    """
    if num_classes < 1 or min(hidden, default=1) < 1:
        raise ValueError(f"num_classes and hidden must be positive, got {num_classes} and {tuple(hidden)}")
    first = [("embed", embed(categories, embedding))] if categories else []
    return from_layers([*first, *mlp_base(hidden), (f"fc{len(hidden) + 1}", dense(num_classes, relu=False))])


def mlp_base(hidden: Sequence[int]) -> list[tuple[str, Layer]]:
    """The layers of `mlp` without the last, for `from_layers` or `autoencoder`."""
    return [(f"fc{i}", dense(units)) for i, units in enumerate(hidden, 1)]


def embed(categories: Sequence[int], width: int) -> Layer:
    """Each one-hot block with which a row [batch, d] ends becomes a short vector; the columns before them stay.

        (x, √½ e_a, √½ e_b, …) → (x, E₁ᵀe_a, E₂ᵀe_b, …)

    Args:
      categories: sizes of the blocks, each > 0.
      width: numbers a category, > 0; at most as many as the block has places.

    >>> layer = embed((3,), 2)
    >>> x = jnp.array([[5.0, 0.0, 1.0, 0.0]])
    >>> layer.apply(layer.init(jax.random.key(0), x), x).shape
    (1, 3)

    Guo and Berkhahn, Entity embeddings of categorical variables, arXiv:1604.06737.
    """
    if min(categories) < 1 or width < 1:
        raise ValueError(f"categories and embedding must be positive, got {tuple(categories)} and {width}")
    places = sum(categories)

    def init(key: Array, x: Array):
        if x.shape[1] < places:
            raise ValueError(f"rows have {x.shape[1]} numbers, but the blocks of their categories {places}")
        # √½ a one, so that an embedding has about the size of a scaled number.
        return {
            f"table{i}": he_normal(jax.random.fold_in(key, i), (size, min(width, size)), x.dtype, gain=2.0 * size)
            for i, size in enumerate(categories, 1)
        }

    def apply(params, x: Array) -> Array:
        first = x.shape[1] - places
        parts = [x[:, :first]]
        for i, size in enumerate(categories, 1):
            parts.append(x[:, first : first + size] @ params[f"table{i}"])
            first += size
        return jnp.concatenate(parts, axis=1)

    return Layer(init, apply)


def dense(units: int, *, relu: bool = True, zero: bool = False) -> Layer:
    """Flatten, multiply, add, and (unless it is an output layer) ReLU; He's initialisation, or zeros.

    A new output layer on trained features should start at zero: what it starts with in directions that few rows of data
    can't teach it stays there as noise.
    """

    def init(key: Array, x: Array):
        shape = (math.prod(x.shape[1:]), units)
        kernel = jnp.zeros(shape, x.dtype) if zero else he_normal(key, shape, x.dtype, gain=2.0 if relu else 1.0)
        return {"kernel": kernel, "bias": jnp.zeros(units, x.dtype)}

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
