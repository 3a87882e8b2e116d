"""`result.json`: one study's answer as the command line's contract writes it, and as everyone reads it.

The classes state the document's keys, in order. Absent is null, with a finding. Their JSON Schema is
docs/result.schema.json, shipped as node/result.schema.json; `tools/write_result_schema.py` writes both.

The minor part of `schema_version` rises with a new key, the major part where a key goes or means something
else. Every 1.x is read: an unknown key is ignored, and one that came after the first 1.0 may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from config.findings import Output, Severity
from config.phrases import in_english
from node.study_report import Completeness, Outcome, Report
from scoring.calibration import Calibration, Grade, Mineral, TissueReading
from scoring.density.bmd import DensityVerdict, StudyClass
from scoring.density.follow_up import FollowUp
from scoring.models.card import NomogramInput
from segmentation.vertebrae import EngineInfo, RegionKind, place_of_unnamed, unnamed_body

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = "1.1"

Words = Annotated[str, BeforeValidator(in_english)]  # a phrase, or text of earlier versions
StatedText = Annotated[str | None, BeforeValidator(lambda text: text or None)]  # "" says nothing
Moment = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
PointMm = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="ignore",
        from_attributes=True,
        revalidate_instances="always",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class StudyEntry(_Entry):
    """Who and what was scanned."""

    study_instance_uid: StatedText = None
    patient_id: StatedText = None
    issuer_of_patient_id: StatedText = None
    accession_number: StatedText = None
    study_date: date | None = None
    age_years: int | None = None
    """At the study date."""
    sex: StatedText = None
    """M, F or O."""


class RejectedSeriesEntry(_Entry):
    """A CT series that was not measured, and why."""

    series_instance_uid: StatedText
    reason: Words


class MeasuredPassEntry(_Entry):
    """Which of several passes in one series was measured, and why."""

    number: int
    passes: int
    told_by: Words
    reason: Words
    images_left_out: int


class SeriesEntry(_Entry):
    """The series that was measured, with its technique."""

    series_instance_uid: StatedText
    instances: int
    kvp: float | None
    slice_thickness_mm: float | None
    slice_spacing_mm: float | None
    """Null where single slices were measured."""
    pixel_spacing_mm: tuple[float, float]
    """Row, column."""
    kernel: StatedText
    manufacturer: StatedText
    model: StatedText
    device_serial: StatedText
    measured_pass: MeasuredPassEntry | None = None
    """Which of several passes in the series was measured; null where it holds one."""
    rejected: tuple[RejectedSeriesEntry, ...]


class NoSeriesEntry(_Entry):
    """No series could be measured."""

    series_instance_uid: None = None
    rejected: tuple[RejectedSeriesEntry, ...]


class DensityEntry(_Entry):
    """What one region reads. Null is what was not measured, or what a finding withholds."""

    hu_mean: float | None = None
    hu_sd: float | None = None
    """Of single voxels."""
    roi_volume_mm3: float | None = None
    """Of the region that was read."""
    bmd_mg_cm3: float | None = None
    bmd_uncertainty_mg_cm3: float | None = None
    """Standard uncertainty (k = 1); marrow-fat error not included."""


class _LevelPlace(_Entry):
    complete: bool
    """Whether the whole body lies inside the images."""
    centroid_mm: PointMm
    """Of the body, in patient coordinates (LPS)."""
    volume_mm3: float | None
    """Of the whole body, cortex included."""
    core_volume_mm3: float | None = None
    """Of its cancellous core."""
    region: RegionKind | None = None
    """Where the leading density is read."""
    equivalent: Mineral | None = None
    """The mineral in which densities are stated."""


# Of two bases the last gives the first keys.
class LevelEntry(DensityEntry, _LevelPlace):
    """One vertebra."""

    ellipse: DensityEntry | None = None
    """In a mid-body ellipse beside the core, where a site asks for both."""


class _BodyPlace(_Entry):
    ordinal: int
    """From 1, counted from the head."""
    count: int
    """Of the lumbar bodies without a name in the images."""


class BodyEntry(LevelEntry, _BodyPlace):
    """A lumbar body in a volume, its level not determined."""

    @property
    def name(self) -> str:
        """As pictures and findings call it."""
        return unnamed_body(self.ordinal, self.count)


class RodEntry(_Entry):
    """One calibration rod as it reads in the image."""

    name: str
    density_mg_cm3: float
    """As certified."""
    hu_mean: float
    hu_sd: float
    """Of single voxels."""
    standard_error_hu: float | None = None
    """Of `hu_mean`."""
    voxels: int
    fitted: bool | None = None
    """Whether it determines the line."""


class CalibrationEntry(_Entry):
    """The line from HU to density: BMD [mg/cm3] = slope * HU + intercept."""

    method: str
    grade: Grade | None = None
    """What it rests on."""
    phantom: str
    """The phantom's model."""
    phantom_serial: StatedText = None
    """Of the phantom whose own certificate was used."""
    phantom_sha256: StatedText = None
    """Of the files that describe the phantom."""
    scanned_on: date | None = None
    """When the phantom was scanned, where not with the patient."""
    equivalent: Mineral
    slope: float
    """mg/cm3 per HU."""
    intercept: float
    """mg/cm3."""
    r2: float | None
    """Null for two rods."""
    max_residual_hu: float | None
    """Null for two rods."""
    rods: tuple[RodEntry, ...]
    """By rising density."""
    tissues: tuple[TissueReading, ...] = ()
    """The patient's own, in place of rods."""
    effective_kev: float | None = None
    """At which the tissues attenuate."""

    @property
    def phantom_named(self) -> str:
        """The phantom's model and, where its own certificate was used, its serial number."""
        return " ".join(part for part in (self.phantom, self.phantom_serial) if part)


