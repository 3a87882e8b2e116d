"""Prometheus metrics, which contain no identities or UIDs, and the routes for other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from node import __version__
from node.pipeline.ports import Step
from node.pipeline.result_basis import active_model
from node.store.errors import StoreError
from node.store.overview import DestinationStatus, NodeCounts, StudyDetail, StudySummary
from node.store.states import DeliveryState, JobState, WorkerState
from node.store.workers import ServiceStatus, WorkerStatus
from node.web.sources import SEVERITIES, Alert, Disk, Sources


def exposition(sources: Sources) -> bytes:
    """All metrics in Prometheus' text format.

    Raises
    ------
    StoreError
        If the database cannot be used.
    """
    registry = CollectorRegistry(auto_describe=False)
    names = [destination.name for destination in sources.settings.destinations]
    standing = sources.standing()
    registry.register(
        _Taken(
            (
                _about(sources.engine),
                *_alerts(sources.alerts(sources.checks(), standing)),
                *_counts(standing.census, names),
                *_destinations(standing.destinations),
                *_workers(standing.workers),
                *_parts(standing.parts),
                *_certificate(sources.certificate_ends()),
                *_disk(sources.disk()),
                *_scores(sources),
            )
        )
    )
    return generate_latest(registry)


class _Taken(Collector):
    """Metrics that have been taken already, once for this answer."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics

    def describe(self) -> Iterable[Metric]:
        return ()


def _about(engine: str) -> Metric:
    about = InfoMetricFamily("osteonode", "The node and its segmentation engine.")
    about.add_metric([], {"version": __version__, "engine": engine})
    return about


def _alerts(found: Sequence[Alert]) -> Iterator[Metric]:
    """Every code is there from the start, at 0."""
    number = Counter(one.code for one in found)
    alerts = GaugeMetricFamily(
        "osteonode_alerts",
        "What needs a person, as the page says it, by code.",
        labels=["code", "severity"],
    )
    for code, severity in SEVERITIES.items():
        alerts.add_metric([code, severity], number[code])
    yield alerts


def _destinations(standings: Iterable[DestinationStatus]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "osteonode_destination_oldest_pending_seconds",
        "How long the oldest object waits that a destination did not take when it was tried.",
        labels=["destination"],
    )
    for one in standings:
        waiting.add_metric([one.name], one.waiting_s or 0.0)
    yield waiting


def _parts(lines: Iterable[ServiceStatus]) -> Iterator[Metric]:
    known = [one for one in lines if not one.has_ended]
    heard = GaugeMetricFamily(
        "osteonode_part_heard_seconds",
        "How long ago a part of the node finished a round of its work.",
        labels=["part"],
    )
    died = GaugeMetricFamily(
        "osteonode_part_deaths",
        "How often a process ended unexpectedly, counted anew after a quiet hour.",
        labels=["part"],
    )
    for one in known:
        if one.beats:
            heard.add_metric([one.name], one.heard_s)
        died.add_metric([one.name], one.deaths)
    yield heard
    yield died


def _certificate(ends: datetime | None) -> Iterator[Metric]:
    if ends is not None:
        yield GaugeMetricFamily(
            "osteonode_certificate_expires_timestamp_seconds",
            "When the node's own TLS certificate expires, in seconds since 1970-01-01 UTC.",
            value=ends.timestamp(),
        )


def _counts(census: NodeCounts, destinations: Iterable[str]) -> Iterator[Metric]:
    """Series that may occur are there from the start, at 0, so that a first failure shows as an increase."""
    studies = GaugeMetricFamily("osteonode_studies", "Studies by state.", labels=["state"])
    for study_state, number in census.studies.items():
        studies.add_metric([study_state], number)
    yield studies

    jobs = GaugeMetricFamily("osteonode_jobs", "Jobs by step and state.", labels=["step", "state"])
    for step in Step:
        for job_state in JobState:
            jobs.add_metric([step, job_state], census.jobs.get((step, job_state), 0))
    yield jobs

    deliveries = GaugeMetricFamily(
        "osteonode_deliveries", "Result objects by destination and state.", labels=["destination", "state"]
    )
    known = {name for name, _ in census.deliveries}
    for name in sorted(known.union(destinations)):
        for delivery_state in DeliveryState:
            deliveries.add_metric([name, delivery_state], census.deliveries.get((name, delivery_state), 0))
    yield deliveries

    quarantined = GaugeMetricFamily(
        "osteonode_quarantined_instances", "Received instances in quarantine, by kind.", labels=["kind"]
    )
    for kind, number in census.quarantined.items():
        quarantined.add_metric([kind], number)
    yield quarantined
    yield GaugeMetricFamily(
        "osteonode_quarantine_used_ratio",
        "How full quarantine is of other content and identities; at 1 more of them is refused by 0xA700.",
        value=census.quarantine_share,
    )
    yield GaugeMetricFamily("osteonode_due_jobs", "Steps that a worker could take up now.", value=census.due)
    yield GaugeMetricFamily(
        "osteonode_oldest_due_job_age_seconds",
        "How long the job that waits longest for a worker has been due; 0 where none waits.",
        value=census.oldest_due_s,
    )


