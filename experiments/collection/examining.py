"""The second stage of a ranking: the networks of the nearest entries run on the target's training rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.collection import entries, settings, sketching
from experiments.collection.entries import Entry
from experiments.collection.nearness import Near
from experiments.collection.settings import Format
from experiments.datasets.select import of_each_class, stratified
from experiments.networks import INPUTS
from experiments.progress import track
from experiments.signals import signals
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer.linear_probe import probe
from mmd_jax.transfer.profile import layer_features
from mmd_jax.two_sample.feature_tests import sketch_test
from mmd_jax.two_sample.sketch_comparison import relative_sketch_test, sketch_distance
from mmd_jax.types import Rows, Variables

FOLDS = 5
MOST_ROWS = 2_000  # of the target that are scored and probed
MOST_WIDE = 1_024  # features of a probe


class Layer(NamedTuple):
    """One representation of one entry, against the target's in the same network.

    Attributes:
      mmd2: unbiased estimate of MMD², in squared kernel units of this entry's own kernel there.
      low, high: its interval.
      pvalue: of P = Q, by permuting the bins of both sketches.
    """

    mmd2: float
    low: float
    high: float
    pvalue: float


class Examined(NamedTuple):
    """What is known of one of the nearest entries.

    Attributes:
      name: of the entry.
      classes: that it was trained for.
      shared: classes that the target has too, by name.
      distance: at the inputs, in the library's kernel: comparable between entries.
      layers: {layer: distance in its own features}: not comparable between entries.
      tie: p-value of "the nearest entry is no closer than this one"; none for the nearest itself.
      hidden: its last hidden layer.
      scores: {representation: {score: value}}, of `experiments.signals`.
      correct: rows of the target of which a linear probe on its last hidden layer is right, [n] bool.
      accuracy: their share.
      parameters: of the network.
      flops_per_row: of one row's way through it; or none.
      rows: {"inputs", "layers"}: rows behind its sketches.
      notes: what a reader must know.
    """

    name: str
    classes: tuple[str, ...]
    shared: tuple[str, ...]
    distance: Layer
    layers: dict[str, Layer]
    tie: float | None
    hidden: str
    scores: dict[str, dict[str, float]]
    correct: np.ndarray
    accuracy: float
    parameters: int
    flops_per_row: float | None
    rows: dict[str, int]
    notes: tuple[str, ...]


class Bars(NamedTuple):
    """What an entry has to beat, on the same rows and folds.

    Attributes:
      inputs: rows of which a linear probe on the raw inputs is right, [n] bool.
      untrained: {entry: the same on the last hidden layer of its network with fresh weights}.
      groups: of these rows, [n], where they depend on each other; or none.
    """

    inputs: np.ndarray
    untrained: dict[str, np.ndarray]
    groups: np.ndarray | None


def examine(
    key: jax.Array,
    library: Path,
    format: Format,
    near: Near,
    target: Dataset,
    *,
    top: int,
    alpha: float = 0.05,
    permutations: int = 999,
    name: str,
) -> tuple[list[Examined], Bars, dict[str, str]]:
    """Runs the networks of the `top` nearest entries on the target's training rows; its test rows are not looked at.

    Args:
      key: consumed.
      library, format: the library.
      near: of `nearest`.
      target: the new data.
      top: how many entries.
      alpha: of the intervals and tests.
      permutations: of each test.
      name: of the target, for what is said.

    Returns:
      The entries that could be run, nearest first; what they have to beat; {name: why} of those that could not.
    """
    keys = jax.random.split(key, 5)
    rows, groups = some_rows(target, seed=format.seed)
    num_classes = len(target.class_names)

    def probed(features: np.ndarray) -> np.ndarray:
        """Rows of which a linear probe is right; all probes have the same folds, and so are pairs."""
        narrow = projected(keys[4], features)
        return np.asarray(probe(keys[1], narrow, rows.y, FOLDS, num_classes=num_classes, groups=groups).correct)

    def looked_at(number: int, entry: Entry, nearest: Entry | None) -> tuple[Examined, np.ndarray]:
        """One entry, and the rows of which the probe on its network with fresh weights is right."""
        network, variables, description = entries.load_network(entry)
        x, note = settings.to_shape(rows.x, description["input"]["shape"], name=name, wanted="the network takes")
        one, another = (jax.random.fold_in(key, number) for key in (keys[0], keys[3]))
        features = layer_features(network, variables, x)
        hidden = last_hidden(network, features)
        correct = probed(features[hidden])
        fresh = jax.jit(network.init)(keys[2], x[:1])
        compared = distances(one, format, entry, (network, variables), near, x, groups, alpha, permutations)
        scores = signals(another, network, variables, Rows(x, rows.y), num_classes=num_classes, groups=groups)
        about = entry.about
        shared = tuple(str(c) for c in about["classes"] if str(c) in set(map(str, target.class_names)))
        notes = [note] if note else []
        if known := entries.seen_among(entry, target.origins[0], target.train_rows):
            notes.append(
                f"Its network was trained on {known} of the target's {len(target.train_rows)} training rows: what is said of it "
                "here is too favourable."
            )
        if shared and compared[INPUTS].pvalue <= alpha:
            notes.append(
                f"It shares the classes {', '.join(shared)} with the target by name, but its inputs come from another "
                f"distribution (p = {compared[INPUTS].pvalue:.3g}): the same name need not mean the same thing."
            )
        tie = None
        if nearest is not None:
            tie = float(relative_sketch_test(near.sketches, nearest.inputs, entry.inputs, alpha).pvalue)
        examined = Examined(
            entry.name,
            tuple(map(str, about["classes"])),
            shared,
            compared.pop(INPUTS),
            compared,
            tie,
            hidden,
            scores,
            correct,
            float(correct.mean()),
            about["parameters"],
            about["flops_per_row"],
            {kind: about["rows"][kind] for kind in ("inputs", "layers")},
            tuple(notes),
        )
        return examined, probed(layer_features(network, fresh, x)[hidden])

    found: list[Examined] = []
    untrained, refused = {}, {}
    first: Entry | None = None
    for number, chosen in enumerate(track(near.names[:top], "the nearest entries")):
        try:
            entry = entries.read(library, chosen)
            examined, untrained[chosen] = looked_at(number, entry, first)
        except (ValueError, KeyError, OSError) as error:
            refused[chosen] = str(error)
            continue
        first = first or entry
        found.append(examined)
    x, _ = settings.adapted(format, rows.x, name=name)
    inputs = probed(sketching.input_vectors(format, x))
    return found, Bars(inputs, untrained, groups), refused


def some_rows(target: Dataset, *, seed: int) -> tuple[Rows, np.ndarray | None]:
    """The target's training rows, or as many as are scored: FOLDS of each class, the others in the classes' shares; and their
    groups."""
    y, groups = target.train_y, target.train_groups
    counts = np.bincount(y, minlength=len(target.class_names))
    if counts.min() < FOLDS:
        few = target.class_names[int(counts.argmin())]
        raise ValueError(
            f"the target has {counts.min()} training rows of class {few}; a probe cross-validated in {FOLDS} folds needs {FOLDS} "
            "of each class"
        )
    if len(y) <= MOST_ROWS:
        return Rows(target.train_x, y), groups
    random = np.random.default_rng(seed)
    chosen = of_each_class(y, FOLDS, random, "rows of each class")
    others = np.setdiff1d(np.arange(len(y)), chosen)
    if (room := MOST_ROWS - len(chosen)) >= len(np.unique(y[others])):
        more = others[stratified(y[others], room, random, "rows that are scored")]
        chosen = np.sort(np.concatenate([chosen, more]))
    return Rows(target.train_x[chosen], y[chosen]), None if groups is None else groups[chosen]


def projected(key: jax.Array, features: np.ndarray) -> np.ndarray:
    """Features as they are, or where there are very many, times a random matrix, which keeps their geometry nearly."""
    width = features.shape[1]
    if width <= MOST_WIDE:
        return features
    directions = np.asarray(jax.random.normal(key, (width, MOST_WIDE))) / np.sqrt(MOST_WIDE)
    return features @ directions.astype(features.dtype)


def last_hidden(network: Network, features: Mapping[str, np.ndarray]) -> str:
    """The layer below the outputs, or the outputs where the network has no other that can be seen."""
    seen = [layer for layer in network.layers if layer in features]
    return seen[-2] if len(seen) > 1 else seen[-1]


def distances(
    key: jax.Array,
    format: Format,
    entry: Entry,
    trained: tuple[Network, Variables],
    near: Near,
    x: np.ndarray,
    groups: np.ndarray | None,
    alpha: float,
    permutations: int,
) -> dict[str, Layer]:
    """At the inputs, and at each layer in the entry's own features."""
    keys = jax.random.split(key)
    target = {INPUTS: near.sketches} | sketching.sketch_layers(format, keys[0], *trained, x, entry.places, groups)
    mine = {INPUTS: entry.inputs} | entry.layers
    found = {}
    for number, name in enumerate(mine):
        a, b = mine[name], target[name]
        distance = sketch_distance(a, b, alpha)
        test = sketch_test(
            jax.random.fold_in(keys[1], number),
            *map(sketching.joined, (a, b)),
            alpha=alpha,
            num_permutations=permutations,
        )
        found[name] = Layer(float(distance.mmd2), float(distance.low), float(distance.high), float(test.pvalue))
    return found


def as_table(found: Sequence[Examined]) -> list[dict[str, Any]]:
    """What JSON holds of them: all but the rows of the probe."""
    return [{name: value for name, value in one._asdict().items() if name != "correct"} for one in found]
