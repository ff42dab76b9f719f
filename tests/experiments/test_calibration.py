"""The calibration experiment finds a test that exceeds its level, and only such; it goes on, and it can be read."""

import csv
import json
import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import calibration, catalogue, problems, trials
from experiments.catalogue import Entry
from experiments.trials import Trials


def coin(share):
    """A test that rejects so often, whatever the data."""
    return lambda key, x, y, alpha, num: jax.random.uniform(key) < share


def coin_of_data(share):
    """The same, decided by the data."""
    return lambda key, x, y, alpha, num: stats_of(x) < share


def stats_of(x):
    return jax.scipy.stats.norm.cdf(x[0, 0])


FAKES = (
    Entry("honest", "exact", coin(0.05)),
    Entry("liberal", "exact", coin(0.1)),
    Entry("careful", "bound", coin(0.01)),
    Entry(
        "late", "asymptotic", lambda key, x, y, alpha, num: jax.random.uniform(key) < alpha + 3.0 * (x.shape[0] < 100)
    ),
    Entry("on the host", "exact", lambda key, x, y, alpha, num: zlib.crc32(y.tobytes()) < 0.05 * 2**32, traced=False),
)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(calibration, "TESTS", FAKES)
    monkeypatch.setattr(calibration, "POWER", ("honest", "liberal"))
    monkeypatch.setattr(calibration, "OUTSIDERS", {})
    monkeypatch.setattr(calibration, "SIZES", ((10, 20), (50, 50)))
    monkeypatch.setattr(calibration, "LATER", (100, 100))
    monkeypatch.setattr(calibration, "NULLS", problems.NULLS[:3])


def some(num=2000, name="normal", draw=None, m=10, n=20):
    return Trials(name, draw or problems.NULLS[0].draw, m, n, num, 0.05, 99, 0)


def test_rejections_are_counted_over_chunks_and_do_not_depend_on_them(monkeypatch):
    entry = Entry("data", "exact", coin_of_data(0.05))
    whole = trials.count(entry, some(1001))
    monkeypatch.setattr(trials, "NUMBERS_AT_ONCE", 300 * 100)
    assert trials.count(entry, some(1001)) == whole
    by_hand = sum(stats.norm.cdf(trials.sample(some(), t)[0][0, 0]) < 0.05 for t in range(1001))
    assert whole == (by_hand, 1001)
    assert stats.binomtest(by_hand, 1001, 0.05).pvalue > 1e-4


def test_the_first_trials_have_the_same_samples_however_many_there_are_and_others_where_the_problem_is_another():
    first = trials.sample(some(5), 3)
    np.testing.assert_array_equal(first[1], trials.sample(some(5000), 3)[1])
    assert first[0].shape == (10, 10) and first[1].shape == (20, 10)
    for other in (some(name="other"), some()._replace(seed=1)):
        assert not np.isin(first[0], trials.sample(other, 3)[0]).any()
    assert not np.isin(first[0], trials.sample(some(), 4)[0]).any()


def test_a_test_on_the_host_and_a_peer_see_the_samples_that_compiled_tests_see():
    about = some(300)
    ours = trials.count(Entry("a", "exact", lambda key, x, y, alpha, num: x[0, 0] < y[0, 0]), about)
    host = trials.count(Entry("b", "exact", lambda key, x, y, alpha, num: x[0, 0] < y[0, 0], traced=False), about)
    seen = []

    def peer(x, y, num, seed, alpha):
        seen.append((x.dtype, num, seed, alpha))
        return SimpleNamespace(reject=x[0, 0] < y[0, 0])

    assert ours == host == trials.count_outside(peer, about, 60.0)
    assert seen[7] == (np.float32, 99, 7, 0.05)


def test_a_peer_that_is_slow_does_as_many_trials_as_its_time_allows_or_none():
    now = [0.0]

    def clock():
        return now[0]

    def peer(x, y, num, seed, alpha):
        now[0] += 100.0 if seed == 0 else 1.0  # the first call compiles
        return SimpleNamespace(reject=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.time, "perf_counter", clock)
        assert trials.count_outside(peer, some(200), 30.0) == (32, 32)
        assert trials.count_outside(peer, some(200), 10.0) == (0, 0)
        assert trials.count_outside(peer, some(5), 10.0) == (5, 5)


