"""Rows → the sketches that stand for them: one a bandwidth, of the same bins, which together are of the mean kernel."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.collection.settings import Format
from mmd_jax.models.layered import Network
from mmd_jax.transfer.profile import layer_features
from mmd_jax.two_sample import NoBandwidthError
from mmd_jax.two_sample.bandwidths import median_bandwidth
from mmd_jax.two_sample.sketches import Sketch, accumulate, from_arrays, new_sketch, to_arrays
from mmd_jax.types import Variables

# Rows beyond these add nothing that an interval would show.
MOST_INPUTS, MOST_LAYERS = 20_000, 5_000

Sketches = tuple[Sketch, ...]


class Place(NamedTuple):
    """What the sketches of one layer of one entry share.

    Attributes:
      scale: σ for the multiple 1: the median distance between the entry's own held-out rows there.
      centre: the mean of these rows, [d], which is taken off before.
    """

    scale: float
    centre: np.ndarray


def input_vectors(format: Format, x: np.ndarray) -> np.ndarray:
    """Inputs in the library's format as vectors near 0, [n, d] float32."""
    rows = x.reshape(len(x), -1).astype(np.float32)
    return (
        rows / np.float32(255) - np.float32(format.centre)
        if format.kind == "image"
        else rows - np.float32(format.centre)
    )


def scale_of(x: np.ndarray) -> float:
    """The median distance of rows [n, d].

    Raises:
      ValueError: half of the pairs coincide.
    """
    try:
        return float(median_bandwidth(x))
    except NoBandwidthError:
        raise ValueError("half of the rows or more are the same, so that no scale can be taken from them") from None


def sketch_inputs(format: Format, key: jax.Array, x: np.ndarray, groups: np.ndarray | None = None) -> Sketches:
    """The sketches of inputs in the library's format; `key` deals the rows out to bins, or whole groups of them [n]."""
    kind = "x" if format.kind == "rows" else "x / 255"
    empty = _empty(format, len(x[0].ravel()), format.scale, format.num_features, f"{kind} − {format.centre:g}")
    x, groups = _some(x, MOST_INPUTS), None if groups is None else _some(groups, MOST_INPUTS)
    return _fill(key, empty, lambda rows: input_vectors(format, rows), x, groups)


def places(network: Network, variables: Variables, x: np.ndarray) -> dict[str, Place]:
    """Scale and centre at each layer, from rows that the network was not trained on; layers without a median are left out."""
    found = {}
    for name, features in layer_features(network, variables, _some(x, MOST_LAYERS)).items():
        try:
            scale = float(median_bandwidth(features))
        except (NoBandwidthError, ValueError):  # at least half of the pairs coincide, or numbers that are not finite
            continue
        found[name] = Place(scale, features.mean(axis=0))
    return found


def sketch_layers(
    format: Format,
    key: jax.Array,
    network: Network,
    variables: Variables,
    x: np.ndarray,
    at: Mapping[str, Place],
    groups: np.ndarray | None = None,
) -> dict[str, Sketches]:
    """The sketches of a network's features of some rows: {layer: sketches}."""
    features = layer_features(network, variables, _some(x, MOST_LAYERS))
    groups = None if groups is None else _some(groups, MOST_LAYERS)
    found = {}
    for name, (scale, centre) in at.items():
        empty = _empty(format, len(centre), scale, format.layer_features, f"features of {name}, their mean 0")
        found[name] = _fill(key, empty, lambda rows, centre=centre: rows - centre, features[name], groups)
    return found


def joined(sketches: Sequence[Sketch]) -> Sketch:
    """One sketch whose kernel is the mean of those of `sketches`, of the same rows in the same bins.

    φ = (φ_1, …, φ_K) / √K,   φ(a)ᵀφ(b) = mean_k k̂_k(a, b)
    """
    first, root = sketches[0], np.float32(np.sqrt(len(sketches)))
    sums, excess = (np.concatenate([getattr(s, name) for s in sketches], axis=1) / root for name in ("sums", "excess"))
    widths = " ".join(f"{sketch.identity.bandwidth:g}" for sketch in sketches)
    identity = first.identity._replace(
        num_features=sums.shape[1], preprocessing=f"{first.identity.preprocessing}; mean over σ = {widths}"
    )
    return Sketch(identity, first.frequencies, jax.numpy.asarray(sums), jax.numpy.asarray(excess), first.counts)


def rows_behind(sketches: Sequence[Sketch]) -> int:
    """How many rows the sketches are of."""
    return int(np.sum(sketches[0].counts))


def to_file(sketches: Mapping[str, Sketches]) -> dict[str, np.ndarray]:
    """Arrays for `workdir.write_npz`."""
    return {
        f"{name}/{number}/{field}": array
        for name, several in sketches.items()
        for number, sketch in enumerate(several)
        for field, array in to_arrays(sketch).items()
    }


def from_file(arrays: Mapping[str, np.ndarray]) -> dict[str, Sketches]:
    """The inverse of `to_file`.

    Raises:
      ValueError: what `from_arrays` refuses: sums that can't be, an identity that this version can't repeat.
    """
    parts: dict[str, dict[int, dict[str, Any]]] = {}
    for path, array in arrays.items():
        name, number, field = path.rsplit("/", 2)
        parts.setdefault(name, {}).setdefault(int(number), {})[field] = array
    return {name: tuple(from_arrays(several[i]) for i in sorted(several)) for name, several in parts.items()}


def _empty(format: Format, d: int, scale: float, num_features: int, preprocessing: str) -> Sketches:
    keys = jax.random.split(jax.random.key(format.seed), len(format.multiples))
    return tuple(
        new_sketch(
            key,
            d,
            bandwidth=np.float32(scale * multiple),
            num_features=num_features,
            bins=format.bins,
            kernel=format.kernel,
            preprocessing=preprocessing,
        )
        for key, multiple in zip(keys, format.multiples)
    )


def _fill(key: jax.Array, empty: Sketches, vectors: Any, x: np.ndarray, groups: np.ndarray | None) -> Sketches:
    """All rows at once, so that the bins hold equal counts; the same key, so that the sketches share their bins."""
    rows = np.concatenate([vectors(part) for part in _parts(x)])
    if groups is None:
        return tuple(accumulate(key, sketch, rows, evenly=True) for sketch in empty)
    bins = _bins_of_groups(key, groups, empty[0].identity.bins)
    return tuple(accumulate(key, sketch, rows, bins=bins) for sketch in empty)


def _bins_of_groups(key: jax.Array, groups: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each row: whole groups, in random order, are dealt out in turn.

    Raises:
      ValueError: fewer groups than bins, some of which would be empty.
    """
    number = np.unique(groups, return_inverse=True)[1]
    if (count := int(number.max()) + 1) < bins:
        raise ValueError(
            f"rows that belong together share a bin, and there are {count} groups for {bins} bins; give rows of more groups, or "
            "leave group_key empty to treat rows as independent"
        )
    return (np.asarray(jax.random.permutation(key, count)) % bins)[number].astype(np.int32)


def _parts(x: np.ndarray, size: int = 4096) -> Iterator[np.ndarray]:
    for first in range(0, len(x), size):
        yield x[first : first + size]


def _some(x: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly spread over all."""
    return x if len(x) <= most else x[np.linspace(0, len(x) - 1, most).astype(int)]
