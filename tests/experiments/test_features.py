"""Outputs of frozen layers on disk: used again, and only for what they were made from."""

import jax
import numpy as np
import pytest

from experiments.features import on_disk
from mmd_jax import from_layers, stages_of
from mmd_jax.models.mlp import dense
from mmd_jax.types import Rows

NETWORK = from_layers([("first", dense(4)), ("last", dense(2, relu=False))])
[STAGE] = stages_of("linear_probe", NETWORK.layers)
X = np.arange(12, dtype=np.float32).reshape(4, 3)
VARIABLES = NETWORK.init(jax.random.key(0), X)


def kept(folder, rows=X, variables=VARIABLES, about="one", precision="float32"):
    """Whether the outputs were computed, and what came back."""
    calls = []

    def compute(rows):
        calls.append(1)
        return Rows(rows.x + 1, rows.y)

    keep = on_disk(folder, about, precision=precision)(NETWORK, variables, STAGE)
    found = keep(compute, Rows(rows, np.zeros(len(rows), np.int32)))
    np.testing.assert_array_equal(found.x, rows + 1)
    return bool(calls)


def test_outputs_are_made_once(tmp_path):
    assert kept(tmp_path)
    assert not kept(tmp_path)


@pytest.mark.parametrize("what", ["rows", "dtype", "weights", "about", "precision"])
def test_outputs_of_anything_else_are_made_anew(tmp_path, what):
    kept(tmp_path)
    other = jax.tree.map(lambda leaf: leaf * 1.001, VARIABLES)
    changed = {
        "rows": {"rows": X[::-1]},
        "dtype": {"rows": X.astype(np.float64)},
        "weights": {"variables": other},
        "about": {"about": "two"},
        "precision": {"precision": "bfloat16"},
    }[what]
    assert kept(tmp_path, **changed)
    assert not kept(tmp_path)


def test_the_new_head_is_not_asked(tmp_path):
    kept(tmp_path)
    head = {"params": {**VARIABLES["params"], "last": jax.tree.map(lambda leaf: leaf + 1, VARIABLES["params"]["last"])}}
    assert not kept(tmp_path, variables=head)


def test_a_damaged_file_is_made_again(tmp_path):
    kept(tmp_path)
    [file] = tmp_path.glob("*.npz")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert kept(tmp_path)
    assert not kept(tmp_path)
