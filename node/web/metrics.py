"""The node's numbers as Prometheus reads them, taken from the database when asked. No identities, no UIDs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from config.catalog import CatalogEntryInvalid, CatalogEntryMissing
from node import __version__
from node.pipeline.model import active_model
from node.pipeline.ports import Step
from node.store.census import Census
from node.store.errors import StoreError
from node.store.feature_standing import FeatureStandings
from node.store.states import DeliveryState, JobState, WorkerState
from node.store.workers import WorkerLine
from node.web.sources import Disk, Sources


def exposition(sources: Sources) -> bytes:
    """Every metric in Prometheus' text format. Raises StoreUnavailable."""
    registry = CollectorRegistry(auto_describe=False)
    names = [destination.name for destination in sources.settings.destinations]
    registry.register(
        _Taken(
            (
                _about(sources.engine),
                *_counts(sources.store.census.take(), names),
                *_workers(sources.store.workers.list()),
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


def _counts(census: Census, destinations: Iterable[str]) -> Iterator[Metric]:
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
    yield GaugeMetricFamily(
        "osteonode_oldest_due_job_age_seconds",
        "How long the job that waits longest for a worker has been due; 0 where none waits.",
        value=census.oldest_due_s,
    )


def _workers(lines: Iterable[WorkerLine]) -> Iterator[Metric]:
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
    except (CatalogEntryInvalid, CatalogEntryMissing):
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
        standing = FeatureStandings(sources.settings.storage.root).here()
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
