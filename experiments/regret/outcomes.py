"""One cell: what each way of reusing the source's network reaches on the target."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import phases, workdir
from experiments.candidates import candidates
from experiments.config import Config
from experiments.fits import digest, recipe
from experiments.phases import Loaded, Networks
from experiments.regret.settings import Benchmark, Pair, run_of
from mmd_jax.transfer import finetune, inference
from mmd_jax.types import Plan, Variables


class Setting(NamedTuple):
    """What both parts of a cell start from.

    Attributes:
      config: the cell as a config of the main job.
      data: source and target.
      nets: the network with the last layer of each.
      variables: as the source left it.
      plans: {name: plan} of the ways that are compared.
    """

    config: Config
    data: Loaded
    nets: Networks
    variables: Variables
    plans: dict[str, Plan]


def prepare(benchmark: Benchmark, pair: Pair, size: int, seed: int, sources: Path) -> Setting:
    """Loads both data sets and trains the source's network, once for all its cells with this seed."""
    config = run_of(benchmark, pair, size, seed)
    data = phases.load(config)
    if len(data.target.train_y) < size:
        raise ValueError(
            f"the target of pair {pair.name!r} has {len(data.target.train_y)} training rows; expected {size}, or set its sizes"
        )
    nets = phases.build(config, data)
    key = phases.make_keys(seed).pretrain
    folder = sources / digest({"network": _about(config), "seed": np.int32(seed)})[:16]
    folder.mkdir(parents=True, exist_ok=True)
    variables = phases.pretrain(config, folder, key, nets, data)
    plans = candidates(nets.target, config.decision, augment=pair.augment and data.target.image)
    return Setting(config, data, nets, variables, plans)


def _about(config: Config) -> np.ndarray:
    content = workdir.plain([config.source, config.model, config.pretrain])
    return np.frombuffer(repr(content).encode(), np.uint8)


def outcomes(setting: Setting) -> dict[str, Any]:
    """Carries out every plan, each from the same rows, head and order of the data.

    Returns:
      {"ways": {name: {"accuracy" (test rows), "valid_loss", "valid_accuracy" (of the best state), "steps" (taken in all),
      "curve" ([step, validation loss] at each validation)}}, "num_test": rows tested on}. A way that diverges counts as it
      stood before.
    """
    config, data, nets = setting.config, setting.data, setting.nets
    train, valid = phases.split(data.target, config.train, config.seed)
    [rate] = config.train.learning_rates
    key, settings = phases.make_keys(config.seed).adapt, recipe(config.train)
    found = {}
    for name, plan in setting.plans.items():
        plan = phases.cached(config, nets.target, plan, data.target)
        start: Variables = {} if plan.regime == "from_scratch" else setting.variables
        best, rows = None, []
        try:
            chunks = finetune.finetune(key, nets.target, start, plan, train, valid, learning_rate=rate, recipe=settings)
            for state, metrics in chunks:
                best = state  # of all that were, only the last is kept
                rows.append(metrics)
        except finetune.NonFiniteLossError as error:
            print(f"warning: {config.name}, {name}: {error}", file=sys.stderr)
        if best is None:
            found[name] = _guess(len(data.target.class_names))
            continue
        curve = _curve(rows)
        right = _right(nets, best.best, data.target.test_x, data.target.test_y)
        held = _right(nets, best.best, valid.x, valid.y)
        found[name] = {
            "accuracy": float(right.mean()),
            "valid_loss": float(best.best_loss),
            "valid_accuracy": float(held.mean()),
            "steps": curve[-1][0],
            "curve": curve,
        }
    return {"ways": found, "num_test": len(data.target.test_y)}


def _guess(num_classes: int) -> dict[str, Any]:
    """What stands for a way that diverged before its first validation."""
    share, loss = 1 / num_classes, math.log(num_classes)
    return {"accuracy": share, "valid_loss": loss, "valid_accuracy": share, "steps": 1, "curve": [[1, loss]]}


def _curve(metrics: list[dict[str, float]]) -> list[list[float]]:
    """[step from the first stage's start, validation loss] at each validation."""
    curve, done, last, stage = [], 0, 0, 0
    for row in metrics:
        if row["stage"] != stage:
            done, stage = done + last, int(row["stage"])
        last = int(row["step"])
        curve.append([done + last, round(row["valid_loss"], 5)])
    return curve


def _right(nets: Networks, variables: Variables, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return inference.log_probabilities(nets.target, variables, x).argmax(-1) == y
