"""The map of size × similarity: the target lies in the box that its rule chose, and never where it is not known to lie."""

import json
import math

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from experiments import workdir
from experiments.report import page, size_similarity, words
from experiments.report.run import read
from mmd_jax.transfer import decision
from tests.experiments.test_report import make_run


def changed(directory, rows=None, verdict=None, kind=None, plan=None, **decisions):
    """The run of a work directory with other results; `plan` as the rule chooses for them."""
    result = json.loads((directory / "result.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    config["decision"] |= decisions
    if rows is not None:
        result["data"]["target"]["train_rows"] = rows
    if verdict is not None:
        result["verdict"] = verdict
    if kind is not None:
        result["similarity"]["kind"] = kind
    if plan is not None:
        result["plan"] |= plan
    workdir.write_json(directory / "result.json", result)
    workdir.write_json(directory / "config.json", config)
    return read(directory)


def chosen_boxes(axes):
    return [
        box.get_xy() for box in axes.patches if isinstance(box, Rectangle) and to_hex(box.get_facecolor()) == "#fbf7c2"
    ]


def diamond(axes):
    [line] = [line for line in axes.lines if line.get_marker() == "D"]
    return line


@pytest.mark.parametrize("similar", [True, False])
@pytest.mark.parametrize(
    ("rule", "rows"),
    [("quadrant", rows) for rows in (1, 40, 4999, 5000, 5001, 10**7)]
    + [("patent", rows) for rows in (2, 4999, 5000, 7000, 10_000, 10_001, 10**7)],
)
def test_the_mark_lies_in_the_box_that_the_rule_chose(rule, rows, similar, tmp_path):
    directory = make_run(tmp_path / "run", rule=rule, similar=similar)
    kind = "similar" if similar else "different"
    if rule == "quadrant":
        size = "small" if rows < 5000 else "large"
        choice = decision.QUADRANT[size, kind]
    else:
        size = "small" if rows < 5000 else "large" if rows > 10_000 else "medium"
        choice = decision.PATENT[size, kind]
    run = changed(directory, rows, plan={"regime": choice.regime})
    [axes] = size_similarity.picture(run).axes
    [(column, band)] = chosen_boxes(axes)
    mark = diamond(axes)
    x, y = mark.get_xdata()[0], mark.get_ydata()[0]
    assert column < x < column + 1 and band <= y <= band + 1
    assert (column, band) == (int(not similar), list(words.sizes(run)).index(size))
    text = size_similarity.described(run)
    assert f"cell {size}, {kind}" in text and words.RULES[rule][size, kind][1] in text
    words_there = " ".join(one.get_text().replace("\n", " ") for one in axes.texts)
    assert all(strategy in words_there for _, strategy in words.RULES[rule].values())


def verdict(kind, low, high, margin=0.2):
    return {
        "kind": kind,
        "interval": [low, high],
        "margin": margin,
        "mmd2": ((low + high) / 2) ** 2,
        "margin_from": "classes",
        "minimum_detectable": 0.1,
    }


@pytest.mark.parametrize(
    ("found", "kind", "sides"),
    [
        (verdict("equivalent", 0.0, 0.1), "similar", (True, False)),
        (verdict("different_but_small", 0.1, 0.19), "similar", (True, False)),
        (verdict("undecided", 0.1, 0.3), "undecided", (True, True)),
        (verdict("undecided", 0.0, 0.21), "undecided", (True, True)),
        (verdict("different", 0.21, 0.4), "different", (False, True)),
        (verdict("different", 30.0, 40.0), "different", (False, True)),
    ],
)
def test_an_interval_is_drawn_on_the_sides_where_it_lies(found, kind, sides, tmp_path):
    run = changed(make_run(tmp_path / "run", similar=kind == "similar"), verdict=found, kind=kind)
    [axes] = size_similarity.picture(run).axes
    [bar] = [line for line in axes.lines if line.get_marker() == "|"]
    low, high = bar.get_xdata()
    assert (low < 1, high > 1) == sides
    assert low < diamond(axes).get_xdata()[0] < high
    assert low > 0 and high < 2


@pytest.mark.parametrize("variant", [{"source": False}, {"assume": "similar"}, {"assume": "different"}])
def test_nothing_measured_is_an_open_mark_and_unknown_lies_over_both_sides(variant, tmp_path):
    run = changed(make_run(tmp_path / "run", **variant))
    [axes] = size_similarity.picture(run).axes
    mark = diamond(axes)
    assert mark.get_markerfacecolor() == "white"
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    if variant.get("source", True):
        assert not bars and (mark.get_xdata()[0] < 1) == (variant["assume"] == "similar")
        assert "assumes" in size_similarity.described(run)
    else:
        [(low, high)] = bars
        assert low < 1 < high and "over both sides" in size_similarity.described(run)
        assert "unknown" in size_similarity.caption(run)


def test_where_the_user_chose_no_box_is_marked(tmp_path):
    run = changed(make_run(tmp_path / "run", rule="given", regime="lp_ft"), rule="patent")
    [axes] = size_similarity.picture(run).axes
    assert chosen_boxes(axes) == [] and len(axes.patches) == 6
    assert "no rule was asked" in size_similarity.caption(run)


def test_a_threshold_that_is_no_number_leaves_the_mark_without_one(tmp_path):
    directory = make_run(tmp_path / "run")
    result = json.loads((directory / "result.json").read_text())
    result["two_sample"]["inputs"] |= {"threshold": None, "mmd2_unbiased": None, "pvalue": None, "reject": False}
    workdir.write_json(directory / "result.json", result)
    run = changed(directory, kind="undecided")
    assert size_similarity.place(run).ratio is None
    [axes] = size_similarity.picture(run).axes
    assert all(math.isfinite(value) for line in axes.lines for value in line.get_xdata())


def test_the_page_shows_the_map_with_its_words(tmp_path):
    directory = make_run(tmp_path / "run")
    page.write(directory)
    content = (directory / "report.html").read_text()
    assert "Map of size × similarity of the rule quadrant" in content
    assert "freeze fewer layers, and augment" in content
