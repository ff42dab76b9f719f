"""How a linen module is initialised, applied with each layer in its own mode, and looked into."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.errors import InvalidRngError as NeedsKey
from jax import Array
from jax.typing import ArrayLike

from mmd_jax.models.leaves import layer_of, named_leaves
from mmd_jax.types import Variables

# What modules call their mode, as an argument or as a field, and its value in training.
MODES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


def init(module: nn.Module, key: Array, x: ArrayLike) -> Variables:
    """The module's variables, initialised in evaluation mode."""
    with nn.intercept_methods(_set_modes({}, ())):
        return module.init(key, x)


def apply(
    module: nn.Module,
    variables: Variables,
    x: Array,
    owners: Mapping[str, Collection[str]],
    train: Collection[str],
    key: Array | None,
) -> tuple[Array, dict[str, Any]]:
    """(output, every collection but "params" after the pass); a submodule trains where an owner is in `train`.

    Args:
      owners: {path of a submodule: its layers}, of `ownership`. A path that is not there has its parent's owners, so
        {"": ["layer"]} makes one layer of the whole module.

    Raises:
      NeedsKey: a submodule in training mode draws random numbers, and there is no key.
    """
    state = {collection: tree for collection, tree in variables.items() if collection != "params"}
    with nn.intercept_methods(_set_modes(owners, train)):
        # A single key serves whatever names the module gives its streams.
        rngs = None if key is None else {"params": key}
        y, after = module.apply(variables, x, rngs=rngs, mutable=list(state) if train else [])
    return y, {**state, **after}


def outputs(module: nn.Module, variables: Variables, x: Array, layers: Sequence[str]) -> dict[str, Array]:
    """{layer: its last output} for layers that give one array; the last layer's is the module's own output."""

    def wanted(submodule: nn.Module, method: str) -> bool:
        return method != "setup" and "/".join(submodule.path) in layers

    with nn.intercept_methods(_set_modes({}, ())):
        y, captured = module.apply(variables, x, capture_intermediates=wanted, mutable=["intermediates"])
    found: dict[str, Any] = {layers[-1]: y}
    for layer in layers[:-1]:
        tree: Any = captured.get("intermediates", {})
        for part in layer.split("/"):
            tree = tree.get(part, {}) if isinstance(tree, Mapping) else {}
        calls = [value for value in tree.values() if isinstance(value, tuple)] if isinstance(tree, Mapping) else []
        if calls and isinstance(calls[-1][-1], jax.Array):
            found[layer] = calls[-1][-1]
    return {layer: found[layer] for layer in layers if layer in found}


def trace(module: nn.Module, example: ArrayLike | jax.ShapeDtypeStruct) -> tuple[Variables, tuple[str, ...]]:
    """(the shapes of the variables, the path of each call of a submodule, in order)."""
    called: list[str] = []

    def record(next_function, args, kwargs, context):
        if context.method_name != "setup" and context.module.path:
            called.append("/".join(context.module.path))
        return next_function(*args, **kwargs)

    def traced(key, x):
        with nn.intercept_methods(record):
            return init(module, key, x)

    return jax.eval_shape(traced, jax.random.key(0), example), tuple(called)


def outermost(variables: Variables, called: Sequence[str]) -> tuple[str, ...]:
    """The layers of a module that was given without their names, in order.

    These are the outermost submodules that own variables; where one alone owns everything, those inside it. Variables
    that no submodule owns (a class token, say) come first, each on its own.
    """
    paths = [path.partition("/")[2] for path in named_leaves(variables)]

    def owned(name: str) -> bool:
        return any(layer_of(path, (name,)) for path in paths)

    called = tuple(dict.fromkeys(called))
    names = [name for name in called if "/" not in name and owned(name)]
    while len(names) == 1:
        inside = [name for name in called if name.rpartition("/")[0] == names[0] and owned(name)]
        if not inside:
            break
        names = inside
    return (*sorted({path for path in paths if not layer_of(path, names)}), *names)


def ownership(called: Sequence[str], layers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{path of a submodule: the layers whose mode it shares}, given the order of the calls.

    What lies in a layer is that layer's; what holds layers has all of them. What is neither (a Dropout between layers)
    belongs to the layers that read it: those called next after it, or the last layer where none is.
    """
    owners: dict[str, tuple[str, ...]] = {"": tuple(layers)}
    waiting: list[str] = []
    for path in called:
        if layer := layer_of(path, layers):
            owners[path] = (layer,)
            for loose in waiting:
                owners[loose] = tuple(dict.fromkeys((*owners.get(loose, ()), layer)))
            waiting = []
        elif held := tuple(layer for layer in layers if layer.startswith(f"{path}/")):
            owners[path] = held
        else:
            waiting.append(path)
    return {**dict.fromkeys(waiting, (layers[-1],)), **owners}


def stochastic(
    module: nn.Module,
    example: ArrayLike | jax.ShapeDtypeStruct,
    variables: Variables,
    owners: Mapping[str, Collection[str]],
) -> frozenset[str]:
    """The layers that cannot run in training mode without a key.

    Raises:
      ValueError: the module draws random numbers in evaluation mode too.
    """

    def needs_key(train: Collection[str]) -> bool:
        try:
            jax.eval_shape(lambda variables, x: apply(module, variables, x, owners, train, None), variables, example)
        except NeedsKey:
            return True
        return False

    if needs_key(()):
        raise ValueError(
            f"{type(module).__name__} draws random numbers in evaluation mode too; a network is measured and used as one "
            f"fixed function: draw only where an argument or a field says training ({', '.join(MODES)})"
        )
    if not needs_key(owners[""]):
        return frozenset()
    return frozenset(layer for layer in owners[""] if needs_key((layer,)))


def _set_modes(owners: Mapping[str, Collection[str]], train: Collection[str]):
    """An interceptor that sets every argument and field that means "training or not" by the layers it belongs to."""

    def training(path: tuple[str, ...]) -> bool:
        for length in range(len(path), -1, -1):
            if (name := "/".join(path[:length])) in owners:
                return any(layer in train for layer in owners[name])
        return False

    def intercept(next_function, args, kwargs, context):
        module = context.module
        if context.method_name == "setup":
            return next_function(*args, **kwargs)
        mode = training(module.path)
        # BatchNorm and Dropout take their mode as a field or as an argument, and refuse both at once.
        fields = {name for name in MODES if name in module.__dataclass_fields__ and getattr(module, name) is not None}
        signature = inspect.signature(context.orig_method)
        # Partial: the mode may be a required argument that nobody gave.
        bound = signature.bind_partial(*args, **kwargs)
        for name in MODES.keys() & signature.parameters.keys() - fields:
            bound.arguments[name] = MODES[name] is mode
        for name in fields & bound.arguments.keys():
            del bound.arguments[name]
        before = {name: getattr(module, name) for name in fields}
        for name in fields:
            # A module is frozen, but this instance lives for this pass only.
            object.__setattr__(module, name, MODES[name] is mode)
        try:
            return next_function(*bound.args, **bound.kwargs)
        finally:
            for name, value in before.items():
                object.__setattr__(module, name, value)

    return intercept
