"""A volume may be as short as selection accepts, and lie anywhere: that is an answer, not a fault."""

from __future__ import annotations

import numpy as np
import pytest

from segmentation.ct_volume import CtVolume
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.geometric.canal import Canal
from segmentation.engines.geometric.column import BODY_OFFSET_MM, body_curve
from tests.unit.reference_images import study

pytestmark = pytest.mark.slow

STRIDE_MM = 15.0  # less than half a vertebra's pitch: windows end in bodies, discs and endplates


@pytest.fixture(scope="module")
def spine() -> CtVolume:
    """From T12 to the sacrum, as little beside it as the engine needs."""
    volume, _ = study(view=("T12", "S1"))
    return volume


def window(volume: CtVolume, first: int, count: int) -> CtVolume:
    box = (slice(first, first + count), *(slice(0, size) for size in volume.grid.shape[1:]))
    return CtVolume(hu=np.ascontiguousarray(volume.hu[box]), grid=volume.grid.part(box))


@pytest.mark.parametrize("height_mm", [30.0, 36.0, 42.0])
def test_a_short_window_gives_levels_or_says_that_there_are_none(spine: CtVolume, height_mm: float) -> None:
    step_mm = spine.grid.spacing_mm[0]
    count = round(height_mm / step_mm) + 1
    for first in range(0, spine.grid.shape[0] - count, round(STRIDE_MM / step_mm)):
        found = GeometricEngine().segment(window(spine, first, count))
        codes = [one.code for one in found.observations]
        assert bool(found.levels) != (codes == ["no_lumbar_level"]), first


def upright(height_mm: int) -> Canal:
    points = np.array([[z, 100.0, 50.0] for z in range(height_mm + 1)])
    return Canal(points_mm=points, enclosure=np.ones(len(points)))


def test_a_canal_shorter_than_the_end_of_a_line_still_has_bodies_before_it() -> None:
    """20 mm of canal in a volume of 30 mm: the line goes straight on to the volume's top."""
    curve = body_curve(upright(20), 30.0)
    assert curve is not None
    assert curve.length == pytest.approx(30, abs=3)
    assert curve.centre_mm[:, 1] == pytest.approx(np.full(curve.length, 100.0 - BODY_OFFSET_MM))


def test_too_little_of_a_canal_has_no_bodies_before_it() -> None:
    assert body_curve(upright(6), 6.0) is None
