"""What can go wrong in the DICOM room."""

from __future__ import annotations

from enum import StrEnum


class DicomError(Exception):
    """Base of every error that this room raises."""


class Unusable(StrEnum):
    """Why a series cannot become a volume."""

    NO_SLICES = "no slices"
    SINGLE_SLICE = "single slice"
    DUPLICATE_POSITIONS = "duplicate slice positions"
    SEVERAL_PASSES = "several passes in one series"
    SLICE_GAP = "missing slices"
    SPACING_VARIES = "slice spacing varies"
    ORIENTATION_VARIES = "slice orientation varies"
    SIZE_VARIES = "matrix or pixel spacing varies"
    GANTRY_TILT = "gantry tilt"
    OFF_LINE = "slices shifted against one another"
    GEOMETRY_MISSING = "geometry missing"
    RESCALE_MISSING = "rescale to Hounsfield units missing"
    TECHNIQUE_VARIES = "technique varies between slices"
    ENERGY_UNSUITED = "at the image's energy the limits for rods, slope and vertebrae do not hold"
    MATERIAL_IMAGE = "material was taken out of the image, or is shown by itself"
    NOT_GREYSCALE = "not a single-frame greyscale image"
    UNDECODABLE = "pixels cannot be decoded"
    DAMAGED = "the header of an image is damaged"
    TOO_LARGE = "larger than the limits of this node"


class SeriesUnusable(DicomError):
    """A CT series whose geometry or pixels cannot be trusted.

    Attributes
    ----------
    reason : the kind of problem.
    detail : particulars, free of patient data.
    slices : how many slices the series has.
    """

    def __init__(self, reason: Unusable, detail: str, *, slices: int) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
        self.slices = slices


class MaskUnreadable(DicomError):
    """A mask file that is no three-dimensional label image."""


class SegProblem(StrEnum):
    """Why a Segmentation object cannot serve as the mask of a series."""

    SEVERAL = "several match, and which one counts is not told"
    OTHER_SERIES = "it was drawn on another series"
    FRAME_OF_REFERENCE = "its frame of reference is not the series'"
    OWN = "this node made it"
    NOT_A_SEGMENTATION = "it is no DICOM segmentation"
    NO_LEVEL = "none of its segments is coded or configured as a vertebra"
    OVERLAP = "its segments of different vertebrae overlap"
    GEOMETRY = "its frames do not lie on one regular grid"
    DAMAGED = "it cannot be decoded"


class SegUnusable(DicomError):
    """A Segmentation object that cannot serve as the mask of the chosen series.

    Attributes
    ----------
    reason : the kind of problem.
    detail : particulars, free of patient data.
    """

    def __init__(self, reason: SegProblem, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class IdentityMissing(DicomError):
    """A DICOM object was asked for where the source has no Study Instance UID."""


class SegmentationMismatch(DicomError):
    """A SEG that, decoded again, does not hold the mask it was made from."""


class ObjectInvalid(DicomError):
    """A finished object breaks a rule; it must not leave the node.

    Attributes
    ----------
    violations : one line for each broken rule.
    """

    def __init__(self, violations: tuple[str, ...]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations
