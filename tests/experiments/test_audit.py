"""The audit: what is planted is found, no dropped arm is trained, the account adds up, a kill changes nothing."""

import itertools
import json
import math
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import audit, candidates, phases, plans, signals, transfer, workdir
from experiments import config as configs
from experiments.auditing import arms, budget, contest, ladder, regret, summary
from experiments.auditing.arms import Arm
from experiments.auditing.budget import Price
from experiments.config import Audit, Decision, Training
from experiments.report import audit as report
from mmd_jax.intervals import paired_interval
from mmd_jax.models.mlp import mlp
from mmd_jax.transfer import finetune
from mmd_jax.types import Plan, Rows
from tests.experiments import tiny

SETTINGS = {"unit": "steps", "eta": 3, "max_epochs": 27, "steps_per_epoch": 4, "learning_rates": (0.01, 0.001)}
PRICES = {f"way {i}": Price(1.0, price) for i, price in enumerate([4, 4, 4, 4, 2, 2, 1, 1, 0.1])}


# The budget.


@pytest.mark.parametrize("total", [30, 60, 150, 300, 1000, 10_000])
def test_no_ladder_costs_more_than_the_budget_and_none_taller_is_left_out(total):
    found = budget.allot(total, PRICES, **SETTINGS)
    assert math.fsum(rung.allotted for rung in found.rungs) <= total
    assert found.rungs[0].arms == len(PRICES) * len(found.learning_rates)
    epochs = [rung.epochs for rung in found.rungs]
    assert epochs == sorted({*epochs}) and epochs[-1] <= 27

    def costs(rates, first, height):
        each = sorted([price.epoch for price in PRICES.values()] * rates, reverse=True)
        return math.fsum(rung.allotted for rung in budget.rungs_of(first, each, 3, height, 27))

    rates, short = len(found.learning_rates), "pays for" in found.note
    height = len(found.rungs) if short else budget.num_rungs(len(PRICES) * rates, 3)
    assert epochs[0] == 27 or costs(rates, epochs[0] + 1, height) > total  # an epoch more can't be paid
    assert rates == 2 or costs(2, 1, budget.num_rungs(len(PRICES) * 2, 3)) > total  # nor what was given up
    assert not short or costs(rates, 1, height + 1) > total


def test_a_small_budget_gives_up_learning_rates_before_rungs_and_says_so():
    one = "The budget has no room for 2 learning rates: every candidate is trained at 0.01 alone."
    cases = {
        10_000: ((0.01, 0.001), 1, ""),
        300: ((0.01, 0.001), 3, ""),
        60: ((0.01,), 2, one),
        30: ((0.01,), 1, f"{one} It pays for 1 of 2 rungs."),
    }
    for total, (rates, height, note) in cases.items():
        found = budget.allot(total, PRICES, **SETTINGS)
        assert (found.learning_rates, len(found.rungs), found.note) == (rates, height, note)


@pytest.mark.parametrize(("unit", "said"), [("steps", "costs 23 steps"), ("seconds", "takes about 0.37 minutes")])
def test_a_budget_too_small_for_anything_names_the_least_that_would_do(unit, said):
    least = math.fsum(price.epoch for price in PRICES.values())
    with pytest.raises(ValueError, match=said):
        budget.allot(least - 0.2, PRICES, **{**SETTINGS, "unit": unit})
    assert len(budget.allot(math.ceil(least), PRICES, **SETTINGS).rungs) == 1


def test_the_ladder_is_read_back_as_it_was_written(tmp_path):
    assert budget.read(tmp_path) is None
    found = budget.allot(300, PRICES, **SETTINGS)
    budget.write(tmp_path, found)
    assert budget.read(tmp_path) == found


# The ladder.


def climbing(losses, total=300, error=0.0, **settings):
    """Climbs with planted losses; gives the result, and which arms were trained on each rung."""
    known = budget.allot(total, PRICES, **SETTINGS | settings)
    every = [Arm(way, Plan("given", "", (), ""), rate) for way in PRICES for rate in known.learning_rates]
    seen = []

    def train(number, rung, standing):
        seen.append(standing)
        return [{"valid_loss": losses(arm, number), "loss_error": error} for arm in standing]

    return known, ladder.climb(known, every, train), seen


