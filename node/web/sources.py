"""What the page is made from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.settings import Settings
from node.store.store import Store
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
    """

    settings: Settings
    store: Store
    engine: str
    probes: Mapping[str, Probe]

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
