"""Every object of every study of the matrix: valid, readable, complete, and the same each time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from node.dicom.sr.items import summary_lines
from tests.e2e.report_matrix import CASES, CHARACTER_SETS, Studies
from tests.e2e.sr_reader import read_report

# Of the numbers of result.json, what says nothing of the patient or the images, and so is not in the report.
NOT_REPORTED = {"schema_version", "timings_s", "completeness", "provenance"}
# Its check of names has no GBK: the name is the source's, byte for byte.
NAME_NOT_KNOWN_TO_DCIODVFY = "Chinese GBK"
SET_NOT_KNOWN_TO_DCMTK = "Japanese"  # its iconv has none of JIS X 0208 with escapes; it says so
MULTI_FRAME = ("Enhanced CT", "Legacy Converted Enhanced CT")
WITHOUT_MEASUREMENT = ("no phantom", "tilted gantry")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return Studies(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module", params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def report_of(studies: Studies, name: str) -> bytes:
    (content,) = (one.content for one in studies.run(name).objects if one.file_name == "report.dcm")
    return content


def _numbers(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    match found:
        case dict():
            for key, value in found.items():
                yield from _numbers(value, (*path, str(key)))
        case list():
            for place, value in enumerate(found):
                yield from _numbers(value, (*path, str(place)))
        case bool():
            pass
        case int() | float():
            yield path, float(found)


def test_the_matrix_is_what_is_asked_of_it() -> None:
    assert len(CASES) >= 20
    assert len(CHARACTER_SETS) >= 5


def test_no_object_has_an_error_by_dciodvfy(studies: Studies, name: str, tmp_path: Path) -> None:
    objects = studies.run(name).objects
    assert len(objects) >= 2
    for one in objects:
        path = tmp_path / one.file_name
        path.write_bytes(one.content)
        run = subprocess.run(["/usr/bin/dciodvfy", path], capture_output=True, check=False)
        errors = [line for line in run.stderr.splitlines() if line.startswith(b"Error")]
        if name == NAME_NOT_KNOWN_TO_DCIODVFY:
            first, summary = errors
            assert first.startswith(
                b"Error - Value invalid for this VR - (0x0010,0x0010) PN Patient's Name"
            ), first
            assert b"invalid data values" in summary
        else:
            assert errors == [], one.file_name


@pytest.mark.parametrize("tool", ["dsrdump", "dsr2html"])
def test_dcmtk_reads_the_report_and_shows_its_answer(
    studies: Studies, name: str, tool: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(report_of(studies, name))
    options = ["+Pl"] if tool == "dsrdump" else []
    if name != SET_NOT_KNOWN_TO_DCMTK:
        options.append("+U8")
    run = subprocess.run(
        [f"/usr/bin/{tool}", *options, path], capture_output=True, text=True, errors="replace", check=True
    )
    assert [
        line for line in run.stderr.splitlines() if "SpecificCharacterSet" not in "".join(line.split())
    ] == []
    first = summary_lines(studies.run(name).report)[0]
    assert first.split(":")[0].split(" (")[0] in run.stdout
    assert "UNVERIFIED" in run.stdout or "unverified" in run.stdout


def test_a_reader_of_another_maker_recovers_every_number(studies: Studies, name: str) -> None:
    result = studies.run(name).result
    read = read_report(report_of(studies, name))
    recovered = dict(_numbers(read))
    expected = dict(_numbers({key: value for key, value in result.items() if key not in NOT_REPORTED}))
    for path, value in expected.items():
        if path[0] == "study":  # who and when: in the header, not in the content
            continue
        if path == ("series", "instances") and name in MULTI_FRAME:  # result.json counts slices
            assert recovered[path] == 1.0
            continue
        if name in WITHOUT_MEASUREMENT and path[0] in ("levels", "features", "laboratory"):
            assert path not in recovered, path  # a refusal gives no value of the patient at all
            continue
        if path[0] == "levels" and result["levels"][path[1]]["volume_mm3"] is None:
            assert path not in recovered, (
                path
            )  # cut off or withheld: no segment, and nothing of it in the report
            continue
        assert recovered.get(path) == value, path
    assert set(recovered) <= set(expected) | {("series", "instances")}
    if name in WITHOUT_MEASUREMENT:
        assert read["levels"] == {}
        assert read["calibration"] is None
    else:
        assert read["levels"] or read["unnamed_bodies"] or read["unnamed"]


def test_it_recovers_every_verdict_and_every_finding(studies: Studies, name: str) -> None:
    result = studies.run(name).result
    read = read_report(report_of(studies, name))
    density = result["categories"]["density"]
    assert read["categories"]["study_class"] == result["categories"]["study_class"]
    assert (read["categories"]["density"] or {}).get("category") == (density or {}).get("category")
    assert read["predecessor_uid"] == result["provenance"]["predecessor_uid"]
    assert [
        (one["meaning"], one["severity"], one["level"]) for one in read["findings"]
    ] == [
        (one["code"].replace("_", " ")[:64], one["severity"], one["level"]) for one in result["findings"]
    ]  # fmt: skip


@pytest.mark.parametrize(("case", "rods"), [("two rods of HA", 2), ("six rods", 6)])
def test_the_rods_of_the_segmentation_hold_what_was_read_in_them(
    studies: Studies, case: str, rods: int
) -> None:
    """By the slices that each frame names, on the images as they came."""
    (seg,) = (
        dcmread(BytesIO(one.content)) for one in studies.run(case).objects if "segmentation" in one.file_name
    )
    images = {str(one.SOPInstanceUID): one for one in map(dcmread, studies.folder_of(case).glob("*.dcm"))}
    named = {
        int(one.SegmentNumber): one.SegmentLabel.partition(": ")[2]
        for one in seg.SegmentSequence
        if one.SegmentedPropertyTypeCodeSequence[0].CodeValue == "706342009"
    }
    assert len(named) == rods
    voxels: dict[str, list[Any]] = {name: [] for name in named.values()}
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if number in named:
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            image = images[str(source.ReferencedSOPInstanceUID)]
            hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
            voxels[named[number]].append(hu[frame.astype(bool)])
    for read in studies.run(case).result["calibration"]["rods"]:
        inside = np.concatenate(voxels[read["name"]])
        assert inside.mean() == pytest.approx(read["hu_mean"], abs=2.0)
        assert inside.std() == pytest.approx(read["hu_sd"], rel=0.1)


@pytest.mark.parametrize("charset", CHARACTER_SETS)
def test_names_go_back_with_the_bytes_they_came_with(studies: Studies, charset: str) -> None:
    _, name = CHARACTER_SETS[charset]
    for one in studies.run(charset).objects:
        at = one.content.index(b"\x10\x00\x10\x00PN") + 6
        length = int.from_bytes(one.content[at : at + 2], "little")
        assert one.content[at + 2 : at + 2 + length].rstrip(b" ") == name


def test_compression_without_loss_changes_no_number(studies: Studies) -> None:
    plain = read_report(report_of(studies, "plain"))
    for name in ("RLE", "JPEG 2000"):
        assert read_report(report_of(studies, name)) == plain


@pytest.mark.parametrize("name", MULTI_FRAME)
def test_frames_of_one_instance_give_the_numbers_of_the_slices(studies: Studies, name: str) -> None:
    frames, slices = (read_report(report_of(studies, one)) for one in (name, "plain"))
    assert frames["series"].pop("instances") == 1
    assert slices["series"].pop("instances") > 1
    for one in ("levels", "calibration", "t_score", "z_score", "features", "rad_score", "nomogram"):
        assert frames[one] == slices[one], one


def test_the_studies_differ_in_what_they_say(studies: Studies) -> None:
    """The matrix shows each of the situations that it is named for."""
    expected = {
        "no phantom": "phantom_not_found",
        "tilted gantry": "no_usable_series",
        "no laboratory": "laboratory_missing",
        "fracture": "fracture_in_spine",
        "cement": "cement_in_body",
        "metal": "metal_near_body",
        "contradicting verdicts": "rules_disagree",
        "levels not named": "levels_unnamed",
        "by tissues": "internal_calibration",
        "line of an earlier scan": "asynchronous_calibration",
        "single slices": "single_slice",
        "lossy": "lossy_source",
        "a year later": "follow_up_change",
    }
    assert {name: code in studies.run(name).codes for name, code in expected.items()} == dict.fromkeys(
        expected, True
    )


def test_the_statement_names_the_relationships_that_reports_hold(studies: Studies) -> None:
    statement = (Path(__file__).parents[2] / "docs/conformance.md").read_text("utf-8")
    rows = statement.partition("| source | relationship | target |")[2].partition("\n\n")[0].splitlines()[2:]
    stated = {tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows}
    found = {
        relation
        for name in CASES
        for relation in _relations(dcmread(BytesIO(report_of(studies, name))), "CONTAINER")
    }
    assert found == stated


def _relations(item: Any, kind: str) -> Iterator[tuple[str, str, str]]:
    for child in item.get("ContentSequence") or ():
        yield kind, str(child.RelationshipType), str(child.ValueType)
        yield from _relations(child, str(child.ValueType))
