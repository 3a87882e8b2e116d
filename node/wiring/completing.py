"""Completeness, bound: archives are asked by DICOM."""

from __future__ import annotations

from config.settings import Settings
from node.net.query import DicomArchive
from node.net.requesting import Requestor
from node.pipeline.archives import ArchivesInTurn
from node.pipeline.watch import CompletenessWatch
from node.store.store import Store


def make_archive(settings: Settings) -> DicomArchive:
    """Asks whatever peer it is given, with little patience but for what it fetches."""
    patience_s = settings.completeness.ask_timeout_s
    return DicomArchive(
        Requestor(
            settings.node.ae_title,
            connect_timeout_s=patience_s,
            answer_timeout_s=patience_s,
            tls=settings.tls,
        ),
        fetcher=Requestor(settings.node.ae_title, connect_timeout_s=patience_s, tls=settings.tls),
        ae_title=settings.node.ae_title,
        timeout_s=patience_s,
    )


def make_archives(settings: Settings) -> ArchivesInTurn:
    """The archives that the settings name, asked by DICOM."""
    return ArchivesInTurn(make_archive(settings), settings.archives)


def make_watch(store: Store, settings: Settings) -> CompletenessWatch:
    """Watches the studies of a store."""
    return CompletenessWatch(
        store,
        settings.completeness,
        make_archives(settings),
        urgent_titles=settings.worker.urgent_ae_titles,
    )
