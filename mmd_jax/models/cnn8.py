"""Five convolutions and three dense layers, after the network of Yosinski et al. (2014), for small images."""

import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.convolution import convolve
from mmd_jax.models.layered import Layer, Network, from_layers
from mmd_jax.models.mlp import dense, he_normal
from mmd_jax.models.pooling import max_pool

# Channels as multiples of the width, in about the proportions of AlexNet (96, 256, 384, 384, 256).
CHANNELS = (1, 2, 3, 3, 2)
# The smallest side that a convolution pools, as in AlexNet after the first, second and fifth; 0: never. The first waits
# for 16 pixels, so that an 8 × 8 image keeps 4 × 4 positions for the third to fifth (28: 14, 7; 32: 16, 8).
POOLED = (16, 2, 0, 0, 2)


def cnn8(num_classes: int, *, width: int = 16) -> Network:
    """Layers conv1 … conv5, fc6, fc7, fc8, on images [batch, height, width, channels] of at least 4 × 4 pixels.

    Each convolution is 3 × 3, stride 1, with ReLU; a 2 × 2 max-pool is part of conv1 (where the smaller side is at
    least 16), conv2 and conv5. They have 1, 2, 3, 3 and 2 times `width` channels; fc6 and fc7 have 8 times `width`
    units, with ReLU. Weights are He's, biases 0. No normalisation, as in the paper; the dtype is that of parameters and
    inputs.

    Args:
      num_classes: units of fc8, > 0.
      width: channels of conv1, > 0.

    >>> network = cnn8(10, width=4)
    >>> variables = jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    >>> features = jax.jit(network.features)(variables, jnp.ones((2, 8, 8, 1)))
    >>> features["conv5"].shape, features["fc8"].shape
    ((2, 2, 2, 8), (2, 10))

    Yosinski, Clune, Bengio, Lipson, "How transferable are features in deep neural networks?", NeurIPS 2014.
    """
    if num_classes < 1 or width < 1:
        raise ValueError(f"num_classes and width must be positive, got {num_classes} and {width}")
    return from_layers([*cnn8_base(width), ("fc8", dense(num_classes, relu=False))], num_base=5)


def cnn8_base(width: int) -> list[tuple[str, Layer]]:
    """The layers of `cnn8` without the last, for `from_layers` or `autoencoder`."""
    layers = [
        (f"conv{i}", _convolution(multiple * width, pooled))
        for i, (multiple, pooled) in enumerate(zip(CHANNELS, POOLED), 1)
    ]
    return [*layers, ("fc6", dense(8 * width)), ("fc7", dense(8 * width))]


def _convolution(channels: int, pooled: int) -> Layer:
    def init(key: Array, x: Array):
        if x.ndim != 4 or min(x.shape[1:3]) < (4 if pooled == 16 else 1):
            raise ValueError(f"cnn8 takes images [batch, height, width, channels] of at least 4 × 4, got {x.shape}")
        return {
            "kernel": he_normal(key, (3, 3, x.shape[3], channels), x.dtype),
            "bias": jnp.zeros(channels, x.dtype),
        }

    def apply(params, x: Array) -> Array:
        y = jax.nn.relu(convolve(x, params["kernel"]) + params["bias"][None, None, None])
        return max_pool(y) if pooled and min(y.shape[1:3]) >= pooled else y

    return Layer(init, apply)
