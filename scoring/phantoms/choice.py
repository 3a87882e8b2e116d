"""Which of several phantom models an image shows: recognised from the rods, or not at all.

A wrong model is worse than none. A model is taken only if every rod is found where its drawing has it,
passes every check, and lies on the line that its densities predict, at a slope that the tube voltage may
give; and if no other model with as many rods is found there at all. Such a one may be the true one that a
fault of the scan made fail its checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from scoring.calibration import Calibration, FitRules
from scoring.calibration.methods import calibrate, fit_observations
from scoring.errors import CalibrationImpossible
from scoring.phantoms import PhantomModel, PhantomReading
from scoring.phantoms.rod_reading import absence, find_rods, read_rods
from scoring.settings import NOISE_WINDOW_MM
from segmentation.vertebrae import Observation
from segmentation.volume import CtVolume

UNDECIDED = ""  # model of a reading that no model could be chosen for


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A volume, or one slice of single-slice QCT, and the tube voltage that it was scanned at."""

    volume: CtVolume
    kvp: float | None


def read_phantom(
    images: Sequence[Image], models: Mapping[str, PhantomModel], *, noise_window_mm: float = NOISE_WINDOW_MM
) -> tuple[PhantomReading, ...]:
    """The rods in each image of one study, which all show the same phantom.

    Parameters
    ----------
    models : by name. Of several the one is taken that alone fits.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    Returns
    -------
    tuple[PhantomReading, ...]
        One for each image. Where no model could be chosen, `model` is `UNDECIDED` and the observation one of
        `phantom_not_found`, `phantom_truncated`, `phantom_ambiguous` (several may be meant),
        `phantom_unrecognised` (none fits beyond doubt); where the rods of a single model were found and
        refused, its own reading.
    """
    if len(models) == 1:
        (model,) = models.values()
        return tuple(find_rods(one.volume, model, noise_window_mm=noise_window_mm) for one in images)
    readings = {
        name: [read_rods(one.volume, model, noise_window_mm=noise_window_mm) for one in images]
        for name, model in models.items()
    }
    fitting = [name for name in models if _fits_somewhere(images, readings[name], models[name])]
    if not fitting:
        return tuple(
            _most_telling([readings[name][place] or absence(one.volume, models[name]) for name in models])
            for place, one in enumerate(images)
        )
    fewest = min(len(models[name].rods) for name in fitting)
    seen = [name for name in models if any(readings[name])]
    rivals = [name for name in seen if name in fitting or len(models[name].rods) >= fewest]
    if len(rivals) > 1:
        return tuple(_without_model("phantom_ambiguous", rivals) for _ in images)
    chosen = models[fitting[0]]
    return tuple(
        reading or absence(one.volume, chosen)
        for one, reading in zip(images, readings[chosen.name], strict=True)
    )


def calibration_of(
    reading: PhantomReading, model: PhantomModel | None, kvp: float | None
) -> tuple[Calibration | None, tuple[Observation, ...]]:
    """The calibration that the phantom allows, and what is to be said of it; None with why it allows none.

    Parameters
    ----------
    model : that of the reading; None where none could be chosen.
    kvp : tube voltage of the series, which bounds the slope; None where the header names none.
    """
    if model is None or not reading.usable:
        return None, reading.observations
    try:
        found = calibrate(
            method=model.method,
            phantom=model.name,
            equivalent=model.equivalent,
            rods=reading.rods,
            rules=model.rules,
            kvp=kvp,
        )
    except CalibrationImpossible as error:
        return None, (Observation(code=error.code, values={"phantom": model.name}),)
    named = replace(found, phantom_serial=model.serial, phantom_sha256=model.sha256)
    return named, fit_observations(named, model.rules)


def line_as_read(reading: PhantomReading, model: PhantomModel | None) -> Calibration | None:
    """The line through the rods, whatever was said against them: for quality, never for a density.

    None where no rods were read, no model is known, or they do not even rise.
    """
    if model is None or not reading.rods:
        return None
    try:
        return calibrate(
            method=model.method,
            phantom=model.name,
            equivalent=model.equivalent,
            rods=reading.rods,
            rules=_without_limits(model.rules),
        )
    except CalibrationImpossible:
        return None


def _without_limits(rules: FitRules) -> FitRules:
    any_slope = ((120.0, 0.0, inf),)
    return replace(rules, r2_refused_below=0.0, offset_hu=inf, sigma_ref=any_slope, hu_per_mg=any_slope)


def _fits_somewhere(
    images: Sequence[Image], readings: Sequence[PhantomReading | None], model: PhantomModel
) -> bool:
    """Whether in one image at least the model's calibration stands and nothing is to be said against it."""
    results = [
        calibration_of(reading, model, one.kvp)
        for one, reading in zip(images, readings, strict=True)
        if reading is not None
    ]
    return any(calibration is not None and not noticed for calibration, noticed in results)


def _most_telling(readings: Sequence[PhantomReading]) -> PhantomReading:
    """Why no model fits one image: what the only one whose rods were found lacks, or else what was seen."""
    found = [reading for reading in readings if reading.rods]
    if len(found) == 1 and found[0].observations:
        return found[0]
    codes = {one.code for reading in found for one in reading.observations}
    if found and codes != {"phantom_truncated"}:
        return _without_model("phantom_unrecognised", [reading.model for reading in found])
    codes = {one.code for reading in readings for one in reading.observations}
    code = "phantom_truncated" if "phantom_truncated" in codes else "phantom_not_found"
    return _without_model(code, [reading.model for reading in readings])


def _without_model(code: str, names: Sequence[str]) -> PhantomReading:
    observation = Observation(code=code, values={"phantom": ", ".join(names)})
    return PhantomReading(model=UNDECIDED, observations=(observation,))
