"""Studies that differ in what a report has to say of them, each through the whole pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import JPEG2000Lossless, RLELossless

from node.clinical import CsvLaboratory
from node.pipeline.ports import Issue
from node.reference.spec import Faults, Fracture, FractureShape, Implant, Lesion, LesionKind, StudySpec
from tests.dicom.multi_frame import enhanced_ct, legacy_ct, shuffled, write
from tests.e2e.in_process import ISSUED_AT, Remembered, RememberedPatients, Run, unchecked
from tests.made_studies import write_reference_study

# Name as it goes over the wire, and the set that its study declares.
CHARACTER_SETS: Mapping[str, tuple[str | list[str], bytes]] = {
    "Latin": ("ISO_IR 100", "Müller^Åse".encode("latin-1")),
    "Chinese GB18030": ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "Chinese GBK": ("GBK", "Wang^XiaoDong=王^小东".encode("gbk")),
    "Korean": (
        ["", "ISO 2022 IR 149"],
        b"Hong^Gildong=\x1b\x24\x29\x43\xfb\xf3^\x1b\x24\x29\x43\xd1\xce\xd4\xd7",
    ),
    "Japanese": (
        ["", "ISO 2022 IR 87"],
        b"Yamada^Tarou=\x1b\x24\x42\x3b\x33\x45\x44\x1b\x28\x42^\x1b\x24\x42\x42\x40\x4f\x3a\x1b\x28\x42",
    ),
    "Greek in UTF-8": ("ISO_IR 192", "Παπαδόπουλος^Άννα".encode()),
}

# In HA; in K2HPO4 the first two bodies lie between 80 and 102, where T-score and density rule disagree.
LOW = {"T12": 96.0, "L1": 93.0, "L2": 92.0, "L3": 90.0, "L4": 91.0, "L5": 94.0}


PLAIN = StudySpec.reduced()


def small(**changes: Any) -> StudySpec:
    """Half as many images: where the known mask is measured, nothing else of the patient is needed."""
    return StudySpec.reduced(view=("L1", "L3"), **changes)


def lone(**changes: Any) -> StudySpec:
    """One vertebra, where the study differs in how its images are encoded or what their headers say."""
    return StudySpec.reduced(view=("L3", "L3"), **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What makes one study of the matrix.

    Parameters
    ----------
    edit : changes every image of the rendered study.
    join : makes one multi-frame instance of all of them.
    laboratory : whether ALP and homocysteine are known.
    earlier : a study that comes first: of the same patient, on the same scanner.
    """

    spec: StudySpec = PLAIN
    edit: Callable[[Dataset], None] | None = None
    join: Callable[[Sequence[Dataset]], Dataset] | None = None
    settings: Mapping[str, Any] | None = None
    engine: bool = False  # the model-free engine in place of the known mask
    laboratory: bool = True
    issue: Issue | None = None
    earlier: StudySpec | None = None


def _named(charset: str | list[str], name: bytes, dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = charset
    dataset.add_new("PatientName", "PN", name)


def _compressed(syntax: str, dataset: Dataset) -> None:
    dataset.compress(syntax, generate_instance_uid=False)


def _lossy(dataset: Dataset) -> None:
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "9.5"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _tilted(dataset: Dataset) -> None:
    dataset.GantryDetectorTilt = 12
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y + 0.2 * z, z]


def _faulty(**faults: Any) -> StudySpec:
    return StudySpec.reduced(faults=Faults(**faults))


_MINDWAYS = {
    "calibration": {"phantom": "mindways-3"},
    "scoring": {
        "reference": "chinese-men-mindways",
        "accept_unstated": {"chinese-men-mindways": ["kvp", "roi", "levels"]},
    },
}
_TISSUES = {
    "calibration": {"method": "internal", "internal": {"adipose_density_g_cm3": 0.95}},
    "scoring": {"k2hpo4_from_ha": [1.0, 0.0]},
}

