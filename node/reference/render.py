"""Rendering of solids as CT: partial volume, the scanner's blur, texture, noise; faults and signs of age.

Faults are metal with streaks, lesions, motion and photon starvation; signs of age are spurs and chalk. Their
shapes are typical of what such bones and vessels show on CT, sizes are chosen here; they belong to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, cos, radians, sin
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from node.reference.attenuation import HA, cancellous_reading, hu_per_mg
from node.reference.shapes import (
    INTACT,
    Axes,
    Axis,
    Ellipsoid,
    Point,
    Shrunk,
    Solid,
    VertebralSolid,
    distance_on,
    part_of,
    point_on,
    tube,
)
from node.reference.spec import LESION_HU, LUMBAR, Faults, Lesion, LesionKind, Lumbar, StudySpec
from node.reference.spine import (
    Vertebra,
    disc_below,
    eleventh_ribs,
    iliac_wings,
    posterior_elements,
    sacral_wings,
    sacralised_processes,
    twelfth_ribs,
)
from node.reference.surroundings import (
    AIR_HU,
    SKIN_BACK_MM,
    Painted,
    canal,
    organs,
    spine_phantom,
    table_and_phantom,
    trunk,
    z_range_mm,
)

METAL_HU = 8000.0  # titanium; what a scanner writes ends at 3071
_SCREW_RADIUS_MM, _ROD_RADIUS_MM = 3.0, 2.75
_RAYS = 11  # of the streaks around one piece of metal
_STREAK_HU = 260.0  # beside the metal
_STREAK_REACH_MM = 22.0  # within which it falls to a third
_BEAM_HARDENING_HU = 220.0  # between the two screws of a slice
_BEAM_WIDTH_MM = 4.0

_STREAK_MM = 25.0  # sigma of a starved slice's streaks from side to side
_STREAK_DEPTH_MM = 60.0  # about the middle of the body, where they are strongest

CHALK_HU = 700.0  # dense plaque; the scanner's blur takes a third of it
_SPUR_RADIUS_MM = 3.0
# Degrees from straight ahead, to the left. Canal and joints lie behind; the aorta keeps the left front free.
_SPURS_AT = (-100.0, -75.0, -50.0, -25.0, 0.0, 60.0, 85.0, 105.0)
_BRIDGED = 2  # of them are joined across the disc
_PLAQUES = 14
_AORTA_LEFT_MM, _AORTA_AHEAD_MM, _AORTA_RADIUS_MM = 11.0, 12.5, 9.5  # as surroundings.py draws it

Voxel = TypeVar("Voxel", np.float32, np.uint8)


def metal(faults: Faults, spine: dict[str, Vertebra]) -> list[Solid]:
    """Pedicle screws and the rods that join their heads.

    Returns
    -------
    For each implant and side a screw in each level, and one rod.
    """
    solids: list[Solid] = []
    for implant in faults.implants:
        for side in (-1.0, 1.0):
            heads = []
            for name in implant.levels:
                vertebra = spine[name]
                wall = vertebra.body.depth / 2
                head = vertebra.at(side * 17, wall + 27, 5)
                tip = vertebra.at(side * 10, -wall * 0.35, 2)
                solids.append(tube([head, tip], _SCREW_RADIUS_MM))
                heads += [vertebra.at(side * 17, wall + 27, 17), vertebra.at(side * 17, wall + 27, -9)]
            solids.append(tube(heads, _ROD_RADIUS_MM))
    return solids


def lesions(faults: Faults, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """A lobed blob in the front half of each body that a lesion names."""
    for lesion in faults.lesions:
        for solid in _lobes(lesion, spine[lesion.level]):
            yield Painted(solid=solid, hu=LESION_HU[lesion.kind])


def _lobes(lesion: Lesion, vertebra: Vertebra) -> Iterator[Solid]:
    r = lesion.radius_mm
    flat = min(r, vertebra.body.height / 2 - 4.0)  # the endplates stay
    yield Ellipsoid(centre=vertebra.at(6, -2, 0), radii=np.array([r, r * 0.8, flat]))
    if lesion.kind is LesionKind.CEMENT:
        yield Ellipsoid(centre=vertebra.at(6 - r, -3, -2), radii=np.array([r, r * 0.6, flat * 0.6]))


def add_streaks(hu: npt.NDArray[np.float32], solids: Sequence[Solid], axes_mm: Axes, *, seed: int) -> None:
    """Bright and dark rays around the metal of each slice, and a dark band between two pieces.

    A caricature of beam hardening and photon starvation: position and size are right, the physics is not.

    Parameters
    ----------
    hu : shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    seed : of the rays' phases.
    """
    z_mm, y_mm, x_mm = axes_mm
    y, x = np.meshgrid(y_mm, x_mm, indexing="ij")
    for k, z in enumerate(z_mm):
        middles = [
            middle for solid in solids if (middle := _middle_at(solid, x_mm, y_mm, float(z))) is not None
        ]
        if not middles:
            continue
        phase = np.random.default_rng([seed, 17, k]).uniform(0, 2 * np.pi, len(middles))
        streaks = np.zeros(x.shape)
        for (mx, my), turn in zip(middles, phase, strict=True):
            dx, dy = x - mx, y - my
            distance = np.hypot(dx, dy)
            fall = np.exp(-np.maximum(distance - _SCREW_RADIUS_MM, 0) / _STREAK_REACH_MM)
            streaks += _STREAK_HU * fall * np.cos(_RAYS * np.arctan2(dy, dx) + turn)
        left, right = min(middles), max(middles)
        if right[0] - left[0] > 2 * _SCREW_RADIUS_MM:
            between = (x > left[0]) & (x < right[0])
            line = left[1] + (right[1] - left[1]) * (x - left[0]) / (right[0] - left[0])
            streaks -= _BEAM_HARDENING_HU * between * np.exp(-0.5 * ((y - line) / _BEAM_WIDTH_MM) ** 2)
        hu[k] += streaks.astype(np.float32)


def _middle_at(solid: Solid, x_mm: Axis, y_mm: Axis, z_mm: float) -> tuple[float, float] | None:
    """The middle (x, y) of a solid in one slice; None where it does not reach the slice."""
    if not solid.box.low[2] <= z_mm <= solid.box.high[2]:
        return None
    inside = distance_on(solid, (np.array([z_mm]), y_mm, x_mm))[0] < 0
    if not inside.any():
        return None
    rows, columns = np.nonzero(inside)
    return float(x_mm[columns].mean()), float(y_mm[rows].mean())


def displace(
    voxels: npt.NDArray[Voxel],
    faults: Faults,
    spine: dict[str, Vertebra],
    axes_mm: Axes,
    *,
    outside: float,
) -> None:
    """Move the patient, but not table and phantom, in the slices above a jerk.

    Parameters
    ----------
    voxels : an image or a mask, shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    outside : the value that is left where the patient was.
    """
    jerk = faults.jerk
    if jerk is None:
        return
    z_mm, y_mm, x_mm = axes_mm
    above = z_mm > spine[jerk.level].body.centre[2]
    patient = y_mm < SKIN_BACK_MM + 1.0
    there = voxels[np.ix_(above, patient)]
    ahead = round(jerk.forward_mm / float(y_mm[1] - y_mm[0]))
    left = round(jerk.left_mm / float(x_mm[1] - x_mm[0]))
    moved = np.roll(there, (-ahead, left), axis=(1, 2))
    if ahead:
        moved[:, -ahead:] = outside
    if left:
        moved[:, :, slice(None, left) if left > 0 else slice(left, None)] = outside
    voxels[np.ix_(above, patient)] = moved


def starve(
    hu: npt.NDArray[np.float32],
    faults: Faults,
    spine: dict[str, Vertebra],
    axes_mm: Axes,
    *,
    seed: int,
) -> None:
    """Streaks from side to side at the height of each starved level, strongest in the middle of the body.

    Parameters
    ----------
    hu : shape (z, y, x); changed in place.
    axes_mm : positions of its voxels along z, y and x.
    seed : of the streaks.
    """
    z_mm, y_mm, x_mm = axes_mm
    for fault in faults.starved:
        body = spine[fault.level].body
        for k in np.flatnonzero(np.abs(z_mm - body.centre[2]) <= body.height / 2):
            grain = np.random.default_rng([seed, 19, int(k)]).standard_normal(hu.shape[1:])
            grain = gaussian_filter1d(grain, _STREAK_MM / float(x_mm[1] - x_mm[0]), axis=1, mode="wrap")
            grain *= np.exp(-0.5 * ((y_mm - body.centre[1]) / _STREAK_DEPTH_MM) ** 2)[:, None] / grain.std()
            hu[k] += (fault.streak_hu * grain).astype(np.float32)


def spurs(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Solid]:
    """Osteophytes at both rims of every disc from L1 to S1; two of them at each disc bridge it.

    Source: no measurement; their reach is the specification's `spurs_mm`.
    """
    reach_mm = spec.faults.spurs_mm
    if not reach_mm:
        return
    rng = np.random.default_rng([spec.seed, 17])
    for upper, lower in pairwise((*LUMBAR, "S1")):
        bridged = set(rng.choice(len(_SPURS_AT), _BRIDGED, replace=False).tolist())
        for place, degrees in enumerate(_SPURS_AT):
            length_mm = reach_mm * rng.uniform(0.5, 1.0)
            above = _spur(spine[upper].body, -1.0, degrees, length_mm)
            below = _spur(spine[lower].body, 1.0, degrees, length_mm)
            if place in bridged:
                yield tube([*above, *reversed(below)], _SPUR_RADIUS_MM)
            else:
                yield tube(above, _SPUR_RADIUS_MM)
                if lower != "S1":
                    yield tube(below, _SPUR_RADIUS_MM)


def plaques(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Chalk in the aortic wall from L1 to L4, on every side of it."""
    if not spec.faults.calcified_aorta:
        return
    rng = np.random.default_rng([spec.seed, 19])
    path = [
        spine[name].at(_AORTA_LEFT_MM, -spine[name].body.depth / 2 - _AORTA_AHEAD_MM, 0)
        for name in LUMBAR[:4]
    ]
    for _ in range(_PLAQUES):
        share = rng.uniform(0, len(path) - 1.2)
        turn, thick_mm = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.8)
        wall = _AORTA_RADIUS_MM - thick_mm / 2
        around = [turn, turn + rng.uniform(0.3, 0.9)]
        piece = [
            point_on(path, min(share + along, len(path) - 1.001))
            + np.array([wall * cos(angle), wall * sin(angle), 0])
            for angle, along in zip(around, (0.0, rng.uniform(0.1, 0.5)), strict=True)
        ]
        yield Painted(solid=tube(piece, thick_mm), hu=CHALK_HU)


