"""A run that decides by a verdict against a margin, and what its config refuses."""

import pytest

from experiments import config as configs
from experiments import workdir
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize(
    ("decision", "test", "words"),
    [
        ({"margin_from": "classes"}, {}, "halves of the source's classes"),
        ({"margin_from": "blur:1.5", "representation": "fc1"}, {}, "blurred by a Gaussian of width 1.5 pixels"),
        ({"margin": 5.0}, {"bandwidth": 3.0}, "given in the config"),
        ({"margin": 1e-4}, {"bandwidth": 3.0}, "given in the config"),
    ],
)
def test_a_margin_decides(decision, test, words, tmp_path):
    decided = tiny.decide(tmp_path / "run", decision=decision, test=test)
    verdict = workdir.read_json(tmp_path / "run" / "decision.json")["verdict"]
    assert decided.verdict == verdict and words in verdict["margin_from"]
    low, high = verdict["interval"]
    assert low <= high and verdict["margin"] > 0
    expected = {"equivalent": "similar", "different_but_small": "similar"}.get(verdict["kind"], verdict["kind"])
    assert decided.similarity.kind == expected
    assert verdict["sentence"] in decided.similarity.evidence
    if decision.get("margin") == 5.0:  # a Gaussian kernel's MMD is at most √2
        assert verdict["kind"] in ("equivalent", "different_but_small")
    if decision.get("margin") == 1e-4:
        assert verdict["kind"] == "different" and decided.similarity.kind == "different"


def test_without_a_margin_the_p_value_decides(tmp_path):
    assert tiny.decide(tmp_path / "run").verdict is None
    told = tiny.decide(tmp_path / "told", decision={"margin_from": "classes", "similarity": "pvalue"})
    assert told.verdict is None and "P = Q is" in told.similarity.evidence


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"margin": 0.0}, "decision.margin = 0.0; expected a positive number"),
        ({"margin": 0.1, "margin_from": "classes"}, "both set"),
        ({"margin": 0.1}, "test.bandwidth must be given"),
        ({"margin_from": "blur"}, "blur:WIDTH"),
        ({"margin_from": "blur:-1"}, "blur:WIDTH"),
        ({"margin_from": "writers"}, "classes, groups, or blur"),
        ({"similarity": "verdict"}, "needs decision.margin or decision.margin_from"),
    ],
)
def test_a_margin_that_is_none_is_refused(decision, message):
    with pytest.raises(ValueError, match=message):
        configs.check(tiny.changed(decision=decision))


def test_a_source_without_groups_has_no_margin_from_groups(tmp_path):
    with pytest.raises(ValueError, match=r"set source\.group_key"):
        tiny.decide(tmp_path / "run", decision={"margin_from": "groups"})
    assert not (tmp_path / "run").exists()
