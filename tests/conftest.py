"""Strictness for every test: no silent rank promotion, warnings are errors (pyproject.toml), shapes are checked."""

import os

# Before jax is imported: the tests are of the CPU, also where there is an accelerator, unless the environment names another.
if not os.environ.get("JAX_PLATFORMS"):
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def _let_go_of_programs():
    """Each compiled program holds memory maps, of which Linux allows a process 65,530; with more, XLA crashes."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)
