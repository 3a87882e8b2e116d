"""The process of the operator's page, and its readiness probes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from config.phrases import in_english
from config.sections import Destination
from config.settings import Settings
from node.net.access import certificate_ends, speaks_tls
from node.net.sender import DicomSender, Requestor
from node.pipeline.ports import StepMessage
from node.pipeline.result_basis import active_model
from node.store.errors import StorageFull, StoreError, StoreUnavailable
from node.store.store import Store, open_store
from node.supervision import SupervisedThread
from node.web.app import UnavailablePage, create_app, serve
from node.web.sources import NotReady, Probe, Sources
from node.worker import CeleryBroker
from node.worker import create_app as create_celery

_ANSWER_TIMEOUT_S = 3.0
_PATIENCE_S = 2.0  # of the start
_LOOK_S = 1.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a listener bound to all addresses is reached


def run_page(settings: Settings, engine: str, on_ready: Callable[[str], None], stop: threading.Event) -> int:
    """Answer requests until `stop` is set.

    Parameters
    ----------
    engine : the segmentation engine as the workers settled it, in words.
    on_ready : told the port.
    """
    waiting = UnavailablePage(settings.web.host)

    def look() -> None:
        """Until the store can be opened; the listener's process says in the log what it waits for."""
        while not stop.is_set():
            try:
                store = open_store(settings.storage)
            except StoreUnavailable as error:
                waiting.note(str(error))
                stop.wait(_LOOK_S)
                continue
            opened.append(store)
            sources = Sources(
                settings=settings,
                store=store,
                engine=engine,
                probes=make_probes(settings, store),
                certificate_ends=partial(certificate_ends, settings.tls),
            )
            waiting.begin(create_app(sources))
            return

    opened: list[Store] = []
    looking = SupervisedThread(look, name="page-store")
    looking.start()
    looking.join(_PATIENCE_S)  # ready means with the store, unless the database is away
    serve(
        waiting,
        host=settings.web.host,
        port=settings.web.port,
        on_ready=lambda port: on_ready(str(port)),
        stop=stop,
    )
    looking.join()
    for store in opened:
        store.close()
    return 0


def make_probes(settings: Settings, store: Store) -> Mapping[str, Probe]:
    """What readiness rests on: database, disk, broker and listener, each tried as it is used; the model in
    force; and what the workers of this machine found when they tried the known image."""
    broker = CeleryBroker(create_celery(settings, _refuse))
    sender = DicomSender(
        Requestor(
            settings.node.ae_title, connect_timeout_s=_ANSWER_TIMEOUT_S, answer_timeout_s=_ANSWER_TIMEOUT_S
        )
    )
    listener = Destination(
        name="listener",
        ae_title=settings.node.ae_title,
        host=_ANY_ADDRESS.get(settings.node.host, settings.node.host),
        port=settings.node.port,
    )

    def try_database() -> str:
        try:
            store.census.answers()
        except StoreError as error:
            raise NotReady(str(error)) from error
        return "answers"

    def try_disk() -> str:
        try:
            store.files.require_space(0)
        except StorageFull as error:
            raise NotReady(f"nothing is received: {error}") from error
        except StoreError as error:
            raise NotReady(str(error)) from error
        return "has space"

    def try_broker() -> str:
        if not broker.answers():
            raise NotReady("no answer")
        return "answers"

    def try_listener() -> str:
        if settings.tls.certificate:
            if not speaks_tls(listener.host, listener.port, timeout_s=_ANSWER_TIMEOUT_S):
                raise NotReady("no answer")
            return f"{settings.node.ae_title} on port {settings.node.port} answers with TLS"
        echo = sender.echo(listener)
        if not echo.answered:
            raise NotReady(echo.detail)
        return f"{settings.node.ae_title} on port {settings.node.port} answers C-ECHO"

    def try_model() -> str:
        try:
            found = active_model(settings)
        except (CatalogEntryInvalid, CatalogEntryMissing, StoreError) as error:
            raise NotReady(str(error)) from error
        if found.refusal is not None:
            raise NotReady(in_english(found.refusal.values["reason"]))
        return f"{found.card.name} {found.card.version}, {found.card.sha256[:12]}" if found.card else "none"

    def check_features() -> str:
        try:
            found = store.feature_checks.here()
        except StoreError as error:
            raise NotReady(str(error)) from error
        if found is None:
            return "not checked on this machine yet"
        if found.drifted:
            raise NotReady(f"{found.drifted} of {found.checked} drifted: no rad-score is given")
        return f"{found.checked} features of a known image match"

    return {
        "database": try_database,
        "disk": try_disk,
        "broker": try_broker,
        "listener": try_listener,
        "model": try_model,
        "features": check_features,
    }


def _refuse(message: StepMessage) -> None:
    raise AssertionError(f"the page looks and does not work: {message}")
