"""Level names by anatomical anchors: the sacrum's wings below, the last rib above.

Where neither is in view nothing tells the names. The bodies are then counted from the head, unless a person
states which vertebra the topmost one is.

Both are detected in the straightened column, where "beside the body" has one meaning at every level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, Mask, Points, Profile
from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.frame import sample
from segmentation.phrase import Phrase, phrase
from segmentation.settings import AnchorSettings
from segmentation.vertebrae import unnamed_body

STEP_MM = 2.0
HALF_WIDTH_MM = 110.0
BACK_MM, FRONT_MM = -80.0, 40.0
BESIDE_MM = 26.0  # bone nearer the middle is the vertebra itself
ATTACHED_MM = 34.0  # a rib's neck, a transverse process or a wing begins within this (R)
WING_V_MM = (-45.0, 8.0)
WING_AT_MM = (44.0, 52.0)  # from the middle: there a wing is as high as at its root
NOTHING_HU = -950.0  # beside a vertebra no tissue reads so, and lung hardly: the field of view ends there (R)
THICK_MM = 6.0  # half the thickness that no rib and no process has; contrast in kidney, liver and heart has


class Rib(Enum):
    """Ribs beside a vertebra."""

    PRESENT = "present"  # on both sides
    ABSENT = "absent"
    UNCLEAR = "unclear"  # one side only, a stunted rib, or out of view


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSegment:
    """What lies between two discs of the straightened column, or beyond the first and last.

    Attributes
    ----------
    first_mm : position along the column.
    last_mm : position along the column.
    wings : whether bone joins the segment to the ilium on both sides.
    """

    first_mm: int
    last_mm: int
    ribs: Rib
    wings: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StraightenedColumn:
    """The column and its surroundings on a grid of `STEP_MM`.

    Attributes
    ----------
    hu : (s, u, v).
    s_mm : (s,), along the curve.
    u_mm : (u,), towards left.
    v_mm : (v,), towards anterior.
    """

    hu: Profile
    s_mm: Points
    u_mm: Points
    v_mm: Points


def straighten(volume: CtVolume, curve: Curve) -> StraightenedColumn:
    """Sample the volume along the curve."""
    s = np.arange(0, curve.length, int(STEP_MM))
    u = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + 1, STEP_MM)
    v = np.arange(BACK_MM, FRONT_MM + 1, STEP_MM)
    hu = sample(volume, curve.points(s[:, None, None], u[None, :, None], v[None, None, :]))
    return StraightenedColumn(hu=hu, s_mm=s.astype(float), u_mm=u, v_mm=v)


def describe_segments(
    column: StraightenedColumn, disc_mm: Sequence[int], rules: AnchorSettings
) -> tuple[ColumnSegment, ...]:
    """Ribs and wings of every segment, from inferior to superior."""
    beside = (column.hu > rules.bone_hu) & (np.abs(column.u_mm) >= BESIDE_MM)[None, :, None]
    reach = _rib_reach(column, beside, disc_mm, rules)
    ends = [0, *disc_mm, int(column.s_mm[-1]) + 1]
    winged = _winged(column, ends, rules)
    segments = []
    for number, (first, last) in enumerate(pairwise(ends)):
        rows = (column.s_mm >= first) & (column.s_mm < last)
        top_in_view = number < len(disc_mm) and last - first >= rules.rib_room_mm
        in_view = top_in_view and _sides_in_view(column, rows, rules)
        wings = number in winged
        ribs = Rib.ABSENT if wings else _rib(reach[number], in_view, rules)
        segments.append(ColumnSegment(first_mm=first, last_mm=last, ribs=ribs, wings=wings))
    return tuple(segments)


def _winged(column: StraightenedColumn, ends: Sequence[int], rules: AnchorSettings) -> set[int]:
    """The segments with wings. What looks like wings a whole lumbar spine above the sacrum are ribs."""
    winged = []
    for number, (first, last) in enumerate(pairwise(ends)):
        # Below the lowest disc the column may continue past the sacrum: only the first sacral body counts.
        rows = (column.s_mm >= max(first, last - rules.sacral_height_mm)) & (column.s_mm < last)
        if rows.any() and _has_wings(column, rows, rules):
            winged.append(number)
    first_run = [number for place, number in enumerate(winged) if number - winged[0] == place]
    return {number for number in winged if number in first_run or number < first_run[-1] + LUMBAR_COUNT}


def _rib_reach(
    column: StraightenedColumn, beside: Mask, disc_mm: Sequence[int], rules: AnchorSettings
) -> npt.NDArray[np.float64]:
    """How far thin bone attached behind each segment reaches to the right and left; shape (segments, 2)."""
    unclear_mm = (rules.rib_reach_mm + rules.process_reach_mm) / 2
    neck_mm = rules.rib_neck_behind_mm
    radius = round(THICK_MM / STEP_MM)
    core = ndimage.binary_erosion(beside, iterations=radius)
    thin = beside & ~ndimage.binary_dilation(core, iterations=radius + 2)
    labels, _ = ndimage.label(thin, np.ones((3, 3, 3)))
    reach = np.zeros((len(disc_mm) + 1, 2))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        k, i, j = (
            index + part.start for index, part in zip(np.nonzero(labels[box] == number), box, strict=True)
        )
        out = np.abs(column.u_mm[i])
        if out.min() > ATTACHED_MM:
            continue
        near = out <= out.min() + 6.0
        at, behind = float(column.s_mm[k[near]].mean()), -float(column.v_mm[j[near]].mean())
        far = float(column.s_mm[k[out >= out.max() - 8.0]].mean())
        # The lower ribs fall away sideways; what rises sideways from the column is the pelvis.
        if neck_mm[0] <= behind <= neck_mm[1] and far <= at + 10.0:
            side = int(column.u_mm[i[0]] > 0)
            segment = int(np.searchsorted(disc_mm, at))
            # A root that the column's end cuts proves nothing, unless it begins where this vertebra's does.
            near_disc = bool(disc_mm) and at <= disc_mm[-1] + rules.thoracic_spacing_mm
            surely = near_disc and column.s_mm[-1] - disc_mm[-1] >= rules.rib_room_mm
            cut = not surely and k[near].max() >= len(column.s_mm) - 1
            reach[segment, side] = max(reach[segment, side], unclear_mm if cut else float(out.max()))
    return reach


def _sides_in_view(column: StraightenedColumn, rows: Mask, rules: AnchorSettings) -> bool:
    """Whether a rib would be seen: the volume reaches far enough on both sides behind the segment."""
    behind = (column.v_mm >= -45.0) & (column.v_mm <= -15.0)
    for side in (-1.0, 1.0):
        columns = (column.u_mm * side >= ATTACHED_MM) & (column.u_mm * side <= rules.rib_reach_mm)
        part = column.hu[np.ix_(rows, columns, behind)]
        if part.size == 0 or (part <= NOTHING_HU).mean() > 0.3:
            return False
    return True


def _rib(reach: Profile, in_view: bool, rules: AnchorSettings) -> Rib:
    if (reach >= rules.rib_reach_mm).all():
        return Rib.PRESENT
    if in_view and (reach <= rules.process_reach_mm).all():
        return Rib.ABSENT
    return Rib.UNCLEAR


def _has_wings(column: StraightenedColumn, rows: Mask, rules: AnchorSettings) -> bool:
    """Whether, within this segment alone, bone leads from the body over to the ilium on both sides."""
    out = np.abs(column.u_mm)
    between = (column.v_mm >= WING_V_MM[0]) & (column.v_mm <= WING_V_MM[1])
    hu, v_mm = column.hu[rows][:, :, between], column.v_mm[between]
    bone = hu > rules.wing_hu
    vertebra_hu = hu[:, out <= ATTACHED_MM][bone[:, out <= ATTACHED_MM]]
    if not vertebra_hu.size:
        return False
    bright_hu = max(rules.wing_bright_hu, rules.wing_bright_share * float(np.quantile(vertebra_hu, 0.8)))
    labels, _ = ndimage.label(bone & (out >= BESIDE_MM)[None, :, None], np.ones((3, 3, 3)))
    sides = [
        float(np.sign(column.u_mm[box[1].start]))
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
        if _is_wing(labels[box] == number, hu[box], (out[box[1]], v_mm[box[2]]), bright_hu, rules)
    ]
    return {-1.0, 1.0} <= set(sides)


def _is_wing(
    part: Mask, hu: Profile, axes_mm: tuple[Points, Points], bright_hu: float, rules: AnchorSettings
) -> bool:
    """Whether one connected piece beside a segment, in its own box (s, u, v), is a wing of the sacrum.

    Parameters
    ----------
    axes_mm : distance to the side along the box's second axis, and place towards the front along its third.
    """
    out, v_mm = axes_mm
    root = part & (out <= ATTACHED_MM)[None, :, None]
    far = part & (out >= WING_AT_MM[0])[None, :, None]
    if not root.any() or not far.any():
        return False
    behind_mm = -float(v_mm[np.nonzero(root)[2]].mean())
    bright = float(np.quantile(hu[far], 0.95)) >= bright_hu
    beyond = (out >= WING_AT_MM[0]) & (out <= WING_AT_MM[1])
    high = all(
        _height_mm(part & at[None, :, None]) >= rules.wing_height_mm for at in (out <= ATTACHED_MM, beyond)
    )
    return bright and high and behind_mm <= rules.wing_root_behind_mm


def _height_mm(part: Mask) -> float:
    """Of everything in it together, along the column."""
    return float(part.any(axis=(1, 2)).sum() * STEP_MM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """Names of the segments, and what they rest on.

    Attributes
    ----------
    names : by segment, from inferior to superior; None for the sacrum and for names not in use. Without an
        anchor they are places, as `segmentation.vertebrae.unnamed_body` states them.
    basis : as in `Vertebrae.numbering_basis`.
    conflict : how sacrum, ribs and a statement disagree; None where they agree.
    """

    names: tuple[str | None, ...]
    confirmed: bool
    basis: str
    conflict: Phrase | None = None


# From inferior to superior, beginning above the sacrum.
UPWARD = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10")
LUMBAR_COUNT = 5
# What the topmost whole body may be stated to be; T12 where no rib is in view beside it.
STATEABLE = UPWARD[LUMBAR_COUNT::-1]
THORACIC = UPWARD[LUMBAR_COUNT:]


def number_segments(
    segments: Sequence[ColumnSegment], lumbar_sized: Sequence[bool], first_level: str | None = None
) -> Numbering:
    """Name the segments from the sacrum, from the last rib or, failing both, from what a person states.

    Without any of the three the segments get places, not names.

    Parameters
    ----------
    lumbar_sized : per segment, whether a whole body of lumbar size was found there.
    first_level : name of the topmost whole body below the ribs in view, as a person states it; one of
        `STATEABLE`.
    """
    counted = _counted(segments, lumbar_sized)
    row = _lumbar_row(segments, lumbar_sized)
    if first_level is not None and row:
        counted = _with_statement(counted, row[-1], first_level, len(segments))
    against = _ribs_against(segments, counted.names)
    if counted.basis == "none" or counted.conflict is not None or against is None:
        return counted
    return replace(counted, confirmed=False, conflict=against)


def _counted(segments: Sequence[ColumnSegment], lumbar_sized: Sequence[bool]) -> Numbering:
    """Names counted from the anchors, without a check of the ribs beside the other vertebrae."""
    sacrum = _sacrum(segments)
    last_rib = _last_rib(segments)
    if sacrum is not None and last_rib is not None:
        between = last_rib - sacrum - 1
        return Numbering(
            names=_names(len(segments), sacrum + 1),
            confirmed=between == LUMBAR_COUNT,
            basis="sacrum and last rib",
            conflict=None if between == LUMBAR_COUNT else phrase("vertebrae-between", count=between),
        )
    if sacrum is not None:
        return Numbering(names=_names(len(segments), sacrum + 1), confirmed=True, basis="sacrum")
    if last_rib is not None:
        below = last_rib - LUMBAR_COUNT - 1
        sixth = below >= 0 and lumbar_sized[below]
        return Numbering(
            names=_names(len(segments), last_rib - LUMBAR_COUNT),
            confirmed=not sixth,
            basis="last rib",
            conflict=phrase("sixth-body") if sixth else None,
        )
    row = _lumbar_row(segments, lumbar_sized)
    places = {number: unnamed_body(len(row) - at, len(row)) for at, number in enumerate(row)}
    names = tuple(places.get(number) for number in range(len(segments)))
    return Numbering(names=names, confirmed=False, basis="none")


def _with_statement(counted: Numbering, topmost: int, first_level: str, segments: int) -> Numbering:
    """Names by a person's statement where no anchor gives any; else the count, held against the statement.

    Parameters
    ----------
    topmost : number of the segment with the topmost whole lumbar body.
    """
    if counted.basis == "none":
        names = _names(segments, topmost - UPWARD.index(first_level))
        return Numbering(names=names, confirmed=True, basis="stated")
    level = counted.names[topmost]
    if counted.conflict is not None or level is None or level == first_level:
        return counted
    conflict = phrase("stated-otherwise", level=level, stated=first_level)
    return replace(counted, confirmed=False, conflict=conflict)


def _ribs_against(segments: Sequence[ColumnSegment], names: Sequence[str | None]) -> Phrase | None:
    """Contradiction of names and ribs: a thoracic vertebra without ribs, or a lumbar one with them.

    Of six lumbar vertebrae counted from the sacrum the sixth is named "T12"; of four the twelfth thoracic one
    is named "L1". The sides of the vertebra in question show the error where they are in view.
    """
    lowest = _lowest_rib(segments)
    for number, (segment, name) in enumerate(zip(segments, names, strict=True)):
        if name is None:
            continue
        if name in THORACIC and segment.ribs is Rib.ABSENT:
            return phrase("no-ribs-as-counted", level=name)
        if name not in THORACIC and number == lowest:
            return phrase("ribs-as-counted", level=name)
    return None


def _names(count: int, fifth: int) -> tuple[str | None, ...]:
    """Names where segment number `fifth` (which may lie below the image) is L5."""
    return tuple(UPWARD[k - fifth] if 0 <= k - fifth < len(UPWARD) else None for k in range(count))


def _sacrum(segments: Sequence[ColumnSegment]) -> int | None:
    """The topmost of the winged segments that reach up from the lowest one in view."""
    winged = [k for k, segment in enumerate(segments) if segment.wings]
    # Below the first sacral segment there may be one that cannot be distinguished from its surroundings.
    return max(winged) if winged and max(winged) <= len(winged) else None


def _last_rib(segments: Sequence[ColumnSegment]) -> int | None:
    """The lowest segment with ribs, where the one below it is in view and clearly has none."""
    lowest = _lowest_rib(segments)
    if lowest is None or lowest == 0:
        return None
    return lowest if segments[lowest - 1].ribs is Rib.ABSENT else None


def _lowest_rib(segments: Sequence[ColumnSegment]) -> int | None:
    """The lowest ribbed segment of the row that begins at the top: below a bare vertebra none bears ribs."""
    lowest = None
    for number in range(len(segments) - 1, -1, -1):
        if segments[number].ribs is Rib.ABSENT:
            break
        if segments[number].ribs is Rib.PRESENT:
            lowest = number
    return lowest


def _lumbar_row(segments: Sequence[ColumnSegment], lumbar_sized: Sequence[bool]) -> range:
    """The segments from the lowest to the topmost whole body of lumbar size that lies below the ribs.

    A segment between two of them holds a vertebra too, even if its body was not found.
    """
    rib = _lowest_rib(segments)
    below_ribs = lumbar_sized[:rib] if rib is not None else lumbar_sized
    whole = [number for number, sized in enumerate(below_ribs) if sized]
    return range(whole[0], whole[-1] + 1) if whole else range(0)
