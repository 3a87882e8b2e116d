"""Calibration of a study: by the phantom in its image, or by a method that the site permits without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase

from config.sections import QualitySettings
from config.settings import Settings
from node.pipeline.artefacts import SelectionArtefact
from node.pipeline.ports import ScannerHistory
from node.study_report import SeriesFacts, StudyIdentity
from scoring.calibration import INTERNAL, Calibration
from scoring.calibration.control_charts import Protocol, ScannerReading, comparable_groups, drift_observations
from scoring.calibration.internal import internal_calibration, read_tissues
from scoring.calibration.prior_scan import UncalibratedStudy, calibrate_by_prior_scan
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, ScanTechnique, spectrum_differences
from scoring.errors import CalibrationImpossible
from scoring.phantoms import PhantomModel, PhantomReading
from scoring.phantoms.rod_candidates import find_rod_candidates
from scoring.phantoms.rod_reading import calibrate_from_reading, line_without_limits
from segmentation.ct_volume import CtVolume
from segmentation.phrase import clauses, phrase
from segmentation.vertebrae import Observation, Vertebrae

# Scanner quality: which phantom readings are kept, which studies hold nothing but a phantom, what drifts.


def shows_phantom(reading: PhantomReading) -> bool:
    """Whether any part of a phantom was found, usable or not."""
    return bool(reading.rods) or any(one.code != "phantom_not_found" for one in reading.observations)


def suspected_phantom(volume: CtVolume, reading: PhantomReading) -> Observation | None:
    """`phantom_suspected` where none was found and something looks like a rod; None otherwise.

    A phantom may read so far off, or be of such a model, that it is not found.
    """
    objects = () if shows_phantom(reading) else find_rod_candidates(volume)
    if not objects:
        return None
    x, y, z = objects[0].centre_mm
    values: dict[str, str | int | float] = {
        "objects": len(objects),
        "diameter_mm": f"{objects[0].diameter_mm:.0f}",
        "place": f"x {x:.0f}, y {y:.0f}, z {z:.0f} mm",
    }
    return Observation(code="phantom_suspected", values=values)


def scanned_at(study: StudyIdentity, series: SeriesFacts) -> tuple[date | None, str]:
    """Day and time of a series, "" where the time cannot be told; None without a StudyDate.

    AcquisitionTime goes with AcquisitionDate: past midnight that is the day after StudyDate (DICOM PS3.3,
    C.7.2.1 and C.7.6.1), and time of day alone tells no order. A day that is neither was set by something
    else than the scanner, as by a tool that makes studies anonymous, and so, perhaps, was the time.
    """
    began, acquired = study.study_date, series.acquisition_date
    if began is None or acquired is None or not timedelta(0) <= acquired - began <= timedelta(days=1):
        return began, ""
    return acquired, series.acquisition_time


def reading_of(
    study: StudyIdentity,
    series: SeriesFacts,
    phantom: PhantomReading,
    model: PhantomModel | None,
    *,
    alone: bool = False,
    declared: bool = False,
    suspected: Observation | None = None,
) -> ScannerReading | None:
    """Reading of a study's phantom for the scanner's chart, usable for calibration or not.

    Parameters
    ----------
    series : of the volume, or of one single slice.
    phantom : what was found in it.
    model : that of `phantom`; None where none could be told.
    alone : whether no patient was in the beam.
    declared : whether a site says that a phantom was scanned: then one that is not found has failed.
    suspected : see `suspected_phantom`; such a one has failed as well.

    Returns
    -------
    ScannerReading or None
        None where the headers tell neither which scanner nor when, or where nothing in the image looks like
        a phantom.
    """
    taken_on, taken_at = scanned_at(study, series)
    if taken_on is None or not series.device_serial or series.kvp is None:
        return None
    if not (declared or suspected or shows_phantom(phantom)):
        return None
    calibration, noticed = calibrate_from_reading(phantom, model, series.beam_kvp)
    line = calibration or line_without_limits(phantom, model)
    against = (*noticed, suspected) if suspected else noticed
    return ScannerReading(
        protocol=Protocol(
            device_serial=series.device_serial,
            kvp=series.kvp,
            kernel=series.kernel,
            phantom="" if model is None else model.name,
            phantom_serial="" if model is None else model.serial,
        ),
        model=series.model,
        taken_on=taken_on,
        slope=None if line is None else line.slope,
        intercept=None if line is None else line.intercept,
        water_hu=_water_hu(phantom, line),
        r2=None if line is None else line.r2,
        tilt_degrees=phantom.tilt_degrees,
        taken_at=taken_at,
        technique=technique_of(series),
        # Of single slices each is calibrated by its own rods, and by nothing else.
        calibration=None if against or series.slice_spacing_mm is None else calibration,
        equivalent=None if model is None else model.equivalent,
        findings=tuple(dict.fromkeys(one.code for one in against)),
        failed=calibration is None,
        alone=alone,
    )


def _water_hu(phantom: PhantomReading, line: Calibration | None) -> float | None:
    """Of the water rod; without one, the HU at which the line gives no mineral."""
    of_rod = next((rod.hu_mean for rod in phantom.rods if rod.density_mg_cm3 == 0.0), None)
    if of_rod is not None or line is None:
        return of_rod
    return -line.intercept / line.slope


def technique_of(series: SeriesFacts) -> ScanTechnique:
    """Technique of a series that changes HU, besides scanner, tube voltage and kernel."""
    return ScanTechnique(
        spectral_filter=series.spectral_filter,
        energy=series.energy,
        reconstruction=series.reconstruction,
        table_height_mm=series.table_height_mm,
        field_of_view_mm=series.field_of_view_mm,
        single_slice=series.slice_spacing_mm is None,
    )


def record_scanner_readings(
    history: ScannerHistory,
    study_instance_uid: str,
    readings: Mapping[str, ScannerReading | None],
    settings: Settings,
) -> tuple[Observation, ...]:
    """Store a study's phantom readings, and report drift as `scanner_drift`.

    Where a series gives no reading any more, what an earlier generation of the study read in it is forgotten.
    A reading that failed a check is kept and says nothing more: the study already tells what is wrong.

    Parameters
    ----------
    readings : by the UID of their series, or of their image in single-slice QCT; see `reading_of`.
    """
    noticed: list[Observation] = []
    for source_uid, reading in readings.items():
        if reading is None:
            history.forget(source_uid)
            continue
        history.keep(study_instance_uid, source_uid, reading)
        if reading.charted:
            noticed += _drift_with(history, reading, settings)
    return tuple(noticed)


def _drift_with(
    history: ScannerHistory, reading: ScannerReading, settings: Settings
) -> tuple[Observation, ...]:
    kept = since_baseline(history.readings(reading.protocol.device_serial), settings.quality.baseline_from)
    upto = [one for one in kept if one.order <= reading.order]
    groups = comparable_groups(upto, settings.calibration.asynchronous)
    own = next((group for group in groups if reading in group.readings), None)
    return () if own is None else drift_observations(own.readings, settings.quality)


def since_baseline(
    readings: Sequence[ScannerReading], baseline_from: Mapping[str, date]
) -> tuple[ScannerReading, ...]:
    """Readings since the date on which the site restarted the scanner's baseline."""
    return tuple(
        one for one in readings if one.taken_on >= baseline_from.get(one.protocol.device_serial, date.min)
    )


