"""Real CTs as they would be with patient or scanner a little otherwise, and what must come out of each.

A variant is a source turned, moved by a part of a voxel, cut, averaged into thicker slices, made noisier or
sharper. Its expert masks go the same way, so that every drawn body can be held against them: which vertebra
it is, whether it is a whole one, and how far its density is from that of the expert's body, cut alike.

Sources are in ../shared/data and are no part of this project (see `tests.conftest`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from config.findings import FindingTable, Output, load_findings, withheld
from segmentation.ct_volume import CtVolume, LabelMap
from segmentation.engines.geometric import GeometricEngine
from segmentation.errors import SegmentationError
from segmentation.gates.bodies import quality_observations
from segmentation.regions.cancellous import cut_regions
from segmentation.vertebrae import LABELS, LUMBAR, Regions, Vertebrae, is_lumbar
from tests.unit.reference_images import as_volume, drawn

MG_CM3_PER_HU = (
    0.8  # of a K2HPO4 phantom at 120 kV; only differences are told, so that the zero does not matter
)
BESIDE_MM = 6.0  # what a crop keeps beyond the outermost bodies: half a disc
FINE_MM = 1.0  # slices are averaged from steps of this size
TWO_BODIES_SHARE = 0.10  # of a drawing on a second vertebra, from which it is no longer of one
HALF_HEIGHT = 0.70  # of the expert's height; less is a part of a body
DOUBTS = frozenset({"level_unconfirmed", "levels_unnamed", "numbering_conflict", "level_implausible"})
FRACTURES = frozenset({"fracture", "fracture_suspected"})
METAL = frozenset({"metal_near_body", "metal_in_body"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A real CT with its expert masks, all on one grid of axes LPS.

    Attributes
    ----------
    vertebrae : uint8 image, values of `LABELS`: whole vertebrae.
    bodies : uint8 image, values of `LABELS`: their bodies.
    slice_mm : native slice spacing.
    """

    name: str
    ct: SimpleITK.Image
    vertebrae: SimpleITK.Image
    bodies: SimpleITK.Image

    @property
    def slice_mm(self) -> float:
        return float(self.ct.GetSpacing()[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way in which a source could have been.

    Attributes
    ----------
    degrees : turns about the axes from right to left, front to back and foot to head.
    shift : of the image, in voxels along (x, y, z).
    crop : topmost and lowest body in view; None for all.
    thickness_mm : of averaged slices; None for the native ones.
    noise_hu : standard deviation of what is added.
    hard : whether edges are enhanced within slices, as by a bone kernel.
    """

    source: str
    number: int = 0
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    crop: tuple[str, str] | None = None
    thickness_mm: float | None = None
    noise_hu: float = 0.0
    hard: bool = False

    def __str__(self) -> str:
        parts = [self.source]
        if any(self.degrees):
            parts.append("turn " + "/".join(f"{one:g}" for one in self.degrees))
        if any(self.shift):
            parts.append("shift " + "/".join(f"{one:g}" for one in self.shift))
        if self.crop:
            parts.append("-".join(self.crop))
        if self.thickness_mm:
            parts.append(f"{self.thickness_mm:g} mm")
        if self.noise_hu:
            parts.append(f"noise {self.noise_hu:g}")
        if self.hard:
            parts.append("hard")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came out of one variant, held against the expert.

    Attributes
    ----------
    whole : expert bodies wholly in view.
    measurable : those of them whose density no gate withholds where the expert's own mask is judged.
    kept : those of them that have a density, and by how much it differs from the expert's, in mg/cm3.
    halves : printed bodies that are part of one vertebra, or of two.
    misnamed : printed names of other vertebrae, none of which is doubted.
    fractures : findings of fracture at bodies; no source has one.
    metal : findings of metal; no source has any.
    """

    variant: Variant
    whole: tuple[str, ...]
    measurable: tuple[str, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)
    halves: tuple[str, ...] = ()
    withheld_halves: tuple[str, ...] = ()
    misnamed: tuple[str, ...] = ()
    fractures: tuple[str, ...] = ()
    metal: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


CROPS = (("L1", "L3"), ("L2", "L4"), ("L3", "L5"))
TURNS = tuple(
    tuple(sense * degrees if axis == at else 0.0 for axis in range(3))
    for degrees in (5.0, 10.0)
    for at in range(3)
    for sense in (1.0, -1.0)
)
SHIFTS = (
    (0.0, 0.0, 0.25),
    (0.0, 0.0, 0.5),
    (0.4, 0.0, 0.0),
    (0.0, 0.4, 0.0),
    (0.0, 0.0, 0.4),
    (0.5, 0.5, 0.5),
)
NOISES = (10.0, 20.0, 30.0, 40.0)
THICKNESSES_MM = (1.0, 2.0, 3.0, 4.0, 5.0)


def variants(seed: int = 20) -> Iterator[Variant]:
    """Each change alone, then mixed at random; of every source."""
    number = 0
    for source, slice_mm, mixed in (("verse014", 1.0, 92), ("ts_example_ct", 3.0, 56)):
        thick = [one for one in THICKNESSES_MM if one > slice_mm]
        alone = [
            {},
            *({"degrees": turn} for turn in TURNS),
            *({"shift": shift} for shift in SHIFTS),
            *({"crop": crop} for crop in CROPS),
            *({"thickness_mm": step} for step in thick),
            *({"noise_hu": noise} for noise in NOISES),
            {"hard": True},
        ]
        mixing = np.random.default_rng([seed, number])
        for _ in range(mixed):
            alone.append(_mixed(mixing, thick))
        for changes in alone:
            number += 1
            yield Variant(source=source, number=number, **changes)  # type: ignore[arg-type]


def _mixed(mixing: np.random.Generator, thick: list[float]) -> dict[str, object]:
    """Every change with its own chance, of sizes between those told alone."""
    changes: dict[str, object] = {"shift": tuple(np.round(mixing.uniform(-0.5, 0.5, 3), 2).tolist())}
    if mixing.random() < 0.6:
        changes["degrees"] = tuple(np.round(mixing.uniform(-8, 8, 3), 1).tolist())
    if mixing.random() < 0.5:
        changes["crop"] = CROPS[mixing.integers(len(CROPS))]
    if mixing.random() < 0.6:
        changes["thickness_mm"] = thick[mixing.integers(len(thick))]
    if mixing.random() < 0.6:
        changes["noise_hu"] = float(np.round(mixing.uniform(5, 40)))
    changes["hard"] = bool(mixing.random() < 0.35)
    return changes


@cache
def load(folder: Path, name: str) -> Source:
    """A source of `folder`, with its bodies.

    Bodies of whole vertebrae are cut by the mask engine, on the source as it is.
    """
    if name == "verse014":
        ct = _lps(folder / name / "sub-verse014_ct.nii.gz", SimpleITK.sitkFloat32)
        mask = _lps(folder / name / "sub-verse014_seg-vert_msk.nii.gz", SimpleITK.sitkUInt8)
        values = {number: f"L{number - 19}" for number in range(20, 25)}
        whole = _renumbered(SimpleITK.GetArrayFromImage(mask), values)
        bodies = drawn(as_volume(ct), whole).bodies
    else:
        ct = _lps(folder / name / "example_ct.nii.gz", SimpleITK.sitkFloat32)
        report = folder / name / "spine_report" / "example_ct_report"
        mask = _lps(report / "totalseg.nii.gz", SimpleITK.sitkUInt8)
        values = {value: one for one, value in LABELS.items()}
        whole = _renumbered(SimpleITK.GetArrayFromImage(mask), values)
        part = SimpleITK.GetArrayFromImage(
            _lps(report / "totalseg_vertebrae_body.nii.gz", SimpleITK.sitkUInt8)
        )
        bodies = np.where(part == 1, whole, 0).astype(np.uint8)
    return Source(name=name, ct=ct, vertebrae=_like(ct, whole), bodies=_like(ct, bodies))


def _lps(path: Path, kind: int) -> SimpleITK.Image:
    return SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path), kind), "LPS")


