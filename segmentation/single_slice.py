"""The vertebral body in one thick slice through the middle of a vertebra: single-slice QCT.

One slice shows neither neighbours nor endplates: the level remains unnamed, and the slice itself must show
that it is the middle of a lumbar body. `find_outline` finds canal and body, `slice_observations` checks them.
A check that fails gives an observation and no region: a slice through a disc, an endplate, the sacrum or the
chest is never measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, FloatArray, Mask, Points, Profile, bone_contrast, canonical
from segmentation.engines.geometric.body import WALL_ANGLES, outline_centroid, trace_outline
from segmentation.engines.geometric.canal import enclosure_map
from segmentation.engines.geometric.frame import BodyFrame, body_frame, coarsen, sample
from segmentation.gates.bodies import metal_observation, metal_pieces
from segmentation.regions.surface import largest_piece
from segmentation.settings import CanalSettings, GateSettings, RegionSettings, SliceSettings
from segmentation.vertebrae import EngineInfo, Observation

# The outline of a vertebral body in front of the canal that bone surrounds: both are found by the geometric
# engine's functions, whether or not the slice lies mid-body.
WORKING_STEP_MM = 2.0
CANDIDATES = 5  # places in a slice that are tried as the canal
APART_MM = 16.0  # between two such places: a canal's width
CANAL_TO_BODY_MM = 27.0  # from the canal's middle to the body's, to start with
CENTRED_MM = 0.5  # the outline is traced again while its centroid moves further
_TURN = 2 * np.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOutline:
    """An outline about a body, in the canonical slice.

    Attributes
    ----------
    radius_mm : (ANGLES,), angles from left over front.
    supported : share of the outline with an edge against soft tissue.
    canal : (3,), local (h, u, v) of the canal's middle.
    """

    frame: BodyFrame
    radius_mm: Profile
    supported: float
    canal: Points

    def radius(self, angle: Profile) -> Profile:
        r: Profile = np.interp(
            np.mod(angle, _TURN), np.append(WALL_ANGLES, _TURN), np.append(self.radius_mm, self.radius_mm[0])
        )
        return r

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Width and depth in mm."""
        return (
            float(np.ptp(self.radius_mm * np.cos(WALL_ANGLES))),
            float(np.ptp(self.radius_mm * np.sin(WALL_ANGLES))),
        )


def find_outline(volume: CtVolume, rules: SliceSettings, canal: CanalSettings) -> SliceOutline | None:
    """The most likely outline of a lumbar body.

    Parameters
    ----------
    volume : HU, a transverse slice in the canonical frame, (1, y, x).

    Returns
    -------
    None where no place that bone surrounds has an outline of a lumbar body's shape in front of it.
    """
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
    frame = body_frame(canal_mm + CANAL_TO_BODY_MM * front, along, front)
    wall = trace_outline(thick, frame, heights, canal_line)
    for _ in range(3):
        u, v = outline_centroid(wall.radius_mm[1])
        if np.hypot(u, v) < CENTRED_MM:
            break
        frame = frame.moved(0.0, u, v)
        wall = trace_outline(thick, frame, heights, canal_line)
    return SliceOutline(
        frame=frame, radius_mm=wall.radius_mm[1], supported=wall.supported, canal=frame.local(canal_mm)
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
    """Position of each pixel left of and in front of the body's middle, in mm; each (y, x)."""
    _, rows, columns = volume.grid.shape
    _, dy, dx = volume.grid.spacing_mm
    y, x = np.meshgrid(np.arange(rows) * dy, np.arange(columns) * dx, indexing="ij")
    local = found.frame.local(np.stack([np.ones_like(y), y, x], axis=-1))
    return local[..., 1], local[..., 2]


def slice_masks(volume: CtVolume, found: SliceOutline, rules: RegionSettings) -> tuple[Mask, Mask]:
    """Body and cancellous region of a slice.

    Returns
    -------
    Two masks (bool), (1, y, x).
    """
    u, v = local_mm(volume, found)
    body: Mask = np.hypot(u, v) <= found.radius(np.arctan2(v, u))
    spacing = np.asarray(volume.grid.spacing_mm[1:])
    # A pixel reaches half its size beyond its centre, as in `segmentation.regions.cancellous`.
    reach = np.maximum(rules.erosion_mm + spacing / 2, rules.min_erosion_voxels * spacing)
    deep = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing / reach)[1:-1, 1:-1] >= 1.0
    tangent = np.tan(np.deg2rad(rules.wedge_half_angle_deg))
    region: Mask = deep & ~((v < 0) & (np.abs(u) < -v * tangent))
    return body[None], region[None]


def hu_around(volume: CtVolume, found: SliceOutline, u: Profile, v: Profile) -> Profile:
    """HU at places `u` mm left of and `v` mm in front of the body's middle; all of one shape."""
    return sample(_thickened(volume), found.frame.points(0.0, u, v))


