"""The phases of a run, in the order in which a script calls them; each takes values and gives values.

What must outlive a kill is written to the work directory by the phase that makes it, so that the same command goes on
where the last one stopped.
"""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checkpoints, evaluation, networks, results, sources, workdir
from experiments.auditing.arms import Ground, ground
from experiments.auditing.contest import hold
from experiments.auditing.summary import about_contest, summarise, winning_plan
from experiments.config import Config, Training, wants_verdict
from experiments.costs import plan_cost, table
from experiments.datasets.select import split_rows
from experiments.features import KeepFor, on_disk
from experiments.fits import Arm, adapt, recipe
from experiments.measure import Measurement, measure
from experiments.measure import check as check_inputs
from experiments.networks import INPUTS
from experiments.plans import RULES, cached, chosen_plan, given_plan, is_audited, similarity_known, ways
from experiments.progress import track
from experiments.verdicts import Judged, judge
from experiments.verdicts import check as check_margin
from mmd_jax.models.layered import Network
from mmd_jax.transfer import decision, inference
from mmd_jax.transfer.prefix import num_prefix, prefix_rows
from mmd_jax.types import Plan, Rows, Similarity, Variables

# Settings that a second command may change without becoming another run.
NOT_THE_RUN = ("until", "data_dir", "checkpoint_seconds")


class Loaded(NamedTuple):
    """Both data sets in one format.

    Attributes:
      source: none where only the network's weights are known.
      target: the new data.
      note: what was done to bring them to one format, for the report.
    """

    source: sources.Dataset | None
    target: sources.Dataset
    note: str


class Tensors(NamedTuple):
    """What became of the tensors of a weight file.

    Attributes:
      matched: (path of a leaf, name of its tensor).
      fresh: paths of leaves that have no tensor and keep their own value: those of a last layer for other classes.
      left_over: names of tensors that are not used.
    """

    matched: tuple[tuple[str, str], ...]
    fresh: tuple[str, ...]
    left_over: tuple[str, ...]


class Networks(NamedTuple):
    """The network twice, with a last layer for the source's classes and with one for the target's.

    Attributes:
      source: as it was (or will be) trained on the source; the target's where there is no source.
      target: as it will be fine-tuned.
      restored: the weights that the config names, for `source`; none where the network is pretrained here.
      tensors: what became of each of their tensors.
    """

    source: Network
    target: Network
    restored: Variables | None
    tensors: Tensors | None = None


class Keys(NamedTuple):
    """One key a phase. Reuse and from-scratch share `adapt`: the same order of the data, fresh weights from the same key."""

    pretrain: jax.Array
    measure: jax.Array
    adapt: jax.Array


class Clock:
    """Seconds by phase: `with clock("load"): …`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[phase] = round(time.monotonic() - start, 3)


def make_keys(seed: int) -> Keys:
    """The keys of a run."""
    return Keys(*jax.random.split(jax.random.key(seed), len(Keys._fields)))


def load(config: Config) -> Loaded:
    """Reads source and target and brings them to the source's format (the network was trained on it)."""
    places: dict[str, Any] = {"seed": config.seed, "data_dir": config.data_dir}
    table = networks.table_of(config.model)
    if config.source is None:
        target = sources.load(config.target, **places, table=table)
        return Loaded(None, target, target.note)
    source = sources.load(config.source, **places, table=table)
    target = sources.load(config.target, **places, table=source.table)
    shared, met = shared_rows(source, target), 0
    if config.source.group_key == config.target.group_key:
        met = shared_groups(source, target)
    source, target, note = sources.common_format(source, target)
    warnings = []
    if shared:
        warnings.append(
            f"Source and target have {shared} rows in common: the test of P = Q and both accuracies are too favourable to "
            "reuse. Choose disjoint classes or parts."
        )
    if met:
        warnings.append(
            f"{met} groups ({config.target.group_key}) that the target is tested on are among the source's training rows: what "
            "is common to a group is known to the source, and accuracies of what is reused are too favourable. Two files hold "
            "out the same groups only if both have the very same ones."
        )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
        note = f"{note} {warning}".strip()
    return Loaded(source, target, note)


def with_table(config: Config, data: Loaded) -> Config:
    """The config with what a table's map says of its rows: how many categories each of the last columns has."""
    table = data.target.table
    if table is None:
        return config
    if config.model.categories not in ((), table.sizes):
        raise ValueError(
            f"model.categories = {config.model.categories}, but the table's columns have {table.sizes}; leave it empty"
        )
    return replace(config, model=replace(config.model, categories=table.sizes))


