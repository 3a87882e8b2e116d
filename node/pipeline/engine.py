"""Which segmentation engine a node uses: settled once, at start, and named in every result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from config.settings import SegmentationSettings
from node.dicom.mask import is_dicom_file, read_mask
from node.pipeline.study_mask import StudyMask
from segmentation.engines import Segmenter
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.engines.nnunet import Compute, NnunetEngine
from segmentation.engines.totalsegmentator import TotalSegmentatorEngine
from segmentation.engines.totalsegmentator_weights import Mode, unavailable
from segmentation.errors import EngineUnavailable

Settled: TypeAlias = Segmenter | StudyMask  # the latter finds its mask in each study


def settle_engine(settings: SegmentationSettings, mask: Path | None = None) -> Settled:
    """The engine that the configuration names. No network is loaded yet.

    Parameters
    ----------
    mask : a NIfTI or DICOM segmentation drawn elsewhere; with it, "auto" means the mask engine.

    Raises
    ------
    EngineUnavailable
        If the engine lacks what it needs, or a mask is given to another engine than the mask engine.
    MaskUnreadable
        If the mask is no three-dimensional label image.
    """
    name: str = settings.engine
    if name == "auto":
        name = "mask" if mask is not None else settle_auto(settings)
    if name == "mask":
        return _mask(settings, mask)
    if mask is not None:
        raise EngineUnavailable(name, "it draws its own mask; use --engine mask or leave --engine out")
    return _ENGINES[name](settings)


def settle_auto(settings: SegmentationSettings) -> str:
    """TotalSegmentator where its extra and the weights of its mode are there, else the model-free engine."""
    reason = unavailable(settings.weights, Mode(settings.totalsegmentator_mode))
    return "totalsegmentator" if reason is None else "geometric"


def _mask(settings: SegmentationSettings, mask: Path | None) -> Settled:
    if mask is None and not settings.mask_from:
        raise EngineUnavailable(
            "mask",
            "segmentation.mask_from must say whose segmentations count, or process --mask FILE name one",
        )
    if mask is None or is_dicom_file(mask):
        return StudyMask(
            origin={str(key): pattern for key, pattern in settings.mask_from.items()},
            labels=dict(settings.mask_segments),
            file=mask,
            identity=settings.identity,
            canal=settings.geometric.canal,
        )
    labels, grid = read_mask(mask)
    # Named by content: a file name may hold a patient's name.
    source = {"source": f"sha256:{hashlib.sha256(mask.read_bytes()).hexdigest()}"}
    drawn = LabelImage(labels=labels, grid=grid)
    return MaskEngine(
        drawn,
        Convention(settings.mask_labels),
        file_name=mask.name,
        source=source,
        identity=settings.identity,
        canal=settings.geometric.canal,
        vouched=True,
    )


def _geometric(settings: SegmentationSettings) -> Segmenter:
    return GeometricEngine(settings.geometric, settings.identity)


def _totalsegmentator(settings: SegmentationSettings) -> Segmenter:
    return TotalSegmentatorEngine(
        settings.weights,
        Mode(settings.totalsegmentator_mode),
        _compute(settings),
        settings.identity,
        settings.geometric.canal,
    )


def _nnunet(settings: SegmentationSettings) -> Segmenter:
    if not settings.nnunet_model:
        raise EngineUnavailable("nnunet", "segmentation.nnunet_model names no folder")
    return NnunetEngine(
        Path(settings.nnunet_model),
        settings.nnunet_levels,
        _compute(settings),
        orientation=settings.nnunet_orientation,
        identity=settings.identity,
        canal=settings.geometric.canal,
    )


def _compute(settings: SegmentationSettings) -> Compute:
    return Compute(device=settings.device, threads=settings.threads, mixed_precision=settings.mixed_precision)


_ENGINES: Mapping[str, Callable[[SegmentationSettings], Segmenter]] = {
    "geometric": _geometric,
    "totalsegmentator": _totalsegmentator,
    "nnunet": _nnunet,
}
