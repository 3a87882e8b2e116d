"""`result.json`: the report as the command line's contract writes it. Absent is null, with a finding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from node.study_report import Completeness, LevelResult, Report, SliceResult
from scoring.calibration import Calibration
from scoring.density.bmd import BmdResult
from scoring.density.follow_up import FollowUp

SCHEMA_VERSION = "1.0"


def result_document(report: Report, timings_s: Mapping[str, float]) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "outcome": report.outcome.value,
        "issued_at": report.issued_at.isoformat(),
        "study": _study(report),
        "series": _series(report),
        "levels": {level.name: _level(level, report.calibration) for level in report.levels},
        "unnamed": [_slice(one) for one in report.unnamed],
        "numbering": {"confirmed": report.numbering_confirmed, "basis": report.numbering_basis},
        "calibration": _calibration(report.calibration),
        "t_score": report.t_score.value if report.t_score else None,
        "z_score": report.z_score.value if report.z_score else None,
        "categories": _categories(report),
        "rad_score": report.rad_score.value if report.rad_score else None,
        "features": dict(report.features) if report.features is not None else None,
        "nomogram": _nomogram(report),
        "laboratory": _laboratory(report),
        "follow_up": _follow_up(report.follow_up),
        "completeness": _completeness(report.completeness),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "text": finding.text,
                "level": finding.level,
                "withholds": sorted(finding.withholds),
            }
            for finding in report.findings
        ],
        "provenance": _provenance(report),
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
    }


def to_text(document: Mapping[str, Any]) -> str:
    """The document as it is written to a file. A NaN or infinity is an error, not a value."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _study(report: Report) -> dict[str, Any]:
    study = report.study
    return {
        "study_instance_uid": study.study_instance_uid or None,
        "patient_id": study.patient_id or None,
        "issuer_of_patient_id": study.issuer_of_patient_id or None,
        "accession_number": study.accession_number or None,
        "study_date": study.study_date.isoformat() if study.study_date else None,
        "age_years": study.age_years,
        "sex": study.sex or None,
    }


def _series(report: Report) -> dict[str, Any] | None:
    rejected = [
        {"series_instance_uid": series.series_instance_uid or None, "reason": series.reason}
        for series in report.rejected
    ]
    facts = report.series
    if facts is None:
        return {"series_instance_uid": None, "rejected": rejected}
    return {
        "series_instance_uid": facts.series_instance_uid or None,
        "instances": facts.instances,
        "kvp": facts.kvp,
        "slice_thickness_mm": facts.slice_thickness_mm,
        "slice_spacing_mm": facts.slice_spacing_mm,
        "pixel_spacing_mm": list(facts.pixel_spacing_mm),
        "kernel": facts.kernel or None,
        "manufacturer": facts.manufacturer or None,
        "model": facts.model or None,
        "device_serial": facts.device_serial or None,
        "measured_pass": asdict(facts.measured_pass) if facts.measured_pass else None,
        "rejected": rejected,
    }


def _level(level: LevelResult, calibration: Calibration | None) -> dict[str, Any]:
    read = level.measured
    return {
        "complete": level.complete,
        "centroid_mm": list(level.centroid_mm),
        "volume_mm3": level.volume_mm3,
        "core_volume_mm3": level.core_volume_mm3,
        "region": read.region.value if read else None,
        "equivalent": calibration.equivalent.value if calibration else None,
        **_read(read),
        "ellipse": _read(level.ellipse) if level.ellipse else None,
    }


def _read(read: BmdResult | None) -> dict[str, Any]:
    """What one region reads; null where nothing was measured, or where it is withheld."""
    return {
        "hu_mean": read.hu_mean if read else None,
        "hu_sd": read.hu_sd if read else None,
        "roi_volume_mm3": read.roi_volume_mm3 if read else None,
        "bmd_mg_cm3": read.bmd_mg_cm3 if read else None,
        "bmd_uncertainty_mg_cm3": read.bmd_uncertainty_mg_cm3 if read else None,
    }


def _slice(one: SliceResult) -> dict[str, Any]:
    """A vertebra without a level name; each slice has a calibration of its own."""
    read = one.measured
    return {
        "name": one.name,
        "sop_instance_uid": one.sop_instance_uid,
        "position_mm": list(one.position_mm),
        "thickness_mm": one.thickness_mm,
        "tilt_degrees": one.tilt_degrees,
        "region_mm2": one.region_mm2,
        "hu_mean": read.hu_mean if read else None,
        "hu_sd": read.hu_sd if read else None,
        "bmd_mg_cm3": read.bmd_mg_cm3 if read else None,
        "bmd_uncertainty_mg_cm3": read.bmd_uncertainty_mg_cm3 if read else None,
        "equivalent": one.calibration.equivalent.value if one.calibration else None,
        "calibration": _calibration(one.calibration),
    }


