"""Counting a study's images by C-FIND: archives that answer, and all the ways in which they do not."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from config.sections import Destination
from config.settings import load_settings
from node.commands.check import CheckStatus, examine_archives
from node.net.query import DicomArchive
from node.net.sender import Requestor
from node.pipeline.ports import QueryResult
from tests.net.conftest import IDENTITY
from tests.waiting import LIMIT_S, stop, wait_for_port

STUDY_UID = "2.25.100"
PATIENCE_S = 0.5
PENDING = 0xFF00
FIND, MOVE = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove


def series(uid: str, instances: object = 20, **replaced: Any) -> Dataset:
    """A match at SERIES level; None leaves an attribute out."""
    match = Dataset()
    values = {
        "QueryRetrieveLevel": "SERIES",
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": uid,
        "Modality": "CT",
        "NumberOfSeriesRelatedInstances": instances,
        **replaced,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(match, keyword, value)
    return match


@dataclass
class Pacs:
    """A Query SCP by pynetdicom, which answers what it is told to."""

    answers: list[tuple[int, Dataset | None]] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # by series, listed at IMAGE level
    delay_s: float = 0.0
    endless: bool = False
    queries: list[Dataset] = field(default_factory=list)
    retrieved: list[tuple[str, str]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.identifier)
        if event.identifier.QueryRetrieveLevel == "IMAGE":
            yield from self._list(event.identifier)
            return
        while True:
            for answer in self.answers:
                if self.gone.wait(self.delay_s):
                    return
                yield answer
            if not self.endless:
                return

    def _list(self, query: Dataset) -> Iterator[tuple[int, Dataset]]:
        for number in range(self.images.get(query.SeriesInstanceUID, 0)):
            match = Dataset()
            match.update(query)
            match.SOPInstanceUID = f"{query.SeriesInstanceUID}.{number}"
            yield PENDING, match

    def on_move(self, event: Any) -> Iterator[tuple[None, None]]:
        self.retrieved.append((event.identifier.SeriesInstanceUID, event.move_destination))
        yield None, None  # the destination is not known


Start = Callable[..., Destination]


@dataclass
class _Server:
    """One port, behind which one PACS after another answers: to stop a server takes half a second."""

    ae: AE
    port: int = 0
    pacs: Pacs = field(default_factory=Pacs)

    def on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield from self.pacs.on_find(event)

    def on_move(self, event: Any) -> Iterator[tuple[None, None]]:
        yield from self.pacs.on_move(event)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[tuple[Any, ...], _Server]]:
    """By the queries that they offer."""
    running: dict[tuple[Any, ...], _Server] = {}
    yield running
    for server in running.values():
        server.ae.shutdown()


def _serve(offers: tuple[Any, ...]) -> _Server:
    server = _Server(AE("PACS"))
    for context in (Verification, *offers):
        server.ae.add_supported_context(context)
    handlers = [(evt.EVT_C_FIND, server.on_find), (evt.EVT_C_MOVE, server.on_move)]
    listening = server.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    server.port = listening.socket.getsockname()[1]
    return server


@pytest.fixture
def start(servers: dict[tuple[Any, ...], _Server]) -> Iterator[Start]:
    """Have a PACS answer."""
    started: list[Pacs] = []

    def run(pacs: Pacs, *, offers: tuple[Any, ...] = (FIND,)) -> Destination:
        server = servers.get(offers) or servers.setdefault(offers, _serve(offers))
        server.pacs = pacs
        started.append(pacs)
        return peer(server.port)

    yield run
    for pacs in started:
        pacs.gone.set()


def archive(patience_s: float = LIMIT_S) -> DicomArchive:
    requestor = Requestor("OSTEONODE", connect_timeout_s=patience_s, answer_timeout_s=patience_s)
    return DicomArchive(requestor, fetcher=requestor, ae_title="OSTEONODE", timeout_s=patience_s)


def peer(port: int) -> Destination:
    return Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)


def test_ct_series_of_the_study_are_counted_and_nothing_else(start: Start) -> None:
    pacs = Pacs(
        answers=[
            (PENDING, series("1.1", 131)),
            (PENDING, series("1.2", "2")),
            (PENDING, series("1.3", 4, Modality="SR")),
            (0xFF01, series("1.4", 7, StudyInstanceUID="2.25.999")),
        ]
    )
    assert archive().count_ct_images(start(pacs), STUDY_UID) == QueryResult(matches={"1.1": 131, "1.2": 2})
    (query,) = pacs.queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID, query.Modality) == ("SERIES", STUDY_UID, "CT")
    assert "NumberOfSeriesRelatedInstances" in query
    assert "PatientID" not in query


def test_an_archive_that_does_not_know_the_study_has_no_series_of_it(start: Start) -> None:
    assert archive().count_ct_images(start(Pacs()), STUDY_UID) == QueryResult(matches={})


@pytest.mark.parametrize("number", [None, "", -1], ids=["left out", "empty", "negative"])
def test_images_are_listed_where_an_archive_leaves_their_number_out(start: Start, number: object) -> None:
    pacs = Pacs(answers=[(PENDING, series("1.1")), (PENDING, series("1.2", number))], images={"1.2": 7})
    assert archive().count_ct_images(start(pacs), STUDY_UID) == QueryResult(matches={"1.1": 20, "1.2": 7})
    assert [query.QueryRetrieveLevel for query in pacs.queries] == ["SERIES", "IMAGE"]


def test_an_archive_that_neither_counts_nor_lists_has_not_counted(start: Start) -> None:
    counted = archive().count_ct_images(start(Pacs(answers=[(PENDING, series("1.2", None))])), STUDY_UID)
    assert counted.matches is None
    assert "0020,1209" in counted.problem


@pytest.mark.parametrize(
    ("pacs", "problem"),
    [
        (Pacs(answers=[(PENDING, series("1.1"))], delay_s=2 * LIMIT_S), "no answer to the query"),
        (
            Pacs(answers=[(PENDING, series("1.1"))], delay_s=PATIENCE_S / 5, endless=True),
            "the peer does not come to the end of its answer",
        ),
        (
            Pacs(answers=[(PENDING, series("1.1"))], endless=True),
            "the peer does not come to the end of its answer",
        ),
    ],
    ids=["silent", "slow and endless", "endless"],
)
def test_an_archive_that_does_not_come_to_an_end_is_left(start: Start, pacs: Pacs, problem: str) -> None:
    begun = time.monotonic()
    assert archive(PATIENCE_S).count_ct_images(start(pacs), STUDY_UID) == QueryResult(
        matches=None, problem=problem
    )
    assert time.monotonic() - begun < LIMIT_S  # it would be silent for longer, and endless for ever


@pytest.mark.parametrize(
    ("pacs", "problem"),
    [
        (Pacs(answers=[(0xA700, None)]), "the query ended with 0xA700"),
        (Pacs(answers=[(PENDING, series("1.1")), (0xC001, None)]), "the query ended with 0xC001"),
    ],
    ids=["refused", "broken off"],
)
def test_an_archive_that_does_not_answer_the_query_says_why(start: Start, pacs: Pacs, problem: str) -> None:
    assert archive().count_ct_images(start(pacs), STUDY_UID) == QueryResult(matches=None, problem=problem)


def test_an_archive_that_offers_no_query_is_named_so(start: Start) -> None:
    counted = archive().count_ct_images(start(Pacs(), offers=()), STUDY_UID)
    assert counted == QueryResult(
        matches=None, problem="the peer does not accept queries (Study Root C-FIND)"
    )


# pynetdicom drops the socket of a failed connection without closing it; the garbage collector does at once.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning", "ignore:Exception ignored in. <socket")
def test_an_archive_that_is_away_is_told(free_port: int) -> None:
    counted = archive().count_ct_images(peer(free_port), STUDY_UID)
    assert counted == QueryResult(matches=None, problem="no connection")


def study(**replaced: Any) -> Dataset:
    """A match at STUDY level, in UTF-8."""
    match = Dataset()
    values = {
        "SpecificCharacterSet": "ISO_IR 192",
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": STUDY_UID,
        "PatientID": "MRN-2",
        "PatientName": "Wang^XiaoDong=王^小东",
        **replaced,
    }
    for keyword, value in values.items():
        setattr(match, keyword, value)
    return match


def test_an_archive_is_asked_who_was_examined(start: Start) -> None:
    pacs = Pacs(answers=[(PENDING, study(PatientBirthDate="19510203", OtherPatientIDs=["A", "B"]))])
    assert archive().identify(start(pacs), STUDY_UID).matches == {
        "PatientID": "MRN-2",
        "PatientName": "Wang^XiaoDong=王^小东",
        "PatientBirthDate": "19510203",
        "OtherPatientIDs": "A\\B",
    }
    (query,) = pacs.queries
    assert (query.QueryRetrieveLevel, query.StudyInstanceUID) == ("STUDY", STUDY_UID)
    assert {"PatientID", "PatientName", "PatientBirthDate", "AccessionNumber"} <= set(query.dir())


def test_an_attribute_that_an_archive_need_not_keep_is_not_stated_by_being_empty(start: Start) -> None:
    pacs = Pacs(answers=[(PENDING, study(PatientBirthDate="", AccessionNumber="", StudyID=""))])
    stated = archive().identify(start(pacs), STUDY_UID).matches
    assert stated is not None
    assert (stated["AccessionNumber"], stated["StudyID"]) == ("", "")
    assert "PatientBirthDate" not in stated


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], QueryResult(matches={})),
        ([(PENDING, study(StudyInstanceUID="2.25.999"))], QueryResult(matches={})),
        (
            [(PENDING, study()), (PENDING, study(PatientID="MRN-3"))],
            QueryResult(matches=None, problem="the peer knows the study more than once"),
        ),
        ([(0xC001, None)], QueryResult(matches=None, problem="the query ended with 0xC001")),
    ],
    ids=["unknown", "another study", "two patients", "failed"],
)
def test_who_was_examined_is_left_open_where_an_archive_does_not_say(
    start: Start, answers: list[tuple[int, Dataset | None]], expected: QueryResult[str]
) -> None:
    assert archive().identify(start(Pacs(answers=answers)), STUDY_UID) == expected


def test_an_archive_that_does_not_know_this_node_is_told_so_when_it_should_send(start: Start) -> None:
    pacs = Pacs()
    problem = archive().retrieve(start(pacs, offers=(MOVE,)), STUDY_UID, ["1.1", "1.2"])
    assert problem == "the retrieval ended with 0xA801"
    assert pacs.retrieved == [("1.1", "OSTEONODE")]


def test_an_archive_that_sends_nothing_again_is_named_so(start: Start) -> None:
    problem = archive().retrieve(start(Pacs()), STUDY_UID, ["1.1"])
    assert problem == "the peer does not accept queries (Study Root C-MOVE)"


def test_check_says_which_archive_answers_queries(start: Start) -> None:
    ports = {"good": start(Pacs()).port, "mute": start(Pacs(), offers=()).port}
    destinations = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": port} for name, port in ports.items()
    ]
    good, mute = examine_archives(load_settings(destinations=destinations))
    assert (good.standing, good.detail) == (CheckStatus.OK, "good answers queries")
    assert mute.standing is CheckStatus.WARNING
    assert mute.detail.startswith("mute: the peer does not accept queries")
    assert list(examine_archives(load_settings(destinations=destinations, completeness={"ask": []}))) == []


@pytest.fixture
def dcmqrscp(tmp_path: Path, free_port: int) -> Iterator[Destination]:
    """DCMTK's archive, which answers for what it was sent."""
    folder = tmp_path / "archive"
    folder.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {free_port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {folder} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(
        ["/usr/bin/dcmqrscp", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(free_port, process)
        yield peer(free_port)
    finally:
        stop(process)


def test_dcmtk_s_archive_is_counted_and_says_whose_study_it_is(
    dcmqrscp: Destination,
    dcmtk: Callable[..., subprocess.CompletedProcess[str]],
    make_dataset: Callable[..., Dataset],
    as_file: Callable[[Dataset], Path],
) -> None:
    images = [as_file(make_dataset(number)) for number in range(1, 6)]
    images.append(as_file(make_dataset(9, SeriesInstanceUID="2.25.100.2", StudyInstanceUID="2.25.200")))
    sent = dcmtk("storescu", "-aec", "PACS", "127.0.0.1", dcmqrscp.port, *images)
    assert sent.returncode == 0, sent.stderr
    assert archive().count_ct_images(dcmqrscp, STUDY_UID) == QueryResult(matches={"2.25.100.1": 5})
    assert archive().count_ct_images(dcmqrscp, "2.25.300") == QueryResult(matches={})
    # What DCMTK's own tool gets of it.
    asked = dcmtk(
        "findscu", "-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=IMAGE",
        "-k", f"StudyInstanceUID={STUDY_UID}", "-k", "SeriesInstanceUID=2.25.100.1",
        "-k", "SOPInstanceUID", "127.0.0.1", dcmqrscp.port,
    )  # fmt: skip
    assert (asked.stdout + asked.stderr).count("Pending") == 5
    stated = archive().identify(dcmqrscp, STUDY_UID).matches or {}
    assert {keyword: stated[keyword] for keyword in IDENTITY} == IDENTITY
