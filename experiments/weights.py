"""Weight files → {foreign name: array}, and the user's own code → a network. Files are data: nothing in them is run."""

import importlib
import inspect
import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import safetensors.numpy
from flax import nnx

from experiments.keras_file import applications, read_keras
from experiments.published import PUBLISHED
from experiments.torch_file import read_torch
from mmd_jax.models.layered import Network
from mmd_jax.models.nnx import from_nnx
from mmd_jax.models.whole import from_functions, from_linen

Arrays = dict[str, np.ndarray]


def load_weights(path: str | Path, *, read_folder: Callable[[Path], Mapping[str, Any]] | None = None) -> Arrays:
    """The tensors of a weight file, by the names they have there.

    Args:
      path: .npz, .safetensors, .pth (or .pt), .h5, .keras, or a folder.
      read_folder: reads a folder (an Orbax checkpoint) as {name: array}; none: a folder is an error.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: another kind of file, one that is cut off or otherwise not readable as what its name says, pickled
        objects in it, no tensor in it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}: no such file or folder")
    if path.is_dir():
        if read_folder is None:
            raise ValueError(f"weights at {path}: a folder, expected a .npz or .safetensors file")
        arrays = {name: np.asarray(array) for name, array in read_folder(path).items()}
    elif path.suffix == ".npz":
        arrays = _read_npz(path)
    elif path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
    elif path.suffix in (".pth", ".pt"):
        arrays = read_torch(path)
    elif path.suffix in (".h5", ".hdf5", ".keras"):
        arrays = read_keras(path)
    else:
        raise ValueError(
            f"weights at {path}: expected .npz, .safetensors, .pth, .h5, .keras or an Orbax folder, got {path.suffix or 'none'!r}"
        )
    if not arrays:
        raise ValueError(f"weights at {path}: there is no tensor in it")
    return arrays


def imagenet(name: str, data_dir: str | Path) -> Arrays:
    """The ImageNet weights of a published network, by the names they were published under.

    Raises:
      FileNotFoundError: they were not downloaded.
      ValueError: none are known for this network, or they can't be fetched or read.
    """
    if name not in PUBLISHED:
        raise ValueError(
            f"model.weights = 'imagenet', but none are known for {name!r}; there are {', '.join(PUBLISHED)}"
        )
    if PUBLISHED[name].keras:
        return applications(PUBLISHED[name].keras)
    folder = Path(data_dir).expanduser() / "raw" / name
    path = next(iter(sorted(folder.glob(PUBLISHED[name].files))), None)
    if path is None:
        raise FileNotFoundError(
            f"no ImageNet weights of {name} in {folder}: python -m experiments.download --data-dir {data_dir} {name}"
        )
    return load_weights(path)


def load_factory(name: str) -> Callable[..., Any]:
    """The user's own function "package.module:function", imported as Python would from the current directory.

    Raises:
      ValueError: the name has not that form, there is no such module, or it has no such function (those it has are
        printed). What the module itself raises on import is not caught.
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ValueError(f'factory {name!r}: expected "package.module:function"')
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is missing inside the user's module is the user's to see, with its traceback.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"factory {name!r}: no module {error.name!r} in {os.getcwd()} or among the installed packages"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = "is not a function" if hasattr(module, function_name) else "is not in the module"
        raise ValueError(f"factory {name!r}: {function_name!r} {what}; callable there: {', '.join(there) or 'nothing'}")
    return function


def make_network(
    name: str, num_classes: int, example: jax.Array | jax.ShapeDtypeStruct, *, layers: Sequence[str] = ()
) -> Network:
    """The network of the user's own function "package.module:function".

    It is called as function(num_classes), or function(num_classes, rngs=…) where it takes rngs: then it makes an nnx
    module, anew for each initialisation.

    Raises:
      ValueError: as `load_factory` and `as_network`.
    """
    function = load_factory(name)
    # An nnx class has a metaclass, whose signature says nothing.
    called: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    if "rngs" in inspect.signature(called).parameters:
        return from_nnx(lambda rngs: function(num_classes, rngs=rngs), example, layers=layers)
    return as_network(function(num_classes), example, layers=layers)


def as_network(made: Any, example: jax.Array | jax.ShapeDtypeStruct, *, layers: Sequence[str] = ()) -> Network:
    """What a factory made, as a Network.

    Args:
      made: a Network, a linen module, an nnx module (whose weights are then those of every initialisation), or
        (init, apply, layers): init(key, x) -> {"params": …} and apply(variables, x).
        An `apply` that is a linen module's own is known as such: features and modes are then as from the module.
      example: a batch of inputs, as the network takes them, or its shape and dtype.
      layers: path prefixes of the parameters, in order; none: as given or, for linen, as called.

    Raises:
      ValueError: anything else, layers for a Network that has its own, and all that `from_linen` and `from_functions`
        refuse.
    """
    if isinstance(made, Network):
        if layers and tuple(layers) != made.layers:
            raise ValueError(
                f"model.layers = {', '.join(layers)}, but the factory's Network has its own: {', '.join(made.layers)}; "
                "leave model.layers empty"
            )
        return made
    if isinstance(made, nn.Module):
        return from_linen(made, example, layers=layers)
    if isinstance(made, nnx.Module):
        return from_nnx(lambda rngs: made, example, layers=layers)
    if isinstance(made, tuple) and len(made) == 3 and callable(made[0]) and callable(made[1]):
        init, apply, names = made[0], made[1], tuple(layers) or tuple(made[2])
        module = getattr(apply, "__self__", None)
        if not isinstance(module, nn.Module) or apply.__name__ != "apply":
            return from_functions(init, apply, names)
        network = from_linen(module, example, layers=names)
        # An `init` of the user's own may read trained weights, say.
        return network if getattr(init, "__self__", None) == module else network._replace(init=init)
    raise ValueError(
        f"the factory returned {type(made).__name__}, expected a Network, a flax.linen or flax.nnx Module, or a tuple "
        "(init, apply, layers)"
    )


def _read_npz(path: Path) -> Arrays:
    try:
        # Opened here: np.load leaves a broken file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array, not named ones")
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"weights at {path}: not readable as .npz, or cut off ({error})") from error
    if raw := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"weights at {path}: {', '.join(raw)} in it is not an array")
    return arrays


def _read_safetensors(path: Path) -> Arrays:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"weights at {path}: not readable as .safetensors, or cut off ({error})") from error