def test_the_best_go_on_and_a_dropped_arm_is_never_trained_again():
    order = {way: i for i, way in enumerate(PRICES)}
    known, found, seen = climbing(lambda arm, number: order[arm.way] + (arm.learning_rate < 0.005) / 2)
    assert [len(rung) for rung in seen] == [rung.arms for rung in known.rungs] == [18, 6, 2]
    assert {arm.way for arm in seen[1]} == {"way 0", "way 1", "way 2"}
    for below, above in itertools.pairwise(seen):
        assert {*above} < {*below}
    assert found.winner == seen[0][0]


def test_the_account_adds_up_and_stays_within_the_budget():
    for salt in range(20):
        random = np.random.default_rng(salt)
        known, found, seen = climbing(lambda arm, number, random=random: float(random.uniform()), error=0.2)
        before, spent = 0, 0.0
        for rung, standing in zip(known.rungs, seen):
            cost = sum(PRICES[arm.way].epoch for arm in standing) * (rung.epochs - before)
            assert cost <= rung.allotted + 1e-9
            before, spent = rung.epochs, spent + cost
        assert found.spent == pytest.approx(spent) and found.spent <= known.total


def test_ties_go_on_while_there_is_room_for_them():
    cheap = {"way 8", "way 7", "way 6"}  # they leave the allotment for the dearest unspent

    def loss(arm, number):
        return 0.0 if arm.way in cheap else 0.1

    _, _, strict = climbing(loss, error=0.05)
    _, _, tied = climbing(loss, error=0.2)
    assert len(strict[1]) == 6 and len(tied[1]) > 6
    assert cheap <= {arm.way for arm in tied[1]}


def test_a_loss_that_is_no_number_loses_to_any():
    _, found, _ = climbing(lambda arm, number: None if arm.way != "way 5" else 9.0, error=None)
    assert found.winner.way == "way 5"


def test_what_diverged_neither_goes_on_nor_is_finished():
    """Of 18 arms five stay finite, where six might go on; of these way 7 diverges, and way 6 is the worst of the others."""

    def loss(arm, number):
        if arm.way == "way 8":
            return 0.0
        if arm.way == "way 7":
            return None if number else 0.5
        return 1.0 if arm.way == "way 6" and arm.learning_rate == 0.01 else None

    known, found, seen = climbing(loss)
    assert [sorted((arm.way, arm.learning_rate) for arm in rung) for rung in seen[1:]] == [
        [("way 6", 0.01), ("way 7", 0.001), ("way 7", 0.01), ("way 8", 0.001), ("way 8", 0.01)],
        [("way 8", 0.001), ("way 8", 0.01)],
    ]
    [(arm, epochs)] = contest.unfinished(found, known, ["way 7", "way 5", "way 6", "way 8"])
    assert (arm.way, arm.learning_rate, epochs) == ("way 6", 0.01, known.rungs[1].epochs)


def test_where_everything_diverges_nothing_more_is_trained():
    _, found, seen = climbing(lambda arm, number: None if number else 1.0, error=None)
    assert len(seen) == len(found.rungs) == 2
    assert ladder.loss_of(dict(found.rungs[-1])[found.winner]) == math.inf


# The arms.


@pytest.fixture(scope="module")
def planted():
    """Rows whose class stands in the first column, and a network whose frozen layer does not see it."""
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 6)).astype(np.float32)
    rows = Rows(x, (x[:, 0] > 0).astype(np.int32))
    network = mlp(2, hidden=(16,))
    variables = jax.tree.map(np.asarray, network.init(jax.random.key(0), x[:1]))
    variables["params"]["fc1"]["kernel"] = variables["params"]["fc1"]["kernel"] * np.array(
        [[0.0]] + [[1.0]] * 5, np.float32
    )
    train, valid, test = (Rows(rows.x[part], rows.y[part]) for part in (slice(0, 80), slice(80, 160), slice(160, 240)))
    return network, variables, train, valid, test


