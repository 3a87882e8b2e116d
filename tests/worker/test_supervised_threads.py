"""An exception that nobody foresaw ends no thread in silence: the next item follows, or a new process."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from structlog.testing import capture_logs

from config.settings import Settings, load_settings
from node import supervision
from node.pipeline import housekeeping
from node.pipeline.ports import Step
from node.pipeline.runner import run_step
from node.pipeline.study_run import PROCEED, StepResult, StudyRun
from node.processes import page
from node.store.errors import StoreUnavailable
from node.store.jobs import Jobs
from node.store.quarantine import Identities
from node.store.retention import Retention
from node.store.store import Store
from tests.waiting import LIMIT_S, wait_until
from tests.worker.bench import Bench, republish

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]

FAILING_ONCE = """
import sys
from pathlib import Path
from config.settings import Settings
from node import logs
from node.net.commitment import CommitmentReporter
from node.net.server import PynetdicomServer
from node.net import scp
from node.pipeline import housekeeping
from node.pipeline.study_watch import CompletenessWatch
from node.store.instances import Associations
from node.processes.listener import run_listeners

settings = Settings.model_validate_json(sys.argv[1])
logs.configure(settings.log)
housekeeping._PAUSE_S = scp.HEARTBEAT_S = 0.05

def fail_once(where, name):
    works = getattr(where, name)
    def fail_or_work(*given, **options):
        try:
            Path(sys.argv[2], name).touch(exist_ok=False)
        except FileExistsError:
            return works(*given, **options)
        raise KeyError("what nobody foresaw")
    setattr(where, name, fail_or_work)

fail_once(housekeeping, "purge_due")
fail_once(CommitmentReporter, "report_due")
fail_once(CompletenessWatch, "close_studies")
fail_once(Associations, "beat")
fail_once(PynetdicomServer, "service_actions")
sys.exit(run_listeners(settings, lambda port: print(port, flush=True)))
"""
FAILURES = {"purge_due", "report_due", "close_studies", "beat", "service_actions"}
THREADS = {"housekeeping", "commitment-reports", "association-heartbeat", "accept"}


def test_what_fails_in_a_thread_of_the_listeners_restarts_its_process(tmp_path: Path) -> None:
    settings = load_settings(
        node={"port": 0, "listeners": 2},
        storage={"root": tmp_path / "var"},
        broker={"url": f"redis+socket://{tmp_path}/no-broker.sock"},
        completeness={"quiet_s": 3600.0, "poll_s": 0.05},
        worker={"reconcile_s": 0.05},
        log={"format": "json"},
    )
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", FAILING_ONCE, settings.model_dump_json(), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())

            def all_have_failed() -> bool:
                _store_if_possible(port)  # so that there is an association to beat for
                return all((tmp_path / name).exists() for name in FAILURES)

            def all_work_again() -> bool:
                return len(psutil.Process(process.pid).children()) >= 3 and _store_if_possible(port)

            wait_until(all_have_failed, FAILURES, process=process)
            wait_until(all_work_again, "its processes are there again, and take images", process=process)
        finally:
            process.kill()
    gc.collect()  # pynetdicom leaves sockets of associations that broke off to the collector
    entries = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert {one["thread"] for one in entries if one["event"] == "thread_failed"} == THREADS
    assert any(one["event"] == "process_failed" and one["process"] == "reconcile" for one in entries)
    assert "foresaw" not in str(entries)


def _store_if_possible(port: int) -> bool:
    ae = AE("PEER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="OSTEONODE")
    if not association.is_established:
        return False
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "2.25.7.1"
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.7", "2.25.7.0"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored = association.send_c_store(image).get("Status") == 0x0000
    if stored:
        threading.Event().wait(0.2)  # for a heartbeat or two of this association
    association.release()
    return stored


def test_a_study_that_cannot_be_purged_keeps_no_other(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    purged = []

    def purge(_: Retention, uid: str, __: object) -> int:
        if uid == "2.25.1":
            raise KeyError("what nobody foresaw")
        purged.append(uid)
        return 3

    monkeypatch.setattr(Retention, "finished", lambda _, **__: ["2.25.1", "2.25.2"])
    monkeypatch.setattr(Retention, "purge", purge)
    rules = load_settings(storage={"retention_days": 1.0}).storage
    with capture_logs() as told:
        assert housekeeping.purge_due(sqlite_store, rules) == 3
    assert purged == ["2.25.2"]
    assert [one["study_instance_uid"] for one in told if one["event"] == "images_not_purged"] == ["2.25.1"]


def test_an_identity_that_cannot_be_compared_stops_no_other_and_no_purge(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    purging = threading.Event()

    class Archive:
        def identity_of(self, study_instance_uid: str) -> None:
            asked.append(study_instance_uid)
            raise KeyError("what nobody foresaw")

    def waiting(_: Identities) -> list[str]:
        if asked:
            raise StoreUnavailable("away")
        return ["2.25.1", "2.25.2"]

    def purge(*_: object) -> int:
        purging.set()
        return 0

    monkeypatch.setattr(housekeeping, "_PAUSE_S", 0.01)
    monkeypatch.setattr(Identities, "studies_waiting", waiting)
    monkeypatch.setattr(housekeeping, "purge_due", purge)
    stop = threading.Event()
    house = threading.Thread(
        target=housekeeping.run_housekeeping,
        args=(sqlite_store, load_settings(), Archive(), stop),
    )
    house.start()
    assert purging.wait(LIMIT_S)
    purging.clear()
    assert purging.wait(LIMIT_S)  # the database was away for the other task
    stop.set()
    house.join()
    assert asked == ["2.25.1", "2.25.2"]


def test_an_attempt_whose_lease_cannot_be_kept_fails_and_says_why(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(worker={"lease_s": 0.3, "backoff_s": [3600.0]})
    failed = threading.Event()

    def renew(*_: object) -> None:
        failed.set()
        raise KeyError("what nobody foresaw")

    def select(_: StudyRun) -> StepResult:
        assert failed.wait(LIMIT_S)
        return PROCEED

    monkeypatch.setattr(Jobs, "renew", renew)
    bench.close()
    republish(bench.store, bench.queue)
    with capture_logs() as told:
        run_step(bench.queue.messages.pop(), bench.with_step(Step.SELECT, select))
    assert (bench.summary.step, bench.summary.attempts) == ("select", 1)
    assert "KeyError" in bench.summary.last_error
    assert [one["event"] for one in told if one["log_level"] == "error"] == ["thread_failed", "step_failed"]


def test_a_page_whose_store_cannot_be_opened_for_a_reason_that_nobody_foresaw_is_started_again(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def fail(_: Any) -> Store:
        raise KeyError("what nobody foresaw")

    monkeypatch.setattr(page, "open_store", fail)
    monkeypatch.setattr(supervision, "end_this_process", stop.set)
    with capture_logs() as told:
        page.run_page(make_settings(), "geometric 1", lambda _: None, stop)
    assert [one["thread"] for one in told if one["event"] == "thread_failed"] == ["page-store"]
