"""A small synthetic lumbar CT with known geometry, and reports written by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from config.findings import Finding, load_findings
from node.dicom.ct.headers import group_series, identity_of, read_headers
from node.dicom.ct.reading import LoadedSeries, read_series
from node.dicom.sc.layout import Typeface
from node.study_report import Laboratory, LevelResult, Outcome, Provenance, Report
from scoring.calibration import Calibration, Mineral, RodReading
from scoring.density.bmd import (
    AgeBin,
    BmdResult,
    DensityCategory,
    DensityVerdict,
    Reference,
    ReferenceScore,
    StudyClass,
)
from scoring.models.card import (
    FeatureTerm,
    NomogramAxis,
    NomogramInput,
    NomogramResult,
    NomogramScale,
    RadScore,
)
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Observation, Regions, Vertebrae

ISSUED = datetime(2024, 5, 17, 9, 30, 5, tzinfo=UTC)
ENGINE = EngineInfo(name="geometric", version="1.0", model_free=True, parameters={"sigma_mm": 1.5})

# The synthetic CT, in millimetres about the isocentre (LPS).
SHAPE = (44, 150, 180)  # slices, rows, columns
SPACING_MM = (4.0, 1.6, 1.8)  # anisotropic on purpose: row and column spacing differ
BODY_HEIGHT_MM, DISC_MM, BODY_RADIUS_MM = 26.0, 8.0, 20.0
SPINE_CENTRE_MM = (0.0, 30.0)  # x, y
ROD_CENTRES_MM = ((-25.0, 98.0), (25.0, 98.0))
ROD_HU = (4.0, 262.0)
LEVEL_Z_MM = {name: 68.0 - 34.0 * place for place, name in enumerate(LUMBAR)}


def _patient_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z, y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING_MM, strict=True))
    return np.meshgrid(z, y, x, indexing="ij")


def _level_mask(name: str, radius_mm: float, height_mm: float) -> np.ndarray:
    z, y, x = _patient_grid()
    radial = np.hypot(x - SPINE_CENTRE_MM[0], 1.3 * (y - SPINE_CENTRE_MM[1]))
    return (radial <= radius_mm) & (np.abs(z - LEVEL_Z_MM[name]) <= height_mm / 2)


def synthetic_hu() -> np.ndarray:
    """int16 HU, shape SHAPE: soft tissue, five bodies with cortex, two rods, air around."""
    _, y, x = _patient_grid()
    rng = np.random.default_rng(7)
    hu = np.full(SHAPE, -1000.0)
    hu[(x / 140) ** 2 + (y / 85) ** 2 <= 1] = -80
    hu[(x / 122) ** 2 + (y / 70) ** 2 <= 1] = 45
    for name in LUMBAR:
        hu[_level_mask(name, BODY_RADIUS_MM, BODY_HEIGHT_MM)] = 420
        hu[_level_mask(name, BODY_RADIUS_MM - 3, BODY_HEIGHT_MM - 6)] = 115
    for (rod_x, rod_y), value in zip(ROD_CENTRES_MM, ROD_HU, strict=True):
        hu[(np.hypot(x - rod_x, y - rod_y) <= 9)] = value
    return np.round(hu + rng.normal(0, 8, SHAPE)).astype(np.int16)


def write_slice(
    path: Path, pixels: np.ndarray, position: tuple[float, float, float], **changes: object
) -> None:
    """One CT slice of 16-bit signed HU; `changes` are attributes by keyword (None deletes)."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"1.2.826.0.1.3680043.2.1125.1.{int(path.stem) + 1}"
    header.StudyDate, header.StudyTime = "20240516", "101500"
    header.AccessionNumber = "ACC-4711"
    header.Modality = "CT"
    header.Manufacturer, header.ManufacturerModelName = "SIEMENS", "Definition AS"
    header.ReferringPhysicianName = "Ward^Ada"
    header.PatientName, header.PatientID = "Muster^Erika", "PID-0815"
    header.IssuerOfPatientID = "HOSPITAL"
    header.PatientBirthDate, header.PatientSex = "19550701", "F"
    header.StudyID, header.SeriesNumber, header.InstanceNumber = "S1", 2, int(path.stem) + 1
    header.StudyInstanceUID = "1.2.826.0.1.3680043.2.1125.9"
    header.SeriesInstanceUID = "1.2.826.0.1.3680043.2.1125.9.2"
    header.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.1125.9.3"
    header.PositionReferenceIndicator = ""
    header.AcquisitionNumber = 1
    header.KVP, header.SliceThickness, header.ConvolutionKernel = 80, SPACING_MM[0], "B40f"
    header.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
    header.ImagePositionPatient = [float(v) for v in position]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = 0, 1, "HU"
    for keyword, value in changes.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    header.PixelData = pixels.astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)


def write_study(folder: Path, **changes: object) -> Path:
    """The synthetic CT as DICOM slices in `folder`, last slice first so that order must be found."""
    folder.mkdir(parents=True, exist_ok=True)
    hu = synthetic_hu()
    origin = [-(n - 1) / 2 * step for n, step in zip(SHAPE, SPACING_MM, strict=True)]
    for k in range(SHAPE[0]):
        position = (origin[2], origin[1], origin[0] + k * SPACING_MM[0])
        write_slice(folder / f"{SHAPE[0] - 1 - k:03d}.dcm", hu[k], position, **changes)
    return folder


@dataclass(frozen=True)
class Study:
    """A loaded study with hand-made vertebrae, regions and report."""

    folder: Path
    series: LoadedSeries
    vertebrae: Vertebrae
    regions: tuple[Regions, ...]
    report: Report


def load(folder: Path) -> LoadedSeries:
    return read_series(group_series(read_headers(folder.iterdir()))[0])


def vertebrae_of(series: LoadedSeries) -> tuple[Vertebrae, tuple[Regions, ...]]:
    bodies = np.zeros(SHAPE, dtype=np.uint8)
    levels = []
    regions = []
    for name in LUMBAR:
        body = _level_mask(name, BODY_RADIUS_MM, BODY_HEIGHT_MM)
        bodies[body] = LABELS[name]
        centroid = series.volume.grid.to_patient(np.argwhere(body)).mean(axis=0)
        levels.append(
            Level(
                name=name,
                label=LABELS[name],
                complete=True,
                centroid_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
                body_volume_mm3=float(body.sum() * series.volume.grid.voxel_volume_mm3),
                axis=(0.0, 0.0, 1.0),
            )
        )
        core = _level_mask(name, BODY_RADIUS_MM - 5, BODY_HEIGHT_MM / 2)
        wide = _level_mask(name, BODY_RADIUS_MM - 4, BODY_HEIGHT_MM - 8)
        voxel_mm3 = series.volume.grid.voxel_volume_mm3
        regions.append(
            Regions(level=name, bmd=core, radiomics=wide, core_volume_mm3=float(wide.sum() * voxel_mm3))
        )
    vertebrae = Vertebrae(
        grid=series.volume.grid,
        bodies=bodies,
        levels=tuple(levels),
        numbering_confirmed=True,
        numbering_basis="sacrum",
        engine=ENGINE,
    )
    return vertebrae, tuple(regions)


_TABLE = load_findings()


_IN_CHINESE: dict[str, str] = {}  # of every finding that was described, by its English text


def finding(code: str, level: str | None = None, **values: object) -> Finding:
    told = _TABLE.describe(Observation(code=code, level=level, values=values), "zh")  # type: ignore[arg-type]
    _IN_CHINESE[told.text] = told.shown
    return replace(told, local_text=None)


def in_chinese(report: Report) -> Report:
    """The report of a node whose readers read Chinese."""
    findings = tuple(replace(one, local_text=_IN_CHINESE[one.text]) for one in report.findings)
    return replace(report, language="zh", findings=findings)


