"""InceptionV3: modules of parallel convolutions."""

from collections.abc import Sequence
from itertools import count

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mmd_jax.models.blocks import Conv, Norm, check_side
from mmd_jax.models.convolution import Padding
from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.pooling import average_pool, global_mean, max_pool_overlapping

# A convolution: (channels, kernel's height, its width). A chain of them is a branch.
Shape = tuple[int, int, int]
# (channels, kernel, stride, padding, whether a maximum follows) of the first five layers.
STEM: tuple[tuple[int, int, int, Padding, bool], ...] = (
    (32, 3, 2, "VALID", False),
    (32, 3, 1, "VALID", False),
    (64, 3, 1, "SAME", True),
    (80, 1, 1, "VALID", False),
    (192, 3, 1, "VALID", True),
)


def inception_v3(num_classes: int) -> Network:
    """Layers conv1 … conv5, mixed0 … mixed10, predictions: five convolutions and eleven modules of parallel ones.

    Images [batch, height, width, 3] of at least 75 × 75; published at 299. The last module ends in the mean over
    positions: it gives [batch, 2048], and the base is all but the last layer.

    Args:
      num_classes: units of the last layer, > 0.

    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision", CVPR 2016.
    """
    stem = [(f"conv{i}", Stem(i == 1, *knobs)) for i, knobs in enumerate(STEM, 1)]
    mixed = [(f"mixed{i}", module) for i, module in enumerate(_modules())]
    return from_layers([*stem, *mixed, ("predictions", dense(num_classes, relu=False, zero=True))])


def _modules() -> list[nn.Module]:
    """mixed0 … mixed10; the order of the branches is that of Keras, by which its weights are counted."""
    double = ((64, 1, 1), (96, 3, 3), (96, 3, 3))
    small = [Parallel([[(64, 1, 1)], [(48, 1, 1), (64, 5, 5)], double], pooled) for pooled in (32, 64, 64)]
    long = [
        Parallel(
            [
                [(192, 1, 1)],
                [(c, 1, 1), (c, 1, 7), (192, 7, 1)],
                [(c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)],
            ],
            192,
        )
        for c in (128, 160, 160, 192)
    ]
    halved = Halving([[(384, 3, 3)], double])
    again = Halving([[(192, 1, 1), (320, 3, 3)], [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)]])
    return [*small, halved, *long, again, Forked(), Forked(last=True)]


class ConvNorm(nn.Module):
    """A convolution, batch normalisation without scale, and ReLU."""

    shape: Shape
    stride: int = 1
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, height, width = self.shape
        y = Conv(channels, (height, width), self.stride, self.padding, name="conv")(x)
        return jax.nn.relu(Norm(scaled=False, name="bn")(y))


class Stem(nn.Module):
    """One of the first convolutions."""

    first: bool
    channels: int
    size: int
    stride: int
    padding: Padding
    pooled: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.first:
            check_side("inception_v3", x, 75)
        y = ConvNorm((self.channels, self.size, self.size), self.stride, self.padding, name="0")(x)
        return max_pool_overlapping(y) if self.pooled else y


class Parallel(nn.Module):
    """Branches of convolutions that keep the size, and one of averages; their channels beside each other."""

    branches: Sequence[Sequence[Shape]]
    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        number = count()
        outputs = [_chain(x, branch, number) for branch in self.branches]
        outputs.append(_chain(average_pool(x), [(self.pooled, 1, 1)], number))
        return jnp.concatenate(outputs, axis=-1)


class Halving(nn.Module):
    """Branches of convolutions whose last halves the size, and one of maxima."""

    branches: Sequence[Sequence[Shape]]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        number = count()
        outputs = []
        for branch in self.branches:
            y = _chain(x, branch[:-1], number)
            outputs.append(ConvNorm(branch[-1], 2, "VALID", name=f"{next(number)}")(y))
        return jnp.concatenate([*outputs, max_pool_overlapping(x)], axis=-1)


class Forked(nn.Module):
    """As `Parallel`, with branches that end in two convolutions beside each other."""

    last: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        number = count()
        outputs = [_chain(x, [(320, 1, 1)], number)]
        for branch in ([(384, 1, 1)], [(448, 1, 1), (384, 3, 3)]):
            y = _chain(x, branch, number)
            outputs += [_chain(y, [shape], number) for shape in ((384, 1, 3), (384, 3, 1))]
        outputs.append(_chain(average_pool(x), [(192, 1, 1)], number))
        y = jnp.concatenate(outputs, axis=-1)
        return global_mean(y) if self.last else y


def _chain(x: Array, shapes: Sequence[Shape], number: count) -> Array:
    for shape in shapes:
        x = ConvNorm(shape, name=f"{next(number)}")(x)
    return x
