"""Whatever transfer syntax a CT comes in: kept as it came, and read as the values that the scanner wrote.

The encoders are DCMTK's; for JPEG 2000 pydicom's, since DCMTK has none; for HTJ2K OpenJPH 0.26.3, whose
codestreams stand below.
"""

from __future__ import annotations

import base64
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE

from config.settings import load_settings
from node.dicom.ct.headers import read_headers
from node.dicom.ct.pixel_data import CompressionLoss, compression_loss
from node.dicom.ct.reading import hounsfield
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.result_headers import made_here
from node.net.scp import Listener
from node.reference.spec import StudySpec
from node.reference.study import write_reference_study
from node.store.store import open_store

PADDING_UNSIGNED = 65535

# How a scanner may store the same HU: bits, signed, rescale, padding.
FORMS: dict[str, dict[str, Any]] = {
    "signed, 16 bits": {"BitsStored": 16, "PixelRepresentation": 1, "RescaleIntercept": 0},
    "signed, 12 of 16 bits": {"BitsStored": 12, "PixelRepresentation": 1, "RescaleIntercept": -24},
    "unsigned, 12 of 16 bits": {"BitsStored": 12, "PixelRepresentation": 0, "RescaleIntercept": -1024},
    "unsigned, padded": {
        "BitsStored": 16,
        "PixelRepresentation": 0,
        "RescaleIntercept": -1024,
        "PixelPaddingValue": PADDING_UNSIGNED,
    },
}
LOSSLESS: dict[UID, tuple[str, ...]] = {
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRLittleEndian: ("dcmconv", "+te"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    RLELossless: ("dcmcrle",),
    JPEGLossless: ("dcmcjpeg", "+el"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls", "+el"),
    JPEG2000Lossless: (),
}
LOSSY: dict[UID, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("dcmcjpeg", "+eb"),
    JPEGExtended12Bit: ("dcmcjpeg", "+ee"),
    JPEGLSNearLossless: ("dcmcjpls", "+en", "+md", "2"),
    JPEG2000: (),
}
# HU[r, c] = 37 r + 5 c^2 - 300 of 24 rows and 16 columns as HTJ2K: signed, and unsigned from -1024 on.
HT_SHAPE = (24, 16)
HT_LOSSLESS = {
    1: (
        "/0//UQApQAAAAAAQAAAAGAAAAAAAAAAAAAAAEAAAABgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wA"
        "EyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAOYAAf+TwAAlcAGHdADAABMA8vwC"
        "h3QAwAATwAASgJZb/gILdADpAAd0AMAAFZAABOCfPvHm/QnvA5kCtQBQof6AYrQAwAAW/AABVOc8z4kTUKCc8zwnTkCBcs7z"
        "nDgBBcoGcXzi4gixuQCkJBLp6CEB7LYAwAAvT4AAWkDJTJIkSUICCEgykyRJkpAAApLMJEmSJCSAgCQzSZIkCQkgIMlMkiRJ"
        "QgIISDKTJEmSkAAC8gGdr9ZfO1+svna/WXztfrL52v1lwisbMboBSARBEARB/v8wBCB79hCB7LsA/9k="
    ),
    0: (
        "/0//UQApQAAAAAAQAAAAGAAAAAAAAAAAAAAAEAAAABgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wA"
        "EyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAOcAAf+TwAAmjfYFB3QAwAATAPL8"
        "Aod0AMAAE8AAEoCWW/4CC3QA6QAHdADAABWQAATgnz7x5v0J7wOZArUAUKH+gGK0AMAAFvwAAVTnPM+JE1CgnPM8J05AgXLO"
        "85w4AQXKBnF84uIIsbkApCQS6eghAey2AMAAL0+AAFpAyUySJElCAghIMpMkSZKQAAKSzCRJkiQkgIAkM0mSJAkJICDJTJIk"
        "SUICCEgykyRJkpAAAvIBna/WXztfrL52v1l87X6y+dr9ZcIrGzG6AUgEQRAEQf7/MAQge/YQgey7AP/Z"
    ),
}
HT_LOSSY = (
    "/0//UQApQAAAAAAQAAAAGAAAAAAAAAAAAAAAEAAAABgAAAAAAAAAAAABjwEB/1AACAACAAAAJf9SAAwAAgABAAUEBEAA/1wA"
    "IyKPdI9Fj0WPF4dch1yHPX+qf6p/wmg1aDVoeGAaYBpvv/9kABcAAU9wZW5KUEggVmVyIDAuMjYuMy7/kAAKAAAAAABuAAH/"
    "k8AAJbgBh3QAwAAlwAGHdADAAE0AASjMzAELdADzAMd0AMAAqoABUNMEwxP4A5hCtQA2CP4AAzm1AMACsgATADPMM8wzzIBJ"
    "SWK2AFboFey1AMAFYKqqqufp6enp6eJ5AP/Z"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image: as encoded, and what must be read from it."""

    path: Path
    syntax: UID
    hu: npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every form in every syntax, as files."""
    folder = tmp_path_factory.mktemp("encoded")
    source = folder / "source"
    write_reference_study(source, StudySpec.reduced(view=("L3", "L3")))
    header = dcmread(sorted(source.glob("*.dcm"))[5])
    made: dict[str, Case] = {}
    for form, attributes in FORMS.items():
        plain, hu = _plain(header, folder / f"{len(made)}.dcm", attributes)
        for syntax, command in (LOSSLESS | LOSSY).items():
            if syntax == JPEGLSNearLossless and attributes["PixelRepresentation"]:
                continue  # DCMTK does not encode it
            path = _encoded(plain, syntax, command, folder / f"{len(made) + 1000}.dcm")
            made[f"{form}, {syntax.name}"] = Case(path=path, syntax=syntax, hu=hu)
    rows, columns = np.indices(HT_SHAPE)
    hu = 37.0 * rows + 5.0 * columns**2 - 300.0
    for syntax in (HTJ2KLossless, HTJ2KLosslessRPCL):
        for signed, stream in HT_LOSSLESS.items():
            path = _ht(header, folder / f"{len(made) + 1000}.dcm", syntax, stream, signed=signed)
            made[f"{'un' * (not signed)}signed, {syntax.name}"] = Case(path=path, syntax=syntax, hu=hu)
    path = _ht(header, folder / "ht.dcm", HTJ2K, HT_LOSSY, signed=1)
    return made | {f"signed, {HTJ2K.name}": Case(path=path, syntax=HTJ2K, hu=hu)}


def _plain(header: Dataset, path: Path, attributes: dict[str, Any]) -> tuple[Path, npt.NDArray[np.float64]]:
    dataset = dcmread(BytesIO(_written(header)))
    hu = np.round(dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))
    hu = np.clip(hu, -1024, 2000)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.HighBit, dataset.RescaleSlope = dataset.BitsStored - 1, 1
    stored = hu - attributes["RescaleIntercept"]
    if "PixelPaddingValue" in attributes:
        stored[hu < -1000] = attributes["PixelPaddingValue"]
        hu[hu < -1000] = -1024  # padding is no density: it reads as what surrounds the patient
        dataset["PixelPaddingValue"].VR = "US"
    dataset.PixelData = stored.astype("<i4").astype("<u2").tobytes()
    if attributes["BitsStored"] == 12:
        dataset.PixelData = (stored.astype("<i4") & 0x0FFF).astype("<u2").tobytes()
        if attributes["PixelRepresentation"]:
            dataset.PixelData = stored.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.SOPInstanceUID = f"2.25.7{path.stem}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path, hu


def _written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _encoded(plain: Path, syntax: UID, command: tuple[str, ...], path: Path) -> Path:
    if command:
        tool, *options = command
        subprocess.run([f"/usr/bin/{tool}", *options, plain, path], check=True, capture_output=True)
    else:
        dataset = dcmread(plain)
        options = {"j2k_cr": [8.0]} if syntax == JPEG2000 else {}
        dataset.compress(syntax, generate_instance_uid=False, **options)
        dataset.save_as(path)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    return _renumbered(path)


def _renumbered(path: Path) -> Path:
    """A UID of its own: the listener takes the same image in another syntax for the one it has."""
    dataset = dcmread(path)
    uid = f"{dataset.SOPInstanceUID}.{path.stem}" if path.stem.isdigit() else f"{dataset.SOPInstanceUID}.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.save_as(path)
    return path


def _ht(header: Dataset, path: Path, syntax: UID, stream: str, *, signed: int) -> Path:
    dataset = dcmread(BytesIO(_written(header)))
    dataset.Rows, dataset.Columns = HT_SHAPE
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, signed
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0 if signed else -1024
    dataset.PixelData = encapsulate([base64.b64decode(stream)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return _renumbered(path)


@pytest.fixture(scope="module")
def kept(
    loops: str, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Where a node keeps each, once it was sent to its listener."""
    settings = load_settings(node={"port": 0}, storage={"root": str(tmp_path_factory.mktemp("node") / "var")})
    store = open_store(settings.storage)
    listener = Listener(settings.node, store, made_here)
    port = listener.start()
    try:
        statuses = {_send(port, case) for case in cases.values()}
        assert statuses == {0x0000}
        files = (store.files.root / "instances").rglob("*")
        by_uid = {dcmread(path).SOPInstanceUID: path for path in files if path.is_file()}
        yield {name: by_uid[dcmread(case.path).SOPInstanceUID] for name, case in cases.items()}
    finally:
        listener.stop()
        store.close()


def _dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _send(port: int, case: Case) -> int:
    """Send a file's data set as it is on disk: the library would encode it anew."""
    dataset = dcmread(case.path)
    ae = AE("PEER")
    ae.add_requested_context(dataset.SOPClassUID, case.syntax)
    association = ae.associate("127.0.0.1", port)
    send: Callable[..., None] = association.dimse.send_msg

    def as_on_disk(request: Any, context_id: int) -> None:
        request.DataSet = BytesIO(_dataset_bytes(case.path))
        send(request, context_id)

    association.dimse.send_msg = as_on_disk
    status = int(association.send_c_store(dataset).Status)
    association.release()
    return status


def _hu(path: Path) -> npt.NDArray[np.float32]:
    (instance,) = read_headers([path])
    return hounsfield(instance, (int(instance.header.Rows), int(instance.header.Columns)), 1)


def _loss(path: Path) -> CompressionLoss:
    return compression_loss(read_headers([path]))


LOSSLESS_NAMES = [
    *(f"{form}, {syntax.name}" for form in FORMS for syntax in LOSSLESS),
    *(
        f"{sign}, {syntax.name}"
        for sign in ("signed", "unsigned")
        for syntax in (HTJ2KLossless, HTJ2KLosslessRPCL)
    ),
]


def test_every_syntax_is_kept_as_it_came(cases: dict[str, Case], kept: dict[str, Path]) -> None:
    assert {dcmread(path).file_meta.TransferSyntaxUID for path in kept.values()} == {
        *LOSSLESS, *LOSSY, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL,
    }  # fmt: skip
    for name, case in cases.items():
        assert _dataset_bytes(kept[name]) == _dataset_bytes(case.path), name


@pytest.mark.parametrize("name", LOSSLESS_NAMES)
def test_what_lost_nothing_reads_as_it_was_stored(
    name: str, cases: dict[str, Case], kept: dict[str, Path]
) -> None:
    assert np.array_equal(_hu(kept[name]), cases[name].hu)
    assert _loss(kept[name]) == CompressionLoss(lossy=False, ratio=None)


@pytest.mark.parametrize(
    ("syntax", "furthest_hu"), [(JPEGExtended12Bit, 60), (JPEGLSNearLossless, 2), (JPEG2000, 60)]
)
def test_a_weak_loss_is_told_with_its_ratio(
    syntax: UID, furthest_hu: float, cases: dict[str, Case], kept: dict[str, Path]
) -> None:
    name = f"unsigned, 12 of 16 bits, {syntax.name}"
    error = _hu(kept[name]) - cases[name].hu
    assert 0 < np.abs(error).max() <= furthest_hu
    assert abs(error.mean()) < 0.5
    loss = _loss(kept[name])
    assert loss.lossy
    header = dcmread(kept[name])
    pixels = int(header.Rows) * int(header.Columns)
    assert loss.ratio == pytest.approx(2 * pixels / len(header.PixelData))


def test_lossy_htj2k_is_told(cases: dict[str, Case], kept: dict[str, Path]) -> None:
    name = f"signed, {HTJ2K.name}"
    assert np.abs(_hu(kept[name]) - cases[name].hu).max() < 40
    assert _loss(kept[name]) == CompressionLoss(lossy=True, ratio=pytest.approx(2 * 24 * 16 / 252, rel=0.1))


@pytest.mark.parametrize(
    "name",
    [
        *(f"{form}, {JPEGBaseline8Bit.name}" for form in FORMS),  # 256 grey levels
        f"unsigned, padded, {JPEGExtended12Bit.name}",  # 65536 values on 4096
    ],
)
def test_a_loss_that_no_ratio_tells_is_of_unknown_strength(name: str, kept: dict[str, Path]) -> None:
    assert _loss(kept[name]) == CompressionLoss(lossy=True, ratio=None)


@pytest.mark.parametrize(
    ("stated", "ratio"), [("7.5", 7.5), (["3", "12.5"], 12.5), (None, None), ("", None), ("0", None)]
)
def test_pixels_that_were_lossy_once_are_lossy_for_good(
    cases: dict[str, Case], tmp_path: Path, stated: Any, ratio: float | None
) -> None:
    dataset = dcmread(cases[f"signed, 16 bits, {ExplicitVRLittleEndian.name}"].path)
    dataset.LossyImageCompression = "01"
    if stated is not None:
        dataset.LossyImageCompressionRatio = stated
    dataset.save_as(tmp_path / "a.dcm")
    assert _loss(tmp_path / "a.dcm") == CompressionLoss(lossy=True, ratio=ratio)


@pytest.mark.parametrize("syntax", [MPEG2MPML, UID("1.2.826.0.1.3680043.2.1125.77")])
def test_a_syntax_without_decoder_is_refused_by_name(
    cases: dict[str, Case], tmp_path: Path, syntax: UID
) -> None:
    dataset = dcmread(cases[f"signed, 16 bits, {RLELossless.name}"].path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True)
    with pytest.raises(SeriesUnusable) as caught:
        _hu(tmp_path / "a.dcm")
    assert caught.value.reason is Unusable.UNDECODABLE
    assert syntax.name in str(caught.value)


def test_a_run_length_stream_that_is_too_long_is_refused(cases: dict[str, Case], tmp_path: Path) -> None:
    """One of the decoders at hand panics at it, which would end the process that reads."""
    dataset = dcmread(cases[f"signed, 16 bits, {RLELossless.name}"].path)
    dataset.Rows //= 2
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(SeriesUnusable) as caught:
        _hu(tmp_path / "a.dcm")
    assert caught.value.reason is Unusable.UNDECODABLE


FORGED = [
    name for name in LOSSLESS_NAMES if any(word in name for word in ("JPEG", "RLE")) and "12 of" not in name
]


@pytest.mark.parametrize("name", FORGED)
def test_a_stream_that_states_another_size_than_its_header_is_not_decoded(
    name: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    """20,000 rows and columns in the stream alone, for which no room is made; and a header of fewer."""
    dataset = dcmread(cases[name].path)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    encoded = dataset.PixelData
    large = encoded.replace(struct.pack(">HH", rows, columns), struct.pack(">HH", 20000, 20000), 1)
    if cases[name].syntax in (JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL):
        large = encoded.replace(struct.pack(">II", columns, rows), struct.pack(">II", 20000, 20000), 1)
    if "RLE" in name:  # states no size: what would fill it is repeated
        frame = next(generate_frames(encoded, number_of_frames=1))
        large = encapsulate([frame + b"\x81\0" * (2 * len(frame) + rows * columns * 4)])
    assert large != encoded
    dataset.PixelData = large
    dataset.save_as(tmp_path / "large.dcm")
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is forgotten
    before = _peak_mib()
    with pytest.raises(SeriesUnusable, match="SizeContradicted") as caught:
        _hu(tmp_path / "large.dcm")
    assert caught.value.reason is Unusable.UNDECODABLE
    assert _peak_mib() - before < 100
    if "RLE" not in name:
        dataset.PixelData, dataset.Rows = encoded, rows - 1
        dataset.save_as(tmp_path / "few.dcm")
        with pytest.raises(SeriesUnusable, match="SizeContradicted"):
            _hu(tmp_path / "few.dcm")


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_an_image_of_too_many_pixels_is_not_decoded_whatever_its_stream(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    dataset = dcmread(cases[f"signed, 16 bits, {JPEG2000Lossless.name}"].path)
    size = struct.pack(">II", int(dataset.Columns), int(dataset.Rows))
    dataset.PixelData = dataset.PixelData.replace(size, struct.pack(">II", 30000, 30000), 1)
    dataset.Rows = dataset.Columns = 30000
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(SeriesUnusable, match="SizeContradicted"):
        _hu(tmp_path / "a.dcm")


def test_a_padding_value_within_the_scale_is_left_alone(cases: dict[str, Case], tmp_path: Path) -> None:
    """Some headers name 0, which is soft tissue."""
    case = cases[f"signed, 16 bits, {ExplicitVRLittleEndian.name}"]
    dataset = dcmread(case.path)
    dataset.add_new("PixelPaddingValue", "SS", 0)
    dataset.save_as(tmp_path / "a.dcm")
    assert np.array_equal(_hu(tmp_path / "a.dcm"), case.hu)
