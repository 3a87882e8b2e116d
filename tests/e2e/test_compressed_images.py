"""A study that comes compressed: the same numbers where nothing was lost, and fewer where something was."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

WITHHELD_TEXTURE = ("features", "rad_score", "nomogram")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_reference_study(folder, StudySpec.reduced(view=("L1", "L4")))
    return folder


def _copy(source: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    shutil.copy(source / "truth_mask.nii.gz", target)
    return target


def _result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = Run(folder, folder / "truth_mask.nii.gz", files=False).result
    return result


def _without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "timings_s"}


@pytest.fixture(scope="module")
def of_plain(plain: Path) -> dict[str, Any]:
    return _result(plain)


@pytest.mark.parametrize(
    "command", [("dcmcjpeg", "+e1"), ("dcmcjpls", "+el")], ids=["JPEG lossless", "JPEG-LS"]
)
def test_a_study_compressed_without_loss_gives_the_same_result(
    plain: Path, of_plain: dict[str, Any], tmp_path: Path, command: tuple[str, str]
) -> None:
    folder = _copy(plain, tmp_path / "packed")
    for path in plain.glob("*.dcm"):
        tool, option = command
        subprocess.run([f"/usr/bin/{tool}", option, path, folder / path.name], check=True)
    packed = _result(folder)
    assert of_plain["levels"]["L3"]["bmd_mg_cm3"]
    assert of_plain["features"]
    assert _without_times(packed) == _without_times(of_plain)


@pytest.mark.parametrize(
    ("ratio", "code", "words"),
    [
        ("6.25", "lossy_source", "lossy-compressed (6.25:1)"),
        ("14", "lossy_strong", "strongly lossy-compressed (14:1, limit 10:1)"),
        (None, "lossy_unknown", "The loss is not stated"),
    ],
)
def test_a_loss_takes_what_it_spoils(
    plain: Path, of_plain: dict[str, Any], tmp_path: Path, ratio: str | None, code: str, words: str
) -> None:
    """Of images that were lossy once and come uncompressed, so that their pixels are those of `plain`."""
    folder = _copy(plain, tmp_path / "lossy")
    for path in plain.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.LossyImageCompression = "01"
        if ratio is not None:
            dataset.LossyImageCompressionRatio = ratio
        dataset.save_as(folder / path.name)
    result = _result(folder)
    (finding,) = [one for one in result["findings"] if one["code"].startswith("lossy_")]
    assert finding["code"] == code
    assert words in finding["text"]
    assert [result[name] for name in WITHHELD_TEXTURE] == [None] * 3
    weak = code == "lossy_source"
    for level, values in result["levels"].items():
        expected = of_plain["levels"][level] if weak else {"bmd_mg_cm3": None, "hu_mean": None}
        assert values["bmd_mg_cm3"] == expected["bmd_mg_cm3"]
        assert values["hu_mean"] == expected["hu_mean"]
    assert (result["t_score"] is None) is not weak
    assert of_plain["t_score"] is not None
