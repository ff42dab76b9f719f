"""Tensors under foreign names → variables, with what matched, what was missing and what was left over."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mmd_jax.models.leaves import layer_of, named_leaves, path_name
from mmd_jax.types import Variables


class Loaded(NamedTuple):
    """Variables with foreign tensors in them, and an account of every name.

    Attributes:
      variables: as they were, with every matched leaf's value replaced; its dtype is kept.
      matched: (leaf's path, foreign name), in the tree's order.
      missing: paths of leaves that kept their own value; all lie in the layers that were named `fresh`.
      left_over: foreign names that no leaf took.
    """

    variables: Variables
    matched: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]


# Of another implementation's tensors: {foreign name: (path of the leaf that it is for, tensor in the leaf's layout)}, for
# those that it knows.
Translate = Callable[[Mapping[str, np.ndarray]], Mapping[str, tuple[str, np.ndarray]]]


def from_arrays(
    arrays: Mapping[str, ArrayLike],
    variables: Variables,
    *,
    fresh: Collection[str] = (),
    translate: Translate | None = None,
) -> Loaded:
    """Puts foreign tensors into a network's variables, by name.

    A leaf's path is "params/conv1/kernel"; the foreign name may part its components with "/" or ".", and leave out the
    collection where no two collections have such a path: "conv1/kernel", "conv1.kernel", "params.conv1.kernel".

    Args:
      arrays: {foreign name: array}.
      variables: of the network, as its `init` makes them; or only their shapes and dtypes, where nothing is fresh.
      fresh: layers (path prefixes) that keep their own values, such as a classifier for other classes. Tensors of
        theirs are left over.
      translate: from another implementation's names and layouts; a tensor that it does not know goes by its own name.

    Returns:
      the variables and the report.

    Raises:
      ValueError: leaves outside `fresh` without a tensor (they are listed), a shape that differs (both are named), two
        tensors for one leaf, a tensor that is not of real numbers or not finite, a fresh layer that owns no leaf.

    >>> variables = {"params": {"fc": {"kernel": jnp.zeros((2, 1))}}}
    >>> loaded = from_arrays({"fc.kernel": np.ones((2, 1)), "step": 7}, variables)
    >>> loaded.matched, loaded.left_over
    ((('params/fc/kernel', 'fc.kernel'),), ('step',))
    """
    leaves = named_leaves(variables)
    own = {path for path in leaves if layer_of(path.partition("/")[2], fresh)}
    for layer in fresh:
        if not any(layer_of(path.partition("/")[2], (layer,)) for path in own):
            raise ValueError(f"fresh names {layer!r}, which owns no leaf; the leaves are {', '.join(leaves)}")
    known = translate({name: np.asarray(tensor) for name, tensor in arrays.items()}) if translate else {}
    paths = {name: known[name][0] if name in known else name for name in arrays}
    laid_out = {name: known[name][1] if name in known else tensor for name, tensor in arrays.items()}
    names = _foreign_names(leaves, paths)
    if missing := [path for path in leaves if path not in names and path not in own]:
        raise ValueError(
            f"no tensor for {_listed(missing)}; the tensors are {_listed(list(arrays)) or 'none'}. "
            "A layer that shall keep its own values must be named in `fresh`"
        )
    values = {
        path: _fitted(path, leaves[path], name, laid_out[name]) for path, name in names.items() if path not in own
    }
    used = {names[path] for path in values}
    return Loaded(
        jax.tree_util.tree_map_with_path(lambda path, leaf: values.get(path_name(path), leaf), variables),
        tuple((path, names[path]) for path in values),
        tuple(path for path in leaves if path in own),
        tuple(name for name in arrays if name not in used),
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _foreign_names(leaves: Collection[str], translated: Mapping[str, str]) -> dict[str, str]:
    """{leaf's path: foreign name}, in the order of the leaves."""
    by_bare: dict[str, list[str]] = {}
    for path in leaves:
        by_bare.setdefault(path.partition("/")[2], []).append(path)
    found: dict[str, str] = {}
    for foreign, name in translated.items():
        slashed = name if name in leaves else name.replace(".", "/")
        candidates = [slashed] if slashed in leaves else by_bare.get(slashed, [])
        if len(candidates) > 1:
            raise ValueError(f"the tensor {name!r} could be {' or '.join(candidates)}: put the collection in its name")
        for path in candidates:
            if path in found:
                raise ValueError(f"two tensors for {path}: {found[path]!r} and {foreign!r}")
            found[path] = foreign
    return {path: found[path] for path in leaves if path in found}


def _fitted(path: str, leaf: Any, name: str, tensor: ArrayLike) -> jax.Array:
    array = np.asarray(tensor)
    if array.shape != jnp.shape(leaf):
        raise ValueError(
            f"the tensor {name!r} has shape {array.shape}, the network's {path} has shape {jnp.shape(leaf)}: build the "
            "network as it was when the weights were saved, or name its layer in `fresh`"
        )
    # issubdtype of jax.numpy knows bfloat16, numpy's does not.
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise ValueError(f"the tensor {name!r} for {path} is of {array.dtype}, expected real numbers")
    if not np.isfinite(array.astype(np.float64)).all():
        raise ValueError(f"the tensor {name!r} for {path} has values that are NaN or infinite")
    return jnp.asarray(array, leaf.dtype)
