"""One arm of an audit: a candidate at a learning rate, trained on from where it stands to a number of epochs."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import checkpoints, workdir
from experiments.config import Training
from experiments.features import KeepFor
from experiments.fits import digest, recipe, resumable_fit
from experiments.progress import track
from mmd_jax.models.layered import Network
from mmd_jax.transfer import finetune, inference, prefix
from mmd_jax.transfer.finetune import FitState, Keep, Prepared
from mmd_jax.transfer.freezing import check_frozen
from mmd_jax.transfer.recipe import Recipe, schedule
from mmd_jax.types import Plan, Rows, Stage, Variables

PROBE = "linear_probe"  # the candidate that LP-FT begins as


class Arm(NamedTuple):
    """A candidate at a learning rate.

    Attributes:
      way: the candidate's name.
      plan: what it is.
      learning_rate: of new layers.
    """

    way: str
    plan: Plan
    learning_rate: float


class Ground(NamedTuple):
    """What every arm of an audit stands on.

    Attributes:
      directory: the work directory.
      key: the same for all, so that they start from the same head and see the same batches.
      network: with a last layer for the target's classes.
      variables: pretrained.
      train, valid: rows of the target's training split.
      valid_groups: of dependent validation rows, [n]; or none.
      training: the settings; its schedule is held constant, as a fit that may go on can't have come to its end.
      checkpoint_seconds: between two checkpoints of one fit.
      keep_for: keeps the outputs of frozen layers from run to run; or none.
      content: a hash of the rows and weights.
      kept: outputs of frozen prefixes, shared by the candidates that freeze the same layers; filled on the way.
      prepared: stages by (candidate, number, learning rate of the stage before, where there is one); filled on the way.
    """

    directory: Path
    key: jax.Array
    network: Network
    variables: Variables
    train: Rows
    valid: Rows
    valid_groups: np.ndarray | None
    training: Training
    checkpoint_seconds: float
    keep_for: KeepFor | None
    content: str
    kept: dict[Any, Rows]
    prepared: dict[Any, Prepared]


def ground(
    directory: Path,
    key: jax.Array,
    network: Network,
    variables: Variables,
    train: Rows,
    valid: Rows,
    training: Training,
    *,
    checkpoint_seconds: float,
    keep_for: KeepFor | None = None,
    valid_groups: np.ndarray | None = None,
) -> Ground:
    """The ground of an audit, nothing prepared yet."""
    known = {"train": train, "valid": valid, "variables": variables}
    content = digest(known if valid_groups is None else known | {"valid_groups": valid_groups})
    settings = training, checkpoint_seconds, keep_for, content
    return Ground(directory, key, network, variables, train, valid, valid_groups, *settings, {}, {})


def recipe_of(place: Ground, epochs: int) -> Recipe:
    """How arms are trained up to so many epochs; the rate does not depend on how many there will be."""
    return recipe(place.training)._replace(schedule="constant", epochs=epochs)


def trained(place: Ground, arm: Arm, epochs: int, first: int) -> FitState:
    """The arm after so many epochs, or after fewer where its patience ended; nothing is trained twice.

    Args:
      place: what all arms stand on.
      arm: the arm.
      epochs: of its last stage, all that it was trained before among them.
      first: epochs of the stages before, which are as long as the first rung.
    """
    number = len(arm.plan.stages) - 1
    return _fit(place, arm, number, stage_of(place, arm, number, first), epochs)


def stage_of(place: Ground, arm: Arm, number: int, first: int) -> Prepared:
    """A stage before its first step; the stages before it are trained for that, if they are not yet."""
    # What a first stage starts from is the same at every learning rate.
    name = (arm.way, number, arm.learning_rate if number else None)
    if name not in place.prepared:
        variables = place.variables
        if number:
            variables = _fit(place, arm, number - 1, stage_of(place, arm, number - 1, first), first).best
        place.prepared[name] = prepare(place, arm.plan, number, variables)
    return place.prepared[name]


def prepare(place: Ground, plan: Plan, number: int, variables: Variables) -> Prepared:
    """A stage of a plan, from these variables."""
    stage = plan.stages[number]
    return finetune.prepare(
        jax.random.fold_in(place.key, number),
        place.network,
        variables,
        stage,
        place.train,
        place.valid,
        recipe=recipe_of(place, 1),
        watch=lambda batches: track(batches, "audit: outputs of the frozen layers"),
        keep=kept(place, variables, stage),
    )


def kept(place: Ground, variables: Variables, stage: Stage) -> Keep:
    """Outputs of a frozen prefix, computed for the first candidate that freezes it: its weights are the pretrained ones."""
    layers = prefix_of(place, stage)

    def keep(compute: Callable[[Rows], Rows], rows: Rows) -> Rows:
        name = (layers, id(rows.x))
        if name not in place.kept:
            on_disk = None if place.keep_for is None else place.keep_for(place.network, variables, stage)
            place.kept[name] = compute(rows) if on_disk is None else on_disk(compute, rows)
        return place.kept[name]

    return keep


def prefix_of(place: Ground, stage: Stage) -> tuple[str, ...]:
    """The leading layers that a stage freezes."""
    return place.network.layers[: prefix.num_prefix(place.network, stage)]


def forget(place: Ground, going_on: Collection[Arm]) -> None:
    """Lets go of what only dropped arms need."""
    ways = {arm.way for arm in going_on}
    for name in [name for name in place.prepared if name[0] not in ways]:
        del place.prepared[name]
    needed = {prefix_of(place, stage) for arm in going_on for stage in arm.plan.stages}
    for name in [name for name in place.kept if name[0] not in needed]:
        del place.kept[name]


def _fit(place: Ground, arm: Arm, number: int, prepared: Prepared, epochs: int) -> FitState:
    stage, how = arm.plan.stages[number], recipe_of(place, epochs)
    about = about_fit(place, arm, number, prepared)
    begin = finetune.begin_fit(place.network, prepared, learning_rate=arm.learning_rate, recipe=how)
    name = fit_name(arm, number)
    if number < len(arm.plan.stages) - 1:
        # The classifier of LP-FT is the linear probe's: taken over where that has just been trained.
        begin = _of_probe(place, arm, prepared, begin, how) or begin
    state = resumable_fit(
        place.directory,
        name,
        place.network,
        prepared,
        begin,
        how,
        about=about,
        seconds=place.checkpoint_seconds,
        keep=1,  # there are many arms, and a damaged one costs little
    )
    check_frozen(prepared.frozen, state.best, stage)
    return state


def about_fit(place: Ground, arm: Arm, number: int, prepared: Prepared) -> Mapping[str, Any]:
    """What a checkpoint of the fit was made from."""
    return {
        "plan": workdir.plain(arm.plan.stages),
        "stage": number,
        "frozen": prepared.frozen,
        "start": digest(prepared.variables),
        "rows": place.content,
        "rate": arm.learning_rate,
    }


def log_probabilities(place: Ground, arm: Arm, state: FitState, rows: Rows) -> np.ndarray:
    """Of rows of the target by the arm's best network, [n, classes]."""
    stage, precision, start = arm.plan.stages[-1], place.training.precision, 0
    # Rows that are kept are taken; for others the whole network is one program for all arms.
    if stage.cached and (rows is place.valid or place.keep_for is not None):
        start = len(prefix_of(place, stage))
        compute = partial(prefix.prefix_rows, place.network, place.variables, stage, precision=precision)
        rows = kept(place, place.variables, stage)(compute, rows)
    return inference.log_probabilities(place.network, state.best, rows.x, start=start, precision=precision)


def fit_name(arm: Arm, number: int) -> str:
    """As it stands in metrics.jsonl and under checkpoints/."""
    return f"audit-{arm.way.replace(' ', '_')}-rate{arm.learning_rate:g}-stage{number}"


def _of_probe(place: Ground, arm: Arm, prepared: Prepared, begin: FitState, how: Recipe) -> FitState | None:
    """Where the linear probe stands at this learning rate, if it is the same fit and has gone no further than `how` goes."""
    probe = arm._replace(way=PROBE, plan=arm.plan._replace(stages=arm.plan.stages[:1]))
    about = workdir.plain(about_fit(place, probe, 0, prepared))
    found = checkpoints.restore(place.directory / "checkpoints" / fit_name(probe, 0), begin)
    same = found.step is not None and found.about == about
    return found.tree if same and int(found.tree.train.step) <= schedule(len(place.train.y), how)[0] else None
