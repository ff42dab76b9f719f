"""ROC AUC and its jackknife, against scikit-learn's AUC on the rows that are left, DeLong's variance, and planted effects."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments import evaluation
from experiments.ranking import auc_difference, auc_interval, jackknife_variance, roc_auc


def rows(seed, n=300, effect=1.0, groups=20, shared=0.0):
    random = np.random.default_rng(seed)
    of_row = random.integers(0, groups, n)
    labels = (random.random(n) < 0.3).astype(int)
    noise = shared * random.normal(size=(groups, 2))[of_row, labels]
    return labels, np.round(random.normal(size=n) + effect * labels + noise, 1), of_row  # rounded: with ties


def test_leaving_out_groups_is_leaving_out_groups():
    labels, scores, groups = rows(0)
    found = roc_auc(labels, scores, groups)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    left = [roc_auc_score(labels[groups != g], scores[groups != g]) for g in range(20)]
    np.testing.assert_allclose(found.without, left, atol=1e-12)
    single = roc_auc(labels, scores)
    left = [roc_auc_score(np.delete(labels, i), np.delete(scores, i)) for i in range(300)]
    np.testing.assert_allclose(single.without, left, atol=1e-12)


def test_without_groups_it_is_delong():
    # DeLong's variance from its definition: the variances of the rows' placements.
    labels, scores, _ = rows(1, n=2000)
    a, b = scores[labels == 1], scores[labels == 0]
    wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    delong = wins.mean(axis=1).var(ddof=1) / len(a) + wins.mean(axis=0).var(ddof=1) / len(b)
    assert jackknife_variance(roc_auc(labels, scores).without) == pytest.approx(delong, rel=5e-3)


def test_the_interval_covers_with_dependent_groups_and_rows_alone_do_not():
    truth = np.mean([roc_auc(*rows(seed, n=4000, groups=400, shared=0.7)[:2]).auc for seed in range(20)])
    covered = {True: 0, False: 0}
    for seed in range(1000, 1200):
        labels, scores, groups = rows(seed, n=600, groups=60, shared=0.7)
        for grouped in covered:
            interval = auc_interval(roc_auc(labels, scores, groups if grouped else None))
            covered[grouped] += interval.low <= truth <= interval.high
    # 95 % of 200, four standard errors below; rows taken as independent fall short of that.
    assert covered[True] >= 178 > covered[False]


def test_differences_are_paired():
    labels, scores, groups = rows(3)
    worse = scores + np.random.default_rng(0).normal(size=300) * 0.1
    a, b = roc_auc(labels, scores, groups), roc_auc(labels, worse, groups)
    difference = auc_difference(a, b)
    assert difference.estimate == pytest.approx(a.auc - b.auc)
    widths = [each.high - each.low for each in (difference, auc_interval(a))]
    assert widths[0] < 0.5 * widths[1]


def test_nothing_varies():
    labels = np.array([0, 1] * 10)
    perfect = auc_interval(roc_auc(labels, labels))
    assert perfect.estimate == perfect.high == 1.0 and 0.6 < perfect.low < 0.8  # ten of ten, by Clopper and Pearson
    same = roc_auc(labels, labels)
    assert auc_difference(same, same).low < 0 < auc_difference(same, same).high


@pytest.mark.parametrize(
    "labels, groups", [([1, 1, 1], None), ([0, 0], None), ([1, 0, 0], [0, 1, 1]), ([1, 0], [0, 0])]
)
def test_undefined(labels, groups):
    groups = None if groups is None else np.array(groups)
    assert roc_auc(np.array(labels), np.zeros(len(labels)), groups) is None


def test_the_section_of_a_result():
    labels, scores, groups = rows(4)
    chosen = (scores > 0.5).astype(int)
    found = evaluation.compare(labels, chosen, 1 - chosen, groups, scores=(scores, -scores))["roc_auc"]
    assert found["chosen"] == pytest.approx(1 - found["from_scratch"])
    assert found["paired_difference"] == pytest.approx(found["chosen"] - found["from_scratch"])
    low, high = found["interval"]
    assert 0 < low < found["paired_difference"] < high
    assert "roc_auc" not in evaluation.compare(labels, chosen, chosen, groups)
