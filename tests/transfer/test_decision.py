import numpy as np
import pytest

from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.mlp import mlp
from mmd_jax.transfer.decision import PATENT, QUADRANT, REGIMES, decide, similarity, stages_of
from mmd_jax.types import Similarity, TwoSampleResult

NETWORK = cnn8(10, width=2)
KINDS = ("similar", "different", "undecided", "unknown")


def plan(rule, kind, rows, **settings):
    return decide(rule, Similarity(kind, "a test"), NETWORK, num_rows=rows, num_classes=10, **settings)


# The sources' own tables, written out once more from the documents.
@pytest.mark.parametrize(
    "rule, kind, rows, regime, frozen",
    [
        ("patent", "similar", 4_999, "linear_probe", 7),
        ("patent", "similar", 10_001, "finetune_all", 0),
        ("patent", "different", 10_001, "finetune_all", 0),
        ("patent", "different", 4_999, "from_scratch", 0),
        ("patent", "similar", 5_000, "lp_ft", 7),
        ("patent", "different", 10_000, "finetune_all", 0),
        ("quadrant", "different", 10_000, "finetune_all", 0),
        ("quadrant", "similar", 10_000, "finetune_top", 3),
        ("quadrant", "different", 9_999, "finetune_top", 2),
        ("quadrant", "similar", 9_999, "finetune_top", 5),
    ],
)
def test_rules_say_what_the_sources_say(rule, kind, rows, regime, frozen):
    chosen = plan(rule, kind, rows)
    assert chosen.regime == regime
    assert len(chosen.stages[0].frozen) == frozen
    assert chosen.reason.count(".") == 1 and chosen.reason.endswith(".")


@pytest.mark.parametrize("rule", ["patent", "quadrant"])
@pytest.mark.parametrize("rows", [100, 7_000, 50_000])
def test_what_is_not_known_to_be_similar_takes_the_dissimilar_row(rule, rows):
    different = plan(rule, "different", rows)
    assert plan(rule, "undecided", rows) == plan(rule, "unknown", rows) == different
    assert plan(rule, "similar", rows) != different or (rule == "patent" and rows == 50_000)


def test_small_and_different_freezes_less_than_large_and_similar_and_augments():
    small_different, large_similar = plan("quadrant", "different", 100), plan("quadrant", "similar", 50_000)
    assert len(small_different.stages[0].frozen) < len(large_similar.stages[0].frozen)
    assert small_different.stages[0].augment and not large_similar.stages[0].augment


def test_the_evidence_is_one_way_for_all():
    known = [kind for kind in KINDS if kind != "unknown"]
    plans = {plan("evidence", kind, rows).stages for kind in known for rows in (10, 10**6)}
    assert plans == {stages_of("finetune_all", NETWORK.layers, pretrained_rate=1.0, augment=True)}
    assert plan("evidence", "unknown", 10).stages == stages_of("lp_ft", NETWORK.layers)
    assert not plan("evidence", "similar", 10, augment=False).stages[0].augment
    assert "(10 training rows)" in plan("evidence", "similar", 10).reason


def test_thresholds_are_settings():
    assert plan("patent", "similar", 4_999, small=100, large=200).regime == "finetune_all"
    assert len(plan("quadrant", "similar", 100).stages[0].frozen) == 5
    assert len(plan("quadrant", "similar", 100, small_per_class=10).stages[0].frozen) == 3


def test_a_number_of_frozen_layers_that_the_user_set_is_in_the_reason():
    chosen = plan("quadrant", "similar", 100, num_frozen=1)
    assert len(chosen.stages[0].frozen) == 1 and "the user set the number of frozen layers to 1" in chosen.reason
    assert "does not use" in plan("patent", "similar", 100, num_frozen=1).reason


