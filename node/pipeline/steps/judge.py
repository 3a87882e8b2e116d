"""From measured numbers to what is reported: the findings table obeyed, scores computed. No pixels needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from config.catalog import configuration_sha256, load_radiomics_settings_text, load_reference
from config.findings import Finding, FindingTable, Output, level_in_words, load_findings, withheld
from config.settings import Settings
from node import __version__
from node.pipeline.artefacts import SelectionArtefact, from_json, to_json
from node.pipeline.ports import PatientHistory
from node.pipeline.result_basis import active_model, computing_packages
from node.pipeline.steps.score import FEATURE_LEVEL, Measurements
from node.study_report import Laboratory, LevelResult, Provenance, SeriesFacts, SliceResult, StudyIdentity
from scoring.calibration import Calibration, Grade, Mineral
from scoring.density.bmd import (
    BmdResult,
    DensityCategory,
    DensityVerdict,
    Reference,
    ReferenceScore,
    StudyClass,
)
from scoring.density.follow_up import NO_PHANTOM, Conditions, FollowUp, Scan, follow_up
from scoring.density.scores import Assessment, Conversion, assess, remarks
from scoring.models.applicability import (
    REMARKS_ON_MODEL,
    contradiction_observations,
    input_observations,
    model_observations,
    score_observations,
)
from scoring.models.card import ModelCard, NomogramResult, RadScore, apply_nomogram, rad_score
from segmentation.phrase import clauses, listed, phrase
from segmentation.vertebrae import EngineInfo, Observation, RegionKind, is_unnamed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingRules:
    """Rules and settings that decide what is reported."""

    table: FindingTable
    language: str
    reference: Reference | None
    card: ModelCard | None
    radiomics_settings_sha256: str
    conversion: Conversion | None = None  # between minerals, for the density rule; None: none
    card_refusal: Observation | None = None  # why a model that is in force cannot be used: then no card
    accept_unstated: tuple[str, ...] = ()  # of `Reference.unstated`, what the site accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedResults:
    """Content of a report, without the outputs that a finding withholds."""

    levels: tuple[LevelResult, ...] = ()
    t_score: ReferenceScore | None = None
    z_score: ReferenceScore | None = None
    study_class: StudyClass | None = None
    density: DensityVerdict | None = None
    features: dict[str, float] | None = None
    rad_score: RadScore | None = None
    nomogram: NomogramResult | None = None
    calibrated: bool = False  # whether the study's calibration may be shown
    findings: tuple[Finding, ...] = ()
    unnamed: tuple[SliceResult, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether at least one vertebra has a density."""
        read = [*(level.measured for level in self.levels), *(one.measured for one in self.unnamed)]
        return any(one is not None and one.bmd_mg_cm3 is not None for one in read)


