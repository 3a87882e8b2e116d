"""On which day, and when on it, a phantom was scanned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from config.catalog import configured_phantoms
from config.settings import load_settings
from node.pipeline.steps.calibrate import calibrate_study, record_scanner_readings
from node.store.files import ReceivedInstance
from node.store.store import Store
from scoring.calibration import Calibration
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import CtVolume
from segmentation.vertebrae import Observation
from tests.worker.scanner_cases import NO_IMAGE, read, selection


@pytest.fixture
def study_uid(store: Store, make_instance: Callable[..., ReceivedInstance]) -> str:
    instance = make_instance()
    store.instances.receive(instance)
    return instance.study_instance_uid


@pytest.mark.parametrize(
    ("acquired", "day", "time"),
    [
        (date(2024, 3, 1), date(2024, 3, 1), "000500"),
        (date(2024, 3, 2), date(2024, 3, 2), "000500"),  # the study began before midnight
        (None, date(2024, 3, 1), ""),
        (date(2024, 2, 29), date(2024, 3, 1), ""),
        (date(2024, 3, 3), date(2024, 3, 1), ""),
    ],
)
def test_a_reading_is_of_the_day_of_its_images_and_a_time_without_its_day_tells_nothing(acquired, day, time):
    found = read(acquisition_date=acquired, acquisition_time="000500")
    assert (found.taken_on, found.taken_at) == (day, time)


def test_a_phantom_scanned_past_midnight_is_not_lent_to_a_patient_of_the_day_before(
    store: Store, study_uid: str
):
    settings = load_settings(calibration={"asynchronous": {"enabled": True}})
    (model,) = configured_phantoms(settings).values()
    technique = {"energy": "single", "table_height_mm": 150.0, "field_of_view_mm": 400.0}
    past_midnight = {"acquisition_date": date(2024, 3, 2), "acquisition_time": "000500"}
    record_scanner_readings(
        store.scanners,
        study_uid,
        {"1.2.3": read(study_uid=study_uid, **technique, **past_midnight)},
        settings,
    )
    unseen = (Observation(code="phantom_not_found", values={"phantom": ""}),)
    nothing = CtVolume(hu=np.zeros((1, 1, 1), np.float32), grid=NO_IMAGE.grid)

    def used(day: int, time: str) -> Calibration | None:
        bare = selection("9.9", acquisition_date=date(2024, 3, day), acquisition_time=time, **technique)
        bare = replace(bare, phantom=PhantomReading(model=model.name, observations=unseen))
        return calibrate_study(
            nothing, NO_IMAGE, bare, {model.name: model}, settings=settings, history=store.scanners
        ).used

    assert used(1, "100000") is None
    assert used(2, "000100") is None
    assert used(2, "001000") is not None
