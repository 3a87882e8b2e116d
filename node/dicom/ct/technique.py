"""The technique of a CT series by its headers: spectrum and beam filter, reconstruction, time.

The spectrum decides whether and how a series is calibrated: spectral images, photon counting, metal filters
(PS3.3 C.8.2.1 and C.8.2.2, CT and Multi-energy CT Image; C.8.15.3, CT functional groups). What makers write
into ImageType is R. Filter and reconstruction decide whether the phantom of another scan may calibrate a
series. What a header does not state stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydicom import Dataset

from node.dicom.ct.headers import SeriesHeaders
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import items_of, text_of
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, VIRTUAL_KEV, energy_phrase
from segmentation.phrase import phrase

PHOTON_COUNTING = "photon counting"

# Words of ImageType, from its third value on, that mark images of spectral CT (R: makers' own).
_SPECTRAL_WORDS = re.compile(
    r"VMI|MONO(?!CHROME)|DUAL|GSI|SPECTRAL|MULTI|ENERGY|KEV|\bDE_|\bDET|\bMAT_|\bVNC\b|\bVUE\b",
    re.IGNORECASE,
)
# PS3.3 C.8.15.2.1.1.5: material was taken out of the image, changed or given by itself; and makers' names.
_MATERIAL_WORDS = re.compile(
    r"\bMAT_(SPECIFIC|REMOVED|FRACTIONAL|MODIFIED|VALUE_BASED)\b|EFF_ATOMIC_NUM|ELECTRON_DENSITY"
    r"|\bVNC\b|\bVUE\b|VIRTUAL_?NON_?CONTRAST|CALCIUM_?SUPP",
    re.IGNORECASE,
)
_KEV_IN_WORDS = re.compile(
    r"(\d{2,3})[ _]?KEV|(?<![A-Z])(?:MONO|VMI)[A-Z]{0,4}[ _+]*(?:E[ _]?)?(\d{2,3})(?!\d)", re.IGNORECASE
)
_KEV_DESCRIBED = re.compile(r"\b(\d{2,3}) ?KEV\b", re.IGNORECASE)
_VIRTUAL_DESCRIBED = re.compile(r"\bVMI\b|\bMONO(E\b|\+|ENERG|[ _]\d{2,3}\b)", re.IGNORECASE)
_NESTED = (
    "MultienergyCTAcquisitionSequence", "MultienergyCTXRaySourceSequence",
    "MultienergyCTXRayDetectorSequence", "MultienergyCTPathSequence", "MultienergyCTProcessingSequence",
    "MultienergyCTCharacteristicsSequence",
    "CTXRayDetailsSequence",
)  # fmt: skip
_COUNTING_SCANNERS = re.compile(r"\bNAEOTOM\b", re.IGNORECASE)  # R: models that only count photons

# Metals that harden a beam, by the words of FilterType and FilterMaterial. R: which of them scanners have.
SPECTRAL_FILTERS = {
    "TIN": "tin", "SN": "tin", "SILVER": "silver", "AG": "silver", "GOLD": "gold", "AU": "gold",
    "COPPER": "copper", "CU": "copper", "MOLYBDENUM": "molybdenum", "RHODIUM": "rhodium",
    "NIOBIUM": "niobium", "TUNGSTEN": "tungsten", "EUROPIUM": "europium", "LEAD": "lead",
}  # fmt: skip
# Wedges and bow-ties even out the dose and leave the spectrum in the middle of the body as it is: words for
# them, their materials, and makers' names. Numbers and single letters are makers' codes for such filters.
_ORDINARY_WORDS = """
NONE WEDGE BUTTERFLY BOWTIE BOW TIE BODY HEAD FLAT STRIP MULTIPLE SHAPED SMALL MEDIUM LARGE FILTER STANDARD
PEDIATRIC PAEDIATRIC CARDIAC SPINE NEURO ADULT INFANT AIR ABDOMEN LUNG FULL HALF THIN THICK MIXED
ALUMINUM ALUMINIUM AL CARBON GRAPHITE TEFLON PTFE TITANIUM TI BERYLLIUM PLASTIC POLYMER
"""
_ORDINARY_FILTERS = frozenset(_ORDINARY_WORDS.split())
_TIN_DESCRIBED = re.compile(r"\bSN ?(?:80|100|110|120|130|140|150)(?: ?KVP?)?\b", re.IGNORECASE)


def energy_of(header: Dataset) -> str:
    """The energy that an image shows.

    Returns
    -------
    `CONVENTIONAL`, `PHOTON_COUNTING`, "virtual 70 keV", or "multi-energy" with words of ImageType. What
    only the description states, typed by hand, is named as such ("... by its description"): it withholds
    results, and grants none.

    Source: PS3.3 C.8.2.2 (Multi-energy CT Image); makers' words in ImageType are R.
    """
    words = _image_words(header)
    stated = _stated_kev(header)
    if stated is None and (match := _KEV_IN_WORDS.search(words)):
        stated = float(match[1] or match[2])
    described = text_of(header, "SeriesDescription")
    hint = _KEV_DESCRIBED.search(described)
    if stated is None and hint and re.search(r"VMI|MONO(?!CHROME)", words, re.IGNORECASE):
        stated = float(hint[1])
    if stated is not None:
        return f"virtual {stated:g} keV"
    if _counts_photons(header):
        return PHOTON_COUNTING
    declared = text_of(header, "MultienergyCTAcquisition").upper() == "YES"
    if declared or _SPECTRAL_WORDS.search(words):
        return f"multi-energy {words}".strip()
    if hint:
        return f"virtual {float(hint[1]):g} keV by its description"
    return "virtual by its description" if _VIRTUAL_DESCRIBED.search(described) else CONVENTIONAL


def beam_filter_of(header: Dataset) -> str:
    """The metal that hardens the beam before the patient, of all X-ray sources.

    Returns
    -------
    "tin", "gold and tin" and the like; `NO_FILTER` for ordinary filters. "tin by its description" where
    only the description or the protocol's name states it.
    """
    metals = sorted({SPECTRAL_FILTERS[word] for word in _filter_words(header) if word in SPECTRAL_FILTERS})
    if metals:
        return " and ".join(metals)
    described = f"{text_of(header, 'SeriesDescription')} {text_of(header, 'ProtocolName')}"
    return "tin by its description" if _TIN_DESCRIBED.search(described) else NO_FILTER


def spectral_words(text: str) -> str:
    """The words of a description that `energy_of` and `beam_filter_of` use, without the others.

    Returns
    -------
    The words joined by a blank; "" where there are none.
    """
    patterns = (_KEV_DESCRIBED, _VIRTUAL_DESCRIBED, _TIN_DESCRIBED)
    return " ".join(match[0] for pattern in patterns for match in pattern.finditer(text))


def unknown_filter_of(header: Dataset) -> str:
    """FilterType and FilterMaterial where their effect on the spectrum is unknown.

    Returns
    -------
    Both as stated, joined by a blank; "" where every word is an ordinary or a spectral filter.
    """
    words = _filter_words(header)
    if words <= _ORDINARY_FILTERS | set(SPECTRAL_FILTERS):
        return ""
    return " ".join(filter(None, (text_of(header, "FilterType"), text_of(header, "FilterMaterial"))))


def require_one_spectrum(series: SeriesHeaders) -> None:
    """Refuse a series that shows several spectra, or one that cannot be measured.

    Raises
    ------
    SeriesUnusable
        If slices differ in energy or beam filter, show a material instead of attenuation, or a virtual energy
        outside `VIRTUAL_KEV`.
    """
    slices = len(series.instances)
    headers = [instance.header for instance in series.instances]
    for name, read in ((phrase("condition-energy"), energy_of), (phrase("condition-filter"), beam_filter_of)):
        if len({read(header) for header in headers}) > 1:
            raise SeriesUnusable(Unusable.TECHNIQUE_VARIES, name, slices=slices)
    if found := _MATERIAL_WORDS.search(_image_words(headers[0])):
        raise SeriesUnusable(Unusable.MATERIAL_IMAGE, found[0], slices=slices)
    energy = energy_of(headers[0])
    match = re.match(r"virtual (\d+(?:\.\d+)?) keV", energy)
    low, high = VIRTUAL_KEV
    if match and not low <= float(match[1]) <= high:
        detail = phrase("energies-suited", energy=energy_phrase(energy), low=f"{low:g}", high=f"{high:g}")
        raise SeriesUnusable(Unusable.ENERGY_UNSUITED, detail, slices=slices)


def _image_words(header: Dataset) -> str:
    return " ".join(text_of(header, "ImageType").split()[2:])


def _stated_kev(header: Dataset) -> float | None:
    """MonoenergeticEnergyEquivalent, wherever it stands; text with a unit is read as well."""
    for item in _spectral_items(header):
        match = re.match(r"\d+(?:\.\d+)?", text_of(item, "MonoenergeticEnergyEquivalent"))
        if match and float(match[0]) > 0:
            return float(match[0])
    return None


def _counts_photons(header: Dataset) -> bool:
    return bool(_COUNTING_SCANNERS.search(text_of(header, "ManufacturerModelName"))) or any(
        text_of(item, "MultienergyDetectorType").upper() == "PHOTON_COUNTING"
        for item in _spectral_items(header)
    )


def _filter_words(header: Dataset) -> set[str]:
    """Words of every source's filter; numbers and single letters say nothing."""
    texts = [
        text_of(item, keyword)
        for item in _spectral_items(header)
        for keyword in ("FilterType", "FilterMaterial")
    ]
    found = {word for text in texts for word in re.findall(r"[A-Z]{2,}", text.upper())}
    return (found - {"AUSN", "SNAU"}) | ({"AU", "SN"} if found & {"AUSN", "SNAU"} else set())


