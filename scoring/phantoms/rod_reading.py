"""Reading of a phantom: its rods in a CT volume, recognition of its model, and the calibration that follows.

Phantoms and limits are data (`scoring.phantoms`). The search is in `scoring.phantoms.rods`, the checks are in
`scoring.phantoms.checks`.

A wrong model is worse than none. A model is chosen only if every rod is found where its drawing has it,
passes every check, and lies on the line of its densities, at a slope that the tube voltage allows; and if no
other model with as many rods is found at all. Such another model may be the true one, which fails its checks
through a fault of the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import atan, degrees, inf

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from scoring.calibration import Calibration, RodReading
from scoring.calibration.methods import fit_observations
from scoring.density.bmd import with_standard_errors
from scoring.errors import CalibrationImpossible
from scoring.phantoms import PhantomModel, PhantomReading, RodModel, SliceReading
from scoring.phantoms.checks import (
    CrossSection,
    area_deviates,
    calibrate_rods,
    combine_readings,
    reading_observations,
    slope_drift,
)
from scoring.phantoms.rod_candidates import is_truncated
from scoring.phantoms.rod_volume import RodTarget, RodVolume, block_edges, padding_value, prepare_rod_volume
from scoring.phantoms.rods import (
    Lines,
    Pose,
    align_to_row,
    bridges,
    find_straight_rows,
    fit_lines,
    make_parallel,
    rows_in_one_slice,
    share_a_rod,
)
from scoring.settings import NOISE_WINDOW_MM
from segmentation.ct_volume import CtVolume, canonical
from segmentation.vertebrae import Observation

WALL_MM = 3.0  # a rod's centroid and area are taken over its radius and this much of the body around it
CENTRING_PASSES = 2
SMOOTHING_MM = 1.0
END_MARGIN_MM = 5.0  # slices this close to a rod's end inside the image blend rod and air


def find_rods(
    volume: CtVolume, model: PhantomModel, *, noise_window_mm: float = NOISE_WINDOW_MM
) -> PhantomReading:
    """Find the phantom's rods and read them.

    The phantom may lie anywhere in the plane, turned by any angle about the slice normal, and the array may
    be in any orientation. Rods run along the slice normal within 15 degrees.

    Parameters
    ----------
    volume : HU; any axis order and sense.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    Returns
    -------
    A reading whose observations prevent a calibration: `phantom_not_found`, `phantom_truncated`, `rod_order`,
    `rod_off`, `water_rod_off`, `rod_uneven`, `rod_area_off`, `phantom_tilted`, `calibration_drift`.
    """
    return read_rods(volume, model, noise_window_mm=noise_window_mm) or explain_absence(volume, model)


def read_rods(
    volume: CtVolume, model: PhantomModel, *, noise_window_mm: float = NOISE_WINDOW_MM
) -> PhantomReading | None:
    """The rods as `find_rods` reads them.

    Returns
    -------
    None where not all rods lie in the image.
    """
    prepared = _prepare(volume, model)
    found = [
        replace(one, rods=with_standard_errors(prepared.volume, one.rods, window_mm=noise_window_mm))
        for one in _read_rows(prepared, model)
    ]
    return combine_readings(found, model)


def explain_absence(volume: CtVolume, model: PhantomModel) -> PhantomReading:
    """A reading without rods: `phantom_truncated`, otherwise `phantom_not_found`.

    Parameters
    ----------
    volume : HU, in which `read_rods` found nothing.
    """
    prepared = _prepare(volume, model)
    truncated = is_truncated(prepared.rods, prepared.minimum_blocks)
    code = "phantom_truncated" if truncated else "phantom_not_found"
    return PhantomReading(
        model=model.name, observations=(Observation(code=code, values={"phantom": model.name}),)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedVolume:
    """A canonical volume, prepared for the search of one model's rods."""

    volume: CtVolume
    rods: RodVolume
    minimum_blocks: int  # that rods must be seen in


def _prepare(volume: CtVolume, model: PhantomModel) -> _PreparedVolume:
    turned, _ = canonical(volume)
    targets = tuple(_target(rod, model.body_hu) for rod in model.rods)
    rods = prepare_rod_volume(turned, targets, model.body_hu)
    block_mm = turned.grid.shape[0] * turned.grid.spacing_mm[0] / len(rods.z_mm)
    return _PreparedVolume(
        volume=turned,
        rods=rods,
        minimum_blocks=max(2, round(model.limits.minimum_length_mm / block_mm)),
    )


