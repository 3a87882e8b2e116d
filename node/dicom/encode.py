"""A report in DICOM: every object that goes back to the PACS, checked before anyone may send it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from config.phrases import Phrasebook
from node.dicom.conformance import check_object
from node.dicom.ct.reading import LoadedSeries
from node.dicom.ct.single_slices import DrawnSlice
from node.dicom.result_headers import identity_source, require_study
from node.dicom.sc import Picture, encode_pictures
from node.dicom.sc.answer_page import draw_answer, draw_refusal
from node.dicom.sc.calibration_page import draw_fit
from node.dicom.sc.images import draw_overlay, draw_slices
from node.dicom.sc.layout import LATIN, Typeface
from node.dicom.sc.nomogram_page import draw_nomogram
from node.dicom.seg import Segment, encode_segmentation, plan_segments, with_rods
from node.dicom.sr.document import encode_sr
from node.study_report import EncodedObject, Outcome, Report
from segmentation.vertebrae import Regions, Vertebrae


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedReport:
    """What a report looks like outside the node."""

    objects: tuple[EncodedObject, ...]  # SEG (where something was measured), SR, pictures: in sending order
    pictures: tuple[Picture, ...]  # the same pages as arrays


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
    """The pages of a report: one for a refusal; else the answer, the nomogram, the overlay and the fit."""
    if report.outcome is Outcome.REFUSED:
        return (
            Picture(name="refusal", title="QCT not measured", pixels=draw_refusal(report, typeface, say=say)),
        )
    pages = [
        Picture(name="answer", title="QCT bone density", pixels=draw_answer(report, typeface, say=say)),
        Picture(name="nomogram", title="Nomogram", pixels=draw_nomogram(report, typeface, say=say)),
    ]
    if series is not None and vertebrae is not None:
        pixels = draw_overlay(report, series.volume, vertebrae, regions, typeface, say=say)
        pages.append(Picture(name="overlay", title="Measured regions", pixels=pixels))
    if series is not None and report.calibration is not None and report.calibration.rods:
        pixels = draw_fit(report, series.volume, typeface, say=say)
        pages.append(Picture(name="calibration", title="Calibration", pixels=pixels))
    if slices:
        pixels = draw_slices(report, slices, typeface, say=say)
        pages.append(Picture(name="overlay", title="Measured slices", pixels=pixels))
    return tuple(pages)


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
    series, vertebrae, regions : what was measured; without them there is no segmentation and no overlay.
    slices : in their place where single slices were measured. Their regions stand in the structured report,
        as outlines on the source images; there is no segmentation object.
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
