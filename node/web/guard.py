"""What every answer passes through: the Host check, security headers and the boundary for errors."""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.pipeline.describe import describe

log = structlog.get_logger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
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
    """Answers only to names of this machine, and says nothing of an error but that there was one.

    A site that an operator visits elsewhere can point its own name at 127.0.0.1 and have the browser read the
    page for it (DNS rebinding). The browser then names that site in Host, and is turned away.

    Parameters
    ----------
    host : the address that the page is bound to.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        named = frozenset() if host in _EVERY_ADDRESS else {f"[{host}]" if ":" in host else host.lower()}
        self._names = _LOOPBACK | named

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
