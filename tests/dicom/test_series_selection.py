"""The node measures the right series, says why not the others, and knows its own objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from config.phrases import in_english
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.series_choice import is_qct_candidate, kernel_rank, select_series
from node.dicom.result_headers import made_here


@pytest.fixture
def write_series(tmp_path, make_slice):
    def write(name: str, *, count: int = 12, step_mm: float = 5.0, **changes) -> str:
        folder = tmp_path / name
        folder.mkdir()
        uid = f"1.2.3.{len(list(tmp_path.iterdir()))}"
        for k in range(count):
            make_slice(
                folder / f"{k:03d}.dcm",
                np.zeros((4, 4), dtype=np.int16),
                (0.0, 0.0, step_mm * k),
                SeriesInstanceUID=uid,
                SliceThickness=step_mm,
                **changes,
            )
        return uid

    return write


def _select(tmp_path: Path):
    return select_series(group_series(read_headers(tmp_path.glob("*/*.dcm"))))


def _reasons(selection) -> dict[str, str]:
    return {rejected.series_instance_uid: in_english(rejected.reason) for rejected in selection.rejected}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "not an original acquisition (ImageType)"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial"),
        ({"ImageOrientationPatient": None}, "no orientation"),
        ({"count": 3}, "only 3 slices"),
        ({"step_mm": 2.0}, "covers only 22 mm"),
    ],
)
def test_an_unsuitable_series_is_rejected_with_its_reason(tmp_path, write_series, changes, reason):
    bad = write_series("bad", **changes)
    good = write_series("good")
    selection = _select(tmp_path)
    assert selection.chosen is not None
    assert selection.chosen.series_instance_uid == good
    assert _reasons(selection) == {bad: reason}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer (1 of 12 images)"),
        (
            {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
            "not an original acquisition (ImageType) (1 of 12 images)",
        ),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial (1 of 12 images)"),
    ],
)
def test_every_image_of_a_series_is_judged_not_its_first_alone(tmp_path, write_series, changes, reason):
    bad = write_series("bad")
    last = dcmread(tmp_path / "bad" / "011.dcm")
    for keyword, value in changes.items():
        setattr(last, keyword, value)
    last.save_as(tmp_path / "bad" / "011.dcm")
    selection = _select(tmp_path)
    assert selection.chosen is None
    assert _reasons(selection) == {bad: reason}


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _source(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, f"1.2.3.4.{number}"
    return item


LOSSY = {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "LossyImageCompression": "01"}
AS_ARCHIVES_WRITE_IT = LOSSY | {
    "DerivationDescription": "Lossy compression with JPEG extended sequential 12 bit, IJG quality factor 90",
    "DerivationCodeSequence": [_code("113040", "DCM", "Lossy Compression")],
    "SourceImageSequence": [_source(1)],
}


@pytest.mark.parametrize(
    "changes",
    [LOSSY, AS_ARCHIVES_WRITE_IT, LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]}],
    ids=["the type alone", "with its derivation", "with a maker's word"],
)
def test_an_image_that_is_derived_by_lossy_compression_alone_may_be_measured(tmp_path, write_series, changes):
    lossy = write_series("lossy", **changes)
    selection = _select(tmp_path)
    assert selection.chosen is not None
    assert selection.chosen.series_instance_uid == lossy


@pytest.mark.parametrize(
    "changes",
    [
        LOSSY | {"LossyImageCompression": "00"},
        LOSSY | {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "MPR"]},
        LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"]},
        LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MIP"]},
        LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "AVERAGE"]},
        LOSSY | {"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "SUBTRACTION"]},
        LOSSY | {"DerivationDescription": "MIP, thickness 10 mm; lossy compression"},
        AS_ARCHIVES_WRITE_IT | {"SourceImageSequence": [_source(1), _source(2)]},
        AS_ARCHIVES_WRITE_IT
        | {"DerivationCodeSequence": [_code("113072", "DCM", "Multiplanar reformatting")]},
        AS_ARCHIVES_WRITE_IT
        | {
            "DerivationCodeSequence": [
                _code("113076", "DCM", "Segmentation"),
                _code("113040", "DCM", "Lossy Compression"),
            ]
        },
    ],
)
def test_an_image_that_is_derived_in_another_way_stays_rejected(tmp_path, write_series, changes):
    bad = write_series("bad", **changes)
    selection = _select(tmp_path)
    assert selection.chosen is None
    assert _reasons(selection) == {bad: "not an original acquisition (ImageType)"}


def test_a_soft_kernel_goes_before_a_sharp_one(tmp_path, write_series):
    sharp = write_series("sharp", ConvolutionKernel="B70s", step_mm=3.0, count=20)
    soft = write_series("soft", ConvolutionKernel="B40f")
    selection = _select(tmp_path)
    assert selection.chosen.series_instance_uid == soft
    assert _reasons(selection) == {sharp: "sharper kernel than the chosen series"}


def test_more_coverage_goes_before_thinner_slices(tmp_path, write_series):
    part = write_series("part", step_mm=1.0, count=40)
    whole = write_series("whole", step_mm=5.0, count=40)
    selection = _select(tmp_path)
    assert selection.chosen.series_instance_uid == whole
    assert _reasons(selection) == {part: "less coverage than the chosen series"}


def test_thinner_slices_go_before_thick_ones(tmp_path, write_series):
    thick = write_series("thick", step_mm=10.0, count=10)
    thin = write_series("thin", step_mm=1.25, count=73)
    selection = _select(tmp_path)
    assert selection.chosen.series_instance_uid == thin
    assert _reasons(selection) == {thick: "thicker slices than the chosen series"}


def test_a_single_slice_is_told_apart_from_no_series(tmp_path, write_series):
    write_series("one", count=1)
    selection = _select(tmp_path)
    assert selection.chosen is None
    assert selection.too_few == 1


def test_nothing_suitable_is_no_choice(tmp_path, write_series):
    write_series("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    selection = _select(tmp_path)
    assert selection.chosen is None
    assert selection.too_few is None


@pytest.mark.parametrize(
    ("kernel", "rank"),
    [("B40f", 0), ("Br38f 3", 0), ("STANDARD", 0), ("FC08", 0), ("B", 0), ("B60s", 2), ("BONEPLUS", 2),
     ("I31f 3", 0), ("LUNG", 2), ("YC", 1), ("", 1)],
)  # fmt: skip
def test_kernels_of_several_vendors_are_ranked(kernel, rank):
    assert kernel_rank(kernel) == rank


def _coded(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "a procedure"
    return item


def test_a_configured_procedure_code_declares_a_qct(tmp_path, write_series):
    write_series("coded", ProcedureCodeSequence=[_coded("CTQCT", "99HOSP")])
    instances = read_headers(tmp_path.glob("*/*.dcm"))
    assert is_qct_candidate(instances, ["CTQCT^99HOSP"])
    assert not is_qct_candidate(instances, ["CTQCT^OTHER"])
    assert not is_qct_candidate(instances, [])


def test_a_description_declares_nothing(tmp_path, write_series):
    write_series("described", StudyDescription="CT lumbar QCT")
    assert not is_qct_candidate(read_headers(tmp_path.glob("*/*.dcm")), [])


def test_an_object_without_contributing_equipment_is_not_ours(study):
    assert not made_here(study.series.headers[0])
