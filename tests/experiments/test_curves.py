"""Statistics of the transferability study on rows of known effects."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from experiments.study import correlation, curves, distances
from experiments.study.differences import Key, estimate, paired, split_means
from experiments.study.statements import statements
from mmd_jax.intervals import holm, t_interval
from tests.experiments import synthetic

SMALL = ("conv1", "conv2", "fc3", "fc4")


def networks(accuracy, *, splits=2, seeds=2, kind="random"):
    """A base and an AnB network (n = 1) for each split, half and seed; `accuracy(treatment, split, target, seed)`."""
    return [
        {
            "kind": kind,
            "split": s,
            "target": t,
            "seed": i,
            "treatment": name,
            "n": n,
            "accuracy": accuracy(name, s, t, i),
        }
        for s, t, i in itertools.product(range(splits), "AB", range(seeds))
        for name, n in (("base", 0), ("AnB", 1))
    ]


# Pairing


# Every base has a value of its own, at which no two (split, half, seed) agree, and AnB is a power of two below its base: a
# network beside any other base gives another difference.
def base_of(split, target, seed):
    return 0.9 - 0.1 * split - 0.03 * "AB".index(target) - 0.007 * seed


def drop_of(split, target, seed):
    return 2.0 ** -(4 + 4 * split + 2 * "AB".index(target) + seed)


def planted(name, split, target, seed):
    return base_of(split, target, seed) - (drop_of(split, target, seed) if name == "AnB" else 0)


def test_every_network_is_paired_with_its_own_base():
    rows = networks(planted)
    np.random.default_rng(0).shuffle(rows)  # the order of rows says nothing
    for network in paired(rows):
        expected = 0 if network.treatment == "base" else -drop_of(*network.key[1:])
        assert network.base == base_of(*network.key[1:])
        assert network.difference == pytest.approx(expected, abs=1e-15)
        assert network.relative == pytest.approx(expected / base_of(*network.key[1:]), abs=1e-15)


@pytest.mark.parametrize("field, other", [("seed", 1), ("target", "B"), ("split", 1)])
def test_one_wrong_pair_changes_the_result(field, other):
    """Two base networks change places: only what pairs by this field notices, and it must."""
    rows = networks(planted)
    swapped = [dict(row) for row in rows]
    here, there = {"split": 0, "target": "A", "seed": 0}, {"split": 0, "target": "A", "seed": 0} | {field: other}
    for row in swapped:
        if row["treatment"] == "base":
            for a, b in ((here, there), (there, here)):
                if all(row[name] == a[name] for name in a):
                    row["accuracy"] = base_of(**b)
                    break
    before, after = ([n.difference for n in paired(r) if n.treatment == "AnB"] for r in (rows, swapped))
    moved = [i for i, (x, y) in enumerate(zip(before, after)) if abs(x - y) > 1e-6]
    assert len(moved) == 2


def test_kinds_are_not_mixed():
    rows = networks(planted) + networks(lambda *of: planted(*of) - 0.05, kind="dissimilar")
    found = {(p.kind, p.treatment): p.accuracy.estimate for p in curves.curves(paired(rows))}
    assert found["random", "AnB"] - found["dissimilar", "AnB"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda rows: [row for row in rows if row["treatment"] != "base" or row["seed"]],
            "no base network of the same",
        ),
        (lambda rows: [*rows, rows[1]], "two rows are of the network AnB, n = 1, random split 0, half A, seed 0"),
        (lambda rows: [rows[0] | {"accuracy": 87.0}, *rows[1:]], "is 87.0; expected a share"),
        (lambda rows: [rows[0] | {"accuracy": None}, *rows[1:]], "is None; expected a share"),
        (lambda rows: [rows[0] | {"accuracy": math.nan}, *rows[1:]], "is nan; expected a share"),
        (lambda rows: [rows[0], rows[1] | {"n": 4}], "n = 4; expected 0 for base and long, and 1 … 3"),
        (lambda rows: [], "no row of a trained network"),
    ],
)
def test_bad_rows_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        curves.summarise({"layers": list(SMALL)}, change(networks(planted)))


# Intervals over splits


def test_interval_is_student_s_over_split_means():
    rng = np.random.default_rng(1)
    values = {Key("random", s, t, i): float(rng.normal(s)) for s in range(5) for t in "AB" for i in range(3)}
    means = [np.mean([v for key, v in values.items() if key.split == s]) for s in range(5)]
    found = estimate(values)
    assert (found.over, found.num) == ("splits", 5)
    expected = stats.t.interval(0.95, 4, np.mean(means), stats.sem(means))
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
    assert list(split_means(values).values()) == pytest.approx(means)


def test_more_seeds_do_not_make_the_interval_shorter():
    """Networks of a split are no new splits: doubling every network leaves estimate and interval as they are."""
    values = {Key("random", s, t, 0): float(v) for (s, t), v in zip(itertools.product(range(3), "AB"), range(6))}
    doubled = values | {key._replace(seed=1): value for key, value in values.items()}
    assert estimate(values) == estimate(doubled)


def test_one_split_has_an_interval_over_its_networks_and_says_so():
    values = {
        Key("dissimilar", 0, t, i): float(v) for (t, i), v in zip(itertools.product("AB", range(2)), (1, 2, 3, 5))
    }
    found = estimate(values)
    assert (found.over, found.num) == ("networks of one split", 4)
    assert found[:3] == t_interval([1, 2, 3, 5])[:3]
    single = estimate({Key("random", 0, "A", 0): 0.5})
    assert single == (0.5, None, None, None, 1)


# Statements


def by_name(found, kind="random"):
    return {statement["name"]: statement for statement in found["statements"] if statement["kind"] == kind}


@pytest.fixture(scope="module")
def whole():
    about = synthetic.header()
    return curves.summarise(about, synthetic.rows(about))


def test_planted_effects_are_found(whole):
    """Each effect lies within its interval (at .999, so that nine of them rarely fail), and clear ones are told apart."""
    about = synthetic.header()
    found = by_name(curves.summarise(about, synthetic.rows(about, noise=0.002, seed=3), level=0.999))

    def mean(treatment, ns):
        return np.mean([synthetic.effect(treatment, n) for n in ns])

    middle, ends, every = (3, 4, 5, 6), (1, 2, 7), range(1, 8)
    dip = mean("BnB", middle)
    expected = {
        "Co-adaptation dip": dip,
        "Co-adaptation dip beside the ends": dip - mean("BnB", ends),
        "AnB+ above base": mean("AnB+", every),
        "AnB+ above longer training": mean("AnB+", every) - synthetic.effect("long", 0),
        "AnB+ above BnB+": mean("AnB+", every) - mean("BnB+", every),
    }
    for name, effect in expected.items():
        assert found[name]["low"] <= effect <= found[name]["high"]
        assert found[name]["num_splits"] == 5
    assert len(found) == 9


def test_slope_is_the_mean_of_least_squares_slopes(whole):
    slopes = []
    for split in range(5):
        points = [
            (p["n"], p["splits"][str(split)][1])
            for p in whole["curves"]
            if (p["kind"], p["treatment"]) == ("random", "AnB")
        ]
        slopes.append(np.polyfit(*zip(*points), 1)[0])
    found = by_name(whole)["AnB falls with n"]
    assert found["by_split"] == pytest.approx(slopes)
    assert found["pvalue"] == pytest.approx(stats.ttest_1samp(slopes, 0).pvalue)
    assert found["unit"] == "points a layer"


def test_pvalues_are_adjusted_over_all_statements_of_a_kind(whole):
    found = [s for s in whole["statements"] if s["kind"] == "random"]
    pvalues = [stats.ttest_1samp(s["by_split"], 0).pvalue for s in found]
    assert [s["pvalue"] for s in found] == pytest.approx(pvalues)
    assert [s["adjusted"] for s in found] == pytest.approx(holm(pvalues).tolist())
    assert not [s for s in whole["statements"] if s["kind"] == "dissimilar"]  # one split: nothing over splits


def test_no_sentence_is_stronger_than_its_interval():
    """Without any effect but noise, a side is taken only where the adjusted p allows it, and the sign is that of the effect."""
    about, sides = synthetic.header(random=3, dissimilar=2, seeds=1), 0
    for seed in range(40):
        rows = synthetic.rows(about, noise=0.01, seed=seed)
        rng = np.random.default_rng(seed)
        for row in rows:
            if "accuracy" in row:
                row["accuracy"] = 0.8 + 0.01 * float(rng.normal())
        for s in (statement._asdict() for statement in statements(paired(rows), 8)):
            takes = "not told apart" not in s["sentence"]
            sides += takes
            assert takes == (s["adjusted"] <= 0.05)
            if takes:
                assert s["low"] * s["high"] > 0
                up, down = (" rises ", " falls ") if s["unit"].endswith("layer") else (" is above ", " is below ")
                assert (up if s["effect"] > 0 else down) in s["sentence"]
            else:
                assert (s["pvalue"] <= 0.05) == ("statements were tested" in s["sentence"])
    # Of 80 families of 9 true null hypotheses, at most .05 have one rejected or more: 4 expected. A
    # family whose statements go together may reject several.
    assert sides <= 9 * stats.binom.ppf(0.999, 80, 0.05)


@pytest.mark.parametrize("num_layers", [2, 3, 4, 5, 8, 13])
def test_any_depth(num_layers):
    layers = tuple(f"layer{i}" for i in range(num_layers))
    about = synthetic.header(layers, random=2, dissimilar=0, seeds=1)
    found = by_name(curves.summarise(about, synthetic.rows(about)))
    if num_layers >= 3:
        assert {"Co-adaptation dip", "Co-adaptation dip beside the ends", "AnB falls with n"} <= set(found)
    if num_layers == 8:
        assert "n = 3 … 6" in found["Co-adaptation dip"]["contrast"]
        assert "n = 1, 2, 7" in found["Co-adaptation dip beside the ends"]["contrast"]
    assert {"AnB below base at its deepest", "AnB+ above BnB+"} <= set(found)


@pytest.mark.parametrize(
    "without",
    [("BnB", "BnB+"), ("AnB", "AnB+"), ("long",), ("random", "AnB+"), ("AnB", "AnB+", "BnB", "BnB+", "random")],
)
def test_treatments_may_be_missing(without):
    about = synthetic.header(random=2, seeds=1)
    found = curves.summarise(about, synthetic.rows(about, without=without))
    for statement in found["statements"]:
        words = statement["contrast"].replace("−", " ").replace("(", " ").split()
        assert not set(without) & set(words)
        assert "base trained as long" not in statement["contrast"] or "long" not in without
    assert not {p["treatment"] for p in found["curves"]} & set(without)


@pytest.mark.parametrize("drop", [0.125, 0.01, 0.0])
@pytest.mark.parametrize("splits", [2, 3])
def test_splits_that_all_give_the_same_say_nothing(drop, splits):
    """Accuracies on few rows can be equal by chance: no claim, and no interval without a width."""
    rows = networks(lambda name, s, t, i: base_of(s, t, i) - drop * (name == "AnB"), splits=splits)
    found = curves.summarise({"layers": ["a", "b"]}, rows)
    statement = by_name(found)["AnB below base at its deepest"]
    assert statement["effect"] == pytest.approx(-drop)
    assert (statement["low"], statement["high"], statement["pvalue"], statement["adjusted"]) == (None, None, 1, 1)
    assert (
        f"in each of the {splits} splits. Where all splits give the same, nothing can be said" in statement["sentence"]
    )
    assert not {" is below ", " is above "} & set(statement["sentence"])
    point = next(p for p in found["curves"] if p["treatment"] == "AnB")
    assert (point["difference"]["low"], point["difference"]["over"]) == (None, None)
    assert point["accuracy"]["over"] == "splits"


# Splits that share a half


def halved(*splits, kind="dissimilar"):
    return [{"kind": kind, "split": i, "A": list(a), "B": list(b)} for i, (a, b) in enumerate(splits)]


def test_splits_that_share_a_half_are_not_tested():
    rows = networks(lambda *of: planted(*of) + 0.001 * of[1], splits=3)
    rows += networks(planted, splits=3, kind="dissimilar")
    halves = halved(("012", "345"), ("123", "045"), ("234", "015"), kind="random")
    halves += halved(("012", "789"), ("123", "987"), ("134", "879"))
    found = curves.summarise({"layers": ["a", "b"], "halves": halves}, rows)
    assert found["shared_halves"] == {"dissimilar": "half B"}
    assert {statement["kind"] for statement in found["statements"]} == {"random"}
    over = {(p["kind"], p["treatment"]): p["difference"]["over"] for p in found["curves"]}
    assert over["random", "AnB"] == "splits" and over["dissimilar", "AnB"] == "splits that share half B"
    halves[-1]["B"] = list("786")
    found = curves.summarise({"layers": ["a", "b"], "halves": halves}, rows)
    assert found["shared_halves"] == {} and {s["kind"] for s in found["statements"]} == {"random", "dissimilar"}
    alone = curves.summarise({"layers": ["a", "b"], "halves": halves[:1]}, networks(planted, splits=1))
    assert alone["shared_halves"] == {} and alone["curves"][1]["difference"]["over"] == "networks of one split"


# Difficulty and what JSON holds


def test_difficulty_is_of_base_networks_alone():
    rows = networks(planted)
    found = curves.summarise({"layers": ["a", "b"]}, rows)
    first = found["difficulty"][0]
    assert first["A"] == pytest.approx(np.mean([base_of(0, "A", s) for s in range(2)]))
    assert first["gap"] == pytest.approx(0.03)
    assert found["largest_gap"]["gap"] == pytest.approx(0.03)
    one = curves.summarise({"layers": ["a", "b"]}, [row for row in rows if row["target"] == "A"])
    assert one["largest_gap"] is None and one["difficulty"][0]["B"] is None


def test_summary_survives_json(whole):
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_base_of_zero_has_no_relative_change():
    rows = networks(lambda name, *_: 0.0 if name == "base" else 0.1)
    point = curves.summarise({"layers": ["a", "b"]}, rows)["curves"][1]
    assert point["relative"]["estimate"] is None and point["difference"]["estimate"] == pytest.approx(0.1)


def test_ceiling():
    assert curves.summarise({"layers": ["a", "b"]}, networks(lambda *_: 0.98))["ceiling"] == ["random"]
    assert curves.summarise({"layers": ["a", "b"]}, networks(lambda *_: 0.96))["ceiling"] == []


# Correlation within layers


def tables(rng, splits, r, *, between=0.9, layers=7):
    """x and y of correlation r in each layer, both correlated between layers, with means that rise with depth."""
    steps = np.arange(layers)
    root = np.linalg.cholesky(between ** np.abs(steps[:, None] - steps[None]))
    x, e = (rng.standard_normal((splits, layers)) @ root.T for _ in range(2))
    return x + 5 * steps[None], r * x + math.sqrt(1 - r * r) * e + 5 * steps[None]


def test_within_layers_is_pearson_s_with_fisher_s_interval():
    x, y = tables(np.random.default_rng(0), 6, 0.5)
    for k, found in enumerate(correlation.within(x, y)):
        expected = stats.pearsonr(x[:, k], y[:, k])
        assert found.r == pytest.approx(expected.statistic)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert found.columns == (k,)


def test_pooled_is_the_mean_over_layers_and_has_no_trend():
    x, y = tables(np.random.default_rng(0), 6, 0.5)
    found = correlation.pooled(x, y)
    assert found.r == pytest.approx(np.mean([one.r for one in correlation.within(x, y)]))
    points = correlation.standardised(x).ravel(), correlation.standardised(y).ravel()
    assert found.r == pytest.approx(stats.pearsonr(*points).statistic)
    # A scale or a mean of a layer's own changes nothing; without centring it is all that one sees.
    scale, shift = np.linspace(1, 9, 7)[None], np.linspace(0, 300, 7)[None]
    np.testing.assert_allclose(correlation.pooled(scale * x + shift, y)[:4], found[:4])
    assert correlation.naive(x, y) > 0.95
    unrelated = correlation.pooled(*tables(np.random.default_rng(5), 10, 0.0))
    assert unrelated.low < 0 < unrelated.high


def test_permutation_pvalue_is_exact():
    """Against the slow way: every order of the splits, all layers together."""
    x, y = tables(np.random.default_rng(2), 5, 0.6)
    found = correlation.pooled(x, y)
    values = [
        abs(np.mean([stats.pearsonr(x[list(order), k], y[:, k]).statistic for k in range(7)]))
        for order in itertools.permutations(range(5))
    ]
    assert found.pvalue == pytest.approx(np.mean(np.array(values) >= abs(found.r) - 1e-9))
    many = correlation.pooled(*tables(np.random.default_rng(2), 9, 0.6))
    assert many.pvalue * 5000 == pytest.approx(round(many.pvalue * 5000)) and many.pvalue >= 1 / 5000


MIXED = np.repeat([0, 1], [5, 3])


def mixed(rng, r, offset):
    """Five splits of one kind and three of another, which lies `offset` standard deviations higher, in x as in y."""
    x, y = tables(rng, 8, r)
    return x + offset * MIXED[:, None], y + offset * MIXED[:, None]


def test_a_difference_between_kinds_is_no_correlation():
    """Whatever sets the kinds apart changes nothing; r is the mean over layers and kinds, weighted by splits less one."""
    rng = np.random.default_rng(0)
    x, y = mixed(rng, 0.3, 0.0)
    found = correlation.pooled(x, y, kinds=MIXED)
    each = [[stats.pearsonr(x[g == MIXED, k], y[g == MIXED, k]).statistic for k in range(7)] for g in (0, 1)]
    assert found.r == pytest.approx(np.mean((4 * np.array(each[0]) + 2 * np.array(each[1])) / 6))
    assert (found.num_splits, found.num_kinds) == (8, 2)
    # Jackknife over all eight splits, Student's t with 8 − 2 degrees of freedom.
    left_out = [
        correlation.pooled(*(np.delete(t, i, 0) for t in (x, y)), kinds=np.delete(MIXED, i)).r for i in range(8)
    ]
    half = stats.t.ppf(0.975, 6) * math.sqrt(7 * np.var(np.arctanh(left_out)))
    assert np.arctanh((found.low, found.high)) == pytest.approx(np.arctanh(found.r) + np.array([-half, half]))
    step = MIXED[:, None]
    moved = correlation.pooled(x * (1 + step) + 5 * step, y + 9 * step, kinds=MIXED)
    np.testing.assert_allclose(moved[:4], found[:4])
    before, after = (correlation.within(x, table, kinds=MIXED) for table in (y, y + 9 * step))
    assert [one.r for one in after] == pytest.approx([one.r for one in before])
    assert {one.low for one in after} == {None} and "several kinds" in after[0].reason
    assert correlation.pooled(x + 5 * step, y + 9 * step).r > 0.9  # as if they were of one kind


def test_splits_are_shuffled_within_their_kind():
    """Against the slow way: every order of the first five beside every order of the other three."""
    x, y = mixed(np.random.default_rng(4), 0.5, 3.0)
    found = correlation.pooled(x, y, kinds=MIXED)
    a, b = (correlation.standardised(table, MIXED) for table in (x, y))
    ways = itertools.product(itertools.permutations(range(5)), itertools.permutations(range(5, 8)))
    values = [abs(np.sum(a[[*first, *second]] * b)) / 42 for first, second in ways]
    assert len(values) == 720 and found.pvalue == pytest.approx(np.mean(np.array(values) >= abs(found.r) - 1e-9))
    rng = np.random.default_rng(0)
    kinds = np.repeat(["random", "dissimilar"], [6, 4])  # 17,280 orders: some of them
    many = correlation.pooled(*tables(rng, 10, 0.97), kinds=kinds)
    assert many.pvalue in (1 / 5000, 2 / 5000)  # the observed order may be drawn again
    apart = 100.0 * (kinds == "random")[:, None]  # an order that mixes them would make this r the largest of all
    offset = correlation.pooled(*(table + apart for table in tables(rng, 10, 0.0)), kinds=kinds)
    assert offset.pvalue > 0.01


def test_the_single_split_of_a_kind_is_left_out():
    x, y = tables(np.random.default_rng(0), 6, 0.5)
    alone = correlation.pooled(x, y, kinds=[0, 0, 0, 0, 0, 1])
    assert alone == correlation.pooled(x[:5], y[:5]) and alone.num_splits == 5
    assert correlation.within(x, y, kinds=[0, 0, 0, 0, 0, 1]) == correlation.within(x[:5], y[:5])
    few = correlation.pooled(x[:4], y[:4], kinds=[0, 0, 1, 1])
    assert few.r is None and few.reason == "only 4 splits of 2 kinds; at least 5 are needed"
    with pytest.raises(ValueError, match="kinds has shape"):
        correlation.pooled(x, y, kinds=[0, 1])


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_level_and_coverage_over_two_kinds(offset):
    """Nominal .05 and .95; 300 studies, where pooling over kinds claims a relation in .63 of those with this offset."""
    rng, trials, claimed = np.random.default_rng(13), 300, 0
    for _ in range(trials):
        x, y = mixed(rng, 0.0, offset)
        claimed += distances.predictions(studied(x, y, MIXED))[0].verdict != "open"
    assert claimed <= stats.binom.ppf(0.999, trials, 0.05)
    covered = sum(
        low <= 0.8 <= high for low, high in (_interval(*mixed(rng, 0.8, offset), MIXED) for _ in range(trials))
    )
    assert stats.binom.ppf(0.001, trials, 0.945) <= covered


def studied(x, y, kinds=None):
    names = ["random" if not kind else "dissimilar" for kind in (np.zeros(len(x)) if kinds is None else kinds)]
    nothing = np.zeros(x.shape[1] + 1, int)
    return [distances.Beside(k, i, np.append(x[i], 0.0), y[i], nothing, nothing) for i, k in enumerate(names)]


@pytest.mark.parametrize("splits", [5, 10])
@pytest.mark.parametrize("r", [0.0, 0.8])
def test_pooled_interval_covers(splits, r):
    """Nominal .95; 400 draws: se .011, so below .915 one in a thousand, and the largest coverage seen was .985."""
    rng, trials = np.random.default_rng(7), 400
    found = [_interval(*tables(rng, splits, r)) for _ in range(trials)]
    covered = sum(low <= r <= high for low, high in found)
    assert stats.binom.ppf(0.001, trials, 0.945) <= covered <= stats.binom.ppf(0.999, trials, 0.98)


def _interval(x, y, kinds=None):
    # The permutations, which are not asked for here, take longer than all else.
    before, correlation._permuted = correlation._permuted, lambda *_: 1.0
    try:
        return correlation.pooled(x, y, kinds=kinds)[1:3]
    finally:
        correlation._permuted = before


def test_pvalue_keeps_its_level():
    rng, trials = np.random.default_rng(11), 400
    rejected = sum(correlation.pooled(*tables(rng, 5, 0.0)).pvalue <= 0.05 for _ in range(trials))
    assert rejected <= stats.binom.ppf(0.999, trials, 0.05)
    assert rejected >= stats.binom.ppf(0.001, trials, 0.03)  # the level is 6/120 but for ties, so it rejects at times


def test_few_splits_have_no_interval_and_say_why():
    x, y = tables(np.random.default_rng(0), 3, 0.5)
    assert correlation.pooled(x, y).r is None and "only 3 splits" in correlation.pooled(x, y).reason
    one = correlation.within(x, y)[0]
    assert one.r is not None and one.low is None and "at least 4" in one.reason
    assert correlation.within(x[:1], y[:1])[0].r is None


def test_dead_and_constant_layers_are_left_out():
    x, y = tables(np.random.default_rng(0), 6, 0.5)
    x[2, 1], y[:, 4] = np.nan, 0.1
    found = correlation.pooled(x, y)
    assert found.columns == (0, 2, 3, 5, 6)
    keep = list(found.columns)
    assert found[:4] == correlation.pooled(x[:, keep], y[:, keep])[:4]
    layers = correlation.within(x, y)
    assert layers[1].num_splits == 5 and layers[1].r is not None
    assert layers[4].r is None and "same in every split" in layers[4].reason
    nothing = correlation.pooled(np.full((6, 2), np.nan), np.zeros((6, 2)))
    assert nothing.r is None and "no layer" in nothing.reason
    with pytest.raises(ValueError, match="expected the same shape"):
        correlation.pooled(x, y[:, :3])


def test_perfect_correlation_is_finite():
    x = np.arange(12.0).reshape(6, 2)
    found = correlation.pooled(x, 3 * x)
    assert found.r == pytest.approx(1) and np.isfinite((found.low, found.high)).all()
    assert found.pvalue <= 2 / math.factorial(6) + 1e-12


# MMD beside the drop


def distance_rows(num_layers=3, splits=4, seeds=2):
    rows = []
    for s, t, i in itertools.product(range(splits), "AB", range(seeds)):
        key = {"kind": "random", "split": s, "target": t, "seed": i}
        base = 0.9 - 0.01 * s - 0.02 * "AB".index(t) - 0.003 * i
        rows.append({**key, "treatment": "base", "n": 0, "accuracy": base})
        for n in range(1, num_layers):
            cost = 0.01 * n * (s + 1) + 0.004 * "AB".index(t) + 0.002 * i
            rows.append({**key, "treatment": "AnB", "n": n, "accuracy": base - cost})
        mmd2 = [0.1 * n + 0.02 * s + 0.01 * "AB".index(t) + 0.001 * i for n in range(1, num_layers + 1)]
        rows.append({**key, "treatment": "distance", "mmd2": mmd2, "pvalue": [0.01, 0.2] + [0.05] * (num_layers - 2)})
    return rows


def test_distance_and_drop_are_means_over_directions_and_seeds():
    rows = distance_rows()
    found = distances.beside(rows, paired(rows), 3)
    assert [split.split for split in found] == [0, 1, 2, 3]
    for split in found:
        s = split.split
        np.testing.assert_allclose(split.mmd2, [0.1 * n + 0.02 * s + 0.0055 for n in (1, 2, 3)])
        np.testing.assert_allclose(split.drop, [0.01 * n * (s + 1) + 0.003 for n in (1, 2)])
        assert split.rejected.tolist() == [4, 0, 4] and split.tested.tolist() == [4, 4, 4]
    (one,) = distances.predictions(found)
    assert one.splits == "random" and one.pooled.r == pytest.approx(1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_relation_is_seen_and_its_sign(sign):
    rng = np.random.default_rng(0)
    x, y = tables(rng, 10, sign * 0.97)
    (one,) = distances.predictions(studied(x, y))
    assert one.verdict == ("more" if sign > 0 else "less")
    assert f"lose {one.verdict} from" in one.sentence


def test_no_relation_is_said_so_whatever_the_trend():
    """Over 100 studies without a relation, one is claimed at most as often as chance allows, though both trend with depth."""
    claimed, rng = 0, np.random.default_rng(3)
    for _ in range(100):
        x, y = tables(rng, 5, 0.0)
        (one,) = distances.predictions(studied(x, y))
        assert one.naive > 0.9 and "no evidence" in one.sentence
        claimed += one.verdict != "open"
        assert (one.verdict == "open") == ("not seen to predict" in one.sentence)
    assert claimed <= stats.binom.ppf(0.999, 100, 0.05)


def test_kinds_are_told_together_and_alone(whole):
    (one,) = whole["predictions"]
    assert (one["splits"], one["pooled"]["num_splits"]) == ("random", 5)
    assert "The one dissimilar split is left out" in one["sentence"]
    assert {kind for kind, *_ in one["points"]} == {"random"}
    two = synthetic.header(dissimilar=3, seeds=1)
    together, alone = curves.summarise(two, synthetic.rows(two))["predictions"]
    assert (together["splits"], together["pooled"]["num_splits"]) == ("random and dissimilar", 8)
    assert "Within layers and kinds, over 8 random and dissimilar splits" in together["sentence"]
    assert (alone["splits"], alone["pooled"]["num_splits"]) == ("random", 5) and "left out" not in alone["sentence"]
    for kind in ("random", "dissimilar"):  # each kind has its own mean and scale
        points = np.array([[x, y] for of, _, n, x, y in together["points"] if of == kind and n == 3])
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(points.std(axis=0, ddof=1), 1)
    only = synthetic.header(random=0, dissimilar=2, seeds=1)
    (one,) = curves.summarise(only, synthetic.rows(only))["predictions"]
    assert one["splits"] == "dissimilar" and one["pooled"]["r"] is None
    singles = synthetic.header(random=1, dissimilar=1, seeds=1)
    (one,) = curves.summarise(singles, synthetic.rows(singles))["predictions"]
    assert "only 1 split;" in one["sentence"] and "left out" in one["sentence"]


def test_dead_layers_and_missing_distances():
    rows = distance_rows()
    next(row for row in rows if row["treatment"] == "distance")["mmd2"][1] = None
    found = curves.summarise({"layers": list("abc")}, rows)
    assert found["beside"][0]["mmd2"][1] is None
    assert found["predictions"][0]["pooled"]["columns"] == [0]
    without = [row for row in rows if row["treatment"] != "distance"]
    assert curves.summarise({"layers": list("abc")}, without)["predictions"] == []
    rows[-1]["mmd2"] = [0.1]
    with pytest.raises(ValueError, match="has 1 numbers; expected one for each of the 3 layers"):
        curves.summarise({"layers": list("abc")}, rows)
