"""The page, the tables and the figures of studies that no one ran."""

import csv
import html
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from experiments import workdir
from experiments.report import transferability, transferability_record, yosinski2014
from experiments.report import transferability_evidence as evidence
from experiments.report import transferability_plots as plots
from experiments.study import curves
from tests.experiments import synthetic

SMALL = ("conv1", "fc2 <script>", "$\\frac", "logits")
FOUR = ("base", "AnB", "BnB", "AnB+")


def summary(*, layers=SMALL, random=2, dissimilar=0, seeds=1, treatments=FOUR, shared=False, more=None, **noise):
    about = synthetic.header(
        layers, random=random, dissimilar=dissimilar, seeds=seeds, treatments=treatments, shared=shared
    ) | (more or {})
    return json.loads(json.dumps(curves.summarise(about, synthetic.rows(about, **noise))))


def page(found, pictures=None):
    return html.unescape(re.sub(r"<[^>]*>", " ", transferability.render(found, pictures or {}).decode()))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    about = synthetic.header(seeds=1)
    workdir.write_json(directory / "study.json", curves.summarise(about, synthetic.rows(about)))
    transferability.write(directory)
    return directory


def test_write_leaves_all_files(written):
    names = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    figures = {
        f"figures/{name}.{kind}" for name in ("figure2", "figure2_dissimilar", "distance") for kind in ("svg", "png")
    }
    assert (
        names == {"study.json", "table.csv", "networks.csv", "statements.csv", "distances.csv", "report.html"} | figures
    )


def test_same_study_same_bytes(written, tmp_path):
    workdir.write_bytes(tmp_path / "study.json", (written / "study.json").read_bytes())
    transferability.write(tmp_path)
    for path in written.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes(), path.name