class _SlicePlace(_Entry):
    name: str
    """"slice 1" and so on, from superior to inferior: never a level."""
    sop_instance_uid: str
    position_mm: PointMm
    """Middle of the body, or of the image where none was found (LPS)."""
    thickness_mm: float
    tilt_degrees: float
    """Between the slice's normal and the patient's long axis."""
    region_mm2: float | None
    """In which density is read."""


class SliceEntry(DensityEntry, _SlicePlace):
    """A vertebra that was scanned in a single slice: its level is not known."""

    roi_volume_mm3: None = Field(default=None, exclude=True)  # a slice states an area
    equivalent: Mineral | None
    calibration: CalibrationEntry | None
    """By the rods in this very slice."""


class NumberingEntry(_Entry):
    """Whether the names of levels are confirmed, and by what."""

    confirmed: bool
    basis: str


class CategoriesEntry(_Entry):
    """Classes by T-score and by density."""

    study_class: StudyClass | None
    """Of Xie et al. 2022, by T-score: a study rule, not a diagnosis."""
    density: DensityVerdict | None


class NomogramEntry(_Entry):
    """Points of this patient and the probability that they stand for."""

    total_points: float
    probability: float
    positive_class: str
    inputs: tuple[NomogramInput, ...]


class LaboratoryEntry(_Entry):
    """Laboratory values of the patient."""

    alp_u_l: float | None
    alp_date: date | None
    homocysteine_umol_l: float | None
    homocysteine_date: date | None
    source: StatedText


class ChangeEntry(_Entry):
    """Change of one level's density."""

    earlier_mg_cm3: float
    change_mg_cm3: float
    """Later minus earlier."""
    significant: bool | None
    """Null without a least significant change."""


class FollowUpEntry(_Entry):
    """Comparison with an earlier study of the patient."""

    prior_study_instance_uid: str
    prior_date: date
    comparable: bool
    reasons: tuple[Words, ...]
    """Why the two may not be compared."""
    lsc_mg_cm3: float | None
    """The site's least significant change."""
    equivalent: Mineral | None = None
    accepted_unstated: tuple[Words, ...] = ()
    """What neither study states and the site takes for equal."""
    levels: Mapping[str, ChangeEntry]


class FindingEntry(_Entry):
    """Something to know about the study or one level, and which outputs it withholds."""

    code: str
    severity: Severity
    text: str
    level: str | None
    withholds: Annotated[frozenset[Output], PlainSerializer(sorted, return_type=list[Output])]


class ProvenanceEntry(_Entry):
    """What produced the numbers."""

    software: str
    version: str
    engine: EngineInfo | None
    phantom: str | None
    """As configured."""
    reference: str | None
    model: str | None
    model_sha256: str | None
    radiomics_settings_sha256: str | None
    configuration_sha256: str
    packages: Mapping[str, str]
    begun_again: str | None = None
    """Why, where the study's first steps were done twice."""
    predecessor_uid: str | None
    """SOP Instance UID of the report that this one amends."""
    predecessor_issued_at: Moment | None = None


