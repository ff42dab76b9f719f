"""The folder of a library: whole entries or none, whoever is killed, and every changed byte is found."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from experiments import workdir
from experiments.collection import seal, settings, store


@pytest.fixture
def library(tmp_path):
    settings.create(tmp_path / "library", settings.format_for((4, 4, 1)))
    return tmp_path / "library"


def add(library, name, content=b"content"):
    with store.staged(library, name) as folder:
        workdir.write_bytes(folder / "a.bin", content)
        workdir.write_bytes(folder / "inside" / "b.bin", content[::-1])


def hidden(library):
    return [path.name for path in library.glob(".*") if path.is_dir()]


def test_an_entry_comes_and_goes(library):
    add(library, "one")
    add(library, "two")
    assert store.names(library) == ["one", "two"] and not hidden(library)
    assert store.problems(library / "one") == []
    store.remove(library, "one")
    assert store.names(library) == ["two"] and not hidden(library)
    with pytest.raises(ValueError, match=r"no entry 'one'; there are two"):
        store.path_of(library, "one")


BAD = [
    "",
    ".",
    "..",
    "../out",
    "/tmp/out",
    "a/b",
    "a\\b",
    ".hidden",
    "-flag",
    "a b",
    "é",
    "x" * 65,
    "library.json",
    "a\n",
    "a\0",
]


@pytest.mark.parametrize("name", BAD)
def test_names_stay_in_the_folder(library, name):
    before = sorted(library.parent.rglob("*"))
    for act in (lambda: add(library, name), lambda: store.remove(library, name), lambda: store.path_of(library, name)):
        with pytest.raises(ValueError, match="can't be called"):
            act()
    assert sorted(library.parent.rglob("*")) == before


def test_a_taken_name_is_one_clear_error_and_keeps_the_first(library):
    add(library, "one", b"first")
    with pytest.raises(ValueError, match="has an entry 'one' already"):
        add(library, "one", b"second")
    assert (library / "one" / "a.bin").read_bytes() == b"first" and not hidden(library)


def test_many_writers_at_once(library):
    said = []

    def write(writer):
        for number in range(8):
            for name in (f"own{writer}-{number}", f"both{number}"):
                try:
                    add(library, name, name.encode())
                    said.append(("added", name))
                except ValueError as error:
                    said.append((str(error), name))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    added = [name for what, name in said if what == "added"]
    assert sorted(added) == store.names(library) == sorted({name for _, name in said})
    assert all("already" in what for what, _ in said if what != "added")
    assert not hidden(library) and all(store.problems(library / name) == [] for name in added)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_error_inside_leaves_nothing(library, error):
    with pytest.raises(type(error)), store.staged(library, "one") as folder:
        workdir.write_bytes(folder / "a.bin", b"1")
        raise error
    assert store.names(library) == [] and not hidden(library)


def test_a_full_disk(library):
    # Files can't grow beyond this, as on a disk that is full; the system itself refuses.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"nothing was added .* can't be written to .* make room"):
            add(library, "one", b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.names(library) == [] and not hidden(library)
    add(library, "one")


def test_a_read_only_disk(library, monkeypatch):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"nothing was added .*read-only file system"):
        add(library, "one")
    assert store.names(library) == []


def test_a_folder_that_one_may_not_write_to(library, monkeypatch):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"nothing was added .*permission denied"):
        add(library, "one")


def test_every_flip_is_found(library):
    add(library, "one", bytes(range(256)))
    for path in sorted((library / "one").rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(bytes(changed))
            assert store.problems(library / "one"), f"byte {place} of {path.name}"
        path.write_bytes(content)
    assert store.problems(library / "one") == []


def test_missing_and_strange_files_are_found(library, tmp_path):
    add(library, "one")
    (library / "one" / "more").write_bytes(b"")
    assert "more was not there" in store.problems(library / "one")[0]
    (library / "one" / "more").unlink()
    (library / "one" / "a.bin").unlink()
    assert store.problems(library / "one") == ["a.bin is missing"]
    (library / "one" / "a.bin").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in store.problems(library / "one")[0]
    with pytest.raises(ValueError, match="the entry one is damaged"):
        store.check(library / "one")
    (library / "two").symlink_to(library / "one")
    assert store.names(library) == ["one"]
    with pytest.raises(ValueError, match="no entry 'two'"):
        store.path_of(library, "two")
    with pytest.raises(ValueError, match="already"):
        add(library, "two")


KILLED = """
import sys, time
from pathlib import Path
from experiments import workdir
from experiments.collection import store
with store.staged(Path(sys.argv[1]), "killed") as folder:
    workdir.write_bytes(folder / "a.bin", b"half")
    print("inside", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_leaves_is_swept_up_and_a_living_one_is_let_be(library):
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(library)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"inside\n"
    add(library, "one")
    assert store.names(library) == ["one"] and len(hidden(library)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert store.names(library) == ["one"] and len(hidden(library)) == 1
    (library / ".removing-0123").mkdir()
    add(library, "two")
    assert store.names(library) == ["one", "two"] and not hidden(library)


def test_sealed_text_is_found_changed_at_any_byte(tmp_path):
    content = {"a": [1, 2.5, None], "name": "ü", "inside": {"b": True}}
    path = tmp_path / "sealed.json"
    whole = seal.sealed(content)
    path.write_bytes(whole)
    assert seal.unsealed(path) == content
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(bytes(changed))
            with pytest.raises(ValueError, match="truncated or changed"):
                seal.unsealed(path)
    for cut in (0, 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="truncated or changed"):
            seal.unsealed(path)


def test_folders_that_are_no_library(tmp_path, library):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        settings.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty and no library yet"):
        settings.read(tmp_path / "empty")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    for act in (settings.read, lambda path: settings.create(path, settings.format_for((4,)))):
        with pytest.raises(ValueError, match=r"holds files \(thesis.tex\) but no library.json"):
            act(tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"is a file"):
        settings.create(tmp_path / "foreign" / "thesis.tex", settings.format_for((4,)))
    with pytest.raises(ValueError, match="of another format: images of 4x4 pixels, grey"):
        settings.create(library, settings.format_for((8, 8, 3)))
    assert settings.create(library, settings.format_for((4, 4, 1))) == settings.read(library)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_version_is_refused_with_the_reason(library, version):
    content = seal.unsealed(library / "library.json") | {"version": version}
    (library / "library.json").write_bytes(seal.sealed(content))
    with pytest.raises(ValueError, match=f"of version {json.dumps(version)}; this program reads versions 1 to 1"):
        settings.read(library)


@pytest.mark.parametrize("shape", [(), (4, 4), (4, 4, 2), (0,), (-1, 4, 1), (2, 2, 2, 1)])
def test_shapes_of_no_input(shape):
    with pytest.raises(ValueError, match="expected HEIGHT WIDTH CHANNELS"):
        settings.format_for(shape)


def test_what_is_adapted_is_said_and_what_can_t_be_is_refused():
    images, rows = settings.format_for((6, 5, 1)), settings.format_for((3,))
    colour = np.zeros((2, 8, 8, 3), np.uint8)
    x, note = settings.adapted(images, colour, name="photos")
    assert (
        x.shape == (2, 6, 5, 1)
        and "photos were brought from images of 8x8 pixels, RGB to images of 6x5 pixels, grey" in note
    )
    same, note = settings.adapted(images, x, name="photos")
    assert same is x and note == ""
    for format, wrong, both in (
        (images, np.zeros((2, 30), np.float32), "images of 6x5 pixels, grey and table holds rows of 30 numbers"),
        (rows, colour, "rows of 3 numbers and table holds images of 8x8 pixels, RGB"),
        (rows, np.zeros((2, 4), np.float32), "rows of 3 numbers and table holds rows of 4 numbers"),
    ):
        with pytest.raises(ValueError, match=both):
            settings.adapted(format, wrong, name="table")
