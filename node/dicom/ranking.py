"""Which of several series, or sets of single slices, is measured, and by what the others lost to it.

In this order: a phantom in view that can be used; no contrast medium by the header; a conventional spectrum;
how much of the lumbar spine is shown; the kernel; thin slices. Of equals the one that was acquired first is
taken, then the one with the lowest series number, and last that with the lowest UID, so that the choice never
depends on the order in which images arrived.

Coverage is an estimate, for nothing is segmented to choose a series: the extent of the slices along the body,
times the share of a few slices, evenly spread, that look like a lumbar one (`segmentation.lumbar_view`). What
exceeds the length of L1 to L5 does not count, and neither does a difference of less than a vertebra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import inf

# L1 to L5 with their discs are 170 to 200 mm long. R.
LUMBAR_MM = 200.0
_ALIKE_MM = 25.0  # R: coverage that differs by less does not decide: less than a vertebra with its disc


class PhantomSeen(IntEnum):
    """What is known of the phantom in a series, best first."""

    COMPLETE = 0  # every rod is in view, and nothing is to be said against them
    FLAWED = 1  # in view, and not fit for use
    ABSENT = 2


class Contrast(IntEnum):
    """What headers say of intravenous contrast medium, best first."""

    NONE = 0
    DOUBTFUL = 1
    GIVEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a few slices of a series, and their headers, tell."""

    phantom: PhantomSeen
    contrast: Contrast  # by the headers
    spectral: bool  # whether it is monoenergetic or of several energies
    extent_mm: float  # of the lumbar spine in view, estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class Merits:
    """What series are compared by."""

    glance: Glance
    covered_mm: float  # what counts as coverage, at most `LUMBAR_MM`
    sharpness: int
    thickness_mm: float | None
    acquired: str  # date and time as digits; "" where it is not known
    number: float | None  # SeriesNumber
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The place of the best, and why each other lost to it."""

    best: int
    reasons: dict[int, str]
    passed_over: tuple[str, ...]  # what others have that lost for their phantom, contrast or spectrum


def prefer(merits: Sequence[Merits]) -> Verdict:
    """The best of at least one, by the criteria in their order; each other is told by which it lost."""
    left = list(range(len(merits)))
    reasons: dict[int, str] = {}
    unfit: list[int] = []
    for criterion in _criteria():
        best = min(criterion.key(merits[place]) for place in left)
        for place in list(left):
            if criterion.is_worse(merits[place], best):
                reasons[place] = criterion.reason or lacking_phantom(merits[place].glance.phantom)
                left.remove(place)
                unfit += [place] if criterion.of_fitness else []
    chosen = left[0]
    others = [merits[place] for place in unfit]
    return Verdict(best=chosen, reasons=reasons, passed_over=_advantages(others, merits[chosen]))


def lacking_phantom(seen: PhantomSeen) -> str:
    """What a series is told that lost for its phantom."""
    if seen is PhantomSeen.ABSENT:
        return "no phantom in view, which the chosen series has"
    return "a phantom that cannot be used, unlike that of the chosen series"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Criterion:
    """Something by which series are compared; less is better."""

    key: Callable[[Merits], tuple[float, str]]
    reason: str  # what whoever loses by it is told; "" for the phantom
    advantage: str = ""  # what a better one has
    alike: float = 0.0  # a difference up to this does not decide
    of_fitness: bool = False  # whether it says what a series is fit for, not how well it shows

    def is_worse(self, one: Merits, best: tuple[float, str]) -> bool:
        number, text = self.key(one)
        if number != best[0]:  # asked first: infinity less infinity is no number
            return number - best[0] > self.alike
        return text > best[1]


def _criteria() -> tuple[_Criterion, ...]:
    return (
        _Criterion(key=lambda one: (one.glance.phantom, ""), reason="", of_fitness=True),
        _Criterion(
            key=lambda one: (one.glance.contrast is Contrast.GIVEN, ""),
            reason="contrast medium given, unlike the chosen series",
            advantage="no contrast medium",
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.glance.contrast is Contrast.DOUBTFUL, ""),
            reason="contrast medium in doubt, unlike the chosen series",
            advantage="no doubt about contrast medium",
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.glance.spectral, ""),
            reason="no conventional spectrum, unlike the chosen series",
            advantage="a conventional spectrum",
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (-one.covered_mm, ""),
            reason="covers less than the chosen series",
            advantage="more of the lumbar spine",
            alike=_ALIKE_MM,
        ),
        _Criterion(
            key=lambda one: (one.sharpness, ""),
            reason="sharper kernel than the chosen series",
            advantage="a softer kernel",
        ),
        _Criterion(
            key=lambda one: (inf if one.thickness_mm is None else one.thickness_mm, ""),
            reason="thicker slices than the chosen series",
            advantage="thinner slices",
            alike=1e-3,
        ),
        _Criterion(
            key=lambda one: (not one.acquired, one.acquired),
            reason="acquired later than the chosen series",
        ),
        _Criterion(
            key=lambda one: (inf if one.number is None else one.number, ""),
            reason="higher series number than the chosen series",
        ),
        _Criterion(key=lambda one: (0.0, one.uid), reason="same technique as the chosen series"),
    )


def _advantages(others: Sequence[Merits], chosen: Merits) -> tuple[str, ...]:
    """In what the others are better, of those that show about as much of the spine."""
    rivals = [one for one in others if one.covered_mm >= chosen.covered_mm - _ALIKE_MM]
    return tuple(
        criterion.advantage
        for criterion in _criteria()
        if criterion.advantage and any(criterion.is_worse(chosen, criterion.key(one)) for one in rivals)
    )
