"""An autoencoder: the layers of another network but its last, then dense layers that rebuild what went in."""

import math
from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from mmd_jax.models.layered import Layer, Network, from_layers
from mmd_jax.models.mlp import dense


def autoencoder(
    encoder: Sequence[tuple[str, Layer | nn.Module]], shape: Sequence[int], *, hidden: Sequence[int] = (256,)
) -> Network:
    """The encoder's layers under their own names, then decode1, decode2, …, of which the last gives [batch, *shape].

        x → code = encoder(x) → decoder(code) ≈ x

    It learns from rows without labels (`reconstruction`); since the names stay, its encoder is copied into a classifier as
    any pretrained layers are (`Stage.reinitialised` names the classifier's last layer, `leaves.replace` takes the others).

    Args:
      encoder: (name, layer) in the order of computation, such as `cnn8_base(16)` or `mlp_base((256, 64))`; the last gives the
        code.
      shape: of what is rebuilt, for one row: the input's.
      hidden: units of the decoder's layers but the last, with ReLU; the last is linear.

    Raises:
      ValueError: no encoder layer, or sizes that are not positive.

    >>> import jax
    >>> from mmd_jax.models.mlp import mlp_base
    >>> network = autoencoder(mlp_base((32, 8)), (6, 6, 1), hidden=(16,))
    >>> network.layers, network.num_base
    (('fc1', 'fc2', 'decode1', 'decode2'), 2)
    >>> x = jax.numpy.ones((3, 6, 6, 1))
    >>> network.apply(network.init(jax.random.key(0), x), x)[0].shape
    (3, 6, 6, 1)

    Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 2006.
    """
    if not encoder:
        raise ValueError("an autoencoder needs at least one layer that encodes")
    if min((*hidden, *shape), default=0) < 1:
        raise ValueError(f"hidden and shape must be positive, got {tuple(hidden)} and {tuple(shape)}")
    decoder = [(f"decode{i}", dense(units)) for i, units in enumerate(hidden, 1)]
    decoder.append((f"decode{len(hidden) + 1}", _shaped(dense(math.prod(shape), relu=False), tuple(shape))))
    return from_layers([*encoder, *decoder], num_base=len(encoder))


def _shaped(layer: Layer, shape: tuple[int, ...]) -> Layer:
    """The layer, its outputs [batch, prod(shape)] as [batch, *shape]."""

    def apply(params, x: Array) -> Array:
        y = layer.apply(params, x)
        return y.reshape(len(y), *shape)

    return Layer(layer.init, apply)
