"""Change since an earlier study: what may be compared, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import date

import pytest

from config.findings import load_findings
from config.phrases import in_english
from config.settings import ConfigurationError, load_settings
from node.pipeline.artefacts import from_json, to_json
from scoring.calibration import Mineral
from scoring.density.follow_up import Conditions, Scan, follow_up, follow_up_observations, obstacles

CONDITIONS = Conditions(
    device_serial="S1",
    kvp=120.0,
    equivalent=Mineral.HA,
    phantom="siemens-osteo",
    method="two-point",
    rules_sha256="a" * 64,
    engine="geometric 3",
    spectral_filter="WEDGE_3",
    energy="single",
    kernel="B40",
    reconstruction="FBP",
    phantom_sha256="c" * 64,
    model="Scanner",
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
    assert "Change since 2024-01-10: L2 -8.0, L3 -1.0 mg/cm3 HA." in said(found)
    assert said(found).endswith("(8 mg/cm3 HA): L2.")


def test_without_a_least_significant_change_nothing_is_called_significant():
    found = follow_up(NOW, [PRIOR], lsc_mg_cm3=None)
    assert [one.significant for one in found.changes] == [None, None]
    assert "No least significant change is configured" in said(found)


OTHERWISE = {
    "device_serial": ("S2", "its scanner is S2; that of this study is S1"),
    "model": ("Revolution", "its scanner model is Revolution; that of this study is Scanner"),
    "kvp": (80.0, "its tube voltage is 80 kV; that of this study is 120 kV"),
    "equivalent": (Mineral.K2HPO4, "its mineral equivalent is K2HPO4; that of this study is HA"),
    "phantom": ("mindways-3", "its phantom is mindways-3; that of this study is siemens-osteo"),
    "method": ("least-squares", "its calibration method is least-squares; that of this study is two-point"),
    "rules_sha256": (
        "b" * 64,
        "its configuration of engine, regions and calibration is bbbbbbbbbbbb; "
        "that of this study is aaaaaaaaaaaa",
    ),
    "engine": (
        "network 4 " + "d" * 64,
        "its segmentation engine is network 4 dddddddddddd; that of this study is",
    ),
    "spectral_filter": ("TIN", "its spectral filter is TIN; that of this study is WEDGE_3"),
    "energy": ("virtual 70 keV", "its energy type is virtual 70 keV; that of this study is conventional"),
    "kernel": ("B30", "its convolution kernel is B30; that of this study is B40"),
    "reconstruction": ("ASIR 40", "its reconstruction is ASIR 40; that of this study is FBP"),
    "phantom_sha256": (
        "e" * 64,
        "its description of the phantom is eeeeeeeeeeee; that of this study is cccccccccccc",
    ),
}
UNSTATED = {name: None if name == "kvp" else "" for name in OTHERWISE if name != "equivalent"}


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        *((changed(**{name: value}), words) for name, (value, words) in OTHERWISE.items()),
        (replace(PRIOR, levels_confirmed=False), "levels are not confirmed"),
        (replace(PRIOR, contrast=True), "contrast medium"),
        (replace(PRIOR, densities_mg_cm3={"L5": 1.0}), "no level was measured in both studies"),
    ],
)
def test_what_differs_makes_two_studies_incomparable_and_is_named_with_both_values(prior, reason):
    found = follow_up(NOW, [prior], lsc_mg_cm3=8.0)
    assert found.changes == ()
    assert len(found.reasons) == 1
    told = in_english(found.reasons[0])
    assert reason in told
    assert told in said(found)


def told(*scans: Scan) -> list[str]:
    return [in_english(one) for one in obstacles(*scans)]


def test_every_condition_is_tried():
    assert set(OTHERWISE) == {field.name for field in fields(Conditions)}


@pytest.mark.parametrize(("name", "value"), UNSTATED.items())
def test_what_either_study_leaves_unstated_is_not_equal(name, value):
    silent = changed(**{name: value})
    (reason,) = told(NOW, silent)
    assert " is not stated; that of this study is " in reason
    (reason,) = told(replace(NOW, conditions=silent.conditions), PRIOR)
    assert reason.endswith("; that of this study is not stated")
    (reason,) = told(replace(NOW, conditions=silent.conditions), silent)
    assert reason.startswith("neither study states the ")


def test_what_neither_study_states_is_taken_for_equal_only_where_the_site_says_so_and_then_printed():
    silent = changed(spectral_filter="", reconstruction="")
    now = replace(NOW, conditions=silent.conditions)
    accepted = ("spectral_filter", "reconstruction")
    assert follow_up(now, [silent], lsc_mg_cm3=8.0, accept_unstated=accepted[:1]).changes == ()

    found = follow_up(now, [silent], lsc_mg_cm3=8.0, accept_unstated=accepted)
    assert {one.level for one in found.changes} == {"L2", "L3"}
    change, remark = (load_findings().describe(one).text for one in follow_up_observations(found))
    assert change.startswith("Change since 2024-01-10")
    assert "spectral filter and reconstruction; this site treats them as equal" in remark

    half = follow_up(NOW, [silent], lsc_mg_cm3=8.0, accept_unstated=accepted)
    assert half.changes == ()  # stated in one, not in the other


def test_a_site_may_accept_no_unstated_scanner_tube_voltage_or_kernel():
    assert load_settings().followup.accept_unstated == ()
    for name in ("device_serial", "kvp", "kernel"):
        with pytest.raises(ConfigurationError, match="accept_unstated"):
            load_settings(followup={"accept_unstated": [name]})


def test_a_study_kept_by_an_earlier_version_is_read_and_says_what_it_lacks():
    later = ("spectral_filter", "energy", "kernel", "reconstruction", "phantom_sha256")
    content = json.loads(to_json(PRIOR))
    for name in later:
        del content["conditions"][name]
    old = from_json(Scan, json.dumps(content).encode())
    reasons = told(NOW, old)
    assert len(reasons) == len(later)
    assert all("is not stated; that of this study is" in one for one in reasons)


def test_the_latest_comparable_study_is_taken_before_a_later_one_that_is_not():
    other = replace(changed(kvp=80.0), study_instance_uid="1.9", taken_on=date(2024, 9, 1))
    first = replace(PRIOR, study_instance_uid="1.0", taken_on=date(2020, 1, 1))
    assert follow_up(NOW, [other, PRIOR, first], lsc_mg_cm3=None).prior_study_instance_uid == "1.1"
    assert follow_up(NOW, [other], lsc_mg_cm3=None).prior_study_instance_uid == "1.9"


def test_neither_a_later_study_nor_the_study_itself_is_a_prior():
    assert follow_up(NOW, [], lsc_mg_cm3=8.0) is None
    assert follow_up(NOW, [NOW, replace(PRIOR, taken_on=date(2026, 1, 1))], lsc_mg_cm3=8.0) is None


def test_a_sites_least_significant_change_is_part_of_its_configuration_but_parts_no_studies():
    plain, own = load_settings(), load_settings(followup={"lsc_mg_cm3": 8.0})
    assert own.sha256 != plain.sha256
    assert own.measurement_sha256 == plain.measurement_sha256
    lenient = load_settings(followup={"accept_unstated": ["reconstruction"]})
    assert lenient.sha256 != plain.sha256
    assert lenient.measurement_sha256 == plain.measurement_sha256


def test_the_rules_hash_follows_engine_regions_and_calibration_and_nothing_else():
    plain = load_settings().measurement_sha256
    assert load_settings(scoring={"reference": ""}).measurement_sha256 == plain
    assert load_settings(followup={"lsc_mg_cm3": 8.0}).measurement_sha256 == plain
    assert load_settings(segmentation={"regions": {"erosion_mm": 4.0}}).measurement_sha256 != plain
    assert load_settings(segmentation={"geometric": {"cortex_hu": 450.0}}).measurement_sha256 != plain
    assert load_settings(segmentation={"totalsegmentator_mode": "fast"}).measurement_sha256 != plain
    assert load_settings(calibration={"phantom": "other"}).measurement_sha256 != plain


def test_a_study_of_the_same_day_is_named_and_not_compared():
    today = replace(PRIOR, taken_on=NOW.taken_on)
    found = follow_up(NOW, [today], lsc_mg_cm3=8.0)
    assert (found.changes, found.prior_study_instance_uid) == ((), "1.1")
    assert "both studies are of the same day" in said(found)


def test_an_earlier_study_is_compared_whatever_else_was_done_today():
    today = replace(PRIOR, study_instance_uid="1.9", taken_on=NOW.taken_on)
    for priors in ([PRIOR, today], [today, PRIOR]):
        found = follow_up(NOW, priors, lsc_mg_cm3=8.0)
        assert (found.prior_study_instance_uid, found.reasons) == ("1.1", ())


def test_of_two_studies_of_one_day_the_choice_does_not_depend_on_their_order():
    other = replace(PRIOR, study_instance_uid="1.15", densities_mg_cm3={"L2": 90.0})
    chosen = {
        follow_up(NOW, priors, lsc_mg_cm3=None).prior_study_instance_uid
        for priors in ([PRIOR, other], [other, PRIOR])
    }
    assert len(chosen) == 1


def test_the_same_studys_earlier_report_is_no_earlier_study():
    assert follow_up(NOW, [replace(PRIOR, study_instance_uid=NOW.study_instance_uid)], lsc_mg_cm3=8.0) is None
