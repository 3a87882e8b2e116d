"""Names that are counted from one end of the lumbar spine say so wherever they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from tests.e2e.test_process import Outcome, process
from tests.made_studies import write_reference_study


@pytest.fixture(scope="module")
def by_the_sacrum(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """L2 to S1 in view: the last rib is not."""
    folder: Path = tmp_path_factory.mktemp("notice")
    write_reference_study(folder / "study", StudySpec.reduced(view=("L2", "S1")))
    return process(folder / "study", folder / "out")


def test_names_by_the_sacrum_alone_are_confirmed_and_say_so(by_the_sacrum: Outcome) -> None:
    assert by_the_sacrum.status == 0, by_the_sacrum.printed
    result = by_the_sacrum.result
    assert result["numbering"] == {"confirmed": True, "basis": "sacrum"}
    (told,) = (one for one in result["findings"] if one["code"] == "numbered_by_sacrum_alone")
    assert (told["severity"], told["level"]) == ("info", None)
    assert "off by one" in told["text"]
    assert result["t_score"] is not None  # nothing is withheld on its account


def test_the_structured_report_says_so_too(by_the_sacrum: Outcome) -> None:
    report = dcmread(by_the_sacrum.out / "report.dcm")
    assert "counted from the sacrum only" in report.to_json()
