"""What can be wrong with a digital reference study: options of `StudySpec`, echoed by its truth.

None of them touches another vertebra than the one it names, apart from an implant's streaks and the
levels that a sixth lumbar vertebra moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FractureShape(StrEnum):
    """After Genant: which of the three heights is lost."""

    WEDGE = "wedge"  # in front
    BICONCAVE = "biconcave"  # in the middle, from both endplates
    CRUSH = "crush"  # all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Fracture:
    """A body that has lost height; the disc follows its sunken endplate, and its neighbours stay in place."""

    level: str
    shape: FractureShape
    height_loss: float  # share of the intact height, where the shape loses most


@dataclass(frozen=True, slots=True, kw_only=True)
class Implant:
    """A pair of pedicle screws in each of these vertebrae, joined by two rods, with streaks."""

    levels: tuple[str, ...]


class LesionKind(StrEnum):
    CEMENT = "cement"
    SCLEROTIC = "sclerotic"
    LYTIC = "lytic"


# Cement with barium, a dense metastasis, soft tissue in the place of bone: typical, not measured.
LESION_HU: Mapping[LesionKind, float] = {
    LesionKind.CEMENT: 900.0,
    LesionKind.SCLEROTIC: 480.0,
    LesionKind.LYTIC: 25.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """Something else than bone in a body's middle third."""

    level: str
    kind: LesionKind
    radius_mm: float = 8.0


class Lumbar(StrEnum):
    """How many vertebrae lie between the last rib and the sacrum."""

    FIVE = "five"
    SIX = "six"  # the sixth is called L6; counted from the last rib all other names are as usual
    SACRALISED = "sacralised"  # L5 is joined to the ilium as a sacral vertebra is


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Everything that is wrong with a study; by default nothing."""

    fractures: tuple[Fracture, ...] = ()
    implants: tuple[Implant, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    lumbar: Lumbar = Lumbar.FIVE
    contrast: bool = False  # vessels, kidneys, liver and spleen as in the portal venous phase
    contrast_documented: bool = False  # in the DICOM header
    cut_mm: tuple[float, float] = (0.0, 0.0)  # taken off the upper and the lower end of the view

    @property
    def levels(self) -> frozenset[str]:
        """All levels that a fault names."""
        return frozenset(
            [
                *(fault.level for fault in self.fractures),
                *(fault.level for fault in self.lesions),
                *(level for fault in self.implants for level in fault.levels),
            ]
        )

    def fracture_of(self, level: str) -> Fracture | None:
        return next((fault for fault in self.fractures if fault.level == level), None)


NO_FAULTS = Faults()