def test_files_of_a_larger_study_are_removed(tmp_path):
    """With fewer splits there is nothing to test and no second figure; files of others stay."""
    workdir.write_json(tmp_path / "study.json", summary(random=2, dissimilar=1))
    transferability.write(tmp_path)
    assert {"statements.csv", "distances.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "figures" / "figure2_dissimilar.svg").exists()
    for name in ("figures/mine.svg", "networks.jsonl", "config.json"):
        (tmp_path / name).write_text("mine")
    smaller = summary(random=1)
    smaller["beside"], smaller["predictions"] = [], []
    workdir.write_json(tmp_path / "study.json", smaller)
    transferability.write(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    own = {"study.json", "table.csv", "networks.csv", "report.html", "figures/figure2.svg", "figures/figure2.png"}
    assert names == own | {"figures/mine.svg", "networks.jsonl", "config.json"}
    assert set(plots.names()) >= set(plots.figures(summary(dissimilar=1)))


def test_figures_are_svg_and_not_empty(written):
    for path in (written / "figures").iterdir():
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.shape[1] == 1374 and 0.01 < (pixels < 128).mean() < 0.5
            for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):  # nothing runs out of the picture
                assert edge.min() == 255, path.name


def test_table_has_the_curves_numbers(written):
    found = workdir.read_json(written / "study.json")
    rows = list(csv.DictReader(io.StringIO((written / "table.csv").read_text())))
    assert len(rows) == len(found["curves"]) == 2 * (2 + 5 * 7)
    for row, point in zip(rows, found["curves"], strict=True):
        assert (row["kind"], row["treatment"], int(row["n"])) == (point["kind"], point["treatment"], point["n"])
        assert float(row["difference"]) == point["difference"]["estimate"]
        assert row["low"] == ("" if point["difference"]["low"] is None else repr(point["difference"]["low"]))
        assert row["layer"] == (synthetic.LAYERS[point["n"] - 1] if point["n"] else "")
    assert {row["interval_over"] for row in rows if row["kind"] == "dissimilar"} == {"", "networks of one split"}
    networks = list(csv.DictReader(io.StringIO((written / "networks.csv").read_text())))
    assert len(networks) == len(found["networks"]) == 6 * 2 * 37


def test_page_says_the_statements_and_their_limits(written):
    found = workdir.read_json(written / "study.json")
    said = page(found, {"figure2_dissimilar.svg": b"<svg/>"})
    for statement in found["statements"]:
        assert statement["sentence"] in said
    for prediction in found["predictions"]:
        assert prediction["sentence"] in said
    assert transferability.answer(found) in said
    assert "One dissimilar split: whatever it shows" in said
    assert "5 random splits: intervals have 4 degrees of freedom" in said
    assert "say nothing about other splits" in said
    assert "One seed a network" in said
    assert "python -m experiments.transferability --config configs/figure2_planted.py" in said
    assert "a half has as few as 224 test rows" in said.lower()
    assert "epochs 20" in said and "Ceiling" not in said


def test_splits_that_share_a_half_are_marked():
    found = summary(random=3, dissimilar=3, shared=True)
    said = page(found, {"figure2_dissimilar.svg": b"<svg/>", "distance.svg": b"<svg/>"})
    assert "Nothing is tested over the 3 dissimilar splits: half B has the same classes in all of them" in said
    assert "The intervals are over 3 splits that share half B" in said
    assert "All dissimilar splits share half B." in said and "the whole of half B among them" in said
    text = b"splits that share"
    drawn = plots.figures(found)
    assert said.count(" †") == 3 * 3 + 1  # three treatments at three depths, and the caption
    assert (text in drawn["figure2_dissimilar.svg"], text in drawn["figure2.svg"]) == (True, False)
    rows = transferability.curve_rows(found)
    over = {row["interval_over"] for row in rows if row["kind"] == "dissimilar" and row["interval_over"]}
    assert over == {"splits that share half B"}
    apart = page(summary(random=3, dissimilar=3))
    assert "share half B" not in apart and " †" not in apart.replace(". †: over", "")
    assert "Nothing is tested" not in apart


def test_what_splits_have_in_common_is_counted():
    """Of random splits, A and B may change places; of dissimilar ones they may not."""
    halves = [
        {"kind": "random", "split": i, "A": list(a), "B": list(b)}
        for i, (a, b) in enumerate([("0123", "4567"), ("4567", "0123"), ("0124", "3567")])
    ]
    found = {"header": {"halves": halves}, "shared_halves": {}}
    counted = transferability_record.shared_classes(found, "random")
    assert "Any two random splits have at least 6 and at most 8 of their 8 classes on the same side, so" in counted
    found["header"]["halves"] = [half | {"kind": "dissimilar"} for half in halves]
    counted = transferability_record.shared_classes(found, "dissimilar")
    assert "Any two dissimilar splits have at least 0 and at most 6 of their 8 classes" in counted
    said = page(summary(random=2, dissimilar=2))
    assert "Any two random splits have" in said and "Any two dissimilar splits have" in said


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"random": 1}, "There is one random split, so nothing can be tested"),
        ({"random": 2, "treatments": ("base",)}, "No statement is about the treatments that were run on random splits"),
        ({"random": 2, "dissimilar": 1}, "There is one dissimilar split, so nothing can be tested"),
    ],
)
def test_why_nothing_is_tested_is_true(change, reason):
    found = summary(**change)
    said = page(found)
    assert reason in said
    assert ("There is one" in said) == (change.get("random") == 1 or "dissimilar" in change)


def test_record_tells_of_the_data_and_of_added_time():
    notes = ["Images were resized to 28 × 28.", "Group labels are missing: rows of one writer may be on both sides."]
    said = page(summary(more={"data": ["mnist", "fashion_mnist"], "notes": notes}))
    assert "Two data sets, one network" in said and "One data set" not in said
    limits, record = said.split("How this was made")
    assert notes[0] in record and notes[0] not in limits
    assert notes[1] in record and notes[1] in limits
    assert "Time of all networks added up" in record
    assert "One data set, one network" in page(summary(more={"data": ["mnist"]}))
    assert "One data set, one network" in page(summary())
    assert "Two data sets" in page(summary(more={"settings": {"data": {"name": "a"}, "other": {"name": "b"}}}))


