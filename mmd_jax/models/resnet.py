"""ResNet50: bottleneck blocks with shortcuts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.blocks import Conv, Norm, check_side
from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.pooling import global_mean, max_pool_overlapping

# (blocks, channels inside) of the stages conv2 … conv5; all but the first halve the size.
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
EPSILON = 1.001e-5


def resnet50(num_classes: int) -> Network:
    """Layers conv1, conv2_block1 … conv5_block3, predictions: 16 residual blocks of three convolutions each.

    Images [batch, height, width, 3] of at least 32 × 32; published at 224. The last block ends in the mean over positions:
    it gives [batch, 2048], and the base is all but the last layer. As in Keras, convolutions have biases, and the first of a
    block has its stride.

    Args:
      num_classes: units of the last layer, > 0.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    """
    blocks = [
        (f"conv{stage}_block{i}", Bottleneck(channels, 2 if i == 1 and stage > 2 else 1, i == 1, (stage, i) == (5, 3)))
        for stage, (count, channels) in enumerate(STAGES, 2)
        for i in range(1, count + 1)
    ]
    return from_layers([("conv1", Stem()), *blocks, ("predictions", dense(num_classes, relu=False, zero=True))])


class Stem(nn.Module):
    """A 7 × 7 convolution and a maximum, each with stride 2."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_side("resnet50", x, 32)
        y = Conv(64, (7, 7), stride=2, padding="VALID", bias=True, name="conv")(_bordered(x, 3))
        return max_pool_overlapping(_bordered(jax.nn.relu(Norm(EPSILON, name="bn")(y)), 1))


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions, added to a shortcut."""

    channels: int
    stride: int
    projected: bool
    last: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def convolved(i: int, x: Array, channels: int, size: int = 1, stride: int = 1) -> Array:
            y = Conv(channels, (size, size), stride, bias=True, name=f"{i}_conv")(x)
            return Norm(EPSILON, name=f"{i}_bn")(y)

        shortcut = convolved(0, x, 4 * self.channels, stride=self.stride) if self.projected else x
        y = jax.nn.relu(convolved(1, x, self.channels, stride=self.stride))
        y = jax.nn.relu(convolved(2, y, self.channels, size=3))
        y = jax.nn.relu(shortcut + convolved(3, y, 4 * self.channels))
        return global_mean(y) if self.last else y


def _bordered(x: Array, width: int) -> Array:
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))