def test_verdicts_of_tests_of_known_level(tmp_path, fakes, capsys):
    calibration.main(["level", "--workdir", str(tmp_path), "--trials", "1000"])
    rows = json.loads((tmp_path / "level" / "level.json").read_text())
    verdicts = {}
    for row in rows:
        assert row["low"] <= row["rate"] == row["rejections"] / 1000 <= row["high"]
        verdicts.setdefault(row["test"], set()).add(row["verdict"])
    assert verdicts["honest"] == verdicts["on the host"] == {"holds"}
    assert verdicts["liberal"] == {"exceeds"} and verdicts["careful"] == {"conservative"}
    shown = capsys.readouterr().out
    exact = [row for row in rows if row["test"] != "late"]
    exceeding = [row["cell"] for row in exact if row["test"] == "liberal"]
    assert f"{len(exceeding)} of {len(exact)} cells of exact tests exceed their level: {exceeding[0]}" in shown
    assert "late: its level holds from n = 100" in shown
    assert shown.count("\nhonest") == 3  # kinds of data
    assert (tmp_path / "level" / "level.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / "level" / "level.svg").read_bytes()
    with open(tmp_path / "level" / "level.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["cell"], int(r["rejections"])) for r in table] == [(r["cell"], r["rejections"]) for r in rows]

    cells = (tmp_path / "level" / "cells.jsonl").read_bytes()
    picture = (tmp_path / "level" / "level.svg").read_bytes()
    (tmp_path / "level" / "level.svg").unlink()
    calibration.main(["level", "--workdir", str(tmp_path), "--only", "honest", "--trials", "1000"])
    assert capsys.readouterr().out == shown
    assert (tmp_path / "level" / "cells.jsonl").read_bytes() == cells
    assert (tmp_path / "level" / "level.svg").read_bytes() == picture


def test_the_level_of_an_exact_test_is_that_of_its_permutations():
    row = {"cell": "a", "test": "a", "level": "exact", "alpha": 0.05, "rejections": 200, "done": 5000}
    assert [r["expected"] for r in calibration.judge([row | {"permutations": b} for b in (99, 50, 199)])] == [
        0.05,
        2 / 51,
        0.05,
    ]
    assert calibration.judge([row | {"permutations": 50, "level": "asymptotic"}])[0]["expected"] == 0.05


def test_more_cells_make_the_bound_wider():
    row = {"level": "exact", "alpha": 0.05, "permutations": 99, "done": 5000}
    high = int(stats.binom.isf(0.01, 5000, 0.05))
    assert calibration.judge([row | {"rejections": high}])[0]["verdict"] == "exceeds"
    assert {r["verdict"] for r in calibration.judge([row | {"rejections": high}] * 20)} == {"holds"}


def test_power_of_tests_of_known_power(tmp_path, fakes, monkeypatch, capsys):
    def missing(self, name):
        raise ImportError(f"no {name} here")

    monkeypatch.setattr(calibration.Outsiders, "test", missing)
    monkeypatch.setattr(calibration, "OUTSIDERS", {"someone": ("someone", 0)})
    argv = ["power", "--workdir", str(tmp_path), "--quick", "--trials", "40", "--data-dir", str(tmp_path)]
    calibration.main(argv)
    shown = capsys.readouterr().out
    assert "skipped someone, mean: no someone here" in shown
    rows = json.loads((tmp_path / "power" / "power.json").read_text())
    assert {row["family"] for row in rows} == {"mean", "variance"} and len(rows) == 16
    assert {row["done"] for row in rows} == {40}
    calibration.main(argv)
    assert capsys.readouterr().out == shown


def test_a_peer_that_fails_is_skipped_and_started_anew(tmp_path, fakes, monkeypatch, capsys):
    class Failing:
        missing, started, closed = "", 0, 0

        def __init__(self, name, num_bandwidths, pythons):
            Failing.started += 1

        def __call__(self, x, y, num, seed, alpha, limit):
            assert limit == calibration.CALL_SECONDS
            raise (RuntimeError, TimeoutError)[Failing.started % 2]("it is dead\nand buried")

        def close(self):
            Failing.closed += 1

    monkeypatch.setattr(calibration, "start", Failing)
    monkeypatch.setattr(calibration, "OUTSIDERS", {"someone": ("someone", 0)})
    calibration.main(
        ["power", "--workdir", str(tmp_path), "--quick", "--only", "someone / mean", "--data-dir", str(tmp_path)]
    )
    assert "skipped someone, mean: it is dead" in capsys.readouterr().out
    assert Failing.started == Failing.closed == len(problems.FAMILIES[0].points)


def test_the_power_has_no_float64_tests(tmp_path):
    with pytest.raises(SystemExit, match="power has no float64 tests"):
        calibration.main(["power", "--x64", "--workdir", str(tmp_path)])


def test_the_data_of_cifar10_are_not_needed(tmp_path, fakes, capsys):
    calibration.main(["power", "--only", "honest / cifar10", "--workdir", str(tmp_path), "--data-dir", str(tmp_path)])
    assert "skipped honest, cifar10: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["levle"], "there is no grid 'levle'"),
        (["level", "--trials", "0"], "trials = 0; expected at least 1"),
        (["level", "--alpha", "0.001"], "alpha = 0.001 with 99 permutations: nothing could be rejected"),
        (["level", "--only", "nonsense"], "no cell's name contains 'nonsense'"),
    ],
)
def test_bad_arguments_get_one_line(tmp_path, argv, message):
    with pytest.raises(SystemExit) as caught:
        calibration.main([*argv, "--workdir", str(tmp_path)])
    assert message in str(caught.value)


