"""How a series was made, as its headers tell: what decides whether another scan's phantom may calibrate it.

What a header does not say stays empty. Makers write the strength of an iterative reconstruction in different
places: Siemens beside the kernel, GE and Philips in private elements, named as in pydicom's dictionary.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom import Dataset

from node.dicom.headers import text_of

_TIME = re.compile(r"\d{6}(\.\d{1,6})?")
_RECONSTRUCTION_PRIVATE = (
    (0x0053, "GEHC_CT_ADVAPP_001", (0x40, 0x41, 0x42, 0x43)),  # iterative: annotation, mode, set, level
    (0x01F7, "ELSCINT1", (0x9B,)),  # iDose level
)


def spectral_filter(header: Dataset) -> str:
    """FilterType and FilterMaterial as stated: of two scans to be alike even ordinary ones must be the same.

    Enhanced CT says NONE where other images say nothing (PS3.3 C.8.15.3.9).
    """
    kind = text_of(header, "FilterType")
    return f"{'' if kind.upper() == 'NONE' else kind} {text_of(header, 'FilterMaterial')}".strip()


def reconstruction(header: Dataset) -> str:
    """ReconstructionAlgorithm and, where a maker states it, kind and strength of an iterative one."""
    parts = [text_of(header, "ReconstructionAlgorithm")]
    for group, creator, elements in _RECONSTRUCTION_PRIVATE:
        try:
            block = header.private_block(group, creator)
        except KeyError:
            continue
        parts += [_plain(block[element].value) for element in elements if element in block]
    return " ".join(part for part in parts if part)


def acquisition_time(header: Dataset) -> str:
    """AcquisitionTime as HHMMSS with or without a fraction, "" where it is absent or something else."""
    found = text_of(header, "AcquisitionTime")
    return found if _TIME.fullmatch(found) else ""


def _plain(value: Any) -> str:
    """A private value as text; of unknown VR it comes as bytes."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")
