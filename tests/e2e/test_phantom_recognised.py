"""A phantom that is recognised, doubted, or calibrated by its own certificate, from DICOM to the report."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from node.study_report import ObjectKind
from tests.e2e.in_process import Run, unchecked

CERTIFICATE = """
model = "b-mas-200"
serial = "S17"
source = "made for this test"
rods = [
    {name = "water", density_mg_cm3 = 0.0},
    {name = "HA 50", density_mg_cm3 = 51.0},
    {name = "HA 100", density_mg_cm3 = 102.0},
    {name = "HA 150", density_mg_cm3 = 153.0},
    {name = "HA 200", density_mg_cm3 = 204.0},
]
"""


@pytest.fixture(scope="module")
def b_mas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("b-mas")
    return folder, write_reference_study(folder, StudySpec.reduced(phantom="b-mas-200"))


def test_a_recognised_phantom_calibrates_and_stands_in_the_report(b_mas):
    folder, truth = b_mas
    result = Run(
        folder, folder / "truth_mask.nii.gz", settings=unchecked(calibration={"phantom": "auto"})
    ).result
    assert result["calibration"]["phantom"] == "b-mas-200"
    assert result["calibration"]["phantom_serial"] is None
    assert len(result["calibration"]["phantom_sha256"]) == 64
    assert result["levels"]["L3"]["bmd_mg_cm3"] == pytest.approx(truth.levels["L3"].bmd_mg_cm3, abs=2.0)


def test_a_phantom_that_may_be_one_of_two_gives_no_density(tmp_path):
    write_reference_study(tmp_path, StudySpec.reduced(phantom="intable"))
    mask = tmp_path / "truth_mask.nii.gz"
    doubted = Run(tmp_path, mask, settings=unchecked(calibration={"phantom": "auto"}), files=False).result
    assert "phantom_ambiguous" in [one["code"] for one in doubted["findings"]]
    assert doubted["calibration"] is None
    assert {level["bmd_mg_cm3"] for level in doubted["levels"].values()} == {None}
    owned = {"phantom": "auto", "candidates": ["intable", "siemens-osteo"]}
    decided = Run(tmp_path, mask, settings=unchecked(calibration=owned), files=False).result
    assert decided["calibration"]["phantom"] == "intable"


def test_a_serial_numbers_certificate_scales_density_and_is_named(b_mas, tmp_path):
    folder, truth = b_mas
    (tmp_path / "phantoms").mkdir()
    (tmp_path / "phantoms" / "b-mas-200.S17.toml").write_text(CERTIFICATE, "utf-8")
    settings = unchecked(node={"site": str(tmp_path)}, calibration={"phantom": "b-mas-200", "serial": "S17"})
    run = Run(folder, folder / "truth_mask.nii.gz", settings=settings)
    expected = 1.02 * truth.levels["L3"].bmd_mg_cm3
    assert run.result["levels"]["L3"]["bmd_mg_cm3"] == pytest.approx(expected, abs=2.0)
    assert run.result["calibration"]["phantom_serial"] == "S17"
    (report,) = (one for one in run.objects if one.kind is ObjectKind.STRUCTURED_REPORT)
    assert "S17" in str(dcmread(BytesIO(report.content)))
