"""What people read off the transferability figure, each as a contrast with an interval, a p-value and a sentence.

A contrast is formed for every network from networks of the same split, half and seed, averaged within a split, and tested
over splits. All contrasts of one kind of split are counted together by Holm's method.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.study.differences import BASE, LONG, Key, Network, alike, split_means
from mmd_jax.intervals import holm, t_interval

# (treatment, n) -> the accuracy of each of its networks, of one kind of split.
Accuracies = Mapping[tuple[str, int], Mapping[Key, float]]
Cell = tuple[str, Sequence[int]]  # a treatment at several n


class Contrast(NamedTuple):
    """A number that says whether a statement holds.

    Attributes:
      name: of the statement, as in the table.
      subject: what is compared, in words, with what was averaged.
      reference: what it is compared with; "" for a slope.
      unit: "points", or "points a layer" for a slope.
      values: one a network: a difference of accuracies, as a share.
    """

    name: str
    subject: str
    reference: str
    unit: str
    values: dict[Key, float]


class Statement(NamedTuple):
    """A contrast, tested.

    Attributes:
      kind: of the splits.
      name: of the statement.
      contrast: what was subtracted from what, and what was averaged.
      unit: of the effect times 100: "points" or "points a layer".
      effect: mean over splits, as a share.
      low: lower end of Student's interval over splits; none where all splits gave the same effect.
      high: upper end.
      pvalue: two-sided, of an effect of 0; 1 where all splits gave the same.
      adjusted: the same by Holm's method over all statements of the kind.
      num_splits: independent units; degrees of freedom + 1.
      by_split: the contrast in each split.
      sentence: no stronger than the interval and the adjusted p-value.
    """

    kind: str
    name: str
    contrast: str
    unit: str
    effect: float
    low: float | None
    high: float | None
    pvalue: float
    adjusted: float
    num_splits: int
    by_split: list[float]
    sentence: str


def statements(networks: Sequence[Network], num_layers: int, level: float = 0.95) -> list[Statement]:
    """Every statement that the networks allow to test, kind by kind; none for a kind with a single split.

    Args:
      networks: of all kinds.
      num_layers: L.
      level: coverage of the intervals; the tests are at 1 − level.

    Returns:
      In the order: kinds as they come, then the statements.
    """
    found = []
    for kind in dict.fromkeys(network.key.kind for network in networks):
        table = accuracies([network for network in networks if network.key.kind == kind])
        units = [(contrast, list(split_means(contrast.values).values())) for contrast in contrasts(table, num_layers)]
        units = [(contrast, means) for contrast, means in units if len(means) >= 2]
        adjusted = holm([_pvalue(means) for _, means in units])
        found += [_judged(kind, *unit, p, len(units), level) for unit, p in zip(units, adjusted.tolist(), strict=True)]
    return found


def accuracies(networks: Sequence[Network]) -> dict[tuple[str, int], dict[Key, float]]:
    """The networks of one kind of split by treatment and n."""
    table: dict[tuple[str, int], dict[Key, float]] = {}
    for network in networks:
        table.setdefault((network.treatment, network.n), {})[network.key] = network.accuracy
    return table


def contrasts(table: Accuracies, num_layers: int) -> list[Contrast]:
    """The contrasts behind the statements, as far as the treatments and depths for them are there."""
    dip, ends = _parts(table, num_layers)
    all_n = _depths(table, "AnB")
    deepest = max(all_n, default=0)
    in_middle = f"BnB (mean over n = {_listed(dip)})"
    at_ends = f"BnB at the other depths (n = {_listed(ends)})"
    falling = f"Accuracy of AnB (slope over n = {_listed(all_n)})"
    at_deepest = f"AnB at n = {deepest}"

    def points(name: str, subject: str, reference: str, a: Cell, b: Cell) -> Contrast:
        return Contrast(name, subject, reference, "points", _minus(table, a, b))

    last = ("AnB", [deepest])
    made = [
        points("Co-adaptation dip", in_middle, "base", ("BnB", dip), (BASE, dip)),
        points("Co-adaptation dip beside the ends", in_middle, at_ends, ("BnB", dip), ("BnB", ends)),
        Contrast("AnB falls with n", falling, "", "points a layer", _slope(table)),
        points("AnB below base at its deepest", at_deepest, "base", last, (BASE, [deepest])),
        points("Specificity beyond co-adaptation", at_deepest, f"BnB at n = {deepest}", last, ("BnB", [deepest])),
        _over_depths(table, "AnB+ above base", "AnB+", BASE, "base"),
        _over_depths(table, "AnB+ above longer training", "AnB+", LONG, "base trained as long as base plus transfer"),
        _over_depths(table, "AnB+ above BnB+", "AnB+", "BnB+", "BnB+"),
        _over_depths(table, "Learnt beat random filters", "AnB", "random", "random frozen filters"),
    ]
    return [contrast for contrast in made if contrast.values]


def _parts(table: Accuracies, num_layers: int) -> tuple[list[int], list[int]]:
    """The middle depths, 3 … L − 2 where there are so many layers, and the others."""
    there = _depths(table, "BnB")
    first = max(1, min(3, num_layers - 2))
    middle = [n for n in there if first <= n <= num_layers - 2]
    return middle, [n for n in there if n not in middle]


def _depths(table: Accuracies, treatment: str) -> list[int]:
    return sorted(n for name, n in table if name == treatment)


def _over_depths(table: Accuracies, name: str, treatment: str, other: str, said: str) -> Contrast:
    depths = _depths(table, treatment)
    if other not in (BASE, LONG):
        depths = [n for n in depths if (other, n) in table]
    values = _minus(table, (treatment, depths), (other, depths))
    return Contrast(name, f"{treatment} (mean over n = {_listed(depths)})", said, "points", values)


def _minus(table: Accuracies, a: Cell, b: Cell) -> dict[Key, float]:
    """Mean accuracy of one treatment over depths less that of another, for every key that has all of them."""
    left, right = _mean(table, *a), _mean(table, *b)
    return {key: left[key] - right[key] for key in left if key in right}


def _mean(table: Accuracies, treatment: str, depths: Sequence[int]) -> dict[Key, float]:
    if not depths:
        return {}
    columns = [table.get((treatment, n), {}) for n in ([0] if treatment in (BASE, LONG) else depths)]
    return {key: float(np.mean([column[key] for column in columns])) for key in _shared(columns)}


def _slope(table: Accuracies) -> dict[Key, float]:
    """Least-squares slope of AnB's accuracy over n. That of its difference to base is the same."""
    depths = _depths(table, "AnB")
    if len(depths) < 2:
        return {}
    columns = [table["AnB", n] for n in depths]
    centred = np.array(depths, float) - np.mean(depths)
    weights = centred / (centred**2).sum()
    return {key: float(weights @ [column[key] for column in columns]) for key in _shared(columns)}


