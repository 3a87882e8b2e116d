"""The report as a TID 1500 Comprehensive 3D Structured Report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes as standard
from pydicom.uid import Comprehensive3DSRStorage

from node.dicom import codes
from node.dicom.ct.slice_reading import DrawnSlice
from node.dicom.header_text import number_of, text_of
from node.dicom.result_headers import (
    MANUFACTURER,
    MODEL_NAME,
    REPORT_DESCRIPTION,
    REPORT_SERIES,
    apply_equipment,
    copy_identity,
    device_uid,
    identity_source,
    require_study,
    without_identity,
)
from node.dicom.seg import Segment
from node.dicom.sr.items import (
    CONTAINS,
    coded_property,
    comment,
    evaluation,
    modifier,
    number_item,
    summary_lines,
    text_item,
)
from node.dicom.sr.measurement_groups import patient_groups, region_groups, slice_groups
from node.dicom.uids import derived_uid, mint, series_uid_of, to_bytes
from node.study_report import EncodedObject, ObjectKind, Outcome, Report
from segmentation.vertebrae import is_lumbar

_ACQUISITION = RelationshipTypeValues.HAS_ACQ_CONTEXT


def encode_sr(
    report: Report,
    headers: Sequence[Dataset],
    *,
    seg: EncodedObject | None = None,
    segments: Sequence[Segment] = (),
    slices: Sequence[DrawnSlice] = (),
) -> EncodedObject:
    """The structured report.

    Parameters
    ----------
    headers : of the images that the report rests on (or, in a refusal, that it refuses); at least one.
    seg : the finished segmentation, so that the report names its final UID; None where nothing was measured.
    segments : what `seg` holds.
    slices : single slices, where such were measured in place of a volume.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    """
    dataset = report_document(report, headers, seg=seg, segments=segments, slices=slices)
    mint([dataset], report.issued_at)
    return EncodedObject(
        kind=ObjectKind.STRUCTURED_REPORT,
        file_name="report.dcm",
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        content=to_bytes(dataset),
    )


def report_document(
    report: Report,
    headers: Sequence[Dataset],
    *,
    seg: EncodedObject | None = None,
    segments: Sequence[Segment] = (),
    slices: Sequence[DrawnSlice] = (),
) -> Dataset:
    """The structured report as a data set, whole but for its own UIDs and times; parameters as `encode_sr`.

    Raises
    ------
    IdentityMissing
        If the source has no Study Instance UID.
    """
    require_study(headers[0])
    sources = _instances(headers)
    evidence = [without_identity(header) for header in sources]
    if seg is not None:
        evidence.append(_reference_to(seg))
    content = _document(report, sources, seg, segments, slices)
    # The tree goes in afterwards: highdicom would copy it whole and search it four times for what it
    # references, to make the evidence that `_fill_evidence` makes in order.
    tree = content.ContentSequence
    content.ContentSequence = ContentSequence([])
    dataset = Comprehensive3DSR(
        evidence=evidence[:1],
        content=content,
        series_instance_uid=derived_uid("placeholder"),
        series_number=REPORT_SERIES,
        sop_instance_uid=derived_uid("placeholder"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[codes.private_scheme()],
    )
    dataset.ContentSequence = tree
    _fill_evidence(dataset, evidence)
    if report.predecessor_uid is not None:
        dataset.PredecessorDocumentsSequence = [_predecessor(report, report.predecessor_uid)]
    copy_identity(identity_source(headers), dataset)
    apply_equipment(dataset, report, series_number=REPORT_SERIES, description=REPORT_DESCRIPTION)
    return dataset


def _instances(headers: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Each instance once, in the order given: of multi-frame images there is a header for each frame."""
    first: dict[str, Dataset] = {}
    for header in headers:
        first.setdefault(text_of(header, "SOPInstanceUID"), header)
    return tuple(first.values())


def _document(
    report: Report,
    headers: Sequence[Dataset],
    seg: EncodedObject | None,
    segments: Sequence[Segment],
    slices: Sequence[DrawnSlice],
) -> ContentItem:
    groups = [
        *(region_groups(report, seg, segments) if seg is not None else ()),
        *slice_groups(report, slices),
        *patient_groups(report),
    ]
    observer = ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(report.provenance),
            name=MODEL_NAME,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
            serial_number=report.provenance.configuration_sha256[:16],
        ),
    )
    root = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=groups,
        title=codes.TITLE,
    )[0]
    measured_at = len(root.ContentSequence) - 1
    # Before the library, which names each slice: a reader of text sees the answer first.
    opening = [*(text_item(codes.SUMMARY, line) for line in summary_lines(report)), _image_library(headers)]
    for place, item in enumerate(opening, start=measured_at):
        root.ContentSequence.insert(place, item)
    root.ContentSequence.append(_evaluations(report))
    root.ContinuityOfContent = "SEPARATE"  # else viewers run the lines of the answer into one paragraph
    return root


