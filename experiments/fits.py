"""Fits that survive a kill: a plan carried out at every learning rate of a grid, each stage resumable."""

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import checkpoints, workdir
from experiments.config import Training
from experiments.features import KeepFor
from experiments.progress import progress, track
from mmd_jax.models.layered import Network
from mmd_jax.transfer import finetune
from mmd_jax.transfer.augment import Augmentation
from mmd_jax.transfer.finetune import FitState, Prepared
from mmd_jax.transfer.freezing import check_frozen
from mmd_jax.transfer.recipe import Recipe, schedule
from mmd_jax.types import Plan, Rows, Variables


class Arm(NamedTuple):
    """One way of training on the target: a plan carried out at every learning rate of the grid.

    Attributes:
      plan: what was carried out.
      variables: of the rate with the lowest validation loss.
      learning_rate: that rate.
      valid_loss: its validation loss, nats a row.
      frozen_unchanged: whether frozen leaves are bit-identical; none where nothing is frozen.
    """

    plan: Plan
    variables: Variables
    learning_rate: float
    valid_loss: float
    frozen_unchanged: bool | None


def adapt(
    directory: Path,
    name: str,
    key: jax.Array,
    network: Network,
    variables: Variables,
    plan: Plan,
    train: Rows,
    valid: Rows,
    training: Training,
    *,
    checkpoint_seconds: float,
    keep_for: KeepFor | None = None,
) -> Arm:
    """Carries out a plan at every learning rate of the grid and keeps the one with the lowest validation loss.

    Each stage of each rate is a resumable fit of its own under checkpoints/. `keep_for` keeps what frozen layers make of
    the rows from run to run. A rate whose loss does not stay finite is left out, and named on stderr.

    Raises:
      NonFiniteLossError: no rate's loss stays finite.
    """
    settings = recipe(training)
    rows = digest({"train": train, "valid": valid})

    def prepare(number: int, current: Variables) -> Prepared:
        keep: dict[str, Any] = {} if keep_for is None else {"keep": keep_for(network, current, plan.stages[number])}
        return finetune.prepare(
            jax.random.fold_in(key, number),
            network,
            current,
            plan.stages[number],
            train,
            valid,
            recipe=settings,
            watch=lambda batches: track(batches, f"{name}: outputs of the frozen layers"),
            **keep,
        )

    first = prepare(0, variables)  # the same for every rate

    def carried_out(rate: float) -> FitState:
        current = first.variables
        for number, stage in enumerate(plan.stages):
            prepared = first if number == 0 else prepare(number, current)
            state = resumable_fit(
                directory,
                f"{name}-rate{rate:g}-stage{number}",
                network,
                prepared,
                finetune.begin_fit(network, prepared, learning_rate=rate, recipe=settings),
                settings,
                about={
                    "plan": workdir.plain(plan),
                    "stage": number,
                    "frozen": prepared.frozen,
                    "start": digest(prepared.variables),
                    "rows": rows,
                },
                seconds=checkpoint_seconds,
            )
            check_frozen(prepared.frozen, state.best, stage)
            current = state.best
        return state

    outcomes, diverged = [], []
    for rate in training.learning_rates:
        try:
            state = carried_out(rate)
        except finetune.NonFiniteLossError as error:
            diverged.append(error)
            print(f"warning: learning rate {rate:g} is left out: {error}", file=sys.stderr)
        else:
            outcomes.append((float(state.best_loss), rate, state.best))
    if not outcomes:
        raise diverged[-1]
    loss, rate, best = min(outcomes, key=lambda outcome: outcome[0])
    frozen = any(stage.frozen for stage in plan.stages)
    return Arm(plan, best, rate, loss, True if frozen else None)


def digest(tree: Any) -> str:
    """One sha256 of all leaves and their names."""
    return hashlib.sha256(json.dumps(checkpoints.tree_hashes(tree)).encode()).hexdigest()


def resumable_fit(
    directory: Path,
    name: str,
    network: Network,
    prepared: Prepared,
    state: FitState,
    settings: Recipe,
    *,
    about: Mapping[str, Any],
    seconds: float,
    keep: int = 2,
) -> FitState:
    """Goes on from the newest good checkpoint of this fit, or from `state`, to the end of the stage; `keep` of them stay."""
    folder, log = directory / "checkpoints" / name, directory / "metrics.jsonl"

    def template(there: Mapping[str, Any]) -> FitState:
        # Asked before the leaves are compared: another plan has other leaves in its optimizer.
        if there != about:
            raise ValueError(
                f"{folder} was trained under another plan than the one in decision.json, from other weights or on other "
                "rows; start again in a new work directory"
            )
        return state

    restored = checkpoints.restore(folder, template)
    for message in restored.skipped:
        print(f"warning: {message}", file=sys.stderr)
    if restored.step is not None:
        state = restored.tree
    workdir.cut_metrics(log, fit=name, step=restored.step or 0)

    total = schedule(len(prepared.train.y), settings)[0]
    show, saved, step = progress(name, total), time.monotonic(), int(state.train.step)
    first = step

    def save(state: FitState) -> None:
        checkpoints.save(folder, int(state.train.step), state, about, keep=keep)

    try:
        chunks = finetune.fit(network, prepared, state, recipe=settings)
        for state, row in chunks:
            workdir.append_metrics(log, {"fit": name, **row})
            step = int(row["step"])
            show(step, f"loss {row['loss']:.4f}  validation {row['valid_loss']:.4f}")
            if time.monotonic() - saved > seconds:
                save(state)
                saved = time.monotonic()
    except finetune.NonFiniteLossError as error:
        save(state)
        raise finetune.NonFiniteLossError(f"{name}: {error}; the last good state is kept in {folder}") from None
    finally:
        show(step, None)
    if step > first or restored.step is None:
        save(state)
    return state


def recipe(training: Training) -> Recipe:
    """The settings of the core that a config's training section stands for."""
    same = {name: getattr(training, name) for name in Recipe._fields if name != "augmentation"}
    return Recipe(**same, augmentation=Augmentation(**asdict(training.augment)))
