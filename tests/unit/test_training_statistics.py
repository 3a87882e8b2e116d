"""Statistics of training against worked examples, definitions and impossible data."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from scoring.errors import CohortUnusable, FitImpossible
from scoring.training.discrimination import auc, compare, roc_curve
from scoring.training.feature_selection import fit_path, icc, mrmr, mutual_information
from scoring.training.fitting import fit_logistic
from scoring.training.validation import (
    Counts,
    HosmerLemeshow,
    counts_at,
    decision_curve,
    hosmer_lemeshow,
    subgroup_aucs,
    youden_cutoff,
)

# Shrout and Fleiss 1979, Table 2: six targets, four judges; their Table 4 gives ICC(2,1) = .29.
SHROUT_AND_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]]
)


def test_icc_is_that_of_shrout_and_fleiss():
    found = icc(SHROUT_AND_FLEISS)
    assert found.value == pytest.approx(0.29, abs=0.005)
    assert (found.lower, found.upper) == pytest.approx(
        (0.019, 0.761), abs=0.001
    )  # McGraw and Wong's interval
    assert (found.subjects, found.raters) == (6, 4)


def test_raters_who_agree_wholly_have_icc_one_and_a_constant_shift_lowers_it():
    once = np.array([1.0, 4.0, 2.0, 8.0])
    assert icc(np.column_stack([once, once])).value == 1.0
    assert icc(np.column_stack([once, once + 3])).value < 0.85


def test_raters_who_differ_by_rounding_alone_agree_wholly():
    once = np.array([0.1, 0.7, 0.3, 0.9]) * 1e6
    found = icc(np.column_stack([once, once * (1 + 2e-16), once]))
    assert (found.value, found.lower, found.upper) == (pytest.approx(1.0),) * 3


@pytest.mark.parametrize(
    "ratings", [np.ones((4, 2)), np.ones((2, 2)), np.array([[1, 2], [3, np.nan], [5, 6.0]])]
)
def test_icc_of_nothing_is_refused(ratings):
    with pytest.raises(CohortUnusable):
        icc(ratings)


def test_mrmr_is_the_definition_worked_through_all_orders():
    rng = np.random.default_rng(4)
    common = rng.normal(size=80)
    features = np.column_stack([common + rng.normal(size=80) * spread for spread in (0.3, 0.4, 2.0, 5.0)])
    outcome = (common + rng.normal(size=80) > 0).astype(float)
    relevance = mutual_information(features, outcome[:, None])[:, 0]
    between = mutual_information(features, features)

    def greedy(order: tuple[int, ...]) -> bool:
        """Whether each step of an order is the best of what was left."""
        for step, one in enumerate(order):
            before = list(order[:step])
            merit = {
                k: relevance[k] - (between[k, before].mean() if before else 0.0)
                for k in range(4)
                if k not in before
            }
            if max(merit, key=merit.__getitem__) != one:
                return False
        return True

    (right,) = [order for order in permutations(range(4)) if greedy(order)]
    assert mrmr(features, outcome, 4) == right
    assert mrmr(features, outcome, 2) == right[:2]


def test_mutual_information_follows_the_correlation():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    y = np.array([2.0, 1.0, 4.0, 3.0])  # rho = 0.6
    assert mutual_information(x[:, None], y[:, None])[0, 0] == pytest.approx(-0.5 * np.log(1 - 0.36))


def test_a_constant_column_is_no_feature():
    with pytest.raises(CohortUnusable, match="vary"):
        mrmr(np.array([[1.0, 7.3], [2.0, 7.3], [3.0, 7.3]]), np.array([0.0, 1.0, 1.0]), 2)


def test_a_rate_of_nothing_is_not_a_number():
    nobody = Counts(true_positive=0, false_negative=0, false_positive=1, true_negative=4)
    assert nobody.sensitivity.value is None
    assert nobody.sensitivity.interval95 is None
    assert nobody.specificity.value == 0.8


def test_youden_takes_the_best_cut_and_at_least_counts_as_positive():
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([False, False, True, False, True])
    assert youden_cutoff(scores, labels) == 3.0
    assert counts_at(scores, labels, 3.0).true_positive == 2


def test_auc_of_two_equal_scores_cannot_differ():
    labels = np.array([True, False, True, False, True])
    scores = np.array([3.0, 1.0, 2.0, 2.5, 4.0])
    found = compare(scores, scores * 2 + 1, labels)
    assert (found.difference, found.z, found.p) == (0.0, 0.0, 1.0)


def test_wholly_separated_classes_have_no_interval_and_no_test():
    """DeLong's variance is 0 there: a few patients would seem to prove an AUC of 1."""
    labels = np.array([True, True, False, False])
    best, worst = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert auc(best, labels).interval95 is None
    assert auc(best, labels).summary == "1.000 (no interval: no variance)"
    found = compare(best, worst, labels)
    assert (found.difference, found.z, found.p) == (1.0, None, None)


