"""What is added to a library: the network of a finished run, or one that a config trains or restores."""

import datetime
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments import checkpoints, evaluation, networks, phases, results, sources, workdir
from experiments.collection import entries, settings, sketching, store
from experiments.collection.entries import Sources
from experiments.collection.settings import Format
from experiments.config import Config, Data, from_json
from experiments.sources import Dataset
from mmd_jax.transfer import inference
from mmd_jax.types import Variables


def from_run(library: Path, name: str, run: Path, *, data_dir: str | None, sample: int = 0) -> Format:
    """Adds the fine-tuned network of a finished run, with the rows of that run's target.

    Args:
      library: the folder; a new library takes the entry's format.
      name: of the entry.
      run: the work directory of the run.
      data_dir: where the real data are; none: where the run had them.
      sample: so many raw rows are kept too.

    Raises:
      ValueError: the run is not finished, its network is damaged, of someone's own code, or of a table; and what `staged`
        and `write` refuse.
    """
    store.check_name(name)
    if not (run / "result.json").is_file():
        raise ValueError(f"{run} holds no finished run (no result.json); give the work directory of one that ended")
    result, settings_of_run = (workdir.read_json(run / file) for file in ("result.json", "config.json"))
    description = workdir.read_json(run / "model" / "description.json")
    entries.refuse_code(description, name)
    network, variables, description = networks.load_network(run / "model")
    trained_for = Data(**from_json(description["trained_for"]))
    where = data_dir or settings_of_run["data_dir"]
    refuse_table(trained_for)
    rows = sources.load(trained_for, seed=description["seed"], data_dir=where)
    rows = in_shape(rows, description["input"]["shape"])
    refuse_early(library, name, rows, sample)
    about = {
        "classes": description["classes"],
        "input": description["input"],
        "metrics": accuracy(network, variables, rows) | {"of_run": result["accuracy"]},
        "trained_for": asdict(trained_for),
        "pretrained_on": settings_of_run["source"],
        "config": without_places(settings_of_run),
        "versions": result["versions"],
        "from": {"kind": "run", "name": result["name"], "regime": result["plan"]["regime"], "added": now()},
    }

    def model(folder: Path) -> None:
        copy(run / "model", folder)

    return _add(
        library,
        name,
        network,
        variables,
        rows,
        (*before(run, settings_of_run), entries.seen_of(rows.origins[0], rows.train_rows)),
        about,
        model,
        sample,
    )


def from_config(library: Path, name: str, config: Config, directory: Path, *, sample: int = 0) -> Format:
    """Adds the network that a config trains on its source, or restores for it.

    Args:
      library, name, sample: as in `from_run`.
      config: its source, model, pretrain and seed count.
      directory: the work directory of the training, which can be killed and goes on; unused where weights are restored.

    Raises:
      ValueError: no source, a network of someone's own code, a table; and what `staged` and `write` refuse.
    """
    store.check_name(name)
    if config.source is None:
        raise ValueError(
            "the config has no source, and a sketch of the rows that the network was trained on is what makes an entry"
        )
    entries.refuse_code({"model": asdict(config.model)}, name)
    refuse_table(config.source)
    rows = sources.load(config.source, seed=config.seed, data_dir=config.data_dir)
    refuse_early(library, name, rows, sample)
    variables, network = trained(config, directory, rows)
    about = {
        "classes": rows.class_names,
        "input": {"shape": rows.train_x.shape[1:], "dtype": str(rows.train_x.dtype)},
        "metrics": accuracy(network, variables, rows),
        "trained_for": asdict(config.source),
        "pretrained_on": None,
        "config": without_places(workdir.plain(config)),
        "versions": results.versions(),
        "from": {"kind": "weights" if config.model.weights else "config", "name": config.name, "added": now()},
    }
    description = {
        "model": {**asdict(config.model), "weights": ""},
        "layers": network.layers,
        "classes": rows.class_names,
        "table": None,
        "input": about["input"],
        "trained_for": asdict(config.source),
        "seed": config.seed,
        "precision": config.pretrain.precision,
    }

    def model(folder: Path) -> None:
        checkpoints.save_model(folder, variables, description)

    return _add(
        library,
        name,
        network,
        variables,
        rows,
        (entries.seen_of(rows.origins[0], rows.train_rows),),
        about,
        model,
        sample,
    )


