"""Writes a digital reference study, with its known answers: DICOM CT, truth.json and truth_mask.nii.gz.

A study of single slices has one slice through the middle of each of some vertebral bodies, tilted along its
endplates. So was quantitative CT done before spiral scanners: on a localizer the gantry is tilted to each
body in turn, and one slice of 8 to 10 mm is taken. A gantry tilts about the patient's transverse axis alone.
DICOM states the slice's position by ImagePositionPatient and ImageOrientationPatient (PS3.3 C.7.6.2.1.1);
GantryDetectorTilt repeats the angle, as a nominal value that is not meant for computing (PS3.3 C.8.2.1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from functools import cache
from math import atan2, cos, degrees, sin
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy.spatial import cKDTree

from node.reference.attenuation import cancellous_reading
from node.reference.render import (
    BLUR_MM,
    Raster,
    Volume,
    add_noise,
    blur_in_plane,
    displace,
    raster_of,
    render,
    scene,
    subslice_offsets_mm,
)
from node.reference.shapes import Axis, Point, VertebralSolid, distance_on, part_of
from node.reference.spec import BODIES, StudySpec
from node.reference.spine import Vertebra, build_spine
from node.reference.surroundings import AIR_HU, VERTEBRAE, Painted, compositions, rods

# Numbers of TotalSegmentator's `total` classes, as in masks of vertebrae drawn by others.
MASK_LABELS: Mapping[str, int] = {"L5": 27, "L4": 28, "L3": 29, "L2": 30, "L1": 31, "T12": 32}
_Shape = tuple[tuple[str, Any], ...]
_MINERALS = ("HA", "K2HPO4")
_SAMPLE_MM = 0.5
_EQUIVALENT = "HA"  # of the phantom's certificate, and of `bmd_mg_cm3` in the specification


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTruth:
    """One lumbar vertebra that is wholly in view.

    Attributes
    ----------
    bmd_mg_cm3 : in the study's equivalent: what an ideal calibrated reading gives.
    volume_mm3 : of the whole body, cortex included.
    centroid_mm : of the body (LPS).
    """

    bmd_mg_cm3: float
    volume_mm3: float
    centroid_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a perfect measurement of the study would find.

    Attributes
    ----------
    equivalent : that the levels' densities are given in.
    levels : by name; those wholly in view.
    document : truth.json.
    """

    equivalent: str
    levels: Mapping[str, LevelTruth]
    document: Mapping[str, Any]


def truth_of(spec: StudySpec, spine: dict[str, Vertebra], raster: Raster) -> Truth:
    """The answers for all lumbar bodies that the slices hold completely.

    Parameters
    ----------
    spine : of `build_spine`.
    raster : of `raster_of`.
    """
    if spec.european_spine_phantom:
        return _truth_of_spine_phantom(spec)
    readings = {
        name: cancellous_reading(
            spec.bmd_of(name),
            equivalent=_EQUIVALENT,
            fat_fraction=spec.fat_fraction,
            kev=spec.kev,
        )
        for name in (*BODIES, *spec.lumbar[5:])
    }
    levels = {
        name: _level(spine[name], spec.bmd_of(name)) for name in spec.lumbar if in_view(spine[name], raster)
    }
    return _truth(
        spec,
        levels,
        equivalents={
            mineral: {name: readings[name].equivalents_mg_cm3[mineral] for name in levels}
            for mineral in _MINERALS
        },
        composition={
            name: {
                "hu": readings[name].hu,
                "mineral_mg_cm3": readings[name].mineral_mg_cm3,
                "fat_fraction": readings[name].fat_fraction,
            }
            for name in levels
        },
    )


def _truth_of_spine_phantom(spec: StudySpec) -> Truth:
    found = compositions(spec)
    return _truth(
        spec,
        {
            one.name: LevelTruth(
                bmd_mg_cm3=one.bmd_mg_cm3, volume_mm3=one.volume_mm3, centroid_mm=one.centre_mm
            )
            for one in VERTEBRAE
        },
        equivalents={
            mineral: {name: one["equivalents"][mineral] for name, one in found.items()}
            for mineral in _MINERALS
        },
        composition={
            name: {key: value for key, value in one.items() if key != "equivalents"}
            for name, one in found.items()
        },
    )