def is_declared_phantom(patient_id: str, settings: QualitySettings) -> bool:
    """Whether the site declares this Patient ID as a phantom's."""
    return any(fnmatchcase(patient_id, pattern) for pattern in settings.phantom_patient_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCalibration:
    """Calibration of a study, and its reading for the scanner's chart."""

    used: Calibration | None
    observations: tuple[Observation, ...]
    suspected: Observation | None = None  # a phantom that was not found, where scanners are remembered


def calibrate_study(
    volume: CtVolume,
    vertebrae: Vertebrae,
    selection: SelectionArtefact,
    phantoms: Mapping[str, PhantomModel],
    *,
    settings: Settings,
    history: ScannerHistory | None,
) -> StudyCalibration:
    """Calibration of a volume, with its observations.

    Internal calibration takes place where a site has chosen it, and nowhere else: nothing falls back on it.
    A phantom that is in view but failed a check is never replaced by an earlier scan: what made it fail may
    be the scan itself. Only a study in which no phantom was found borrows, and only where nothing looks like
    a rod. That is looked for whether or not anything would be lent: it concerns the scanner, too.

    Parameters
    ----------
    selection : of a volume, in which a phantom was looked for.
    phantoms : the models that the study may show, by name.
    history : what phantoms read on the site's scanners; None where nothing is remembered.
    """
    series, reading = selection.series, selection.phantom
    assert series is not None, "a volume is measured"
    assert reading is not None, "a phantom was looked for in it"
    found, noticed = calibrate_from_reading(reading, phantoms.get(reading.model), series.beam_kvp)
    noticed = (*noticed, *reading.remarks) if found is not None else noticed
    suspected = None if history is None else suspected_phantom(volume, reading)
    used, observations = found, noticed
    if settings.calibration.method == INTERNAL:
        used, observations = _by_tissues(volume, vertebrae, series, settings)
    elif suspected is not None:
        observations = (*noticed, suspected)
    elif settings.calibration.asynchronous.enabled and not shows_phantom(reading):
        used, said = _borrow(selection, series, phantoms, settings, history)
        observations = (said,) if used is not None else (*noticed, said)
    return StudyCalibration(used=used, observations=tuple(observations), suspected=suspected)


def _by_tissues(
    volume: CtVolume, vertebrae: Vertebrae, series: SeriesFacts, settings: Settings
) -> tuple[Calibration | None, tuple[Observation, ...]]:
    """`internal_calibration` is said where scores are judged, which must not rest on the caller's memory."""
    rules = settings.calibration.internal
    try:
        if differences := spectrum_differences(series.spectrum, CONVENTIONAL_SPECTRUM):
            raise CalibrationImpossible("internal_impossible", clauses(differences))
        if series.contrast_agent and not series.contrast_doubtful:  # else the blood tells, which is needed
            raise CalibrationImpossible("internal_impossible", phrase("contrast-documented"))
        contrast = settings.segmentation.image
        tissues = read_tissues(volume, vertebrae, rules.sampling, contrast)
        return internal_calibration(tissues, kvp=series.kvp, rules=rules), ()
    except CalibrationImpossible as error:
        return None, (Observation(code=error.code, values={"reason": error.reason}),)


def _borrow(
    selection: SelectionArtefact,
    series: SeriesFacts,
    phantoms: Mapping[str, PhantomModel],
    settings: Settings,
    history: ScannerHistory | None,
) -> tuple[Calibration | None, Observation]:
    if history is None:
        reason = phrase("history-missing")
        return None, Observation(code="asynchronous_missing", values={"reason": reason})
    kept = history.readings(series.device_serial) if series.device_serial else ()
    taken_on, taken_at = scanned_at(selection.study, series)
    return calibrate_by_prior_scan(
        UncalibratedStudy(
            device_serial=series.device_serial,
            model=series.model,
            kvp=series.kvp,
            kernel=series.kernel,
            technique=technique_of(series),
            taken_on=taken_on,
            taken_at=taken_at,
            phantoms={model.name: model.sha256 for model in phantoms.values()},
        ),
        since_baseline(kept, settings.quality.baseline_from),
        rules=settings.calibration.asynchronous,
        charts=settings.quality,
    )
