"""Published networks: what they expect of images, weights of another network, and EfficientNet-Lite0 with its own weights."""

from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import networks
from experiments.config import Model
from experiments.published import PUBLISHED
from mmd_jax.models.efficientnet_lite import INNER, OUTER
from mmd_jax.models.leaves import named_leaves

DATA = Path("data")
downloaded = pytest.mark.skipif(
    not list((DATA / "raw/efficientnet_lite0").glob("*.pth")),
    reason="python -m experiments.download --data-dir data efficientnet_lite0",
)
LITE = Model("efficientnet_lite0", weights="imagenet")
# Largest first, of PyTorch's own EfficientNet on `pattern`: (class, logit), by efficientnet-lite-pytorch 0.1.0.
RECORDED = ((506, 30.25581), (650, 18.50899), (882, 17.58048), (811, 17.27707), (545, 16.04438))


def pattern():
    """An image that needs no file, [1, 64, 96, 3]."""
    i, j, c = np.meshgrid(np.arange(64), np.arange(96), np.arange(3), indexing="ij")
    return ((7 * i + 3 * j + 50 * c + (i * j) // 8) % 256).astype(np.uint8)[None]


def logits(model, x):
    network = networks.build(model, 1000, x)
    variables = networks.restore(model, network, x, with_head=True, data_dir=DATA).variables
    return np.asarray(jax.jit(lambda v, x: network.apply(v, x)[0])(variables, x))


@pytest.mark.slow
@downloaded
def test_lite0_gives_the_logits_that_were_recorded():
    found = logits(LITE, pattern())[0]
    for label, value in RECORDED:
        assert abs(found[label] - value) <= 2e-6 * RECORDED[0][1]
    assert list(np.argsort(-found)[: len(RECORDED)]) == [label for label, _ in RECORDED]


@pytest.mark.slow
@downloaded
def test_lite0_knows_a_palace_and_a_daisy():
    from PIL import Image
    from sklearn.datasets import load_sample_images

    cropped = []
    for image in load_sample_images().images:
        height, width = image.shape[:2]
        side = int(0.875 * min(height, width))
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        cropped.append(np.asarray(Image.fromarray(image).crop(box).resize((224, 224), Image.Resampling.BICUBIC)))
    china, flower = np.argsort(-logits(LITE, np.stack(cropped)), axis=-1)[:, :5]
    assert {698, 442, 663} <= set(china)  # palace, bell cote, monastery
    assert flower[0] == 985  # daisy


def as_published(variables):
    """Tensors of EfficientNet-Lite0 under the names and in the layouts of PyTorch."""
    theirs = {ours: name for name, ours in OUTER.items()}
    inner = {ours: name for name, ours in INNER.items()}
    kinds = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var", "kernel": "weight"}
    arrays = {}
    for path, leaf in named_leaves(variables).items():
        _, *layer, kind = path.split("/")
        array = np.asarray(leaf)
        if layer[0].startswith("block"):
            module = f"_blocks.{layer[0].removeprefix('block')}.{inner[layer[1]]}"
        else:
            module = theirs["/".join(layer)]
        if kind == "kernel":
            array = array[:, :, None] if "depthwise" in path else array
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        arrays[f"{module}.{kinds[kind]}"] = array
        if kind == "mean":
            arrays[f"{module}.num_batches_tracked"] = np.array(7)
    return arrays


@pytest.fixture(scope="module")
def lite():
    x = np.zeros((1, 32, 32, 3), np.uint8)
    network = networks.build(Model("efficientnet_lite0"), 5, x)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return network, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), variables)


def test_every_tensor_finds_its_leaf(lite, tmp_path, capsys):
    network, variables = lite
    np.savez(tmp_path / "w.npz", **as_published(variables))
    x = np.zeros((1, 32, 32, 3), np.uint8)
    model = Model("efficientnet_lite0", weights=str(tmp_path / "w.npz"))
    loaded = networks.restore(model, network, x, with_head=True)
    leaves = named_leaves(variables)
    for path, leaf in named_leaves(loaded.variables).items():
        np.testing.assert_array_equal(leaf, leaves[path], err_msg=path)
    assert ("params/block3/depthwise/kernel", "_blocks.3._depthwise_conv.weight") in loaded.matched
    assert all(name.endswith("num_batches_tracked") for name in loaded.left_over) and not loaded.missing
    # For other classes the last layer is new, and that is no cause for a warning.
    other = networks.build(model, 7, x)
    loaded = networks.restore(model, other, x, with_head=False)
    assert loaded.missing == ("params/fc/bias", "params/fc/kernel") and capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="has 5 outputs and the source sample has 7 classes"):
        networks.restore(model, other, x, with_head=True)


def test_weights_of_another_network_are_one_short_error(lite, tmp_path):
    np.savez(tmp_path / "w.npz", **as_published(lite[1]))
    x = np.zeros((1, 32, 32, 3), np.uint8)
    model = Model("resnet50", weights=str(tmp_path / "w.npz"))
    with pytest.raises(ValueError, match=r"no tensor for .* and \d+ more; the tensors are _.*and \d+ more") as raised:
        networks.restore(model, networks.build(model, 5, x), x, with_head=False)
    assert len(str(raised.value)) < 2000
    arrays = as_published(lite[1])
    arrays["_blocks.0._depthwise_conv.weight"] = np.zeros((32, 1, 5, 5), np.float32)
    np.savez(tmp_path / "w.npz", **arrays)
    model = Model("efficientnet_lite0", weights=str(tmp_path / "w.npz"))
    expected = (
        r"'_blocks.0._depthwise_conv.weight' has shape \(5, 5, 32\), .*block0/depthwise/kernel has shape \(3, 3, 32\)"
    )
    with pytest.raises(ValueError, match=expected):
        networks.restore(model, lite[0], x, with_head=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_images_that_are_too_small_are_refused(name):
    side = 75 if name == "inception_v3" else 32
    with pytest.raises(ValueError, match=rf"{name} takes images .* at least {side} × {side}, got .*: resize them"):
        networks.build(Model(name), 5, np.zeros((1, side - 1, side, 3), np.uint8))


@pytest.mark.parametrize("name", PUBLISHED)
def test_structure(name):
    """By shapes alone: parameters of the published network for 1,000 classes, the base, a base that ends in a vector."""
    size = {"inception_v3": 299}.get(name, 224)
    network = PUBLISHED[name].build(1000)
    x = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))
    assert count == PARAMETERS[name]
    assert network.num_base == len(network.layers) - (3 if "vgg" in name else 1)
    assert not network.whole


# As Keras prints them less the moving statistics; for EfficientNet-Lite0 those of the published file.
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "inception_v3": 23_817_352,
    "mobilenet": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "resnet50": 25_583_592,
}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name].keras])
def test_preprocessing_is_that_of_keras(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    module = getattr(keras.applications, name)
    expected = module.preprocess_input(x.astype(np.float32))
    np.testing.assert_allclose(networks.preprocessing(Model(name), image=True)(x), expected, rtol=1e-5, atol=3e-5)


def test_own_mean_and_std_come_before_the_published_ones_and_grey_becomes_colour():
    x = np.full((1, 2, 2, 1), 51, np.uint8)
    found = networks.preprocessing(Model("resnet50", mean=(0.1,), std=(0.5,)), image=True)(x)
    np.testing.assert_allclose(found, np.full((1, 2, 2, 3), 0.2), rtol=1e-5)
    assert networks.preprocessing(Model("cnn8"), image=True)(x).shape == (1, 2, 2, 1)
