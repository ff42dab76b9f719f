"""Training on labelled source rows so that unlabelled target rows look alike inside the network: MMD as a loss."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.objectives import check_rows
from mmd_jax.transfer.train import forward
from mmd_jax.two_sample import mmd2_unbiased
from mmd_jax.two_sample.bandwidths import median_bandwidth
from mmd_jax.types import LossFn, Objective, Rows, Variables

# Of the kernels that are averaged, as multiples of the median distance in the batch.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@cache
def adaptation(
    layers: tuple[str, ...], *, weight: float = 1.0, bandwidths: tuple[float, ...] = BANDWIDTHS
) -> Objective:
    """Cross-entropy on the source, plus the MMD between source and target in the named layers.

        (1/B) Σ_i L(y_i, f_θ(x_i)) + λ Σ_{l ∈ layers} MMD²ᵤ(h_l(x_1 … x_B), h_l(z_1 … z_B))

    MMD²ᵤ is the unbiased estimate of the two-sample test, averaged over Gaussian kernels whose bandwidths are multiples of the
    batch's median distance in that layer, which counts as a constant. Source and target rows of a step pass as one batch, so
    batch statistics are of both.

    Args:
      layers: names; each layer's output is flattened to a vector. The paper takes the last, task-specific ones.
      weight: λ >= 0; 0 is training on the source alone.
      bandwidths: the multiples, each > 0.

    Returns:
      An Objective for rows of pairs: x [n, 2, ...] holds a source row and a target row, y [n] the source row's label. Which two
      stand in a pair does not matter. `paired` makes such rows. It reports "accuracy" on the source and "mmd2", the sum over the
      layers. One object for each setting, so that a chunk is compiled once.

    Raises:
      ValueError: no layer, a weight below 0, or bandwidths that are not positive.

    Example:
      >>> adaptation(("fc1",)) is adaptation(("fc1",))
      True

    Reference: Long, Cao, Wang, Jordan, Learning transferable features with deep adaptation networks, ICML 2015.
    """
    if isinstance(layers, str) or not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers = {layers!r}; expected a tuple of layer names, each once, at least one")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight = {weight}; expected 0 or a positive number")
    if not bandwidths or not all(0 < one < float("inf") for one in bandwidths):
        raise ValueError(f"bandwidths = {bandwidths}; expected positive multiples of the median distance, at least one")
    found = _Settings(layers, float(weight), tuple(map(float, bandwidths)))
    return Objective(partial(_loss, found), partial(_validate, found), partial(_check, found), _sources)


def paired(source: Rows, target: np.ndarray, random: np.random.Generator) -> Rows:
    """Rows of pairs: every source row beside a target row, the target's rows in random order, again and again.

    Args:
      source: labelled rows, x [n, ...].
      target: rows without labels, [m, ...], in the same format.
      random: consumed.

    Returns:
      Rows with x [n, 2, ...] and the source's labels.

    Raises:
      ValueError: no target row, or rows of two formats.

    Example:
      >>> rows = paired(Rows(np.zeros((3, 5)), np.arange(3)), np.ones((2, 5)), np.random.default_rng(0))
      >>> rows.x.shape, rows.x.sum((0, 2)).tolist(), rows.y.tolist()
      ((3, 2, 5), [0.0, 15.0], [0, 1, 2])
    """
    if not len(target):
        raise ValueError("there are no target rows to pair the source rows with; expected at least one")
    if source.x.shape[1:] != target.shape[1:] or source.x.dtype != target.dtype:
        raise ValueError(
            f"source rows are {source.x.dtype} {list(source.x.shape[1:])} and target rows {target.dtype} "
            f"{list(target.shape[1:])}; bring them to one format first"
        )
    passes = -(-len(source.x) // len(target))
    order = np.concatenate([random.permutation(len(target)) for _ in range(passes)])[: len(source.x)]
    return Rows(np.stack([source.x, target[order]], axis=1), source.y)


class _Settings(NamedTuple):
    """Of `adaptation`, checked."""

    layers: tuple[str, ...]
    weight: float
    bandwidths: tuple[float, ...]


def _loss(
    settings: _Settings, network: Network, train: Sequence[str], *, start: int = 0, dtype: str = "float32"
) -> LossFn:
    _check_start(start)

    def loss(
        variables: Variables, batch: tuple[Array, Array], key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        x, y = batch
        both = jnp.concatenate([x[:, 0], x[:, 1]])
        outputs, logits, state = _outputs(network, variables, both, settings.layers, dtype, tuple(train), key)
        logits = logits[: len(y)]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        mmd2 = jnp.stack([averaged_mmd2(h[: len(y)], h[len(y) :], settings.bandwidths) for h in outputs]).sum()
        accuracy = (logits.argmax(-1) == y).mean(dtype=jnp.float32)
        return entropy + settings.weight * mmd2, (state, {"accuracy": accuracy, "mmd2": mmd2})

    return loss


@partial(jax.jit, static_argnames=("multiples",))
def averaged_mmd2(x: Float[Array, "m d"], y: Float[Array, "n d"], multiples: tuple[float, ...]) -> Float[Array, ""]:
    """MMD²ᵤ averaged over Gaussian kernels with these multiples of the median distance; 0 where there is no such distance.

    Args:
      x: rows of the source, m >= 2.
      y: rows of the target, n >= 2.
      multiples: of the median distance of the pooled rows.
    """
    median = median_bandwidth(jnp.concatenate([x, y]))
    # A layer that gives half of the pairs the same output has none: nothing can be said, so nothing is asked of it.
    known = jnp.isfinite(median)
    bandwidths = jnp.where(known, median, 1) * jnp.asarray(multiples, x.dtype)
    return jnp.where(known, mmd2_unbiased(x, y, bandwidth=bandwidths) / len(multiples), 0)


def _outputs(
    network: Network,
    variables: Variables,
    x: Array,
    layers: tuple[str, ...],
    dtype: str,
    train: tuple[str, ...] = (),
    key: Array | None = None,
) -> tuple[list[Array], Array, Variables]:
    """The named layers' outputs as vectors [n, d], the last layer's, and the state: one pass, in slices."""
    outputs, begin = [], 0
    state: Variables = {name: tree for name, tree in variables.items() if name != "params"}
    for end in sorted({*(network.layers.index(name) + 1 for name in layers), len(network.layers)}):
        x, state = forward(network, {**variables, **state}, x, start=begin, stop=end, dtype=dtype, train=train, key=key)
        begin = end
        if network.layers[end - 1] in layers:
            outputs.append(x.reshape(len(x), -1))
    return outputs, x, state


def _validate(
    settings: _Settings,
    network: Network,
    variables: Variables,
    rows: Rows,
    *,
    start: int = 0,
    precision: str = "float32",
) -> dict[str, float]:
    """The same loss on all of the rows at once; the source's accuracy, and the MMD."""
    _check_start(start)

    def outputs(x: np.ndarray) -> tuple[list[Array], Array]:
        return _evaluated(variables, x, network=network, layers=settings.layers, precision=precision)

    (source, logits), (target, _) = (in_batches(outputs, rows.x[:, side]) for side in (0, 1))
    entropy = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(rows.y)).mean()
    mmd2 = sum(
        averaged_mmd2(jnp.asarray(x), jnp.asarray(y), settings.bandwidths) for x, y in zip(source, target, strict=True)
    )
    return {
        "loss": float(entropy + settings.weight * mmd2),
        "accuracy": float((logits.argmax(-1) == rows.y).mean()),
        "mmd2": float(mmd2),
    }


