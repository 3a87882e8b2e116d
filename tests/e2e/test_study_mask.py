"""A segmentation that another program put into the study is measured where a site asks for it alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.uid import generate_uid

from node.dicom.headers import group_series, read_headers
from node.dicom.read import LoadedSeries, read_series
from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from segmentation.vertebrae import LABELS, LUMBAR
from tests.dicom.foreign_seg import MANUFACTURER, MODEL, make_seg, save
from tests.e2e.test_process import Outcome, process

ORIGIN = f'mask_from = {{ manufacturer = "{MANUFACTURER}", model = "Vertebrae *" }}'


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced())
    return folder


@pytest.fixture(scope="module")
def series(study) -> LoadedSeries:
    return read_series(group_series(read_headers(study.glob("*.dcm")))[0])


@pytest.fixture(scope="module")
def bodies(study) -> dict[str, np.ndarray]:
    truth = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(study / "truth_mask.nii.gz")))
    return {name: truth == LABELS[name] for name in LUMBAR}


@pytest.fixture
def measure(study, tmp_path) -> Callable[..., Outcome]:
    """`process` on the study with other objects in its folder, with the mask engine configured."""

    def run(
        *objects: Path,
        segmentation: str = f'engine = "mask"\n{ORIGIN}',
        mask: Path | None = None,
        cross_check: bool = False,
    ) -> Outcome:
        folder = tmp_path / "with_objects"
        shutil.copytree(study, folder, dirs_exist_ok=True)
        for number, path in enumerate(objects):
            shutil.copy(path, folder / f"object{number}.dcm")
        config = tmp_path / "site.toml"
        config.write_text(f"[segmentation]\ncross_check = {str(cross_check).lower()}\n{segmentation}\n")
        options: list[Any] = ["--config", config, *(["--mask", mask] if mask else [])]
        return process(folder, tmp_path / "out", *options)

    return run


def test_the_segmentation_of_the_study_is_measured_and_named(measure, study, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    found = measure(save(seg, tmp_path / "seg.dcm"))
    assert found.status == 0, found.printed
    truth = json.loads((study / "truth.json").read_text())["levels"]
    for name in LUMBAR:
        level = found.result["levels"][name]
        assert level["volume_mm3"] == pytest.approx(bodies[name].sum() * 3.0 * 1.7 * 1.7)
        assert level["bmd_mg_cm3"] == pytest.approx(truth[name]["bmd_mg_cm3"], abs=3.0)
    assert found.result["t_score"] is not None
    engine = found.result["provenance"]["engine"]
    assert engine["name"] == "mask"
    told = {"convention": "dicom", "manufacturer": MANUFACTURER, "model": MODEL, "source": seg.SOPInstanceUID}
    assert engine["parameters"] == told
    drawn = dcmread(found.out / "segmentation.dcm").SegmentSequence[0]
    assert seg.SOPInstanceUID in drawn.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_without_one_the_study_is_refused(measure, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    seg.Manufacturer = "Somebody else"
    found = measure(save(seg, tmp_path / "seg.dcm"))
    assert (found.status, found.codes & {"mask_missing", "mask_refused"}) == (3, {"mask_missing"})
    assert all(level["bmd_mg_cm3"] is None for level in found.result["levels"].values())
    assert found.result["t_score"] is None


def test_one_in_another_frame_of_reference_is_refused_with_its_reason(measure, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    seg.FrameOfReferenceUID = generate_uid()
    found = measure(save(seg, tmp_path / "seg.dcm"))
    assert found.status == 3
    (told,) = [one["text"] for one in found.result["findings"] if one["code"] == "mask_refused"]
    assert "frame of reference" in told


def test_of_several_none_is_chosen(measure, series, bodies, tmp_path):
    first, second = (save(make_seg(series.headers, bodies), tmp_path / f"{n}.dcm") for n in range(2))
    found = measure(first, second)
    assert (found.status, "mask_refused" in found.codes) == (3, True)


def test_one_of_another_series_beside_it_does_not_count(measure, series, bodies, tmp_path):
    other = make_seg(series.headers, {"L3": bodies["L3"]})
    other.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    paths = [save(other, tmp_path / "1.dcm"), save(make_seg(series.headers, bodies), tmp_path / "2.dcm")]
    assert measure(*paths).status == 0


def test_another_engine_never_looks_at_it(measure, series, bodies, tmp_path):
    """The same study without its segmentation gives the same numbers, whatever the segmentation says."""
    wrong = {name: np.roll(mask, 20, axis=2) for name, mask in bodies.items()}
    found = measure(
        save(make_seg(series.headers, wrong), tmp_path / "seg.dcm"),
        segmentation=f'engine = "geometric"\n{ORIGIN}',
    )
    assert found.result["provenance"]["engine"]["name"] == "geometric"
    assert found.result["levels"]["L3"]["bmd_mg_cm3"] == pytest.approx(96.0, abs=3.0)


def test_a_file_named_by_a_person_needs_no_configuration(measure, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    found = measure(segmentation="", mask=save(seg, tmp_path / "named.dcm"))
    assert found.status == 0, found.printed
    assert found.result["provenance"]["engine"]["parameters"]["source"] == seg.SOPInstanceUID


def test_names_one_vertebra_off_are_contradicted_by_sacrum_and_rib(measure, series, bodies, tmp_path):
    """A row without a gap, in order, with a spine's spacings: only counting tells that L3 is the L4."""
    off = {name: bodies[below] for name, below in pairwise(LUMBAR)}
    seg = save(make_seg(series.headers, off), tmp_path / "seg.dcm")
    assert measure(seg).result["t_score"] is not None  # in itself it is a spine's row
    found = measure(seg, cross_check=True)
    assert found.result["t_score"] is None
    assert found.result["rad_score"] is None
    told = [one["text"] for one in found.result["findings"] if one["code"] == "level_implausible"]
    assert any("L3 is L4 as counted from sacrum and last rib" in text for text in told)
    assert found.result["provenance"]["engine"]["parameters"]["cross_check"] == "geometric 1"
