"""Calibration of a study without a phantom by a prior scan of a phantom on the same scanner.

A prior reading is used only where everything that affects HU is the same: the scanner by its serial number,
tube voltage, spectral filter, energy type, kernel and reconstruction exactly, table height and field of view
within a tolerance. With a scan of another tube voltage the error was 3.8 +- 28.2 % (Skornitzke et al. 2022):
no setting allows that. The effect of another body in the beam is in no header and not in the stated
uncertainty: published accuracy with the European Spine Phantom is 1.4 to 6.7 % (PMC5524691).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import sqrt

import numpy as np
from scipy.special import ndtri, stdtrit

from scoring.calibration import Calibration, Grade, LineUncertainty, combined_uncertainty
from scoring.calibration.control_charts import (
    QUANTITIES,
    SIGNALS,
    ScannerReading,
    comparable_groups,
    same_technique,
    scanner_charts,
)
from scoring.calibration.spectrum import ScanTechnique, technique_differences
from scoring.settings import ChartSettings, PriorScanSettings
from segmentation.phrase import Phrase, Value, listed, phrase
from segmentation.vertebrae import Observation

BY_PRIOR_SCAN = "asynchronous "  # before the method by which the earlier scan was calibrated
_END_OF_DAY = "235959.999999"


@dataclass(frozen=True, slots=True, kw_only=True)
class UncalibratedStudy:
    """A study without a phantom in view.

    Attributes
    ----------
    model : the scanner's model.
    taken_at : HHMMSS[.ffffff], "" where it is not stated.
    phantoms : SHA-256 of today's description of each phantom model that the site measures with: a calibration
        by a certificate that was corrected later is not used.
    """

    device_serial: str
    model: str
    kvp: float | None
    kernel: str
    technique: ScanTechnique
    taken_on: date | None
    taken_at: str
    phantoms: Mapping[str, str]


def calibrate_by_prior_scan(
    study: UncalibratedStudy,
    history: Sequence[ScannerReading],
    *,
    rules: PriorScanSettings,
    charts: ChartSettings,
) -> tuple[Calibration | None, Observation]:
    """The calibration by the latest fitting reading, with an observation.

    Readings later than the study never count: they would change numbers that may have been sent already. Of
    the same day only a reading that was certainly taken earlier is used; one that failed a check or shows a
    drift counts unless it was certainly taken later.

    Parameters
    ----------
    history : of any scanners, in any order, without readings from before a scanner's latest service.

    Returns
    -------
    The calibration and `asynchronous_calibration`, with its date and age; or None and `asynchronous_missing`,
    with the reason.
    """
    of_scanner = [one for one in history if _of_its_scanner(one, study)]
    known = [one for one in of_scanner if _is_earlier(one, study)]
    reason = _unusable(study, of_scanner, known)
    if reason is not None:
        return None, _missing(reason)
    misfits = {number: _differences(study, one, rules) for number, one in enumerate(known)}
    fitting = [one for number, one in enumerate(known) if not misfits[number]]
    if not fitting:
        nearest = min(misfits, key=lambda number: (len(misfits[number]), -_order(known[number])))
        day, differences = str(known[nearest].taken_on), listed(misfits[nearest])
        return None, _missing(phrase("nearest-differs", date=day, differences=differences))
    prior = max(fitting, key=lambda one: (one.taken_on, one.taken_at))
    possibly_earlier = [one for one in of_scanner if _is_earlier(one, study) is not False]
    doubt = (
        _failure_since(prior, possibly_earlier)
        or _drift(prior, known, rules, charts)  # what was perhaps taken later clears no drift
        or _drift(prior, possibly_earlier, rules, charts)
    )
    if doubt is not None:
        return None, _missing(doubt)
    assert prior.calibration is not None, "a reading without a calibration differs"
    assert study.taken_on is not None, "a study without a date has no earlier reading"
    return _from_prior(prior.calibration, prior, known, rules), Observation(
        code="asynchronous_calibration",
        values={
            "phantom": prior.calibration.phantom,
            "date": str(prior.taken_on),
            "age_days": (study.taken_on - prior.taken_on).days,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorScanUse:
    """How long a reading may calibrate studies of the same technique, as known today.

    Attributes
    ----------
    until : the last day; None where the reading calibrates no study.
    reason : why it calibrates no study.
    """

    until: date | None
    reason: Value = ""


def prior_scan_use(
    readings: Sequence[ScannerReading],
    history: Sequence[ScannerReading],
    phantoms: Mapping[str, str],
    *,
    rules: PriorScanSettings,
    charts: ChartSettings,
) -> PriorScanUse:
    """Whether, and until when, a study made like the latest of some readings would be calibrated by them.

    Parameters
    ----------
    readings : of one group (`comparable_groups`), oldest first.
    history : of any scanners, as for `calibrate_by_prior_scan`.
    phantoms : as in `UncalibratedStudy`.
    """
    able = [one for one in readings if one.calibration is not None and one.technique is not None]
    if not able:
        if any(one.technique is not None and one.technique.single_slice for one in readings):
            return PriorScanUse(until=None, reason=phrase("single-slices-not-used"))
        return PriorScanUse(until=None, reason=phrase("no-passed-reading"))
    latest = able[-1]
    assert latest.technique is not None, "chosen so"
    found, observation = calibrate_by_prior_scan(
        UncalibratedStudy(
            device_serial=latest.protocol.device_serial,
            model=latest.model,
            kvp=latest.protocol.kvp,
            kernel=latest.protocol.kernel,
            technique=latest.technique,
            taken_on=latest.taken_on + timedelta(days=rules.max_age_days),
            taken_at=_END_OF_DAY,
            phantoms=phantoms,
        ),
        history,
        rules=rules,
        charts=charts,
    )
    if found is None or found.scanned_on is None:
        return PriorScanUse(until=None, reason=observation.values["reason"])
    return PriorScanUse(until=found.scanned_on + timedelta(days=rules.max_age_days))


def _missing(reason: Value) -> Observation:
    return Observation(code="asynchronous_missing", values={"reason": reason})


def _order(reading: ScannerReading) -> int:
    return reading.taken_on.toordinal()


def _unusable(
    study: UncalibratedStudy, of_scanner: Sequence[object], known: Sequence[object]
) -> Phrase | None:
    """Why no reading is comparable with this study; None where some are."""
    scanner = f"{study.model} {study.device_serial}".strip()
    reasons = {
        phrase("serial-not-stated"): not study.device_serial,
        phrase("kvp-not-stated"): study.kvp is None,
        phrase("kernel-not-stated"): not study.kernel,
        phrase("study-without-date"): study.taken_on is None,
        phrase("no-reading", scanner=scanner): not of_scanner,
        phrase("no-earlier-reading", scanner=scanner): not known,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _of_its_scanner(reading: ScannerReading, study: UncalibratedStudy) -> bool:
    """Serial numbers are unique only together with the scanner's model."""
    scanner = study.device_serial, study.model
    return bool(study.device_serial) and (reading.protocol.device_serial, reading.model) == scanner


