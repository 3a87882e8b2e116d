"""The acceptance test of docs/phantoms.md: a European Spine Phantom through the whole pipeline."""

from __future__ import annotations

import pytest

from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from tests.e2e.in_process import Run, unchecked


def test_the_pipeline_measures_a_european_spine_phantom_to_1_mg_cm3(tmp_path):
    truth = write_reference_study(
        tmp_path,
        StudySpec.reduced(
            european_spine_phantom=True,
            phantom="qrm-bdc-6",
            slice_thickness_mm=1.0,
            slice_spacing_mm=1.0,
        ),
    )
    settings = unchecked(
        calibration={"phantom": "qrm-bdc-6"},
        # Flat ends are no motion, and three densities in one phantom no disease.
        segmentation={
            "image": {"motion_mm": 1000.0},
            "quality": {"lesions": {"unlike_hu": 1000.0}},
        },
    )
    result = Run(tmp_path, tmp_path / "truth_mask.nii.gz", settings=settings, files=False).result
    for name, level in truth.levels.items():
        assert result["levels"][name]["bmd_mg_cm3"] == pytest.approx(level.bmd_mg_cm3, abs=1.0)
