"""What the page reads from: settings, store, probes, and the latest result of a study without identity.

The patient's identity is dropped when the result is read, so that no template can show it. Scores that depend
on a reference population or a model are shown only on the report's own pages, with their limitations.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from config.findings import gravest_first
from config.settings import Settings
from node.pipeline.artefacts import RESULT
from node.result_document import FindingEntry, ResultDocument, read_result
from node.store.errors import NoSuchArtefact
from node.store.overview import StudyDetail
from node.store.store import Store
from node.web.alerts import Alert, Check, Probe, StoreSnapshot, Surroundings, alerts, try_all
from segmentation.vertebrae import RegionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system under the storage root."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Bound by node.processes.

    Attributes
    ----------
    settings : with real ports where 0 was asked for.
    engine : the segmentation engine in words, as the workers settled it: without one there is no page.
    probes : by the name of what each tries.
    certificate_ends : when the node's own TLS certificate expires; None without TLS.
    """

    settings: Settings
    store: Store
    engine: str
    probes: Mapping[str, Probe]
    certificate_ends: Callable[[], datetime | None] = lambda: None

    def checks(self) -> Sequence[Check]:
        """Check of every part that a study needs, in the order of `probes`; the engine last."""
        return (*try_all(self.probes), Check(name="engine", ok=True, detail=self.engine))

    def disk(self) -> Disk | None:
        """Size and free space of the file system.

        Returns
        -------
        None where the storage root cannot be read.
        """
        try:
            usage = shutil.disk_usage(self.store.files.root)
        except OSError:
            return None
        return Disk(free_bytes=usage.free, total_bytes=usage.total)

    def standing(self) -> StoreSnapshot:
        """State of the store now.

        Raises
        ------
        StoreError
            If the database cannot be used.
        """
        store = self.store
        return StoreSnapshot(
            census=store.census.take(),
            destinations=store.census.destinations(),
            workers=store.workers.list(),
            parts=store.parts.list(),
        )

    def alerts(self, checks: Sequence[Check], standing: StoreSnapshot | None) -> Sequence[Alert]:
        """Alerts, the urgent first.

        Parameters
        ----------
        standing : None where the database does not answer.
        """
        disk = self.disk()
        return alerts(
            Surroundings(
                checks=checks,
                free_bytes=None if disk is None else disk.free_bytes,
                certificate_ends=self.certificate_ends(),
            ),
            standing,
            self.settings.alerts,
            datetime.now(UTC),
        )


# Written by the report step. Names given by a browser are looked up here and go no further.
PICTURES: Mapping[str, str] = {
    "nomogram.png": "Nomogram or refusal",
    "overlay.png": "Region of interest on the images",
    "calibration.png": "Calibration: rods, line and image",
}
_REGIONS = {RegionKind.CORE: "cancellous core", RegionKind.ELLIPSE: "mid-body ellipse"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestResult:
    """The result of the latest generation that has one.

    Attributes
    ----------
    result : without identity; None where it is gone, altered, or of another shape.
    pictures : of `PICTURES`, those that this generation has.
    """

    generation: int
    result: ResultDocument | None
    pictures: tuple[str, ...]

    @property
    def findings(self) -> list[FindingEntry]:
        """Findings, the most serious first."""
        return gravest_first(self.result.findings) if self.result else []

    @property
    def region(self) -> str | None:
        """Region in which the levels' densities are read, in words."""
        region = self.result.region if self.result else None
        return None if region is None else _REGIONS[region]


def latest_result(store: Store, detail: StudyDetail) -> LatestResult | None:
    """Result of the latest generation that has one.

    Returns
    -------
    None before the first report.

    Raises
    ------
    StoreUnavailable
        If the database cannot be used.
    """
    kept = [row for row in detail.artefacts if row.removed_at is None]
    generations = [row.generation for row in kept if row.name == RESULT]
    if not generations:
        return None
    generation = max(generations)
    names = {row.name for row in kept if row.generation == generation}
    return LatestResult(
        generation=generation,
        result=_read(store, detail.summary.study_instance_uid, generation),
        pictures=tuple(name for name in PICTURES if name in names),
    )


def _read(store: Store, study_instance_uid: str, generation: int) -> ResultDocument | None:
    try:
        return read_result(store.artefacts.get(study_instance_uid, generation, RESULT)).without_identity()
    except (NoSuchArtefact, ValidationError):
        return None


def latest_picture(store: Store, study_instance_uid: str, name: str) -> bytes:
    """One of `PICTURES`, as PNG, of the generation that `latest_result` shows.

    Raises
    ------
    NoSuchStudy, NoSuchArtefact, StoreUnavailable
    """
    if name not in PICTURES:
        raise NoSuchArtefact("no such picture")
    detail = store.overview.show(study_instance_uid)
    kept = [row for row in detail.artefacts if row.removed_at is None]
    generations = [row.generation for row in kept if row.name == RESULT]
    if not generations:
        raise NoSuchArtefact("no result yet")
    return store.artefacts.get(study_instance_uid, max(generations), name)