def _spur(body: VertebralSolid, end: float, degrees: float, length_mm: float) -> list[Point]:
    """The path of a spur: from inside the rim outwards, and a little towards the disc.

    `end` is 1 at the upper endplate, -1 at the lower one.
    """
    angle = radians(degrees)
    rim = np.array([sin(angle) * body.width / 2, -cos(angle) * body.depth / 2])
    outwards = rim / np.linalg.norm(rim)
    height = end * (body.height / 2 - _SPUR_RADIUS_MM)
    return [
        body.centre + np.array([*flat, up]) @ body.axes
        for flat, up in (
            (rim - 4.0 * outwards, height),
            (rim + 0.5 * length_mm * outwards, height),
            (rim + (length_mm - _SPUR_RADIUS_MM) * outwards, height + end * 3.0),
        )
    ]


Volume = npt.NDArray[np.float32]

CORTEX_MG_CM3 = 330.0  # mineral of the thin shells, smeared by their porosity
POSTERIOR_SHELL_MG_CM3 = 430.0
POSTERIOR_MG_CM3 = 200.0
SACRUM_MG_CM3 = 110.0  # of the sacral bodies
ALA_MG_CM3 = 75.0  # of the wings of sacrum and ilium, which hold more fat
# The image.

DISC_HU = 78.0
BLUR_MM = 0.6  # sigma of the in-plane blur of a soft kernel
_GRAIN_MM, _LOCAL_MM = 0.5, 1.5  # sigma of the trabecular pattern, and of the mean it is freed from
SUBSLICE_MM = 1.2  # slices thicker than this are averaged from several
_MARGIN_MM = 12.0  # of image above and below the view: it shows that a disc follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """The CT grid: z ascends, y runs backwards, x to the left.

    Attributes
    ----------
    slices : number of slices.
    first_z_mm : centre of the lowest slice.
    """

    spec: StudySpec
    slices: int
    first_z_mm: float

    @property
    def axes_mm(self) -> Axes:
        """Positions of the voxels' centres along z, y and x."""
        return self.z_mm, self.y_mm, self.x_mm

    @property
    def x_mm(self) -> Axis:
        """Centres of the columns; their middle is 0."""
        return self._centred(self.spec.pixel_spacing_mm[1])

    @property
    def y_mm(self) -> Axis:
        """Centres of the rows; their middle is 0."""
        return self._centred(self.spec.pixel_spacing_mm[0])

    @property
    def z_mm(self) -> Axis:
        """Centres of the slices, ascending."""
        return np.float64(self.first_z_mm) + np.arange(self.slices) * np.float64(self.spec.slice_spacing_mm)

    def _centred(self, spacing_mm: float) -> Axis:
        return (np.arange(self.spec.matrix) - (self.spec.matrix - 1) / 2) * np.float64(spacing_mm)


