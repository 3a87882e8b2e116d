"""What needs a person: every alert, at its threshold and not before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import load_settings
from node.pipeline.ports import Step
from node.store.overview import DestinationStatus, NodeCounts
from node.store.states import QuarantineKind, StudyState, WorkerState
from node.store.workers import ResultBasis, ServiceStatus, Worker, WorkerStatus
from node.web.sources import SEVERITIES, AlertCode, AlertSeverity, Check, StoreSnapshot, Surroundings, alerts

OPERATION = Path(__file__).parents[2] / "docs/operation.md"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = load_settings().alerts
HOUR = 3600.0

CENSUS = NodeCounts(
    studies=dict.fromkeys(StudyState, 0),
    jobs={},
    deliveries={},
    quarantined=dict.fromkeys(QuarantineKind, 0),
    waiting_for_purged=0,
    oldest_due_s=4.0,
    due=3,
)
PACS = DestinationStatus(
    name="pacs",
    arrived=12,
    pending=0,
    failed=0,
    last_state=None,
    last_status=None,
    last_detail="",
    last_at=None,
)
PART = ServiceStatus(name="reconcile", beats=True, has_ended=False, heard_s=3.0, deaths=0, died_s=None)
WORKER = WorkerStatus(
    worker=Worker(worker_id="1", host="ct-node", pid=77, queues=tuple(Step), engine="geometric 1"),
    result_basis=ResultBasis(software="1", configuration_sha256="00"),
    state=WorkerState.WORKING,
    problem="",
    differs="",
    started_at=NOW,
    heard_s=4.0,
)
QUIET = StoreSnapshot(census=CENSUS, destinations=[PACS], workers=[WORKER], parts=[PART])
AROUND = Surroundings(
    checks=[Check(name="engine", ok=True, detail="")], free_bytes=10**12, certificate_ends=None
)


def told(standing: StoreSnapshot | None = QUIET, around: Surroundings = AROUND) -> dict[str, str]:
    """Texts by code."""
    return {one.code.value: one.text for one in alerts(around, standing, RULES, NOW)}


def test_nothing_needs_a_person_on_a_quiet_node() -> None:
    assert told() == {}


def test_a_pacs_that_takes_nothing_for_an_hour_is_told_and_since_when() -> None:
    away = replace(PACS, pending=12, last_detail="connection refused", waiting_s=HOUR, taken_s=2 * HOUR)
    (alert,) = alerts(AROUND, replace(QUIET, destinations=[away]), RULES, NOW)
    assert (alert.code, alert.severity) == (AlertCode.DESTINATION_AWAY, AlertSeverity.URGENT)
    assert alert.text == (
        "pacs has accepted nothing for 1 h: 12 objects are pending; "
        "the last attempt ended with: connection refused."
    )
    assert alert.since == NOW - timedelta(hours=1)
    assert told(replace(QUIET, destinations=[replace(away, waiting_s=HOUR - 1)])) == {}


def test_a_pacs_that_answers_and_takes_nothing_is_away_in_the_words_of_its_answer() -> None:
    full = replace(PACS, pending=1, last_status=0xA700, waiting_s=HOUR, taken_s=None)
    assert "out of resources" in told(replace(QUIET, destinations=[full]))["destination_away"]


def test_an_object_that_waits_while_others_arrive_is_told_otherwise() -> None:
    stuck = replace(PACS, pending=1, waiting_s=2 * HOUR, taken_s=60.0)
    found = told(replace(QUIET, destinations=[stuck]))
    assert found == {
        "delivery_stuck": "pacs accepts results, but not all: 1 object is pending, one of them for 2 h."
    }


def test_nothing_published_for_minutes_is_told() -> None:
    silent = replace(PART, heard_s=RULES.publish_silence_s + 1)
    assert "No study was closed" in told(replace(QUIET, parts=[silent]))["nothing_published"]
    assert told(replace(QUIET, parts=[replace(silent, has_ended=True)])) == {}


def test_a_thread_that_does_not_come_round_is_told() -> None:
    house = replace(PART, name="housekeeping", heard_s=RULES.thread_silence_s + 1)
    listener = replace(house, name="listener 1", beats=False)
    assert told(replace(QUIET, parts=[PART, house, listener])) == {
        "thread_silent": "housekeeping has not completed a cycle for 15 min."
    }


def test_a_process_that_died_is_told_for_an_hour() -> None:
    died = replace(PART, deaths=3, died_s=300.0)
    assert told(replace(QUIET, parts=[died])) == {
        "process_died": "The process reconcile ended unexpectedly 3 times, last 5 min ago, and was restarted."
    }
    assert told(replace(QUIET, parts=[replace(died, died_s=HOUR + 1)])) == {}


def test_work_that_waits_long_or_piles_up_is_told() -> None:
    assert told(replace(QUIET, census=replace(CENSUS, oldest_due_s=7200.0, due=12_000))) == {
        "work_late": "Work has been waiting for a worker for 2 h.",
        "work_piles_up": "12000 steps wait for a worker: more arrive than are processed.",
    }
    assert told(replace(QUIET, census=replace(CENSUS, due=RULES.due_jobs))) == {}


def test_a_step_that_no_worker_takes_up_is_told() -> None:
    queues = tuple(step for step in Step if step is not Step.SEGMENT)
    other = replace(WORKER, worker=replace(WORKER.worker, queues=queues))
    assert told(replace(QUIET, workers=[other])) == {"no_worker": "No worker runs the step segment."}
    assert told(replace(QUIET, workers=[]))["no_worker"] == "No worker runs any step."


def test_a_worker_that_was_killed_refuses_or_differs_is_told() -> None:
    killed = replace(WORKER, state=WorkerState.SILENT, heard_s=120.0)
    refusing = replace(WORKER, state=WorkerState.REFUSING, problem="the share is not mounted")
    differing = replace(WORKER, differs="other software")
    found = told(replace(QUIET, workers=[WORKER, killed, refusing, differing]))
    assert set(found) == {"worker_silent", "worker_refuses", "worker_differs"}
    assert "ct-node (process 77" in found["worker_silent"]
    assert "stopped reporting 2 min ago without being stopped" in found["worker_silent"]
    assert found["worker_refuses"].endswith("takes no work: the share is not mounted.")
    assert found["worker_differs"].endswith("has other software than most workers.")


@pytest.mark.parametrize(
    ("days", "code"),
    [(31, None), (29, "certificate_expires"), (7, "certificate_expires"), (0, "certificate_expired")],
)
def test_a_certificate_that_expires_is_told_in_time(days: float, code: str | None) -> None:
    found = told(around=replace(AROUND, certificate_ends=NOW + timedelta(days=days)))
    assert list(found) == ([code] if code else [])


def test_what_stops_reception_is_told_where_the_database_is_away() -> None:
    away = replace(AROUND, checks=[Check(name="database", ok=False, detail="no answer")], free_bytes=None)
    assert told(None, away) == {
        "database_not_ready": "The database is not ready: no answer.",
        "storage_unreadable": "The storage folder cannot be read.",
    }


def test_studies_that_wait_for_a_person_are_told_after_what_is_urgent() -> None:
    busy = replace(
        CENSUS,
        studies={**CENSUS.studies, StudyState.SET_ASIDE: 2, StudyState.UNDELIVERED: 1},
        quarantined=dict.fromkeys(QuarantineKind, 3),
        waiting_for_purged=1,
        oldest_due_s=7200.0,
        quarantine_share=0.95,
    )
    around = Surroundings(
        checks=[Check(name="broker", ok=False, detail="no answer")],
        free_bytes=1024**3,
        certificate_ends=None,
    )
    texts = list(told(replace(QUIET, census=busy), around).values())
    expected = (
        "broker is not ready",
        "for 2 h",
        "1.0 GiB",
        "2 studies are",
        "1 study has",
        "3 images arrived again under another identity",
        "1 study received images",
        "95 % full",
        "3 instances are",
        "3 received files could not be decoded",
    )
    assert len(texts) == len(expected)
    assert all(part in text for part, text in zip(expected, texts, strict=True))


def test_operation_says_of_each_alert_what_to_do() -> None:
    rows = [line for line in OPERATION.read_text("utf-8").splitlines() if line.startswith("| `")]
    for code in AlertCode:
        (row,) = (row for row in rows if row.startswith(f"| `{code}` |"))
        assert row.split("|")[2].strip() == SEVERITIES[code]
        assert row.split("|")[4].strip()


def test_the_urgent_come_first() -> None:
    severities = [SEVERITIES[code] for code in AlertCode]
    assert severities == sorted(severities, key=list(AlertSeverity).index)