def _evaluations(report: Report) -> ContainerContentItem:
    """TID 1500's qualitative evaluations: intended use, findings, what is amended."""
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    items = [
        evaluation(codes.INTENDED_USE, codes.RESEARCH_USE_ONLY)[0],
        text_item(codes.COMMENT, _use(report)),
    ]
    items += _finding_items(report)
    if report.amendment_reason:
        items.append(text_item(codes.AMENDMENT_REASON, report.amendment_reason))
    container.ContentSequence = ContentSequence(items)
    return container


def _finding_items(report: Report) -> Iterable[ContentItem]:
    """Each finding as a code, with its level, severity and text."""
    for finding in report.findings:
        details: list[ContentItem] = []
        if finding.level is not None and is_lumbar(finding.level):
            details.append(modifier(codes.FINDING_SITE, codes.level_site(finding.level)))
        details.append(coded_property(codes.SEVERITY, codes.SEVERITIES[finding.severity]))
        details.append(comment(finding.text))
        yield evaluation(codes.FINDING, codes.finding_code(finding.code), details=details)[0]


def _use(report: Report) -> str:
    statement = "Research use only. Preliminary, unverified result of software; not for diagnosis."
    if report.outcome is Outcome.REFUSED:
        return f"{statement} REFUSED: this study was not measured; the findings state the reason."
    return statement


def _image_library(headers: Sequence[Dataset]) -> ContainerContentItem:
    """TID 1600: what all slices share stands once at the group, each slice is named below it."""
    first = headers[0]
    shared: list[ContentItem] = [
        CodeContentItem(
            name=standard.DCM.Modality,
            value=standard.cid29.ComputedTomography,
            relationship_type=_ACQUISITION,
        )
    ]
    if frame := text_of(first, "FrameOfReferenceUID"):
        shared.append(
            UIDRefContentItem(
                name=standard.DCM.FrameOfReferenceUID, value=frame, relationship_type=_ACQUISITION
            )
        )
    for name, keyword, unit in (
        (standard.DCM.PixelDataRows, "Rows", codes.PIXELS),
        (standard.DCM.PixelDataColumns, "Columns", codes.PIXELS),
        (codes.SLICE_THICKNESS, "SliceThickness", codes.MM),
    ):
        if (value := number_of(first, keyword)) is not None:
            shared.append(number_item(name, value, unit, _ACQUISITION))
    images = [
        ImageContentItem(
            name=codes.SOURCE,
            referenced_sop_class_uid=header.SOPClassUID,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            relationship_type=CONTAINS,
        )
        for header in headers
    ]
    group = ContainerContentItem(name=standard.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    group.ContentSequence = ContentSequence([*shared, *images])
    library = ContainerContentItem(
        name=standard.DCM.ImageLibrary, relationship_type=CONTAINS, template_id="1600"
    )
    library.ContentSequence = ContentSequence([group])
    return library


def _reference_to(seg: EncodedObject) -> Dataset:
    """What the evidence says of the finished SEG: its real UIDs."""
    header = dcmread(BytesIO(seg.content), specific_tags=["SeriesInstanceUID", "StudyInstanceUID"])
    reference = without_identity(header)
    reference.SOPClassUID = seg.sop_class_uid
    reference.SOPInstanceUID = seg.sop_instance_uid
    return reference


def _fill_evidence(dataset: Dataset, evidence: Sequence[Dataset]) -> None:
    """Every object the report rests on, by series, in the order given."""
    series: dict[str, list[Dataset]] = defaultdict(list)
    for source in evidence:
        item = Dataset()
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        series[str(source.SeriesInstanceUID)].append(item)
    study = Dataset()
    study.StudyInstanceUID = evidence[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid, items in series.items():
        entry = Dataset()
        entry.SeriesInstanceUID = uid
        entry.ReferencedSOPSequence = items
        study.ReferencedSeriesSequence.append(entry)
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]


def _predecessor(report: Report, uid: str) -> Dataset:
    instance = Dataset()
    instance.ReferencedSOPClassUID = report.predecessor_class_uid or Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = uid
    series = Dataset()
    series.SeriesInstanceUID = series_uid_of([uid])
    series.ReferencedSOPSequence = [instance]
    study = Dataset()
    study.StudyInstanceUID = report.study.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study
