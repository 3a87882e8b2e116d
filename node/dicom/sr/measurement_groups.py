"""The measurement groups of the report, by template of PS3.16.

TID 1411 for the segments of a segmentation, of levels or of lumbar bodies without a name; TID 1410 for single
slices, whose regions are outlined on their images, of a lumbar vertebra without a level; TID 1501 for the
patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from highdicom.sr import (
    AlgorithmIdentification,
    ContentItem,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.coding import Code

from config.findings import Severity
from node.dicom import codes
from node.dicom.codes import engine_identification, model_identification, node_identification
from node.dicom.ct.slice_reading import DrawnSlice, outline_of
from node.dicom.header_text import to_ascii
from node.dicom.seg import PARTS, Part, Segment
from node.dicom.sr.items import (
    CONTAINS,
    PROPERTY,
    comment,
    evaluation,
    measurement,
    modifier,
    number_item,
    text_item,
)
from node.dicom.uids import derived_uid
from node.study_report import EncodedObject, LevelResult, Outcome, Report, SliceResult
from scoring.calibration import Calibration
from scoring.density.bmd import BmdResult, DensityVerdict, ReferenceScore
from scoring.density.follow_up import FollowUp
from scoring.models.card import NEGATIVE_CLASS
from segmentation.vertebrae import is_unnamed

Group: TypeAlias = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def region_groups(report: Report, seg: EncodedObject, segments: Sequence[Segment]) -> Iterable[Group]:
    """TID 1411: one group for each segment that something was measured in.

    Parameters
    ----------
    seg : the finished segmentation.
    segments : what it holds.
    """
    for segment in segments:
        measurements = _segment_measurements(report, segment)
        if not measurements:
            continue
        engine = report.provenance.engine
        algorithm = node_identification(report.provenance)
        if segment.part is Part.BODY and engine is not None:
            algorithm = engine_identification(engine)
        yield VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
            referenced_segment=ReferencedSegment(
                sop_class_uid=seg.sop_class_uid,
                sop_instance_uid=seg.sop_instance_uid,
                segment_number=segment.number,
                source_series=SourceSeriesForSegmentation(
                    report.series.series_instance_uid if report.series else ""
                ),
            ),
            finding_type=codes.BONE,
            finding_sites=[FindingSite(anatomic_location=codes.level_site(segment.level))],
            algorithm_id=algorithm,
            measurements=measurements,
            qualitative_evaluations=_level_unknown(segment.level) if is_unnamed(segment.level) else None,
        )


def _level_unknown(place: str) -> list[QualitativeEvaluation]:
    """States that nothing tells the level of a vertebra."""
    return [
        evaluation(
            codes.LEVEL_KNOWN, codes.LEVEL_UNKNOWN, details=[comment(f"{place}, counted from the head")]
        )
    ]


def _segment_measurements(report: Report, segment: Segment) -> list[Measurement]:
    level = report.level(segment.level)
    if level is None:
        return []
    if segment.part is Part.BODY:
        return _body_measurements(level)
    if segment.part is Part.RADIOMICS:
        return [
            measurement(
                codes.feature_code(name),
                value,
                codes.UNITY,
                details=[modifier(codes.FILTERED_IMAGE, codes.filter_code(name)), comment(name)],
            )
            for name, value in (report.features or {}).items()
        ]
    read = [one for one in (level.measured, level.ellipse) if one and PARTS[one.region] is segment.part]
    return [item for one in read for item in _density_measurements(one, report.calibration, of_level=True)]


def _body_measurements(level: LevelResult) -> list[Measurement]:
    """Volume and centroid of a body; none where the volume is withheld, which makes both unreliable."""
    if level.volume_mm3 is None:
        return []
    items = [measurement(codes.VOLUME, level.volume_mm3, codes.MM3)]
    if level.core_volume_mm3 is not None:
        items.append(measurement(codes.CORE_VOLUME, level.core_volume_mm3, codes.MM3))
    return [*items, *_position_measurements(level.centroid_mm)]


def _position_measurements(position_mm: tuple[float, float, float]) -> list[Measurement]:
    """A point in the patient's coordinates (LPS) as three numbers: not every SR class holds points."""
    return [
        measurement(code, value, codes.MM) for code, value in zip(codes.CENTROID, position_mm, strict=True)
    ]


