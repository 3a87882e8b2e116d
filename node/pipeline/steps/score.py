"""Score: read every number from the pixels and write `measurements.json`."""

from __future__ import annotations

from dataclasses import replace

from config.catalog import configured_phantoms, load_model_card, load_radiomics_settings_text
from node.pipeline.artefacts import (
    MEASUREMENTS,
    SEGMENTATION,
    SLICES,
    segmentation_from_bytes,
    slices_from_bytes,
    to_json,
)
from node.pipeline.calibrating import StudyCalibration, calibrate_study
from node.pipeline.context import PROCEED, StepContext, StepResult, Verdict
from node.pipeline.image_rules import image_settings, quality_settings, slice_finder
from node.pipeline.measurement import Measurements, measure
from node.pipeline.scanner import is_declared_phantom, watch_scanner
from node.pipeline.selection import SelectionArtefact, load_chosen, load_slices, selection_of
from node.pipeline.slices import measure_slices
from scoring.modelcard import ModelCard
from scoring.phantom_scan import holds_no_patient
from scoring.radiomics import parse_settings
from segmentation.observation import Observation
from segmentation.volume import CtVolume

_PHANTOM_ALONE = StepResult(
    verdict=Verdict.NOT_APPLICABLE, reason="a phantom without a patient: it counts for the scanner's quality"
)


def score(context: StepContext) -> StepResult:
    """Measure the study; where no series can be measured, say so by empty measurements.

    Where scanners are remembered, the phantom's reading is kept; a phantom that was scanned alone ends here.
    """
    selection = selection_of(context)
    settings, site = context.settings, context.settings.node.site_folder
    phantoms = configured_phantoms(settings)
    if selection.slices:
        shown = slices_from_bytes(context.artefacts.get(SLICES))
        found = measure_slices(
            load_slices(context, selection),
            shown,
            selection.slices,
            phantoms,
            slice_finder(settings.segmentation).slices,
        )
        context.artefacts.put(MEASUREMENTS, to_json(found))
        return PROCEED
    loaded = load_chosen(context, selection)
    if loaded is None or selection.phantom is None:
        context.artefacts.put(MEASUREMENTS, to_json(Measurements()))
        return PROCEED
    radiomics, _ = load_radiomics_settings_text(site)
    model = settings.scoring.model
    card = load_model_card(model, site)[0] if model else None
    segmentation = segmentation_from_bytes(context.artefacts.get(SEGMENTATION))
    calibration = calibrate_study(
        loaded.volume,
        segmentation.vertebrae,
        selection,
        phantoms,
        settings=settings,
        history=context.scanners,
    )
    measurements = measure(
        loaded.volume,
        segmentation,
        calibration.used,
        feature_names=context.feature_names if context.feature_names is not None else _asked_by(card),
        radiomics=parse_settings(radiomics),
        quality=quality_settings(settings.segmentation),
        image=image_settings(settings.segmentation),
    )
    noticed: tuple[Observation, ...] = ()
    if context.scanners is not None:
        noticed = watch_scanner(
            context.scanners,
            selection,
            calibration.of_phantom,
            settings.quality,
            doubted=calibration.doubted,
        )
        if _is_phantom_alone(context, selection, calibration, measurements, loaded.volume):
            return _PHANTOM_ALONE
    said = (*measurements.observations, *calibration.observations, *noticed)
    measurements = replace(measurements, observations=said)
    context.artefacts.put(MEASUREMENTS, to_json(measurements))
    return PROCEED


def _asked_by(card: ModelCard | None) -> tuple[str, ...]:
    return tuple(feature.name for feature in card.features) if card else ()


def _is_phantom_alone(
    context: StepContext,
    selection: SelectionArtefact,
    calibration: StudyCalibration,
    found: Measurements,
    volume: CtVolume,
) -> bool:
    """Declared by its Patient ID, or seen: a phantom that reads well, no vertebra, hardly anything else."""
    if context.declared_qct:  # a person asked for this study by name: it gets its report, or its refusal
        return False
    if is_declared_phantom(selection.study.patient_id, context.settings.quality):
        return True
    return calibration.of_phantom is not None and not found.levels and holds_no_patient(volume)