@pytest.mark.parametrize("entry", catalogue.TESTS, ids=lambda entry: entry.name)
def test_every_traced_test_can_be_run_many_at_a_time(entry):
    if not entry.traced:
        pytest.skip("runs on the host")
    x, y = (jax.ShapeDtypeStruct((20, 10), jnp.float32) for _ in range(2))
    out = jax.eval_shape(lambda key, x, y, alpha: entry.run(key, x, y, alpha, 99), jax.random.key(0), x, y, 0.05)
    assert out.shape == () and out.dtype == bool


def test_names_are_unique_and_power_names_tests():
    names = [entry.name for entry in (*catalogue.TESTS, *catalogue.FULL)]
    assert len(set(names)) == len(names) and not any("," in name for name in names)
    assert set(catalogue.POWER) <= set(names)


def test_one_real_cell_keeps_its_level(tmp_path, capsys):
    only = "permutation gaussian / normal / 10 x 20"  # compiles once
    calibration.main(["level", "--only", only, "--trials", "1000", "--workdir", str(tmp_path)])
    assert "0 of 1 cells of exact tests exceed their level" in capsys.readouterr().out
    [row] = json.loads((tmp_path / "level" / "level.json").read_text())
    assert row["verdict"] == "holds" and row["done"] == 1000


# The problems


def test_nulls_have_the_distributions_they_say():
    rng = np.random.default_rng(0)
    many = {null.name: null.draw(rng, 4000, 3000) for null in problems.NULLS if null.name != "d = 300"}
    for name, (x, y) in many.items():
        assert x.shape == (4000, 10) and y.shape == (3000, 10)
        assert stats.ks_2samp(x[:, 0], y[:, 0]).pvalue > 1e-4, name
    assert stats.kstest(many["heavy tails"][0][:, 3], stats.t(1.5).cdf).pvalue > 1e-4
    assert set(np.unique(many["ties"][0])) == {0, 1, 2} and not many["ties"][0][:, 2:].any()
    for name, lag in (("groups", 1), ("AR(1)", 1)):
        x = many[name][0][:, 2]
        assert stats.kstest(x[::10], "norm").pvalue > 1e-4
        pairs = x[:-1][::2] if name == "groups" else x[:-1]
        nexts = x[1:][::2] if name == "groups" else x[1:]
        assert abs(np.corrcoef(pairs, nexts)[0, 1] - 0.5) < 0.1, lag
    assert abs(np.corrcoef(many["groups"][0][1:-1:2, 2], many["groups"][0][2::2, 2])[0, 1]) < 0.1


@pytest.mark.parametrize("p", [1, 3])
def test_the_perturbed_uniform_has_its_density(p):
    rng = np.random.default_rng(0)
    # One draw has one set of signs; fold it by them: every cell's first half is a hill or a dent of known mass.
    y = problems.perturbed_uniform(1, p, rng, 2, 100_000)[1][:, 0]
    assert y.min() >= 0 and y.max() <= 1
    observed = np.histogram(y, bins=2 * p, range=(0, 1))[0].reshape(p, 2)
    grid = np.linspace(-1, -0.5, 100_001)
    mass = np.trapezoid(problems._bump(grid), grid) * 2.7 / p / p
    expected = 0.5 / p + mass * np.array([1, -1])
    for pair in observed / len(y):
        signed = expected if pair[0] > pair[1] else expected[::-1]
        np.testing.assert_allclose(pair, signed, atol=5 * np.sqrt(expected[0] / len(y)))


def test_blobs_and_mixtures_differ_in_the_covariance_they_should_and_in_no_mean():
    rng = np.random.default_rng(0)
    x, y = problems.blobs(2.0, rng, 20_000, 20_000)
    inside = [rows - 10 * np.round(rows / 10) for rows in (x, y)]
    np.testing.assert_allclose(np.cov(inside[0].T), np.eye(2), atol=0.06)
    np.testing.assert_allclose(np.cov(inside[1].T), [[1.5, 0.5], [0.5, 1.5]], atol=0.06)
    x, y = problems.gaussian_mixture(5, rng, 20_000, 20_000)
    np.testing.assert_allclose(x.mean(axis=0), y.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.cov(x.T)[:5, :5], np.cov(y.T)[:5, :5], atol=0.06)
    assert not x[:, 5:].any()
    # The components' correlations cancel in the mixture; they show where a component is likely.
    second = y[:, 2:5].sum(axis=1) > 2.5
    assert np.corrcoef(y[second, :2].T)[0, 1] > 0.2
    assert abs(np.corrcoef(x[x[:, 2:5].sum(axis=1) > 2.5, :2].T)[0, 1]) < 0.15
