"""Internal calibration: HU to density by the patient's own tissues. Screening only.

The photons' effective energy is the one at which HU of air, fat, blood and muscle lie best on a straight line
against what these tissues' linear attenuation predicts (highest R squared, as Michalski et al. 2020 search
it). The line then corrects the scanner's HU, and K2HPO4 in water at that energy turns HU into density::

    HU measured = scale * HU expected(keV) + offset
    BMD = (HU - offset) / (scale * HU per mg of K2HPO4(keV))

That is a line with zero at water, like a liquid phantom's. It is *not* Michalski's mapping (mass attenuation,
then K2HPO4 in triglyceride), which reads water as some 30 mg/cm3; and whose energy, found with cortical bone,
lies near 97 keV at every tube voltage, so that one HU would count as much at 80 kV as at 140 kV.

Source of the search: A. S. Michalski et al., CT-based internal density calibration for opportunistic skeletal
assessment using abdominal CT scans, Med Eng Phys 78 (2020); the linear form, its limits and its uncertainty
are this project's (R).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from scoring.calibration import (
    INTERNAL,
    PATIENT_TISSUES,
    Calibration,
    Grade,
    LineUncertainty,
    Mineral,
    TissueReading,
    combined_uncertainty,
    line_uncertainty,
)
from scoring.calibration.spectrum import Tissue, expected_hu, hu_per_mg_k2hpo4
from scoring.errors import CalibrationImpossible
from scoring.settings import InternalCalibrationSettings, TissueSettings
from segmentation.ct_volume import CtVolume, FloatArray, Mask, canonical
from segmentation.gates.great_vessels import great_vessels
from segmentation.phrase import Phrase, listed, phrase
from segmentation.regions.surface import largest_piece
from segmentation.settings import ImageSettings
from segmentation.vertebrae import ABOVE_SACRUM, Vertebrae, spine_course

Array = npt.NDArray[np.float64]


_KEV = np.arange(400, 1201) / 10  # searched; beyond what any tube voltage of CT comes to
_TISSUES = tuple(Tissue)
_TISSUE_PHRASES = {
    Tissue.AIR: phrase("air"),
    Tissue.ADIPOSE: phrase("adipose"),
    Tissue.BLOOD: phrase("blood"),
    Tissue.MUSCLE: phrase("muscle"),
}


def sd_hu(rules: InternalCalibrationSettings, tissue: Tissue) -> float:
    """Standard uncertainty in HU of one person's tissue relative to its assumed value."""
    return {
        Tissue.AIR: rules.air_sd_hu,
        Tissue.ADIPOSE: rules.adipose_sd_hu,
        Tissue.BLOOD: rules.blood_sd_hu,
        Tissue.MUSCLE: rules.muscle_sd_hu,
    }[tissue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The energy at which the tissues lie best on a line, and that line."""

    kev: float
    scale: float
    offset_hu: float
    r2: float
    max_residual_hu: float

    @property
    def slope(self) -> float:
        """mg/cm3 of K2HPO4 per HU."""
        return 1.0 / (self.scale * hu_per_mg_k2hpo4(self.kev))

    @property
    def intercept(self) -> float:
        """mg/cm3."""
        return -self.offset_hu * self.slope


def internal_calibration(
    tissues: Sequence[TissueReading], *, kvp: float | None, rules: InternalCalibrationSettings
) -> Calibration:
    """The calibration that a patient's own tissues make; its grade is `Grade.INTERNAL`.

    Raises
    ------
    CalibrationImpossible
        `internal_impossible`: a tissue is missing, blood does not read as blood (contrast medium), the tube
        voltage is not stated, or the energy, scale or offset found is implausible.
    """
    hu = {Tissue(one.name): one.hu for one in tissues}
    _require_all(hu, rules)
    fit = _fit(tuple(hu[one] for one in _TISSUES), rules.adipose_density_g_cm3)
    _require_plausible(fit, kvp, rules)
    return Calibration(
        method=INTERNAL,
        phantom=PATIENT_TISSUES,
        equivalent=Mineral.K2HPO4,
        slope=fit.slope,
        intercept=fit.intercept,
        r2=fit.r2,
        max_residual_hu=fit.max_residual_hu,
        rods=(),
        grade=Grade.INTERNAL,
        uncertainty=_uncertainty(hu, fit, rules),
        tissues=tuple(tissues),
        effective_kev=fit.kev,
    )


def _require_all(hu: Mapping[Tissue, float], rules: InternalCalibrationSettings) -> None:
    missing = [_TISSUE_PHRASES[one] for one in _TISSUES if one not in hu]
    if missing:
        raise _impossible(phrase("tissue-too-little", tissues=listed(missing)))
    low, high = rules.sampling.blood_hu
    if not low <= hu[Tissue.BLOOD] <= high:
        raise _impossible(phrase("blood-enhanced", hu=f"{hu[Tissue.BLOOD]:.0f}"))


def _require_plausible(fit: _Fit, kvp: float | None, rules: InternalCalibrationSettings) -> None:
    if kvp is None:
        raise _impossible(phrase("kvp-not-stated"))
    kv = [one[0] for one in rules.kev]
    if not kv[0] <= kvp <= kv[-1]:
        raise _impossible(phrase("no-energies", kvp=f"{kvp:g}"))
    lowest, highest = (float(np.interp(kvp, kv, [one[end] for one in rules.kev])) for end in (1, 2))
    if not lowest <= fit.kev <= highest:
        raise _impossible(
            phrase(
                "energy-implausible",
                kev=f"{fit.kev:.0f}",
                kvp=f"{kvp:g}",
                lowest=f"{lowest:.0f}",
                highest=f"{highest:.0f}",
            )
        )
    if abs(fit.offset_hu) > rules.offset_hu or abs(fit.scale - 1) > rules.scale_percent / 100:
        percent = f"{100 * (fit.scale - 1):.0f}"
        raise _impossible(phrase("hu-off", offset=f"{fit.offset_hu:.0f}", percent=percent))


def _impossible(reason: Phrase) -> CalibrationImpossible:
    return CalibrationImpossible("internal_impossible", reason)


@lru_cache(maxsize=8)
def _expected(adipose_density_g_cm3: float) -> Array:
    """HU of each tissue (columns) at each energy searched (rows)."""
    densities = {Tissue.ADIPOSE: adipose_density_g_cm3}
    return np.array(
        [[expected_hu(one, kev, densities.get(one)) for one in _TISSUES] for kev in _KEV.tolist()]
    )


def _fit(hu: tuple[float, ...], adipose_density_g_cm3: float) -> _Fit:
    """Least squares of measured on expected HU at every energy; the best energy by R squared.

    Parameters
    ----------
    hu : in the order of `Tissue`.
    """
    expected, measured = _expected(adipose_density_g_cm3), np.asarray(hu)
    x = expected - expected.mean(axis=1, keepdims=True)
    y = measured - measured.mean()
    r2 = (x @ y) ** 2 / ((x**2).sum(axis=1) * (y @ y))
    best = int(np.argmax(r2))
    scale = float(x[best] @ y / (x[best] @ x[best]))
    offset_hu = float(measured.mean() - scale * expected[best].mean())
    residuals = measured - scale * expected[best] - offset_hu
    return _Fit(
        kev=float(_KEV[best]),
        scale=scale,
        offset_hu=offset_hu,
        r2=float(r2[best]),
        max_residual_hu=float(np.abs(residuals).max()),
    )


def _uncertainty(
    hu: Mapping[Tissue, float], fit: _Fit, rules: InternalCalibrationSettings
) -> LineUncertainty:
    """Each tissue's deviation propagated through the fit; at least the published deviation from QCT."""
    slopes, densities, errors = [], [], []
    for tissue in _TISSUES:
        deviation_hu = sd_hu(rules, tissue)
        up, down = (
            _fit(
                tuple(hu[one] + sign * deviation_hu * (one is tissue) for one in _TISSUES),
                rules.adipose_density_g_cm3,
            )
            for sign in (1, -1)
        )
        slopes.append((up.slope - down.slope) / (2 * deviation_hu))
        densities.append((up.intercept - down.intercept) / (2 * deviation_hu))
        errors.append(deviation_hu)
    least = LineUncertainty(
        pivot_hu=fit.offset_hu, bmd_mg_cm3=0.0, slope=rules.least_uncertainty_percent / 100 * fit.slope
    )
    return combined_uncertainty(line_uncertainty(0.0, slopes, densities, errors), least)


# Reading the tissues: air around the body, fat, muscle beside the spine, blood in the great vessels. Each is
# read where smoothed HU lie within its window, away from its borders. Cortical bone, the fifth tissue of
# Michalski et al. 2020, is left out: in a lumbar field of view it is too thin to be read without its
# neighbours, and its HU depend on its density more than on the photons' energy.
_PADDING_BELOW_HU = -900.0
_BODY_HU = -300.0


def read_tissues(
    volume: CtVolume, vertebrae: Vertebrae, rules: TissueSettings, contrast: ImageSettings
) -> tuple[TissueReading, ...]:
    """The tissues that are present in sufficient amount, from the lowest HU to the highest.

    Parameters
    ----------
    contrast : limits by which the great vessels are found.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    samples: dict[Tissue, list[npt.NDArray[np.float32]]] = {one: [] for one in Tissue}
    for hu, masks in _slices(volume, vertebrae, rules):
        for tissue, mask in masks.items():
            samples[tissue].append(hu[mask])
    found = [
        _reading(tissue, np.concatenate(parts), volume.grid.voxel_volume_mm3 / 1000)
        for tissue, parts in samples.items()
        if parts
    ]
    vessel = next(iter(great_vessels(volume, vertebrae, contrast)), None)
    if vessel is not None:
        volume_cm3 = pi * vessel.radius_mm**2 * vessel.height_mm / 1000
        found.append(TissueReading(name=Tissue.BLOOD, hu=vessel.hu, volume_cm3=volume_cm3))
    return tuple(
        sorted((one for one in found if one.volume_cm3 >= rules.minimum_cm3), key=lambda one: one.hu)
    )


def _reading(tissue: Tissue, hu: npt.NDArray[np.float32], voxel_cm3: float) -> TissueReading:
    middle = float(np.median(hu)) if hu.size else 0.0
    return TissueReading(name=tissue, hu=middle, volume_cm3=hu.size * voxel_cm3)


def _slices(
    volume: CtVolume, vertebrae: Vertebrae, rules: TissueSettings
) -> Iterator[tuple[FloatArray, dict[Tissue, Mask]]]:
    """Slices along the vertebral bodies in view, with masks of air, fat and muscle in each."""
    volume.grid.require_same(vertebrae.grid)
    turned, turn = canonical(volume)
    bodies = turn.forward(vertebrae.bodies)
    course = spine_course(turned, bodies, ABOVE_SACRUM)
    if course is None:
        return
    dz, dy, dx = turned.grid.spacing_mm
    for place in range(0, len(course.slices), max(1, round(rules.every_mm / dz))):
        k = int(course.slices[place])
        hu = turned.hu[k]
        smooth = ndimage.gaussian_filter(hu, (rules.smoothing_mm / dy, rules.smoothing_mm / dx))
        seen = _inside(~_padding(hu), rules.inside_mm, dy, dx)
        body = largest_piece(smooth > _BODY_HU)
        around = ndimage.binary_fill_holes(body)
        muscle_box = np.zeros(hu.shape, bool)
        front, middle = course.front_mm[place], course.middle_mm[place]
        muscle_box[
            max(0, int(front / dy)) : int((front + rules.behind_mm) / dy),
            max(0, int((middle - rules.beside_mm) / dx)) : int((middle + rules.beside_mm) / dx),
        ] = True
        masks = {
            Tissue.AIR: _inside(_within(smooth, rules.air_hu) & seen & ~around, rules.inside_mm, dy, dx)
            & _away(smooth > _BODY_HU, rules.from_body_mm, dy, dx),
            Tissue.ADIPOSE: _inside(_within(smooth, rules.adipose_hu) & body & seen, rules.inside_mm, dy, dx),
            Tissue.MUSCLE: _inside(
                _within(smooth, rules.muscle_hu) & body & seen & muscle_box, rules.inside_mm, dy, dx
            )
            & _away(bodies[k] > 0, rules.from_bone_mm, dy, dx),
        }
        yield hu, masks


def _within(hu: FloatArray, window: tuple[float, float]) -> Mask:
    inside: Mask = (hu >= window[0]) & (hu <= window[1])
    return inside


def _padding(hu: FloatArray) -> Mask:
    """What fills a slice outside a circular field of view, where its four corners share one value."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if corners[0] > _PADDING_BELOW_HU or not np.all(corners == corners[0]):
        return np.zeros(hu.shape, bool)
    filled: Mask = hu == corners[0]
    return filled


def _inside(mask: Mask, depth_mm: float, dy: float, dx: float) -> Mask:
    """What of the mask lies deeper than `depth_mm`; the image's edge counts as a border."""
    padded = np.pad(mask, 1)
    deep: Mask = ndimage.distance_transform_edt(padded, sampling=(dy, dx))[1:-1, 1:-1] > depth_mm
    return deep


def _away(mask: Mask, distance_mm: float, dy: float, dx: float) -> Mask:
    if not mask.any():
        return np.ones(mask.shape, bool)
    far: Mask = ndimage.distance_transform_edt(~mask, sampling=(dy, dx)) > distance_mm
    return far
