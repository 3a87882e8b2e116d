"""Runs one study of the matrix through an engine, the regions and the gates, and compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from config.findings import FindingTable, Output, load_findings, withheld
from node.reference.render import raster_of, render
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.study import core_volume_mm3, truth_mask, truth_of
from segmentation.ct_volume import CtVolume, Grid, LabelMap
from segmentation.engines.geometric import GeometricEngine
from segmentation.gates.bodies import quality_observations
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import RegionSettings
from segmentation.vertebrae import LABELS, LUMBAR, is_lumbar, is_unnamed, place_of_unnamed
from tests.unit.segmentation_matrix import Crisp, Entry

DOUBTS = frozenset({"level_unconfirmed", "levels_unnamed", "numbering_conflict", "level_implausible"})
NOT_ASSESSED = ("fracture_not_assessed", None)
NAMES_APART_MM = 15.0  # a body further from the vertebra that it is named after is another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out, beside what was expected."""

    entry: Entry
    misnamed: tuple[str, ...]  # names given to other vertebrae
    missing: tuple[str, ...]  # expected whole bodies without that name
    barred: tuple[str, ...]  # expected whole bodies, found, whose density a finding withholds
    unnamed: bool  # whether no whole body has a name; then all above are told by place
    findings: tuple[tuple[str, str | None], ...]
    volume_ratio: Mapping[str, float]  # drawn over true, of rightly named whole bodies
    core_ratio: Mapping[str, float]

    @property
    def doubted(self) -> bool:
        return any(code in DOUBTS for code, _ in self.findings)

    @property
    def wrong_level(self) -> bool:
        """A vertebra under another one's name, and nothing said."""
        return bool(self.misnamed) and not self.doubted

    @property
    def measured(self) -> bool:
        """Every whole body has its name and its density, and T-score and category are free."""
        return not (self.misnamed or self.missing or self.barred or self.doubted)

    @property
    def as_expected(self) -> bool:
        expected = self.entry.expected
        if self.unnamed == self.entry.anchored:
            return False
        if self.wrong_level or not set(expected.barred) <= set(self.findings):
            return False
        if set(self.misnamed) != set(expected.misnamed) or (self.missing and not expected.misnamed):
            return False
        if (NOT_ASSESSED in self.findings) == self.entry.heights_are_read:
            return False
        if expected.conflict or not self.entry.anchored:
            return self.doubted
        named = {*(level for _, level in expected.barred), *expected.unassessed}
        if self.entry.crisp is not None and self.entry.crisp.sclerosis is not None:
            named.add(self.entry.crisp.sclerosis[0])
        return not (self.missing or self.doubted or set(self.barred) - named)


def volume_of(spec: StudySpec) -> CtVolume:
    """A digital reference study as a volume, without the way through DICOM."""
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    hu = render(spec, spine, raster)
    grid = Grid(
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0])),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    return CtVolume(hu=hu, grid=grid, kvp=float(spec.kvp))


ENDPLATE_FADES_MM = 1.5
SCLEROSIS_MM = 8.0
KERNEL_MM = 1.0  # of the blur that a bone kernel's edges stand out against


def made_crisp(volume: CtVolume, bodies: LabelMap, look: Crisp) -> CtVolume:
    """The study with dense endplates, sclerosis, enhanced edges and a narrow field.

    Parameters
    ----------
    volume : slices from inferior to superior.
    bodies : values of `LABELS`, on the same grid.
    """
    dz, dy, dx = volume.grid.spacing_mm
    hu = volume.hu.copy()
    for name, value in LABELS.items():
        inside = bodies == value
        if not inside.any():
            continue
        below_mm = np.cumsum(inside, axis=0) * dz
        above_mm = np.cumsum(inside[::-1], axis=0)[::-1] * dz
        nearest = np.minimum(below_mm, above_mm)[inside]
        hu[inside] += (look.endplate_hu * np.exp(-((nearest / ENDPLATE_FADES_MM) ** 2))).astype(np.float32)
        if look.sclerosis is not None and look.sclerosis[0] == name:
            hu[inside & (above_mm <= SCLEROSIS_MM)] += look.sclerosis[1]
    blurred = ndimage.gaussian_filter(hu, (0.0, KERNEL_MM / dy, KERNEL_MM / dx))
    hu = np.clip(hu + look.edge_gain * (hu - blurred), -1024.0, 3071.0)
    middle = np.argwhere(bodies).mean(axis=0)
    box = [slice(0, volume.grid.shape[0])]
    for axis, step in ((1, dy), (2, dx)):
        reach = look.half_field_mm / step
        box.append(
            slice(
                max(0, round(middle[axis] - reach)), min(volume.grid.shape[axis], round(middle[axis] + reach))
            )
        )
    part = (box[0], box[1], box[2])
    return replace(volume, hu=np.ascontiguousarray(hu[part], dtype=np.float32), grid=volume.grid.part(part))


def _vertebra(name: str, entry: Entry) -> str | None:
    """The vertebra that a body is said to be: by name, or by its place among the whole ones in view."""
    place = place_of_unnamed(name)
    if place is None:
        return name
    ordinal, count = place
    return entry.expected.whole[ordinal - 1] if count == len(entry.expected.whole) else None


def run(entry: Entry, table: FindingTable | None = None) -> Outcome:
    """One study: rendered, segmented, judged."""
    spine = build_spine(entry.spec)
    raster = raster_of(entry.spec, spine)
    truth = truth_of(entry.spec, spine, raster)
    volume = volume_of(entry.spec)
    if entry.crisp is not None:
        volume = made_crisp(volume, truth_mask(spine, raster), entry.crisp)
    found = GeometricEngine().segment(volume)
    whole = [level for level in found.levels if level.complete and is_lumbar(level.name)]
    regions = {level.name: cut_regions(volume, found, level.name) for level in whole}
    observations = (*found.observations, *quality_observations(volume, found, regions))
    findings = [(table or load_findings()).describe(one) for one in observations]
    called = {level.name: _vertebra(level.name, entry) for level in whole}
    right = {
        name: level
        for level in whole
        if (name := called[level.name]) is not None
        and np.linalg.norm(np.subtract(level.centroid_mm, spine[name].body.centre)) <= NAMES_APART_MM
    }
    depth_mm = RegionSettings().erosion_mm
    return Outcome(
        entry=entry,
        misnamed=tuple(level.name for level in whole if called[level.name] not in right),
        missing=tuple(name for name in entry.expected.whole if name not in right and name in LUMBAR),
        barred=tuple(name for name, level in right.items() if withheld(findings, Output.BMD, [level.name])),
        unnamed=bool(whole) and all(is_unnamed(level.name) for level in whole),
        findings=tuple((one.code, called.get(str(one.level), one.level)) for one in observations),
        volume_ratio={
            name: level.body_volume_mm3 / truth.levels[name].volume_mm3
            for name, level in right.items()
            if name in truth.levels
        },
        core_ratio={
            name: regions[level.name].core_volume_mm3 / core_volume_mm3(spine[name], depth_mm)
            for name, level in right.items()
            if name in truth.levels
        },
    )
