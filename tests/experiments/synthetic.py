"""Rows of a transferability study that no one ran: effects are planted, noise is as large as wanted."""

from typing import Any

import numpy as np

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CLASSES = ("0", "1", "2", "3", "<four>", "5", "6", "7", "8", "9")
TREATMENTS = ("base", "long", "AnB", "AnB+", "BnB", "BnB+", "random")


def effect(treatment: str, n: int, num_layers: int = 8) -> float:
    """The planted difference to base: a fall of AnB, a dip of BnB, a gain of AnB+, none of BnB+."""
    depth = n / (num_layers - 1)
    return {
        "base": 0.0,
        "long": 0.003,
        "AnB": -0.08 * depth**2,
        "AnB+": 0.012,
        "BnB": -0.03 * np.exp(-(((n - 5) / 1.2) ** 2)),
        "BnB+": 0.002,
        "random": -0.5 * depth,
    }[treatment]


def header(
    layers: tuple[str, ...] = LAYERS,
    *,
    random: int = 5,
    dissimilar: int = 1,
    seeds: int = 2,
    treatments: Any = TREATMENTS,
    shared: bool = False,
) -> dict[str, Any]:
    """What the script knows of the study; `shared`: whether all dissimilar splits have the same half B."""
    rng = np.random.default_rng(0)
    orders = [[CLASSES[i] for i in rng.permutation(10)] for _ in range(random + dissimilar)]
    halves = [
        {
            "kind": kind,
            "split": split,
            "A": orders[first + split][:5],
            "B": list("vwxyz") if shared and kind == "dissimilar" else orders[first + split][5:],
            "train": {"A": 450, "B": 448},
            "test": {"A": 226, "B": 224},
        }
        for kind, count, first in (("random", random, 0), ("dissimilar", dissimilar, random))
        for split in range(count)
    ]
    return {
        "name": "figure2_planted",
        "title": "How transferable are the features of planted <digits>?",
        "layers": list(layers),
        "treatments": list(treatments),
        "splits": {"random": random, "dissimilar": dissimilar},
        "seeds": seeds,
        "halves": halves,
        "settings": {"width": 16, "other": None, "augment": False, "train": {"epochs": 20, "rates": [0.1, 0.01]}},
        "seconds": 612.3,
    }


def rows(
    about: dict[str, Any],
    *,
    noise: float = 0.006,
    base: float = 0.88,
    without: Any = (),
    seed: int = 0,
    tie: float = 0.8,
) -> list[dict[str, Any]]:
    """Networks and distances of a study. `tie`: how much of a split's own drop is also in its MMD²."""
    rng = np.random.default_rng(seed)
    num_layers, found = len(about["layers"]), []
    for half in about["halves"]:
        hardness = {"A": 0.02 * rng.normal(), "B": 0.02 * rng.normal()}
        own = 0.3 * rng.normal() + (2.0 if half["kind"] == "dissimilar" else 1.0)  # how far apart the halves are
        for target in "AB":
            for index in range(about["seeds"]):
                luck = noise * rng.normal()
                key = {"kind": half["kind"], "split": half["split"], "target": target, "seed": index}
                for treatment in about["treatments"]:
                    for n in [0] if treatment in ("base", "long") else range(1, num_layers):
                        change = effect(treatment, n, num_layers) * (own if treatment == "AnB" else 1.0)
                        accuracy = base + hardness[target] + luck + change
                        accuracy += noise * rng.normal() * (treatment != "base")
                        found.append(
                            {"cell": f"{treatment} {n} {key}", **key, "treatment": treatment, "n": n}
                            | {
                                "accuracy": float(np.clip(accuracy, 0, 1)),
                                "loss": 0.4,
                                "train_loss": 0.1,
                                "seconds": 1.5,
                            }
                        )
                depth = np.arange(1, num_layers + 1) / num_layers
                mmd2 = 0.02 * depth * (1 + tie * (own - 1) + (1 - tie) * 0.3 * rng.normal())
                found.append(
                    {"cell": f"distance {key}", **key, "treatment": "distance"}
                    | {"mmd2": mmd2.tolist(), "pvalue": [0.005] * num_layers}
                )
    return [row for row in found if row["treatment"] not in without]
