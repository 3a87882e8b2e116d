"""Change since an earlier study: what may be compared, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from config.findings import load_findings
from config.settings import load_settings
from scoring.calibration import Mineral
from scoring.followup import Conditions, Scan, follow_up, follow_up_observations, obstacles

CONDITIONS = Conditions(
    device_serial="S1",
    kvp=120.0,
    equivalent=Mineral.HA,
    phantom="siemens-osteo",
    method="two-point",
    rules_sha256="a" * 64,
    engine="geometric 3",
)
PRIOR = Scan(
    study_instance_uid="1.1",
    taken_on=date(2024, 1, 10),
    conditions=CONDITIONS,
    densities_mg_cm3={"L1": 100.0, "L2": 110.0, "L3": 120.0},
    levels_confirmed=True,
    contrast=False,
)
NOW = replace(
    PRIOR,
    study_instance_uid="1.2",
    taken_on=date(2025, 1, 10),
    densities_mg_cm3={"L2": 102.0, "L3": 119.0, "L4": 90.0},
)


def changed(**changes) -> Scan:
    return replace(PRIOR, conditions=replace(CONDITIONS, **changes))


def said(found) -> str:
    (observation,) = follow_up_observations(found)
    return load_findings().describe(observation).text


def test_change_is_given_for_each_level_measured_both_times_with_its_significance():
    found = follow_up(NOW, [PRIOR], lsc_mg_cm3=8.0)
    assert found.prior_study_instance_uid == "1.1"
    assert found.reasons == ()
    assert {one.level: (one.change_mg_cm3, one.significant) for one in found.changes} == {
        "L2": (-8.0, True),
        "L3": (-1.0, False),
    }
    assert "Since 2024-01-10: L2 -8.0, L3 -1.0 mg/cm3" in said(found)
    assert said(found).endswith("(8 mg/cm3): L2.")


def test_without_a_least_significant_change_nothing_is_called_significant():
    found = follow_up(NOW, [PRIOR], lsc_mg_cm3=None)
    assert [one.significant for one in found.changes] == [None, None]
    assert "no least significant change is configured" in said(found)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        (changed(device_serial="S2"), "another scanner"),
        (changed(kvp=80.0), "another tube voltage"),
        (changed(equivalent=Mineral.K2HPO4), "another mineral equivalent"),
        (changed(phantom="mindways-3"), "another phantom"),
        (changed(method="least-squares"), "another calibration method"),
        (changed(rules_sha256="b" * 64), "other rules of regions and calibration"),
        (changed(engine="geometric 4"), "another segmentation engine"),
        (replace(PRIOR, levels_confirmed=False), "levels are not confirmed"),
        (replace(PRIOR, contrast=True), "contrast medium"),
        (replace(PRIOR, densities_mg_cm3={"L5": 1.0}), "no level was measured in both"),
    ],
)
def test_what_differs_makes_two_studies_incomparable_and_is_named(prior, reason):
    found = follow_up(NOW, [prior], lsc_mg_cm3=8.0)
    assert found.changes == ()
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]
    assert "not comparable because" in said(found)


def test_a_scanner_that_nobody_names_is_not_the_same_scanner():
    nameless = replace(CONDITIONS, device_serial="")
    unknown = replace(CONDITIONS, kvp=None)
    for conditions in (nameless, unknown):
        assert obstacles(replace(NOW, conditions=conditions), replace(PRIOR, conditions=conditions))


def test_the_latest_comparable_study_is_taken_before_a_later_one_that_is_not():
    other = replace(changed(kvp=80.0), study_instance_uid="1.9", taken_on=date(2024, 9, 1))
    first = replace(PRIOR, study_instance_uid="1.0", taken_on=date(2020, 1, 1))
    assert follow_up(NOW, [other, PRIOR, first], lsc_mg_cm3=None).prior_study_instance_uid == "1.1"
    assert follow_up(NOW, [other], lsc_mg_cm3=None).prior_study_instance_uid == "1.9"


def test_neither_a_later_study_nor_the_study_itself_is_a_prior():
    assert follow_up(NOW, [], lsc_mg_cm3=8.0) is None
    assert follow_up(NOW, [NOW, replace(PRIOR, taken_on=date(2026, 1, 1))], lsc_mg_cm3=8.0) is None


def test_the_rules_hash_follows_regions_and_calibration_and_nothing_else():
    plain = load_settings().measurement_sha256
    assert load_settings(scoring={"reference": ""}).measurement_sha256 == plain
    assert load_settings(followup={"lsc_mg_cm3": 8.0}).measurement_sha256 == plain
    assert load_settings(segmentation={"regions": {"erosion_mm": 4.0}}).measurement_sha256 != plain
    assert load_settings(calibration={"phantom": "other"}).measurement_sha256 != plain
