"""The vertebral column: a curve through the vertebral bodies, and the discs that divide it.

The curve is the line of the spinal canal, moved forward into the bodies. Along it the rim of the column is
bright at bodies and dark at discs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, Points, Profile
from segmentation.engines.geometric.canal import Canal
from segmentation.engines.geometric.frame import OUTSIDE_HU, sample
from segmentation.settings import DiscSettings

# The curve.
BODY_OFFSET_MM = 26.0  # canal centre to body centre: half a canal (8) and half a body's depth (17-18) (R)
EXTENSION_MM = 30.0  # most of a vertebra
END_MM = 25  # an end's direction is that of its last points
LEAST_MM = 8  # no vertebra, not even a crushed one, shows on less of a line (R)
CURVE_SMOOTHING_MM = 14.0  # about half a vertebra: the curve follows the column, not each vertebra

# Discs.
RIM_ANGLES_DEG = np.arange(-30.0, 211.0, 10.0)  # left, front and right; pedicles and canal lie behind
RIM_RADII_MM = np.arange(8.0, 31.0, 1.0)
RIM_QUANTILE = 0.35  # below the middle, so that a calcified or contrasted aorta in front counts for nothing
HU_RANGE = (-100.0, 600.0)
FLANK_MM = (3, 13)  # an endplate lies this far from its disc's middle (R)
FULL_CONTRAST_HU = 150.0
END_DISC_SHARE = 0.4  # of the step from disc to body: darker than this is disc
END_DISC_SPACING = (0.7, 1.3)  # of the median spacing: where a disc that is partly in view may lie
END_DISC_DEPTH_MM = 8
UNEVEN_PENALTY = 0.03  # per mm by which neighbouring spacings differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The line through the vertebral bodies, sampled every mm from inferior to superior, with its frames.

    Attributes
    ----------
    centre_mm : (n, 3).
    along : (n, 3), unit vectors towards superior.
    front : (n, 3), unit vectors towards anterior, perpendicular to `along`.
    left : (n, 3), unit vectors towards left.
    canal_mm : (m, 3), the smoothed centre line of the canal.
    """

    centre_mm: Points
    along: Points
    front: Points
    left: Points
    canal_mm: Points

    @property
    def length(self) -> int:
        return len(self.centre_mm)

    def points(self, s: npt.ArrayLike, u: npt.ArrayLike, v: npt.ArrayLike) -> Points:
        """Working-frame points of places beside the curve.

        Parameters
        ----------
        s : whole mm along the curve, 0 to `length` - 1.
        u, v : mm towards left and anterior; broadcast with `s`.

        Returns
        -------
        (..., 3), (z, y, x) in mm.
        """
        at = np.asarray(s, dtype=int)
        moved: Points = (
            self.centre_mm[at]
            + np.asarray(u)[..., None] * self.left[at]
            + np.asarray(v)[..., None] * self.front[at]
        )
        return moved


def body_curve(canal: Canal, top_mm: float) -> Curve | None:
    """Move the canal's line forward into the bodies and give each mm of it a frame.

    None where less than `LEAST_MM` of that line lies in the volume: where the canal leans, the line before it
    may be outside a volume that holds the canal itself.

    Parameters
    ----------
    top_mm : z of the volume's last slice, in the working frame.
    """
    canal_mm = _extended(_smooth(_even_steps(canal.points_mm)), top_mm)
    if len(canal_mm) <= LEAST_MM:
        return None
    _, front, _ = _frames(canal_mm)
    # Where the canal leans, the line before it begins higher or ends lower than the canal does.
    moved = _extended(_smooth(_even_steps(canal_mm + BODY_OFFSET_MM * front)), top_mm)
    if len(moved) <= LEAST_MM:
        return None
    line = _even_steps(_smooth(_even_steps(moved)))
    if len(line) <= LEAST_MM:
        return None
    along, front, left = _frames(line)
    return Curve(centre_mm=line, along=along, front=front, left=left, canal_mm=canal_mm)


def _extended(line: Points, top_mm: float) -> Points:
    """Continue the line straight at both ends, as far as the volume and `EXTENSION_MM` reach.

    In the outermost slices of a volume bone need not surround the canal: a body may be in view, its arch not.
    """
    steps = np.arange(1.0, EXTENSION_MM + 1.0)[:, None]
    reach = min(END_MM, len(line) - 1)
    below, above = (
        line[end] + steps * direction / np.linalg.norm(direction)
        for end, direction in ((0, line[0] - line[reach]), (-1, line[-1] - line[-1 - reach]))
    )
    extended: Points = np.concatenate([below[::-1], line, above])
    return extended[(extended[:, 0] >= 0.0) & (extended[:, 0] <= top_mm)]


