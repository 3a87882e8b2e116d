"""A fixed sample of the 300 studies that `make phantoms` measures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scoring.bmd import RegionKind
from tests.unit.phantom_matrix import FACTORS, MINDWAYS, STUDIES, MatrixStudy, allowed_bias_mg_cm3, plan, run

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
    for kind, most_mg_cm3 in ((RegionKind.CORE, 1.0), (RegionKind.ELLIPSE, 1.5)):
        thin = [one for one in studies if one.thin and one.phantom != MINDWAYS]
        assert len(thin) >= 3
        assert abs(np.mean([one.error_mg_cm3(kind) for one in thin])) <= most_mg_cm3


def test_no_density_is_further_off_than_its_uncertainty_explains(studies):
    """Four standard uncertainties, and for Mindways what its constant for displaced water makes."""
    for one in studies:
        for kind, read in one.measured.items():
            constant = allowed_bias_mg_cm3(one) - 1.0
            assert abs(one.error_mg_cm3(kind)) <= 4 * read.bmd_uncertainty_mg_cm3 + constant