TRAINING = Training(epochs=9, batch_size=20, learning_rates=(0.03, 0.01))


def standing_on(planted, directory, training=TRAINING, seconds=1e9):
    network, variables, train, valid, _ = planted
    place = (jax.random.key(1), network, variables, train, valid, training)
    return arms.ground(directory, *place, checkpoint_seconds=seconds)


def ways_of(network):
    known = candidates.candidates(network, Decision(), augment=False)
    return {
        name: plan._replace(stages=tuple(s._replace(cached=len(s.frozen) > 0) for s in plan.stages))
        for name, plan in known.items()
    }


@pytest.fixture(scope="module")
def held(planted, tmp_path_factory):
    directory = tmp_path_factory.mktemp("audits") / "undisturbed"
    place = standing_on(planted, directory)
    found = contest.hold(place, ways_of(planted[0]), Audit(steps=130), test=planted[4], finish=["linear_probe"])
    return directory, found


def test_useless_features_are_not_frozen(planted, held):
    _, found = held
    assert len(found.ladder.rungs) > 1
    assert found.climbed.winner.plan.regime not in ("linear_probe", "finetune_top")
    [probe] = [regret.regret(found, "linear_probe", planted[4].y, None)]
    assert probe["regret"]["low"] > 0.1


def test_fits_go_on_from_where_they_stand(planted, held):
    """A winner's curve is that of one fit which never stopped."""
    directory, found = held
    winner, epochs = found.climbed.winner, found.ladder.rungs[-1].epochs
    place = standing_on(planted, directory)
    prepared = arms.stage_of(place, winner, 0, 1)
    how = arms.recipe_of(place, epochs)
    state = finetune.begin_fit(place.network, prepared, learning_rate=winner.learning_rate, recipe=how)
    curve = [row["valid_loss"] for _, row in finetune.fit(place.network, prepared, state, recipe=how)]
    name = arms.fit_name(winner, 0)
    rows = [row for row in workdir.read_metrics(directory / "metrics.jsonl") if row["fit"] == name]
    assert [row["valid_loss"] for row in rows] == curve and len(winner.plan.stages) == 1


def test_lp_ft_begins_with_the_linear_probe(held):
    directory, found = held
    first = found.ladder.rungs[0].epochs * found.ladder.steps_per_epoch
    fits = [row["fit"] for row in workdir.read_metrics(directory / "metrics.jsonl")]
    for rate in found.ladder.learning_rates:
        shared = f"audit-lp_ft-rate{rate:g}-stage0"
        assert shared not in fits  # nothing was trained for it
        assert (directory / "checkpoints" / shared / f"{first:08d}").is_dir()


def test_a_killed_audit_ends_as_an_undisturbed_one(planted, held, tmp_path, monkeypatch):
    directory, undisturbed = held

    class Killed(BaseException):
        pass

    def kept(folder):
        rows = [json.loads(line) for line in (folder / "audit" / "cells.jsonl").read_text().splitlines()]
        metrics = sorted(json.dumps(row) for row in workdir.read_metrics(folder / "metrics.jsonl"))
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows], metrics

    append, amid = workdir.append_metrics, []
    # Acts that each process lives to see; the last keeps every epoch, and dies amid a fit on the last rung.
    for stop, step, seconds in ((3, None, 1e9), (7, None, 0.0), (12, None, 1e9), (10**6, 20, 0.0)):
        acts = []

        def act(path, row, acts=acts, stop=stop, step=step):
            acts.append(path)
            if len(acts) > stop or step == row.get("step", 0):
                raise Killed
            append(path, row)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(workdir, "append_metrics", act)
            place = standing_on(planted, tmp_path / "killed", seconds=seconds)
            contest.hold(place, ways_of(planted[0]), Audit(steps=130), test=planted[4])
        amid += [int(path.name) for path in (tmp_path / "killed" / "checkpoints").glob("*/*")]
    ends = {rung.epochs * undisturbed.ladder.steps_per_epoch for rung in undisturbed.ladder.rungs}
    assert {*amid} - {0, *ends}
    place = standing_on(planted, tmp_path / "killed")
    found = contest.hold(place, ways_of(planted[0]), Audit(steps=130), test=planted[4], finish=["linear_probe"])
    assert found.climbed == undisturbed.climbed and found.spent == undisturbed.spent
    assert kept(tmp_path / "killed") == kept(directory)
    assert all(len(list(fit.iterdir())) == 1 for fit in (tmp_path / "killed" / "checkpoints").iterdir())


