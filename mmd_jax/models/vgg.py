"""VGG16 and VGG19: stacks of 3 × 3 convolutions."""

import flax.linen as nn
import jax
from jax import Array

from mmd_jax.models.blocks import Conv, check_side
from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.pooling import max_pool

CHANNELS = (64, 128, 256, 512, 512)


def vgg16(num_classes: int) -> Network:
    """Layers block1_conv1 … block5_conv3, fc1, fc2, predictions: 13 convolutions and 3 dense layers.

    Images [batch, height, width, 3] of at least 32 × 32. fc1 reads all positions: weights for images of 224 × 224, as
    published, fit no other size. The base is the convolutions, which pool at the end of each block.

    Args:
      num_classes: units of the last layer, > 0.

    Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """
    return _vgg("vgg16", (2, 2, 3, 3, 3), num_classes)


def vgg19(num_classes: int) -> Network:
    """As `vgg16`, with 16 convolutions: block1_conv1 … block5_conv4."""
    return _vgg("vgg19", (2, 2, 4, 4, 4), num_classes)


def _vgg(name: str, counts: tuple[int, ...], num_classes: int) -> Network:
    layers = [
        (f"block{b}_conv{i}", Stage(name if b == i == 1 else "", channels, pooled=i == count))
        for b, (count, channels) in enumerate(zip(counts, CHANNELS), 1)
        for i in range(1, count + 1)
    ]
    classifier = [
        ("fc1", dense(4096)),
        ("fc2", dense(4096)),
        ("predictions", dense(num_classes, relu=False, zero=True)),
    ]
    return from_layers([*layers, *classifier], num_base=len(layers))


class Stage(nn.Module):
    """A convolution with ReLU, and the pooling that follows it."""

    network: str
    channels: int
    pooled: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.network:
            check_side(self.network, x, 32)
        y = jax.nn.relu(Conv(self.channels, (3, 3), bias=True, name="conv")(x))
        return max_pool(y) if self.pooled else y
