"""Real Celery workers on a real redis-server, killed and wiped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import kombu.utils.functional
import psutil
import pytest
import redis
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, Verification
from sqlalchemy import select

from config.settings import Settings
from node.net.query import make_watch
from node.pipeline.housekeeping import run_reconciliation
from node.pipeline.ports import Step, StepMessage
from node.pipeline.result_basis import result_basis
from node.processes.supervisor import EmbeddedRedis
from node.store.files import ReceivedInstance
from node.store.schema import artefacts, jobs
from node.store.states import StudyState, WorkerState
from node.store.store import Store, open_store
from node.supervision import with_parent_death_signal
from node.worker import CeleryBroker, create_app
from tests.closing import close_due
from tests.waiting import LIMIT_S, wait_until
from tests.worker.bench import republish

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "small_worker.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def pacs() -> Iterator[tuple[int, list[str]]]:
    """A PACS that counts; gives its port and the UIDs it took."""
    taken: list[str] = []

    def take(event: Any) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    ae = AE("PACS")
    ae.add_supported_context(Comprehensive3DSRStorage)
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    yield int(server.server_address[1]), taken
    ae.shutdown()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[Settings], subprocess.Popen[bytes]]]:
    """Start the small worker and wait until it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(settings: Settings) -> subprocess.Popen[bytes]:
        log = (tmp_path / "worker.log").open("ab")
        worker = subprocess.Popen(
            [sys.executable, PROGRAM, tmp_path],
            stderr=log,
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        log.close()
        started.append(worker)
        assert worker.stdin is not None
        with worker.stdin as stdin:
            stdin.write(settings.model_dump_json().encode())
        wait_until((tmp_path / f"ready-{worker.pid}").exists, "the worker is ready", process=worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait(LIMIT_S)


def _log_lines(folder: Path) -> list[str]:
    return (folder / "worker.log").read_text().splitlines()


def _write_report(path: Path) -> None:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = Comprehensive3DSRStorage, "2.25.11"
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.save_as(path, enforce_file_format=True)


def test_a_killed_worker_and_a_wiped_broker_cost_time_and_nothing_else(
    tmp_path: Path,
    broker: EmbeddedRedis,
    pacs: tuple[int, list[str]],
    sqlite_store: Store,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    start_worker: Callable[[Settings], subprocess.Popen[bytes]],
) -> None:
    port, taken = pacs
    _write_report(tmp_path / "report.dcm")
    settings = make_settings(
        broker={"url": broker.url},
        worker={"lease_s": 3.0},
        log={"format": "json"},
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}],
    )
    sqlite_store.instances.receive(make_instance())
    stop = threading.Event()
    broker_of_node = CeleryBroker(create_app(settings, lambda message: None))
    watch = make_watch(sqlite_store, settings)
    node = threading.Thread(
        target=run_reconciliation, args=(sqlite_store, broker_of_node, watch, settings, stop)
    )
    node.start()
    try:
        first = start_worker(settings)
        (begun,) = wait_until(lambda: list(tmp_path.glob("segment-*")), "segmentation begins")
        pool_process = psutil.Process(int(begun.name.partition("-")[2]))
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT_S)
        wait_until(lambda: not pool_process.is_running(), "the pool process dies with its parent")
        with redis.Redis(unix_socket_path=str(broker.socket)) as client:
            client.flushall()
        start_worker(settings)
        summary = wait_until(
            lambda: next((s for s in sqlite_store.overview.list() if s.state == StudyState.SENT), None),
            "the study is sent",
        )
    finally:
        stop.set()
        node.join()
        watch.shut()
    assert taken == ["2.25.11"]
    finished = [json.loads(line) for line in _log_lines(tmp_path) if '"step_finished"' in line]
    assert {event["step"] for event in finished} == set(Step)
    assert {event["job_id"] for event in finished} == {1}
    assert summary.generation == 1
    # The step that was killed ran twice, every other once.
    begun_counts = {
        step: len(list(tmp_path.glob(f"{step}-*"))) for step in ("select", "segment", "score", "report")
    }
    assert begun_counts == {"select": 1, "segment": 2, "score": 1, "report": 1}
    assert [(one.name.split()[0], one.deaths) for one in sqlite_store.parts.list()] == [("worker", 1)]


