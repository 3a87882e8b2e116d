"""Vertebral fracture by loss of height, after Genant et al. 1993: relative to own and neighbours' heights.

Each comparison alone misses some fractures: that of a body's ends and middle a body that lost all heights
alike, that with the tallest of its neighbours a spine where all are crushed, that of height and cross-section
a loss of less than a quarter, because people differ. The largest loss counts.

A deformity of another cause (Scheuermann's disease, congenital wedging) loses height too: the result is a
suspicion, for a radiologist to confirm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import FloatArray, Grid, Mask
from segmentation.levels import identity_observations
from segmentation.phrase import Value, phrase
from segmentation.regions.surface import body_axes, body_share, box_around
from segmentation.settings import FractureSettings, IdentitySettings
from segmentation.vertebrae import Level, Observation, Vertebrae, is_lumbar, is_unnamed, rank_of

STEP_MM = 0.5  # along the axis
COLUMN_STEP_MM = 1.0  # across it
HALF_STRIP_MM = 7.0  # columns this close to the median plane are read
REACH_MM = 40.0
# A parabola through the columns between these shares of the depth, read near both ends: the rims themselves
# carry osteophytes and, in thick slices, partial volume.
FITTED = (0.10, 0.90)
READ_AT = (0.05, 0.50, 0.95)
MIN_COLUMNS = 8
TREND_COLUMNS = 8  # by which the height of a further one is expected
TREND_AHEAD = 3  # the columns just before it are left out: voxels spread the end of a wall over them
HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Heights:
    """Of one body, in mm, after Genant et al. 1993.

    Attributes
    ----------
    volume_mm3 : of the body; None where it is unknown.
    """

    anterior_mm: float
    middle_mm: float
    posterior_mm: float
    volume_mm3: float | None = None

    @property
    def mean_mm(self) -> float:
        return (self.anterior_mm + self.middle_mm + self.posterior_mm) / 3

    @property
    def proportion(self) -> float | None:
        """Mean height over the square root of the mean cross-section; None without a volume."""
        if self.volume_mm3 is None:
            return None
        return float(self.mean_mm / np.sqrt(self.volume_mm3 / self.mean_mm))


def body_heights(share: FloatArray, grid: Grid, level: Level) -> Heights | None:
    """The three heights; None where the body is too small to be measured.

    Parameters
    ----------
    share : of each voxel inside the body (0..1), shape of the grid (which may be a part of the volume's).
    """
    up, back, left = body_axes(level.axis)
    h = np.arange(-REACH_MM, REACH_MM, STEP_MM)
    b = np.arange(-REACH_MM, REACH_MM, COLUMN_STEP_MM)
    w = np.arange(-HALF_STRIP_MM, HALF_STRIP_MM + 0.1, COLUMN_STEP_MM)
    points = (
        np.asarray(level.centroid_mm)
        + h[:, None, None, None] * up
        + b[None, :, None, None] * back
        + w[None, None, :, None] * left
    )
    index = np.moveaxis(grid.to_index(points), -1, 0)
    inside = ndimage.map_coordinates(share, index, order=1, prefilter=False) >= 0.5
    reached = inside.any(axis=0)
    column = _column_heights(inside) * STEP_MM
    wide = _wall_to_wall(inside.sum(axis=0).mean(axis=1) * STEP_MM, reached.mean(axis=1) >= HALF)
    if len(wide) < MIN_COLUMNS:
        return None
    height = np.array([column[k][reached[k]].mean() for k in wide])
    share = np.linspace(0.0, 1.0, len(height))
    fitted = (share >= FITTED[0]) & (share <= FITTED[1])
    curve = np.polynomial.Polynomial.fit(share[fitted], height[fitted], 2)
    anterior, middle, posterior = (max(STEP_MM, float(curve(at))) for at in READ_AT)
    return Heights(
        anterior_mm=anterior, middle_mm=middle, posterior_mm=posterior, volume_mm3=level.body_volume_mm3
    )


def _wall_to_wall(filled_mm: npt.NDArray[np.float64], wide: npt.NDArray[np.bool_]) -> list[int]:
    """The depths that belong to the body itself, from front to back.

    A depth counts where most of the strip meets the body. In front of the wall an osteophyte may follow, of a
    few millimetres' height at one rim or at both: there bone ends at once, while a wedge thins out.

    Parameters
    ----------
    filled_mm : bone at each depth, in mm of height, as the mean of the strip.
    """
    depths = np.flatnonzero(wide)
    if len(depths) < MIN_COLUMNS:
        return []
    middle = int(depths[len(depths) // 2])
    kept = [middle]
    for step in (-1, 1):
        at = middle + step
        while 0 <= at < len(wide) and wide[at]:
            before = at - step * (np.arange(TREND_COLUMNS) + TREND_AHEAD)
            trend = np.polynomial.Polynomial.fit(before, filled_mm[before], 1)
            if filled_mm[at] < HALF * float(trend(at)):
                break
            kept.append(at)
            at += step
    return sorted(kept)


def _column_heights(inside: Mask) -> npt.NDArray[np.float64]:
    """Samples from the first to the last one inside, along axis 0: a waist or a hole shortens no column."""
    first = np.argmax(inside, axis=0)
    last = inside.shape[0] - 1 - np.argmax(inside[::-1], axis=0)
    samples: npt.NDArray[np.float64] = np.where(inside.any(axis=0), last - first + 1, 0).astype(float)
    return samples


EVEN_SHARE = 0.8  # a body whose mean height lost nearly as much as any one height is crushed
GENANT_GRADES = ((0.40, 3), (0.25, 2), (0.20, 1))  # loss from which each is given; Genant et al. 1993

# Heights along a spine, in mm; only ratios between levels, and of back to front, are used. Rounded from
# anatomy (R): anterior heights grow downwards, posterior ones shrink from L3 on; L5 is a wedge that opens
# forwards.
TYPICAL: Mapping[str, Heights] = {
    "T10": Heights(anterior_mm=21.5, middle_mm=20.0, posterior_mm=22.5),
    "T11": Heights(anterior_mm=22.3, middle_mm=21.0, posterior_mm=23.8),
    "T12": Heights(anterior_mm=23.8, middle_mm=22.5, posterior_mm=25.5),
    "L1": Heights(anterior_mm=25.0, middle_mm=23.5, posterior_mm=26.8),
    "L2": Heights(anterior_mm=26.3, middle_mm=24.5, posterior_mm=27.5),
    "L3": Heights(anterior_mm=27.0, middle_mm=24.5, posterior_mm=27.3),
    "L4": Heights(anterior_mm=27.3, middle_mm=24.3, posterior_mm=26.5),
    "L5": Heights(anterior_mm=28.0, middle_mm=24.0, posterior_mm=24.0),
}


def typical_heights(name: str) -> Heights | None:
    """Those of a level; of a lumbar body without a name the middle lumbar ones; None for others."""
    return TYPICAL["L3"] if is_unnamed(name) else TYPICAL.get(name)


def _typical(name: str) -> Heights:
    found = typical_heights(name)
    if found is None:
        raise KeyError(name)
    return found


def fracture_observations(
    vertebrae: Vertebrae, settings: FractureSettings | None = None, *, unread: Collection[str] = ()
) -> tuple[Observation, ...]:
    """Whole bodies that have lost height, from superior to inferior, and what that means for the study.

    Thoracic ones count too: a fracture of T12 is osteoporosis whatever the lumbar density. Where slices are
    too far apart for heights, `fracture_not_assessed`, after those bodies that are plainly crushed.

    Parameters
    ----------
    unread : levels left out, because metal distorts their outlines.
    """
    rules = settings or FractureSettings()
    whole = [level for level in vertebrae.levels if level.complete and typical_heights(level.name)]
    if not any(is_lumbar(level.name) for level in whole):
        return ()
    heights = {
        level.name: read
        for level in whole
        if level.name not in unread and (read := _heights(vertebrae, level)) is not None
    }
    step_mm = max(_step_along_mm(vertebrae, level) for level in whole)
    coarse = step_mm > rules.max_step_mm
    suspicions = tuple(_suspicions(heights, rules, coarse=coarse))
    found = [*suspicions]
    if suspicions:
        named = ", ".join(str(observation.level) for observation in suspicions)
        found.append(Observation(code="fracture_in_spine", values={"levels": named}))
    if coarse:
        values: dict[str, Value] = {"step_mm": round(step_mm, 1), "percent": round(100 * rules.coarse_loss)}
        found.append(Observation(code="fracture_not_assessed", values=values))
    elif not suspicions:
        found += _hollow_alike(list(heights.values()), rules)
    return tuple(found)


def _heights(vertebrae: Vertebrae, level: Level) -> Heights | None:
    box = box_around(vertebrae.bodies == level.label)
    return body_heights(body_share(vertebrae, level, box), vertebrae.grid.part(box), level)


def _step_along_mm(vertebrae: Vertebrae, level: Level) -> float:
    """The distance of neighbouring voxels most nearly along the body's axis: those drawn, if wider apart."""
    grids = [vertebrae.grid] if vertebrae.drawn_on is None else [vertebrae.grid, vertebrae.drawn_on]
    return max(_spacing_along_mm(grid, level) for grid in grids)


def _spacing_along_mm(grid: Grid, level: Level) -> float:
    along = np.abs(np.asarray(grid.direction) @ np.asarray(level.axis))
    return float(grid.spacing_mm[int(np.argmax(along))])


def _suspicions(
    heights: Mapping[str, Heights], rules: FractureSettings, *, coarse: bool
) -> Iterator[Observation]:
    """Losses that count; of `coarse` heights only those that no reading of thick slices explains."""
    least = rules.coarse_loss if coarse else rules.suspected_loss
    for name in heights:
        shape, loss = height_loss(name, heights, rules)
        if loss < least:
            continue
        code = "fracture" if loss >= rules.refused_loss else "fracture_suspected"
        values: dict[str, Value] = {
            "percent": round(100 * loss),
            "shape": _SHAPES[shape],
            "grade": genant_grade(loss),
        }
        yield Observation(code=code, level=name, values=values)


def _hollow_alike(heights: Sequence[Heights], rules: FractureSettings) -> Iterator[Observation]:
    """Bodies that are all slightly biconcave: none is a suspicion, nor a measure of another."""
    if len(heights) < rules.alike_bodies:
        return
    loss = float(np.median([_hollow(own, own.posterior_mm, rules) for own in heights]))
    if loss >= rules.alike_loss:
        values: dict[str, str | int | float] = {"count": len(heights), "percent": round(100 * loss)}
        yield Observation(code="biconcave_alike", values=values)


_SHAPES = {
    "wedge": phrase("shape-wedge"),
    "biconcave": phrase("shape-biconcave"),
    "crush": phrase("shape-crush"),
}


def genant_grade(loss: float) -> int:
    """Grade 1 to 3 by the lost share of a height; 0 below 20 %.

    Source: Genant et al. 1993.
    """
    return next((grade for least, grade in GENANT_GRADES if loss >= least), 0)


def height_loss(
    name: str, heights: Mapping[str, Heights], settings: FractureSettings | None = None
) -> tuple[str, float]:
    """The largest relative loss of one body and the deformity that it is: wedge, biconcave or crush.

    Parameters
    ----------
    heights : of this body and of every other whole one, by level name.
    """
    rules = settings or FractureSettings()
    body = heights[name]
    near = {
        label: other
        for label, other in heights.items()
        if label != name
        and abs(rank_of(label) - rank_of(name)) <= rules.neighbours_apart
        and not _taller_than_a_body(other, rules)
    }
    losses = _own_losses(name, body, _behind_mm(name, body, near, rules), rules)
    if near:
        # The tallest, brought to this level: a crushed neighbour is no measure.
        losses["biconcave"] = max(
            losses["biconcave"], 1 - body.middle_mm / _expected_mm("middle_mm", name, near)[0]
        )
        losses["crush"] = max(losses["crush"], 1 - body.mean_mm / _expected_mm("mean_mm", name, near)[0])
        if body.anterior_mm < body.posterior_mm:
            front = 1 - body.anterior_mm / _expected_mm("anterior_mm", name, near)[0]
            losses["wedge"] = max(losses["wedge"], front)
    shape = max(losses, key=lambda kind: losses[kind])
    largest = losses[shape]
    if losses["crush"] >= EVEN_SHARE * largest:
        shape = "crush"
    return shape, largest


def _taller_than_a_body(body: Heights, rules: FractureSettings) -> bool:
    """Whether a drawing is taller for its cross-section than intact bodies are: it holds a disc as well."""
    return body.proportion is not None and body.proportion > rules.most_proportion


def _own_losses(name: str, body: Heights, behind_mm: float, rules: FractureSettings) -> dict[str, float]:
    """Losses by a body's own heights and its cross-section."""
    typical = _typical(name)
    backwards = typical.posterior_mm / typical.anterior_mm
    crush = 1 - body.posterior_mm / (rules.posterior_share * backwards * body.anterior_mm)
    if body.proportion is not None:
        crush = max(crush, 1 - body.proportion / rules.proportion)
    return {
        "wedge": 1 - body.anterior_mm / behind_mm,
        "biconcave": _hollow(body, behind_mm, rules),
        "crush": crush,
    }


def _hollow(body: Heights, behind_mm: float, rules: FractureSettings) -> float:
    """Loss of the middle height relative to the ends."""
    return 1 - body.middle_mm / (rules.middle_share * (body.anterior_mm + behind_mm) / 2)


def _behind_mm(name: str, body: Heights, near: Mapping[str, Heights], rules: FractureSettings) -> float:
    """The posterior height, limited to what neighbours without a loss of height allow."""
    sound = {
        label: other
        for label, other in near.items()
        if max(_own_losses(label, other, other.posterior_mm, rules).values()) < rules.suspected_loss
    }
    if not sound:
        return body.posterior_mm
    expected = _expected_mm("posterior_mm", name, sound)
    return min(body.posterior_mm, rules.posterior_excess * expected[min(1, len(expected) - 1)])


def _expected_mm(which: str, name: str, near: Mapping[str, Heights]) -> Sequence[float]:
    """The neighbours' heights, scaled to this level, the tallest first."""
    here = getattr(_typical(name), which)
    return sorted(
        (getattr(other, which) * here / getattr(_typical(label), which) for label, other in near.items()),
        reverse=True,
    )


def without_collapsed(found: Vertebrae, settings: IdentitySettings | None = None) -> Vertebrae:
    """The vertebrae without those observations on their names that loss of height explains.

    Parameters
    ----------
    found : its observations include `identity_observations` of its levels.
    settings : with which these observations were made.
    """
    doubts = identity_observations(found.levels, settings)
    if not doubts:  # heights take their time
        return found
    deformed = {one.level for one in fracture_observations(found) if one.level is not None}
    left = identity_observations(found.levels, settings, deformed=deformed)
    explained = [one for one in doubts if one not in left]
    if not explained:
        return found
    kept = tuple(one for one in found.observations if one not in explained)
    return replace(found, observations=kept, numbering_confirmed=not kept)
