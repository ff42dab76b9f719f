"""What `make` asks of pip, where a jax is installed already and where none is; nothing is installed here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTED = """# tested
flax==0.12.12
jax==0.12.0.1
jaxlib==0.12.0.1
jaxtyping==0.3.11
ml_dtypes==0.6.0
numpy==2.5.5
pytest==9.2.0
"""


def install(site, name, version, *, url=None):
    """The metadata of a package that is installed; from `url`: freeze would print it in place of the version."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if url:
        (folder / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{"editable": true}}}}')


def constraints(tmp_path):
    (tmp_path / "tested.txt").write_text(TESTED)
    # Without site (-S) only what is "installed" here is seen.
    code = "import runpy, sys; sys.path[0] = 'site'; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-S", "-c", code, str(ROOT / "tools" / "constraints.py"), "tested.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_without_a_jax_the_tested_versions(tmp_path):
    install(tmp_path / "site", "numpy", "2.1.0")
    assert constraints(tmp_path) == TESTED.split()[2:]


def test_an_installed_jax_keeps_its_version_wherever_it_came_from(tmp_path):
    site = tmp_path / "site"
    install(site, "jax", "0.11.0.dev7+g12ab", url="file:///opt/jax")
    install(site, "jaxlib", "0.11.0", url="file:///opt/jaxlib.whl")
    install(site, "jax_cuda12_plugin", "0.11.0")
    install(site, "nvidia-cudnn-cu12", "9.8.0")
    install(site, "ML_dtypes", "0.5.1")
    install(site, "flax", "0.11.1")
    install(site, "pytest", "8.0.0")
    found = constraints(tmp_path)
    assert set(found) == {
        "jax==0.11.0.dev7+g12ab",
        "jaxlib==0.11.0",
        "jax-cuda12-plugin==0.11.0",
        "nvidia-cudnn-cu12==9.8.0",
        "ml-dtypes==0.5.1",
        "jaxtyping==0.3.11",  # goes with any jax
        "pytest==9.2.0",
    }


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_python_other_than_the_environments_is_refused(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "other").write_text("#!/bin/sh\necho '(3, 99)'\n")
    (tmp_path / "other").chmod(0o755)

    def make(python):
        return subprocess.run(["make", "same-python", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)

    assert make(sys.executable).returncode == 0
    refused = make("./other")
    assert refused.returncode != 0
    assert ".venv was not made with ./other: run `make clean` first, or give VENV=.venv-other too" in refused.stderr
