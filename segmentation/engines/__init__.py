"""Segmentation engines: one module or package each, behind one protocol.

No engine replaces another at run time: a node resolves its engine once, at start.
"""

from __future__ import annotations

from typing import Protocol

from segmentation.ct_volume import CtVolume
from segmentation.vertebrae import EngineInfo, Vertebrae


class Segmenter(Protocol):
    """Finds and names the vertebrae of a CT volume."""

    @property
    def info(self) -> EngineInfo: ...

    def segment(self, volume: CtVolume) -> Vertebrae:
        """Label the vertebral bodies of `volume`, on its own grid and in any orientation.

        An image without a lumbar vertebra is not an error: it gives no levels, and an observation.

        Raises
        ------
        EngineUnavailable
            If the engine lacks what it needs to run.
        """
        ...