def shared_rows(source: sources.Dataset, target: sources.Dataset) -> int:
    """How many rows stand in both, for training or for testing; those of sets of other origins can't be compared."""
    shared = 0
    for origin in {*source.origins} & {*target.origins}:
        ours, theirs = (
            np.concatenate([rows for o, rows in zip(d.origins, (d.train_rows, d.test_rows)) if o == origin])
            for d in (source, target)
        )
        shared += len(np.intersect1d(ours, theirs))
    return shared


def shared_groups(source: sources.Dataset, target: sources.Dataset) -> int:
    """How many groups of the target's test rows have rows that train the source, by their names; 0 where there are no names."""
    found = []
    for data, groups in ((source, source.train_groups), (target, target.test_groups)):
        if data.group_names is None or groups is None:
            return 0
        found.append({data.group_names[g] for g in np.unique(groups)})
    return len(found[0] & found[1])


def build(config: Config, data: Loaded) -> Networks:
    """Builds and restores the network, and refuses settings that don't fit it or the data."""
    example = data.target.train_x[:1]
    target = networks.build(config.model, len(data.target.class_names), example)
    source = target if data.source is None else networks.build(config.model, len(data.source.class_names), example)

    settings, test = config.decision, config.test
    if settings.rule not in RULES:
        raise ValueError(f"decision.rule = {settings.rule!r}; there are {', '.join(RULES)}")
    if settings.regime and settings.regime not in decision.REGIMES:
        raise ValueError(f"decision.regime = {settings.regime!r}; there are {', '.join(decision.REGIMES)}")
    seen = jax.eval_shape(lambda x: source.features(source.init(jax.random.key(0), x), x), example)
    representations = (INPUTS, *(name for name in source.layers if name in seen))
    if settings.representation not in representations:
        raise ValueError(
            f"decision.representation = {settings.representation!r}; there are {', '.join(representations)}"
        )
    if settings.num_frozen is not None and not 0 <= settings.num_frozen < len(target.layers):
        raise ValueError(
            f"decision.num_frozen = {settings.num_frozen}; the network has {len(target.layers)} layers and its last is "
            f"always new: expected 0 … {len(target.layers) - 1}"
        )
    if unknown := [name for name in settings.frozen if name not in target.layers[:-1]]:
        raise ValueError(
            f"decision.frozen names {unknown[0]!r}; expected some of {', '.join(target.layers[:-1])} (the last layer, "
            f"{target.layers[-1]}, is always new)"
        )
    if data.source is not None:
        m, n = (min(len(y), test.max_rows) for y in (data.source.test_y, data.target.train_y))
        if test.resampling == "wild_bootstrap" and m != n:
            raise ValueError(
                f"test.resampling = 'wild_bootstrap' swaps pairs and needs as many source rows as target rows, but there "
                f"are m = {m} and n = {n}; set test.max_rows to at most {min(m, n)}, or use 'permutation'"
            )
        check_inputs(config, make_keys(config.seed).measure, data.source, data.target)
        check_margin(config, make_keys(config.seed).measure, data.source, data.target)
    for training, rows in ((config.pretrain, data.source), (config.train, data.target)):
        if rows is not None:
            split(rows, training, config.seed)
    if not config.model.weights:
        return Networks(source, target, None)
    known = data.source is not None
    loaded = networks.restore(config.model, source, example, with_head=known, data_dir=config.data_dir)
    return Networks(source, target, loaded.variables, Tensors(loaded.matched, loaded.missing, loaded.left_over))


def open_workdir(config: Config, directory: Path) -> None:
    """Makes the work directory, or opens the one that this config started."""
    # The audit's budget belongs to the runs that have one.
    ignore = NOT_THE_RUN if is_audited(config) else (*NOT_THE_RUN, "audit")
    workdir.open_workdir(directory, config, ignore=ignore)


def save_splits(directory: Path, data: Loaded) -> None:
    """Keeps which rows of each data set were for training and which for testing, and what the source's are numbered in."""
    arrays = {
        f"{name}/{part}": rows
        for name, rows_of in (("source", data.source), ("target", data.target))
        if rows_of is not None
        for part, rows in (("train", rows_of.train_rows), ("test", rows_of.test_rows))
    }
    if data.source is not None:
        arrays["source/origin"] = np.array(data.source.origins[0])
    workdir.write_npz(directory / "splits.npz", arrays)