class ResultDocument(_Entry):
    """One study's answer, or why there is none."""

    schema_version: Annotated[str, Field(pattern=r"^1\.\d+$")]
    outcome: Outcome
    issued_at: Moment
    study: StudyEntry
    series: SeriesEntry | NoSeriesEntry
    levels: Mapping[str, LevelEntry]
    """By name, superior to inferior."""
    unnamed_bodies: tuple[BodyEntry, ...] = ()
    """Of a volume in which nothing tells the names, superior to inferior; then there are no levels."""
    unnamed: tuple[SliceEntry, ...] = ()
    """Of single slices, superior to inferior; then there are no levels."""
    numbering: NumberingEntry
    calibration: CalibrationEntry | None
    t_score: float | None
    z_score: float | None
    categories: CategoriesEntry
    rad_score: float | None
    features: Mapping[str, float] | None
    nomogram: NomogramEntry | None
    laboratory: LaboratoryEntry
    follow_up: FollowUpEntry | None = None
    """Null where no earlier study of the patient is known."""
    completeness: Completeness | None = None
    """What showed that the study was whole; null where a folder was processed."""
    findings: tuple[FindingEntry, ...]
    provenance: ProvenanceEntry
    timings_s: Mapping[str, float]
    """By step."""

    @classmethod
    def of(cls, report: Report, timings_s: Mapping[str, float]) -> Self:
        """The document of a report. A NaN or infinity in it is an error, not a value.

        Parameters
        ----------
        timings_s : seconds by step; written to the millisecond.

        Raises
        ------
        pydantic.ValidationError
            If a number is not finite.
        """
        equivalent = report.calibration.equivalent if report.calibration else None
        entries = [
            (level.name, _parts(level.measured, level, equivalent=equivalent)) for level in report.levels
        ]
        content = _parts(
            report,
            schema_version=SCHEMA_VERSION,
            series=_parts(report.series, rejected=report.rejected),
            levels={} if report.has_unnamed_bodies else dict(entries),
            unnamed_bodies=tuple(found | _place(name) for name, found in entries)
            if report.has_unnamed_bodies
            else (),
            unnamed=tuple(
                _parts(
                    one.measured,
                    one,
                    roi_volume_mm3=None,
                    equivalent=one.calibration.equivalent if one.calibration else None,
                    calibration=_calibration(one.calibration),
                )
                for one in report.unnamed
            ),
            numbering={"confirmed": report.numbering_confirmed, "basis": report.numbering_basis},
            calibration=_calibration(report.calibration),
            t_score=report.t_score.value if report.t_score else None,
            z_score=report.z_score.value if report.z_score else None,
            categories={"study_class": report.study_class, "density": report.density},
            rad_score=report.rad_score.value if report.rad_score else None,
            laboratory=_parts(
                report.laboratory,
                alp_date=report.laboratory.alp_taken_on,
                homocysteine_date=report.laboratory.homocysteine_taken_on,
            ),
            follow_up=_follow_up(report.follow_up),
            provenance=_parts(
                report.provenance,
                predecessor_uid=report.predecessor_uid,
                predecessor_issued_at=report.predecessor_issued_at,
            ),
            timings_s={name: round(seconds, 3) for name, seconds in timings_s.items()},
        )
        return cls.model_validate(content)

    @property
    def region(self) -> RegionKind | None:
        """Where the levels' leading densities are read: one setting, one region."""
        entries: tuple[LevelEntry, ...] = (*self.levels.values(), *self.unnamed_bodies)
        return next((one.region for one in entries if one.region), None)

    @property
    def bodies(self) -> Mapping[str, LevelEntry]:
        """The vertebrae of a volume by level, or by place where nothing tells the names."""
        return {**self.levels, **{one.name: one for one in self.unnamed_bodies}}

    def with_timings(self, timings_s: Mapping[str, float]) -> Self:
        """The same with other seconds by step."""
        rounded = {name: round(seconds, 3) for name, seconds in timings_s.items()}
        return self.model_copy(update={"timings_s": rounded})

    def without_identity(self) -> Self:
        """The same with nothing of the study but its UID: no patient, accession number, date, age or sex."""
        return self.model_copy(update={"study": StudyEntry(study_instance_uid=self.study.study_instance_uid)})

    def values(self) -> dict[str, Any]:
        """Plain JSON values, keys in order."""
        return self.model_dump(mode="json")

    def to_text(self) -> str:
        """The document as it is written to a file."""
        return json.dumps(self.values(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_result(content: bytes | str) -> ResultDocument:
    """The inverse of `ResultDocument.to_text`, for every 1.x.

    Raises
    ------
    pydantic.ValidationError
        On anything else, such as another major version.
    """
    return ResultDocument.model_validate_json(content)


def _parts(*sources: DataclassInstance | None, **stated: object) -> dict[str, object]:
    """Fields of several objects by name; later ones, and what is stated, take precedence."""
    found: dict[str, object] = {}
    for source in sources:
        if source is not None:
            found |= {field.name: getattr(source, field.name) for field in fields(source)}
    return found | stated


def _place(name: str) -> dict[str, object]:
    place = place_of_unnamed(name)
    assert place is not None, "either all bodies have names or none has"
    return {"ordinal": place[0], "count": place[1]}


def _calibration(found: Calibration | None) -> dict[str, object] | None:
    if found is None:
        return None
    rods = tuple(
        _parts(rod, standard_error_hu=rod.hu_standard_error, fitted=rod.name not in found.left_out)
        for rod in found.rods
    )
    return _parts(found, rods=rods)


def _follow_up(found: FollowUp | None) -> dict[str, object] | None:
    if found is None:
        return None
    return _parts(
        found,
        prior_date=found.prior_taken_on,
        comparable=not found.reasons,
        accepted_unstated=found.accepted,
        levels={one.level: one for one in found.changes},
    )