@partial(jax.jit, static_argnames=("network", "layers", "precision"))
def _evaluated(
    variables: Variables, x: Array, *, network: Network, layers: tuple[str, ...], precision: str
) -> tuple[list[Array], Array]:
    outputs, logits, _ = _outputs(network, variables, x, layers, precision)
    return outputs, logits


def _sources(x: Any) -> Any:
    return x[:, 0]


def _check(settings: _Settings, network: Network, *parts: Rows) -> None:
    if unknown := [name for name in settings.layers if name not in network.layers]:
        raise ValueError(f"layers names {unknown[0]!r}; the network's layers are {', '.join(network.layers)}")
    if network.whole:
        raise ValueError(
            f"the layers' outputs are needed in training, and the network can't be left between layers: {network.whole}"
        )
    for x, y in parts:
        if x.ndim < 3 or x.shape[1] != 2:
            raise ValueError(
                f"x has shape {list(x.shape)}; expected pairs of a source and a target row, [n, 2, ...]: see `paired`"
            )
        if len(x) < 2:
            raise ValueError(f"there are {len(x)} pairs; the unbiased MMD needs at least 2 in every batch")
        check_rows(network, Rows(x[:, 0], y))


def _check_start(start: int) -> None:
    if start:
        raise ValueError(
            f"the rows are inputs of layer number {start + 1}, behind a cached prefix, which is not made for pairs; leave the "
            "stage's `cached` off"
        )
