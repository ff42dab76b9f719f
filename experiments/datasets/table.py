"""Business tables: CSV and Parquet files with a target column, columns of numbers and of names, and gaps.

A row's label is the value of one column, or whether that number is above a threshold; its group is the value of one column,
or of several together (a day: month,day). Which rows count is said by conditions on columns. What stays is numbers and
categories, which one map fitted on the source (`table_map`) turns into float32 rows.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.config import Data
from experiments.datasets.columns import File, batches, is_number_type, is_text_type, looks, numbers, open_file, texts
from experiments.datasets.raw import Raw, Rows
from experiments.datasets.table_map import Frame, TableMap

KINDS = ("csv", "parquet")
OPERATORS = ("<=", ">=", "!=", "<", ">", "=")  # the longer ones first, since they begin alike
MOST_CLASSES = 1000


class Condition(NamedTuple):
    """What a row must fulfil to count.

    Attributes:
      column: its name.
      operator: one of `OPERATORS`.
      value: what it is compared with.
    """

    column: str
    operator: str
    value: str


class Layout(NamedTuple):
    """Which columns of a file are what.

    Attributes:
      label: the target column; none where the rows have no label.
      groups: the columns that together name a row's group; may be empty.
      conditions: all must hold.
      numeric, categorical: the features of which the settings or the map say so.
      undecided: those whose kind the values decide.
    """

    label: str | None
    groups: tuple[str, ...]
    conditions: tuple[Condition, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that are read, each once."""
        label = () if self.label is None else (self.label,)
        conditions = (condition.column for condition in self.conditions)
        return tuple(
            dict.fromkeys((*label, *self.groups, *conditions, *self.numeric, *self.categorical, *self.undecided))
        )


def is_table(name: str) -> bool:
    """Whether `Data.name` is that of a table."""
    kind, _, path = name.partition(":")
    return kind in KINDS and path != ""


def open_table(data: Data, data_dir: Path, table: TableMap | None, *, labelled: bool = True) -> Raw:
    """Reads the columns that are needed, of the rows that count.

    Args:
      data: name (csv:PATH or parquet:PATH), label_key, label_above, group_key, where, numeric, categorical, drop.
      data_dir: where a relative path is looked for when it is not found here.
      table: of the source, whose columns are read; none: those that `data` asks for.
      labelled: whether there is a label.

    Returns:
      Raw, with `frame` in place of inputs that can be read; the labels of rows without one are 0.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a column that is not there, holds both numbers and other text, or is no feature; labels that are none; no
        row that counts; and all that `columns` refuses.
    """
    file = locate(data, data_dir)
    layout = layout_of(data, file, table, labelled=labelled)
    read = pa.Table.from_batches(list(batches(file, layout.needed)))
    whole = {name: _whole(read.column(name)) for name in layout.needed}
    groups, group_names = None, None
    if layout.groups:
        # Numbered over all rows: source and target, cut out of one file, know each other's groups.
        groups, group_names = group_codes([whole[name] for name in layout.groups], layout.groups, file)
    ordered = {name for name in numbers_asked(layout.conditions) if looks(whole[name])[1] is None}
    kept = fulfilled(layout.conditions, whole, ordered, file)
    notes = []
    if layout.conditions:
        notes.append(f"{kept.sum()} of {len(kept)} rows of {file.path.name} fulfil {' and '.join(data.where)}.")
    if not kept.any():
        raise ValueError(f"no row of {file.path} fulfils {' and '.join(data.where)}; nothing is left")
    if layout.label is not None:
        missing = pc.is_null(texts(whole[layout.label])).to_numpy(zero_copy_only=False) & kept
        if missing.any():
            notes.append(f"{missing.sum()} rows of {file.path.name} without {layout.label} were left out.")
        kept &= ~missing
        if not kept.any():
            raise ValueError(
                f"no row of {file.path} has a value in its target column {layout.label!r}; nothing is left"
            )
    rows = np.flatnonzero(kept)
    chosen = {name: values.take(pa.array(rows)) for name, values in whole.items()}
    labels, names = np.zeros(len(rows), np.int64), None
    if layout.label is not None:
        labels, names = label_codes(chosen[layout.label], data, file)
    kinds = {name: kind_of(name, chosen[name], file) for name in layout.undecided}
    frame = frame_of(
        chosen,
        len(rows),
        (*layout.numeric, *(name for name, kind in kinds.items() if kind == "numeric")),
        (*layout.categorical, *(name for name, kind in kinds.items() if kind == "categorical")),
        file,
    )
    split = Rows(str(file.path.resolve()), labels, lambda rows: rows, None if groups is None else groups[rows], rows)
    return Raw(split, None, names, frame, tuple(notes), group_names)


