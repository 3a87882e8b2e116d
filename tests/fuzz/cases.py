"""What is sent under fuzz: PDUs and data sets that were whole before something was done to them."""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.sop_class import Verification

from tests.net.raw_peer import (
    APPLICATION,
    ECHO_ITEM,
    MAXIMUM_LENGTH,
    association_pdu,
    association_request,
    echo_request,
    item,
    store_request_of,
)

STUDY_UID = "2.25.300"
MOST_BYTES = 1 << 24  # of an instance, sent and inflated, at the listener under fuzz
SLICES = 3
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
)
_numbers = itertools.count(SLICES + 1)

# Bytes that mean something to a parser: zero, the largest, the longest, item and delimiter tags, escape.
_TELLING = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0",
            b"\xe0\x7f\x10\x00", b"\x1b$B", b"\\", b"SQ", b"UN", b"US", b"PN")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change to bytes: at a place in thousandths of their length, so many are left out and these put in."""

    thousandths: int
    removed: int
    put_in: bytes

    def apply(self, content: bytes) -> bytes:
        at = self.thousandths * len(content) // 1000
        return content[:at] + self.put_in + content[at + self.removed :]


_EDITS = st.lists(
    st.builds(
        Edit,
        thousandths=st.integers(0, 999),
        removed=st.integers(0, 6),
        put_in=st.one_of(st.binary(max_size=6), st.sampled_from(_TELLING)),
    ),
    max_size=4,
)
_CUTS = st.one_of(st.just(1000), st.just(1000), st.integers(0, 1000))  # thousandths that are left


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, ...]:
    """Pieces that are sent one after another: request, echo, store, release, each perhaps damaged."""
    uid = f"{STUDY_UID}.1.{next(_numbers)}"
    whole = [association_request()]
    for kind in draw(st.lists(st.sampled_from(["echo", "store", "noise", "release", "abort"]), max_size=4)):
        whole.append(_message(kind, uid, draw))
    pieces = []
    for number, piece in enumerate(whole):
        spoilt = draw(st.booleans()) if number else draw(st.integers(0, 3)) == 0
        if spoilt:
            for edit in draw(_EDITS):
                piece = edit.apply(piece)  # noqa: PLW2901 - the edits follow one another
            piece = piece[: draw(_CUTS) * len(piece) // 1000]  # noqa: PLW2901
        pieces.append(piece)
    return tuple(pieces)


def _message(kind: str, uid: str, draw: st.DrawFn) -> bytes:
    match kind:
        case "echo":
            return echo_request(draw(st.integers(0, 65535)))
        case "store":
            return store_request_of(1, uid, encoded(_header(uid, 0), ExplicitVRLittleEndian))
        case "release":
            return b"\x05\0\0\0\0\x04\0\0\0\0"
        case "abort":
            return b"\x07\0\0\0\0\x04\0\0\0\0"
        case _:
            return draw(st.binary(max_size=64))


_UIDS = st.sampled_from(
    [
        Verification,
        CTImageStorage,
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        "1.2.840.10008.3.1.1.1",
        "",
        "1.2.",
        "x",
        "1." * 40,
    ]
)
_VALUES = st.one_of(
    st.binary(max_size=24), _UIDS.map(str.encode), st.integers(0, 40).map(lambda n: n.to_bytes(4))
)
_KINDS = st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40, 0x50, *range(0x51, 0x5B), 0x00, 0xFF])
_ITEMS = st.lists(st.builds(item, _KINDS, _VALUES), max_size=4).map(b"".join)
_TITLES = st.one_of(
    st.just(b"OSTEONODE".ljust(16)),
    st.binary(min_size=16, max_size=16),
    st.sampled_from([b" " * 16, bytes(16), b"CT\0".ljust(16, b"\xff"), b"  RAW".ljust(16)]),
)
_SYNTAXES = st.lists(_UIDS.map(lambda uid: item(0x40, uid.encode())), max_size=3).map(b"".join)


@st.composite
def association_requests(draw: st.DrawFn) -> bytes:
    """Requests as long as they say they are, in which any field may hold anything."""
    contexts = b"".join(
        item(
            0x20, bytes((number, 0, 0, 0)) + item(0x30, draw(_UIDS).encode()) + draw(_SYNTAXES) + draw(_ITEMS)
        )
        for number in draw(st.lists(st.integers(0, 255), max_size=4))
    )
    whole = association_pdu(
        draw(_ITEMS),
        version=draw(st.sampled_from([1, 1, 1, 3, 0xFFFF, 0, 2])),
        called=draw(_TITLES),
        calling=draw(_TITLES),
        reserved=draw(st.binary(min_size=32, max_size=32)),
        application=draw(st.sampled_from([APPLICATION, APPLICATION, b"", item(0x10, b"1.2")])),
        contexts=draw(st.sampled_from([ECHO_ITEM, b""])) + contexts,
        user=draw(_ITEMS) + draw(st.sampled_from([MAXIMUM_LENGTH, b""])) + draw(_ITEMS),
    )
    body = whole[6:]
    for edit in draw(_EDITS) if draw(st.integers(0, 2)) == 0 else ():
        body = edit.apply(body)
    return struct.pack(">BBL", 0x01, 0, len(body)) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A data set of the third of three slices, with something done to it."""

    content: bytes
    sop_instance_uid: str
    syntax: UID


