"""A second phantom of the configured model before the belly, 8 % brighter: no density, and both are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.study_report import Outcome
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

PHANTOM_MM = (93.0, 131.0)  # y of the reference study's phantom


def add_second_phantom(path: Path, factor: float) -> None:
    """Copy the phantom's rows to the top of the image, denser than -200 HU times a factor."""
    dataset = dcmread(path)
    intercept, step_mm = float(dataset.RescaleIntercept), float(dataset.PixelSpacing[0])
    first_mm = float(dataset.ImagePositionPatient[1])
    hu = dataset.pixel_array.astype(np.float32) + intercept
    rows = slice(*(round((end - first_mm) / step_mm) for end in PHANTOM_MM))
    block = np.where(hu[rows] > -200, hu[rows] * factor, hu[rows])
    columns = slice(hu.shape[1] // 5, hu.shape[1] * 4 // 5)
    hu[4 : 4 + len(block), columns] = block[:, columns]
    dataset.PixelData = np.clip(np.rint(hu - intercept), 0, 4095).astype(np.uint16).tobytes()
    dcmwrite(path, dataset)


def test_two_phantoms_that_disagree_give_a_refusal_that_tells_both(tmp_path: Path) -> None:
    write_reference_study(tmp_path, StudySpec.reduced(view=("L2", "L4")))
    for path in tmp_path.glob("*.dcm"):
        add_second_phantom(path, 1.08)
    found = Run(tmp_path, tmp_path / "truth_mask.nii.gz", files=False)
    assert found.report.outcome is Outcome.REFUSED
    assert found.report.calibration is None
    assert all(one.measured is None or one.measured.bmd_mg_cm3 is None for one in found.report.levels)
    (told,) = (one.text for one in found.report.findings if one.code == "phantoms_disagree")
    assert "150.0 mg/cm3 HA by the row at x 0, y 11" in told
    assert "138." in told
    assert found.result["calibration"] is None
