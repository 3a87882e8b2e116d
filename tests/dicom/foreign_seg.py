"""Segmentations as other software makes them: written by highdicom, then changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

MANUFACTURER, MODEL = "Spine Software Inc.", "Vertebrae 4"
SERIES_DESCRIPTION = "AI vertebrae"


def coded(level: str) -> Code:
    """The vertebra itself as the property type."""
    return codes.SCT.Sacrum if level == "sacrum" else getattr(codes.SCT, f"{level}Vertebra")


def describe(
    number: int, label: str, kind: Code, regions: Sequence[Code] = (), category: Code | None = None
) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category or codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="vertebrae", family=codes.DCM.ArtificialIntelligence, version="4.1"
        ),
        anatomic_regions=list(regions) or None,
    )


def make_seg(
    headers: Sequence[Dataset],
    masks: Mapping[str, np.ndarray],
    *,
    descriptions: Sequence[SegmentDescription] | None = None,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
) -> Segmentation:
    """A segmentation of whole-volume masks; those of a fractional one may hold shares from 0 to 1.

    Parameters
    ----------
    headers : of the source images, one for each slice of the masks.
    masks : by level.
    descriptions : of the segments, in the order of the masks; coded by level if None.
    """
    fractional = kind is SegmentationTypeValues.FRACTIONAL
    stack = np.stack(list(masks.values()), axis=-1)
    made = Segmentation(
        source_images=list(headers),
        pixel_array=stack.astype(np.float32) if fractional else stack.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions
        or [describe(number, f"segment {number}", coded(level)) for number, level in enumerate(masks, 1)],
        series_instance_uid=generate_uid(),
        series_number=77,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions="4.1",
        device_serial_number="7",
        **({"fractional_type": "PROBABILITY", "max_fractional_value": 200} if fractional else {}),
    )
    made.SeriesDescription = SERIES_DESCRIPTION
    return made


def shuffled(seg: Segmentation, seed: int = 3) -> Dataset:
    """The same frames in another order, pixels and functional groups alike."""
    order = np.random.default_rng(seed).permutation(int(seg.NumberOfFrames))
    frames = seg.pixel_array.reshape(int(seg.NumberOfFrames), int(seg.Rows), int(seg.Columns))[order]
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    seg.PerFrameFunctionalGroupsSequence = [groups[place] for place in order]
    if seg.BitsAllocated == 1:
        bits = np.packbits(frames.ravel(), bitorder="little").tobytes()
        seg.PixelData = bits + b"\0" * (len(bits) % 2)
    else:
        content = frames.astype(np.uint8).tobytes()
        seg.PixelData = content + b"\0" * (len(content) % 2)
    return seg


def save(seg: Dataset, path: Path) -> Path:
    seg.save_as(path, enforce_file_format=True)
    return path
