"""The web application: the HTML pages and how values stand in them, routes, error responses, the server.

Values are short, have units, and are never told apart by colour alone. The application also serves the page
while the database is away.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from html import escape
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.sections import Destination
from config.settings import command_line
from node import __version__
from node.logs import describe
from node.pipeline.policy import in_words
from node.store.errors import NoSuchArtefact, NoSuchStudy, StoreError
from node.store.overview import DeliveryRow, DestinationStatus, StudySummary
from node.store.states import DeliveryState, JobState, Proof, QuarantineKind, StudyState, WorkerState
from node.study_report import ClosedBy
from node.supervision import SupervisedThread
from node.web.metrics import Machine
from node.web.sources import PICTURES, Sources, duration, latest_picture, latest_result, size

_LONG_UID_CHARACTERS = 26


class Tone(StrEnum):
    """What a state means to the operator. Each has a colour and a sign of its own."""

    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"
    QUIET = "quiet"


_TONES: dict[str, Tone] = {
    StudyState.RECEIVING: Tone.BUSY,
    StudyState.PROCESSING: Tone.BUSY,
    StudyState.NOT_APPLICABLE: Tone.QUIET,
    StudyState.REPORTED: Tone.GOOD,
    StudyState.DELIVERED: Tone.GOOD,
    StudyState.SENT: Tone.GOOD,
    StudyState.UNDELIVERED: Tone.BAD,
    StudyState.SET_ASIDE: Tone.BAD,  # of jobs, too
    JobState.WAITING: Tone.BUSY,
    JobState.RUNNING: Tone.BUSY,
    JobState.FINISHED: Tone.GOOD,
    JobState.SUPERSEDED: Tone.QUIET,
    DeliveryState.PENDING: Tone.BUSY,
    DeliveryState.COMMITTED: Tone.GOOD,
    DeliveryState.FOUND: Tone.GOOD,
    DeliveryState.FAILED: Tone.BAD,
    QuarantineKind.IDENTITY: Tone.BAD,
    QuarantineKind.CONTENT: Tone.BAD,
    QuarantineKind.UNDECODABLE: Tone.BAD,
    QuarantineKind.REJECTED: Tone.QUIET,
    QuarantineKind.REPLACED: Tone.QUIET,
    WorkerState.WORKING: Tone.GOOD,
    WorkerState.REFUSING: Tone.BAD,
    WorkerState.SILENT: Tone.BAD,
    WorkerState.ENDED: Tone.QUIET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationLine:
    """One row of the table of destinations. Empty strings and None where nothing is known.

    Attributes
    ----------
    standing : None where nothing was ever scheduled for it.
    """

    name: str
    ae_title: str
    address: str
    standing: DestinationStatus | None
    configured: bool


def destination_lines(
    configured: Sequence[Destination], standings: Sequence[DestinationStatus]
) -> tuple[DestinationLine, ...]:
    """Rows of the destinations: configured ones in their order, then those with earlier deliveries only."""
    past = {standing.name: standing for standing in standings}
    lines = [
        DestinationLine(
            name=one.name,
            ae_title=one.ae_title,
            address=f"{one.host}:{one.port}",
            standing=past.pop(one.name, None),
            configured=True,
        )
        for one in configured
    ]
    lines += [
        DestinationLine(name=name, ae_title="", address="", standing=standing, configured=False)
        for name, standing in past.items()
    ]
    return tuple(lines)


def why(study: StudySummary) -> str:
    """Reason for a study's state."""
    arriving = "images may still arrive" if study.state == StudyState.RECEIVING else ""
    return study.last_error or study.reason or arriving


_CLOSED_BY = {
    ClosedBy.COUNTS.value: "image counts of an archive",
    ClosedBy.GEOMETRY.value: "complete slice geometry and a short quiet time",
    ClosedBy.QUIET.value: "quiet time only",
    ClosedBy.INCOMPLETE.value: "timeout: archived images did not arrive",
}


def whole_by(code: str) -> str:
    """Evidence that a study was complete."""
    return _CLOSED_BY.get(code, "not recorded")


def tone(state: str) -> Tone:
    return _TONES[state]


def short_uid(uid: str) -> str:
    """Both ends of a long UID: the beginning names its creator, the end distinguishes it from others."""
    return uid if len(uid) <= _LONG_UID_CHARACTERS else f"{uid[:10]}…{uid[-10:]}"


