"""How a network is trained, and what follows from it for a number of rows: how many steps, at which rates, on which rows."""

from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from mmd_jax.transfer.augment import Augmentation, check_augmentation

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("constant", "cosine")
MAX_CHUNK = 256  # Steps between two validations: one epoch, or this many where an epoch is longer.


class Recipe(NamedTuple):
    """How a network is trained, the learning rate aside; hashable, a compiled chunk is made once for each.

    Attributes:
      epochs: passes over the training rows, at most.
      batch_size: rows a step; all of them where there are fewer.
      optimizer: "adamw" or "sgd".
      weight_decay: of trained leaves only, decoupled.
      clip_norm: global norm at which gradients are clipped; 0 for not at all.
      patience: epochs without a lower validation loss after which the stage ends; without validation rows it never does.
      precision: "float32" or "bfloat16".
      schedule: of the learning rate over the epochs: "constant", or "cosine", which falls to 0 at the last.
      warmup_epochs: epochs in which the learning rate first rises from 0, before the schedule begins.
      momentum: of "sgd"; 0 for none.
      augmentation: what becomes of images in the stages of a plan that ask for it.
    """

    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    patience: int = 5
    precision: str = "float32"
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    augmentation: Augmentation = Augmentation()


def check_recipe(recipe: Recipe) -> None:
    """Refuses settings that can't be meant."""
    for name in ("epochs", "batch_size", "patience"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"{name} = {getattr(recipe, name)}; expected at least 1")
    if recipe.precision not in ("float32", "bfloat16"):
        raise ValueError(f"unknown precision {recipe.precision!r}; there are float32, bfloat16")
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {recipe.optimizer!r}; there are {', '.join(OPTIMIZERS)}")
    if recipe.schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {recipe.schedule!r}; there are {', '.join(SCHEDULES)}")
    if not 0 <= recipe.momentum < 1:
        raise ValueError(f"momentum = {recipe.momentum}; expected 0 or more, below 1")
    check_augmentation(recipe.augmentation)
    if not 0 <= recipe.warmup_epochs <= recipe.epochs:
        raise ValueError(f"warmup_epochs = {recipe.warmup_epochs}; expected 0 … {recipe.epochs}, the epochs in all")


def schedule(num_rows: int, recipe: Recipe, *, validated: bool = True) -> tuple[int, int, int]:
    """(steps in all, steps a chunk, steps of patience); whole chunks, so that every chunk has one compiled form.

    A chunk is an epoch, or a part of it; where nothing is validated in between, as many epochs as `MAX_CHUNK` steps hold.
    """
    epoch = -(-num_rows // min(recipe.batch_size, num_rows))
    chunks_an_epoch = -(-epoch // MAX_CHUNK)
    chunk = -(-epoch // chunks_an_epoch)
    if not validated and chunks_an_epoch == 1:
        most = max(1, min(MAX_CHUNK // chunk, recipe.epochs))
        chunk *= next(count for count in range(most, 0, -1) if recipe.epochs % count == 0)
        return recipe.epochs * epoch, chunk, recipe.epochs * epoch
    return recipe.epochs * chunks_an_epoch * chunk, chunk, recipe.patience * chunks_an_epoch * chunk


def rate_factors(recipe: Recipe, step: int, num_steps: int, total: int) -> np.ndarray:
    """What the learning rate is multiplied by in the next steps, [num_steps] float32.

        (t + 1) / w in the w steps of the warm-up; then 1, or cosine: (1 + cos(π (t − w) / (T − w))) / 2

    Args:
      recipe: its schedule and warm-up.
      step: t of the first of them.
      num_steps: how many.
      total: T, the steps of the stage in all.

    Example:
      >>> rate_factors(Recipe(epochs=4, schedule="cosine"), 0, 4, 4).round(2).tolist()
      [1.0, 0.8500000238418579, 0.5, 0.15000000596046448]

    Reference: Loshchilov and Hutter, SGDR: Stochastic gradient descent with warm restarts, ICLR 2017.
    """
    steps = np.arange(step, step + num_steps, dtype=np.float64)
    warmup = total * recipe.warmup_epochs / max(recipe.epochs, 1)
    share = np.clip((steps - warmup) / max(total - warmup, 1), 0, 1)
    factors = (1 + np.cos(np.pi * share)) / 2 if recipe.schedule == "cosine" else np.ones(num_steps)
    rising = steps < warmup
    factors[rising] = (steps[rising] + 1) / max(warmup, 1)
    return np.minimum(factors, 1).astype(np.float32)


def data_order(key: Array, num_rows: int, step: int, num_steps: int, batch_size: int) -> np.ndarray:
    """Rows of the next batches, [num_steps, batch_size]: one random permutation after another, read off in order.

    A function of the key and the step alone, so that a resumed run sees the rows that an undisturbed one would.
    """
    seed = np.asarray(jax.random.key_data(key), np.uint64).ravel()
    first, last = step * batch_size, (step + num_steps) * batch_size
    passes = [
        np.random.Generator(np.random.PCG64([*seed, number])).permutation(num_rows)
        for number in range(first // num_rows, -(-last // num_rows))
    ]
    begin = first - first // num_rows * num_rows
    return np.concatenate(passes)[begin : begin + last - first].reshape(num_steps, batch_size)
