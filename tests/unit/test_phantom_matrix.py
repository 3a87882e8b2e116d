"""A fixed sample of the 300 studies that `make phantoms` measures."""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmentation.vertebrae import RegionKind
from tests.unit.phantom_matrix import (
    FACTORS,
    STUDIES,
    MatrixStudy,
    fewest_and_most_held,
    is_unbiased,
    plan,
    run,
)

pytestmark = pytest.mark.slow

SAMPLE = range(0, STUDIES, 25)


@pytest.fixture(scope="module")
def studies() -> list[MatrixStudy]:
    return [run(number) for number in SAMPLE]


def test_every_level_of_every_factor_stands_in_equally_many_studies():
    rows = plan()
    assert len(rows) == STUDIES >= 300
    for name, levels in FACTORS.items():
        assert set(Counter(row[name] for row in rows).values()) == {STUDIES // len(levels)}


def test_the_plan_is_the_same_every_time_and_mixes_the_factors():
    """No two columns tell of each other: at most a little more than chance makes of 300."""
    assert plan() == plan()
    index = np.array([[FACTORS[name].index(row[name]) for name in FACTORS] for row in plan()], dtype=float)
    correlation = np.corrcoef(index.T) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 0.2


def test_no_phantom_is_refused(studies):
    assert [(one.number, one.refused) for one in studies if one.refused] == []


def test_thin_slices_are_not_biased(studies):
    assert sum(one.thin for one in studies) >= 3
    assert is_unbiased(studies)
    assert is_unbiased(studies, RegionKind.ELLIPSE)


def test_stated_intervals_hold_the_truth(studies):
    for kind in (RegionKind.CORE, RegionKind.ELLIPSE):
        held = sum(one.holds(kind) for one in studies)
        assert held >= fewest_and_most_held(len(studies))[0]


def test_chance_leaves_so_many_of_95_percent_intervals():
    """Of 1,000 about 950 and 2.33 SDs of 6.9 to either side; of 12 at least 9 (0.2 % have fewer)."""
    assert fewest_and_most_held(1000) == pytest.approx((934, 966), abs=1)
    assert fewest_and_most_held(12) == (9, 12)


def test_no_density_is_further_off_than_its_uncertainty_explains(studies):
    """Four standard uncertainties."""
    for one in studies:
        for kind, read in one.measured.items():
            assert abs(one.error_mg_cm3(kind)) <= 4 * read.bmd_uncertainty_mg_cm3


@pytest.mark.parametrize(
    ("shift_mg_cm3", "refused", "status", "said"),
    [
        (0.0, 0, 0, ""),
        (1.5, 0, 1, "thin slices are biased"),
        (-9.0, 0, 1, "of 12 intervals hold"),
        (0.0, 1, 1, "1 of 12 studies are refused"),
    ],
)
def test_the_long_form_fails_where_a_target_is_missed(
    studies, shift_mg_cm3, refused, status, said, monkeypatch, capsys
):
    """Its verdict on this sample, with every truth shifted, or with a study refused."""
    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "run_phantoms.py"))

    def changed(number: int) -> MatrixStudy:
        study = studies[SAMPLE.index(number)]
        if number in SAMPLE[:refused]:
            return replace(study, measured={}, refused=("calibration_drift",))
        return replace(study, truth_mg_cm3=study.truth_mg_cm3 + shift_mg_cm3)

    monkeypatch.setattr(sys, "argv", ["run_phantoms.py", *map(str, SAMPLE)])
    monkeypatch.setitem(tool["main"].__globals__, "run", changed)
    assert tool["main"]() == status
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MISSED")]
    assert bool(missed) is bool(status)
    assert any(said in line for line in missed) or not said
