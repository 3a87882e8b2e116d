"""Report: judge the measurements, encode SEG, SR and pictures, and keep them for sending."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from config.phrases import load_phrases
from config.vocabulary import wide_font
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.single_slices import DrawnSlice
from node.dicom.encode import draw_pictures, encode_report
from node.dicom.sc import Picture
from node.dicom.sc.layout import Typeface
from node.pipeline.artefacts import (
    MEASUREMENTS,
    REPORT,
    RESULT,
    SEGMENTATION,
    SLICES,
    TIMINGS,
    SegmentationArtefact,
    from_json,
    segmentation_from_bytes,
    slices_from_bytes,
    store_objects,
    to_json,
)
from node.pipeline.context import PROCEED, StepContext, StepResult
from node.pipeline.steps.judge import (
    Judgement,
    basis_of,
    compare_and_keep,
    judge_study,
    provenance_of,
    scan_of,
)
from node.pipeline.steps.score import Measurements, slice_finder
from node.pipeline.steps.selection import SelectionArtefact, load_chosen, load_slices, selection_of
from node.result_document import ResultDocument
from node.study_report import Outcome, Report
from scoring.density.follow_up import FollowUp, follow_up_observations
from segmentation.vertebrae import EngineInfo

NOMOGRAM_PNG = "nomogram.png"
OVERLAY_PNG = "overlay.png"
CALIBRATION_PNG = "calibration.png"


def report(context: StepContext) -> StepResult:
    """Write the report, its DICOM objects (where identity allows), `result.json` and pictures."""
    selection = selection_of(context)
    segmentation = _segmentation(context)
    slices = _slices(context, selection)
    by_slices = slice_finder(context.settings.segmentation).info if slices else None
    engine = by_slices or (segmentation.vertebrae.engine if segmentation else None)
    composed = compose(context, selection, engine)
    context.artefacts.put(REPORT, to_json(composed))
    pictures = _encode(context, selection, segmentation, slices, composed)
    for name, content in _png_files(pictures).items():
        context.artefacts.put(name, content)
    timings = json.loads(context.artefacts.get(TIMINGS)) if TIMINGS in context.artefacts.names() else {}
    context.artefacts.put(RESULT, ResultDocument.of(composed, timings).to_text().encode())
    return PROCEED


def _segmentation(context: StepContext) -> SegmentationArtefact | None:
    if SEGMENTATION not in context.artefacts.names():
        return None
    return segmentation_from_bytes(context.artefacts.get(SEGMENTATION))


def _slices(context: StepContext, selection: SelectionArtefact) -> tuple[DrawnSlice, ...]:
    """The single slices with what was found in them; none where a volume is measured."""
    loaded = load_slices(context, selection)
    if not loaded:
        return ()
    shown = slices_from_bytes(context.artefacts.get(SLICES))
    return tuple(
        DrawnSlice(name=one.name, series=series, body=one.shown.body, region=one.shown.region)
        for one, series in zip(shown, loaded, strict=True)
    )


def compose(context: StepContext, selection: SelectionArtefact, engine: EngineInfo | None) -> Report:
    """What is reported of the kept measurements: nothing that a finding withholds."""
    measurements = from_json(Measurements, context.artefacts.get(MEASUREMENTS))
    basis, study = basis_of(context.settings), selection.study
    laboratory, judgement = judge_study(context, selection, measurements, basis)
    since = _follow_up(context, selection, measurements, judgement, engine)
    changed = follow_up_observations(since) if since else ()
    issue = context.issue()
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
        provenance=provenance_of(context.settings, basis, engine, context.begun_again),
        unnamed=judgement.unnamed,
        predecessor_uid=issue.predecessor_uid,
        predecessor_issued_at=issue.predecessor_issued_at,
        predecessor_class_uid=issue.predecessor_class_uid,
        amendment_reason=issue.amendment_reason,
        follow_up=since,
        completeness=context.completeness,
    )


def _follow_up(
    context: StepContext,
    selection: SelectionArtefact,
    measurements: Measurements,
    judgement: Judgement,
    engine: EngineInfo | None,
) -> FollowUp | None:
    """Change since an earlier study; None where nothing is remembered, or nothing can be compared later.

    Of a study without such a density nothing stays remembered from an earlier generation either.
    """
    if context.patients is None:
        return None
    series, calibration, study = selection.series, measurements.calibration, selection.study
    scan = None
    if study.patient_id and series is not None and calibration is not None and engine is not None:
        scan = scan_of(
            judgement,
            study=study,
            series=series,
            calibration=calibration,
            engine=engine,
            settings=context.settings,
        )
    if scan is None:
        context.patients.forget(study.study_instance_uid)
        return None
    return compare_and_keep(context.patients, scan, study, context.settings)


def _encode(
    context: StepContext,
    selection: SelectionArtefact,
    segmentation: SegmentationArtefact | None,
    slices: tuple[DrawnSlice, ...],
    composed: Report,
) -> tuple[Picture, ...]:
    """Make and keep the DICOM objects; without an identity there are pictures alone."""
    loaded = load_chosen(context, selection)
    about: Mapping[str, Any] = {
        "series": loaded,
        "vertebrae": segmentation.vertebrae if segmentation else None,
        "regions": segmentation.regions if segmentation else (),
        "slices": slices,
        "typeface": Typeface(wide=wide_font(context.settings.node)),
        "say": load_phrases(composed.language, context.settings.node.site_folder),
    }
    if not selection.study.study_instance_uid or not selection.study.patient_id:
        store_objects(context.artefacts, ())
        return draw_pictures(composed, **about)
    if loaded is not None:
        headers = loaded.headers
    elif slices:
        headers = tuple(one.series.headers[0] for one in slices)
    else:
        series = group_series(read_headers(context.instances))
        headers = tuple(instance.header for one in series for instance in one.instances)
    encoded = encode_report(composed, headers, **about)
    store_objects(context.artefacts, encoded.objects)
    return encoded.pictures


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
