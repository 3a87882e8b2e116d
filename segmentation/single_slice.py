"""The vertebral body in one thick slice, as single-slice QCT takes it through the middle of a vertebra.

One slice shows neither neighbours nor endplates, so that no level can be named; and what it shows must itself
say that it is the middle of a lumbar body. A gate that fails gives an observation and no region: a slice
through a disc, an endplate, the sacrum or the chest is never measured.

The canal is found as soft tissue that bone surrounds, the body as a closed outline in front of it, both by
the geometric engine's own means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.engines.geometric.canal import enclosure_map
from segmentation.engines.geometric.frame import (
    BodyFrame,
    Points,
    Profile,
    coarsen,
    frame_of,
    sample,
)
from segmentation.engines.geometric.outline import ANGLES, trace_outline
from segmentation.observation import Observation
from segmentation.vertebrae import EngineInfo
from segmentation.volume import CtVolume, FloatArray, Mask, canonical

INFO = EngineInfo(name="single-slice", version="1", model_free=True)

WORKING_STEP_MM = 2.0
CANDIDATES = 5  # places in a slice that are tried as the canal
APART_MM = 16.0  # between two such places: a canal's width
CANAL_TO_BODY_MM = 27.0  # from the canal's middle to the body's, to start with
SETTLED_MM = 0.5  # the outline is traced again while its middle moves further
_TURN = 2 * np.pi
_ANGLE = np.arange(ANGLES) * (_TURN / ANGLES)  # from left over front, as the outline counts


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSettings:
    """What a lumbar mid-body slice of an adult looks like. All values are proposals (R).

    The gates were chosen on digital reference studies (slices of 10 mm at 80 kV up to 18 mm off the body's
    middle) and looked at on slabs of 9 mm of four real CTs.
    """

    enclosure: float = 0.5  # share of rays from the canal that meet bone within 17 mm
    canal_behind_mm: tuple[float, float] = (18.0, 36.0)  # of the canal's middle behind the body's
    canal_beside_mm: float = 5.0
    supported: float = 0.7  # share of the outline with an edge against soft tissue; pedicles take the rest
    width_mm: tuple[float, float] = (32.0, 65.0)
    depth_mm: tuple[float, float] = (22.0, 48.0)
    region_mm2: float = 200.0
    # Through the middle of a body the cortex is far denser than what it encloses; through an endplate or a
    # disc it is not. Dense young bone comes near its cortex as well: above `dense_interior_hu` less is asked.
    rim: float = 0.7  # (cortex - interior) / interior, median over the outline
    dense_interior_hu: tuple[float, float] = (290.0, 400.0)
    rim_of_dense: float = 0.15
    cortex_hu: float = 170.0  # of that median: beneath, the outline is a disc's rim
    rim_everywhere: float = 0.7  # share of the outline whose cortex is 25 HU denser than the interior
    beside_bone: float = 0.2  # share of what lies 4 to 14 mm beside the body: ribs' heads, sacral wings
    bone_hu: float = 130.0
    lung_cm2: float = 5.0  # behind the body's front: a little of the recess may reach down to L1
    lung_hu: tuple[float, float] = (-960.0, -600.0)
    erosion_mm: float = 3.0  # from the outline: cortex, its blur, and subcortical bone
    min_erosion_pixels: int = 2
    wedge_half_angle_deg: float = 25.0  # of the basivertebral veins, as seen from the body's middle
    region_sd_hu: float = 70.0
    cluster_hu: float = 150.0  # denser or fainter than the region's median, smoothed by 2 mm
    cluster_mm2: float = 50.0
    metal_hu: float = 1000.0
    metal_near_hu: float = 1800.0
    metal_margin_mm: float = 10.0
    metal_min_mm2: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceBody:
    """What one slice shows. With any observation there is no region."""

    body: Mask | None  # shape of the volume, (1, y, x) in any axis order; None where no body was found
    region: Mask | None  # cancellous bone in which density is read
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An outline about a body, in the canonical slice."""

    frame: BodyFrame
    radius_mm: Profile  # (ANGLES,)
    supported: float
    canal: Points  # local (h, u, v) of the canal's middle

    def radius(self, angle: Profile) -> Profile:
        r: Profile = np.interp(
            np.mod(angle, _TURN), np.append(_ANGLE, _TURN), np.append(self.radius_mm, self.radius_mm[0])
        )
        return r

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Width and depth."""
        return (
            float(np.ptp(self.radius_mm * np.cos(_ANGLE))),
            float(np.ptp(self.radius_mm * np.sin(_ANGLE))),
        )


def find_slice_body(volume: CtVolume, name: str, settings: SliceSettings | None = None) -> SliceBody:
    """Find the lumbar body in a volume of one slice.

    Parameters
    ----------
    volume : HU; one slice in any axis order and sense, its normal within 45 degrees of the body's long axis.
    name : of the slice, for the observations: "slice 1".

    Returns
    -------
    SliceBody
        Observations: `slice_body_not_found`, `slice_not_lumbar`, `slice_not_mid_body`, `slice_uneven`,
        `metal_near_body`. Where several places look like a canal, those of the likeliest one.

    Raises
    ------
    ValueError
        If the volume has more than one slice.
    """
    rules = settings or SliceSettings()
    if 1 not in volume.grid.shape:
        raise ValueError("the volume has more than one slice")
    turned, turn = canonical(volume)
    best = None
    if turned.grid.shape[0] == 1:  # else the slice is not transverse
        best = next((found for found in _candidates(turned, rules) if _has_lumbar_shape(found, rules)), None)
    if best is None:
        return SliceBody(
            body=None, region=None, observations=(Observation(code="slice_body_not_found", level=name),)
        )
    body, region = _masks(turned, best, rules)
    observations = tuple(replace(one, level=name) for one in _objections(turned, best, body, region, rules))
    return SliceBody(
        body=turn.backward(body),
        region=None if observations else turn.backward(region),
        observations=observations,
    )


def _thickened(volume: CtVolume) -> CtVolume:
    """Three copies of the slice, 1 mm apart: the outline is traced over a height."""
    _, rows, columns = volume.grid.shape
    _, dy, dx = volume.grid.spacing_mm
    grid = replace(volume.grid, shape=(3, rows, columns), spacing_mm=(1.0, dy, dx))
    return CtVolume(hu=np.repeat(volume.hu, 3, axis=0), grid=grid)


def _candidates(volume: CtVolume, rules: SliceSettings) -> Iterator[_Found]:
    """A body in front of each place that bone surrounds, the best surrounded first."""
    work = coarsen(volume, WORKING_STEP_MM)
    enclosed = enclosure_map(work)[0]
    score = ndimage.uniform_filter(enclosed, size=5, mode="constant")
    thick = _thickened(volume)
    reach = round(APART_MM / work.step_mm / 2)
    for _ in range(CANDIDATES):
        row, column = (int(place) for place in np.unravel_index(int(np.argmax(score)), score.shape))
        share = float(score[row, column])
        if share < rules.enclosure:
            return
        top, left = max(0, row - reach), max(0, column - reach)
        near = (slice(top, row + reach + 1), slice(left, column + reach + 1))
        y, x = ndimage.center_of_mass(enclosed[near].astype(float) ** 4)
        canal_mm = np.array([1.0, (top + y) * work.step_mm, (left + x) * work.step_mm])
        yield _outlined(thick, canal_mm)
        rows, columns = np.ogrid[: score.shape[0], : score.shape[1]]
        score[np.hypot(rows - row, columns - column) * work.step_mm < APART_MM] = 0


def _outlined(thick: CtVolume, canal_mm: Points) -> _Found:
    """The closed outline in front of a canal, centred on itself."""
    heights = np.array([-1.0, 0.0, 1.0])
    canal_line = canal_mm + heights[:, None] * np.array([1.0, 0.0, 0.0])
    along, front = np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])
    frame = frame_of(canal_mm + CANAL_TO_BODY_MM * front, along, front)
    wall = trace_outline(thick, frame, heights, canal_line)
    for _ in range(3):
        radius = wall.radius_mm[1]
        area = float((radius**2).sum())
        u = float((radius**3 * np.cos(_ANGLE)).sum()) * 2 / 3 / area
        v = float((radius**3 * np.sin(_ANGLE)).sum()) * 2 / 3 / area
        if np.hypot(u, v) < SETTLED_MM:
            break
        frame = frame.moved(0.0, u, v)
        wall = trace_outline(thick, frame, heights, canal_line)
    return _Found(
        frame=frame,
        radius_mm=wall.radius_mm[1],
        supported=wall.supported,
        canal=frame.local(canal_mm),
    )


def _has_lumbar_shape(found: _Found, rules: SliceSettings) -> bool:
    width, depth = found.extent_mm
    return (
        rules.canal_behind_mm[0] <= -found.canal[2] <= rules.canal_behind_mm[1]
        and abs(found.canal[1]) <= rules.canal_beside_mm
        and found.supported >= rules.supported
        and rules.width_mm[0] <= width <= rules.width_mm[1]
        and rules.depth_mm[0] <= depth <= rules.depth_mm[1]
    )


def _local(volume: CtVolume, found: _Found) -> tuple[Profile, Profile]:
    """Left and front of each pixel from the body's middle, shape (y, x)."""
    _, rows, columns = volume.grid.shape
    _, dy, dx = volume.grid.spacing_mm
    y, x = np.meshgrid(np.arange(rows) * dy, np.arange(columns) * dx, indexing="ij")
    local = found.frame.local(np.stack([np.ones_like(y), y, x], axis=-1))
    return local[..., 1], local[..., 2]


