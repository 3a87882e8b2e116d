"""Score: read every number from the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import acos, degrees
from statistics import median

import numpy as np

from config.catalog import configured_phantoms, load_radiomics_settings_text
from config.phrases import in_english
from config.sections import SegmentationSettings
from config.settings import Settings
from node.dicom.ct.reading import LoadedSeries
from node.pipeline.artefacts import (
    NamedSlice,
    Segmentation,
    SegmentationArtefact,
    SelectedSlice,
    SelectionArtefact,
)
from node.pipeline.ports import ScannerHistory
from node.pipeline.result_basis import active_model, feature_drift_observations
from node.pipeline.steps.calibrate import (
    calibrate_study,
    is_declared_phantom,
    reading_of,
    record_scanner_readings,
    shows_phantom,
)
from node.pipeline.steps.select import contrast_in_doubt
from node.pipeline.study_run import ChosenImages, StepResult, Verdict
from node.study_report import LevelResult, SliceResult
from scoring.calibration import Calibration
from scoring.calibration.control_charts import ScannerReading
from scoring.density.bmd import BmdResult, measure_bmd
from scoring.errors import FeaturesImpossible, RegionEmpty
from scoring.models.card import ModelCard
from scoring.phantoms import PhantomModel, holds_no_patient
from scoring.phantoms.rod_reading import calibrate_from_reading
from scoring.radiomics import RadiomicsSettings, compute_features, parse_settings
from segmentation.ct_volume import CtVolume, Vector
from segmentation.gates.bodies import bone_observations, ellipse_objection, quality_observations
from segmentation.gates.noise import image_observations
from segmentation.levels import anchor_observations
from segmentation.phrase import Value, phrase
from segmentation.settings import GateSettings, ImageSettings, SliceSettings
from segmentation.single_slice import SliceFinder
from segmentation.vertebrae import Observation, RegionKind, Regions, is_lumbar

# What is read from pixels: calibration, density and features. Later steps need no pixels again.


FEATURE_LEVEL = "L3"  # Xie et al. 2022 compute their features on L3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Numbers of one study before anything is withheld."""

    levels: tuple[LevelResult, ...] = ()  # superior to inferior
    numbering_confirmed: bool = False
    numbering_basis: str = "none"
    calibration: Calibration | None = None
    features: Mapping[str, float] | None = None
    observations: tuple[Observation, ...] = ()
    unnamed: tuple[SliceResult, ...] = ()  # of single slices; then there are no levels


def measure(
    volume: CtVolume,
    segmentation: SegmentationArtefact,
    calibration: Calibration | None,
    *,
    feature_names: Sequence[str],
    radiomics: RadiomicsSettings,
    quality: GateSettings,
    image: ImageSettings,
    noise_window_mm: float,
) -> Measurements:
    """Measure everything that needs the pixels of the study.

    Parameters
    ----------
    calibration : None where there is none; the caller says why.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.
    feature_names : pyradiomics names of the features that the model asks for; none where there is no model.
    """
    vertebrae = segmentation.vertebrae
    regions = {region.level: region for region in segmentation.regions}
    levels = tuple(
        LevelResult(
            name=level.name,
            complete=level.complete,
            centroid_mm=level.centroid_mm,
            volume_mm3=level.body_volume_mm3 if level.complete else None,
            core_volume_mm3=regions[level.name].core_volume_mm3 if level.name in regions else None,
            measured=_density(volume, regions.get(level.name), calibration, noise_window_mm),
            ellipse=_ellipse_density(volume, regions.get(level.name), calibration, noise_window_mm, quality),
        )
        for level in vertebrae.levels
        if is_lumbar(level.name)
    )
    features, impossible = _features(volume, regions.get(FEATURE_LEVEL), feature_names, radiomics)
    return Measurements(
        levels=levels,
        numbering_confirmed=vertebrae.numbering_confirmed,
        numbering_basis=vertebrae.numbering_basis,
        calibration=calibration,
        features=features,
        observations=(
            *vertebrae.observations,
            *anchor_observations(vertebrae),
            *quality_observations(volume, vertebrae, regions, quality),
            *bone_observations(volume, vertebrae, minimum_contrast_hu=quality.min_contrast_hu),
            *image_observations(volume, vertebrae, image),
            *impossible,
        ),
    )


