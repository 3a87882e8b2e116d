"""What the page answers while the database is away and there is nothing to show."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from node.web.guard import Guard

_FOR_MACHINES = ("/api/", "/metrics", "/readyz")


class Waiting:
    """Stands for the application until there is one: it says that nothing is received, and why.

    Parameters
    ----------
    host : the address that the page is bound to.
    """

    def __init__(self, host: str) -> None:
        self._reason = "the database has not answered yet"
        self._app: ASGIApp = Guard(self._answer, host)

    def note(self, reason: str) -> None:
        """What is waited for."""
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
        if path.startswith(_FOR_MACHINES):
            return JSONResponse({"detail": text}, HTTPStatus.SERVICE_UNAVAILABLE)
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="refresh" content="15">'
            f"<title>Not ready</title></head><body><h1>Not ready</h1><p>{escape(text)}</p></body></html>"
        )
        return HTMLResponse(page, HTTPStatus.SERVICE_UNAVAILABLE)
