"""uvicorn inside this process, stopped by an event instead of by signal handlers of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from node.supervision import SupervisedThread

log = structlog.get_logger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_MOST_CONNECTIONS = 100  # an operator, a monitor and a health check need a handful
_IDLE_S = 5
_GRACE_S = 3


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process, which sets `stop`."""
        yield


def serve(
    app: ASGIApp, *, host: str, port: int, on_ready: Callable[[int], None], stop: threading.Event
) -> None:
    """Answer requests until `stop` is set.

    Parameters
    ----------
    port : 0 for any free one.
    on_ready : told the port once requests are answered.

    Raises
    ------
    OSError
        If the address cannot be bound.
    """
    if host not in _LOOPBACK:
        log.warning("page_without_authentication", host=host)
    listening = socket.create_server((host, port), family=_family(host))
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    bound_port = int(listening.getsockname()[1])
    server = _Server(config, lambda: on_ready(bound_port))

    def end_when_told() -> None:
        stop.wait()
        server.should_exit = True

    SupervisedThread(end_when_told, name="page-stop").start()
    with listening:
        server.run(sockets=[listening])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
