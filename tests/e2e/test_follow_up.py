"""The change since a patient's earlier study, from two studies to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite

from node.reference.spec import StudySpec
from tests.e2e.in_process import RememberedPatients, Run, unchecked
from tests.made_studies import write_reference_study


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


def measured(study, mask, **how) -> dict[str, Any]:
    return Run(study, mask, files=False, **how).result


@pytest.fixture(scope="module")
def mask(first) -> Path:
    return first / "truth_mask.nii.gz"


@pytest.fixture(scope="module")
def before(first, mask) -> tuple[dict[str, Any], RememberedPatients]:
    """The result of the first study, and what is remembered of it."""
    history = RememberedPatients()
    return measured(first, mask, settings=unchecked(followup=ACCEPTED), patients=history), history


@pytest.fixture
def history(before) -> RememberedPatients:
    """What is remembered of the first study, for a test that adds to it."""
    remembered = RememberedPatients()
    remembered.kept.update(before[1].kept)
    return remembered


def test_the_change_of_every_level_is_reported_with_the_sites_own_significance(before, history, second, mask):
    before, _ = before
    assert before["follow_up"] is None
    after = measured(second, mask, settings=unchecked(followup=ACCEPTED), patients=history)

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


def test_other_headers_or_other_limits_of_the_engine_part_two_studies(history, second, mask):
    settings = unchecked(segmentation={"geometric": {"cortex_hu": 450.0}})
    after = measured(second, mask, settings=settings, patients=history)["follow_up"]
    assert (after["comparable"], after["levels"]) == (False, {})
    rules, *unstated = after["reasons"]
    assert rules.startswith("its configuration of engine, regions and calibration is ")
    assert unstated == [f"neither study states the {name}" for name in ("spectral filter", "reconstruction")]


def test_a_study_without_memory_has_no_follow_up(first, mask):
    assert measured(first, mask)["follow_up"] is None


def test_a_density_that_a_later_generation_withdrew_is_compared_with_nothing(
    first, second, mask, history, tmp_path
):
    settings = unchecked(followup=ACCEPTED)
    assert len(history.kept) == 1
    for path in first.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 45.0
        dcmwrite(tmp_path / path.name, dataset)
    # Rods that read so far off are no phantom: nothing but its being declared says what the study is for.
    withdrawn = measured(tmp_path, mask, settings=settings, patients=history, declared_qct=True)
    assert withdrawn["study"]["study_instance_uid"] == dcmread(next(first.glob("*.dcm"))).StudyInstanceUID
    assert all(level["bmd_mg_cm3"] is None for level in withdrawn["levels"].values())
    assert history.kept == {}
    assert measured(second, mask, settings=settings, patients=history)["follow_up"] is None