@st.composite
def damaged_data_sets(draw: st.DrawFn) -> Damaged:
    uid = f"{STUDY_UID}.1.{next(_numbers)}"
    syntax = draw(st.sampled_from(SYNTAXES))
    content = encoded(_header(uid, SLICES - 1), syntax)
    for edit in draw(_EDITS):
        content = edit.apply(content)
    content = content[: max(1, draw(_CUTS) * len(content) // 1000)]
    return Damaged(content=content, sop_instance_uid=uid, syntax=syntax)


@st.composite
def bombs(draw: st.DrawFn) -> Damaged:
    """Small data sets that state, or inflate to, much more than they are."""
    uid = f"{STUDY_UID}.1.{next(_numbers)}"
    syntax = draw(st.sampled_from([DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless]))
    if syntax == DeflatedExplicitVRLittleEndian:
        plain = encoded(_header(uid, SLICES - 1), ExplicitVRLittleEndian)
        follows = draw(st.sampled_from([0x0010_0010, 0x0020_000D, 0x0028_0100, 0x7FE0_0010, 0x0008_0005]))
        size = draw(st.sampled_from([1 << 16, MOST_BYTES - (1 << 16), MOST_BYTES, 1 << 26]))
        # Before, amid and behind what is read, each in its place; and once where it does not belong.
        at = plain.index(struct.pack("<HH", follows >> 16, follows & 0xFFFF))
        group = (follows >> 16) - 1 if follows != 0x0008_0005 else 0x0013
        element = draw(st.sampled_from([(b"OB", 0), (b"\0\0", 0)]))  # or with no representation at all
        filler = struct.pack("<HH2sHI", group, 0x1001, *element, size) + bytes(size)
        stream = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        content = stream.compress(plain[:at] + filler + plain[at:]) + stream.flush()
    else:
        header = _header(uid, SLICES - 1)
        rows, columns = int(header.Rows), int(header.Columns)
        content = encoded(header, syntax)
        order = ">II" if syntax == JPEG2000Lossless else ">HH"
        stated = draw(st.integers(0, 60000)), draw(st.integers(0, 60000))
        first = (columns, rows) if syntax == JPEG2000Lossless else (rows, columns)
        content = content.replace(struct.pack(order, *first), struct.pack(order, *stated), 1)
    return Damaged(content=content, sop_instance_uid=uid, syntax=syntax)


def whole_slice(number: int) -> Dataset:
    """One of the slices that nothing was done to."""
    return _header(f"{STUDY_UID}.1.{number + 1}", number)


def encoded(dataset: Dataset, syntax: UID) -> bytes:
    """The data set's bytes in a transfer syntax, without the file's header."""
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _header(uid: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "GB18030"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240516", "101500", "A1"
    dataset.Modality, dataset.Manufacturer = "CT", "SIEMENS"
    dataset.PatientName, dataset.PatientID = "Wang^XiaoDong=王^小东", "PID-0815"
    dataset.PatientBirthDate, dataset.PatientSex = "19550701", "F"
    dataset.KVP, dataset.SliceThickness, dataset.ConvolutionKernel = 80, 3.0, "B40f"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, f"{STUDY_UID}.1"
    dataset.FrameOfReferenceUID = f"{STUDY_UID}.2"
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = [-16.0, -16.0, 3.0 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1.0, 1.0]
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Contrast"
    dataset.ContrastBolusAgentSequence = [item]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = 32, 32
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    rows, columns = np.indices((32, 32))
    dataset.PixelData = (rows * 40 - columns * 7 + number).astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
