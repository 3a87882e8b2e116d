"""Studies whose result is kept in tests/data/results as an earlier version wrote it, and how each is made.

    python -m tests.e2e.result_studies NAME...

writes `report.json` and `result.json` of the named studies anew. Do so for a new study, never for an old one:
what an earlier version wrote is what later ones are held to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from pydicom import dcmread, dcmwrite

from node.clinical import CsvLaboratory
from node.pipeline.artefacts import REPORT, RESULT
from node.pipeline.ports import Issue
from node.reference.spec import StudySpec
from node.study_report import ClosedBy, Completeness, SeriesCount
from tests.e2e.in_process import RememberedPatients, Run, unchecked
from tests.made_studies import write_reference_study

KEPT = Path(__file__).parents[1] / "data" / "results"
_LABORATORY = "patient_id,issuer,date,alp_u_l,homocysteine_umol_l\nREFERENCE-1,OSTEONODE,2026-01-10,92,16.5\n"
_GEOMETRIC = {"engine": "geometric"}


def _reported(folder: Path) -> Run:
    """Every score, by the model-free engine."""
    write_reference_study(folder, StudySpec.reduced())
    laboratory = folder / "laboratory.csv"
    laboratory.write_text(_LABORATORY, "utf-8")
    settings = unchecked(segmentation=_GEOMETRIC)
    return Run(folder, settings=settings, clinical=CsvLaboratory(laboratory, max_age_days=180))


def _masked(folder: Path) -> Run:
    """A drawn mask, two regions, three or more rods, and a density category in K2HPO4."""
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L3"), phantom="mindways-3"))
    settings = unchecked(
        calibration={"phantom": "mindways-3"},
        segmentation={"regions": {"bmd": "both"}},
        scoring={"model": ""},
    )
    return Run(folder, folder / "truth_mask.nii.gz", settings=settings)


def _refused(folder: Path) -> Run:
    """No phantom in a study that was declared to be QCT."""
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4"), phantom="none"))
    return Run(folder, settings=unchecked(segmentation=_GEOMETRIC), declared_qct=True)


def _no_series(folder: Path) -> Run:
    """The only series cannot be stacked, and the patient's id is missing."""
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L4"), patient_id=""))
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        del dataset.FrameOfReferenceUID
        dcmwrite(path, dataset)
    return Run(folder, settings=unchecked(segmentation=_GEOMETRIC), declared_qct=True)


def _single_slices(folder: Path) -> Run:
    write_reference_study(folder, StudySpec.one_slice_each("L2", "L3", "L4"))
    return Run(folder, settings=unchecked(segmentation=_GEOMETRIC))


def _internal(folder: Path) -> Run:
    """Calibrated by the patient's own tissues."""
    write_reference_study(folder, StudySpec.reduced(view=("L2", "L3"), phantom="none"))
    chosen = {"method": "internal", "internal": {"adipose_density_g_cm3": 0.95}}
    settings = unchecked(calibration=chosen)
    return Run(folder, folder / "truth_mask.nii.gz", settings=settings, declared_qct=True)


def _follow_up(folder: Path) -> Run:
    """A year after another study of the patient; issued anew, and taken for whole by an archive's counts."""
    first, second = folder / "first", folder / "second"
    write_reference_study(first, StudySpec.reduced(view=("L2", "L3")))
    second.mkdir()
    for path in first.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.StudyInstanceUID += ".1"
        dataset.StudyDate = str(int(dataset.StudyDate) + 10_000)
        dcmwrite(second / path.name, dataset)
    (series,) = {dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in first.glob("*.dcm")}
    came = len(list(first.glob("*.dcm")))
    settings = unchecked(
        followup={"lsc_mg_cm3": 4.0, "accept_unstated": ["spectral_filter", "reconstruction"]},
        scoring={"model": ""},
    )
    mask, history = first / "truth_mask.nii.gz", RememberedPatients()
    Run(first, mask, settings=settings, patients=history)
    return Run(
        second,
        mask,
        settings=settings,
        patients=history,
        issue=Issue(
            issued_at=datetime(2027, 1, 17, 8, 30, 12, 250000, tzinfo=UTC),
            predecessor_uid="2.25.1",
            predecessor_issued_at=datetime(2027, 1, 16, 9, tzinfo=UTC),
            amendment_reason="late images",
        ),
        completeness=Completeness(
            closed_by=ClosedBy.COUNTS,
            archive="PACS",
            silent_s=2.5,
            series=(
                SeriesCount(series_instance_uid=series, arrived=came, archived=came),
                SeriesCount(series_instance_uid=f"{series}.1", arrived=1, archived=None),
            ),
        ),
    )


STUDIES: Mapping[str, Callable[[Path], Run]] = MappingProxyType(
    {
        "reported": _reported,
        "masked": _masked,
        "refused": _refused,
        "no-series": _no_series,
        "single-slices": _single_slices,
        "internal": _internal,
        "follow-up": _follow_up,
    }
)


def main() -> None:
    for name in sys.argv[1:]:
        with TemporaryDirectory() as scratch:
            run = STUDIES[name](Path(scratch))
        (KEPT / name).mkdir(parents=True, exist_ok=True)
        for artefact in (REPORT, RESULT):
            (KEPT / name / artefact).write_bytes(run.artefacts.get(artefact))


if __name__ == "__main__":
    main()