def _workers(lines: Iterable[WorkerStatus]) -> Iterator[Metric]:
    known = tuple(lines)
    workers = GaugeMetricFamily("osteonode_workers", "Workers of the last day by state.", labels=["state"])
    for state in WorkerState:
        workers.add_metric([state], sum(one.state is state for one in known))
    yield workers
    yield GaugeMetricFamily(
        "osteonode_differing_workers",
        "Workers whose configuration, software or engine is not that of most others.",
        value=sum(bool(one.differs) for one in known),
    )


def _scores(sources: Sources) -> Iterator[Metric]:
    """What rad-scores rest on."""
    card = None
    try:
        found = active_model(sources.settings)
        card, usable = found.card, found.refusal is None
    except (CatalogEntryInvalid, CatalogEntryMissing, StoreError):
        usable = False
    yield GaugeMetricFamily(
        "osteonode_model_usable",
        "1 where the model in force can be used or none is configured, else 0.",
        value=float(usable),
    )
    if card is not None:
        model = InfoMetricFamily("osteonode_model", "The model in force.")
        model.add_metric([], {"name": card.name, "version": card.version, "sha256": card.sha256})
        yield model
    try:
        standing = sources.store.feature_checks.here()
    except StoreError:  # readiness says so
        standing = None
    if standing is not None:
        yield GaugeMetricFamily(
            "osteonode_drifted_features",
            "Features of the known image that came out otherwise when a worker of this machine last started.",
            value=standing.drifted,
        )


def _disk(disk: Disk | None) -> Iterator[Metric]:
    if disk is not None:
        yield GaugeMetricFamily(
            "osteonode_storage_free_bytes", "Free space under the storage root.", value=disk.free_bytes
        )
        yield GaugeMetricFamily(
            "osteonode_storage_total_bytes", "Size of the file system there.", value=disk.total_bytes
        )


_DEFAULT_STUDIES = 200
_MOST_STUDIES = 10_000

Limit = Annotated[int, Query(ge=1, le=_MOST_STUDIES)]


class Machine:
    """Routes under /api, and those that monitoring expects by name."""

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
        """Confirm that this process answers; nothing else is checked."""
        return {"status": "alive"}

    def ready(self) -> Response:
        """Whether a study would be received now, and the state of each part.

        Returns
        -------
        Status 200, or 503 if not.
        """
        checks = self._sources.checks()
        is_ready = not any(check.stops_reception for check in checks)
        body = {
            "ready": is_ready,
            "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
        }
        return JSONResponse(body, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def metrics(self) -> Response:
        """Metrics in Prometheus' text format.

        Raises
        ------
        StoreError
            If the database cannot be used.
        """
        return Response(exposition(self._sources), media_type=CONTENT_TYPE_LATEST)

    def alerts(self) -> Sequence[Alert]:
        """Alerts, the urgent first; they include that the database does not answer."""
        checks = self._sources.checks()
        try:
            standing = self._sources.standing()
        except StoreError:  # its check says so
            standing = None
        return self._sources.alerts(checks, standing)

    def studies(self, limit: Limit = _DEFAULT_STUDIES) -> Sequence[StudySummary]:
        """Studies, the latest first.

        Raises
        ------
        StoreUnavailable
            If the database cannot be used.
        """
        return self._sources.store.overview.list(limit=limit)

    def study(self, uid: str) -> StudyDetail:
        """One study in detail.

        Raises
        ------
        NoSuchStudy
            If the node does not hold the study.
        StoreUnavailable
            If the database cannot be used.
        """
        return self._sources.store.overview.show(uid)
