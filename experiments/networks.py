"""From a config's model section to networks with their preprocessing, and back from a model/ folder."""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import checkpoints, weights, workdir
from experiments import config as configs
from experiments.config import Model
from experiments.datasets import table_map
from experiments.datasets.table_map import TableMap
from experiments.published import PUBLISHED
from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.layered import Network, preprocessed
from mmd_jax.models.leaves import layer_of, named_leaves, path_name, take
from mmd_jax.models.mlp import mlp
from mmd_jax.models.pretrained import Loaded, Translate, from_arrays
from mmd_jax.types import Variables

NAMES = ("cnn8", "mlp", *PUBLISHED)
# The name of the test on the preprocessed rows, beside those on the layers.
INPUTS = "inputs"
# Of PyTorch's batch normalisation: a count that nothing is computed from.
UNUSED = "num_batches_tracked"


class LoadedModel(NamedTuple):
    """A fine-tuned network, ready for use.

    Attributes:
      apply: (variables, x) -> logits [batch, classes]; x raw, in the shape and dtype that description.json names.
      variables: its weights.
      classes: the name of each output.
    """

    apply: Callable[[Variables, Array], Array]
    variables: Variables
    classes: tuple[str, ...]


def preprocessing(model: Model, *, image: bool) -> Callable[[Array], Array]:
    """The fixed map from raw rows to the network's inputs: (x / 255 − mean) / std for images, (x − mean) / std for rows.

    Where the config has neither mean nor std, images get those of a published network, and its order of colours. A grey image
    becomes one in colour for it.

    Codes of categories (`model.categories`) become blocks of √½ at the code's place and 0 elsewhere, behind the other
    columns: rows that differ in one category only are 1 apart.
    """
    published = None if model.factory else PUBLISHED.get(model.name)
    bgr = False
    if published is not None and image and not model.mean and not model.std:
        model, bgr = replace(model, mean=published.mean, std=published.std), published.bgr
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused as such
        mean, std = np.asarray(model.mean or 0.0, np.float32), np.asarray(model.std or 1.0, np.float32)
    if not np.isfinite(mean).all():
        raise ValueError(f"model.mean = {model.mean}; expected finite numbers")
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(f"model.std = {model.std}; expected positive, finite numbers")
    scale = np.float32(255.0 if image else 1.0)
    if image and model.categories:
        raise ValueError(f"model.categories = {model.categories} is for rows, but the data are images; leave it empty")

    def preprocess(x: Array) -> Array:
        x = jnp.asarray(x, jnp.float32)
        if model.categories:
            numbers, blocks = _parts(x, model.categories)
            return jnp.concatenate([normalise(numbers), *blocks], axis=1)
        if published and x.ndim == 4 and x.shape[3] == 1:
            x = jnp.repeat(x, 3, axis=3)
        return normalise(x[..., ::-1] if bgr else x)

    def normalise(x: Array) -> Array:
        for name, value in (("mean", mean), ("std", std)):
            if value.ndim and value.shape[0] not in (1, x.shape[-1]):
                raise ValueError(
                    f"model.{name} has {value.shape[0]} values, but the inputs have {x.shape[-1]} channels"
                )
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x / scale - jnp.asarray(mean).reshape(shape)) / jnp.asarray(std).reshape(shape)

    return preprocess


def _parts(x: Array, categories: Sequence[int]) -> tuple[Array, list[Array]]:
    """The numbers of a table's rows, and a block for each column of codes behind them."""
    first = x.shape[-1] - len(categories)
    if x.ndim != 2 or first < 0:
        raise ValueError(
            f"model.categories names {len(categories)} columns of codes, but rows have {list(x.shape[1:])}"
        )
    codes = x[:, first:].astype(jnp.int32)
    return x[:, :first], [jax.nn.one_hot(codes[:, i], k) * np.float32(0.5**0.5) for i, k in enumerate(categories)]


def build(model: Model, num_classes: int, example: np.ndarray) -> Network:
    """The network of a config, on raw rows like `example` [batch, ...]; its preprocessing is the network's first act.

    Equal settings give the very same network, so that what was compiled for it is not compiled again. The user's own code is
    called each time.
    """
    row = example.shape[1:], example.dtype.str
    if model.factory:
        return _build(model, num_classes, *row)
    return _built(replace(model, weights=""), num_classes, *row)


def _build(model: Model, num_classes: int, shape: tuple[int, ...], dtype: str) -> Network:
    example = np.zeros((1, *shape), dtype)
    preprocess = preprocessing(model, image=example.dtype == np.uint8)
    inputs = jax.eval_shape(preprocess, example)
    if model.factory:
        network = weights.make_network(model.factory, num_classes, inputs, layers=model.layers)
    elif model.name == "cnn8":
        network = cnn8(num_classes, width=model.width)
    elif model.name == "mlp":
        network = mlp(num_classes, hidden=model.hidden, categories=model.categories, embedding=model.embedding)
    elif model.name in PUBLISHED:
        network = PUBLISHED[model.name].build(num_classes)
    else:
        raise ValueError(f"unknown model {model.name!r}; there are {', '.join(NAMES)}, or your own by model.factory")
    if INPUTS in network.layers:
        raise ValueError(
            f"the network has a layer named {INPUTS!r}, which in a report is the test of the inputs themselves; rename the "
            "layer, or name what it is made of in model.layers"
        )
    network = preprocessed(network, preprocess)
    output = jax.eval_shape(lambda x: network.apply(network.init(jax.random.key(0), x), x)[0], example)
    if output.shape[1:] != (num_classes,):
        raise ValueError(
            f"the network's output for one row has shape {output.shape[1:]}; expected ({num_classes},), a logit for each class"
        )
    return network


