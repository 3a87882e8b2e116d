"""Vertebral levels: their measurement, and the plausibility of their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from segmentation.ct_volume import FloatArray, Grid, Mask
from segmentation.phrase import Phrase, phrase
from segmentation.settings import IdentitySettings
from segmentation.vertebrae import (
    ANATOMICAL_ORDER,
    Level,
    Observation,
    Vertebrae,
    is_unnamed,
    label_of,
    rank_of,
)

TREND_LEVELS = 4  # of fewer, one collapsed body turns the trend
BY_ONE_ANCHOR = {"sacrum": "numbered_by_sacrum_alone", "last rib": "numbered_by_rib_alone"}


def measure_level(
    name: str,
    inside: Mask,
    grid: Grid,
    *,
    axis: npt.ArrayLike,
    complete: bool,
    corner: Sequence[int] = (0, 0, 0),
    share: FloatArray | None = None,
) -> Level:
    """Centroid, volume and axis of one body.

    Parameters
    ----------
    inside : bool, a part of the grid's array that holds the whole body.
    axis : the body's long axis towards superior, LPS; any length.
    complete : whether the whole body lies inside the volume.
    corner : index (z, y, x) of that part's first voxel in the grid.
    share : of each voxel inside the body (0..1), shape of `inside`; by default `inside`.
    """
    known = inside.astype(np.float32) if share is None else share
    index = np.argwhere(known > 0)
    weight = known[known > 0].astype(float)
    centre = grid.to_patient(weight @ index / weight.sum() + np.asarray(corner))
    unit = np.asarray(axis, dtype=float)
    unit = unit / np.linalg.norm(unit)
    return Level(
        name=name,
        label=label_of(name),
        complete=complete,
        centroid_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        body_volume_mm3=float(weight.sum() * grid.voxel_volume_mm3),
        axis=(float(unit[0]), float(unit[1]), float(unit[2])),
    )


def in_anatomical_order(levels: Sequence[Level]) -> tuple[Level, ...]:
    """The levels from superior to inferior, T10 first."""
    return tuple(sorted(levels, key=lambda level: rank_of(level.name)))


def identity_observations(
    levels: Sequence[Level], settings: IdentitySettings | None = None, *, deformed: Collection[str] = ()
) -> tuple[Observation, ...]:
    """`level_implausible` for each gap, order, spacing or volume that no spine has.

    Parameters
    ----------
    levels : in any order.
    deformed : names of bodies known to have lost height: their volume is no evidence against their name.
    """
    rules = settings or IdentitySettings()
    row = in_anatomical_order(levels)
    whole = [level for level in row if level.complete]
    doubts = [
        *_gaps(row),
        *_misplaced(row),
        *_too_far_apart(row, rules),
        *_odd_spacing(whole, rules),
        *_odd_volumes(whole, rules, deformed),
        *_falling_volumes(whole, rules),
    ]
    return tuple(Observation(code="level_implausible", values={"detail": doubt}) for doubt in doubts)


def anchor_observations(found: Vertebrae) -> tuple[Observation, ...]:
    """What the names rest on, where that is one anchor or a person's statement.

    Of `numbered_by_sacrum_alone` and `numbered_by_rib_alone` one vertebra more or less goes unnoticed.
    """
    if found.numbering_basis == "stated":
        first = next((level.name for level in found.levels if level.complete), "")
        return (Observation(code="levels_stated", values={"first": first}),)
    code = BY_ONE_ANCHOR.get(found.numbering_basis) if found.numbering_confirmed else None
    return () if code is None else (Observation(code=code),)


def _gaps(row: Sequence[Level]) -> list[Phrase]:
    names = [level.name for level in row if not is_unnamed(level.name)]
    first, last = (ANATOMICAL_ORDER.index(name) for name in (names[0], names[-1])) if names else (0, -1)
    return [
        phrase("level-missing", level=name)
        for name in ANATOMICAL_ORDER[first : last + 1]
        if name not in names
    ]


def _misplaced(row: Sequence[Level]) -> list[Phrase]:
    """Each level must lie below the one before it, along the axis of either."""
    return [
        phrase("level-not-below", lower=lower.name, upper=upper.name)
        for upper, lower in pairwise(row)
        if _along_mm(upper, lower) <= 0
    ]


def _along_mm(upper: Level, lower: Level) -> float:
    """How far the lower body lies below the upper one, along the axis that gives the larger distance."""
    between = np.subtract(upper.centroid_mm, lower.centroid_mm)
    return float(max(np.dot(between, upper.axis), np.dot(between, lower.axis)))


def are_adjacent(upper: Level, lower: Level) -> bool:
    """Whether the lower level is the next one below the upper."""
    return rank_of(lower.name) - rank_of(upper.name) == 1


def _adjacent(row: Sequence[Level]) -> list[tuple[Level, Level]]:
    return [(upper, lower) for upper, lower in pairwise(row) if are_adjacent(upper, lower)]


def _spacings(row: Sequence[Level]) -> list[tuple[str, str, float]]:
    return [
        (upper.name, lower.name, float(np.linalg.norm(np.subtract(upper.centroid_mm, lower.centroid_mm))))
        for upper, lower in _adjacent(row)
    ]


def _too_far_apart(row: Sequence[Level], rules: IdentitySettings) -> list[Phrase]:
    """Truncated bodies count too: the visible part lies nearer to its neighbour than the whole."""
    return [
        phrase("levels-apart", upper=upper, lower=lower, distance=f"{spacing:.0f}")
        for upper, lower, spacing in _spacings(row)
        if spacing > rules.spacing_mm[1]
    ]


def _odd_spacing(row: Sequence[Level], rules: IdentitySettings) -> list[Phrase]:
    """The least spacing applies along the spine: two names side by side on one body have none there."""
    spacings = _spacings(row)
    doubts = [
        phrase("levels-apart-along", upper=upper.name, lower=lower.name, distance=f"{along:.0f}")
        for upper, lower in _adjacent(row)
        if 0 < (along := _along_mm(upper, lower)) < rules.spacing_mm[0]
    ]
    for above, below in pairwise(spacings):
        if max(above[2], below[2]) > rules.spacing_ratio * min(above[2], below[2]):
            before, after = f"{above[2]:.0f}", f"{below[2]:.0f}"
            doubts.append(phrase("spacing-changes", before=before, after=after, level=below[0]))
    return doubts


def _odd_volumes(
    row: Sequence[Level], rules: IdentitySettings, deformed: Collection[str] = ()
) -> list[Phrase]:
    return [
        phrase(
            "volumes-differ",
            upper=upper.name,
            more=f"{upper.body_volume_mm3 / 1000:.0f}",
            lower=lower.name,
            less=f"{lower.body_volume_mm3 / 1000:.0f}",
        )
        for upper, lower in _adjacent(row)
        if _volumes_differ(upper, lower, rules) and not _collapsed(upper, lower, row, rules, deformed)
    ]


def _volumes_differ(one: Level, other: Level, rules: IdentitySettings) -> bool:
    less, more = sorted((one.body_volume_mm3, other.body_volume_mm3))
    return more > rules.volume_ratio * less


def _collapsed(
    one: Level, other: Level, row: Sequence[Level], rules: IdentitySettings, deformed: Collection[str]
) -> bool:
    """Whether the smaller of two bodies lost its volume with its height.

    Two vertebrae under one name make every neighbour look low: a third, sound body must have the larger
    volume too. A body crushed to half its height has lost half its volume. So has one half of a split
    vertebra, whose distance to the other half remains implausible.
    """
    less, more = sorted((one, other), key=lambda level: level.body_volume_mm3)
    sound = [level for level in row if level.name not in {less.name, more.name, *deformed}]
    return (
        less.name in deformed
        and more.name not in deformed
        and any(not _volumes_differ(more, level, rules) for level in sound)
    )


def _falling_volumes(row: Sequence[Level], rules: IdentitySettings) -> list[Phrase]:
    """Bodies grow down the spine: a row that shrinks is named upside down, or is no spine.

    The median over all pairs of levels (Theil and Sen's slope) is insensitive to one or two collapsed bodies.
    """
    if len(row) < TREND_LEVELS:
        return []
    place = np.array([rank_of(level.name) for level in row])
    volume = np.log([level.body_volume_mm3 for level in row])
    first, second = np.triu_indices(len(row), 1)
    trend = float(np.exp(np.median((volume[second] - volume[first]) / (place[second] - place[first]))))
    if trend >= rules.min_volume_trend:
        return []
    return [phrase("bodies-shrink", share=f"{trend:.0%}")]