def test_the_roc_curve_spans_the_square_and_encloses_the_auc():
    rng = np.random.default_rng(1)
    labels = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + labels, 1)  # with ties
    curve = roc_curve(scores, labels)
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0.0, 0.0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1.0, 1.0)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(auc(scores, labels).value)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([1.0, 2.0, 3.0], [True, True, False]), ([1.0, np.nan, 3.0, 4.0], [True, True, False, False])],
)
def test_auc_needs_both_classes_and_every_score(scores, labels):
    with pytest.raises(CohortUnusable):
        auc(np.array(scores), np.array(labels))


def test_net_benefit_by_hand():
    found = decision_curve(
        np.array([0.9, 0.4, 0.3, 0.1]), np.array([True, False, True, False]), np.array([0.25])
    )
    assert found.model == pytest.approx([2 / 4 - 1 / 4 / 3])
    assert found.treat_all == pytest.approx([0.5 - 0.5 / 3])


def test_subgroups_are_the_comparisons_of_the_paper_each_with_its_own_patients():
    classes = np.array(["normal"] * 2 + ["osteopenia"] * 3 + ["osteoporosis"] * 2)
    scores = np.array([1.0, 4.0, 2.0, 3.0, 5.0, 3.5, 6.0])
    found = {
        pair: (one.value, one.positives, one.negatives)
        for pair, one in subgroup_aucs(scores, classes).items()
    }
    assert found == {
        ("osteoporosis", "osteopenia"): (pytest.approx(5 / 6), 2, 3),
        ("osteoporosis", "normal"): (pytest.approx(3 / 4), 2, 2),
        ("osteoporosis or osteopenia", "normal"): (pytest.approx(7 / 10), 5, 2),
        ("osteopenia", "normal"): (pytest.approx(4 / 6), 3, 2),
    }
    assert ("osteoporosis", "normal") not in subgroup_aucs(scores[1:], classes[1:])  # one with normal bone


def test_separated_classes_have_no_odds_ratio():
    x = np.arange(10.0)[:, None]
    with pytest.raises(FitImpossible, match="separate"):
        fit_logistic(x, x[:, 0] > 4, ("age",))


@pytest.mark.parametrize("second", [np.full(12, 3.0), np.arange(12.0) * 2])
def test_columns_that_say_nothing_new_are_refused(second):
    x = np.column_stack([np.arange(12.0), second])
    with pytest.raises(FitImpossible):
        fit_logistic(x, np.arange(12) % 3 == 0, ("age", "twice"))


def test_lasso_of_one_class_is_refused():
    with pytest.raises(CohortUnusable, match="class"):
        fit_path(np.arange(6.0)[:, None], np.ones(6, bool), np.array([0.1]))


def test_risks_of_nought_or_one_have_no_chi_squared():
    """One such patient of the other class would make it any large number."""
    labels, rest = np.arange(30) % 2 == 0, np.linspace(0.2, 0.8, 20)
    for saturated in (np.geomspace(1e-20, 1e-16, 10), 1 - np.arange(1, 11) * 4e-16):
        with pytest.raises(CohortUnusable, match="0 or 1"):
            hosmer_lemeshow(np.concatenate([saturated, rest]), labels, development=False)


@pytest.mark.parametrize(
    ("p", "told"), [(0.8556, "= 0.856"), (0.001, "= 0.001"), (0.00099, "< 0.001"), (6.5e-19, "< 0.001")]
)
def test_a_p_value_is_never_told_as_nought(p, told):
    assert HosmerLemeshow(statistic=1.0, degrees_of_freedom=8, p=p, groups=()).p_text == told


def test_probabilities_out_of_range_are_not_judged():
    with pytest.raises(CohortUnusable):
        hosmer_lemeshow(np.array([0.1, 1.2, 0.4]), np.array([True, False, True]), development=False)
