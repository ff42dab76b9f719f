"""Which layer owns a leaf: a layer's name is the "/"-joined path prefix of its leaves in every collection.

    variables = {"params": {"encoder": {"block_1": {"kernel": …}}}}     path  params/encoder/block_1/kernel
                                                                        layer        encoder/block_1

Only whole components count: "conv1" owns "params/conv1/kernel" and not "params/conv10/kernel".
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mmd_jax.types import Variables


def named_leaves(variables: Variables) -> dict[str, Any]:
    """Every leaf by its path, collection first, in the tree's order.

    >>> list(named_leaves({"params": {"fc": {"kernel": 1.0, "bias": 0.0}}}))
    ['params/fc/bias', 'params/fc/kernel']
    """
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}


def layer_of(path: str, layers: Iterable[str]) -> str | None:
    """The layer that owns a leaf: the first whose components its path starts with; None where none does.

    Args:
      path: "/"-joined, inside its collection: "conv1/kernel".
      layers: names.

    >>> layer_of("conv10/kernel", ("conv1", "conv10"))
    'conv10'
    """
    return next((layer for layer in layers if path == layer or path.startswith(layer + "/")), None)


def take(variables: Variables, layers: Iterable[str]) -> dict[str, Any]:
    """{path: leaf} of the named layers alone, in every collection.

    >>> take({"params": {"a": {"w": 1.0}, "b": {"w": 2.0}}}, ["b"])
    {'params/b/w': 2.0}
    """
    wanted = _known(variables, layers)
    return {path: leaf for path, leaf in named_leaves(variables).items() if layer_of(_inside(path), wanted)}


def replace(variables: Variables, other: Variables, layers: Iterable[str]) -> Variables:
    """`variables` with the leaves of the named layers, in every collection, taken from `other`.

    Raises:
      ValueError: a name owns no leaf, `other` lacks a leaf, or two shapes differ (both are named).

    >>> replace({"params": {"a": {"w": 1.0}, "b": {"w": 2.0}}}, {"params": {"b": {"w": 5.0}}}, ["b"])
    {'params': {'a': {'w': 1.0}, 'b': {'w': 5.0}}}
    """
    wanted = _known(variables, layers)
    given = named_leaves(other)

    def pick(path: Any, leaf: Any) -> Any:
        name = path_name(path)
        if not layer_of(_inside(name), wanted):
            return leaf
        if name not in given:
            raise ValueError(f"{name} is missing from the variables to copy from; they have {', '.join(given)}")
        if jnp.shape(given[name]) != jnp.shape(leaf):
            raise ValueError(
                f"{name} has shape {jnp.shape(leaf)} here and {jnp.shape(given[name])} in the variables to copy from: "
                "leave its layer out of `layers`, or build both networks alike"
            )
        return given[name]

    return jax.tree_util.tree_map_with_path(pick, variables)


def check_cover(variables: Variables, layers: Sequence[str]) -> None:
    """Raises ValueError unless every name owns a leaf and every leaf has exactly one owner."""
    paths = list(named_leaves(variables))
    _known(variables, layers)
    for path in paths:
        owners = [layer for layer in layers if layer_of(_inside(path), (layer,))]
        if not owners:
            raise ValueError(
                f"the leaf {path} belongs to none of the layers {', '.join(layers)}: add a layer that is a prefix of "
                f"its path, such as {path.split('/')[1]!r}"
            )
        if len(owners) > 1:
            raise ValueError(
                f"the leaf {path} belongs to more than one layer: {', '.join(owners)}: no layer's name may be a prefix "
                "of another's, nor be given twice"
            )


def in_their_dtype(variables: Variables, x: ArrayLike) -> Array:
    """Floating-point inputs cast to the dtype of the parameters, which is that of the computation; others as they are.

    >>> in_their_dtype({"params": {"w": jnp.ones(2, jnp.bfloat16)}}, jnp.ones(3)).dtype
    dtype(bfloat16)
    """
    x = jnp.asarray(x)
    kinds = {jnp.result_type(leaf) for leaf in jax.tree.leaves(variables["params"])}
    floating = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    if len(floating) == 1 and jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(floating[0])
    return x


def path_name(path: Sequence[Any]) -> str:
    """A key path of jax.tree_util as "/"-joined components: dict keys, attribute names and indices."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _inside(path: str) -> str:
    return path.partition("/")[2]


def _known(variables: Variables, layers: Iterable[str]) -> tuple[str, ...]:
    layers = tuple(layers)
    paths = [_inside(path) for path in named_leaves(variables)]
    for layer in layers:
        if not any(layer_of(path, (layer,)) for path in paths):
            there = dict.fromkeys(path.rpartition("/")[0] or path for path in paths)
            raise ValueError(f"no leaf's path starts with the layer name {layer!r}; there are {', '.join(there)}")
    return layers
