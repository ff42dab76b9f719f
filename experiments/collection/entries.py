"""One entry: a trained network, and sketches of the rows it was trained for; no such row, unless a sample was asked for.

entry.json       what it is: classes, format, metrics, config, versions, where it comes from
embedding.npz    mean random features of its inputs, a few KB: all that the first stage of a ranking reads
inputs.npz       sketches of its inputs, in the library's format
layers.npz       sketches of its own features of held-out rows, and where each layer lies
seen.npz         numbers of the rows that its network was trained on, in which data sets; the rows are not there
sample.npz       a few raw rows and their labels, where they were asked for
model/           the network, as a run leaves it
manifest.json    the sha256 of each of these files (`store`)
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import networks, workdir
from experiments.collection import settings, sketching, store
from experiments.collection.settings import Format
from experiments.collection.sketching import Place, Sketches
from experiments.config import Model
from mmd_jax.models.layered import Network
from mmd_jax.two_sample.sketch_comparison import mean_embedding
from mmd_jax.types import Variables

WHAT, VERSION = "mmd_jax library entry's description", 1


class Seen(NamedTuple):
    """Rows of one data set that a network was trained on.

    Attributes:
      origin: hash of what the rows are numbered in (`sources.Dataset.origins`), which may be a path of its owner's.
      rows: their numbers, int [n].
    """

    origin: str
    rows: np.ndarray


class Sources(NamedTuple):
    """The rows that a network was trained for, in the network's own format.

    Attributes:
      train: that it was trained on, [n, ...].
      held: of the same source, that it was not trained on, [m, ...].
      held_labels: classes of these, [m].
      seen: all that it was trained on, in pretraining too.
      groups, held_groups: of rows of either that depend on each other, [n] and [m]; or none.
    """

    train: np.ndarray
    held: np.ndarray
    held_labels: np.ndarray
    seen: tuple[Seen, ...]
    groups: np.ndarray | None = None
    held_groups: np.ndarray | None = None


class Entry(NamedTuple):
    """An entry, read; its network is not.

    Attributes:
      name: of its folder.
      folder: where it lies.
      about: entry.json.
      inputs: sketches of its inputs, one a bandwidth.
      layers: {layer: sketches of its features}.
      places: {layer: its scale and centre}.
      seen: rows that its network was trained on.
    """

    name: str
    folder: Path
    about: dict[str, Any]
    inputs: Sketches
    layers: dict[str, Sketches]
    places: dict[str, Place]
    seen: tuple[Seen, ...]


class Embeddings(NamedTuple):
    """What the first stage of a ranking reads of E entries.

    Attributes:
      names: of the entries.
      means: mean random features, [E, R] float32; their squared distance is the biased MMD².
      sizes: rows behind each, [E].
      damaged: {name: why it can't be read}, of others.
    """

    names: tuple[str, ...]
    means: np.ndarray
    sizes: np.ndarray
    damaged: dict[str, str]


def write(
    format: Format,
    folder: Path,
    name: str,
    network: Network,
    variables: Variables,
    rows: Sources,
    about: Mapping[str, Any],
    *,
    sample: int = 0,
) -> None:
    """Fills a folder, in which model/ is already, with all else but the manifest.

    Args:
      format: of the library.
      folder: of the entry, in the making.
      name: of the entry.
      network, variables: the network, on raw rows.
      rows: that it was trained for.
      about: what else entry.json is to hold.
      sample: so many of the held-out rows are kept as they are.

    Raises:
      ValueError: rows that can't be brought to the library's format, or fewer than it has bins.
    """
    trained, note = settings.adapted(format, rows.train, name="the entry's data")
    refuse_few(format, rows.train, rows.held)
    inputs = sketching.sketch_inputs(format, key_of(format, name, 0), trained, rows.groups)
    at = sketching.places(network, variables, rows.held)
    key = key_of(format, name, 1)
    layers = sketching.sketch_layers(format, key, network, variables, rows.held, at, rows.held_groups)
    of_format = {"format": np.array(settings.digest(format))}
    workdir.write_npz(folder / "embedding.npz", mean_embedding(inputs)._asdict() | of_format)
    workdir.write_npz(folder / "inputs.npz", sketching.to_file({networks.INPUTS: inputs}))
    arrays = {f"{layer}/{field}": np.asarray(v) for layer, place in at.items() for field, v in place._asdict().items()}
    workdir.write_npz(
        folder / "layers.npz", {f"place/{path}": array for path, array in arrays.items()} | sketching.to_file(layers)
    )
    write_seen(folder, rows.seen)
    if sample:
        chosen = np.sort(np.random.default_rng(format.seed).permutation(len(rows.held))[:sample])
        workdir.write_npz(folder / "sample.npz", {"x": rows.held[chosen], "y": rows.held_labels[chosen]})
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(variables["params"]))
    description = {
        "what": WHAT,
        "version": VERSION,
        "name": name,
        **about,
        "format": settings.digest(format),
        "rows": {
            "inputs": sketching.rows_behind(inputs),
            "layers": max(map(sketching.rows_behind, layers.values()), default=0),
            "trained": len(trained),
            "kept": min(sample, len(rows.held)),
        },
        "adapted": note,
        "layers": {layer: {"width": len(place.centre), "scale": place.scale} for layer, place in at.items()},
        "parameters": parameters,
        "flops_per_row": flops_per_row(network, variables, rows.held),
    }
    workdir.write_json(folder / "entry.json", description)


def refuse_few(format: Format, train: np.ndarray, held: np.ndarray) -> None:
    """Refuses fewer rows than a sketch has bins.

    Raises:
      ValueError: says how many there are.
    """
    for kind, x in (("training", train), ("held-out", held)):
        if len(x) < format.bins:
            raise ValueError(
                f"there are {len(x)} {kind} rows; a sketch in this library needs at least one for each of its {format.bins} bins"
            )


def key_of(format: Format, name: str, purpose: int) -> jax.Array:
    """A key for each entry and purpose: which row goes to which bin."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(format.seed), zlib.crc32(name.encode())), purpose)


def flops_per_row(network: Network, variables: Variables, x: np.ndarray) -> float | None:
    """Floating-point operations of one row's way through the network, as XLA counts them; none where it does not."""
    program = jax.jit(lambda variables, x: network.apply(variables, x)[0]).lower(variables, x[:1]).compile()
    found = float((program.cost_analysis() or {}).get("flops", np.nan))
    return found if np.isfinite(found) else None


def read_about(folder: Path) -> dict[str, Any]:
    """entry.json.

    Raises:
      ValueError: it is not one of ours, or newer than this program.
      FileNotFoundError: it isn't there.
    """
    about = workdir.read_json(folder / "entry.json")
    settings.check_version(about, WHAT, VERSION, folder / "entry.json")
    return about


def read(library: Path, name: str) -> Entry:
    """An entry whose every byte is as it was added.

    Raises:
      ValueError: there is none of that name, it is damaged, newer than this program, or of a library of another format.
    """
    folder = store.path_of(library, name)
    store.check(folder)
    about = read_about(folder)
    refuse_other(about.get("format"), settings.read(library), name)
    arrays = workdir.read_npz(folder / "layers.npz")
    inputs = sketching.from_file(workdir.read_npz(folder / "inputs.npz"))[networks.INPUTS]
    of_layers = {path: array for path, array in arrays.items() if not path.startswith("place/")}
    at = {
        layer: Place(float(arrays[f"place/{layer}/scale"]), arrays[f"place/{layer}/centre"])
        for layer in about["layers"]
    }
    layers = sketching.from_file(of_layers)
    return Entry(name, folder, about, inputs, {layer: layers[layer] for layer in at}, at, read_seen(folder))


def seen_of(origin: str, rows: np.ndarray) -> Seen:
    """The rows of a data set, whose name or place is not told."""
    return Seen(hashlib.sha256(origin.encode()).hexdigest(), np.asarray(rows))


def write_seen(folder: Path, seen: Sequence[Seen]) -> None:
    """Fills seen.npz."""
    arrays = {f"{i}/{name}": np.array(v) for i, one in enumerate(seen) for name, v in one._asdict().items()}
    workdir.write_npz(folder / "seen.npz", arrays)


def read_seen(folder: Path) -> tuple[Seen, ...]:
    """What seen.npz holds."""
    arrays = workdir.read_npz(folder / "seen.npz")
    return tuple(Seen(str(arrays[f"{i}/origin"]), arrays[f"{i}/rows"]) for i in range(len(arrays) // 2))


def seen_among(entry: Entry, origin: str, rows: np.ndarray) -> int:
    """How many of these rows the entry's network was trained on, as far as is known."""
    mine = seen_of(origin, rows)
    known = [one.rows for one in entry.seen if one.origin == mine.origin]
    return int(np.isin(rows, np.concatenate(known)).sum()) if known else 0


def refuse_other(found: Any, format: Format, name: str) -> None:
    """Refuses sketches that were made in another format than the library's, whose distances would mean nothing.

    Raises:
      ValueError: says so.
    """
    if str(found) != settings.digest(format):
        raise ValueError(
            f"{name} was made for a library of another format (copied from there, or by an older program), so that its sketches "
            "don't compare; remove it and add it again"
        )


def load_network(entry: Entry) -> tuple[Network, Variables, dict[str, Any]]:
    """The entry's network. Nothing in an entry is executed: it names one of this project's networks, or is refused.

    Raises:
      ValueError: it names code of someone's own, or can't be read.
    """
    refuse_code(workdir.read_json(entry.folder / "model" / "description.json"), entry.name)
    return networks.load_network(entry.folder / "model")


def refuse_code(description: Mapping[str, Any], name: str) -> None:
    """Refuses a network that is made by a function of someone's own.

    Raises:
      ValueError: says why.
    """
    model = description.get("model")
    known = set(Model.__dataclass_fields__)
    if not isinstance(model, dict) or not set(model) <= known:
        raise ValueError(f"the network of {name} is not described as this program's networks are")
    if model.get("factory"):
        raise ValueError(
            f"the network of {name} is made by code of its owner's own (model.factory = {model['factory']!r}), which a library "
            "neither holds nor runs; share networks that the project builds"
        )


def embeddings(library: Path, format: Format, *, size: int = 128) -> Iterator[Embeddings]:
    """The embeddings of all entries, so many at a time; one that is removed meanwhile is left out, unreadable ones named."""
    width, names = width_of(format), store.names(library)
    for first in range(0, len(names), size):
        found, damaged = {}, {}
        for name in names[first : first + size]:
            try:
                found[name] = _embedding(library, name, format)
            except FileNotFoundError:
                if (library / name).is_dir():
                    damaged[name] = "embedding.npz is missing: it is no entry"
            except (ValueError, KeyError, TypeError, OSError) as error:
                damaged[name] = str(error)
        means = np.stack([mean for mean, _ in found.values()]) if found else np.zeros((0, width), np.float32)
        yield Embeddings(tuple(found), means, np.array([rows for _, rows in found.values()], np.int64), damaged)


def width_of(format: Format) -> int:
    """Numbers of an embedding."""
    return len(format.multiples) * format.num_features


def _embedding(library: Path, name: str, format: Format) -> tuple[np.ndarray, int]:
    path = library / name / "embedding.npz"
    arrays = workdir.read_npz(path)
    refuse_other(arrays.get("format"), format, name)
    mean, rows = arrays["mean"], int(arrays["size"])
    if mean.shape != (width_of(format),) or mean.dtype != np.float32 or not np.isfinite(mean).all() or rows < 2:
        raise ValueError(f"{path} is not of this library's format")
    return mean, rows
