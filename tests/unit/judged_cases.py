"""What a density is judged by, with nothing wrong: a series, a study, a calibration and a level."""

from __future__ import annotations

from datetime import date

from config.catalog import load_model_card
from node.study_report import LevelResult, SeriesFacts, StudyIdentity
from scoring.calibration import Calibration, Grade, LineUncertainty, Mineral
from scoring.density.bmd import BmdResult
from segmentation.vertebrae import RegionKind

CARD = load_model_card("demonstration")[0]
SERIES = SeriesFacts(
    series_instance_uid="1.2.3",
    instances=100,
    kvp=CARD.applicability.kvp[0],
    slice_thickness_mm=1.0,
    slice_spacing_mm=CARD.applicability.slice_spacing_mm[0],
    pixel_spacing_mm=(CARD.applicability.pixel_spacing_mm[0],) * 2,
    kernel="B40",
    manufacturer="",
    model="",
    device_serial="",
    contrast_agent="",
    lossy=False,
)
STUDY = StudyIdentity(
    study_instance_uid="1.2",
    patient_id="1",
    issuer_of_patient_id="",
    accession_number="",
    study_date=date(2024, 5, 1),
    birth_date=None,
    age_years=67,
    sex="F",
)


def calibration(
    equivalent: Mineral = Mineral.K2HPO4, grade: Grade = Grade.PHANTOM, *, uncertainty_mg_cm3: float = 0.0
) -> Calibration:
    """One mg/cm3 for each HU, uncertain by the same amount everywhere."""
    return Calibration(
        method="least-squares",
        phantom="made for this test",
        equivalent=equivalent,
        slope=1.0,
        intercept=0.0,
        r2=None,
        max_residual_hu=None,
        rods=(),
        grade=grade,
        uncertainty=LineUncertainty(pivot_hu=0.0, bmd_mg_cm3=uncertainty_mg_cm3, slope=0.0),
    )


def level(name: str, bmd: float, error_hu: float = 0.0, region: RegionKind = RegionKind.CORE) -> LevelResult:
    return LevelResult(
        name=name,
        complete=True,
        centroid_mm=(0.0, 0.0, 0.0),
        volume_mm3=40_000.0,
        measured=BmdResult(
            level=name,
            hu_mean=bmd,
            hu_sd=30.0,
            voxels=1000,
            roi_volume_mm3=5000.0,
            bmd_mg_cm3=bmd,
            bmd_uncertainty_mg_cm3=error_hu,
            hu_standard_error=error_hu,
            region=region,
        ),
    )