CALIBRATION = Calibration(
    method="two-point",
    phantom="Siemens Osteo",
    equivalent=Mineral.HA,
    slope=200 / 258.0,
    intercept=-4 * 200 / 258.0,
    r2=None,
    max_residual_hu=None,
    rods=tuple(
        RodReading(
            name=name,
            density_mg_cm3=density,
            hu_mean=hu,
            hu_sd=8.1,
            voxels=3000,
            axis_points_mm=tuple((x, y, z) for z in (-60.0, 0.0, 60.0)),
        )
        for name, density, hu, (x, y) in zip(
            ("water", "bone"), (0.0, 200.0), ROD_HU, ROD_CENTRES_MM, strict=True
        )
    ),
)
REFERENCE = Reference(
    name="Demonstration, women and men",
    population="invented adults",
    authority="Osteonode",
    source="made up for the demonstration",
    sex="any",
    equivalent=Mineral.HA,
    levels=("L1", "L2"),
    young=AgeBin(age_from=20, age_to=29, mean_mg_cm3=170.0, sd_mg_cm3=28.0),
    ages=(AgeBin(age_from=60, age_to=69, mean_mg_cm3=110.0, sd_mg_cm3=27.0),),
    kvp=None,
    demonstration=True,
)
FEATURES = {
    "wavelet-LLL_firstorder_10Percentile": 231.25,
    "wavelet-LLL_firstorder_Median": 322.125,
    "wavelet-LLH_firstorder_InterquartileRange": 14.5,
    "wavelet-LLH_firstorder_Skewness": -0.03125,
    "wavelet-HLH_firstorder_Median": 0.015625,
    "original_glrlm_ShortRunLowGrayLevelEmphasis": 0.0078125,
}
_AXES = tuple(
    NomogramAxis(
        name=name,
        label=label,
        unit=unit,
        lower=lower,
        upper=upper,
        points_at_lower=first,
        points_at_upper=last,
    )
    for name, label, unit, lower, upper, first, last in (
        ("rad_score", "Rad-score", "1", -4, 4, 0, 100),
        ("age", "Age", "a", 20, 90, 0, 42),
        ("alp", "Alkaline phosphatase", "U/L", 20, 200, 0, 31),
        ("homocysteine", "Homocysteine", "umol/L", 5, 50, 24, 0),
    )
)
NOMOGRAM = NomogramResult(
    scale=NomogramScale(axes=_AXES, total_points_max=197.0, points_per_lp=14.0, lp_at_zero_points=-6.5),
    inputs=(
        NomogramInput(name="rad_score", value=0.8125, unit="1", points=60.15625),
        NomogramInput(name="age", value=68.0, unit="a", points=28.8),
        NomogramInput(name="alp", value=84.0, unit="U/L", points=11.0222),
        NomogramInput(name="homocysteine", value=13.5, unit="umol/L", points=19.4667),
    ),
    total_points=119.4451,
    probability=0.8841,
    positive_class="osteoporosis",
    model_name="demonstration-2024",
    demonstration=True,
)
RAD_SCORE = RadScore(
    value=0.8125,
    intercept=0.25,
    terms=tuple(
        FeatureTerm(name=name, value=value, standardised=0.5, contribution=0.09375)
        for name, value in FEATURES.items()
    ),
    model_name="demonstration-2024",
    model_sha256="ab" * 32,
    demonstration=True,
)


def report_of(series: LoadedSeries, vertebrae: Vertebrae) -> Report:
    """A complete report, written by hand: every number is a literal that tests can look for."""
    return Report(
        outcome=Outcome.REPORTED,
        issued_at=ISSUED,
        language="en",
        study=identity_of(series.headers[0]),
        series=series.facts,
        rejected=(),
        levels=tuple(
            LevelResult(
                name=level.name,
                complete=True,
                centroid_mm=level.centroid_mm,
                volume_mm3=level.body_volume_mm3,
                measured=BmdResult(
                    level=level.name,
                    hu_mean=114.5 - place,
                    hu_sd=9.25,
                    voxels=900,
                    roi_volume_mm3=10368.0,
                    bmd_mg_cm3=85.625 - place,
                    bmd_uncertainty_mg_cm3=1.375,
                ),
            )
            for place, level in enumerate(vertebrae.levels)
        ),
        numbering_confirmed=True,
        numbering_basis="sacrum",
        calibration=CALIBRATION,
        reference=REFERENCE,
        t_score=ReferenceScore(
            value=-3.0312,
            equivalent=Mineral.HA,
            levels=("L1", "L2"),
            bmd_mg_cm3=85.125,
            mean_mg_cm3=170.0,
            sd_mg_cm3=28.0,
        ),
        z_score=ReferenceScore(
            value=-0.9213,
            equivalent=Mineral.HA,
            levels=("L1", "L2"),
            bmd_mg_cm3=85.125,
            mean_mg_cm3=110.0,
            sd_mg_cm3=27.0,
        ),
        study_class=StudyClass.OSTEOPOROSIS,
        density=None,
        features=FEATURES,
        rad_score=RAD_SCORE,
        nomogram=NOMOGRAM,
        laboratory=Laboratory(
            alp_u_l=84.0,
            alp_taken_on=date(2024, 5, 10),
            homocysteine_umol_l=13.5,
            homocysteine_taken_on=date(2024, 5, 11),
            source="CSV",
        ),
        findings=(
            finding("density_rule_equivalent", equivalent="HA"),
            finding("demonstration_reference", reference=REFERENCE.name),
            finding("demonstration_model", model="demonstration-2024"),
            finding("not_dxa"),
            finding("marrow_fat"),
        ),
        provenance=Provenance(
            software="Osteonode",
            version="0.1.0",
            engine=ENGINE,
            phantom="Siemens Osteo",
            reference=REFERENCE.name,
            model="demonstration-2024",
            model_sha256="ab" * 32,
            radiomics_settings_sha256="cd" * 32,
            configuration_sha256="ef" * 32,
            packages={"numpy": "2.2.6", "pyradiomics": "3.0.1"},
        ),
    )


