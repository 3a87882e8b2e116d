"""The pages of a report as they are composed, so that their words can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from node.dicom.sc.answer_page import compose_answer, compose_refusal
from node.dicom.sc.calibration_page import compose_fit
from node.dicom.sc.images import compose_overlay
from node.dicom.sc.layout import LATIN, Box, Page, Typeface
from node.dicom.sc.nomogram_page import compose_nomogram
from node.study_report import Outcome, Report
from scoring.calibration import Calibration, Mineral
from scoring.calibration.methods import calibrate


def pages_of(study: Any, report: Report, typeface: Typeface = LATIN) -> dict[str, Page]:
    """Every page by the name of its picture."""
    if report.outcome is Outcome.REFUSED:
        return {"refusal": compose_refusal(report, typeface)}
    return {
        "answer": compose_answer(report, typeface),
        "nomogram": compose_nomogram(report, typeface),
        "overlay": compose_overlay(report, study.series.volume, study.vertebrae, study.regions, typeface),
        "calibration": compose_fit(report, study.series.volume, typeface),
    }


@cache
def boxes_of(page: Page) -> Sequence[tuple[str, Box]]:
    """Every text of a finished page and where its ink lies, measured once."""
    return page.text_boxes()


def words_of_page(page: Page) -> str:
    """All that is written on it, in the order it was written."""
    return " ".join(text for text, _ in boxes_of(page))


def six_rods(calibration: Calibration) -> Calibration:
    """A row of six, the densest two of which do not determine the line; one is 2.4 HU off it."""
    first, _ = calibration.rods
    names = ("water", "HA 100", "HA 200", "HA 400", "HA 600", "HA 800")
    rods = tuple(
        replace(
            first,
            name=name,
            density_mg_cm3=density,
            hu_mean=4.0 + density * 1.29 + (2.4 if name == "HA 200" else 0.0),
            axis_points_mm=tuple((34.0 * place - 85.0, 98.0, z) for z in (-60.0, 0.0, 60.0)),
        )
        for place, (name, density) in enumerate(
            zip(names, (0.0, 100.0, 200.0, 400.0, 600.0, 800.0), strict=True)
        )
    )
    return calibrate(method="least-squares", phantom="QRM", equivalent=Mineral.HA, rods=rods)
