"""TID 1410 for single slices: a region outlined on its image, of a lumbar vertebra without a level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from highdicom.sr import (
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)

from node.dicom import codes
from node.dicom.algorithms import engine_identification
from node.dicom.slices import DrawnSlice, outline_of
from node.dicom.sr_groups import (
    calibration_grade,
    calibration_measurements,
    calibration_texts,
    density_measurements,
    position_measurements,
)
from node.dicom.sr_items import comment, evaluation, measurement
from node.dicom.uids import derived_uid
from node.report import Outcome, Report, SliceResult

Group: TypeAlias = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def slice_groups(report: Report, slices: Sequence[DrawnSlice]) -> Iterable[Group]:
    """For each slice that was measured: its region with what it reads, and the calibration it rests on."""
    if report.outcome is not Outcome.REPORTED:
        return
    drawn = {one.name: one for one in slices}
    for result in report.unnamed:
        if result.measured is None:
            continue
        yield _region(report, result, drawn[result.name])
        if result.calibration is not None:
            yield _calibration(report, result)


def _region(
    report: Report, result: SliceResult, drawn: DrawnSlice
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    header = drawn.series.headers[0]
    assert drawn.region is not None
    assert result.measured is not None
    measurements = density_measurements(result.measured, result.calibration)
    if result.region_mm2 is not None:
        measurements.append(measurement(codes.AREA, result.region_mm2, codes.MM2))
    measurements += position_measurements(result.position_mm)
    measurements.append(measurement(codes.SLICE_TILT, result.tilt_degrees, codes.DEGREE))
    measurements.append(measurement(codes.SLICE_THICKNESS, result.thickness_mm, codes.MM))
    engine = report.provenance.engine
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(report, result, "region"),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=outline_of(drawn.region[0]),
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=header.SOPClassUID,
                referenced_sop_instance_uid=header.SOPInstanceUID,
            ),
        ),
        finding_type=codes.BONE,
        finding_sites=[FindingSite(anatomic_location=codes.LUMBAR_SPINE)],
        algorithm_id=engine_identification(engine) if engine else None,
        measurements=measurements,
        qualitative_evaluations=[
            evaluation(
                codes.LEVEL_KNOWN,
                codes.LEVEL_UNKNOWN,
                details=[comment(f"{result.name} of single-slice QCT, counted from the head")],
            )
        ],
    )


def _calibration(report: Report, result: SliceResult) -> MeasurementsAndQualitativeEvaluations:
    calibration = result.calibration
    assert calibration is not None
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(report, result, "calibration"),
        measurements=list(calibration_measurements(calibration)),
        qualitative_evaluations=[calibration_grade(calibration)],
    )
    group[0].ContentSequence.extend(calibration_texts(calibration))
    return group


def _tracking(report: Report, result: SliceResult, what: str) -> TrackingIdentifier:
    name = f"{result.name} {what}"
    uid = derived_uid("tracking", report.study.study_instance_uid, result.sop_instance_uid, what)
    return TrackingIdentifier(uid=uid, identifier=name)
