"""Weight files of Keras, and its published networks. Files are read as arrays only: no model is built from them."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """{"layer/kernel": array} of a .keras, .weights.h5 or .h5 file, by the names of the model's layers.

    The arrays of a layer are called by their number and shape: kernel and bias, or gamma, beta, moving_mean and
    moving_variance (with or without gamma); else 0, 1, ….

    Raises:
      ValueError: h5py is not installed, it is no such file, it is cut off, or it would read other files.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"weights at {path}: h5py is needed to read them; pip install 'mmd_jax[zoo]'") from error
    try:
        stream: Any = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                # Beside it lies config.json, which may hold code; it is not opened.
                stream = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(stream, "r") as file:
            groups: dict[str, list[np.ndarray]] = {}
            for layer, arrays in _layers(file):
                if layer in groups:
                    raise ValueError(f"two layers are called {layer!r}")
                groups[layer] = arrays
            if not groups:
                raise ValueError("it has no layers as Keras writes them")
            return {f"{layer}/{kind}": array for layer, arrays in groups.items() for kind, array in _named(arrays)}
    # What a damaged file makes the readers raise could be anything.
    except Exception as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ValueError(f"weights at {path}: not readable as a Keras file, or cut off ({said})") from error


def applications(name: str) -> dict[str, np.ndarray]:
    """The ImageNet weights of a network of keras.applications, fetched by Keras itself; {"layer/kernel": array}.

    Args:
      name: "ResNet50", say.

    Raises:
      ValueError: Keras is not installed, or it can't fetch them.
    """
    # Keras reads it once, when it is first imported.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError as error:
        raise ValueError(
            f"ImageNet weights of {name} come through Keras, which can't be imported ({error}): pip install 'mmd_jax[zoo]'"
        ) from error
    try:
        model = getattr(keras.applications, name)(weights="imagenet")
    # Keras raises a plain Exception where there is no network.
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"keras.applications could not fetch the ImageNet weights of {name} ({said[0]}): it needs a network the first "
            "time; or give a file by model.weights"
        ) from error
    return {weight.path: np.asarray(weight) for weight in model.weights}


def _layers(file: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """(name of a layer, its arrays in order); links are not followed."""
    import h5py

    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.__setitem__(name, item))

    def read(name: str) -> np.ndarray:
        dataset = found[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} is not an array in this file")
        return dataset[()]

    # Keras 2 and .h5: layers in the order of an attribute, arrays by another.
    root = f"{'model_weights' if 'model_weights' in found else ''}"
    for layer in _strings(found.get(root, file).attrs, "layer_names"):
        group = f"{root}/{layer}".strip("/")
        names = _strings(found[group].attrs, "weight_names")
        if names:
            yield layer, [read(f"{group}/{name}") for name in names]
    # Keras 3: each layer's folder has a folder vars, with the layer's name and its arrays by number.
    for name, group in found.items():
        if name.rpartition("/")[2] == "vars" and isinstance(group, h5py.Group) and len(group):
            layer = group.attrs.get("name", name.split("/")[-2])
            yield str(layer), [read(f"{name}/{i}") for i in range(len(group))]


def _strings(attributes: Any, name: str) -> list[str]:
    """A list of names; one that is too long for an attribute stands in NAME0, NAME1, …."""
    parts = (
        [name]
        if name in attributes
        else sorted(
            (key for key in attributes if key.removeprefix(name).isdigit() and key.startswith(name)),
            key=lambda key: int(key.removeprefix(name)),
        )
    )
    values = [value for part in parts for value in attributes[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _named(arrays: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    vectors = all(array.ndim == 1 for array in arrays)
    if vectors and len(arrays) in (3, 4):
        names = NORM[4 - len(arrays) :]
    elif arrays[0].ndim > 1 and len(arrays) <= 2:
        names = ("kernel", "bias")
    else:
        names = tuple(map(str, range(len(arrays))))
    yield from zip(names, arrays)