def _smooth(line: Points) -> Points:
    """Local straight-line fits with Gaussian weights: unlike plain averages they do not bend at the ends."""
    place = np.arange(float(len(line)))
    apart = place[None, :] - place[:, None]
    weight = np.exp(-0.5 * (apart / CURVE_SMOOTHING_MM) ** 2)
    zeroth, first, second = (np.sum(weight * apart**power, axis=1) for power in (0, 1, 2))
    total, slope = weight @ line, (weight * apart) @ line
    smooth: Points = (second[:, None] * total - first[:, None] * slope) / (zeroth * second - first**2)[
        :, None
    ]
    return smooth


def _even_steps(line: Points) -> Points:
    """The same line with points 1 mm apart."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.arange(0.0, at[-1], 1.0)
    return np.column_stack([np.interp(even, at, line[:, axis]) for axis in range(3)])


def _frames(line: Points) -> tuple[Points, Points, Points]:
    """Unit vectors (along, front, left); front is the anterior direction made square to along."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    anterior = np.array([0.0, -1.0, 0.0])
    front = anterior - (along @ anterior)[:, None] * along
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    left = np.cross(along, front)
    left *= np.sign(left[:, 2])[:, None]
    return along, front, left


def rim_profile(volume: CtVolume, curve: Curve) -> Profile:
    """HU of the column's rim at each mm of the curve.

    A body has a cortex all around, even with little mineral inside; a disc has none. The rim separates them
    in osteoporosis too, where the disc's middle is denser than the body's.

    Returns
    -------
    (length,); `OUTSIDE_HU` where more than 30 % of the rim lies outside the volume.
    """
    angle = np.deg2rad(RIM_ANGLES_DEG)[None, :, None]
    radius = RIM_RADII_MM[None, None, :]
    s = np.arange(curve.length)[:, None, None]
    hu = sample(volume, curve.points(s, np.cos(angle) * radius, np.sin(angle) * radius))
    brightest = np.clip(hu, *HU_RANGE).max(axis=2)
    rim: Profile = np.quantile(brightest, RIM_QUANTILE, axis=1)
    outside = (hu <= OUTSIDE_HU + 1).mean(axis=(1, 2)) > 0.3
    rim[outside] = OUTSIDE_HU
    return rim


def find_discs(volume: CtVolume, curve: Curve, rules: DiscSettings) -> tuple[int, ...]:
    """The chain of valleys of the rim with the greatest contrast and the spacing of vertebrae.

    Returns
    -------
    Middles of the discs in whole mm along the curve, from inferior to superior; empty where no valley has the
    contrast.
    """
    rim = rim_profile(volume, curve)
    contrast = _valley_contrast(rim)
    candidates = _local_maxima(contrast, rules.min_contrast_hu)
    worth = np.minimum(contrast[candidates], FULL_CONTRAST_HU) / FULL_CONTRAST_HU
    valleys = dict(zip(candidates, worth.tolist(), strict=True))
    return _with_end_discs(_chain(valleys, rim, rules), rim, rules)


def _valley_contrast(rim: Profile) -> Profile:
    """By how much the brighter surroundings on both sides exceed each place; 0 where there are none."""
    valley = ndimage.uniform_filter1d(rim, 3, mode="nearest")
    near, far = FLANK_MM
    width = far - near + 1
    ridge = ndimage.maximum_filter1d(valley, width, mode="constant", cval=OUTSIDE_HU)
    reach = near + width // 2
    padded = np.pad(ridge, reach, constant_values=OUTSIDE_HU)
    below, above = padded[: len(rim)], padded[2 * reach :]
    contrast: Profile = np.minimum(below, above) - valley
    contrast[rim <= OUTSIDE_HU + 1] = 0.0
    return np.maximum(contrast, 0.0)


def _chain(valleys: Mapping[int, float], rim: Profile, rules: DiscSettings) -> tuple[int, ...]:
    """The best chain of valleys, none of which is the waist of a body.

    The outermost valley of a chain is a waist if it is as bright as a body and a disc is found beyond it
    where it is left out: its half of a body hid that disc, too near to follow.

    Parameters
    ----------
    valleys : worth (0..1) of each place.
    """
    chain = _without_waists(_best_chain(valleys, rules), rim, rules)
    for end, sense in ((0, -1), (-1, 1)):
        bright = _bright(chain, rim, rules)
        if bright and chain[end] in bright:
            rest = {at: worth for at, worth in valleys.items() if at != chain[end]}
            other = _without_waists(_best_chain(rest, rules), rim, rules)
            if other and sense * (_with_end_discs(other, rim, rules)[end] - chain[end]) > 0:
                chain = other
    return chain


def _without_waists(chain: tuple[int, ...], rim: Profile, rules: DiscSettings) -> tuple[int, ...]:
    """The chain less the valleys that divide one body.

    In thin slices crisp endplates rise above the middle of their body, which then looks like a valley. It is
    as bright as a body though, and its neighbours in the chain lie a vertebra apart.
    """
    bright = _bright(chain, rim, rules)
    kept = list(chain)
    for before, at, after in zip(chain, chain[1:], chain[2:], strict=False):
        if before in kept and at in bright and after - before <= rules.spacing_mm[1]:
            kept.remove(at)
    return tuple(kept)


