"""Which calibration a study gets: by the phantom in its image, or by what a site allows without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from config.settings import Settings
from node.pipeline.calibration_rules import internal_rules, lending_rules
from node.pipeline.ports import ScannerHistory
from node.pipeline.scanner import (
    chart_rules,
    scanned_at,
    shows_phantom,
    since_baseline,
    suspected_phantom,
    technique_of,
)
from node.pipeline.selection import SelectionArtefact
from node.report import SeriesFacts
from scoring.asynchronous import Borrower, borrow
from scoring.calibration import Calibration
from scoring.errors import CalibrationImpossible
from scoring.internal import INTERNAL, internal_calibration
from scoring.phantom_choice import calibration_of
from scoring.phantom_model import PhantomModel
from scoring.spectrum import CONVENTIONAL_SPECTRUM, spectrum_differences
from scoring.tissues import read_tissues
from segmentation.observation import Observation
from segmentation.vertebrae import Vertebrae
from segmentation.volume import CtVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCalibration:
    """What densities are computed with, and what of it concerns the scanner."""

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
    """The calibration of a volume, and what is to be said of it.

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
    found, noticed = calibration_of(reading, phantoms.get(reading.model), series.beam_kvp)
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
    rules = internal_rules(settings.calibration.internal)
    try:
        if differences := spectrum_differences(series.spectrum, CONVENTIONAL_SPECTRUM):
            raise CalibrationImpossible("internal_impossible", "; ".join(differences))
        if series.contrast_agent and not series.contrast_doubtful:  # else the blood tells, which is needed
            raise CalibrationImpossible("internal_impossible", "contrast medium is documented")
        contrast = settings.segmentation.image
        tissues = read_tissues(volume, vertebrae, rules.sampling, contrast)
        return internal_calibration(tissues, kvp=series.kvp, rules=rules), ()
    except CalibrationImpossible as error:
        return None, (Observation(code=error.code, values={"reason": str(error)}),)


def _borrow(
    selection: SelectionArtefact,
    series: SeriesFacts,
    phantoms: Mapping[str, PhantomModel],
    settings: Settings,
    history: ScannerHistory | None,
) -> tuple[Calibration | None, Observation]:
    if history is None:
        reason = "earlier scans are remembered by a running node only"
        return None, Observation(code="asynchronous_missing", values={"reason": reason})
    kept = history.readings(series.device_serial) if series.device_serial else ()
    taken_on, taken_at = scanned_at(selection.study, series)
    return borrow(
        Borrower(
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
        rules=lending_rules(settings.calibration.asynchronous),
        charts=chart_rules(settings.quality),
    )