def _density(
    volume: CtVolume, regions: Regions | None, calibration: Calibration | None, noise_window_mm: float
) -> BmdResult | None:
    if regions is None:
        return None
    try:
        return measure_bmd(
            volume,
            regions.bmd,
            calibration,
            level=regions.level,
            kind=regions.kind,
            noise_window_mm=noise_window_mm,
        )
    except RegionEmpty:  # the quality gates say that the region is too small
        return None


def _ellipse_density(
    volume: CtVolume,
    regions: Regions | None,
    calibration: Calibration | None,
    noise_window_mm: float,
    quality: GateSettings,
) -> BmdResult | None:
    """Of the ellipse beside the core, where there is one that serves; else the quality gates say why not."""
    if regions is None or regions.ellipse is None or ellipse_objection(volume, regions.ellipse, quality):
        return None
    return measure_bmd(
        volume,
        regions.ellipse,
        calibration,
        level=regions.level,
        kind=RegionKind.ELLIPSE,
        noise_window_mm=noise_window_mm,
    )


def _features(
    volume: CtVolume, regions: Regions | None, names: Sequence[str], settings: RadiomicsSettings
) -> tuple[Mapping[str, float] | None, tuple[Observation, ...]]:
    if regions is None or not names:
        return None, ()
    if drifted := feature_drift_observations():
        return None, drifted
    try:
        return compute_features(volume, regions.radiomics, names, settings), ()
    except FeaturesImpossible as error:
        return None, (Observation(code=error.code, values={"reason": error.reason}),)


# What is read from single slices: each is calibrated by the rods it shows itself.


def slice_finder(settings: SegmentationSettings) -> SliceFinder:
    """Canal, regions and metal in single slices follow the limits of those in volumes."""
    return SliceFinder(
        slices=settings.single_slice,
        regions=settings.regions,
        quality=settings.quality,
        canal=settings.geometric.canal,
    )


def measure_slices(
    loaded: Sequence[LoadedSeries],
    shown: Sequence[NamedSlice],
    selected: Sequence[SelectedSlice],
    phantoms: Mapping[str, PhantomModel],
    limits: SliceSettings,
    *,
    noise_window_mm: float,
) -> Measurements:
    """The density of each slice's vertebra, and what stands in its way; all three in the same order.

    Parameters
    ----------
    phantoms : the models that the slices may show, by name.
    limits : how far one slice's density may lie above the others'.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    A slice's phantom forbids that slice's density alone. Where no slice shows a lumbar body, the study says
    so as a whole: `no_lumbar_level`.
    """
    results: list[SliceResult] = []
    observations: list[Observation] = []
    for series, found, chosen in zip(loaded, shown, selected, strict=True):
        phantom = phantoms.get(chosen.phantom.model)
        calibration, barred = calibrate_from_reading(chosen.phantom, phantom, series.facts.beam_kvp)
        results.append(_result(series.volume, found, chosen, calibration, noise_window_mm))
        observations += found.shown.observations
        said = (*barred, *chosen.phantom.remarks) if calibration is not None else barred
        observations += [replace(one, level=chosen.name) for one in said]
    observations += _denser_than_others(results, limits)
    if all(one.shown.region is None for one in shown):
        observations.append(Observation(code="no_lumbar_level"))
    return Measurements(unnamed=tuple(results), observations=tuple(observations))


