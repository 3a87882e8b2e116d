"""Names that a mask or a network gave, against those that sacrum and last rib give."""

from __future__ import annotations

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
    its own names contradicts nobody; one that sees other than five lumbar vertebrae says so.

    Parameters
    ----------
    volume : the CT that `found` was found in.
    witness : an engine that names vertebrae independently, as the geometric one does.
    """
    if not any(level.name in LUMBAR for level in found.levels):
        return found
    seen = witness.segment(volume)
    doubts = [one for one in seen.observations if one.code == "numbering_conflict"]
    if seen.numbering_confirmed:
        doubts += [
            Observation(
                code="level_implausible",
                values={"detail": f"{level.name} is {other.name} as counted from {seen.numbering_basis}"},
            )
            for level in found.levels
            if level.name in LUMBAR
            and (other := _same_body(level, seen)) is not None
            and other.name != level.name
        ]
    checked = {**found.engine.parameters, "cross_check": f"{witness.info.name} {witness.info.version}"}
    return replace(
        found,
        numbering_confirmed=found.numbering_confirmed and not doubts,
        engine=replace(found.engine, parameters=checked),
        observations=(*found.observations, *doubts),
    )


def _same_body(level: Level, seen: Vertebrae) -> Level | None:
    apart = [
        (float(np.linalg.norm(np.subtract(level.centroid_mm, other.centroid_mm))), other)
        for other in seen.levels
    ]
    nearest, other = min(apart, key=lambda pair: pair[0], default=(np.inf, None))
    return other if nearest <= SAME_BODY_MM else None
