"""Which rows of a table of features a second run keeps, and which it computes again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from rich.console import Console

from config.catalog import load_radiomics_settings_text
from config.settings import ConfigurationError, load_settings
from node.research.extraction import (
    ABOUT,
    Extraction,
    Row,
    extract_features,
    reason_row,
    study_content_sha256,
)
from scoring.radiomics import feature_names, parse_settings

NAMES = feature_names(parse_settings(load_radiomics_settings_text()[0]))
MASK = "drawn.nii.gz"


def write_study(folder: Path, mask: bytes = b"as drawn first") -> Path:
    """One image's header and a mask: what tells a study and its mask from others."""
    folder.mkdir(parents=True)
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID, image.StudyInstanceUID = (
        CTImageStorage,
        generate_uid(),
        generate_uid(),
    )
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    pydicom.dcmwrite(folder / "image.dcm", image, enforce_file_format=True)
    (folder / MASK).write_bytes(mask)
    return folder


class Computing:
    """In place of pyradiomics: each study's feature is how many were computed before; remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, studies: Sequence[str], how: Extraction, sha256: str) -> Iterator[Row]:
        for name in studies:
            self.asked.append(name)
            content = study_content_sha256(name, how.mask)
            row = reason_row(name, sha256, "" if content else "no study") | {"content_sha256": content}
            yield row | (dict.fromkeys(NAMES, f"{len(self.asked)}.25") if content else {})


@pytest.fixture
def features(
    tmp_path: Path,
) -> Callable[..., tuple[list[str], list[Row]]]:
    """A run over studies: who was computed, and the rows that it gave."""
    how = Extraction(settings=load_settings(), mask=MASK, jobs=1)
    out = tmp_path / "features.csv"

    def run(*studies: Path) -> tuple[list[str], list[Row]]:
        computing = Computing()
        rows = extract_features(studies, out, how, Console(file=StringIO()), computing)
        return computing.asked, list(rows)

    return run


def in_table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_on_equal_files_is_kept_by_whatever_path_it_is_named(features, tmp_path, monkeypatch):
    study = write_study(tmp_path / "here" / "study")
    _, first = features(study)
    monkeypatch.chdir(tmp_path / "here")
    asked, again = features(Path("study"))
    assert asked == []
    assert again == first
    assert again[0]["study"] == str(study)


def test_a_row_with_a_cell_more_than_the_head_is_computed_again(features, tmp_path):
    study = write_study(tmp_path / "study")
    features(study)
    table = tmp_path / "features.csv"
    head, row = table.read_text("utf-8").splitlines()
    table.write_text(f"{head}\n{row},1\n", "utf-8")
    asked, _ = features(study)
    assert asked == [str(study)]
    assert len(in_table(table)) == 1


def test_another_study_of_the_same_name_elsewhere_gets_its_own_row(features, tmp_path, monkeypatch):
    for place in ("here", "there"):
        write_study(tmp_path / place / "study")
        monkeypatch.chdir(tmp_path / place)
        asked, rows = features(Path("study"))
        assert asked == [str(tmp_path / place / "study")]
        assert rows[0]["study"] == str(tmp_path / place / "study")
    assert len(in_table(tmp_path / "features.csv")) == 2


@pytest.mark.parametrize("name", [MASK, "image.dcm"])
def test_a_mask_drawn_anew_or_another_image_under_the_same_name_is_computed_again(features, tmp_path, name):
    study = write_study(tmp_path / "study")
    features(study)
    other = write_study(tmp_path / "other", mask=b"drawn anew")
    (study / name).write_bytes((other / name).read_bytes())
    asked, rows = features(study)
    assert asked == [str(study)]
    (row,) = in_table(tmp_path / "features.csv")
    assert row["content_sha256"] == rows[0]["content_sha256"] == study_content_sha256(str(study), MASK)


def test_a_study_without_features_is_tried_again_and_the_others_rows_stay(features, tmp_path):
    whole, mended = write_study(tmp_path / "whole"), tmp_path / "mended"
    mended.mkdir()
    _, rows = features(whole, mended)
    assert rows[1]["reason"] == "no study"
    mended.rmdir()
    write_study(mended)
    asked, rows = features(mended)
    assert asked == [str(mended)]
    assert rows[0]["reason"] == ""
    assert {row["study"]: row["reason"] for row in in_table(tmp_path / "features.csv")} == {
        str(whole): "",
        str(mended): "",
    }


def test_features_of_a_study_that_is_gone_are_not_given_up(features, tmp_path):
    study = write_study(tmp_path / "study")
    features(study)
    before = (tmp_path / "features.csv").read_bytes()
    study.rename(tmp_path / "archived")
    with pytest.raises(ConfigurationError, match=r"1 studies with features .* are gone"):
        features(study)
    assert (tmp_path / "features.csv").read_bytes() == before


def test_a_row_without_its_lines_end_is_none(features, tmp_path):
    """A killed run's last number is still a number when its last digits are missing."""
    study = write_study(tmp_path / "study")
    features(study)
    table = tmp_path / "features.csv"
    torn = table.read_bytes().removesuffix(b"5\r\n")
    assert torn.endswith(b"1.2")
    table.unlink()
    table.with_name("features.csv.partial").write_bytes(torn)
    asked, _ = features(study)
    assert asked == [str(study)]
    (row,) = in_table(table)
    assert {row[name] for name in row if name not in ABOUT} == {"1.25"}


def test_a_run_stopped_anywhere_and_stopped_again_at_once_loses_no_finished_study(features, tmp_path):
    """Wherever the first run's file ends, the second keeps every whole row before it computes anything."""
    studies = [write_study(tmp_path / f"study{number}") for number in range(3)]
    features(*studies)
    out, partial = tmp_path / "features.csv", tmp_path / "features.csv.partial"
    whole = out.read_bytes()
    out.unlink()
    how = Extraction(settings=load_settings(), mask=MASK, jobs=1)
    ends = [at + 2 for at in range(len(whole)) if whole.startswith(b"\r\n", at)]  # of header and of each row

    def stopped(todo: Sequence[str], how: Extraction, sha256: str) -> Iterator[Row]:
        left.append(partial.read_bytes())  # what a kill at this moment would leave
        raise KeyboardInterrupt
        yield {}

    for end in ends[:-1]:
        for torn in (end - 1, end, end + 40):
            left: list[bytes] = []
            partial.write_bytes(whole[:torn])
            with pytest.raises(KeyboardInterrupt):
                extract_features(studies, out, how, Console(file=StringIO()), stopped)
            kept = max((one for one in ends if one <= torn), default=ends[0])
            assert left == [whole[:kept]]
            assert partial.read_bytes() == whole[:kept]
            assert not out.exists()
    asked, _ = features(*studies)
    assert asked == [str(studies[2])]