def _denser_than_others(results: Sequence[SliceResult], limits: SliceSettings) -> list[Observation]:
    """Slices far denser than the study's others: these may show an endplate that passed every other gate.

    The text must not give away the density that the finding withholds.
    """
    read = [(one.name, one.measured.bmd_mg_cm3) for one in results if one.measured is not None]
    known = [(name, bmd) for name, bmd in read if bmd is not None]
    found = []
    for name, bmd in known:
        others = [other for of_name, other in known if of_name != name]
        usual = median(others) if others else bmd
        if bmd > usual + limits.excess_mg_cm3 and bmd > usual * limits.excess_ratio:
            times: Value = f"{bmd / usual:.1f}" if usual > 0 else phrase("many")
            found.append(Observation(code="slice_denser_than_others", level=name, values={"times": times}))
    return found


def _result(
    volume: CtVolume,
    found: NamedSlice,
    chosen: SelectedSlice,
    calibration: Calibration | None,
    noise_window_mm: float,
) -> SliceResult:
    region = found.shown.region
    measured = None
    if region is not None:
        measured = measure_bmd(
            volume, region, calibration, level=chosen.name, noise_window_mm=noise_window_mm
        )
    thickness_mm, row_mm, column_mm = volume.grid.spacing_mm
    return SliceResult(
        name=chosen.name,
        sop_instance_uid=chosen.sop_instance_uid,
        position_mm=_position(volume, found),
        thickness_mm=thickness_mm,
        tilt_degrees=degrees(acos(min(1.0, abs(volume.grid.direction[0][2])))),
        region_mm2=None if region is None else float(region.sum()) * row_mm * column_mm,
        measured=measured,
        calibration=calibration,
    )


def _position(volume: CtVolume, found: NamedSlice) -> Vector:
    """Centre of the body; centre of the image where no body was found."""
    body = found.shown.body
    middle = (np.asarray(volume.grid.shape) - 1) / 2 if body is None else np.argwhere(body).mean(axis=0)
    x, y, z = volume.grid.to_patient(middle)
    return float(x), float(y), float(z)


_PHANTOM_ALONE = "a phantom without a patient: it counts for the scanner's quality"


def score(
    selection: SelectionArtefact,
    images: ChosenImages,
    segmentation: Segmentation,
    settings: Settings,
    *,
    scanners: ScannerHistory | None = None,
    declared_qct: bool = False,
    feature_names: Sequence[str] | None = None,
) -> Measurements | StepResult:
    """Measure the study; where no series can be measured, the measurements are empty.

    Parameters
    ----------
    segmentation : of `images`.
    scanners : where what the phantom reads is kept; None where nothing is remembered.
    declared_qct : whether a person asked for this study by name: then it gets a report, or its refusal.
    feature_names : pyradiomics names of the features to compute; None: those that the model asks for.

    Returns
    -------
    Measurements or StepResult
        The latter where a phantom was scanned alone: the study ends here, as not applicable.
    """
    watch = _ScannerRecord(selection, settings, scanners, declared_qct)
    if images.slices:
        return _score_slices(selection, images.slices, segmentation.slices, settings, watch)
    if images.volume is not None and selection.phantom is not None:
        assert segmentation.volume is not None, "of these images"
        return _score_volume(
            selection, images.volume, segmentation.volume, settings, watch, feature_names=feature_names
        )
    if watch.declared:
        return _phantom_alone(())
    return Measurements()


class _ScannerRecord:
    """Phantom readings of this study, for the scanner's chart."""

    def __init__(
        self,
        selection: SelectionArtefact,
        settings: Settings,
        history: ScannerHistory | None,
        declared_qct: bool,
    ) -> None:
        self.history = history
        self._uid = selection.study.study_instance_uid
        self._settings = settings
        self._may_end_here = history is not None and not declared_qct
        # Whether a site scans phantoms under this Patient ID, and nobody asked for a report by name.
        self.declared = self._may_end_here and is_declared_phantom(
            selection.study.patient_id, settings.quality
        )

    def keep(self, readings: Mapping[str, ScannerReading | None]) -> tuple[Observation, ...]:
        if self.history is None:
            return ()
        return record_scanner_readings(self.history, self._uid, readings, self._settings)

    def is_phantom_alone(self, *, seen: bool) -> bool:
        """Declared by its Patient ID, or seen: a phantom, no vertebra, hardly anything else."""
        return self._may_end_here and (seen or self.declared)


