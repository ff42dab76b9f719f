"""Networks that are flax.nnx modules: taken apart into plain variables, and put together again for each pass."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from mmd_jax.models.layered import Network, check_base, check_names, check_train
from mmd_jax.models.leaves import check_cover, in_their_dtype, layer_of, named_leaves
from mmd_jax.models.linen import MODES, ownership
from mmd_jax.models.whole import WHOLE, check_whole, keep_frozen
from mmd_jax.types import Variables

COLLECTIONS = {"Param": "params", "BatchStat": "batch_stats"}
# A call of a submodule: its path, and what it gave.
Call = tuple[str, Any]


def from_nnx(
    make: Callable[[nnx.Rngs], nnx.Module],
    example: ArrayLike | jax.ShapeDtypeStruct,
    *,
    layers: Sequence[str] = (),
    num_base: int | None = None,
) -> Network:
    """A network that is an nnx module whose `__call__` takes one batch; it runs as a whole.

    Parameters are the collection "params", batch statistics "batch_stats", other variables a collection named after their
    type. BatchNorm and Dropout follow the network's `train`, layer by layer; one between two layers goes with the one that
    reads it. `use_running_average`, `deterministic` and the like must be left to the modules' own fields.

    Args:
      make: rngs -> the module, newly initialised.
      example: a batch of inputs, or its shape and dtype; nothing is computed on it.
      layers: path prefixes of the parameters, in order ("conv", "blocks/0"); none: the outermost called submodules that own
        parameters, in that order; those in a list each alone; those of a list are layers of their own.
      num_base: layers of the base, 0 … L − 1; none: all but the last.

    Returns:
      a Network whose features are the layers' outputs where these are one array; the last layer's are the network's own.

    Raises:
      ValueError: a name owns no leaf, a leaf has no owner or two, num_base, the module draws random numbers in evaluation
        mode too.

    >>> network = from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs)),
    ...     jax.ShapeDtypeStruct((1, 3), "float32"))
    >>> network.layers
    ('layers/0', 'layers/2')
    """
    graph, abstract = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    template = dict(nnx.to_flat_state(abstract))

    def run(
        variables: Variables, x: ArrayLike, train: Collection[str], owners: Mapping[str, Collection[str]], key: Any
    ):
        module = _assembled(graph, template, variables, key)
        _set_modes(module, owners, train)
        calls: list[Call] = []
        y = _recorded(module, calls)(in_their_dtype(variables, x))
        after = dict(nnx.to_flat_state(nnx.state(module)))
        return y, _variables(after), calls, _has_drawn(after)

    shapes = _variables(template)
    seen: list[Call] = []
    drawn: list[bool] = []

    def trace(variables: Variables, x: ArrayLike) -> None:
        _, _, calls, has_drawn = run(variables, x, (), {}, None)
        seen.extend(calls)
        drawn.append(has_drawn)

    jax.eval_shape(trace, shapes, example)
    called = tuple(path for path, _ in seen)
    if drawn[0]:
        raise ValueError(
            "the nnx module draws random numbers in evaluation mode too; a network is measured and used as one fixed "
            "function: draw only where a field says training"
        )
    names = tuple(layers) or _outermost(shapes, called)
    check_names(names)
    check_cover(shapes, names)
    owners = ownership(called, names)
    # Whose rng state lies inside a layer, or in a Dropout that a layer reads.
    drawing = {"/".join(map(str, path[:-1])) for path, v in template.items() if isinstance(v, nnx.RngState)}
    stochastic = frozenset(
        name for path, of in owners.items() if path for name in of if any(layer_of(d, (path,)) for d in drawing)
    )

    def init(key: Array, x: ArrayLike) -> Variables:
        return _variables(dict(nnx.to_flat_state(nnx.state(make(nnx.Rngs(key))))))

    def apply(variables, x, *, start=0, stop=None, train=(), key=None):
        train = check_train(train, names, stochastic, key)
        check_whole(start, stop, names)
        y, after, _, _ = run(variables, x, train, owners, key)
        before, after = (
            {collection: tree for collection, tree in both.items() if collection != "params"}
            for both in (variables, after)
        )
        return y, keep_frozen(before, after, names, train)

    def features(variables, x):
        y, _, calls, _ = run(variables, x, (), owners, None)
        outputs = {path: value for path, value in calls if isinstance(value, jax.Array)} | {names[-1]: y}
        return {name: outputs[name] for name in names if name in outputs}

    return Network(names, init, apply, features, check_base(num_base, names), WHOLE, stochastic)


def _outermost(variables: Variables, called: Sequence[str]) -> tuple[str, ...]:
    """As `linen.outermost`, where what holds layers (a list, say) need not be called itself."""
    paths = [path.partition("/")[2] for path in named_leaves(variables)]
    owning = [name for name in dict.fromkeys(called) if any(layer_of(path, (name,)) for path in paths)]

    def inside(names: Sequence[str]) -> list[str]:
        return [name for name in names if not any(other != name and layer_of(name, (other,)) for other in names)]

    names = inside(owning)
    while len(names) == 1 and (below := inside([name for name in owning if name.startswith(f"{names[0]}/")])):
        owning, names = [name for name in owning if name not in names], below
    return (*sorted({path for path in paths if not layer_of(path, names)}), *names)


def _variables(flat: Mapping[tuple, nnx.Variable]) -> dict[str, Any]:
    """{collection: nested dict}, with strings for the indices of lists; the state of random numbers is left out."""
    variables: dict[str, Any] = {"params": {}}
    for path, variable in flat.items():
        if isinstance(variable, nnx.RngState):
            continue
        tree = variables.setdefault(_collection(variable), {})
        for part in path[:-1]:
            tree = tree.setdefault(str(part), {})
        tree[str(path[-1])] = variable.get_value()
    return variables


def _assembled(
    graph: Any, template: Mapping[tuple, nnx.Variable], variables: Variables, key: Array | None
) -> nnx.Module:
    """The module with these variables, and with its random numbers drawn from `key`."""
    key = jax.random.key(0) if key is None else key
    flat = []
    for i, (path, variable) in enumerate(template.items()):
        value: Any
        if isinstance(variable, nnx.RngKey):
            value = jax.random.fold_in(key, i)
        elif isinstance(variable, nnx.RngState):
            # Of numpy: a count that no draw has raised is still a number, also inside of a trace.
            value = np.zeros(variable.get_value().shape, variable.get_value().dtype)
        else:
            value = variables[_collection(variable)]
            for part in path:
                value = value[str(part)]
        flat.append((path, variable.replace(value)))
    # A copy, or a module that is put together inside of jax.grad could not change its batch statistics.
    return nnx.merge(graph, nnx.from_flat_state(flat), copy=True)


def _collection(variable: nnx.Variable) -> str:
    kind = type(variable).__name__
    return COLLECTIONS.get(kind, kind.lower())


def _has_drawn(flat: Mapping[tuple, nnx.Variable]) -> bool:
    """Whether a count of draws, 0 when the module was put together, went up; known without computing."""
    counts = [v.get_value() for v in flat.values() if isinstance(v, nnx.RngCount)]
    return any(isinstance(count, jax.core.Tracer) or bool(count) for count in counts)


def _set_modes(module: nnx.Module, owners: Mapping[str, Collection[str]], train: Collection[str]) -> None:
    for path, submodule in _submodules(module):
        inside = [path[:length] for length in range(len(path), -1, -1)]
        name = next(("/".join(p) for p in inside if "/".join(p) in owners), None)
        training = name is not None and any(layer in train for layer in owners[name])
        for field, in_training in MODES.items():
            if hasattr(submodule, field):
                setattr(submodule, field, in_training is training)


def _recorded(module: nnx.Module, calls: list[Call]) -> nnx.Module:
    """The module, each of whose submodules notes its calls."""
    for path, submodule in _submodules(module):
        if path and callable(submodule):
            kind, name = type(submodule), "/".join(path)

            def call(self: Any, *args: Any, kind: Any = kind, name: str = name, **kwargs: Any) -> Any:
                place = len(calls)
                calls.append((name, None))
                y = kind.__call__(self, *args, **kwargs)
                # In the order of the calls, not of the returns.
                calls[place] = (name, y)
                return y

            submodule.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return module


def _submodules(module: nnx.Module) -> Iterator[tuple[tuple[str, ...], nnx.Module]]:
    return ((tuple(map(str, path)), submodule) for path, submodule in list(nnx.iter_modules(module)))
