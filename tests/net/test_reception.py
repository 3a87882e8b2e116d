"""What the listener makes of an instance that comes again, altered, undecodable or under a hostile name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from config.settings import load_settings
from node import logs
from node.commands import studies as command
from node.net.scp import Listener
from node.processes.listener import measured_from
from node.store.states import QuarantineKind
from node.store.store import Store, open_store
from tests.closing import close_due

# As in production, where these warnings would quote what was sent.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:pynetdicom")

STUDY = "2.25.100"
PIXELS = np.arange(64 * 64, dtype="<i2").tobytes()


@pytest.fixture
def make_image(make_dataset: Any) -> Callable[..., Dataset]:
    """An image large enough for every encoder."""

    def make(number: int = 1, syntax: Any = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
        given = {"Rows": 64, "Columns": 64, "PixelData": PIXELS, "PatientName": "Doe^Jane", **attributes}
        dataset: Dataset = make_dataset(number, **given)
        dataset["PixelData"].VR = "OW"
        if syntax.is_compressed:
            dataset.compress(syntax, generate_instance_uid=False)
        elif syntax is ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        return dataset

    return make


def _send(port: int, *datasets: Dataset, calling: str = "PEER") -> list[int]:
    """Each over a presentation context of its own syntax."""
    statuses = []
    for dataset in datasets:
        ae = AE(calling)
        ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", port)
        assert association.is_established
        statuses.append(int(association.send_c_store(dataset).Status))
        association.release()
    return statuses


def _send_bytes(
    port: int, content: bytes, monkeypatch: pytest.MonkeyPatch, *, uid: str = "2.25.100.1.1"
) -> int | None:
    """The answer to a C-STORE whose data set and UID are whatever is given; None if the peer hung up."""
    ae = AE("PEER")
    ae.add_requested_context(CTImageStorage, DeflatedExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port)
    send = association.dimse.send_msg

    def garble(request: Any, context_id: int) -> None:
        request.DataSet = BytesIO(content)
        request._affected_sop_instance_uid = uid
        send(request, context_id)

    monkeypatch.setattr(association.dimse, "send_msg", garble)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "2.25.1"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    answer = association.send_c_store(dataset)
    association.release()
    return int(answer.Status) if "Status" in answer else None


def _kept_files(folder: Path) -> set[Path]:
    """But those that only count associations; their names are hashes."""
    return {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "associations"}


def _files(store: Store, folder: str) -> list[Path]:
    return [path for path in (store.files.root / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_the_same_image_in_another_lossless_syntax_is_acknowledged_and_ignored(
    listener: Any, store: Store, make_image: Any, syntax: Any
) -> None:
    assert _send(listener.port, make_image(), make_image(syntax=syntax)) == [0x0000] * 2
    assert len(_files(store, "instances")) == 1
    assert store.overview.show(STUDY).quarantined == 0


def test_a_corrected_patient_is_held_until_an_operator_accepts_it(
    listener: Any,
    store: Store,
    make_image: Any,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corrected = {"PatientName": "Roe^Jane", "PatientID": "MRN-4712"}
    sent = [make_image(1), make_image(2, PixelData=PIXELS[::-1])]
    again = [make_image(1, RLELossless, **corrected), make_image(2, PixelData=PIXELS[::-1], **corrected)]
    assert _send(listener.port, *sent, *again) == [0x0000] * 4
    (line,) = store.overview.show(STUDY).quarantine
    assert (line.kind, line.files, line.reason) == (QuarantineKind.IDENTITY, 2, "PatientID, PatientName")

    config = tmp_path / "site.toml"
    config.write_text(f'[storage]\nroot = "{settings.storage.root}"\n')
    monkeypatch.setenv("COLUMNS", "200")
    command.reconcile(STUDY, config=config)
    shown = capsys.readouterr().out
    assert re.search(r"PatientID +MRN-4711 +MRN-4712 +2", shown)
    assert re.search(r"PatientName +Doe\^Jane +Roe\^Jane +2", shown)

    command.reconcile(STUDY, accept=True, config=config)
    assert "2 images have the new identity" in capsys.readouterr().out
    (line,) = store.overview.show(STUDY).quarantine
    assert line.kind is QuarantineKind.REPLACED
    command.list_quarantine(config=config)
    assert "replaced" in capsys.readouterr().out


def test_what_a_peer_calls_itself_is_no_markup_on_the_terminal(
    listener: Any,
    store: Store,
    make_image: Any,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(settings.log)  # to standard error
    _send(listener.port, make_image(), make_image(PatientID="[/red]"), calling="[/red][bold]")
    config = tmp_path / "site.toml"
    config.write_text(f'[storage]\nroot = "{settings.storage.root}"\n')
    monkeypatch.setenv("COLUMNS", "300")
    command.list_quarantine(config=config)
    command.show(STUDY, config=config)
    command.reconcile(STUDY, config=config)
    shown = capsys.readouterr().out
    assert shown.count("[/red][bold]") == 2
    assert re.search(r"PatientID +MRN-4711 +\[/red\] +1", shown)


def test_undecodable_bytes_are_refused_and_kept_and_no_study_is_made(
    listener: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"these bytes are no deflate stream of Doe^Jane"
    assert _send_bytes(listener.port, content, monkeypatch) == 0xC000
    assert _send_bytes(listener.port, content, monkeypatch) == 0xC000
    (kept,) = store.quarantine.list()
    assert kept.path.read_bytes().endswith(content)
    assert (kept.kind, kept.study_instance_uid) == (QuarantineKind.UNDECODABLE, "")
    assert kept.calling_ae == "PEER"
    assert "Doe" not in kept.reason
    assert store.overview.list() == ()


@pytest.fixture
def make_listener(loops: str, tmp_path: Path) -> Iterator[Callable[..., tuple[int, Store, Path]]]:
    """Starts a listener on a store with other bounds; gives port, store and configuration."""
    made: list[tuple[Listener, Store]] = []

    def make(**bounds: int) -> tuple[int, Store, Path]:
        config = tmp_path / "node.toml"
        lines = [f"{name} = {value}" for name, value in bounds.items()]
        config.write_text(
            "\n".join(["[node]", "port = 0", "[storage]", f'root = "{tmp_path / "var"}"', *lines])
        )
        settings = load_settings(config)
        store = open_store(settings.storage)
        listener = Listener(settings.node, store, lambda _: False)
        made.append((listener, store))
        return listener.start(), store, config

    yield make
    for listener, store in made:
        listener.stop()
        store.close()


@pytest.mark.parametrize(
    "bound", [{"quarantine_acknowledged": 2}, {"quarantine_acknowledged_bytes": 2 * 9000}], ids=list
)
def test_what_was_acknowledged_is_never_dropped_from_quarantine_and_more_is_refused(
    make_listener: Callable[..., tuple[int, Store, Path]],
    make_image: Callable[..., Dataset],
    bound: dict[str, int],
    logged: Callable[[], str],
) -> None:
    port, store, _ = make_listener(**bound, quarantine_undecodable=1)
    other = make_image(1, PixelData=bytes(2 * 64 * 64))
    another = make_image(1, PixelData=b"\1" * (2 * 64 * 64))
    renamed = make_image(1, PatientName="Roe^Jane")
    assert _send(port, make_image(1), other, renamed) == [0x0000] * 3
    kept = {one.path for one in store.quarantine.list()}
    assert store.census.take().quarantine_share > 0.9
    assert _send(port, another) == [0xA700]
    assert _send(port, make_image(1, PatientName="Poe^Jane")) == [0xA700]
    assert "QuarantineFull" in logged()
    assert "Poe" not in logged()
    assert {one.path for one in store.quarantine.list()} == kept
    assert all(path.is_file() for path in kept)
    assert len(_files(store, "instances")) == 3  # of what was refused nothing is left
    assert _send(port, other, renamed, make_image(1), make_image(2)) == [0x0000] * 4  # as ever


def test_a_person_makes_room_in_quarantine_but_not_of_what_waits(
    make_listener: Callable[..., tuple[int, Store, Path]],
    make_image: Callable[..., Dataset],
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, store, config = make_listener(quarantine_acknowledged=2)
    other = make_image(1, PixelData=bytes(2 * 64 * 64))
    assert _send(port, make_image(1), other, make_image(1, PatientName="Roe^Jane")) == [0x0000] * 3
    another = make_image(1, PixelData=b"\1" * (2 * 64 * 64))
    assert _send(port, another) == [0xA700]
    command.list_quarantine(config=config, discard=STUDY)
    assert "1 files were removed" in capsys.readouterr().out
    (left,) = store.quarantine.list()
    assert left.kind is QuarantineKind.IDENTITY
    assert len(_files(store, "instances")) == 2
    assert _send(port, another) == [0x0000]


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(
    ("bounds", "numbers"),
    [
        ({"quarantine_undecodable": 3}, [3, 4, 5]),
        ({"quarantine_undecodable_bytes": 7000}, [4, 5]),
        ({"quarantine_undecodable": 0}, []),
        ({"quarantine_undecodable_bytes": 0}, []),
    ],
)
def test_undecodable_bytes_are_bounded_and_the_oldest_make_room(
    tmp_path: Path, bounds: dict[str, int], numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(node={"port": 0}, storage={"root": str(tmp_path / "var"), **bounds})
    store = open_store(settings.storage)
    listener = Listener(settings.node, store, lambda _: False)
    port = listener.start()
    try:
        for number in range(6):
            assert _send_bytes(port, b"%d no deflate stream" % number + bytes(3000), monkeypatch) == 0xC000
        kept = [one.path.read_bytes() for one in store.quarantine.list()]
        assert sorted(int(re.findall(rb"(\d) no deflate", content)[0]) for content in kept) == numbers
        assert len(_files(store, "quarantine")) == len(numbers)
    finally:
        listener.stop()
        store.close()


HOSTILE = [
    "../../x",
    "..",
    ".",
    "1..2",
    "1.2.",
    ".1.2",
    "/etc/passwd",
    "1" * 65,
    "1." * 100 + "1",
    "1.2\0/../3",
]


@pytest.mark.parametrize("uid", HOSTILE)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_uid_that_is_none_is_refused_and_touches_no_path(
    listener: Any, store: Store, make_image: Any, tmp_path: Path, uid: str, keyword: str
) -> None:
    before = _kept_files(tmp_path)
    dataset = make_image(**{keyword: None})
    dataset.add_new(keyword, "UI", uid)
    assert _send(listener.port, dataset) == [0xA900]
    assert _kept_files(tmp_path) == before
    assert store.overview.list() == ()


def test_identifiers_are_found_behind_long_sequences(listener: Any, store: Store, make_image: Any) -> None:
    refers = Dataset()
    refers.ReferencedSOPClassUID, refers.ReferencedSOPInstanceUID = CTImageStorage, "2.25.5"
    dataset = make_image(SourceImageSequence=[refers] * 2000, ReferencedImageSequence=[refers] * 2000)
    assert _send(listener.port, dataset) == [0x0000]
    (path,) = store.instances.paths(dataset.StudyInstanceUID)
    assert dcmread(path) == dataset


@pytest.mark.parametrize("uid", ["1" * 64, "1.02.003"])
def test_a_uid_of_every_accepted_form_names_no_file(
    listener: Any, store: Store, make_image: Any, uid: str
) -> None:
    assert _send(listener.port, make_image(StudyInstanceUID=uid, SeriesInstanceUID=uid)) == [0x0000]
    (path,) = store.instances.paths(uid)
    name = path.relative_to(store.files.root).as_posix()
    assert re.fullmatch(r"instances/[0-9a-f]{2}/[0-9a-f]{64}-[0-9a-f]{8}\.dcm", name)


@pytest.mark.parametrize("uid", ["../../x", "9" * 200])
def test_a_hostile_uid_in_the_command_reaches_neither_path_nor_row(
    listener: Any, store: Store, tmp_path: Path, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _send_bytes(listener.port, b"no deflate stream", monkeypatch, uid=uid) == 0xA900
    assert {one.sop_instance_uid for one in store.quarantine.list()} <= {""}
    assert not (tmp_path.parent / "x").exists()
    ae = AE("PEER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", listener.port)
    assert association.is_established  # and the listener goes on
    assert association.send_c_echo().Status == 0x0000
    association.release()


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(
    ("engine", "maker", "generations"),
    [("mask", "Acme AI", 2), ("mask", "Other", 1), ("geometric", "Acme AI", 1)],
)
def test_a_late_segmentation_reopens_only_where_it_is_measured_from(
    tmp_path: Path, make_image: Any, make_dataset: Any, engine: str, maker: str, generations: int
) -> None:
    settings = load_settings(
        node={"port": 0},
        storage={"root": str(tmp_path / "var")},
        segmentation={"engine": engine, "mask_from": {"manufacturer": "acme*"}},
    )
    store = open_store(settings.storage)
    listener = Listener(settings.node, store, lambda _: False, measured_from(settings.segmentation))
    port = listener.start()
    try:
        assert _send(port, make_image()) == [0x0000]
        listener.stop()
        assert len(close_due(store, first_step="select", quiet_s=0, stale_s=0)) == 1
        listener = Listener(settings.node, store, lambda _: False, measured_from(settings.segmentation))
        mask = make_dataset(9, SOPClassUID=SegmentationStorage, Modality="SEG", Manufacturer=maker)
        assert _send(listener.start(), mask) == [0x0000]
        assert store.overview.show(STUDY).summary.generation == generations
    finally:
        listener.stop()
        store.close()


def test_no_identity_reaches_the_log_or_what_the_node_says_of_it(
    listener: Any, store: Store, make_image: Any, logged: Callable[[], str]
) -> None:
    other = {"PatientName": "Roe^Jane", "PatientID": "MRN-4712", "PatientBirthDate": "19520304"}
    _send(listener.port, make_image(), make_image(**other), make_image(KVP=80, **other))
    told = logged() + str(store.quarantine.lines()) + str(store.overview.show(STUDY))
    assert "held for reconciliation" in told
    assert "quarantined" in told
    for secret in ("Doe", "Roe", "Jane", "MRN-47", "19510203", "19520304"):
        assert secret not in told
