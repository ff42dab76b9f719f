#!/bin/sh
# Makes the virtual environment $1 and installs the project into it.
#
# A jax that is already there (in $1, or in the Python that makes it: an image with an accelerator, say) is used as it is and
# never replaced: the environment then sees that Python's packages, and the constraints leave jax and what goes with it alone.
set -eu
venv=$1
python=${PYTHON:-python3}

[ -d "$venv" ] || if "$python" -c "import jax" 2>/dev/null; then
    "$python" -m venv --system-site-packages "$venv"
else
    "$python" -m venv "$venv"
fi

minor=$("$venv/bin/python" -c "import sys; print(sys.version_info.minor)")
tested=constraints-3.12.txt
[ "$minor" -gt 11 ] || tested=constraints-3.11.txt

constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
"$venv/bin/python" tools/constraints.py "$tested" >"$constraints"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".[test]"

# Tests mostly compile. Without the fusion emitters XLA compiles for CPU in about half the time; not every version knows the flag,
# and one that doesn't would end the process.
fast="--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
JAX_PLATFORMS=cpu XLA_FLAGS=$fast "$venv/bin/python" -c "import jax; jax.devices()" >/dev/null 2>&1 ||
    fast="--xla_backend_optimization_level=1"
echo "$fast" >"$venv/.xla_flags_of_tests"