def _masks(volume: CtVolume, found: _Found, rules: SliceSettings) -> tuple[Mask, Mask]:
    """Body and cancellous region, shape (1, y, x)."""
    u, v = _local(volume, found)
    body: Mask = np.hypot(u, v) <= found.radius(np.arctan2(v, u))
    spacing = np.asarray(volume.grid.spacing_mm[1:])
    # A pixel reaches half its size beyond its centre, as in `segmentation.vertebra`.
    reach = np.maximum(rules.erosion_mm + spacing / 2, rules.min_erosion_pixels * spacing)
    deep = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing / reach)[1:-1, 1:-1] >= 1.0
    tangent = np.tan(np.deg2rad(rules.wedge_half_angle_deg))
    region: Mask = deep & ~((v < 0) & (np.abs(u) < -v * tangent))
    return body[None], region[None]


def _objections(
    volume: CtVolume, found: _Found, body: Mask, region: Mask, rules: SliceSettings
) -> Iterator[Observation]:
    """Why the region must not be read, the plainest reason alone."""
    pixel_mm2 = volume.grid.spacing_mm[1] * volume.grid.spacing_mm[2]
    if region.sum() * pixel_mm2 < rules.region_mm2 or _touches_border(body[0]):
        yield Observation(code="slice_body_not_found")
        return
    metal = _metal_pixels(volume, body[0], rules)
    if metal * pixel_mm2 >= rules.metal_min_mm2:
        yield Observation(code="metal_near_body", values={"voxels": metal})
        return
    if (
        _beside_bone(volume, found, rules) > rules.beside_bone
        or _lung_cm2(volume, found, rules) > rules.lung_cm2
    ):
        yield Observation(code="slice_not_lumbar")
        return
    interior = volume.hu[region]
    spread = float(interior.std(ddof=1))
    if spread > rules.region_sd_hu or _cluster_mm2(volume, region[0], rules) > rules.cluster_mm2:
        yield Observation(code="slice_uneven", values={"sd_hu": round(spread)})
        return
    inside_hu = float(interior.mean())  # an endplate in part of it counts
    rim = _rim_hu(volume, found) - inside_hu
    median, needed = float(np.median(rim)), _needed_rim_hu(inside_hu, rules)
    if median < needed or float((rim > 25.0).mean()) < rules.rim_everywhere:
        values: dict[str, str | int | float] = {
            "rim_hu": round(median),
            "needed_hu": round(max(needed, 25.0)),
        }
        yield Observation(code="slice_not_mid_body", values=values)