def _calibration(found: Calibration | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "method": found.method,
        "grade": found.grade.value,
        "phantom": found.phantom,
        "phantom_serial": found.phantom_serial or None,
        "phantom_sha256": found.phantom_sha256 or None,
        "scanned_on": found.scanned_on.isoformat() if found.scanned_on else None,
        "equivalent": found.equivalent.value,
        "slope": found.slope,
        "intercept": found.intercept,
        "r2": found.r2,
        "max_residual_hu": found.max_residual_hu,
        "rods": [
            {
                "name": rod.name,
                "density_mg_cm3": rod.density_mg_cm3,
                "hu_mean": rod.hu_mean,
                "hu_sd": rod.hu_sd,
                "standard_error_hu": rod.hu_standard_error,
                "voxels": rod.voxels,
                "fitted": rod.name not in found.left_out,
            }
            for rod in found.rods
        ],
        "tissues": [{"name": one.name, "hu": one.hu, "volume_cm3": one.volume_cm3} for one in found.tissues],
        "effective_kev": found.effective_kev,
    }


def _categories(report: Report) -> dict[str, Any]:
    density = report.density
    return {
        "study_class": report.study_class.value if report.study_class else None,
        "density": {
            "category": density.category.value,
            "levels": list(density.levels),
            "mean_mg_cm3": density.mean_mg_cm3,
            "uncertainty_mg_cm3": density.uncertainty_mg_cm3,
            "equivalent": density.equivalent.value,
            "converted_from": density.converted_from.value if density.converted_from else None,
        }
        if density
        else None,
    }


def _nomogram(report: Report) -> dict[str, Any] | None:
    found = report.nomogram
    if found is None:
        return None
    return {
        "total_points": found.total_points,
        "probability": found.probability,
        "positive_class": found.positive_class,
        "inputs": [
            {"name": one.name, "value": one.value, "unit": one.unit, "points": one.points}
            for one in found.inputs
        ],
    }


def _follow_up(found: FollowUp | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "prior_study_instance_uid": found.prior_study_instance_uid,
        "prior_date": found.prior_taken_on.isoformat(),
        "comparable": not found.reasons,
        "reasons": list(found.reasons),
        "lsc_mg_cm3": found.lsc_mg_cm3,
        "equivalent": found.equivalent.value,
        "accepted_unstated": list(found.accepted),
        "levels": {
            one.level: {
                "earlier_mg_cm3": one.earlier_mg_cm3,
                "change_mg_cm3": one.change_mg_cm3,
                "significant": one.significant,
            }
            for one in found.changes
        },
    }


def _completeness(found: Completeness | None) -> dict[str, Any] | None:
    """What showed that the study was whole; null where a folder was processed."""
    if found is None:
        return None
    return {
        "closed_by": found.closed_by.value,
        "archive": found.archive,
        "silent_s": found.silent_s,
        "series": [
            {
                "series_instance_uid": one.series_instance_uid,
                "arrived": one.arrived,
                "archived": one.archived,
            }
            for one in found.series
        ],
    }


def _laboratory(report: Report) -> dict[str, Any]:
    values = report.laboratory
    return {
        "alp_u_l": values.alp_u_l,
        "alp_date": values.alp_taken_on.isoformat() if values.alp_taken_on else None,
        "homocysteine_umol_l": values.homocysteine_umol_l,
        "homocysteine_date": values.homocysteine_taken_on.isoformat()
        if values.homocysteine_taken_on
        else None,
        "source": values.source or None,
    }


def _provenance(report: Report) -> dict[str, Any]:
    source = report.provenance
    engine = source.engine
    return {
        "software": source.software,
        "version": source.version,
        "engine": {
            "name": engine.name,
            "version": engine.version,
            "model_free": engine.model_free,
            "weights_sha256": engine.weights_sha256,
            "parameters": dict(engine.parameters),
        }
        if engine
        else None,
        "phantom": source.phantom,
        "reference": source.reference,
        "model": source.model,
        "model_sha256": source.model_sha256,
        "radiomics_settings_sha256": source.radiomics_settings_sha256,
        "configuration_sha256": source.configuration_sha256,
        "packages": dict(source.packages),
        "begun_again": source.begun_again,
        "predecessor_uid": report.predecessor_uid,
        "predecessor_issued_at": (
            report.predecessor_issued_at.isoformat() if report.predecessor_issued_at else None
        ),
    }
