"""The networks of a transferability study: what each copies, freezes and trains, and how one is trained and tested."""

import contextlib
import functools
import hashlib
import json
import os
import queue
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checkpoints, networks, workdir
from experiments.cells import Cell
from experiments.config import Model
from experiments.fits import digest
from experiments.study.halves import Half, Split
from experiments.study.settings import NOT_THE_STUDY, Study
from mmd_jax.models.layered import Network
from mmd_jax.transfer import finetune
from mmd_jax.transfer.finetune import FitState, Prepared
from mmd_jax.transfer.freezing import check_frozen
from mmd_jax.transfer.objectives import validate
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.transfer.profile import layer_features, mmd_profile
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.together import fit_together
from mmd_jax.types import Plan, Stage, Variables

VERSION = 1  # raised where a change here changes a network's numbers
FROZEN = ("AnB", "BnB", "random")  # the treatments whose copied layers stand still
CACHE_BYTES = 4e9  # of the cached rows of all networks in a batch

Row = dict[str, Any]


class Task(NamedTuple):
    """One network of the study, or one distance; what a cell of the grid stands for.

    Attributes:
      split: the two halves.
      target: the half, "A" or "B", that it is trained on last, and tested on.
      seed: from 0.
      treatment: "base", "long", "AnB", "BnB", "AnB+", "BnB+", "random", or "distance". AnB copies from the other half's
        base, whichever half is the target; BnB from the target's own.
      n: how many layers are copied (or frozen at random); 0 for base, long and distance.
    """

    split: Split
    target: str
    seed: int
    treatment: str
    n: int = 0

    @property
    def name(self) -> str:
        """Unique in the study."""
        number = f" {self.n}" if self.n else ""
        return f"{self.split.kind} {self.split.number} / {self.target} / seed {self.seed} / {self.treatment}{number}"

    @property
    def other(self) -> str:
        """The half that is not the target."""
        return "B" if self.target == "A" else "A"


def bases(study: Study, splits: Sequence[Split]) -> list[Task]:
    """The networks that the others start from: one a half and seed."""
    return [Task(split, half, seed, "base") for split in splits for seed in range(study.seeds) for half in "AB"]


def transfers(study: Study, splits: Sequence[Split], num_layers: int) -> list[Task]:
    """All others, split by split.

    Raises:
      ValueError: a cut beyond the last layer but one.
    """
    if num_layers < 2:
        raise ValueError("the network has one layer, which is always new: nothing can be copied; expected two or more")
    cuts = study.cuts or tuple(range(1, num_layers))
    if max(cuts) >= num_layers:
        raise ValueError(
            f"cuts = {study.cuts}; the network has {num_layers} layers and its last is always new: expected 1 … {num_layers - 1}"
        )
    found = []
    for base in bases(study, splits):
        found += [base._replace(treatment=control) for control in study.controls if control == "long"]
        treatments = (*study.treatments, *(control for control in study.controls if control == "random"))
        found += [base._replace(treatment=treatment, n=n) for treatment in treatments for n in cuts]
        found.append(base._replace(treatment="distance"))
    return found


def cell_of(study: Study, task: Task, num_layers: int, rows: str) -> Cell:
    """The task as a cell of a grid; its row is used again only for the very settings and data it was made with.

    Args:
      study: the settings.
      task: one of its tasks.
      num_layers: of the network, for the cost.
      rows: `digest` of the split's halves.
    """
    kept = {name: value for name, value in workdir.plain(study).items() if name not in NOT_THE_STUDY}
    about = json.dumps([kept, task.split, rows, VERSION], sort_keys=True)
    settings = {
        "kind": task.split.kind,
        "split": task.split.number,
        "target": task.target,
        "seed": task.seed,
        "treatment": task.treatment,
        "n": task.n,
        "study": hashlib.sha256(about.encode()).hexdigest()[:12],
    }
    left = (num_layers - task.n) / num_layers if task.treatment in FROZEN else 1.0
    cost = {"long": 2.0, "distance": 0.2}.get(task.treatment, left**1.5)
    return Cell(task.name, settings, cost)


def stage_of(study: Study, layers: Sequence[str], treatment: str, n: int) -> Stage:
    """What a treatment does with each layer.

    Args:
      study: for `copied_rate` and `keep`.
      layers: of the network.
      treatment: as in `Task`.
      n: the cut.

    Example:
      >>> stage = stage_of(Study(), ("a", "b", "c"), "AnB", 1)
      >>> stage.frozen, stage.trained, stage.reinitialised
      (('a',), (('b', 1.0), ('c', 1.0)), ('b', 'c'))
    """
    frozen = n if treatment in FROZEN else 0
    # At least the last layer is new: it is of other classes.
    copied = min(n + study.keep, len(layers) - 1) if treatment in ("AnB", "BnB") else n
    rates = [study.copied_rate if i < copied else 1.0 for i in range(len(layers))]
    return Stage(
        frozen=tuple(layers[:frozen]),
        trained=tuple(zip(layers[frozen:], rates[frozen:])),
        reinitialised=tuple(layers[copied:]),
    )


