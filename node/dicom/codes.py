"""Every coded concept of a report, and the algorithms that it names. A code is chosen here and nowhere else.

Standard codes are from PS3.16 (DCM), SNOMED CT (SCT), LOINC (LN), UCUM and the IBSI reference manual. What
has no standard code is coded in the node's own scheme, declared in each object that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from highdicom import AlgorithmIdentificationSequence
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.seg import SegmentAlgorithmTypeValues
from highdicom.sr import AlgorithmIdentification
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from config.findings import Severity
from node.dicom.header_text import to_ascii
from node.dicom.result_headers import MANUFACTURER
from node.study_report import Provenance
from scoring.calibration import Grade, Mineral
from scoring.density.bmd import DensityCategory, StudyClass
from segmentation.vertebrae import EngineInfo, RegionKind, is_unnamed

PRIVATE = "99OSTEO"
PRIVATE_SCHEME_UID = "2.25.111961928577470750042000775698053643762"
_CODE_VALUE_LENGTH = 16  # SH
_CODE_MEANING_LENGTH = 64  # LO


def private(value: str, meaning: str) -> Code:
    """A concept of the node's own coding scheme.

    Parameters
    ----------
    value : at most 16 characters (SH).
    meaning : at most 64 characters (LO).
    """
    return Code(value, PRIVATE, meaning)


def private_scheme() -> CodingSchemeIdentificationItem:
    """The declaration of the node's own coding scheme, which each object that uses it holds.

    Source: PS3.3 C.12.1 (Coding Scheme Identification Sequence).
    """
    return CodingSchemeIdentificationItem(
        designator=PRIVATE,
        name="Osteonode concepts for quantitative CT of bone",
        registry="HL7",
        uid=PRIVATE_SCHEME_UID,
        responsible_organization="Osteonode",
    )


def short_code(name: str) -> str:
    """A code value of at most 16 characters for a longer name.

    Returns
    -------
    `name` itself where it fits, else its first nine characters and six hexadecimal digits of its SHA-256.
    """
    if len(name) <= _CODE_VALUE_LENGTH:
        return name
    return f"{name[:9]}-{sha256(name.encode()).hexdigest()[:6]}"


def finding_code(code: str) -> Code:
    """A row of findings.toml as a coded value; its meaning is the row's code in words.

    Parameters
    ----------
    code : of the finding, e.g. "slice_gap".
    """
    return private(short_code(code), code.replace("_", " ")[:_CODE_MEANING_LENGTH])


# ---- document ---------------------------------------------------------------------------------------
TITLE = Code("126000", "DCM", "Imaging Measurement Report")
PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")  # CID 100 has no closer one
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
REJECTED = Code("113001", "DCM", "Rejected for Quality Reasons")  # what IOCM's actors act upon
SUMMARY = Code("121111", "DCM", "Summary")
SOURCE = Code("260753009", "SCT", "Source")
FINDING = codes.DCM.Finding
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
COMMENT = Code("121106", "DCM", "Comment")
SEVERITY = Code("246112005", "SCT", "Severity")
SEVERITIES: Mapping[Severity, Code] = {
    Severity.INFO: private("SEV-INFO", "Information"),
    Severity.CAUTION: private("SEV-CAUTION", "Caution"),
    Severity.REFUSAL: private("SEV-REFUSAL", "Refusal: not measured"),
}
QUALITY = Code("111050", "DCM", "Quality Assessment")
LEVEL_KNOWN = private("LEVEL-KNOWN", "Whether the vertebral level is known")
LEVEL_UNKNOWN = private("LEVEL-UNKNOWN", "One lumbar vertebra, its level not known")
QUALITY_MET = Code("111237", "DCM", "Usable - Meets the quality control standard")
QUALITY_NOT_MET = Code("111236", "DCM", "Usable - Does not meet the quality control standard")
QUALITY_UNUSABLE = Code("111235", "DCM", "Unusable - Quality renders image unusable")
INTENDED_USE = private("INTENDED-USE", "Intended use")
RESEARCH_USE_ONLY = private("RESEARCH-ONLY", "Research use only, not for diagnosis")
AMENDMENT_REASON = private("AMENDMENT", "Reason for amendment")

# ---- anatomy ----------------------------------------------------------------------------------------
LEVELS: Mapping[str, Code] = {
    "L1": Code("66794005", "SCT", "L1 vertebra"),
    "L2": Code("14293000", "SCT", "L2 vertebra"),
    "L3": Code("36470004", "SCT", "L3 vertebra"),
    "L4": Code("11994002", "SCT", "L4 vertebra"),
    "L5": Code("49668003", "SCT", "L5 vertebra"),
}
# Others that segmentations made elsewhere may name (SNOMED CT as in PS3.16; S1 alone has no code there).
NEIGHBOURS: Mapping[str, Code] = {
    "T10": codes.SCT.T10Vertebra,
    "T11": codes.SCT.T11Vertebra,
    "T12": codes.SCT.T12Vertebra,
    "sacrum": codes.SCT.Sacrum,
}
# The site of a lumbar vertebra of unknown level too: CID 4 and CID 7603 have no code for one.
LUMBAR_SPINE = Code("122496007", "SCT", "Lumbar spine")


def level_site(name: str) -> Code:
    """The site of a lumbar level, or of a lumbar body without a name."""
    return LUMBAR_SPINE if is_unnamed(name) else LEVELS[name]


TISSUE = Code("85756007", "SCT", "Tissue")
BONE = Code("3138006", "SCT", "Bone")
PHYSICAL_OBJECT = Code("260787004", "SCT", "Physical object")
PHANTOM = Code("706342009", "SCT", "Phantom")
# Property types that do not tell the level: the anatomic region then does.
ANY_BONE = (BONE, Code("272673000", "SCT", "Bone"), codes.SCT.Vertebra)

# ---- algorithms -------------------------------------------------------------------------------------
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
MORPHOLOGICAL = Code("123104", "DCM", "Morphological Operations")
MANUAL = Code("123109", "DCM", "Manual Processing")

# ---- units ------------------------------------------------------------------------------------------
MG_PER_CM3 = Code("mg/cm3", "UCUM", "mg/cm3")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MM2 = Code("mm2", "UCUM", "mm2")
MM3 = Code("mm3", "UCUM", "mm3")
CM3 = Code("cm3", "UCUM", "cm3")
DEGREE = Code("deg", "UCUM", "degree")
VOXELS = Code("{voxels}", "UCUM", "voxels")
MM = Code("mm", "UCUM", "mm")
KILOVOLT = Code("kV", "UCUM", "kV")
KILOELECTRONVOLT = Code("keV", "UCUM", "keV")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
YEAR = Code("a", "UCUM", "year")
UNITY = Code("1", "UCUM", "no units")
UNIT_PER_L = Code("U/L", "UCUM", "U/L")
UMOL_PER_L = Code("umol/L", "UCUM", "umol/L")
MG_PER_CM3_PER_HU = Code("mg/cm3/[hnsf'U]", "UCUM", "mg/cm3 per HU")

# ---- measurements -----------------------------------------------------------------------------------
VOLUME = Code("118565006", "SCT", "Volume")
CORE_VOLUME = private("CORE-VOLUME", "Volume of the body's whole cancellous core")
CENTROID = (  # PS3.3 C.7.6.2.1.1: the patient-based coordinate system
    private("CENTROID-X", "Centroid in the patient's coordinates, towards the left"),
    private("CENTROID-Y", "Centroid in the patient's coordinates, towards the back"),
    private("CENTROID-Z", "Centroid in the patient's coordinates, towards the head"),
)
SLICE_TILT = private("SLICE-TILT", "Angle between the slice's normal and the patient's long axis")
AREA = Code("42798000", "SCT", "Area")
ATTENUATION = Code("110850", "DCM", "Hounsfield Unit")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
BMD: Mapping[Mineral, Code] = {  # two codes: the equivalents are different quantities
    Mineral.HA: private("BMD-HA", "Bone mineral density, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("BMD-K2HPO4", "Bone mineral density, K2HPO4 equivalent"),
}
BMD_REGION = private("BMD-REGION", "Part of the body that density is read in")
REGIONS: Mapping[RegionKind, Code] = {
    RegionKind.CORE: private("REGION-CORE", "Cancellous core of the body's middle"),
    RegionKind.ELLIPSE: private("REGION-ELLIPSE", "Mid-body ellipse before the basivertebral veins"),
}
UNCERTAINTY = Code("371884006", "SCT", "+/-, range of measurement uncertainty")
T_SCORE = private("T-SCORE-QCT", "T-score, QCT (not equivalent to DXA)")
Z_SCORE = Code("121416", "DCM", "Z-Score of measurement")
POPULATION_MEAN = Code("373098007", "SCT", "Mean Value of population")
POPULATION_SD = Code("121414", "DCM", "Standard deviation of population")
POPULATION = Code("121405", "DCM", "Population Description")
AUTHORITY = Code("121406", "DCM", "Reference Authority")

DENSITY_CATEGORY = private("DENSITY-CATEGORY", "QCT density category")
DENSITY_CATEGORIES: Mapping[DensityCategory, Code] = {
    DensityCategory.NORMAL: Code("17621005", "SCT", "Normal"),
    DensityCategory.LOW: Code("312894000", "SCT", "Osteopenia"),
    DensityCategory.OSTEOPOROSIS: Code("64859006", "SCT", "Osteoporosis"),
}
DENSITY_MEAN: Mapping[Mineral, Code] = {
    Mineral.HA: private("BMD-MEAN2-HA", "Mean BMD of two bodies, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("BMD-MEAN2-K2HPO4", "Mean BMD of two bodies, K2HPO4 equivalent"),
}
CONVERTED_FROM = private("CONVERTED-FROM", "Mineral equivalent measured, converted by the site's own line")
EQUIVALENT = private("EQUIVALENT", "Mineral equivalent of a density")
EQUIVALENTS: Mapping[Mineral, Code] = {
    Mineral.HA: private("EQUIV-HA", "Hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("EQUIV-K2HPO4", "K2HPO4 equivalent"),
}
STUDY_CLASS = private("STUDY-CLASS", "Class by study rule, Xie 2022")
STUDY_CLASSES: Mapping[StudyClass, Code] = {
    StudyClass.NORMAL: private("XIE2022-NORMAL", "Study rule, Xie 2022: normal (T >= -1)"),
    StudyClass.OSTEOPENIA: private("XIE2022-PENIA", "Study rule, Xie 2022: osteopenia (-2.5 < T < -1)"),
    StudyClass.OSTEOPOROSIS: private("XIE2022-POROSIS", "Study rule, Xie 2022: osteoporosis (T <= -2.5)"),
}

RAD_SCORE = private("RAD-SCORE", "Rad-score")
POINTS = private("NOMOGRAM-POINTS", "Nomogram points")
TOTAL_POINTS = private("NOMOGRAM-TOTAL", "Nomogram total points")
PROBABILITY = Code("122157", "DCM", "Probability")
NOMOGRAM_PREDICTOR = private("PREDICTOR", "Predictor that the points belong to")
POSITIVE_CLASS = private("POSITIVE-CLASS", "Positive class of the probability")
POSITIVE_CLASSES: Mapping[str, Code] = {
    "osteoporosis": private("CLASS-POROSIS", "Osteoporosis, as labelled by the study rule"),
    "osteopenia": private("CLASS-PENIA", "Osteopenia, as labelled by the study rule"),
}
AGE = Code("121033", "DCM", "Subject Age")
ALP = Code("6768-6", "LN", "Alkaline phosphatase [Enzymatic activity/volume] in Serum")
HOMOCYSTEINE = Code("13965-9", "LN", "Homocysteine [Moles/volume] in Serum or Plasma")
INPUTS: Mapping[str, Code] = {
    "rad_score": RAD_SCORE,
    "age": AGE,
    "alp": ALP,
    "homocysteine": HOMOCYSTEINE,
}

SLOPE: Mapping[Mineral, Code] = {
    Mineral.HA: private("CAL-SLOPE-HA", "Calibration slope, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("CAL-SLOPE-K2HPO4", "Calibration slope, K2HPO4 equivalent"),
}
INTERCEPT: Mapping[Mineral, Code] = {
    Mineral.HA: private("CAL-ICPT-HA", "Calibration intercept, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("CAL-ICPT-K2HPO4", "Calibration intercept, K2HPO4 equivalent"),
}
R_SQUARED = private("CAL-R2", "Coefficient of determination of the calibration")
MAX_RESIDUAL = private("CAL-RESIDUAL", "Largest residual of the calibration")
PHANTOM_SERIAL = private("CAL-SERIAL", "Serial number of the phantom whose certificate was used")
PHANTOM_SHA256 = private("CAL-SHA256", "SHA-256 of the phantom's description and certificate")
CALIBRATION_METHOD = private("CAL-METHOD", "Calibration method")
CALIBRATION_GRADE = private("CAL-GRADE", "What the calibration rests on")
GRADES: Mapping[Grade, Code] = {
    Grade.PHANTOM: private("GRADE-PHANTOM", "A calibration phantom in the same image"),
    Grade.ASYNCHRONOUS: private("GRADE-ASYNC", "A calibration phantom scanned earlier on this scanner"),
    Grade.INTERNAL: private("GRADE-INTERNAL", "The patient's own tissues: screening only"),
}
CALIBRATION_SCANNED_ON = private("CAL-DATE", "Date on which the calibration phantom was scanned")
CALIBRATION_ENERGY = private("CAL-KEV", "Effective photon energy, from the patient's tissues")
TISSUE_ATTENUATION = private("TISSUE-HU", "Attenuation of a tissue that calibrates")
TISSUE_VOLUME = private("TISSUE-VOLUME", "Volume of a tissue that calibrates")
CALIBRATION_OBJECT = Code("122421", "DCM", "Calibration Object")
ROD_DENSITY: Mapping[Mineral, Code] = {
    Mineral.HA: private("ROD-DENS-HA", "Certified density of a calibration rod, hydroxyapatite"),
    Mineral.K2HPO4: private("ROD-DENS-K2HPO4", "Certified density of a calibration rod, K2HPO4"),
}
ROD_VOXELS = private("ROD-VOXELS", "Voxels of a calibration rod that were read")
ROD_ATTENUATION = private("ROD-HU", "Attenuation of a calibration rod")
KVP = Code("113733", "DCM", "KVP")
SLICE_THICKNESS = Code("112225", "DCM", "Slice Thickness")
SLICE_SPACING = Code("112226", "DCM", "Spacing between slices")
# "Horizontal" runs along a row, from column to column.
COLUMN_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
ROW_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")

# ---- follow-up ----------------------------------------------------------------------------------------
PRIOR_DENSITY: Mapping[Mineral, Code] = {
    Mineral.HA: private("PRIOR-BMD-HA", "BMD of the earlier study, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("PRIOR-BMD-K2HPO4", "BMD of the earlier study, K2HPO4 equivalent"),
}
CHANGE: Mapping[Mineral, Code] = {
    Mineral.HA: private("CHANGE-HA", "Change of BMD since then, hydroxyapatite equivalent"),
    Mineral.K2HPO4: private("CHANGE-K2HPO4", "Change of BMD since then, K2HPO4 equivalent"),
}
LEAST_CHANGE = private("LSC", "Least significant change, stated by the site")
PRIOR_STUDY = private("PRIOR-STUDY", "Study Instance UID of the earlier study")
PRIOR_DATE = private("PRIOR-DATE", "Date of the earlier study")
KERNEL = Code("113961", "DCM", "Reconstruction Algorithm")

# ---- features ---------------------------------------------------------------------------------------
# IBSI reference manual codes of the features that the model uses. The filtered image is named by a modifier,
# for wavelet-filtered values lie outside IBSI chapter 1.
IBSI_FEATURES: Mapping[str, Code] = {
    "firstorder_10Percentile": Code("QG58", "IBSI", "10th percentile"),
    "firstorder_Median": Code("Y12H", "IBSI", "Median"),
    "firstorder_InterquartileRange": Code("SALO", "IBSI", "Interquartile range"),
    "firstorder_Skewness": Code("KE2A", "IBSI", "Skewness"),
    "glrlm_ShortRunLowGrayLevelEmphasis": Code("HTZT", "IBSI", "Short run low grey level emphasis"),
}
FILTERED_IMAGE = private("IMAGE-FILTER", "Image that the feature was computed on")


def feature_code(name: str) -> Code:
    """The concept of a radiomics feature.

    Parameters
    ----------
    name : as pyradiomics names it, e.g. "wavelet-LLL_firstorder_Median".

    Returns
    -------
    The code of the IBSI reference manual where the model uses the feature, else one of the node's own scheme.
    """
    _, _, feature = name.partition("_")
    known = IBSI_FEATURES.get(feature)
    return known or private(short_code(feature), feature[:_CODE_MEANING_LENGTH])


def filter_code(name: str) -> Code:
    """The concept of the image that a feature was computed on.

    Parameters
    ----------
    name : of the feature; its part before the first "_" names the image: "original" or a wavelet sub-band.
    """
    image = name.partition("_")[0]
    return private(short_code(image.upper()), f"{image} image")


# The algorithms of a report, as TID 4019 of the structured report and as the segmentation names them.


def _family(engine: EngineInfo) -> Code:
    if engine.name == "mask":
        return MANUAL
    return MORPHOLOGICAL if engine.model_free else ARTIFICIAL_INTELLIGENCE


def _engine_parameters(engine: EngineInfo) -> Mapping[str, str]:
    parameters = {to_ascii(key): to_ascii(str(value)) for key, value in sorted(engine.parameters.items())}
    return parameters | ({"weights_sha256": engine.weights_sha256} if engine.weights_sha256 else {})


def segment_algorithm(engine: EngineInfo) -> AlgorithmIdentificationSequence:
    """The segmentation engine, as the segments that it drew name it.

    Source: PS3.3 Table 10-19 (Algorithm Identification Macro).
    """
    return AlgorithmIdentificationSequence(
        name=to_ascii(engine.name),
        family=_family(engine),
        version=to_ascii(engine.version),
        source=MANUFACTURER,
        parameters=dict(_engine_parameters(engine)) or None,
    )


def rod_algorithm(provenance: Provenance) -> AlgorithmIdentificationSequence:
    """The node itself, which finds the rods, as their segments name it.

    Source: PS3.3 Table 10-19 (Algorithm Identification Macro).
    """
    return AlgorithmIdentificationSequence(
        name=provenance.software,
        family=MORPHOLOGICAL,
        version=to_ascii(provenance.version),
        source=MANUFACTURER,
    )


def segment_algorithm_type(engine: EngineInfo) -> SegmentAlgorithmTypeValues:
    """How a segment was drawn.

    Returns
    -------
    AUTOMATIC; SEMIAUTOMATIC for a mask drawn elsewhere, which is measured automatically but was not drawn so.
    """
    if engine.name == "mask":
        return SegmentAlgorithmTypeValues.SEMIAUTOMATIC
    return SegmentAlgorithmTypeValues.AUTOMATIC


def engine_identification(engine: EngineInfo) -> AlgorithmIdentification:
    """The segmentation engine, as a measurement names it (TID 4019)."""
    return AlgorithmIdentification(
        name=to_ascii(engine.name),
        version=to_ascii(engine.version),
        parameters=[f"{key}={value}" for key, value in _engine_parameters(engine).items()] or None,
        family=_family(engine),
    )


def node_identification(provenance: Provenance) -> AlgorithmIdentification:
    """The node itself, which calibrates and measures, with its configuration and packages (TID 4019)."""
    parameters = [f"configuration_sha256={provenance.configuration_sha256}"]
    parameters += [f"{name}={version}" for name, version in sorted(provenance.packages.items())]
    if provenance.begun_again:
        parameters.append(f"begun_again={provenance.begun_again}")
    return AlgorithmIdentification(
        name=provenance.software,
        version=provenance.version,
        parameters=parameters,
        manufacturer=MANUFACTURER,
    )


def model_identification(provenance: Provenance) -> AlgorithmIdentification | None:
    """The model behind rad-score and nomogram, by the hash of its card (TID 4019).

    Returns
    -------
    None where no model was used.
    """
    if provenance.model is None:
        return None
    hashes = {
        "model_sha256": provenance.model_sha256,
        "radiomics_settings_sha256": provenance.radiomics_settings_sha256,
    }
    return AlgorithmIdentification(
        name=to_ascii(provenance.model),
        version=(provenance.model_sha256 or "unknown")[:16],
        parameters=[f"{key}={value}" for key, value in hashes.items() if value] or None,
        family=ARTIFICIAL_INTELLIGENCE,
    )
