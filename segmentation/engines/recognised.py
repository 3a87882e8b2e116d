"""Names that somebody else gave, judged: one piece per name, names in a row, a sacrum that looks like one.

A network names each voxel by itself. It can name half of a vertebra L2 and half L3, skip one, or name
nothing, and reports no error. TotalSegmentator's author puts mixed-up vertebrae at 1 to 2 % of CTs (issues
291, 373, 394 and 597 of its repository), so names are believed only where they can be a spine's. A mask
drawn elsewhere is judged in the same way: often a network drew it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmentation.engines import Segmenter
from segmentation.engines.drawn import (
    Piece,
    cut_to_bodies,
    drawn_with_wings,
    measure_bodies,
    neighbour_doubts,
)
from segmentation.gates.fracture import without_collapsed
from segmentation.levels import identity_observations
from segmentation.phrase import Phrase, Value, phrase, together
from segmentation.regions.cancellous import body_coordinates, height_range
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Observation, Vertebrae
from segmentation.volume import CtVolume, Grid, LabelMap, Mask, Reorientation

# Proposals (R).
MIN_BODY_MM3 = 1000.0  # less of a name is a stray blob, or a sliver at the volume's end
# A whole lumbar vertebra holds 60 to 120 cm3: what is larger by far is none, and takes gigabytes to measure.
MAX_VERTEBRA_MM3 = 400_000.0
SPLIT_SHARE = 0.2  # a second piece of a name this large beside the first is no stray blob

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A network's answer within a box of the canonical frame.

    Attributes
    ----------
    turned : the CT in the canonical frame.
    turn : from the source grid to the canonical frame.
    box : the part of `turned` that `labels` covers.
    labels : shape of the box; values of `LABELS`, of whole vertebrae or of bodies, sacrum included.
    bodies : vertebral bodies without names, shape of the box; None where no network segments them.
    split : names whose voxels form two pieces of comparable size.
    """

    turned: CtVolume
    turn: Reorientation
    box: Box
    labels: LabelMap
    bodies: Mask | None
    split: tuple[str, ...] = ()


