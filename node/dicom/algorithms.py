"""The algorithms of a report, as TID 4019 of the structured report and as the segmentation names them."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues
from highdicom.sr import AlgorithmIdentification
from pydicom.sr.coding import Code

from node.dicom import codes
from node.dicom.header_text import to_ascii
from node.dicom.result_headers import MANUFACTURER
from node.study_report import Provenance
from segmentation.vertebrae import EngineInfo


def _family(engine: EngineInfo) -> Code:
    if engine.name == "mask":
        return codes.MANUAL
    return codes.MORPHOLOGICAL if engine.model_free else codes.ARTIFICIAL_INTELLIGENCE


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
        family=codes.MORPHOLOGICAL,
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
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )
