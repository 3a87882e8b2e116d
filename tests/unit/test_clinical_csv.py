"""Laboratory values by CSV: matched, dated, never guessed."""

from __future__ import annotations

from datetime import date

import pytest
from structlog.testing import capture_logs

from config.phrases import in_english
from node.clinical import CsvLaboratory
from node.study_report import Laboratory

HEADER = "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\n"


@pytest.fixture
def lookup(tmp_path):
    def write(rows: str, header: str = HEADER):
        path = tmp_path / "lab.csv"
        path.write_text(header + rows, "utf-8")
        return CsvLaboratory(path, max_age_days=180)

    return write


def problems(found: Laboratory) -> list[str]:
    return [in_english(one) for one in found.problems]


def test_the_value_nearest_to_the_study_counts_each_analyte_by_itself(lookup):
    source = lookup("P1,,2026-01-01,80,\nP1,,2026-02-20,95,\nP1,,2026-03-20,99,14.5\n")
    found = source.laboratory("P1", "", "2026-03-01")
    assert (found.alp_u_l, found.alp_taken_on) == (95, date(2026, 2, 20))
    assert (found.homocysteine_umol_l, found.homocysteine_taken_on) == (14.5, date(2026, 3, 20))


def test_a_value_out_of_time_is_missing(lookup):
    assert lookup("P1,,2025-01-01,80,12\n").laboratory("P1", "", "2026-03-01").alp_u_l is None


def test_another_patient_or_another_issuer_is_not_this_patient(lookup):
    source = lookup("P2,,2026-03-01,80,12\nP1,HOSPITAL_B,2026-03-01,81,13\n")
    assert source.laboratory("P1", "HOSPITAL_A", "2026-03-01").alp_u_l is None
    assert source.laboratory("P1", "HOSPITAL_B", "2026-03-01").alp_u_l == 81
    assert source.laboratory("P", "", "2026-03-01").alp_u_l is None


@pytest.mark.parametrize("cell", ["abc", "nan", "inf", "8,0", "8_0", "٨٠"])
def test_what_is_no_number_is_told_and_not_used(lookup, cell):
    found = lookup(f'P1,,2026-03-01,"{cell}",12\n').laboratory("P1", "", "2026-03-01")
    assert found.alp_u_l is None
    assert found.homocysteine_umol_l == 12
    assert problems(found) == ["line 2: alp_u_l is not a number"]


NOT_USED = "the row is ignored"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("P1,,2026-03-01,92,5,16.5", "line 2 has 6 cells for 5 columns"),
        ("P1,,2026-03-01,92,16,9", "line 2 has 6 cells for 5 columns"),
        ("P1,,2026-03-01,92,5,16,9", "line 2 has 7 cells for 5 columns"),
        ("P1,,2026-03-01,1,050,16.5", "line 2 has 6 cells for 5 columns"),
        ("P1,,2026-03-01,92", "line 2 has 4 cells for 5 columns"),
        ('P1,,2026-03-01,"92,16.5', "the quotation marks of line 2 do not match"),
        ('P1,,2026-03-01,"9"2,16.5', "the quotation marks of line 2 do not match"),
    ],
)
def test_a_row_that_does_not_fit_the_head_is_told_and_not_used(lookup, row, told):
    """A decimal comma, a sign for thousands, a cell left out: what follows stands under other columns."""
    found = lookup(f"{row}\n").laboratory("P1", "", "2026-03-01")
    assert (found.alp_u_l, found.homocysteine_umol_l) == (None, None)
    assert problems(found) == [f"{told}; {NOT_USED}"]


