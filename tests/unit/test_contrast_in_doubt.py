"""Where a header leaves contrast open the vessels decide, and where none is read it counts as given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.phrases import in_english
from node.pipeline.steps.select import contrast_in_doubt, contrast_in_headers
from node.reference.spec import Faults
from segmentation.ct_volume import CtVolume
from segmentation.settings import ImageSettings
from tests.unit.judged_cases import SERIES
from tests.unit.reference_images import study

OPEN = replace(SERIES, contrast_agent="see protocol", contrast_doubtful=True)


def test_vessels_that_cannot_be_read_leave_the_doubt() -> None:
    volume, vertebrae = study(view=("L3", "L3"))
    fat = CtVolume(hu=volume.hu.clip(-1024, -100), grid=volume.grid)
    (found,) = contrast_in_doubt(fat, vertebrae, OPEN, ImageSettings())
    assert found.code == "contrast_doubtful"
    assert found.values["words"] == "see protocol"
    assert in_english(found.values["reason"]) == "the great vessels could not be measured"


@pytest.mark.parametrize(("enhanced", "code"), [(False, "contrast_not_seen"), (True, "contrast_doubtful")])
def test_vessels_that_are_read_settle_it(enhanced: bool, code: str) -> None:
    volume, vertebrae = study(Faults(contrast=enhanced), view=("L3", "L3"))
    (found,) = contrast_in_doubt(volume, vertebrae, OPEN, ImageSettings())
    assert found.code == code


def test_nothing_is_asked_of_the_vessels_where_headers_are_clear() -> None:
    volume, vertebrae = study(view=("L3", "L3"))
    for clear in (SERIES, replace(SERIES, contrast_agent="Iohexol")):
        assert contrast_in_doubt(volume, vertebrae, clear, ImageSettings()) == ()


def test_single_slices_show_no_vessel_along_its_course_so_that_doubt_counts_there() -> None:
    assert contrast_in_headers(OPEN) == ()
    (found,) = contrast_in_headers(replace(OPEN, slice_spacing_mm=None))
    assert found.code == "contrast_doubtful"
