"""Strictness for every test: no silent rank promotion, warnings are errors (pyproject.toml), shapes are checked."""

import os

# Before jax is imported: eight devices on one CPU for the tests of sharding; harmless to the others.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)
