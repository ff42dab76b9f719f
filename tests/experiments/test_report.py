"""The report of synthetic runs: the very files that a run leaves, without training anything."""

import html
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from experiments import workdir
from experiments.config import Config, Data, Decision, Model
from experiments.evaluation import compare, negative_transfer
from experiments.report import page, plots, words
from experiments.report.markup import Html, tag
from experiments.report.run import MAPS, curves, read
from mmd_jax.transfer import decision

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
HOSTILE = ("<script>alert(1)</script>", "$\\frac", 'quo"te & <b>', "a\x00b\n", "🙂", "x" * 80)


def make_run(
    directory: Path,
    *,
    regime: str = "finetune_top",
    rule: str = "quadrant",
    right: tuple[float, float] = (0.93, 0.85),
    similar: bool = False,
    image: bool = True,
    source: bool = True,
    assume: str | None = None,
    note: str = "",
    classes: tuple[str, ...] = ("5", "6", "7", "8", "9"),
    layers: tuple[str, ...] = LAYERS,
    cached: bool = False,
    augment: bool = False,
    num_test: int = 226,
    broken: bool = False,
) -> Path:
    """Writes a finished run of known numbers.

    `right`: the shares of test rows that reuse and from-scratch get right. `broken`: some numbers could not be had.
    """
    rng = np.random.default_rng(0)
    digits = Data("digits", classes=("0", "1", "2", "3", "4"))
    config = Config(
        source=digits if source else None,
        target=replace(digits, classes=classes, limit=100),
        model=Model(weights="" if source else "weights.npz"),
        decision=Decision(rule=rule, assume=assume) if rule != "given" else Decision(regime=regime, assume=assume),  # type: ignore[arg-type]
    )
    kind = assume or ("unknown" if not source else "similar" if similar else "different")
    shape = (8, 8, 1) if image else (20,)
    data = {"note": "Both were brought to 8 × 8 pixels & <1 channel>.", "target": about(classes, shape, num_test)}
    if source:
        data["source"] = about(digits.classes, shape, 225)

    evidence = {}
    two_sample = None
    if source:
        two_sample, evidence = measurements(rng, layers, similar, broken)
        two_sample["note"] = note
    if image:
        evidence |= {
            f"samples/{which}": rng.integers(0, 256, (16, *shape), np.uint8) for which in data if which != "note"
        }
    labels = np.arange(num_test) % len(classes)
    predicted = []
    for share in right:
        wrong = rng.permutation(num_test) >= round(share * num_test)
        predicted.append(np.where(wrong, (labels + 1) % len(classes), labels))
    if regime == "from_scratch":
        predicted[0] = predicted[1]
    evidence |= {"test/labels": labels, "test/chosen": predicted[0], "test/from_scratch": predicted[1]}
    accuracy = compare(labels, *predicted, None)
    if broken:
        accuracy["interval"] = [None, None]

    stages = decision.stages_of(regime, layers, num_frozen=3 * (regime == "finetune_top"), augment=augment)
    stages = tuple(stage._replace(cached=cached and bool(stage.frozen), cache_reason="Kept: 2 MB.") for stage in stages)
    trained = {layer for stage in stages for layer, _ in stage.trained}
    result = {
        "name": config.name,
        "command": f"python -m experiments.transfer --config configs/{config.name}.py",
        "two_sample": two_sample,
        "similarity": {"kind": kind, "evidence": f"The evidence says {kind}."},
        "plan": {
            "rule": rule,
            "regime": regime,
            "reason": "The reason of the plan (20 training rows a class).",
            "frozen": [layer for layer in layers if layer not in trained],
            "trained": [layer for layer in layers if layer in trained],
            "reinitialised": list(stages[0].reinitialised),
            "augment": augment,
            "cached": any(stage.cached for stage in stages),
            "stages": stages,
        },
        "accuracy": accuracy,
        "learning_rate": {"chosen": 3e-3, "from_scratch": 1e-3},
        "validation_loss": {"chosen": 0.2, "from_scratch": 0.3},
        "frozen_unchanged": True if any(stage.frozen for stage in stages) else None,
        "num_parameters": {"total": 123_456, "trained": 98_765},
        "data": data,
        "seconds": {
            "load": 0.4,
            "pretrain": 20.123,
            "measure": 3.0,
            "reuse": 12.0,
            "from_scratch": 70.5,
            "evaluate": 0.2,
        },
        "seed": 7,
        "device": "cpu (cpu, 1 device(s))",
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
    }
    directory.mkdir(parents=True, exist_ok=True)
    workdir.write_json(directory / "config.json", asdict(config))
    write_metrics(directory / "metrics.jsonl", rng, len(stages), pretrained=source, reused=regime != "from_scratch")
    workdir.write_npz(directory / "evidence.npz", evidence)
    workdir.write_json(directory / "result.json", result)
    return directory