def _density_measurements(
    measured: BmdResult, calibration: Calibration | None, *, of_level: bool = False
) -> list[Measurement]:
    """HU and, with a calibration, BMD of one region.

    Parameters
    ----------
    of_level : names the region by its code and gives its volume; a single slice's outline shows its own.
    """
    region = [modifier(codes.BMD_REGION, codes.REGIONS[measured.region])] if of_level else []
    items = [
        measurement(codes.ATTENUATION, value, codes.HOUNSFIELD, derivation=derivation)
        for value, derivation in (
            (measured.hu_mean, codes.MEAN),
            (measured.hu_sd, codes.STANDARD_DEVIATION),
        )
    ]
    if of_level:
        items.append(measurement(codes.VOLUME, measured.roi_volume_mm3, codes.MM3, details=region))
    if measured.bmd_mg_cm3 is not None and calibration is not None:
        items.append(
            measurement(
                codes.BMD[calibration.equivalent],
                measured.bmd_mg_cm3,
                codes.MG_PER_CM3,
                uncertainty=measured.bmd_uncertainty_mg_cm3,
                details=[*region, comment("uncertainty is standard (k = 1) and excludes marrow-fat error")],
            )
        )
    return items


def slice_groups(report: Report, slices: Sequence[DrawnSlice]) -> Iterable[Group]:
    """TID 1410: for each measured slice its region with the densities, and TID 1501 for its calibration.

    Parameters
    ----------
    slices : with their masks; one for each slice that the report measured.

    Raises
    ------
    KeyError
        If a measured slice is not among them.
    """
    if report.outcome is not Outcome.REPORTED:
        return
    drawn = {one.name: one for one in slices}
    for result in report.unnamed:
        if result.measured is None:
            continue
        yield _slice_region(report, result, drawn[result.name])
        if (calibration := result.calibration) is not None:
            yield _group(
                _slice_tracking(report, result, "calibration"),
                measurements=list(_calibration_measurements(calibration)),
                evaluations=[_calibration_grade(calibration)],
                extra=_calibration_texts(calibration),
            )


def _slice_region(
    report: Report, result: SliceResult, drawn: DrawnSlice
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    header = drawn.series.headers[0]
    assert drawn.region is not None
    assert result.measured is not None
    measurements = _density_measurements(result.measured, result.calibration)
    if result.region_mm2 is not None:
        measurements.append(measurement(codes.AREA, result.region_mm2, codes.MM2))
    measurements += _position_measurements(result.position_mm)
    measurements.append(measurement(codes.SLICE_TILT, result.tilt_degrees, codes.DEGREE))
    measurements.append(measurement(codes.SLICE_THICKNESS, result.thickness_mm, codes.MM))
    engine = report.provenance.engine
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_slice_tracking(report, result, "region"),
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
        qualitative_evaluations=_level_unknown(f"{result.name} of single-slice QCT"),
    )


def _slice_tracking(report: Report, result: SliceResult, what: str) -> TrackingIdentifier:
    return _tracking(report, f"{result.name} {what}", result.sop_instance_uid, what)


def patient_groups(report: Report) -> Iterable[Group]:
    """TID 1501: groups on the patient and the study as a whole.

    Of a refusal, quality and technique alone.
    """
    reported = report.outcome is Outcome.REPORTED
    yield _group(
        _tracking(report, "quality"),
        evaluations=_quality_evaluations(report),
        algorithm=node_identification(report.provenance),
    )
    own = report.calibration if reported else None
    measurements = [*_technique(report), *(_calibration_measurements(own) if own else ())]
    if measurements:
        yield _group(
            _tracking(report, "calibration and technique"),
            measurements=measurements,
            evaluations=[_calibration_grade(own)] if own else [],
            extra=_technique_texts(report, with_calibration=reported),
        )
    if not reported:
        return
    scores, categories = list(_scores(report)), list(_categories(report))
    if scores or categories:
        yield _group(
            _tracking(report, "density scores and categories"),
            measurements=scores,
            evaluations=categories,
            site=codes.LUMBAR_SPINE,
        )
    model, classes = list(_model_measurements(report)), list(_model_evaluations(report))
    if model:
        yield _group(
            _tracking(report, "rad-score and nomogram"),
            measurements=model,
            evaluations=classes,
            algorithm=model_identification(report.provenance),
            extra=_model_texts(report),
        )
    if laboratory := list(_laboratory(report)):
        yield _group(_tracking(report, "laboratory values and age"), measurements=laboratory)
    if report.follow_up is not None and report.follow_up.changes:
        yield _change_group(report, report.follow_up)