def raster_of(spec: StudySpec, spine: dict[str, Vertebra]) -> Raster:
    """The grid that shows the view's vertebrae, or the spine phantom's, whole and with a margin.

    Returns
    -------
    Its ends are cut by the fault `cut_mm`.
    """
    if spec.european_spine_phantom:
        low, high = z_range_mm()
        return Raster(spec=spec, slices=ceil((high - low) / spec.slice_spacing_mm) + 1, first_z_mm=low)
    top, bottom = spine[spec.view[0]].body, spine[spec.view[1]].body
    high = top.centre[2] + top.height / 2 * top.axes[2][2] + abs(top.axes[1][2]) * top.depth / 2 + _MARGIN_MM
    low = bottom.centre[2] - bottom.height / 2 * bottom.axes[2][2] - abs(bottom.axes[1][2]) * bottom.depth / 2
    low -= _MARGIN_MM
    high, low = high - spec.faults.cut_mm[0], low + spec.faults.cut_mm[1]
    slices = max(1, ceil((high - low) / spec.slice_spacing_mm) + 1)
    return Raster(spec=spec, slices=slices, first_z_mm=float(low))


def render(spec: StudySpec, spine: dict[str, Vertebra], raster: Raster) -> Volume:
    """The study as CT.

    Parameters
    ----------
    spine : of `build_spine`.
    raster : of `raster_of`.

    Returns
    -------
    HU, float32, shape (z, y, x), clipped to -1024 and 3071.
    """
    painted = list(scene(spec, spine))
    offsets_mm = subslice_offsets_mm(spec)
    hu = np.zeros((raster.slices, spec.matrix, spec.matrix), np.float32)
    for offset_mm in offsets_mm:
        hu += _paint(painted, raster, raster.z_mm + offset_mm, spec.slice_thickness_mm / len(offsets_mm))
    hu /= len(offsets_mm)
    blur_in_plane(hu, spec, BLUR_MM, mode="nearest")
    if not spec.european_spine_phantom:
        _add_texture(hu, spec, spine, raster)
    add_streaks(hu, metal(spec.faults, spine), raster.axes_mm, seed=spec.seed)
    displace(hu, spec.faults, spine, raster.axes_mm, outside=AIR_HU)
    add_noise(hu, spec)
    starve(hu, spec.faults, spine, raster.axes_mm, seed=spec.seed)
    return np.clip(hu, -1024, 3071)


