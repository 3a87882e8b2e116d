"""Storage commitment, bound: what listener and workers do with reports, and how this node tells its own."""

from __future__ import annotations

from functools import partial

from config.settings import Settings
from node.net.commitment import RecordReport
from node.net.reporting import Reporter
from node.net.requesting import Requestor
from node.store.store import Store


def report_recorder(store: Store, settings: Settings) -> RecordReport:
    """Takes reports in; what could not be committed for now is asked for again after the usual patience."""
    return partial(store.commitment_transactions.record, ask_again_in_s=settings.worker.commitment_patience_s)


def make_reporter(store: Store, settings: Settings) -> Reporter:
    """Tells peers what they asked this node to commit."""
    return Reporter(
        Requestor(settings.node.ae_title, tls=settings.tls),
        store.commitment_requests,
        settings.address_of,
        backoff_s=settings.worker.send_backoff_s,
        give_up_after_s=settings.worker.send_give_up_after_s,
    )
