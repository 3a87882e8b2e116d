"""Phantom readings, and studies that show a phantom, of one scanner."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np

from config.catalog import configured_phantoms
from config.settings import load_settings
from node.pipeline.artefacts import SelectionArtefact
from node.pipeline.steps.calibrate import reading_of, technique_of
from node.study_report import SeriesFacts, StudyIdentity
from scoring.calibration import Calibration, Mineral, RodReading
from scoring.calibration.control_charts import Protocol, ScannerReading
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import Grid
from segmentation.vertebrae import EngineInfo, Observation, Vertebrae

_GRID = Grid(
    shape=(1, 1, 1),
    spacing_mm=(1.0, 1.0, 1.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
NO_IMAGE = Vertebrae(
    grid=_GRID,
    bodies=np.zeros(_GRID.shape, np.uint8),
    levels=(),
    numbering_confirmed=False,
    numbering_basis="none",
    engine=EngineInfo(name="none", version="", model_free=True),
)
PROTOCOL = Protocol(device_serial="S/1", kvp=120.0, kernel="B40", phantom="siemens-osteo", phantom_serial="")
SERIES = SeriesFacts(
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
    contrast_agent="",
    lossy=False,
)


MODELS = configured_phantoms(load_settings())


def reading(number: int, **changes) -> ScannerReading:
    return replace(
        ScannerReading(
            protocol=PROTOCOL,
            model="Scanner",
            taken_on=date(2024, 1, 1) + timedelta(days=number),
            slope=0.8 + (0.002 if number % 2 else -0.002),
            intercept=0.4,
            water_hu=1.0 if number % 2 else -1.0,
            r2=None,
            tilt_degrees=0.5,
            technique=technique_of(SERIES),
            equivalent=Mineral.HA,
        ),
        **changes,
    )


def selection(study_uid: str, **series) -> SelectionArtefact:
    return SelectionArtefact(
        study=StudyIdentity(
            study_instance_uid=study_uid,
            patient_id="P",
            issuer_of_patient_id="",
            accession_number="",
            study_date=date(2024, 3, 1),
            birth_date=None,
            age_years=60,
            sex="F",
        ),
        series=replace(SERIES, **series),
        rejected=(),
        phantom=PhantomReading(model="siemens-osteo", tilt_degrees=0.7),
        observations=(),
    )


def phantom(*, slope: float = 0.8, water_hu: float = 1.5, codes: tuple[str, ...] = ()) -> PhantomReading:
    """A water rod and one of 200 mg/cm3 on a line of that slope, and what was said against them."""
    rods = ((0.0, water_hu), (200.0, water_hu + 200.0 / slope))
    return PhantomReading(
        model="siemens-osteo",
        rods=tuple(
            RodReading(
                name=f"{density:g}",
                density_mg_cm3=density,
                hu_mean=hu,
                hu_sd=10.0,
                voxels=1000,
                axis_points_mm=(),
            )
            for density, hu in rods
        ),
        tilt_degrees=0.7,
        observations=tuple(Observation(code=code) for code in codes),
    )


def read(shown: PhantomReading | None = None, *, study_uid: str = "1.2", **series) -> ScannerReading | None:
    """The reading of a study that shows a phantom as configured."""
    chosen = selection(study_uid, **series)
    found = phantom() if shown is None else shown
    return reading_of(chosen.study, chosen.series, found, MODELS.get(found.model))


def calibration() -> Calibration:
    return Calibration(
        method="two-point",
        phantom="siemens-osteo",
        equivalent=Mineral.HA,
        slope=0.8,
        intercept=-1.6,
        r2=None,
        max_residual_hu=None,
        rods=(),
        phantom_sha256=MODELS["siemens-osteo"].sha256,
    )
