"""The states that rows of the database can be in, and what counts as a CT image."""

from __future__ import annotations

from enum import StrEnum


class StudyState(StrEnum):
    RECEIVING = "receiving"
    PROCESSING = "processing"
    NOT_APPLICABLE = "not applicable"  # no QCT study: nothing goes back
    REPORTED = "reported"  # results are kept here; no destination is configured
    SENT = "sent"  # every destination answered Success
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
    SENT = "sent"  # the peer answered Success or a warning that it stored the object
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


# Nothing is left to do, and nobody is waited for.
FINISHED = (StudyState.SENT, StudyState.REPORTED, StudyState.NOT_APPLICABLE)
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
