"""The same image under another identity: held, shown, and confirmed or rejected by a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from node.store.errors import NothingToReconcile, ReconciliationIncomplete
from node.store.files import FileStore, ReceivedInstance
from node.store.instances import Receipt
from node.store.jobs import DueJob, MadeObject
from node.store.states import DeliveryState, QuarantineKind, StudyState
from node.store.store import Store
from tests.claiming import claim
from tests.closing import close_due

pytestmark = pytest.mark.slow

Make = Callable[..., ReceivedInstance]
Close = Callable[[Store], DueJob]

SR = "1.2.840.10008.5.1.4.1.1.88.34"


class _Said:
    """Reads bytes as `encoding|identity|image`: enough to tell what the store makes of an answer."""

    def identity_difference(self, held: Path | BinaryIO, came: Path | BinaryIO) -> frozenset[str] | None:
        (_, ours, image), (_, theirs, other) = _parts(held), _parts(came)
        if image != other:
            return None
        return frozenset() if ours == theirs else frozenset({"PatientName", "PatientID"})

    def fingerprint(self, source: Path | BinaryIO) -> tuple[str, str] | None:
        _, identity, image = _parts(source)
        return image.ljust(64, "."), identity.ljust(64, ".")


def _parts(source: Path | BinaryIO) -> list[str]:
    content = source.read_bytes() if isinstance(source, Path) else source.read()
    return content.decode().removeprefix("header").split("|")


@pytest.fixture
def come(store: Store, make_instance: Make) -> Callable[..., Receipt]:
    """An instance arrives."""

    def arrive(number: int = 1, identity: str = "old", encoding: str = "raw", **fields: object) -> Receipt:
        content = (b"header", f"{encoding}|{identity}|image {number}".encode())
        return store.instances.receive(make_instance(number, content=content, **fields), _Said())

    return arrive


Come = Callable[..., Receipt]


def _identities(store: Store, study: str) -> set[str]:
    return {_parts(path)[1] for path in store.instances.paths(study)}


def _send_report(store: Store, job: DueJob, uid: str, state: DeliveryState = DeliveryState.SENT) -> None:
    lease = claim(store, job)
    store.artefacts.put(lease, "report.dcm", b"", {})
    store.reports.issue(lease)
    made = MadeObject(
        sop_instance_uid=uid, sop_class_uid=SR, kind="SR", artefact="report.dcm", is_report=True
    )
    sending = claim(store, store.jobs.advance(lease, "deliver", [made]))
    store.deliveries.schedule(sending, ["pacs"])
    (delivery,) = store.deliveries.pending(sending)
    store.deliveries.settle(sending, delivery, state, status=0, detail="")
    store.jobs.finish(sending, StudyState.SENT, "1 object arrived")


@pytest.fixture
def study(make_instance: Make) -> str:
    return make_instance().study_instance_uid


def test_another_encoding_of_the_same_is_held_already(store: Store, come: Come, study: str) -> None:
    assert [come(1), come(1, encoding="compressed")] == [Receipt.STORED, Receipt.ALREADY_HELD]
    assert len(list((store.files.root / "instances").rglob("*.dcm"))) == 1
    assert store.quarantine.list() == ()


def test_another_identity_is_held_and_shown_and_changes_nothing(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _send_report(store, close_study(store), "2.25.7")
    assert come(1, "new") is Receipt.HELD
    assert come(1, "new") is Receipt.ALREADY_HELD
    shown = store.overview.show(study)
    assert (shown.summary.state, shown.summary.generation) == (StudyState.SENT, 1)
    (line,) = shown.quarantine
    assert (line.kind, line.files, line.reason) == (QuarantineKind.IDENTITY, 1, "PatientID, PatientName")
    assert store.identities.studies_waiting() == (study,)
    assert _identities(store, study) == {"old"}


def test_an_accepted_identity_begins_a_generation_whose_report_names_its_predecessor(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1), come(2)
    first = close_study(store)
    _send_report(store, first, "2.25.7")
    come(1, "new"), come(2, "new")
    assert store.identities.accept(study) == 2
    assert _identities(store, study) == {"new"}
    job = close_study(store)
    assert job.generation == 2
    issued = store.reports.issue(claim(store, job))
    assert issued.predecessor_uid == "2.25.7"
    (earlier, later) = store.overview.show(study).reports
    assert issued.predecessor_issued_at == earlier.issued_at == later.predecessor_issued_at
    assert issued.amendment_reason == "the identification of the patient or the order was corrected"
    (line,) = store.overview.show(study).quarantine
    assert (line.kind, line.files) == (QuarantineKind.REPLACED, 2)  # what was in force is kept, too


def test_half_a_study_is_not_given_another_identity(store: Store, come: Come, study: str) -> None:
    come(1), come(2), come(1, "new")
    with pytest.raises(ReconciliationIncomplete, match="1 of 2"):
        store.identities.accept(study)
    assert _identities(store, study) == {"old"}
    come(2, "new")
    assert store.identities.accept(study) == 2


def test_of_two_corrections_the_later_is_put_in_force(store: Store, come: Come, study: str) -> None:
    come(1), come(1, "wrong"), come(1, "right")
    (waiting,) = store.identities.waiting(study)
    assert _parts(waiting.waiting)[1] == "right"
    store.identities.accept(study)
    assert _identities(store, study) == {"right"}
    assert store.identities.waiting(study) == ()


def test_an_identity_that_was_replaced_waits_again_when_it_comes_again(
    store: Store, come: Come, study: str
) -> None:
    come(1), come(1, "new")
    store.identities.accept(study)
    come(1, "old")
    assert [_parts(one.waiting)[1] for one in store.identities.waiting(study)] == ["old"]
    store.identities.accept(study)
    assert _identities(store, study) == {"old"}


def test_a_rejected_identity_stays_rejected_and_the_study_as_it_is(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _send_report(store, close_study(store), "2.25.7")
    come(1, "new")
    assert store.identities.reject(study) == 1
    assert come(1, "new") is Receipt.ALREADY_HELD
    assert store.identities.waiting(study) == ()
    assert store.overview.show(study).summary.generation == 1
    for decide in (store.identities.accept, store.identities.reject):
        with pytest.raises(NothingToReconcile):
            decide(study)


def test_reasons_add_up_from_the_report_that_is_replaced(
    store: Store, come: Come, close_study: Close, study: str
) -> None:
    come(1)
    _send_report(store, close_study(store), "2.25.7")
    come(2)
    close_study(store)  # superseded before it has an answer
    come(1, "new"), come(2, "new")
    store.identities.accept(study)
    issued = store.reports.issue(claim(store, close_study(store)))
    assert issued.amendment_reason == (
        "images arrived later; the identification of the patient or the order was corrected"
    )


@pytest.mark.parametrize(
    ("states", "named"),
    [
        ((DeliveryState.COMMITTED, DeliveryState.SENT), "2.25.1"),
        ((DeliveryState.FOUND, DeliveryState.COMMITTED), "2.25.2"),
        ((DeliveryState.SENT, DeliveryState.SENT), "2.25.2"),
        ((DeliveryState.SENT, DeliveryState.FAILED), "2.25.1"),
        ((DeliveryState.FAILED, DeliveryState.FAILED), None),
    ],
)
def test_the_predecessor_is_the_latest_report_that_a_pacs_is_known_to_have(
    store: Store,
    come: Come,
    close_study: Close,
    states: tuple[DeliveryState, ...],
    named: str | None,
) -> None:
    for number, state in enumerate(states, start=1):
        come(number)
        _send_report(store, close_study(store), f"2.25.{number}", state)
    come(len(states) + 1)
    assert store.reports.issue(claim(store, close_study(store))).predecessor_uid == named


def test_a_late_image_waits_until_the_delivery_of_its_predecessor_has_settled(
    store: Store, come: Come, close_study: Close
) -> None:
    come(1)
    lease = claim(store, close_study(store))
    store.artefacts.put(lease, "report.dcm", b"", {})
    store.reports.issue(lease)
    made = MadeObject(
        sop_instance_uid="2.25.7", sop_class_uid=SR, kind="SR", artefact="report.dcm", is_report=True
    )
    sending = claim(store, store.jobs.advance(lease, "deliver", [made]))
    come(2)
    assert close_due(store, first_step="select", quiet_s=0, stale_s=20) == ()
    store.deliveries.schedule(sending, ["pacs"])
    (delivery,) = store.deliveries.pending(sending)
    store.deliveries.settle(sending, delivery, DeliveryState.FAILED, status=0xC000, detail="")
    store.jobs.finish(sending, StudyState.UNDELIVERED, "refused")
    assert close_study(store).generation == 2


def test_a_segmentation_that_is_measured_reopens_and_any_other_does_not(
    store: Store, make_instance: Make, come: Come, close_study: Close
) -> None:
    seg = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4", "series_instance_uid": "2.25.5"}
    store.instances.receive(make_instance(7, **seg, is_measured_mask=True))
    assert close_due(store, first_step="select", quiet_s=0, stale_s=20) == ()  # nothing to measure
    come(1)
    close_study(store)
    store.instances.receive(make_instance(8, **seg))
    assert close_due(store, first_step="select", quiet_s=0, stale_s=20) == ()
    store.instances.receive(make_instance(9, **seg, is_measured_mask=True))
    assert close_study(store).generation == 2


def test_what_is_held_may_change_while_it_is_compared(
    store: Store, come: Come, make_instance: Make, study: str
) -> None:
    come(1), come(1, "new")
    asked: list[str] = []

    class Slow(_Said):
        def identity_difference(self, held: Path | BinaryIO, came: Path | BinaryIO) -> frozenset[str] | None:
            asked.append(_parts(held)[1])
            if len(asked) == 1:
                store.identities.accept(study)  # an operator, meanwhile
            return super().identity_difference(held, came)

    third = make_instance(1, content=(b"header", b"raw|third|image 1"))
    assert store.instances.receive(third, Slow()) is Receipt.HELD
    assert asked == ["old", "new"]
    assert len(list((store.files.root / "instances").rglob("*.dcm"))) == 3


def test_of_two_that_bring_the_same_at_once_one_is_kept(
    store: Store, come: Come, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FileStore.write
    others: list[Receipt] = []

    def write_late(self: FileStore, *arguments: Any, **options: Any) -> str:
        if not others:
            others.append(Receipt.STORED)
            others.append(come(1))  # another association is first
        return write(self, *arguments, **options)

    monkeypatch.setattr(FileStore, "write", write_late)
    assert come(1) is Receipt.ALREADY_HELD
    assert others[1] is Receipt.STORED
    assert len(list((store.files.root / "instances").rglob("*.dcm"))) == 1
    assert store.quarantine.list() == ()