def hu_across(volume: CtVolume, found: SliceOutline, angle: Profile, beyond_mm: Profile) -> Profile:
    """HU on rays from the body's middle.

    Parameters
    ----------
    angle : (angles,), radians from left over front.
    beyond_mm : (distances,), from the outline, outward positive.

    Returns
    -------
    (angles, distances).
    """
    radius = found.radius(angle)[:, None] + beyond_mm
    return hu_around(volume, found, radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None])


# The gates. Sectors around the canal's middle, in degrees above straight left and right (front is +90): bone
# in them closes its sides (pedicles) and its back (laminae, spinous process). The body lies further in front.
_SIDES_DEG = (-30.0, -15.0, 0.0, 15.0)
_BACK_DEG = (-90.0, -75.0, -60.0)
_SECTOR_DEG = 15.0
_RAY_MM = np.arange(4.0, 24.1, 0.75)  # from the canal's middle


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLimits:
    """All limits for one slice.

    Attributes
    ----------
    contrast : contrast of bone, relative to 80 kV.
    """

    slices: SliceSettings
    quality: GateSettings
    contrast: float


def slice_observations(
    volume: CtVolume, found: SliceOutline, body: Mask, region: Mask, limits: SliceLimits
) -> Iterator[Observation]:
    """The most evident reason against the slice, without the slice's name; empty where there is none.

    Parameters
    ----------
    volume : HU, the canonical slice, (1, y, x).
    body, region : as `slice_masks` gives them.
    """
    rules = limits.slices
    pixel_mm2 = volume.grid.spacing_mm[1] * volume.grid.spacing_mm[2]
    if region.sum() * pixel_mm2 < rules.region_mm2 or _touches_border(body[0]):
        yield Observation(code="slice_body_not_found")
        return
    metal = metal_pieces(volume.hu[0], body[0], volume.grid.spacing_mm[1:], volume.kvp, limits.quality)
    if metal.sure_voxels * pixel_mm2 >= rules.metal_min_mm2:
        yield metal_observation(None, metal.voxels * volume.grid.voxel_volume_mm3, metal)
        return
    if (
        _beside_bone(volume, found, limits) > rules.beside_bone
        or _lung_cm2(volume, found, rules) > rules.lung_cm2
    ):
        yield Observation(code="slice_not_lumbar")
        return
    interior = volume.hu[region]
    spread = float(interior.std(ddof=1))
    if spread > rules.region_sd_hu or _cluster_mm2(volume, region[0], rules) > rules.cluster_mm2:
        yield Observation(code="slice_uneven", values={"sd_hu": round(spread)})
        return
    yield from _mid_body_observations(volume, found, float(interior.mean()), limits)


def _mid_body_observations(
    volume: CtVolume, found: SliceOutline, inside_hu: float, limits: SliceLimits
) -> Iterator[Observation]:
    """A disc by its rim, an endplate by the arch: in faint bone an endplate's HU are those of denser bone."""
    rules, contrast = limits.slices, limits.contrast
    rim = _rim_hu(volume, found) - inside_hu  # an endplate in part of the interior counts
    everywhere_hu = rules.rim_above_hu * contrast
    median, needed = float(np.median(rim)), _needed_rim_hu(inside_hu, limits)
    if median < needed or float((rim > everywhere_hu).mean()) < rules.rim_everywhere:
        values = {"rim_hu": round(median), "needed_hu": round(max(needed, everywhere_hu))}
        yield Observation(code="slice_not_mid_body", values=values)
        return
    ring = _ring_hu(volume, found, rules)
    if ring < rules.ring_hu * contrast:
        values = {"ring_hu": round(ring), "needed_hu": round(rules.ring_hu * contrast)}
        yield Observation(code="slice_ring_open", values=values)


def _ring_hu(volume: CtVolume, found: SliceOutline, rules: SliceSettings) -> float:
    """How far bone closes the canal, above soft tissue: at its sides and behind alike.

    The geometric mean of the weakest sector at the sides and the weakest behind: half a pedicle is made up
    for by a whole lamina, an open side by nothing.
    """
    angle = np.deg2rad(np.arange(0.0, 360.0, 5.0))
    _, left, front = found.canal
    densest = hu_around(
        volume, found, left + _RAY_MM * np.cos(angle)[:, None], front + _RAY_MM * np.sin(angle)[:, None]
    ).max(axis=1)
    # Degrees above straight left, and above straight right: from -90 (back) to 90 (front) on its side.
    height = np.rad2deg(np.arcsin(np.clip(np.sin(angle), -1.0, 1.0)))
    sides = (np.cos(angle) > -1e-9, np.cos(angle) < 1e-9)

    def weakest(sectors: tuple[float, ...]) -> float:
        medians = [
            float(np.median(densest[side & (height > low - 1e-6) & (height < low + _SECTOR_DEG - 1e-6)]))
            for low in sectors
            for side in sides
        ]
        return max(0.0, min(medians) - rules.soft_hu)

    return float(np.sqrt(weakest(_SIDES_DEG) * weakest(_BACK_DEG)))


def _touches_border(mask: npt.NDArray[np.bool_]) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _rim_hu(volume: CtVolume, found: SliceOutline) -> Profile:
    """The cortex at each angle: the densest place near the outline."""
    peak: Profile = hu_across(volume, found, WALL_ANGLES, np.arange(-4.0, 3.01, 0.5)).max(axis=1)
    return peak


