"""Studies on a real store, watched while archives answer, hang, refuse and change their minds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from structlog.testing import capture_logs

from config.sections import Destination, Peer
from config.settings import ConfigurationError, load_settings
from node.pipeline.archives import ArchiveQueries
from node.pipeline.artefacts import from_json
from node.pipeline.ports import Archive, QueryResult
from node.pipeline.study_watch import CompletenessWatch
from node.store.files import ReceivedInstance
from node.store.schema import jobs
from node.store.states import StudyState
from node.store.store import Store
from node.study_report import ClosedBy, Completeness
from tests.waiting import holds_for, wait_until
from tests.worker.conftest import STUDY

pytestmark = pytest.mark.slow

SERIES = f"{STUDY}.1"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
Make = Callable[..., ReceivedInstance]


@dataclass
class ScriptedArchive:
    """Answers each question with the next of its answers, the last one for ever."""

    answers: list[QueryResult[int]]
    hang: threading.Event | None = None  # until it is set
    asked: list[str] = field(default_factory=list)
    sent_again: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    on_send_again: Callable[[], object] = lambda: None

    def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
        self.asked.append(peer.ae_title)
        if self.hang is not None:
            self.hang.wait()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def retrieve(self, peer: Peer | Destination, study_instance_uid: str, series: Sequence[str]) -> str:
        self.sent_again.append((peer.ae_title, study_instance_uid, tuple(series)))
        self.on_send_again()
        return ""

    def identify(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[str]:
        raise AssertionError("nobody asks for identities here")


def counts(number: int, series: str = SERIES) -> QueryResult[int]:
    return QueryResult(matches={series: number})


def peers(*names: str) -> dict[str, Peer | Destination]:
    return {name: Peer(ae_title=name, host="127.0.0.1", port=104) for name in names}


@pytest.fixture
def watching(sqlite_store: Store) -> Iterator[Callable[..., CompletenessWatch]]:
    """A watch with rules of tenths of seconds; nobody is asked unless an archive is given."""
    made: list[CompletenessWatch] = []

    def make(archive: Archive | None = None, *names: str, **rules: float) -> CompletenessWatch:
        quick = {"confirm_s": 0.1, "quiet_whole_s": 60.0, "quiet_s": 60.0, "quiet_pauses": 0.0} | rules
        settings = load_settings(completeness=quick).completeness
        asked = peers(*(names or ("pacs",))) if archive is not None else {}
        turns = ArchiveQueries(archive or ScriptedArchive([]), asked)
        made.append(CompletenessWatch(sqlite_store, settings, turns))
        return made[-1]

    yield make
    for watch in made:
        watch.shut()


def close(watch: CompletenessWatch) -> None:
    """Look again and again, as the node does, until a study is closed."""
    wait_until(watch.close_studies, "a study is closed")


def stays_open(watch: CompletenessWatch, for_s: float) -> None:
    """Look again and again for so long: no study is closed."""
    holds_for(lambda: not watch.close_studies(), for_s, "no study is closed")


def recorded(store: Store) -> Completeness:
    content = store.studies.completeness(STUDY, store.overview.list()[0].generation)
    assert content is not None
    return from_json(Completeness, content.encode())


def test_as_many_images_as_the_archive_counts_twice_close_a_study(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    for number in range(3):
        sqlite_store.instances.receive(make_instance(number))
    archive = ScriptedArchive([counts(3)])
    close(watching(archive))
    assert len(archive.asked) == 2
    found = recorded(sqlite_store)
    assert (found.closed_by, found.archive) == (ClosedBy.COUNTS, "pacs")
    assert [(one.arrived, one.archived) for one in found.series] == [(3, 3)]
    (job,) = sqlite_store.overview.show(STUDY).jobs
    assert job.closed_by == "counts"
    assert "pacs counts 3 CT images" in sqlite_store.overview.list()[0].reason


def test_a_count_that_grows_between_the_readings_keeps_the_study_open(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    watch = watching(ScriptedArchive([counts(1), counts(2)]))
    stays_open(watch, for_s=1.0)
    summary = sqlite_store.overview.list()[0]
    assert summary.state == StudyState.RECEIVING
    assert summary.reason == "images are missing: pacs holds 2 images of 1 CT series, 1 arrived"
    sqlite_store.instances.receive(make_instance(2))
    close(watch)
    assert recorded(sqlite_store).closed_by is ClosedBy.COUNTS


def test_images_that_never_come_are_recorded(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    close(watching(ScriptedArchive([counts(2)]), wait_max_s=0.5, quiet_s=0.1))
    found = recorded(sqlite_store)
    assert found.closed_by is ClosedBy.INCOMPLETE
    assert found.silent_s >= 0.5
    assert [(one.arrived, one.archived) for one in found.lacking] == [(1, 2)]


def test_what_is_missing_is_fetched_once_and_then_seldom(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    archive = ScriptedArchive([QueryResult(matches={SERIES: 2, "1.2.9": 1, "1.2.8": 0})])
    stays_open(watching(archive, fetch=True, fetch_after_s=0.2), for_s=0.5)
    assert archive.sent_again == [("pacs", STUDY, (SERIES, "1.2.9"))]
    archive.on_send_again = lambda: [
        sqlite_store.instances.receive(make_instance(number, series_instance_uid=series))
        for number, series in ((2, SERIES), (3, "1.2.9"))
    ]
    close(watching(archive, fetch=True, fetch_after_s=0.2))
    assert len(archive.sent_again) == 2
    assert recorded(sqlite_store).closed_by is ClosedBy.COUNTS


def test_nothing_is_fetched_unless_wished(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    archive = ScriptedArchive([counts(2)])
    stays_open(watching(archive, fetch_after_s=0.1), for_s=0.5)
    assert archive.sent_again == []


@pytest.mark.parametrize("answer", [QueryResult(matches=None, problem="refused"), QueryResult(matches={})])
def test_an_archive_that_cannot_tell_leaves_it_to_the_quiet_time(
    sqlite_store: Store,
    make_instance: Make,
    watching: Callable[..., CompletenessWatch],
    answer: QueryResult[int],
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    close(watching(ScriptedArchive([answer]), quiet_s=0.3))
    found = recorded(sqlite_store)
    assert found.closed_by is ClosedBy.QUIET
    assert found.silent_s >= 0.3


def test_an_archive_that_hangs_holds_no_other_study_up(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    hang = threading.Event()
    archive = ScriptedArchive([counts(1, "1.2.3.1")], hang=hang)
    sqlite_store.instances.receive(make_instance(1))
    watch = watching(archive)
    wait_until(lambda: watch.close_studies() or archive.asked)
    assert watch.close_studies() == []  # nobody waits for the answer, which does not come
    archive.hang = None  # for whoever asks from now on
    sqlite_store.instances.receive(
        make_instance(2, study_instance_uid="1.2.3", series_instance_uid="1.2.3.1")
    )
    close(watch)
    hang.set()
    states = {one.study_instance_uid: one.state for one in sqlite_store.overview.list()}
    assert states == {STUDY: StudyState.RECEIVING, "1.2.3": StudyState.PROCESSING}


def test_an_archive_that_failed_is_left_alone_for_a_while_whatever_the_study() -> None:
    now = [0.0]
    archive = ScriptedArchive([QueryResult(matches=None, problem="no connection")])
    turns = ArchiveQueries(archive, peers("pacs"), clock=lambda: now[0])
    with capture_logs() as told:
        for at_s in range(40):
            now[0] = float(at_s)
            assert turns.count(f"1.2.{at_s}") is None
        assert len(archive.asked) == 6  # at 0, 1, 3, 7, 15 and 31 s
        archive.answers, now[0] = [counts(1)], 100.0
        assert turns.count(STUDY) is not None
    assert [(one["event"], one.get("problem")) for one in told] == [
        ("archive_does_not_tell", "no connection"),
        ("archive_tells_again", None),
    ]


def test_an_archive_that_cannot_be_asked_at_all_is_told_and_left_alone() -> None:
    class Broken(ScriptedArchive):
        def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
            raise ConfigurationError("pacs wants TLS, and no [tls] is given")

    with capture_logs() as told:
        assert ArchiveQueries(Broken([]), peers("pacs")).count(STUDY) is None
    assert told[0]["problem"] == "ConfigurationError: pacs wants TLS, and no [tls] is given"


def test_the_first_archive_that_knows_the_study_counts() -> None:
    archive = ScriptedArchive([QueryResult(matches={}), counts(7), counts(9)])
    told = ArchiveQueries(archive, peers("first", "second", "third")).count(STUDY)
    assert told is not None
    assert (told.archive, told.matches) == ("second", {SERIES: 7})
    assert archive.asked == ["first", "second"]


def test_nobody_says_that_a_study_is_unknown_while_one_archive_is_silent() -> None:
    archive = ScriptedArchive([QueryResult(matches=None, problem="no connection"), QueryResult(matches={})])
    assert ArchiveQueries(archive, peers("first", "second")).count(STUDY) is None


def test_a_sender_that_stays_connected_holds_no_study_up_that_an_archive_counts(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    association = sqlite_store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    sqlite_store.instances.receive(make_instance(1, association_id=association))
    close(watching(ScriptedArchive([counts(1)])))
    assert recorded(sqlite_store).closed_by is ClosedBy.COUNTS


def test_a_sender_that_stays_connected_and_brings_no_more_of_a_study_does_not_hold_it_up(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    association = sqlite_store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    sqlite_store.instances.receive(make_instance(1, association_id=association))
    quick = {"quiet_s": 0.2, "quiet_pauses": 3.0}
    watch = watching(**quick)
    others = (
        make_instance(
            number, association_id=association, study_instance_uid="1.2.3", series_instance_uid="1.2.3.1"
        )
        for number in count(2)
    )

    def closes_while_another_comes() -> bool:
        if not (closed := watch.close_studies()):
            sqlite_store.instances.receive(next(others))
        return bool(closed)

    wait_until(closes_while_another_comes)
    states = {one.study_instance_uid: one.state for one in sqlite_store.overview.list()}
    assert states == {STUDY: StudyState.PROCESSING, "1.2.3": StudyState.RECEIVING}
    assert recorded(sqlite_store).silent_s >= 0.6  # longer than of one that has left


def test_a_slow_sender_on_one_association_is_not_cut_off(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    """Each pause is longer than the quiet time of a sender that has left."""
    association = sqlite_store.associations.open(peer="127.0.0.1", calling_ae="PACS", called_ae="OSTEONODE")
    watch = watching(quiet_s=0.1, quiet_whole_s=0.1, quiet_pauses=5.0)
    for number in range(4):
        sqlite_store.instances.receive(slice_at(make_instance, number, float(number), association))
        stays_open(watch, for_s=0.3)
    sqlite_store.associations.close(association)
    close(watch)
    assert sqlite_store.overview.list()[0].images == 4


def test_a_study_that_cannot_be_looked_at_holds_no_other_up_and_is_told_once(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    class Absurd(ScriptedArchive):
        def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
            if study_instance_uid == STUDY:
                return QueryResult(matches={SERIES: None})  # type: ignore[dict-item]
            return counts(1, "1.2.3.1")

    sqlite_store.instances.receive(make_instance(1))
    sqlite_store.instances.receive(
        make_instance(2, study_instance_uid="1.2.3", series_instance_uid="1.2.3.1")
    )
    watch = watching(Absurd([]))
    with capture_logs() as told:
        close(watch)
        stays_open(watch, for_s=0.3)
    states = {one.study_instance_uid: one.state for one in sqlite_store.overview.list()}
    assert states == {STUDY: StudyState.RECEIVING, "1.2.3": StudyState.PROCESSING}
    reason = sqlite_store.overview.show(STUDY).summary.reason
    assert reason.startswith("whether it is complete cannot be determined: TypeError")
    assert [one["event"] for one in told].count("study_not_looked_at") == 1


def test_a_file_that_cannot_be_read_leaves_its_study_to_the_quiet_time(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    for number in range(4):
        sqlite_store.instances.receive(slice_at(make_instance, number, float(number)))
    for path in sqlite_store.instances.paths(STUDY):
        path.unlink()
    close(watching(quiet_whole_s=0.1, quiet_s=0.4))
    assert recorded(sqlite_store).closed_by is ClosedBy.QUIET


def test_a_study_that_the_database_will_not_close_spoils_no_other(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    for number in range(3):
        sqlite_store.instances.receive(make_instance(number, study_instance_uid=f"1.2.{number}"))
    with sqlite_store.database.writing() as connection:  # a job that should not be there
        connection.execute(
            jobs.insert().values(
                study_instance_uid="1.2.1",
                generation=1,
                step="deliver",
                state="finished",
                attempts=0,
                not_before=0.0,
                token=0,
                last_error="",
                created_at=0.0,
                updated_at=0.0,
            )
        )
    watch = watching(quiet_s=0.01)
    time.sleep(0.05)
    watch.close_studies()
    states = {one.study_instance_uid: one.state for one in sqlite_store.overview.list()}
    assert states == {
        "1.2.0": StudyState.PROCESSING,
        "1.2.1": StudyState.RECEIVING,
        "1.2.2": StudyState.PROCESSING,
    }
    assert "cannot be determined" in sqlite_store.overview.show("1.2.1").summary.reason


def slice_at(
    make_instance: Make, number: int, z_mm: float, association_id: int | None = None
) -> ReceivedInstance:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"{STUDY}.1.{number}"
    header.SeriesInstanceUID, header.ImageType = SERIES, ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, z_mm], [1, 0, 0, 0, 1, 0]
    header.ensure_file_meta()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return make_instance(number, content=(buffer.getvalue(),), association_id=association_id)


def test_slices_without_gaps_close_a_study_after_a_shorter_silence(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    watch = watching(quiet_whole_s=0.2)
    for number, z_mm in enumerate((0.0, 1.0, 3.0, 4.0)):
        sqlite_store.instances.receive(slice_at(make_instance, number, z_mm))
    stays_open(watch, for_s=1.0)
    sqlite_store.instances.receive(slice_at(make_instance, 9, 2.0))
    assert not watch.close_studies()
    close(watch)
    found = recorded(sqlite_store)
    assert (found.closed_by, found.archive) == (ClosedBy.GEOMETRY, None)
    assert found.silent_s >= 0.2


def test_files_that_say_nothing_of_their_place_leave_it_to_the_quiet_time(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    for number in range(4):
        sqlite_store.instances.receive(make_instance(number))
    close(watching(quiet_whole_s=0.1, quiet_s=0.4))
    assert recorded(sqlite_store).closed_by is ClosedBy.QUIET


def test_pauses_of_the_sender_are_measured_within_a_generation(
    store: Store, make_instance: Make, close_study: Callable[[Store], Any]
) -> None:
    begun = time.monotonic()
    store.instances.receive(make_instance(1))
    time.sleep(0.3)
    store.instances.receive(make_instance(2))
    took_s = time.monotonic() - begun
    store.instances.receive(make_instance(3, sop_class_uid=SR, series_instance_uid="1.9"))
    store.instances.note_own(make_instance(4, sop_class_uid=SR, series_instance_uid="1.9"))
    (first,) = store.studies.receiving(stale_s=20)
    assert 0.3 <= first.longest_pause_s <= took_s
    assert (first.images, first.ct_series) == ({SERIES: 2, "1.9": 1}, {SERIES})
    close_study(store)
    store.instances.receive(make_instance(5))
    (second,) = store.studies.receiving(stale_s=20)
    assert (second.generation, second.longest_pause_s) == (2, 0.0)
    assert second.images == {SERIES: 3, "1.9": 1}


def test_a_study_that_grew_since_it_was_looked_at_is_not_closed(
    sqlite_store: Store, make_instance: Make, watching: Callable[..., CompletenessWatch]
) -> None:
    sqlite_store.instances.receive(make_instance(1))
    watch = watching(quiet_s=0.001)
    seen = sqlite_store.studies.receiving

    def grows(**how: Any) -> Any:
        found = seen(**how)
        sqlite_store.instances.receive(make_instance(2))
        return found

    sqlite_store.studies.receiving = grows  # type: ignore[method-assign]
    time.sleep(0.01)
    assert watch.close_studies() == []
    sqlite_store.studies.receiving = seen  # type: ignore[method-assign]
    close(watch)
    assert sqlite_store.overview.list()[0].images == 2
