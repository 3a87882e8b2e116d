"""Score: read every number from the pixels and write `measurements.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from config.catalog import configured_phantoms, load_radiomics_settings_text
from node.pipeline.artefacts import (
    MEASUREMENTS,
    SEGMENTATION,
    SLICES,
    segmentation_from_bytes,
    slices_from_bytes,
    to_json,
)
from node.pipeline.calibrating import calibrate_study
from node.pipeline.calibration_rules import patient_rules
from node.pipeline.context import PROCEED, StepContext, StepResult, Verdict
from node.pipeline.contrast import contrast_in_doubt
from node.pipeline.measurement import Measurements, measure
from node.pipeline.model import active_model
from node.pipeline.scanner import is_declared_phantom, reading_of, shows_phantom, watch_scanner
from node.pipeline.selection import SelectionArtefact, load_chosen, load_slices, selection_of
from node.pipeline.slices import measure_slices
from scoring.modelcard import ModelCard
from scoring.phantom_scan import holds_no_patient
from scoring.radiomics import parse_settings
from scoring.scanner_reading import ScannerReading
from segmentation.observation import Observation
from segmentation.volume import CtVolume

_PHANTOM_ALONE = "a phantom without a patient: it counts for the scanner's quality"


def score(context: StepContext) -> StepResult:
    """Measure the study; where no series can be measured, say so by empty measurements.

    Where scanners are remembered, what the phantom reads is kept; a phantom that was scanned alone ends here.
    """
    selection = selection_of(context)
    if selection.slices:
        return _score_slices(context, selection)
    loaded = load_chosen(context, selection)
    if loaded is not None and selection.phantom is not None:
        return _score_volume(context, selection, loaded.volume)
    if _is_declared(context, selection):
        return _phantom_alone(())
    context.artefacts.put(MEASUREMENTS, to_json(Measurements()))
    return PROCEED


def _score_slices(context: StepContext, selection: SelectionArtefact) -> StepResult:
    settings = context.settings
    phantoms = configured_phantoms(settings)
    loaded = load_slices(context, selection)
    found = measure_slices(
        loaded,
        slices_from_bytes(context.artefacts.get(SLICES)),
        selection.slices,
        phantoms,
        settings.segmentation.single_slice,
        noise_window_mm=settings.scoring.noise_window_mm,
    )
    trunk = patient_rules(settings.quality.patient)
    alone = tuple(holds_no_patient(one.volume, trunk) for one in loaded)
    readings = {
        chosen.sop_instance_uid: reading_of(
            selection.study,
            one.facts,
            chosen.phantom,
            phantoms.get(chosen.phantom.model),
            alone=is_alone,
            declared=_is_declared(context, selection),
        )
        for one, chosen, is_alone in zip(loaded, selection.slices, alone, strict=True)
    }
    noticed = _watch(context, selection, readings)
    shown = any(shows_phantom(chosen.phantom) for chosen in selection.slices)
    measured = any(one.measured is not None for one in found.unnamed)
    if _ends_here(context, selection, seen=shown and all(alone) and not measured):
        return _phantom_alone(noticed)
    found = replace(found, observations=(*found.observations, *noticed))
    context.artefacts.put(MEASUREMENTS, to_json(found))
    return PROCEED


def _score_volume(context: StepContext, selection: SelectionArtefact, volume: CtVolume) -> StepResult:
    settings, site = context.settings, context.settings.node.site_folder
    series, phantom = selection.series, selection.phantom
    assert series is not None, "a volume is measured"
    assert phantom is not None, "a phantom was looked for in it"
    phantoms = configured_phantoms(settings)
    radiomics, _ = load_radiomics_settings_text(site)
    card = active_model(settings).card
    segmentation = segmentation_from_bytes(context.artefacts.get(SEGMENTATION))
    calibration = calibrate_study(
        volume,
        segmentation.vertebrae,
        selection,
        phantoms,
        settings=settings,
        history=context.scanners,
    )
    measurements = measure(
        volume,
        segmentation,
        calibration.used,
        feature_names=context.feature_names if context.feature_names is not None else _asked_by(card),
        radiomics=parse_settings(radiomics),
        quality=settings.segmentation.quality,
        image=settings.segmentation.image,
        noise_window_mm=settings.scoring.noise_window_mm,
    )
    alone = holds_no_patient(volume, patient_rules(settings.quality.patient))
    reading = reading_of(
        selection.study,
        series,
        phantom,
        phantoms.get(phantom.model),
        alone=alone,
        declared=_is_declared(context, selection),
        suspected=calibration.suspected,
    )
    noticed = _watch(context, selection, {series.series_instance_uid: reading})
    shown = shows_phantom(phantom) or calibration.suspected is not None
    if _ends_here(context, selection, seen=shown and alone and not measurements.levels):
        return _phantom_alone(noticed)
    doubt = contrast_in_doubt(volume, segmentation.vertebrae, series, settings.segmentation.image)
    said = (*measurements.observations, *doubt, *calibration.observations, *noticed)
    context.artefacts.put(MEASUREMENTS, to_json(replace(measurements, observations=said)))
    return PROCEED


def _asked_by(card: ModelCard | None) -> tuple[str, ...]:
    return tuple(feature.name for feature in card.features) if card else ()


def _watch(
    context: StepContext, selection: SelectionArtefact, readings: Mapping[str, ScannerReading | None]
) -> tuple[Observation, ...]:
    if context.scanners is None:
        return ()
    uid = selection.study.study_instance_uid
    return watch_scanner(context.scanners, uid, readings, context.settings)


def _is_declared(context: StepContext, selection: SelectionArtefact) -> bool:
    """Whether a site scans phantoms under this Patient ID, and nobody asked for a report by name."""
    if context.scanners is None or context.declared_qct:
        return False
    return is_declared_phantom(selection.study.patient_id, context.settings.quality)


def _ends_here(context: StepContext, selection: SelectionArtefact, *, seen: bool) -> bool:
    """Declared by its Patient ID, or seen: a phantom, no vertebra, hardly anything else."""
    if context.scanners is None or context.declared_qct:  # asked for by name: a report, or its refusal
        return False
    return seen or _is_declared(context, selection)


def _phantom_alone(noticed: Sequence[Observation]) -> StepResult:
    """The operator reads of a drift here, for there is no report to say it; `osteonode qa` says it too."""
    drifting = [f"{one.values['quantity']} is {one.values['signal']}" for one in noticed]
    reason = f"{_PHANTOM_ALONE}; scanner drift: {', '.join(drifting)}" if drifting else _PHANTOM_ALONE
    return StepResult(verdict=Verdict.NOT_APPLICABLE, reason=reason)