def _touches_border(mask: npt.NDArray[np.bool_]) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _metal_pixels(volume: CtVolume, body: npt.NDArray[np.bool_], rules: SliceSettings) -> int:
    """Pixels of the largest piece of metal in the body or near it."""
    outside_mm = ndimage.distance_transform_edt(~body, sampling=volume.grid.spacing_mm[1:])
    near = (outside_mm <= rules.metal_margin_mm) & (volume.hu[0] > rules.metal_near_hu)
    labels, count = ndimage.label((body & (volume.hu[0] > rules.metal_hu)) | near, np.ones((3, 3)))
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def _across(volume: CtVolume, found: _Found, angle: Profile, beyond_mm: Profile) -> Profile:
    """HU on rays from the body's middle, from the outline outward: (angles, distances)."""
    radius = found.radius(angle)[:, None] + beyond_mm
    points = found.frame.points(0.0, radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None])
    return sample(_thickened(volume), points)


def _rim_hu(volume: CtVolume, found: _Found) -> Profile:
    """The cortex at each angle: the densest place near the outline."""
    peak: Profile = _across(volume, found, _ANGLE, np.arange(-4.0, 3.01, 0.5)).max(axis=1)
    return peak


def _needed_rim_hu(interior_hu: float, rules: SliceSettings) -> float:
    """How far the cortex of a mid-body slice rises above such an interior."""
    share = float(np.interp(interior_hu, rules.dense_interior_hu, (rules.rim, rules.rim_of_dense)))
    return max(share * interior_hu, rules.cortex_hu - interior_hu)


