"""A request on an association gets its answer, wherever the association's own thread is interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from node import checkpoint
from node.checkpoint import ReactorCheckpoint, make_pauses_sure
from node.reference.stand_in_pacs import StandInPacs
from tests.waiting import LIMIT_S, wait_until

PREEMPTED_S = 0.02


class Preempted(ReactorCheckpoint):
    """The reactor's thread loses the processor just after it has passed."""

    def wait(self) -> None:
        super().wait()
        time.sleep(PREEMPTED_S)


def asked(pacs: StandInPacs) -> Any:
    entity = AE("PEER")
    entity.dimse_timeout = LIMIT_S
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    send = association.dimse.send_msg

    def send_and_lose_the_processor(*arguments: Any) -> None:
        send(*arguments)
        time.sleep(3 * PREEMPTED_S)  # the answer is there before anybody waits for it

    association.dimse.send_msg = send_and_lose_the_processor
    return association


def test_every_request_is_answered_though_both_threads_are_interrupted_at_their_worst_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "ReactorCheckpoint", Preempted)
    with StandInPacs(tmp_path) as pacs:
        association = asked(pacs)
        make_pauses_sure(association)
        answers = []
        for _ in range(20):
            time.sleep(PREEMPTED_S / 3)
            answers.append(association.send_c_echo())
        association.release()
    assert [answer.get("Status") for answer in answers] == [0x0000] * 20


def test_who_has_passed_is_not_paused_and_who_stands_there_is() -> None:
    association = SimpleNamespace(_is_paused=True)
    point = ReactorCheckpoint(association)
    point.wait()
    assert association._is_paused is False
    point.clear()
    association._is_paused = True
    reactor = threading.Thread(target=point.wait)
    reactor.start()
    reactor.join(0.1)
    assert reactor.is_alive()
    assert association._is_paused is True
    association._is_paused = False  # by the thread that answered a report meanwhile
    wait_until(lambda: association._is_paused, "the reactor says again that it stands")
    point.set()
    point.clear()  # before the reactor has noticed: it passes, or stands and says so
    wait_until(lambda: association._is_paused or not reactor.is_alive())
    point.set()
    reactor.join(LIMIT_S)
    assert not reactor.is_alive()
    assert association._is_paused is False


def test_no_request_is_sent_before_the_reactor_has_come_by() -> None:
    """It may still be past the event that it waited for before."""
    association = SimpleNamespace(_is_paused=True, _reactor_checkpoint=None)
    came: list[float] = []

    def reactor() -> None:
        time.sleep(0.1)
        came.append(time.monotonic())
        association._reactor_checkpoint.wait()

    later: Callable[[], None] = threading.Thread(target=reactor).start
    later()
    make_pauses_sure(association)
    assert came
    assert time.monotonic() >= came[0]
