"""A corrected identity that nobody has to confirm by hand, because the archive says the same."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from node.dicom.likeness import as_compared, identity_values
from node.pipeline.ports import IdentitySource
from node.store.errors import ReconciliationIncomplete
from node.store.identities import HeldIdentity
from node.store.store import Store

log = structlog.get_logger(__name__)


# What an archive notes about its own correction: it is no part of who was examined.
_NOTES = frozenset({"OriginalAttributesSequence"})


def confirm_identities(store: Store, source: IdentitySource, stop: threading.Event | None = None) -> int:
    """Put in force what waits and what the source says, too. Returns for how many studies.

    Ends between two studies once `stop` is set.

    A study stays with a person where the source does not answer, leaves out an attribute that differs, or
    says something else; and where the decision would leave images of the study behind.

    Raises
    ------
    StoreUnavailable
    """
    confirmed = 0
    for uid in store.identities.studies_waiting():
        if stop is not None and stop.is_set():
            break
        said = source.identity_of(uid)
        if said is None or not all(_says(said, one) for one in store.identities.waiting(uid)):
            continue
        try:
            images = store.identities.accept(uid)
        except ReconciliationIncomplete:
            continue  # the others may be on their way
        log.info("identity_confirmed", study_instance_uid=uid, images=images)
        confirmed += 1
    return confirmed


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
