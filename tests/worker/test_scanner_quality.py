"""Phantom readings on their way from a study to the charts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from config.catalog import configured_phantoms
from config.findings import load_findings
from config.settings import Settings, load_settings
from node.cli import build
from node.pipeline.calibrating import calibrate_study
from node.pipeline.scanner import is_declared_phantom, reading_of, technique_of, watch_scanner
from node.pipeline.selection import SelectionArtefact
from node.report import SeriesFacts, StudyIdentity
from node.store.instances import ReceivedInstance
from node.store.store import Store
from scoring.calibration import Calibration, LineUncertainty, Mineral, RodReading
from scoring.phantom import PhantomReading
from scoring.quality_control import Protocol, ScannerReading
from scoring.scan_technique import ScanTechnique
from segmentation.observation import Observation
from segmentation.vertebrae import EngineInfo, Vertebrae
from segmentation.volume import CtVolume, Grid

_GRID = Grid(
    shape=(1, 1, 1),
    spacing_mm=(1.0, 1.0, 1.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
)
NO_IMAGE = Vertebrae(
    grid=_GRID,
    bodies=np.zeros(_GRID.shape, np.uint8),
    levels=(),
    numbering_confirmed=False,
    numbering_basis="none",
    engine=EngineInfo(name="none", version="", model_free=True),
)
PROTOCOL = Protocol(device_serial="S/1", kvp=120.0, kernel="B40", phantom="siemens-osteo", phantom_serial="")
SERIES = SeriesFacts(
    series_instance_uid="1.2.3",
    instances=100,
    kvp=120.0,
    slice_thickness_mm=1.0,
    slice_spacing_mm=1.0,
    pixel_spacing_mm=(0.5, 0.5),
    kernel="B40",
    manufacturer="Maker",
    model="Scanner",
    device_serial="S/1",
    contrast_agent="",
    lossy=False,
)


def reading(number: int, **changes) -> ScannerReading:
    return replace(
        ScannerReading(
            protocol=PROTOCOL,
            model="Scanner",
            taken_on=date(2024, 1, 1) + timedelta(days=number),
            slope=0.8 + (0.002 if number % 2 else -0.002),
            intercept=0.4,
            water_hu=1.0 if number % 2 else -1.0,
            r2=None,
            tilt_degrees=0.5,
        ),
        **changes,
    )


def selection(study_uid: str, **series) -> SelectionArtefact:
    return SelectionArtefact(
        study=StudyIdentity(
            study_instance_uid=study_uid,
            patient_id="P",
            issuer_of_patient_id="",
            accession_number="",
            study_date=date(2024, 3, 1),
            birth_date=None,
            age_years=60,
            sex="F",
        ),
        header_source="",
        series=replace(SERIES, **series),
        rejected=(),
        phantom=PhantomReading(model="siemens-osteo", tilt_degrees=0.7),
        observations=(),
    )


def calibration(*, slope: float = 0.8, water_hu: float | None = 1.5) -> Calibration:
    rods = (
        ()
        if water_hu is None
        else (
            RodReading(
                name="water", density_mg_cm3=0.0, hu_mean=water_hu, hu_sd=1.0, voxels=10, axis_points_mm=()
            ),
        )
    )
    return Calibration(
        method="least-squares",
        phantom="siemens-osteo",
        equivalent=Mineral.HA,
        slope=slope,
        intercept=-1.6,
        r2=None,
        max_residual_hu=None,
        rods=rods,
    )


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
    made = replace(
        calibration(),
        phantom_sha256=model.sha256,
        uncertainty=LineUncertainty(pivot_hu=1 / 3, bmd_mg_cm3=0.1, slope=1e-3),
    )
    technique = {"energy": "single", "table_height_mm": 150.0, "field_of_view_mm": 400.0}
    watch_scanner(store.scanners, selection(study_uid, **technique), made, settings.quality, doubted=False)
    bare = selection("9.9", acquisition_time="140000", **technique)
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


def test_a_doubted_calibration_is_charted_but_not_lent():
    doubted = reading_of(selection("1.2"), calibration(), doubted=True)
    sound = reading_of(selection("1.2", table_height_mm=150.0), calibration(), doubted=False)
    assert doubted.slope == sound.slope
    assert doubted.calibration is None
    assert sound.calibration == calibration()
    assert sound.technique.table_height_mm == 150.0


def test_a_step_that_is_done_twice_counts_once(store: Store, study_uid: str):
    for _ in range(2):
        store.scanners.keep(study_uid, "1.3", reading(3))
    store.scanners.keep(study_uid, "1.3", reading(3, slope=0.9))
    assert [one.slope for one in store.scanners.readings("S/1")] == [0.9]


def test_a_reading_holds_what_the_phantom_said():
    found = reading_of(selection("1.2"), calibration(), doubted=False)
    assert found.protocol == PROTOCOL
    assert (found.taken_on, found.slope, found.intercept) == (date(2024, 3, 1), 0.8, -1.6)
    assert (found.water_hu, found.tilt_degrees) == (1.5, 0.7)


def test_without_a_water_rod_water_is_where_the_line_gives_no_mineral():
    assert reading_of(selection("1.2"), calibration(water_hu=None), doubted=False).water_hu == pytest.approx(
        2.0
    )


@pytest.mark.parametrize("missing", [{"device_serial": ""}, {"kvp": None}])
def test_a_reading_of_no_known_scanner_is_not_kept(missing):
    assert reading_of(selection("1.2", **missing), calibration(), doubted=False) is None
    assert reading_of(selection("1.2"), None, doubted=False) is None


def test_drift_is_said_with_the_study_that_shows_it_and_only_under_its_protocol(store: Store, study_uid: str):
    quality = load_settings().quality
    for number in range(quality.baseline_readings):
        store.scanners.keep(study_uid, f"1.{number}", reading(number))

    def watch(slope: float, **series):
        return watch_scanner(
            store.scanners, selection(study_uid, **series), calibration(slope=slope), quality, doubted=False
        )

    assert watch(0.801) == ()
    (drift,) = watch(0.84)
    assert drift.code == "scanner_drift"
    finding = load_findings().describe(drift)
    assert "slope is above its limit (0.84 mg/cm3 per HU; baseline 0.8" in finding.text
    assert finding.withholds == frozenset()
    assert watch(0.84, kvp=80.0) == ()


def test_a_new_baseline_after_service_forgets_what_was_before(store: Store, study_uid: str):
    renewed = load_settings(quality={"baseline_from": {"S/1": "2024-02-15"}}).quality
    for number in range(renewed.baseline_readings):
        store.scanners.keep(study_uid, f"1.{number}", reading(number))
    found = watch_scanner(
        store.scanners, selection(study_uid), calibration(slope=0.84), renewed, doubted=False
    )
    assert found == ()


def test_a_phantoms_patient_ids_are_patterns():
    quality = load_settings(quality={"phantom_patient_ids": ["QA*", "PHANTOM"]}).quality
    assert [is_declared_phantom(one, quality) for one in ("QA-7", "PHANTOM", "12345", "")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not is_declared_phantom("QA-7", load_settings().quality)


def run_qa(settings: Settings, folder: Path, *options: str, more: str = ""):
    config = folder / "node.toml"
    config.write_text(f'[storage]\nroot = "{settings.storage.root}"\n{more}', "utf-8")
    return CliRunner().invoke(
        build(["qa", "check"]), ["qa", "--config", str(config), *options], env={"COLUMNS": "200"}
    )


def test_qa_shows_a_line_and_draws_a_picture_for_each_protocol(
    sqlite_store: Store,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    tmp_path: Path,
):
    instance = make_instance()
    sqlite_store.instances.receive(instance)
    for number in range(30):
        shifted = reading(number, slope=reading(number).slope + (0.02 if number > 24 else 0.0))
        sqlite_store.scanners.keep(instance.study_instance_uid, f"1.{number}", shifted)
    few = reading(1, protocol=replace(PROTOCOL, kvp=80.0))
    sqlite_store.scanners.keep(instance.study_instance_uid, "1.99", few)

    told = run_qa(make_settings(), tmp_path, "--out", str(tmp_path / "charts"))
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert any("120 kV" in line and "slope" in line and "above its limit" in line for line in lines)
    assert any("120 kV" in line and "water" in line and "in control" in line for line in lines)
    assert any("80 kV" in line and "20 readings are needed" in line for line in lines)
    (picture,) = (tmp_path / "charts").iterdir()
    assert picture.name == "qa-S_1-120kV-B40-siemens-osteo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "no phantom readings" in run_qa(make_settings(), tmp_path, "--scanner", "other").stdout


def test_qa_tells_until_when_each_protocol_lends(
    sqlite_store: Store,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    tmp_path: Path,
):
    instance = make_instance()
    sqlite_store.instances.receive(instance)
    uid = instance.study_instance_uid
    sound = {"technique": technique_of(SERIES), "calibration": calibration()}
    sqlite_store.scanners.keep(uid, "1.1", reading(0, **sound))
    sqlite_store.scanners.keep(uid, "1.2", reading(9))  # later, but doubted
    sqlite_store.scanners.keep(uid, "1.3", reading(0, protocol=replace(PROTOCOL, kvp=80.0)))
    told = run_qa(
        make_settings(), tmp_path, more="[calibration.asynchronous]\nenabled = true\nmax_age_days = 10\n"
    )
    lines = told.stdout.splitlines()
    assert any("120 kV" in line and line.rstrip().endswith("2024-01-11") for line in lines)
    assert any("80 kV" in line and line.rstrip().endswith("not lent") for line in lines)
    assert "lends until" not in run_qa(make_settings(), tmp_path).stdout


def test_qa_makes_no_store_by_looking(make_settings: Callable[..., Settings], tmp_path: Path):
    told = run_qa(make_settings(), tmp_path)
    assert told.exit_code != 0
    assert not (tmp_path / "var").exists()
