"""What each step loads, does and stores, in the order of `node.pipeline.ports.STEPS`.

The functions that do the work (`select`, `segment`, `score`, `compose`, `encode`) touch no artefact: their
parameters and results say all that they use.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from node.pipeline.artefacts import (
    MEASUREMENTS,
    REPORT,
    RESULT,
    SEGMENTATION,
    SELECTION,
    SLICES,
    TIMINGS,
    Segmentation,
    SelectionArtefact,
    from_json,
    segmentation_from_bytes,
    segmentation_to_bytes,
    slices_from_bytes,
    slices_to_bytes,
    store_objects,
    to_json,
)
from node.pipeline.ports import STEPS, Artefacts, ClinicalValues, Step
from node.pipeline.steps.report import compose, encode
from node.pipeline.steps.score import Measurements, score
from node.pipeline.steps.segment import segment
from node.pipeline.steps.select import select
from node.pipeline.study_run import PROCEED, StepFunction, StepResult, StudyRun, Verdict
from node.result_document import ResultDocument
from node.study_report import Laboratory, StudyIdentity


def run_select(run: StudyRun) -> StepResult:
    """Store `selection.json`, or end the study as not applicable or set aside.

    Returns
    -------
    SET_ASIDE where the study has no patient or study identity, or several.
    """
    chosen = select(run.images, run.settings, arrival=run.arrival, scanners_watched=run.scanners is not None)
    if isinstance(chosen, StepResult):
        return chosen
    run.artefacts.put(SELECTION, to_json(chosen))
    run.images.read_chosen(chosen)  # the next step finds them decoded, and the other headers gone
    if not chosen.is_identified:
        reason = "the study carries no patient or study identity, or more than one"
        return StepResult(verdict=Verdict.SET_ASIDE, reason=reason)
    return PROCEED


def run_segment(run: StudyRun) -> StepResult:
    """Store `segmentation.npz` where a volume is measured, `slices.npz` of single slices, else nothing."""
    selection = load_selection(run.artefacts)
    found = segment(
        selection,
        run.images.read_chosen(selection),
        files=run.images.paths,
        engine=run.engine,
        settings=run.settings.segmentation,
    )
    if found.slices:
        run.artefacts.put(SLICES, slices_to_bytes(found.slices))
    if found.volume is not None:
        run.artefacts.put(SEGMENTATION, segmentation_to_bytes(found.volume))
    return PROCEED


def run_score(run: StudyRun) -> StepResult:
    """Store `measurements.json`, unless a phantom was scanned alone: the study ends then."""
    selection = load_selection(run.artefacts)
    images = run.images.read_chosen(selection)
    segmentation = Segmentation()
    if images.slices:
        segmentation = Segmentation(slices=slices_from_bytes(run.artefacts.get(SLICES)))
    elif images.volume is not None:
        segmentation = Segmentation(volume=segmentation_from_bytes(run.artefacts.get(SEGMENTATION)))
    measured = score(
        selection,
        images,
        segmentation,
        run.settings,
        scanners=run.scanners,
        declared_qct=run.arrival.declared_qct,
    )
    if isinstance(measured, StepResult):
        return measured
    run.artefacts.put(MEASUREMENTS, to_json(measured))
    return PROCEED


def run_report(run: StudyRun) -> StepResult:
    """Store the report, its DICOM objects (where identity allows), pictures and `result.json`."""
    artefacts = run.artefacts
    selection = load_selection(artefacts)
    images = run.images.read_chosen(selection)
    segmentation = load_segmentation(artefacts, selection)
    report = compose(
        selection,
        segmentation,
        from_json(Measurements, artefacts.get(MEASUREMENTS)),
        run.settings,
        issue=run.issue(),
        laboratory=laboratory_of(selection.study, run.clinical),
        patients=run.patients,
        completeness=run.arrival.completeness,
        begun_again=run.begun_again,
    )
    artefacts.put(REPORT, to_json(report))
    headers = images.headers or (run.images.ct_headers if selection.is_identified else ())
    made = encode(report, images, segmentation, run.settings, headers=headers)
    store_objects(artefacts, made.objects)
    for name, content in made.png_files.items():
        artefacts.put(name, content)
    timings = json.loads(artefacts.get(TIMINGS)) if TIMINGS in artefacts.names() else {}
    artefacts.put(RESULT, ResultDocument.of(report, timings).to_text().encode())
    return PROCEED


FUNCTIONS: Mapping[Step, StepFunction] = {
    Step.SELECT: run_select,
    Step.SEGMENT: run_segment,
    Step.SCORE: run_score,
    Step.REPORT: run_report,
}


def load_selection(artefacts: Artefacts) -> SelectionArtefact:
    """Result of the select step.

    Raises
    ------
    ArtefactMissing
        If the select step has not run.
    """
    return from_json(SelectionArtefact, artefacts.get(SELECTION))


def load_segmentation(artefacts: Artefacts, selection: SelectionArtefact) -> Segmentation:
    """Result of the segment step; empty where nothing was segmented.

    Raises
    ------
    ArtefactMissing
        If single slices were selected and the segment step has not run.
    """
    volume = None
    if SEGMENTATION in artefacts.names():
        volume = segmentation_from_bytes(artefacts.get(SEGMENTATION))
    slices = slices_from_bytes(artefacts.get(SLICES)) if selection.slices else ()
    return Segmentation(volume=volume, slices=slices)


def laboratory_of(study: StudyIdentity, clinical: ClinicalValues) -> Laboratory:
    """The patient's laboratory values nearest to the study."""
    day = study.study_date.isoformat() if study.study_date else None
    return clinical.laboratory(study.patient_id, study.issuer_of_patient_id, day)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """Result of a run in one process.

    Attributes
    ----------
    verdict : of the last step that did not proceed; else PROCEED.
    reason : for the operator; "" where all steps proceeded.
    timings_s : seconds by step name.
    """

    verdict: Verdict
    reason: str
    timings_s: dict[str, float]


def run_locally(study: StudyRun, progress: Callable[[Step], None] = lambda _: None) -> LocalRun:
    """Run every step but deliver in this process, without database, broker or network.

    If a study that is set aside was selected, its refusal report is still written.

    Parameters
    ----------
    progress : called before each step.
    """
    timings_s: dict[str, float] = {}
    verdict, reason = Verdict.PROCEED, ""
    for step in STEPS:
        if step not in FUNCTIONS:
            continue
        progress(step)
        started = time.perf_counter()
        result = FUNCTIONS[step](study)
        timings_s[step.value] = time.perf_counter() - started
        if result.verdict is not Verdict.PROCEED:
            verdict, reason = result.verdict, result.reason
        if verdict is Verdict.NOT_APPLICABLE or SELECTION not in study.artefacts.names():
            break
    return LocalRun(verdict=verdict, reason=reason, timings_s=timings_s)
