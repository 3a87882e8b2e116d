"""CT images and segmentations without identity, measurable as before.

After PS3.15 Annex E (Basic Application Level Confidentiality Profile), by lists of attributes that are
kept: an attribute in no list is removed. Numbers, coded values and pixels are kept; text burnt into pixels
is not searched for. docs/operation.md describes it for operators.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag
from pydicom.uid import UID, SegmentationStorage

from node.dicom.ct.contrast_agent import contrast_in_plain_words, route_in_plain_words
from node.dicom.ct.headers import identity_of, is_ct_image, read_headers
from node.dicom.ct.series_choice import derivation_words
from node.dicom.ct.technique import spectral_words
from node.dicom.header_text import text_of
from node.dicom.uids import derived_uid

METHOD = "Osteonode studies export: listed attributes alone are kept"
_CODES_OF_DICOM = "1.2.840.10008."  # SOP classes, transfer syntaxes, well-known frames of reference

# Numbers, counts and coded strings hold no name; of pixels, those of the image alone are kept.
_KEPT_VRS = frozenset({"CS", "DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT"})
_PIXELS = frozenset({"PixelData", "FloatPixelData", "DoubleFloatPixelData"})
_KEPT_TEXTS = frozenset({
    "CodeMeaning", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "ConvolutionKernel",
    "DeviceSerialNumber", "DimensionDescriptionLabel", "FilterType", "LongCodeValue", "Manufacturer",
    "ManufacturerModelName", "RescaleType", "SegmentAlgorithmName", "SegmentLabel", "SoftwareVersions",
    "TimezoneOffsetFromUTC",
})  # fmt: skip
# Date and time of the scan are kept: laboratory values, age and prior scans depend on them.
_KEPT_TIMES = frozenset({
    "AcquisitionDate", "AcquisitionDateTime", "AcquisitionTime", "ContentDate", "ContentTime",
    "ContrastBolusStartTime", "ContrastBolusStopTime", "FrameAcquisitionDateTime", "FrameReferenceDateTime",
    "SeriesDate", "SeriesTime", "StudyDate", "StudyTime",
})  # fmt: skip
_KEPT_SEQUENCES = frozenset({
    "AnatomicRegionModifierSequence", "AnatomicRegionSequence", "CTAcquisitionDetailsSequence",
    "CTAcquisitionTypeSequence", "CTExposureSequence", "CTGeometrySequence", "CTImageFrameTypeSequence",
    "CTPositionSequence", "CTReconstructionSequence", "CTTableDynamicsSequence", "CTXRayDetailsSequence",
    "CardiacSynchronizationSequence", "ContrastBolusAdministrationRouteSequence",
    "ContrastBolusAgentSequence", "ContrastBolusUsageSequence", "ContributingEquipmentSequence",
    "DerivationCodeSequence", "DerivationImageSequence", "DimensionIndexSequence",
    "DimensionOrganizationSequence", "FrameAnatomySequence", "FrameContentSequence", "FrameVOILUTSequence",
    "IrradiationEventIdentificationSequence", "MultienergyCTAcquisitionSequence",
    "MultienergyCTCharacteristicsSequence", "MultienergyCTPathSequence", "MultienergyCTProcessingSequence",
    "MultienergyCTXRayDetectorSequence", "MultienergyCTXRaySourceSequence",
    "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "PlaneOrientationSequence", "PlanePositionSequence", "ProcedureCodeSequence",
    "PurposeOfReferenceCodeSequence", "ReferencedImageSequence", "ReferencedInstanceSequence",
    "ReferencedSeriesSequence", "RequestAttributesSequence", "RequestedProcedureCodeSequence",
    "SegmentIdentificationSequence", "SegmentSequence", "SegmentationAlgorithmIdentificationSequence",
    "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence",
    "SharedFunctionalGroupsSequence", "SourceImageSequence", "TemporalPositionSequence",
    "UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence",
})  # fmt: skip
# Free text that the measurement depends on: what it means is kept, in this software's words.
_IN_PLAIN_WORDS: Mapping[str, Callable[[str], str]] = {
    "ContrastBolusAgent": contrast_in_plain_words,
    "ContrastBolusRoute": route_in_plain_words,
    "DerivationDescription": derivation_words,
    "ProtocolName": spectral_words,
    "SeriesDescription": spectral_words,
}
_QUOTED = frozenset({"ContrastBolusAgent", "ContrastBolusRoute"})  # by findings, up to so many characters
_QUOTED_AT_MOST = 97
_EMPTIED = frozenset(
    {"AccessionNumber", "PatientBirthDate", "ReferringPhysicianName", "StudyID"}
)  # of type 2
# Removed values of these are searched for in everything that is exported; others may be words like "spine".
_IDENTIFYING_VRS = frozenset({"PN", "UI"})
_IDENTIFYING = frozenset({
    "AccessionNumber", "AdmissionID", "InstitutionAddress", "InstitutionName", "IssuerOfPatientID",
    "OtherPatientIDs", "PatientAddress", "PatientBirthDate", "PatientID", "PatientTelephoneNumbers",
    "RequestedProcedureID", "StationName", "StudyID",
})  # fmt: skip
_SHORTEST_SEARCHED = 4  # characters: shorter ones occur by chance in any file
_UID = r"2\.25\.\d{5,}|[0-2](?:\.\d+){5,}"


class IdentityLeft(Exception):
    """A value of the identity would have been exported; the content that holds it must stay here."""


class Deidentification:
    """Removes the identity from the files of one study, alike in all of them, so that references stay valid.

    The replacements follow from a random key that is stored nowhere: nobody can repeat or undo them.
    """

    def __init__(self) -> None:
        self._key = secrets.token_hex(32)
        self._uids: dict[str, str] = {}  # replacements, by what was found
        self._identity: dict[str, str] = {}  # likewise, of other values
        self._descriptions: dict[str, str] = {}  # likewise, of free text that results may quote

    def uid(self, uid: str) -> str:
        """The replacement of a UID.

        Returns
        -------
        A UID under 2.25; the standard's own UIDs (SOP classes, transfer syntaxes) and "" unchanged.
        """
        if not uid or uid.startswith(_CODES_OF_DICOM):
            return uid
        found = self._uids if re.fullmatch(_UID, uid) else self._identity
        found[uid] = derived_uid("deidentified", self._key, uid)
        return found[uid]

    def patient_id(self, patient_id: str) -> str:
        """The replacement of a Patient ID.

        Returns
        -------
        "ANON-" and ten hexadecimal digits; "" where the ID is missing.
        """
        if not patient_id:
            return ""
        digest = hashlib.sha256(f"{self._key}{patient_id}".encode()).hexdigest()
        self._identity[patient_id] = f"ANON-{digest[:10].upper()}"
        return self._identity[patient_id]

    def rename(self, names: Mapping[str, str]) -> None:
        """Replace other names of a site, of its archives for one, in texts.

        Parameters
        ----------
        names : replacement by name.
        """
        self._descriptions |= names

    def image(self, path: Path) -> bytes | None:
        """A CT image or segmentation without identity, its pixels unchanged.

        Returns
        -------
        bytes or None
            A DICOM file (PS3.10). None for any other object, and for a file that cannot be read.

        Raises
        ------
        IdentityLeft
            If a value of the identity is still in what would be exported.
        """
        found = next(iter(read_headers([path])), None)
        if found is None or found.damaged:
            return None
        if not is_ct_image(found) and found.sop_class_uid != SegmentationStorage:
            return None
        dataset = dcmread(path)
        age_years = identity_of(found.header).age_years
        self._clean(dataset)
        dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: one encoding to search for what must not stay
        dataset.PatientName = "ANONYMOUS"
        dataset.PatientID = self.patient_id(text_of(found.header, "PatientID"))
        if age_years is not None:
            dataset.PatientAge = f"{age_years:03d}Y"
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = METHOD
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(found.transfer_syntax_uid)
        dataset.file_meta.MediaStorageSOPClassUID = UID(found.sop_class_uid)
        instance_uid = text_of(dataset, "SOPInstanceUID") or derived_uid(self._key, path.name)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance_uid)
        dataset.preamble = bytes(128)
        content = _bytes_of(dataset)
        for keyword in _PIXELS & set(dataset.dir()):
            delattr(dataset, keyword)
        self.require_no_identity(_bytes_of(dataset))
        return content

    def values(self, content: Any) -> Any:
        """JSON values without UIDs and identity: in their texts, everything seen so far is replaced.

        Parameters
        ----------
        content : text, list, dictionary or any other JSON value; the last is returned as it is.
        """
        match content:
            case str():
                return self.text(content)
            case list():
                return [self.values(one) for one in content]
            case dict():
                return {self.text(key): self.values(one) for key, one in content.items()}
        return content

    def text(self, text: str) -> str:
        """One text without UIDs and identity, as `values`."""
        known = self._identity | self._descriptions
        return re.sub(
            f"{_whole(self._searched(known))}|{_whole_pattern(_UID)}",
            lambda match: known[match[0]] if match[0] in known else self.uid(match[0]),
            text,
        )

    def require_no_identity(self, content: bytes) -> None:
        """Refuse content in which a value of the identity is left.

        Parameters
        ----------
        content : a file, without pixels.

        Raises
        ------
        IdentityLeft
            If a UID, or a value of at least four characters, that was replaced or removed is found in it.
        """
        text = content.decode("utf-8", "replace")
        uids = set(re.findall(_whole_pattern(_UID), text)) & self._uids.keys()
        if uids or re.search(_whole(self._searched(self._identity)), text):
            raise IdentityLeft("a value of the identity would be left in the export")

    @staticmethod
    def _searched(known: Mapping[str, str]) -> list[str]:
        """Values that are long enough to be searched for, the longest first."""
        return sorted((old for old in known if len(old) >= _SHORTEST_SEARCHED), key=len, reverse=True)

    def _clean(self, dataset: Dataset) -> None:
        dataset.remove_private_tags()
        for tag in list(dataset.keys()):
            try:
                self._clean_element(dataset, dataset[tag])
            except Exception:  # noqa: BLE001 - pydicom raises whatever broken bytes lead to
                dataset.pop(tag, None)

    def _clean_element(self, dataset: Dataset, element: DataElement) -> None:
        keyword = keyword_for_tag(element.tag)
        if element.VR == "SQ":
            if keyword not in _KEPT_SEQUENCES or not isinstance(element.value, Items):
                self._forget(dataset, element)
                return
            for item in element.value:
                self._clean(item)
        elif element.VR == "UI":
            element.value = _each(element.value, self.uid)
        elif keyword in _IN_PLAIN_WORDS:
            self._replace_text(dataset, element.tag, _IN_PLAIN_WORDS[keyword])
        elif not _stays(element, keyword):
            self._forget(dataset, element)

    def _replace_text(self, dataset: Dataset, tag: BaseTag, in_plain_words: Callable[[str], str]) -> None:
        text = str(dataset[tag].value or "").strip()
        plainly = in_plain_words(text)
        if text != plainly and keyword_for_tag(tag) in _QUOTED:
            self._descriptions |= {text: plainly, text[:_QUOTED_AT_MOST]: plainly}
        if plainly:
            dataset[tag].value = plainly
        else:
            del dataset[tag]

    def _forget(self, dataset: Dataset, element: DataElement) -> None:
        """Remove an element, and remember the values of identity in it and its items."""
        self._remember(element)
        if keyword_for_tag(element.tag) in _EMPTIED:
            element.value = ""
        else:
            del dataset[element.tag]

    def _remember(self, element: DataElement) -> None:
        if element.VR == "SQ":
            for item in element.value or ():
                for inner in item:
                    self._remember(inner)
            return
        keyword = keyword_for_tag(element.tag)
        if element.VR not in _IDENTIFYING_VRS and keyword not in _IDENTIFYING:
            return
        for value in _values(element.value):
            if element.VR == "UI":
                self.uid(value)
            elif value:
                self._identity.setdefault(value, "")
                if element.VR == "DA":
                    self._identity.setdefault(f"{value[:4]}-{value[4:6]}-{value[6:]}", "")  # as in JSON


_OVERLAYS_AND_CURVES = frozenset({*range(0x5000, 0x5100, 2), *range(0x6000, 0x6100, 2)})


def _stays(element: DataElement, keyword: str) -> bool:
    if element.tag.group in _OVERLAYS_AND_CURVES:
        return False
    return element.VR in _KEPT_VRS or keyword in _PIXELS or keyword in _KEPT_TEXTS or keyword in _KEPT_TIMES


def _values(value: object) -> Iterator[str]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        yield str(value or "").strip()
    else:
        yield from (str(one).strip() for one in value)


def _each(value: object, of_one: Callable[[str], str]) -> object:
    if isinstance(value, str) or value is None:
        return of_one(str(value or ""))
    return [of_one(str(one)) for one in value] if hasattr(value, "__iter__") else value


def _whole(texts: list[str]) -> str:
    """A pattern of any of these texts, where none is part of a longer word or number."""
    return _whole_pattern("|".join(map(re.escape, texts))) if texts else r"(?!)"


def _whole_pattern(pattern: str) -> str:
    return rf"(?<![\w.])(?:{pattern})(?![\w.]*\w)"


def _bytes_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
