"""The discs that divide the vertebral column, found along the curve through its bodies.

A disc is told by three facts. Its rim is dark where that of bodies is bright: a body has a cortex all around,
a disc has none. Held against the whole column it is among the darkest places. And the pedicles lie below it:
they spring from the upper half of the body beneath, while the neural foramen lies beside the lower half of
the body above. A body's waist between crisp endplates is a valley of the rim too, as deep as a disc where
slices are thin; but its pedicles lie above it. The chain of places that has the most of all this, at the
spacing of vertebrae, is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from segmentation.ct_volume import CtVolume, Profile
from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.frame import OUTSIDE_HU, sample
from segmentation.settings import DiscSettings

# The rim.
RIM_ANGLES_DEG = np.arange(-30.0, 211.0, 10.0)  # left, front and right; pedicles and canal lie behind
RIM_RADII_MM = np.arange(8.0, 31.0, 1.0)
RIM_QUANTILE = 0.35  # below the middle, so that a calcified or contrasted aorta in front counts for nothing
HU_RANGE = (-100.0, 600.0)
FLANK_MM = (3, 13)  # an endplate lies this far from its disc's middle (R)
# Crisp endplates rise some 200 HU above a body's waist, and twice that above a disc (R).
FULL_CONTRAST_HU = 300.0
DARK_QUANTILE, BRIGHT_QUANTILE = 0.08, 0.75  # of the whole rim: discs, and bodies with endplates (R)
LEAST_STEP_HU = 40.0  # between the two; less is noise
END_DISC_SHARE = 0.4  # of the step from disc to body: darker than this is disc
END_DISC_SPACING = (0.7, 1.3)  # of the median spacing: where a disc that is partly in view may lie
END_DISC_DEPTH_MM = 8
UNEVEN_PENALTY = 0.03  # per mm by which neighbouring spacings differ


# The pedicles. Lengths are from the canal's middle: the windows begin at the body's back, where pedicles
# leave it, and hold the fore part of the foramina between them. Facets and laminae lie further back (R).
PEDICLE_U_MM = np.arange(8.0, 22.0)  # to either side
PEDICLE_V_MM = np.arange(2.0, 8.0)  # towards the front
PEDICLE_HU = (0.0, 500.0)
PEDICLE_AWAY_MM = (5, 15)  # from a disc's middle: the pedicle's height beneath it, the foramen's above
PEDICLE_SMOOTHING_MM = 1.5
SURE_QUANTILE, SURE_FLOOR_HU = 0.9, 20.0  # of the column's own differences: one as large counts in full

# Weights of the facts, beside 1 for the rim's own contrast. On 72 variants of two real CTs and 80 reference
# studies the wrong chains are the same few for ceilings of 250 to 400 HU, darkness of 0.5 to 1 and pedicles
# of 0.5 to 2.
DARKNESS_WEIGHT = 0.5
PEDICLE_WEIGHT = 1.0
NEAR_MM = 2  # the pedicles' best place and the rim's need not coincide


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
    """The chain of valleys of the rim that are most like discs, at the spacing of vertebrae.

    Returns
    -------
    Middles of the discs in whole mm along the curve, from inferior to superior; empty where no valley has the
    contrast.
    """
    rim = rim_profile(volume, curve)
    contrast = _valley_contrast(rim)
    worth = (
        np.minimum(contrast, FULL_CONTRAST_HU) / FULL_CONTRAST_HU
        + DARKNESS_WEIGHT * (darkness(rim) - 0.5)
        + PEDICLE_WEIGHT * ndimage.maximum_filter1d(pedicles_below(volume, curve), 2 * NEAR_MM + 1)
    )
    candidates = _local_maxima(contrast, rules.min_contrast_hu)
    valleys = {at: float(worth[at]) for at in candidates if worth[at] > 0.0}
    return _with_end_discs(_chain(valleys, rim, rules), rim, rules)


def darkness(rim: Profile) -> Profile:
    """How dark each place of the rim is among all of the column: 0 like bodies, 1 like discs.

    Parameters
    ----------
    rim : HU as `rim_profile` gives it.
    """
    seen = rim > OUTSIDE_HU + 1
    if not seen.any():
        return np.zeros_like(rim)
    steady = ndimage.uniform_filter1d(rim, 3, mode="nearest")
    dark, bright = np.quantile(steady[seen], [DARK_QUANTILE, BRIGHT_QUANTILE])
    share: Profile = np.clip((bright - steady) / max(bright - dark, LEAST_STEP_HU), 0.0, 1.2)
    return share


def pedicles_below(volume: CtVolume, curve: Curve) -> Profile:
    """By how much more bone flanks the canal below each mm of the curve than above it.

    Returns
    -------
    (length,), -1 to 1: positive at discs, negative at the middle of bodies. One is as much as the column's
    own largest differences.
    """
    bone = ndimage.gaussian_filter1d(_beside_canal(volume, curve), PEDICLE_SMOOTHING_MM, mode="nearest")
    near, far = PEDICLE_AWAY_MM
    width = far - near + 1
    padded = np.pad(ndimage.uniform_filter1d(bone, width, mode="nearest"), near + width // 2, mode="edge")
    below, above = padded[: len(bone)], padded[-len(bone) :]
    difference = below - above
    sure = float(np.quantile(np.abs(difference), SURE_QUANTILE)) + SURE_FLOOR_HU
    share: Profile = np.clip(difference / sure, -1.0, 1.0)
    return share


def _beside_canal(volume: CtVolume, curve: Curve) -> Profile:
    """Mean HU to both sides of the canal's fore part at each mm of the curve; shape (length,)."""
    nearest, _ = cKDTree(curve.canal_mm).query(curve.centre_mm)[::-1]
    behind = curve.canal_mm[nearest] - curve.centre_mm
    u = np.concatenate([-PEDICLE_U_MM[::-1], PEDICLE_U_MM]) + np.sum(behind * curve.left, axis=1)[:, None]
    v = PEDICLE_V_MM + np.sum(behind * curve.front, axis=1)[:, None]
    s = np.arange(curve.length)[:, None, None]
    hu = sample(volume, curve.points(s, u[:, :, None], v[:, None, :]))
    beside: Profile = np.clip(hu, *PEDICLE_HU).mean(axis=(1, 2))
    return beside


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
    valleys : worth of each place, above 0.
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
    """Dynamic programming over pairs of neighbouring discs: worth, less unevenness of the spacing."""
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
