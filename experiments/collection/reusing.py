"""An entry reused: its network, and sketches in the place of source rows, through the phases of the main job."""

import sys
from dataclasses import replace
from pathlib import Path

import jax

from experiments import phases, results
from experiments.collection import entries, settings, sketching, store
from experiments.collection.entries import Entry
from experiments.collection.settings import Format
from experiments.config import Config, Data, Model, from_json
from experiments.config import check as check_config
from experiments.measure import Measurement
from experiments.networks import INPUTS
from experiments.phases import Loaded, Networks
from experiments.plans import is_audited, similarity_known
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.two_sample.feature_tests import sketch_test
from mmd_jax.types import Variables

NOTE = (
    "The library holds no source rows: each test compares a sketch of them with a sketch of the target's training rows, in the "
    "library's kernel, by permuting bins of rows."
)


def config_for(library: Path, name: str, target: Data) -> Config:
    """The settings with which an entry is reused: its network, no source, and how it was trained itself."""
    folder = store.path_of(library, name)
    store.check(folder)
    about = entries.read_about(folder)
    default = Config()
    model = Model(**from_json({**about["config"]["model"], "weights": str(folder / "model")}))
    return replace(default, name=f"{name}_reused", source=None, target=target, model=model)


def run(config: Config, library: Path, name: str, directory: Path, command: str) -> None:
    """One reuse, up to result.json (or to the plan, where no more is asked); the same call again goes on where it stopped.

    Raises:
      ValueError: a damaged entry, a target that its network can't take, and what the phases refuse.
    """
    check_config(config)
    format = settings.read(library)
    entry = entries.read(library, name)
    network, variables, description = entries.load_network(entry)
    clock = phases.Clock()
    with clock("load"):
        data = phases.load(config)
        target, note = fitted(data.target, description["input"]["shape"], name=config.target.name)
        notes = [data.note, note]
        if known := entries.seen_among(entry, target.origins[1], target.test_rows):
            notes.append(
                f"The network of {name} was trained on {known} of the {len(target.test_rows)} rows that the target is tested on: "
                "its accuracy is too favourable. Choose other classes, another part, or the seed of the entry's split."
            )
            print(f"warning: {notes[-1]}", file=sys.stderr)
        data = Loaded(None, target, " ".join(filter(None, notes)))
        nets = phases.build(config, data)
    phases.open_workdir(config, directory)
    phases.save_splits(directory, data)
    phases.save_tensors(config, directory, nets)
    keys = phases.make_keys(config.seed)
    with clock("measure"):
        pretrained = phases.pretrain(config, directory, keys.pretrain, nets, data)
        if not (directory / "decision.json").exists():
            decide(config, directory, keys.measure, nets, pretrained, (network, variables), entry, format, data)
        decided = results.read_decided(directory)
    print(f"{decided.similarity.evidence}\n{decided.plan.reason}\nRegime: {decided.plan.regime}")
    if config.until == "plan":
        print(phases.costs(config, directory, keys.adapt, nets, decided.plan, data))
        return
    with clock("reuse"):
        chosen = phases.reuse(config, directory, keys.adapt, nets, pretrained, decided.plan, data)
    with clock("from_scratch"):
        scratch = phases.from_scratch(config, directory, keys.adapt, nets, chosen, data)
    with clock("evaluate"):
        outcome = phases.evaluate(config, nets.target, chosen, scratch, data)
    phases.save_model(config, directory, nets.target, chosen, outcome, data)
    results.write(config, directory, decided, chosen, scratch, outcome, clock.seconds, command)


def fitted(target: Dataset, shape: list[int], *, name: str) -> tuple[Dataset, str]:
    """The target in the format that the network takes, and what was done."""
    train, note = settings.to_shape(target.train_x, shape, name=name, wanted="the network takes")
    test, _ = settings.to_shape(target.test_x, shape, name=name, wanted="the network takes")
    return target._replace(train_x=train, test_x=test), note


def decide(
    config: Config,
    directory: Path,
    key: jax.Array,
    nets: Networks,
    variables: Variables,
    trained: tuple[Network, Variables],
    entry: Entry,
    format: Format,
    data: Loaded,
) -> None:
    """The tests by sketches, what they say of P = Q, and the plan; written to decision.json."""
    measurement = measure(config, key, trained, entry, format, data.target)
    where = config.decision.representation
    if where != INPUTS and where not in measurement.layers:
        raise ValueError(
            f"decision.representation = {where!r}; the entry has sketches of {', '.join((INPUTS, *measurement.layers))}"
        )
    if is_audited(config):
        similarity = similarity_known(config, measurement, None)
        plan = phases.audited(config, directory, nets, variables, data)
    else:
        similarity, plan = phases.decide(config, nets.target, variables, data, measurement, None)
    results.write_decided(directory, measurement, None, similarity, plan, data)


def measure(
    config: Config, key: jax.Array, trained: tuple[Network, Variables], entry: Entry, format: Format, target: Dataset
) -> Measurement:
    """The entry's sketches against the target's, at the inputs and at each of its layers."""
    x, _ = settings.adapted(format, target.train_x, name=config.target.name)
    if len(x) < format.bins:
        raise ValueError(
            f"{config.target.name} has {len(x)} training rows; a test by sketches needs {format.bins} at least"
        )
    keys = jax.random.split(key, 3)
    inputs = sketching.sketch_inputs(format, keys[0], x, target.train_groups)
    layers = sketching.sketch_layers(format, keys[1], *trained, target.train_x, entry.places, target.train_groups)
    pairs = {INPUTS: (entry.inputs, inputs)} | {layer: (entry.layers[layer], layers[layer]) for layer in entry.places}
    found = {
        name: sketch_test(
            jax.random.fold_in(keys[2], number),
            *map(sketching.joined, pair),
            alpha=config.test.alpha,
            num_permutations=config.test.permutations,
            return_null=True,
        )
        for number, (name, pair) in enumerate(pairs.items())
    }
    sizes = sketching.rows_behind(entry.inputs), sketching.rows_behind(inputs)
    return Measurement(found.pop(INPUTS), found, sizes[0], sizes[1], NOTE)