class _FindingsRecord:
    """Findings of one study in their order, and the outputs that they withhold."""

    def __init__(self, basis: ReportingRules, unnamed: Iterable[str] = ()) -> None:
        self.basis = basis
        self.unnamed = frozenset(unnamed)  # slices and bodies whose findings must say where they belong
        self.findings: list[Finding] = []
        self.withheld_as_normal: set[Output] = set()  # category, class: withheld for their value alone

    def add(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            finding = self.basis.table.describe(observation, self.basis.language)
            if finding.level in self.unnamed and finding.level not in finding.text:
                finding = self._with_place(finding, finding.level)
            if finding not in self.findings:
                self.findings.append(finding)

    def _with_place(self, finding: Finding, level: str) -> Finding:
        local = finding.local_text
        if local is not None:
            local = f"{level_in_words(level, self.basis.table.phrases(self.basis.language))}: {local}"
        return replace(finding, text=f"{level}: {finding.text}", local_text=local)

    def allows(self, output: Output, levels: Sequence[str] = ()) -> bool:
        return not withheld(self.findings, output, levels)

    def allows_value(self, output: Output, levels: Sequence[str], *, normal: bool) -> bool:
        """Whether a category or class may be given, of which `normal` says whether it is "normal"."""
        if not self.allows(output, levels):
            return False
        if normal and not self.allows(Output.NORMAL, levels):
            self.withheld_as_normal.add(output)
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStudy:
    """Measurements of one study, and the other inputs of `judge`."""

    measurements: Measurements
    study: StudyIdentity
    series: SeriesFacts | None
    observations: Sequence[Observation]  # of earlier steps, about the study and its series
    laboratory: Laboratory


def judge(case: MeasuredStudy, basis: ReportingRules) -> ReportedResults:
    """Withhold what the findings withhold, and compute scores from the rest."""
    bodies = [level.name for level in case.measurements.levels if is_unnamed(level.name)]
    record = _FindingsRecord(basis, (*bodies, *(one.name for one in case.measurements.unnamed)))
    record.add(case.observations)
    record.add(case.measurements.observations)
    levels = tuple(_level(level, record) for level in case.measurements.levels)
    if case.measurements.unnamed:
        return _unnamed(case.measurements.unnamed, record)
    calibrated = record.allows(Output.BMD)
    if case.series is None or not levels:
        return ReportedResults(levels=levels, calibrated=calibrated, findings=tuple(record.findings))
    if bodies:
        return _unnamed_bodies(levels, record, calibrated=calibrated)

    scores = _assessed(levels, case, case.series, record)
    features = None
    if case.measurements.features is not None and record.allows(Output.FEATURES, [FEATURE_LEVEL]):
        features = dict(case.measurements.features)
    score = _rad_score(features, scores.t_score, case, case.series, record)
    nomogram = _nomogram(score, scores.t_score, case, record)
    judgement = ReportedResults(
        levels=levels,
        t_score=scores.t_score,
        z_score=scores.z_score,
        study_class=scores.study_class,
        density=scores.density,
        features=features,
        rad_score=score,
        nomogram=nomogram,
        calibrated=calibrated,
    )
    record.add(_unavailable_outputs(judgement, record))
    return replace(judgement, findings=_about_reported_numbers(record.findings, judgement))


def _unnamed(slices: Sequence[SliceResult], record: _FindingsRecord) -> ReportedResults:
    """Results of single slices: densities without a level, and no output that needs one."""
    shown = []
    for one in slices:
        measured = _read(one.measured, record, [one.name])
        shown.append(
            replace(
                one,
                measured=measured,
                region_mm2=one.region_mm2 if measured else None,
                calibration=one.calibration if record.allows(Output.BMD, [one.name]) else None,
            )
        )
    judgement = ReportedResults(unnamed=tuple(shown))
    if judgement.measured:
        record.add([Observation(code="marrow_fat")])
    return replace(judgement, findings=tuple(record.findings))


def _unnamed_bodies(
    levels: tuple[LevelResult, ...], record: _FindingsRecord, *, calibrated: bool
) -> ReportedResults:
    """Results of bodies without a name: densities, and no output that needs a level."""
    judgement = ReportedResults(levels=levels, calibrated=calibrated)
    if judgement.measured:
        record.add([Observation(code="marrow_fat")])
    record.add(_unavailable_outputs(judgement, record))
    return replace(judgement, findings=tuple(record.findings))


def _level(level: LevelResult, record: _FindingsRecord) -> LevelResult:
    """Results of a level without the outputs that are withheld there."""
    at = [level.name]
    return replace(
        level,
        volume_mm3=level.volume_mm3 if record.allows(Output.VOLUME, at) else None,
        core_volume_mm3=level.core_volume_mm3 if record.allows(Output.VOLUME, at) else None,
        measured=_read(level.measured, record, at),
        ellipse=_read(level.ellipse, record, at),
    )


def _read(measured: BmdResult | None, record: _FindingsRecord, at: Sequence[str]) -> BmdResult | None:
    if measured is None or not record.allows(Output.HU, at):
        return None
    if not record.allows(Output.BMD, at):
        return replace(measured, bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None)
    return measured


def _equivalent(case: MeasuredStudy) -> Mineral | None:
    calibration = case.measurements.calibration
    return calibration.equivalent if calibration else None


def _assessed(
    levels: Sequence[LevelResult], case: MeasuredStudy, series: SeriesFacts, record: _FindingsRecord
) -> Assessment:
    reference = record.basis.reference
    measured = {level.name: level.measured for level in levels if level.measured is not None}
    found = assess(
        measured,
        calibration=case.measurements.calibration,
        reference=reference,
        age_years=case.study.age_years,
        sex=case.study.sex,
        kvp=series.kvp,
        spectrum=series.spectrum,
        roi=next((one.region for one in measured.values()), RegionKind.CORE),  # one setting, one region
        conversion=record.basis.conversion,
        accept_unstated=record.basis.accept_unstated,
    )
    record.add(found.observations)
    on_reference = reference.levels if reference else ()
    on_density = found.density.levels if found.density else ()
    class_is_normal = found.study_class is StudyClass.NORMAL
    density_is_normal = found.density is not None and found.density.category is DensityCategory.NORMAL
    gives_class = record.allows_value(Output.STUDY_CLASS, on_reference, normal=class_is_normal)
    gives_density = record.allows_value(Output.DENSITY_CATEGORY, on_density, normal=density_is_normal)
    given = replace(
        found,
        t_score=found.t_score if record.allows(Output.T_SCORE, on_reference) else None,
        z_score=found.z_score if record.allows(Output.Z_SCORE, on_reference) else None,
        study_class=found.study_class if gives_class else None,
        density=found.density if gives_density else None,
    )
    record.add(remarks(given, reference=reference, age_years=case.study.age_years, sex=case.study.sex))
    return given


def _rad_score(
    features: dict[str, float] | None,
    t_score: ReferenceScore | None,
    case: MeasuredStudy,
    series: SeriesFacts,
    record: _FindingsRecord,
) -> RadScore | None:
    card, refusal = record.basis.card, record.basis.card_refusal
    if refusal is not None:
        record.add([refusal])
        return None
    record.add(
        model_observations(
            card,
            kvp=series.kvp,
            spectrum=series.spectrum,
            slice_spacing_mm=series.slice_spacing_mm,
            pixel_spacing_mm=series.pixel_spacing_mm,
            equivalent=_equivalent(case),
            t_score=t_score.value if t_score else None,
        )
    )
    if card is None:
        return None
    if card.radiomics_settings_sha256 != record.basis.radiomics_settings_sha256:
        reason = phrase("features-otherwise")
        record.add([Observation(code="model_range", values={"model": card.name, "reason": reason})])
    if features is not None and any(one.name not in features for one in card.features):
        reason = phrase("model-changed")
        record.add([Observation(code="model_range", values={"model": card.name, "reason": reason})])
    if features is None or t_score is None or not record.allows(Output.RAD_SCORE, [FEATURE_LEVEL]):
        return None
    score = rad_score(card, features)
    record.add(score_observations(card.term("rad_score"), score.value, model=card.name))
    return score if record.allows(Output.RAD_SCORE, [FEATURE_LEVEL]) else None


def _nomogram(
    score: RadScore | None, t_score: ReferenceScore | None, case: MeasuredStudy, record: _FindingsRecord
) -> NomogramResult | None:
    card, laboratory = record.basis.card, case.laboratory
    if laboratory.problems:
        problems = clauses(laboratory.problems)
        record.add([Observation(code="laboratory_unreadable", values={"problems": problems})])
    if score is None or card is None or t_score is None:
        return None
    age, alp, homocysteine = case.study.age_years, laboratory.alp_u_l, laboratory.homocysteine_umol_l
    record.add(
        input_observations(card.terms, rad_score=score.value, age=age, alp=alp, homocysteine=homocysteine)
    )
    if not record.allows(Output.NOMOGRAM, [FEATURE_LEVEL]):
        return None
    found = apply_nomogram(card, rad_score=score.value, age=age, alp=alp, homocysteine=homocysteine)
    record.add(contradiction_observations(found, t_score.value))
    return found


def _about_reported_numbers(findings: Sequence[Finding], judgement: ReportedResults) -> tuple[Finding, ...]:
    """Findings without those that quote numbers which the report does not contain."""
    idle: frozenset[str] = frozenset()
    if judgement.rad_score is None:
        idle |= REMARKS_ON_MODEL
    return tuple(finding for finding in findings if finding.code not in idle)


_WORDS = {
    Output.BMD: phrase("output-bmd"),
    Output.T_SCORE: phrase("output-t-score"),
    Output.Z_SCORE: phrase("output-z-score"),
    Output.DENSITY_CATEGORY: phrase("output-density-category"),
    Output.STUDY_CLASS: phrase("output-study-class"),
    Output.FEATURES: phrase("output-features"),
    Output.RAD_SCORE: phrase("output-rad-score"),
    Output.NOMOGRAM: phrase("output-nomogram"),
}


def _unavailable_outputs(judgement: ReportedResults, record: _FindingsRecord) -> list[Observation]:
    """`not_available` for each absent output that no finding withholds."""
    given = {
        Output.BMD: judgement.measured,
        Output.T_SCORE: judgement.t_score is not None,
        Output.Z_SCORE: judgement.z_score is not None,
        Output.DENSITY_CATEGORY: judgement.density is not None,
        Output.STUDY_CLASS: judgement.study_class is not None,
        Output.FEATURES: judgement.features is not None or record.basis.card is None,
        Output.RAD_SCORE: judgement.rad_score is not None,
        Output.NOMOGRAM: judgement.nomogram is not None,
    }
    everywhere = tuple(level.name for level in judgement.levels)
    absent = [
        _WORDS[output]
        for output, present in given.items()
        if not present and record.allows(output, everywhere) and output not in record.withheld_as_normal
    ]
    return [Observation(code="not_available", values={"outputs": listed(absent)})] if absent else []


# What a study's numbers are judged by, as the settings name it, and the judgement.


def load_reporting_rules(settings: Settings) -> ReportingRules:
    """Findings and reference that the settings name, read from their files, and the model in force."""
    site, names, pair = settings.node.site_folder, settings.scoring, settings.scoring.k2hpo4_from_ha
    _, radiomics_sha256 = load_radiomics_settings_text(site)
    model = active_model(settings)
    return ReportingRules(
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
    selection: SelectionArtefact, measurements: Measurements, laboratory: Laboratory, basis: ReportingRules
) -> ReportedResults:
    """Results that the findings do not withhold.

    Parameters
    ----------
    laboratory : values of this patient that count for this study.
    """
    case = MeasuredStudy(
        measurements=measurements,
        study=selection.study,
        series=selection.series,
        observations=selection.observations,
        laboratory=laboratory,
    )
    return judge(case, basis)


def provenance_of(
    settings: Settings, basis: ReportingRules, engine: EngineInfo | None, begun_again: str | None = None
) -> Provenance:
    """Programs, files and settings on which the numbers depend."""
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


# Comparison of a judged study with earlier ones of the same patient.


_LEVELS_DOUBTED = frozenset(
    {"level_unconfirmed", "levels_unnamed", "numbering_conflict", "level_implausible"}
)
_CONTRAST = frozenset({"contrast_given", "contrast_doubtful", "contrast_suspected"})


def scan_of(
    judgement: ReportedResults,
    *,
    study: StudyIdentity,
    series: SeriesFacts,
    calibration: Calibration,
    engine: EngineInfo,
    settings: Settings,
) -> Scan | None:
    """Densities for the follow-up of later studies; None without date or density of a named level."""
    densities = {
        level.name: level.measured.bmd_mg_cm3
        for level in judgement.levels
        if level.measured is not None
        and level.measured.bmd_mg_cm3 is not None
        and not is_unnamed(level.name)  # which body of a later study it is cannot be determined
    }
    if study.study_date is None or not densities:
        return None
    codes = {finding.code for finding in judgement.findings}
    return Scan(
        study_instance_uid=study.study_instance_uid,
        taken_on=study.study_date,
        conditions=Conditions(
            device_serial=series.device_serial,
            model=series.model,
            kvp=series.kvp,
            equivalent=calibration.equivalent,
            phantom=calibration.phantom_named,
            method=calibration.method,
            rules_sha256=settings.measurement_sha256,
            engine=" ".join(part for part in (engine.name, engine.version, engine.weights_sha256) if part),
            spectral_filter=series.spectral_filter,
            energy=series.energy,
            kernel=series.kernel,
            reconstruction=series.reconstruction,
            phantom_sha256=NO_PHANTOM if calibration.grade is Grade.INTERNAL else calibration.phantom_sha256,
        ),
        densities_mg_cm3=densities,
        levels_confirmed=not codes & _LEVELS_DOUBTED,
        contrast=bool(codes & _CONTRAST),
    )


def compare_and_keep(
    history: PatientHistory, scan: Scan, study: StudyIdentity, settings: Settings
) -> FollowUp | None:
    """Change since the patient's earlier study; stores this study for the next comparison."""
    whose = {"patient_id": study.patient_id, "issuer": study.issuer_of_patient_id}
    priors = [from_json(Scan, content.encode()) for content in history.of_patient(**whose)]
    history.keep(
        study_instance_uid=scan.study_instance_uid,
        taken_on=scan.taken_on,
        content=to_json(scan).decode(),
        **whose,
    )
    return follow_up(
        scan,
        priors,
        lsc_mg_cm3=settings.followup.lsc_mg_cm3 or None,
        accept_unstated=settings.followup.accept_unstated,
    )
