"""config/findings.toml: words, severities and consequences."""

from __future__ import annotations

from string import Formatter

import pytest

from config.findings import (
    FOLLOWS,
    Output,
    Severity,
    UnknownFinding,
    load_findings,
    parse_findings,
    withheld,
)
from segmentation.observation import Observation

TABLE = load_findings()


@pytest.mark.parametrize("code", sorted(TABLE.rows))
def test_a_row_withholds_what_cannot_stand_without_what_it_withholds(code):
    row = TABLE.rows[code]
    for output in row.withholds:
        assert FOLLOWS.get(output, frozenset()) <= row.withholds, output


@pytest.mark.parametrize("code", sorted(TABLE.rows))
def test_a_row_names_its_hazard_and_reads_as_a_sentence(code):
    row = TABLE.rows[code]
    assert row.hazard.endswith(".")
    assert row.text["en"].rstrip().endswith((".", "}"))


def test_a_refusal_withholds_density():
    refusals = [row for row in TABLE.rows.values() if row.severity is Severity.REFUSAL]
    assert refusals
    assert all(Output.BMD in row.withholds for row in refusals)


def test_an_observation_fills_its_text():
    finding = TABLE.describe(Observation(code="water_rod_off", values={"hu": 31, "limit": 15}))
    assert finding.text == "The water rod reads 31 HU (limit 15 HU): density cannot be given."
    assert not any(field for _, field, _, _ in Formatter().parse(finding.text) if field)


def test_an_unknown_code_is_an_error_not_a_silence():
    with pytest.raises(UnknownFinding):
        TABLE.describe(Observation(code="no_such_code"))


def test_a_finding_at_one_level_withholds_there_alone():
    finding = TABLE.describe(Observation(code="body_truncated", level="L5"))
    assert withheld([finding], Output.BMD, ["L5"])
    assert not withheld([finding], Output.BMD, ["L3"])


def test_a_finding_about_the_study_withholds_everywhere():
    finding = TABLE.describe(Observation(code="phantom_not_found", values={"phantom": "x"}))
    assert withheld([finding], Output.BMD, ["L3"])
    assert not withheld([finding], Output.VOLUME, ["L3"])


def test_a_site_may_reword_a_row_but_not_invent_an_output(tmp_path):
    row = 'severity = "info"\nwithholds = []\nhazard = "None."\ntext.en = "Ours."\n'
    (tmp_path / "findings.toml").write_text(f"[not_dxa]\n{row}", "utf-8")
    assert load_findings(tmp_path).rows["not_dxa"].text["en"] == "Ours."
    with pytest.raises(ValueError, match="dose"):
        parse_findings('[x]\nseverity = "info"\nwithholds = ["dose"]\nhazard = "h."\ntext.en = "t."\n')
