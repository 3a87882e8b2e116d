"""Phantom readings on their way from a study to the charts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from typer.testing import CliRunner

from config.catalog import configured_phantoms
from config.findings import load_findings
from config.settings import ConfigurationError, Settings, load_settings
from node.cli import build
from node.pipeline.steps.calibrate import (
    calibrate_study,
    is_declared_phantom,
    reading_of,
    record_scanner_readings,
    technique_of,
)
from node.store.database import Database
from node.store.files import ReceivedInstance
from node.store.store import Store, open_store
from scoring.calibration import LineUncertainty, Mineral
from scoring.calibration.control_charts import ScannerReading
from scoring.calibration.spectrum import ScanTechnique
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import CtVolume
from segmentation.vertebrae import Observation
from tests.worker.scanner_cases import (
    MODELS,
    NO_IMAGE,
    PROTOCOL,
    SERIES,
    calibration,
    phantom,
    read,
    reading,
    selection,
)

pytestmark = pytest.mark.slow

MIGRATIONS = Path(__file__).parents[2] / "node/store/migrations"


@pytest.fixture
def study_uid(store: Store, make_instance: Callable[..., ReceivedInstance]) -> str:
    instance = make_instance()
    store.instances.receive(instance)
    return instance.study_instance_uid


def test_a_reading_comes_back_as_it_was_kept_oldest_first(store: Store, study_uid: str):
    later, earlier = reading(9, r2=0.999), reading(3)
    store.scanners.keep(study_uid, "1.9", later)
    store.scanners.keep(study_uid, "1.3", earlier)
    store.scanners.keep(study_uid, "1.5", reading(5, protocol=replace(PROTOCOL, device_serial="S2")))
    assert store.scanners.readings("S/1") == (earlier, later)
    assert len(store.scanners.readings()) == 3


def test_what_a_later_study_may_borrow_comes_back_exactly(store: Store, study_uid: str):
    lendable = reading(
        3,
        taken_at="101500.25",
        technique=ScanTechnique(
            spectral_filter="FLAT TIN",
            energy="virtual 70 keV",
            reconstruction="",
            table_height_mm=151.5,
            field_of_view_mm=None,
        ),
        calibration=replace(
            calibration(), uncertainty=LineUncertainty(pivot_hu=1 / 3, bmd_mg_cm3=0.1, slope=1e-3)
        ),
    )
    store.scanners.keep(study_uid, "1.3", lendable)
    assert store.scanners.readings("S/1") == (lendable,)


def test_a_study_without_a_phantom_borrows_what_the_store_kept(store: Store, study_uid: str):
    settings = load_settings(calibration={"asynchronous": {"enabled": True}})
    (model,) = configured_phantoms(settings).values()
    technique = {"energy": "single", "table_height_mm": 150.0, "field_of_view_mm": 400.0}
    made = read(study_uid=study_uid, **technique)
    record_scanner_readings(store.scanners, study_uid, {"1.2.3": made}, settings)
    bare = selection("9.9", acquisition_date=date(2024, 3, 4), acquisition_time="140000", **technique)
    bare = replace(
        bare,
        study=replace(bare.study, study_date=date(2024, 3, 4)),
        phantom=PhantomReading(
            model=model.name, observations=(Observation(code="phantom_not_found", values={"phantom": ""}),)
        ),
    )

    def borrowed(**sections):
        chosen = load_settings(calibration={"asynchronous": {"enabled": True}}, **sections)
        nothing = CtVolume(hu=np.zeros((1, 1, 1), np.float32), grid=NO_IMAGE.grid)
        return calibrate_study(
            nothing, NO_IMAGE, bare, {model.name: model}, settings=chosen, history=store.scanners
        )

    found = borrowed()
    assert (found.used.slope, found.used.intercept) == (made.slope, made.intercept)
    assert found.used.scanned_on == date(2024, 3, 1)
    assert [one.code for one in found.observations] == ["asynchronous_calibration"]
    serviced = borrowed(quality={"baseline_from": {"S/1": "2024-03-02"}})
    assert serviced.used is None
    assert [one.code for one in serviced.observations] == ["phantom_not_found", "asynchronous_missing"]


def test_rows_from_before_lending_still_feed_the_charts_and_lend_nothing(store: Store, study_uid: str):
    store.scanners.keep(study_uid, "1.3", reading(3))
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE phantom_readings SET technique = NULL, calibration = NULL")
    (kept,) = store.scanners.readings("S/1")
    assert (kept.slope, kept.technique, kept.calibration) == (reading(3).slope, None, None)


def test_what_is_said_against_a_reading_comes_back(store: Store, study_uid: str):
    kept = reading(
        3, slope=None, intercept=None, water_hu=-21.0, findings=("water_rod_off",), failed=True, alone=True
    )
    store.scanners.keep(study_uid, "1.3", kept)
    assert store.scanners.readings("S/1") == (kept,)


def test_a_phantom_that_failed_a_check_is_kept_with_its_line_and_why_and_is_not_lent():
    sound = read(table_height_mm=150.0)
    assert (sound.findings, sound.failed, sound.charted) == ((), False, True)
    assert sound.calibration.slope == pytest.approx(0.8)
    assert (sound.technique.table_height_mm, sound.equivalent) == (150.0, Mineral.HA)
    tilted = read(phantom(codes=("phantom_tilted", "rod_uneven")))
    assert (tilted.findings, tilted.failed, tilted.charted) == (("phantom_tilted", "rod_uneven"), True, False)
    assert (tilted.slope, tilted.water_hu, tilted.calibration) == (pytest.approx(0.8), 1.5, None)
    implausible = read(phantom(slope=0.3))
    assert (implausible.findings, implausible.failed) == (("calibration_slope_off",), True)
    assert implausible.slope == pytest.approx(0.3)
    wrong_order = read(phantom(slope=-0.8))
    assert (wrong_order.findings, wrong_order.slope, wrong_order.water_hu) == (("rod_order",), None, 1.5)
    unrecognised = read(PhantomReading(model="", observations=(Observation(code="phantom_ambiguous"),)))
    assert (unrecognised.findings, unrecognised.protocol.phantom) == (("phantom_ambiguous",), "")


def test_a_study_without_a_phantom_leaves_no_reading_unless_a_phantom_was_declared():
    nothing = PhantomReading(
        model="siemens-osteo", observations=(Observation(code="phantom_not_found", values={"phantom": ""}),)
    )
    assert read(nothing) is None
    chosen = selection("1.2")
    declared = reading_of(chosen.study, chosen.series, nothing, MODELS["siemens-osteo"], declared=True)
    assert (declared.findings, declared.failed) == (("phantom_not_found",), True)


def test_a_single_slice_is_charted_apart_and_never_lent():
    kept = read(slice_spacing_mm=None)
    assert (kept.failed, kept.findings, kept.calibration) == (False, (), None)
    assert kept.technique.single_slice


def test_readings_kept_before_failed_ones_were_come_through_the_upgrade(
    make_settings: Callable[..., Settings],
):
    storage = make_settings().storage
    database = Database(storage.resolved_database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.exec_driver_sql(
            "INSERT INTO studies VALUES ('1.2', 1, 'sent', '', 0, 0.0, NULL)",
        )
        connection.exec_driver_sql(
            "INSERT INTO phantom_readings VALUES ('1.2.3', '1.2', 'S/1', 'Scanner', 120.0, 'B40',"
            " 'siemens-osteo', '', '2024-03-01', 0.8, -1.6, 2.0, NULL, 0.5, 0.0, '101500', NULL, NULL)"
        )
    database.close()
    with closing(open_store(storage)) as upgraded:
        (kept,) = upgraded.scanners.readings("S/1")
    assert (kept.slope, kept.intercept, kept.water_hu, kept.taken_at) == (0.8, -1.6, 2.0, "101500")
    assert (kept.findings, kept.failed, kept.alone, kept.charted) == ((), False, False, True)


def test_a_step_that_is_done_twice_counts_once(store: Store, study_uid: str):
    for _ in range(2):
        store.scanners.keep(study_uid, "1.3", reading(3))
    store.scanners.keep(study_uid, "1.3", reading(3, slope=0.9))
    assert [one.slope for one in store.scanners.readings("S/1")] == [0.9]


def test_a_step_that_is_done_again_leaves_the_reading_its_place_in_the_order_of_coming(
    store: Store, study_uid: str
):
    store.scanners.keep(study_uid, "1.3", reading(3))
    (first,) = store.scanners.readings("S/1")
    store.scanners.keep(study_uid, "1.2", reading(2))
    store.scanners.keep(study_uid, "1.3", reading(3, slope=0.9))
    older, again = store.scanners.readings("S/1")
    assert 0.0 < first.first_kept_at_s == again.first_kept_at_s <= older.first_kept_at_s


def test_a_retry_that_finds_no_phantom_to_read_forgets_the_reading_of_the_same_series(
    store: Store, study_uid: str
):
    for source_uid in ("1.3", "1.4"):
        store.scanners.keep(study_uid, source_uid, reading(3, failed=True, findings=("phantom_not_found",)))
    assert record_scanner_readings(store.scanners, study_uid, {"1.3": None}, load_settings()) == ()
    assert len(store.scanners.readings("S/1")) == 1
    record_scanner_readings(store.scanners, study_uid, {"1.4": None, "1.5": None}, load_settings())
    assert store.scanners.readings("S/1") == ()


def test_a_reading_holds_what_the_phantom_said():
    found = read()
    assert found.protocol == PROTOCOL
    assert (found.taken_on, found.slope) == (date(2024, 3, 1), pytest.approx(0.8))
    assert (found.intercept, found.water_hu, found.tilt_degrees) == (pytest.approx(-1.2), 1.5, 0.7)


def test_without_a_water_rod_water_is_where_the_line_gives_no_mineral():
    (model,) = configured_phantoms(load_settings(calibration={"phantom": "qrm-bdc-3"})).values()
    rods = [(100.0, 127.0), (400.0, 502.0), (800.0, 1002.0)]  # 1.25 HU per mg/cm3, and 2 HU without mineral
    shown = replace(
        phantom(),
        model=model.name,
        rods=tuple(
            replace(phantom().rods[0], name=f"{density:g}", density_mg_cm3=density, hu_mean=hu)
            for density, hu in rods
        ),
    )
    chosen = selection("1.2")
    found = reading_of(chosen.study, chosen.series, shown, model)
    assert (found.findings, found.water_hu) == ((), pytest.approx(2.0))


@pytest.mark.parametrize("missing", [{"device_serial": ""}, {"kvp": None}])
def test_a_reading_of_no_known_scanner_is_not_kept(missing):
    assert read(**missing) is None


def test_drift_is_said_with_the_study_that_shows_it_and_only_under_its_protocol(store: Store, study_uid: str):
    settings = load_settings()
    for number in range(settings.quality.baseline_readings):
        store.scanners.keep(study_uid, f"1.{number}", reading(number))

    def watch(slope: float, **series):
        made = read(phantom(slope=slope, water_hu=0.0), **series)
        return record_scanner_readings(store.scanners, study_uid, {"1.2.3": made}, settings)

    assert watch(0.801) == ()
    (drift,) = watch(0.84)
    assert drift.code == "scanner_drift"
    finding = load_findings().describe(drift)
    assert (
        "slope is above its limit (0.84 mg/cm3 HA per HU on 2024-03-01 at 120 kV by siemens-osteo; "
        "baseline 0.8 mg/cm3 HA per HU" in finding.text
    )
    assert finding.withholds == frozenset()
    assert watch(0.84, kvp=80.0) == ()
    assert watch(0.84, spectral_filter="FLAT TIN") == ()
    assert watch(0.84, table_height_mm=150.0) == ()


def test_a_new_baseline_after_service_forgets_what_was_before(store: Store, study_uid: str):
    renewed = load_settings(quality={"baseline_from": {"S/1": "2024-02-15"}})
    for number in range(renewed.quality.baseline_readings):
        store.scanners.keep(study_uid, f"1.{number}", reading(number))
    made = read(phantom(slope=0.84))
    assert record_scanner_readings(store.scanners, study_uid, {"1.2.3": made}, renewed) == ()


def test_a_phantoms_patient_ids_are_patterns():
    quality = load_settings(quality={"phantom_patient_ids": ["QA*", "PHANTOM"]}).quality
    assert [is_declared_phantom(one, quality) for one in ("QA-7", "PHANTOM", "12345", "")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not is_declared_phantom("QA-7", load_settings().quality)


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "", " ", "[A-Z]*", "[!x]*"])
def test_a_pattern_that_would_take_every_patient_for_a_phantom_is_refused(pattern):
    with pytest.raises(ConfigurationError, match="would take every patient for a phantom"):
        load_settings(quality={"phantom_patient_ids": [pattern]})


def run_qa(settings: Settings, folder: Path, *options: str, more: str = ""):
    config = folder / "node.toml"
    config.write_text(f'[storage]\nroot = "{settings.storage.root}"\n{more}', "utf-8")
    return CliRunner().invoke(
        build(["qa", "check"]), ["qa", "--config", str(config), *options], env={"COLUMNS": "200"}
    )


@pytest.fixture
def keep(sqlite_store: Store, make_instance: Callable[..., ReceivedInstance]) -> Callable[..., None]:
    """Keep readings of one study's several series."""
    instance = make_instance()
    sqlite_store.instances.receive(instance)
    places = count()

    def keep_all(*readings: ScannerReading) -> None:
        for one in readings:
            sqlite_store.scanners.keep(instance.study_instance_uid, f"1.{next(places)}", one)

    return keep_all


