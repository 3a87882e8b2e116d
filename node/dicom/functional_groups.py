"""Multi-frame CT as single slices: what the functional groups say of each frame, in the words of a CT image.

Read from PS3.3 A.38 (Enhanced CT Image), A.70 (Legacy Converted Enhanced CT Image), C.7.6.16 (Multi-frame
Functional Groups) and C.8.15.3 (CT functional groups): the rest of the node sees a frame as it sees a slice.
Nothing is taken from the order of the frames.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.tag import Tag

from node.dicom.sequences import drop_non_sequences, items_of

_SHARED = "SharedFunctionalGroupsSequence"
_PER_FRAME = "PerFrameFunctionalGroupsSequence"

# Functional group -> its attributes that a CT image calls the same (PS3.3 C.8.2.1).
_SAME_NAMES = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "RescaleType"),
    "CTImageFrameTypeSequence": ("VolumetricProperties", "VolumeBasedCalculationTechnique"),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt", "TableHeight"),
    "CTReconstructionSequence": ("ConvolutionKernel", "ReconstructionAlgorithm", "ReconstructionDiameter"),
    "CTXRayDetailsSequence": ("KVP", "FilterType", "FilterMaterial"),
}
_CLASSIC_NAMES = (
    *((group, name, name) for group, names in _SAME_NAMES.items() for name in names),
    ("CTImageFrameTypeSequence", "FrameType", "ImageType"),
)
# What is told of a frame where it differs from what is told of all: to tell passes of a scan apart.
_OF_A_PASS = (
    ("FrameContentSequence", "FrameAcquisitionNumber", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIndex"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "TemporalPositionTimeOffset"),
    ("ContrastBolusUsageSequence", "ContrastBolusAgentAdministered", "ContrastBolusAgentAdministered"),
    ("IrradiationEventIdentificationSequence", "IrradiationEventUID", "IrradiationEventUID"),
    *(
        ("CardiacSynchronizationSequence", name, name)
        for name in (
            "NominalPercentageOfCardiacPhase",
            "NominalCardiacTriggerDelayTime",
            "ActualCardiacTriggerDelayTime",
        )
    ),
)
# What a converter could assign to no group (C.7.6.16.2.25 and .26): attributes of the images it came from.
_UNASSIGNED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
_MOMENT = re.compile(r"(\d{8})(\d{6}(?:\.\d{1,6})?)")  # a DT value: date, time and perhaps an offset

_Groups: TypeAlias = Mapping[str, Sequence[Dataset]]  # items of each functional group of a frame


def frame_headers(header: Dataset) -> tuple[Dataset, ...]:
    """One header for each frame of a multi-frame CT, in the order of the file, as a CT image would have it.

    What a group says of one frame comes before what it says of all, and this before what stands outside the
    groups. Where the items of a group differ (two X-ray sources at two voltages), the attribute is absent.

    Returns
    -------
    One data set per frame, without pixels. The groups' own sequences stay in it; elements are shared between
    frames. Empty where the frames are not described one by one: no per-frame groups, another number of
    them than of frames, or bytes that cannot be parsed.
    """
    try:
        own = items_of(header, _PER_FRAME)
        if not own or len(own) != int(header.get("NumberOfFrames") or 0):
            return ()
        shared = _groups(items_of(header, _SHARED))
        base = _outside_groups(header)
        return tuple(_header(base, {**shared, **_groups([one])}) for one in own)
    except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
        return ()


def _groups(items: Iterable[Dataset]) -> dict[str, Sequence[Dataset]]:
    """The functional groups of a frame, or of all; parsed to the last element, so that damage shows here."""
    items = list(items)
    for item in items:
        drop_non_sequences(item)
        deque(item.iterall(), maxlen=0)
    return {
        element.keyword: list(element.value or ())
        for item in items
        for element in item
        if element.VR == "SQ" and element.keyword
    }


def _outside_groups(header: Dataset) -> Dataset:
    """What the instance says of itself; a position there would be that of no frame."""
    base = _copy(header)
    for keyword in (_SHARED, _PER_FRAME, "ImagePositionPatient"):
        if keyword in base:
            del base[keyword]
    return base


def _copy(header: Dataset) -> Dataset:
    copied = Dataset()
    copied.update(header)
    copied.set_original_encoding(*header.original_encoding, header.original_character_set)
    return copied


def _header(base: Dataset, groups: _Groups) -> Dataset:
    flat = _copy(base)
    for item in chain.from_iterable(groups.get(keyword, ()) for keyword in _UNASSIGNED):
        flat.update({element.tag: element for element in item if element.tag not in base})
    for keyword, items in groups.items():
        _set(flat, keyword, items)
    for group, keyword, classic in _CLASSIC_NAMES:
        stated = [item.get(Tag(keyword)) for item in groups.get(group, ())]
        if stated:
            _say(flat, classic, stated)
    for group, keyword, classic in _OF_A_PASS:
        stated = [item.get(Tag(keyword)) for item in groups.get(group, ())]
        if any(one is not None for one in stated):
            _say(flat, classic, stated)
    own, moment = _moments(base, groups)
    # A day and a time that belong together.
    if own is None and flat.get("AcquisitionDate") and flat.get("AcquisitionTime"):
        moment = None
    if told := own or moment:
        _set(flat, "AcquisitionDate", told[1])
        _set(flat, "AcquisitionTime", told[2])
    return flat


def _set(flat: Dataset, keyword: str, value: object) -> None:
    """Set an attribute of one frame: an element that is there is shared with the other frames."""
    if keyword in flat:
        del flat[keyword]
    setattr(flat, keyword, value)


def _say(flat: Dataset, keyword: str, stated: Sequence[DataElement | None]) -> None:
    """Set what all items of a group state; what they do not agree on is not known."""
    first = stated[0]
    if first is not None and all(one is not None and one.value == first.value for one in stated):
        flat[Tag(keyword)] = DataElement(Tag(keyword), first.VR, first.value, validation_mode=IGNORE)
    elif keyword in flat:
        del flat[keyword]


def _moments(base: Dataset, groups: _Groups) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    """Day and time at which the frame, and the whole instance, were acquired; None where that is not told."""
    own = [item.get("FrameAcquisitionDateTime") for item in groups.get("FrameContentSequence", ())]
    return (
        _MOMENT.match(str(next(filter(None, own), None) or "")),
        _MOMENT.match(str(base.get("AcquisitionDateTime") or "")),
    )
