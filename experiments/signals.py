"""What a trained network says of labelled target rows, without training it: the transferability scores, layer by layer."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from threadpoolctl import threadpool_limits

from experiments.candidates import candidates, name_of
from experiments.config import Decision
from experiments.datasets.select import stratified
from experiments.networks import INPUTS
from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.linear_probe import probe
from mmd_jax.transfer.profile import layer_features
from mmd_jax.transfer.scores import h_score, leep, log_me, nce, trans_rate
from mmd_jax.types import Rows, Variables

# Scores of the source head's outputs, and scores of one layer's features; all: larger is better to reuse.
OF_OUTPUTS = ("leep", "nce")
OF_LAYERS = ("log_me", "h_score", "h_score_shrunk", "trans_rate", "probe")
SIGNALS = OF_OUTPUTS + OF_LAYERS
# The place of the source head's own scores, beside "inputs" and the layers.
OUTPUTS = "outputs"
FOLDS = 5
DEFAULTS = Decision()


def signals(
    key: Array,
    network: Network,
    variables: Variables,
    rows: Rows,
    *,
    num_classes: int,
    pooling: str = "mean",
    source_head: bool = True,
    max_rows: int = 2_000,
    max_width: int = 256,
    groups: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Every score of the inputs, of each hidden layer's features, and of the source head's outputs.

    The last layer's features are not scored: every way of reuse replaces it. Classes with a single row among those that are
    looked at are left out, as no score can both learn and try them.

    Args:
      key: consumed; chooses rows, folds and projections. The same key, rows and labels give the same folds for other networks.
      network: its first act is its preprocessing.
      variables: its weights.
      rows: labelled rows of the target; give training rows alone, since what is chosen by them is tried on the others.
      num_classes: of the target.
      pooling: of feature maps, as `layer_features`; the inputs are flattened, always.
      source_head: whether the last layer is still the source's; else there is nothing to say of outputs.
      max_rows: at most so many are looked at, stratified by class.
      max_width: wider features are projected to so many dimensions at random, which keeps their geometry, nearly.
      groups: of rows that depend on each other, [n]: the probe's folds hold whole groups. None: of independent rows.

    Returns:
      {representation: {score: value}}: "inputs" (preprocessed, and raw where the network runs only as a whole) and each hidden
      layer that the network shows, in its order, with the scores OF_LAYERS; and "outputs" with those OF_OUTPUTS.

    Raises:
      ValueError: labels that are not 0 … num_classes − 1, one for each row; fewer than two classes of two rows, or six rows;
        features that are not finite, by name.
    """
    chosen_key, fold_key, projection_key = jax.random.split(key, 3)
    chosen, labels = _chosen(chosen_key, rows, num_classes, max_rows)
    x = rows.x[chosen]
    of_group = None if groups is None else groups[chosen]
    features = layer_features(network, variables, x, pooling=pooling)
    logits = features.pop(network.layers[-1])
    representations = {INPUTS: _inputs(network, variables, x)} | features
    found = {}
    for i, (name, values) in enumerate(representations.items()):
        try:
            narrow = _projected(jax.random.fold_in(projection_key, i), values, max_width)
            # OpenBLAS's threads wait for each other at full speed: on a busy machine a decomposition took 100 times as long.
            with threadpool_limits(1, user_api="blas"):
                found[name] = _of_layer(
                    jax.random.clone(fold_key), narrow, labels, of_group
                )  # the same folds everywhere
        except ValueError as error:
            raise ValueError(f"no scores of {name}: {error}") from error
    if source_head:
        found[OUTPUTS] = _of_outputs(logits, labels)
    return found


