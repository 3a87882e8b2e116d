"""When results, and what names a patient, are removed; what never is; and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import typer

from config.settings import Settings
from node.commands import studies as command
from node.pipeline.artefacts import MANIFEST
from node.pipeline.housekeeping import remove_results_due
from node.store.database import now_s
from node.store.errors import ArtefactRemoved, ResultsRemoved
from node.store.files import ReceivedInstance
from node.store.instances import Receipt
from node.store.jobs import DueJob, Lease, MadeObject
from node.store.schema import deliveries, instances, jobs, studies
from node.store.states import DeliveryState, JobState, QuarantineKind, StudyState
from node.store.store import Store
from tests.claiming import claim
from tests.worker.bench import SR_UID, Bench

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]
DAY_S = 86400.0
KEPT = (MANIFEST,)
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def study(make_instance: Make) -> str:
    return make_instance().study_instance_uid


@pytest.fixture
def delivered(store: Store, make_instance: Make, close_study: Close, study: str) -> Lease:
    """A study whose report one destination has been shown to hold."""
    store.instances.receive(make_instance(1))
    store.instances.receive(make_instance(2, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.67"))  # a dose report
    held = claim(store, close_study(store))
    store.scans.keep(
        study_instance_uid=study, patient_id="4711", issuer="", taken_on=date(2026, 1, 1), content="one"
    )
    for name in (MANIFEST, "result.json", "report.dcm"):
        store.artefacts.put(held, name, name.encode(), {})
    made = MadeObject(
        sop_instance_uid="2.25.1", sop_class_uid=SR_CLASS, kind="SR", artefact="report.dcm", is_report=True
    )
    store.reports.issue(held)
    lease = claim(store, store.jobs.advance(held, "deliver", [made]))
    store.deliveries.schedule(lease, ["pacs"])
    _set_deliveries(store, DeliveryState.COMMITTED)
    store.jobs.finish(lease, StudyState.DELIVERED, "")
    return lease


def _set_deliveries(store: Store, state: DeliveryState) -> None:
    with store.database.writing() as connection:
        connection.execute(deliveries.update().values(state=state))


def _age(store: Store, days: float) -> None:
    with store.database.writing() as connection:
        then = now_s() - days * DAY_S
        connection.execute(jobs.update().values(updated_at=then))
        connection.execute(instances.update().values(received_at=then))
        connection.execute(studies.update().values(created_at=then, last_received_at=then))


def _settings(make_settings: Callable[..., Settings], max_age_days: int = 180, **storage: float) -> Settings:
    return make_settings(storage=storage, clinical={"max_age_days": max_age_days})


def files(store: Store) -> int:
    shelves = ("instances", "artefacts")
    return sum(path.is_file() for shelf in shelves for path in (store.files.root / shelf).rglob("*"))


def test_nothing_goes_unless_a_site_says_so(
    store: Store, delivered: Lease, make_settings: Callable[..., Settings]
) -> None:
    _age(store, 10000)
    assert remove_results_due(store, _settings(make_settings)) == 0
    assert files(store) == 5


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("setting", ["retention_results_days", "retention_identity_days"])
def test_results_go_after_their_time_and_never_before_the_laboratory_window_is_closed(
    store: Store, delivered: Lease, make_settings: Callable[..., Settings], setting: str
) -> None:
    patient, hasty = (_settings(make_settings, days, **{setting: 30.0}) for days in (180, 10))
    _age(store, 29)
    assert remove_results_due(store, hasty) == 0
    for age_days in (31, 179):
        _age(store, age_days)
        assert remove_results_due(store, patient) == 0
    assert files(store) == 5
    _age(store, 181)
    assert remove_results_due(store, patient) > 0


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_without_a_late_value_to_wait_for_results_go_after_their_time(
    store: Store, delivered: Lease, make_settings: Callable[..., Settings]
) -> None:
    _age(store, 31)
    assert remove_results_due(store, _settings(make_settings, 10, retention_results_days=30.0)) == 2


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("state", list(StudyState))
def test_results_that_are_not_proven_to_be_elsewhere_stay(
    store: Store, delivered: Lease, study: str, state: StudyState
) -> None:
    with store.database.writing() as connection:
        connection.execute(studies.update().values(state=state))
    may_go = state in (StudyState.DELIVERED, StudyState.NOT_APPLICABLE)
    assert store.retention.with_results(for_s=0, kept=KEPT) == ((study,) if may_go else ())
    assert store.retention.remove_results(study, kept=KEPT) == (2 if may_go else 0)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.SENT])
def test_one_object_that_is_not_proven_keeps_them_all(
    store: Store, delivered: Lease, study: str, state: DeliveryState
) -> None:
    _set_deliveries(store, state)
    assert store.retention.with_results(for_s=0, kept=KEPT) == ()
    assert store.retention.remove_results(study, kept=KEPT) == 0


def test_results_that_were_promised_to_another_stay(store: Store, delivered: Lease, study: str) -> None:
    asked = (SR_CLASS, "2.25.1")
    request = store.commitment_requests.enter(
        transaction_uid="2.25.9", calling_ae="PACS", asked=[asked], pause_s=0
    )
    assert request.held == (asked,)
    assert store.retention.remove_results(study, kept=KEPT) == 0
    assert store.retention.with_identity(for_s=0, kept=KEPT) == ()


def test_rows_of_reports_and_deliveries_stay_and_say_when_results_went(
    store: Store, delivered: Lease, study: str
) -> None:
    before = store.overview.show(study)
    assert store.retention.remove_results(study, kept=KEPT) == 2
    shown = store.overview.show(study)
    assert (shown.reports, shown.deliveries) == (before.reports, before.deliveries)
    assert shown.results_removed_at is not None
    removed = {row.name: row.removed_at is not None for row in shown.artefacts}
    assert removed == {MANIFEST: False, "result.json": True, "report.dcm": True}
    assert store.artefacts.names(study, 1) == (MANIFEST,)
    with pytest.raises(ArtefactRemoved, match=r"retention removed it on 2\d\d\d-\d\d-\d\d"):
        store.artefacts.get(study, 1, "report.dcm")
    assert files(store) == 3  # two that were received, and the list of objects
    assert store.scans.of_patient(patient_id="4711", issuer="") == ("one",)
    assert store.retention.with_results(for_s=0, kept=KEPT) == ()


def test_what_names_the_patient_goes_as_a_whole(
    store: Store, delivered: Lease, study: str, make_instance: Make
) -> None:
    assert store.retention.with_identity(for_s=0, kept=KEPT) == (study,)
    assert store.retention.remove_identity(study, _Unread(), kept=KEPT) == 4
    assert files(store) == 1
    assert store.scans.of_patient(patient_id="4711", issuer="") == ()
    assert store.retention.with_identity(for_s=0, kept=KEPT) == ()
    shown = store.overview.show(study)
    assert (shown.summary.images, shown.summary.others, shown.purged) == (1, 1, 2)
    assert store.instances.receive(make_instance(1)) is Receipt.RESTORED  # and no new report
    assert store.overview.show(study).summary.state == StudyState.DELIVERED


def test_what_waits_for_a_decision_keeps_the_identity(
    store: Store, delivered: Lease, study: str, make_instance: Make
) -> None:
    class Corrected(_Unread):
        def identity_difference(self, held: object, came: object) -> frozenset[str]:
            return frozenset({"PatientID"})

    other = make_instance(1, content=(b"header", b"another identity"))
    assert store.instances.receive(other, Corrected()) is Receipt.HELD
    assert store.retention.with_identity(for_s=0, kept=KEPT) == ()
    assert store.retention.remove_identity(study, _Unread(), kept=KEPT) == 0
    store.identities.reject(study)
    assert store.retention.remove_identity(study, _Unread(), kept=KEPT) == 4
    (left,) = store.quarantine.list()  # what was acknowledged is a person's to discard
    assert (left.kind, left.path.is_file()) == (QuarantineKind.REJECTED, True)


def test_studies_without_an_image_do_not_keep_their_patients_for_ever(
    store: Store, make_instance: Make, study: str
) -> None:
    store.instances.receive(make_instance(1, sop_class_uid=SR_CLASS))
    assert store.retention.with_identity(for_s=DAY_S, kept=KEPT) == ()
    _age(store, 2)
    with store.database.writing() as connection:
        connection.execute(studies.update().values(last_received_at=None))
    assert store.retention.with_identity(for_s=DAY_S, kept=KEPT) == (study,)
    assert store.retention.remove_identity(study, _Unread(), kept=KEPT) == 1
    assert files(store) == 0


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_files_that_a_stop_left_behind_are_removed_later(
    store: Store, delivered: Lease, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(store.retention, "remove_files", lambda: None)
        assert store.retention.remove_results(study, kept=KEPT) == 2
    assert files(store) == 5
    store.retention.remove_files()
    assert files(store) == 3


class _Unread:
    """Reads nothing."""

    def identity_difference(self, held: object, came: object) -> frozenset[str] | None:
        return None

    def fingerprint(self, source: object) -> tuple[str, str] | None:
        return None


@pytest.fixture
def config(bench: Bench, tmp_path: Path) -> Path:
    """The configuration of a node in miniature that has delivered a study."""
    bench.close()
    bench.work()
    path = tmp_path / "node.toml"
    path.write_text(f'[storage]\nroot = "{bench.store.files.root}"\n')
    return path


def test_a_resend_sends_the_same_objects_again(bench: Bench, config: Path) -> None:
    uid, before = bench.summary.study_instance_uid, list(bench.sender.sent)
    made = {row.name: row.sha256 for row in bench.detail.artefacts}
    command.resend(uid, config)
    bench.work()
    assert bench.sender.sent == before * 2
    assert {row.name: row.sha256 for row in bench.detail.artefacts} == made
    assert bench.summary.state == StudyState.SENT


@pytest.mark.parametrize("wish", ["resend", "retry"])
def test_a_study_whose_results_were_removed_says_so_and_is_not_computed_anew(
    bench: Bench, config: Path, wish: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uid, sent = bench.summary.study_instance_uid, list(bench.sender.sent)
    assert SR_UID in sent
    _set_deliveries(bench.store, DeliveryState.COMMITTED)
    with bench.store.database.writing() as connection:
        connection.execute(studies.update().values(state=StudyState.DELIVERED))
    assert bench.store.retention.remove_results(uid, kept=KEPT) > 0
    removed_at = bench.detail.results_removed_at
    with pytest.raises(typer.Exit):
        getattr(command, wish)(uid, config)
    said = " ".join(capsys.readouterr().err.split())
    assert f"removed by retention on {removed_at:%Y-%m-%d}" in said
    assert [job.state for job in bench.detail.jobs] == [JobState.FINISHED]
    assert bench.sender.sent == sent
    with pytest.raises(ResultsRemoved):
        bench.store.retention.require_results(uid)


@pytest.mark.parametrize("state", [StudyState.RECEIVING, StudyState.PROCESSING, StudyState.SET_ASIDE])
def test_a_study_that_was_not_sent_has_nothing_to_send_again(
    bench: Bench, config: Path, state: StudyState, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.store.database.writing() as connection:
        connection.execute(studies.update().values(state=state))
    with pytest.raises(typer.Exit):
        command.resend(bench.summary.study_instance_uid, config)
    assert f"the study is {state}" in " ".join(capsys.readouterr().err.split())
