"""MobileNet and MobileNetV2: depthwise convolutions between 1 × 1 ones."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.blocks import Conv, DepthwiseConv, InvertedResidual, Norm, check_side, relu6
from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.pooling import global_mean

# (channels, stride) of MobileNet's blocks.
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# (how many, stride of the first, channels) of MobileNetV2's groups; all but the first expand sixfold.
INVERTED = ((1, 1, 16), (2, 2, 24), (3, 2, 32), (4, 2, 64), (3, 1, 96), (3, 2, 160), (1, 1, 320))


def mobilenet(num_classes: int) -> Network:
    """Layers stem, block1 … block13, predictions, on images [batch, height, width, 3] of at least 32 × 32; published at 224.

    The last block ends in the mean over positions: it gives [batch, 1024], and the base is all but the last layer. As in
    Keras, without its dropout.

    Args:
      num_classes: units of the last layer, > 0.

    Howard et al., "MobileNets: Efficient convolutional neural networks for mobile vision applications", 2017.
    """
    blocks = [
        (f"block{i}", Separable(channels, stride, last=i == len(SEPARABLE)))
        for i, (channels, stride) in enumerate(SEPARABLE, 1)
    ]
    return from_layers(
        [("stem", Stem("mobilenet")), *blocks, ("predictions", dense(num_classes, relu=False, zero=True))]
    )


def mobilenet_v2(num_classes: int) -> Network:
    """Layers stem, block0 … block16, head, predictions, on images of at least 32 × 32 in colour; published at 224.

    The head ends in the mean over positions: it gives [batch, 1280], and the base is all but the last layer.

    Args:
      num_classes: units of the last layer, > 0.

    Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018.
    """
    layers: list = [("stem", Stem("mobilenet_v2"))]
    for group, (count, stride, channels) in enumerate(INVERTED):
        for i in range(count):
            block = InvertedResidual(channels, 3, 1 if i else stride, 6 if group else 1, residual=i > 0)
            layers.append((f"block{len(layers) - 1}", block))
    return from_layers([*layers, ("head", Head()), ("predictions", dense(num_classes, relu=False, zero=True))])


class Stem(nn.Module):
    """The first convolution: half the size, 32 channels."""

    network: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_side(self.network, x, 32)
        return relu6(Norm(name="bn")(Conv(32, (3, 3), stride=2, name="conv")(x)))


class Separable(nn.Module):
    """A convolution of each channel, and one across them."""

    channels: int
    stride: int
    last: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.stride == 1:
            y = DepthwiseConv(name="depthwise")(x)
        else:
            # As Keras pads: at the end, for even and odd sizes alike.
            padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
            y = DepthwiseConv(stride=self.stride, padding="VALID", name="depthwise")(padded)
        y = relu6(Norm(name="depthwise_bn")(y))
        y = relu6(Norm(name="project_bn")(Conv(self.channels, name="project")(y)))
        return global_mean(y) if self.last else y


class Head(nn.Module):
    """The last convolution, and the mean over positions."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return global_mean(relu6(Norm(name="bn")(Conv(1280, name="conv")(x))))