def _before(day: date, time: str, other_day: date, other_time: str) -> bool | None:
    """Whether one moment precedes another; None on the same day where a time is not stated."""
    if day != other_day:
        return day < other_day
    return time < other_time if time and other_time else None


def _is_earlier(reading: ScannerReading, study: UncalibratedStudy) -> bool | None:
    if study.taken_on is None:
        return False
    return _before(reading.taken_on, reading.taken_at, study.taken_on, study.taken_at)


def _differences(study: UncalibratedStudy, reading: ScannerReading, rules: PriorScanSettings) -> list[Value]:
    """Why this reading cannot calibrate this study; empty where it can."""
    protocol, technique = reading.protocol, reading.technique
    found: list[Value] = []
    if protocol.kvp != study.kvp:
        found.append(phrase("differs-kvp", kvp=f"{protocol.kvp:g}"))
    if protocol.kernel != study.kernel:
        found.append(phrase("differs-kernel", kernel=protocol.kernel or phrase("not-stated")))
    if protocol.phantom not in study.phantoms:
        found.append(phrase("differs-phantom", phantom=protocol.phantom))
    elif reading.calibration is None:
        found.append(_why_unsound(reading))
    elif reading.calibration.phantom_sha256 != study.phantoms[protocol.phantom]:
        found.append(phrase("phantom-described-otherwise"))
    if technique is None:
        found.append(phrase("technique-not-kept"))
    else:
        found += technique_differences(study.technique, technique, rules)
        found += _unstated(study.technique, technique)
    if study.taken_on is not None and study.taken_on - reading.taken_on > timedelta(days=rules.max_age_days):
        expired = reading.taken_on + timedelta(days=rules.max_age_days + 1)
        found.append(phrase("expired-on", date=str(expired)))
    return found


def _why_unsound(reading: ScannerReading) -> Phrase:
    if reading.findings:
        return phrase("phantom-failed-checks", codes=", ".join(reading.findings))
    return phrase("phantom-failed")


