"""Runs one study of the matrix through an engine, the regions and the gates, and compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from config.findings import FindingTable, Output, load_findings, withheld
from node.reference.render import raster_of, render
from node.reference.spec import StudySpec
from node.reference.spine import build_spine
from node.reference.study import core_volume_mm3, truth_of
from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.geometric import GeometricEngine
from segmentation.gates.bodies import quality_observations
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import RegionSettings
from segmentation.vertebrae import LUMBAR
from tests.unit.segmentation_matrix import Entry

DOUBTS = frozenset({"level_unconfirmed", "numbering_conflict", "level_implausible"})
NAMES_APART_MM = 15.0  # a body further from the vertebra that it is named after is another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out, beside what was expected."""

    entry: Entry
    misnamed: tuple[str, ...]  # names given to other vertebrae
    missing: tuple[str, ...]  # expected whole bodies without that name
    barred: tuple[str, ...]  # expected whole bodies, found, whose density a finding withholds
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
        if self.wrong_level or not set(expected.barred) <= set(self.findings):
            return False
        if set(self.misnamed) != set(expected.misnamed) or (self.missing and not expected.misnamed):
            return False
        if expected.conflict or not self.entry.anchored:
            return self.doubted
        named = {level for _, level in expected.barred}
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


def run(entry: Entry, table: FindingTable | None = None) -> Outcome:
    """One study: rendered, segmented, judged."""
    spine = build_spine(entry.spec)
    raster = raster_of(entry.spec, spine)
    truth = truth_of(entry.spec, spine, raster)
    volume = volume_of(entry.spec)
    found = GeometricEngine().segment(volume)
    whole = [level for level in found.levels if level.complete and level.name in LUMBAR]
    regions = {level.name: cut_regions(volume, found, level.name) for level in whole}
    observations = (*found.observations, *quality_observations(volume, found, regions))
    findings = [(table or load_findings()).describe(one) for one in observations]
    right = {
        level.name: level
        for level in whole
        if np.linalg.norm(np.subtract(level.centroid_mm, spine[level.name].body.centre)) <= NAMES_APART_MM
    }
    depth_mm = RegionSettings().erosion_mm
    return Outcome(
        entry=entry,
        misnamed=tuple(level.name for level in whole if level.name not in right),
        missing=tuple(name for name in entry.expected.whole if name not in right and name in LUMBAR),
        barred=tuple(name for name in right if withheld(findings, Output.BMD, [name])),
        findings=tuple((one.code, one.level) for one in observations),
        volume_ratio={
            name: level.body_volume_mm3 / truth.levels[name].volume_mm3
            for name, level in right.items()
            if name in truth.levels
        },
        core_ratio={
            name: regions[name].core_volume_mm3 / core_volume_mm3(spine[name], depth_mm)
            for name in right
            if name in truth.levels
        },
    )
