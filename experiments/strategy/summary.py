"""From the predictions of every way to strategies.json: accuracies, paired differences, and what each rule's choice costs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import evaluation
from mmd_jax.intervals import paired_interval


class Choice(NamedTuple):
    """What a rule would choose at one number of labels, under one assumption."""

    rule: str
    assumed: str
    way: str


def summarise(
    header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], choices: Mapping[int, Sequence[Choice]]
) -> dict[str, Any]:
    """strategies.json: accuracy of each way with its interval, its paired difference to others, and what rules would cost."""
    right = {(row["labels"], row["way"]): np.equal(row["predicted"], row["true"]).astype(float) for row in rows}
    ways = [
        {name: row[name] for name in row if name not in ("predicted", "true", "plan", "training", "model", "content")}
        | {"accuracy": _share(right[row["labels"], row["way"]])}
        for row in rows
    ]
    return {
        **header,
        "ways": ways,
        "differences": list(_differences(right, {(row["labels"], row["regime"]): row["way"] for row in rows})),
        "choices": list(_regrets(right, choices)),
        "seconds": sum(row["seconds"] for row in rows),
    }


def _share(right: np.ndarray) -> dict[str, float]:
    low, high = evaluation.binomial(right == 1, 0.95)
    return {"estimate": float(right.mean()), "low": low, "high": high}


def _differences(
    right: Mapping[tuple[int, str], np.ndarray], ways: Mapping[tuple[int, str], str]
) -> Iterator[dict[str, Any]]:
    """Every way less the frozen base, and less from-scratch, at its number of labels."""
    for (labels, way), own in right.items():
        for base in ("linear_probe", "from_scratch"):
            other = ways[labels, base]
            if way != other:
                yield {"labels": labels, "way": way, "less": base, **_paired(own, right[labels, other])}


def _regrets(
    right: Mapping[tuple[int, str], np.ndarray], choices: Mapping[int, Sequence[Choice]]
) -> Iterator[dict[str, Any]]:
    """What each rule's choice falls short of the best way at its number of labels."""
    for labels, made in choices.items():
        best = max((way for count, way in right if count == labels), key=lambda way: right[labels, way].mean())
        for choice in made:
            cost = _paired(right[labels, best], right[labels, choice.way])
            yield {"labels": labels, **choice._asdict(), "best": best, "cost": cost}


def _paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    interval = paired_interval(a, b)
    return {"estimate": float(interval.estimate), "low": float(interval.low), "high": float(interval.high)}