def _change_group(report: Report, found: FollowUp) -> Group:
    """What changed since the earlier study, at each level that both measured; the findings judge it."""
    measurements = []
    for one in found.changes:
        site = codes.LEVELS[one.level]
        for code, value in (
            (codes.PRIOR_DENSITY[found.equivalent], one.earlier_mg_cm3),
            (codes.CHANGE[found.equivalent], one.change_mg_cm3),
        ):
            measurements.append(measurement(code, value, codes.MG_PER_CM3, site=site))
    if found.lsc_mg_cm3:
        measurements.append(measurement(codes.LEAST_CHANGE, found.lsc_mg_cm3, codes.MG_PER_CM3))
    return _group(
        _tracking(report, "change since an earlier study"),
        measurements=measurements,
        extra=[
            UIDRefContentItem(
                name=codes.PRIOR_STUDY, value=found.prior_study_instance_uid, relationship_type=CONTAINS
            ),
            text_item(codes.PRIOR_DATE, found.prior_taken_on.isoformat()),
        ],
    )


def _tracking(report: Report, name: str, *parts: str) -> TrackingIdentifier:
    """The identifier of a group: its UID follows from the study and `parts`, by default the name."""
    uid = derived_uid("tracking", report.study.study_instance_uid, *(parts or (name,)))
    return TrackingIdentifier(uid=uid, identifier=name)


def _group(
    tracking: TrackingIdentifier,
    *,
    measurements: Sequence[Measurement] = (),
    evaluations: Sequence[QualitativeEvaluation] = (),
    algorithm: AlgorithmIdentification | None = None,
    site: Code | None = None,
    extra: Sequence[ContentItem] = (),
) -> MeasurementsAndQualitativeEvaluations:
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        algorithm_id=algorithm,
        finding_sites=[FindingSite(anatomic_location=site)] if site else None,
        measurements=list(measurements),
        qualitative_evaluations=list(evaluations),
    )
    group[0].ContentSequence.extend(extra)
    return group


def _quality_evaluations(report: Report) -> list[QualitativeEvaluation]:
    if report.outcome is Outcome.REFUSED:
        return [evaluation(codes.QUALITY, codes.QUALITY_UNUSABLE)]
    has_caution = any(finding.severity is Severity.CAUTION for finding in report.findings)
    return [evaluation(codes.QUALITY, codes.QUALITY_NOT_MET if has_caution else codes.QUALITY_MET)]


def _technique(report: Report) -> Iterable[Measurement]:
    facts = report.series
    if facts is None:
        return
    row_mm, column_mm = facts.pixel_spacing_mm
    for code, value, unit in (
        (codes.KVP, facts.kvp, codes.KILOVOLT),
        (codes.SLICE_THICKNESS, facts.slice_thickness_mm, codes.MM),
        (codes.SLICE_SPACING, facts.slice_spacing_mm, codes.MM),
        (codes.ROW_SPACING, row_mm, codes.MM),
        (codes.COLUMN_SPACING, column_mm, codes.MM),
    ):
        if value is not None:
            yield measurement(code, value, unit)


def _technique_texts(report: Report, *, with_calibration: bool) -> list[ContentItem]:
    texts: list[ContentItem] = []
    if report.series is not None and report.series.kernel:
        texts.append(text_item(codes.KERNEL, report.series.kernel))
    if with_calibration and report.calibration is not None:
        texts += _calibration_texts(report.calibration)
    return texts


