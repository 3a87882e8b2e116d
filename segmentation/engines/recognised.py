"""What a trained network named, judged: one piece per name, names in a row, an anchor at one end.

A network names each voxel by itself. It can name half of a vertebra L2 and half L3, skip one, or name
nothing, and reports no error. TotalSegmentator's author puts mixed-up vertebrae at 1 to 2 % of CTs (issues
291, 373, 394 and 597 of its repository), so names are believed only where they can be a spine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmentation.engines.drawn import cut_to_bodies, measure_bodies
from segmentation.levels import identity_observations
from segmentation.observation import Observation
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Level, Vertebrae
from segmentation.volume import CtVolume, LabelMap, Mask, Reorientation

# Proposals (R).
MIN_BODY_MM3 = 1000.0  # less of a name is a stray blob, or a sliver at the volume's end
MIN_SACRUM_MM3 = 3000.0
SPLIT_SHARE = 0.2  # a second piece of a name this large beside the first is no stray blob

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A network's answer within a box of the canonical frame."""

    turned: CtVolume  # in the canonical frame
    turn: Reorientation  # how it got there
    box: Box
    labels: LabelMap  # shape of the box; values of `LABELS`, of whole vertebrae or of bodies; sacrum included
    bodies: Mask | None  # vertebral bodies, unnamed; None where no network was asked for them
    split: tuple[str, ...] = ()  # names that came in two pieces of comparable size


def nothing_found(volume: CtVolume, engine: EngineInfo) -> Vertebrae:
    """An image without a lumbar vertebra."""
    return Vertebrae(
        grid=volume.grid,
        bodies=np.zeros(volume.grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=engine,
        observations=(Observation(code="no_lumbar_level"),),
    )


def to_vertebrae(volume: CtVolume, recognised: Recognised, engine: EngineInfo) -> Vertebrae:
    """Bodies, names and doubts, on the volume's own grid."""
    turned = recognised.turned
    part = CtVolume(hu=turned.hu[recognised.box], grid=turned.grid.part(recognised.box))
    sacrum = np.isin(recognised.labels, (LABELS["sacrum"], LABELS["S1"]))
    named = np.where(sacrum, np.uint8(0), recognised.labels)
    if recognised.bodies is not None:
        named[~recognised.bodies] = 0
    named, split = one_piece_each(named)
    bodies, uncut = (named, ()) if recognised.bodies is not None else cut_to_bodies(named, part)
    smallest = int(np.ceil(MIN_BODY_MM3 / part.grid.voxel_volume_mm3))
    bodies, row = measure_bodies(bodies, part.grid, min_voxels=smallest)
    if not any(level.name in LUMBAR for level in row):
        return nothing_found(volume, engine)
    doubts = [
        *identity_observations(row),
        *(_implausible(f"{name} is in two pieces") for name in sorted({*split, *recognised.split})),
        *(_implausible(reason) for reason in uncut),
    ]
    sacrum_in_view = sacrum.sum() * part.grid.voxel_volume_mm3 >= MIN_SACRUM_MM3
    if sacrum_in_view and row[-1].name != "L5":
        doubts.append(_implausible(f"the sacrum follows {row[-1].name}"))
    basis = numbering_basis(row, sacrum_in_view=bool(sacrum_in_view))
    if basis == "none":
        doubts.append(Observation(code="level_unconfirmed"))
    there: LabelMap = np.zeros(turned.grid.shape, np.uint8)
    there[recognised.box] = bodies
    return Vertebrae(
        grid=volume.grid,
        bodies=recognised.turn.backward(there),
        levels=row,
        numbering_confirmed=not doubts,
        numbering_basis=basis,
        engine=engine,
        observations=tuple(doubts),
    )


def one_piece_each(labels: LabelMap) -> tuple[LabelMap, tuple[str, ...]]:
    """The largest connected piece of each name, and the names that come in two pieces of comparable size."""
    kept: LabelMap = np.zeros_like(labels)
    split = []
    names = {value: name for name, value in LABELS.items()}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or value not in names:
            continue
        pieces, _ = ndimage.label(labels[box] == value)
        sizes = np.bincount(pieces.ravel())[1:]
        largest = int(np.argmax(sizes))
        kept[box][pieces == largest + 1] = value
        if np.delete(sizes, largest).max(initial=0) >= SPLIT_SHARE * sizes[largest]:
            split.append(names[value])
    return kept, tuple(split)


def numbering_basis(row: Sequence[Level], *, sacrum_in_view: bool) -> str:
    """What the names are anchored by, as in `Vertebrae.numbering_basis`.

    The twelfth thoracic vertebra stands for the last rib, which tells it from the first lumbar one.
    """
    names = {level.name for level in row}
    anchors = []
    if sacrum_in_view and "L5" in names:
        anchors.append("sacrum")
    if {"T12", "L1"} <= names:
        anchors.append("last rib")
    return " and ".join(anchors) or "none"


def _implausible(detail: str) -> Observation:
    return Observation(code="level_implausible", values={"detail": detail})
