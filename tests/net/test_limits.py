"""What is taken in and what is too much, as sent and as inflated; and identifiers wherever they stand."""

from __future__ import annotations

import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from config.settings import load_settings
from node.dicom.result_headers import made_here
from node.net.access import association_policy
from node.net.scp import Listener
from node.store.store import Store, open_store
from tests.net.raw_peer import (
    ASSOCIATE_AC,
    MAXIMUM_LENGTH,
    RawPeer,
    abstract,
    association_pdu,
    context_item,
    store_request_of,
    transfer,
)

MIB = 1 << 20
STUDY, SERIES = "2.25.100", "2.25.100." + "7" * 40  # of 51 bytes, so that a cut one is still a UID
OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0xA700, 0xC000


@contextmanager
def _listening(root: Path, **limits: int) -> Iterator[tuple[int, Store]]:
    settings = load_settings(node={"port": 0}, storage={"root": str(root)}, limits=limits)
    with closing(open_store(settings.storage)) as store:
        policy = association_policy(settings)
        listener = Listener(settings.node, store, made_here, policy=policy)
        try:
            yield listener.start(), store
        finally:
            listener.stop()


@pytest.fixture(scope="module")
def served(loops: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Store]]:
    """As a site that lowered every bound; 2 MiB of an instance, 64 rows and columns, 3 frames."""
    root = tmp_path_factory.mktemp("limits") / "var"
    with _listening(root, instance_bytes=2 * MIB, matrix=64, frames=3) as running:
        yield running