def _unstated(study: ScanTechnique, reading: ScanTechnique) -> list[Value]:
    """Lengths that neither header states: control charts accept such readings, calibration does not."""
    lengths = {
        phrase("table-height"): (study.table_height_mm, reading.table_height_mm),
        phrase("field-of-view"): (study.field_of_view_mm, reading.field_of_view_mm),
    }
    return [
        phrase("quantity-not-stated", quantity=name) for name, both in lengths.items() if both == (None, None)
    ]


def _failure_since(prior: ScannerReading, readings: Sequence[ScannerReading]) -> Phrase | None:
    """A finding against a phantom on this scanner since the prior scan; None where there is none.

    Of the same day, only readings certainly taken before the prior scan are ignored.
    """
    for one in readings:
        if one.findings and not _before(one.taken_on, one.taken_at, prior.taken_on, prior.taken_at):
            return phrase("failed-check-since", date=str(one.taken_on), codes=", ".join(one.findings))
    return None


def _drift(
    prior: ScannerReading, known: Sequence[ScannerReading], rules: PriorScanSettings, charts: ChartSettings
) -> Phrase | None:
    """The chart that is out of control now, or was since the day of the prior scan; None where none is.

    All protocols share tube and detector: drift of one casts doubt on all, and only the same chart shows its
    end.
    """
    for group in comparable_groups(known, rules):
        readings = group.charted
        for chart in scanner_charts(readings, charts):
            for reading, point in zip(readings, chart.points, strict=True):
                lasts = reading is readings[-1]
                if point.signal is not None and (lasts or reading.taken_on >= prior.taken_on):
                    told = phrase(
                        "scanner-drifts",
                        kvp=f"{group.protocol.kvp:g}",
                        quantity=QUANTITIES[chart.quantity],
                        signal=SIGNALS[point.signal],
                        date=str(reading.taken_on),
                    )
                    return phrase("scanner-drifts-still", drift=told) if lasts else told
    return None


def _from_prior(
    earlier: Calibration, prior: ScannerReading, known: Sequence[ScannerReading], rules: PriorScanSettings
) -> Calibration:
    """The prior scan's line, named as such, with the uncertainty by drift.

    Rods keep their HU, but not their places, which belong to another image.
    """
    # With and without a patient: how far a body moves the line belongs to its spread.
    alike = [one for one in known if one.charted and same_technique(prior, one, rules)]
    drift = drift_uncertainty(earlier, alike, rules)
    return replace(
        earlier,
        method=f"{BY_PRIOR_SCAN}{earlier.method}",
        grade=Grade.ASYNCHRONOUS,
        rods=tuple(replace(rod, axis_points_mm=()) for rod in earlier.rods),
        uncertainty=None if earlier.uncertainty is None else combined_uncertainty(earlier.uncertainty, drift),
        scanned_on=prior.taken_on,
    )


def drift_uncertainty(
    earlier: Calibration, readings: Sequence[ScannerReading], rules: PriorScanSettings
) -> LineUncertainty:
    """Uncertainty of a scanner's line since the prior scan, by the scatter of its own lines.

    The line now and the line then are two draws from the same distribution: their difference has twice its
    variance, multiplied by the square of Student's t over the normal's quantile for the number of readings.
    The scatter includes the rods' noise, which is therefore counted once more than necessary.

    Parameters
    ----------
    readings : of the prior's technique, and charted. Below `minimum_readings` the settings' usual values
        replace them.
    """
    if len(readings) < rules.minimum_readings:
        water_hu = -earlier.intercept / earlier.slope
        return LineUncertainty(
            pivot_hu=water_hu,
            bmd_mg_cm3=sqrt(2) * abs(earlier.slope) * rules.unknown_water_hu,
            slope=sqrt(2) * abs(earlier.slope) * rules.unknown_slope_percent / 100,
        )
    lines = np.array([(one.slope, one.intercept) for one in readings])
    freedom = len(readings) - 1
    widened = 2 * (float(stdtrit(freedom, 0.975)) / float(ndtri(0.975))) ** 2  # few readings tell little
    (slopes, both), (_, intercepts) = widened * np.cov(lines, rowvar=False)
    if slopes <= 0.0:
        return LineUncertainty(pivot_hu=0.0, bmd_mg_cm3=sqrt(max(0.0, intercepts)), slope=0.0)
    # Variance at h: slopes h^2 + 2 both h + intercepts, least at h = -both / slopes.
    return LineUncertainty(
        pivot_hu=float(-both / slopes),
        bmd_mg_cm3=sqrt(max(0.0, float(intercepts - both**2 / slopes))),
        slope=sqrt(float(slopes)),
    )