CASES: Mapping[str, Case] = {
    "two rods of HA": Case(),
    "rods of K2HPO4": Case(spec=small(phantom="mindways-3"), settings=_MINDWAYS),
    "contradicting verdicts": Case(
        spec=small(phantom="mindways-3", sex="M", bmd_mg_cm3=LOW), settings=_MINDWAYS
    ),
    "six rods": Case(spec=small(phantom="qrm-bdc-6"), settings={"calibration": {"phantom": "qrm-bdc-6"}}),
    "no laboratory": Case(spec=small(), laboratory=False),
    "no phantom": Case(spec=lone(phantom="none")),
    "tilted gantry": Case(spec=lone(), edit=_tilted),
    "amended": Case(
        spec=small(),
        issue=Issue(
            issued_at=ISSUED_AT,
            predecessor_uid="2.25.1234567890",
            predecessor_issued_at=datetime(2026, 1, 15, 18, tzinfo=UTC),
            amendment_reason="images arrived later",
        ),
    ),
    "fracture": Case(
        spec=_faulty(fractures=(Fracture(level="L2", shape=FractureShape.WEDGE, height_loss=0.4),)),
        engine=True,
    ),
    "cement": Case(spec=_faulty(lesions=(Lesion(level="L3", kind=LesionKind.CEMENT),)), engine=True),
    "metal": Case(spec=_faulty(implants=(Implant(levels=("L4", "L5")),)), engine=True),
    "levels not named": Case(spec=StudySpec.reduced(view=("L1", "L4")), engine=True),
    "ellipse beside the core": Case(spec=small(), settings={"segmentation": {"regions": {"bmd": "both"}}}),
    "by tissues": Case(spec=StudySpec.reduced(phantom="none", view=("L1", "L4")), settings=_TISSUES),
    "line of an earlier scan": Case(
        spec=small(phantom="none", study_date=date(2026, 1, 18)),
        settings={"calibration": {"asynchronous": {"enabled": True}}},
        earlier=lone(study_date=date(2026, 1, 15)),
    ),
    "a year later": Case(
        spec=small(study_date=date(2026, 1, 15), seed=3),
        settings={"followup": {"lsc_mg_cm3": 4.0, "accept_unstated": ["spectral_filter", "reconstruction"]}},
        earlier=small(study_date=date(2025, 1, 14)),
    ),
    "single slices": Case(spec=StudySpec.one_slice_each("L2", "L3", "L4"), engine=True),
    "RLE": Case(spec=lone(), edit=partial(_compressed, RLELossless)),
    "JPEG 2000": Case(spec=lone(), edit=partial(_compressed, JPEG2000Lossless)),
    "lossy": Case(spec=lone(), edit=_lossy),
    "plain": Case(spec=lone()),
    "Enhanced CT": Case(spec=lone(), join=enhanced_ct),
    "Legacy Converted Enhanced CT": Case(spec=lone(), join=legacy_ct),
    **{name: Case(spec=lone(), edit=partial(_named, *name_of)) for name, name_of in CHARACTER_SETS.items()},
}


class Studies:
    """Renders each specification once, and runs each case once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rendered: dict[str, Path] = {}
        self._runs: dict[str, Run] = {}
        self._laboratory = folder / "laboratory.csv"
        self._laboratory.write_text(
            "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\nREFERENCE-1,OSTEONODE,2026-01-10,92,16.5\n"
        )

    def rendered(self, spec: StudySpec) -> Path:
        key = repr(spec)
        if key not in self._rendered:
            self._rendered[key] = self._folder / f"study-{len(self._rendered)}"
            write_reference_study(self._rendered[key], spec)
        return self._rendered[key]

    def folder_of(self, name: str) -> Path:
        """The images of a case, as they arrive."""
        case = CASES[name]
        rendered = self.rendered(case.spec)
        if case.edit is None and case.join is None:
            return rendered
        folder = self._folder / name.replace(" ", "-")
        if not folder.is_dir():
            folder.mkdir()
            if case.join is not None:
                write(folder / "frames.dcm", case.join(shuffled(rendered.glob("*.dcm"))))
            for path in rendered.glob("*.dcm") if case.edit is not None else ():
                dataset = dcmread(path)
                case.edit(dataset)
                dcmwrite(folder / path.name, dataset)
            shutil.copy(rendered / "truth_mask.nii.gz", folder)
        return folder

    def run(self, name: str) -> Run:
        if name not in self._runs:
            self._runs[name] = self._run(CASES[name], self.folder_of(name))
        return self._runs[name]

    def _run(self, case: Case, folder: Path) -> Run:
        mask = None if case.engine else folder / "truth_mask.nii.gz"
        settings = unchecked(**{**{"calibration": {}}, **(case.settings or {})})
        histories: dict[str, Any] = {}
        if case.earlier is not None:
            histories = {"scanners": Remembered(), "patients": RememberedPatients()}
            earlier = self.rendered(case.earlier)
            Run(earlier, earlier / "truth_mask.nii.gz", settings=settings, files=False, **histories)
        if case.laboratory:
            histories["clinical"] = CsvLaboratory(self._laboratory, max_age_days=90)
        declared = case.spec.phantom == "none"  # then nothing in view says what the study is for
        return Run(folder, mask, settings=settings, issue=case.issue, declared_qct=declared, **histories)