def locate(data: Data, data_dir: Path) -> File:
    """The file of csv:PATH or parquet:PATH."""
    kind, _, path = data.name.partition(":")
    return open_file(kind, path, data_dir)


def layout_of(
    data: Data, file: File, table: TableMap | None, *, labelled: bool = True, grouped: bool | None = None
) -> Layout:
    """Which columns are what, from the settings, or from the source's map where there is one.

    Args:
      data: the settings.
      file: whose columns they name.
      table: of the source; none: the settings decide.
      labelled: whether there is a label.
      grouped: whether the groups of `data.group_key` are read; none: where there is a label.

    Raises:
      ValueError: a column that is not there, or one with two roles.
    """
    conditions = tuple(condition(text) for text in data.where)
    groups: tuple[str, ...] = (data.group_key,) if data.group_key and (labelled if grouped is None else grouped) else ()
    if groups and groups[0] not in file.names:
        groups = tuple(part.strip() for part in data.group_key.split(","))
    label = data.label_key if labelled else None
    asked = [("label_key", (label,) if label else ()), ("group_key", groups), ("where", [c.column for c in conditions])]
    asked += [(name, getattr(data, name)) for name in ("numeric", "categorical", "drop")]
    for setting, names in asked:
        for name in names:
            if name not in file.names:
                raise ValueError(f"{setting}: {file.path} has no column {name!r}; it has {', '.join(file.names)}")
    listed = (*data.numeric, *data.categorical)
    for name in listed:
        if listed.count(name) > 1 or name in data.drop or name == data.label_key:
            raise ValueError(
                f"column {name!r} of {data.name} has two roles; expected it once in label_key, numeric, categorical or drop"
            )
    if table is not None:
        lacking = [name for name in table.columns if name not in file.names]
        if lacking:
            raise ValueError(
                f"{file.path} lacks the column {', '.join(map(repr, lacking))}, which the network was trained with; it has "
                f"{', '.join(file.names)}"
            )
        if listed and set(listed) != set(table.columns):
            raise ValueError(
                f"numeric and categorical of {data.name} are {', '.join(listed)}, but the network was trained with "
                f"{', '.join(table.columns)}; leave them empty"
            )
        numeric, categorical = (tuple(one.name for one in kind) for kind in table)
        return Layout(label, groups, conditions, numeric, categorical, ())
    if listed:
        return Layout(label, groups, conditions, data.numeric, data.categorical, ())
    # What a condition fixes has one value.
    fixed = [c.column for c in conditions if c.operator == "="]
    others = tuple(name for name in file.names if name not in {data.label_key, *groups, *fixed, *data.drop})
    return Layout(label, groups, conditions, (), (), others)


def condition(text: str) -> Condition:
    """A condition as it is written: "origin=EWR", "month<=6"."""
    for place in range(1, len(text)):
        for operator in OPERATORS:
            if text.startswith(operator, place):
                value = text[place + len(operator) :].strip()
                if value:
                    return Condition(text[:place].strip(), operator, value)
    raise ValueError(
        f"where = {text!r}; expected COLUMN, one of {' '.join(OPERATORS)}, and a value, such as origin=EWR"
    )


