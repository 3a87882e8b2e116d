"""The process that serves the operator's page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing

import redis
import structlog

from config.settings import Destination, NodeSettings, Settings
from node.net.scu import DicomSender
from node.pipeline.describe import describe
from node.pipeline.engine import settle_engine
from node.store.errors import StoreError
from node.store.store import Store, open_store
from node.web.app import create_app
from node.web.readiness import NotReady, Probe
from node.web.server import serve
from node.web.sources import Sources
from segmentation.errors import EngineUnavailable

log = structlog.get_logger(__name__)

# A readiness check is asked every few seconds, and its asker waits for ten at most.
_PROBE_TIMEOUT_S = 2.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a listener on every address is met


def run_web(settings: Settings, on_ready: Callable[[str], None], stop: threading.Event) -> int:
    """Serve the operator's page until `stop` is set.

    Parameters
    ----------
    settings : with the listener's real port, which the page tries and shows.
    on_ready : told the port, once requests are answered.

    Raises
    ------
    StoreUnavailable
        If the store cannot be opened.
    OSError
        If the address cannot be bound.
    """
    if settings.web.host not in _LOOPBACK:
        log.warning("page_without_authentication", host=settings.web.host)
    with closing(open_store(settings.storage)) as store:
        engine, try_engine = _settled_engine(settings)
        sources = Sources(
            settings=settings, store=store, engine=engine, probes=_probes(settings, store, try_engine)
        )

        def announce(port: int) -> None:
            log.info("page_ready", host=settings.web.host, port=port)
            on_ready(str(port))

        serve(
            create_app(sources), host=settings.web.host, port=settings.web.port, on_ready=announce, stop=stop
        )
    return 0


def _settled_engine(settings: Settings) -> tuple[str, Probe]:
    """The engine in words, and its probe. Settled once, as the workers do: it never changes by itself."""
    try:
        info = settle_engine(settings.segmentation).info
    except EngineUnavailable as error:
        reason = str(error)

        def say_why() -> str:
            raise NotReady(reason)

        return f"{settings.segmentation.engine} (unavailable)", say_why
    told = f"{info.name} {info.version}"
    return told, lambda: told


def _probes(settings: Settings, store: Store, try_engine: Probe) -> Mapping[str, Probe]:
    probes: dict[str, Probe] = {
        "database": lambda: _try_database(store),
        "listener": lambda: _try_listener(settings.node),
    }
    if settings.broker.url:
        probes["broker"] = lambda: _try_broker(settings.broker.url)
    return {**probes, "engine": try_engine}


def _try_database(store: Store) -> str:
    try:
        store.census.answers()
    except StoreError as error:
        raise NotReady(str(error)) from error
    return "answers"


def _try_listener(node: NodeSettings) -> str:
    """C-ECHO: a port that accepts connections may belong to a listener that hangs."""
    listener = Destination(
        name="listener",
        ae_title=node.ae_title,
        host=_LOOPBACK_OF.get(node.host, node.host),
        port=node.port,
    )
    sender = DicomSender(node.ae_title, connect_timeout_s=_PROBE_TIMEOUT_S, answer_timeout_s=_PROBE_TIMEOUT_S)
    answer = sender.echo(listener)
    if not answer.answered:
        raise NotReady(f"C-ECHO: {answer.detail}")
    return "answers C-ECHO"


def _try_broker(url: str) -> str:
    # Celery and redis-py name Unix sockets differently.
    plain = url.replace("redis+socket://", "unix://", 1)
    try:
        with redis.Redis.from_url(
            plain, socket_timeout=_PROBE_TIMEOUT_S, socket_connect_timeout=_PROBE_TIMEOUT_S
        ) as client:
            client.ping()
    except redis.RedisError as error:
        raise NotReady(f"no answer: {describe(error)}") from error
    return "answers"