def recipe_of(study: Study, treatment: str) -> Recipe:
    """How it is trained; "long" for as long as a base and a network that is made from it."""
    fit = study.fit
    return Recipe(
        epochs=fit.epochs * (2 if treatment == "long" else 1),
        batch_size=fit.batch_size,
        optimizer=fit.optimizer,
        weight_decay=fit.weight_decay,
        clip_norm=fit.clip_norm,
        precision=fit.precision,
        schedule=fit.schedule,
        warmup_epochs=fit.warmup_epochs,
    )


def program(study: Study, task: Task, half: Half, layers: Sequence[str]) -> Hashable:
    """Tasks that agree in this share one compiled program, and can be trained as one batch."""
    if task.treatment in ("base", "distance"):
        return task.name if task.treatment == "distance" else (half.train.x.shape, len(half.classes), "base")
    stage = stage_of(study, layers, task.treatment, task.n)
    epochs = recipe_of(study, task.treatment).epochs
    return half.train.x.shape, len(half.classes), stage.frozen, stage.trained, epochs


@functools.cache
def _network(model: Model, num_classes: int, shape: tuple[int, ...], dtype: str) -> Network:
    return networks.build(model, num_classes, np.zeros((1, *shape), dtype))


def network_of(study: Study, half: Half) -> Network:
    """The network for a half's classes; the same object each time, so that what it compiles is compiled once."""
    x = half.train.x
    return _network(study.model, len(half.classes), x.shape[1:], str(x.dtype))


class Bases:
    """The trained base networks of a study, in a folder: an .npz file each, known by the hash in its row."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Variables] = {}

    def path(self, task: Task) -> Path:
        """Where a base's weights are."""
        return self._directory / f"{task.split.kind}-{task.split.number}-{task.target}-seed{task.seed}.npz"

    def save(self, task: Task, variables: Variables) -> str:
        """Keeps a base; returns its hash."""
        workdir.write_npz(self.path(task), checkpoints.flatten(variables))
        return digest(variables)

    def there(self, task: Task, row: Mapping[str, Any], template: Variables) -> bool:
        """Whether the weights that the row tells of are there, bit for bit; they are then read."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            variables = checkpoints.fill(template, workdir.read_npz(self.path(task)))
            if digest(variables) == row["digest"]:
                self._known[task.name] = jax.tree.map(np.asarray, variables)
                return True
        return False

    def get(self, task: Task, half: str) -> Variables:
        """The base on one half of this task's split, of its seed."""
        return self._known[task._replace(target=half, treatment="base", n=0).name]


def rate_batch(
    study: Study, tasks: Sequence[Task], halves: Callable[[Split], tuple[Half, Half]], bases: Bases
) -> list[Row]:
    """Trains and tests the networks of one batch (or measures one distance).

    Args:
      study: the settings.
      tasks: that agree in `program`.
      halves: a split → its rows.
      bases: those that the tasks copy from; a base is saved there.

    Returns:
      Of each network {"accuracy", "loss"} on the target's test rows, {"train_accuracy", "train_loss"} over its last chunk,
      and a base's "digest"; of a distance {"mmd2", "pvalue"}, a number a layer.

    Raises:
      NonFiniteLossError: a loss became NaN or infinite; the message names the networks.
      RuntimeError: a frozen leaf changed.
    """
    if tasks[0].treatment == "distance":
        return [distance(study, task, *halves(task.split), bases) for task in tasks]
    own = [_own(task, halves(task.split)) for task in tasks]
    network, recipe = network_of(study, own[0]), recipe_of(study, tasks[0].treatment)
    limit = CACHE_BYTES / len(tasks)
    prepared = [prepare(study, network, task, half, bases, cache_bytes=limit) for task, half in zip(tasks, own)]
    try:
        states, metrics = train(network, prepared, recipe, study.fit.learning_rate)
    except finetune.NonFiniteLossError as error:
        raise finetune.NonFiniteLossError(f"{', '.join(task.name for task in tasks)}: {error}") from None
    rows = []
    for task, half, one, state, last in zip(tasks, own, prepared, states, metrics, strict=True):
        check_frozen(one.frozen, state.best, one.stage)
        tested = validate(network, state.best, half.test, precision=recipe.precision)
        row: Row = {**tested, "train_accuracy": last["accuracy"], "train_loss": last["loss"]}
        if task.treatment == "base":
            row["digest"] = bases.save(task, state.best)
        rows.append(row)
    return rows


def train(
    network: Network, prepared: Sequence[Prepared], recipe: Recipe, learning_rate: float
) -> tuple[list[FitState], list[dict[str, float]]]:
    """Fits of one length to their end: the last states, and the metrics of the last chunk."""
    starts = [finetune.begin_fit(network, one, learning_rate=learning_rate, recipe=recipe) for one in prepared]
    if len(prepared) == 1:
        state, metrics = last(finetune.fit(network, prepared[0], starts[0], recipe=recipe))
        return [state], [metrics]
    return last(fit_together(network, prepared, starts, recipe=recipe))