def _bright(chain: tuple[int, ...], rim: Profile, rules: DiscSettings) -> set[int]:
    """The valleys of a chain that are brighter than its discs are. Of a few valleys the darkest is a disc."""
    if len(chain) < 2:
        return set()
    steady = ndimage.uniform_filter1d(rim, 3, mode="nearest")
    disc_hu, body_hu = _disc_and_body_hu(chain, steady, rules)
    if len(chain) < rules.waist_least_discs:
        disc_hu = float(steady[list(chain)].min())
    limit_hu = disc_hu + rules.waist_share * (body_hu - disc_hu)
    return {at for at in chain if steady[at] > limit_hu}


def _disc_and_body_hu(chain: tuple[int, ...], steady: Profile, rules: DiscSettings) -> tuple[float, float]:
    """How bright the rim is at the chain's discs and between them: their medians."""
    disc_hu = float(np.median(steady[list(chain)]))
    bodies = list(pairwise(chain)) or _beside(chain[0], len(steady), rules.usual_spacing_mm)
    return disc_hu, float(np.median([np.median(steady[low:high]) for low, high in bodies]))


def _with_end_discs(chain: tuple[int, ...], rim: Profile, rules: DiscSettings) -> tuple[int, ...]:
    """The chain with a disc beyond each end, if the image shows its near side only.

    Such a disc is as dark as the chain's own discs.
    """
    if not chain:
        return chain
    steady = ndimage.uniform_filter1d(rim, 3, mode="nearest")
    disc_hu, body_hu = _disc_and_body_hu(chain, steady, rules)
    step = END_DISC_SHARE * (body_hu - disc_hu)
    dark = np.abs(steady - disc_hu) < step  # fat beside the column is darker still
    spacing = float(np.median(np.diff(chain))) if len(chain) > 1 else rules.usual_spacing_mm
    low, high = round(END_DISC_SPACING[0] * spacing), round(END_DISC_SPACING[1] * spacing)
    found = list(chain)
    for end, sense in ((chain[0], -1), (chain[-1], 1)):
        places = [end + sense * step for step in range(low, high + 1) if 0 <= end + sense * step < len(rim)]
        hits = [at for at in places if dark[at] and rim[at] > OUTSIDE_HU + 1]
        if hits:
            reach = [at for at in hits if abs(at - hits[0]) <= END_DISC_DEPTH_MM]
            found.append(reach[len(reach) // 2])
    return tuple(sorted(found))


def _beside(disc: int, length: int, spacing_mm: float) -> list[tuple[int, int]]:
    """Places of the bodies beside a single disc, as far as they are in view."""
    near, far = FLANK_MM[1], round(spacing_mm) - FLANK_MM[1]
    spans = [(disc - far, disc - near), (disc + near, disc + far)]
    return [(max(0, low), min(length, high)) for low, high in spans if low < length and high > 0]


def _local_maxima(contrast: Profile, least_hu: float) -> list[int]:
    peak = ndimage.maximum_filter1d(contrast, 9) == contrast
    found = np.flatnonzero(peak & (contrast >= least_hu))
    kept: list[int] = []
    for at in found:  # a flat valley gives several equal maxima: keep their middle
        run = [k for k in found if abs(k - at) <= 4]
        middle = int(np.round(np.mean(run)))
        if not kept or middle - kept[-1] > 4:
            kept.append(middle)
    return kept


def _best_chain(valleys: Mapping[int, float], rules: DiscSettings) -> tuple[int, ...]:
    """Dynamic programming over pairs of neighbouring discs: contrast, less unevenness of the spacing."""
    candidates, worth = list(valleys), list(valleys.values())
    count = len(candidates)
    best: dict[tuple[int, int], tuple[float, int | None]] = {}
    for j in range(count):
        for i in range(j):
            spacing = candidates[j] - candidates[i]
            if not rules.spacing_mm[0] <= spacing <= rules.spacing_mm[1]:
                continue
            options: list[tuple[float, int | None]] = [(worth[i], None)]
            for h in range(i):
                if (h, i) in best:
                    uneven = abs(spacing - (candidates[i] - candidates[h]))
                    options.append((best[h, i][0] - UNEVEN_PENALTY * uneven, h))
            total, before = max(options, key=lambda option: option[0])
            best[i, j] = (total + worth[j], before)
    if not best:
        return tuple(sorted(candidates, key=lambda at: -valleys[at])[:1])
    i, j = max(best, key=lambda pair: best[pair][0])
    chain = [j, i]
    while (before := best[chain[-1], chain[-2]][1]) is not None:
        chain.append(before)
    return tuple(candidates[k] for k in reversed(chain))
