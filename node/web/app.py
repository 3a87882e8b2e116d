"""The web application: routes, error responses, the server, and the page while the database is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http import HTTPStatus

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.logs import describe
from node.store.errors import NoSuchArtefact, NoSuchStudy, StoreError
from node.supervision import SupervisedThread
from node.web.metrics import Machine
from node.web.pages import Pages
from node.web.sources import Sources

# What every answer passes through: the Host check, security headers and the boundary for errors.


_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # what to bind, nothing that a browser would name
_MISDIRECTED_REQUEST = 421

_HEADERS = {
    # The page has neither scripts nor forms; its style sheet and pictures are its own.
    "content-security-policy": "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Answers only to names of this machine, and hides the details of unexpected errors.

    A site that an operator visits elsewhere can point its own name at 127.0.0.1 and have the browser read the
    page (DNS rebinding).

    Parameters
    ----------
    host : the address that the page is bound to.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        named = frozenset() if host in _EVERY_ADDRESS else {f"[{host}]" if ":" in host else host.lower()}
        self._names = _LOOPBACK_HOSTS | named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if not self._is_meant(Headers(scope=scope)):
            refusal = PlainTextResponse("This page does not answer to that name.\n", _MISDIRECTED_REQUEST)
            await refusal(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, receive, send_guarded)
        except Exception as error:  # noqa: BLE001 - the boundary: FastAPI has answered 500 and raises again
            log.error("page_failed", error=describe(error))

    def _is_meant(self, headers: Headers) -> bool:
        given = headers.getlist("host")
        return len(given) == 1 and _without_port(given[0]).lower() in self._names


def _without_port(host: str) -> str:
    if host.startswith("["):  # an IPv6 address
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


_FOR_MACHINES = ("/api/", "/metrics", "/healthz", "/readyz")


def create_app(sources: Sources) -> ASGIApp:
    """The page as an ASGI application.

    Only GET is answered: while nobody can log in, nothing can be changed from here.
    """
    # The interactive documentation would load scripts from elsewhere.
    app = FastAPI(title="Osteonode", docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(sources)
    app.include_router(pages.router)
    app.include_router(Machine(sources).router)

    def answer(request: Request, status: HTTPStatus, text: str) -> Response:
        if request.url.path.startswith(_FOR_MACHINES):
            return JSONResponse({"detail": text}, status)
        return pages.problem(status, text)

    def not_held(request: Request, error: Exception) -> Response:
        what = "study" if isinstance(error, NoSuchStudy) else "picture"
        return answer(request, HTTPStatus.NOT_FOUND, f"The node does not hold this {what}.")

    def unavailable(request: Request, error: Exception) -> Response:
        return answer(request, HTTPStatus.SERVICE_UNAVAILABLE, f"Not now: {error}.")

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = answer(request, HTTPStatus(error.status_code), f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(NoSuchStudy, not_held)
    app.add_exception_handler(NoSuchArtefact, not_held)
    app.add_exception_handler(StoreError, unavailable)
    app.add_exception_handler(HTTPException, refused)
    return Guard(app, sources.settings.web.host)


# uvicorn inside this process, stopped by an event instead of by signal handlers of its own.


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


_FOR_MACHINES_WHILE_WAITING = ("/api/", "/metrics", "/readyz")


class UnavailablePage:
    """Answers until the application exists: nothing is received, and why.

    Parameters
    ----------
    host : the address that the page is bound to.
    """

    def __init__(self, host: str) -> None:
        self._reason = "the database has not answered yet"
        self._app: ASGIApp = Guard(self._answer, host)

    def note(self, reason: str) -> None:
        """Set the reason that is shown."""
        self._reason = reason

    def begin(self, app: ASGIApp) -> None:
        """Answer by `app` from now on."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer_to(Request(scope).url.path)(scope, receive, send)

    def _answer_to(self, path: str) -> Response:
        if path == "/healthz":
            return JSONResponse({"status": "alive"})
        if path == "/readyz":
            database = {"ok": False, "detail": self._reason}
            return JSONResponse(
                {"ready": False, "checks": {"database": database}}, HTTPStatus.SERVICE_UNAVAILABLE
            )
        text = f"The node waits for its database, and receives nothing: {self._reason}."
        if path.startswith(_FOR_MACHINES_WHILE_WAITING):
            return JSONResponse({"detail": text}, HTTPStatus.SERVICE_UNAVAILABLE)
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="refresh" content="15">'
            f"<title>Not ready</title></head><body><h1>Not ready</h1><p>{escape(text)}</p></body></html>"
        )
        return HTMLResponse(page, HTTPStatus.SERVICE_UNAVAILABLE)