def test_a_choice_is_compared_where_it_was_last_tested_with_the_winner(planted, held):
    _, found = held
    y = planted[4].y
    winner = found.climbed.winner.way
    for way in found.ladder.prices:
        theirs = [one for one in found.tested if one.way == way][-1]
        ours = [one for one in found.tested if one.way == winner and one.rung == theirs.rung][-1]
        told = regret.regret(found, way, y, None)
        assert told["epochs"] == found.ladder.rungs[theirs.rung].epochs
        if way == winner:
            assert told["regret"] is None
            continue
        expected = paired_interval((ours.predicted == y) * 1.0, (theirs.predicted == y) * 1.0)
        assert told["regret"] == pytest.approx({name: getattr(expected, name) for name in ("estimate", "low", "high")})


def test_the_error_of_a_loss_counts_groups_of_rows_once():
    losses = np.random.default_rng(0).exponential(size=30)
    plain = losses.std(ddof=1) / 30**0.5
    assert contest.standard_error(losses, None) == pytest.approx(plain)
    copies, groups = np.repeat(losses, 4), np.repeat([f"writer {i}" for i in range(30)], 4)
    assert contest.standard_error(copies, groups) == pytest.approx(plain)
    assert contest.standard_error(copies, None) < 0.6 * plain
    assert contest.standard_error(losses, np.zeros(30)) == 0


def test_validation_rows_of_one_group_are_known_to_be_so(tmp_path):
    data = phases.load(tiny.config)
    nets = phases.build(tiny.config, data)
    groups = np.arange(len(data.target.train_y)) // 3
    grouped = data._replace(target=data.target._replace(train_groups=groups))
    place, plain = (phases.audit_ground(tiny.config, tmp_path, nets, {}, one) for one in (grouped, data))
    rows = np.flatnonzero(np.isin(groups, place.valid_groups))
    np.testing.assert_array_equal(place.valid.x, data.target.train_x[rows])
    np.testing.assert_array_equal(place.valid_groups, groups[rows])
    assert plain.valid_groups is None


def test_what_is_left_of_the_budget_finishes_a_choice_that_was_dropped(held):
    _, found = held
    probe = [one for one in found.tested if one.way == "linear_probe"][-1]
    assert probe.finished and probe.rung == len(found.ladder.rungs) - 1
    assert found.climbed.spent < found.spent <= found.ladder.total


def test_other_candidates_need_another_directory(planted, held):
    directory, _ = held
    ways = ways_of(planted[0])
    ways.pop("finetune_all")
    with pytest.raises(ValueError, match=r"other candidates \(finetune_all\)"):
        contest.settled_ladder(standing_on(planted, directory), ways, Audit(steps=130))


def test_minutes_are_turned_into_steps_once(planted, tmp_path, monkeypatch):
    ways = ways_of(planted[0])
    first = contest.settled_ladder(standing_on(planted, tmp_path), ways, Audit(minutes=0.5))
    assert first.unit == "seconds" and 0 < first.total < 30
    assert {price.flops for price in first.prices.values()} != {0}
    assert not list((tmp_path / "checkpoints").iterdir())  # what was timed is not left behind
    monkeypatch.setattr(contest, "prices", lambda *args, **kwargs: pytest.fail("timed again"))
    assert contest.settled_ladder(standing_on(planted, tmp_path), ways, Audit(minutes=0.5)) == first