def _renumbered(labels: npt.NDArray[np.integer], names: Mapping[int, str]) -> LabelMap:
    changed: LabelMap = np.zeros(labels.shape, np.uint8)
    for value, name in names.items():
        changed[labels == value] = LABELS[name]
    return changed


def _like(ct: SimpleITK.Image, labels: LabelMap) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(labels)
    image.CopyInformation(ct)
    return image


def make(source: Source, variant: Variant) -> tuple[CtVolume, Vertebrae, LabelMap]:
    """The variant's CT, the expert's bodies on it, and the expert's whole vertebrae."""
    images = [source.ct, source.vertebrae, source.bodies]
    images = [_moved(image, variant) for image in images]
    if variant.crop:
        images = _cropped(images, variant.crop)
    if variant.thickness_mm:
        images = [_averaged(image, variant.thickness_mm) for image in images]
    volume = as_volume(images[0])
    hu = volume.hu
    if variant.hard:
        in_plane = [0.0, *(1.0 / step for step in volume.grid.spacing_mm[1:])]
        hu = hu + (hu - ndimage.gaussian_filter(hu, in_plane))
    if variant.noise_hu:
        noise = np.random.default_rng([7, variant.number]).normal(0.0, variant.noise_hu, hu.shape)
        hu = hu + noise.astype(np.float32)
    volume = replace(volume, hu=np.clip(hu, -1024.0, 3071.0).astype(np.float32))
    bodies = SimpleITK.GetArrayFromImage(images[2])
    return volume, drawn(volume, bodies), SimpleITK.GetArrayFromImage(images[1])