def subslice_offsets_mm(spec: StudySpec) -> Axis:
    """Offsets of thin layers from the middle of a slice, along its normal; a slice is their mean.

    Returns
    -------
    Shape (layers,); no layer is thicker than `SUBSLICE_MM`.
    """
    count = max(1, ceil(spec.slice_thickness_mm / SUBSLICE_MM))
    offsets_mm: Axis = (np.arange(count) - (count - 1) / 2) * spec.slice_thickness_mm / count
    return offsets_mm


def blur_in_plane(image: Volume, spec: StudySpec, sigma_mm: float, *, mode: str) -> None:
    """Blur each slice of an image by a Gaussian.

    Parameters
    ----------
    image : shape (z, y, x); changed in place.
    mode : at the borders, as SciPy names it.
    """
    for axis, spacing_mm in enumerate(spec.pixel_spacing_mm, start=1):
        gaussian_filter1d(image, sigma_mm / spacing_mm, axis=axis, output=image, mode=mode)


def scene(spec: StudySpec, spine: dict[str, Vertebra]) -> Iterator[Painted]:
    """Everything in the study with its HU, in painting order: later solids cover earlier ones."""
    per_mg = hu_per_mg(HA, spec.kev)
    yield from table_and_phantom(spec)
    if spec.european_spine_phantom:
        yield from spine_phantom(spec)
        return
    yield from trunk(spec)
    yield from organs(spec, spine)
    yield from plaques(spec, spine)
    pelvis = [*sacral_wings(spine), *iliac_wings(spine)]
    if spec.faults.lumbar is Lumbar.SACRALISED:
        pelvis += sacralised_processes(spine["L5"])
    with_disc = spec.levels[: spec.levels.index("S1")]
    elements = [solid for name in with_disc for solid in posterior_elements(spine[name])]
    elements += [*eleventh_ribs(spine["T11"]), *twelfth_ribs(spine["T12"]), *spurs(spec, spine)]
    # All shells before all fillings: where two pieces of one bone meet there is no wall between them.
    yield from (Painted(solid=solid, hu=CORTEX_MG_CM3 * per_mg) for solid in pelvis)
    yield from (Painted(solid=Shrunk(solid=s, by_mm=1.6), hu=ALA_MG_CM3 * per_mg) for s in pelvis)
    yield from (Painted(solid=disc_below(spine, name), hu=DISC_HU) for name in with_disc)
    for fracture in spec.faults.fractures:  # the discs follow the sunken endplates
        body = spine[fracture.level].body
        yield Painted(solid=replace(body, sunk_top=INTACT, sunk_bottom=INTACT), hu=DISC_HU)
    yield from (Painted(solid=solid, hu=POSTERIOR_SHELL_MG_CM3 * per_mg) for solid in elements)
    yield from (Painted(solid=Shrunk(solid=s, by_mm=1.6), hu=POSTERIOR_MG_CM3 * per_mg) for s in elements)
    yield from canal(spine)
    for name in spec.levels:
        yield Painted(solid=spine[name].body, hu=CORTEX_MG_CM3 * per_mg)
        density = SACRUM_MG_CM3 if name.startswith("S") else spec.bmd_of(name)
        core = cancellous_reading(density, equivalent="HA", fat_fraction=spec.fat_fraction, kev=spec.kev)
        yield Painted(solid=spine[name].core, hu=core.hu)
    yield from lesions(spec.faults, spine)
    yield from (Painted(solid=solid, hu=METAL_HU) for solid in metal(spec.faults, spine))


