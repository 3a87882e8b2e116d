"""Rods are read wherever a phantom lies, and what lies beside it is not taken for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from config.catalog import load_phantom
from node.reference.attenuation import EFFECTIVE_KEV, HA, hu_per_mg
from scoring.phantoms.rod_reading import calibrate_from_reading, find_rods
from tests.unit.phantom_scans import Scan, drawn

pytestmark = pytest.mark.slow

PER_MG = hu_per_mg(HA, EFFECTIVE_KEV[120])


def density_error(scan: Scan, at_mg_cm3: float) -> tuple[list[str], float | None]:
    """What is said of the phantom, and how far the calibration is off at one density."""
    model = load_phantom(scan.phantom)[0]
    calibration, noticed = calibrate_from_reading(find_rods(drawn(scan), model), model, float(scan.kvp))
    error = None if calibration is None else calibration.bmd(at_mg_cm3 * PER_MG) - at_mg_cm3
    return [one.code for one in noticed], error


@pytest.mark.parametrize("name", ["siemens-osteo", "qrm-bdc-6", "b-mas-200", "intable"])
@pytest.mark.parametrize(
    "place",
    [
        {"bed": "mat"},
        {"bed": "mat", "aside_mm": (12.0, -20.0), "tilt_degrees": 3.0},
        {"bed": "table"},
        {"bed": "table", "tubes": True, "turn_degrees": 2.0},
    ],
    ids=["under a mat", "aside", "in the table", "beside tubes"],
)
def test_rods_are_read_under_a_mat_in_the_table_and_beside_lines_of_contrast_medium(name, place):
    noticed, error = density_error(Scan(phantom=name, **place), 100.0)
    assert noticed == []
    assert error == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("name", ["siemens-osteo", "qrm-bdc-3", "b-mas-200", "intable"])
def test_light_streaks_of_metal_shift_density_by_little_and_strong_ones_are_noticed(name):
    """Between the two lies a limit that docs/phantoms.md states: 30 HU may cost 5 mg/cm3 unnoticed."""
    noticed, error = density_error(Scan(phantom=name, bed="mat", streaks_hu=8.0), 100.0)
    assert noticed == []
    assert error == pytest.approx(0.0, abs=1.5)
    for streaks_hu in (60.0, 120.0):
        noticed, _ = density_error(Scan(phantom=name, bed="mat", streaks_hu=streaks_hu), 100.0)
        assert noticed


@pytest.mark.parametrize("blank_hu", [-1024.0, 0.0, 36.0])
def test_blank_slices_within_the_phantom_are_refused_or_left_out(blank_hu):
    volume = drawn(Scan(phantom="siemens-osteo", kvp=120))
    hu = volume.hu.copy()
    hu[10:20] = blank_hu
    reading = find_rods(replace(volume, hu=hu), load_phantom("siemens-osteo")[0])
    if not reading.observations:  # what is read must not be of the blank
        assert reading.rods[0].hu_mean == pytest.approx(0.0, abs=2.0)
        assert reading.rods[1].hu_mean == pytest.approx(200.0 * PER_MG, abs=4.0)


@pytest.mark.parametrize("name", ["siemens-osteo", "qrm-bdc-3", "image-analysis-g2730", "mindways-3"])
@pytest.mark.parametrize("shift", ["step", "ramp", "none"])
def test_an_offset_that_changes_along_the_phantom_is_seen_by_all_rods(name, shift):
    volume = drawn(Scan(phantom=name, kvp=120))
    along = np.linspace(-1.0, 1.0, len(volume.hu))
    offset_hu = {"step": 12.0 * np.sign(along), "ramp": 12.0 * along, "none": 0.0 * along}[shift]
    hu = (volume.hu + offset_hu[:, None, None]).astype(np.float32)
    reading = find_rods(replace(volume, hu=hu), load_phantom(name)[0])
    assert ("water_rod_drift" in [one.code for one in reading.observations]) is (shift != "none")
