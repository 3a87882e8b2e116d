"""Comparison of a judged study with earlier ones of the same patient."""

from __future__ import annotations

from config.settings import Settings
from node.pipeline.artefacts import from_json, to_json
from node.pipeline.assessment import Judgement
from node.pipeline.ports import PatientHistory
from node.report import SeriesFacts, StudyIdentity
from scoring.calibration import Calibration, Grade
from scoring.followup import NO_PHANTOM, Conditions, FollowUp, Scan, follow_up
from segmentation.vertebrae import EngineInfo

_LEVELS_DOUBTED = frozenset({"level_unconfirmed", "numbering_conflict", "level_implausible"})
_CONTRAST = frozenset({"contrast_given", "contrast_doubtful", "contrast_suspected"})


def scan_of(
    judgement: Judgement,
    *,
    study: StudyIdentity,
    series: SeriesFacts,
    calibration: Calibration,
    engine: EngineInfo,
    settings: Settings,
) -> Scan | None:
    """What of this study a later one may be compared with; None without date or density."""
    densities = {
        level.name: level.measured.bmd_mg_cm3
        for level in judgement.levels
        if level.measured is not None and level.measured.bmd_mg_cm3 is not None
    }
    if study.study_date is None or not densities:
        return None
    codes = {finding.code for finding in judgement.findings}
    return Scan(
        study_instance_uid=study.study_instance_uid,
        taken_on=study.study_date,
        conditions=Conditions(
            device_serial=series.device_serial,
            model=series.model,
            kvp=series.kvp,
            equivalent=calibration.equivalent,
            phantom=calibration.phantom_named,
            method=calibration.method,
            rules_sha256=settings.measurement_sha256,
            engine=" ".join(part for part in (engine.name, engine.version, engine.weights_sha256) if part),
            spectral_filter=series.spectral_filter,
            energy=series.energy,
            kernel=series.kernel,
            reconstruction=series.reconstruction,
            phantom_sha256=NO_PHANTOM if calibration.grade is Grade.INTERNAL else calibration.phantom_sha256,
        ),
        densities_mg_cm3=densities,
        levels_confirmed=not codes & _LEVELS_DOUBTED,
        contrast=bool(codes & _CONTRAST),
    )


def compare_and_keep(
    history: PatientHistory, scan: Scan, study: StudyIdentity, settings: Settings
) -> FollowUp | None:
    """The change since the patient's earlier study; then this one is kept for the next."""
    whose = {"patient_id": study.patient_id, "issuer": study.issuer_of_patient_id}
    priors = [from_json(Scan, content.encode()) for content in history.of_patient(**whose)]
    history.keep(
        study_instance_uid=scan.study_instance_uid,
        taken_on=scan.taken_on,
        content=to_json(scan).decode(),
        **whose,
    )
    return follow_up(
        scan,
        priors,
        lsc_mg_cm3=settings.followup.lsc_mg_cm3 or None,
        accept_unstated=settings.followup.accept_unstated,
    )
