"""Scanner quality: which phantom readings are kept, which studies hold nothing but a phantom, what drifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase

from config.settings import QualitySettings
from node.pipeline.ports import ScannerHistory
from node.pipeline.selection import SelectionArtefact
from node.report import SeriesFacts
from scoring.calibration import Calibration
from scoring.quality_control import ChartRules, Protocol, ScannerReading, drift_observations
from scoring.scan_technique import ScanTechnique
from segmentation.observation import Observation


def chart_rules(settings: QualitySettings) -> ChartRules:
    return ChartRules(
        baseline_readings=settings.baseline_readings,
        limit_sigmas=settings.limit_sigmas,
        cusum_k=settings.cusum_k,
        cusum_h=settings.cusum_h,
        minimum_slope_cv=settings.minimum_slope_cv,
        minimum_water_sd_hu=settings.minimum_water_sd_hu,
    )


def reading_of(
    selection: SelectionArtefact, calibration: Calibration | None, *, doubted: bool
) -> ScannerReading | None:
    """What the study's phantom says of its scanner; None where the headers tell neither which nor when.

    Parameters
    ----------
    calibration : by the phantom in this very image.
    doubted : whether something is to be said against it; it is charted, but not lent to other studies.
    """
    series, phantom, taken_on = selection.series, selection.phantom, selection.study.study_date
    if calibration is None or series is None or phantom is None or taken_on is None:
        return None
    if not series.device_serial or series.kvp is None:
        return None
    water = next((rod.hu_mean for rod in calibration.rods if rod.density_mg_cm3 == 0.0), None)
    return ScannerReading(
        protocol=Protocol(
            device_serial=series.device_serial,
            kvp=series.kvp,
            kernel=series.kernel,
            phantom=calibration.phantom,
            phantom_serial=calibration.phantom_serial,
        ),
        model=series.model,
        taken_on=taken_on,
        slope=calibration.slope,
        intercept=calibration.intercept,
        water_hu=-calibration.intercept / calibration.slope if water is None else water,
        r2=calibration.r2,
        tilt_degrees=phantom.tilt_degrees,
        taken_at=series.acquisition_time,
        technique=technique_of(series),
        calibration=None if doubted else calibration,
    )


def technique_of(series: SeriesFacts) -> ScanTechnique:
    """What of a series decides, beside its protocol, whether an earlier phantom scan may calibrate it."""
    return ScanTechnique(
        spectral_filter=series.spectral_filter,
        energy=series.energy,
        reconstruction=series.reconstruction,
        table_height_mm=series.table_height_mm,
        field_of_view_mm=series.field_of_view_mm,
    )


def watch_scanner(
    history: ScannerHistory,
    selection: SelectionArtefact,
    calibration: Calibration | None,
    settings: QualitySettings,
    *,
    doubted: bool,
) -> tuple[Observation, ...]:
    """Keep this study's reading and say what drifts with it: `scanner_drift`; see `reading_of`."""
    reading = reading_of(selection, calibration, doubted=doubted)
    if reading is None or selection.series is None:
        return ()
    history.keep(selection.study.study_instance_uid, selection.series.series_instance_uid, reading)
    earlier = since_baseline(history.readings(reading.protocol.device_serial), settings.baseline_from)
    upto = [one for one in earlier if one.protocol == reading.protocol and one.taken_on <= reading.taken_on]
    return drift_observations(upto, chart_rules(settings))


def since_baseline(
    readings: Sequence[ScannerReading], baseline_from: Mapping[str, date]
) -> tuple[ScannerReading, ...]:
    """Without readings from before the day on which a site began a scanner's baseline anew."""
    return tuple(
        one for one in readings if one.taken_on >= baseline_from.get(one.protocol.device_serial, date.min)
    )


def is_declared_phantom(patient_id: str, settings: QualitySettings) -> bool:
    """Whether a site scans phantoms under this Patient ID."""
    return any(fnmatchcase(patient_id, pattern) for pattern in settings.phantom_patient_ids)