def save_tensors(config: Config, directory: Path, nets: Networks) -> None:
    """Keeps what became of every tensor of the weights that the config names, in tensors.json; says how many on stdout."""
    if nets.tensors is None:
        return
    matched, fresh, left_over = nets.tensors
    workdir.write_json(directory / "tensors.json", nets.tensors._asdict())
    print(
        f"Weights {config.model.weights}: {len(matched)} tensors matched, {len(fresh)} leaves fresh, {len(left_over)} left over"
    )


def split(data: sources.Dataset, training: Training, seed: int) -> tuple[Rows, Rows]:
    """Training and validation rows, stratified or by whole groups."""
    kept, held = held_out(data, training, seed)
    return Rows(data.train_x[kept], data.train_y[kept]), Rows(data.train_x[held], data.train_y[held])


def held_out(data: sources.Dataset, training: Training, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which training rows are kept, and which are held out for validation."""
    return split_rows(data.train_y, data.train_groups, fraction=training.validation_fraction, seed=seed)


def pretrain(config: Config, directory: Path, key: jax.Array, nets: Networks, data: Loaded) -> Variables:
    """The network as the source left it: restored, or trained on the source here."""
    if nets.restored is not None:
        return nets.restored
    assert data.source is not None
    stages = decision.stages_of("from_scratch", nets.source.layers)
    plan = Plan("given", "from_scratch", stages, "Pretraining on the source.")
    rows = split(data.source, config.pretrain, config.seed)
    arm = adapt(
        directory,
        "pretrain",
        key,
        nets.source,
        {},
        plan,
        *rows,
        config.pretrain,
        checkpoint_seconds=config.checkpoint_seconds,
    )
    return arm.variables


def measure_and_decide(
    config: Config, directory: Path, key: jax.Array, nets: Networks, variables: Variables, data: Loaded
) -> results.Decided:
    """The tests, what they say of P = Q, and the plan; made once and kept in decision.json, which a resumed run reads."""
    if (directory / "decision.json").exists():
        return results.read_decided(directory)
    measurement = (
        None if data.source is None else measure(config, key, nets.source, variables, data.source, data.target)
    )
    judged = None
    if measurement is not None and wants_verdict(config):
        assert data.source is not None
        judged = judge(config, key, nets.source, variables, data.source, data.target, measurement)
    if is_audited(config):
        similarity = similarity_known(config, measurement, judged)
        plan = audited(config, directory, nets, variables, data)
    else:
        similarity, plan = decide(config, nets.target, variables, data, measurement, judged)
    results.write_decided(directory, measurement, judged, similarity, plan, data)
    return results.read_decided(directory)


def decide(
    config: Config,
    network: Network,
    variables: Variables,
    data: Loaded,
    measurement: Measurement | None,
    judged: Judged | None,
) -> tuple[Similarity, Plan]:
    """What is known of P = Q, and the plan that the user named or that a rule makes of it."""
    similarity = similarity_known(config, measurement, judged)
    return similarity, chosen_plan(config, network, similarity, data.target)


def audited(config: Config, directory: Path, nets: Networks, variables: Variables, data: Loaded) -> Plan:
    """The way that wins on the target's training rows, some of which are held out for that; audit.json has them all."""
    place = audit_ground(config, directory, nets, variables, data)
    contest = hold(place, ways(config, nets.target, data.target), config.audit)
    workdir.write_json(directory / "audit.json", summarise(about_contest(place), contest))
    return winning_plan(contest)


def audit_ground(config: Config, directory: Path, nets: Networks, variables: Variables, data: Loaded) -> Ground:
    """What the ways of an audit stand on: the rows and the key that `reuse` will have."""
    groups = data.target.train_groups
    return ground(
        directory,
        make_keys(config.seed).adapt,
        nets.target,
        variables,
        *split(data.target, config.train, config.seed),
        config.train,
        checkpoint_seconds=config.checkpoint_seconds,
        keep_for=kept_features(config),
        valid_groups=None if groups is None else groups[held_out(data.target, config.train, config.seed)[1]],
    )


def costs(config: Config, directory: Path, key: jax.Array, nets: Networks, chosen: Plan, data: Loaded) -> str:
    """Estimates the time and memory of the chosen plan and of every regime; a table, kept in costs.json too."""
    train, _ = split(data.target, config.train, config.seed)
    variables = jax.jit(nets.target.init)(key, jnp.asarray(train.x[:1]))
    plans = {chosen.regime: chosen} | {
        regime: cached(config, nets.target, given_plan(config, nets.target, regime, "An estimate."), data.target)
        for regime in decision.REGIMES
        if regime != chosen.regime
    }
    measured = [
        plan_cost(nets.target, variables, plan, train, recipe(config.train), num_rates=len(config.train.learning_rates))
        for plan in track(plans.values(), "cost of each regime")
    ]
    workdir.write_json(directory / "costs.json", measured)
    return table(measured)


def reuse(
    config: Config, directory: Path, key: jax.Array, nets: Networks, variables: Variables, plan: Plan, data: Loaded
) -> Arm:
    """Carries out the plan on the target."""
    name = "from_scratch" if plan.regime == "from_scratch" else "reuse"
    rows = split(data.target, config.train, config.seed)
    return adapt(
        directory,
        name,
        key,
        nets.target,
        variables,
        plan,
        *rows,
        config.train,
        checkpoint_seconds=config.checkpoint_seconds,
        keep_for=kept_features(config),
    )


def kept_features(config: Config) -> KeepFor | None:
    """How the outputs of frozen layers are kept from run to run; none where the weights are this run's own, or the user's
    own code makes of them what no file says."""
    if not config.model.weights or config.model.factory:
        return None
    about = asdict(config.model)
    return on_disk(Path(config.data_dir).expanduser() / "cache" / "features", about, precision=config.train.precision)


def from_scratch(config: Config, directory: Path, key: jax.Array, nets: Networks, chosen: Arm, data: Loaded) -> Arm:
    """The comparison: the same target, augmentation, grid, validation rows and stopping rule, from fresh weights."""
    if chosen.plan.regime == "from_scratch":
        return chosen
    augment = any(stage.augment for stage in chosen.plan.stages)
    plan = given_plan(config, nets.target, "from_scratch", "The comparison.", augment=augment)
    plan = cached(config, nets.target, plan, data.target)
    return reuse(config, directory, key, nets, {}, plan, data)


def evaluate(config: Config, network: Network, chosen: Arm, scratch: Arm, data: Loaded) -> results.Outcome:
    """Both arms on the target's test rows, as pairs."""
    target = data.target
    arms = (("reuse", chosen), ("from scratch", scratch))
    logs = [test_log_probabilities(config, network, arm, target, name) for name, arm in arms]
    reused, scratched = (found.argmax(-1) for found in logs)
    odds = (logs[0][:, 1] - logs[0][:, 0], logs[1][:, 1] - logs[1][:, 0]) if logs[0].shape[1] == 2 else None
    accuracy = evaluation.compare(target.test_y, reused, scratched, target.test_groups, scores=odds)
    return results.Outcome(accuracy, target.test_y, reused, scratched)


def test_log_probabilities(
    config: Config, network: Network, arm: Arm, target: sources.Dataset, name: str
) -> np.ndarray:
    """Of the target's test rows, [n, classes]; what frozen layers make of them is kept where it is kept in training."""
    precision, stage, keep_for = config.train.precision, arm.plan.stages[-1], kept_features(config)

    def watch(batches: Iterable[int]) -> Iterator[int]:
        return track(batches, f"test rows, {name}")

    rows, start = Rows(target.test_x, target.test_y), 0
    if keep_for is not None and stage.cached:
        start = num_prefix(network, stage)
        compute = partial(prefix_rows, network, arm.variables, stage, precision=precision, watch=watch)
        rows = keep_for(network, arm.variables, stage)(compute, rows)
    return inference.log_probabilities(network, arm.variables, rows.x, start=start, precision=precision, watch=watch)


def save_model(
    config: Config, directory: Path, network: Network, chosen: Arm, outcome: results.Outcome, data: Loaded
) -> None:
    """Writes model/: the fine-tuned network, ready for use."""
    target, reused = data.target, chosen.plan.regime != "from_scratch"
    checkpoints.save_model(
        directory / "model",
        chosen.variables,
        {
            "model": {**asdict(config.model), "weights": ""},
            "layers": network.layers,
            "classes": target.class_names,
            "table": target.table,
            "input": {"shape": target.train_x.shape[1:], "dtype": str(target.train_x.dtype)},
            "trained_for": asdict(config.target),
            "seed": config.seed,
            "precision": config.train.precision,
            "negative_transfer": evaluation.negative_transfer(outcome.accuracy, reused=reused),
        },
    )