_built = functools.lru_cache(maxsize=64)(_build)


def table_of(model: Model) -> TableMap | None:
    """The table map that is kept with the weights, where these are the model/ folder of a run on tables.

    Raises:
      ValueError: it can't be read.
    """
    path = Path(model.weights)
    if not model.weights or not (path / "description.json").is_file():
        return None
    content = workdir.read_json(path / "description.json").get("table")
    return None if content is None else table_map.from_json(content)


def restore(
    model: Model, network: Network, example: np.ndarray, *, with_head: bool, data_dir: str | Path = "data"
) -> Loaded:
    """The variables of `network` from the weights that the config names.

    Args:
      model: whose `weights` is a path, or "imagenet" for a published network.
      network: for the names and shapes.
      example: raw rows [batch, ...].
      with_head: whether the last layer is wanted too; else it is fresh, and whatever the file has for it is left out.
      data_dir: where `experiments.download` put its files.

    Returns:
      the variables, with what became of every tensor. Tensors that belong to no layer are named on stderr.

    Raises:
      ValueError: the file can't be read, lacks a tensor, or has one that does not fit; where only the last layer does not,
        the message says how many outputs it has.
    """
    published = None if model.factory else PUBLISHED.get(model.name)
    if model.weights == "imagenet":
        arrays = weights.imagenet(model.factory or model.name, data_dir)
    else:
        arrays = weights.load_weights(Path(model.weights), read_folder=lambda path: checkpoints.load_arrays(path)[0])
    translate = published and published.translate
    head = network.layers[-1]
    template = _template(network, example, () if with_head else (head,))
    try:
        loaded = from_arrays(arrays, template, fresh=() if with_head else (head,), translate=translate)
    except ValueError:
        if with_head:
            _check_head(model, arrays, template, head, translate)
        raise
    of_head = {name for name in arrays if _is_of(name, head, template)}
    if translate:
        of_head |= {name for name, (path, _) in translate(arrays).items() if _is_of(path, head, template)}
    spare = [name for name in loaded.left_over if name not in of_head and not name.endswith(UNUSED)]
    if spare:
        names = ", ".join(spare[:8]) + (f" and {len(spare) - 8} more" if len(spare) > 8 else "")
        print(f"warning: {model.weights} has tensors that the network has no place for: {names}", file=sys.stderr)
    return loaded


def _template(network: Network, example: np.ndarray, fresh: Sequence[str]) -> Variables:
    """The variables' shapes, with values for some layers alone: to draw all of a large network's takes long to compile."""
    key, x = jax.random.key(0), jnp.asarray(example[:1])
    drawn = jax.jit(lambda key, x: take(network.init(key, x), fresh))(key, x) if fresh else {}
    shapes = jax.eval_shape(network.init, key, x)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: drawn.get(path_name(path), leaf), shapes)


def _check_head(
    model: Model, arrays: weights.Arrays, template: Variables, head: str, translate: Translate | None
) -> None:
    """Explains weights of which nothing but the last layer fails to fit: they are of a network for other classes."""
    from_arrays(arrays, template, fresh=(head,), translate=translate)  # where that fails too, its own error says why
    if translate:
        arrays = dict(translate(arrays).values())
    wanted, found = (
        {np.shape(array)[-1] for name, array in tensors.items() if _is_of(name, head, template) and np.ndim(array)}
        for tensors in (named_leaves(template), arrays)
    )
    advice = (
        "give a source with the classes that the network was trained on (source.name, source.classes), or source=None"
    )
    if not found:
        raise ValueError(
            f"{model.weights} has no tensors for the last layer {head!r}, which rows of the source need; {advice}"
        )
    if len(found) == len(wanted) == 1 and found != wanted:
        raise ValueError(
            f"the last layer of {model.weights} has {found.pop()} outputs and the source sample has {wanted.pop()} classes; "
            f"{advice}"
        )


def _is_of(name: str, layer: str, variables: Variables) -> bool:
    """Whether a tensor's name, with or without its collection, is one of the layer's."""
    path = name.replace(".", "/")
    collection, _, inside = path.partition("/")
    return layer_of(inside if collection in variables else path, (layer,)) is not None


def load_model(path: str | Path) -> LoadedModel:
    """Reads a model/ folder.

    Returns:
      LoadedModel(apply, variables, classes).

    Raises:
      ValueError: no such folder, not one of ours, or a byte that differs from what was saved.

    Example:
      apply, variables, classes = load_model("runs/quickstart/model")
      logits = apply(variables, images)
    """
    network, variables, description = load_network(path)
    return LoadedModel(lambda variables, x: network.apply(variables, x)[0], variables, tuple(description["classes"]))


def load_network(path: str | Path) -> tuple[Network, Variables, dict[str, Any]]:
    """As `load_model`: the network itself, of which every layer can be reached, its variables, and description.json."""
    description: dict[str, Any] = {}
    if (Path(path) / "description.json").exists() or not Path(path).is_dir():
        arrays, description = checkpoints.load_arrays(path)
    if "model" not in description:
        raise ValueError(f"{path} holds no network with its description; expected the model/ folder of a run")
    example = np.zeros((1, *description["input"]["shape"]), description["input"]["dtype"])
    model = Model(**configs.from_json(description["model"]))
    network = build(model, len(description["classes"]), example)
    template = jax.jit(network.init)(jax.random.key(0), jnp.asarray(example))
    return network, checkpoints.fill(template, arrays), description
