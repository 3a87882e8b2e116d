"""Checks of a phantom's reading, and of several phantoms in one image, before a calibration.

Each row of rods in view is read and checked separately. Of those that pass every check the rearmost is used,
where calibration phantoms usually lie, unless another gives other densities: then none is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, pi
from statistics import mean

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # scipy.stats takes a second to import

from scoring.calibration import Calibration, FitRules, RodReading
from scoring.calibration.methods import calibrate
from scoring.errors import CalibrationImpossible
from scoring.phantoms import PhantomLimits, PhantomModel, PhantomReading, SliceReading
from segmentation.vertebrae import Observation

Particulars = dict[str, str | int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSection:
    """What a rod shows across its axis.

    Attributes
    ----------
    standard_error_mm2 : from the scatter between slabs; 0 of a single slice.
    sd_hu : largest SD over the slabs, as defined by `PhantomLimits.rod_sd_hu`.
    """

    area_mm2: float
    standard_error_mm2: float
    sd_hu: float


def reading_observations(
    reading: PhantomReading, model: PhantomModel, sections: Sequence[CrossSection], *, truncated: bool
) -> tuple[Observation, ...]:
    """All reasons against a calibration by a reading.

    Parameters
    ----------
    sections : of each rod.
    truncated : whether a rod leaves the image.
    """
    if truncated:  # a rod cut by the border fails other checks too, and they would mislead
        return (Observation(code="phantom_truncated", values={"phantom": model.name}),)
    return (
        *_order(reading.rods),
        *_plausible(reading.rods, model),
        *_water(reading.rods, model.limits),
        *_evenness(reading.rods, [one.sd_hu for one in sections], model.limits),
        *_areas(model, sections),
        *_tilt(reading.tilt_degrees, model.limits),
        *_drift(slope_drift(reading.slices), model.limits),
        *_offset_drift(reading, model.limits),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeDrift:
    """Change of the calibration slope from the caudal to the cranial end of the phantom.

    Attributes
    ----------
    noise_percent : half width of the change's 95 % interval.
    """

    percent: float
    noise_percent: float


def slope_drift(slices: Sequence[SliceReading]) -> SlopeDrift | None:
    """Drift of the slope, by a straight line through the HU difference of the outermost rods.

    A line, not the extremes: single slices are too noisy for a limit of a few per cent. Overlapping slices
    share their noise, which resembles a trend: they count as the number of independent slices.

    Parameters
    ----------
    slices : caudal to cranial.

    Returns
    -------
    None below 3 slices.
    """
    if len(slices) < 3:
        return None
    z = np.array([reading.z_mm for reading in slices])
    contrast = np.array([reading.hu[-1] - reading.hu[0] for reading in slices])
    centred = z - z.mean()
    trend = float(centred @ contrast / (centred @ centred))
    residual = contrast - contrast.mean() - trend * centred
    shared = autocorrelation_length(residual)
    freedom = max(len(z) - 2.0 * shared, 1.0)
    error = float(np.sqrt(residual @ residual * shared / freedom / (centred @ centred)))
    percent = 100.0 * float(z[-1] - z[0]) / float(contrast.mean())
    return SlopeDrift(
        percent=-trend * percent,  # the slope is inverse to the contrast
        noise_percent=float(stdtrit(max(len(z) / shared - 2.0, 1.0), 0.975)) * error * abs(percent),
    )


def autocorrelation_length(residual: npt.NDArray[np.float64]) -> float:
    """How many neighbouring values are as informative as one independent value: 1 if all are independent.

    The integrated autocorrelation: one, plus twice its sum up to the first that is not positive (Bayley and
    Hammersley 1946). A fitted line makes residuals less correlated than the noise, by about 2 / n.

    Parameters
    ----------
    residual : (n,), n at least 3, about a fitted straight line, at even steps.
    """
    n = len(residual)
    power = float(residual @ residual)
    total = 0.0
    for lag in range(1, n // 2 + 1):
        alike = float(residual[lag:] @ residual[:-lag]) / power * n / (n - lag) + 2.0 / n if power else 0.0
        if alike <= 0.0:
            break
        total += alike
    return 1.0 + 2.0 * total


def _order(rods: Sequence[RodReading]) -> list[Observation]:
    rising = all(a.hu_mean < b.hu_mean for a, b in pairwise(rods))
    return [] if rising else [Observation(code="rod_order")]


def _plausible(rods: Sequence[RodReading], model: PhantomModel) -> list[Observation]:
    found = []
    for rod, expected in zip(rods, model.rods, strict=True):
        lower, upper = expected.expected_hu
        if rod.density_mg_cm3 != 0 and not lower <= rod.hu_mean <= upper:
            values: Particulars = {
                "rod": rod.name,
                "hu": round(rod.hu_mean, 1),
                "lower": lower,
                "upper": upper,
            }
            found.append(Observation(code="rod_off", values=values))
    return found


def _water(rods: Sequence[RodReading], limits: PhantomLimits) -> list[Observation]:
    return [
        Observation(code="water_rod_off", values={"hu": round(rod.hu_mean, 1), "limit": limits.water_rod_hu})
        for rod in rods
        if rod.density_mg_cm3 == 0 and abs(rod.hu_mean) > limits.water_rod_hu
    ]


def _evenness(
    rods: Sequence[RodReading], sds_hu: Sequence[float], limits: PhantomLimits
) -> list[Observation]:
    return [
        Observation(
            code="rod_uneven", values={"rod": rod.name, "sd_hu": round(sd, 1), "limit": limits.rod_sd_hu}
        )
        for rod, sd in zip(rods, sds_hu, strict=True)
        if sd > limits.rod_sd_hu
    ]


def area_deviates(model: PhantomModel, rod: int, area_mm2: float, standard_error_mm2: float = 0.0) -> bool:
    """Whether a rod's cross-section differs from its drawing by more than its 95 % interval.

    The area of a rod with nearly the HU of the body is measured poorly: noise determines it, not the rod's
    size.

    Parameters
    ----------
    rod : index among the model's rods.
    """
    expected = _expected_mm2(model, rod)
    allowed = model.limits.area_tolerance * expected + 2.0 * standard_error_mm2
    return abs(area_mm2 - expected) > allowed


def _expected_mm2(model: PhantomModel, rod: int) -> float:
    return pi * (model.rods[rod].diameter_mm / 2) ** 2


def _areas(model: PhantomModel, sections: Sequence[CrossSection]) -> list[Observation]:
    found = []
    for index, (rod, section) in enumerate(zip(model.rods, sections, strict=True)):
        if area_deviates(model, index, section.area_mm2, section.standard_error_mm2):
            values: Particulars = {
                "rod": rod.name,
                "area_mm2": round(section.area_mm2),
                "expected_mm2": round(_expected_mm2(model, index)),
            }
            found.append(Observation(code="rod_area_off", values=values))
    return found


def _tilt(tilt_degrees: float | None, limits: PhantomLimits) -> list[Observation]:
    if tilt_degrees is None or tilt_degrees <= limits.tilt_degrees:
        return []
    values = {"degrees": round(tilt_degrees, 1), "limit": limits.tilt_degrees}
    return [Observation(code="phantom_tilted", values=values)]


def _drift(drift: SlopeDrift | None, limits: PhantomLimits) -> list[Observation]:
    # A trend that noise explains is no drift of the scanner.
    if drift is None or abs(drift.percent) <= max(limits.slope_drift_percent, drift.noise_percent):
        return []
    values = {"percent": round(drift.percent, 1), "limit": limits.slope_drift_percent}
    return [Observation(code="calibration_drift", values=values)]


def _offset_drift(reading: PhantomReading, limits: PhantomLimits) -> list[Observation]:
    """An offset that changes along the patient leaves the slope unchanged: all rods shift alike.

    At each place the rods' mean beyond it is compared with the mean before it: a step appears in full, a ramp
    by half. A difference that noise explains is no drift.
    """
    z = np.array([one.z_mm for one in reading.slices])
    offset = np.array([np.mean(one.hu) for one in reading.slices])
    worst = 0.0
    for cut in range(1, len(z)):
        before, after = offset[:cut], offset[cut:]
        shortest_mm = min(z[cut - 1] - z[0], z[-1] - z[cut])
        if shortest_mm < limits.offset_stretch_mm or min(len(before), len(after)) < 3:
            continue
        error = float(
            np.hypot(before.std(ddof=1) / len(before) ** 0.5, after.std(ddof=1) / len(after) ** 0.5)
        )
        shift = abs(float(after.mean() - before.mean()))
        if shift > max(limits.water_drift_hu, limits.offset_sigmas * error):
            worst = max(worst, shift)
    if worst == 0.0:
        return []
    values: Particulars = {"hu": round(worst, 1), "limit": limits.water_drift_hu}
    return [Observation(code="water_rod_drift", values=values)]


# Several phantoms of one model in one image. R: beyond the lines' own uncertainties (95 %), the difference
# that two sound phantoms in one image may have at densities of trabecular bone: scatter and beam hardening
# differ in front of and behind a body.
COMPARED_AT_MG_CM3 = (50.0, 100.0, 150.0)
AGREE_MG_CM3 = 2.0
AGREE_SHARE = 0.03
# Bowel, vessels and bone make rows of discs too, but neither as even nor as wide as rods, nor in their order.
_NO_RODS = frozenset({"rod_uneven", "rod_area_off", "rod_order"})


def combine_readings(readings: Sequence[PhantomReading], model: PhantomModel) -> PhantomReading | None:
    """The reading that is used of those in one image, with observations on the others.

    Parameters
    ----------
    readings : the clearest first, standard errors measured.

    Returns
    -------
    None without a reading. `phantoms_disagree` prevents a calibration; `phantoms_agree` and
    `phantom_beside_refused` are remarks.
    """
    if len(readings) < 2:
        return next(iter(readings), None)
    sound = sorted((one for one in readings if one.usable), key=_depth_mm, reverse=True)
    if not sound:
        return readings[0]
    chosen = sound[0]
    for other in sound[1:]:
        if disagreement := _disagreement(chosen, other, model):
            return replace(chosen, observations=(disagreement,))
    remarks = []
    if len(sound) > 1:
        remarks.append(_remark("phantoms_agree", chosen, model, phantoms=len(sound)))
    refused = [one for one in readings if not one.usable and not _NO_RODS & _codes(one)]
    if refused:
        codes = ", ".join(sorted(frozenset().union(*map(_codes, refused))))
        remarks.append(
            _remark("phantom_beside_refused", chosen, model, other=_place(refused[0]), checks=codes)
        )
    return replace(chosen, remarks=tuple(remarks))


def _codes(reading: PhantomReading) -> frozenset[str]:
    return frozenset(note.code for note in reading.observations)


def _disagreement(one: PhantomReading, other: PhantomReading, model: PhantomModel) -> Observation | None:
    """`phantoms_disagree` where two phantoms' densities differ by more than the limit."""
    lines = [_line(one, model), _line(other, model)]
    if lines[0] is None or lines[1] is None:  # the calibration by the chosen phantom reports a fit that fails
        return None
    first, second = lines[0], lines[1]
    worst = max(COMPARED_AT_MG_CM3, key=lambda bmd: _excess(first, second, bmd))
    if _excess(first, second, worst) <= 0.0:
        return None
    hu = (worst - first.intercept) / first.slope
    values: Particulars = {
        "phantom": model.name,
        "hu": round(hu),
        "first": _place(one),
        "first_bmd": f"{first.bmd(hu):.1f}",
        "first_slope": f"{first.slope:.3f}",
        "second": _place(other),
        "second_bmd": f"{second.bmd(hu):.1f}",
        "second_slope": f"{second.slope:.3f}",
        "equivalent": model.equivalent.value,
    }
    return Observation(code="phantoms_disagree", values=values)