def test_a_shifted_row_ends_in_no_column_without_a_name(lookup):
    """Spreadsheets leave commas behind their last column: there a decimal comma's row would fit."""
    head = HEADER.replace("\n", ",\n")
    source = lookup("P1,,2026-03-01,92,5,16.5\nP2,,2026-03-01,92.5,16.5,\nP3,,2026-03-01,93.5,17.5\n", head)
    found = source.laboratory("P1", "", "2026-03-01")
    assert found.alp_u_l is None
    assert problems(found) == [f"line 2 continues beyond the last named column; {NOT_USED}"]
    assert source.laboratory("P2", "", "2026-03-01").homocysteine_umol_l == 16.5
    assert source.laboratory("P3", "", "2026-03-01").homocysteine_umol_l == 17.5


def test_a_row_that_a_quotation_mark_swallowed_is_told_to_whomever_it_belongs(lookup):
    source = lookup(
        'P1,,2026-03-01,"92,16.5\nP2,,2026-03-01,81,12\nP3,,2026-03-01,70,"11"\nP4,,2026-03-01,60,10\n'
    )
    for patient in ("P1", "P2", "P3"):
        found = source.laboratory(patient, "", "2026-03-01")
        assert found.alp_u_l is None, patient
        assert problems(found) == [f"the quotation marks of line 2 do not match; {NOT_USED}"]
    assert source.laboratory("P4", "", "2026-03-01").alp_u_l == 60


def test_a_row_of_another_patient_that_does_not_fit_is_logged_by_line_without_whose_it_is(lookup):
    source = lookup("P1,,2026-03-01,80,12\nP2-SECRET,,2026-03-01,92,5,16.5\n")
    with capture_logs() as logged:
        found = source.laboratory("P1", "", "2026-03-01")
    assert (found.alp_u_l, found.problems) == (80, ())
    assert logged == [
        {"event": "laboratory_rows_not_used", "log_level": "warning", "rows": 1, "lines": [3]},
    ]


@pytest.mark.parametrize("head", ["patient_id,issuer,date,alp_u_l,homocysteine_umol_l,alp_u_l\n"])
def test_a_file_that_names_a_column_twice_gives_no_value(lookup, head):
    found = lookup("P1,,2026-03-01,150,16.5,41\n", head).laboratory("P1", "", "2026-03-01")
    assert (found.alp_u_l, found.homocysteine_umol_l) == (None, None)
    assert problems(found) == ["a column name occurs twice"]


def test_a_file_separated_by_semicolons_is_told(lookup):
    found = lookup("P1;;2026-03-01;80;12\n", HEADER.replace(",", ";")).laboratory("P1", "", "2026-03-01")
    assert problems(found) == ["columns are separated by ';' instead of commas"]


def test_a_bad_date_is_told(lookup):
    found = lookup("P1,,01.03.2026,80,12\n").laboratory("P1", "", "2026-03-01")
    assert found.alp_u_l is None
    assert problems(found) == ["line 2: the date is not YYYY-MM-DD"]


def test_a_file_without_its_columns_is_told(lookup):
    found = lookup("P1,80\n", header="patient_id,alp\n").laboratory("P1", "", "2026-03-01")
    assert problems(found) == ["the file lacks the columns issuer, date, alp_u_l, homocysteine_umol_l"]


def test_a_missing_file_is_told(tmp_path):
    found = CsvLaboratory(tmp_path / "none.csv", max_age_days=180).laboratory("P1", "", "2026-03-01")
    assert problems(found) == ["the file cannot be read (FileNotFoundError)"]


def test_a_study_without_date_matches_nothing(lookup):
    assert lookup("P1,,2026-03-01,80,12\n").laboratory("P1", "", None).alp_u_l is None


def test_a_byte_order_mark_and_spaces_do_not_hide_a_patient(tmp_path):
    (tmp_path / "lab.csv").write_text(f"{HEADER}P1, , 2026-03-01, 80, 12\n", "utf-8-sig")
    found = CsvLaboratory(tmp_path / "lab.csv", max_age_days=1).laboratory("P1", "X", "2026-03-01")
    assert (found.alp_u_l, found.homocysteine_umol_l) == (80, 12)
