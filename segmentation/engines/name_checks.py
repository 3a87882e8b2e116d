"""Checks of level names that a network or a mask gives: one piece each, a plausible row, a sacrum.

A network names each voxel independently. It may name half of a vertebra L2 and half L3, skip a vertebra, or
name none, without an error. TotalSegmentator's author estimates mixed-up vertebrae in 1 to 2 % of CTs (issues
291, 373, 394 and 597 of its repository). Names are therefore accepted only where they are those of a spine. A
mask drawn elsewhere is checked in the same way: networks draw many of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmentation.ct_volume import Box, CtVolume, Grid, LabelMap, Mask, Reorientation
from segmentation.engines import Segmenter
from segmentation.engines.drawn import (
    Component,
    cut_to_bodies,
    has_sacral_wings,
    measure_bodies,
    neighbour_doubts,
)
from segmentation.gates.fracture import without_collapsed
from segmentation.levels import identity_observations
from segmentation.phrase import Phrase, Value, phrase, together
from segmentation.regions.cancellous import body_coordinates, height_range
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Observation, Vertebrae, no_vertebrae

# Proposals (R).
MIN_BODY_MM3 = 1000.0  # a smaller piece is an artefact, or the end of a body that the volume cuts
# A whole lumbar vertebra has 60 to 120 cm3: a far larger piece is none, and takes gigabytes to measure.
MAX_VERTEBRA_MM3 = 400_000.0
SPLIT_SHARE = 0.2  # a second piece of a name this large beside the first is no stray blob


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLabels:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNames:
    """Named bodies, with the reasons against their names.

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
        """`level_unconfirmed` where nothing but the drawing supports the names."""
        return (Observation(code="level_unconfirmed"),) if self.basis == "none" else ()


def check_names(
    labels: LabelMap,
    volume: CtVolume,
    *,
    bodies: Mask | None = None,
    min_body_mm3: float = MIN_BODY_MM3,
    split: Sequence[str] = (),
    identity: IdentitySettings | None = None,
    canal: CanalSettings | None = None,
) -> CheckedNames:
    """Cut a drawing to bodies, one piece for each name, and check whether the names are those of a spine.

    Parameters
    ----------
    labels : values of `LABELS`, of whole vertebrae or of bodies, on the grid of `volume`, which is in the
        canonical frame.
    bodies : mask of vertebral bodies, where a network gives one; otherwise whole vertebrae are cut by
        geometry.
    min_body_mm3 : names with less volume are left out.
    split : names known to have two pieces.
    canal : limits of the canal by which whole vertebrae are cut.
    """
    rules = identity or IdentitySettings()
    sacral = np.isin(labels, (LABELS["sacrum"], LABELS["S1"]))
    sacrum = Component.largest_of(sacral)
    if sacrum is not None and sacrum.voxels * volume.grid.voxel_volume_mm3 < rules.min_sacrum_mm3:
        sacrum = None
    named = np.where(sacral, np.uint8(0), labels)
    if bodies is not None:
        named[~bodies] = 0
    oversized = _remove_oversized(named, volume.grid)
    named, pieces = largest_pieces(named)
    cut, uncut = (named, ()) if bodies is not None else cut_to_bodies(named, volume, canal)
    smallest = int(np.ceil(min_body_mm3 / volume.grid.voxel_volume_mm3))
    cut, row = measure_bodies(cut, volume.grid, min_voxels=smallest)
    not_one_body = {
        **{name: phrase("level-in-pieces", level=name) for name in sorted({*pieces, *split})},
        **_too_high(cut, volume.grid, row, rules),
    }
    doubts = [
        *identity_observations(row, rules),
        *(_implausible(reason) for reason in neighbour_doubts(cut, sacrum, volume.grid, row, rules)),
        *(_implausible(reason) for reason in not_one_body.values()),
        *(_implausible(reason) for reason in (*oversized, *uncut)),
        *(
            Observation(code="label_not_one_body", level=name, values={"detail": reason})
            for name, reason in not_one_body.items()
        ),
    ]
    return CheckedNames(
        bodies=cut,
        row=row,
        doubts=tuple(doubts),
        uncut=uncut,
        basis=numbering_basis(row, sacrum, volume.grid),
    )


def to_vertebrae(
    volume: CtVolume,
    recognised: NetworkLabels,
    engine: EngineInfo,
    identity: IdentitySettings | None = None,
    canal: CanalSettings | None = None,
) -> Vertebrae:
    """A network's labels as checked vertebrae on the volume's own grid.

    Parameters
    ----------
    volume : the source volume of `recognised`.
    """
    turned = recognised.turned
    part = replace(turned, hu=turned.hu[recognised.box], grid=turned.grid.part(recognised.box))
    judged = check_names(
        recognised.labels,
        part,
        bodies=recognised.bodies,
        split=recognised.split,
        identity=identity,
        canal=canal,
    )
    if not any(level.name in LUMBAR for level in judged.row):
        return no_vertebrae(volume, engine)
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


