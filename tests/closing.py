"""Closing studies by silence alone, for tests that are about what comes afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from node.pipeline.artefacts import to_json
from node.store.jobs import DueJob
from node.store.store import Store
from node.store.study_lifecycle import Closing
from node.study_report import ClosedBy, Completeness


def close_due(store: Store, *, first_step: str, quiet_s: float, stale_s: float) -> Sequence[DueJob]:
    """Close every study that nobody sends and nothing came of for so long."""
    found = Completeness(closed_by=ClosedBy.QUIET, archive=None, silent_s=quiet_s, series=())
    closing = Closing(closed_by=found.closed_by, reason="closed by a test", content=to_json(found).decode())
    due = [
        one
        for one in store.studies.receiving(stale_s=stale_s)
        if one.silent_s >= quiet_s and not one.sender_connected
    ]
    closed = [store.studies.close(one, closing, first_step=first_step) for one in due]
    return tuple(job for job in closed if job is not None)