@pytest.mark.parametrize("hidden", [(), (4,), (4, 4), (4, 4, 4)])
def test_however_small_the_base_the_order_of_the_cells_holds(hidden):
    network = mlp(3, hidden=hidden)

    def frozen(kind, rows):
        found = decide("quadrant", Similarity(kind, ""), network, num_rows=rows, num_classes=3)
        return len(found.stages[0].frozen)

    small_similar, large_similar, small_different = (
        frozen("similar", 9),
        frozen("similar", 9_000),
        frozen("different", 9),
    )
    assert small_similar == network.num_base
    assert small_different <= large_similar <= max(small_similar - 1, 0)


@pytest.mark.parametrize("regime", REGIMES)
def test_each_layer_is_frozen_or_trained_in_order_and_pretrained_layers_learn_slower(regime):
    for stage in stages_of(regime, NETWORK.layers, num_frozen=3, pretrained_rate=0.2):
        assert stage.frozen + tuple(name for name, _ in stage.trained) == NETWORK.layers
        for name, rate in stage.trained:
            new = name in stage.reinitialised
            assert rate == (1.0 if new else 0.2)


def test_tables_have_no_cell_missing():
    assert set(PATENT) == {(size, kind) for size in ("small", "medium", "large") for kind in ("similar", "different")}
    assert set(QUADRANT) == {(size, kind) for size in ("small", "large") for kind in ("similar", "different")}
    assert {choice.regime for choice in (*PATENT.values(), *QUADRANT.values())} <= set(REGIMES)


@pytest.mark.parametrize(
    "pvalue, reject, kind", [(0.001, True, "different"), (0.5, False, "similar"), (np.nan, False, "undecided")]
)
def test_similarity_reads_the_decision_of_the_test(pvalue, reject, kind):
    result = TwoSampleResult(*map(np.asarray, (0.1, pvalue, 0.05, reject, 0.3, [1.0], 199, [0.0, 1.0])))
    found = similarity(result, representation="conv3", alpha=0.05, m=30, n=40)
    assert found.kind == kind
    assert "conv3" in found.evidence and (kind == "undecided" or "30" in found.evidence)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plan("nearest", "similar", 10), "unknown rule 'nearest'; there are patent, quadrant, evidence"),
        (lambda: plan("patent", "close", 10), "similarity.kind is 'close'"),
        (lambda: plan("patent", "similar", 10, small=20, large=10), "small = 20 and large = 10"),
        (lambda: stages_of("freeze", ("a",)), "unknown regime 'freeze'; there are linear_probe"),
        (lambda: stages_of("finetune_top", ("a", "b"), num_frozen=2), "num_frozen = 2.*expected 0 … 1"),
        (lambda: stages_of("finetune_top", ("a", "b"), num_frozen=-1), "num_frozen = -1"),
        (lambda: stages_of("finetune_all", ("a", "b"), pretrained_rate=0.0), "pretrained_rate = 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_are_frozen_by_name_wherever_they_are():
    layers = ("a", "b", "c", "d")
    [stage] = stages_of("finetune_top", layers, frozen=("c", "a"), pretrained_rate=0.5)
    assert stage.frozen == ("a", "c") and stage.trained == (("b", 0.5), ("d", 1.0)) and stage.reinitialised == ("d",)
    for name in ("d", "e"):
        with pytest.raises(ValueError, match=f"frozen names '{name}'; expected some of a, b, c"):
            stages_of("finetune_top", layers, frozen=("a", name))


def test_rates_fall_from_the_top_down():
    layers = ("a", "b", "c", "d")
    [stage] = stages_of("finetune_top", layers, num_frozen=1, pretrained_rate=0.5, layer_decay=0.1)
    assert stage.trained == (("b", pytest.approx(0.05)), ("c", 0.5), ("d", 1.0))
    _, second = stages_of("lp_ft", layers, pretrained_rate=0.5, layer_decay=0.1)
    assert [rate for _, rate in second.trained] == pytest.approx([0.005, 0.05, 0.5, 0.5])
    [scratch] = stages_of("from_scratch", layers, layer_decay=0.1)
    assert {rate for _, rate in scratch.trained} == {1.0}
    for decay in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="layer_decay"):
            stages_of("finetune_all", layers, layer_decay=decay)
