"""The state of a run and the finished network, in and out of Orbax folders that are checked byte by byte.

Orbax notices a truncated file, but loads wrong values without a word when a byte of an array file flips. So each
folder carries a sealed JSON file with the sha256 of every leaf and of every file: the files' hashes are compared before
Orbax parses anything, the leaves' after it. A folder gets its name only when it is complete.

    checkpoints/00000120/checkpoint.json, arrays/        model/description.json, variables/
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from experiments.workdir import plain, read_json, sync_folder, write_json
from mmd_jax.transfer.freezing import leaf_hash

Tree = Any
_UNFINISHED, _DISCARDED = ".unfinished-", ".discarded-"


class Restored(NamedTuple):
    """What `restore` found.

    Attributes:
      step: the step of the checkpoint; None where there is no valid one.
      tree: the state, in the structure of the template; None where there is none.
      about: what was saved with it; empty where there is none.
      skipped: one sentence for each newer checkpoint that is damaged, newest first.
    """

    step: int | None
    tree: Tree
    about: dict[str, Any]
    skipped: tuple[str, ...]


def save(directory: str | os.PathLike[str], step: int, tree: Tree, about: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Saves the state of a run after a step. A kill at any moment leaves either the new checkpoint or the ones before.

    Steps grow during a run: a checkpoint of this step is replaced, those of later steps (which were damaged, or
    `restore` would have returned them) are removed, and of the others the newest `keep` stay.

    Args:
      directory: where the checkpoints lie; made if need be.
      step: a count that grows during the run, >= 0.
      tree: a pytree of arrays, typed keys and numbers; empty nodes and None stay as the template has them.
      about: what JSON can hold (plan, position, hashes of frozen leaves); NaN becomes null.
      keep: how many checkpoints stay.

    Returns:
      The folder of the checkpoint.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = flatten(tree)
    if not arrays:
        raise ValueError("there is nothing to save: the tree has no arrays")
    temporary, final = directory / f"{_UNFINISHED}{step:08d}", directory / f"{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _write_orbax(temporary / "arrays", {name: array for name, array in arrays.items() if array.size})
    _seal(temporary, "checkpoint.json", {"step": step, "about": about}, arrays)
    _publish(temporary, final)

    steps = _steps(directory)
    for old in [p for s, p in steps if s > step] + [p for s, p in steps if s <= step][keep:]:
        _remove(old)
    for leftover in directory.glob(".*"):
        if leftover.name.startswith((_UNFINISHED, _DISCARDED)):
            shutil.rmtree(leftover, ignore_errors=True)
    return final


def restore(directory: str | os.PathLike[str], like: Tree | Callable[[dict[str, Any]], Tree]) -> Restored:
    """Restores the newest checkpoint whose every byte is as it was saved; damaged ones are skipped and named.

    Args:
      directory: as in `save`; it need not exist.
      like: the template: a pytree with the structure, shapes and dtypes of what was saved (arrays, numbers or
        `jax.ShapeDtypeStruct`), or a function that makes it from `about`. Leaves come back as numpy arrays where the
        template has numpy arrays, as numbers where it has numbers, else as jax arrays.

    Returns:
      A `Restored`; its step is None where there is no valid checkpoint.

    Raises:
      ValueError: a valid checkpoint doesn't fit the template; names each leaf with both shapes.
    """
    skipped: list[str] = []
    for step, path in _steps(Path(directory)):
        try:
            content, arrays = _read_sealed(path, "checkpoint.json", "arrays")
            if content.get("step") != step:
                raise ValueError(f"it was saved as step {content.get('step')}")
        except (ValueError, OSError) as error:
            skipped.append(f"checkpoint {path} is damaged and was skipped: {error}")
            continue
        template = like(content["about"]) if callable(like) else like
        try:
            tree = fill(template, arrays)
        except ValueError as error:
            raise ValueError(f"checkpoint {path} doesn't fit: {error}") from None
        return Restored(step, tree, content["about"], tuple(skipped))
    return Restored(None, None, {}, tuple(skipped))


def save_model(path: str | os.PathLike[str], variables: Tree, description: Mapping[str, Any]) -> None:
    """Writes a network ready for use: its variables as an Orbax folder, and description.json, with the hashes.

    Args:
      path: the folder; one that is there is replaced.
      variables: a pytree of arrays, without optimizer state.
      description: what JSON can hold (network, preprocessing, class names); not "arrays", "files" or "sha256".
    """
    path = Path(path)
    temporary = path.with_name(f"{_UNFINISHED}{path.name}")
    arrays = flatten(variables)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_orbax(temporary / "variables", _nest(variables, arrays))
    _seal(temporary, "description.json", description, arrays)
    _publish(temporary, path)


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a network's arrays by their "/"-joined names: a folder of `save_model`, or any Orbax folder of arrays.

    Returns:
      The arrays, and the description (empty for a foreign folder).

    Raises:
      ValueError: the folder isn't there, isn't an Orbax checkpoint, or a byte differs from what `save_model` wrote.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    if not (path / "description.json").exists():
        return _read_orbax(path, foreign=True), {}
    try:
        content, arrays = _read_sealed(path, "description.json", "variables")
    except (ValueError, OSError) as error:
        raise ValueError(f"the model in {path} is damaged: {error}") from None
    return arrays, content


def tree_hashes(tree: Tree) -> dict[str, str]:
    """The sha256 of each leaf (dtype, shape and bytes), by its "/"-joined path."""
    return {name: leaf_hash(array) for name, array in flatten(tree).items()}


def flatten(tree: Tree) -> dict[str, np.ndarray]:
    """Every leaf as a numpy array, by its "/"-joined path; typed keys as their data.

    Raises:
      TypeError: a leaf is no array of numbers.
      ValueError: two leaves have the same path.
    """
    arrays: dict[str, np.ndarray] = {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    host = jax.device_get([jax.random.key_data(leaf) if _is_key(leaf) else leaf for _, leaf in leaves])
    for (path, _), leaf in zip(leaves, host):
        name = _name(path)
        if name in arrays:
            raise ValueError(f"two leaves of the tree have the same path {name!r}; rename one")
        array = np.asarray(leaf)
        if array.dtype.kind in "OSUMm":
            raise TypeError(f"leaf {name!r} of the tree is a {type(leaf).__name__}, not an array of numbers")
        arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return arrays


def fill(like: Tree, arrays: Mapping[str, np.ndarray]) -> Tree:
    """Puts arrays by name into the structure of a template; the inverse of `flatten`.

    Raises:
      ValueError: a leaf is missing, left over, or has another shape or dtype; names each with both.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    there = {name: _format(a) for name, a in arrays.items()}
    here = {_name(path): _format(_stored(leaf)) for path, leaf in leaves}
    if there != here:
        names = [n for n in [*here, *(n for n in there if n not in here)] if there.get(n) != here.get(n)]
        lines = "\n".join(
            f"  {n}: {there.get(n, 'nothing')} there, {here.get(n, 'nothing')} expected" for n in names[:10]
        )
        raise ValueError(f"{len(names)} leaves differ:\n{lines}" + ("\n  …" if len(names) > 10 else ""))
    return jax.tree_util.tree_unflatten(structure, [_like(leaf, arrays[_name(path)]) for path, leaf in leaves])


