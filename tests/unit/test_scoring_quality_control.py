"""Control charts of a scanner: known answers, and what they see."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta
from itertools import accumulate

import pytest

from config.phrases import in_english
from scoring.calibration import Mineral
from scoring.calibration.control_charts import (
    Protocol,
    ScannerReading,
    Signal,
    comparable_groups,
    control_chart,
    cusum,
    drift_observations,
    scanner_charts,
)
from scoring.calibration.spectrum import ScanTechnique
from scoring.settings import ChartSettings, PriorScanSettings

RULES = ChartSettings(baseline_readings=4)


def reading(number: int, **changes) -> ScannerReading:
    given = ScannerReading(
        protocol=Protocol(device_serial="S1", kvp=120.0, kernel="B40", phantom="p", phantom_serial=""),
        model="Scanner",
        taken_on=date(2024, 1, 1) + timedelta(days=number),
        slope=0.8 + (0.002 if number % 2 else -0.002),
        intercept=0.0,
        water_hu=1.0 if number % 2 else -1.0,
        r2=None,
        tilt_degrees=0.5,
    )
    return replace(given, **changes)


def test_sums_of_a_published_example():
    # Montgomery and Runger, Applied Statistics and Probability for Engineers, Table 16-7: chemical process
    # concentration about 99. With k = 0 the upper sum is the published cumulative sum above its lowest point.
    concentrations = [
        102.0, 94.8, 98.3, 98.4, 102.0, 98.5, 99.0, 97.7, 100.0, 98.1,
        101.3, 98.7, 101.1, 98.4, 97.0, 96.7, 100.3, 101.4, 97.2, 101.0,
    ]  # fmt: skip
    published = [
        3.0, -1.2, -1.9, -2.5, 0.5, 0.0, 0.0, -1.3, -0.3, -1.2, 1.1, 0.8, 2.9, 2.3, 0.3, -2.0,
        -0.7, 1.7, -0.1, 1.9,
    ]  # fmt: skip
    sums = cusum([one - 99.0 for one in concentrations], k=0.0)
    lowest = accumulate(published, min, initial=0.0)
    highest = accumulate(published, max, initial=0.0)
    next(lowest), next(highest)
    for (upper, lower), total, low, high in zip(sums, published, lowest, highest, strict=True):
        assert upper == pytest.approx(total - low, abs=1e-9)
        assert lower == pytest.approx(high - total, abs=1e-9)


def test_sums_by_hand():
    # k = 0.5: S+ 0, 0.5, 2.0, 1.0, 0 and S- 0.5, 0, 0, 0, 2.5
    sums = cusum([-1.0, 1.0, 2.0, -0.5, -3.0], k=0.5)
    assert [upper for upper, _ in sums] == [0.0, 0.5, 2.0, 1.0, 0.0]
    assert [lower for _, lower in sums] == [0.5, 0.0, 0.0, 0.0, 2.5]


@pytest.mark.parametrize(
    ("shift", "published", "runs"), [(0.0, 465.0, 400), (1.0, 10.4, 3000), (2.0, 4.01, 3000)]
)
def test_run_lengths_are_the_published_ones_for_k_half_and_h_five(shift, published, runs):
    """Average run lengths of the one-sided sum (Montgomery, Introduction to Statistical Quality Control)."""
    draw = random.Random(20240501)

    def run_length() -> int:
        upper, readings = 0.0, 0
        while upper <= 5.0:
            # Both sides run in `cusum`; one step at a time keeps the arithmetic its own.
            upper, _ = cusum([upper + draw.gauss(shift, 1.0)], k=0.5)[0]
            readings += 1
        return readings

    # The published in-control figure counts both sides: half the one-sided run length (about 930).
    sides = 2 if shift == 0.0 else 1
    mean = sum(run_length() for _ in range(runs)) / runs
    assert mean / sides == pytest.approx(published, rel=0.1)


def test_a_jump_is_seen_at_once_and_a_small_shift_by_its_sum():
    baseline = [10.0, 12.0, 10.0, 12.0]  # mean 11, SD 1.1547
    sigma = (4 / 3) ** 0.5

    def last(*later_sigmas: float):
        return control_chart(
            "water", "HU", [*baseline, *(11.0 + z * sigma for z in later_sigmas)], RULES, minimum_sigma=0.1
        ).points[-1]

    assert last(2.99).signal is None
    assert last(3.01).signal is Signal.HIGH
    assert last(-3.01).signal is Signal.LOW
    assert last(*[1.0] * 9).signal is None  # 9 * 0.5 = 4.5: not above h
    assert last(*[1.0] * 11).signal is Signal.RISING
    assert last(*[-1.0] * 11).signal is Signal.FALLING
    assert last(*[1.0] * 11).upper_sum == pytest.approx(5.5)


def test_there_is_no_chart_before_the_baseline_is_whole_and_nothing_in_it_signals():
    assert control_chart("water", "HU", [0.0, 0.0, 0.0], RULES, minimum_sigma=0.5) is None
    chart = control_chart("water", "HU", [0.0, 0.0, 0.0, 90.0], RULES, minimum_sigma=0.5)
    assert chart.signal is None


def test_readings_all_alike_do_not_make_the_next_one_a_drift():
    assert control_chart("water", "HU", [1.0] * 4 + [1.4], RULES, minimum_sigma=0.5).signal is None
    assert control_chart("water", "HU", [1.0] * 4 + [2.6], RULES, minimum_sigma=0.5).signal is Signal.HIGH


def test_slope_and_water_are_charted_apart_and_their_drift_is_named():
    steady = [reading(number) for number in range(8)]
    assert [chart.quantity for chart in scanner_charts(steady, RULES)] == ["slope", "water"]
    assert drift_observations(steady, RULES) == ()
    (slope,) = drift_observations([*steady, reading(8, slope=0.83)], RULES)
    assert (slope.code, in_english(slope.values["quantity"])) == ("scanner_drift", "slope")
    (water,) = drift_observations([*steady, reading(8, water_hu=-9.0)], RULES)
    assert tuple(map(in_english, (water.values["quantity"], water.values["signal"]))) == (
        "water",
        "below its limit",
    )


def test_without_readings_nothing_is_charted():
    assert scanner_charts([], RULES) == ()
    assert drift_observations([], RULES) == ()


def test_a_reading_that_failed_has_no_point_and_moves_no_limit():
    steady = [reading(number) for number in range(6)]
    failed = reading(2, slope=3.0, water_hu=90.0, failed=True, findings=("phantom_tilted",))
    without_line = replace(failed, slope=None, intercept=None, water_hu=None)
    assert scanner_charts([*steady, failed, without_line], RULES) == scanner_charts(steady, RULES)


def test_the_slopes_unit_names_the_mineral_where_it_is_known():
    chart = scanner_charts([reading(n, equivalent=Mineral.K2HPO4) for n in range(4)], RULES)[0]
    assert chart.unit == "mg/cm3 K2HPO4 per HU"
    assert scanner_charts([reading(n) for n in range(4)], RULES)[0].unit == "mg/cm3 per HU"


TECHNIQUE = ScanTechnique(
    spectral_filter="FLAT",
    energy="single",
    reconstruction="FBP",
    table_height_mm=150.0,
    field_of_view_mm=400.0,
)


@pytest.mark.parametrize(
    "changed",
    [
        {"spectral_filter": "FLAT TIN"},
        {"energy": "virtual 70 keV"},
        {"reconstruction": "iterative 3"},
        {"table_height_mm": 171.0},
        {"table_height_mm": None},
        {"field_of_view_mm": 349.0},
        {"single_slice": True},
    ],
)
def test_a_chart_mixes_no_techniques_that_differ_in_what_moves_hu(changed):
    own = [reading(n, technique=TECHNIQUE) for n in range(3)]
    others = [reading(n + 9, technique=replace(TECHNIQUE, **changed)) for n in range(2)]
    groups = comparable_groups([*others, *own], PriorScanSettings())
    assert [len(group.readings) for group in groups] == [3, 2]


@pytest.mark.parametrize("technique", [TECHNIQUE, None])
def test_two_scanners_of_one_serial_number_have_charts_of_their_own(technique):
    own = [reading(n, technique=technique) for n in range(3)]
    other = reading(9, technique=technique, model="Revolution")
    groups = comparable_groups([other, *own], PriorScanSettings())
    assert {group.readings for group in groups} == {tuple(own), (other,)}


def test_a_phantom_under_a_patient_is_charted_apart_from_one_alone():
    alone, beneath = reading(1, alone=True), reading(2)
    assert len(comparable_groups([alone, beneath], PriorScanSettings())) == 2


def test_of_readings_kept_at_once_the_oldest_is_the_measure_of_table_height():
    heights = [150.0, 168.0, 133.0, 171.0, 185.0, 160.0]
    readings = [
        reading(n, technique=replace(TECHNIQUE, table_height_mm=height)) for n, height in enumerate(heights)
    ]
    groups = comparable_groups(readings[::-1], PriorScanSettings())
    grouped = [[one.technique.table_height_mm for one in group.readings] for group in groups]
    assert grouped == [[150.0, 168.0, 133.0, 160.0], [171.0, 185.0]]


def test_a_reading_that_comes_late_parts_no_readings_that_were_together():
    heights = [100.0, 110.0, 100.0, 110.0]
    kept = [
        reading(n + 50, technique=replace(TECHNIQUE, table_height_mm=height), first_kept_at_s=float(n))
        for n, height in enumerate(heights)
    ]
    late = reading(0, technique=replace(TECHNIQUE, table_height_mm=128.0), first_kept_at_s=9.0)
    groups = comparable_groups([late, *kept], PriorScanSettings())
    assert {group.readings for group in groups} == {tuple(kept), (late,)}
    beside = replace(late, technique=replace(TECHNIQUE, table_height_mm=118.0))
    (group,) = comparable_groups([beside, *kept], PriorScanSettings())
    assert (group.readings, group.reference) == ((beside, *kept), kept[0])


def test_readings_kept_before_techniques_were_have_charts_of_their_own():
    old, new = reading(1), reading(2, technique=TECHNIQUE)
    assert len(comparable_groups([old, new], PriorScanSettings())) == 2
