"""The types that a report is made of. Everything that is shown, coded or sent is read from `Report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from config.findings import Finding, Output, gravest_first
from scoring.calibration import Calibration
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum
from scoring.density.bmd import BmdResult, DensityVerdict, Reference, ReferenceScore, StudyClass
from scoring.density.follow_up import FollowUp
from scoring.models.card import NomogramResult, RadScore
from segmentation.phrase import Value
from segmentation.vertebrae import EngineInfo, is_unnamed


class Outcome(StrEnum):
    REPORTED = "reported"  # at least one level has a density
    REFUSED = "refused"  # a QCT study that could not be measured
    NOT_APPLICABLE = "not applicable"  # no QCT study: nothing goes back


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """Who and what was scanned. Never logged."""

    study_instance_uid: str  # "" where the study has none
    patient_id: str  # "" where the study has none
    issuer_of_patient_id: str
    accession_number: str
    study_date: date | None
    birth_date: date | None
    age_years: int | None  # at the study date; from the birth date, else PatientAge
    sex: str  # "M", "F", "O" or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPass:
    """Which of several passes in one series was measured, and why."""

    number: int  # from 1, in the order of acquisition
    passes: int
    told_by: Value  # the attribute that tells them apart
    reason: Value  # why this one
    images_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """Technique of the chosen series, or of the single slices that were chosen."""

    series_instance_uid: str  # of the first slice, where slices of several series are measured
    instances: int
    kvp: float | None
    slice_thickness_mm: float | None
    slice_spacing_mm: float | None  # None where each slice stands alone
    pixel_spacing_mm: tuple[float, float]  # (row, column), as DICOM orders them
    kernel: str
    manufacturer: str
    model: str
    device_serial: str
    contrast_agent: str  # what headers say of intravenous contrast that was, or may have been, given; else ""
    lossy: bool  # whether they have been compressed with loss, now or before
    contrast_doubtful: bool = False  # whether these words leave open whether it was given
    lossy_ratio: float | None = None  # of the strongest loss; None without loss, or where it is not known
    # What decides, beside the above, whether an earlier phantom scan may calibrate this series:
    spectral_filter: str = ""  # "" where the header states none
    energy: str = ""  # "single", "virtual 70 keV", ...; "" in what was kept before it was asked for
    beam_filter: str = ""  # metal before the tube that changes the spectrum; "none", and "" as above
    filter_unknown: str = ""  # words for a filter of which that is not known
    reconstruction: str = ""  # kind and strength, as far as stated; "" where nothing is
    table_height_mm: float | None = None
    field_of_view_mm: float | None = None  # diameter
    acquisition_time: str = ""  # HHMMSS[.ffffff], by the scanner's clock
    acquisition_date: date | None = None  # its day: StudyDate is the day on which the study began
    measured_pass: MeasuredPass | None = None  # None where the series holds one pass, and all is measured

    @property
    def spectrum(self) -> Spectrum:
        """What decides HU beside the tube voltage."""
        return Spectrum(energy=self.energy or CONVENTIONAL, beam_filter=self.beam_filter or NO_FILTER)

    @property
    def beam_kvp(self) -> float | None:
        """The tube voltage where it stands for the spectrum; None where it does not, or is not stated."""
        return self.kvp if self.spectrum.is_conventional else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSeries:
    """A CT series that was not measured, and why."""

    series_instance_uid: str
    reason: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """One vertebra as reported. What is withheld is None."""

    name: str  # or the place of a body without a name, as `segmentation.vertebrae.unnamed_body` states it
    complete: bool
    centroid_mm: tuple[float, float, float]  # of the body, LPS
    volume_mm3: float | None  # of the whole body, cortex included
    core_volume_mm3: float | None = None  # of its cancellous core, where features are computed
    measured: BmdResult | None  # in the region that leads
    ellipse: BmdResult | None = None  # in a mid-body ellipse beside the core, where a site asks for both


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """One vertebra that was scanned in a single slice, so that nothing tells its level.

    What is withheld is None.
    """

    name: str  # "slice 1" and so on from superior to inferior: never a level
    sop_instance_uid: str
    position_mm: tuple[float, float, float]  # LPS: middle of the body, or of the image where none was found
    thickness_mm: float
    tilt_degrees: float  # between the slice's normal and the patient's long axis
    region_mm2: float | None  # in which density is read
    measured: BmdResult | None  # its `level` is the slice's name
    calibration: Calibration | None  # by the rods in this very slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """Laboratory values of this patient, with where they come from."""

    alp_u_l: float | None = None
    alp_taken_on: date | None = None
    homocysteine_umol_l: float | None = None
    homocysteine_taken_on: date | None = None
    source: str = ""  # "CSV"; "" where no source is configured
    problems: tuple[Value, ...] = ()  # what could not be read, without patient identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What produced the numbers."""

    software: str
    version: str
    engine: EngineInfo | None
    phantom: str | None
    reference: str | None
    model: str | None
    model_sha256: str | None
    radiomics_settings_sha256: str | None
    configuration_sha256: str
    packages: Mapping[str, str] = field(default_factory=dict)  # of what computes: numpy, pyradiomics
    begun_again: str | None = None  # why, where the study's first steps were done twice