def _excess(first: Calibration, second: Calibration, bmd_mg_cm3: float) -> float:
    """Difference in mg/cm3 between the two lines' densities, beyond the limit."""
    hu = (bmd_mg_cm3 - first.intercept) / first.slope
    known = hypot(*(0.0 if one.uncertainty is None else one.uncertainty.at(hu) for one in (first, second)))
    return abs(second.bmd(hu) - bmd_mg_cm3) - max(AGREE_MG_CM3, AGREE_SHARE * bmd_mg_cm3) - 1.96 * known


def _line(reading: PhantomReading, model: PhantomModel) -> Calibration | None:
    try:
        return calibrate_rods(reading, model)
    except CalibrationImpossible:
        return None


def calibrate_rods(
    reading: PhantomReading, model: PhantomModel, *, rules: FitRules | None = None, kvp: float | None = None
) -> Calibration:
    """The calibration that a model's method makes of a reading's rods; see `calibrate`.

    Parameters
    ----------
    rules : by default the model's.

    Raises
    ------
    CalibrationImpossible
        If the rods do not determine one.
    """
    return calibrate(
        method=model.method,
        phantom=model.name,
        equivalent=model.equivalent,
        rods=reading.rods,
        rules=rules or model.rules,
        kvp=kvp,
    )


def _remark(code: str, chosen: PhantomReading, model: PhantomModel, **more: str | int | float) -> Observation:
    return Observation(code=code, values={"phantom": model.name, "place": _place(chosen), **more})


def _centre_mm(reading: PhantomReading) -> tuple[float, float, float]:
    """Mean of all rods' points, LPS."""
    points = [point for rod in reading.rods for point in rod.axis_points_mm]
    x, y, z = (mean(axis) for axis in zip(*points, strict=True))
    return x, y, z


def _depth_mm(reading: PhantomReading) -> float:
    """Towards the patient's back."""
    return _centre_mm(reading)[1]


def _place(reading: PhantomReading) -> str:
    x, y, z = _centre_mm(reading)
    return f"x {x:.0f}, y {y:.0f}, z {z:.0f} mm"
