"""Networks of which only `init` and `apply` are known: layers by name, but no way to enter between them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import Array
from jax.typing import ArrayLike

from mmd_jax.models import linen
from mmd_jax.models.layered import Network, check_base, check_known, check_names, check_slice, check_train
from mmd_jax.models.leaves import check_cover, in_their_dtype, layer_of, named_leaves, replace
from mmd_jax.types import Variables

WHOLE = "it was given only as init and apply: there is no way to enter between layers"


def from_functions(
    init: Callable[[Array, Array], Variables],
    apply: Callable[[Variables, Array], Array],
    layers: Sequence[str],
    *,
    features: Callable[[Variables, Array], Mapping[str, Array]] | None = None,
    num_base: int | None = None,
) -> Network:
    """A network of which only two pure functions are known; it runs as a whole.

    Args:
      init: (key, x) -> {"params": any pytree, other collections: …}.
      apply: (variables, x) -> y. It has no training mode.
      layers: path prefixes of the parameters, in the order of computation ("0" is the first item of a list).
      features: (variables, x) -> {layer: its output}; none: only the network's output, under the last layer's name.
      num_base: layers of the base, 0 … L − 1; none: all but the last.

    Raises:
      ValueError: as `from_layers`; and from the network's `init`, where a name owns no leaf or a leaf has no owner.

    >>> network = from_functions(lambda key, x: {"params": [jax.numpy.ones((3, 2)), jax.numpy.ones((2, 1))]},
    ...     lambda v, x: x @ v["params"][0] @ v["params"][1], ["0", "1"])
    >>> network.whole
    'it was given only as init and apply: there is no way to enter between layers'
    """
    names = tuple(layers)
    check_names(names)

    def checked_init(key, x):
        variables = init(key, x)
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise ValueError(
                'init must give {"params": tree, …}; wrap yours: '
                'init = lambda key, x: {"params": own_init(key, x)}, apply = lambda v, x: own_apply(v["params"], x)'
            )
        check_cover(variables, names)
        return variables

    def whole_apply(variables, x, *, start=0, stop=None, train=(), key=None):
        check_train(train, names, frozenset(), key)
        check_whole(start, stop, names)
        return apply(variables, in_their_dtype(variables, x)), _state(variables)

    def ordered_features(variables, x):
        if features is None:
            return {names[-1]: apply(variables, in_their_dtype(variables, x))}
        found = features(variables, in_their_dtype(variables, x))
        check_known("features", found, names)
        return {name: found[name] for name in names if name in found}

    return Network(names, checked_init, whole_apply, ordered_features, check_base(num_base, names), WHOLE)


def from_linen(
    module: nn.Module,
    example: ArrayLike | jax.ShapeDtypeStruct,
    *,
    layers: Sequence[str] = (),
    num_base: int | None = None,
) -> Network:
    """A network that is any linen module that takes one batch; it runs as a whole.

    Its `__call__` may take `train`, `training`, `deterministic` or `use_running_average`, or none of them. Whatever it
    passes on, BatchNorm and Dropout inside a layer follow the network's `train`, layer by layer; a Dropout between two
    layers goes with the one that reads it.

    Args:
      module: unbound; variables are as its own `init` makes them. Modules under `nn.jit` are not supported: their
        trace is cached without regard to `train`.
      example: a batch of inputs, or its shape and dtype; nothing is computed on it.
      layers: path prefixes of the parameters, in order ("Dense_0", "encoder/block_1"); none: the outermost submodules
        that own variables, as they are first called, after variables that the module itself owns.
      num_base: layers of the base, 0 … L − 1; none: all but the last.

    Returns:
      a Network whose features are the layers' outputs where these are one array, the last output of a layer that is
      called more than once; the output layer's are the network's own output.

    Raises:
      ValueError: a name owns no leaf (the names there are are printed), a leaf has no owner or two, num_base, the
        module draws random numbers in evaluation mode too.

    >>> module = nn.Sequential([nn.Dense(4), nn.relu, nn.BatchNorm(), nn.Dense(2)])
    >>> from_linen(module, jax.ShapeDtypeStruct((1, 3), "float32")).layers
    ('layers_0', 'layers_2', 'layers_3')
    """
    shapes, called = linen.trace(module, example)
    names = tuple(layers) or linen.outermost(shapes, called)
    check_names(names)
    check_cover(shapes, names)
    owners = linen.ownership(called, names)
    stochastic = linen.stochastic(module, example, shapes, owners)

    def init(key, x):
        return linen.init(module, key, x)

    def apply(variables, x, *, start=0, stop=None, train=(), key=None):
        train = check_train(train, names, stochastic, key)
        check_whole(start, stop, names)
        y, after = linen.apply(
            module, variables, in_their_dtype(variables, x), owners, train, key if train & stochastic else None
        )
        return y, keep_frozen(_state(variables), after, names, train)

    def features(variables, x):
        return linen.outputs(module, variables, in_their_dtype(variables, x), names)

    return Network(names, init, apply, features, check_base(num_base, names), WHOLE, stochastic)


def check_whole(start: int, stop: int | None, names: Sequence[str]) -> None:
    if check_slice(start, stop, names) != (0, len(names)):
        raise ValueError(f"start={start}, stop={stop}: this network runs only as a whole, as {WHOLE}")


def keep_frozen(before: Variables, after: Variables, names: Sequence[str], train: Collection[str]) -> Variables:
    """`after`, with the leaves of the layers that are not in training mode as they were, whatever a module did."""
    stateful = {layer_of(path.partition("/")[2], names) for path in named_leaves(before)}
    trained = [name for name in names if name in train and name in stateful]
    return replace(before, after, trained)


def _state(variables: Variables) -> dict[str, Any]:
    return {collection: tree for collection, tree in variables.items() if collection != "params"}
