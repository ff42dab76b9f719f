"""The settings of a comparison of strategies: the network and its target, and how each strategy trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.config import Config, Training, load_as
from experiments.config import check as check_run
from mmd_jax.types import Plan

# Settings that a second command may change: it then goes on, with more or fewer cells.
NOT_THE_STUDY = ("name", "labels", "epochs", "run.data_dir", "run.checkpoint_seconds")


@dataclass(frozen=True)
class Strategies:
    """The network and its target, and how each strategy trains."""

    name: str = "strategies"
    run: Config = field(default_factory=Config)
    """Data, model and rules, as in the main job; its `train` is replaced by one of the following."""
    labels: tuple[int, ...] = (400, 2000)
    """Training rows of the target, validation rows among them; each set is stratified by class."""
    frozen_share: float = 0.6
    """Train some, freeze the others: the share of the base's layers that are frozen."""
    probe: Training = field(default_factory=Training)
    """Where only the classifier is trained."""
    finetune: Training = field(default_factory=Training)
    """Where pretrained layers are trained too."""
    scratch: Training = field(default_factory=Training)
    """From scratch."""
    epochs: tuple[int, ...] = ()
    """Of `finetune` and `scratch` at each number of labels; empty: their own at all."""


def load(argv: Sequence[str]) -> tuple[Strategies, Path]:
    """Reads `--config FILE [--workdir DIR] [--field.sub value ...]`; see `experiments.config.load_as`."""
    return load_as(Strategies, check, argv)


def check(study: Strategies) -> None:
    """Refuses values that can't be meant, before anything is loaded or written."""
    check_run(study.run)
    for name in ("probe", "finetune", "scratch"):
        try:
            check_run(replace(study.run, train=getattr(study, name)))
        except ValueError as error:
            raise ValueError(str(error).replace("train.", f"{name}.")) from None
    if not study.labels or min(study.labels) < 2 or len({*study.labels}) < len(study.labels):
        raise ValueError(f"labels = {study.labels}; expected one or more different numbers of rows, each at least 2")
    if len(study.epochs) not in (0, len(study.labels)) or min(study.epochs, default=1) < 1:
        raise ValueError(
            f"epochs = {study.epochs}; expected a positive number for each of labels = {study.labels}, or none"
        )
    decision = study.run.decision
    if decision.regime or decision.frozen or decision.num_frozen is not None or decision.assume is not None:
        raise ValueError(
            "run.decision.regime, .frozen, .num_frozen and .assume choose one plan, but strategies carries out several: leave "
            "them out; frozen_share says how much of the base is frozen where some is"
        )
    if not 0 < study.frozen_share < 1:
        raise ValueError(f"frozen_share = {study.frozen_share}; expected a share between 0 and 1")
    if study.run.source is not None or not study.run.model.weights:
        raise ValueError(
            "strategies compares ways to reuse trained weights: set run.source to None and run.model.weights to a file; "
            "to train on a source first, use experiments.transfer"
        )


def training_of(study: Strategies, labels: int, plan: Plan) -> Training:
    """The settings that this plan is carried out with at this number of labels."""
    if len(plan.stages) == 1 and len(plan.stages[0].trained) == 1:
        return study.probe
    training = study.scratch if plan.regime == "from_scratch" else study.finetune
    if not study.epochs:
        return training
    return replace(training, epochs=study.epochs[study.labels.index(labels)])
