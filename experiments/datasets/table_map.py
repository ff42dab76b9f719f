"""The one map from a table's rows to float32 rows: fitted on the source, applied to the target and whenever the model is used.

    [(number − mean) / std …, is it missing? …, code of the category …]

A missing number becomes the mean, 0, and where the fitted rows lacked some its flag is 1. The code of a category counts the
source's values by frequency; the last code is for all others. Missing is a category like any other.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Frame(NamedTuple):
    """Columns of some rows, as they stand in the file.

    Attributes:
      numeric: {column: float64 [n], NaN where missing}.
      categorical: {column: (codes int32 [n], −1 where missing; the text of each code)}.
      rows: n.
    """

    numeric: dict[str, np.ndarray]
    categorical: dict[str, tuple[np.ndarray, list[str]]]
    rows: int


class Number(NamedTuple):
    """How a column of numbers is scaled.

    Attributes:
      name: of the column.
      mean, std: of the values that are there, in the column's unit; std is 1 where all are equal.
      flag: whether some were missing, so that a flag says which.
    """

    name: str
    mean: float
    std: float
    flag: bool


class Category(NamedTuple):
    """How a column of names becomes codes.

    Attributes:
      name: of the column.
      values: the value of code 0, 1, …, the most frequent first; None is the missing one. Code len(values) is "other".
    """

    name: str
    values: tuple[str | None, ...]


class TableMap(NamedTuple):
    """The fitted map.

    Attributes:
      numbers: of the numeric columns, in order.
      categories: of the categorical columns, in order.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a table must have."""
        return (*(c.name for c in self.numbers), *(c.name for c in self.categories))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each categorical column has, "other" counted in."""
        return tuple(len(category.values) + 1 for category in self.categories)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.numbers) + sum(number.flag for number in self.numbers) + len(self.categories)


class Tally(NamedTuple):
    """What a map is fitted from, of the rows seen so far; its size does not grow with the rows.

    Attributes:
      numeric: {column: (values there, their mean, their sum of squares about it, values missing)}.
      categorical: {column: rows of each value}; None counts the missing ones.
      rows: how many.
    """

    numeric: dict[str, tuple[float, float, float, int]]
    categorical: dict[str, Counter[str | None]]
    rows: int


def tally(frame: Frame) -> Tally:
    """Counts and moments of some rows."""
    numeric: dict[str, tuple[float, float, float, int]] = {}
    for name, values in frame.numeric.items():
        there = values[~np.isnan(values)]
        mean = float(there.mean()) if len(there) else 0.0
        numeric[name] = (len(there), mean, float(((there - mean) ** 2).sum()), len(values) - len(there))
    categorical: dict[str, Counter[str | None]] = {}
    for name, (codes, texts) in frame.categorical.items():
        counts = np.bincount(codes + 1, minlength=len(texts) + 1).tolist()
        categorical[name] = Counter({text: n for text, n in zip([None, *texts], counts, strict=True) if n})
    return Tally(numeric, categorical, frame.rows)


def add(a: Tally, b: Tally) -> Tally:
    """Of the rows of both (Chan, Golub and LeVeque's sum of moments)."""
    numeric = {}
    for name, (n, mean, squares, missing) in a.numeric.items():
        n2, mean2, squares2, missing2 = b.numeric[name]
        total, step = max(n + n2, 1), mean2 - mean
        numeric[name] = (
            n + n2,
            mean + step * n2 / total,
            squares + squares2 + step**2 * n * n2 / total,
            missing + missing2,
        )
    categorical = {name: counts + b.categorical[name] for name, counts in a.categorical.items()}
    return Tally(numeric, categorical, a.rows + b.rows)


def fit(seen: Tally, *, max_categories: int, where: str) -> TableMap:
    """The map that these rows ask for.

    Args:
      seen: of the source's training rows.
      max_categories: so many values of a column are kept, the most frequent; the others are "other".
      where: names the table in an error.

    Raises:
      ValueError: no column, or columns in which all values are missing, or equal: nothing can be learnt from them.
    """
    if not seen.numeric and not seen.categorical:
        raise ValueError(f"{where} has no column to learn from")
    empty = [name for name, (n, *_) in seen.numeric.items() if not n]
    empty += [name for name, counts in seen.categorical.items() if set(counts) <= {None}]
    # Equal values leave rounding: what varies by less than this is nothing in float32.
    constant = [
        name
        for name, (n, mean, squares, missing) in seen.numeric.items()
        if n and not missing and squares <= n * (1e-9 * mean) ** 2
    ]
    constant += [name for name, counts in seen.categorical.items() if len(counts) == 1 and name not in empty]
    for what, names in (("no value at all", empty), ("one value only", constant)):
        if names:
            listed = ", ".join(map(repr, names))
            raise ValueError(
                f"{what} in column {listed} of the {seen.rows} training rows of {where}: nothing can be learnt from it; "
                "leave it out (source.drop, or not in source.numeric and source.categorical)"
            )
    numbers = tuple(
        Number(name, mean, float(np.sqrt(squares / n)) if squares > n * (1e-9 * mean) ** 2 else 1.0, missing > 0)
        for name, (n, mean, squares, missing) in seen.numeric.items()
    )
    return TableMap(
        numbers, tuple(_category(name, counts, max_categories) for name, counts in seen.categorical.items())
    )


def _category(name: str, counts: Counter[str | None], most: int) -> Category:
    # By frequency, then by name: two orders of the same rows give one map.
    ordered = sorted(counts, key=lambda value: (-counts[value], value is None, value or ""))
    return Category(name, tuple(ordered[:most]))


def apply(table: TableMap, frame: Frame) -> np.ndarray:
    """The rows of a frame that has the map's columns, [n, table.width] float32."""
    parts = []
    for column in table.numbers:
        scaled = (frame.numeric[column.name] - column.mean) / column.std
        parts.append(np.where(np.isnan(scaled), 0.0, scaled))
    parts += [np.isnan(frame.numeric[column.name]).astype(float) for column in table.numbers if column.flag]
    for category in table.categories:
        codes, texts = frame.categorical[category.name]
        known = {value: code for code, value in enumerate(category.values)}
        new = np.array([known.get(value, len(known)) for value in [None, *texts]])
        parts.append(new[codes + 1].astype(float))
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused as such later
        return np.stack(parts, axis=1).astype(np.float32)


def take(frame: Frame, rows: np.ndarray) -> Frame:
    """Some rows of a frame."""
    return Frame(
        {name: values[rows] for name, values in frame.numeric.items()},
        {name: (codes[rows], texts) for name, (codes, texts) in frame.categorical.items()},
        len(rows),
    )


def unknown(table: TableMap, frame: Frame) -> list[str]:
    """What of these rows the map has not met, in sentences: values that are "other" here, numbers missing without a flag."""
    found = []
    for category in table.categories:
        codes, texts = frame.categorical[category.name]
        new = np.array([value not in category.values for value in [None, *texts]])[codes + 1]
        if new.any():
            found.append(f"{new.mean():.1%} of the values of {category.name} are “other”.")
    for column in table.numbers:
        missing = np.isnan(frame.numeric[column.name])
        if missing.any() and not column.flag:
            found.append(f"{missing.mean():.1%} of the values of {column.name} are missing; the mean stands for them.")
    return found


def from_json(content: Mapping[str, Any]) -> TableMap:
    """The map as description.json has it.

    Raises:
      ValueError: it is not such a map.
    """

    try:
        return TableMap(
            tuple(Number(**one) for one in content["numbers"]),
            tuple(Category(one["name"], tuple(one["values"])) for one in content["categories"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the model's table map can't be read: {error!r}") from error
