"""What the page is made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from config.settings import Settings
from node.store.store import Store
from node.web.alerts import Alert, Standing, Surroundings, alerts
from node.web.readiness import Check, Probe, try_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system under the storage root."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Bound by node.wiring.

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
        """Every part that a study needs, in the order of `probes`; the engine last."""
        return (*try_all(self.probes), Check(name="engine", ok=True, detail=self.engine))

    def disk(self) -> Disk | None:
        """None where the storage root cannot be looked at."""
        try:
            usage = shutil.disk_usage(self.store.files.root)
        except OSError:
            return None
        return Disk(free_bytes=usage.free, total_bytes=usage.total)

    def standing(self) -> Standing:
        """What the store says now. Raises StoreError."""
        store = self.store
        return Standing(
            census=store.census.take(),
            destinations=store.census.destinations(),
            workers=store.workers.list(),
            parts=store.parts.list(),
        )

    def alerts(self, checks: Sequence[Check], standing: Standing | None) -> Sequence[Alert]:
        """What needs a person. `standing` is None where the database does not answer."""
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
