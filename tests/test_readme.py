"""The building blocks of the README, run as they stand there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import mmd_jax

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S)


def rows(key, count):
    y = np.arange(count, dtype=np.int32) % 3
    noise = np.asarray(jax.random.normal(jax.random.key(key), (count, 6)))
    return mmd_jax.Rows((noise + 3 * np.eye(6, dtype=np.float32)[y]).astype(np.float32), y)


@pytest.mark.parametrize("block", BLOCKS, ids=["two arrays", "freeze", "own model"])
def test_a_block_runs_and_is_short(block, capsys):
    assert sum(bool(line.strip()) for line in block.splitlines()) < 15
    names = {"train": rows(0, 60), "valid": rows(1, 30), "source_x": rows(2, 50).x}
    exec(compile(block, "README.md", "exec"), names)
    if "result" in names:
        assert bool(names["result"].reject)
    if "updates" in names:
        sizes = {name: float(abs(leaf["w"]).max()) for name, leaf in names["updates"].items()}
        assert sizes["conv1"] == sizes["conv2"] == 0 < sizes["head"]
    if "tuned" in names:
        last = capsys.readouterr().out.splitlines()[-1]
        assert float(last.split()[1]) > 0.8


def test_there_are_three():
    assert len(BLOCKS) == 3
