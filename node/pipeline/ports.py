"""Protocols of what the pipeline needs from network, broker and history; `node.processes` supplies them.

`node.pipeline` imports `node.store` directly.
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

Match = TypeVar("Match")


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
    """A step's message in the broker. The database holds the job's state.

    Attributes
    ----------
    urgent : changes the message's place in the queue and nothing else.
    """

    job_id: int
    step: Step
    generation: int
    urgent: bool = False


FEATURES_QUEUE = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRequest:
    """Message that requests every feature of a study in a folder from a worker.

    Attributes
    ----------
    study : the folder, on a disk that command and worker share.
    mask : name of a mask file in the folder; None: the settings' engine segments.
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
    """Intermediate results of one study and generation, by name."""

    def put(self, name: str, content: bytes) -> None:
        """Store `content` durably under `name`, in place of an earlier one."""
        ...

    def get(self, name: str) -> bytes:
        """Content stored under `name`.

        Raises
        ------
        ArtefactMissing
            If there is none.
        """
        ...

    def names(self) -> Sequence[str]: ...


class ArtefactMissing(LookupError):
    """A step's input was never made, or is gone."""


class ClinicalValues(Protocol):
    """A source of laboratory values."""

    def laboratory(self, patient_id: str, issuer: str, study_date: str | None) -> Laboratory:
        """Values nearest to the study date.

        Parameters
        ----------
        study_date : ISO 8601; None where the study states none.

        Returns
        -------
        A field is None where there is no value within the permitted time.
        """
        ...


class ScannerHistory(Protocol):
    """Phantom readings of each scanner."""

    def keep(self, study_instance_uid: str, source_uid: str, reading: ScannerReading) -> None:
        """Store the reading of a series or single slice, in place of an earlier one of the same source.

        Parameters
        ----------
        source_uid : Series Instance UID, or SOP Instance UID of a single slice.
        """
        ...

    def forget(self, source_uid: str) -> None:
        """Keep no reading of this series or single slice."""
        ...

    def readings(self, device_serial: str) -> Sequence[ScannerReading]:
        """Readings of one scanner, oldest first."""
        ...


class PatientHistory(Protocol):
    """Measurements of a patient's earlier studies."""

    def keep(
        self, *, study_instance_uid: str, patient_id: str, issuer: str, taken_on: date, content: str
    ) -> None:
        """Store one study's measurements durably, in place of earlier ones of the same study.

        Parameters
        ----------
        taken_on : date of the scan.
        content : JSON.
        """
        ...

    def forget(self, study_instance_uid: str) -> None:
        """Keep nothing of this study, whoever it was kept for."""
        ...

    def of_patient(self, *, patient_id: str, issuer: str) -> Sequence[str]:
        """Measurements (JSON) of all studies of one patient, the earliest first."""
        ...


class IdentitySource(Protocol):
    """A source that can confirm a corrected identity: an archive, by C-FIND."""

    def identity_of(self, study_instance_uid: str) -> Mapping[str, str] | None:
        """Attributes of patient and order.

        Returns
        -------
        Value by keyword; an attribute that is stated as empty is included. None where the source does not
        answer or does not have the study.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult(Generic[Match]):
    """Answer of one archive about one study.

    Attributes
    ----------
    matches : empty: it does not have the study; None: no usable answer.
    problem : the reason for None.
    """

    matches: Mapping[str, Match] | None
    problem: str = ""


class Archive(Protocol):
    """Archives that can be queried. Failures of a peer are returned, not raised."""

    def count_ct_images(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[int]:
        """C-FIND at SERIES level: Number of Series Related Instances of each CT series, by UID."""
        ...

    def identify(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[str]:
        """C-FIND at STUDY level: attributes of patient and order, as `IdentitySource` gives them."""
        ...

    def retrieve(self, peer: Peer | Destination, study_instance_uid: str, series: Sequence[str]) -> str:
        """C-MOVE of these series to this node's listener; returns after the archive has sent them.

        Parameters
        ----------
        series : Series Instance UIDs.

        Returns
        -------
        The failure, in words; "" where all were sent.
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
    """Archives that can be queried for this node's reports. Failures of a peer are returned, not raised."""

    def find_reports(self, peer: Peer | Destination, study_instance_uid: str) -> QueryResult[ArchivedReport]:
        """C-FIND at SERIES and IMAGE level: this software's reports on a study, by SOP Instance UID."""
        ...


class SendOutcome(StrEnum):
    SENT = "sent"  # the peer answered Success or a warning that it stored the object
    TRANSIENT = "transient"  # worth another try: no connection, out of resources
    PERMANENT = "permanent"  # another try of the same bytes cannot succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """Result of sending one object to one destination.

    Attributes
    ----------
    status : DIMSE status; None where no response came.
    accepted_instead : of a rejected SOP class: the first alternative that the peer accepts.
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
        """Send each object over one association. Failures of a peer are returned, not raised.

        Parameters
        ----------
        before_each : called before each C-STORE; what it raises ends the sending and is raised again.
        alternatives : SOP classes that are proposed beside those of the objects. Where the peer does not
            accept the class of a report, the result names the first of them that it accepts.

        Returns
        -------
        One result for each object, in their order.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentResponse:
    """A destination's response to a request for storage commitment.

    Attributes
    ----------
    outcome : SENT: it accepted the request, and reports later.
    status : DIMSE status; None where no response came.
    """

    outcome: SendOutcome
    status: int | None
    detail: str


class FindResult(StrEnum):
    """Result of a query for one object."""

    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"  # the query failed


class ProofSession(Protocol):
    """An association with a destination, for storage commitment and C-FIND."""

    @property
    def offered(self) -> frozenset[Proof]:
        """COMMITMENT, FIND, both or neither."""
        ...

    @property
    def problem(self) -> str:
        """Why there is no association; "" where there is one, or the peer accepts neither service."""
        ...

    def request_commitment(
        self, transaction_uid: str, objects: Sequence[EncodedObject]
    ) -> CommitmentResponse:
        """N-ACTION: request commitment to these objects. The report may come on another association."""
        ...

    def wait(self, over: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a report on this association.

        Parameters
        ----------
        over : ends the wait as soon as it returns True.
        timeout_s : ends the wait in any case.
        """
        ...

    def find(self, one: EncodedObject) -> FindResult:
        """C-FIND at IMAGE level."""
        ...


class Prover(Protocol):
    """Storage commitment and C-FIND. Never raises for a peer."""

    def session(self, destination: Destination) -> AbstractContextManager[ProofSession]: ...


class Publisher(Protocol):
    """The broker. A lost message does no harm: `reconcile` publishes it again from the database."""

    def publish(self, message: StepMessage) -> None: ...

    def waiting(self, step: Step) -> int | None:
        """Number of messages for `step` that no worker has taken; None where the broker does not answer."""
        ...
