"""What published convolutional networks are built from: convolution, batch normalisation and an activation, as linen modules."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from mmd_jax.models.channelwise import channel_means, convolve_depthwise, scale_and_shift
from mmd_jax.models.convolution import Padding, convolve
from mmd_jax.models.mlp import he_normal


class Conv(nn.Module):
    """A convolution with `kernel` [kh, kw, c, d] and, where it has one, `bias` [d]."""

    channels: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "SAME"
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", he_normal, (*self.size, x.shape[3], self.channels), x.dtype)
        y = convolve(x, kernel, stride=self.stride, padding=self.padding)
        if not self.bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.channels,), x.dtype)[None, None, None]


class DepthwiseConv(nn.Module):
    """A convolution of each channel alone, with `kernel` [kh, kw, c]."""

    size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # Each output has kh·kw inputs.
        kernel = self.param("kernel", he_normal, (*self.size, x.shape[3]), x.dtype)
        return convolve_depthwise(x, kernel, stride=self.stride, padding=self.padding)


class Norm(nn.Module):
    """Batch normalisation of channels, with `scale` (where it has one), `bias`, and running statistics `mean` and `var`.

    y = (x − mean) / √(var + ε) · scale + bias; in training mode mean and (biased) variance are the batch's, and the running
    ones move by 1 − `momentum` towards them. Statistics are computed in at least float32.
    """

    epsilon: float = 1e-3
    scaled: bool = True
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        shape = (x.shape[-1],)
        bias = self.param("bias", nn.initializers.zeros, shape, x.dtype)
        scale = self.param("scale", nn.initializers.ones, shape, x.dtype) if self.scaled else jnp.ones(shape, x.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        kept = {
            name: self.variable("batch_stats", name, lambda v=v: jnp.full(shape, v, wide))
            for name, v in (("mean", 0.0), ("var", 1.0))
        }
        mean, var = kept["mean"].value, kept["var"].value
        if train:
            xs = x.astype(wide)
            mean, square = channel_means(xs), channel_means(xs * xs)
            # Rounding can leave a constant channel a variance below 0.
            var = jnp.maximum(square - mean * mean, 0)
            for name, value in (("mean", mean), ("var", var)):
                kept[name].value = self.momentum * kept[name].value + (1 - self.momentum) * value
        factor = scale * lax.rsqrt(var + self.epsilon)
        return scale_and_shift(x, factor, bias - mean * factor).astype(x.dtype)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; added to its input where that has the same shape."""

    channels: int
    size: int
    stride: int
    expansion: int
    residual: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        if self.expansion > 1:
            y = relu6(Norm(name="expand_bn")(Conv(self.expansion * x.shape[3], name="expand")(y)))
        y = DepthwiseConv((self.size, self.size), self.stride, name="depthwise")(y)
        y = relu6(Norm(name="depthwise_bn")(y))
        y = Norm(name="project_bn")(Conv(self.channels, name="project")(y))
        return x + y if self.residual else y


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


def check_side(name: str, x: Array, side: int) -> None:
    """Refuses what is no batch of images in colour, or images that are too small for a network."""
    if x.ndim != 4 or x.shape[3] != 3 or min(x.shape[1:3]) < side:
        raise ValueError(
            f"{name} takes images [batch, height, width, 3] of at least {side} × {side}, got {x.shape}: resize them "
            "(source.size, target.size)"
        )