def _score_slices(
    selection: SelectionArtefact,
    loaded: Sequence[LoadedSeries],
    shown: Sequence[NamedSlice],
    settings: Settings,
    watch: _ScannerRecord,
) -> Measurements | StepResult:
    phantoms = configured_phantoms(settings)
    found = measure_slices(
        loaded,
        shown,
        selection.slices,
        phantoms,
        settings.segmentation.single_slice,
        noise_window_mm=settings.scoring.noise_window_mm,
    )
    trunk = settings.quality.patient
    alone = tuple(holds_no_patient(one.volume, trunk) for one in loaded)
    readings = {
        chosen.sop_instance_uid: reading_of(
            selection.study,
            one.facts,
            chosen.phantom,
            phantoms.get(chosen.phantom.model),
            alone=is_alone,
            declared=watch.declared,
        )
        for one, chosen, is_alone in zip(loaded, selection.slices, alone, strict=True)
    }
    noticed = watch.keep(readings)
    in_view = any(shows_phantom(chosen.phantom) for chosen in selection.slices)
    measured = any(one.measured is not None for one in found.unnamed)
    if watch.is_phantom_alone(seen=in_view and all(alone) and not measured):
        return _phantom_alone(noticed)
    return replace(found, observations=(*found.observations, *noticed))


def _score_volume(
    selection: SelectionArtefact,
    loaded: LoadedSeries,
    segmentation: SegmentationArtefact,
    settings: Settings,
    watch: _ScannerRecord,
    *,
    feature_names: Sequence[str] | None,
) -> Measurements | StepResult:
    series, phantom, volume = selection.series, selection.phantom, loaded.volume
    assert series is not None, "a volume is measured"
    assert phantom is not None, "a phantom was looked for in it"
    phantoms = configured_phantoms(settings)
    radiomics, _ = load_radiomics_settings_text(settings.node.site_folder)
    card = active_model(settings).card
    calibration = calibrate_study(
        volume,
        segmentation.vertebrae,
        selection,
        phantoms,
        settings=settings,
        history=watch.history,
    )
    measurements = measure(
        volume,
        segmentation,
        calibration.used,
        feature_names=feature_names if feature_names is not None else _asked_by(card),
        radiomics=parse_settings(radiomics),
        quality=settings.segmentation.quality,
        image=settings.segmentation.image,
        noise_window_mm=settings.scoring.noise_window_mm,
    )
    alone = holds_no_patient(volume, settings.quality.patient)
    reading = reading_of(
        selection.study,
        series,
        phantom,
        phantoms.get(phantom.model),
        alone=alone,
        declared=watch.declared,
        suspected=calibration.suspected,
    )
    noticed = watch.keep({series.series_instance_uid: reading})
    in_view = shows_phantom(phantom) or calibration.suspected is not None
    if watch.is_phantom_alone(seen=in_view and alone and not measurements.levels):
        return _phantom_alone(noticed)
    doubt = contrast_in_doubt(volume, segmentation.vertebrae, series, settings.segmentation.image)
    said = (*measurements.observations, *doubt, *calibration.observations, *noticed)
    return replace(measurements, observations=said)


def _asked_by(card: ModelCard | None) -> tuple[str, ...]:
    return tuple(feature.name for feature in card.features) if card else ()


def _phantom_alone(noticed: Sequence[Observation]) -> StepResult:
    """The operator reads of a drift here, for there is no report to say it; `osteonode qa` says it too."""
    drifting = [
        f"{in_english(one.values['quantity'])} is {in_english(one.values['signal'])}" for one in noticed
    ]
    reason = f"{_PHANTOM_ALONE}; scanner drift: {', '.join(drifting)}" if drifting else _PHANTOM_ALONE
    return StepResult(verdict=Verdict.NOT_APPLICABLE, reason=reason)
