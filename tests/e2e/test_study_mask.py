"""A segmentation that another program put into the study is measured where a site asks for it alone."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.uid import generate_uid

from config.phrases import in_english
from config.settings import load_settings
from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.reading import LoadedSeries, read_series
from node.pipeline.engine import StudyMask, resolve_engine
from node.reference.spec import StudySpec
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.name_checks import cross_check
from segmentation.errors import EngineUnavailable
from segmentation.vertebrae import LABELS, LUMBAR, Vertebrae
from tests.dicom.foreign_seg import MANUFACTURER, MODEL, make_seg, save
from tests.e2e.test_process import Outcome, process
from tests.made_studies import write_reference_study

ORIGIN = {"manufacturer": MANUFACTURER, "model": "Vertebrae *"}


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


def configured(mask: Path | None = None, **segmentation: object) -> StudyMask:
    settled = resolve_engine(load_settings(segmentation=segmentation).segmentation, mask)
    assert isinstance(settled, StudyMask)
    return settled


def reason(found: Vertebrae) -> str:
    """Why a segmentation was refused."""
    assert found.levels == ()
    (told,) = found.observations
    assert told.code == "mask_refused"
    return in_english(told.values["reason"])


def processed(study: Path, tmp_path: Path, *objects: Path) -> Outcome:
    """`process` on the study with other objects in its folder, with the mask engine configured."""
    folder = tmp_path / "with_objects"
    shutil.copytree(study, folder)
    for number, path in enumerate(objects):
        shutil.copy(path, folder / f"object{number}.dcm")
    config = tmp_path / "site.toml"
    origin = ", ".join(f'{key} = "{pattern}"' for key, pattern in ORIGIN.items())
    config.write_text(f'[segmentation]\nengine = "mask"\nmask_from = {{ {origin} }}\n')
    return process(folder, tmp_path / "out", "--config", config)


def test_the_segmentation_of_the_study_is_measured_and_named(study, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    found = processed(study, tmp_path, save(seg, tmp_path / "seg.dcm"))
    assert found.status == 0, found.printed
    truth = json.loads((study / "truth.json").read_text())["levels"]
    for name in LUMBAR:
        level = found.result["levels"][name]
        assert level["volume_mm3"] == pytest.approx(bodies[name].sum() * series.volume.grid.voxel_volume_mm3)
        assert level["bmd_mg_cm3"] == pytest.approx(truth[name]["bmd_mg_cm3"], abs=3.0)
    assert found.result["t_score"] is not None
    engine = found.result["provenance"]["engine"]
    assert engine["name"] == "mask"
    assert engine["parameters"] == {
        "convention": "dicom",
        "manufacturer": MANUFACTURER,
        "model": MODEL,
        "source": seg.SOPInstanceUID,
        "cross_check": f"geometric {GeometricEngine().info.version}",
    }
    drawn = dcmread(found.out / "segmentation.dcm").SegmentSequence[0]
    algorithm = drawn.SegmentationAlgorithmIdentificationSequence[0]
    assert f"source={seg.SOPInstanceUID}" in str(algorithm.AlgorithmParameters)


def test_without_one_of_that_origin_the_study_is_refused(study, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    seg.Manufacturer = "Somebody else"
    found = processed(study, tmp_path, save(seg, tmp_path / "seg.dcm"))
    assert found.status == 3
    assert "mask_missing" in found.codes
    assert found.result["levels"] == {}
    assert found.result["t_score"] is None


def test_one_in_another_frame_of_reference_is_refused_with_its_reason(study, series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    seg.FrameOfReferenceUID = generate_uid()
    found = configured(engine="mask", mask_from=ORIGIN).segment_study([save(seg, tmp_path / "a.dcm")], series)
    assert "frame of reference" in reason(found)


def test_of_several_none_is_chosen(series, bodies, tmp_path):
    both = [save(make_seg(series.headers, bodies), tmp_path / f"{n}.dcm") for n in range(2)]
    assert "several" in reason(configured(engine="mask", mask_from=ORIGIN).segment_study(both, series))


def test_one_of_another_series_beside_it_does_not_count(series, bodies, tmp_path):
    engine = configured(engine="mask", mask_from=ORIGIN)
    other = make_seg(series.headers, {"L3": bodies["L3"]})
    other.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    paths = [save(other, tmp_path / "1.dcm"), save(make_seg(series.headers, bodies), tmp_path / "2.dcm")]
    found = engine.segment_study(paths, series)
    assert [level.name for level in found.levels] == list(LUMBAR)
    assert "another series" in reason(engine.segment_study(paths[:1], series))


def test_a_file_named_by_a_person_needs_no_configuration(series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    found = configured(save(seg, tmp_path / "named")).segment_study([], series)
    assert found.engine.parameters["source"] == seg.SOPInstanceUID
    assert np.array_equal(found.bodies == LABELS["L3"], bodies["L3"])


def test_labels_count_where_a_site_has_named_them(series, bodies, tmp_path):
    seg = make_seg(series.headers, bodies)
    for item in seg.SegmentSequence:
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = "unknown"
    path = save(seg, tmp_path / "seg.dcm")
    names = {f"segment {number}": level for number, level in enumerate(LUMBAR, 1)}
    found = configured(path, mask_segments=names).segment_study([], series)
    assert np.array_equal(found.bodies == LABELS["L3"], bodies["L3"])
    assert "none of its segments" in reason(configured(path).segment_study([], series))


def test_only_the_mask_engine_looks_for_one(tmp_path):
    with pytest.raises(EngineUnavailable, match="mask_from"):
        configured(engine="mask")
    settings = load_settings(segmentation={"engine": "geometric", "mask_from": ORIGIN})
    assert isinstance(resolve_engine(settings.segmentation), GeometricEngine)


def test_names_without_an_anchor_of_their_own_have_the_counting_engine_s(series, bodies, tmp_path):
    path = save(make_seg(series.headers, bodies), tmp_path / "seg.dcm")
    found = configured(engine="mask", mask_from=ORIGIN).segment_study([path], series)
    assert [one.code for one in found.observations] == ["level_unconfirmed"]
    checked = cross_check(series.volume, found, GeometricEngine())
    assert (checked.numbering_confirmed, checked.numbering_basis) == (True, "sacrum and last rib")
    assert checked.observations == ()


def test_names_one_vertebra_off_are_contradicted_by_sacrum_and_rib(series, bodies, tmp_path):
    """A row without a gap, in order, with a spine's spacings: only counting tells that its L3 is the L4."""
    off = {name: bodies[below] for name, below in pairwise(LUMBAR)}
    path = save(make_seg(series.headers, off), tmp_path / "seg.dcm")
    found = configured(path).segment_study([], series)
    assert found.numbering_confirmed  # in itself it is a spine's row
    checked = cross_check(series.volume, found, GeometricEngine())
    assert not checked.numbering_confirmed
    told = [
        in_english(one.values["detail"]) for one in checked.observations if one.code == "level_implausible"
    ]
    assert "L3 is L4 when counted from sacrum and last rib" in told
    assert np.array_equal(checked.bodies, found.bodies)