def nothing_found(volume: CtVolume, engine: EngineInfo, why: Observation | None = None) -> Vertebrae:
    """An image without a lumbar vertebra, or one in which, for a reason given, none was looked for."""
    return Vertebrae(
        grid=volume.grid,
        bodies=np.zeros(volume.grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=engine,
        observations=(why or Observation(code="no_lumbar_level"),),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Named bodies, and what speaks against their names.

    Attributes
    ----------
    bodies : shape of the labels, without the sacrum.
    row : from superior to inferior.
    uncut : why a whole vertebra could not be cut to its body; also among the doubts.
    basis : the anchor that the labels themselves show, as in `Vertebrae.numbering_basis`.
    """

    bodies: LabelMap
    row: tuple[Level, ...]
    doubts: tuple[Observation, ...]
    uncut: tuple[Phrase, ...]
    basis: str

    @property
    def unanchored(self) -> tuple[Observation, ...]:
        """What is to be said where the names have no other word than the drawing's."""
        return (Observation(code="level_unconfirmed"),) if self.basis == "none" else ()


def judge_names(
    labels: LabelMap,
    volume: CtVolume,
    *,
    bodies: Mask | None = None,
    min_body_mm3: float = MIN_BODY_MM3,
    split: Sequence[str] = (),
    identity: IdentitySettings | None = None,
    canal: CanalSettings | None = None,
) -> Judged:
    """Cut a drawing to bodies, one piece for each name, and ask whether the names can be a spine's.

    Parameters
    ----------
    labels : values of `LABELS`, of whole vertebrae or of bodies, on the grid of `volume`, which is in the
        canonical frame.
    bodies : where vertebral bodies are, if somebody has told; else whole vertebrae are cut by geometry.
    min_body_mm3 : less of a name is left out.
    split : names known to have come in two pieces.
    canal : what counts as the canal that whole vertebrae are cut at.
    """
    rules = identity or IdentitySettings()
    sacral = np.isin(labels, (LABELS["sacrum"], LABELS["S1"]))
    sacrum = Piece.largest_of(sacral)
    if sacrum is not None and sacrum.voxels * volume.grid.voxel_volume_mm3 < rules.min_sacrum_mm3:
        sacrum = None
    named = np.where(sacral, np.uint8(0), labels)
    if bodies is not None:
        named[~bodies] = 0
    oversized = _leave_out_oversized(named, volume.grid)
    named, pieces = one_piece_each(named)
    cut, uncut = (named, ()) if bodies is not None else cut_to_bodies(named, volume, canal)
    smallest = int(np.ceil(min_body_mm3 / volume.grid.voxel_volume_mm3))
    cut, row = measure_bodies(cut, volume.grid, min_voxels=smallest)
    doubts = [
        *identity_observations(row, rules),
        *(_implausible(reason) for reason in neighbour_doubts(cut, sacrum, volume.grid, row, rules)),
        *(_implausible(phrase("level-in-pieces", level=name)) for name in sorted({*pieces, *split})),
        *(_implausible(reason) for reason in _too_high(cut, volume.grid, row, rules)),
        *(_implausible(reason) for reason in (*oversized, *uncut)),
    ]
    return Judged(
        bodies=cut,
        row=row,
        doubts=tuple(doubts),
        uncut=uncut,
        basis=numbering_basis(row, sacrum, volume.grid),
    )


def to_vertebrae(
    volume: CtVolume,
    recognised: Recognised,
    engine: EngineInfo,
    identity: IdentitySettings | None = None,
    canal: CanalSettings | None = None,
) -> Vertebrae:
    """Bodies, names and doubts, on the volume's own grid."""
    turned = recognised.turned
    part = replace(turned, hu=turned.hu[recognised.box], grid=turned.grid.part(recognised.box))
    judged = judge_names(
        recognised.labels,
        part,
        bodies=recognised.bodies,
        split=recognised.split,
        identity=identity,
        canal=canal,
    )
    if not any(level.name in LUMBAR for level in judged.row):
        return nothing_found(volume, engine)
    there: LabelMap = np.zeros(turned.grid.shape, np.uint8)
    there[recognised.box] = judged.bodies
    found = Vertebrae(
        grid=volume.grid,
        bodies=recognised.turn.backward(there),
        levels=judged.row,
        numbering_confirmed=not judged.doubts and not judged.unanchored,
        numbering_basis=judged.basis,
        engine=engine,
        observations=(*judged.doubts, *judged.unanchored),
    )
    return without_collapsed(found, identity)


def _leave_out_oversized(named: LabelMap, grid: Grid) -> list[Phrase]:
    """Take names that cover more than any vertebra out of `named`, and say so."""
    reasons = []
    for name, value in LABELS.items():
        inside = named == value
        volume_mm3 = np.count_nonzero(inside) * grid.voxel_volume_mm3
        if volume_mm3 > MAX_VERTEBRA_MM3:
            named[inside] = 0
            reasons.append(phrase("level-holds", level=name, volume=f"{volume_mm3 / 1000:.0f}"))
    return reasons


def _too_high(bodies: LabelMap, grid: Grid, row: Sequence[Level], rules: IdentitySettings) -> list[Phrase]:
    """Bodies too high for one vertebra: a name that covers two, with the disc between them."""
    boxes = ndimage.find_objects(bodies)
    reasons = []
    for level in row:
        box = boxes[level.label - 1]
        low, high = height_range(body_coordinates(grid, level, box), bodies[box] == level.label, grid, level)
        if high - low > rules.max_height_mm:
            reasons.append(phrase("level-high", level=level.name, height=f"{high - low:.0f}"))
    return reasons


def one_piece_each(labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The largest connected piece of each name, and the names that come in two pieces of comparable size."""
    kept: LabelMap = np.zeros_like(labels)
    split = []
    names = {value: name for name, value in LABELS.items()}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or value not in names:
            continue
        pieces, _ = ndimage.label(labels[box] == value, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        largest = int(np.argmax(sizes))
        kept[box][pieces == largest + 1] = value
        if np.delete(sizes, largest).max(initial=0) >= SPLIT_SHARE * sizes[largest]:
            split.append(names[value])
    return kept, tuple(split)


def numbering_basis(row: Sequence[Level], sacrum: Piece | None, grid: Grid) -> str:
    """What anchors the names in the drawing itself, as in `Vertebrae.numbering_basis`.

    A sacrum does that has a sacrum's shape. A body's being called the twelfth thoracic one does not: nothing
    in a drawing of vertebrae tells it from the first lumbar one. The ribs in the image do (`crosscheck`).
    """
    if sacrum is None or not row:
        return "none"
    return "sacrum" if drawn_with_wings(row[-1], sacrum.border_mm(grid)) else "none"


def _implausible(detail: Phrase) -> Observation:
    return Observation(code="level_implausible", values={"detail": detail})


# Names that a mask or a network gave, against those that sacrum and last rib in the image give.


SAME_BODY_MM = 14.0  # between the middles of two drawings of one body: less than half a body's height (R)


def cross_checked(volume: CtVolume, found: Vertebrae, witness: Segmenter) -> Vertebrae:
    """The same vertebrae, with a doubt for each lumbar name that the witness, which counts, contradicts.

    A row of names that is a spine's in itself may still be one vertebra off. A witness that is not sure of
    its own names contradicts nobody; one that sees other than five lumbar vertebrae says so. Names that the
    witness counts alike rest on what it counts from as well, be it all that anchors them.

    Parameters
    ----------
    volume : the CT that `found` was found in.
    witness : an engine that names vertebrae independently, as the geometric one does.
    """
    if not any(level.name in LUMBAR for level in found.levels):
        return found
    seen = witness.segment(volume)
    doubts = [one for one in seen.observations if one.code == "numbering_conflict"]
    counted = _as_counted(found, seen) if seen.numbering_confirmed else {}
    doubts += [
        Observation(
            code="level_implausible",
            values={
                "detail": phrase(
                    "counted-otherwise", level=name, other=other, anchors=_anchors(seen.numbering_basis)
                )
            },
        )
        for name, other in counted.items()
        if other != name
    ]
    if counted:
        found = _anchored(found, "none" if doubts else seen.numbering_basis)
    checked = {**found.engine.parameters, "cross_check": f"{witness.info.name} {witness.info.version}"}
    return replace(
        found,
        numbering_confirmed=found.numbering_confirmed and not doubts,
        engine=replace(found.engine, parameters=checked),
        observations=(*found.observations, *doubts),
    )


def _as_counted(found: Vertebrae, seen: Vertebrae) -> Mapping[str, str]:
    """What the witness calls the body that carries each lumbar name, where it sees one there."""
    return {
        level.name: other.name
        for level in found.levels
        if level.name in LUMBAR and (other := _same_body(level, seen)) is not None
    }


def _anchored(found: Vertebrae, basis: str) -> Vertebrae:
    """The same, its names no longer unconfirmed for want of an anchor; other doubts stay.

    Parameters
    ----------
    basis : what the witness counts the same names from; "none" where it counts others, and says more.
    """
    if found.numbering_basis == "mask":  # a person's word is not the image's
        return found
    kept = tuple(one for one in found.observations if one.code != "level_unconfirmed")
    return replace(
        found,
        numbering_confirmed=not kept,
        numbering_basis=_together(found.numbering_basis, basis),
        observations=kept,
    )


def _together(own: str, counted: str) -> str:
    """What names rest on where they have an anchor of their own, or none, and another's."""
    return " and ".join(one for one in ("sacrum", "last rib") if one in own or one in counted) or "none"


_ANCHORS = {"sacrum": phrase("sacrum"), "last rib": phrase("last-rib")}


def _anchors(basis: str) -> Value:
    """What names are counted from."""
    return together(_ANCHORS[one] for one in basis.split(" and "))


def _same_body(level: Level, seen: Vertebrae) -> Level | None:
    apart = [
        (float(np.linalg.norm(np.subtract(level.centroid_mm, other.centroid_mm))), other)
        for other in seen.levels
    ]
    nearest, other = min(apart, key=lambda pair: pair[0], default=(np.inf, None))
    return other if nearest <= SAME_BODY_MM else None
