"""The specification of a digital reference study, with its faults.

Faults are options of `StudySpec` and repeated in its truth. None of them changes another vertebra than the
one it names, apart from an implant's streaks and the levels that a sixth lumbar vertebra moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, Self

from node.reference.attenuation import EFFECTIVE_KEV


class FractureShape(StrEnum):
    """After Genant: which of the three heights is lost."""

    WEDGE = "wedge"  # in front
    BICONCAVE = "biconcave"  # in the middle, from both endplates
    CRUSH = "crush"  # all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Fracture:
    """A body that has lost height; the disc follows its sunken endplate, and its neighbours keep their
    positions.

    Attributes
    ----------
    height_loss : share of the intact height, where the shape loses most; above 0, at most 0.7.
    """

    level: str
    shape: FractureShape
    height_loss: float


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
    """Another material than bone in a body's middle third.

    Attributes
    ----------
    radius_mm : 2 to 14.
    """

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

    Attributes
    ----------
    left_mm : to the patient's left.
    forward_mm : never negative: the phantom lies behind the patient.
    """

    level: str
    left_mm: float = 6.0
    forward_mm: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Starved:
    """Too few photons at the height of a level: streaks from side to side, as metal or arms leave them.

    Attributes
    ----------
    streak_hu : SD of the streaks in the middle of the body.
    """

    level: str
    streak_hu: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Everything that is wrong with a study; by default nothing.

    Attributes
    ----------
    contrast : vessels, kidneys, liver and spleen as in the portal venous phase.
    contrast_documented : in the DICOM header.
    cut_mm : taken off the upper and the lower end of the view.
    oral_contrast : in a loop of bowel that hangs down before the great vessels.
    spurs_mm : how far osteophytes reach beyond the rims of all lumbar endplates; 0, or 4 to 15.
    """

    fractures: tuple[Fracture, ...] = ()
    implants: tuple[Implant, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    lumbar: Lumbar = Lumbar.FIVE
    contrast: bool = False
    contrast_documented: bool = False
    cut_mm: tuple[float, float] = (0.0, 0.0)
    oral_contrast: bool = False
    jerk: Jerk | None = None
    starved: tuple[Starved, ...] = ()
    spurs_mm: float = 0.0
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

LEVELS = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2")  # superior to inferior
BODIES = LEVELS[1:7]  # those whose density is specified
LUMBAR = LEVELS[2:7]
WITH_SIXTH = (*LEVELS[:7], "L6", *LEVELS[7:])
PHANTOMS = (
    "siemens-osteo",
    "qrm-bdc-3",
    "qrm-bdc-6",
    "b-mas-200",
    "image-analysis-g2730",
    "intable",
    "mindways-3",
    "none",
)

# A woman of 67 whose bone reads low: invented.
DEFAULT_BMD_MG_CM3: Mapping[str, float] = {
    "T12": 104.0, "L1": 102.0, "L2": 99.0, "L3": 96.0, "L4": 97.0, "L5": 101.0,
}  # fmt: skip


class SpecInvalid(ValueError):
    """A study that cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """A digital reference study. The same specification always gives the same bytes."""

    bmd_mg_cm3: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_BMD_MG_CM3))  # HA equivalent
    kvp: int = 120
    seed: int = 1
    noise_hu: float = 18.0  # SD of single voxels in soft tissue
    texture_hu: float = 18.0  # SD of the trabecular pattern
    pixel_spacing_mm: tuple[float, float] = (0.74, 0.74)  # (row, column)
    matrix: int = 512
    slice_spacing_mm: float = 2.0
    slice_thickness_mm: float = 2.0
    view: tuple[str, str] = ("T12", "S1")  # the topmost and lowest vertebra wholly in view
    phantom: str = "siemens-osteo"
    scoliosis_degrees: float = 0.0  # Cobb angle between T12 and L5, convex to the left
    rotation_degrees: float = 0.0  # of the patient about the long axis; the phantom stays
    marrow_fat: float | None = None  # yellow marrow by volume of the marrow; None: what is usual at that age
    age_years: int = 67
    sex: str = "F"
    patient_id: str = "REFERENCE-1"
    patient_name: str = "Reference^Digital"
    issuer: str = "OSTEONODE"
    accession_number: str = "REF0001"
    study_date: date = date(2026, 1, 15)
    faults: Faults = NO_FAULTS
    # One tilted slice through the middle of each of these bodies in place of a volume; see `study.planes_of`.
    slice_levels: tuple[str, ...] = ()
    slice_offset_mm: float = 0.0  # how far above that middle
    european_spine_phantom: bool = False  # in the patient's place; its densities are its own

    def __post_init__(self) -> None:
        problems = {
            f"kvp must be one of {sorted(EFFECTIVE_KEV)}": self.kvp not in EFFECTIVE_KEV,
            f"phantom must be one of {', '.join(PHANTOMS)}": self.phantom not in PHANTOMS,
            f"view must name two of {', '.join(self.levels)}, the upper one first": not _is_view(
                self.view, self.levels
            ),
            f"bmd_mg_cm3 must name {', '.join(BODIES)}": set(self.bmd_mg_cm3) != set(BODIES),
            "BMD must lie between 0 and 400 mg/cm3": not all(0 <= v <= 400 for v in self.bmd_mg_cm3.values()),
            "spacing, thickness and matrix must be positive": min(
                *self.pixel_spacing_mm, self.slice_spacing_mm, self.slice_thickness_mm, self.matrix
            )
            <= 0,
            "noise and texture must not be negative": not (
                self.noise_hu >= 0 and self.texture_hu >= 0  # so that a NaN does not pass either
            ),
            "scoliosis must lie within 40 degrees, rotation within 15": abs(self.scoliosis_degrees) > 40
            or abs(self.rotation_degrees) > 15,
            "marrow fat must lie between 0 and 1": self.marrow_fat is not None
            and not 0 <= self.marrow_fat <= 1,
            "sex must be M, F, O or empty": self.sex not in ("M", "F", "O", ""),
            "age must lie between 18 and 110": not 18 <= self.age_years <= 110,
            f"faults must name levels of {', '.join(LUMBAR)}": not self.faults.levels <= set(LUMBAR),
            "a fracture loses between 0 and 70 % of the height": not all(
                0 < fracture.height_loss <= 0.7 for fracture in self.faults.fractures
            ),
            "a lesion has a radius of 2 to 14 mm": not all(
                2 <= lesion.radius_mm <= 14 for lesion in self.faults.lesions
            ),
            "osteophytes reach between 4 and 15 mm": self.faults.spurs_mm != 0
            and not 4 <= self.faults.spurs_mm <= 15,
            "a view can be cut, not widened": min(self.faults.cut_mm) < 0,
            "a patient on a phantom does not move backwards": self.faults.jerk is not None
            and self.faults.jerk.forward_mm < 0,
            "the European Spine Phantom has no faults and is scanned as a volume": self.european_spine_phantom
            and (self.faults != NO_FAULTS or bool(self.slice_levels)),
            f"slice levels must be among {', '.join(self.levels)}": not set(self.slice_levels)
            <= set(self.levels),
        }
        wrong = [text for text, applies in problems.items() if applies]
        if wrong:
            raise SpecInvalid("; ".join(wrong))

    @classmethod
    def reduced(cls, **changes: object) -> Self:
        """A study with fewer and smaller slices that renders in a second or two, for tests.

        Parameters
        ----------
        changes : fields of the specification.
        """
        small: dict[str, object] = {
            "pixel_spacing_mm": (1.7, 1.7),
            "matrix": 208,
            "slice_spacing_mm": 3.0,
            "slice_thickness_mm": 3.0,
        }
        return cls(**{**small, **changes})  # type: ignore[arg-type]

    @classmethod
    def one_slice_each(cls, *levels: str, **changes: object) -> Self:
        """One tilted slice of 10 mm at 80 kV through each level: the technique before spiral scanners.

        Parameters
        ----------
        changes : fields of the specification.
        """
        technique: dict[str, object] = {
            "slice_levels": levels,
            "kvp": 80,
            "slice_spacing_mm": 10.0,
            "slice_thickness_mm": 10.0,
            "noise_hu": 10.0,  # five times the dose of a slice of 2 mm, of softer radiation
        }
        return cls(**{**technique, **changes})  # type: ignore[arg-type]

    @property
    def levels(self) -> tuple[str, ...]:
        """Of this patient's spine, superior to inferior."""
        return WITH_SIXTH if self.faults.lumbar is Lumbar.SIX else LEVELS

    @property
    def lumbar(self) -> tuple[str, ...]:
        return tuple(name for name in self.levels if name.startswith("L"))

    def bmd_of(self, name: str) -> float:
        """As specified; of vertebrae beyond those, as the nearest one."""
        return self.bmd_mg_cm3.get(name, self.bmd_mg_cm3["L5" if name == "L6" else "T12"])

    @property
    def content(self) -> dict[str, Any]:
        """Everything that makes this study, for truth.json and UIDs; what is off is left out."""
        content = asdict(self)
        if self.faults == NO_FAULTS:
            del content["faults"]
        else:
            content["faults"] = self.faults.content
        if not self.slice_levels:
            del content["slice_levels"], content["slice_offset_mm"]
        if not self.european_spine_phantom:
            del content["european_spine_phantom"]
        return content

    @property
    def kev(self) -> float:
        return EFFECTIVE_KEV[self.kvp]

    @property
    def fat_fraction(self) -> float:
        """Yellow marrow by volume of vertebral marrow; rises with age (R: about 0.3 at 30, 0.55 at 75)."""
        if self.marrow_fat is not None:
            return self.marrow_fat
        return min(0.75, max(0.2, 0.3 + 0.0055 * (self.age_years - 30)))


