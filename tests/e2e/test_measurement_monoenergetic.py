"""Virtual monoenergetic images and tin that state KVP 120: density by their own phantom, and no score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.study_report import Outcome
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

Edit = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return folder


@pytest.fixture
def measure(study: Path, tmp_path: Path) -> Callable[..., Run]:
    """Measure the study with HU above water times a factor, and the headers that an edit gives."""

    def run(edit: Edit, factor: float = 1.0, **more: object) -> Run:
        for path in study.glob("*.dcm"):
            dataset = dcmread(path)
            intercept = float(dataset.RescaleIntercept)
            hu = dataset.pixel_array.astype(np.float32) + intercept
            scaled = np.where(hu > 0, hu * factor, hu) - intercept
            dataset.PixelData = np.clip(np.rint(scaled), 0, 4095).astype(np.uint16).tobytes()
            edit(dataset)
            dcmwrite(tmp_path / path.name, dataset)
        return Run(tmp_path, study / "truth_mask.nii.gz", files=False, **more)  # type: ignore[arg-type]

    return run


def virtual(kev: float) -> Edit:
    def edit(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "VMI"]
        dataset.MultienergyCTAcquisition = "YES"
        item = Dataset()
        item.MonoenergeticEnergyEquivalent = kev
        dataset.MultienergyCTCharacteristicsSequence = [item]

    return edit


def tin(dataset: Dataset) -> None:
    dataset.FilterType, dataset.FilterMaterial = "FLAT", "TIN"


def wedge(dataset: Dataset) -> None:
    dataset.FilterType = "WEDGE_2"


def text_of(found: Run, code: str) -> str:
    return next(one.text for one in found.report.findings if one.code == code)


@pytest.mark.parametrize(
    ("edit", "factor", "told"),
    [
        (virtual(60.0), 1.12, "the energy type is virtual 60 keV; conventional is required"),
        (virtual(70.0), 0.86, "the energy type is virtual 70 keV; conventional is required"),
        (tin, 1.0, "the spectral filter is tin; none is required"),
    ],
    ids=["60 keV", "70 keV", "tin"],
)
def test_another_spectrum_gives_density_and_no_score(
    measure: Callable[..., Run], edit: Edit, factor: float, told: str
) -> None:
    found = measure(edit, factor)
    densities = [one.measured.bmd_mg_cm3 for one in found.report.levels if one.measured]
    assert densities == pytest.approx([101.9, 98.9, 96.1, 96.8], abs=1.5)
    assert found.report.rad_score is None
    assert found.report.nomogram is None
    assert found.report.t_score is None  # the reference states tube voltages, which stand for no such image
    assert told in text_of(found, "model_range")
    assert told in text_of(found, "reference_mismatch")
    assert "spectrum_unusual" in found.codes


def test_forty_kev_is_refused_by_its_name_and_for_nothing_else(measure: Callable[..., Run]) -> None:
    """Nobody declared the study: what looks like rods at that energy calls for the refusal."""
    found = measure(virtual(40.0), 1.9, declared_qct=False)
    assert found.report.outcome is Outcome.REFUSED
    assert "virtual 40 keV; the limits apply from 50 to 75 keV" in text_of(found, "no_usable_series")
    assert found.codes == {"no_usable_series"}


def test_an_ordinary_filter_takes_nothing_away(measure: Callable[..., Run]) -> None:
    found = measure(wedge)
    assert found.report.rad_score is not None
    assert not found.codes & {"spectrum_unusual", "filter_unknown", "model_range"}