def _calibration_texts(calibration: Calibration) -> list[ContentItem]:
    """Which phantom was read, by whose certificate, how it was used, and when if in another scan."""
    texts = [
        (codes.CALIBRATION_OBJECT, calibration.phantom),
        (codes.PHANTOM_SERIAL, calibration.phantom_serial),
        (codes.PHANTOM_SHA256, calibration.phantom_sha256),
        (codes.CALIBRATION_METHOD, calibration.method),
        (codes.CALIBRATION_SCANNED_ON, calibration.scanned_on.isoformat() if calibration.scanned_on else ""),
    ]
    return [text_item(code, value) for code, value in texts if value]


def _calibration_measurements(calibration: Calibration) -> Iterable[Measurement]:
    """Slope, intercept, the quality of the fit, and each rod's or tissue's reading."""
    yield measurement(codes.SLOPE[calibration.equivalent], calibration.slope, codes.MG_PER_CM3_PER_HU)
    yield measurement(codes.INTERCEPT[calibration.equivalent], calibration.intercept, codes.MG_PER_CM3)
    if calibration.r2 is not None:
        yield measurement(codes.R_SQUARED, calibration.r2, codes.UNITY)
    if calibration.max_residual_hu is not None:
        yield measurement(codes.MAX_RESIDUAL, calibration.max_residual_hu, codes.HOUNSFIELD)
    for rod in calibration.rods:
        name = f"rod {rod.name}" + (", not in the fit" if rod.name in calibration.left_out else "")
        density = codes.ROD_DENSITY[calibration.equivalent]
        yield measurement(density, rod.density_mg_cm3, codes.MG_PER_CM3, details=[comment(name)])
        for value, derivation in ((rod.hu_mean, codes.MEAN), (rod.hu_sd, codes.STANDARD_DEVIATION)):
            yield measurement(
                codes.ROD_ATTENUATION,
                value,
                codes.HOUNSFIELD,
                derivation=derivation,
                uncertainty=rod.standard_error_hu if derivation is codes.MEAN else None,
                details=[comment(name)],
            )
        yield measurement(codes.ROD_VOXELS, rod.voxels, codes.VOXELS, details=[comment(name)])
    if calibration.effective_kev is not None:
        yield measurement(codes.CALIBRATION_ENERGY, calibration.effective_kev, codes.KILOELECTRONVOLT)
    for tissue in calibration.tissues:
        for code, value, unit in (
            (codes.TISSUE_ATTENUATION, tissue.hu, codes.HOUNSFIELD),
            (codes.TISSUE_VOLUME, tissue.volume_cm3, codes.CM3),
        ):
            yield measurement(code, value, unit, details=[comment(f"tissue {tissue.name}")])


def _calibration_grade(calibration: Calibration) -> QualitativeEvaluation:
    """What the calibration rests on."""
    return evaluation(codes.CALIBRATION_GRADE, codes.GRADES[calibration.grade])


def _scores(report: Report) -> Iterable[Measurement]:
    for code, score in ((codes.T_SCORE, report.t_score), (codes.Z_SCORE, report.z_score)):
        if score is not None:
            yield measurement(code, score.value, codes.UNITY, details=_population(report, score))
    if report.density is not None:
        density = report.density
        yield measurement(
            codes.DENSITY_MEAN[density.equivalent],
            density.mean_mg_cm3,
            codes.MG_PER_CM3,
            uncertainty=density.uncertainty_mg_cm3,
            details=[*_conversion(density), comment(f"mean of {density.levels[0]} and {density.levels[1]}")],
        )


def _conversion(density: DensityVerdict) -> list[ContentItem]:
    """The measured mineral, where a site's conversion leads from it to the density rule."""
    if density.converted_from is None:
        return []
    return [modifier(codes.CONVERTED_FROM, codes.EQUIVALENTS[density.converted_from])]


