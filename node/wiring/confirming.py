"""What both the listener and the workers do with a report of storage commitment."""

from __future__ import annotations

from functools import partial

from config.settings import Settings
from node.net.commitment import RecordReport
from node.store.store import Store


def report_recorder(store: Store, settings: Settings) -> RecordReport:
    """Takes reports in; what could not be committed for now is asked for again after the usual patience."""
    return partial(store.transactions.record, ask_again_in_s=settings.worker.commitment_patience_s)