def at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def unproven(delivery: DeliveryRow) -> str:
    """Of an object that a destination has not been shown to hold: whether that is still to come."""
    if delivery.state != DeliveryState.SENT:
        return ""
    return "by status only" if delivery.proof == Proof.STATUS else "awaited"


def dimse(status: int | None) -> str:
    return "" if status is None else in_words(status)


def make_environment() -> Environment:
    """Templates that escape everything, and fail on an undefined name."""
    environment = Environment(
        loader=PackageLoader("node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "why": why,
            "tone": tone,
            "short_uid": short_uid,
            "at": at,
            "size": size,
            "dimse": dimse,
            "unproven": unproven,
            "whole_by": whole_by,
            "duration": duration,
        }
    )
    environment.globals["command_line"] = command_line
    return environment


_MOST_STUDIES = 200
_MOST_QUARANTINE_LINES = 20
_REFRESH_S = 15
_STATIC = {"style.css": "text/css", "icon.svg": "image/svg+xml"}
_ON_THE_WAY = (StudyState.RECEIVING, StudyState.PROCESSING)


class Pages:
    """HTML pages by Jinja2; they need no scripts."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._templates = make_environment()
        self.router = APIRouter(default_response_class=HTMLResponse)
        for path, answer in (
            ("/", self.index),
            ("/studies/{uid}", self.study),
            ("/studies/{uid}/pictures/{name}", self.picture),
            ("/static/{name}", self.static),
        ):
            self.router.add_api_route(path, answer, response_model=None)

    def index(self) -> Response:
        """Overview of the node. If the database does not answer, the page says so."""
        sources = self._sources
        checks = sources.checks()
        disk = sources.disk()
        common: dict[str, Any] = {"checks": checks, "disk": disk, "refresh_s": _REFRESH_S}
        try:
            standing = sources.standing()
            listed = sources.store.overview.list(limit=_MOST_STUDIES)
        except StoreError as error:
            return self._page(
                "unavailable.html",
                HTTPStatus.SERVICE_UNAVAILABLE,
                error=str(error),
                alerts=sources.alerts(checks, None),
                **common,
            )
        return self._page(
            "index.html",
            census=standing.census,
            studies=listed,
            workers=[one for one in standing.workers if one.state != WorkerState.ENDED],
            destinations=destination_lines(sources.settings.destinations, standing.destinations),
            quarantine=sources.store.quarantine.lines(limit=_MOST_QUARANTINE_LINES),
            alerts=sources.alerts(checks, standing),
            **common,
        )

    def study(self, uid: str) -> Response:
        """Page of one study.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        """
        detail = self._sources.store.overview.show(uid)
        return self._page(
            "study.html",
            detail=detail,
            latest=latest_result(self._sources.store, detail),
            pictures=PICTURES,
            refresh_s=_REFRESH_S if detail.summary.state in _ON_THE_WAY else None,
        )

    def picture(self, uid: str, name: str) -> Response:
        """One of the stored pictures, as PNG.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        NoSuchArtefact
            If there is no such picture.
        """
        return Response(latest_picture(self._sources.store, uid, name), media_type="image/png")

    def static(self, name: str) -> Response:
        """Style sheet and icon."""
        if name not in _STATIC:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        content = files("node.web").joinpath("static", name).read_bytes()
        return Response(content, media_type=_STATIC[name], headers={"cache-control": "max-age=3600"})

    def problem(self, status: HTTPStatus, text: str) -> Response:
        """A page that says what cannot be shown."""
        return self._page("problem.html", status, title=status.phrase, text=text, refresh_s=None)

    def _page(self, template: str, status: HTTPStatus = HTTPStatus.OK, **values: object) -> Response:
        content = self._templates.get_template(template).render(
            node=self._sources.settings.node,
            engine=self._sources.engine,
            version=__version__,
            now=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(content, status)


# The application and its server.


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
        assert isinstance(error, AnyHTTPException)
        response = answer(request, HTTPStatus(error.status_code), f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(NoSuchStudy, not_held)
    app.add_exception_handler(NoSuchArtefact, not_held)
    app.add_exception_handler(StoreError, unavailable)
    app.add_exception_handler(AnyHTTPException, refused)
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
