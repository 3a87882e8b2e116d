"""Which earlier phantom scan may calibrate a study, and how certain it is then."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import date, timedelta
from math import hypot, sqrt

import numpy as np
import pytest

from config.phrases import in_english
from config.settings import load_settings
from scoring.calibration import Calibration, Grade, LineUncertainty, Mineral, RodReading, combined_uncertainty
from scoring.calibration.control_charts import Protocol, ScannerReading
from scoring.calibration.prior_scan import (
    UncalibratedStudy,
    calibrate_by_prior_scan,
    drift_uncertainty,
    prior_scan_use,
)
from scoring.calibration.spectrum import ScanTechnique
from scoring.settings import ChartSettings, PriorScanSettings

DAY = date(2026, 3, 20)
RULES = PriorScanSettings()
CHARTS = ChartSettings()
TECHNIQUE = ScanTechnique(
    spectral_filter="FLAT",
    energy="single",
    reconstruction="FBP",
    table_height_mm=150.0,
    field_of_view_mm=400.0,
)
LINE = LineUncertainty(pivot_hu=100.0, bmd_mg_cm3=0.5, slope=0.002)
LENT = Calibration(
    method="two-point",
    phantom="siemens-osteo",
    equivalent=Mineral.HA,
    slope=0.8,
    intercept=-1.6,
    r2=None,
    max_residual_hu=None,
    rods=(
        RodReading(
            name="water", density_mg_cm3=0, hu_mean=2, hu_sd=9, voxels=99, axis_points_mm=((1.0, 2.0, 3.0),)
        ),
    ),
    uncertainty=LINE,
)
PROTOCOL = Protocol(device_serial="S/1", kvp=120.0, kernel="B40", phantom="siemens-osteo", phantom_serial="")


def reading(days_before: int = 5, **changes) -> ScannerReading:
    return replace(
        ScannerReading(
            protocol=PROTOCOL,
            model="Scanner",
            taken_on=DAY - timedelta(days=days_before),
            taken_at="101500",
            slope=0.8,
            intercept=-1.6,
            water_hu=2.0,
            r2=None,
            tilt_degrees=0.1,
            technique=TECHNIQUE,
            calibration=LENT,
        ),
        **changes,
    )


def study(**changes) -> UncalibratedStudy:
    return replace(
        UncalibratedStudy(
            device_serial="S/1",
            model="Scanner",
            kvp=120.0,
            kernel="B40",
            technique=TECHNIQUE,
            taken_on=DAY,
            taken_at="140000",
            phantoms={"siemens-osteo": ""},
        ),
        **changes,
    )


def lent(history, *, rules: PriorScanSettings = RULES, **changes):
    return calibrate_by_prior_scan(study(**changes), history, rules=rules, charts=CHARTS)


def refusal(history, **changes) -> str:
    calibration, said = lent(history, **changes)
    assert calibration is None
    assert said.code == "asynchronous_missing"
    return in_english(said.values["reason"])


def test_the_latest_fitting_reading_calibrates_and_is_named_with_its_age():
    latest = reading(3, calibration=replace(LENT, slope=0.81))
    calibration, said = lent([reading(9), latest, reading(20)])
    assert calibration is not None
    assert (calibration.slope, calibration.intercept) == (0.81, -1.6)
    assert (calibration.method, calibration.grade) == ("asynchronous two-point", Grade.ASYNCHRONOUS)
    assert calibration.scanned_on == DAY - timedelta(days=3)
    assert said.code == "asynchronous_calibration"
    assert said.values == {"phantom": "siemens-osteo", "date": "2026-03-17", "age_days": 3}


def test_rods_of_another_image_have_no_place_in_this_one():
    calibration, _ = lent([reading()])
    assert [rod.axis_points_mm for rod in calibration.rods] == [()]
    assert [rod.hu_mean for rod in calibration.rods] == [2]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kvp": 100.0}, "tube voltage 100 kV"),
        ({"kernel": "B50"}, "kernel B50"),
        ({"kernel": ""}, "kernel not stated"),
        ({"phantom": "qrm-bdc-3"}, "phantom qrm-bdc-3"),
    ],
)
def test_another_protocol_lends_nothing(changed, told):
    assert refusal([reading(protocol=replace(PROTOCOL, **changed))]).endswith(f"differs: {told}")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"spectral_filter": "FLAT TIN"}, "spectral filter FLAT TIN"),
        ({"energy": "virtual 70 keV"}, "energy type virtual 70 keV"),
        ({"reconstruction": ""}, "reconstruction not stated"),
        ({"table_height_mm": 181.0}, "table height differs by 31 mm"),
        ({"table_height_mm": None}, "table height not stated"),
        ({"field_of_view_mm": 349.0}, "field of view differs by 51 mm"),
    ],
)
def test_another_technique_lends_nothing(changed, told):
    assert refusal([reading(technique=replace(TECHNIQUE, **changed))]).endswith(f"differs: {told}")


def test_table_height_and_field_of_view_have_their_tolerance():
    at_its_end = replace(TECHNIQUE, table_height_mm=170.0, field_of_view_mm=350.0)
    assert lent([reading(technique=at_its_end)])[0] is not None


def test_no_setting_lends_across_tube_voltages():
    assert "kvp" not in asdict(load_settings().calibration.asynchronous)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device_serial": ""}, "the scanner's serial number is not stated"),
        ({"kvp": None}, "the tube voltage is not stated"),
        ({"kernel": ""}, "the kernel is not stated"),
        ({"taken_on": None}, "the study has no date"),
        ({"device_serial": "S/2"}, "no phantom has been read on scanner Scanner S/2"),
        ({"model": "Revolution"}, "no phantom has been read on scanner Revolution S/1"),
    ],
)
def test_a_study_of_no_known_scanner_borrows_nothing(changes, told):
    assert refusal([reading()], **changes) == told


def test_a_reading_without_a_serial_number_is_nobodys():
    nameless = reading(protocol=replace(PROTOCOL, device_serial=""))
    assert refusal([nameless], device_serial="") == "the scanner's serial number is not stated"


def test_a_reading_expires_on_a_day_that_is_told():
    assert lent([reading(30)])[0] is not None
    assert refusal([reading(31)]).endswith("differs: expired on 2026-03-20")


def test_a_later_reading_never_changes_what_may_have_been_sent():
    assert refusal([reading(-1)]) == "no phantom had been read on scanner Scanner S/1 before the study"


@pytest.mark.parametrize(
    ("taken_at", "asked_at", "counts"),
    [("101500", "140000", True), ("150000", "140000", False), ("", "140000", False), ("101500", "", False)],
)
def test_a_reading_of_the_same_day_counts_where_it_was_certainly_taken_before(taken_at, asked_at, counts):
    calibration, _ = lent([reading(0, taken_at=taken_at)], taken_at=asked_at)
    assert (calibration is not None) is counts


def test_a_phantom_that_left_a_doubt_lends_nothing_nor_does_what_was_kept_without_technique():
    assert "its phantom did not pass all checks" in refusal([reading(calibration=None)])
    assert "its technique was not recorded" in refusal([reading(technique=None)])


def test_the_reason_told_is_the_nearest_readings():
    far = reading(2, protocol=replace(PROTOCOL, kvp=80.0, kernel="B50"))
    near = reading(8, technique=replace(TECHNIQUE, table_height_mm=100.0))
    assert (
        refusal([far, near]) == "the nearest reading, of 2026-03-12, differs: table height differs by 50 mm"
    )


def test_where_the_model_is_recognised_any_of_the_sites_phantoms_lends():
    other = reading(protocol=replace(PROTOCOL, phantom="qrm-bdc-3"))
    assert lent([other], phantoms={"siemens-osteo": "", "qrm-bdc-3": ""})[0] is not None


def test_a_certificate_that_was_corrected_since_ends_the_lending():
    before = reading(calibration=replace(LENT, phantom_sha256="old"))
    assert refusal([before], phantoms={"siemens-osteo": "new"}).endswith(
        "the description of its phantom has changed"
    )
    assert lent([before], phantoms={"siemens-osteo": "old"})[0] is not None


def baseline(first_day: int = 29, **changes) -> list[ScannerReading]:
    return [
        reading(first_day - number, slope=0.8 + 0.001 * (-1) ** number, **changes)
        for number in range(CHARTS.baseline_readings)
    ]


def test_a_drift_since_the_reading_withholds_it():
    quiet = baseline()
    assert lent(quiet)[0] is not None
    drifted = [*quiet, reading(3, slope=0.84, calibration=None)]
    told = refusal(drifted)
    assert told.startswith(
        "the scanner drifts: at 120 kV the phantom's slope was above its limit on 2026-03-17"
    )


def test_a_drift_under_another_protocol_casts_doubt_on_all():
    other = replace(PROTOCOL, kvp=80.0)
    drifting = [*baseline(protocol=other), reading(1, protocol=other, slope=0.84)]
    assert "at 80 kV" in refusal([*drifting, reading(4)])


@pytest.mark.parametrize("taken_at", ["101500", ""])
def test_a_drift_of_the_same_day_counts_unless_certainly_after_the_study(taken_at):
    today = reading(0, taken_at=taken_at, slope=0.86, calibration=None)
    assert "the scanner drifts" in refusal([*baseline(), today])


def test_what_was_perhaps_taken_after_the_study_clears_no_drift():
    drifting = [*baseline(), reading(9, slope=0.807)]
    good_elsewhere = reading(2, protocol=replace(PROTOCOL, kvp=80.0))
    back_in_control = reading(0, taken_at="")
    told = refusal([*drifting, good_elsewhere, back_in_control], kvp=80.0)
    assert "has not been in control since" in told


def test_an_older_reading_that_comes_late_hides_no_drift():
    def at(height_mm: float) -> ScanTechnique:
        return replace(TECHNIQUE, table_height_mm=height_mm)

    came = [
        reading(40 - n, slope=0.8 + 0.0005 * (-1) ** n, technique=at(110.0 if n % 2 else 100.0))
        for n in range(27)
    ]
    came += [reading(13 - n, slope=0.83, technique=at(110.0 if n % 2 else 100.0)) for n in range(3)]
    kept = [replace(one, first_kept_at_s=float(n)) for n, one in enumerate(came)]
    late = reading(100, technique=at(128.0), first_kept_at_s=1e3)
    for history in (kept, [late, *kept]):
        assert "the scanner drifts" in refusal(history, technique=at(105.0))


def test_a_drift_that_was_over_before_the_reading_does_not():
    drifted = [*baseline(), reading(8, slope=0.807)]
    assert lent([*drifted, reading(7), reading(2)])[0] is not None


def test_a_chart_that_drifted_is_cleared_by_itself_alone():
    drifting = [*baseline(), reading(9, slope=0.807)]
    other = replace(PROTOCOL, kvp=80.0)
    good_elsewhere = reading(2, protocol=other)
    assert "has not been in control since" in refusal([*drifting, good_elsewhere], kvp=80.0)
    # A tin filter's chart is another one, too.
    tin = replace(TECHNIQUE, spectral_filter="TIN")
    assert "has not been in control since" in refusal([*drifting, reading(2, technique=tin)], technique=tin)
    assert lent([*drifting, reading(6), good_elsewhere], kvp=80.0)[0] is not None


FAILED = {"failed": True, "findings": ("water_rod_off",), "calibration": None, "water_hu": 30.0}


def test_a_reading_that_failed_stops_the_lending_until_a_good_one_comes():
    told = refusal([reading(5), reading(3, **FAILED)])
    assert told.startswith("on 2026-03-17, no earlier than the reading to be used, a phantom on this scanner")
    assert "water_rod_off" in told
    assert lent([reading(5), reading(3, **FAILED), reading(1)])[0] is not None
    other = replace(PROTOCOL, kvp=80.0, phantom="")  # of whatever protocol, recognised or not
    assert "water_rod_off" in refusal([reading(5), reading(3, protocol=other, **FAILED)])
    of_another_scanner = replace(other, device_serial="S/2")
    assert lent([reading(5), reading(3, protocol=of_another_scanner, **FAILED)])[0] is not None


@pytest.mark.parametrize(
    ("taken_at", "stops"), [("120000", True), ("", True), ("080000", False), ("150000", False)]
)
def test_of_the_same_day_a_failure_counts_unless_certainly_before_the_lender_or_after_the_study(
    taken_at, stops
):
    calibration, _ = lent([reading(0), reading(0, taken_at=taken_at, **FAILED)])
    assert (calibration is None) is stops


def test_a_failed_reading_is_in_no_chart_and_no_spread():
    failed = [reading(28 - n, slope=0.2, **FAILED) for n in range(5)]
    calm = [reading(n + 1) for n in range(8)]
    calibration, _ = lent([*failed, *calm])
    assert calibration.uncertainty == lent(calm)[0].uncertainty


def test_the_spread_of_another_filter_is_not_the_lenders():
    tin = [reading(n + 9, technique=replace(TECHNIQUE, spectral_filter="TIN"), slope=0.6) for n in range(8)]
    calm = [reading(n + 1) for n in range(8)]
    assert lent([*tin, *calm])[0].uncertainty == lent(calm)[0].uncertainty


def test_until_when_a_protocol_lends_is_what_a_study_of_that_day_is_told():
    phantoms = {"siemens-osteo": ""}

    def until(readings, history):
        return prior_scan_use(readings, history, phantoms, rules=RULES, charts=CHARTS).until

    quiet = [reading(9), reading(3)]
    assert until(quiet, quiet) == DAY + timedelta(days=27)
    assert lent(quiet, taken_on=DAY + timedelta(days=27))[0] is not None
    assert lent(quiet, taken_on=DAY + timedelta(days=28))[0] is None
    elsewhere = [*baseline(protocol=replace(PROTOCOL, kvp=80.0)), reading(1, slope=0.9)]
    drifting = [*elsewhere[:-1], replace(elsewhere[-1], protocol=elsewhere[0].protocol)]
    assert until(quiet, [*quiet, *drifting]) is None
    unstated = [reading(3, technique=replace(TECHNIQUE, table_height_mm=None))]
    assert until(unstated, unstated) is None
    assert until([reading(3, protocol=replace(PROTOCOL, kernel=""))], quiet) is None


def test_few_readings_tell_no_spread_and_what_is_usual_takes_its_place():
    calibration, _ = lent([reading()])
    expected_at_water = sqrt(2) * 0.8 * RULES.unknown_water_hu
    at_202_hu = hypot(expected_at_water, sqrt(2) * 0.014 * 0.8 * 200, LINE.at(202.0))
    assert calibration.uncertainty.at(202.0) == pytest.approx(at_202_hu)


def test_a_scanners_own_spread_widens_the_interval_by_twice_its_variance():
    """Two lines, (0.79, -1.0) and (0.81, -2.2), three times each: by hand at h the variance is that of their
    densities, (0.01 h - 0.6)^2 * 6 / 5, and twice that is stated, widened by 2.571 over 1.96 for six."""
    history = [
        reading(n + 1, slope=0.8 + 0.01 * (-1) ** n, intercept=-1.6 - 0.6 * (-1) ** n) for n in range(6)
    ]
    found = drift_uncertainty(LENT, history, RULES)
    for hu in (0.0, 60.0, 200.0):
        assert found.at(hu) == pytest.approx(
            abs(0.01 * hu - 0.6) * sqrt(2 * 6 / 5) * 2.5706 / 1.95996, abs=1e-4
        )


@pytest.mark.parametrize("count", [5, 8, 12])
def test_the_stated_interval_holds_the_scanners_line_of_the_day(count):
    """Lines of a scanner drawn at random; the latest but one is lent to the day of the last."""
    rng = np.random.default_rng(20260320)
    held, studies, hu = 0, 600, 150.0
    exact = LineUncertainty(pivot_hu=0.0, bmd_mg_cm3=0.0, slope=0.0)
    for _ in range(studies):
        slopes, waters = (
            0.8 * (1 + 0.01 * rng.standard_normal(count + 1)),
            2.0 * rng.standard_normal(count + 1),
        )
        history = [
            reading(
                count - n,
                slope=s,
                intercept=-s * w,
                calibration=replace(LENT, slope=s, intercept=-s * w, uncertainty=exact),
            )
            for n, (s, w) in enumerate(zip(slopes[:count], waters[:count], strict=True))
        ]
        calibration, _ = lent(history)
        truth = slopes[count] * (hu - waters[count])
        held += abs(calibration.bmd(hu) - truth) <= 1.96 * calibration.uncertainty.at(hu)
    assert 0.92 <= held / studies <= 0.98


def test_independent_uncertainties_of_a_line_add_in_squares_everywhere():
    other = LineUncertainty(pivot_hu=-20.0, bmd_mg_cm3=0.3, slope=0.004)
    both = combined_uncertainty(LINE, other)
    for hu in (-100.0, 0.0, 55.0, 250.0):
        assert both.at(hu) == pytest.approx(hypot(LINE.at(hu), other.at(hu)))
    level = LineUncertainty(pivot_hu=3.0, bmd_mg_cm3=0.3, slope=0.0)
    assert combined_uncertainty(level, replace(level, bmd_mg_cm3=0.4)).at(99.0) == pytest.approx(0.5)


def test_shipped_rules_are_the_pure_rooms_own_and_lend_nothing_until_a_site_asks():
    shipped = load_settings().calibration.asynchronous
    assert not shipped.enabled
    assert shipped == PriorScanSettings()


def test_which_scan_may_lend_does_not_part_a_patients_studies():
    changed = load_settings(calibration={"asynchronous": {"enabled": True}})
    assert changed.measurement_sha256 == load_settings().measurement_sha256
    assert changed.sha256 != load_settings().sha256
