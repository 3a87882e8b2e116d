"""Do stated intervals hold the truth? Studies of one region and a phantom's rods, numbered from 0.

A study's number alone fixes its specification and its noise. The region is cut from a rendered L3; the rods
are blocks of their true HU with the same scanner's noise, which is what lies inside a rod's wall. The truth
is that of `node.reference`; scoring reads the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from node.reference.attenuation import HA, hu_per_mg
from node.reference.render import Raster, add_noise, raster_of, render
from node.reference.spec import BODIES, Faults, StudySpec
from node.reference.spine import Vertebra, build_spine
from scoring.calibration import Calibration, Mineral, RodReading
from scoring.calibration.methods import LEAST_SQUARES, TWO_POINT, calibrate
from scoring.density.bmd import BmdResult, measure_bmd, with_standard_errors
from segmentation.ct_volume import CtVolume, Grid

KINDS = {
    "two rods": (TWO_POINT, (0.0, 200.0)),
    "three rods": (LEAST_SQUARES, (0.0, 75.0, 150.0)),
    "five rods": (LEAST_SQUARES, (0.0, 50.0, 100.0, 150.0, 200.0)),
    "five rods that scatter": (LEAST_SQUARES, (0.0, 50.0, 100.0, 150.0, 200.0)),
}
SCATTER_HU = 2.0  # of rods that do not read as certified, by far more than their noise
PHANTOM_MM, ROD_RADIUS_MM, BLOCK_MM = 120.0, 6.5, 18.0
VIEW_MM = 58.0  # across the region
DEPTH_MM = 3.0  # of the region below the cancellous bone's surface
HALF_HEIGHT_MM = 7.0  # of the region
CUT_MM = 15.0  # off either end of the view: what lies beyond the region need not be rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStudy:
    """One study: what it shows, and what was measured."""

    number: int
    kind: str
    spec: StudySpec
    truth_mg_cm3: float
    measured: BmdResult

    @property
    def holds(self) -> bool:
        low, high = self.measured.bmd_interval95_mg_cm3
        return low <= self.truth_mg_cm3 <= high

    @property
    def deviation(self) -> float:
        """Error in units of the stated uncertainty."""
        error = self.measured.bmd_mg_cm3 - self.truth_mg_cm3
        return error / self.measured.bmd_uncertainty_mg_cm3


def run(number: int) -> RegionStudy:
    """The study of that number, measured."""
    rng = np.random.default_rng([2022, number])
    kind = tuple(KINDS)[number % len(KINDS)]
    pixel_mm = float(rng.choice([0.5, 0.7, 0.9, 1.2]))
    slice_mm = float(rng.choice([0.6, 1.0, 2.0, 3.0, 5.0]))
    density = float(rng.uniform(50.0, 200.0))
    spec = StudySpec(
        bmd_mg_cm3=dict.fromkeys(BODIES, density),
        kvp=int(rng.choice([80, 100, 120, 140])),
        seed=100_000 + number,
        noise_hu=float(rng.choice([8.0, 16.0, 30.0])),
        texture_hu=float(rng.choice([0.0, 12.0, 18.0])),
        pixel_spacing_mm=(pixel_mm, pixel_mm),
        matrix=ceil(VIEW_MM / pixel_mm),
        slice_spacing_mm=slice_mm,
        slice_thickness_mm=slice_mm,
        view=("L3", "L3"),
        phantom="none",
        faults=Faults(cut_mm=(CUT_MM, CUT_MM)),
    )
    method, densities = KINDS[kind]
    scatter = rng.normal(0.0, SCATTER_HU, len(densities)) if "scatter" in kind else np.zeros(len(densities))
    rods = _rods(spec, densities, scatter)
    calibration = calibrate(method=method, phantom=kind, equivalent=Mineral.HA, rods=rods)
    return RegionStudy(
        number=number, kind=kind, spec=spec, truth_mg_cm3=density, measured=_region(spec, calibration)
    )


def _region(spec: StudySpec, calibration: Calibration) -> BmdResult:
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    volume = CtVolume(
        hu=np.rint(render(spec, spine, raster)).astype(np.float32),
        grid=_grid(spec, raster.slices, spec.matrix, spec.matrix),
    )
    return measure_bmd(volume, _core(spine["L3"], raster), calibration, level="L3")


def _core(vertebra: Vertebra, raster: Raster) -> np.ndarray:
    x, y, z = (
        axis.astype(np.float32).reshape(shape)
        for axis, shape in (
            (raster.x_mm, (1, 1, -1)),
            (raster.y_mm, (1, -1, 1)),
            (raster.z_mm, (-1, 1, 1)),
        )
    )
    return (vertebra.core.distance(x, y, z) < -DEPTH_MM) & (
        np.abs(z - vertebra.core.centre[2]) < HALF_HEIGHT_MM
    )


def _rods(spec: StudySpec, densities: Sequence[float], scatter_hu: np.ndarray) -> tuple[RodReading, ...]:
    """Rods side by side in one volume, read within their radius."""
    pixel_mm, slices = spec.pixel_spacing_mm[0], ceil(PHANTOM_MM / spec.slice_spacing_mm)
    width = ceil(BLOCK_MM / pixel_mm)
    true_hu = np.array(densities) * hu_per_mg(HA, spec.kev) + scatter_hu
    hu = np.empty((slices, width, width * len(densities)), np.float32)
    hu[:] = np.repeat(true_hu, width)
    add_noise(hu, replace(spec, seed=spec.seed + 1_000_000))
    volume = CtVolume(hu=np.rint(hu), grid=_grid(spec, *hu.shape))
    middle = (width - 1) / 2
    place = np.arange(width) - middle
    disc = np.hypot(place[:, None], place[None, :]) * pixel_mm <= ROD_RADIUS_MM
    rods = []
    for index, density in enumerate(densities):
        values = volume.hu[:, :, index * width : (index + 1) * width][:, disc].astype(float)
        centres = [(k, middle, index * width + middle) for k in range(slices)]
        rods.append(
            RodReading(
                name=f"HA {density:g}",
                density_mg_cm3=density,
                hu_mean=float(values.mean()),
                hu_sd=float(values.std(ddof=1)),
                voxels=values.size,
                axis_points_mm=tuple(tuple(point) for point in volume.grid.to_patient(centres)),
            )
        )
    return with_standard_errors(volume, rods)


def _grid(spec: StudySpec, *shape: int) -> Grid:
    return Grid(
        shape=shape,
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
