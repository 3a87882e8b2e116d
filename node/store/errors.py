"""What can go wrong in the store, named by what the caller does about it."""

from __future__ import annotations

import errno
from datetime import datetime


class StoreError(Exception):
    """Base of every error that this room raises."""


class StoreUnavailable(StoreError):
    """The database or the file system does not answer, or refuses a write for now; try again later."""


class StorageFull(StoreUnavailable):
    """No space left (or the quota is reached) for received bytes, an artefact or the database."""


class CommitUnknown(StoreUnavailable):
    """The database stopped answering during a commit: the transaction may be committed or not.

    Files that were written for rows of that transaction must stay: a row may name them.
    """


class QuarantineFull(StoreError):
    """No room for more of what was acknowledged as other content or identity: that is never dropped."""

    def __init__(self, files: int, size_bytes: int) -> None:
        super().__init__(
            f"quarantine is full ({files} files, {size_bytes >> 20} MiB): decide about what lies there "
            "(`osteonode studies quarantine`), or raise storage.quarantine_acknowledged"
        )


class WrongInstallation(StoreUnavailable):
    """Storage root and database do not belong together, or the root is not there."""


class DatabaseRefuses(StoreUnavailable):
    """The database answers and refuses this node: a password, a name or a right is wrong."""


class LeaseLost(StoreError):
    """The caller no longer holds the job: its lease ran out and another took over, or the study was reopened.

    What the caller was about to write has not been written.

    Attributes
    ----------
    job_id : of the job.
    token : of the lost lease.
    """

    def __init__(self, job_id: int, token: int) -> None:
        super().__init__(f"job {job_id} is no longer held with token {token}")
        self.job_id = job_id
        self.token = token


class NoSuchArtefact(StoreError):
    """An artefact that was never made, or is gone from the disk."""


class ArtefactRemoved(NoSuchArtefact):
    """Retention removed the artefact. It is not computed again: the result could differ from what was issued.

    Attributes
    ----------
    removed_at : UTC.
    """

    def __init__(self, name: str, removed_at: datetime) -> None:
        super().__init__(f"{name}: retention removed it on {removed_at:%Y-%m-%d}")
        self.removed_at = removed_at


class ResultsRemoved(StoreError):
    """Retention removed the results of a study that are to be sent again."""

    def __init__(self, study_instance_uid: str, removed_at: datetime) -> None:
        super().__init__(
            f"the results of {study_instance_uid} were removed by retention on {removed_at:%Y-%m-%d}: they "
            "cannot be sent again, and are not computed anew. When they were issued and sent is on record"
        )
        self.removed_at = removed_at


class NothingToResend(StoreError):
    """A study without results that could be sent again now."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the study is {state}: it has no results that could be sent again")


class NoSuchStudy(StoreError):
    """A study that the node does not hold."""


class NothingToReconcile(StoreError):
    """No other identity of the study waits for a decision."""

    def __init__(self, study_instance_uid: str) -> None:
        super().__init__(f"no other identity waits for a decision: {study_instance_uid}")


class ReconciliationIncomplete(StoreError):
    """Some images of the study have not come under the identity that waits.

    Attributes
    ----------
    came, images : how many have, of how many.
    """

    def __init__(self, *, came: int, images: int) -> None:
        super().__init__(
            f"{came} of {images} CT images have come under the other identity: send all of them, then decide"
        )
        self.came = came
        self.images = images


class ImagesPurged(StoreError):
    """Retention removed the images of a study that is to be measured again."""

    def __init__(self, study_instance_uid: str) -> None:
        super().__init__(f"retention removed the images of {study_instance_uid}: send them again, then retry")


class TransactionInUse(StoreError):
    """A peer asks about other instances under a Transaction UID that it has used."""


class NothingToRetry(StoreError):
    """A study that has no failure to retry.

    Attributes
    ----------
    state : where it stands instead.
    """

    def __init__(self, state: str) -> None:
        super().__init__(f"the study is {state}: there is nothing to retry")
        self.state = state


def storage_error(error: OSError) -> StoreUnavailable:
    """The store's exception for an error of the file system.

    Returns
    -------
    `StorageFull` for ENOSPC and EDQUOT, otherwise `StoreUnavailable`.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("no space left in the file store")
    return StoreUnavailable(f"the file store cannot be used ({error.strerror})")
