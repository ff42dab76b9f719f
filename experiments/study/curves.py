"""Networks of the transferability study → the numbers that its figures, tables and sentences are drawn from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.study.differences import BASE, LONG, Estimate, Network, estimate, paired, shared_halves, split_means
from experiments.study.distances import beside, predictions
from experiments.study.statements import statements

CEILING = 0.97  # mean base accuracy from which on little is left to gain


class Point(NamedTuple):
    """One point of a curve.

    Attributes:
      kind: how the classes were split.
      treatment: such as "AnB+".
      n: layers copied.
      accuracy: mean over splits, with its interval over splits.
      difference: of accuracy to the base network of the same split, half and seed; likewise.
      relative: the difference as a share of that base network's accuracy; likewise.
      splits: accuracy, difference and relative change in each split, by the split's number.
      num_networks: behind the point.
    """

    kind: str
    treatment: str
    n: int
    accuracy: Estimate
    difference: Estimate
    relative: Estimate
    splits: dict[int, tuple[float, float, float]]
    num_networks: int


class Difficulty(NamedTuple):
    """How hard the halves of one split are.

    Attributes:
      kind: how the classes were split.
      split: its number.
      A: mean accuracy of the base networks of half A, over seeds; none where the half was no target.
      B: of half B.
      gap: A − B.
    """

    kind: str
    split: int
    A: float | None
    B: float | None
    gap: float | None


def summarise(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> dict[str, Any]:
    """Everything that the page of a study shows, from the rows of its networks and distances.

    Every network is compared with the base network of its own split, half and seed; networks are averaged within a split
    (directions and seeds), and intervals are Student's over splits.

    Args:
      header: of the study; "layers" has the names of its L layers, and "halves", if it is there, of each split "kind",
        "split" and the classes of "A" and "B".
      rows: one dict a trained network, and one a distance (treatment "distance").
      level: of all intervals; tests are at 1 − level.

    Returns:
      Plain values: "header", "level", "networks" (see `Network`), "curves" (`Point`), "statements" (`Statement`),
      "difficulty" (`Difficulty`), "largest_gap" (the split with the largest difference between its halves, or none),
      "shared_halves" (kind -> the half that is the same in all its splits: there are no statements on these),
      "ceiling" (kinds whose base networks are nearly always right), "beside" (`Beside`) and "predictions" (`Prediction`).

    Raises:
      ValueError: a network without its base, twice, or with an accuracy that is no share; no network at all; n outside
        0 … L − 1; a distance with other than L numbers.
    """
    num_layers = len(header["layers"])
    networks = paired(rows)
    for network in networks:
        if not (network.n == 0 if network.treatment in (BASE, LONG) else 1 <= network.n < num_layers):
            raise ValueError(
                f"a row of {network.treatment} has n = {network.n}; expected 0 for base and long, and 1 … "
                f"{num_layers - 1} for the others, the network having {num_layers} layers"
            )
    shared = shared_halves(header.get("halves", []), networks)
    points = curves(networks, level, shared)
    found = beside(rows, networks, num_layers, level)
    halves = difficulty(networks)
    gaps = [half for half in halves if half.gap is not None]
    return _plain(
        {
            "header": header,
            "level": level,
            "networks": [_row(network) for network in networks],
            "curves": points,
            "statements": statements([n for n in networks if n.key.kind not in shared], num_layers, level),
            "shared_halves": shared,
            "difficulty": halves,
            "largest_gap": max(gaps, key=lambda half: abs(half.gap or 0.0), default=None),
            "ceiling": [
                point.kind for point in points if point.treatment == BASE and point.accuracy.estimate > CEILING
            ],
            "beside": found,
            "predictions": predictions(found, level),
        }
    )


def curves(networks: Sequence[Network], level: float = 0.95, shared: Mapping[str, str] | None = None) -> list[Point]:
    """One point a kind of split, treatment and n; kinds and treatments as they come, n rising.

    `shared`: kind -> the half that is the same in all its splits.
    """
    groups: dict[tuple[str, str, int], list[Network]] = {}
    for network in networks:
        groups.setdefault((network.key.kind, network.treatment, network.n), []).append(network)
    kinds, treatments = (list(dict.fromkeys(name[i] for name in groups)) for i in (0, 1))
    order = sorted(groups, key=lambda name: (kinds.index(name[0]), treatments.index(name[1]), name[2]))
    return [_point(name, groups[name], level, (shared or {}).get(name[0], "")) for name in order]


def difficulty(networks: Sequence[Network]) -> list[Difficulty]:
    """Mean accuracy of the base networks of both halves of every split: what confounded the original's curves."""
    base = [network for network in networks if network.treatment == BASE]
    found = []
    for kind, split in sorted({(n.key.kind, n.key.split) for n in base}, key=lambda name: (name[0] != "random", name)):
        inside = [network for network in base if (network.key.kind, network.key.split) == (kind, split)]
        a, b = (_mean([network.accuracy for network in inside if network.key.target == half]) for half in "AB")
        found.append(Difficulty(kind, split, a, b, None if a is None or b is None else a - b))
    return found


def _point(name: tuple[str, str, int], networks: Sequence[Network], level: float, shared: str) -> Point:
    columns = [{n.key: float(getattr(n, field)) for n in networks} for field in ("accuracy", "difference", "relative")]
    by_split = [split_means(column) for column in columns]
    splits = {split: (by_split[0][split], by_split[1][split], by_split[2][split]) for split in by_split[0]}
    accuracy, difference, relative = (estimate(column, level, shared=shared) for column in columns)
    if name[1] == BASE:  # beside itself
        difference, relative = (one._replace(low=None, high=None, over=None) for one in (difference, relative))
    return Point(*name, accuracy, difference, relative, splits, len(networks))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _row(network: Network) -> dict[str, Any]:
    return network.key._asdict() | {name: value for name, value in network._asdict().items() if name != "key"}


def _plain(obj: Any) -> Any:
    """What JSON can hold, and gives back unchanged: dicts with text as keys, lists, numbers, none for NaN."""
    if hasattr(obj, "_asdict"):
        obj = obj._asdict()
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, np.ndarray | np.generic):
        obj = obj.tolist()
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj
