"""Reading of a CT series: from its files to a volume in Hounsfield units, with the facts of its technique."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from config.sections import LimitSettings
from node.dicom.ct.contrast_agent import ContrastStatement, contrast_of
from node.dicom.ct.headers import Instance, SeriesHeaders, comparable, date_of, tube_voltage_kv
from node.dicom.ct.passes import select_pass
from node.dicom.ct.pixel_data import compression_loss, decode_frames, decode_image
from node.dicom.ct.slice_geometry import TILT_TOLERANCE_DEGREES, stack_slices
from node.dicom.ct.technique import (
    acquisition_time,
    beam_filter_of,
    energy_of,
    reconstruction,
    require_one_spectrum,
    spectral_filter,
    unknown_filter_of,
)
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import number_of, text_of
from node.study_report import SeriesFacts
from segmentation.ct_volume import CtVolume, FloatArray, Grid
from segmentation.phrase import phrase

_Result = TypeVar("_Result")

# The top of the usual 12 bits with an intercept of -1024, where metal is cut off.
_BRIGHTEST_HU = 3071.0
_BACKGROUND_HU = -1024.0
# Two images that show the same share these, beside their pixels.
_POSITION_AND_SCALE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
# Slices that are measured together must agree in each of these.
TECHNIQUE = (
    "KVP",
    "ConvolutionKernel",
    "DeviceSerialNumber",
    "ManufacturerModelName",
    "FrameOfReferenceUID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSeries:
    """A series as a volume, with the source images that derived objects must refer to.

    Attributes
    ----------
    volume : HU, float32; axis 0 steps along the slice normal.
    headers : of slice k of the volume, without pixel data.
    frames : number of slice k in its instance, from 1; None where the slice is the instance.
    facts : of the technique.
    copies : images that were left out because another shows the same in the same position.
    """

    volume: CtVolume
    headers: tuple[Dataset, ...]
    frames: tuple[int | None, ...]
    facts: SeriesFacts
    copies: int = 0


def read_series(
    series: SeriesHeaders, *, tilt_tolerance_degrees: float = TILT_TOLERANCE_DEGREES
) -> LoadedSeries:
    """Decode the slices of `series` into one volume.

    An image that repeats another, pixel by pixel and in the same position, is left out: archives and
    transfers double images. Two different images in one position are no such copies. Of several passes over
    the same part of the body one alone is read (`select_pass`).

    Parameters
    ----------
    tilt_tolerance_degrees : as for `stack_slices`.

    Raises
    ------
    SeriesUnusable
        With a coded reason, if the slices are no regular grid or their pixels cannot be turned into HU.
    """
    if any(instance.damaged for instance in series.instances):
        raise SeriesUnusable(Unusable.DAMAGED, "", slices=len(series.instances))
    require_one_technique(series)
    images = _without_copies(series.instances)
    selected = select_pass(images, [_contrast_of((one,)) for one in images])
    instances = selected.instances
    stack = stack_slices(
        [instance.header for instance in instances], tilt_tolerance_degrees=tilt_tolerance_degrees
    )
    ordered = tuple(instances[index] for index in stack.order)
    hu: FloatArray = np.empty(stack.grid.shape, dtype=np.float32)
    shape = stack.grid.shape[1], stack.grid.shape[2]
    for indices in by_file(ordered):
        of_file = [ordered[k] for k in indices]
        for k, image_hu in zip(indices, hounsfield_in_file(of_file, shape, len(ordered)), strict=True):
            hu[k] = image_hu
    facts = replace(facts_of(ordered, stack.grid), measured_pass=selected.measured)
    if (contrast := selected.contrast) is not None:
        facts = replace(facts, contrast_agent=contrast.words, contrast_doubtful=contrast.doubtful)
    return LoadedSeries(
        volume=CtVolume(hu=hu, grid=stack.grid, kvp=facts.kvp),
        headers=tuple(instance.header for instance in ordered),
        frames=tuple(instance.frame for instance in ordered),
        facts=facts,
        copies=len(series.instances) - len(images),
    )


def by_file(images: Sequence[Instance]) -> Iterable[list[int]]:
    """Indices of the images that share a file: it is parsed once for all of its frames."""
    indices: dict[Path, list[int]] = {}
    for k, image in enumerate(images):
        indices.setdefault(image.path, []).append(k)
    return indices.values()


def _without_copies(instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
    """The images without copies; of equal ones the least UID stays, in whatever order they come."""
    kept: set[tuple[Path, int | None]] = set()
    by_position: dict[tuple[str, ...], list[Instance]] = {}
    for instance in sorted(instances, key=lambda one: text_of(one.header, "SOPInstanceUID")):
        position = tuple(comparable(instance.header, keyword) for keyword in _POSITION_AND_SCALE)
        earlier = by_position.setdefault(position, [])
        if not any(_same_pixels(instance, other, len(instances)) for other in earlier):
            earlier.append(instance)
            kept.add((instance.path, instance.frame))
    return tuple(instance for instance in instances if (instance.path, instance.frame) in kept)


def _same_pixels(one: Instance, other: Instance, slices: int) -> bool:
    shape = int(one.header.get("Rows") or 0), int(one.header.get("Columns") or 0)
    return np.array_equal(hounsfield(one, shape, slices), hounsfield(other, shape, slices))


def require_within(series: SeriesHeaders, limits: LimitSettings) -> None:
    """Refuse a series of more or larger images than this node decodes.

    Raises
    ------
    SeriesUnusable
        If `limits.slices` or `limits.matrix` is exceeded.
    """
    slices = len(series.instances)
    if slices > limits.slices:
        detail = phrase("too-many-images", images=slices, most=limits.slices)
        raise SeriesUnusable(Unusable.TOO_LARGE, detail, slices=slices)
    for instance in series.instances:
        rows, columns = (int(number_of(instance.header, one) or 0) for one in ("Rows", "Columns"))
        if max(rows, columns) > limits.matrix:
            detail = phrase("matrix-too-large", rows=rows, columns=columns, most=limits.matrix)
            raise SeriesUnusable(Unusable.TOO_LARGE, detail, slices=slices)


def require_one_technique(series: SeriesHeaders) -> None:
    """Refuse a series whose slices differ in technique, spectrum or frame of reference.

    Raises
    ------
    SeriesUnusable If they differ in an attribute of `TECHNIQUE` or in their spectrum, have no frame of
    reference, or show a spectrum that cannot be measured.
    """
    slices = len(series.instances)
    for keyword in TECHNIQUE:
        values = {comparable(instance.header, keyword) for instance in series.instances}
        if len(values) > 1:
            raise SeriesUnusable(Unusable.TECHNIQUE_VARIES, keyword, slices=slices)
    if not text_of(series.first, "FrameOfReferenceUID"):
        raise SeriesUnusable(Unusable.GEOMETRY_MISSING, "FrameOfReferenceUID", slices=slices)
    _require_one_spectrum(series)


def hounsfield(instance: Instance, shape: tuple[int, int], slices: int) -> FloatArray:
    """One slice in Hounsfield units.

    Parameters
    ----------
    shape : rows and columns that it must have.
    slices : of its series, for the error.

    Returns
    -------
    HU, float32, of that shape.

    Raises
    ------
    SeriesUnusable
        As `hounsfield_in_file`.
    """
    (hu,) = hounsfield_in_file([instance], shape, slices)
    return hu


def hounsfield_in_file(
    images: Sequence[Instance], shape: tuple[int, int], slices: int
) -> Iterator[FloatArray]:
    """Images of one file in Hounsfield units, one at a time.

    Parameters
    ----------
    shape : rows and columns that each must have.
    slices : of their series, for the error.

    Returns
    -------
    HU, float32, of that shape. Padding brighter than any metal is set to -1024 HU.

    Raises
    ------
    SeriesUnusable
        If a scale is missing, the pixels are no grey values, cannot be decoded or have another shape.

    Source: PS3.3 C.11.1.1.2 (RescaleType; HU where absent, for CT).
    """
    scales = [_scale(image, slices) for image in images]
    for image, (slope, intercept), stored in zip(images, scales, _stored(images, slices), strict=True):
        if stored.shape != shape:
            detail = phrase("decoded-otherwise", shape=str(stored.shape))
            raise SeriesUnusable(Unusable.UNDECODABLE, detail, slices=slices)
        hu: FloatArray = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        hu[_is_bright_padding(image.header, stored, hu)] = _BACKGROUND_HU
        yield hu


def _scale(image: Instance, slices: int) -> tuple[float, float]:
    """Slope and intercept to Hounsfield units."""
    header = image.header
    slope, intercept = number_of(header, "RescaleSlope"), number_of(header, "RescaleIntercept")
    in_hu = text_of(header, "RescaleType").upper() in ("", "HU")  # PS3.3 C.11.1.1.2: HU where absent, for CT
    if slope is None or intercept is None or slope == 0 or not in_hu:
        raise SeriesUnusable(Unusable.RESCALE_MISSING, "", slices=slices)
    if header.get("SamplesPerPixel", 1) != 1 or text_of(header, "PhotometricInterpretation") != "MONOCHROME2":
        raise SeriesUnusable(Unusable.NOT_GREYSCALE, "", slices=slices)
    return slope, intercept


def _stored(images: Sequence[Instance], slices: int) -> Iterator[npt.NDArray[Any]]:
    """Stored values of images of one file: of the whole file, or of each of its frames."""
    first = images[0]
    try:
        if first.frame is None:
            yield decode_image(dcmread(first.path))
        else:
            yield from decode_frames(images)
    # pydicom's decoders raise whatever their codec does (ValueError, RuntimeError, NotImplementedError,
    # AttributeError, a codec's own type). Any of them means that this slice cannot be read.
    except Exception as error:
        detail = f"{UID(first.transfer_syntax_uid).name} ({type(error).__name__})"
        raise SeriesUnusable(Unusable.UNDECODABLE, detail, slices=slices) from error


def _is_bright_padding(
    header: Dataset, stored: npt.NDArray[Any], hu: FloatArray
) -> npt.NDArray[np.bool_] | np.bool_:
    """Pixels outside the reconstructed circle that would read brighter than any metal.

    Makers pad with a value that no pixel has. Below air it does no harm. A padding value within the scale
    stays: it may be an error of the header, and tissue would turn into air.
    """
    padding = number_of(header, "PixelPaddingValue")
    if padding is None:
        return np.False_
    same_bits = np.asarray(int(padding)).astype(stored.dtype)  # of a value that is stated unsigned, too
    is_padding: npt.NDArray[np.bool_] = (stored == same_bits) & (hu > _BRIGHTEST_HU)
    return is_padding


def facts_of(instances: tuple[Instance, ...], grid: Grid) -> SeriesFacts:
    """Technique of a series: from its first header; contrast, compression and thickness from all of them.

    Parameters
    ----------
    instances : in the order of the volume; at least one.
    grid : of the volume: its spacing is reported.

    Raises
    ------
    SeriesUnusable
        If an item of a sequence is damaged.
    """
    first = instances[0].header
    loss = compression_loss(instances)
    contrast = _contrast_of(instances)
    energy, beam_filter, unknown_filter = _reading_items(
        lambda: (energy_of(first), beam_filter_of(first), unknown_filter_of(first)), slices=len(instances)
    )
    thicknesses = [number_of(instance.header, "SliceThickness") for instance in instances]
    return SeriesFacts(
        series_instance_uid=text_of(first, "SeriesInstanceUID"),
        instances=len(instances),
        kvp=tube_voltage_kv(first),
        slice_thickness_mm=max(filter(None, thicknesses), default=None),
        slice_spacing_mm=grid.spacing_mm[0],
        pixel_spacing_mm=(grid.spacing_mm[1], grid.spacing_mm[2]),
        kernel=text_of(first, "ConvolutionKernel"),
        manufacturer=text_of(first, "Manufacturer"),
        model=text_of(first, "ManufacturerModelName"),
        device_serial=text_of(first, "DeviceSerialNumber"),
        contrast_agent=contrast.words,
        contrast_doubtful=contrast.doubtful,
        lossy=loss.lossy,
        lossy_ratio=loss.ratio,
        spectral_filter=spectral_filter(first),
        energy=energy,
        beam_filter=beam_filter,
        filter_unknown=unknown_filter,
        reconstruction=reconstruction(first),
        table_height_mm=number_of(first, "TableHeight"),
        field_of_view_mm=number_of(first, "ReconstructionDiameter"),
        acquisition_time=acquisition_time(first),
        acquisition_date=date_of(first, "AcquisitionDate"),
    )


def _require_one_spectrum(series: SeriesHeaders) -> None:
    """`require_one_spectrum`, once every nested item of the first header has been parsed."""

    def parse_and_check() -> None:
        deque(series.first.iterall(), maxlen=0)
        require_one_spectrum(series)

    _reading_items(parse_and_check, slices=len(series.instances))


def _contrast_of(instances: tuple[Instance, ...]) -> ContrastStatement:
    return _reading_items(lambda: contrast_of(one.header for one in instances), slices=len(instances))


def _reading_items(read: Callable[[], _Result], *, slices: int) -> _Result:
    """What `read` returns; raises `SeriesUnusable` where it meets a damaged item of a sequence."""
    try:
        return read()
    except SeriesUnusable:
        raise
    except Exception as error:  # pydicom raises whatever broken bytes lead to
        raise SeriesUnusable(Unusable.DAMAGED, type(error).__name__, slices=slices) from error
