import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import decision_benchmark, workdir
from experiments.candidates import candidates, roles
from experiments.config import Data, Decision, Model, Training, TwoSample
from experiments.regret import outcomes, policies, summary, tables
from experiments.regret.policies import FIXED, Case, Split
from experiments.regret.settings import Benchmark, Pair, check
from mmd_jax.intervals import t_interval
from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.mlp import mlp
from mmd_jax.transfer.decision import decide
from mmd_jax.types import Similarity

HERE = Path(__file__).parents[2]
WAYS = {role: role for role in FIXED}


def case(pair, size, best, *, known=None, seed=0, loss=0.1):
    """A cell in which one way is right of 90 % and all others lose `loss`."""
    accuracy = {way: 0.9 if way == best else 0.9 - loss for way in FIXED}
    known = {"rows": float(size), **(known or {})}
    return Case(
        pair, size, seed, accuracy, dict.fromkeys(FIXED, 1.0), dict.fromkeys(FIXED, 10), WAYS, known, {}, (best, 5)
    )


def taken_regrets(cases, signal):
    ways = policies.left_out(cases, lambda some: policies.best_split(some, signal))
    return [one.regret(way) for one, way in zip(cases, ways)]


def test_a_planted_threshold_is_found_and_used_on_pairs_that_were_left_out():
    pairs = [f"pair {i}" for i in range(6)]
    cases = [case(p, n, "linear_probe" if n < 300 else "finetune_all") for p in pairs for n in (50, 200, 1000)]
    rule = policies.best_split(cases, "rows")
    assert (rule.below, rule.above, rule.threshold) == ("linear_probe", "finetune_all", 600.0)
    assert set(policies.left_out(cases, lambda some: policies.best_split(some, "rows"))) == {
        "linear_probe",
        "finetune_all",
    }
    assert max(taken_regrets(cases, "rows")) == 0
    found = summary.evidence(cases, ["rows"])
    assert found["beats"] and found["threshold"] == 600 and "rows" in str(rule)


def test_a_split_is_as_good_as_the_best_of_all_thresholds_and_roles():
    random = np.random.default_rng(0)
    cases = []
    for i in range(14):
        one = case(f"pair {i % 5}", 50, "lp_ft", known={"s": float(random.normal())})
        cases.append(one._replace(accuracy={way: float(random.uniform()) for way in FIXED}))
    costs, share = policies.regrets_of_roles(cases), policies.weights(cases)
    values = np.array([one.known["s"] for one in cases])
    brute = min(
        (share * np.where(values < t, costs[:, a], costs[:, b])).sum()
        for t in np.sort(values)
        for a in range(len(FIXED))
        for b in range(len(FIXED))
    )
    rule = policies.best_split(cases, "s", num_thresholds=100)
    mine = sum(w * one.regret(rule(one)) for w, one in zip(share, cases))
    assert mine == pytest.approx(brute)


def test_what_a_pair_alone_says_is_not_used_for_it():
    # Only in "odd" the signal matters; a rule that saw "odd" would be right there.
    cases = [case("odd", 50, "lp_ft", known={"s": 9.0}), case("odd", 200, "lp_ft", known={"s": 9.0})]
    cases += [case(f"pair {i}", 50, "linear_probe", known={"s": float(i)}) for i in range(4)]
    regrets = taken_regrets(cases, "s")
    assert regrets[:2] == pytest.approx([0.1, 0.1]) and max(regrets[2:]) == 0
    assert policies.best_split(cases, "s")(cases[0]) == "lp_ft"


def test_where_a_signal_is_missing_the_best_fixed_way_is_taken():
    rule = Split("s", 0.5, "lp_ft", "finetune_all", "linear_probe")
    some = case("a", 50, "lp_ft", known={"s": math.nan})
    assert [rule(some), rule(some._replace(known={"s": 0.5})), rule(some._replace(known={"s": 0.4}))] == [
        "linear_probe",
        "finetune_all",
        "lp_ft",
    ]


def test_noise_does_not_make_a_rule():
    random = np.random.default_rng(1)
    cases = []
    for i in range(8):
        for size in (50, 200, 1000):
            one = case(f"pair {i}", size, "lp_ft", known={"s": float(random.normal())}, loss=0.02)
            noise = {way: one.accuracy[way] + float(random.normal()) * 0.01 for way in FIXED}
            cases.append(one._replace(accuracy=noise))
    found = summary.evidence(cases, ["rows", "s"])
    assert not found["beats"] and found["rule"] == found["fixed"] == "lp_ft"


def test_each_pair_counts_the_same():
    cases = [case(pair, 50, "lp_ft", seed=seed) for seed, pair in enumerate("aaabc")]
    found = summary.over_pairs(cases, [0.0, 0.3, 0.6, 0.1, 0.2])
    expected = t_interval([0.3, 0.1, 0.2])
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    assert policies.weights(cases).sum() == pytest.approx(1) and policies.weights(cases)[3] == pytest.approx(1 / 3)