def _truth(
    spec: StudySpec,
    levels: Mapping[str, LevelTruth],
    *,
    equivalents: Mapping[str, Mapping[str, float]],
    composition: Mapping[str, Mapping[str, float]],
) -> Truth:
    document = {
        "equivalent": _EQUIVALENT,
        "levels": {name: asdict(level) for name, level in levels.items()},
        "equivalents": equivalents,
        "composition": composition,
        "rods": [asdict(rod) for rod in rods(spec)],
        "kvp": spec.kvp,
        "effective_kev": spec.kev,
        "seed": spec.seed,
        "noise_hu": spec.noise_hu,
        "pixel_spacing_mm": list(spec.pixel_spacing_mm),
        "slice_spacing_mm": spec.slice_spacing_mm,
        "slice_thickness_mm": spec.slice_thickness_mm,
        "mask_labels": dict(MASK_LABELS),
        "spec": {**spec.content, "study_date": spec.study_date.isoformat()},
    }
    if "faults" in spec.content:
        document["faults"] = spec.content["faults"]
    return Truth(equivalent=_EQUIVALENT, levels=levels, document=document)


def in_view(vertebra: Vertebra, raster: Raster) -> bool:
    """Whether every part of the body lies within the slices, half a thickness beyond both ends included."""
    body = _filled_by(vertebra)
    half = raster.spec.slice_thickness_mm / 2
    return bool(body.lowest_mm >= raster.z_mm[0] - half and body.highest_mm <= raster.z_mm[-1] + half)


