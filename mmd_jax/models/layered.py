"""What a model is here: layers with names, in order, that can be applied from one to another."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mmd_jax.models import linen
from mmd_jax.models.leaves import in_their_dtype, layer_of
from mmd_jax.types import Tree, Variables


class Network(NamedTuple):
    """An ordered stack of named layers, as pure functions.

    A layer's name is also the "/"-joined path prefix of its leaves in every collection of the variables ("params",
    "batch_stats", …): that is all that freezing, copying and hashing need to know of a network (`layer_of`).

    Built by `from_layers` (anything can be sliced), or, where all that is known is how to initialise and apply the
    whole, by `whole.from_linen` or `whole.from_functions`.

    Attributes:
      layers: the names, in the order of computation; the last is the classifier's output layer.
      init: (key, x) -> variables. x is a batch of inputs [batch, ...], as `apply` takes it; only its shape and dtype
        matter.
      apply: (variables, x, *, start=0, stop=None, train=(), key=None) -> (y, state). Runs layers[start:stop] on x, the
        input of layer `start`; floating-point inputs are cast to the dtype of the parameters. `train` names the layers in
        training mode (batch statistics, dropout); all others run in evaluation mode, and their state does not change.
        `state` holds every collection but "params", whole, as it is after the pass (an empty dict if there are none):
        {**variables, **state} are the next variables. `key` is consumed, and needed only where `train` names a
        stochastic layer.
      features: (variables, x) -> {layer: its output, [batch, ...]}, in evaluation mode, in the order of `layers` (a
        dict that comes out of `jax.jit` is sorted by name: iterate over `layers`). A network given as a whole may lack
        some layers here; the last is always there.
      num_base: how many leading layers form the (convolutional) base, 0 … L − 1; the others are the classifier.
      whole: why `start` and `stop` are not supported, in one sentence; empty where they are.
      stochastic: the layers that draw random numbers in training mode.
    """

    layers: tuple[str, ...]
    init: Callable[[Array, Array], Variables]
    apply: Callable[..., tuple[Array, Variables]]
    features: Callable[[Variables, Array], dict[str, Array]]
    num_base: int
    whole: str = ""
    stochastic: frozenset[str] = frozenset()


class Layer(NamedTuple):
    """One layer without state, as pure functions on its own parameters.

    Attributes:
      init: (key, x) -> its parameters, a pytree; only the shape and the dtype of x [1, ...] matter.
      apply: (its parameters, x [batch, ...]) -> y [batch, ...].
    """

    init: Callable[[Array, Array], Tree]
    apply: Callable[[Tree, Array], Array]


def from_layers(
    layers: Sequence[tuple[str, Layer | nn.Module]],
    *,
    num_base: int | None = None,
    stochastic: Collection[str] = (),
) -> Network:
    """A network that can be entered and left between any two layers.

    Args:
      layers: (name, layer) in the order of computation. A layer is a `Layer` or a linen module that takes one array;
        its BatchNorm and Dropout follow the network's `train`, whatever its own arguments (`linen.apply`).
      num_base: layers of the base, 0 … L − 1; none: all but the last.
      stochastic: the names of linen layers with dropout; these alone get a key.

    Raises:
      ValueError: no layer, a name given twice or a prefix of another, num_base outside 0 … L − 1, an unknown stochastic name.

    >>> dense = Layer(lambda key, x: {"w": jax.random.normal(key, (x.shape[1], 2))}, lambda p, x: x @ p["w"])
    >>> network = from_layers([("one", dense), ("two", dense)])
    >>> variables = network.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'one': {'w': (3, 2)}, 'two': {'w': (2, 2)}}}
    >>> network.apply(variables, jnp.ones((5, 2)), start=1)[0].shape
    (5, 2)
    """
    names = tuple(name for name, _ in layers)
    check_names(names)
    stochastic = frozenset(stochastic)
    check_known("stochastic", stochastic, names)
    inits, applies = zip(*[_init_and_apply(name, layer, name in stochastic) for name, layer in layers])

    def init(key: Array, x: ArrayLike) -> Variables:
        variables: dict[str, dict[str, Any]] = {"params": {}}
        x = jnp.zeros((1, *jnp.shape(x)[1:]), jnp.result_type(x))
        for i, name in enumerate(names):
            own = inits[i](jax.random.fold_in(key, i), x)
            if not jax.tree.leaves(own):
                raise ValueError(
                    f"layer {name!r} has no parameters, so it can't be frozen or trained: join it to another"
                )
            for collection, tree in own.items():
                _put(variables.setdefault(collection, {}), name, tree)
            out = jax.eval_shape(lambda own, x, i=i: applies[i](own, x, False, None)[0], own, x)
            x = jnp.zeros(out.shape, out.dtype)
        return variables

    def run(variables: Variables, x: Array, start: int, stop: int, train: Collection[str], key: Array | None):
        state = {collection: tree for collection, tree in variables.items() if collection != "params"}
        outputs = {}
        for i, name in enumerate(names[start:stop], start):
            own = {collection: _get(tree, name) for collection, tree in variables.items() if _has(tree, name)}
            own.setdefault("params", {})
            own_key = jax.random.fold_in(key, i) if name in train and name in stochastic and key is not None else None
            x, after = applies[i](own, x, name in train, own_key)
            for collection, tree in after.items():
                state[collection] = _set(state[collection], name, tree)
            outputs[name] = x
        return x, state, outputs

    def apply(variables, x, *, start=0, stop=None, train=(), key=None):
        train = check_train(train, names, stochastic, key)
        start, stop = check_slice(start, stop, names)
        y, state, _ = run(variables, in_their_dtype(variables, x), start, stop, train, key)
        return y, state

    def features(variables, x):
        return run(variables, in_their_dtype(variables, x), 0, len(names), (), None)[2]

    return Network(names, init, apply, features, check_base(num_base, names), "", stochastic)


def preprocessed(network: Network, function: Callable[[Array], Array]) -> Network:
    """The network on raw inputs: `function` is applied first, wherever the pass begins at the first layer.

    >>> scale = Layer(lambda key, x: {"w": jnp.full((), 2.0)}, lambda params, x: x * params["w"])
    >>> network = preprocessed(from_layers([("scale", scale)]), lambda x: x / 255)
    >>> network.apply({"params": {"scale": {"w": 2.0}}}, jnp.array([51.0]))[0]
    Array([0.4], dtype=float32)
    """

    def apply(variables, x, *, start=0, stop=None, train=(), key=None):
        x = function(jnp.asarray(x)) if start == 0 else x
        return network.apply(variables, x, start=start, stop=stop, train=train, key=key)

    return network._replace(
        init=lambda key, x: network.init(key, function(jnp.asarray(x))),
        apply=apply,
        features=lambda variables, x: network.features(variables, function(jnp.asarray(x))),
    )


def _init_and_apply(name: str, layer: Layer | nn.Module, stochastic: bool):
    """(key, x) -> own variables; (own variables, x, train, key) -> (y, own state)."""
    if isinstance(layer, nn.Module):

        def apply(own, x, train, key):
            try:
                return linen.apply(layer, own, x, {"": (name,)}, (name,) if train else (), key)
            except linen.NeedsKey as error:
                if not train:
                    raise ValueError(
                        f"layer {name!r} draws random numbers in evaluation mode too; a network is measured and used as "
                        "one fixed function: draw only in training mode"
                    ) from error
                raise ValueError(f"layer {name!r} draws random numbers: name it in `stochastic`") from error

        return lambda key, x: linen.init(layer, key, x), apply
    init, pure = layer
    return lambda key, x: {"params": init(key, x)}, lambda own, x, train, key: (pure(own["params"], x), {})


def _get(tree: Any, name: str) -> Any:
    for part in name.split("/"):
        tree = tree[part]
    return tree


def _has(tree: Any, name: str) -> bool:
    for part in name.split("/"):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split("/")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _set(tree: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    head, _, rest = name.partition("/")
    return {**tree, head: _set(tree[head], rest, value) if rest else value}


def check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("a network needs at least one layer")
    for i, name in enumerate(names):
        for other in names[:i]:
            if layer_of(name, (other,)) or layer_of(other, (name,)):
                raise ValueError(f"layers {name!r} and {other!r} own the same leaves: one is a prefix of the other")


def check_known(what: str, given: Collection[str], names: Sequence[str]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"{what} names {unknown[0]!r}, which is not a layer; the layers are {', '.join(names)}")


def check_train(
    train: Collection[str], names: Sequence[str], stochastic: Collection[str], key: Array | None
) -> frozenset[str]:
    if isinstance(train, str):
        raise ValueError(f"train is a collection of layer names, got the string {train!r}")
    check_known("train", train, names)
    random = [name for name in names if name in train and name in stochastic]
    if random and key is None:
        raise ValueError(f"layer {random[0]!r} draws random numbers in training mode: give apply a key")
    return frozenset(train)


def check_slice(start: int, stop: int | None, names: Sequence[str]) -> tuple[int, int]:
    end = len(names) if stop is None else stop
    if not 0 <= start <= end <= len(names):
        raise ValueError(f"start={start}, stop={stop}: expected 0 <= start <= stop <= {len(names)}, the layers' number")
    return start, end


def check_base(num_base: int | None, names: Sequence[str]) -> int:
    if num_base is None:
        return len(names) - 1
    if not 0 <= num_base < len(names):
        raise ValueError(
            f"num_base={num_base}: expected 0 … {len(names) - 1}; the last of the {len(names)} layers is the classifier's "
            "output, which is new for every target"
        )
    return num_base