def test_a_way_that_diverges_is_dropped_and_shown(planted, tmp_path, monkeypatch):
    train = arms.trained

    def diverging(place, arm, epochs, first):
        if arm.way == "finetune_all":
            raise finetune.NonFiniteLossError("planted")
        return train(place, arm, epochs, first)

    monkeypatch.setattr(arms, "trained", diverging)
    place = standing_on(planted, tmp_path, replace(TRAINING, learning_rates=(0.01,)))
    found = contest.hold(place, ways_of(planted[0]), Audit(steps=60), test=planted[4])
    told = summary.summarise({}, found, labels=planted[4].y)
    [way] = [way for way in told["ways"] if way["way"] == "finetune_all"]
    assert way["valid_loss"] is None and way["test"] is None and way["rungs"] == 1


def test_a_way_that_diverges_later_keeps_its_account(planted, held):
    """Its steps, epochs and rate are those of the rung where its loss was last finite, and the oracle is another."""
    _, found = held
    y, way = planted[4].y, found.climbed.winner.way
    lost = {"valid_loss": None, "loss_error": None, "valid_accuracy": None, "diverged": "planted"}
    rungs = list(found.climbed.rungs)
    last = [(arm, lost if arm.way == way else its) for arm, its in rungs[-1]]
    climbed = found.climbed._replace(rungs=(*rungs[:-1], tuple(last)))
    tested = []
    for one in found.tested:
        if one.way != way:
            tested.append(one)
        elif one.rung + 1 < len(rungs):
            tested.append(one._replace(predicted=y))  # the best of all on the test rows
    told = summary.summarise({}, found._replace(climbed=climbed, tested=tuple(tested)), labels=y)
    [row] = [row for row in told["ways"] if row["way"] == way]
    assert row["test"]["estimate"] == 1 and told["oracle"] != way
    assert row["epochs"] == found.ladder.rungs[-2].epochs and row["rungs"] == len(rungs)
    steps = {arm: its["steps"] for rung in rungs[:-1] for arm, its in rung if arm.way == way}
    assert row["steps"] == sum(steps.values()) > 0 and row["valid_loss"] is None


def test_the_regret_of_a_way_that_was_not_tried_is_an_error(planted, held):
    with pytest.raises(ValueError, match="'finetune_top 77 frozen' is none of the ways"):
        regret.regret(held[1], "finetune_top 77 frozen", planted[4].y, None)


# The commands.

SMALL = {"decision": {"augment": False}, "audit": {"steps": 30}}  # augmented ways would be more programs to compile


@pytest.fixture(scope="module")
def few(compiled_once):
    """Fewer ways than there are, so that fewer programs are compiled."""
    with pytest.MonkeyPatch.context() as patch:

        def some(*args, **kwargs):
            known = candidates.candidates(*args, **kwargs)
            names = ("linear_probe", "lp_ft", "finetune_all", "from_scratch")
            return {name: known[name] for name in names if name in known}

        patch.setattr(plans, "candidates", some)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, few):
    directory = tmp_path_factory.mktemp("audit") / "run"
    audit.run(tiny.changed(**SMALL), directory, "the command")
    return directory


def test_the_audit_of_a_config_shows_every_way_and_what_each_rule_would_cost(run):
    found = workdir.read_json(run / "audit.json")
    names = {way["way"] for way in found["ways"]}
    assert {"linear_probe", "lp_ft", "finetune_all", "from_scratch"} <= names
    assert {choice["by"] for choice in found["choices"]} >= {"patent, p-value", "quadrant, p-value"}
    assert {choice["by"] for choice in found["choices"]} >= {*signals.OF_LAYERS}
    assert {choice["way"] for choice in found["choices"]} <= names
    assert {"inputs", "fc1", "outputs"} == {*found["scores"]}
    best = max(way["test"]["estimate"] for way in found["ways"])
    assert next(way for way in found["ways"] if way["way"] == found["oracle"])["test"]["estimate"] == best
    page = (run / "report.html").read_text()
    assert "oracle" in page and "the command" in page and "<script" not in page
    assert {"ways.svg", "contest.svg"} <= {path.name for path in (run / "figures").iterdir()}


