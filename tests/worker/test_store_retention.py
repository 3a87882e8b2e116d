"""What retention removes, what it never touches, and what happens to that which comes afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from structlog.testing import capture_logs

from config.settings import load_settings
from node.pipeline.housekeeping import purge_due
from node.store.database import now_s
from node.store.errors import ImagesPurged, StorageFull
from node.store.files import ReceivedInstance
from node.store.instances import Receipt
from node.store.jobs import DueJob
from node.store.schema import instances, jobs
from node.store.states import QuarantineKind, StudyState
from node.store.store import Store, open_store
from tests.claiming import claim
from tests.closing import close_due

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]
DAY_S = 86400.0
MIB = 1 << 20


class _Said:
    """Reads bytes as `encoding|identity|image`."""

    def identity_difference(self, held: Path | BinaryIO, came: Path | BinaryIO) -> frozenset[str] | None:
        raise AssertionError("what is held is gone")

    def fingerprint(self, source: Path | BinaryIO) -> tuple[str, str] | None:
        content = source.read_bytes() if isinstance(source, Path) else source.read()
        parts = content.decode().split("|")
        return (parts[2].ljust(64, "."), parts[1].ljust(64, ".")) if len(parts) == 3 else None


@pytest.fixture
def come(store: Store, make_instance: Make) -> Callable[..., Receipt]:
    def arrive(number: int = 1, encoding: str = "raw", identity: str = "old", image: str = "") -> Receipt:
        content = (b"", f"{encoding}|{identity}|{image or number}".encode())
        return store.instances.receive(make_instance(number, content=content), _Said())

    return arrive


Come = Callable[..., Receipt]


@pytest.fixture
def study(make_instance: Make) -> str:
    return make_instance().study_instance_uid


def _age(store: Store, study: str, days: float) -> None:
    """All that happened to a study happened so much earlier."""
    with store.database.writing() as connection:
        for table, column in ((jobs, "updated_at"), (instances, "received_at")):
            connection.execute(
                table.update()
                .where(table.c.study_instance_uid == study)
                .values({column: now_s() - days * DAY_S})
            )


def _finish(store: Store, job: DueJob, state: StudyState = StudyState.SENT) -> None:
    lease = claim(store, job)
    store.artefacts.put(lease, "result.json", b"{}", {})
    store.jobs.finish(lease, state, "")


def _due(store: Store, days: float) -> tuple[str, ...]:
    return tuple(store.retention.finished(for_s=days * DAY_S))


@pytest.mark.parametrize("state", list(StudyState))
def test_only_what_is_finished_is_ever_removed(
    store: Store, come: Come, close_study: Close, study: str, state: StudyState
) -> None:
    come(1)
    job = close_study(store)
    if state is StudyState.SET_ASIDE:
        store.jobs.set_aside(claim(store, job), "")
    elif state is StudyState.RECEIVING:
        _finish(store, job)
        come(2)
    elif state is not StudyState.PROCESSING:
        _finish(store, job, state)
    assert store.overview.show(study).summary.state == state
    finished = state in (
        StudyState.DELIVERED,
        StudyState.SENT,
        StudyState.REPORTED,
        StudyState.NOT_APPLICABLE,
    )
    assert _due(store, 0) == ((study,) if finished else ())
    removed = store.retention.purge(study, _Said())
    assert removed == (1 if finished else 0)
    assert len(store.instances.paths(study)) == {StudyState.RECEIVING: 2}.get(state, 0 if finished else 1)


def test_age_counts_from_the_last_image_and_the_end_of_the_work(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _finish(store, close_study(store))
    assert _due(store, 9) == ()
    _age(store, study, 10)
    assert _due(store, 9) == (study,)
    assert _due(store, 11) == ()


def test_a_study_whose_identity_waits_for_a_decision_keeps_its_images(
    store: Store, come: Come, close_study: Close, study: str, make_instance: Make
) -> None:
    class Corrected(_Said):
        def identity_difference(self, held: Path | BinaryIO, came: Path | BinaryIO) -> frozenset[str]:
            return frozenset({"PatientID"})

    come(1)
    _finish(store, close_study(store))
    store.instances.receive(make_instance(1, content=(b"", b"raw|new|1")), Corrected())
    assert _due(store, 0) == ()
    store.identities.reject(study)
    assert _due(store, 0) == (study,)


def test_rows_and_artefacts_stay_and_tell_what_went_and_when(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1), come(2)
    _finish(store, close_study(store))
    paths = store.instances.paths(study)
    assert store.retention.purge(study, _Said()) == 2
    assert not any(path.exists() for path in paths)
    shown = store.overview.show(study)
    assert (shown.summary.images, shown.purged) == (2, 2)
    assert shown.purged_at is not None
    assert store.artefacts.get(study, 1, "result.json") == b"{}"
    assert store.instances.paths(study) == ()
    assert _due(store, 0) == ()


def test_files_that_a_stop_left_behind_are_removed_later(
    store: Store, come: Come, close_study: Close, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    come(1)
    _finish(store, close_study(store))
    (path,) = store.instances.paths(study)
    with monkeypatch.context() as stopped:
        stopped.setattr(store.retention, "remove_files", lambda: None)
        store.retention.purge(study, _Said())
    assert path.exists()
    store.retention.remove_files()
    assert not path.exists()


def test_a_file_that_cannot_be_removed_keeps_no_other(
    store: Store, come: Come, close_study: Close, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    come(1), come(2)
    _finish(store, close_study(store))
    stuck, other = store.instances.paths(study)
    with monkeypatch.context() as stopped:
        stopped.setattr(store.retention, "remove_files", lambda: 0)
        assert store.retention.purge(study, _Said()) == 2
    stuck.unlink()
    stuck.mkdir()  # as a damaged file system answers: it is there, and cannot be removed
    assert store.retention.remove_files() == 1
    assert not other.exists()
    with capture_logs() as told:
        assert purge_due(store, load_settings().storage) == 0
    assert [(one["event"], one["files"]) for one in told] == [("files_not_removed", 1)]
    stuck.rmdir()
    assert store.retention.remove_files() == 0


@pytest.mark.parametrize("encoding", ["raw", "compressed"])
def test_a_purged_study_that_comes_again_gives_no_new_report(
    store: Store, come: Come, close_study: Close, study: str, encoding: str
) -> None:
    come(1)
    _finish(store, close_study(store))
    store.retention.purge(study, _Said())
    assert come(1, encoding) is Receipt.RESTORED
    shown = store.overview.show(study)
    assert (shown.summary.state, shown.summary.generation, shown.purged) == (StudyState.SENT, 1, 0)
    (path,) = store.instances.paths(study)
    assert path.read_bytes() == f"{encoding}|old|1".encode()


def test_a_purged_image_under_another_identity_waits_and_can_be_accepted(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _finish(store, close_study(store))
    store.retention.purge(study, _Said())
    assert come(1, identity="new") is Receipt.HELD
    assert store.identities.accept(study) == 1
    assert close_study(store).generation == 2
    (path,) = store.instances.paths(study)
    assert path.read_bytes() == b"raw|new|1"
    assert store.overview.show(study).quarantine == ()  # of the old one nothing is left


def test_other_content_for_a_purged_image_is_quarantined(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _finish(store, close_study(store))
    store.retention.purge(study, _Said())
    assert come(1, image="other") is Receipt.QUARANTINED
    (line,) = store.overview.show(study).quarantine
    assert line.kind is QuarantineKind.CONTENT


def test_a_late_image_of_a_purged_study_waits_until_all_have_come_again(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1), come(2)
    _finish(store, close_study(store))
    store.retention.purge(study, _Said())
    come(3)
    shown = store.overview.show(study).summary
    assert shown.state == StudyState.RECEIVING
    assert "retention had removed others (2)" in shown.reason
    assert close_due(store, first_step="select", quiet_s=0, stale_s=20) == ()
    assert store.census.take().waiting_for_purged == 1
    come(1)
    assert close_due(store, first_step="select", quiet_s=0, stale_s=20) == ()
    come(2)
    assert close_study(store).generation == 2
    assert len(store.instances.paths(study)) == 3
    assert store.census.take().waiting_for_purged == 0


def test_a_retry_that_needs_purged_images_is_refused(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _finish(store, close_study(store), StudyState.NOT_APPLICABLE)
    store.retention.purge(study, _Said())
    with pytest.raises(ImagesPurged):
        store.studies.retry(study, first_step="select")
    come(1)
    assert store.studies.retry(study, first_step="select").step == "select"


def test_space_is_made_on_a_full_disk_from_the_longest_finished_on_and_reception_goes_on(
    small_disk: Path, make_instance: Make
) -> None:
    settings = load_settings(
        storage={
            "root": str(small_disk / "var"),
            "min_free_bytes": 8 * MIB,
            "purge_above_percent": 60.0,
        }
    ).storage
    with closing(open_store(settings)) as store:

        def come(study: int) -> Receipt:
            content = (b"", b"%d" % study + bytes(4 * MIB))
            instance = make_instance(study, content=content, study_instance_uid=f"2.25.{study}")
            return store.instances.receive(instance)

        for study in range(1, 6):
            come(study)
        for job in close_due(store, first_step="select", quiet_s=0, stale_s=20):
            lease = claim(store, job)
            if lease.study_instance_uid in ("2.25.2", "2.25.3", "2.25.4"):
                store.jobs.finish(lease, StudyState.SENT, "")
            else:
                store.jobs.set_aside(lease, "failed")
        _age(store, "2.25.3", 2)
        with pytest.raises(StorageFull):
            come(6)
        assert purge_due(store, settings) == 1
        assert store.files.used_percent() <= 60
        left = {study for study in range(1, 6) if store.instances.paths(f"2.25.{study}")}
        assert left == {1, 2, 4, 5}
        assert come(6) is Receipt.STORED


def test_nothing_is_removed_unless_a_site_says_so(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _finish(store, close_study(store))
    _age(store, study, 10000)
    settings = load_settings().storage
    assert purge_due(store, settings) == 0
    assert purge_due(store, settings.model_copy(update={"retention_days": 30.0})) == 1


def test_removing_ends_when_the_node_does(store: Store, come: Come, close_study: Close, study: str) -> None:
    come(1)
    _finish(store, close_study(store))
    _age(store, study, 40)
    settings = load_settings().storage.model_copy(update={"retention_days": 30.0})
    stop = threading.Event()
    stop.set()
    assert purge_due(store, settings, stop) == 0
    assert purge_due(store, settings, threading.Event()) == 1


def test_what_was_promised_to_its_sender_is_never_removed(
    store: Store, come: Come, close_study: Close, study: str, make_instance: Make
) -> None:
    come(1)
    _finish(store, close_study(store))
    asked = (make_instance(1).sop_class_uid, make_instance(1).sop_instance_uid)
    request = store.commitment_requests.enter(
        transaction_uid="2.25.9", calling_ae="PACS", asked=[asked], pause_s=0
    )
    assert request.held == (asked,)
    assert _due(store, 0) == ()
    assert store.retention.purge(study, _Said()) == 0
    assert len(store.instances.paths(study)) == 1


def test_nothing_is_promised_that_is_removed_meanwhile(
    store: Store,
    come: Come,
    close_study: Close,
    study: str,
    make_instance: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    come(1)
    _finish(store, close_study(store))
    asked = (make_instance(1).sop_class_uid, make_instance(1).sop_instance_uid)
    judge = store.commitment_requests._judge

    def judge_late(wanted: Any) -> Any:
        judged = judge(wanted)
        store.retention.purge(study, _Said())
        return judged

    monkeypatch.setattr(store.commitment_requests, "_judge", judge_late)
    request = store.commitment_requests.enter(
        transaction_uid="2.25.9", calling_ae="PACS", asked=[asked], pause_s=0
    )
    assert request.held == (asked,)
    assert len(store.instances.paths(study)) == 1
