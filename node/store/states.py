"""The states that rows of the database can be in, and what counts as a CT image."""

from __future__ import annotations

from enum import StrEnum


class StudyState(StrEnum):
    RECEIVING = "receiving"
    PROCESSING = "processing"
    NOT_APPLICABLE = "not applicable"  # no QCT study: nothing goes back
    REPORTED = "reported"  # results are kept here; no destination is configured
    DELIVERED = "delivered"  # every destination proved that it holds everything
    SENT = "sent"  # every destination answered Success; one of them, at least, offers no better proof
    UNDELIVERED = "undelivered"  # a destination refused for good, or for too long: a person must look
    SET_ASIDE = "set aside"  # cannot be finished without a person


class JobState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    SET_ASIDE = "set aside"
    SUPERSEDED = "superseded"  # the study was reopened before it had an answer


class DeliveryState(StrEnum):
    PENDING = "pending"
    SENT = "sent"  # the peer answered that it stored the object; proof is awaited unless it is STATUS
    COMMITTED = "committed"  # the peer took responsibility (storage commitment)
    FOUND = "found"  # a query found the object at the peer
    FAILED = "failed"  # dead letter: a person must look


class QuarantineKind(StrEnum):
    """Why bytes lie in quarantine."""

    CONTENT = "other content"  # under a SOP Instance UID that is held already
    UNDECODABLE = "undecodable"  # no data set; the sender was told so
    IDENTITY = "identity waits"  # the held image under another identity: a person has to decide
    REJECTED = "identity rejected"  # a person decided against it
    REPLACED = "replaced"  # held until a person confirmed another identity


class Reopening(StrEnum):
    """Why a study began its next generation, in words for the page and the amended report."""

    IMAGES = "images arrived later"
    SEGMENTATION = "a segmentation arrived later"
    IDENTITY = "the identification of the patient or the order was corrected"
    UNRECORDED = "an archive holds an earlier report of which this node has no record"


class Proof(StrEnum):
    """What shows that a destination holds an object."""

    COMMITMENT = "commitment"  # storage commitment (PS3.4 Annex J)
    FIND = "find"  # a C-FIND at IMAGE level
    STATUS = "status"  # the answer to C-STORE alone: the peer offers neither, or a site wants neither


class CommitmentVerdict(StrEnum):
    """What a destination says of one object that it was asked to commit."""

    COMMITTED = "committed"
    MISSING = "missing"  # it does not hold the object: send it again
    TRANSIENT = "transient"  # not now: ask again
    REFUSED = "refused"  # asking again cannot help


class TransactionState(StrEnum):
    """Of a storage commitment that a destination was asked for."""

    ASKED = "asked"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"  # asked again since, or in another way
    REFUSED = "refused"  # the destination did not take the question


class CommitmentRequestState(StrEnum):
    """Of a storage commitment that this node was asked for."""

    DUE = "due"  # to be told to who asked
    TOLD = "told"
    UNTOLD = "untold"  # given up


class WorkerState(StrEnum):
    """Of a worker, by its heartbeats."""

    WORKING = "works"
    REFUSING = "takes no work"  # it says why
    SILENT = "silent"  # it was not stopped in good order, and is not heard of any more
    ENDED = "ended"


# Nothing is left to do, and nobody is waited for.
FINISHED = (StudyState.DELIVERED, StudyState.SENT, StudyState.REPORTED, StudyState.NOT_APPLICABLE)
REPORT_KIND = "SR"  # of objects: structured reports, in whichever class
NOTE_KIND = "KO"  # of a rejection note
UNFINISHED = (JobState.WAITING, JobState.RUNNING)
PROVEN = (DeliveryState.COMMITTED, DeliveryState.FOUND)
ARRIVED = (DeliveryState.SENT, DeliveryState.COMMITTED, DeliveryState.FOUND)

# PS3.4 Table B.5-1: CT Image, Enhanced CT Image, Legacy Converted Enhanced CT Image Storage. Only these make
# a study grow, close and reopen; reports, segmentations, presentation states and the like never do.
CT_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
    }
)
