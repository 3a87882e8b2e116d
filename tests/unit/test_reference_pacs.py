"""The stand-in PACS sends a study over loopback, and keeps what another sends it."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.reference.spec import StudySpec
from node.reference.stand_in_pacs import PacsError, StandInPacs, send_study
from tests.made_studies import write_reference_study
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    spec = StudySpec(matrix=64, pixel_spacing_mm=(5.5, 5.5), slice_spacing_mm=10, view=("L3", "L3"))
    write_reference_study(folder, spec)
    return folder


def test_a_study_arrives_as_it_was_sent(study, tmp_path):
    files = sorted(study.glob("*.dcm"))
    with StandInPacs(tmp_path) as pacs:
        statuses = send_study(study, host="127.0.0.1", port=pacs.port, called_ae_title=pacs.ae_title)
        assert pacs.wait_for(lambda received: len(received) == len(files), timeout_s=LIMIT_S)
        received = pacs.received("CT")
    assert statuses == (0x0000,) * len(files)
    for sent, kept in zip(files, received, strict=True):
        assert dcmread(kept.path) == dcmread(sent)
        assert kept.calling_ae_title == "PACS"


def test_senders_side_by_side_lose_nothing(study, tmp_path):
    count = len(list(study.glob("*.dcm")))
    with StandInPacs(tmp_path) as pacs:
        address = {"host": "127.0.0.1", "port": pacs.port, "called_ae_title": pacs.ae_title}
        senders = [threading.Thread(target=send_study, args=(study,), kwargs=address) for _ in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        received = pacs.received()
    assert len({one.path for one in received}) == 4 * count
    assert len(list(tmp_path.glob("*.dcm"))) == 4 * count


def test_waiting_for_what_never_comes_ends(tmp_path):
    with StandInPacs(tmp_path) as pacs:
        assert not pacs.wait_for(lambda received: len(received) > 0, timeout_s=0.05)


# pynetdicom drops the socket of a refused connection without closing it.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket")
def test_a_peer_that_is_not_there_is_an_error(study, tmp_path):
    with StandInPacs(tmp_path) as pacs:
        port = pacs.port
    with pytest.raises(PacsError, match="accepts no association"):
        send_study(study, host="127.0.0.1", port=port, called_ae_title="PACS")


class Forgetful(StandInPacs):
    """Ends an association now and then in the middle of an instance."""

    def __init__(self, folder: Path, *, forgets: Collection[int]) -> None:
        super().__init__(folder)
        self.came = 0
        self._forgets = forgets

    def _store(self, event: Any) -> int:
        self.came += 1
        if self.came in self._forgets:
            event.assoc.abort()
            return 0xA700
        return super()._store(event)


def test_what_was_not_answered_is_sent_again(study, tmp_path):
    count = len(list(study.glob("*.dcm")))
    with Forgetful(tmp_path, forgets={3, 4, 6}) as pacs:
        statuses = send_study(study, host="127.0.0.1", port=pacs.port, called_ae_title=pacs.ae_title)
        received = pacs.received()
    assert statuses == (0x0000,) * count
    assert len({one.sop_instance_uid for one in received}) == len(received) == count
    assert pacs.came == count + 3


def test_a_peer_that_never_answers_is_an_error_in_the_end(study, tmp_path):
    with (
        Forgetful(tmp_path, forgets=range(2, 100)) as pacs,
        pytest.raises(PacsError, match="stopped answering at instance 2"),
    ):
        send_study(study, host="127.0.0.1", port=pacs.port, called_ae_title=pacs.ae_title)
    assert pacs.came == 4
