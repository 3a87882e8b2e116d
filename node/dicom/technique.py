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
# Words of ImageType, from its third value on, by which spectral CT marks its images (R: makers' own).
_SPECTRAL_WORDS = re.compile(r"VMI|MONO|DUAL|GSI|SPECTRAL|MULTI|ENERGY|\bDE_|\bDET", re.IGNORECASE)
_RECONSTRUCTION_PRIVATE = (
    (0x0053, "GEHC_CT_ADVAPP_001", (0x40, 0x41, 0x42, 0x43)),  # iterative: annotation, mode, set, level
    (0x01F7, "ELSCINT1", (0x9B,)),  # iDose level
)

SINGLE_ENERGY = "single"


def spectral_filter(header: Dataset) -> str:
    """FilterType and FilterMaterial: tin before the tube is another spectrum at the same tube voltage.

    Enhanced CT says NONE where other images say nothing (PS3.3 C.8.15.3.9).
    """
    kind = text_of(header, "FilterType")
    return f"{'' if kind.upper() == 'NONE' else kind} {text_of(header, 'FilterMaterial')}".strip()


def energy(header: Dataset) -> str:
    """`SINGLE_ENERGY`, or what the header says of a spectral acquisition: "virtual 70 keV", image words."""
    for element in header.iterall():
        if element.keyword == "MonoenergeticEnergyEquivalent" and element.value is not None:
            return f"virtual {float(element.value):g} keV"
    words = " ".join(text_of(header, "ImageType").split()[2:])
    declared = text_of(header, "MultienergyCTAcquisition").upper() == "YES"
    return f"multi-energy {words}".strip() if declared or _SPECTRAL_WORDS.search(words) else SINGLE_ENERGY


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
