"""Tables in blocks: the answer does not depend on the blocks, and is that of the rows in memory."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

from experiments import sketch, sources
from experiments.config import Config, Data, TwoSample
from experiments.datasets import table_map
from experiments.measure import input_vectors
from mmd_jax.two_sample import mmd2_unbiased
from mmd_jax.two_sample.sketches import accumulate, new_sketch
from tests.experiments import tables


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sketch")
    settings = {"label_key": "delay", "label_above": 15, "drop": ("tail", "day"), "group_key": ""}
    source = Data(f"csv:{tables.write(folder / 'a.csv', tables.columns(0, 900))}", **settings)
    target = Data(f"csv:{tables.write(folder / 'b.csv', tables.columns(1, 700, shift=200))}", **settings)
    return Config("sketch", source, target, test=TwoSample(permutations=199, bandwidth=2.0))


SMALL = {"features": 256, "bins": 16}


def test_small_blocks_give_the_answer_of_one(config):
    one = sketch.measure(config, **SMALL)
    many = sketch.measure(config, **SMALL, block_bytes=2000)  # some thirty rows a block
    assert one.rows == many.rows == (900, 700)
    for a, b in zip(one.table.numbers, many.table.numbers, strict=True):
        assert (a.name, a.flag) == (b.name, b.flag)
        np.testing.assert_allclose([a.mean, a.std], [b.mean, b.std], rtol=1e-12)
    assert one.table.categories == many.table.categories
    assert float(one.result.statistic) == pytest.approx(float(many.result.statistic), abs=2e-6)
    assert one.result.reject and many.result.reject


def test_it_is_the_mmd_of_the_rows_in_memory(config):
    found = sketch.measure(config, features=4096, bins=16)
    xs = []
    for data in (config.source, config.target):
        loaded = sources.load(data, seed=0, data_dir="nowhere", table=found.table)
        rows = np.concatenate([loaded.train_x, loaded.test_x])
        xs.append(input_vectors(sketch.with_categories(config, found.table), rows))
    exact = float(mmd2_unbiased(*xs, bandwidth=2.0))
    # Over draws of 4,096 random features the estimate is spread by about MMD / √4096 each way.
    assert float(found.result.statistic) == pytest.approx(exact, abs=0.1 * exact)


def test_equal_tables_are_not_told_apart(config, tmp_path):
    other = tables.write(tmp_path / "c.csv", tables.columns(5, 800))
    same = Config("same", config.source, Data(**{**vars(config.target), "name": f"csv:{other}"}), test=TwoSample())
    found = sketch.measure(same, **SMALL, pilot=100)
    assert not found.result.reject and 0.3 < float(np.ravel(found.result.bandwidth)[0]) < 5


def test_whole_groups_share_a_bin(config, tmp_path):
    grouped = Config(
        "grouped",
        *(Data(**{**vars(data), "group_key": "day", "where": ("day<=15",)}) for data in (config.source, config.target)),
        test=TwoSample(permutations=199, bandwidth=2.0),
    )
    assert sketch.measure(grouped, **SMALL).grouped
    # Without the label column, which a sketch does not need, they do so too.
    found = tables.columns(1, 300)
    del found["delay"]
    bare = replace(grouped.target, name=f"csv:{tables.write(tmp_path / 'bare.csv', found)}")
    measured = sketch.measure(replace(grouped, target=bare), **SMALL)
    assert measured.grouped and not measured.note
    # Groups on one side alone can't be permuted: that is said. A group column that is not there is refused.
    one = sketch.measure(replace(grouped, target=config.target), **SMALL)
    assert not one.grouped and "Only one of source and target says which rows belong together" in one.note
    with pytest.raises(ValueError, match=r"group_key: .* has no column 'week'"):
        sketch.measure(replace(grouped, target=replace(bare, group_key="week")), **SMALL)
    # By hand: three groups, in blocks that cut them up, are in at most three bins, each whole.
    rows = np.random.default_rng(0).normal(size=(60, 2))
    groups = np.repeat(np.array([7, 8, 9], np.uint64), 20)
    key = sketch.jax.random.key(0)
    empty = new_sketch(key, 2, bandwidth=1.0, num_features=8, bins=16)
    parts = iter([(rows[:25], groups[:25]), (rows[25:], groups[25:])])
    counts = np.asarray(sketch.sketch(key, empty, parts, grouped=True).counts)
    assert counts.sum() == 60 and set(counts.tolist()) <= {0, 20, 40, 60}


def test_given_bins_are_checked(config):
    key = sketch.jax.random.key(0)
    empty, rows = new_sketch(key, 2, bandwidth=1.0, num_features=8, bins=4), np.ones((3, 2))
    assert accumulate(key, empty, rows, bins=np.array([0, 3, 3])).counts.tolist() == [1, 0, 0, 2]
    for bins, expected in (
        ([0, 1], "a bin for each of the 3"),
        ([0, 1, 4], "whole numbers 0 … 3"),
        ([0.0, 1, 2], "whole"),
    ):
        with pytest.raises(ValueError, match=expected):
            accumulate(key, empty, rows, bins=np.array(bins))
    with pytest.raises(ValueError, match="give one"):
        accumulate(key, empty, rows, bins=np.array([0, 1, 2]), evenly=True)


def test_kinds_are_decided_by_the_whole_file(config, tmp_path):
    found = tables.columns(0, 400)
    found["seats"] = [""] * 300 + ["7", "8"] * 49 + ["many", "9"]
    path = tables.write(tmp_path / "late.csv", found)
    bad = Config("bad", Data(**{**vars(config.source), "name": f"csv:{path}"}), config.target)
    with pytest.raises(ValueError, match=r"column 'seats' of .* mixes numbers \('7'\) and other values \('many'\)"):
        sketch.measure(bad, **SMALL, block_bytes=2000)


def test_a_condition_means_the_same_in_every_block(config, tmp_path):
    # "01" is 1 as a number and another name than "1" as text; one A, far down, makes the column text everywhere.
    found = tables.columns(0, 400)
    found["code"] = ["01", "1"] * 199 + ["A", "A"]
    path = tables.write(tmp_path / "codes.csv", found)
    data = Data(**{**vars(config.source), "name": f"csv:{path}", "where": ("code=1",), "drop": ("tail", "day", "code")})
    whole = sources.load(data, seed=0, data_dir="nowhere")
    assert len(whole.train_y) + len(whole.test_y) == 199
    for block_bytes in (1000, 1 << 24):
        side = sketch.opened(data, tmp_path, None, block_bytes)
        assert sum(block.frame.rows for block in sketch.blocks(side)) == 199


def test_a_column_that_names_rows_is_refused(config, monkeypatch):
    monkeypatch.setattr(sketch, "MOST_VALUES", 100)
    named = Config("named", Data(**{**vars(config.source), "drop": ()}), config.target)
    with pytest.raises(ValueError, match=r"column 'tail' of .* has more than 100 different values"):
        sketch.measure(named, **SMALL, block_bytes=2000)


def test_memory_does_not_grow(config, monkeypatch):
    # What is held between blocks is a tally; the rows of earlier blocks are gone.
    alive, most = [], []
    tally = table_map.tally

    def watched(frame):
        alive.append(weakref.ref(frame.numeric["distance"]))
        gc.collect()
        most.append(sum(each() is not None for each in alive))
        return tally(frame)

    monkeypatch.setattr(table_map, "tally", watched)
    sketch.measure(config, **SMALL, block_bytes=2000)
    assert len(most) > 10 and max(most) <= 2


def test_the_command(config, tmp_path, capsys, monkeypatch):
    text = f"from experiments.config import *\nconfig = {config!r}\n"
    (tmp_path / "c.py").write_text(text)
    arguments = [
        "--config",
        str(tmp_path / "c.py"),
        "--workdir",
        str(tmp_path / "run"),
        "--features",
        "64",
        "--bins",
        "8",
    ]
    sketch.main(arguments)
    content = json.loads((tmp_path / "run" / "sketch.json").read_text())
    assert content["rows"] == [900, 700] and content["reject"] and content["peak_megabytes"] > 0
    assert "900 source rows against 700 target rows: MMD² = " in capsys.readouterr().out
    # Another measurement in the same directory is refused before the files are read.
    monkeypatch.setattr(sketch, "measure", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit, match=r"bins"):
        sketch.main([*arguments[:-1], "16"])
    elsewhere = [str(tmp_path / "other") if a == str(tmp_path / "run") else a for a in arguments]
    with pytest.raises(SystemExit, match="a sketch is of tables"):
        sketch.main([*elsewhere, "--target.name", "digits"])
    assert not (tmp_path / "other").exists()
