"""Rounded positions still make the even stack that they are; what rounding does not explain is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from node.dicom.ct.slice_geometry import stack_slices
from node.dicom.errors import SeriesUnusable, Unusable

pytestmark = pytest.mark.slow

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.984808, 0.173648)  # 10 degrees


def _headers(depths_mm, cosines=AXIAL, decimals: int = 1) -> list[Dataset]:
    """Slices at these depths along the normal, their positions written with some decimals."""
    normal = np.cross(cosines[:3], cosines[3:])
    made = []
    for depth in depths_mm:
        header = Dataset()
        header.Rows, header.Columns, header.PixelSpacing = 4, 5, [1.0, 1.0]
        header.ImageOrientationPatient = list(cosines)
        place = np.array([-120.3, 33.7, 0.0]) + depth * normal
        header.ImagePositionPatient = [f"{value:.{decimals}f}" for value in place]
        made.append(header)
    return made


def _refusal(headers) -> SeriesUnusable:
    with pytest.raises(SeriesUnusable) as caught:
        stack_slices(headers)
    return caught.value


@pytest.mark.parametrize("cosines", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("step_mm", [0.625, 0.67, 0.75, 1.25, 2.5])
def test_positions_rounded_to_a_tenth_make_the_even_stack(step_mm, cosines):
    stack = stack_slices(_headers(-240 + step_mm * np.arange(200), cosines))
    assert stack.order == tuple(range(200))
    assert stack.grid.spacing_mm[0] == pytest.approx(
        step_mm, abs=0.12 / 199
    )  # digits of two axes, if oblique


@settings(max_examples=40, deadline=None)
@given(step_mm=st.floats(0.5, 6), start=st.floats(-900, 900), count=st.integers(5, 60))
def test_any_even_stack_survives_rounding(step_mm, start, count):
    stack = stack_slices(_headers(start + step_mm * np.arange(count)))
    assert stack.grid.spacing_mm[0] == pytest.approx(step_mm, abs=0.1 / (count - 1) + 1e-9)


@settings(max_examples=40, deadline=None)
@given(step_mm=st.floats(0.5, 6), start=st.floats(-900, 900), missing=st.integers(1, 38))
def test_a_missing_slice_is_named_among_rounded_positions(step_mm, start, missing):
    depths = start + step_mm * np.arange(40)
    refusal = _refusal(_headers(np.delete(depths, missing)))
    assert refusal.reason is Unusable.SLICE_GAP
    before = float(_headers([depths[missing - 1]])[0].ImagePositionPatient[2])
    assert f"missing after {before:.1f} mm" in str(refusal)


@pytest.mark.parametrize("off_mm", [0.3, -0.4])
def test_a_slice_displaced_by_more_than_rounding_is_named(off_mm):
    depths = -240 + 1.25 * np.arange(100)
    depths[40] += off_mm
    refusal = _refusal(_headers(depths))
    assert refusal.reason is Unusable.SPACING_VARIES
    assert f"at {depths[40]:.1f} mm" in str(refusal)


def test_a_doubled_slice_is_named_among_rounded_positions():
    depths = -240 + 1.25 * np.arange(100)
    refusal = _refusal(_headers([*depths, depths[30]]))
    assert refusal.reason is Unusable.DUPLICATE_POSITIONS
    assert f"different images at {depths[30]:.1f} mm" in str(refusal)


def test_exact_positions_are_held_to_more_than_rounded_ones():
    """A slice 0.08 mm off in a stack of 1.25 mm is none of rounding where all others are written exactly."""
    depths = -240 + 1.25 * np.arange(100)
    depths[40] += 0.08
    refusal = _refusal(_headers(depths, decimals=4))
    assert refusal.reason is Unusable.SPACING_VARIES


def test_a_step_that_changes_along_the_stack_is_refused_though_each_step_is_near_the_median():
    """A hundred slices 1.00 mm apart, then a hundred 1.02 mm apart: half a slice off in the middle."""
    depths = np.concatenate([np.arange(100) * 1.0, 100 + np.arange(100) * 1.02])
    assert _refusal(_headers(depths, decimals=4)).reason is Unusable.SPACING_VARIES
