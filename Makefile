# Every target sets itself up: a virtual environment in .venv, made once, from constraints.txt's tested versions.
#   make transfer   the main job on embedded data      make test   all tests        make lint   style, types, import contract
#   make data       fetch the real data sets           make PYTHON=python3.12 ...   another Python
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export JAX_PLATFORMS ?=
READY := $(VENV)/.ready

.PHONY: transfer test lint data setup clean
transfer: setup
	$(BIN)/python -m experiments.transfer --config configs/quickstart.py

test: setup
	$(BIN)/python -m pytest -n auto

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

data: setup
	$(BIN)/python -m experiments.download --data-dir data

setup: $(READY)

$(READY): pyproject.toml $(wildcard constraints-*.txt) tools/setup.sh
	PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
