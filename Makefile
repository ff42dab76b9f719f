# Every target sets itself up: a virtual environment in .venv, made once, with the tested versions of constraints-3.11.txt or
# constraints-3.12.txt (newer Pythons too).
#   make transfer   the main job on embedded data      make test   all tests        make lint   style, types, import contract
#   make library    eight small models, ranked for a new target, the best reused
#   make data       fetch the real data sets           make PYTHON=python3.12 ...   another Python
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VERSION := import sys; print(sys.version_info[:2])

# Most of the time of tests goes into compiling small programs, which some flags make half as long (tools/setup.sh). Threads of
# OpenBLAS wait for each other at full speed, which two workers on two cores can't afford.
QUICKLY = JAX_PLATFORMS=cpu OPENBLAS_NUM_THREADS=1 XLA_FLAGS="$$(cat $(VENV)/.xla_flags_of_tests) $$XLA_FLAGS"

.PHONY: transfer library test strict lint data setup same-python clean
transfer: setup
	$(BIN)/python -m experiments.transfer --config configs/quickstart.py

test: setup
	$(QUICKLY) $(BIN)/python -m pytest -n auto --dist loadfile

library: setup
	$(BIN)/python -m experiments.library demo runs/library

# The same properties where a key that is used twice is an error, and in float64.
strict: setup
	$(QUICKLY) JAX_DEBUG_KEY_REUSE=1 $(BIN)/python -m pytest tests/transfer/test_finetune.py
	$(QUICKLY) JAX_ENABLE_X64=1 $(BIN)/python -m pytest tests/two_sample/test_mmd.py tests/test_intervals.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

data: setup
	$(BIN)/python -m experiments.download --data-dir data

setup: same-python $(READY)

# A Python that was asked for by name is not silently another one.
same-python:
ifneq ($(origin PYTHON),file)
	@[ ! -d $(VENV) ] || [ "$$($(PYTHON) -c '$(VERSION)')" = "$$($(BIN)/python -c '$(VERSION)')" ] || { \
	echo "$(VENV) was not made with $(PYTHON): run \`make clean\` first, or give VENV=.venv-$(notdir $(PYTHON)) too" >&2; exit 1; }
endif

$(READY): pyproject.toml $(wildcard constraints-*.txt) tools/setup.sh tools/constraints.py | same-python
	PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
