"""The segmentation engine of a node: resolved once, at start, and named in every result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from config.sections import SegmentationSettings
from node.dicom.ct.reading import LoadedSeries
from node.dicom.errors import SegProblem, SegUnusable
from node.dicom.seg.vertebra_masks import (
    SegMask,
    is_dicom_file,
    read_mask,
    read_segmentation,
    segmentations_among,
)
from segmentation.engines import Segmenter
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.mask import Convention, LabelImage, MaskEngine, mask_info
from segmentation.engines.nnunet import Compute, NnunetEngine
from segmentation.engines.totalsegmentator import TotalSegmentatorEngine
from segmentation.engines.totalsegmentator_weights import Mode, missing_requirements
from segmentation.errors import EngineUnavailable, GridMismatch, MaskNotUsable
from segmentation.phrase import Phrase
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, EngineInfo, Observation, Vertebrae, no_vertebrae

_CONVENTION = {"convention": "dicom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMask:
    """Mask engine for DICOM segmentations: the mask is read when a study is at hand.

    If a segmentation cannot be used, that becomes an observation and a refusal report: it is part of the
    study, and the study's sender should learn of it.

    Attributes
    ----------
    origin : which segmentations of a study count; see `segmentations_among`.
    labels : level by SegmentLabel, for segments without a code.
    file : the segmentation that the operator named; then no segmentation of the study counts.
    """

    origin: Mapping[str, str]
    labels: Mapping[str, str]
    file: Path | None
    identity: IdentitySettings
    canal: CanalSettings

    @property
    def info(self) -> EngineInfo:
        return mask_info(_CONVENTION)

    def segment_study(self, instances: Sequence[Path], series: LoadedSeries) -> Vertebrae:
        """Vertebrae of the segmentation that was drawn on `series`.

        Parameters
        ----------
        instances : the study's files.
        series : the series that is measured.

        Returns
        -------
        No vertebrae, and an observation with the reason, where no segmentation can be used.
        """
        try:
            found = self._read(instances, series)
            if found is None:
                return no_vertebrae(series.volume, self.info, Observation(code="mask_missing"))
            engine = MaskEngine(
                LabelImage(labels=found.labels, grid=found.grid),
                {value: level for level, value in LABELS.items()},
                source=_provenance(found),
                identity=self.identity,
                canal=self.canal,
                vouched=self.file is not None,
            )
            return engine.segment(series.volume)
        except (GridMismatch, MaskNotUsable) as error:
            return self._refused(series, error.reason)
        except SegUnusable as error:
            return self._refused(series, error.said)

    def _refused(self, series: LoadedSeries, reason: Phrase) -> Vertebrae:
        return no_vertebrae(
            series.volume, self.info, Observation(code="mask_refused", values={"reason": reason})
        )

    def _read(self, instances: Sequence[Path], series: LoadedSeries) -> SegMask | None:
        """None where no segmentation came. Of several, one alone must have been drawn on the series."""
        if self.file is not None:
            return read_segmentation(self.file, series, self.labels)
        candidates = segmentations_among(instances, self.origin)
        usable: list[SegMask] = []
        elsewhere: SegUnusable | None = None
        for path in candidates:
            try:
                usable.append(read_segmentation(path, series, self.labels))
            except SegUnusable as error:
                if error.reason is not SegProblem.OTHER_SERIES:
                    raise
                elsewhere = error
        if len(usable) > 1:
            raise SegUnusable(SegProblem.SEVERAL, f"{len(usable)}")
        if not usable and elsewhere is not None:
            raise elsewhere
        return usable[0] if usable else None


def _provenance(found: SegMask) -> Mapping[str, str]:
    stated = {
        "source": found.sop_instance_uid,
        "manufacturer": found.manufacturer,
        "model": found.model,
    }
    return _CONVENTION | {key: value for key, value in stated.items() if value}


ResolvedEngine: TypeAlias = Segmenter | StudyMask  # the latter finds its mask in each study


def resolve_engine(
    settings: SegmentationSettings, mask: Path | None = None, first_level: str | None = None
) -> ResolvedEngine:
    """The engine that the configuration names. No network is loaded yet.

    Parameters
    ----------
    mask : a NIfTI or DICOM segmentation drawn elsewhere; with it, "auto" means the mask engine.
    first_level : name of the topmost whole lumbar body in view, as a person states it.

    Raises
    ------
    EngineUnavailable
        If the engine lacks what it needs, a mask is given to another engine than the mask engine, or a first
        level to another than the geometric one.
    MaskUnreadable
        If the mask is no three-dimensional label image.
    """
    name: str = settings.engine
    if name == "auto":
        name = "mask" if mask is not None else resolve_auto(settings)
    if first_level is not None and name != "geometric":
        raise EngineUnavailable(name, "it names the levels itself; --first-level needs --engine geometric")
    if name == "mask":
        return _mask(settings, mask)
    if mask is not None:
        raise EngineUnavailable(name, "it draws its own mask; use --engine mask or leave --engine out")
    if name == "geometric":
        return GeometricEngine(settings.geometric, settings.identity, first_level=first_level)
    return _ENGINES[name](settings)


def resolve_auto(settings: SegmentationSettings) -> str:
    """Engine for "auto": "totalsegmentator" if its extra and weights are installed, else "geometric"."""
    reason = missing_requirements(settings.weights, Mode(settings.totalsegmentator_mode))
    return "totalsegmentator" if reason is None else "geometric"


def _mask(settings: SegmentationSettings, mask: Path | None) -> ResolvedEngine:
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
    "totalsegmentator": _totalsegmentator,
    "nnunet": _nnunet,
}
