"""Our networks are those of keras.applications: the same random weights and batch statistics give the same logits."""

import os

import jax
import numpy as np
import pytest

from mmd_jax.models import inception, keras_weights, mobilenet, resnet, vgg
from mmd_jax.models.pretrained import from_arrays

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="keras is the reference")

NETWORKS = [
    ("VGG16", vgg.vgg16, keras_weights.vgg, (32, 40)),
    ("VGG19", vgg.vgg19, keras_weights.vgg, (32, 32)),
    # Sizes that are odd on the way, where paddings differ.
    ("MobileNet", mobilenet.mobilenet, keras_weights.mobilenet, (36, 50)),
    ("MobileNetV2", mobilenet.mobilenet_v2, keras_weights.mobilenet_v2, (36, 50)),
    ("ResNet50", resnet.resnet50, keras_weights.resnet50, (36, 50)),
    ("InceptionV3", inception.inception_v3, keras_weights.inception_v3, (75, 80)),
]


def randomised(rng, path, shape):
    """Weights that keep activations of about one size, and statistics that are not those of a new network."""
    kind = path.rpartition("/")[2]
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if kind == "kernel":
        inputs = np.prod(shape[:2]) if "depthwise" in path or "_dw_" in path else np.prod(shape[:-1])
        return rng.normal(0, np.sqrt(2 / inputs), shape)
    return rng.normal(0, 0.2, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name, build, translate, size", NETWORKS, ids=[n for n, *_ in NETWORKS])
def test_logits_are_those_of_keras(key, name, build, translate, size):
    rng = np.random.default_rng(0)
    with jax.numpy_rank_promotion("allow"):
        model = getattr(keras.applications, name)(
            weights=None, input_shape=(*size, 3), classes=5, classifier_activation=None
        )
        values = [randomised(rng, v.path, v.shape).astype(np.float32) for v in model.weights]
        model.set_weights(values)
        x = rng.normal(size=(3, *size, 3)).astype(np.float32)
        call = jax.jit(lambda trained, other, x: model.stateless_call(trained, other, x, training=False)[0])
        split = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        expected = np.asarray(call(*split, x))
    arrays = {v.path: value for v, value in zip(model.weights, values)}
    network = build(5)
    loaded = from_arrays(arrays, jax.eval_shape(network.init, key, x), translate=translate)
    assert not loaded.missing and not loaded.left_over
    logits = jax.jit(lambda variables, x: network.apply(variables, x)[0])(loaded.variables, x)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    # Not by collapse: rows differ.
    assert np.ptp(expected, axis=0).min() > 1e-2 * np.abs(expected).max()
