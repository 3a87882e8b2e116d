"""What the file of a reference population says, as `Reference`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool

from config.phantom_files import Pair, SiteFile, Stated
from scoring.calibration import Grade, Mineral
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum
from scoring.density.bmd import AgeBin, Reference
from segmentation.vertebrae import LUMBAR, RegionKind

_YOUNG = (18, 45)  # R: years


def _whole_years(raw: Any) -> Any:
    if type(raw) is not int:  # which a bool is not either
        raise ValueError(f"must be a whole number of years, not {raw!r}")
    return raw


_Years = Annotated[int, BeforeValidator(_whole_years), Field(ge=0)]


class _AgeBin(SiteFile):
    age_from: _Years
    age_to: _Years
    # R: what a population of adults can have. Outside, a file is in other units or mistyped.
    mean_mg_cm3: float = Field(ge=20.0, le=400.0)
    sd_mg_cm3: float = Field(ge=2.0, le=100.0)


def _bin(ages: _AgeBin) -> AgeBin:
    if ages.age_from > ages.age_to:
        raise ValueError(f"age_from {ages.age_from} is above age_to {ages.age_to}")
    return AgeBin(**dict(ages))


def _young(ages: AgeBin) -> AgeBin:
    """Who T-scores compare with: at the age of peak bone mass, or T would be a Z-score by another name."""
    if ages.age_from < _YOUNG[0] or ages.age_to > _YOUNG[1]:
        raise ValueError(f"young adults are {_YOUNG[0]} to {_YOUNG[1]} years old")
    return ages


def _adjoining(ages: tuple[AgeBin, ...]) -> tuple[AgeBin, ...]:
    """Bins by rising age. One that overlaps another would have the file's order choose the Z-score."""
    ages = tuple(sorted(ages, key=lambda one: one.age_from))
    for younger, older in pairwise(ages):
        if older.age_from <= younger.age_to:
            raise ValueError(f"two age bins hold the age of {older.age_from}")
        if older.age_from > younger.age_to + 1:
            raise ValueError(f"no age bin holds the age of {younger.age_to + 1}")
    return ages


def _lumbar(levels: tuple[str, ...]) -> tuple[str, ...]:
    if not levels or not set(levels) <= set(LUMBAR) or len(set(levels)) < len(levels):
        raise ValueError(f"must be some of {', '.join(LUMBAR)}, none of them twice")
    return levels


def _scored(grades: tuple[Grade, ...]) -> tuple[Grade, ...]:
    if not grades or Grade.INTERNAL in grades:
        raise ValueError("are phantom, asynchronous, or both: internal calibration gives no score")
    return grades


def _tube_voltages(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] > 0:
        raise ValueError(f"{pair[0]:g} is not a tube voltage")
    return pair


_Bin = Annotated[_AgeBin, AfterValidator(_bin)]


class _ReferenceFile(SiteFile):
    name: Stated
    population: Stated
    authority: str
    source: Stated
    sex: Literal["M", "F", "any"]
    equivalent: Mineral
    levels: Annotated[tuple[str, ...], AfterValidator(_lumbar)]
    young: Annotated[_Bin, AfterValidator(_young)]
    ages: Annotated[tuple[_Bin, ...], AfterValidator(_adjoining)] = ()
    kvp: Annotated[Pair, AfterValidator(_tube_voltages)] | None = None
    demonstration: StrictBool
    roi: RegionKind | None = None
    levels_stated: StrictBool = True
    energy: str = CONVENTIONAL
    beam_filter: str = NO_FILTER
    grades: Annotated[tuple[Grade, ...], AfterValidator(_scored)] = (Grade.PHANTOM,)


def reference_of(raw: Mapping[str, Any]) -> Reference:
    """A reference population from its file's content.

    Raises
    ------
    ValueError
        If something is missing or makes no sense.
    """
    stated = dict(_ReferenceFile.model_validate(raw))
    spectrum = Spectrum(energy=stated.pop("energy"), beam_filter=stated.pop("beam_filter"))
    return Reference(spectrum=spectrum, **stated)
