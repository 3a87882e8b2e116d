"""Which series is measured: the criteria in their order, and what each other series is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from config.phrases import in_english
from node.dicom.ct.series_choice import Contrast, Merits, PhantomInView, SeriesPreview, rank_series

BEST = Merits(
    preview=SeriesPreview(
        phantom=PhantomInView.COMPLETE, contrast=Contrast.NONE, spectral=False, extent_mm=200.0
    ),
    covered_mm=200.0,
    sharpness=0,
    thickness_mm=1.0,
    acquired="20260115101500",
    number=2.0,
    uid="1.2.3.5",
)


def worse(**changes: Any) -> Merits:
    seen = {name: changes.pop(name) for name in ("phantom", "contrast", "spectral") if name in changes}
    return replace(BEST, preview=replace(BEST.preview, **seen), **changes)


LOSERS = [
    (worse(phantom=PhantomInView.ABSENT), "no phantom in view, unlike the chosen series"),
    (worse(phantom=PhantomInView.FLAWED), "unusable phantom, unlike the chosen series"),
    (worse(contrast=Contrast.GIVEN), "contrast medium given, unlike in the chosen series"),
    (worse(contrast=Contrast.DOUBTFUL), "contrast medium unclear, unlike in the chosen series"),
    (worse(spectral=True), "no conventional spectrum, unlike the chosen series"),
    (worse(covered_mm=150.0), "less coverage than the chosen series"),
    (worse(sharpness=2), "sharper kernel than the chosen series"),
    (worse(thickness_mm=3.0), "thicker slices than the chosen series"),
    (worse(thickness_mm=None), "thicker slices than the chosen series"),
    (worse(acquired="20260115101501", uid="1.2.3.1"), "acquired later than the chosen series"),
    (worse(acquired="", uid="1.2.3.1"), "acquired later than the chosen series"),
    (worse(number=10.0, uid="1.2.3.1"), "higher series number than the chosen series"),
    (worse(uid="1.2.3.6"), "same technique as the chosen series"),
]


@pytest.mark.parametrize(("other", "reason"), LOSERS)
def test_whoever_loses_is_told_by_which_criterion(other: Merits, reason: str) -> None:
    for merits, best in (((BEST, other), 0), ((other, BEST), 1)):
        verdict = rank_series(merits)
        assert verdict.best == best
        assert {place: in_english(one) for place, one in verdict.reasons.items()} == {1 - best: reason}


# Each is worst in one respect, and in every later respect the best of all.
_LADDER = [
    worse(
        phantom=PhantomInView.ABSENT, covered_mm=300.0, thickness_mm=0.4, acquired="1", number=1, uid="1.1"
    ),
    worse(contrast=Contrast.GIVEN, covered_mm=290.0, thickness_mm=0.5, acquired="2", number=1.1, uid="1.2"),
    worse(contrast=Contrast.DOUBTFUL, covered_mm=285.0, thickness_mm=0.5, acquired="2", number=1, uid="1.2"),
    worse(spectral=True, covered_mm=280.0, thickness_mm=0.6, acquired="202601", number=1.2, uid="1.3"),
    worse(covered_mm=100.0, thickness_mm=0.7, acquired="2026011", number=1.3, uid="1.4"),
    worse(sharpness=2, thickness_mm=0.8, acquired="20260115", number=1.4, uid="1.5"),
    worse(thickness_mm=3.0, acquired="202601151", number=1.5, uid="1.6"),
    worse(acquired="20260115101600", number=1.6, uid="1.7"),
    worse(number=3.0, uid="1.8"),
    BEST,
]  # fmt: skip


@pytest.mark.parametrize("worst", range(len(_LADDER) - 1))
def test_what_comes_first_outweighs_all_that_follows(worst: int) -> None:
    assert rank_series([_LADDER[worst], BEST]).best == 1


def test_the_choice_does_not_depend_on_the_order_of_arrival() -> None:
    for order in permutations(_LADDER[5:]):
        assert order[rank_series(order).best] is BEST


def test_a_little_more_coverage_does_not_outweigh_thinner_slices() -> None:
    """Where a border of a fixed step lies between them, too."""
    thick = worse(covered_mm=151.0, thickness_mm=5.0)
    assert rank_series([thick, worse(covered_mm=149.0)]).best == 1


def test_coverage_is_held_against_the_best_not_against_a_neighbour() -> None:
    chain = [worse(covered_mm=covered, thickness_mm=covered / 100) for covered in (140.0, 160.0, 180.0)]
    verdict = rank_series(chain)
    assert verdict.best == 1
    assert in_english(verdict.reasons[0]) == "less coverage than the chosen series"
    assert in_english(verdict.reasons[2]) == "thicker slices than the chosen series"


def test_what_a_series_that_was_passed_over_had_is_told() -> None:
    target = worse(phantom=PhantomInView.ABSENT, thickness_mm=0.6)
    sharp = worse(sharpness=2, contrast=Contrast.GIVEN)
    passed_over = [in_english(one) for one in rank_series([sharp, target]).passed_over]
    assert passed_over == ["no contrast medium", "a softer kernel", "thinner slices"]


def test_what_lost_for_its_kernel_alone_is_not_called_passed_over() -> None:
    assert rank_series([BEST, worse(sharpness=2, thickness_mm=0.5)]).passed_over == ()


def test_a_thin_series_of_another_region_is_no_rival() -> None:
    chest = worse(phantom=PhantomInView.ABSENT, covered_mm=20.0, thickness_mm=0.5)
    assert rank_series([BEST, chest]).passed_over == ()
