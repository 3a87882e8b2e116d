"""What other programs read: health, metrics, and studies as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from node.store.errors import StoreError
from node.store.overview import StudyDetail, StudySummary
from node.web.alerts import Alert
from node.web.metrics import exposition
from node.web.sources import Sources

_DEFAULT_STUDIES = 200
_MOST_STUDIES = 10_000

Limit = Annotated[int, Query(ge=1, le=_MOST_STUDIES)]


class Machine:
    """Routes under /api, and those whose names monitoring expects."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.router = APIRouter()
        self.router.add_api_route("/healthz", self.alive)
        self.router.add_api_route("/readyz", self.ready, response_model=None)
        self.router.add_api_route("/metrics", self.metrics, response_model=None)
        self.router.add_api_route("/api/alerts", self.alerts)
        self.router.add_api_route("/api/studies", self.studies)
        self.router.add_api_route("/api/studies/{uid}", self.study)

    def alive(self) -> dict[str, str]:
        """This process answers; it says nothing of the others."""
        return {"status": "alive"}

    def ready(self) -> Response:
        """Whether a study that came now would be received, and how each part stands. 503 if not."""
        checks = self._sources.checks()
        is_ready = not any(check.stops_reception for check in checks)
        body = {
            "ready": is_ready,
            "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
        }
        return JSONResponse(body, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def metrics(self) -> Response:
        """Raises StoreUnavailable."""
        return Response(exposition(self._sources), media_type=CONTENT_TYPE_LATEST)

    def alerts(self) -> Sequence[Alert]:
        """What needs a person, the urgent first; where the database does not answer, that is among it."""
        checks = self._sources.checks()
        try:
            standing = self._sources.standing()
        except StoreError:  # its check says so
            standing = None
        return self._sources.alerts(checks, standing)

    def studies(self, limit: Limit = _DEFAULT_STUDIES) -> Sequence[StudySummary]:
        """The latest first. Raises StoreUnavailable."""
        return self._sources.store.overview.list(limit=limit)

    def study(self, uid: str) -> StudyDetail:
        """Raises NoSuchStudy, StoreUnavailable."""
        return self._sources.store.overview.show(uid)