def _read_rows(prepared: _PreparedVolume, model: PhantomModel) -> list[PhantomReading]:
    """Each row of rods, the clearest first, their standard errors not yet measured."""
    if prepared.volume.grid.shape[0] == 1:
        return _read_single_slice(prepared, model)
    rows = find_straight_rows(prepared.rods, prepared.minimum_blocks)
    readings = (_read(prepared, model, row.lines, row.seen_mm) for row in rows)
    return [one for one in readings if one is not None]


def _target(rod: RodModel, body_hu: tuple[float, float]) -> RodTarget:
    return RodTarget(
        diameter_mm=rod.diameter_mm,
        offset_mm=rod.offset_mm,
        search_hu=rod.search_hu,
        brighter=sum(rod.expected_hu) > sum(body_hu),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slab:
    """About 10 mm of slices, averaged at full resolution."""

    z_mm: float
    image: npt.NDArray[np.float32]  # (y, x)
    body_hu: float


def _read(
    prepared: _PreparedVolume, model: PhantomModel, lines: Lines, seen_mm: tuple[float, float]
) -> PhantomReading | None:
    """The rods along `lines`; None where at full resolution no slice shows them."""
    volume = prepared.volume
    dz, dy, dx = volume.grid.spacing_mm
    slabs = [
        _slab(volume, first, last, lines, prepared.rods.targets)
        for first, last in block_edges(volume.grid.shape[0], dz)
        if seen_mm[0] <= (first + last - 1) / 2 * dz <= seen_mm[1]
    ]
    poses = [_centred(slab, model, lines.at(slab.z_mm), (dy, dx)) for slab in slabs]
    contrasts = [abs(sum(rod.expected_hu) - sum(model.body_hu)) for rod in model.rods]
    lines = make_parallel(fit_lines(poses), contrasts, middle_mm=sum(seen_mm) / 2)
    offsets = [rod.offset_mm for rod in model.rods]
    lines = align_to_row(lines, offsets, contrasts, middle_mm=sum(seen_mm) / 2)
    sections = _cross_sections(slabs, model, lines, (dy, dx))
    pixels, truncated = _rod_pixels(volume, model, lines)
    used = _run_of_rods(np.array([[values.mean() for values in rods] for rods in pixels]), model, dz)
    if not used:
        return None
    readings = tuple(
        _rod_reading(rod, _axis_points(volume, lines, index, used), [pixels[k][index] for k in used])
        for index, rod in enumerate(model.rods)
    )
    slices = tuple(
        SliceReading(z_mm=k * dz, hu=tuple(float(values.mean()) for values in pixels[k])) for k in used
    )
    drift = slope_drift(slices)
    reading = PhantomReading(
        model=model.name,
        rods=readings,
        slices=slices,
        areas_mm2=tuple(one.area_mm2 for one in sections),
        body_hu=float(np.mean([slab.body_hu for slab in slabs])),
        tilt_degrees=None if len(volume.hu) == 1 else degrees(atan(float(np.hypot(*lines.gradient[0])))),
        slope_drift_percent=None if drift is None else drift.percent,
    )
    return replace(reading, observations=reading_observations(reading, model, sections, truncated=truncated))


def _read_single_slice(prepared: _PreparedVolume, model: PhantomModel) -> list[PhantomReading]:
    """Rows of rods in a volume of one slice of which the densest rod has its size; no rod in two of them.

    A vertebral body and a loop of bowel form a row of discs too: the size distinguishes them from a phantom.
    """
    if prepared.volume.grid.spacing_mm[0] < model.limits.lone_slice_mm:
        return []
    found: list[PhantomReading] = []
    taken: list[Lines] = []
    for lines in rows_in_one_slice(prepared.rods):
        if any(share_a_rod(prepared.rods, lines.at(0.0), other.at(0.0)) for other in taken):
            continue
        reading = _read(prepared, model, lines, (0.0, 0.0))
        if reading is None or area_deviates(model, len(model.rods) - 1, reading.areas_mm2[-1]):
            continue
        if found and not reading.usable:  # chance discs make rows here: a second one must pass every check
            continue
        found.append(reading)
        taken.append(lines)
    return found


def _slab(volume: CtVolume, first: int, last: int, lines: Lines, targets: Sequence[RodTarget]) -> _Slab:
    """Slices [first, last) averaged, and the phantom's body between the rods there."""
    dz, dy, dx = volume.grid.spacing_mm
    z_mm = (first + last - 1) / 2 * dz
    image = volume.hu[first:last].mean(axis=0, dtype=np.float32)
    index = np.rint(bridges(lines.at(z_mm), targets) / (dy, dx)).astype(int)
    index = np.clip(index, 0, np.asarray(image.shape) - 1)
    return _Slab(z_mm=z_mm, image=image, body_hu=float(np.mean(image[index[..., 0], index[..., 1]])))


def _centred(
    slab: _Slab, model: PhantomModel, centres_mm: npt.NDArray[np.float64], spacing_mm: tuple[float, float]
) -> Pose:
    """The rods' centroids in one slab, started from `centres_mm`."""
    centres = centres_mm.copy()
    for index, rod in enumerate(model.rods):
        radius = rod.diameter_mm / 2
        for _ in range(CENTRING_PASSES):
            patch, y, x = _patch(slab.image, centres[index], radius + 2 * WALL_MM, spacing_mm)
            distance = np.hypot(y - centres[index][0], x - centres[index][1])
            core_hu = float(np.mean(patch[distance <= radius - model.roi_margin_mm]))
            contrast_hu = core_hu - slab.body_hu
            if contrast_hu == 0.0:  # a blank slab shows no rod
                break
            share = (_smoothed(patch, spacing_mm) - slab.body_hu) / contrast_hu
            weight = np.where(distance <= radius + WALL_MM, np.clip(share, 0.0, 1.0), 0.0)
            if not weight.any():
                break
            centres[index] = [np.sum(weight * y) / weight.sum(), np.sum(weight * x) / weight.sum()]
    return Pose(z_mm=slab.z_mm, centres_mm=centres)


def _cross_sections(
    slabs: Sequence[_Slab], model: PhantomModel, lines: Lines, spacing_mm: tuple[float, float]
) -> tuple[CrossSection, ...]:
    """Cross-section of each rod.

    The area is that of a disc with the core's contrast to the body and the same integral: blur at the wall
    does not change it. Core, body and integral are pooled over the slabs, because a water rod has little
    contrast; the scatter of the slabs about the pooled area gives its standard error.
    """
    found = []
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    for index, rod in enumerate(model.rods):
        radius = rod.diameter_mm / 2
        cores, excess, worst = [], [], 0.0
        for slab in slabs:
            centre = lines.at(slab.z_mm)[index]
            patch, y, x = _patch(slab.image, centre, radius + 2 * WALL_MM, spacing_mm)
            distance = np.hypot(y - centre[0], x - centre[1])
            core = distance <= radius - model.roi_margin_mm
            cores.append(float(patch[core].mean()) - slab.body_hu)
            excess.append(float(np.sum(patch[distance <= radius + WALL_MM] - slab.body_hu)))
            worst = max(worst, float(_smoothed(patch, spacing_mm)[core].std()))
        pixels = sum(excess) / sum(cores)
        found.append(
            CrossSection(
                area_mm2=pixels * pixel_mm2,
                standard_error_mm2=_ratio_error(excess, cores) * pixel_mm2,
                sd_hu=worst,
            )
        )
    return tuple(found)


def _ratio_error(above: Sequence[float], below: Sequence[float]) -> float:
    """Standard error of the ratio of two sums, from the scatter of their terms; 0 of a single pair."""
    if len(above) < 2:
        return 0.0
    terms = np.array(above), np.array(below)
    residuals = terms[0] - terms[0].sum() / terms[1].sum() * terms[1]
    freedom = (len(above) - 1) / len(above)
    return float(np.sqrt(residuals @ residuals / freedom) / abs(terms[1].sum()))


def _smoothed(patch: npt.NDArray[np.float64], spacing_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Blurred far less than a rod's wall is excluded; it reduces noise."""
    smooth: npt.NDArray[np.float64] = gaussian_filter(patch, [SMOOTHING_MM / size for size in spacing_mm])
    return smooth


def _patch(
    image: npt.NDArray[np.float32],
    centre_mm: npt.NDArray[np.float64],
    reach_mm: float,
    spacing_mm: tuple[float, float],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Part of one slice about a point, with its pixels' y and x in mm; cut where the image ends."""
    bounds = []
    for centre, spacing, size in zip(centre_mm, spacing_mm, image.shape, strict=True):
        first = max(0, int((centre - reach_mm) / spacing))
        bounds.append(slice(first, min(size, int((centre + reach_mm) / spacing) + 2)))
    y = np.arange(bounds[0].start, bounds[0].stop)[:, None] * spacing_mm[0]
    x = np.arange(bounds[1].start, bounds[1].stop)[None, :] * spacing_mm[1]
    patch = image[bounds[0], bounds[1]].astype(np.float64)
    return patch, np.broadcast_to(y, patch.shape), np.broadcast_to(x, patch.shape)


def _rod_pixels(
    volume: CtVolume, model: PhantomModel, lines: Lines
) -> tuple[list[list[npt.NDArray[np.float64]]], bool]:
    """Per slice and rod: the HU of the pixels well inside the rod; and whether a rod leaves the image."""
    dz, dy, dx = volume.grid.spacing_mm
    padding = padding_value(volume.hu)
    truncated = False
    pixels: list[list[npt.NDArray[np.float64]]] = []
    for k, image in enumerate(volume.hu):
        centres = lines.at(k * dz)
        row = []
        for centre, rod in zip(centres, model.rods, strict=True):
            radius = rod.diameter_mm / 2
            patch, y, x = _patch(image, centre, radius, (dy, dx))
            distance = np.hypot(y - centre[0], x - centre[1])
            row.append(patch[distance <= radius - model.roi_margin_mm])
            edge = (np.array(image.shape) - 1) * (dy, dx)
            truncated |= bool(np.any(centre < radius) or np.any(centre > edge - radius))
            truncated |= padding is not None and bool(np.any(patch[distance <= radius] == padding))
        pixels.append(row)
    return pixels, truncated


def _run_of_rods(means_hu: npt.NDArray[np.float64], model: PhantomModel, spacing_mm: float) -> range:
    """The longest run of slices in which every rod has its HU, without its blurred ends; may be empty."""
    low, high = np.array([rod.search_hu for rod in model.rods]).T
    good = np.all((means_hu >= low) & (means_hu <= high), axis=1)
    turns = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
    if not len(turns):
        return range(0)
    first, last = max(zip(turns[::2], turns[1::2], strict=True), key=lambda run: run[1] - run[0])
    margin = round(END_MARGIN_MM / spacing_mm)
    first = first + margin if first > 0 else first
    last = last - margin if last < len(good) else last
    return range(int(first), int(last))


def _axis_points(
    volume: CtVolume, lines: Lines, index: int, used: range
) -> tuple[tuple[float, float, float], ...]:
    dz, dy, dx = volume.grid.spacing_mm
    centres = [(k, *(lines.at(k * dz)[index] / (dy, dx))) for k in used]
    return tuple((float(x), float(y), float(z)) for x, y, z in volume.grid.to_patient(np.array(centres)))


def _rod_reading(
    rod: RodModel,
    axis_points_mm: tuple[tuple[float, float, float], ...],
    pixels: Sequence[npt.NDArray[np.float64]],
) -> RodReading:
    values = np.concatenate(pixels)
    return RodReading(
        name=rod.name,
        density_mg_cm3=rod.density_mg_cm3,
        hu_mean=float(values.mean()),
        hu_sd=float(values.std(ddof=1)),
        voxels=len(values),
        axis_points_mm=axis_points_mm,
        water_mg_cm3=rod.water_mg_cm3,
    )


# Recognition of the model, and the calibration that a reading gives.


UNDECIDED = ""  # model of a reading that no model could be chosen for


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomImage:
    """A volume, or one slice of single-slice QCT, with its tube voltage.

    Attributes
    ----------
    kvp : in kV; None where it is not stated.
    """

    volume: CtVolume
    kvp: float | None


def read_phantom(
    images: Sequence[PhantomImage],
    models: Mapping[str, PhantomModel],
    *,
    noise_window_mm: float = NOISE_WINDOW_MM,
) -> tuple[PhantomReading, ...]:
    """The rods in each image of one study; all images show the same phantom.

    Parameters
    ----------
    models : by name. Of several the only one that fits is chosen.
    noise_window_mm : distance up to which voxels' noise is taken to be correlated.

    Returns
    -------
    One reading for each image. Where no model could be chosen, `model` is `UNDECIDED` and the observation one
    of `phantom_not_found`, `phantom_truncated`, `phantom_ambiguous` (several fit), `phantom_unrecognised`
    (none fits beyond doubt). Where the rods of a single model were found and failed their checks, its own
    reading.
    """
    if len(models) == 1:
        (model,) = models.values()
        return tuple(find_rods(one.volume, model, noise_window_mm=noise_window_mm) for one in images)
    readings = {
        name: [read_rods(one.volume, model, noise_window_mm=noise_window_mm) for one in images]
        for name, model in models.items()
    }
    fitting = [name for name in models if _fits_somewhere(images, readings[name], models[name])]
    if not fitting:
        return tuple(
            _explain_misfit(
                [readings[name][place] or explain_absence(one.volume, models[name]) for name in models]
            )
            for place, one in enumerate(images)
        )
    fewest = min(len(models[name].rods) for name in fitting)
    seen = [name for name in models if any(readings[name])]
    rivals = [name for name in seen if name in fitting or len(models[name].rods) >= fewest]
    if len(rivals) > 1:
        return tuple(_without_model("phantom_ambiguous", rivals) for _ in images)
    chosen = models[fitting[0]]
    return tuple(
        reading or explain_absence(one.volume, chosen)
        for one, reading in zip(images, readings[chosen.name], strict=True)
    )


def calibrate_from_reading(
    reading: PhantomReading, model: PhantomModel | None, kvp: float | None
) -> tuple[Calibration | None, tuple[Observation, ...]]:
    """The calibration that a reading gives, with observations; None with the reasons where it gives none.

    Parameters
    ----------
    model : that of the reading; None where none could be chosen.
    kvp : tube voltage of the series, which limits the slope; None where the header states none.
    """
    if model is None or not reading.usable:
        return None, reading.observations
    try:
        found = calibrate_rods(reading, model, kvp=kvp)
    except CalibrationImpossible as error:
        return None, (Observation(code=error.code, values={"phantom": model.name}),)
    named = replace(found, phantom_serial=model.serial, phantom_sha256=model.sha256)
    return named, fit_observations(named, model.rules)


def line_without_limits(reading: PhantomReading, model: PhantomModel | None) -> Calibration | None:
    """The line through the rods, passed or not: for quality control, never for a density.

    Returns
    -------
    None without rods, without a model, or where the rods' HU do not rise.
    """
    if model is None or not reading.rods:
        return None
    any_slope = ((120.0, 0.0, inf),)
    rules = replace(
        model.rules, r2_refused_below=0.0, offset_hu=inf, sigma_ref=any_slope, hu_per_mg=any_slope
    )
    try:
        return calibrate_rods(reading, model, rules=rules)
    except CalibrationImpossible:
        return None


def _fits_somewhere(
    images: Sequence[PhantomImage], readings: Sequence[PhantomReading | None], model: PhantomModel
) -> bool:
    """Whether the model calibrates at least one image without any observation."""
    results = [
        calibrate_from_reading(reading, model, one.kvp)
        for one, reading in zip(images, readings, strict=True)
        if reading is not None
    ]
    return any(calibration is not None and not noticed for calibration, noticed in results)


def _explain_misfit(readings: Sequence[PhantomReading]) -> PhantomReading:
    """Why no model fits one image: the failed checks of the only model found, otherwise a summary."""
    found = [reading for reading in readings if reading.rods]
    if len(found) == 1 and found[0].observations:
        return found[0]
    codes = {one.code for reading in found for one in reading.observations}
    if found and codes != {"phantom_truncated"}:
        return _without_model("phantom_unrecognised", [reading.model for reading in found])
    codes = {one.code for reading in readings for one in reading.observations}
    code = "phantom_truncated" if "phantom_truncated" in codes else "phantom_not_found"
    return _without_model(code, [reading.model for reading in readings])


def _without_model(code: str, names: Sequence[str]) -> PhantomReading:
    observation = Observation(code=code, values={"phantom": ", ".join(names)})
    return PhantomReading(model=UNDECIDED, observations=(observation,))
