"""Classic CT slices as one multi-frame instance: true Enhanced CT by hand, Legacy Converted by highdicom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian

_OF_THE_INSTANCE = (
    *("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
    *("StudyDescription", "StudyInstanceUID", "StudyID", "PatientName", "PatientID", "IssuerOfPatientID"),
    *("PatientBirthDate", "PatientSex", "PatientAge", "SeriesDate", "SeriesTime", "SeriesDescription"),
    *("ContentDate", "ContentTime", "FrameOfReferenceUID", "PositionReferenceIndicator", "Modality"),
    *("SeriesNumber", "ProtocolName", "PatientPosition", "Manufacturer", "ManufacturerModelName"),
    *("DeviceSerialNumber", "SoftwareVersions", "SamplesPerPixel", "PhotometricInterpretation"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


def shuffled(paths: Iterable[Path], seed: int = 5) -> list[Dataset]:
    """The slices in an order that says nothing."""
    slices = [dcmread(path) for path in sorted(paths)]
    return [slices[place] for place in np.random.default_rng(seed).permutation(len(slices))]


def enhanced_ct(slices: Sequence[Dataset], uid: str = "2.25.881", series_uid: str = "2.25.882") -> Dataset:
    """An Enhanced CT Image whose frame n is slice n, as a scanner writes it (PS3.3 A.38)."""
    first = slices[0]
    ct = Dataset()
    for keyword in _OF_THE_INSTANCE:
        if keyword in first:
            ct[keyword] = first[keyword]
    ct.SOPClassUID, ct.SOPInstanceUID, ct.SeriesInstanceUID = EnhancedCTImageStorage, uid, series_uid
    ct.InstanceNumber = 1
    ct.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ct.AcquisitionDateTime = f"{first.AcquisitionDate}{first.AcquisitionTime}+0100"
    ct.AcquisitionDuration = 4.0
    ct.AcquisitionNumber = 1
    ct.ContentQualification, ct.BurnedInAnnotation, ct.PresentationLUTShape = "PRODUCT", "NO", "IDENTITY"
    ct.LossyImageCompression = "00"
    ct.VolumetricProperties, ct.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    ct.PixelPresentation = "MONOCHROME"
    ct.AcquisitionContextSequence = []
    ct.NumberOfFrames = len(slices)
    _dimensions(ct)
    depths = np.argsort(np.argsort([float(one.ImagePositionPatient[2]) for one in slices])) + 1
    ct.SharedFunctionalGroupsSequence = [_shared(first)]
    ct.PerFrameFunctionalGroupsSequence = [
        _own(one, int(depth), ct.AcquisitionDateTime) for one, depth in zip(slices, depths, strict=True)
    ]
    ct.PixelData = b"".join(one.PixelData for one in slices)
    return ct


def legacy_ct(slices: Sequence[Dataset], uid: str = "2.25.883", series_uid: str = "2.25.884") -> Dataset:
    """The slices as an archive's converter writes them (PS3.3 A.70)."""
    for one in slices:
        one.PatientOrientation = []
    return LegacyConvertedEnhancedCTImage(
        legacy_datasets=list(slices),
        series_instance_uid=series_uid,
        series_number=3,
        sop_instance_uid=uid,
        instance_number=1,
    )


def write(path: Path, dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = "2.25.885"
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def edited(ct: Dataset, edit: Callable[[int, Dataset], None]) -> Dataset:
    """The same object after `edit(number, groups)` of each frame, from 1."""
    for number, groups in enumerate(ct.PerFrameFunctionalGroupsSequence, start=1):
        edit(number, groups)
    return ct


def _dimensions(ct: Dataset) -> None:
    organisation = "2.25.886"
    ct.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organisation)]
    ct.DimensionIndexSequence = [
        item(
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
            DimensionOrganizationUID=organisation,
        )
        for pointer in (0x00209056, 0x00209057)  # Stack ID, In-Stack Position Number
    ]


def _shared(first: Dataset) -> Dataset:
    anatomy = item(CodeValue="122496007", CodingSchemeDesignator="SCT", CodeMeaning="Lumbar spine")
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=first.ImageOrientationPatient)],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[anatomy])],
        CTImageFrameTypeSequence=[
            item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        CTAcquisitionTypeSequence=[
            item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
        ],
        CTAcquisitionDetailsSequence=[
            item(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=1.0,
                TotalCollimationWidth=16.0,
                TableHeight=float(first.TableHeight),
                GantryDetectorTilt=float(first.GantryDetectorTilt),
                DataCollectionDiameter=500.0,
            )
        ],
        IrradiationEventIdentificationSequence=[item(IrradiationEventUID="2.25.887")],
        CTTableDynamicsSequence=[item(TableSpeed=20.0, TableFeedPerRotation=10.0, SpiralPitchFactor=0.9)],
        CTGeometrySequence=[
            item(DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=600.0)
        ],
        CTReconstructionSequence=[
            item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel=first.ConvolutionKernel,
                ConvolutionKernelGroup="SOFT_TISSUE",
                ReconstructionDiameter=float(first.ReconstructionDiameter),
                ReconstructionPixelSpacing=[float(step) for step in first.PixelSpacing],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTXRayDetailsSequence=[item(KVP=first.KVP, FocalSpots=[1.0], FilterType="NONE")],
        FrameVOILUTSequence=[item(WindowCenter="300", WindowWidth="1200")],
    )


def _centre(one: Dataset) -> list[float]:
    x, y, z = (float(value) for value in one.ImagePositionPatient)
    return [x + one.PixelSpacing[1] * one.Columns / 2, y + one.PixelSpacing[0] * one.Rows / 2, z]


def _own(one: Dataset, depth: int, moment: str) -> Dataset:
    """What is told of each frame; the rescale, too, which may differ between frames."""
    return item(
        FrameContentSequence=[
            item(
                FrameAcquisitionDateTime=moment,
                FrameReferenceDateTime=moment,
                FrameAcquisitionDuration=500.0,
                FrameAcquisitionNumber=1,
                StackID="1",
                InStackPositionNumber=depth,
                DimensionIndexValues=[1, depth],
            )
        ],
        PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
        PixelValueTransformationSequence=[
            item(RescaleIntercept=one.RescaleIntercept, RescaleSlope=one.RescaleSlope, RescaleType="HU")
        ],
        CTPositionSequence=[
            item(
                TablePosition=float(one.ImagePositionPatient[2]),
                DataCollectionCenterPatient=_centre(one),
                ReconstructionTargetCenterPatient=_centre(one),
            )
        ],
        CTExposureSequence=[
            item(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=200.0,
                ExposureInmAs=100.0,
                ExposureModulationType="NONE",
                CTDIvol=8.0,
            )
        ],
    )
