"""Laboratory values by CSV: matched, dated, never guessed."""

from __future__ import annotations

from datetime import date

import pytest

from node.clinical.csv import CsvLaboratory

HEADER = "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\n"


@pytest.fixture
def lookup(tmp_path):
    def write(rows: str, header: str = HEADER):
        path = tmp_path / "lab.csv"
        path.write_text(header + rows, "utf-8")
        return CsvLaboratory(path, max_age_days=180)

    return write


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
    assert found.problems == ("line 2: alp_u_l is not a number",)


def test_a_bad_date_is_told(lookup):
    found = lookup("P1,,01.03.2026,80,12\n").laboratory("P1", "", "2026-03-01")
    assert found.alp_u_l is None
    assert found.problems == ("line 2: date is not YYYY-MM-DD",)


def test_a_file_without_its_columns_is_told(lookup):
    found = lookup("P1,80\n", header="patient_id,alp\n").laboratory("P1", "", "2026-03-01")
    assert found.problems == ("the file lacks the columns issuer, date, alp_u_l, homocysteine_umol_l",)


def test_a_missing_file_is_told(tmp_path):
    found = CsvLaboratory(tmp_path / "none.csv", max_age_days=180).laboratory("P1", "", "2026-03-01")
    assert found.problems == ("the file cannot be read (FileNotFoundError)",)


def test_a_study_without_date_matches_nothing(lookup):
    assert lookup("P1,,2026-03-01,80,12\n").laboratory("P1", "", None).alp_u_l is None


def test_a_byte_order_mark_and_spaces_do_not_hide_a_patient(tmp_path):
    (tmp_path / "lab.csv").write_text(f"{HEADER}P1, , 2026-03-01, 80, 12\n", "utf-8-sig")
    found = CsvLaboratory(tmp_path / "lab.csv", max_age_days=1).laboratory("P1", "X", "2026-03-01")
    assert (found.alp_u_l, found.homocysteine_umol_l) == (80, 12)