class ClosedBy(StrEnum):
    """What showed that a study was whole."""

    COUNTS = "counts"  # an archive has as many images of each CT series, and had so twice
    GEOMETRY = "geometry"  # no slice is missing between the first and the last of any series
    QUIET = "quiet"  # nothing came for a while
    INCOMPLETE = "incomplete"  # nothing did: an archive has more images, which did not come in time


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCount:
    """How many images of a series are here, and how many an archive has."""

    series_instance_uid: str
    arrived: int
    archived: int | None  # None where no archive told


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Why a study was taken to be whole when a generation of it began."""

    closed_by: ClosedBy
    archive: str | None  # who told how many images there are; None where nobody did
    silent_s: float  # since the last image
    series: tuple[SeriesCount, ...]  # the CT series

    @property
    def lacking(self) -> tuple[SeriesCount, ...]:
        """Series of which an archive has more images than came."""
        return tuple(one for one in self.series if one.archived is not None and one.archived > one.arrived)


# A fracture counts for more than any density.
CAN_BE_NORMAL = (Output.DENSITY_CATEGORY, Output.STUDY_CLASS)  # these `Output.NORMAL` withholds as well
FRACTURE_FINDINGS = ("fracture_in_spine", "fracture", "fracture_suspected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One study's answer, or why there is none. Absent values are None, each with its finding."""

    outcome: Outcome
    issued_at: datetime  # aware; minted once
    language: str
    study: StudyIdentity
    series: SeriesFacts | None
    rejected: tuple[RejectedSeries, ...]
    levels: tuple[LevelResult, ...]  # superior to inferior; either all have names or none has
    numbering_confirmed: bool
    numbering_basis: str
    calibration: Calibration | None
    reference: Reference | None
    t_score: ReferenceScore | None
    z_score: ReferenceScore | None
    study_class: StudyClass | None
    density: DensityVerdict | None
    features: Mapping[str, float] | None
    rad_score: RadScore | None
    nomogram: NomogramResult | None
    laboratory: Laboratory
    findings: tuple[Finding, ...]
    provenance: Provenance
    unnamed: tuple[SliceResult, ...] = ()  # of single slices, superior to inferior; then there are no levels
    predecessor_uid: str | None = None  # SOP Instance UID of the last confirmed report that this one amends
    predecessor_issued_at: datetime | None = None  # aware
    predecessor_class_uid: str | None = None  # SOP class of it; None: Comprehensive 3D SR
    amendment_reason: str | None = None
    follow_up: FollowUp | None = None  # None where no earlier study of the patient is known
    completeness: Completeness | None = None  # None where a folder was processed: nothing was waited for

    @property
    def has_unnamed_bodies(self) -> bool:
        """Whether the bodies of a volume were measured without their names being known."""
        return any(is_unnamed(level.name) for level in self.levels)

    def level(self, name: str) -> LevelResult | None:
        return next((level for level in self.levels if level.name == name), None)

    def withheld_by(self, output: Output) -> Finding | None:
        """The gravest finding that withholds `output`, of those about the whole study first.

        None where nothing does. What is said of one level withholds an output of the study only if that
        rests on the level. A category or class that nothing about the study withholds as such may have been
        withheld because it was "normal".
        """
        found = [one for one in gravest_first(self.findings) if output in one.withholds]
        of_study = [one for one in found if one.level is None]
        if output in CAN_BE_NORMAL:
            grave = gravest_first(self.findings)
            of_study += [one for one in grave if one.level is None and Output.NORMAL in one.withholds]
        return next(iter([*of_study, *found]), None)

    @property
    def fractures(self) -> tuple[Finding, ...]:
        """Suspected fractures, which lead every answer: of the spine first, then of single levels."""
        return tuple(
            finding for code in FRACTURE_FINDINGS for finding in self.findings if finding.code == code
        )


class ObjectKind(StrEnum):
    SEGMENTATION = "SEG"
    STRUCTURED_REPORT = "SR"
    PICTURE = "SC"
    REJECTION_NOTE = "KO"  # of what an amended report replaces


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedObject:
    """A finished DICOM object, byte for byte as it is stored and sent."""

    kind: ObjectKind
    file_name: str  # "report.dcm", "segmentation.dcm", "nomogram-1-answer.dcm", ...
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes  # a DICOM Part 10 file
