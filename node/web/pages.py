"""The HTML pages, and how values stand in them: short, with units, and never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from config.sections import Destination
from config.settings import command_line
from node import __version__
from node.pipeline.policy import in_words
from node.store.errors import StoreError
from node.store.overview import DeliveryRow, DestinationStatus, StudySummary
from node.store.states import DeliveryState, JobState, Proof, QuarantineKind, StudyState, WorkerState
from node.study_report import ClosedBy
from node.web.alerts import duration, size
from node.web.sources import PICTURES, Sources, latest_picture, latest_result

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
