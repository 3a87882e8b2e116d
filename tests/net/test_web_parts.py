"""The parts of the operator's page by themselves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.sections import Destination
from node.pipeline.artefacts import CALIBRATION_PNG, NOMOGRAM_PNG, OVERLAY_PNG
from node.store.overview import DeliveryRow, DestinationStatus
from node.store.states import DeliveryState, Proof
from node.web.app import Guard, destination_lines, dimse, serve, short_uid, unproven
from node.web.sources import PICTURES, duration, size

SECRET = "MRN-4711-SECRET"


def test_the_pictures_are_those_that_the_report_step_writes() -> None:
    assert set(PICTURES) == {NOMOGRAM_PNG, OVERLAY_PNG, CALIBRATION_PNG}


def test_an_unforeseen_error_tells_neither_peer_nor_log_what_it_read() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(SECRET)

    async def ask() -> None:
        async def send(message: Any) -> None:
            raise AssertionError(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
        await Guard(broken, "127.0.0.1")(scope, receive, send)

    with capture_logs() as told:
        asyncio.run(ask())
    assert [entry["event"] for entry in told] == ["page_failed"]
    assert "ValueError" in told[0]["error"]
    assert SECRET not in str(told)


def test_a_page_open_to_other_machines_is_warned_of() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks")

    stop = threading.Event()
    stop.set()
    with capture_logs() as told:
        serve(never, host="0.0.0.0", port=0, on_ready=lambda _: None, stop=stop)
    assert [entry["event"] for entry in told] == ["page_without_authentication"]


def test_a_destination_that_left_the_configuration_keeps_its_past() -> None:
    past = DestinationStatus(
        name="pacs",
        arrived=5,
        pending=0,
        failed=0,
        last_state=DeliveryState.SENT,
        last_status=0,
        last_detail="",
        last_at=None,
    )
    other = Destination(name="archive", ae_title="VNA", host="192.0.2.20", port=104)
    first, second = destination_lines([other], [past])
    assert (first.name, first.configured, first.standing) == ("archive", True, None)
    assert (second.name, second.configured, second.standing) == ("pacs", False, past)


def test_values_are_written_short() -> None:
    assert (
        short_uid("1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678")
        == "1.2.826.0.…9012345678"
    )
    assert short_uid("2.25.1001") == "2.25.1001"
    assert [size(number) for number in (12, 2048, 5 * 1024**3)] == ["12 B", "2.0 KiB", "5.0 GiB"]
    assert [duration(number) for number in (12, 90, 7200, 200000)] == ["12 s", "2 min", "2 h", "2 d"]


@pytest.mark.parametrize(
    ("state", "proof", "told"),
    [
        (DeliveryState.PENDING, "", ""),
        (DeliveryState.SENT, "", "awaited"),
        (DeliveryState.SENT, Proof.COMMITMENT, "awaited"),
        (DeliveryState.SENT, Proof.STATUS, "by status only"),
        (DeliveryState.FAILED, Proof.COMMITMENT, ""),
    ],
)
def test_what_is_not_proven_is_told_from_what_never_will_be(
    state: DeliveryState, proof: str, told: str
) -> None:
    delivery = DeliveryRow(
        generation=1,
        artefact="report.dcm",
        sop_instance_uid="2.25.1",
        destination="pacs",
        state=state,
        attempts=1,
        status=0,
        detail="",
        sent_at=None,
        proof=proof,
        proven_at=None,
    )
    assert unproven(delivery) == told


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0122, "0x0122, SOP class not supported"),
        (0xA701, "0xA701, out of resources"),
        (0xC123, "0xC123, cannot understand the object"),
        (0x0999, "0x0999"),
    ],
)
def test_a_status_is_told_in_words(status: int, words: str) -> None:
    assert dimse(status) == words