def about(classes, shape, num_test):
    return {"train_rows": 100, "test_rows": num_test, "classes": list(classes), "shape": list(shape)}


def measurements(rng, layers, similar, broken):
    """Tests of the inputs and of each layer, and their null distributions."""
    evidence, tests = {}, {}
    for i, name in enumerate(("inputs", *layers)):
        scale = 1e-3 * (i + 1)
        null = rng.gamma(2.0, scale, 199) - 2 * scale
        statistic = scale if similar else (3 + 4 * i) * scale * 3
        pvalue = (1 + int((null >= statistic).sum())) / 200
        tests[name] = {
            "mmd2_unbiased": statistic,
            "mmd_biased": float(np.sqrt(statistic + 1e-3)),
            "pvalue": pvalue,
            "threshold": float(np.quantile(null, 0.95)),
            "reject": pvalue <= 0.05,
            "permutations": 199,
            "bandwidth": 0.5 + i,
            "m": 225,
            "n": 100,
        }
        if broken and i == 2:
            null = np.full(199, np.nan)
            tests[name] |= {
                "mmd2_unbiased": None,
                "mmd_biased": None,
                "pvalue": None,
                "threshold": None,
                "reject": False,
            }
        if broken and i == 3:
            null = np.zeros(199)
            tests[name] |= {
                "mmd2_unbiased": 0.0,
                "threshold": 0.0,
                "pvalue": 1.0,
                "reject": False,
                "bandwidth": [1.0, 2.0],
            }
        evidence["null/inputs" if not i else f"null/layers/{name}"] = null
    inputs = tests.pop("inputs")
    return {"inputs": inputs, "layers": {n: {**t, "pvalue_holm": t["pvalue"]} for n, t in tests.items()}}, evidence


def write_metrics(path, rng, num_stages, *, pretrained, reused):
    path.unlink(missing_ok=True)
    for arm, stages in (("pretrain", 1 * pretrained), ("reuse", num_stages * reused), ("from_scratch", 1)):
        for rate in (3e-3, 1e-3):
            for stage in range(stages):
                level = 1.6
                for epoch in range(1, 16):
                    level *= (0.75 if arm == "reuse" else 0.85) + 0.1 * rng.random()
                    numbers = {"loss": level, "accuracy": 1 - level / 2, "grad_norm": 1.0, "valid_loss": level * 1.1}
                    row = {"fit": f"{arm}-rate{rate:g}-stage{stage}", "step": 3 * epoch, **numbers}
                    workdir.append_metrics(path, {**row, "valid_accuracy": 1 - level / 1.8})