def _spectral_items(header: Dataset) -> Iterator[Dataset]:
    """The header and the nested items on sources, detectors, paths and images of several energies."""
    yield header
    for keyword in _NESTED:
        if keyword in header:
            for item in items_of(header, keyword):
                yield from _spectral_items(item)


_TIME = re.compile(r"\d{6}(\.\d{1,6})?")
# The strength of an iterative reconstruction: Siemens writes it beside the kernel, GE and Philips in private
# elements, named as in pydicom's dictionary.
_RECONSTRUCTION_PRIVATE = (
    (0x0053, "GEHC_CT_ADVAPP_001", (0x40, 0x41, 0x42, 0x43)),  # iterative: annotation, mode, set, level
    (0x01F7, "ELSCINT1", (0x9B,)),  # iDose level
)


def spectral_filter(header: Dataset) -> str:
    """FilterType and FilterMaterial as stated, to compare two scans: even ordinary filters must be the same.

    Enhanced CT states NONE where other images state nothing (PS3.3 C.8.15.3.9): both give "".
    """
    kind = text_of(header, "FilterType")
    return f"{'' if kind.upper() == 'NONE' else kind} {text_of(header, 'FilterMaterial')}".strip()


def reconstruction(header: Dataset) -> str:
    """The reconstruction as stated, to compare two scans.

    Returns
    -------
    ReconstructionAlgorithm and, where a maker states it, kind and strength of an iterative one; joined by a
    blank, "" where nothing is stated.
    """
    parts = [text_of(header, "ReconstructionAlgorithm")]
    for group, creator, elements in _RECONSTRUCTION_PRIVATE:
        try:
            block = header.private_block(group, creator)
        except KeyError:
            continue
        parts += [_private_text(block[element].value) for element in elements if element in block]
    return " ".join(part for part in parts if part)


def acquisition_time(header: Dataset) -> str:
    """AcquisitionTime as HHMMSS with or without a fraction.

    Returns
    -------
    "" where it is absent or no time.
    """
    found = text_of(header, "AcquisitionTime")
    return found if _TIME.fullmatch(found) else ""


def _private_text(value: Any) -> str:
    """A private value as text; of unknown VR it comes as bytes."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")