def _chosen(key: Array, rows: Rows, num_classes: int, max_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Some rows, and their labels, renumbered so that each class has at least two rows."""
    y = np.asarray(rows.y)
    if y.shape != (len(rows.x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"labels have shape {y.shape} and type {y.dtype}; expected an integer for each of {len(rows.x)} rows"
        )
    if len(y) and not (y.min() >= 0 and y.max() < num_classes):
        raise ValueError(f"labels run from {y.min()} to {y.max()}; expected 0 … {num_classes - 1}")
    chosen = np.arange(len(y))
    if len(y) > max_rows:
        random = np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())
        chosen = stratified(y, max_rows, random, "max_rows")
    chosen = chosen[np.bincount(y[chosen], minlength=num_classes)[y[chosen]] >= 2]
    labels = np.unique(y[chosen], return_inverse=True)[1].astype(np.int32)
    if len(chosen) < 6 or labels.max() < 1:
        raise ValueError(
            f"of {len(y)} labelled rows, {len(chosen)} are of classes with at least two; scores need six rows of two classes"
        )
    return chosen, labels


def _inputs(network: Network, variables: Variables, x: np.ndarray) -> np.ndarray:
    if network.whole:
        return np.asarray(x, np.float32).reshape(len(x), -1)
    return in_batches(lambda batch: _preprocessed(variables, batch, network=network), x)


@partial(jax.jit, static_argnames="network")
def _preprocessed(variables: Variables, x: Array, *, network: Network) -> Array:
    inputs, _ = network.apply(variables, x, start=0, stop=0)
    return inputs.reshape(len(inputs), -1).astype(jnp.float32)


def _projected(key: Array, features: np.ndarray, max_width: int) -> np.ndarray:
    """Features times a random matrix, whose entries have the variance 1 / max_width: squared lengths stay on average."""
    if features.shape[1] <= max_width:
        return features
    directions = np.asarray(jax.random.normal(key, (features.shape[1], max_width))) / np.sqrt(max_width)
    return features @ directions.astype(features.dtype)


def _of_layer(key: Array, features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    folds = min(FOLDS, len(labels) // 2 if groups is None else len(np.unique(groups)))
    values: dict[str, Any] = {
        "log_me": log_me(features, labels),
        "h_score": h_score(features, labels),
        "h_score_shrunk": h_score(features, labels, shrinkage="ledoit_wolf"),
        "trans_rate": trans_rate(features, labels),
        "probe": probe(key, features, labels, folds, groups=groups).accuracy,
    }
    return {name: float(value) for name, value in values.items()}


def _of_outputs(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    if logits.shape[1] < 2:
        raise ValueError("the source head has one output; expected a logit for each class of the source")
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    most_likely = logits.argmax(axis=1)
    return {
        "leep": float(leep(probabilities, labels, int(labels.max()) + 1)),
        "nce": float(nce(most_likely, labels, num_source=logits.shape[1])),
    }


def deepest(values: Mapping[str, float], network: Network, *, settings: Decision = DEFAULTS) -> str:
    """The way of reuse that freezes all layers up to the one where a score is highest: a policy without a parameter.

    The last hidden layer: "linear_probe". A layer below: "finetune_top" with as many frozen layers as there are up to it, or the
    next smaller number among the candidates; where there is none, "finetune_all full rate". The inputs: "from_scratch".

    Args:
      values: {"inputs" or layer: score}, all of one of OF_LAYERS. Of equal ones, the deepest counts, which is the cheapest.
      network: whose layers they are.
      settings: as given to `experiments.candidates.candidates`: a way's name says whether it trains at the full rate.

    Returns:
      A name of `experiments.candidates.candidates`.

    Raises:
      ValueError: no finite value, or a name that is neither "inputs" nor a hidden layer.
    """
    places = {INPUTS: 0} | {name: i for i, name in enumerate(network.layers[:-1], 1)}
    if unknown := [name for name in values if name not in places]:
        raise ValueError(
            f"{unknown[0]!r} is neither the inputs nor a hidden layer; expected some of {', '.join(places)}"
        )
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    if not finite:
        raise ValueError("no representation has a finite score, so none is the best")
    # What differs by rounding is equal: plain H-scores of all layers that are wider than there are rows, say.
    top = max(finite.values())
    depth = max(places[name] for name, value in finite.items() if value >= top - 1e-5 * abs(top))
    plans = candidates(network, settings, augment=False).values()
    if depth == 0:
        return next(name_of(plan) for plan in plans if plan.regime == "from_scratch")
    if depth == len(network.layers) - 1:
        return next(name_of(plan) for plan in plans if plan.regime == "linear_probe")
    tops = {len(plan.stages[0].frozen): name_of(plan) for plan in plans if plan.regime == "finetune_top"}
    within = [frozen for frozen in tops if frozen <= depth]
    return tops[max(within)] if within else "finetune_all full rate"
