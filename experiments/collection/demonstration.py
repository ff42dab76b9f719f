"""Eight small models of embedded digits, some of them near to a new target and some far: what `library demo` builds."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import workdir
from experiments.collection import adding, store
from experiments.config import Config, Data, Model, Training
from experiments.datasets.arrays import open_digits

SIDE = 12  # pixels of the canvas on which a digit of 8×8 lies somewhere
TARGET = "moved digits 5–9"


class Variant(NamedTuple):
    """One entry's data.

    Attributes:
      name: of the entry.
      classes: digits.
      change: images [n, 12, 12] in 0 … 1 → the same, changed.
      moved: whether each digit lies anywhere on its canvas, or in the middle.
    """

    name: str
    classes: str
    change: Callable[[np.ndarray], np.ndarray]
    moved: bool = True


def _as_it_is(x: np.ndarray) -> np.ndarray:
    return x


def _inverted(x: np.ndarray) -> np.ndarray:
    return 1 - x


def _blurred(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return np.mean([padded[:, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)], axis=0)


def _noisy(x: np.ndarray) -> np.ndarray:
    return np.clip(x + np.random.default_rng(1).normal(0, 0.3, x.shape), 0, 1)


def _shuffled(x: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(2).permutation(SIDE * SIDE)
    return x.reshape(len(x), -1)[:, order].reshape(x.shape)


def _upside_down(x: np.ndarray) -> np.ndarray:
    return x[:, ::-1]


VARIANTS = (
    Variant("moved_0-4", "01234", _as_it_is),
    Variant("moved_0-1", "01", _as_it_is),
    Variant("still_0-4", "01234", _as_it_is, moved=False),
    Variant("upside_down_0-4", "01234", _upside_down),
    Variant("blurred_0-4", "01234", _blurred),
    Variant("noisy_0-4", "01234", _noisy),
    Variant("inverted_0-4", "01234", _inverted),
    Variant("shuffled_0-4", "01234", _shuffled),
)
TRAINING = Training(epochs=20, batch_size=32, learning_rates=(3e-3,))


def build(library: Path, folder: Path) -> Data:
    """Trains the models and adds them; those that are there stay. Their work directories and data lie in `folder`.

    Returns:
      The new target: digits 5–9, moved, of which the library has seen none.
    """
    there = store.names(library) if library.is_dir() else []
    for number, variant in enumerate(VARIANTS):
        path = folder / "data" / f"{variant.name}.npz"
        _write(path, variant, seed=number)
        if variant.name in there:
            continue
        config = Config(
            name=variant.name,
            source=Data(f"npz:{path}"),
            model=Model("cnn8", width=8),
            pretrain=TRAINING,
            checkpoint_seconds=60,
        )
        adding.from_config(library, variant.name, config, folder / "trained" / variant.name)
        print(f"added {variant.name}", flush=True)
    path = folder / "data" / "target.npz"
    _write(path, Variant("target", "56789", _as_it_is), seed=len(VARIANTS))
    return Data(f"npz:{path}", limit=100)


def _write(path: Path, variant: Variant, *, seed: int) -> None:
    """The digits of a variant as an npz: file."""
    raw = open_digits().train
    rows = np.flatnonzero(np.isin(raw.labels, [int(digit) for digit in variant.classes]))
    images, random = raw.read(rows)[..., 0] / 255, np.random.default_rng(seed)
    canvas = np.zeros((len(rows), SIDE, SIDE))
    free = SIDE - images.shape[1]
    places = random.integers(0, free + 1, (len(rows), 2)) if variant.moved else np.full((len(rows), 2), free // 2)
    for image, place, (i, j) in zip(images, canvas, places):
        place[i : i + 8, j : j + 8] = image
    pixels = np.round(255 * variant.change(canvas)).astype(np.uint8)[..., None]
    classes = np.searchsorted([int(digit) for digit in variant.classes], raw.labels[rows])
    workdir.write_npz(path, {"x": pixels, "y": classes, "class_names": np.array(list(variant.classes))})
