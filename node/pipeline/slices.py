"""What is read from single slices: each is calibrated by the rods it shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import acos, degrees
from statistics import median

import numpy as np

from config.settings import SegmentationSettings
from node.dicom.read import LoadedSeries
from node.pipeline.artefacts import NamedSlice
from node.pipeline.measurement import Measurements
from node.pipeline.selection import SelectedSlice
from node.report import SliceResult
from scoring.bmd import measure_bmd
from scoring.calibration import Calibration
from scoring.phantom_choice import calibration_of
from scoring.phantom_model import PhantomModel
from segmentation.observation import Observation
from segmentation.settings import SliceSettings
from segmentation.single_slice import SliceFinder
from segmentation.volume import CtVolume, Vector


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
        calibration, barred = calibration_of(chosen.phantom, phantom, series.facts.beam_kvp)
        results.append(_result(series.volume, found, chosen, calibration, noise_window_mm))
        observations += found.shown.observations
        said = (*barred, *chosen.phantom.remarks) if calibration is not None else barred
        observations += [replace(one, level=chosen.name) for one in said]
    observations += _denser_than_others(results, limits)
    if all(one.shown.region is None for one in shown):
        observations.append(Observation(code="no_lumbar_level"))
    return Measurements(unnamed=tuple(results), observations=tuple(observations))


def _denser_than_others(results: Sequence[SliceResult], limits: SliceSettings) -> list[Observation]:
    """Slices that read far denser than the study's others: an endplate may have passed every other gate.

    The text must not give away the density that the finding withholds.
    """
    read = [(one.name, one.measured.bmd_mg_cm3) for one in results if one.measured is not None]
    known = [(name, bmd) for name, bmd in read if bmd is not None]
    found = []
    for name, bmd in known:
        others = [other for of_name, other in known if of_name != name]
        usual = median(others) if others else bmd
        if bmd > usual + limits.excess_mg_cm3 and bmd > usual * limits.excess_ratio:
            values = {"times": f"{bmd / usual:.1f}"} if usual > 0 else {"times": "many"}
            found.append(Observation(code="slice_denser_than_others", level=name, values=values))
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
    """Middle of the body; of the image where none was found."""
    body = found.shown.body
    middle = (np.asarray(volume.grid.shape) - 1) / 2 if body is None else np.argwhere(body).mean(axis=0)
    x, y, z = volume.grid.to_patient(middle)
    return float(x), float(y), float(z)