def _population(report: Report, score: ReferenceScore) -> list[ContentItem]:
    """TID 311: the reference population that a score rests on."""
    reference = report.reference
    equivalent = modifier(codes.EQUIVALENT, codes.EQUIVALENTS[score.equivalent])
    items: list[ContentItem] = [
        number_item(name, value, codes.MG_PER_CM3, PROPERTY, details=[equivalent])
        for name, value in (
            (codes.POPULATION_MEAN, score.mean_mg_cm3),
            (codes.POPULATION_SD, score.sd_mg_cm3),
        )
    ]
    if reference is not None:
        mark = "DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE: " if reference.demonstration else ""
        items.append(text_item(codes.POPULATION, f"{mark}{reference.name}: {reference.population}", PROPERTY))
        items.append(text_item(codes.AUTHORITY, reference.authority or reference.source, PROPERTY))
    compared = f"{score.bmd_mg_cm3:.1f} mg/cm3 {score.equivalent}, from {', '.join(score.levels)}"
    items.append(comment(f"BMD compared: {compared}"))
    return items


def _categories(report: Report) -> Iterable[QualitativeEvaluation]:
    if report.density is not None:
        levels = f"mean of {report.density.levels[0]} and {report.density.levels[1]}"
        if report.density.converted_from is not None:
            levels += f", converted from {report.density.converted_from.value}"
        yield evaluation(
            codes.DENSITY_CATEGORY,
            codes.DENSITY_CATEGORIES[report.density.category],
            details=[
                *_conversion(report.density),
                comment(f"QCT density category = {report.density.category.value}; {levels}"),
            ],
        )
    if report.study_class is not None:
        yield evaluation(codes.STUDY_CLASS, codes.STUDY_CLASSES[report.study_class])


def _model_measurements(report: Report) -> Iterable[Measurement]:
    if report.rad_score is not None:
        yield measurement(codes.RAD_SCORE, report.rad_score.value, codes.UNITY)
    if report.nomogram is None:
        return
    for entry in report.nomogram.inputs:
        concept = codes.INPUTS.get(entry.name) or codes.private(codes.short_code(entry.name), entry.name)
        details = [
            modifier(codes.NOMOGRAM_PREDICTOR, concept),
            comment(f"{entry.name}: {entry.value:g} {entry.unit}"),
        ]
        yield measurement(codes.POINTS, entry.points, codes.UNITY, details=details)
    yield measurement(codes.TOTAL_POINTS, report.nomogram.total_points, codes.UNITY)
    yield measurement(
        codes.PROBABILITY,
        report.nomogram.probability,
        codes.UNITY,
        details=[comment(f"of {report.nomogram.positive_class} versus {NEGATIVE_CLASS} (T rule)")],
    )


def _model_evaluations(report: Report) -> Iterable[QualitativeEvaluation]:
    if report.nomogram is not None:
        name = report.nomogram.positive_class
        known = codes.POSITIVE_CLASSES.get(name)
        yield evaluation(
            codes.POSITIVE_CLASS, known or codes.private(codes.short_code(name), to_ascii(name)[:64])
        )


def _model_texts(report: Report) -> list[ContentItem]:
    demonstration = (report.rad_score and report.rad_score.demonstration) or (
        report.nomogram and report.nomogram.demonstration
    )
    return [text_item(codes.COMMENT, "DEMONSTRATION MODEL - NOT FOR CLINICAL USE")] if demonstration else []


def _laboratory(report: Report) -> Iterable[Measurement]:
    laboratory = report.laboratory
    if report.study.age_years is not None:
        yield measurement(codes.AGE, report.study.age_years, codes.YEAR)
    for code, value, unit, taken_on in (
        (codes.ALP, laboratory.alp_u_l, codes.UNIT_PER_L, laboratory.alp_taken_on),
        (
            codes.HOMOCYSTEINE,
            laboratory.homocysteine_umol_l,
            codes.UMOL_PER_L,
            laboratory.homocysteine_taken_on,
        ),
    ):
        if value is not None:
            taken = f", taken on {taken_on.isoformat()}" if taken_on else ""
            origin = comment(f"from {laboratory.source or 'unnamed source'}{taken}")
            yield measurement(code, value, unit, details=[origin])
