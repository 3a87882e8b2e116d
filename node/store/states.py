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


UNFINISHED = (JobState.WAITING, JobState.RUNNING)
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