def _paint(solids: Iterable[Painted], raster: Raster, z_mm: Axis, thickness_mm: float) -> Volume:
    """One layer of each slice. An edge is as soft as a pixel is wide."""
    axes_mm = (z_mm, raster.y_mm, raster.x_mm)
    soft = np.float32(max(*raster.spec.pixel_spacing_mm, thickness_mm * 0.7))
    hu = np.full([len(axis) for axis in axes_mm], AIR_HU, np.float32)
    for painted in solids:
        cut = part_of(painted.solid.box, axes_mm, soft)
        part = hu[cut]
        if part.size == 0:
            continue
        cover = np.clip(np.float32(0.5) - distance_on(painted.solid, axes_mm, cut) / soft, 0, 1)
        part += cover * (np.float32(painted.hu) - part)
    return hu


def _add_texture(hu: Volume, spec: StudySpec, spine: dict[str, Vertebra], raster: Raster) -> None:
    """A trabecular pattern in every body whose mean over the cancellous bone is zero."""
    if spec.texture_hu == 0:
        return
    spacing = (spec.slice_spacing_mm, *spec.pixel_spacing_mm)
    for name in spec.levels:
        core = spine[name].core
        cut = part_of(core.box, raster.axes_mm)
        if hu[cut].size == 0:
            continue
        weight = np.clip(-distance_on(core, raster.axes_mm, cut) / np.float32(1.5), 0, 1)
        total = float(weight.sum())
        if total == 0:
            continue
        grain = np.random.default_rng([spec.seed, 11, *name.encode()]).standard_normal(weight.shape)
        pattern = gaussian_filter(grain, [_GRAIN_MM / s for s in spacing])
        # Without its local mean the pattern averages to zero over any region of some millimetres.
        wide = [_LOCAL_MM / s for s in spacing]
        pattern -= gaussian_filter(pattern * weight, wide) / np.maximum(gaussian_filter(weight, wide), 1e-3)
        pattern -= float((pattern * weight).sum()) / total
        pattern *= spec.texture_hu / float(np.sqrt((pattern**2 * weight).sum() / total))
        hu[cut] += (pattern * weight).astype(np.float32)


def add_noise(hu: Volume, spec: StudySpec) -> None:
    """Add noise that is correlated between neighbouring pixels, as a soft kernel leaves it.

    Parameters
    ----------
    hu : shape (z, y, x); changed in place. Its noise has the SD `spec.noise_hu`.
    """
    if spec.noise_hu == 0:
        return
    rng = np.random.default_rng([spec.seed, 13])
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    blur_in_plane(grain, spec, 0.5, mode="wrap")
    hu += grain * np.float32(spec.noise_hu / float(grain.std()))
