"""Recognition of the phantom model in an image, by its rods; and the calibration that a reading gives.

A wrong model is worse than none. A model is chosen only if every rod is found where its drawing has it,
passes every check, and lies on the line of its densities, at a slope that the tube voltage allows; and if no
other model with as many rods is found at all. Such another model may be the true one, which fails its checks
through a fault of the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from scoring.calibration import Calibration
from scoring.calibration.methods import fit_observations
from scoring.errors import CalibrationImpossible
from scoring.phantoms import PhantomModel, PhantomReading
from scoring.phantoms.checks import calibrate_rods
from scoring.phantoms.rod_reading import explain_absence, find_rods, read_rods
from scoring.settings import NOISE_WINDOW_MM
from segmentation.ct_volume import CtVolume
from segmentation.vertebrae import Observation

UNDECIDED = ""  # model of a reading that no model could be chosen for


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomImage:
    """A volume, or one slice of single-slice QCT, with its tube voltage.

    Attributes
    ----------
    kvp : in kV; None where it is not stated.
    """

    volume: CtVolume
    kvp: float | None


def read_phantom(
    images: Sequence[PhantomImage],
    models: Mapping[str, PhantomModel],
    *,
    noise_window_mm: float = NOISE_WINDOW_MM,
) -> tuple[PhantomReading, ...]:
    """The rods in each image of one study; all images show the same phantom.

    Parameters
    ----------
    models : by name. Of several the only one that fits is chosen.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    Returns
    -------
    One reading for each image. Where no model could be chosen, `model` is `UNDECIDED` and the observation one
    of `phantom_not_found`, `phantom_truncated`, `phantom_ambiguous` (several fit), `phantom_unrecognised`
    (none fits beyond doubt). Where the rods of a single model were found and failed their checks, its own
    reading.
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
            _explain_misfit(
                [readings[name][place] or explain_absence(one.volume, models[name]) for name in models]
            )
            for place, one in enumerate(images)
        )
    fewest = min(len(models[name].rods) for name in fitting)
    seen = [name for name in models if any(readings[name])]
    rivals = [name for name in seen if name in fitting or len(models[name].rods) >= fewest]
    if len(rivals) > 1:
        return tuple(_without_model("phantom_ambiguous", rivals) for _ in images)
    chosen = models[fitting[0]]
    return tuple(
        reading or explain_absence(one.volume, chosen)
        for one, reading in zip(images, readings[chosen.name], strict=True)
    )


def calibrate_from_reading(
    reading: PhantomReading, model: PhantomModel | None, kvp: float | None
) -> tuple[Calibration | None, tuple[Observation, ...]]:
    """The calibration that a reading gives, with observations; None with the reasons where it gives none.

    Parameters
    ----------
    model : that of the reading; None where none could be chosen.
    kvp : tube voltage of the series, which limits the slope; None where the header states none.
    """
    if model is None or not reading.usable:
        return None, reading.observations
    try:
        found = calibrate_rods(reading, model, kvp=kvp)
    except CalibrationImpossible as error:
        return None, (Observation(code=error.code, values={"phantom": model.name}),)
    named = replace(found, phantom_serial=model.serial, phantom_sha256=model.sha256)
    return named, fit_observations(named, model.rules)


def line_without_limits(reading: PhantomReading, model: PhantomModel | None) -> Calibration | None:
    """The line through the rods, passed or not: for quality control, never for a density.

    Returns
    -------
    None without rods, without a model, or where the rods' HU do not rise.
    """
    if model is None or not reading.rods:
        return None
    any_slope = ((120.0, 0.0, inf),)
    rules = replace(
        model.rules, r2_refused_below=0.0, offset_hu=inf, sigma_ref=any_slope, hu_per_mg=any_slope
    )
    try:
        return calibrate_rods(reading, model, rules=rules)
    except CalibrationImpossible:
        return None


def _fits_somewhere(
    images: Sequence[PhantomImage], readings: Sequence[PhantomReading | None], model: PhantomModel
) -> bool:
    """Whether the model calibrates at least one image without any observation."""
    results = [
        calibrate_from_reading(reading, model, one.kvp)
        for one, reading in zip(images, readings, strict=True)
        if reading is not None
    ]
    return any(calibration is not None and not noticed for calibration, noticed in results)


def _explain_misfit(readings: Sequence[PhantomReading]) -> PhantomReading:
    """Why no model fits one image: the failed checks of the only model found, otherwise a summary."""
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
