"""The listener against DCMTK and pynetdicom peers, over real associations."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AE
from pynetdicom.dsutils import split_dataset

from node.dicom.result_headers import MANUFACTURER
from node.net.scp import Listener
from node.store import files as durable
from node.store.store import Store
from tests.closing import close_due

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def _store_over_pynetdicom(port: int, *datasets: Dataset) -> list[int]:
    """Send each data set as it is; gives the status of each."""
    ae = AE("PEER")
    for dataset in datasets:
        ae.add_requested_context(
            dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.TransferSyntaxUID
        )
    association = ae.associate("127.0.0.1", port, ae_title="OSTEONODE")
    assert association.is_established
    statuses = [int(association.send_c_store(dataset).Status) for dataset in datasets]
    association.release()
    return statuses


def _dataset_bytes(path: Path) -> bytes:
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def _kept(store: Store, study_uid: str = "2.25.100") -> list[Path]:
    return list(store.instances.paths(study_uid))


def test_dcmtk_echoscu_is_answered(listener: Any, dcmtk: Dcmtk) -> None:
    assert dcmtk("echoscu", "-aec", "OSTEONODE", "127.0.0.1", listener.port).returncode == 0


def test_what_dcmtk_sends_is_kept_byte_for_byte(
    listener: Any, store: Store, dcmtk: Dcmtk, make_dataset: Any, as_file: Any
) -> None:
    sent = [as_file(make_dataset(number)) for number in range(5)]
    answer = dcmtk("storescu", "-v", "-aec", "OSTEONODE", "127.0.0.1", listener.port, *sent)
    assert answer.returncode == 0, answer.stderr
    kept = {_dataset_bytes(path) for path in _kept(store)}
    assert kept == {_dataset_bytes(path) for path in sent}
    for path in _kept(store):  # and each is a file that others can read
        assert dcmread(path).PatientName == "Doe^Jane"


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_and_deflated_syntaxes_are_kept_as_they_come(
    listener: Any, store: Store, make_dataset: Any, as_file: Any, syntax: Any
) -> None:
    path = as_file(make_dataset(syntax=syntax))
    assert _store_over_pynetdicom(listener.port, dcmread(path)) == [0x0000]
    (kept,) = _kept(store)
    assert dcmread(kept).file_meta.TransferSyntaxUID == syntax
    assert dcmread(kept).PixelData == make_dataset().PixelData


def test_compressed_pixels_are_kept_undecoded(listener: Any, store: Store, make_dataset: Any) -> None:
    dataset = make_dataset(syntax=JPEG2000Lossless, PixelData=None)
    dataset.add_new("PixelData", "OB", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0codedata"[:20])
    dataset["PixelData"].is_undefined_length = True
    assert _store_over_pynetdicom(listener.port, dataset) == [0x0000]
    (kept,) = _kept(store)
    assert dcmread(kept).PixelData == dataset.PixelData


def test_identity_and_names_reach_no_log(
    listener: Any, store: Store, make_dataset: Any, as_file: Any, dcmtk: Dcmtk, logged: Callable[[], str]
) -> None:
    paths = [as_file(make_dataset(1)), as_file(make_dataset(2, StudyInstanceUID=None))]
    paths.append(as_file(make_dataset(3, PatientBirthDate="3rd Feb 1951")))  # pydicom would warn and quote it
    dcmtk("storescu", "-aec", "OSTEONODE", "127.0.0.1", listener.port, *paths)
    text = logged()
    assert "instance_received" in text
    assert "instance_refused" in text
    for secret in ("Doe", "Jane", "4711", "1951"):
        assert secret not in text


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_instance_without_its_place_is_refused(
    listener: Any, store: Store, make_dataset: Any, keyword: str
) -> None:
    assert _store_over_pynetdicom(listener.port, make_dataset(**{keyword: None})) == [0xA900]
    assert store.overview.list() == ()


def test_a_uid_that_differs_from_the_command_is_refused(
    listener: Any, store: Store, make_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset()
    ae = AE("PEER")
    ae.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", listener.port)
    send = association.dimse.send_msg

    def lie(request: Any, context_id: int) -> None:
        request.AffectedSOPInstanceUID = "2.25.666"
        send(request, context_id)

    monkeypatch.setattr(association.dimse, "send_msg", lie)
    assert association.send_c_store(dataset).Status == 0xA900
    association.release()
    assert store.overview.list() == ()


def test_bytes_that_are_no_dicom_are_not_understood(
    listener: Any, store: Store, make_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset()
    ae = AE("PEER")
    ae.add_requested_context(dataset.SOPClassUID, DeflatedExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", listener.port)
    send = association.dimse.send_msg

    def garble(request: Any, context_id: int) -> None:
        request.DataSet = BytesIO(b"these bytes are no deflate stream")
        send(request, context_id)

    monkeypatch.setattr(association.dimse, "send_msg", garble)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert association.send_c_store(dataset).Status == 0xC000
    association.release()
    assert store.overview.list() == ()


@pytest.mark.parametrize(
    ("number", "status"), [(28, 0xA700), (122, 0xA700), (5, 0x0110)], ids=["ENOSPC", "EDQUOT", "EIO"]
)
def test_success_is_answered_only_for_what_is_on_disk(
    listener: Any,
    store: Store,
    make_dataset: Any,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    status: int,
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, "injected")

    monkeypatch.setattr(durable.os, "fsync", fail)
    assert _store_over_pynetdicom(listener.port, make_dataset()) == [status]
    monkeypatch.undo()
    assert store.overview.list() == ()
    assert [path for path in (store.files.root / "instances").rglob("*") if path.is_file()] == []
    assert _store_over_pynetdicom(listener.port, make_dataset()) == [0x0000]  # and it recovers by itself
    assert len(_kept(store)) == 1


def test_the_same_uid_with_other_pixels_is_quarantined(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    first, other = make_dataset(), make_dataset(PixelData=b"\x07\0" * 256)
    assert _store_over_pynetdicom(listener.port, first, other, first) == [0x0000] * 3
    (kept,) = _kept(store)
    assert dcmread(kept).PixelData == first.PixelData
    assert store.overview.show("2.25.100").quarantined == 1


def test_own_objects_are_acknowledged_and_otherwise_ignored(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    equipment = Dataset()
    equipment.Manufacturer = MANUFACTURER
    own = make_dataset(
        2,
        SOPClassUID=ComprehensiveSRStorage,
        Modality="SR",
        ContributingEquipmentSequence=[equipment],
        PixelData=None,
    )
    other = make_dataset(3, SOPClassUID=ComprehensiveSRStorage, Modality="SR", PixelData=None)
    assert _store_over_pynetdicom(listener.port, make_dataset(1), own, other) == [0x0000] * 3
    shown = store.overview.show("2.25.100")
    assert (shown.summary.images, shown.summary.others, shown.own_returned) == (1, 1, 1)


def test_a_study_stays_open_while_its_association_does(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    ae = AE("PEER")
    ae.add_requested_context(make_dataset().SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", listener.port)
    assert association.send_c_store(make_dataset()).Status == 0x0000
    assert close_due(store, first_step="select", quiet_s=0.0, stale_s=60.0) == ()
    association.release()
    listener.listener.stop()  # waits for what the association still has to write
    assert len(close_due(store, first_step="select", quiet_s=0.0, stale_s=60.0)) == 1


def test_four_peers_at_once_lose_nothing(listener: Any, store: Store, make_dataset: Any) -> None:
    statuses: list[int] = []

    def send(first: int) -> None:
        statuses.extend(_store_over_pynetdicom(listener.port, *(make_dataset(first + n) for n in range(5))))

    peers = [threading.Thread(target=send, args=(10 * peer,)) for peer in range(1, 5)]
    for peer in peers:
        peer.start()
    for peer in peers:
        peer.join()
    assert statuses == [0x0000] * 20
    assert len(_kept(store)) == 20


def test_a_port_that_is_taken_is_told(listener: Any, settings: Any, store: Store) -> None:
    node = settings.node.model_copy(update={"port": listener.port})
    second = Listener(node, store, lambda dataset: False)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()


def test_file_meta_is_written_for_readers_that_need_it(
    listener: Any, store: Store, make_dataset: Any
) -> None:
    _store_over_pynetdicom(listener.port, make_dataset())
    (kept,) = _kept(store)
    meta: FileMetaDataset = dcmread(kept).file_meta
    assert meta.MediaStorageSOPInstanceUID == make_dataset().SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
