"""Whether a phantom's reading may carry a calibration: one check for each way in which it may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, pi
from statistics import mean

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # scipy.stats takes a second to import

from scoring.calibration import Calibration, RodReading
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


def judge(
    reading: PhantomReading, model: PhantomModel, sections: Sequence[CrossSection], *, truncated: bool
) -> tuple[Observation, ...]:
    """Everything that forbids a calibration from `reading`.

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
class Drift:
    """Change of the calibration slope from the caudal to the cranial end of the phantom.

    Attributes
    ----------
    noise_percent : half width of the change's 95 % interval.
    """

    percent: float
    noise_percent: float


def slope_drift(slices: Sequence[SliceReading]) -> Drift | None:
    """The drift, from a straight line through the HU difference of the outermost rods; None below 3 slices.

    A line, not the extremes: single slices are too noisy for a limit of a few per cent. Slices that overlap
    share their noise, which makes trends of it: they count for as many as are independent.
    """
    if len(slices) < 3:
        return None
    z = np.array([reading.z_mm for reading in slices])
    contrast = np.array([reading.hu[-1] - reading.hu[0] for reading in slices])
    centred = z - z.mean()
    trend = float(centred @ contrast / (centred @ centred))
    residual = contrast - contrast.mean() - trend * centred
    shared = slices_that_share_noise(residual)
    freedom = max(len(z) - 2.0 * shared, 1.0)
    error = float(np.sqrt(residual @ residual * shared / freedom / (centred @ centred)))
    percent = 100.0 * float(z[-1] - z[0]) / float(contrast.mean())
    return Drift(
        percent=-trend * percent,  # the slope is inverse to the contrast
        noise_percent=float(stdtrit(max(len(z) / shared - 2.0, 1.0), 0.975)) * error * abs(percent),
    )


def slices_that_share_noise(residual: npt.NDArray[np.float64]) -> float:
    """How many neighbouring values say no more than one does: 1 if each is its own.

    The integrated autocorrelation: one, and twice its sum up to the first that is not positive (Bayley and
    Hammersley 1946). What a fitted line takes away makes residuals less alike than the noise was, by some
    2 / n.

    Parameters
    ----------
    residual : shape (n,), n at least 3, about a fitted straight line, at even steps.
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
            code="rod_uneven",
            values={"rod": rod.name, "sd_hu": round(sd, 1), "limit": limits.rod_sd_hu},
        )
        for rod, sd in zip(rods, sds_hu, strict=True)
        if sd > limits.rod_sd_hu
    ]


def area_off(model: PhantomModel, rod: int, area_mm2: float, standard_error_mm2: float = 0.0) -> bool:
    """Whether a rod's cross-section is not that of its drawing, by more than its 95 % interval allows for.

    A rod that reads nearly as the body does is measured badly: noise makes its area, not its size.
    """
    expected = _expected_mm2(model, rod)
    allowed = model.limits.area_tolerance * expected + 2.0 * standard_error_mm2
    return abs(area_mm2 - expected) > allowed


def _expected_mm2(model: PhantomModel, rod: int) -> float:
    return pi * (model.rods[rod].diameter_mm / 2) ** 2


def _areas(model: PhantomModel, sections: Sequence[CrossSection]) -> list[Observation]:
    found = []
    for index, (rod, section) in enumerate(zip(model.rods, sections, strict=True)):
        if area_off(model, index, section.area_mm2, section.standard_error_mm2):
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


def _drift(drift: Drift | None, limits: PhantomLimits) -> list[Observation]:
    # A trend that noise explains is no drift of the scanner.
    if drift is None or abs(drift.percent) <= max(limits.slope_drift_percent, drift.noise_percent):
        return []
    values = {"percent": round(drift.percent, 1), "limit": limits.slope_drift_percent}
    return [Observation(code="calibration_drift", values=values)]


def _offset_drift(reading: PhantomReading, limits: PhantomLimits) -> list[Observation]:
    """An offset that changes along the patient leaves the slope alone: all rods shift alike.

    For each place the rods' mean beyond it is held against that before it: a step shows whole, a ramp by
    half. What noise explains is no drift.
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


# Several phantoms of one model in one image: which is read, and whether they agree.
#
# Each row of rods in view is read and judged by itself. Of those that pass every check the one farthest to
# the back is taken, where calibration phantoms lie in use, unless another gives other densities: then
# neither can be believed more than the other.


# R: beside the lines' own uncertainties (95 %), by what two sound phantoms in one image may differ at
# densities of trabecular bone: scatter and beam hardening are not the same before and behind a body.
COMPARED_AT_MG_CM3 = (50.0, 100.0, 150.0)
AGREE_MG_CM3 = 2.0
AGREE_SHARE = 0.03
# Bowel, vessels and bone make rows of discs too, but neither as even nor as wide as rods, nor in their order.
_NO_RODS = frozenset({"rod_uneven", "rod_area_off", "rod_order"})


def read_together(readings: Sequence[PhantomReading], model: PhantomModel) -> PhantomReading | None:
    """What counts of the rows of rods that one image shows, with what is said of the others.

    Parameters
    ----------
    readings : the clearest first, standard errors measured.

    Returns
    -------
    PhantomReading or None
        None of none. `phantoms_disagree` forbids a calibration; `phantoms_agree` and
        `phantom_beside_refused` are remarks.
    """
    if len(readings) < 2:
        return next(iter(readings), None)
    sound = sorted((one for one in readings if one.usable), key=_depth_mm, reverse=True)
    if not sound:
        return readings[0]
    chosen = sound[0]
    for other in sound[1:]:
        if told := _disagreement(chosen, other, model):
            return replace(chosen, observations=(told,))
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
    """`phantoms_disagree` where the densities that two phantoms give differ by more than they may."""
    lines = [_line(one, model), _line(other, model)]
    if lines[0] is None or lines[1] is None:  # a fit that fails is told of the one that is taken
        return None
    first, second = lines[0], lines[1]
    worst = max(COMPARED_AT_MG_CM3, key=lambda bmd: _excess(first, second, bmd))
    if _excess(first, second, worst) <= 0.0:
        return None
    hu = (worst - first.intercept) / first.slope
    values: dict[str, str | int | float] = {
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
    """By how much the second line's density differs from the first's by more than it may, in mg/cm3."""
    hu = (bmd_mg_cm3 - first.intercept) / first.slope
    known = hypot(*(0.0 if one.uncertainty is None else one.uncertainty.at(hu) for one in (first, second)))
    return abs(second.bmd(hu) - bmd_mg_cm3) - max(AGREE_MG_CM3, AGREE_SHARE * bmd_mg_cm3) - 1.96 * known


def _line(reading: PhantomReading, model: PhantomModel) -> Calibration | None:
    try:
        return calibrate(
            method=model.method,
            phantom=model.name,
            equivalent=model.equivalent,
            rods=reading.rods,
            rules=model.rules,
        )
    except CalibrationImpossible:
        return None


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
