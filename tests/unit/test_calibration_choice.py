"""When a study may be calibrated by something other than the phantom in its image."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest

from config.phrases import in_english
from config.settings import Settings, load_settings
from node.pipeline.artefacts import SelectionArtefact
from node.pipeline.ports import ScannerHistory
from node.pipeline.steps.calibrate import StudyCalibration, calibrate_study
from node.study_report import SeriesFacts, StudyIdentity
from scoring.calibration.control_charts import ScannerReading
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import CtVolume, Grid
from segmentation.vertebrae import EngineInfo, Observation, Vertebrae

AXIAL = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
ALLOWED = load_settings(calibration={"asynchronous": {"enabled": True}})


class Untouched:
    """A history that must not be asked."""

    def keep(self, study_instance_uid: str, source_uid: str, reading: ScannerReading) -> None:
        raise AssertionError("nothing is kept here")

    def forget(self, source_uid: str) -> None:
        raise AssertionError("nothing is forgotten here")

    def readings(self, device_serial: str) -> Sequence[ScannerReading]:
        raise AssertionError("an earlier scan was asked for")


NOT_ASKED = Untouched()


def selection(reading: PhantomReading, contrast_agent: str) -> SelectionArtefact:
    return SelectionArtefact(
        study=StudyIdentity(
            study_instance_uid="1.2",
            patient_id="P",
            issuer_of_patient_id="",
            accession_number="",
            study_date=date(2026, 3, 1),
            birth_date=None,
            age_years=60,
            sex="F",
        ),
        series=SeriesFacts(
            series_instance_uid="1.2.3",
            instances=100,
            kvp=120.0,
            slice_thickness_mm=1.0,
            slice_spacing_mm=1.0,
            pixel_spacing_mm=(0.5, 0.5),
            kernel="B40",
            manufacturer="Maker",
            model="Scanner",
            device_serial="S/1",
            contrast_agent=contrast_agent,
            lossy=False,
        ),
        rejected=(),
        phantom=reading,
        observations=(),
    )


def calibrated(
    reading: PhantomReading,
    settings: Settings,
    *,
    history: ScannerHistory | None = NOT_ASKED,
    contrast_agent: str = "",
) -> StudyCalibration:
    grid = Grid(shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=AXIAL)
    nothing = Vertebrae(
        grid=grid,
        bodies=np.zeros(grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=EngineInfo(name="none", version="", model_free=True),
    )
    return calibrate_study(
        CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid),
        nothing,
        selection(reading, contrast_agent),
        {},
        settings=settings,
        history=history,
    )


@pytest.mark.parametrize(
    "code",
    [
        "phantom_truncated",
        "phantom_ambiguous",
        "phantom_unrecognised",
        "rod_order",
        "rod_off",
        "water_rod_off",
        "rod_uneven",
        "phantom_tilted",
        "calibration_drift",
    ],
)
def test_a_phantom_in_view_that_failed_is_not_replaced_by_an_earlier_one(code):
    reading = PhantomReading(model="siemens-osteo", observations=(Observation(code=code),))
    found = calibrated(reading, ALLOWED)
    assert found.used is None
    assert [one.code for one in found.observations] == [code]


def test_nothing_is_asked_for_until_a_site_allows_it():
    reading = PhantomReading(model="", observations=(Observation(code="phantom_not_found"),))
    found = calibrated(reading, load_settings())
    assert [one.code for one in found.observations] == ["phantom_not_found"]


def test_what_remembers_nothing_lends_nothing_and_says_so():
    reading = PhantomReading(model="", observations=(Observation(code="phantom_not_found"),))
    found = calibrated(reading, ALLOWED, history=None)
    assert [one.code for one in found.observations] == ["phantom_not_found", "asynchronous_missing"]
    assert in_english(found.observations[1].values["reason"]) == "only a running node keeps earlier scans"


def test_documented_contrast_medium_refuses_internal_calibration():
    reading = PhantomReading(model="", observations=(Observation(code="phantom_not_found"),))
    internal = load_settings(calibration={"method": "internal"})
    found = calibrated(reading, internal, contrast_agent="iodinated")
    (said,) = found.observations
    assert (said.code, in_english(said.values["reason"])) == (
        "internal_impossible",
        "contrast medium is documented",
    )


def test_internal_calibration_takes_the_place_of_the_phantoms_refusals_and_never_of_its_own():
    reading = PhantomReading(model="", observations=(Observation(code="phantom_not_found"),))
    found = calibrated(reading, load_settings(calibration={"method": "internal"}))
    assert found.used is None
    (said,) = found.observations
    assert (said.code, in_english(said.values["reason"])) == (
        "internal_impossible",
        "too little of air, adipose, blood, muscle was found",
    )
