"""A study that comes as multi-frame CT: the numbers of its classic slices, results that name its frames."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from node.dicom.conformance import check_object
from node.reference.spec import StudySpec
from node.study_report import ObjectKind
from tests.dicom.multi_frame import enhanced_ct, legacy_ct, shuffled, write
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

# What may differ: names of the series and its images, times, and what a converter says of the technique.
_ITS_OWN = ("study", "series", "provenance", "timings_s")


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classic")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return folder


@pytest.fixture(scope="module")
def of_classic(classic: Path) -> dict[str, Any]:
    return Run(classic, classic / "truth_mask.nii.gz", files=False).result


@pytest.fixture(scope="module", params=[enhanced_ct, legacy_ct], ids=["enhanced", "legacy converted"])
def folder(request: pytest.FixtureRequest, classic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[..., Dataset] = request.param
    made = tmp_path_factory.mktemp("multi-frame")
    write(made / "ct.dcm", make(shuffled(classic.glob("*.dcm"))))
    shutil.copy(classic / "truth_mask.nii.gz", made)
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run(folder, folder / "truth_mask.nii.gz")


def _object(run: Run, kind: ObjectKind) -> Dataset:
    (made,) = (one for one in run.objects if one.kind is kind)
    return dcmread(BytesIO(made.content))


def test_the_numbers_are_those_of_the_classic_slices(run: Run, of_classic: dict[str, Any]) -> None:
    found = run.result
    assert found["levels"]["L3"]["bmd_mg_cm3"]
    assert found["features"]
    assert found["rad_score"]
    for name in found.keys() - set(_ITS_OWN):
        assert found[name] == of_classic[name], name
    assert found["series"]["instances"] == of_classic["series"]["instances"]


def test_every_object_passes_the_gate(run: Run) -> None:
    assert {one.kind for one in run.objects} == set(ObjectKind) - {ObjectKind.REJECTION_NOTE}
    for made in run.objects:
        check_object(made.content)


def test_the_segmentation_names_instance_and_frame_of_each_of_its_frames(run: Run, folder: Path) -> None:
    source = dcmread(folder / "ct.dcm")
    seg = _object(run, ObjectKind.SEGMENTATION)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    (instance,) = series.ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == source.SOPClassUID
    for group in seg.PerFrameFunctionalGroupsSequence:
        (named,) = group.DerivationImageSequence[0].SourceImageSequence
        assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
        frame = source.PerFrameFunctionalGroupsSequence[int(named.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(
            np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, float),
            np.asarray(frame.PlanePositionSequence[0].ImagePositionPatient, float),
            atol=1e-6,
        )


def test_the_report_names_the_instance_once(run: Run, folder: Path) -> None:
    source = dcmread(folder / "ct.dcm", stop_before_pixels=True)
    assert source.SOPClassUID in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
    report = _object(run, ObjectKind.STRUCTURED_REPORT)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named = [
        one.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
        if one.ReferencedSOPClassUID == source.SOPClassUID
    ]
    assert named == [source.SOPInstanceUID]
    library = [
        element.value
        for element in report.iterall()
        if element.keyword == "ReferencedSOPInstanceUID" and element.value == source.SOPInstanceUID
    ]
    assert len(library) == 2  # evidence and image library


def test_two_phases_in_one_instance_are_refused_with_the_reason(classic: Path, tmp_path: Path) -> None:
    slices = shuffled(classic.glob("*.dcm"))
    later = shuffled(classic.glob("*.dcm"))
    for one in later:
        one.PixelData = bytes(len(one.PixelData))
    write(tmp_path / "ct.dcm", enhanced_ct([*slices, *later]))
    refused = Run(tmp_path, classic / "truth_mask.nii.gz")
    assert "no_usable_series" in refused.codes
    (rejected,) = refused.result["series"]["rejected"]
    assert rejected["reason"].startswith("duplicate slice positions")
    assert refused.report.levels == ()
