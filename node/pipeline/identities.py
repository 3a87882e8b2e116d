"""A corrected identity that nobody has to confirm by hand, because the archive says the same."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from node.dicom.likeness import as_compared, identity_values
from node.pipeline.describe import describe
from node.pipeline.ports import IdentitySource
from node.store.errors import ReconciliationIncomplete, StoreUnavailable
from node.store.identities import HeldIdentity
from node.store.store import Store

log = structlog.get_logger(__name__)


# What an archive notes about its own correction: it is no part of who was examined.
_NOTES = frozenset({"OriginalAttributesSequence"})


def confirm_identities(store: Store, source: IdentitySource, stop: threading.Event | None = None) -> int:
    """Put in force what waits and what the source says, too. Returns for how many studies.

    Ends between two studies once `stop` is set.

    A study stays with a person where the source does not answer, leaves out an attribute that differs, or
    says something else; and where the decision would leave images of the study behind, or anything fails.

    Raises
    ------
    StoreUnavailable
    """
    confirmed = 0
    for uid in store.identities.studies_waiting():
        if stop is not None and stop.is_set():
            break
        try:
            confirmed += _confirm(store, source, uid)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one study's boundary: it stays with a person
            log.error("identity_not_compared", study_instance_uid=uid, error=describe(error))
    return confirmed


def _confirm(store: Store, source: IdentitySource, uid: str) -> bool:
    said = source.identity_of(uid)
    if said is None or not all(_says(said, one) for one in store.identities.waiting(uid)):
        return False
    try:
        images = store.identities.accept(uid)
    except ReconciliationIncomplete:
        return False  # the others may be on their way
    log.info("identity_confirmed", study_instance_uid=uid, images=images)
    return True


def _says(said: Mapping[str, str], held: HeldIdentity) -> bool:
    """Whether the source states all in which the two identities differ, and as the waiting one has it."""
    if held.in_force is None:
        return False  # what differs is not known any more
    old, new = identity_values(held.in_force), identity_values(held.waiting)
    differing = {keyword for keyword in old.keys() | new.keys() if old.get(keyword) != new.get(keyword)}
    differing -= _NOTES
    return bool(differing) and all(
        keyword in said and as_compared(keyword, said[keyword]) == new.get(keyword, "")
        for keyword in differing
    )
