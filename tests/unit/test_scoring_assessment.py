"""To whom T, Z and the two rules apply, and where exactly their borders lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scoring.assessment import assess, density_category, density_verdict, study_class
from scoring.bmd import AgeBin, BmdResult, DensityCategory, Reference, RegionKind, StudyClass
from scoring.calibration import Calibration, Grade, Mineral

REFERENCE = Reference(
    name="test",
    population="nobody",
    authority="none",
    source="made for this test",
    sex="any",
    equivalent=Mineral.HA,
    levels=("L3",),
    young=AgeBin(age_from=20, age_to=29, mean_mg_cm3=170.0, sd_mg_cm3=30.0),
    ages=(AgeBin(age_from=60, age_to=69, mean_mg_cm3=110.0, sd_mg_cm3=25.0),),
    kvp=(80.0, 140.0),
    demonstration=False,
)


def calibration(equivalent: Mineral) -> Calibration:
    """One mg/cm3 for each HU, so that densities are read off their HU."""
    return Calibration(
        method="least-squares",
        phantom="made for this test",
        equivalent=equivalent,
        slope=1.0,
        intercept=0.0,
        r2=None,
        max_residual_hu=None,
        rods=(),
    )


def verdict_of(densities: dict[str, float], equivalent: Mineral):
    return density_verdict(measured(**densities), calibration(equivalent), None)


def measured(**densities: float) -> dict[str, BmdResult]:
    return {
        level: BmdResult(
            level=level,
            hu_mean=bmd,
            hu_sd=30.0,
            voxels=1000,
            roi_volume_mm3=5000.0,
            bmd_mg_cm3=bmd,
            bmd_uncertainty_mg_cm3=1.0,
        )
        for level, bmd in densities.items()
    }


def assessed(levels=None, **changes):
    equivalent = changes.pop("equivalent", Mineral.HA)
    given = {
        "calibration": calibration(equivalent),
        "reference": REFERENCE,
        "age_years": 67,
        "sex": "F",
        "kvp": 120.0,
        "roi": RegionKind.CORE,
    } | changes
    return assess(measured(L3=95.0) if levels is None else levels, **given)


def codes(assessment) -> set[str]:
    return {observation.code for observation in assessment.observations}


def test_t_and_z_by_hand():
    result = assessed()
    assert result.t_score.value == pytest.approx(-2.5)  # (95 - 170) / 30
    assert result.z_score.value == pytest.approx(-0.6)  # (95 - 110) / 25
    assert result.t_score.levels == ("L3",)
    assert result.study_class is StudyClass.OSTEOPOROSIS


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (-2.5, StudyClass.OSTEOPOROSIS),
        (-2.4999999, StudyClass.OSTEOPENIA),
        (-1.0000001, StudyClass.OSTEOPENIA),
        (-1.0, StudyClass.NORMAL),
        (0.3, StudyClass.NORMAL),
    ],
)
def test_study_class_borders_lie_exactly_at_minus_one_and_minus_two_and_a_half(t, expected):
    assert study_class(t) is expected


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (79.9999, DensityCategory.OSTEOPOROSIS),
        (80.0, DensityCategory.LOW),
        (120.0, DensityCategory.LOW),
        (120.0001, DensityCategory.NORMAL),
    ],
)
def test_density_category_borders_lie_exactly_at_80_and_120(mean, expected):
    assert density_category(mean) is expected


def test_density_rule_takes_l1_and_l2_before_any_other_pair():
    verdict, notes = verdict_of({"L1": 70.0, "L2": 88.0, "L3": 130.0}, Mineral.K2HPO4)
    assert verdict.levels == ("L1", "L2")
    assert verdict.mean_mg_cm3 == pytest.approx(79.0)
    assert verdict.category is DensityCategory.OSTEOPOROSIS
    assert notes == []


def test_density_rule_falls_back_to_the_adjacent_pair_nearest_l3():
    verdict, _ = verdict_of({"L1": 70.0, "L3": 100.0, "L4": 110.0, "L5": 1.0}, Mineral.K2HPO4)
    assert verdict.levels == ("L3", "L4")


def test_density_rule_never_rests_on_levels_apart_or_on_one():
    for densities in ({"L3": 70.0}, {"L1": 70.0, "L3": 70.0}):
        verdict, notes = verdict_of(densities, Mineral.K2HPO4)
        assert verdict is None
        assert [note.code for note in notes] == ["density_levels_missing"]


def test_density_rule_is_not_applied_to_hydroxyapatite():
    verdict, notes = verdict_of({"L1": 70.0, "L2": 70.0}, Mineral.HA)
    assert verdict is None
    assert [note.code for note in notes] == ["density_rule_equivalent"]


def test_density_category_stands_without_a_reference():
    result = assessed(measured(L1=70.0, L2=80.0), equivalent=Mineral.K2HPO4, reference=None)
    assert result.density.category is DensityCategory.OSTEOPOROSIS
    assert result.t_score is None
    assert "no_reference" in codes(result)


def test_under_fifty_only_the_z_score_counts():
    young = replace(REFERENCE, ages=(AgeBin(age_from=40, age_to=49, mean_mg_cm3=150.0, sd_mg_cm3=25.0),))
    result = assessed(reference=young, age_years=49)
    assert (result.t_score, result.study_class, result.density) == (None, None, None)
    assert result.z_score.value == pytest.approx(-2.2)
    assert "age_under_50" in codes(result)
    assert assessed(age_years=50).t_score is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"age_years": 19}, "age_under_20"),
        ({"age_years": None}, "age_unknown"),
        ({"sex": ""}, "sex_unknown"),
        ({"sex": "O"}, "sex_unknown"),
    ],
)
def test_without_an_adult_age_and_a_sex_there_is_no_score_at_all(changes, code):
    result = assessed(measured(L1=70.0, L2=70.0, L3=95.0), **changes)
    assert (result.t_score, result.z_score, result.study_class, result.density) == (None,) * 4
    assert code in codes(result)


def test_an_internal_calibration_gives_no_score_whatever_the_findings_table_says():
    internal = replace(calibration(Mineral.HA), grade=Grade.INTERNAL)
    result = assessed(measured(L1=70.0, L2=70.0, L3=95.0), calibration=internal)
    assert (result.t_score, result.z_score, result.study_class, result.density) == (None,) * 4
    assert "internal_calibration" in codes(result)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"equivalent": Mineral.K2HPO4}, "K2HPO4"),
        ({"reference": replace(REFERENCE, sex="M")}, "sex M"),
        ({"kvp": 70.0}, "70 kV"),
        ({"kvp": None}, "not stated"),
        ({"reference": replace(REFERENCE, levels=("L1", "L2"))}, "not measured: L1, L2"),
    ],
)
def test_a_reference_that_does_not_fit_gives_no_score_and_says_why(changes, reason):
    result = assessed(**changes)
    assert (result.t_score, result.z_score) == (None, None)
    mismatch = next(note for note in result.observations if note.code == "reference_mismatch")
    assert reason in mismatch.values["reason"]


def test_a_reference_without_this_age_gives_t_but_no_z():
    result = assessed(age_years=71)
    assert result.t_score is not None
    assert result.z_score is None
    assert "z_reference_missing" in codes(result)


def test_a_reference_of_several_levels_is_compared_with_their_mean():
    result = assessed(measured(L1=80.0, L2=110.0), reference=replace(REFERENCE, levels=("L1", "L2")))
    assert result.t_score.bmd_mg_cm3 == pytest.approx(95.0)


def test_without_a_calibration_nothing_is_said():
    uncalibrated = {"L3": replace(measured(L3=95.0)["L3"], bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None)}
    for result in (assessed(uncalibrated), assessed(calibration=None), assessed({})):
        assert result.observations == ()
        assert result.t_score is None
