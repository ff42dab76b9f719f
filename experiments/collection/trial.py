"""Does the ranking foretell what reuse reaches? Every entry of a library on many targets, and each signal beside it."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import phases, sources
from experiments.candidates import candidates
from experiments.collection import adding, entries, settings, sketching, store
from experiments.config import Config, Data, Decision, Model, Training, from_json, load_as
from experiments.config import check as check_run
from experiments.fits import recipe
from experiments.networks import INPUTS, build
from experiments.signals import signals
from experiments.sources import Dataset
from mmd_jax.transfer import finetune, inference
from mmd_jax.two_sample.sketches import sketch_mmd2
from mmd_jax.types import Rows

WAYS = ("linear_probe", "finetune_all full rate")
SCRATCH = "from_scratch"


@dataclass(frozen=True)
class Named:
    """A data set and what it is called."""

    name: str = ""
    data: Data = field(default_factory=Data)


@dataclass(frozen=True)
class Study:
    """Entries × targets × draws of labels."""

    name: str = "library_study"
    entries: tuple[Named, ...] = ()
    targets: tuple[Named, ...] = ()
    labels: int = 200
    """Labelled rows of each target, validation rows among them."""
    seeds: tuple[int, ...] = (0,)
    """Of the draw of these rows, and of training on them."""
    model: Model = field(default_factory=Model)
    pretrain: Training = field(default_factory=Training)
    train: Training = field(default_factory=Training)
    """Of every fit on a target; one learning rate, for new layers and copied ones alike."""
    seed: int = 0
    """Of the entries."""
    data_dir: str = "data"


def load(argv: Sequence[str]) -> tuple[Study, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`; see `experiments.config.load_as`."""
    return load_as(Study, check, argv)


def check(study: Study) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    for kind in ("entries", "targets"):
        names = [one.name for one in getattr(study, kind)]
        if len(names) < 3 or len({*names}) < len(names):
            raise ValueError(
                f"{kind} are called {', '.join(names) or 'nothing'}; expected three or more, all different"
            )
    if len(study.train.learning_rates) != 1:
        raise ValueError(f"train.learning_rates = {study.train.learning_rates}; expected one")
    for entry in study.entries:
        store.check_name(entry.name)
        check_run(config_of(study, entry))


def config_of(study: Study, entry: Named) -> Config:
    """One entry as a config of the main job."""
    return Config(
        name=entry.name,
        source=entry.data,
        target=entry.data,
        model=study.model,
        pretrain=study.pretrain,
        seed=study.seed,
        data_dir=study.data_dir,
        checkpoint_seconds=60,
    )


def build_library(study: Study, directory: Path) -> Path:
    """The library of the study, in its work directory; entries that are there stay."""
    library = directory / "library"
    there = store.names(library) if library.is_dir() else []
    for entry in study.entries:
        if entry.name not in there:
            adding.from_config(library, entry.name, config_of(study, entry), directory / "trained" / entry.name)
            print(f"added {entry.name}", flush=True)
    return library


def load_target(study: Study, target: Named, seed: int) -> Dataset:
    """So many labelled rows, drawn with this seed; the parts of the rows that sources and targets have are the study's."""
    whole = sources.load(target.data, seed=study.seed, data_dir=study.data_dir)
    order = np.random.default_rng([seed, len(whole.train_y)]).permutation(len(whole.train_y))
    each = study.labels // len(whole.class_names)
    rows = np.sort(np.concatenate([order[whole.train_y[order] == c][:each] for c in range(len(whole.class_names))]))
    return whole._replace(
        train_x=whole.train_x[rows],
        train_y=whole.train_y[rows],
        train_rows=whole.train_rows[rows],
        train_groups=None if whole.train_groups is None else whole.train_groups[rows],
    )


def measured(study: Study, library: Path, name: str, target: Dataset, seed: int) -> dict[str, Any]:
    """One entry on one target: what reuse reaches on test rows, and what each signal says before.

    Returns:
      {"accuracy": {way: share of test rows}, "signals": {representation: {signal: value, higher for better}}, "rows": of the
      entry's source, "num_test"}
    """
    format, entry = settings.read(library), entries.read(library, name)
    network, variables, description = entries.load_network(entry)
    shape = description["input"]["shape"]
    x, test_x = (
        settings.to_shape(x, shape, name="the target", wanted="the network takes")[0]
        for x in (target.train_x, target.test_x)
    )
    mine = target._replace(train_x=x, test_x=test_x)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(study.seed), seed), 4)
    classes = len(target.class_names)

    plain = settings.adapted(format, target.train_x, name="the target")[0]
    inputs = sketching.sketch_inputs(format, keys[0], plain)
    layers = sketching.sketch_layers(format, keys[0], network, variables, x, entry.places)
    pairs = {INPUTS: (entry.inputs, inputs)} | {layer: (entry.layers[layer], layers[layer]) for layer in entry.places}
    rows = Rows(x, target.train_y)
    said = signals(keys[1], network, variables, rows, num_classes=classes, groups=target.train_groups)
    found = {where: dict(values) for where, values in said.items()}
    for where, (a, b) in pairs.items():
        found.setdefault(where, {})["near"] = -float(np.mean([sketch_mmd2(*both) for both in zip(a, b)]))
    reached = carried_out(
        study, keys[3], build(Model(**from_json(description["model"])), classes, x[:1]), variables, mine, WAYS
    )
    return {
        "accuracy": reached,
        "signals": found,
        "rows": entry.about["rows"]["trained"],
        "num_test": len(target.test_y),
    }


def scratch(study: Study, target: Dataset, seed: int) -> dict[str, Any]:
    """What training from scratch reaches on a target, in its own format."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(study.seed), seed), 4)
    network = build(study.model, len(target.class_names), target.train_x[:1])
    return {"accuracy": carried_out(study, keys[3], network, {}, target, (SCRATCH,)), "num_test": len(target.test_y)}


def carried_out(
    study: Study, key: jax.Array, network: Any, variables: Any, target: Dataset, ways: Sequence[str]
) -> dict[str, float]:
    """{way: share of test rows that are right} after each of the ways."""
    train, valid = phases.split(target, study.train, study.seed)
    plans = candidates(network, Decision(), augment=False)
    config = replace(config_of(study, study.entries[0]), train=study.train)
    reached = {}
    for way in ways:
        plan = phases.cached(config, network, plans[way], target)
        start = {} if way == SCRATCH else variables
        [rate] = study.train.learning_rates
        settings_of = recipe(study.train)
        chunks = finetune.finetune(key, network, start, plan, train, valid, learning_rate=rate, recipe=settings_of)
        [(state, _)] = collections.deque(chunks, maxlen=1)
        predicted = inference.log_probabilities(network, state.best, target.test_x).argmax(-1)
        reached[way] = float((predicted == target.test_y).mean())
    return reached
