"""A report in DICOM: every object that goes back to the PACS, encoded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from config.phrases import Phrasebook
from node.dicom.conformance import check_object
from node.dicom.ct.reading import LoadedSeries
from node.dicom.ct.slice_reading import DrawnSlice
from node.dicom.result_headers import identity_source, require_study
from node.dicom.sc import Picture, encode_pictures
from node.dicom.sc.answer_page import compose_answer, compose_refusal
from node.dicom.sc.calibration_page import compose_fit
from node.dicom.sc.images import compose_overlay, compose_slices
from node.dicom.sc.layout import LATIN, Page, Typeface
from node.dicom.sc.nomogram_page import compose_nomogram
from node.dicom.seg import Segment, encode_segmentation, plan_segments, with_rods
from node.dicom.sr.document import encode_sr
from node.study_report import EncodedObject, Outcome, Report
from segmentation.vertebrae import Regions, Vertebrae


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedReport:
    """A report as DICOM objects and as pictures.

    Attributes
    ----------
    objects : SEG (where something was measured), SR, pictures: in sending order.
    pictures : the same pages as arrays.
    """

    objects: tuple[EncodedObject, ...]
    pictures: tuple[Picture, ...]


def draw_pictures(
    report: Report,
    series: LoadedSeries | None,
    vertebrae: Vertebrae | None,
    regions: Sequence[Regions],
    slices: Sequence[DrawnSlice] = (),
    *,
    typeface: Typeface = LATIN,
    say: Phrasebook | None = None,
) -> tuple[Picture, ...]:
    """The pages of a report: one for a refusal; else the answer, the nomogram, the overlay and the fit.

    Parameters
    ----------
    series, vertebrae, regions : of the measured volume; without them there is no overlay, and without
        `series` no fit.
    slices : of single-slice QCT, drawn in place of the overlay.
    say : the phrases; by default the shipped ones in the report's language.
    """
    if report.outcome is Outcome.REFUSED:
        return (_picture("refusal", "QCT not measured", compose_refusal(report, typeface, say=say)),)
    pictures = [
        _picture("answer", "QCT bone density", compose_answer(report, typeface, say=say)),
        _picture("nomogram", "Nomogram", compose_nomogram(report, typeface, say=say)),
    ]
    if series is not None and vertebrae is not None:
        page = compose_overlay(report, series.volume, vertebrae, regions, typeface, say=say)
        pictures.append(_picture("overlay", "Measured regions", page))
    if series is not None and report.calibration is not None and report.calibration.rods:
        page = compose_fit(report, series.volume, typeface, say=say)
        pictures.append(_picture("calibration", "Calibration", page))
    if slices:
        page = compose_slices(report, slices, typeface, say=say)
        pictures.append(_picture("overlay", "Measured slices", page))
    return tuple(pictures)


def _picture(name: str, title: str, page: Page) -> Picture:
    return Picture(name=name, title=title, pixels=page.pixels())


def encode_report(
    report: Report,
    source_headers: Sequence[Dataset],
    *,
    series: LoadedSeries | None = None,
    vertebrae: Vertebrae | None = None,
    regions: Sequence[Regions] = (),
    slices: Sequence[DrawnSlice] = (),
    typeface: Typeface = LATIN,
    say: Phrasebook | None = None,
) -> EncodedReport:
    """Encode and check everything that goes back.

    Parameters
    ----------
    source_headers : of the images that the report rests on or refuses; the first gives the identity.
    series, vertebrae, regions : of what was measured; without them there is no segmentation and no overlay.
    slices : in their place where single slices were measured. Their regions are in the structured report, as
        outlines on the source images; there is no segmentation object.
    typeface : of the pictures.
    say : the phrases of the pictures; by default the shipped ones in the report's language.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    ObjectInvalid, SegmentationMismatch
        If a finished object breaks a rule: it must not be sent.
    """
    require_study(source_headers[0])
    pictures = draw_pictures(report, series, vertebrae, regions, slices, typeface=typeface, say=say)
    objects: list[EncodedObject] = []
    segments: tuple[Segment, ...] = ()
    seg: EncodedObject | None = None
    if report.outcome is Outcome.REPORTED and series is not None and vertebrae is not None:
        segments = with_rods(report, series.volume.grid, plan_segments(report, vertebrae, regions))
        if segments:
            seg = encode_segmentation(report, series, segments)
            objects.append(seg)
    objects.append(encode_sr(report, source_headers, seg=seg, segments=segments, slices=slices))
    objects.extend(encode_pictures(report, identity_source(source_headers), pictures))
    for encoded in objects:
        check_object(encoded.content)
    return EncodedReport(objects=tuple(objects), pictures=pictures)