def _stored(leaf: Any) -> Any:
    """What has the shape and the dtype that a leaf of the template has in the checkpoint."""
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf)
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _like(leaf: Any, array: np.ndarray) -> Any:
    if isinstance(leaf, bool | int | float):
        return array.item()
    if isinstance(leaf, np.ndarray | np.generic):
        return array
    if getattr(leaf, "weak_type", False) and not array.shape:
        return jnp.asarray(array.item())  # stays weak: it must promote as it did before
    value = jnp.array(array)
    if _is_key(leaf):
        value = jax.random.wrap_key_data(value, impl=_key_impl(leaf))
    sharding = getattr(leaf, "sharding", None)
    return jax.device_put(value, sharding) if sharding is not None and len(sharding.device_set) > 1 else value


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _key_impl(leaf: Any) -> Any:
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)  # abstract keys only tell under tracing
    return found[0]


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _format(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _nest(tree: Tree, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays in nested dicts by path, which is how other tools expect a network's variables."""
    nested: dict[str, Any] = {}
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if (array := arrays[_name(path)]).size:
            *folders, last = [_name((part,)) for part in path]
            inner = nested
            for folder in folders:
                inner = inner.setdefault(folder, {})
            inner[last] = array
    return nested


def _steps(directory: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each complete checkpoint, newest first."""
    if not directory.is_dir():
        return []
    return sorted(((int(p.name), p) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir()), reverse=True)


def _publish(temporary: Path, final: Path) -> None:
    """Gives a complete folder its name; one that has the name already makes room."""
    discarded = _discard(final)
    os.rename(temporary, final)
    sync_folder(final.parent)
    shutil.rmtree(discarded, ignore_errors=True)


def _remove(path: Path) -> None:
    shutil.rmtree(_discard(path), ignore_errors=True)


def _discard(path: Path) -> Path:
    """Takes a folder's name away in one step, so that a half-removed one is never taken for a checkpoint."""
    discarded = path.with_name(f"{_DISCARDED}{path.name}")
    shutil.rmtree(discarded, ignore_errors=True)
    if path.exists():
        os.rename(path, discarded)
    return discarded


def _seal(folder: Path, name: str, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes content, the hashes of all leaves and files, and over all of that a hash of its own."""
    if reserved := {"arrays", "files", "sha256"} & set(content):
        raise ValueError(f"{name} can't hold fields named {', '.join(sorted(reserved))}: these are the hashes")
    sealed = dict(content)
    sealed["arrays"] = {n: {"dtype": str(a.dtype), "shape": a.shape, "sha256": leaf_hash(a)} for n, a in arrays.items()}
    sealed = plain(sealed)
    sealed["files"] = {
        p.relative_to(folder).as_posix(): _hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()
    }
    write_json(folder / name, {**sealed, "sha256": _hash_json(sealed)})


def _read_sealed(folder: Path, name: str, orbax: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    sealed = read_json(folder / name)
    if not isinstance(sealed, dict) or sealed.pop("sha256", None) != _hash_json(sealed):
        raise ValueError(f"{name} is not what was saved")
    for file, expected in sealed.pop("files").items():
        if _hash_file(folder / file) != expected:
            raise ValueError(f"{file} is not what was saved: its sha256 differs")
    saved = sealed.pop("arrays")
    # Orbax can't hold arrays of size zero; their shape says it all.
    arrays = {n: np.zeros(a["shape"], a["dtype"]) for n, a in saved.items() if 0 in a["shape"]}
    if len(arrays) < len(saved):
        arrays |= _read_orbax(folder / orbax, foreign=False)
    if set(arrays) != set(saved):
        raise ValueError(f"{orbax} holds other arrays than were saved: {sorted(set(arrays) ^ set(saved))[:5]}")
    for n, array in arrays.items():
        if leaf_hash(array) != saved[n]["sha256"]:
            raise ValueError(f"array {n} is not what was saved: its sha256 differs")
    return sealed, {n: arrays[n] for n in saved}


def _hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_orbax(path: Path, tree: dict[str, Any]) -> None:
    if not tree:
        return
    context = ocp.Context()
    # Our own hashes check the values, the arrays are on the host, and weights hardly compress: these only cost time.
    context.array.saving.enable_post_merge_validation = False
    context.array.saving.enable_write_sharding_file = False
    context.array.saving.use_compression = False
    with _quiet(), context:
        ocp.save(path.absolute(), tree)


def _read_orbax(path: Path, *, foreign: bool) -> dict[str, np.ndarray]:
    """Every array of an Orbax folder by its "/"-joined path, on the host."""
    path = path.absolute()
    try:
        with _quiet():
            host = None  # ours were saved from the host, and come back there
            if foreign:  # asked for numpy arrays, Orbax needs none of the devices that the arrays were saved from
                shapes = ocp.metadata(path).metadata
                host = jax.tree.map(lambda a: np.empty(a.shape, a.dtype) if hasattr(a, "shape") else a, shapes)
            tree = ocp.load(path, host)
    except ocp.errors.InvalidLayoutError:
        raise ValueError(
            f"{path} is not an Orbax checkpoint; give the folder that holds _CHECKPOINT_METADATA"
        ) from None
    # Damaged and foreign folders raise nearly anything in Orbax and TensorStore.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        raise ValueError(f"Orbax can't read {path}: {reason}") from error
    return flatten(jax.tree.map(lambda leaf: None if isinstance(leaf, str) else leaf, tree))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's log and warnings (about sharding, topology, temporary folders) away from the user."""
    loggers = [logging.getLogger(), logging.getLogger("absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what goes wrong is raised
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