def _is_view(view: tuple[str, str], levels: tuple[str, ...]) -> bool:
    return all(name in levels for name in view) and levels.index(view[0]) <= levels.index(view[1])


def parse_bmd(text: str) -> dict[str, float]:
    """Densities as the command line takes them: "L1=110,L3=95".

    Returns
    -------
    BMD of every body in mg/cm3: interpolated between two named levels, constant beyond the outermost ones.

    Raises
    ------
    SpecInvalid
        If a part is not LEVEL=NUMBER with a level from T12 to L5, or a level is named twice.
    """
    named: dict[int, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*", part)
        if match is None or match[1] not in BODIES:
            raise SpecInvalid(f"{part.strip()!r} is not LEVEL=mg/cm3 with a level from T12 to L5")
        place = BODIES.index(match[1])
        if place in named:
            raise SpecInvalid(f"{match[1]} is named twice")
        named[place] = float(match[2])
    return {name: _between(named, place) for place, name in enumerate(BODIES)}


def _between(named: Mapping[int, float], place: int) -> float:
    above = max((p for p in named if p <= place), default=None)
    below = min((p for p in named if p >= place), default=None)
    if above is None or below is None:
        return named[below if above is None else above]  # type: ignore[index]
    if above == below:
        return named[above]
    share = (place - above) / (below - above)
    return named[above] + share * (named[below] - named[above])