def _level(vertebra: Vertebra, bmd_mg_cm3: float) -> LevelTruth:
    body = _filled_by(vertebra)
    return LevelTruth(bmd_mg_cm3=bmd_mg_cm3, volume_mm3=body.volume_mm3, centroid_mm=body.centroid_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A body as the points of a fine grid within it show it."""

    volume_mm3: float
    centroid_mm: tuple[float, float, float]
    lowest_mm: float  # z
    highest_mm: float


def _filled_by(vertebra: Vertebra) -> _Filled:
    body = vertebra.body
    place = (tuple(body.centre.tolist()), tuple(tuple(row) for row in body.axes.tolist()))
    return _filled(place, _shape(body))


@cache  # vertebrae stand in one place in many studies
def _filled(place: tuple[tuple[float, ...], tuple[tuple[float, ...], ...]], shape: _Shape) -> _Filled:
    body = VertebralSolid(centre=np.array(place[0]), axes=np.array(place[1]), **dict(shape))
    axes = _fine_grid(body)
    x, y, z = axes
    index = np.nonzero(distance_on(body, (z, y, x)) < 0)
    points = np.stack([axis[one] for axis, one in zip(axes, reversed(index), strict=True)], axis=1)
    left, back, up = (float(value) for value in points.mean(axis=0))
    return _Filled(
        volume_mm3=len(points) * _SAMPLE_MM**3,
        centroid_mm=(left, back, up),
        lowest_mm=float(points[:, 2].min()),
        highest_mm=float(points[:, 2].max()),
    )


def _fine_grid(body: VertebralSolid) -> list[Axis]:
    """Positions along x, y and z of a grid that holds a body."""
    return [np.arange(low, high, _SAMPLE_MM) for low, high in zip(body.box.low, body.box.high, strict=True)]


def core_volume_mm3(vertebra: Vertebra, depth_mm: float) -> float:
    """Volume of the part of a body that is deeper than `depth_mm` beneath its surface.

    Depth is measured to points of the surface on a grid of 0.5 mm: a solid's own distance is a bound only.
    """
    return _core_volume_mm3(_shape(vertebra.body), depth_mm)


def _shape(body: VertebralSolid) -> _Shape:
    """The shape of a body without its place: all fields but these."""
    own = {one.name: getattr(body, one.name) for one in fields(VertebralSolid)}
    del own["centre"], own["axes"]
    return tuple(own.items())


@cache  # vertebrae of one shape recur in many studies
def _core_volume_mm3(shape: _Shape, depth_mm: float) -> float:
    """Depth is measured to points of the surface, which a fine grid finds where the sign changes.

    A solid's own distance is a bound only.
    """
    body = VertebralSolid(centre=np.zeros(3), axes=np.eye(3), **dict(shape))
    axes = _fine_grid(body)
    x, y, z = (axis.astype(np.float32) for axis in axes)
    field = body.distance(x[:, None, None], y[None, :, None], z[None, None, :]).astype(float)
    index = np.argwhere(field < 0)
    inside = np.stack([axis[index[:, k]] for k, axis in enumerate(axes)], axis=1)
    distance, _ = cKDTree(_surface(field, axes)).query(inside, distance_upper_bound=depth_mm)
    return float(np.isinf(distance).sum() * _SAMPLE_MM**3)


def _surface(field: npt.NDArray[np.float64], axes: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Points (x, y, z) where lines of the grid cross the zero of `field`."""
    points = []
    for axis in range(3):
        before = np.moveaxis(field, axis, 0)[:-1]
        after = np.moveaxis(field, axis, 0)[1:]
        place = np.argwhere((before < 0) != (after < 0))
        one, other = before[tuple(place.T)], after[tuple(place.T)]
        along = place[:, 0] + one / (one - other)
        whole = np.insert(place[:, 1:].astype(float), axis, along, axis=1)
        points.append(np.stack([axes[k][0] + whole[:, k] * _SAMPLE_MM for k in range(3)], axis=1))
    return np.concatenate(points)


def truth_mask(spine: dict[str, Vertebra], raster: Raster) -> npt.NDArray[np.uint8]:
    """Label map of the bodies on the CT grid.

    Returns
    -------
    uint8, shape (z, y, x); values of `MASK_LABELS`. A voxel belongs to a body where its centre lies in it.
    """
    mask = np.zeros((raster.slices, len(raster.y_mm), len(raster.x_mm)), np.uint8)
    if raster.spec.european_spine_phantom:
        for one in VERTEBRAE:
            mask[distance_on(one.body, raster.axes_mm) < 0] = MASK_LABELS[one.name]
        return mask
    for name, label in MASK_LABELS.items():
        body = spine[name].body
        cut = part_of(body.box, raster.axes_mm)
        if mask[cut].size:
            mask[cut][distance_on(body, raster.axes_mm, cut) < 0] = label
    displace(mask, raster.spec.faults, spine, raster.axes_mm, outside=0)
    return mask


# The files.

# Made for this project: UIDs below 2.25 need no registration.
_IMPLEMENTATION_UID = "2.25.190426350126830012406573912218437060221"
_RESCALE_INTERCEPT = -1024
_STRAIGHT_DOWN = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePlane:
    """The position of one slice; its rows run to the patient's left.

    Attributes
    ----------
    corner_mm : centre of the first pixel (LPS).
    down : unit vector from row to row.
    tilt_degrees : of the gantry; positive leans the upper end forward.
    level : the body that a single slice is meant for; "" in a volume.
    """

    corner_mm: Point
    down: Point
    tilt_degrees: float = 0.0
    level: str = ""

    @property
    def normal(self) -> Point:
        """Unit vector towards the head."""
        return np.array([0.0, -self.down[2], self.down[1]])


def planes_of(spec: StudySpec, spine: dict[str, Vertebra]) -> tuple[SlicePlane, ...]:
    """The planes of a study of single slices, in the order of its levels.

    Returns
    -------
    Their middles lie on the scanner's axis, x = y = 0.
    """
    return tuple(_plane(spec, spine[level]) for level in spec.slice_levels)


def _plane(spec: StudySpec, vertebra: Vertebra) -> SlicePlane:
    up = vertebra.body.axes[2]
    tilt = atan2(-up[1], up[2]) + 0.0  # never minus zero
    down, normal = np.array([0.0, cos(tilt), sin(tilt)]), np.array([0.0, -sin(tilt), cos(tilt)])
    # The image's middle lies on the scanner's axis, x = y = 0.
    z_mm = float(normal @ vertebra.body.centre + spec.slice_offset_mm) / cos(tilt)
    half_y, half_x = ((spec.matrix - 1) / 2 * spacing for spacing in spec.pixel_spacing_mm)
    corner = np.array([0.0, 0.0, z_mm]) - half_y * down - np.array([half_x, 0.0, 0.0])
    return SlicePlane(level=vertebra.name, corner_mm=corner, down=down, tilt_degrees=degrees(tilt))


def render_planes(spec: StudySpec, spine: dict[str, Vertebra], planes: Sequence[SlicePlane]) -> Volume:
    """Single slices as CT: each averaged over its thickness, blurred, with noise.

    Trabeculae are left out: over 10 mm their pattern averages away, and its mean is zero in any case.

    Returns
    -------
    HU, float32, shape (slices, y, x), clipped to -1024 and 3071.
    """
    painted = list(scene(spec, spine))
    offsets_mm = subslice_offsets_mm(spec)
    layers = ([_layer(spec, painted, plane, float(offset)) for offset in offsets_mm] for plane in planes)
    hu = np.stack([np.mean(stack, axis=0, dtype=np.float32) for stack in layers])
    blur_in_plane(hu, spec, BLUR_MM, mode="nearest")
    add_noise(hu, spec)
    return np.clip(hu, -1024, 3071)


def _layer(
    spec: StudySpec, painted: Sequence[Painted], plane: SlicePlane, offset_mm: float
) -> npt.NDArray[np.float32]:
    """An infinitely thin slice; an edge is as soft as a pixel is wide."""
    steps_mm = np.arange(spec.matrix)
    corner = plane.corner_mm + offset_mm * plane.normal
    x = (corner[0] + steps_mm * spec.pixel_spacing_mm[1]).astype(np.float32)
    rows = corner + (steps_mm * spec.pixel_spacing_mm[0])[:, None] * plane.down
    y, z = rows[:, 1].astype(np.float32), rows[:, 2].astype(np.float32)
    soft = np.float32(max(spec.pixel_spacing_mm))
    hu = np.full((len(y), len(x)), AIR_HU, np.float32)
    for one in painted:
        low, high = one.solid.box.low - soft, one.solid.box.high + soft
        j = np.flatnonzero((y >= low[1]) & (y <= high[1]) & (z >= low[2]) & (z <= high[2]))
        i = np.flatnonzero((x >= low[0]) & (x <= high[0]))
        if not len(j) or not len(i):
            continue
        part = (slice(int(j[0]), int(j[-1]) + 1), slice(int(i[0]), int(i[-1]) + 1))
        distance = one.solid.distance(x[None, part[1]], y[part[0], None], z[part[0], None])
        cover = np.clip(np.float32(0.5) - distance / soft, 0, 1)
        hu[part] += cover * (np.float32(one.hu) - hu[part])
    return hu


def write_reference_study(directory: Path, spec: StudySpec) -> Truth:
    """Render a study and write it into a folder.

    Parameters
    ----------
    directory : made if missing; must hold no DICOM of another study.

    Returns
    -------
    Truth
        The same answers as in truth.json.
    """
    directory.mkdir(parents=True, exist_ok=True)
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    truth = truth_of(spec, spine, raster)
    if spec.slice_levels:
        truth = _write_planes(directory, spec, spine, truth)
    else:
        planes = [
            SlicePlane(corner_mm=np.array([raster.x_mm[0], raster.y_mm[0], z]), down=_STRAIGHT_DOWN)
            for z in raster.z_mm
        ]
        _write_slices(directory, spec, planes, render(spec, spine, raster))
        _write_mask(directory / "truth_mask.nii.gz", truth_mask(spine, raster), raster)
    (directory / "truth.json").write_text(json.dumps(truth.document, indent=2) + "\n", "utf-8")
    return truth


def _write_planes(directory: Path, spec: StudySpec, spine: dict[str, Vertebra], truth: Truth) -> Truth:
    """A study of single slices: its truth names what each slice shows, and no level wholly in view."""
    planes = planes_of(spec, spine)
    _write_slices(directory, spec, planes, render_planes(spec, spine, planes))
    slices = [
        {
            "level": plane.level,
            "bmd_mg_cm3": spec.bmd_of(plane.level),
            "offset_mm": spec.slice_offset_mm,
            "tilt_degrees": plane.tilt_degrees,
        }
        for plane in planes
    ]
    return replace(truth, levels={}, document={**truth.document, "levels": {}, "slices": slices})


def _write_slices(directory: Path, spec: StudySpec, planes: Sequence[SlicePlane], hu: Volume) -> None:
    stored = np.rint(hu - _RESCALE_INTERCEPT).astype(np.uint16)
    for number, (plane, image) in enumerate(zip(planes, stored, strict=True), start=1):
        _write_slice(directory / f"IM{number:04d}.dcm", spec, plane, number, image)


def uid_of(spec: StudySpec, *parts: str) -> str:
    """A UID that follows from the specification alone.

    Parameters
    ----------
    parts : which object is named, e.g. "instance", "1".
    """
    content = json.dumps([spec.content, *parts], sort_keys=True, default=str)
    return f"2.25.{int.from_bytes(hashlib.sha256(content.encode()).digest()[:16])}"


def _write_slice(
    path: Path, spec: StudySpec, plane: SlicePlane, number: int, stored: npt.NDArray[np.uint16]
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid_of(spec, "instance", str(number))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    _patient_and_study(dataset, spec)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = uid_of(spec, "series")
    dataset.FrameOfReferenceUID = uid_of(spec, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Modality = "CT"
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = "Lumbar QCT, digital reference"
    dataset.ProtocolName = "QCT lumbar spine"
    dataset.BodyPartExamined = "LSPINE"
    dataset.PatientPosition = "HFS"
    dataset.Manufacturer = "Osteonode reference"
    dataset.ManufacturerModelName = "Analytic scanner"
    dataset.DeviceSerialNumber = "REF-1"
    dataset.SoftwareVersions = "1"
    dataset.KVP = str(spec.kvp)
    dataset.ConvolutionKernel = "STANDARD"
    dataset.SliceThickness = f"{spec.slice_thickness_mm:g}"
    dataset.GantryDetectorTilt = f"{plane.tilt_degrees:.4g}"
    dataset.TableHeight = "150"
    dataset.ReconstructionDiameter = f"{spec.matrix * max(spec.pixel_spacing_mm):.6g}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if spec.faults.contrast_documented:
        dataset.ContrastBolusAgent = "iodinated contrast medium"
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in plane.corner_mm]
    dataset.ImageOrientationPatient = ["1", "0", "0", *(f"{value:.10g}" for value in plane.down)]
    dataset.PixelSpacing = [f"{value:g}" for value in spec.pixel_spacing_mm]
    dataset.SliceLocation = f"{plane.corner_mm[2]:.10g}"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = str(_RESCALE_INTERCEPT)
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "300", "1200"
    dataset.PixelData = np.minimum(stored, 4095).tobytes()
    dcmwrite(path, dataset, enforce_file_format=True)


def _patient_and_study(dataset: Dataset, spec: StudySpec) -> None:
    day = f"{spec.study_date:%Y%m%d}"
    born = date(spec.study_date.year - spec.age_years, 1, 1)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, keyword, day)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, keyword, "101500")
    dataset.AccessionNumber = spec.accession_number
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "QCT lumbar spine"
    dataset.StudyInstanceUID = uid_of(spec, "study")
    dataset.StudyID = "1"
    dataset.PatientName = spec.patient_name
    dataset.PatientID = spec.patient_id
    if spec.issuer:
        dataset.IssuerOfPatientID = spec.issuer
    dataset.PatientBirthDate = f"{born:%Y%m%d}"
    dataset.PatientSex = spec.sex
    dataset.PatientAge = f"{spec.age_years:03d}Y"


def _write_mask(path: Path, labels: npt.NDArray[np.uint8], raster: Raster) -> None:
    image = SimpleITK.GetImageFromArray(labels)
    row_mm, column_mm = raster.spec.pixel_spacing_mm
    image.SetSpacing((column_mm, row_mm, raster.spec.slice_spacing_mm))
    image.SetOrigin((float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])))
    SimpleITK.WriteImage(image, str(path))
