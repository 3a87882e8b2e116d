"""Rods are read in one thick slice, and the checks that one slice allows still forbid a calibration."""

from __future__ import annotations

import numpy as np
import pytest

from config.catalog import load_phantom
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.study import planes_of, render_planes
from node.reference.surroundings import rods
from scoring.phantoms.rod_reading import find_rods
from segmentation.ct_volume import CtVolume, Grid

pytestmark = pytest.mark.slow


def one_slice(level: str, *, thickness_mm: float = 10.0, **changes: object) -> CtVolume:
    """A tilted slice of the digital reference study, as a volume of its own."""
    spec = StudySpec.one_slice_each(level, **changes)
    spine = build_spine(spec)
    (plane,) = planes_of(spec, spine)
    hu = render_planes(spec, spine, [plane])
    down, normal = tuple(map(float, plane.down)), tuple(map(float, plane.normal))
    x, y, z = map(float, plane.corner_mm)
    return CtVolume(
        hu=hu,
        grid=Grid(
            shape=hu.shape,
            spacing_mm=(thickness_mm, *spec.pixel_spacing_mm),
            origin_mm=(x, y, z),
            direction=(normal, down, (1.0, 0.0, 0.0)),
        ),
    )


@pytest.fixture(scope="module")
def model():
    return load_phantom("siemens-osteo")[0]


def codes(volume: CtVolume, model) -> list[str]:
    return [observation.code for observation in find_rods(volume, model).observations]


@pytest.mark.parametrize("level", ["L1", "L3", "L5"])  # gantry tilted by 12 degrees back to 20 forward
def test_rods_are_read_in_one_slice_however_the_gantry_is_tilted(model, level):
    known = rods(StudySpec.one_slice_each(level))
    reading = find_rods(one_slice(level), model)
    assert reading.observations == ()
    # 6 HU: three standard errors of 240 pixels with a noise of 10 HU that neighbours share.
    assert [rod.hu_mean for rod in reading.rods] == pytest.approx([rod.hu for rod in known], abs=6.0)


def test_one_slice_does_not_show_how_rods_run(model):
    reading = find_rods(one_slice("L2"), model)
    assert reading.tilt_degrees is None
    assert reading.slope_drift_percent is None


def test_a_thin_slice_alone_is_no_phantom(model):
    assert codes(one_slice("L3", thickness_mm=3.0), model) == ["phantom_not_found"]


def test_a_slice_without_phantom_shows_none(model):
    assert codes(one_slice("L3", phantom="none"), model) == ["phantom_not_found"]


def test_an_offset_is_noticed_in_one_slice(model):
    volume = one_slice("L3")
    shifted = CtVolume(hu=volume.hu + np.float32(30.0), grid=volume.grid)
    assert "water_rod_off" in codes(shifted, model)


def test_a_rod_cut_by_the_image_is_noticed_in_one_slice(model):
    volume = one_slice("L3")
    edge = int(np.argmax((volume.hu[0] > 400).any(axis=1) & (np.arange(volume.hu.shape[1]) > 380)))
    box = (slice(0, 1), slice(0, edge + 16), slice(0, volume.hu.shape[2]))  # 12 mm of a rod of 20
    cut = CtVolume(hu=volume.hu[box], grid=volume.grid.part(box))
    reading = find_rods(cut, model)
    assert not reading.usable
    assert reading.observations
