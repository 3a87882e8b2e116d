"""What the pipeline needs of network, broker and memory, as protocols; node.processes binds them.

The store is used as it is: `node.pipeline` imports `node.store`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from config.sections import Destination, Peer
from node.store.states import Proof
from node.study_report import EncodedObject, Laboratory
from scoring.calibration.control_charts import ScannerReading

Stated = TypeVar("Stated")


class Step(StrEnum):
    """The steps of a study; `STEPS` is their order."""

    SELECT = "select"
    SEGMENT = "segment"
    SCORE = "score"
    REPORT = "report"
    DELIVER = "deliver"

    @property
    def following(self) -> Step | None:
        """The step after this one; None after the last."""
        place = STEPS.index(self) + 1
        return STEPS[place] if place < len(STEPS) else None


# The order of the steps. `node.pipeline.step_functions` says what each does, and
# `node.pipeline.delivery` the last.
STEPS = (Step.SELECT, Step.SEGMENT, Step.SCORE, Step.REPORT, Step.DELIVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMessage:
    """All that travels through the broker. The truth behind it stands in the database.

    Attributes
    ----------
    urgent : goes before others; where it waits, not what it says.
    """

    job_id: int
    step: Step
    generation: int
    urgent: bool = False


FEATURES_QUEUE = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRequest:
    """All that travels through the broker when a worker is asked for every feature of a study in a folder.

    Attributes
    ----------
    study : the folder, on a disk that command and worker share.
    mask : a file's name in it; None: the settings' engine draws.
    settings_sha256 : of everything that features depend on besides the images.
    answer : the file that the worker writes.
    """

    study: str
    mask: str | None
    settings_sha256: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """When the report was issued and what it amends: minted once per generation, reused by every retry.

    Attributes
    ----------
    issued_at : aware.
    predecessor_class_uid : None: the first SR class.
    """

    issued_at: datetime
    predecessor_uid: str | None = None
    predecessor_issued_at: datetime | None = None
    predecessor_class_uid: str | None = None
    amendment_reason: str | None = None


class Artefacts(Protocol):
    """The intermediate results of one study and generation, by name."""

    def put(self, name: str, content: bytes) -> None:
        """Keep `content` durably under `name`, replacing what stood there."""
        ...

    def get(self, name: str) -> bytes:
        """Raises `ArtefactMissing` if there is none."""
        ...

    def names(self) -> Sequence[str]: ...


class ArtefactMissing(LookupError):
    """A step's input was never made, or is gone."""


class ClinicalValues(Protocol):
    """Where laboratory values come from."""

    def laboratory(self, patient_id: str, issuer: str, study_date: str | None) -> Laboratory:
        """Values nearest to the study date (ISO 8601); fields are None where there is no value in time."""
        ...


class ScannerHistory(Protocol):
    """What calibration phantoms have read on each scanner."""

    def keep(self, study_instance_uid: str, source_uid: str, reading: ScannerReading) -> None:
        """Keep the reading of a series, or of one single slice, in place of an earlier one of the same."""
        ...

    def forget(self, source_uid: str) -> None:
        """Keep no reading of this series or single slice."""
        ...

    def readings(self, device_serial: str) -> Sequence[ScannerReading]:
        """Of one scanner, oldest first."""
        ...


class PatientHistory(Protocol):
    """What earlier studies of a patient measured."""

    def keep(
        self, *, study_instance_uid: str, patient_id: str, issuer: str, taken_on: date, content: str
    ) -> None:
        """Keep one study's measurements (JSON) durably, in place of earlier ones of the same study."""
        ...

    def forget(self, study_instance_uid: str) -> None:
        """Keep nothing of this study, whoever it was kept for."""
        ...

    def of_patient(self, *, patient_id: str, issuer: str) -> Sequence[str]:
        """Of all studies of one patient, the earliest first."""
        ...


