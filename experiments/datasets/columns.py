"""CSV and Parquet files as batches of columns: what stands in the file, nothing decided yet.

CSV values come as text, whatever they look like, so that no block of a file is read otherwise than another.
"""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

BLOCK_BYTES = 1 << 24  # of a CSV file that are read at a time
BLOCK_ROWS = 1 << 17  # of a Parquet file
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None")
NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"


class File(NamedTuple):
    """A table in a file.

    Attributes:
      kind: "csv" or "parquet".
      path: where it lies.
      names: its columns, in their order.
    """

    kind: str
    path: Path
    names: tuple[str, ...]


def open_file(kind: str, path: str | Path, data_dir: Path) -> File:
    """Reads the header.

    Args:
      kind: "csv" (plain, .gz, .bz2, or .zip with one file in it) or "parquet".
      path: a file; where there is none and the path is relative, it is looked for in `data_dir` too.
      data_dir: where downloaded data lie.

    Raises:
      FileNotFoundError: it is at neither place.
      ValueError: not a file of that kind, empty, not UTF-8, or two columns of one name.
    """
    path = Path(path).expanduser()
    places = [path] if path.is_absolute() else [path, data_dir / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raw = path.parts[:1] == ("raw",) and len(path.parts) > 2
        hint = f"; `python -m experiments.download --data-dir {data_dir} {path.parts[1]}` may fetch it" if raw else ""
        raise FileNotFoundError(f"there is no file {' or '.join(map(str, places))}{hint}")
    with _explained(found), contextlib.ExitStack() as stack:
        if kind == "csv":
            names = _open_csv(stack, found, None, BLOCK_BYTES).schema.names
        else:
            names = pyarrow.parquet.ParquetFile(stack.enter_context(found.open("rb"))).schema_arrow.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{found} has several columns named {twice[0]!r}; give each column a name of its own")
    return File(kind, found, tuple(names))


def batches(
    file: File, columns: Sequence[str], *, block_bytes: int = BLOCK_BYTES, block_rows: int = BLOCK_ROWS
) -> Iterator[pa.RecordBatch]:
    """These columns of all rows, a block of the file at a time; no more than a few blocks are ever in memory.

    Args:
      file: of `open_file`.
      columns: names, each once.
      block_bytes: of a CSV file; a row must fit in.
      block_rows: of a Parquet file.

    Raises:
      ValueError: a block that can't be read, or no row in the file.
    """
    rows = 0
    with _explained(file.path), contextlib.ExitStack() as stack:
        reader: Any
        if file.kind == "csv":
            reader = _open_csv(stack, file.path, list(columns), block_bytes)
        else:
            opened = stack.enter_context(file.path.open("rb"))
            reader = pyarrow.parquet.ParquetFile(opened).iter_batches(block_rows, columns=list(columns))
        for batch in reader:
            rows += batch.num_rows
            if batch.num_rows:
                yield batch.select(list(columns))
    if not rows:
        raise ValueError(f"{file.path} has a header, but no rows")


def texts(values: pa.Array) -> pa.Array:
    """The values as text, null where they are missing."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if not is_text_type(values.type):
        return pc.cast(values, pa.string())
    values = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    return pc.if_else(pc.is_in(values, pa.array(MISSING)), pa.scalar(None, pa.string()), values)


def looks(values: pa.Array) -> tuple[str | None, str | None]:
    """A value that is a number, and one that is none, as text; none where there is no such value."""
    if is_number_type(values.type):
        there = pc.drop_null(values)
        return (str(there[0].as_py()) if len(there) else None), None
    found = pc.drop_null(texts(values))
    if not is_text_type(values.type):
        return None, (found[0].as_py() if len(found) else None)
    numeric = pc.match_substring_regex(found, NUMBER)
    ones = [found.filter(mask) for mask in (numeric, pc.invert(numeric))]
    first, other = (str(part[0].as_py()) if len(part) else None for part in ones)
    return first, other


def numbers(values: pa.Array, where: str) -> np.ndarray:
    """The values as float64, NaN where they are missing.

    Args:
      values: a column of a batch.
      where: names it in an error.

    Raises:
      ValueError: a value that is no finite number.
    """
    if not (is_number_type(values.type) or is_text_type(values.type)):
        raise ValueError(f"{where} holds {values.type}, not numbers")
    if is_text_type(values.type):
        values = texts(values)
        wrong = pc.drop_null(values).filter(pc.invert(pc.match_substring_regex(pc.drop_null(values), NUMBER)))
        if len(wrong):
            raise ValueError(f"{where} holds {wrong[0].as_py()!r}, which is no number")
    found = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    if np.isinf(found).any():
        raise ValueError(f"{where} holds an infinite number")
    return found


def is_number_type(kind: pa.DataType) -> bool:
    """Integers, floats and decimals."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_text_type(kind: pa.DataType) -> bool:
    """Text, or text by codes: what may hold numbers written out."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _open_csv(stack: contextlib.ExitStack, path: Path, columns: list[str] | None, block_bytes: int) -> Any:
    stream: Any
    if path.suffix == ".zip":
        zipped = stack.enter_context(zipfile.ZipFile(path))
        inside = [name for name in zipped.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(inside) != 1:
            raise ValueError(f"{path} holds {len(inside)} files ({', '.join(inside[:4])}); expected one CSV file in it")
        stream = stack.enter_context(zipped.open(inside[0]))
    else:
        stream = stack.enter_context(pa.input_stream(str(path)))  # .gz and .bz2 by their names
    types = {} if columns is None else dict.fromkeys(columns, pa.string())
    return stack.enter_context(
        pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(block_size=block_bytes),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=types),
        )
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What pyarrow and zipfile say, with the file's name and what to do."""
    try:
        yield
    except (pa.ArrowException, zipfile.BadZipFile, UnicodeDecodeError, OSError, EOFError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "Empty CSV" in said:
            raise ValueError(f"{path} is empty; expected a line of column names, then rows") from error
        if "UTF8" in said or isinstance(error, UnicodeDecodeError):
            raise ValueError(
                f"{path} is not UTF-8 text ({said}); convert it, for example: iconv -f latin1 -t utf-8"
            ) from error
        raise ValueError(f"{path} can't be read as a table: {said}") from error
