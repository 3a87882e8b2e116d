"""Report: judge the measurements, and encode SEG, SR and pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from pydicom import Dataset

from config.phrases import load_phrases, wide_font
from config.settings import Settings
from node.dicom.ct.slice_reading import DrawnSlice
from node.dicom.encode import draw_pictures, encode_report
from node.dicom.sc import Picture
from node.dicom.sc.layout import Typeface
from node.pipeline.artefacts import (
    CALIBRATION_PNG,
    NOMOGRAM_PNG,
    OVERLAY_PNG,
    NamedSlice,
    Segmentation,
    SelectionArtefact,
)
from node.pipeline.ports import Issue, PatientHistory
from node.pipeline.steps.judge import (
    ReportedResults,
    compare_and_keep,
    judge_study,
    load_reporting_rules,
    provenance_of,
    scan_of,
)
from node.pipeline.steps.score import Measurements, slice_finder
from node.pipeline.study_run import ChosenImages
from node.study_report import Completeness, EncodedObject, Laboratory, Outcome, Report
from scoring.density.follow_up import FollowUp, follow_up_observations
from segmentation.vertebrae import EngineInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Files made from a report."""

    objects: tuple[EncodedObject, ...]  # in the order they are sent; none without an identity
    png_files: Mapping[str, bytes]  # by file name


def compose(
    selection: SelectionArtefact,
    segmentation: Segmentation,
    measurements: Measurements,
    settings: Settings,
    *,
    issue: Issue,
    laboratory: Laboratory,
    patients: PatientHistory | None = None,
    completeness: Completeness | None = None,
    begun_again: str | None = None,
) -> Report:
    """Report on the measurements, without the outputs that a finding withholds.

    Parameters
    ----------
    laboratory : values of this patient that count for this study.
    patients : earlier studies to compare with, and where this one is kept; None where nothing is remembered.
    completeness : what an archive has of this study; None where nothing was waited for.
    begun_again : why the study's first steps were done twice.
    """
    basis, study = load_reporting_rules(settings), selection.study
    engine = _engine_of(segmentation, settings)
    judgement = judge_study(selection, measurements, laboratory, basis)
    since = None
    if patients is not None:
        since = _follow_up(patients, selection, measurements, judgement, engine=engine, settings=settings)
    changed = follow_up_observations(since) if since else ()
    return Report(
        outcome=Outcome.REPORTED if judgement.measured else Outcome.REFUSED,
        issued_at=issue.issued_at,
        language=basis.language,
        study=study,
        series=selection.series,
        rejected=selection.rejected,
        levels=judgement.levels,
        numbering_confirmed=measurements.numbering_confirmed,
        numbering_basis=measurements.numbering_basis,
        calibration=measurements.calibration if judgement.calibrated else None,
        reference=basis.reference if judgement.t_score or judgement.z_score else None,
        t_score=judgement.t_score,
        z_score=judgement.z_score,
        study_class=judgement.study_class,
        density=judgement.density,
        features=judgement.features,
        rad_score=judgement.rad_score,
        nomogram=judgement.nomogram,
        laboratory=laboratory,
        findings=(
            *judgement.findings,
            *(basis.table.describe(one, basis.language) for one in changed),
        ),
        provenance=provenance_of(settings, basis, engine, begun_again),
        unnamed=judgement.unnamed,
        predecessor_uid=issue.predecessor_uid,
        predecessor_issued_at=issue.predecessor_issued_at,
        predecessor_class_uid=issue.predecessor_class_uid,
        amendment_reason=issue.amendment_reason,
        follow_up=since,
        completeness=completeness,
    )


def _engine_of(segmentation: Segmentation, settings: Settings) -> EngineInfo | None:
    if segmentation.slices:
        return slice_finder(settings.segmentation).info
    return segmentation.volume.vertebrae.engine if segmentation.volume else None


def _follow_up(
    patients: PatientHistory,
    selection: SelectionArtefact,
    measurements: Measurements,
    judgement: ReportedResults,
    *,
    engine: EngineInfo | None,
    settings: Settings,
) -> FollowUp | None:
    """Change since an earlier study; None where nothing can be compared later.

    Of a study without such a density nothing stays remembered from an earlier generation either.
    """
    series, calibration, study = selection.series, measurements.calibration, selection.study
    scan = None
    if study.patient_id and series is not None and calibration is not None and engine is not None:
        scan = scan_of(
            judgement, study=study, series=series, calibration=calibration, engine=engine, settings=settings
        )
    if scan is None:
        patients.forget(study.study_instance_uid)
        return None
    return compare_and_keep(patients, scan, study, settings)


def encode(
    report: Report,
    images: ChosenImages,
    segmentation: Segmentation,
    settings: Settings,
    *,
    headers: Sequence[Dataset],
) -> ReportFiles:
    """Encode a report as DICOM objects and pictures; without an identity there are pictures alone.

    Parameters
    ----------
    images : that were measured; nothing in a refusal.
    segmentation : of `images`.
    headers : of the images that the objects refer to and copy the identity from.
    """
    volume = segmentation.volume
    vertebrae = volume.vertebrae if volume else None
    regions = volume.regions if volume else ()
    slices = _drawn_slices(images, segmentation.slices)
    typeface = Typeface(wide=wide_font(settings.node))
    say = load_phrases(report.language, settings.node.site_folder)
    study = report.study
    objects: tuple[EncodedObject, ...] = ()
    if study.study_instance_uid and study.patient_id:
        encoded = encode_report(
            report,
            headers,
            series=images.volume,
            vertebrae=vertebrae,
            regions=regions,
            slices=slices,
            typeface=typeface,
            say=say,
        )
        objects, pictures = encoded.objects, encoded.pictures
    else:
        pictures = draw_pictures(
            report,
            series=images.volume,
            vertebrae=vertebrae,
            regions=regions,
            slices=slices,
            typeface=typeface,
            say=say,
        )
    return ReportFiles(objects=objects, png_files=_png_files(pictures))


def _drawn_slices(images: ChosenImages, found: Sequence[NamedSlice]) -> tuple[DrawnSlice, ...]:
    """Single slices with their segmentation; empty where a volume is measured."""
    if not images.slices:
        return ()
    return tuple(
        DrawnSlice(name=one.name, series=series, body=one.shown.body, region=one.shown.region)
        for one, series in zip(found, images.slices, strict=True)
    )


def _png_files(pictures: tuple[Picture, ...]) -> dict[str, bytes]:
    """The nomogram's page (of a refusal, its only page), overlay and calibration, as files to look at."""
    by_name = {picture.name: picture for picture in pictures}
    files = {}
    for file_name, candidates in (
        (NOMOGRAM_PNG, ("nomogram", "refusal")),
        (OVERLAY_PNG, ("overlay",)),
        (CALIBRATION_PNG, ("calibration",)),
    ):
        page = next((by_name[name] for name in candidates if name in by_name), None)
        if page is not None:
            buffer = io.BytesIO()
            Image.fromarray(page.pixels).save(buffer, "PNG")
            files[file_name] = buffer.getvalue()
    return files
