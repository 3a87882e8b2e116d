"""Multi-frame CT reads as the slices that it holds: the same volume, the same facts, or a reason."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from config.phrases import in_english
from node.dicom.ct.headers import SeriesHeaders, group_series, read_headers
from node.dicom.ct.pixel_data import decode_frames
from node.dicom.ct.reading import LoadedSeries, read_series
from node.dicom.ct.series_choice import select_series, unsuitable_reason
from node.dicom.errors import SeriesUnusable, Unusable
from node.reference.spec import StudySpec
from tests.dicom.multi_frame import edited, enhanced_ct, item, legacy_ct, shuffled, write
from tests.made_studies import write_reference_study

pytestmark = pytest.mark.slow

SLICES = 12
DAMAGES = 100


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classic")
    write_reference_study(folder, StudySpec.reduced(view=("L3", "L3")))
    for path in sorted(folder.glob("*.dcm"))[SLICES:]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def of_classic(classic: Path) -> LoadedSeries:
    return read_series(series_in(classic))


@pytest.fixture
def slices(classic: Path) -> list[Dataset]:
    return shuffled(classic.glob("*.dcm"))


def series_in(folder: Path) -> SeriesHeaders:
    (series,) = group_series(read_headers(folder.glob("*.dcm")))
    return series


def in_folder(folder: Path, ct: Dataset) -> SeriesHeaders:
    write(folder / "ct.dcm", ct)
    return series_in(folder)


def require_equal(loaded: LoadedSeries, expected: LoadedSeries) -> None:
    assert loaded.volume.grid == expected.volume.grid
    np.testing.assert_array_equal(loaded.volume.hu, expected.volume.hu)


@pytest.mark.parametrize("make", [enhanced_ct, legacy_ct])
def test_frames_in_any_order_make_the_volume_and_the_facts_of_the_slices(
    make: Callable[..., Dataset], slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    loaded = read_series(in_folder(tmp_path, make(slices)))
    require_equal(loaded, of_classic)
    own = {"series_instance_uid": loaded.facts.series_instance_uid, "reconstruction": ""}
    assert replace(loaded.facts, **own) == replace(of_classic.facts, **own)
    assert sorted(frame or 0 for frame in loaded.frames) == list(range(1, SLICES + 1))
    assert [float(h.ImagePositionPatient[2]) for h in loaded.headers] == sorted(
        float(h.ImagePositionPatient[2]) for h in of_classic.headers
    )


def test_the_enhanced_ct_of_these_tests_is_one_by_the_standard(slices: list[Dataset], tmp_path: Path) -> None:
    path = write(tmp_path / "ct.dcm", enhanced_ct(slices))
    told = subprocess.run(["/usr/bin/dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in told.stderr.splitlines() if line.startswith("Error")]
    # PS3.3 C.8.15.3.9 asks for no material where the filter is NONE.
    assert [line for line in errors if "<FilterMaterial>" not in line] == []
    assert "EnhancedCTImage" in told.stderr


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_other_plain_syntaxes_read_alike(
    syntax: str, slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    write(tmp_path / "ct.dcm", enhanced_ct(slices), syntax)
    require_equal(read_series(series_in(tmp_path)), of_classic)


@pytest.mark.parametrize(
    "command", [("dcmcrle",), ("dcmcjpls", "+el"), ("dcmcjpeg", "+e1")], ids=lambda c: c[0]
)
def test_compressed_frames_read_alike(
    command: tuple[str, ...], slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    plain = write(tmp_path / "plain" / "ct.dcm", enhanced_ct(slices))
    tool, *options = command
    subprocess.run([f"/usr/bin/{tool}", *options, plain, tmp_path / "ct.dcm"], check=True)
    loaded = read_series(series_in(tmp_path))
    require_equal(loaded, of_classic)
    assert loaded.facts.lossy is False


def test_a_lossy_multi_frame_is_measured_over_all_its_frames(slices: list[Dataset], tmp_path: Path) -> None:
    plain = write(tmp_path / "plain" / "ct.dcm", enhanced_ct(slices))
    packed = tmp_path / "ct.dcm"
    subprocess.run(["/usr/bin/dcmcjpls", "+en", "+md", "4", plain, packed], check=True)
    facts = read_series(series_in(tmp_path)).facts
    before = len(dcmread(plain).PixelData)
    assert facts.lossy
    assert facts.lossy_ratio is not None
    assert facts.lossy_ratio >= before / len(dcmread(packed).PixelData) > 1


def test_each_frame_has_its_own_rescale(
    slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    ct = enhanced_ct(slices)
    stored = np.frombuffer(ct.PixelData, np.uint16).reshape(SLICES, -1).copy()
    for number, groups in enumerate(ct.PerFrameFunctionalGroupsSequence):
        scale = groups.PixelValueTransformationSequence[0]
        scale.RescaleIntercept = f"{float(scale.RescaleIntercept) - number:g}"
        stored[number] += number
    ct.PixelData = stored.tobytes()
    ct.BitsStored, ct.HighBit = 16, 15
    require_equal(read_series(in_folder(tmp_path, ct)), of_classic)


def test_frames_spread_over_several_instances_are_one_volume(
    slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    write(tmp_path / "a.dcm", enhanced_ct(slices[:5], uid="2.25.1"))
    write(tmp_path / "b.dcm", enhanced_ct(slices[5:], uid="2.25.2"))
    loaded = read_series(series_in(tmp_path))
    require_equal(loaded, of_classic)
    assert {str(header.SOPInstanceUID) for header in loaded.headers} == {"2.25.1", "2.25.2"}


def test_two_phases_at_one_place_are_refused(slices: list[Dataset], tmp_path: Path) -> None:
    later = [dcmread(str(one.filename)) for one in slices]
    for one in later:
        one.PixelData = bytes(len(one.PixelData))
    with pytest.raises(SeriesUnusable) as error:
        read_series(in_folder(tmp_path, enhanced_ct([*slices, *later])))
    assert error.value.reason is Unusable.DUPLICATE_POSITIONS


def _two_voltages(number: int, groups: Dataset) -> None:
    groups.CTXRayDetailsSequence = [item(KVP="80" if number % 2 else "140")]


def _tilted(number: int, groups: Dataset) -> None:
    groups.CTAcquisitionDetailsSequence = [item(GantryDetectorTilt=12.0)]


def _without_place(number: int, groups: Dataset) -> None:
    if number == 3:
        del groups.PlanePositionSequence


def _without_scale(number: int, groups: Dataset) -> None:
    del groups.PixelValueTransformationSequence


def _of_material(number: int, groups: Dataset) -> None:
    groups.PixelValueTransformationSequence[0].RescaleType = "MGML"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_two_voltages, Unusable.TECHNIQUE_VARIES),
        (_tilted, Unusable.GANTRY_TILT),
        (_without_place, Unusable.GEOMETRY_MISSING),
        (_without_scale, Unusable.RESCALE_MISSING),
        (_of_material, Unusable.RESCALE_MISSING),
    ],
)
def test_what_makes_slices_no_volume_makes_frames_none(
    edit: Callable[[int, Dataset], None], reason: Unusable, slices: list[Dataset], tmp_path: Path
) -> None:
    ct = enhanced_ct(slices)
    ct.ImagePositionPatient = [0, 0, 0]  # outside the groups: the place of no frame
    with pytest.raises(SeriesUnusable) as error:
        read_series(in_folder(tmp_path, edited(ct, edit)))
    assert error.value.reason is reason


def test_a_series_without_image_size_is_refused_by_name(slices: list[Dataset], tmp_path: Path) -> None:
    ct = enhanced_ct(slices)
    del ct.Rows
    with pytest.raises(SeriesUnusable, match="Rows or Columns") as error:
        read_series(in_folder(tmp_path, ct))
    assert error.value.reason is Unusable.GEOMETRY_MISSING


def test_two_sources_at_two_voltages_leave_the_voltage_unknown(slices: list[Dataset], tmp_path: Path) -> None:
    ct = enhanced_ct(slices)
    ct.SharedFunctionalGroupsSequence[0].CTXRayDetailsSequence = [item(KVP="80"), item(KVP="140")]
    assert read_series(in_folder(tmp_path, ct)).facts.kvp is None


def test_a_virtual_energy_and_an_agent_are_told_of_frames_too(slices: list[Dataset], tmp_path: Path) -> None:
    ct = enhanced_ct(slices)
    ct.SharedFunctionalGroupsSequence[0].CTXRayDetailsSequence[0].MonoenergeticEnergyEquivalent = 70.0
    ct.ContrastBolusAgentSequence = [item(CodeMeaning="Iodine", CodeValue="1", CodingSchemeDesignator="99T")]
    facts = read_series(in_folder(tmp_path, ct)).facts
    assert facts.energy == "virtual 70 keV"
    assert facts.contrast_agent == "Iodine"


def _agent(route: str, number: int) -> Dataset:
    made = item(CodeValue="422097006", CodingSchemeDesignator="SCT", CodeMeaning="Iohexol")
    made.ContrastBolusAgentNumber = number
    made.ContrastBolusAdministrationRouteSequence = [item(CodeValue=route, CodingSchemeDesignator="SCT")]
    return made


def _usage(number: int, administered: str) -> Dataset:
    return item(ContrastBolusAgentNumber=number, ContrastBolusAgentAdministered=administered)


@pytest.mark.parametrize(
    ("agents", "used_by_then", "told"),
    [
        ([_agent("26643006", 1)], {}, ""),  # by mouth
        ([_agent("26643006", 1), _agent("47625008", 2)], {}, "Iohexol"),
        ([_agent("26643006", 1), _agent("47625008", 2)], {1: "YES", 2: "NO"}, ""),  # the native frames
        ([_agent("47625008", 1)], {1: "YES"}, "Iohexol"),
    ],
    ids=["oral", "intravenous too", "not yet", "given"],
)
def test_each_agent_counts_by_its_route_and_from_when_it_was_given(
    agents: list[Dataset], used_by_then: dict[int, str], told: str, slices: list[Dataset], tmp_path: Path
) -> None:
    ct = enhanced_ct(slices)
    ct.ContrastBolusAgentSequence = agents
    if used_by_then:
        usage = [_usage(number, administered) for number, administered in used_by_then.items()]
        ct.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = usage
    facts = read_series(in_folder(tmp_path, ct)).facts
    assert (facts.contrast_agent, facts.contrast_doubtful) == (told, False)


def _frame_type(*values: str) -> Callable[[int, Dataset], None]:
    def edit(number: int, groups: Dataset) -> None:
        groups.CTImageFrameTypeSequence = [
            item(
                FrameType=list(values[:4]),
                VolumetricProperties=values[4],
                VolumeBasedCalculationTechnique=values[5],
            )
        ]

    return edit


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (("DERIVED", "PRIMARY", "VOLUME", "NONE", "VOLUME", "NONE"), "not an original acquisition"),
        (("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE", "VOLUME", "NONE"), "localizer"),
        (("ORIGINAL", "PRIMARY", "VOLUME", "NONE", "DISTORTED", "NONE"), "not an acquired slice"),
        (("ORIGINAL", "PRIMARY", "VOLUME", "NONE", "VOLUME", "MAX_IP"), "not an acquired slice"),
    ],
)
def test_frames_that_are_no_original_slices_are_not_chosen(
    values: tuple[str, ...], reason: str, slices: list[Dataset], tmp_path: Path
) -> None:
    series = in_folder(tmp_path, edited(enhanced_ct(slices), _frame_type(*values)))
    selection = select_series([series])
    assert selection.chosen is None
    assert in_english(selection.rejected[0].reason).startswith(reason)


def test_an_instance_that_does_not_describe_each_frame_says_so(slices: list[Dataset], tmp_path: Path) -> None:
    ct = enhanced_ct(slices)
    ct.PerFrameFunctionalGroupsSequence = ct.PerFrameFunctionalGroupsSequence[:-1]
    reason = unsuitable_reason(in_folder(tmp_path, ct))
    assert reason is not None
    assert in_english(reason) == "multi-frame CT without a description of its frames"


def test_groups_of_undefined_length_read_alike(
    slices: list[Dataset], of_classic: LoadedSeries, tmp_path: Path
) -> None:
    plain = write(tmp_path / "plain" / "ct.dcm", enhanced_ct(slices))
    subprocess.run(["/usr/bin/dcmconv", "-e", plain, tmp_path / "ct.dcm"], check=True)
    require_equal(read_series(series_in(tmp_path)), of_classic)


def test_a_file_is_parsed_once_for_all_of_its_frames(
    slices: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed once for each frame, 400 frames with groups of undefined length took 48 s in place of 1.3."""
    series = in_folder(tmp_path, enhanced_ct(slices))
    opened = []
    really = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path) or really(path, *a, **k))
    read_series(series)
    assert opened == [tmp_path / "ct.dcm"]