def _needed_rim_hu(interior_hu: float, limits: SliceLimits) -> float:
    """How far the cortex of a mid-body slice rises above such an interior."""
    rules = limits.slices
    faint_hu, dense_hu = (hu * limits.contrast for hu in rules.dense_interior_hu)
    share = float(np.interp(interior_hu, (faint_hu, dense_hu), (rules.rim, rules.rim_of_dense)))
    cortex_hu = rules.bone_above_soft_hu(rules.cortex_hu, limits.contrast)
    return max(share * interior_hu, cortex_hu - interior_hu)


def _beside_bone(volume: CtVolume, found: SliceOutline, limits: SliceLimits) -> float:
    """How much of what lies to the left and right of the body is bone."""
    aside = np.deg2rad(np.arange(-30.0, 31.0, 5.0))
    hu = hu_across(volume, found, np.concatenate([aside, np.pi + aside]), np.arange(4.0, 14.1))
    bone_hu = limits.slices.bone_above_soft_hu(limits.slices.bone_hu, limits.contrast)
    return float((hu > bone_hu).mean())


def _lung_cm2(volume: CtVolume, found: SliceOutline, rules: SliceSettings) -> float:
    """Lung behind the body's front. What lies there and holds gas is lung, or a little of the colon."""
    hu = volume.hu[0]
    _, dy, dx = volume.grid.spacing_mm
    step = (max(1, round(3.0 / dy)), max(1, round(3.0 / dx)))
    trunk = largest_piece(ndimage.binary_opening(hu > -300.0, np.ones(step)))
    low, high = rules.lung_hu
    gas = ndimage.binary_fill_holes(trunk) & (hu > low) & (hu < high)
    _, front = local_mm(volume, found)
    lung = ndimage.binary_opening(gas & (front < found.extent_mm[1] / 2), np.ones(step))
    return float(lung.sum()) * dy * dx / 100.0


def _cluster_mm2(volume: CtVolume, region: npt.NDArray[np.bool_], rules: SliceSettings) -> float:
    """The largest part of the region that is far denser or fainter than the rest."""
    spacing = volume.grid.spacing_mm[1:]
    smooth: FloatArray = ndimage.gaussian_filter(volume.hu[0], [2.0 / size for size in spacing])
    off = region & (np.abs(smooth - np.median(volume.hu[0][region])) > rules.cluster_hu)
    return float(largest_piece(off).sum()) * spacing[0] * spacing[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceBody:
    """What one slice shows. With any observation there is no region.

    Attributes
    ----------
    body : shape of the volume; None where no body was found.
    region : cancellous bone in which density is read; None with any observation.
    """

    body: Mask | None
    region: Mask | None
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFinder:
    """Finds the lumbar body in single slices, with a site's limits."""

    slices: SliceSettings = field(default_factory=SliceSettings)
    regions: RegionSettings = field(default_factory=RegionSettings)
    quality: GateSettings = field(default_factory=GateSettings)
    canal: CanalSettings = field(default_factory=CanalSettings)

    @property
    def info(self) -> EngineInfo:
        """The entry of reports in place of an engine's."""
        return EngineInfo(
            name="single-slice",
            version="2",
            model_free=True,
            parameters={
                "ring_hu": self.slices.ring_hu,
                "rim": self.slices.rim,
                "erosion_mm": self.regions.erosion_mm,
            },
        )

    def find(self, volume: CtVolume, name: str, kvp: float | None) -> SliceBody:
        """The lumbar body in a volume of one slice.

        Parameters
        ----------
        volume : HU; one slice in any axis order and sense, its normal within 45 degrees of the body's axis.
        name : of the slice, for the observations: "slice 1".
        kvp : tube voltage, by which the contrast of bone is judged; None where it is not known.

        Returns
        -------
        SliceBody
            Observations: `slice_body_not_found`, `slice_not_lumbar`, `slice_not_mid_body`, `slice_ring_open`,
            `slice_uneven`, `metal_near_body`. Where several places look like a canal, those of the likeliest.

        Raises
        ------
        ValueError
            If the volume has more than one slice.
        """
        if 1 not in volume.grid.shape:
            raise ValueError("the volume has more than one slice")
        turned, turn = canonical(volume)
        # A slice that is not transverse holds no closed outline.
        found = find_outline(turned, self.slices, self.canal) if turned.grid.shape[0] == 1 else None
        if found is None:
            nothing = Observation(code="slice_body_not_found", level=name)
            return SliceBody(body=None, region=None, observations=(nothing,))
        body, region = slice_masks(turned, found, self.regions)
        limits = SliceLimits(slices=self.slices, quality=self.quality, contrast=bone_contrast(kvp))
        observations = tuple(
            replace(one, level=name) for one in slice_observations(turned, found, body, region, limits)
        )
        return SliceBody(
            body=turn.backward(body),
            region=None if observations else turn.backward(region),
            observations=observations,
        )