class IdentitySource(Protocol):
    """Who can confirm that the identification of a study was corrected: an archive, asked by C-FIND."""

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """Attributes of patient and order by keyword, as far as they are stated; an empty one is stated, too.

        None where there is no answer, or the study is not known there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[Stated]):
    """What one archive says of one study.

    Attributes
    ----------
    stated : empty: it does not know the study; None: it does not say.
    problem : why it does not.
    """

    stated: Mapping[str, Stated] | None
    problem: str = ""


class Archive(Protocol):
    """Archives that can be asked what they hold. Never raises for a peer, and never takes long."""

    def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> Answer[int]:
        """C-FIND at SERIES level: Number of Series Related Instances of every CT series of a study."""
        ...

    def identify(self, peer: Peer | Destination, study_instance_uid: str) -> Answer[str]:
        """C-FIND at STUDY level: attributes of patient and order, as `IdentitySource` gives them."""
        ...

    def send_again(self, peer: Peer | Destination, study_instance_uid: str, series: Sequence[str]) -> str:
        """C-MOVE of these series to this node's listener: may take as long as sending takes.

        Returns
        -------
        What went wrong, in words; "" where all was sent.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedReport:
    """A structured report that an archive holds, and whose UIDs were made as this software makes them.

    Attributes
    ----------
    stated_at : date and time as the archive states them, YYYYMMDDHHMMSS; "" where it does not.
    offset : from UTC, as +0100; "" where it is not stated.
    """

    sop_class_uid: str
    stated_at: str
    offset: str


class ReportFinder(Protocol):
    """Archives that can be asked what they hold of this node. Never raises for a peer."""

    def find_reports(self, peer: Peer | Destination, study_instance_uid: str) -> Answer[ArchivedReport]:
        """C-FIND at SERIES and IMAGE level: this software's reports on a study, by SOP Instance UID."""
        ...


class SendOutcome(StrEnum):
    SENT = "sent"  # the peer answered Success or a warning that it stored the object
    TRANSIENT = "transient"  # worth another try: no connection, out of resources
    PERMANENT = "permanent"  # another try of the same bytes cannot succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What became of one object at one destination.

    Attributes
    ----------
    status : DIMSE status; None where no answer came.
    accepted_instead : SOP class of the first alternative that is.
    """

    sop_instance_uid: str
    outcome: SendOutcome
    status: int | None
    detail: str
    accepted_instead: str | None = None


class Sender(Protocol):
    """C-STORE to a PACS."""

    def send(
        self,
        destination: Destination,
        objects: Sequence[EncodedObject],
        *,
        before_each: Callable[[], None] = lambda: None,
        alternatives: Sequence[str] = (),
    ) -> Sequence[SendResult]:
        """Send each object over one association; one result per object, in order. Never raises for a peer.

        `alternatives` are SOP classes that are offered beside those of the objects: of a report whose class
        the peer does not accept, the result names the first of them that it does.

        `before_each` is called before each C-STORE; what it raises ends the sending and is raised again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What a destination answered to the question whether it would commit.

    Attributes
    ----------
    outcome : SENT: it took the question, and reports later.
    """

    outcome: SendOutcome
    status: int | None
    detail: str


class FindResult(StrEnum):
    """What a query for one object came to."""

    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"  # the query failed


class ProofSession(Protocol):
    """An association with a destination, on which it is asked what it holds."""

    @property
    def offered(self) -> frozenset[Proof]:
        """COMMITMENT, FIND, both or neither."""
        ...

    @property
    def problem(self) -> str:
        """Why there is no association, in words; "" where there is one, or where the peer offers neither."""
        ...

    def ask(self, transaction_uid: str, objects: Sequence[EncodedObject]) -> QueryResult:
        """N-ACTION: have the destination commit to these objects. Its report comes by other ways."""
        ...

    def wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        """Stay, for a report on this association, until it is over or time is up."""
        ...

    def find(self, one: EncodedObject) -> FindResult:
        """C-FIND at IMAGE level."""
        ...


class Prover(Protocol):
    """Storage commitment and C-FIND. Never raises for a peer."""

    def session(self, destination: Destination) -> AbstractContextManager[ProofSession]: ...


class Publisher(Protocol):
    """The broker. Losing a message is harmless: `reconcile` publishes again from the database."""

    def publish(self, message: StepMessage) -> None: ...

    def waiting(self, step: Step) -> int | None:
        """How many messages for `step` no worker has taken yet; None where the broker does not answer."""
        ...