def before(run: Path, settings_of_run: Mapping[str, Any]) -> tuple[entries.Seen, ...]:
    """What the network of a run was trained on before it was fine-tuned: the run's source, or what its own entry saw."""
    splits, found = workdir.read_npz(run / "splits.npz"), []
    if "source/origin" in splits:
        found.append(entries.seen_of(str(splits["source/origin"]), splits["source/train"]))
    weights = settings_of_run["model"]["weights"]
    if weights and (Path(weights).parent / "seen.npz").is_file():
        found += entries.read_seen(Path(weights).parent)
    return tuple(found)


def trained(config: Config, directory: Path, rows: Dataset) -> tuple[Variables, Any]:
    """The variables of a config's network, pretrained on these rows or restored; and the network."""
    example = rows.train_x[:1]
    network = networks.build(config.model, len(rows.class_names), example)
    if config.model.weights:
        loaded = networks.restore(config.model, network, example, with_head=True, data_dir=config.data_dir)
        return loaded.variables, network
    phases.split(rows, config.pretrain, config.seed)  # refused before there is a directory
    phases.open_workdir(config, directory)
    nets = phases.Networks(network, network, None)
    key = phases.make_keys(config.seed).pretrain
    return phases.pretrain(config, directory, key, nets, phases.Loaded(rows, rows, rows.note)), network


def _add(
    library: Path,
    name: str,
    network: Any,
    variables: Variables,
    rows: Dataset,
    seen: tuple[entries.Seen, ...],
    about: Mapping[str, Any],
    model: Any,
    sample: int,
) -> Format:
    """One entry, whole or not at all; the library is made first where there is none."""
    format = library_for(library, rows.train_x)
    with store.staged(library, name) as folder:
        model(folder / "model")
        entries.write(
            format,
            folder,
            name,
            network,
            variables,
            Sources(rows.train_x, rows.test_x, rows.test_y, seen, rows.train_groups, rows.test_groups),
            about,
            sample=sample,
        )
    return format


def refuse_early(library: Path, name: str, rows: Dataset, sample: int) -> None:
    """Refuses before a network is trained or run what would be refused after it.

    Raises:
      ValueError: a name that is taken, no readable library, rows that are not of its format or fewer than its bins, a negative
        sample.
    """
    if sample < 0:
        raise ValueError(f"sample = {sample}; expected 0 (no row leaves its owner) or more")
    if (Path(library) / settings.FILE).exists():
        store.refuse_taken(Path(library), name)
        format = settings.read(library)
    else:
        settings.refuse_foreign(Path(library))
        format = settings.format_for(rows.train_x.shape[1:])
    settings.adapted(format, rows.train_x[:1], name="the entry's data")
    entries.refuse_few(format, rows.train_x, rows.test_x)


def library_for(library: Path, x: np.ndarray) -> Format:
    """The library's format; where there is no library, one is made for such rows, whose median distance is its scale."""
    if (Path(library) / settings.FILE).exists():
        return settings.read(library)
    centre = 0.5 if x.ndim == 4 else float(np.float32(x.mean()))
    format = settings.format_for(x.shape[1:], centre=centre)
    scale = sketching.scale_of(sketching.input_vectors(format, x))
    try:
        return settings.create(Path(library), format._replace(scale=scale))
    except ValueError:
        if (Path(library) / settings.FILE).exists():  # someone else's first entry was faster
            return settings.read(library)
        raise


def refuse_table(data: Data) -> None:
    """Tables are brought to rows by a map that is fitted to each of them, so those of two entries don't compare."""
    if data.name.startswith(("csv:", "parquet:")):
        raise ValueError(
            f"{data.name} is a table, whose map to rows is its own: rows of two entries would not compare. A library holds "
            "images, or rows of numbers (npz:)"
        )


def in_shape(rows: Dataset, shape: Any) -> Dataset:
    """The data in the format that a network takes."""
    train, test = (
        settings.to_shape(x, shape, name="its data", wanted="the network takes")[0] for x in (rows.train_x, rows.test_x)
    )
    return rows._replace(train_x=train, test_x=test)


def accuracy(network: Any, variables: Variables, rows: Dataset) -> dict[str, Any]:
    """On held-out rows of what it was trained for, with its interval."""
    predicted = inference.log_probabilities(network, variables, rows.test_x).argmax(-1)
    right = predicted == rows.test_y
    interval = evaluation.binomial(right, 0.95, groups=rows.test_groups)
    return {"accuracy": float(right.mean()), "interval": interval, "num_test": len(right)}


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the folder in which its owner keeps data."""
    return {name: value for name, value in config.items() if name != "data_dir"}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def copy(model: Path, folder: Path) -> None:
    """The files of a model/ folder, links refused."""
    for name in store.files_of(model):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, folder / name)
