"""Names that a mask or a network gave, against those that sacrum and last rib in the image give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from segmentation.engines import Segmenter
from segmentation.observation import Observation
from segmentation.vertebrae import LUMBAR, Level, Vertebrae
from segmentation.volume import CtVolume

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
            values={"detail": f"{name} is {other} as counted from {seen.numbering_basis}"},
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


def _same_body(level: Level, seen: Vertebrae) -> Level | None:
    apart = [
        (float(np.linalg.norm(np.subtract(level.centroid_mm, other.centroid_mm))), other)
        for other in seen.levels
    ]
    nearest, other = min(apart, key=lambda pair: pair[0], default=(np.inf, None))
    return other if nearest <= SAME_BODY_MM else None
