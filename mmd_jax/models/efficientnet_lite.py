"""EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, for processors without a GPU."""

from collections.abc import Mapping

import flax.linen as nn
import numpy as np
from jax import Array

from mmd_jax.models.blocks import Conv, InvertedResidual, Norm, check_side, relu6
from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.pooling import global_mean

# (how many, kernel, stride of the first, expansion, channels), of each group of blocks.
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# What the published PyTorch weights call things.
OUTER = {"_conv_stem": "stem/conv", "_bn0": "stem/bn", "_conv_head": "head/conv", "_bn1": "head/bn", "_fc": "fc"}
INNER = {
    "_expand_conv": "expand",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_project_conv": "project",
    "_bn2": "project_bn",
}
LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def efficientnet_lite0(num_classes: int) -> Network:
    """Layers stem, block0 … block15, head, fc, on images [batch, height, width, 3] of at least 32 × 32; published at 224.

    The head ends in the mean over positions: it gives [batch, 1280], and the base is all but fc. 4.65 million parameters
    for 1,000 classes. The published weights expect (x − 127) / 128 of pixels x in 0 … 255.

    Args:
      num_classes: units of fc, > 0.

    Tan, Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019; the Lite variants are
    those of TensorFlow's model garden.
    """
    layers: list = [("stem", Stem())]
    for count, size, stride, expansion, channels in GROUPS:
        for i in range(count):
            # The first of a group changes size and channels.
            block = InvertedResidual(channels, size, stride if i == 0 else 1, expansion, residual=i > 0)
            layers.append((f"block{len(layers) - 1}", block))
    return from_layers([*layers, ("head", Head()), ("fc", dense(num_classes, relu=False, zero=True))])


class Stem(nn.Module):
    """The first convolution: half the size, 32 channels."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_side("efficientnet_lite0", x, 32)
        return relu6(Norm(name="bn")(Conv(32, (3, 3), stride=2, name="conv")(x)))


class Head(nn.Module):
    """The last convolution, and the mean over positions."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return global_mean(relu6(Norm(name="bn")(Conv(1280, name="conv")(x))))


def from_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Of the published PyTorch weights: {name there: (path of the leaf here, array in its layout)}."""
    found = {name: _translated(name, tensor) for name, tensor in arrays.items()}
    return {name: pair for name, pair in found.items() if pair}


def _translated(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray] | None:
    *module, kind = name.split(".")
    path = _layer_of(module)
    leaf = LEAVES.get(kind)
    if path is None or leaf is None:
        return None
    if kind == "weight" and tensor.ndim > 1:
        leaf = "params", "kernel"
        # Outputs first there, last here; a depthwise kernel is [c, 1, kh, kw] there.
        tensor = np.moveaxis(tensor, (0, 1), (-1, -2)) if tensor.ndim == 4 else tensor.T
        tensor = tensor[:, :, 0] if path.endswith("/depthwise") else tensor
    collection, last = leaf
    return f"{collection}/{path}/{last}", tensor


def _layer_of(module: list[str]) -> str | None:
    match module:
        case [one]:
            return OUTER.get(one)
        case ["_blocks", number, inner]:
            inside = INNER.get(inner)
            return f"block{number}/{inside}" if inside else None
    return None
