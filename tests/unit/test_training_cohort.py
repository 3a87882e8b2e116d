"""What a table of patients may say, and what is refused by name."""

from __future__ import annotations

import pytest

from node.research.cohort_tables import read_rows
from scoring.density.bmd import StudyClass
from scoring.errors import CohortUnusable
from scoring.training.cohort import LabelKind, Split, read_cohort

ROW = {
    "patient": "a",
    "t_score": "-2.7",
    "age": "71",
    "sex": "F",
    "alp_u_l": "88",
    "homocysteine_umol_l": "14.2",
}


def table(*changes: dict[str, str]) -> list[dict[str, str]]:
    return [ROW | {"patient": f"p{number}"} | change for number, change in enumerate(changes)]


@pytest.mark.parametrize(
    ("t_score", "label"),
    [("-2.5", StudyClass.OSTEOPOROSIS), ("-2.49", StudyClass.OSTEOPENIA), ("-1", StudyClass.NORMAL)],
)
def test_a_t_score_becomes_the_class_of_the_papers_rule(t_score, label):
    found = read_cohort(table({"t_score": t_score}))
    assert found.label_kind is LabelKind.BY_T_SCORE
    assert found.patients[0].label is label


def test_a_stated_label_is_taken_as_it_is():
    row = {name: cell for name, cell in ROW.items() if name != "t_score"} | {"label": "osteopenia"}
    found = read_cohort([row])
    assert found.label_kind is LabelKind.STATED
    assert found.patients[0].label is StudyClass.OSTEOPENIA


def test_missing_values_are_counted_and_more_than_three_exclude():
    gaps = dict.fromkeys(("sex", "age", "alp_u_l"), "")
    found = read_cohort(table({}, gaps, gaps | {"homocysteine_umol_l": ""}))
    assert [one.name for one in found.patients] == ["p0", "p1"]
    assert found.excluded == {"p2": "4 values missing"}
    assert found.missing == {"sex": 2, "age": 2, "alp_u_l": 2, "homocysteine_umol_l": 1}


def test_further_columns_are_variables_that_enter_no_model():
    found = read_cohort(table({"calcium_mmol_l": "2.3"}))
    assert found.variables == ("age", "alp_u_l", "homocysteine_umol_l", "calcium_mmol_l")
    assert found.patients[0].values["calcium_mmol_l"] == 2.3


def test_a_split_and_folds_of_the_sites_own_are_kept():
    found = read_cohort(table({"split": "train", "fold": "2"}, {"split": "test", "fold": ""}))
    assert [(one.split, one.fold) for one in found.patients] == [(Split.TRAIN, 2), (Split.TEST, None)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], "no patients"),
        ([{"age": "7x"}], "p0: age is not a number: '7x'"),
        ([{"age": "nan"}], "p0: age is not a number: 'nan'"),
        ([{"age": "6_6"}], "p0: age is not a number: '6_6'"),
        ([{"age": "1e999"}], "p0: age is not a number: '1e999'"),
        ([{"t_score": "-31"}], "p0: t_score -31 is not between -10 and 10"),
        ([{"fold": "1_0"}], "fold must be a whole number, not '1_0'"),
        ([{"alp_u_l": "3"}], "p0: alp_u_l 3 is not between 5 and 2000"),
        ([{"calcium_mmol_l": "8.1"}], "p0: calcium_mmol_l 8.1 is not between 0.5 and 5"),
        ([{"sex": "W"}], "p0: sex must be M or F"),
        ([{"t_score": ""}], "p0: t_score is empty"),
        ([{"patient": "p1"}, {}], "p1: occurs twice"),
        ([{"patient": ""}], "a patient without a name: patient is empty"),
        ([{"label": "normal"}], "exactly one of the columns"),
        (
            [{"split": "train"}, {"split": ""}],
            "split must be given for every patient or for none; 1 ",
        ),
        ([{"split": "both"}], "split must be train or test"),
        ([{"fold": "1"}, {"fold": ""}], "fold must be given for every patient or for none"),
        ([{"fold": "one"}], "fold must be a whole number"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_by_name(changes, told):
    with pytest.raises(CohortUnusable, match=told):
        read_cohort(table(*changes))


def test_every_problem_is_told_at_once():
    with pytest.raises(CohortUnusable, match=r"p0: age.*p1: sex"):
        read_cohort(table({"age": "x"}, {"sex": "x"}))


def test_a_missing_column_is_named():
    with pytest.raises(CohortUnusable, match="missing columns: sex, homocysteine_umol_l"):
        read_cohort([{"patient": "a", "label": "normal", "age": "60", "alp_u_l": "70"}])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patient,age\np1,61,5\np2,62\n", "line 2 has 3 cells for 2 columns"),
        ("patient,age\np1,61\np2\n", "line 3 has 1 cells for 2 columns"),
        ("patient,age,age\np1,61,62\n", "a column name occurs twice"),
        ('patient,age\np1,"61\np2,62\n', "the quotation marks of line 2 do not match"),
    ],
)
def test_a_table_with_a_row_that_does_not_fit_its_head_is_refused(tmp_path, text, told):
    (tmp_path / "cohort.csv").write_text(text, "utf-8")
    with pytest.raises(CohortUnusable, match=told):
        read_rows(tmp_path / "cohort.csv")
