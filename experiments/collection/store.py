"""The folder: entries come and go whole, whoever else is at work, and whatever is killed.

    LIBRARY/library.json            what all entries share (`settings`)
    LIBRARY/NAME/manifest.json      the sha256 of every other file of the entry, and its own
    LIBRARY/.adding-…/entry/        an entry that is being made; its writer holds the lock of .adding-…/lock
    LIBRARY/.removing-…             an entry that lost its name and is being deleted
    LIBRARY/.lock                   held for moments, while hidden folders are made and swept up

An entry gets its name by one rename, when every byte is on the disk. There is no index that could go stale: the entries are
the folders.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from experiments import workdir
from experiments.collection.seal import sealed, unsealed
from experiments.collection.settings import FILE, check_version, reason

MANIFEST, WHAT, VERSION = "manifest.json", "mmd_jax library entry", 1
_ADDING, _REMOVING = ".adding-", ".removing-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Refuses a name that is not one plain folder in the library.

    Raises:
      ValueError: says what a name is.
    """
    if not _NAME.fullmatch(name) or name == FILE:
        raise ValueError(
            f"an entry can't be called {name!r}; expected 1 to 64 letters, digits, and . _ - after the first of them"
        )
    return name


def names(library: Path) -> list[str]:
    """The entries, in the order of their names; whole folders only, as hidden ones are in the making."""
    with os.scandir(library) as found:
        return sorted(e.name for e in found if e.is_dir(follow_symlinks=False) and _NAME.fullmatch(e.name))


def path_of(library: Path, name: str) -> Path:
    """The folder of an entry that is there.

    Raises:
      ValueError: a bad name, a link, or no such entry (the nearest are named).
    """
    folder = Path(library) / check_name(name)
    if folder.is_symlink() or not folder.is_dir():
        there = names(Path(library))
        some = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
        raise ValueError(
            f"{library} has no entry {name!r}; " + (f"there are {some}" if there else "it has none at all")
        )
    return folder


@contextlib.contextmanager
def staged(library: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which becomes the entry NAME at the end; after an error nothing of it is left.

    Raises:
      ValueError: a bad name, or one that is taken, at the beginning or by the end.
      OSError: the disk is full or can't be written to; one sentence says so.
    """
    library, final = Path(library), Path(library) / check_name(name)
    refuse_taken(library, name)
    room: Path | None = None
    lock = -1
    try:
        try:
            with _locked(library) as alone:
                if alone:
                    _sweep(library)
                room = library / f"{_ADDING}{secrets.token_hex(6)}"
                room.mkdir()
                lock = os.open(room / "lock", os.O_RDWR | os.O_CREAT, 0o600)
                _try_lock(lock)
            (room / "entry").mkdir()
        except OSError as error:
            raise _not_written(library, error) from None
        yield room / "entry"
        try:
            _seal(room / "entry")
            _publish(room / "entry", final)
        except OSError as error:
            raise _not_written(library, error) from None
    except OSError as error:
        if error.errno in _FULL:  # while the caller wrote
            raise _not_written(library, error) from None
        raise
    finally:
        if room is not None:
            shutil.rmtree(room, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def _not_written(library: Path, error: OSError) -> OSError:
    return OSError(
        f"nothing was added to {library}: it can't be written to ({reason(error)}); make room there, or choose a library that "
        "you may write to"
    )


def refuse_taken(library: Path, name: str) -> None:
    """Refuses a name that an entry has.

    Raises:
      ValueError: says so.
    """
    if os.path.lexists(library / name):
        raise ValueError(f"{library} has an entry {name!r} already; remove it first, or choose another name")


def _publish(folder: Path, final: Path) -> None:
    try:
        os.rename(folder, final)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            refuse_taken(final.parent, final.name)
        raise
    workdir.sync_folder(final.parent)


def remove(library: Path, name: str) -> None:
    """Takes an entry away: at once it is gone for all others, then its files are deleted.

    Raises:
      ValueError: there is none of that name.
      OSError: the library can't be written to.
    """
    folder = path_of(library, name)
    away = folder.with_name(f"{_REMOVING}{secrets.token_hex(6)}")
    try:
        os.rename(folder, away)
    except FileNotFoundError:
        raise ValueError(f"{library} has no entry {name!r} any more: someone else removed it") from None
    except OSError as error:
        raise OSError(f"{name} can't be removed from {library} ({reason(error)})") from None
    workdir.sync_folder(folder.parent)
    shutil.rmtree(away, ignore_errors=True)


def files_of(folder: Path) -> list[str]:
    """Every file of an entry but the manifest, as "/"-joined paths.

    Raises:
      ValueError: there is a link or something else that is no plain file.
    """
    found = []
    for directory, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(directory) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is a link or no plain file; an entry holds plain files only")
        found += [(Path(directory) / name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in found if name != MANIFEST)


def problems(folder: Path) -> list[str]:
    """What is wrong with the files of an entry: changed, missing, too many; empty where every byte is as it was added."""
    try:
        content = unsealed(folder / MANIFEST)
        check_version(content, WHAT, VERSION, folder / MANIFEST)
        there = files_of(folder)
        recorded = dict(content["files"])
    except (ValueError, OSError, KeyError) as error:
        return [str(error)]
    found = [f"{name} is missing" for name in recorded if name not in there]
    found += [f"{name} was not there when the entry was added" for name in there if name not in recorded]
    for name in there:
        if name in recorded and digest(folder / name) != recorded[name]:
            found.append(f"{name} was changed: its sha256 differs")
    return found


def check(folder: Path) -> None:
    """Refuses an entry that is not as it was added.

    Raises:
      ValueError: names what differs.
    """
    if wrong := problems(folder):
        raise ValueError(f"the entry {folder.name} is damaged: {'; '.join(wrong[:3])}")


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(folder: Path) -> None:
    """Brings every file to the disk, and writes their hashes."""
    files = files_of(folder)
    content = {"what": WHAT, "version": VERSION, "files": {name: digest(folder / name) for name in files}}
    workdir.write_bytes(folder / MANIFEST, sealed(content))
    for directory, _, inside in os.walk(folder):
        for name in inside:
            descriptor = os.open(Path(directory) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        workdir.sync_folder(directory)


def _sweep(library: Path) -> None:
    """Deletes what was left by those who were killed; called under the library's lock."""
    for path in library.glob(f"{_REMOVING}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in library.glob(f"{_ADDING}*"):
        try:
            lock = os.open(path / "lock", os.O_RDWR)
        except FileNotFoundError:  # killed between the folder and its lock
            shutil.rmtree(path, ignore_errors=True)
            continue
        except OSError:
            continue  # another user's
        try:
            if _try_lock(lock):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def _try_lock(descriptor: int) -> bool:
    """Whether the lock could be had; on a file system without locks it is never known that a writer is gone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(library: Path) -> Iterator[bool]:
    """The library's own lock, which is waited for; whoever holds it holds it for moments. Yields whether there are locks here."""
    try:
        descriptor = os.open(library / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        try:
            descriptor = os.open(library / ".lock", os.O_RDONLY)  # another user made it
        except FileNotFoundError:
            raise error from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
