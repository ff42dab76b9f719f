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
constraints=constraints-3.12.txt
[ "$minor" -gt 11 ] || constraints=constraints-3.11.txt

tested=$(mktemp)
trap 'rm -f "$tested"' EXIT
if "$venv/bin/python" -c "import jax" 2>/dev/null; then
    # What stands beside a jax must fit it: hold every package that is installed already at its version.
    "$venv/bin/python" -m pip freeze 2>/dev/null | grep -E '^(jax|jaxlib|jax-[a-z0-9-]*|nvidia-[a-z0-9-]*|numpy|scipy|ml_dtypes)==' >"$tested" || true
    held=$(sed 's/==.*//' "$tested" | tr '\n' '|' | sed 's/|$//')
    if [ -n "$held" ]; then grep -viE "^($held|flax|optax|orbax-checkpoint)==" "$constraints" >>"$tested"; else cat "$constraints" >>"$tested"; fi
else
    cat "$constraints" >"$tested"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$tested" -e ".[test]"