def _is_labels(image: SimpleITK.Image) -> bool:
    return bool(image.GetPixelID() == SimpleITK.sitkUInt8)


def _moved(image: SimpleITK.Image, variant: Variant) -> SimpleITK.Image:
    if not any(variant.degrees) and not any(variant.shift):
        return image
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    shift_mm = [part * step for part, step in zip(variant.shift, image.GetSpacing(), strict=True)]
    move = SimpleITK.Euler3DTransform(middle, *np.deg2rad(variant.degrees), shift_mm)
    # Cubic splines leave edges nearly as sharp as they are.
    kind = SimpleITK.sitkNearestNeighbor if _is_labels(image) else SimpleITK.sitkBSpline
    return SimpleITK.Resample(image, image, move, kind, 0.0 if _is_labels(image) else -1000.0)


def _cropped(images: list[SimpleITK.Image], crop: tuple[str, str]) -> list[SimpleITK.Image]:
    """From half a disc above the upper body to half a disc below the lower one; bodies are the last image."""
    bodies = SimpleITK.GetArrayFromImage(images[-1])
    first, last = LABELS[crop[1]], LABELS[crop[0]]
    slices = np.flatnonzero(((bodies >= first) & (bodies <= last)).any(axis=(1, 2)) if first <= last else [])
    step = images[0].GetSpacing()[2]
    beside = round(BESIDE_MM / step)
    low, high = max(0, int(slices[0]) - beside), min(len(bodies), int(slices[-1]) + beside + 1)
    return [image[:, :, low:high] for image in images]


