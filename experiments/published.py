"""Networks whose weights are published: what each is called, what it expects, and whose names its weights have."""

from collections.abc import Callable
from typing import NamedTuple

from mmd_jax.models import keras_weights
from mmd_jax.models.efficientnet_lite import efficientnet_lite0, from_torch
from mmd_jax.models.inception import inception_v3
from mmd_jax.models.layered import Network
from mmd_jax.models.mobilenet import mobilenet, mobilenet_v2
from mmd_jax.models.pretrained import Translate
from mmd_jax.models.resnet import resnet50
from mmd_jax.models.vgg import vgg16, vgg19


class Published(NamedTuple):
    """What is known of a network whose weights are published.

    Attributes:
      build: num_classes -> the network, on images in colour.
      translate: from the names and layouts of the published weights.
      mean, std: of its preprocessing, as `Model.mean` and `Model.std`: (pixels / 255 − mean) / std.
      bgr: whether it expects blue first; then so are mean and std.
      keras: its name in keras.applications, where the ImageNet weights come from there.
      files: … or which file of DATA_DIR/raw/NAME, that `experiments.download` puts there.
    """

    build: Callable[[int], Network]
    translate: Translate
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    bgr: bool = False
    keras: str = ""
    files: str = ""


# Of pixels 0 … 255, blue first, and nothing is divided.
CAFFE = {"mean": (103.939 / 255, 116.779 / 255, 123.68 / 255), "std": (1 / 255,), "bgr": True}

PUBLISHED = {
    "efficientnet_lite0": Published(efficientnet_lite0, from_torch, (127 / 255,), (128 / 255,), files="*.pth"),
    "vgg16": Published(vgg16, keras_weights.vgg, keras="VGG16", **CAFFE),  # type: ignore[arg-type]
    "vgg19": Published(vgg19, keras_weights.vgg, keras="VGG19", **CAFFE),  # type: ignore[arg-type]
    "inception_v3": Published(inception_v3, keras_weights.inception_v3, keras="InceptionV3"),
    "mobilenet": Published(mobilenet, keras_weights.mobilenet, keras="MobileNet"),
    "mobilenet_v2": Published(mobilenet_v2, keras_weights.mobilenet_v2, keras="MobileNetV2"),
    "resnet50": Published(resnet50, keras_weights.resnet50, keras="ResNet50", **CAFFE),  # type: ignore[arg-type]
}