def _beside_bone(volume: CtVolume, found: _Found, rules: SliceSettings) -> float:
    """How much of what lies to the left and right of the body is bone."""
    aside = np.deg2rad(np.arange(-30.0, 31.0, 5.0))
    hu = _across(volume, found, np.concatenate([aside, np.pi + aside]), np.arange(4.0, 14.1))
    return float((hu > rules.bone_hu).mean())


def _lung_cm2(volume: CtVolume, found: _Found, rules: SliceSettings) -> float:
    """Lung behind the body's front. What lies there and holds gas is lung, or a little of the colon."""
    hu = volume.hu[0]
    _, dy, dx = volume.grid.spacing_mm
    step = (max(1, round(3.0 / dy)), max(1, round(3.0 / dx)))
    trunk = _largest(ndimage.binary_opening(hu > -300.0, np.ones(step)))
    low, high = rules.lung_hu
    gas = ndimage.binary_fill_holes(trunk) & (hu > low) & (hu < high)
    _, front = _local(volume, found)
    lung = ndimage.binary_opening(gas & (front < found.extent_mm[1] / 2), np.ones(step))
    return float(lung.sum()) * dy * dx / 100.0


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest: npt.NDArray[np.bool_] = labels == int(np.bincount(labels.ravel())[1:].argmax()) + 1
    return largest


def _cluster_mm2(volume: CtVolume, region: npt.NDArray[np.bool_], rules: SliceSettings) -> float:
    """The largest part of the region that is far denser or fainter than the rest."""
    spacing = volume.grid.spacing_mm[1:]
    smooth: FloatArray = ndimage.gaussian_filter(volume.hu[0], [2.0 / size for size in spacing])
    off = region & (np.abs(smooth - np.median(volume.hu[0][region])) > rules.cluster_hu)
    return float(_largest(off).sum()) * spacing[0] * spacing[1]
