"""Does a density come out right, whatever the phantom and the technique? Studies numbered from 0.

The plan is written down by its seed before anything is run: of every factor each level stands in equally many
studies, and the columns are shuffled independently of each other. A study is an L3 of known density and a
phantom beneath it, rendered apart from each other, for what lies between them plays no part: the phantom in a
bar under tissue, blurred and tilted, for `find_rods` to find; the vertebra with its cortex and trabeculae,
for `cut_regions`. The truth is that of `node.reference`, marrow fat included; scoring reads the images.

What a gram of K2HPO4 displaces is part of what a density in K2HPO4 means, and the one number that the truth
and the Mindways method both state, each for itself. So this shows that the method does what it defines; it
cannot show that the definition is a good one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, cos, radians, sin, tan

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binom

from config.catalog import load_phantom
from node.reference.attenuation import EFFECTIVE_KEV, ROWS, cancellous_reading
from node.reference.render import BLUR_MM, add_noise, raster_of, render
from node.reference.spec import BODIES, StudySpec
from node.reference.spine import build_spine
from scoring.calibration import Calibration
from scoring.density.bmd import BmdResult, measure_bmd
from scoring.phantoms.rod_reading import calibrate_from_reading, find_rods
from segmentation.ct_volume import CtVolume, Grid
from segmentation.levels import measure_level
from segmentation.regions.cancellous import cut_regions
from segmentation.settings import DensityRegions, RegionSettings
from segmentation.vertebrae import LABELS, EngineInfo, RegionKind, Regions, Vertebrae

SEED, STUDIES = 2026, 300
FACTORS: Mapping[str, Sequence[object]] = {
    "phantom": ("siemens-osteo", "mindways-3", "qrm-bdc-6", "b-mas-200", "image-analysis-g2730"),
    "density, mg/cm3": (50.0, 80.0, 110.0, 150.0, 200.0),
    "tube voltage, kV": (80, 100, 120, 140),
    "noise, HU": (8.0, 16.0, 30.0),
    "tilt, degrees": (0.0, 1.0, 2.0, 3.0, 4.0),
    "slice, mm": (0.6, 1.0, 2.0, 3.0, 5.0),
    "pixel (row, column), mm": ((0.7, 0.7), (0.6, 1.0), (1.0, 0.7)),
    "oblique (about x, y), degrees": ((0.0, 0.0), (12.0, 0.0), (-20.0, 0.0), (0.0, 10.0)),
}
MOST_BIAS_MG_CM3, MOST_REFUSED = 1.0, 0.05
CHANCE = 0.01  # that a sound group of studies is called unsound, at either end
THIN_MM = 1.0
REGIONS = RegionSettings(bmd=DensityRegions.BOTH)
PHANTOM_MM, HALF_WIDTH_MM, FRONT_MM, BACK_MM = 90.0, 112.0, -38.0, 24.0  # from the bar's middle
BAR_MM, BAR_HU, TISSUE_HU, AIR_HU = (104.0, 15.0), 36.0, 50.0, -1000.0
VIEW_MM = 58.0  # across L3


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixStudy:
    """One study of the plan, measured. Without a calibration, `refused` says why."""

    number: int
    levels: Mapping[str, object]  # of each factor
    truth_mg_cm3: float  # in the phantom's mineral
    measured: Mapping[RegionKind, BmdResult]
    refused: tuple[str, ...] = ()

    @property
    def phantom(self) -> object:
        return self.levels["phantom"]

    @property
    def thin(self) -> bool:
        return float(self.levels["slice, mm"]) <= THIN_MM

    def error_mg_cm3(self, kind: RegionKind = RegionKind.CORE) -> float:
        return self.measured[kind].bmd_mg_cm3 - self.truth_mg_cm3

    def holds(self, kind: RegionKind = RegionKind.CORE) -> bool:
        low, high = self.measured[kind].bmd_interval95_mg_cm3
        return low <= self.truth_mg_cm3 <= high


def plan() -> list[Mapping[str, object]]:
    """The levels of every factor in each of the studies."""
    rng = np.random.default_rng(SEED)
    columns = {
        name: rng.permutation(np.resize(np.arange(len(levels)), STUDIES)) for name, levels in FACTORS.items()
    }
    return [{name: FACTORS[name][columns[name][row]] for name in FACTORS} for row in range(STUDIES)]


def run(number: int) -> MatrixStudy:
    """The study of that number, measured."""
    levels = plan()[number]
    model = load_phantom(str(levels["phantom"]))[0]
    spec = _spec(number, levels)
    truth = cancellous_reading(
        spec.bmd_of("L3"), equivalent="HA", fat_fraction=spec.fat_fraction, kev=spec.kev
    ).equivalents_mg_cm3[model.equivalent.value]
    turned = _turned(*levels["oblique (about x, y), degrees"])
    reading = find_rods(_phantom(spec, levels, turned), model)
    calibration, barred = calibrate_from_reading(reading, model, float(spec.kvp))
    if calibration is None:
        codes = tuple(one.code for one in barred)
        return MatrixStudy(number=number, levels=levels, truth_mg_cm3=truth, measured={}, refused=codes)
    measured = _densities(_regions(spec, turned), calibration)
    return MatrixStudy(number=number, levels=levels, truth_mg_cm3=truth, measured=measured)


def is_unbiased(studies: Sequence[MatrixStudy], kind: RegionKind = RegionKind.CORE) -> bool:
    """Whether the mean error on thin slices is at most 1 mg/cm3; True where there are none."""
    errors = [one.error_mg_cm3(kind) for one in studies if one.thin]
    return not errors or abs(float(np.mean(errors))) <= MOST_BIAS_MG_CM3


def fewest_and_most_held(studies: int) -> tuple[int, int]:
    """Between which numbers of 95 % intervals hold the truth, but for chance, where each does with 95 %."""
    fewest, most = binom.ppf((CHANCE, 1 - CHANCE), studies, 0.95)
    return int(fewest), int(most)


def _spec(number: int, levels: Mapping[str, object]) -> StudySpec:
    pixel_mm = levels["pixel (row, column), mm"]
    return StudySpec(
        bmd_mg_cm3=dict.fromkeys(BODIES, levels["density, mg/cm3"]),
        kvp=levels["tube voltage, kV"],
        seed=500_000 + number,
        noise_hu=levels["noise, HU"],
        pixel_spacing_mm=pixel_mm,
        matrix=ceil(VIEW_MM / min(pixel_mm)),
        slice_spacing_mm=levels["slice, mm"],
        slice_thickness_mm=levels["slice, mm"],
        view=("L3", "L3"),
        phantom="none",
    )


def _turned(about_x_degrees: float, about_y_degrees: float) -> np.ndarray:
    a, b = radians(about_x_degrees), radians(about_y_degrees)
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cos(a), -sin(a)], [0.0, sin(a), cos(a)]])
    about_y = np.array([[cos(b), 0.0, sin(b)], [0.0, 1.0, 0.0], [-sin(b), 0.0, cos(b)]])
    return about_y @ about_x


def _grid(spec: StudySpec, turned: np.ndarray, shape: tuple[int, ...]) -> Grid:
    axes = (turned @ np.eye(3)[::-1].T).T
    return Grid(
        shape=shape,
        spacing_mm=(spec.slice_spacing_mm, *spec.pixel_spacing_mm),
        origin_mm=(-120.0, -90.0, -300.0),
        direction=tuple(tuple(float(part) for part in axis) for axis in axes),
    )


def _phantom(spec: StudySpec, levels: Mapping[str, object], turned: np.ndarray) -> CtVolume:
    """A bar with the rods, tilted against the slices, below tissue."""
    row, kev = ROWS[str(levels["phantom"])], EFFECTIVE_KEV[spec.kvp]
    dy, dx = spec.pixel_spacing_mm
    y, x = np.arange(FRONT_MM, BACK_MM, dy)[:, None], np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM, dx)[None, :]
    slices = ceil(PHANTOM_MM / spec.slice_spacing_mm)
    hu = np.empty((slices, y.size, x.size), np.float32)
    soft = max(dy, dx)
    for place in range(slices):
        fall_mm = tan(radians(levels["tilt, degrees"])) * (place - slices / 2) * spec.slice_spacing_mm
        v = y - fall_mm
        image = np.where(y < FRONT_MM + 16.0, TISSUE_HU, AIR_HU) + np.zeros_like(x)
        bar = np.clip(0.5 - np.maximum(np.abs(x) - BAR_MM[0], np.abs(v) - BAR_MM[1]) / soft, 0, 1)
        image += bar * (BAR_HU - image)
        for index, rod in enumerate(row.rods):
            edge_mm = np.hypot(x - row.across_mm(index), v) - row.diameter_mm / 2
            image += np.clip(0.5 - edge_mm / soft, 0, 1) * (rod.hu(kev) - image)
        hu[place] = image
    for axis, spacing in ((1, dy), (2, dx)):
        gaussian_filter1d(hu, BLUR_MM / spacing, axis=axis, output=hu, mode="nearest")
    add_noise(hu, replace(spec, seed=spec.seed + 1_000_000))
    return CtVolume(hu=np.rint(hu), grid=_grid(spec, turned, hu.shape))


def _regions(spec: StudySpec, turned: np.ndarray) -> tuple[CtVolume, Regions]:
    """An image of L3 with its core and its ellipse, the body being drawn as it truly is."""
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    hu = np.rint(render(spec, spine, raster)).astype(np.float32)
    volume = CtVolume(hu=hu, grid=_grid(spec, turned, hu.shape))
    x, y, z = (
        axis.astype(np.float32).reshape(shape)
        for axis, shape in (
            (raster.x_mm, (1, 1, -1)),
            (raster.y_mm, (1, -1, 1)),
            (raster.z_mm, (-1, 1, 1)),
        )
    )
    body = spine["L3"].body
    inside = body.distance(x, y, z) < 0
    vertebrae = Vertebrae(
        grid=volume.grid,
        bodies=np.where(inside, LABELS["L3"], 0).astype(np.uint8),
        levels=(measure_level("L3", inside, volume.grid, axis=turned @ body.axes[2], complete=True),),
        numbering_confirmed=True,
        numbering_basis="mask",
        engine=EngineInfo(name="truth", version="1", model_free=True),
    )
    return volume, cut_regions(volume, vertebrae, "L3", REGIONS)


def _densities(scene: tuple[CtVolume, Regions], calibration: Calibration) -> Mapping[RegionKind, BmdResult]:
    volume, regions = scene
    return {
        kind: measure_bmd(volume, mask, calibration, level="L3", kind=kind)
        for kind, mask in ((RegionKind.CORE, regions.bmd), (RegionKind.ELLIPSE, regions.ellipse))
    }
