"""The outline of a vertebral body in one slice, in front of the canal that bone surrounds.

Both are found by the geometric engine's own means, without knowing whether the slice lies mid-body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmentation.engines.geometric.canal import enclosure_map
from segmentation.engines.geometric.frame import BodyFrame, Points, Profile, coarsen, frame_of, sample
from segmentation.engines.geometric.outline import ANGLES, trace_outline
from segmentation.settings import CanalSettings, RegionSettings, SliceSettings
from segmentation.volume import CtVolume, Mask

WORKING_STEP_MM = 2.0
CANDIDATES = 5  # places in a slice that are tried as the canal
APART_MM = 16.0  # between two such places: a canal's width
CANAL_TO_BODY_MM = 27.0  # from the canal's middle to the body's, to start with
SETTLED_MM = 0.5  # the outline is traced again while its middle moves further
_TURN = 2 * np.pi
OUTLINE_ANGLES = np.arange(ANGLES) * (_TURN / ANGLES)  # from left over front


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOutline:
    """An outline about a body, in the canonical slice."""

    frame: BodyFrame
    radius_mm: Profile  # (ANGLES,)
    supported: float
    canal: Points  # local (h, u, v) of the canal's middle

    def radius(self, angle: Profile) -> Profile:
        r: Profile = np.interp(
            np.mod(angle, _TURN),
            np.append(OUTLINE_ANGLES, _TURN),
            np.append(self.radius_mm, self.radius_mm[0]),
        )
        return r

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Width and depth."""
        return (
            float(np.ptp(self.radius_mm * np.cos(OUTLINE_ANGLES))),
            float(np.ptp(self.radius_mm * np.sin(OUTLINE_ANGLES))),
        )


def find_outline(volume: CtVolume, rules: SliceSettings, canal: CanalSettings) -> SliceOutline | None:
    """The likeliest outline of a lumbar body's shape in a transverse slice, (1, y, x); None without one."""
    found = (one for one in _candidates(volume, rules, canal) if _has_lumbar_shape(one, rules))
    return next(found, None)


def _thickened(volume: CtVolume) -> CtVolume:
    """Three copies of the slice, 1 mm apart: the outline is traced over a height."""
    _, rows, columns = volume.grid.shape
    _, dy, dx = volume.grid.spacing_mm
    grid = replace(volume.grid, shape=(3, rows, columns), spacing_mm=(1.0, dy, dx))
    return CtVolume(hu=np.repeat(volume.hu, 3, axis=0), grid=grid)


def _candidates(volume: CtVolume, rules: SliceSettings, canal: CanalSettings) -> Iterator[SliceOutline]:
    """A body in front of each place that bone surrounds, the best surrounded first."""
    work = coarsen(volume, WORKING_STEP_MM)
    enclosed = enclosure_map(work, canal)[0]
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


def _outlined(thick: CtVolume, canal_mm: Points) -> SliceOutline:
    """The closed outline in front of a canal, centred on itself."""
    heights = np.array([-1.0, 0.0, 1.0])
    canal_line = canal_mm + heights[:, None] * np.array([1.0, 0.0, 0.0])
    along, front = np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])
    frame = frame_of(canal_mm + CANAL_TO_BODY_MM * front, along, front)
    wall = trace_outline(thick, frame, heights, canal_line)
    for _ in range(3):
        radius = wall.radius_mm[1]
        area = float((radius**2).sum())
        u = float((radius**3 * np.cos(OUTLINE_ANGLES)).sum()) * 2 / 3 / area
        v = float((radius**3 * np.sin(OUTLINE_ANGLES)).sum()) * 2 / 3 / area
        if np.hypot(u, v) < SETTLED_MM:
            break
        frame = frame.moved(0.0, u, v)
        wall = trace_outline(thick, frame, heights, canal_line)
    return SliceOutline(
        frame=frame,
        radius_mm=wall.radius_mm[1],
        supported=wall.supported,
        canal=frame.local(canal_mm),
    )


def _has_lumbar_shape(found: SliceOutline, rules: SliceSettings) -> bool:
    width, depth = found.extent_mm
    return (
        rules.canal_behind_mm[0] <= -found.canal[2] <= rules.canal_behind_mm[1]
        and abs(found.canal[1]) <= rules.canal_beside_mm
        and found.supported >= rules.supported
        and rules.width_mm[0] <= width <= rules.width_mm[1]
        and rules.depth_mm[0] <= depth <= rules.depth_mm[1]
    )


def local_mm(volume: CtVolume, found: SliceOutline) -> tuple[Profile, Profile]:
    """Left and front of each pixel from the body's middle, shape (y, x)."""
    _, rows, columns = volume.grid.shape
    _, dy, dx = volume.grid.spacing_mm
    y, x = np.meshgrid(np.arange(rows) * dy, np.arange(columns) * dx, indexing="ij")
    local = found.frame.local(np.stack([np.ones_like(y), y, x], axis=-1))
    return local[..., 1], local[..., 2]


def masks_of(volume: CtVolume, found: SliceOutline, rules: RegionSettings) -> tuple[Mask, Mask]:
    """Body and cancellous region, shape (1, y, x)."""
    u, v = local_mm(volume, found)
    body: Mask = np.hypot(u, v) <= found.radius(np.arctan2(v, u))
    spacing = np.asarray(volume.grid.spacing_mm[1:])
    # A pixel reaches half its size beyond its centre, as in `segmentation.vertebra`.
    reach = np.maximum(rules.erosion_mm + spacing / 2, rules.min_erosion_voxels * spacing)
    deep = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing / reach)[1:-1, 1:-1] >= 1.0
    tangent = np.tan(np.deg2rad(rules.wedge_half_angle_deg))
    region: Mask = deep & ~((v < 0) & (np.abs(u) < -v * tangent))
    return body[None], region[None]


def hu_around(volume: CtVolume, found: SliceOutline, u: Profile, v: Profile) -> Profile:
    """HU at places to the left and front of the body's middle, in mm; in the shape of both."""
    return sample(_thickened(volume), found.frame.points(0.0, u, v))


def hu_across(volume: CtVolume, found: SliceOutline, angle: Profile, beyond_mm: Profile) -> Profile:
    """HU on rays from the body's middle, from the outline outward: (angles, distances)."""
    radius = found.radius(angle)[:, None] + beyond_mm
    return hu_around(volume, found, radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None])
