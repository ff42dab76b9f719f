"""Prints the constraints for pip: those of a file, or, beside a jax that is installed already, those that leave it alone.

    python tools/constraints.py constraints-3.12.txt

Names and versions come from the packages' metadata: `pip freeze` prints a wheel's path or a repository's address instead of
a version where a package was installed from there, as images with an accelerator do.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

# What belongs to the installed jax, and stays at its version; …
HELD = re.compile(r"(jax|jaxlib|jax-.*|nvidia.*|libtpu.*|numpy|scipy|ml-dtypes)$")
# … and what need only fit it: pip chooses the version.
FITTED = re.compile(r"(flax|optax|orbax.*)$")


def main(path: str) -> None:
    tested = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    installed: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        # The first on the path is the one that is imported; metadata that are broken have no name.
        if package.metadata["Name"]:
            installed.setdefault(normal(package.metadata["Name"]), package.version)
    if "jax" in installed:
        held = [f"{name}=={version}" for name, version in sorted(installed.items()) if HELD.match(name)]
        others = (normal(line.partition("==")[0]) for line in tested)
        free = [line for line, name in zip(tested, others) if not HELD.match(name) and not FITTED.match(name)]
        tested = held + free
    sys.stdout.write("\n".join(tested) + "\n")


def normal(name: str) -> str:
    """A package's name as indices spell it: ML_dtypes → ml-dtypes."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1])
