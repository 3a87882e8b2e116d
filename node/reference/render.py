"""Rendering of solids as CT: partial volume, the scanner's blur, trabecular texture and noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from node.reference.attenuation import HA, cancellous_reading, hu_per_mg
from node.reference.damage import METAL_HU, add_streaks, displace, lesions, metal, plaques, spurs, starve
from node.reference.shapes import INTACT, Axes, Axis, Shrunk, distance_on, part_of
from node.reference.soft_tissue import canal, organs, trunk
from node.reference.spec import Lumbar, StudySpec
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
from node.reference.surroundings import AIR_HU, Painted, spine_phantom, table_and_phantom, z_range_mm

Volume = npt.NDArray[np.float32]

CORTEX_MG_CM3 = 330.0  # mineral of the thin shells, smeared by their porosity
POSTERIOR_SHELL_MG_CM3 = 430.0
POSTERIOR_MG_CM3 = 200.0
SACRUM_MG_CM3 = 110.0  # of the sacral bodies
ALA_MG_CM3 = 75.0  # of the wings of sacrum and ilium, which hold more fat
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