def _encoded(dataset: Dataset, syntax: UID) -> bytes:
    """The data set alone; a deflated one as PS3.5 Annex A.5 has it."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, dataset)
    content = buffer.getvalue()
    return _deflated(content) if syntax.is_deflated else content


def _deflated(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def _image(**attributes: Any) -> Dataset:
    dataset = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "PatientID": "MRN-4711",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "Rows": 16,
        "Columns": 16,
        **attributes,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _send(
    port: int, content: bytes, uid: str, syntax: UID, sop_class: str = CTImageStorage, times: int = 1
) -> list[int]:
    """The statuses that are answered to a data set, sent so often on one association."""
    asked = association_pdu(
        contexts=context_item(3, abstract(sop_class), transfer(syntax)), user=MAXIMUM_LENGTH
    )
    with RawPeer(port) as peer:
        peer.send(asked)
        assert peer.pdu()[0] == ASSOCIATE_AC
        statuses = []
        for _ in range(times):
            peer.send(store_request_of(1, uid, content, sop_class))
            statuses.append(int(peer.command().Status))
    return statuses


def _item(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, f"2.25.{10**49 + number}"
    item.StudyInstanceUID, item.SeriesInstanceUID = "2.25.666", "2.25.667"  # of something else
    return item


def _sequence(dataset: Dataset, *, undefined: bool) -> None:
    dataset.ReferencedImageSequence = Sequence([_item(n) for n in range(30)])
    if undefined:
        dataset["ReferencedImageSequence"].is_undefined_length = True
        for item in dataset.ReferencedImageSequence:
            item.is_undefined_length_sequence_item = True


def _fill(dataset: Dataset, count: int) -> None:
    """A private element of so many bytes more."""
    dataset.add_new(0x0009_0010, "LO", "VENDOR")
    dataset.add_new(0x0009_1001, "UN", b"x" * count)


BEFORE: dict[str, Callable[[Dataset], None]] = {
    "a private element": lambda _: None,
    "a sequence": lambda dataset: _sequence(dataset, undefined=False),
    "a sequence of undefined length": lambda dataset: _sequence(dataset, undefined=True),
}
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("what", BEFORE)
def test_identifiers_are_read_whole_wherever_they_stand(
    served: tuple[int, Store], what: str, syntax: UID
) -> None:
    """The end of 8 KiB before the series' UID, on bytes within it, and behind it."""
    port, store = served
    study = generate_uid()
    uids = []
    for within in (-200, -2, 2, 14, 26, 38, 50, 52, 100_000):
        dataset = _image(StudyInstanceUID=study)
        BEFORE[what](dataset)
        _fill(dataset, 0)
        plain = ExplicitVRLittleEndian if syntax.is_deflated else syntax
        begins = _encoded(dataset, plain).index(SERIES.encode())
        _fill(dataset, max(0, (8192 - begins - within) // 2 * 2) if within < 1000 else within)
        assert _send(port, _encoded(dataset, syntax), dataset.SOPInstanceUID, syntax) == [0x0000]
        uids.append(str(dataset.SOPInstanceUID))
    asked = "SELECT sop_instance_uid, series_instance_uid FROM instances WHERE study_instance_uid = ?"
    with closing(sqlite3.connect(store.files.root / "osteonode.sqlite3")) as database:
        assert dict(database.execute(asked, (study,)).fetchall()) == dict.fromkeys(uids, SERIES)


@pytest.mark.parametrize("syntax", SYNTAXES[:3], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("length", [0xFFFF_FFFF, None], ids=["of undefined length", "of known length"])
def test_an_unknown_sequence_before_the_identifiers_is_passed_over(
    served: tuple[int, Store], syntax: UID, length: int | None
) -> None:
    """UN holds a sequence in Implicit VR Little Endian, whatever the syntax (PS3.5 Section 6.2.2)."""
    port, _ = served
    dataset = _image()
    whole = _encoded(dataset, syntax)
    order = "<" if syntax.is_little_endian else ">"
    inner = _encoded(_item(1), ImplicitVRLittleEndian)
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF) + inner + end
    head = struct.pack(order + "HH", 0x0009, 0x1001)
    head += b"" if syntax.is_implicit_VR else b"UN\0\0"
    unknown = head + struct.pack(order + "I", length or len(value)) + value
    at = whole.index(struct.pack(order + "HH", 0x0010, 0x0020))
    content = whole[:at] + unknown + whole[at:]
    assert _send(port, content, dataset.SOPInstanceUID, syntax) == [0x0000]


def test_group_lengths_are_passed_over(served: tuple[int, Store]) -> None:
    port, _ = served
    dataset = _image()
    lengths = struct.pack("<HH2sHI", 0x0008, 0, b"UL", 4, 9999)
    content = lengths + _encoded(dataset, ExplicitVRLittleEndian)
    assert _send(port, content, dataset.SOPInstanceUID, ExplicitVRLittleEndian) == [0x0000]


@pytest.mark.parametrize("sop_class", [CTImageStorage, BasicTextSRStorage], ids=["an image", "a report"])
def test_a_uid_that_breaks_off_is_none(served: tuple[int, Store], sop_class: UID) -> None:
    port, store = served
    dataset = _image(SOPClassUID=sop_class, StudyInstanceUID=generate_uid())
    whole = _encoded(dataset, ExplicitVRLittleEndian)
    cut = whole[: whole.index(SERIES.encode()) + 20]
    (status,) = _send(port, cut, dataset.SOPInstanceUID, ExplicitVRLittleEndian, sop_class)
    assert status == NOT_UNDERSTOOD
    assert store.instances.paths(dataset.StudyInstanceUID) == ()


# ---- what is too much


@pytest.mark.usefixtures("loops")
def test_an_instance_that_is_too_long_is_refused_and_the_next_one_kept(
    tmp_path: Path, logged: Callable[[], str]
) -> None:
    dataset = _image(PixelData=bytes(2 * MIB))
    dataset["PixelData"].VR = "OW"
    content, small = _encoded(dataset, ExplicitVRLittleEndian), _image()
    with _listening(tmp_path / "var", instance_bytes=2 * MIB) as (port, _):
        answered = _send(port, content, dataset.SOPInstanceUID, ExplicitVRLittleEndian, times=2)
        assert answered == [OUT_OF_RESOURCES] * 2
        content = _encoded(small, ExplicitVRLittleEndian)
        assert _send(port, content, small.SOPInstanceUID, ExplicitVRLittleEndian) == [0x0000]
    text = logged()
    assert "limits.instance_bytes" in text
    assert '"peer": "127.0.0.1"' in text
    assert '"calling_ae": "RAW"' in text
    assert "MRN-4711" not in text


@pytest.fixture(scope="module", params=["pixels", "header"])
def bomb(request: pytest.FixtureRequest) -> Callable[[Dataset], bytes]:
    """Makes a data set of 320 MiB that has a third of one when it is deflated."""
    tag = (0x0009, 0x1001) if request.param == "header" else (0x7FE0, 0x0010)
    size = 320 * MIB

    def make(dataset: Dataset) -> bytes:
        begun = _encoded(dataset, ExplicitVRLittleEndian)
        if request.param == "header":
            begun = begun[: begun.index(struct.pack("<HH", 0x0010, 0x0020))]
        stream = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        content = stream.compress(begun + struct.pack("<HH2sHI", *tag, b"OB", 0, size))
        content += b"".join(stream.compress(bytes(4 * MIB)) for _ in range(size // (4 * MIB)))
        return content + stream.flush()

    return make


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("sop_class", [CTImageStorage, BasicTextSRStorage], ids=["an image", "a report"])
def test_a_deflated_data_set_is_inflated_no_further_than_is_allowed(
    tmp_path: Path, sop_class: UID, bomb: Callable[[Dataset], bytes]
) -> None:
    dataset = _image(SOPClassUID=sop_class)
    content = bomb(dataset)
    assert len(content) < 2 * MIB
    with _listening(tmp_path / "var", instance_bytes=256 * MIB) as (port, store):
        _forget_peak()
        before = _peak_mib()
        answered = _send(port, content, dataset.SOPInstanceUID, DeflatedExplicitVRLittleEndian, sop_class)
        grown = _peak_mib() - before
        assert store.instances.paths(STUDY) == ()
    assert answered == [OUT_OF_RESOURCES]
    assert grown < 100


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """The most memory that this process has held since its peak was forgotten."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_a_deflated_data_set_that_breaks_off_is_not_understood(served: tuple[int, Store]) -> None:
    port, _ = served
    dataset = _image()
    content = _encoded(dataset, DeflatedExplicitVRLittleEndian)
    for broken in (content[:-5], b"\xff" + content):
        assert _send(port, broken, dataset.SOPInstanceUID, DeflatedExplicitVRLittleEndian) == [NOT_UNDERSTOOD]


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("behind", [0x0010_0020, 0x0028_0010, None], ids=["before", "amid", "behind"])
def test_a_deflated_data_set_of_millions_of_elements_is_refused_soon(
    tmp_path: Path, behind: int | None
) -> None:
    """128 MiB of nothing, which a reader takes for elements of eight bytes each; some minutes' work."""
    dataset = _image()
    plain = _encoded(dataset, ExplicitVRLittleEndian)
    at = len(plain) if behind is None else plain.index(struct.pack("<HH", behind >> 16, behind & 0xFFFF))
    content = _deflated(plain[:at] + bytes(128 * MIB) + plain[at:])
    with _listening(tmp_path / "var") as (port, store):
        began = time.process_time()  # the listener works in this process
        answered = _send(port, content, dataset.SOPInstanceUID, DeflatedExplicitVRLittleEndian)
        assert time.process_time() - began < 8
        assert store.instances.paths(STUDY) == ()
    assert answered == [NOT_UNDERSTOOD]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"Rows": 64, "Columns": 64}, 0x0000),
        ({"Rows": 65}, OUT_OF_RESOURCES),
        ({"Columns": 65535}, OUT_OF_RESOURCES),
        ({"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 3}, 0x0000),
        ({"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 4}, OUT_OF_RESOURCES),
        ({"SOPClassUID": BasicTextSRStorage, "Rows": 4000}, 0x0000),  # of what is not decoded here
    ],
)
def test_an_image_that_is_too_large_is_refused(
    served: tuple[int, Store], syntax: UID, attributes: dict[str, Any], status: int
) -> None:
    port, _ = served
    dataset = _image(**attributes)
    content = _encoded(dataset, syntax)
    assert _send(port, content, dataset.SOPInstanceUID, syntax, str(dataset.SOPClassUID)) == [status]


def test_what_is_legal_and_large_is_within_the_shipped_bounds() -> None:
    limits = load_settings().limits
    assert limits.instance_bytes >= 1000 * 512 * 512 * 2 + 16 * MIB  # Enhanced CT with 1,000 frames
    assert limits.frames >= 1000
    assert limits.slices >= 3000
    assert limits.matrix >= 2048


@pytest.mark.usefixtures("loops")
def test_what_a_broken_association_had_sent_is_not_held(tmp_path: Path) -> None:
    """Twice the longest instance may be held at once: of eight halves, each broken off, nothing is."""
    dataset = _image(PixelData=bytes(MIB))
    dataset["PixelData"].VR = "OW"
    content = _encoded(dataset, ExplicitVRLittleEndian)
    message = store_request_of(1, dataset.SOPInstanceUID, content)
    with _listening(tmp_path / "var", instance_bytes=2 * MIB) as (port, _):
        for _ in range(8):
            with RawPeer(port) as peer:
                assert peer.associate() == ASSOCIATE_AC
                peer.send(message[: len(message) - 5])
        assert _send(port, content, dataset.SOPInstanceUID, ExplicitVRLittleEndian) == [0x0000]
