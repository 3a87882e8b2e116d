"""What a segmentation says of the images it was drawn on, where those are frames of multi-frame CT.

highdicom takes one multi-frame image or many single ones, and of the first it keeps the frames' own order. A
series may hold several multi-frame instances, with frames in any order: so it is given the frames as
images, each under a name of its own, which then gives way to class, instance and frame number.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import CTImageStorage

from node.dicom.headers import text_of
from node.dicom.identity import without_identity
from node.dicom.read import LoadedSeries
from node.dicom.uids import derived_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    sop_class_uid: str
    sop_instance_uid: str
    number: int  # from 1

    @property
    def stand_in_uid(self) -> str:
        return derived_uid("frame", self.sop_instance_uid, str(self.number))


def frames_as_images(series: LoadedSeries) -> tuple[Dataset, ...]:
    """What highdicom needs of slice k of the volume; a frame goes as a CT image of its own."""
    images = []
    for header, frame in zip(series.headers, _frames(series), strict=True):
        image = without_identity(header)
        if frame is not None:
            image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, frame.stand_in_uid
        images.append(image)
    return tuple(images)


def refer_to_frames(segmentation: Dataset, series: LoadedSeries) -> None:
    """Replace stand-ins by the instance and, where one frame is meant, its number (PS3.3 Table 10-3)."""
    frames = {frame.stand_in_uid: frame for frame in _frames(series) if frame is not None}
    if not frames:
        return
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence") or ():
            for source in derivation.SourceImageSequence:
                if frame := frames.get(source.ReferencedSOPInstanceUID):
                    _name_instance(source, frame)
                    source.ReferencedFrameNumber = frame.number
    for referenced in segmentation.ReferencedSeriesSequence:
        instances: dict[str, Dataset] = {}
        for image in referenced.ReferencedInstanceSequence:
            if frame := frames.get(image.ReferencedSOPInstanceUID):
                _name_instance(image, frame)
            instances.setdefault(image.ReferencedSOPInstanceUID, image)
        referenced.ReferencedInstanceSequence = list(instances.values())


def _frames(series: LoadedSeries) -> tuple[_Frame | None, ...]:
    """The frame that slice k of the volume is; None where it is an instance."""
    return tuple(
        None
        if number is None
        else _Frame(
            sop_class_uid=text_of(header, "SOPClassUID"),
            sop_instance_uid=text_of(header, "SOPInstanceUID"),
            number=number,
        )
        for header, number in zip(series.headers, series.frames, strict=True)
    )


def _name_instance(reference: Dataset, frame: _Frame) -> None:
    reference.ReferencedSOPClassUID = frame.sop_class_uid
    reference.ReferencedSOPInstanceUID = frame.sop_instance_uid