def without_laboratory(report: Report) -> Report:
    return replace(
        report,
        nomogram=None,
        laboratory=Laboratory(),
        findings=(*report.findings, finding("laboratory_missing", names="ALP, homocysteine")),
    )


def refused(report: Report) -> Report:
    return replace(
        report,
        outcome=Outcome.REFUSED,
        calibration=None, reference=None, t_score=None, z_score=None, study_class=None, density=None,
        features=None, rad_score=None, nomogram=None,
        levels=tuple(
            replace(level, measured=replace(level.measured, bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None))
            for level in report.levels
        ),
        findings=(finding("phantom_not_found", phantom="Siemens Osteo"), finding("not_dxa")),
    )  # fmt: skip


def in_k2hpo4(report: Report) -> Report:
    """The same patient on a K2HPO4 phantom: a density category can be given."""
    return replace(
        report,
        calibration=replace(CALIBRATION, equivalent=Mineral.K2HPO4, phantom="Mindways Model 3"),
        reference=replace(REFERENCE, equivalent=Mineral.K2HPO4),
        t_score=replace(report.t_score, equivalent=Mineral.K2HPO4) if report.t_score else None,
        z_score=replace(report.z_score, equivalent=Mineral.K2HPO4) if report.z_score else None,
        density=DensityVerdict(
            category=DensityCategory.LOW,
            levels=("L1", "L2"),
            mean_mg_cm3=85.125,
            equivalent=Mineral.K2HPO4,
        ),
        findings=report.findings[1:],
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = write_study(tmp_path_factory.mktemp("study"))
    series = load(folder)
    vertebrae, regions = vertebrae_of(series)
    return Study(folder, series, vertebrae, regions, report_of(series, vertebrae))


@pytest.fixture(scope="session")
def variants(study: Study) -> dict[str, Report]:
    """Reports of one study that differ in what could be had."""
    return {
        "complete": study.report,
        "laboratory missing": without_laboratory(study.report),
        "density category": in_k2hpo4(study.report),
        "refused": refused(study.report),
        "amended": replace(
            study.report, predecessor_uid="2.25.1234567890", amendment_reason="Homocysteine arrived"
        ),
    }


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Path]:
    """Writes the synthetic CT into a folder, with attributes changed by keyword."""
    return write_study


@pytest.fixture(scope="session")
def make_slice() -> Callable[..., None]:
    return write_slice


@pytest.fixture(scope="session")
def load_series() -> Callable[[Path], LoadedSeries]:
    return load


@pytest.fixture(scope="session")
def describe_finding() -> Callable[..., Finding]:
    return finding


@pytest.fixture(scope="session")
def to_chinese() -> Callable[[Report], Report]:
    return in_chinese


@pytest.fixture(scope="session")
def chinese_typeface(chinese_font: Path) -> Typeface:
    return Typeface(wide=chinese_font)


def _tool(path: str) -> Path:
    found = shutil.which(path)
    if found is None:
        message = f"{path} is needed: apt-get install dcmtk dicom3tools"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return Path(found)


@pytest.fixture(scope="session")
def dciodvfy() -> Path:
    return _tool("/usr/bin/dciodvfy")


@pytest.fixture(scope="session")
def dsrdump() -> Path:
    return _tool("/usr/bin/dsrdump")


@pytest.fixture(scope="session")
def dsr2html() -> Path:
    return _tool("/usr/bin/dsr2html")