def last(chunks: Iterable[Any]) -> Any:
    """What a generator yields last; what came before is let go of at once, where `*_, found = chunks` would hold it."""
    found = None
    for chunk in chunks:
        found = chunk
    return found


def prepare(
    study: Study, network: Network, task: Task, half: Half, bases: Bases, *, cache_bytes: float = CACHE_BYTES
) -> Prepared:
    """The network before its first step, with the rows it is trained on.

    All networks of one half, seed and split that are made from a base start from the same new layers and see the same
    batches, so that their differences are those of the treatment. A base's own start is another: to put the layers that it
    began with above the layers that grew with them would undo the re-initialisation that BnB is about.

    Outputs of frozen first layers are computed once, if they need no more than `cache_bytes`.
    """
    keys = keys_of(study, task)
    stage = stage_of(study, network.layers, task.treatment, task.n)
    recipe = recipe_of(study, task.treatment)
    if stage.frozen:
        plan = Plan("given", task.treatment, (stage,), "")
        rows = half.train
        [stage] = with_caching(plan, network, rows.x[:1], num_rows=len(rows.y), limit_bytes=cache_bytes).stages
    variables: Variables = {}
    if task.treatment == "random":
        variables = jax.jit(network.init)(keys.filters, jnp.asarray(half.train.x[:1]))
    elif task.n:
        variables = bases.get(task, task.other if task.treatment.startswith("A") else task.target)
    key = keys.base if task.treatment in ("base", "long") else keys.transfer
    return finetune.prepare(key, network, variables, stage, half.train, None, recipe=recipe)


class Keys(NamedTuple):
    """What is random in the networks of one split, target half and seed."""

    base: jax.Array
    transfer: jax.Array
    filters: jax.Array
    distance: jax.Array


def keys_of(study: Study, task: Task) -> Keys:
    """The keys of a task: a function of the study's seed and of its split, half and seed, whatever the treatment."""
    name = f"{task.split.kind} {task.split.number} {task.target} {task.seed}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return Keys(*jax.random.split(jax.random.fold_in(jax.random.key(study.seed), number), len(Keys._fields)))


def distance(study: Study, task: Task, a: Half, b: Half, bases: Bases) -> Row:
    """MMD² between both halves' held-out rows on each layer of the other half's base, and its p-value.

    Neither sample was trained on, so features of P and Q would be exchangeable if P = Q.
    """
    target, source = (a, b) if task.target == "A" else (b, a)
    network, variables = network_of(study, source), bases.get(task, task.other)
    choose, test = (jax.random.fold_in(keys_of(study, task).distance, i) for i in range(2))
    samples = []
    for number, half in enumerate((source, target)):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(choose, number), len(half.test.y)))
        rows = half.test.x[np.sort(order[: study.distance.max_rows])]
        samples.append(layer_features(network, variables, rows, pooling=study.distance.pooling))
    # Of the p-values only their number is used, so the level of each test doesn't matter.
    results = dict(mmd_profile(test, *samples, alpha=0.5, num_permutations=study.distance.permutations))
    found = [results.get(name) for name in network.layers]
    return {
        "mmd2": [None if result is None else float(result.statistic) for result in found],
        "pvalue": [None if result is None else float(result.pvalue) for result in found],
    }


def _own(task: Task, halves: tuple[Half, Half]) -> Half:
    return halves[0] if task.target == "A" else halves[1]


def retrain_lost(
    study: Study,
    tasks: Sequence[Task],
    rows: Sequence[Row],
    halves: Callable[[Split], tuple[Half, Half]],
    bases: Bases,
) -> None:
    """Reads every base, and trains again those whose weights are lost or changed: they come out the same, bit for bit.

    For that, bases are trained alone, never in a batch, which would round otherwise.

    Raises:
      RuntimeError: they don't, so the rows were made on another machine or by other versions.
    """
    for task, row in zip(tasks, rows, strict=True):
        half = _own(task, halves(task.split))
        network = network_of(study, half)
        template = jax.eval_shape(network.init, jax.random.key(0), jnp.asarray(half.train.x[:1]))
        if bases.there(task, row, template):
            continue
        print(f"warning: {bases.path(task)} is missing or changed; it is trained again", file=sys.stderr)
        rate_batch(study, [task], halves, bases)
        if not bases.there(task, row, template):
            raise RuntimeError(
                f"{bases.path(task)} was trained again and differs from the network that its row tells of; start the study anew "
                "in another work directory, or go on where it was begun"
            )


class Devices:
    """Shares out the devices among the workers: `with devices(): …` runs on the one that has been free for longest."""

    def __init__(self, workers: int | None) -> None:
        there = jax.local_devices()
        alone = len(there) == 1 and there[0].platform == "cpu"
        # One small network doesn't fill two cores.
        self.workers = workers or (min(2, os.cpu_count() or 1) if alone else len(there))
        self._free: queue.Queue[jax.Device] = queue.Queue()
        for number in range(self.workers):
            self._free.put(there[number % len(there)])

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        device = self._free.get()
        try:
            with jax.default_device(device):
                yield
        finally:
            self._free.put(device)