VARIANTS = {
    "better": {},
    "unclear": {"right": (0.86, 0.85)},
    "worse": {"right": (0.7, 0.9)},
    "linear_probe": {"regime": "linear_probe", "rule": "patent", "similar": True, "cached": True},
    "lp_ft": {"regime": "lp_ft", "rule": "given", "cached": True},
    "from_scratch": {"regime": "from_scratch", "rule": "patent"},
    "from_scratch_given": {"regime": "from_scratch", "rule": "given"},
    "no_source": {"source": False, "augment": True},
    "rows": {"image": False},
    "rows_no_source": {"image": False, "source": False, "rule": "given", "regime": "finetune_all"},
    "assumed": {"assume": "similar", "note": "The network was restored & <unknown>."},
    "hostile": {"classes": HOSTILE, "note": "<img src=x onerror=alert(1)>"},
    "many_layers": {"layers": tuple(f"block_{i:02d}/conv2d" for i in range(40))},
    "many_classes": {"classes": tuple(f"class number {i}" for i in range(100)), "num_test": 2000},
    "broken": {"broken": True},
}

# Whose pictures would show nothing that the others do not; the answer is asked of them all.
ONLY_ASKED = ("unclear", "from_scratch_given")


@pytest.fixture(scope="module", params=[name for name in VARIANTS if name not in ONLY_ASKED])
def made(request, tmp_path_factory):
    """(name of the variant, its work directory with the report in it)."""
    directory = make_run(tmp_path_factory.mktemp(request.param) / "run", **VARIANTS[request.param])
    page.write(directory)
    return request.param, directory


