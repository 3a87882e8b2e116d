"""What can be wrong with a digital reference study: options of `StudySpec`, echoed by its truth.

None of them touches another vertebra than the one it names, apart from an implant's streaks and the
levels that a sixth lumbar vertebra moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


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
class Jerk:
    """The patient moves once during the scan: all slices above the middle of a level are displaced.

    Table and phantom stay. The displacement is rounded to whole pixels.
    """

    level: str
    left_mm: float = 6.0
    forward_mm: float = 0.0  # never backwards: there the phantom lies


@dataclass(frozen=True, slots=True, kw_only=True)
class Starved:
    """Too few photons at the height of a level: streaks from side to side, as metal or arms leave them."""

    level: str
    streak_hu: float = 60.0  # SD of the streaks in the middle of the body


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
    oral_contrast: bool = False  # in a loop of bowel that hangs down before the great vessels
    jerk: Jerk | None = None
    starved: tuple[Starved, ...] = ()
    spurs_mm: float = 0.0  # how far osteophytes reach beyond the rims of all lumbar endplates
    calcified_aorta: bool = False

    @property
    def levels(self) -> frozenset[str]:
        """All levels that a fault names."""
        return frozenset(
            [
                *(fault.level for fault in self.fractures),
                *(fault.level for fault in self.lesions),
                *(level for fault in self.implants for level in fault.levels),
                *(fault.level for fault in self.starved),
                *([self.jerk.level] if self.jerk else []),
            ]
        )

    @property
    def content(self) -> dict[str, Any]:
        """All faults by name; those that came later only where they are present, so that UIDs stay."""
        content = asdict(self)
        for name in ("oral_contrast", "jerk", "starved", "spurs_mm", "calcified_aorta"):
            if not content[name]:
                del content[name]
        return content

    def fracture_of(self, level: str) -> Fracture | None:
        return next((fault for fault in self.fractures if fault.level == level), None)


NO_FAULTS = Faults()