def test_halving_goes_on_with_the_best_third_and_counts_every_step_once():
    curve = lambda *losses: [[10 * (i + 1), loss] for i, loss in enumerate(losses)]  # noqa: E731
    flat = curve(*[1.0] * 9)
    good = curve(0.9, 0.8, 0.7, 0.7, 0.6, 0.5, 0.5, 0.4, 0.3)
    late = curve(2.0, 2.0, 2.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0)  # best in the end, and seen too late
    middling = curve(0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)
    curves = {"flat": flat, "good": good, "late": late, "middling": middling, "flat too": flat, "flat three": flat}
    assert policies.halving(curves, 9) == ("good", 4 * 10 + 30 + 90)  # of six, two and then one go on
    assert policies.halving({"only": late}, 9) == ("only", 90)
    # Of twelve, four and then two go on; one that was stopped early costs no more than it took.
    twelve = {f"way {i}": curve(*[1 + i / 100] * 9) for i in range(11)} | {"early": curve(0.5, 0.5)}
    assert policies.halving(twelve, 9) == ("early", 20 + 8 * 10 + 2 * 30 + 90)


def test_rank_correlation_of_what_does_not_vary_is_none():
    assert summary.spearman([1.0, 2.0, 9.0], [1.0, 4.0, 5.0]) == pytest.approx(1)
    # Ranks 1, 2½, 2½, 4 against 1, 2, 3, 4: covariance 4.5, sums of squares 4.5 and 5.
    assert summary.spearman([0.0, 1.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert summary.spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_a_signal_that_orders_pairs_is_seen_and_one_that_does_not_is_not():
    random = np.random.default_rng(3)
    cases = []
    for i in range(10):
        for size in (50, 200):
            gain = i / 20
            known = {"distance": -gain + 0.01 * random.normal(), "noise": float(random.normal())}
            one = case(f"pair {i}", size, "lp_ft", known=known)
            accuracy = {way: 0.5 if way.startswith("from_scratch") else 0.5 + gain for way in FIXED}
            cases.append(one._replace(accuracy=accuracy))
    distance, noise = (summary.predictions(cases, name) for name in ("distance", "noise"))
    assert distance["correlation"] < -0.9 and distance["high"] < 0
    assert noise["low"] < 0 < noise["high"]


@pytest.mark.parametrize("network", [cnn8(4, width=2), mlp(4, hidden=(8, 8)), mlp(4, hidden=(8,))])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("settings", [Decision(), Decision(layer_decay=0.5), Decision(pretrained_rate=1.0)])
def test_every_fixed_policy_is_a_way_of_any_network(network, augment, settings):
    plans = candidates(network, settings, augment=augment)
    assert len({plan.stages for plan in plans.values()}) == len(plans)
    found = roles(network, settings, plans)
    assert set(found) == set(FIXED) and set(found.values()) <= set(plans)
    share = len(plans[found["finetune_top 0.4"]].stages[0].frozen) / network.num_base
    assert share == pytest.approx(0.4, abs=0.5 / network.num_base + 0.5 * (network.num_base == 1))
    assert plans[found["finetune_all augmented"]].stages[0].augment == augment


def benchmark_of(tmp_path, **changes):
    """Digits' halves, with small dense networks."""

    def digits(*classes):
        return Data("digits", classes=classes, test_limit=60)

    low, high = digits("0", "1", "2"), digits("3", "4", "5")
    model = Model(name="mlp", hidden=(8, 8))
    settings = Benchmark(
        pairs=(Pair("up", low, high, model, augment=False), Pair("down", high, low, model, augment=False)),
        sizes=(30,),
        epochs=(3,),
        batch_sizes=(16,),
        seeds=(0,),
        test_limit=60,
        pretrain=Training(epochs=2, learning_rates=(3e-3,)),
        train=Training(learning_rates=(3e-3,)),
        test=TwoSample(max_rows=60, permutations=19),
        decision=Decision(margin_from="classes"),
        tables=str(tmp_path / "tables"),
        workers=1,
    )
    return replace(settings, **changes)


@pytest.mark.usefixtures("compiled_once")
def test_from_data_to_the_rule_and_on_from_where_it_stopped(tmp_path, monkeypatch, capsys):
    benchmark, ran = benchmark_of(tmp_path), []
    parts = dict(decision_benchmark.PARTS)

    def stops_at(count):
        def wrapped(part):
            def run(setting):
                if len(ran) == count:
                    raise KeyboardInterrupt
                ran.append((setting.config.name, part))
                return parts[part](setting)

            return run

        monkeypatch.setattr(decision_benchmark, "PARTS", {part: wrapped(part) for part in parts})

    stops_at(3)
    with pytest.raises(KeyboardInterrupt):
        decision_benchmark.run(benchmark, tmp_path / "run")
    assert not (tmp_path / "tables").exists()
    stops_at(99)
    decision_benchmark.run(benchmark, tmp_path / "run")
    assert len(ran) == len(set(ran)) == 4  # no part of a cell ran twice

    cases = tables.read(tmp_path / "tables")
    assert {one.pair for one in cases} == {"up", "down"}
    for one in cases:
        assert set(one.roles) == set(FIXED) and set(one.roles.values()) <= set(one.accuracy)
        assert {"patent, pvalue", "quadrant, verdict", "audit", "deepest log_me"} <= set(one.choices)
        assert set(one.choices.values()) <= set(one.accuracy)
        assert min(one.regret(way) for way in one.accuracy) == 0
        assert np.isfinite(one.known["MMD² inputs"]) and one.known["leep"] <= 0
    study = workdir.read_json(tmp_path / "run" / "decision_benchmark.json")
    assert {"up", "down"} == set(study["pairs"]) and (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert "rule `evidence`" in capsys.readouterr().out

    # From the tables alone the same numbers follow.
    decision_benchmark.run(replace(benchmark, from_tables=True), tmp_path / "again")
    assert workdir.read_json(tmp_path / "again" / "decision_benchmark.json") == study


@pytest.mark.usefixtures("compiled_once")
def test_the_ways_of_a_cell_start_alike_and_are_tested_on_rows_that_none_has_seen(tmp_path):
    benchmark = benchmark_of(tmp_path)
    setting = outcomes.prepare(benchmark, benchmark.pairs[0], 30, 0, tmp_path / "sources")
    assert not {*setting.data.target.train_rows} & {*setting.data.target.test_rows}
    first, second = outcomes.outcomes(setting), outcomes.outcomes(setting)
    assert first == second and set(first["ways"]) == set(setting.plans)
    for found in first["ways"].values():
        losses = [loss for _, loss in found["curve"]]
        assert found["valid_loss"] <= min(losses) + 1e-4 and found["steps"] == found["curve"][-1][0]


def test_a_table_that_was_changed_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run python -m"):
        tables.read(tmp_path)
    for name, head in (
        (tables.WAYS, "way,accuracy"),
        (tables.KNOWN, "signal,value"),
        (tables.CHOICES, "kind,name,way,steps"),
    ):
        (tmp_path / name).write_text(f"pair,size,seed,{head}\na,50,0,lp_ft,many\n")
    with pytest.raises(ValueError, match="not those of a decision benchmark"):
        tables.read(tmp_path)


def test_tables_are_plain_csv(tmp_path):
    tables._write(tmp_path / "x.csv", ["pair", "way"], [["a, b", "lp_ft"]])
    with open(tmp_path / "x.csv", newline="") as file:
        assert list(csv.reader(file)) == [["pair", "way"], ["a, b", "lp_ft"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": ()}, "expected one or more"),
        ({"pairs": (Pair("a"),)}, "expected two or more"),
        ({"decision": Decision(num_frozen=1)}, "asks every rule"),
        ({"epochs": (3, 4)}, "expected one for each of sizes"),
        ({"seeds": (1, 1)}, "all different"),
        ({"train": Training()}, "expected one: a grid"),
        ({"pairs": (Pair("a", None), Pair("b"))}, "nothing to reuse"),
        ({"pairs": (Pair("a", sizes=(77,)), Pair("b"))}, "not among sizes"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        check(benchmark_of(tmp_path, **change))


def test_a_target_with_too_few_rows_is_named(tmp_path):
    benchmark = benchmark_of(tmp_path, sizes=(5000,))
    with pytest.raises(ValueError, match="training rows; expected 5000"):
        outcomes.prepare(benchmark, benchmark.pairs[0], 5000, 0, tmp_path / "sources")


def test_the_rule_evidence_is_what_the_tables_say():
    """The tables are those of the finished benchmark, kept with the project; no row of data is needed to read them."""
    cases = tables.read(HERE / "docs" / "results" / "decision_benchmark")
    known = [name for name in summary.GIVEN if name in cases[0].known]
    found = summary.evidence(cases, known)
    network = cnn8(4, width=2)
    plan = decide("evidence", Similarity("different", ""), network, num_rows=10, num_classes=4)
    plans = candidates(network, Decision(), augment=True)
    ways = roles(network, Decision(), plans)
    assert not found["beats"]
    assert plans[ways[found["fixed"]]].stages == plan.stages
    # No way that is always taken gives away less.
    costs = {
        role: sum(policies.weights(cases) * column) for role, column in zip(FIXED, policies.regrets_of_roles(cases).T)
    }
    assert min(costs, key=costs.__getitem__) == found["fixed"]