def _shared(columns: Sequence[Mapping[Key, float]]) -> list[Key]:
    return [key for key in columns[0] if all(key in column for column in columns)]


def _pvalue(means: Sequence[float]) -> float:
    """Student's two-sided p-value of a mean of 0; 1 where all values are equal, which accuracies on few rows can be by
    chance: without differences between splits there is nothing to tell an effect from."""
    values = np.asarray(means)
    if alike(means):
        return 1.0
    t = values.mean() / (values.std(ddof=1) / math.sqrt(len(values)))
    return float(2 * stats.t.sf(abs(t), len(values) - 1))


def _judged(
    kind: str, contrast: Contrast, means: list[float], adjusted: float, num_statements: int, level: float
) -> Statement:
    interval, pvalue, same = t_interval(means, level), _pvalue(means), alike(means)
    minus = f" − {contrast.reference}" if contrast.reference else ""
    return Statement(
        kind=kind,
        name=contrast.name,
        contrast=contrast.subject + minus,
        unit=contrast.unit,
        effect=interval.estimate,
        low=None if same else interval.low,
        high=None if same else interval.high,
        pvalue=pvalue,
        adjusted=adjusted,
        num_splits=len(means),
        by_split=means,
        sentence=_same(contrast, means)
        if same
        else _sentence(contrast, interval[:3], pvalue, adjusted, num_statements, 1 - level),
    )


def _same(contrast: Contrast, means: Sequence[float]) -> str:
    beside = f" beside {contrast.reference}" if contrast.reference else ""
    effect = f"{_signed(100 * means[0], 2)} {contrast.unit}"
    return (
        f"{contrast.subject}{beside}: {effect} in each of the {len(means)} splits. Where all splits give the same, nothing can "
        "be said of others."
    )


def _sentence(
    contrast: Contrast, numbers: Sequence[float], pvalue: float, adjusted: float, num_statements: int, alpha: float
) -> str:
    """In plain words; it takes a side only where the adjusted p-value lets it."""
    effect = numbers[0]
    seen = _points(numbers, contrast.unit)
    one = pvalue <= alpha < adjusted
    alone = f", though by itself p = {pvalue:.2g}; {num_statements} statements were tested" if one else ""
    if contrast.reference == "":
        if adjusted <= alpha:
            return f"{contrast.subject} {'falls' if effect < 0 else 'rises'} with n: {seen}."
        return f"{contrast.subject} is not told apart from no change with n: {seen}{alone}."
    if adjusted <= alpha:
        return f"{contrast.subject} is {'above' if effect > 0 else 'below'} {contrast.reference}: {seen}."
    return f"{contrast.subject} is not told apart from {contrast.reference}: {seen}{alone}."


def _points(numbers: Sequence[float], unit: str) -> str:
    """
    >>> _points([0.008, 0.002, 0.014], "points"), _points([-0.00061, -0.0009, -0.0003], "points")
    ('+0.8 points (+0.2 … +1.4)', '−0.06 points (−0.09 … −0.03)')
    """
    # As many decimals as it takes for the width of the interval to show; at least one.
    width = 100 * (numbers[2] - numbers[1])
    decimals = 1 if width == 0 else min(4, max(1, -math.floor(math.log10(width))))
    estimate, low, high = (_signed(100 * number, decimals) for number in numbers)
    return f"{estimate} {unit} ({low} … {high})"


def _signed(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _listed(depths: Sequence[int]) -> str:
    """
    >>> _listed([1, 2, 3]), _listed([1, 3, 7]), _listed([4])
    ('1 … 3', '1, 3, 7', '4')
    """
    if len(depths) > 2 and list(depths) == list(range(depths[0], depths[-1] + 1)):
        return f"{depths[0]} … {depths[-1]}"
    return ", ".join(str(n) for n in depths)
