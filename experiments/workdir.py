"""Where a run writes: a folder that one config owns, and files that are there whole or not at all.

Everything that the experiments write goes through here, Orbax aside. A file gets its name only when it is complete (a
temporary file in the same folder, fsync, rename), so a run that is killed at any moment leaves nothing half-written.
"""

import contextlib
import errno
import fcntl
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Temporary files carry this mark, so that what a killed process left behind is told from the user's own files.
_UNFINISHED = ".unfinished"
# Resolved folder -> the open descriptor that holds its lock. The system takes the lock back however the process ends.
_locks: dict[Path, int] = {}


def open_workdir(path: str | os.PathLike[str], config: Any, *, ignore: tuple[str, ...] = ()) -> Path:
    """Makes a work directory for one config, or opens the one it started, and locks it until the process ends.

    `config.json` is written first. Where only fields in `ignore` differ from it, it is written again with their new
    values.

    Args:
      path: the folder; its parents are made too.
      config: what makes this run this run, as a dict (or dataclass) that JSON can hold.
      ignore: dotted names of fields that may differ from those of the run that started the folder ("until"); a name
        covers the fields below it.

    Returns:
      The folder.

    Raises:
      ValueError: the folder can't be made, belongs to another config (each differing field is named with both values),
        holds files but no `config.json`, or is in use by another process.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(
            f"the work directory {path} can't be made ({reason}); choose a path below a folder that you may write to"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"the work directory {path} can't be written to; choose another")
    _lock(path)

    file = path / "config.json"
    new = json.loads(_dumps(config))
    if not file.exists():
        if strangers := sorted(p.name for p in path.iterdir() if _UNFINISHED not in p.name):
            some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
            raise ValueError(
                f"the work directory {path} holds files ({some}) but no config.json, so no run started it; "
                "choose a new or an empty folder"
            )
        write_json(file, new)
        return path
    old = read_json(file)
    if differences := _differences(old, new, ignore):
        lines = "\n".join(f"  {name}: {there} there, {here} now" for name, there, here in differences)
        raise ValueError(
            f"the work directory {path} was started by another config; choose another, or the same settings:\n{lines}"
        )
    if old != new:
        write_json(file, new)
    return path


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file whole or not at all: readers see the old content until the new one is complete and on the disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_UNFINISHED}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes JSON in the order of the fields: floats exactly, NaN and infinities as null, see `plain`."""
    write_bytes(path, (_dumps(obj, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
      FileNotFoundError: it isn't there.
      ValueError: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes().decode())
    except ValueError as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}); it was truncated or changed") from None


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name to an .npz file; the same arrays give the same bytes.

    Raises:
      ValueError: an array of objects or of a type that the format can't name (bfloat16).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.kind in "OV":
                raise ValueError(
                    f"array {name!r} for {path} has dtype {array.dtype}, which .npz can't hold; cast it first"
                )
            # A ZipInfo of our own: its date is fixed.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of an .npz file into memory; never unpickles.

    Raises:
      FileNotFoundError: it isn't there.
      ValueError: it is truncated, changed, no .npz file, or holds objects.
    """
    arrays = {}
    with open(path, "rb") as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                for entry in archive.namelist():
                    # Read whole, so that the archive's checksum is compared before numpy parses a byte.
                    content = io.BytesIO(archive.read(entry))
                    arrays[entry.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
        except Exception as error:  # a damaged archive raises nearly anything: BadZipFile, EOFError, struct.error …
            raise ValueError(
                f"{path} is not a readable .npz file of plain arrays ({error}); it was truncated or changed"
            ) from None
    return arrays


def append_metrics(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Appends one row to a JSON-lines file in one write, so that a kill loses at most this row."""
    line = (_dumps(row) + "\n").encode()
    with open(path, "a+b", buffering=0) as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a row that a kill cut in two
                _mend(file)
        file.write(line)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the rows of a JSON-lines file; a last row that a kill cut in two is left out. No file, no rows.

    Raises:
      ValueError: a row before the last is not JSON.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (row := _row(line)) is not None:
            rows.append(row)
        elif number < len(lines):
            raise ValueError(f"line {number} of {path} is not a JSON object: {line[:80].decode(errors='replace')}")
    return rows


def cut_metrics(path: str | os.PathLike[str], *, fit: str, step: int) -> int:
    """Drops the rows of one fit that lie after a step, for a run that goes on from there. Whole or not at all.

    Returns:
      How many rows were dropped.
    """
    rows = read_metrics(path)
    kept = [row for row in rows if not (row.get("fit") == fit and row.get("step", step) > step)]
    if len(kept) < len(rows):
        write_bytes(path, "".join(_dumps(row) + "\n" for row in kept).encode())
    return len(rows) - len(kept)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Brings the names in a folder to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems can't; the rename is still atomic
    finally:
        os.close(descriptor)


def plain(obj: Any) -> Any:
    """What JSON can hold: NamedTuples and dataclasses become dicts, arrays lists, NaN and infinities None."""
    if obj is None or type(obj) in (bool, int, str):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: plain(getattr(obj, f.name)) for f in fields(obj)}
    if isinstance(obj, tuple) and hasattr(obj, "_fields"):
        return {name: plain(value) for name, value in zip(obj._fields, obj)}
    if isinstance(obj, Mapping):
        return {str(name): plain(value) for name, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, str):
        return str(obj)  # numpy's
    if isinstance(obj, bytes | set | frozenset) or not hasattr(obj, "__array__"):
        raise TypeError(f"JSON can't hold a {type(obj).__name__}: {obj!r}")
    array = np.asarray(obj)
    if array.dtype.kind == "V":  # bfloat16 and its like, whose items are no Python numbers
        array = array.astype(np.float32)
    return plain(array.tolist())


def _dumps(obj: Any, indent: int | None = None) -> str:
    return json.dumps(plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def _lock(path: Path) -> None:
    """Takes the folder's lock for this process; the folder itself is the file, so nothing is left to clean up."""
    path = path.resolve()
    if (held := _locks.pop(path, None)) is not None:
        if os.path.samestat(os.fstat(held), os.stat(path)):
            _locks[path] = held
            return
        os.close(held)  # of a folder that is gone; a new one stands in its place
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ValueError(
                f"the work directory {path} is in use by another process; wait until it ends, or choose another folder"
            ) from None
        return  # a file system without locks
    _locks[path] = descriptor


def _differences(old: Any, new: Any, ignore: tuple[str, ...], name: str = "") -> list[tuple[str, str, str]]:
    """(dotted field, its value in the folder, its value now) for each field that differs."""
    # A field that an older version did not have, and that is unset now, is no difference.
    if name in ignore or old == new or (old is _ABSENT and new in (None, "")):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(k for k in new if k not in old)]:
            dotted = f"{name}.{key}" if name else key
            found += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), ignore, dotted)
        return found
    there, here = ("nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False) for value in (old, new))
    return [(name, there, here)]


_ABSENT = object()


def _row(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        row = json.loads(line.decode())
        if isinstance(row, dict):
            return row
    return None


def _mend(file: Any) -> None:
    """Ends a file whose last line lacks its newline: adds it where the row is whole, else removes the torn row."""
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _row(content[start:]) is not None:
        file.write(b"\n")
    else:
        file.truncate(start)
