"""The HTML pages."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response

from node import __version__
from node.store.errors import StoreError
from node.store.states import StudyState, WorkerState
from node.web.presentation import destination_lines, make_environment
from node.web.sources import PICTURES, Sources, latest_picture, latest_result

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