def test_correlations_have_their_sign_everywhere():
    found = summary(random=5, treatments=("base", "AnB"))
    one = found["predictions"][0]["pooled"]
    text = evidence.correlation(one["r"])
    assert one["r"] > 0 and text.startswith("+")
    assert f"r = {text} (" in found["predictions"][0]["sentence"]
    assert f"r = {text} (".encode() in plots.figures(found)["distance.svg"]


def test_page_escapes_what_is_not_markup():
    found = summary()
    found["header"]["command"] = "python -m x --title '<b>'"
    text = transferability.render(found, {}).decode()
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;four&gt;" in text
    assert "planted &lt;digits&gt;" in text and "--title '<b>'" not in text
    HTMLParser().feed(text)
    assert page(found).count("python -m x --title '<b>'") == 1
    assert plots.figures(found)["figure2.svg"]  # a layer called "$\frac" is drawn as it is


def test_page_loads_nothing(written):
    text = (written / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text) and "<script" not in text
    assert text.count("data:image/svg+xml;base64,") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"random": 1},
        {"random": 1, "treatments": ("base", "AnB")},
        {"random": 2, "treatments": ("base", "BnB+", "long")},
        {"random": 0, "dissimilar": 1, "seeds": 2},
        {"random": 1, "dissimilar": 1, "treatments": ("base", "long")},
        {"layers": ("a", "b"), "random": 5},
        {"noise": 0.0, "base": 0.99},
    ],
)
def test_every_study_has_a_page(change):
    found = summary(**change)
    said = page(found)
    assert transferability.answer(found) in said and "nan" not in said.lower().split() and "None" not in said
    if change.get("random") == 1 and len(found["difficulty"]) == 1:
        assert "One random split only" in said and not found["statements"]
    if change.get("base"):
        assert "Ceiling: on random splits base is right on" in said
    assert {f"{plots.name_of(kind)}.png" for kind in plots.kinds(found)} <= set(plots.figures(found))


def test_report_needs_no_jax():
    code = "import sys; import experiments.report.transferability; sys.exit(any(m in sys.modules for m in ('jax', 'mmd_jax')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The original


@pytest.mark.parametrize(
    "treatment, expected",
    [
        ("BnB", (0.6267, 0.6235, 0.6211, 0.6048, 0.5935, 0.6188, 0.6232)),
        ("AnB", (0.6282, 0.6239, 0.6189, 0.5998, 0.5780, 0.5806, 0.5425)),
        ("AnB+", (0.6373, 0.6358, 0.6426, 0.6398, 0.6446, 0.6460, 0.6465)),
        ("BnB+", (0.6177, 0.6215, 0.6313, 0.6287, 0.6301, 0.6276, 0.6266)),
    ],
)
def test_original_accuracies(treatment, expected):
    """The means over networks, as they were read by others from the same logs."""
    columns = zip(*(row for (name, half), row in yosinski2014.TRANSFER.items() if name == treatment and len(half) == 2))
    means = [np.mean([accuracy for accuracy in column if accuracy is not None]) for column in columns]
    np.testing.assert_allclose(means, expected, atol=6e-5)


def test_original_is_paired_with_its_own_half():
    halves = [accuracy for half, accuracy in yosinski2014.BASE.items() if len(half) == 2]
    assert np.mean(halves) == pytest.approx(0.6251, abs=5e-5) and np.std(halves, ddof=1) == pytest.approx(
        0.0055, abs=5e-4
    )
    # Differences to the same half's base, .003 … −.083, over bases of .615 to .634.
    found = yosinski2014.relative("random", "AnB")
    differences = np.array([0.003, -0.001, -0.006, -0.025, -0.047, -0.045, -0.083])
    np.testing.assert_allclose([change for _, change, _ in found], differences / 0.6251, atol=0.001)
    assert [count for _, _, count in found] == [8] * 7
    assert [count for _, _, count in yosinski2014.relative("random", "BnB+")] == [1, 1, 2, 1, 2, 2, 1]
    assert yosinski2014.relative("dissimilar", "BnB") == []
