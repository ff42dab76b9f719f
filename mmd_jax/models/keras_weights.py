"""Tensors by the names that Keras gives them → leaves of the networks here."""

import re
from collections.abc import Callable, Mapping

import numpy as np

LEAVES = {
    "kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
Found = dict[str, tuple[str, np.ndarray]]


def vgg(arrays: Mapping[str, np.ndarray]) -> Found:
    """Of VGG16 and VGG19: {"block1_conv1/kernel": (path of the leaf here, array in its layout)}."""
    return _translated(arrays, lambda layer: f"{layer}/conv" if re.fullmatch(r"block\d_conv\d", layer) else layer)


def resnet50(arrays: Mapping[str, np.ndarray]) -> Found:
    """Of ResNet50: conv2_block1_0_conv is conv2_block1/0_conv."""
    return _translated(
        arrays, lambda layer: re.sub(r"^(conv\d(?:_block\d+)?)_(\d_conv|\d_bn|conv|bn)$", r"\1/\2", layer)
    )


def mobilenet(arrays: Mapping[str, np.ndarray]) -> Found:
    """Of MobileNet: conv_dw_1_bn is block1/depthwise_bn. Its last layer is a convolution, here a matrix."""
    inside = {"dw": "depthwise", "pw": "project"}

    def path(layer: str) -> str:
        if match := re.fullmatch(r"conv_(dw|pw)_(\d+)(_bn)?", layer):
            return f"block{match[2]}/{inside[match[1]]}{match[3] or ''}"
        return {"conv1": "stem/conv", "conv1_bn": "stem/bn", "conv_preds": "predictions"}.get(layer, layer)

    found = _translated(arrays, path)
    return {
        name: (path, tensor[0, 0] if path == "params/predictions/kernel" and tensor.ndim == 4 else tensor)
        for name, (path, tensor) in found.items()
    }


def mobilenet_v2(arrays: Mapping[str, np.ndarray]) -> Found:
    """Of MobileNetV2: block_1_expand_BN is block1/expand_bn."""
    outer = {"Conv1": "stem/conv", "bn_Conv1": "stem/bn", "Conv_1": "head/conv", "Conv_1_bn": "head/bn"}

    def path(layer: str) -> str:
        if match := re.fullmatch(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?", layer):
            return f"block{match[1] or 0}/{match[2]}{(match[3] or '').lower()}"
        return outer.get(layer, layer)

    return _translated(arrays, path)


def inception_v3(arrays: Mapping[str, np.ndarray]) -> Found:
    """Of InceptionV3, whose layers only have numbers: conv2d_6 is mixed0/1/conv, if the first is called conv2d."""
    numbered = {"conv2d": "conv", "batch_normalization": "bn"}
    ours = [f"conv{i}/0" for i in range(1, 6)]
    counts = (7, 7, 7, 4, 10, 10, 10, 10, 6, 9, 9)
    ours += [f"mixed{i}/{j}" for i, count in enumerate(counts) for j in range(count)]
    paths = {}
    for kind, inside in numbered.items():
        named = {layer: match for layer in _layers(arrays) if (match := re.fullmatch(rf"{kind}(?:_(\d+))?", layer))}
        # Keras goes on counting where another model was built before.
        ordered = sorted(named, key=lambda layer: int(named[layer][1] or 0))
        paths.update({layer: f"{path}/{inside}" for layer, path in zip(ordered, ours)})
    return _translated(arrays, lambda layer: paths.get(layer, layer))


def _layers(arrays: Mapping[str, np.ndarray]) -> set[str]:
    return {name.rpartition("/")[0] for name in arrays}


def _translated(arrays: Mapping[str, np.ndarray], path: Callable[[str], str]) -> Found:
    found = {}
    for name, tensor in arrays.items():
        layer, _, kind = name.rpartition("/")
        if kind not in LEAVES or not layer:
            continue
        collection, leaf = LEAVES[kind]
        place = path(layer)
        if place.endswith("/depthwise") and tensor.ndim == 4:
            tensor = tensor[:, :, :, 0]  # [kh, kw, c, 1]
        found[name] = f"{collection}/{place}/{leaf}", tensor
    return found