def text_of(directory: Path) -> str:
    """What a reader sees of the page, in one line."""
    seen = Page((directory / "report.html").read_text())
    return " ".join("".join(seen.text).split())


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on a tag that is closed out of order."""

    VOID = ("meta", "img")

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def test_page_is_whole_and_self_contained(made):
    _, directory = made
    content = (directory / "report.html").read_text()
    seen = Page(content)
    names = [name for name, _ in seen.elements]
    assert names.count("html") == names.count("title") == names.count("h1") == 1
    assert not {"script", "link", "iframe", "object", "base"} & set(names)
    for name, attributes in seen.elements:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes and "style" not in attributes
        if name == "img":
            assert attributes["alt"]
    assert "http://" not in content and "https://" not in content
    assert "url(" not in content and "@import" not in content


def test_figures_are_files_of_their_kind_and_all_shown(made):
    name, directory = made
    files = sorted(path.name for path in (directory / "figures").iterdir())
    expected = {"map", "plan", "curves", "accuracy", "confusion"}
    expected |= {"samples"} if VARIANTS[name].get("image", True) else set()
    expected |= {"mmd", "pretraining"} if VARIANTS[name].get("source", True) else set()
    assert files == sorted(f"{stem}.{kind}" for stem in expected for kind in ("png", "svg"))
    for path in (directory / "figures").iterdir():
        content = path.read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.fromstring(content).tag.endswith("svg")
            assert b"<dc:date>" not in content
            assert b"mathdefault" not in content  # a tick that matplotlib wrote as a formula
        else:
            assert content.startswith(b"\x89PNG")
    shown = [
        attributes
        for tag_name, attributes in Page((directory / "report.html").read_text()).elements
        if tag_name == "img"
    ]
    assert len(shown) == len(expected)


def test_page_holds_the_numbers_of_the_result(made):
    name, directory = made
    result, text = json.loads((directory / "result.json").read_text()), text_of(directory)
    accuracy = result["accuracy"]
    arms = ["from_scratch"] if result["plan"]["regime"] == "from_scratch" else ["chosen", "from_scratch"]
    for arm in arms:
        for value in (
            accuracy[arm],
            *accuracy[f"{arm}_interval"],
            accuracy["balanced"][arm],
            accuracy["macro_f1"][arm],
        ):
            assert f"{100 * value:.1f}%" in text
    if len(arms) == 2:
        assert f"{100 * accuracy['paired_difference']:+.1f} points".replace("-", "−") in text
        if name != "broken":
            low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in accuracy["interval"])
            assert f"95% interval {low} to {high}" in text
    assert page.answer(directory) in text
    assert " ".join(result["plan"]["reason"].split()) in text
    assert f"{accuracy['num_test']:,}" in text and "123,456" in text and "98,765" in text
    assert f"python -m experiments.transfer --config configs/{result['name']}.py" in text
    for test in [*(result["two_sample"] or {"layers": {}})["layers"].values()]:
        if test["pvalue"] is not None:
            for key, digits in (("mmd2_unbiased", 4), ("mmd_biased", 4), ("threshold", 4), ("pvalue", 3)):
                assert f"{test[key]:.{digits}g}" in text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    """Also in another process, whose hashes have another seed, and where the user's own matplotlib settings differ."""
    directory = make_run(tmp_path / "run", **VARIANTS["hostile"])
    page.write(directory)
    first = {path.name: path.read_bytes() for path in [directory / "report.html", *(directory / "figures").iterdir()]}
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.fonttype: none\nsavefig.dpi: 30\n")
    subprocess.run(
        [sys.executable, "-c", f"from experiments.report import page; page.write({str(directory)!r})"],
        check=True,
        env={"PATH": "", "MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "1", "MPLCONFIGDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )
    second = {path.name: path.read_bytes() for path in [directory / "report.html", *(directory / "figures").iterdir()]}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_hostile_names_are_text(tmp_path):
    directory = make_run(tmp_path / "run", **VARIANTS["hostile"])
    content = page.render(directory, {}).decode()
    assert "<script" not in content and "<img src=x" not in content
    assert "\x00" not in content
    assert html.escape(HOSTILE[0]) in content
    assert "<script>alert(1)</script>" in "".join(Page(content).text)


CLAIMS = re.compile(r"\b(yes|helps?|better|best|worth|improves?)\b", re.I)


@pytest.mark.parametrize(
    ("interval", "begins"),
    [
        ([0.01, 0.05], "Yes, reuse helps"),
        ([1e-6, 0.05], "Yes, reuse helps"),
        ([0.0, 0.05], "No clear gain or loss"),
        ([-0.01, 0.05], "No clear gain or loss"),
        ([-0.05, 0.01], "No clear gain or loss"),
        ([-0.05, 0.0], "No clear gain or loss"),
        ([0.0, 0.0], "No clear gain or loss"),
        ([-0.05, -0.01], "No, reuse is worse"),
        ([None, None], "Reuse and training from scratch can't be compared"),
    ],
)
def test_the_answer_claims_what_the_interval_allows(interval, begins, tmp_path):
    directory = make_run(tmp_path / "run")
    result = json.loads((directory / "result.json").read_text())
    result["accuracy"]["interval"] = interval
    workdir.write_json(directory / "result.json", result)
    said = page.answer(directory)
    assert said.startswith(begins)
    assert bool(CLAIMS.search(said)) == begins.startswith("Yes")
    assert said.count(". ") == 0 and said.endswith(".")
    if None not in interval and interval[0] <= 0 <= interval[1]:
        assert "includes 0" in said


@pytest.mark.parametrize("regime", ["finetune_top", "from_scratch"])
@pytest.mark.parametrize(
    "interval", [[0.01, 0.05], [0.0, 0.05], [-0.05, 0.01], [-0.05, 0.0], [-0.05, -1e-6], [None, None]]
)
def test_negative_transfer_is_said_first_and_only_beyond_the_interval(regime, interval, tmp_path):
    """In the first sentence, in a note, and as `evaluation.negative_transfer` writes it into result.json."""
    directory = make_run(tmp_path / "run", regime=regime, rule="patent")
    result = json.loads((directory / "result.json").read_text())
    result["accuracy"]["interval"] = interval
    workdir.write_json(directory / "result.json", result)
    worse = regime != "from_scratch" and interval == [-0.05, -1e-6]
    assert ("negative transfer" in page.answer(directory)) == worse
    assert ("Negative transfer:" in page.render(directory, {}).decode()) == worse
    found = negative_transfer(result["accuracy"], reused=regime != "from_scratch")
    assert (found is True) == worse
    assert (found is False) == (regime != "from_scratch" and interval == [0.01, 0.05])


@pytest.mark.parametrize(
    "accuracy, ranking, verdict, said",
    [
        ([-0.01, 0.03], [-0.06, -0.02], "worse", "apart: the paired difference in ROC AUC is −0.04"),
        ([0.01, 0.03], [-0.06, -0.02], "worse", "although it is right more often"),
        ([-0.01, 0.03], [0.02, 0.06], "unclear", "ranks the rows better, though: the paired difference in ROC AUC is +0.04"),
        ([0.01, 0.03], [0.02, 0.06], "better", None),
        ([-0.01, 0.03], [-0.02, 0.06], "unclear", None),
        ([-0.03, -0.01], [0.02, 0.06], "worse", None),
        ([None, None], [-0.02, 0.06], "unknown", None),
    ],
)  # fmt: skip
def test_worse_ranking_is_negative_transfer_too(accuracy, ranking, verdict, said, tmp_path):
    directory = make_run(tmp_path / "run", regime="finetune_top", rule="patent")
    result = json.loads((directory / "result.json").read_text())
    section = {"paired_difference": sum(ranking) / 2, "interval": ranking, "chosen": 0.6, "from_scratch": 0.6}
    section |= {"chosen_interval": [0.5, 0.7], "from_scratch_interval": [0.5, 0.7]}
    result["accuracy"] |= {"interval": accuracy, "roc_auc": section}
    workdir.write_json(directory / "result.json", result)
    answer, found = page.answer(directory), negative_transfer(result["accuracy"], reused=True)
    assert words.verdict(read(directory)) == verdict and (found is True) == (verdict == "worse")
    assert ("negative transfer" in answer) == (verdict == "worse")
    assert said in answer if said else "ROC AUC" not in answer


def test_the_answer_names_a_network_that_was_not_reused(tmp_path):
    by_rule = page.answer(make_run(tmp_path / "a", **VARIANTS["from_scratch"]))
    by_user = page.answer(make_run(tmp_path / "b", **VARIANTS["from_scratch_given"]))
    assert by_rule.startswith("The network was not reused") and "“patent”" in by_rule
    assert by_user.startswith("The network was not reused") and "as the user chose" in by_user


def test_what_is_said_of_the_test(made):
    """The sample size where a p-value decides, and only there; assumptions, notes and missing source rows as such."""
    name, directory = made
    variant, text = VARIANTS[name], text_of(directory)
    decides = variant.get("source", True) and variant.get("rule") != "given" and not variant.get("assume")
    assert ("This decision reads the sample size too" in text) == decides
    assert ("mostly says “small sample”" in text) == bool(decides and variant.get("similar"))
    assert ("inputs (decides)" in text) == decides
    assert ("came without source rows" in text) == (not variant.get("source", True))
    assert ("the row for dissimilar data applies" in text) == (name == "no_source")
    assert ("user's own assumption" in text) == (name == "assumed")
    assert ("images were moved, recoloured, mixed in pairs at random" in text) == bool(variant.get("augment"))
    if variant.get("note"):
        assert variant["note"] in text


def test_the_frozen_check_is_said_in_words(tmp_path):
    directory = make_run(tmp_path / "run")
    result = json.loads((directory / "result.json").read_text())
    for value, words_ in ((True, "bit for bit"), (None, "nothing was frozen"), (False, "NO: a frozen number changed")):
        workdir.write_json(directory / "result.json", {**result, "frozen_unchanged": value})
        assert words_ in page.render(directory, {}).decode()


def test_the_rules_grids_are_the_rules():
    for name, table in decision.MAPS.items():
        assert {cell: regime for cell, (regime, _) in words.RULES[name].items()} == {
            c: v.regime for c, v in table.items()
        }
    assert set(words.RULES) == set(decision.MAPS) == set(MAPS)
    assert set(words.REGIMES) == set(decision.REGIMES)


@pytest.mark.parametrize(
    ("variant", "rows", "cell"),
    [
        ({}, 4999, ("small", "different")),
        ({}, 5000, ("large", "different")),
        ({"similar": True}, 4999, ("small", "similar")),
        ({"rule": "patent", "regime": "from_scratch"}, 4999, ("small", "different")),
        ({"rule": "patent", "regime": "lp_ft", "similar": True}, 5000, ("medium", "similar")),
        ({"rule": "patent", "regime": "lp_ft", "similar": True}, 10000, ("medium", "similar")),
        ({"rule": "patent", "regime": "finetune_all"}, 10001, ("large", "different")),
        ({"rule": "given"}, 100, None),
    ],
)
def test_the_cell_of_the_grid_is_the_one_that_the_rule_chose(variant, rows, cell, tmp_path):
    """The sizes at the edges of the rule's own table, asked of the rule itself."""
    directory = make_run(tmp_path / "run", **variant)
    result = json.loads((directory / "result.json").read_text())
    result["data"]["target"]["train_rows"] = rows
    if variant.get("rule", "quadrant") == "quadrant":
        size = "small" if rows < 1000 * 5 else "large"
        result["plan"]["regime"] = decision.QUADRANT[size, result["similarity"]["kind"]].regime
    workdir.write_json(directory / "result.json", result)
    assert words.cell(read(directory)) == cell


def test_curves_join_stages_and_mark_the_kept_rate(tmp_path):
    found = {(c.arm, c.rate): c for c in curves(read(make_run(tmp_path / "run", **VARIANTS["lp_ft"])))}
    assert {key for key, curve in found.items() if curve.kept} >= {("reuse", "0.003"), ("from_scratch", "0.001")}
    assert sum(curve.kept for (arm, _), curve in found.items() if arm == "pretrain") == 1
    both = found["reuse", "0.003"]
    assert both.boundaries == (45,) and len(both.step) == 30 and both.step[-1] == 90
    assert np.all(np.diff(both.step) > 0)
    assert plots.best_index(both) >= 15  # the network that goes on is the last stage's


def test_confusion_matrix_counts_every_row(tmp_path):
    run = read(make_run(tmp_path / "run"))
    counts = plots.confusion_matrix(run, "chosen")
    assert counts.sum() == run.result["accuracy"]["num_test"]
    assert counts.trace() / counts.sum() == pytest.approx(run.result["accuracy"]["chosen"])
    labels = run.evidence["test/labels"]
    assert counts[2, 3] == np.sum((labels == 2) & (run.evidence["test/chosen"] == 3))


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (16, 32, 32, 3), (5, 200, 100, 4), (1, 7, 9, 2), (16, 28, 28)])
def test_mosaic_shows_each_image_enlarged(shape):
    images = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    picture = plots.mosaic(images)
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    zoom = max(1, round(96 / max(shape[1:3])))
    first = picture[: shape[1] * zoom : zoom, : shape[2] * zoom : zoom]
    expected = images[0] if len(shape) == 4 else images[0][..., None]
    expected = expected[..., :3] if expected.shape[-1] >= 3 else expected[..., :1].repeat(3, -1)
    np.testing.assert_array_equal(first, np.broadcast_to(expected, first.shape))


def test_markup_escapes_everything_but_markup():
    assert tag("p", "<b>", Html("<i>x</i>"), None, 3, title='"<') == '<p title="&quot;&lt;">&lt;b&gt;<i>x</i>3</p>'


def test_an_unfinished_run_has_no_report(tmp_path):
    directory = make_run(tmp_path / "run")
    (directory / "result.json").unlink()
    with pytest.raises(FileNotFoundError):
        page.write(directory)
    assert not (directory / "figures").exists() and not (directory / "report.html").exists()


def test_missing_evidence_leaves_out_its_pictures(tmp_path):
    directory = make_run(tmp_path / "run")
    workdir.write_npz(directory / "evidence.npz", {})
    (directory / "metrics.jsonl").unlink()
    page.write(directory)
    assert {path.stem for path in (directory / "figures").iterdir()} == {"mmd", "map", "plan", "accuracy"}


def test_the_report_needs_no_jax():
    unwanted = ("jax", "flax", "optax", "orbax", "mmd_jax", "matplotlib.pyplot")
    code = f"import sys; import experiments.report.page; print([m for m in {unwanted} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "[]"