def test_a_worker_that_is_stopped_gives_its_work_back_uncounted(
    tmp_path: Path,
    broker: EmbeddedRedis,
    sqlite_store: Store,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    start_worker: Callable[[Settings], subprocess.Popen[bytes]],
) -> None:
    settings = make_settings(broker={"url": broker.url}, worker={"lease_s": 600.0})
    sqlite_store.instances.receive(make_instance())
    (_job,) = close_due(sqlite_store, first_step=Step.SELECT, quiet_s=0, stale_s=20)
    worker = start_worker(settings)
    republish(sqlite_store, CeleryBroker(create_app(settings, lambda message: None)))
    wait_until(lambda: list(tmp_path.glob("segment-*")), "segmentation begins")
    (listed,) = sqlite_store.workers.list()
    assert (listed.state, listed.worker.pid) == (WorkerState.WORKING, worker.pid)
    assert listed.worker.queues == tuple(Step)
    assert listed.result_basis == result_basis(settings)
    worker.send_signal(signal.SIGTERM)  # finish what is running: it hangs
    worker.send_signal(signal.SIGQUIT)  # at once, then
    worker.wait(LIMIT_S)
    (due,) = sqlite_store.jobs.due()  # although its lease had ten minutes to go
    assert due.step == "segment"
    assert sqlite_store.overview.list()[0].attempts == 0
    assert [one.state for one in sqlite_store.workers.list()] == [WorkerState.ENDED]


def test_an_upgraded_worker_mixes_with_no_study_and_begins_again_what_nobody_else_can_end(
    tmp_path: Path,
    broker: EmbeddedRedis,
    sqlite_store: Store,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    start_worker: Callable[[Settings], subprocess.Popen[bytes]],
) -> None:
    _write_report(tmp_path / "report.dcm")
    worker = {
        "lease_s": 3.0,
        "begin_again_s": 15.0,
    }  # longer than a busy machine takes from one step to the next
    settings = make_settings(broker={"url": broker.url}, worker=worker, log={"format": "json"})
    upgraded = settings.model_copy(update={"scoring": settings.scoring.model_copy(update={"reference": ""})})
    sqlite_store.instances.receive(make_instance())
    (job,) = close_due(sqlite_store, first_step=Step.SELECT, quiet_s=0, stale_s=20)
    stop = threading.Event()
    broker_of_node = CeleryBroker(create_app(settings, lambda message: None))
    watch = make_watch(sqlite_store, settings)
    node = threading.Thread(
        target=run_reconciliation, args=(sqlite_store, broker_of_node, watch, settings, stop)
    )
    node.start()
    try:
        first = start_worker(settings)
        wait_until(lambda: list(tmp_path.glob("segment-*")), "segmentation begins")
        first.send_signal(signal.SIGKILL)
        first.wait(LIMIT_S)
        start_worker(upgraded)
        wait_until(
            lambda: sqlite_store.overview.list()[0].state == StudyState.REPORTED, "the study is reported"
        )
    finally:
        stop.set()
        node.join()
        watch.shut()
    with sqlite_store.database.reading() as connection:
        told = connection.execute(select(jobs.c.begun_again).where(jobs.c.job_id == job.job_id)).scalar_one()
        parameters = set(connection.execute(select(artefacts.c.parameters)).scalars())
    assert "begun again at select" in told
    assert result_basis(settings).configuration_sha256[:8] in told
    (rests_on,) = parameters
    assert json.loads(rests_on)["configuration_sha256"] == result_basis(upgraded).configuration_sha256
    declined = [json.loads(line) for line in _log_lines(tmp_path) if '"step_declined"' in line]
    assert {one["step"] for one in declined} <= {"segment"}
    assert len(declined) <= 3  # it is not asked over and over