def _averaged(image: SimpleITK.Image, thickness_mm: float) -> SimpleITK.Image:
    """Slices that are means over their thickness; of labels the one in the middle."""
    spacing = image.GetSpacing()
    count = int(image.GetSize()[2] * spacing[2] / FINE_MM)
    fine = SimpleITK.Resample(
        image,
        [image.GetSize()[0], image.GetSize()[1], count],
        SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor if _is_labels(image) else SimpleITK.sitkLinear,
        image.GetOrigin(),
        (spacing[0], spacing[1], FINE_MM),
        image.GetDirection(),
        0.0 if _is_labels(image) else -1000.0,
    )
    each = round(thickness_mm / FINE_MM)
    slabs = count // each
    array = SimpleITK.GetArrayFromImage(fine)[: slabs * each].reshape(slabs, each, *fine.GetSize()[1::-1])
    taken = array[:, each // 2] if _is_labels(image) else array.mean(axis=1)
    thick = SimpleITK.GetImageFromArray(np.ascontiguousarray(taken))
    thick.SetSpacing((spacing[0], spacing[1], thickness_mm))
    thick.SetDirection(image.GetDirection())
    thick.SetOrigin(fine.TransformContinuousIndexToPhysicalPoint([0.0, 0.0, (each - 1) / 2]))
    return thick


def judge(
    volume: CtVolume,
    expert: Vertebrae,
    vertebrae: LabelMap,
    variant: Variant,
    found: Vertebrae,
    table: FindingTable | None = None,
) -> Judgement:
    """What an engine found, held against the expert's masks."""
    rows = table or load_findings()
    whole = [level for level in found.levels if level.complete and is_lumbar(level.name)]
    regions = {level.name: cut_regions(volume, found, level.name) for level in whole}
    seen = (*found.observations, *quality_observations(volume, found, regions))
    findings = [rows.describe(one) for one in seen]
    doubted = any(one.code in DOUBTS for one in seen)
    in_view = tuple(level.name for level in expert.levels if level.complete and level.name in LUMBAR)
    drawn_regions = {name: _regions(volume, expert, name) for name in in_view}
    truth = {name: float(volume.hu[one.bmd].mean()) for name, one in drawn_regions.items() if one is not None}
    by_image = [
        rows.describe(one)
        for one in quality_observations(
            volume, expert, {name: one for name, one in drawn_regions.items() if one is not None}
        )
    ]
    kept: dict[str, float] = {}
    halves, barred_halves, misnamed = [], [], []
    for level in whole:
        here = found.bodies == level.label
        is_name, half = _held_against(here, vertebrae, expert)
        printed = not withheld(findings, Output.BMD, [level.name])
        if half:
            (halves if printed else barred_halves).append(level.name)
        if not printed:
            continue
        if is_name != level.name and not doubted:
            misnamed.append(level.name)
        if is_name in truth and not half:
            difference = float(volume.hu[regions[level.name].bmd].mean()) - truth[is_name]
            kept[is_name] = difference * MG_CM3_PER_HU
    return Judgement(
        variant=variant,
        whole=in_view,
        measurable=tuple(name for name in truth if not withheld(by_image, Output.BMD, [name])),
        kept=kept,
        halves=tuple(halves),
        withheld_halves=tuple(barred_halves),
        misnamed=tuple(misnamed),
        fractures=tuple(str(one.level) for one in seen if one.code in FRACTURES),
        metal=tuple(str(one.level) for one in seen if one.code in METAL),
        findings=tuple(sorted({f"{one.code}@{one.level}" if one.level else one.code for one in seen})),
    )


def _regions(volume: CtVolume, expert: Vertebrae, name: str) -> Regions | None:
    try:
        return cut_regions(volume, expert, name)
    except (SegmentationError, ValueError):
        return None


def _held_against(
    here: npt.NDArray[np.bool_], vertebrae: LabelMap, expert: Vertebrae
) -> tuple[str | None, bool]:
    """The vertebra that a drawing lies on, and whether it is part of one or of two."""
    names = {value: name for name, value in LABELS.items()}
    counts = np.bincount(vertebrae[here], minlength=256)[1:]
    if not counts.any():
        return None, True
    value = int(np.argmax(counts)) + 1
    second = float(np.sort(counts)[-2] / counts.sum())
    name = names[value]
    level = expert.level(name)
    if level is None:
        return name, second > TWO_BODIES_SHARE
    axis = np.asarray(level.axis)

    def height_mm(inside: npt.NDArray[np.bool_]) -> float:
        along = expert.grid.to_patient(np.argwhere(inside)) @ axis
        low, high = np.quantile(along, (0.02, 0.98))
        return float(high - low)

    body = expert.bodies == value
    part = level.complete and height_mm(here & (vertebrae == value)) < HALF_HEIGHT * height_mm(body)
    return name, bool(second > TWO_BODIES_SHARE or part)


def run(folder: Path, variant: Variant, table: FindingTable | None = None) -> Judgement:
    """One variant: made, segmented by the model-free engine, judged."""
    volume, expert, vertebrae = make(load(folder, variant.source), variant)
    return judge(volume, expert, vertebrae, variant, GeometricEngine().segment(volume), table)
