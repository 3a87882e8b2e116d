"""Which segmentation engine a node uses: settled once, at start, and named in every result."""

from __future__ import annotations

import hashlib
from pathlib import Path

from config.settings import SegmentationSettings
from node.dicom.mask import read_mask
from segmentation.engines import Segmenter
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.errors import EngineUnavailable


def settle_engine(settings: SegmentationSettings, mask: Path | None = None) -> Segmenter:
    """The engine that the configuration names.

    Parameters
    ----------
    mask : a NIfTI drawn elsewhere; with it, "auto" means the mask engine.

    Raises
    ------
    EngineUnavailable
        If a mask is given to another engine, or the mask engine is given none.
    MaskUnreadable
        If the mask is no three-dimensional label image.
    """
    name = settings.engine
    if name == "auto":
        name = "mask" if mask is not None else "geometric"
    if name == "mask":
        if mask is None:
            raise EngineUnavailable("mask", "it needs a mask: osteonode process --mask FILE")
        labels, grid = read_mask(mask)
        # Named by content: a file name may hold a patient's name.
        source = f"sha256:{hashlib.sha256(mask.read_bytes()).hexdigest()}"
        drawn = LabelImage(labels=labels, grid=grid)
        return MaskEngine(drawn, Convention(settings.mask_labels), source=source)
    if mask is not None:
        raise EngineUnavailable(name, "it draws its own mask; use --engine mask or leave --engine out")
    return GeometricEngine()