def _remove_oversized(named: LabelMap, grid: Grid) -> list[Phrase]:
    """Remove names that cover more than any vertebra from `named`, in place, and return the reasons."""
    reasons = []
    for name, value in LABELS.items():
        inside = named == value
        volume_mm3 = np.count_nonzero(inside) * grid.voxel_volume_mm3
        if volume_mm3 > MAX_VERTEBRA_MM3:
            named[inside] = 0
            reasons.append(phrase("level-holds", level=name, volume=f"{volume_mm3 / 1000:.0f}"))
    return reasons


def _too_high(
    bodies: LabelMap, grid: Grid, row: Sequence[Level], rules: IdentitySettings
) -> Mapping[str, Phrase]:
    """Bodies too high for one vertebra: a name that covers two, with the disc between them."""
    boxes = ndimage.find_objects(bodies)
    reasons = {}
    for level in row:
        box = boxes[level.label - 1]
        low, high = height_range(body_coordinates(grid, level, box), bodies[box] == level.label, grid, level)
        if high - low > rules.max_height_mm:
            reasons[level.name] = phrase("level-high", level=level.name, height=f"{high - low:.0f}")
    return reasons


def largest_pieces(labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The largest connected piece of each name.

    Returns
    -------
    Labels, and the names whose second piece is at least `SPLIT_SHARE` of the first.
    """
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


def numbering_basis(row: Sequence[Level], sacrum: Component | None, grid: Grid) -> str:
    """What anchors the names in the drawing itself, as in `Vertebrae.numbering_basis`.

    A sacrum with a sacrum's shape anchors them. A body named T12 does not: in a drawing of vertebrae nothing
    distinguishes it from L1. The ribs in the image do (`cross_check`).
    """
    if sacrum is None or not row:
        return "none"
    return "sacrum" if has_sacral_wings(row[-1], sacrum.border_mm(grid)) else "none"


def _implausible(detail: Phrase) -> Observation:
    return Observation(code="level_implausible", values={"detail": detail})


# The cross-check against sacrum and last rib in the image.


SAME_BODY_MM = 14.0  # between the middles of two drawings of one body: less than half a body's height (R)


def cross_check(volume: CtVolume, found: Vertebrae, witness: Segmenter) -> Vertebrae:
    """The same vertebrae, with an observation for each lumbar name that a second engine contradicts.

    A plausible row of names may still be one vertebra off. A witness whose own names are not confirmed
    contradicts no name; one that sees other than five lumbar vertebrae reports that. Names that both engines
    give alike are anchored by whatever anchors the witness.

    Parameters
    ----------
    volume : the CT that `found` was found in.
    witness : an engine that names vertebrae independently, as the geometric one does.
    """
    if not any(level.name in LUMBAR for level in found.levels):
        return found
    seen = witness.segment(volume)
    doubts = [one for one in seen.observations if one.code == "numbering_conflict"]
    counted = _names_by_witness(found, seen) if seen.numbering_confirmed else {}
    doubts += [
        _implausible(
            phrase("counted-otherwise", level=name, other=other, anchors=_anchor_phrase(seen.numbering_basis))
        )
        for name, other in counted.items()
        if other != name
    ]
    if counted:
        found = _with_anchor(found, "none" if doubts else seen.numbering_basis)
    checked = {**found.engine.parameters, "cross_check": f"{witness.info.name} {witness.info.version}"}
    return replace(
        found,
        numbering_confirmed=found.numbering_confirmed and not doubts,
        engine=replace(found.engine, parameters=checked),
        observations=(*found.observations, *doubts),
    )


def _names_by_witness(found: Vertebrae, seen: Vertebrae) -> Mapping[str, str]:
    """The witness's name of the body that has each lumbar name, where it finds one there."""
    return {
        level.name: other.name
        for level in found.levels
        if level.name in LUMBAR and (other := _same_body(level, seen)) is not None
    }


def _with_anchor(found: Vertebrae, basis: str) -> Vertebrae:
    """The vertebrae with the witness's anchor and without `level_unconfirmed`; other observations stay.

    Parameters
    ----------
    basis : the witness's anchor; "none" where its names differ.
    """
    if found.numbering_basis == "mask":  # a person's word is not the image's
        return found
    kept = tuple(one for one in found.observations if one.code != "level_unconfirmed")
    return replace(
        found,
        numbering_confirmed=not kept,
        numbering_basis=_joined_basis(found.numbering_basis, basis),
        observations=kept,
    )


def _joined_basis(own: str, counted: str) -> str:
    """The anchors of the drawing and of the witness together."""
    return " and ".join(one for one in ("sacrum", "last rib") if one in own or one in counted) or "none"


_ANCHOR_PHRASES = {"sacrum": phrase("sacrum"), "last rib": phrase("last-rib")}


def _anchor_phrase(basis: str) -> Value:
    """The anchors of a basis, as a phrase."""
    return together(_ANCHOR_PHRASES[one] for one in basis.split(" and "))


def _same_body(level: Level, seen: Vertebrae) -> Level | None:
    apart = [
        (float(np.linalg.norm(np.subtract(level.centroid_mm, other.centroid_mm))), other)
        for other in seen.levels
    ]
    nearest, other = min(apart, key=lambda pair: pair[0], default=(np.inf, None))
    return other if nearest <= SAME_BODY_MM else None