def test_a_worker_whose_share_is_not_mounted_takes_no_work_until_it_is(
    tmp_path: Path,
    broker: EmbeddedRedis,
    make_settings: Callable[..., Settings],
    make_instance: Callable[..., ReceivedInstance],
    start_worker: Callable[[Settings], subprocess.Popen[bytes]],
) -> None:
    settings = make_settings(
        broker={"url": broker.url},
        storage={"database_url": f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"},
        log={"format": "json"},
    )
    root, away = settings.storage.root, tmp_path / "not-mounted"
    with closing(open_store(settings.storage)) as store:
        store.instances.receive(make_instance())
        (job,) = close_due(store, first_step=Step.SELECT, quiet_s=0, stale_s=20)
        root.rename(away)
        root.mkdir()  # the mount point
        start_worker(settings)
        (line,) = wait_until(store.workers.list, "the worker is listed")
        assert line.state is WorkerState.REFUSING
        assert "is the folder mounted?" in line.problem
        celery = CeleryBroker(create_app(settings, lambda message: None))
        celery.publish(StepMessage(job_id=job.job_id, step=Step.SELECT, generation=1))
        wait_until(lambda: '"takes_no_work"' in (tmp_path / "worker.log").read_text(), "it says so")
        assert store.jobs.due() == (job,)
        assert list(root.iterdir()) == []  # it makes no store of its own there
        assert store.overview.list()[0].state == StudyState.PROCESSING
        root.rmdir()
        away.rename(root)
        wait_until(lambda: republish(store, celery) or list(tmp_path.glob("select-*")), "the study goes on")
        wait_until(lambda: list(tmp_path.glob("segment-*")), "and on")
    assert "set_aside" not in (tmp_path / "worker.log").read_text()


def test_a_message_carries_a_job_and_a_generation_and_nothing_else(
    broker: EmbeddedRedis, make_settings: Callable[..., Settings]
) -> None:
    celery = CeleryBroker(create_app(make_settings(broker={"url": broker.url}), lambda message: None))
    assert celery.waiting(Step.SCORE) == 0
    celery.publish(StepMessage(job_id=7, step=Step.SCORE, generation=2))
    assert celery.waiting(Step.SCORE) == 1
    with redis.Redis(unix_socket_path=str(broker.socket), decode_responses=True) as client:
        (message,) = client.lrange("score:9", 0, -1)  # of the ordinary ones: urgent ones stand in "score"
    assert '"eta": null' in message
    assert '"argsrepr": "(7, 2)"' in message


def test_a_broker_that_is_away_is_no_error(
    broker: EmbeddedRedis, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = CeleryBroker(create_app(make_settings(broker={"url": broker.url}), lambda message: None))
    message = StepMessage(job_id=7, step=Step.SCORE, generation=1)
    celery.publish(message)
    broker.stop()
    slept: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(kombu.utils.functional, "sleep", slept.append)
        celery.publish(message)
        assert celery.waiting(Step.SCORE) is None
    assert sum(slept) == 0  # whoever publishes has more to do than to wait
    broker.start()
    celery.publish(message)
    assert celery.waiting(Step.SCORE) == 1


def test_nothing_is_published_to_a_broker_that_does_not_answer(
    sqlite_store: Store, make_instance: Callable[..., ReceivedInstance]
) -> None:
    class Silent:
        published = 0
        away: int | None = None

        def waiting(self, step: Step) -> int | None:
            return self.away

        def publish(self, message: StepMessage) -> None:
            self.published += 1

    sqlite_store.instances.receive(make_instance())
    close_due(sqlite_store, first_step=Step.SELECT, quiet_s=0, stale_s=20)
    silent = Silent()
    assert (republish(sqlite_store, silent), silent.published) == (0, 0)
    silent.away = 0
    assert (republish(sqlite_store, silent), silent.published) == (1, 1)


def test_every_task_is_acknowledged_late_given_back_and_limited(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(broker={"url": "redis://127.0.0.1:1"}, worker={"time_limit_s": 100.0})
    app = create_app(settings, lambda message: None)
    tasks = [task for name, task in app.tasks.items() if name.startswith("osteonode.")]
    assert len(tasks) == len(Step)
    for task in tasks:
        assert task.acks_late
        assert task.reject_on_worker_lost
        assert task.ignore_result
        assert (task.soft_time_limit, task.time_limit) == (90.0, 100.0)
    assert app.conf.broker_transport_options["visibility_timeout"] == pytest.approx(110.0)
    assert app.conf.accept_content == ["json"]


def test_the_broker_is_out_of_reach_of_other_users(broker: EmbeddedRedis) -> None:
    assert broker.socket.parent.stat().st_mode & 0o777 == 0o700
    with redis.Redis(unix_socket_path=str(broker.socket), decode_responses=True) as client:
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("save")["save"] == ""


def test_the_broker_leaves_nothing_behind() -> None:
    server = EmbeddedRedis()
    server.start()
    process = psutil.Process(server.pid)
    server.close()
    assert not process.is_running()
    assert not server.socket.parent.exists()


def test_a_program_with_a_death_signal_dies_with_its_parent() -> None:
    code = "import subprocess, time; from node.supervision import with_parent_death_signal as tied; " + (
        "print(subprocess.Popen(tied(['/bin/sleep', '600'])).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: child.name() == "sleep", "the program runs")
        parent.kill()
    wait_until(lambda: not child.is_running(), "the program dies")


def test_a_leash_names_the_process_that_holds_it() -> None:
    assert with_parent_death_signal(["/bin/true"])[-2:] == [str(os.getpid()), "/bin/true"]
