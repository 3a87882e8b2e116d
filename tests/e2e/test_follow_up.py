"""The change since a patient's earlier study, from two studies to the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from tests.e2e.in_process import RememberedPatients, Run, unchecked


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L3")))
    return folder


@pytest.fixture(scope="module")
def second(first, tmp_path_factory) -> Path:
    """The same patient, scanned a year later, with all HU 8 higher in the vertebrae's part of the image."""
    folder = tmp_path_factory.mktemp("second")
    for path in sorted(first.glob("*.dcm")):
        dataset = dcmread(path)
        dataset.StudyInstanceUID += ".1"
        dataset.StudyDate = str(int(dataset.StudyDate) + 10_000)
        pixels = dataset.pixel_array.copy()
        phantom = round((92.0 - dataset.ImagePositionPatient[1]) / dataset.PixelSpacing[0])
        pixels[:phantom] += 8
        dataset.PixelData = pixels.tobytes()
        dcmwrite(folder / path.name, dataset)
    return folder


# What the reference study's headers state nowhere.
ACCEPTED = {"lsc_mg_cm3": 4.0, "accept_unstated": ["spectral_filter", "reconstruction"]}


def test_the_change_of_every_level_is_reported_with_the_sites_own_significance(first, second):
    mask, history = first / "truth_mask.nii.gz", RememberedPatients()
    before = Run(first, mask, settings=unchecked(followup=ACCEPTED), patients=history).result
    assert before["follow_up"] is None
    after = Run(second, mask, settings=unchecked(followup=ACCEPTED), patients=history).result

    found = after["follow_up"]
    assert found["comparable"]
    assert found["prior_study_instance_uid"] == before["study"]["study_instance_uid"]
    assert set(found["levels"]) == {name for name, one in after["levels"].items() if one["bmd_mg_cm3"]}
    expected = 8.0 * after["calibration"]["slope"]
    for name, level in found["levels"].items():
        assert level["change_mg_cm3"] == pytest.approx(expected, abs=0.1)
        assert level["earlier_mg_cm3"] == before["levels"][name]["bmd_mg_cm3"]
        assert level["significant"]
    assert found["equivalent"] == "HA"
    assert {level["equivalent"] for level in after["levels"].values()} == {"HA"}
    assert {"follow_up_change", "follow_up_unstated"} <= {finding["code"] for finding in after["findings"]}


def test_other_headers_or_other_limits_of_the_engine_part_two_studies(first, second):
    mask, history = first / "truth_mask.nii.gz", RememberedPatients()
    Run(first, mask, settings=unchecked(followup=ACCEPTED), patients=history)
    after = Run(
        second, mask, settings=unchecked(segmentation={"geometric": {"cortex_hu": 450.0}}), patients=history
    ).result["follow_up"]
    assert (after["comparable"], after["levels"]) == (False, {})
    rules, *unstated = after["reasons"]
    assert rules.startswith("its set of rules for engine, regions and calibration is ")
    assert unstated == [
        f"the {name} is not stated in either" for name in ("spectral filter", "reconstruction")
    ]


def test_a_study_without_memory_has_no_follow_up(first):
    assert Run(first, first / "truth_mask.nii.gz").result["follow_up"] is None


def test_a_density_that_a_later_generation_withdrew_is_compared_with_nothing(first, second, tmp_path):
    mask, settings, history = first / "truth_mask.nii.gz", unchecked(followup=ACCEPTED), RememberedPatients()
    Run(first, mask, settings=settings, patients=history)
    assert len(history.kept) == 1
    for path in first.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 45.0
        dcmwrite(tmp_path / path.name, dataset)
    # Rods that read so far off are no phantom: nothing but its being declared says what the study is for.
    withdrawn = Run(tmp_path, mask, settings=settings, patients=history, declared_qct=True).result
    assert withdrawn["study"]["study_instance_uid"] == dcmread(next(first.glob("*.dcm"))).StudyInstanceUID
    assert all(level["bmd_mg_cm3"] is None for level in withdrawn["levels"].values())
    assert history.kept == {}
    assert Run(second, mask, settings=settings, patients=history).result["follow_up"] is None
