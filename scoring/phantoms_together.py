"""Several phantoms of one model in one image: which is read, and whether they agree.

Each row of rods in view is read and judged by itself. Of those that pass every check the one farthest to the
back is taken, where calibration phantoms lie in use, unless another gives other densities: then neither can
be believed more than the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from statistics import mean

from scoring.calibration import Calibration, calibrate
from scoring.errors import CalibrationImpossible
from scoring.phantom_model import PhantomModel, PhantomReading
from segmentation.observation import Observation

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
