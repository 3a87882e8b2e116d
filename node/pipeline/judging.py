"""What a study's numbers are judged by, as the settings name it, and the judgement."""

from __future__ import annotations

from importlib.metadata import version

from config.catalog import configuration_sha256, load_radiomics_settings_text, load_reference
from config.findings import load_findings
from config.settings import Settings
from node import __version__
from node.pipeline.assessment import Basis, Case, Judgement, judge
from node.pipeline.context import StepContext
from node.pipeline.measured_with import computing_packages
from node.pipeline.measurement import Measurements
from node.pipeline.model import active_model
from node.pipeline.selection import SelectionArtefact
from node.report import Laboratory, Provenance
from scoring.assessment import Conversion
from segmentation.vertebrae import EngineInfo


def basis_of(settings: Settings) -> Basis:
    """Findings and reference that the settings name, read from their files, and the model in force."""
    site, names, pair = settings.node.site_folder, settings.scoring, settings.scoring.k2hpo4_from_ha
    _, radiomics_sha256 = load_radiomics_settings_text(site)
    model = active_model(settings)
    return Basis(
        table=load_findings(site),
        language=settings.node.language,
        reference=load_reference(names.reference, site)[0] if names.reference else None,
        card=model.card,
        card_refusal=model.refusal,
        radiomics_settings_sha256=radiomics_sha256,
        conversion=Conversion(slope=pair[0], intercept_mg_cm3=pair[1]) if pair else None,
        accept_unstated=names.accept_unstated.get(names.reference, ()),
    )


def judge_study(
    context: StepContext, selection: SelectionArtefact, measurements: Measurements, basis: Basis
) -> tuple[Laboratory, Judgement]:
    """The patient's laboratory values, and everything that the findings leave of the measurements."""
    study = selection.study
    laboratory = context.clinical.laboratory(
        study.patient_id,
        study.issuer_of_patient_id,
        study.study_date.isoformat() if study.study_date else None,
    )
    case = Case(
        measurements=measurements,
        study=study,
        series=selection.series,
        observations=selection.observations,
        laboratory=laboratory,
    )
    return laboratory, judge(case, basis)


def provenance_of(
    settings: Settings, basis: Basis, engine: EngineInfo | None, begun_again: str | None = None
) -> Provenance:
    """Every program, file and setting that numbers rest on."""
    return Provenance(
        software="Osteonode",
        version=__version__,
        engine=engine,
        phantom=settings.calibration.phantom,
        reference=basis.reference.name if basis.reference else None,
        model=basis.card.name if basis.card else None,
        model_sha256=basis.card.sha256 if basis.card else None,
        radiomics_settings_sha256=basis.radiomics_settings_sha256,
        configuration_sha256=configuration_sha256(settings),
        packages={name: version(name) for name in computing_packages(settings)},
        begun_again=begun_again,
    )