def numbers_asked(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """The columns that are compared with a number, each once: whether they hold numbers alone must be known."""
    return tuple(dict.fromkeys(column for column, _, value in conditions if np.isfinite(_limit(value))))


def fulfilled(
    conditions: Sequence[Condition], whole: dict[str, pa.Array], ordered: Collection[str], file: File
) -> np.ndarray:
    """Which rows fulfil all conditions, bool [n]; one whose value is missing does not.

    Args:
      conditions: all must hold.
      whole: the columns, of the file or of a block of it.
      ordered: of `numbers_asked`, those without a value in the whole file that is no number: they are compared as numbers.
      file: for errors.

    Raises:
      ValueError: a condition that a column's values can't be asked.
    """
    kept = np.ones(len(next(iter(whole.values()))), bool)
    for column, operator, value in conditions:
        values, limit = whole[column], _limit(value)
        if is_number_type(values.type) or column in ordered:
            if not np.isfinite(limit):
                raise ValueError(f"where: column {column!r} of {file.path} holds numbers, and {value!r} is none")
            found = numbers(values, f"column {column!r} of {file.path}")
            kept &= ~np.isnan(found) & _compare(found, operator, limit)
            continue
        if operator not in ("=", "!="):
            raise ValueError(
                f"where: column {column!r} of {file.path} holds text, which {operator} does not order; use = or !="
            )
        same = pc.equal(texts(values), value)
        kept &= pc.fill_null(same if operator == "=" else pc.invert(same), False).to_numpy(zero_copy_only=False)
    return kept


def _limit(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return np.nan


def _compare(found: np.ndarray, operator: str, limit: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        match operator:
            case "=":
                return found == limit
            case "!=":
                return found != limit
            case "<":
                return found < limit
            case "<=":
                return found <= limit
            case ">":
                return found > limit
            case _:
                return found >= limit


def group_codes(parts: Sequence[pa.Array], names: Sequence[str], file: File) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of each row's group, from 0, int64 [n]: equal where all parts are; and the name of each group."""
    codes = np.zeros(len(parts[0]), np.int64)
    for name, part in zip(names, parts, strict=True):
        found = texts(part)
        if found.null_count:
            raise ValueError(
                f"group_key: {found.null_count} rows of {file.path} have no {name}, so their group is unknown; fill it in, or "
                "leave group_key empty"
            )
        encoded = found.dictionary_encode()
        own = encoded.indices.to_numpy(zero_copy_only=False)
        codes = np.unique(codes * (len(encoded.dictionary) + 1) + own, return_inverse=True)[1]
    rows = pa.array(np.unique(codes, return_index=True)[1])
    of_each = zip(*(texts(part.take(rows)).to_pylist() for part in parts), strict=True)
    return codes, tuple(",".join(found) for found in of_each)


def label_codes(values: pa.Array, data: Data, file: File) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class of each row, int64 [n], and the names of the classes: values of the column, or both sides of the threshold."""
    where = f"the target column {data.label_key!r} of {file.path}"
    if data.label_above is not None:
        above = numbers(values, where) > data.label_above
        return above.astype(np.int64), tuple(f"{data.label_key} {sign} {data.label_above:g}" for sign in ("≤", ">"))
    encoded = texts(values).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    number, word = looks(values)
    if len(names) > MOST_CLASSES:
        raise ValueError(
            f"{where} has {len(names)} different values, too many to be classes"
            + ("; give label_above to predict whether it is above a number" if word is None else "")
        )
    if number is not None and word is not None:
        raise ValueError(f"{where} mixes numbers ({number!r}) and other values ({word!r}); give each class one name")
    order = np.argsort(np.array([float(name) for name in names])) if word is None else np.argsort(np.array(names))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return place[encoded.indices.to_numpy(zero_copy_only=False)], tuple(names[i] for i in order)


def kind_of(name: str, values: pa.Array, file: File) -> str:
    """Whether a column is "numeric" or "categorical", by its values.

    Raises:
      ValueError: both, or neither.
    """
    if not (is_number_type(values.type) or is_text_type(values.type) or pa.types.is_boolean(values.type)):
        raise ValueError(
            f"column {name!r} of {file.path} holds {values.type}; only numbers, text and booleans are features: name it in drop"
        )
    return kind_from(name, *looks(values), file)


def kind_from(name: str, number: str | None, word: str | None, file: File) -> str:
    """`kind_of`, from a value of the column that is a number and one that is none, as far as there are such."""
    if number is not None and word is not None:
        raise ValueError(
            f"column {name!r} of {file.path} mixes numbers ({number!r}) and other values ({word!r}); name it in categorical if "
            "both are names, in drop if it is no feature, or mend the file"
        )
    return "categorical" if word is not None else "numeric"


def frame_of(
    values: dict[str, pa.Array], rows: int, numeric: Sequence[str], categorical: Sequence[str], file: File
) -> Frame:
    """The features of some rows."""
    encoded = {name: texts(values[name]).dictionary_encode() for name in categorical}
    return Frame(
        {name: numbers(values[name], f"column {name!r} of {file.path}") for name in numeric},
        {
            name: (
                pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32),
                found.dictionary.to_pylist(),
            )
            for name, found in encoded.items()
        },
        rows,
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """The chunks of a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays([c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in column.chunks])
