"""The nomogram on a monitor that a page fills, 30 cm high, read from 70 cm: are its signs large enough?

ISO 9241-303 asks for capitals of 16 minutes of arc at least, and recommends 20 to 22.
"""

from __future__ import annotations

from math import atan, degrees

import pytest
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from node.dicom.sc.layout import DPI, FOOTER_RULE, HEIGHT
from node.dicom.sc.nomogram_page import compose_nomogram
from scoring.models.card import NomogramResult

PAGE_MM, DISTANCE_MM = 300.0, 700.0
LEAST_ARCMIN, COMFORTABLE_ARCMIN = 16.0, 20.0


def capital_arcmin(text: Text) -> float:
    """The visual angle of a capital of this text."""
    points = TextPath((0, 0), "H", prop=text.get_fontproperties()).get_extents().height
    return 60 * degrees(atan(points * DPI / 72 * PAGE_MM / HEIGHT / DISTANCE_MM))


@pytest.fixture(scope="module")
def angles(study) -> dict[str, float]:
    """Text above the footer -> visual angle."""
    texts = [one for one in compose_nomogram(study.report).figure.findobj(Text) if one.get_text()]
    above = [one for one in texts if one.get_position()[1] > 1 - FOOTER_RULE / HEIGHT]
    return {one.get_text(): capital_arcmin(one) for one in above}


def test_every_word_of_the_nomogram_can_be_read_at_arms_length(angles):
    assert len(angles) > 30
    assert {words: angle for words, angle in angles.items() if angle < LEAST_ARCMIN} == {}


def test_this_patients_numbers_can_be_read_with_ease(study, angles):
    nomogram: NomogramResult = study.report.nomogram
    numbers = [f"{one.points:.1f}" for one in nomogram.inputs]
    numbers += [f"{nomogram.total_points:.1f}", f"{100 * nomogram.probability:.0f} %"]
    assert len(numbers) == 6
    assert min(angles[one] for one in numbers) >= COMFORTABLE_ARCMIN