def test_frames_of_two_files_are_not_decoded_as_of_one(slices: list[Dataset], tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", enhanced_ct(slices[:2], uid="2.25.1"))
    write(tmp_path / "b.dcm", enhanced_ct(slices[2:4], uid="2.25.2"))
    with pytest.raises(ValueError, match="one file"):
        list(decode_frames(series_in(tmp_path).instances))


def test_a_damaged_item_outside_the_groups_refuses_the_series(slices: list[Dataset], tmp_path: Path) -> None:
    ct = enhanced_ct(slices)
    ct.AcquisitionContextSequence = [item(ValueType="NUMERIC", NumericValue="1")]
    path = write(tmp_path / "ct.dcm", ct)
    path.write_bytes(path.read_bytes().replace(b"\x40\x00\x0a\xa3DS", b"\x40\x00\x0a\xa3D\xff"))
    with pytest.raises(SeriesUnusable) as error:
        read_series(series_in(tmp_path))
    assert error.value.reason is Unusable.DAMAGED


@pytest.mark.filterwarnings("ignore")  # the library words what it meets in damaged bytes
@pytest.mark.parametrize("seed", range(4))
def test_damaged_groups_end_in_a_volume_or_a_reason(seed: int, slices: list[Dataset], tmp_path: Path) -> None:
    neighbours = sorted(slices, key=lambda one: one.ImagePositionPatient[2])[:5]
    path = write(tmp_path / "ct.dcm", enhanced_ct([_small(one) for one in neighbours]))
    whole = path.read_bytes()
    groups_at = whole.index(b"\x00\x52\x29\x92")  # Shared Functional Groups Sequence
    chance = np.random.default_rng(seed)
    outcomes = set()
    for _ in range(DAMAGES):
        content = bytearray(whole)
        for place in chance.integers(groups_at, len(content), chance.integers(1, 4)):
            content[place] = chance.choice([0, 255, chance.integers(256)])
        path.write_bytes(content)
        series = group_series(read_headers([path]))
        select_series(series)
        try:
            outcomes.update(str(read_series(one).volume.grid.shape) for one in series)
        except SeriesUnusable as error:
            outcomes.add(error.reason.value)
    assert str((5, 4, 4)) in outcomes
    assert len(outcomes) > 1


def _small(one: Dataset) -> Dataset:
    one.Rows = one.Columns = 4
    one.PixelData = bytes(32)
    return one
