"""The mask engine where the mask is a DICOM segmentation: it can only be made once a study is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.dicom.errors import SegProblem, SegUnusable
from node.dicom.read import LoadedSeries
from node.dicom.seg_read import SegMask, read_segmentation, segmentations_among
from segmentation.engines.mask import LabelImage, MaskEngine, mask_info
from segmentation.engines.recognised import nothing_found
from segmentation.errors import GridMismatch, MaskNotUsable
from segmentation.observation import Observation
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae

_CONVENTION = {"convention": "dicom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMask:
    """Measures what a segmentation that came along, or one that a person named, says.

    Anything that keeps it from being used is an observation, and so a refusal report: a segmentation is
    part of the study, and the study's sender should hear of it.
    """

    origin: Mapping[str, str]  # which segmentations of a study count, as `segmentations_among` has it
    labels: Mapping[str, str]  # SegmentLabel -> level, for segments without a code
    file: Path | None  # named by a person; then no segmentation of the study counts
    identity: IdentitySettings
    canal: CanalSettings

    @property
    def info(self) -> EngineInfo:
        return mask_info(_CONVENTION)

    def segment_study(self, instances: Sequence[Path], series: LoadedSeries) -> Vertebrae:
        """The vertebrae of the segmentation that was drawn on `series`."""
        try:
            found = self._read(instances, series)
            if found is None:
                return nothing_found(series.volume, self.info, Observation(code="mask_missing"))
            engine = MaskEngine(
                LabelImage(labels=found.labels, grid=found.grid),
                {value: level for level, value in LABELS.items()},
                source=_provenance(found),
                identity=self.identity,
                canal=self.canal,
                vouched=self.file is not None,
            )
            return engine.segment(series.volume)
        except (SegUnusable, GridMismatch, MaskNotUsable) as error:
            refused = Observation(code="mask_refused", values={"reason": str(error)})
            return nothing_found(series.volume, self.info, refused)

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