def test_qa_shows_a_line_and_draws_a_picture_for_each_protocol(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    steady = [reading(number) for number in range(30)]
    keep(*(replace(one, slope=one.slope + (0.02 if n > 24 else 0.0)) for n, one in enumerate(steady)))
    keep(reading(1, protocol=replace(PROTOCOL, kvp=80.0)))
    told = run_qa(make_settings(), tmp_path, "--out", str(tmp_path / "charts"))
    lines = told.stdout.splitlines()
    assert any("slope" in line and "mg/cm3 HA per HU" in line and "above its limit" in line for line in lines)
    assert any("water" in line and "in control" in line for line in lines)
    assert any("80 kV" in line and "20 readings are needed" in line for line in lines)
    (picture,) = (tmp_path / "charts").iterdir()
    assert picture.name == "qa-S_1-120kV-B40-siemens-osteo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "no phantom readings" in run_qa(make_settings(), tmp_path, "--scanner", "other").stdout


def test_qa_ends_with_1_and_the_finding_where_a_scanner_drifts_and_with_0_where_none_does(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    keep(*(reading(number) for number in range(25)))
    quiet = run_qa(make_settings(), tmp_path)
    assert (quiet.exit_code, "scanner_drift" in quiet.stdout) == (0, False)
    keep(reading(25, slope=0.84, alone=False))
    drifted = run_qa(make_settings(), tmp_path)
    assert drifted.exit_code == 1
    (told,) = [line for line in drifted.stdout.splitlines() if line.startswith("scanner_drift, Scanner S/1")]
    assert "slope is above its limit (0.84 mg/cm3 HA per HU on 2024-01-26 at 120 kV" in told


def test_qa_prints_what_headers_say_whatever_brackets_it_holds(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    for number, kernel in enumerate(("B40[/x]", "B40[bold]")):
        keep(reading(number, protocol=replace(PROTOCOL, kernel=kernel)))
    told = run_qa(make_settings(), tmp_path)
    assert told.exit_code == 0
    for kernel in ("B40[/x]", "B40[bold]"):
        assert kernel in told.stdout


def test_qa_says_that_the_configured_phantom_does_not_exist_and_not_that_a_scanner_drifts(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    keep(reading(0))
    lending = '[calibration]\nphantom = "nosuch"\n[calibration.asynchronous]\nenabled = true\n'
    told = run_qa(make_settings(), tmp_path, more=lending)
    assert isinstance(told.exception, ConfigurationError)  # which the command line answers with exit 2
    assert "nosuch" in str(told.exception)


def test_qa_tells_of_a_failed_reading_and_leaves_it_out_of_the_limits(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    keep(*(reading(number) for number in range(21)))
    keep(reading(30, slope=1.9, water_hu=80.0, findings=("water_rod_off",), failed=True))
    told = run_qa(make_settings(), tmp_path, "--out", str(tmp_path))
    assert told.exit_code == 1
    assert "22, 1 failed" in told.stdout
    assert "in control; then a reading failed" in told.stdout
    assert any(
        all(part in line for part in ("2024-01-31", "water_rod_off", "80.0 HU", "1.9 mg/cm3 HA per HU"))
        for line in told.stdout.splitlines()
    )
    keep(reading(31))
    after = run_qa(make_settings(), tmp_path)
    assert after.exit_code == 0
    assert "water_rod_off" in after.stdout


def test_a_good_reading_of_another_makers_scanner_of_the_same_serial_number_hides_no_failure(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    keep(reading(1, findings=("water_rod_off",), failed=True), reading(2, model="Revolution"))
    told = run_qa(make_settings(), tmp_path)
    assert told.exit_code == 1
    assert "reading failed, Scanner S/1: the latest, of 2024-01-02" in told.stdout


def test_qa_tells_until_when_each_protocol_lends_by_what_a_study_would_be_told(
    keep: Callable[..., None], make_settings: Callable[..., Settings], tmp_path: Path
):
    technique = replace(technique_of(SERIES), table_height_mm=150.0, field_of_view_mm=400.0)
    sound = {"technique": technique, "calibration": calibration()}
    lending = "[calibration.asynchronous]\nenabled = true\nmax_age_days = 10\n"
    keep(reading(0, **sound))
    keep(reading(0, protocol=replace(PROTOCOL, kvp=80.0), technique=technique))
    unstated = reading(0, **sound, protocol=replace(PROTOCOL, kvp=100.0))
    keep(replace(unstated, technique=replace(technique, table_height_mm=None)))
    told = run_qa(make_settings(), tmp_path, more=lending)
    lines = told.stdout.splitlines()
    assert any("120 kV" in line and line.rstrip().endswith("2024-01-11") for line in lines)
    assert sum(line.rstrip().endswith("not used") for line in lines) == 2
    (why,) = [line for line in lines if line.startswith("not used") and "100 kV" in line]
    assert "table height not stated" in why
    keep(reading(4, protocol=replace(PROTOCOL, kvp=80.0), findings=("rod_off",), failed=True))
    stopped = run_qa(make_settings(), tmp_path, more=lending).stdout
    assert any("120 kV" in line and "did not pass all checks" in line for line in stopped.splitlines())
    assert "2024-01-11" not in stopped
    assert "calibrates until" not in run_qa(make_settings(), tmp_path).stdout


def test_qa_makes_no_store_by_looking(make_settings: Callable[..., Settings], tmp_path: Path):
    told = run_qa(make_settings(), tmp_path)
    assert told.exit_code != 0
    assert not (tmp_path / "var").exists()