def test_the_same_command_trains_nothing_and_remakes_the_page(run, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    page = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    monkeypatch.setattr(finetune, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    audit.run(tiny.changed(**SMALL), copy, "the command")
    assert (copy / "report.html").read_bytes() == page
    assert "would choose" in capsys.readouterr().out


def test_the_rule_audit_takes_the_winner_and_never_looks_at_test_rows(few, tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "test_arms", lambda *args, **kwargs: pytest.fail("tested"))
    settings = tiny.changed(decision={"rule": "audit"}, audit={"steps": 30})
    transfer.run(settings, tmp_path)
    plan, found = workdir.read_json(tmp_path / "decision.json")["plan"], workdir.read_json(tmp_path / "audit.json")
    assert plan["rule"] == "audit" and found["winner"] in plan["reason"]
    assert plan["regime"] == found["winner"].split(" ")[0]
    assert all(way["test"] is None for way in found["ways"]) and found["oracle"] is None
    page = (tmp_path / "report.html").read_text()
    assert "What the audit tried" in page and "on the map of size" not in page
    with pytest.raises(ValueError, match=r"audit\.steps: 30 there, 70 now"):
        phases.open_workdir(replace(settings, audit=Audit(steps=70)), tmp_path)


def test_the_budget_of_an_audit_does_not_matter_to_runs_without_one(tmp_path):
    phases.open_workdir(tiny.config, tmp_path / "run")
    phases.open_workdir(replace(tiny.config, audit=Audit(steps=70)), tmp_path / "run")


def test_rows_too_few_for_scores_are_no_hindrance():
    data = phases.load(tiny.config)
    target = data.target._replace(train_x=data.target.train_x[:4], train_y=np.arange(4, dtype=np.int32))
    nets = phases.build(tiny.config, data)
    variables = nets.source.init(jax.random.key(0), target.train_x)
    scores, note = audit.known_scores(tiny.config, nets, variables, data._replace(target=target))
    assert scores == {} and note.startswith("No scores") and audit.choices_by_scores(scores, nets, Decision()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minutes": None}, "both none"),
        ({"minutes": 0.0}, "audit.minutes = 0.0; expected a positive"),
        ({"steps": 0}, "audit.steps = 0; expected at least 1"),
        ({"eta": 1}, "audit.eta = 1; expected at least 2"),
    ],
)
def test_settings_that_cannot_be_meant(changes, said):
    with pytest.raises(ValueError, match=said):
        configs.check(tiny.changed(audit=changes))


def test_the_answer_tells_better_and_worse_only_of_what_was_compared_at_the_end():
    budget = {"rungs": [{"epochs": 2}, {"epochs": 6}]}

    def choice(by, way, epochs=6, low=None, high=None):
        return {"by": by, "way": way, "epochs": epochs, "regret": low and {"low": low, "high": high}}

    def told(*choices):
        return ". ".join(report.verdicts({"budget": budget, "winner": "best", "choices": choices}))

    assert told() == ""
    assert told(choice("a", "best")) == "Every rule and score that was asked would have chosen it too"
    said = told(
        choice("agrees", "best"),
        choice("poor", "w", low=0.1, high=0.2),
        choice("rich", "x", low=-0.2, high=-0.1),
        choice("near", "y", low=-0.1, high=0.1),
        choice("short", "z", epochs=2, low=0.3, high=0.4),
        choice("gone", "v", epochs=None),
    )
    assert [sentence.split(": ")[1] for sentence in said.split(". ")] == [
        "poor",
        "rich",
        "near",
        "short (1 of 6)",
        "gone",
    ]
    assert "better, though: rich" in said and "earlier rung" in said and "did not stay finite: gone" in said
    assert "don't tell" not in told(choice("gone", "v", epochs=None))


def test_the_terminal_and_the_page_say_the_same_winner(run):
    found = workdir.read_json(run / "audit.json")
    assert report.answer(found) in report.as_text(found)
    assert found["winner"].split(" ")[0] in found["reason"]
