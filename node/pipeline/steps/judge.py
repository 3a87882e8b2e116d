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
from scoring.density.bmd import BmdResult, DensityVerdict, Reference, ReferenceScore, StudyClass
from scoring.density.follow_up import NO_PHANTOM, Conditions, FollowUp, Scan, follow_up
from scoring.density.scores import Assessment, Conversion, assess, remarks
from scoring.models.applicability import (
    REMARKS_ON_MODEL,
    contradiction_observations,
    input_observations,
    model_observations,
    score_observations,
)
from scoring.models.card import ModelCard
from scoring.models.nomogram import NomogramResult, RadScore, apply_nomogram, rad_score
from segmentation.phrase import clauses, listed, phrase
from segmentation.vertebrae import EngineInfo, Observation, RegionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What numbers are judged by."""

    table: FindingTable
    language: str
    reference: Reference | None
    card: ModelCard | None
    radiomics_settings_sha256: str
    conversion: Conversion | None = None  # between minerals, for the density rule; None: none
    card_refusal: Observation | None = None  # why a model that is in force cannot be used: then no card
    accept_unstated: tuple[str, ...] = ()  # of `Reference.unstated`, what the site accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Everything that a report says, and nothing that a finding withholds."""

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


class _Ledger:
    """Findings as they come up, and what they withhold."""

    def __init__(self, basis: Basis, slices: Iterable[str] = ()) -> None:
        self.basis = basis
        self.slices = frozenset(slices)  # whose findings must say where they belong
        self.findings: list[Finding] = []

    def add(self, observations: Iterable[Observation]) -> None:
        for observation in observations:
            finding = self.basis.table.describe(observation, self.basis.language)
            if finding.level in self.slices and finding.level not in finding.text:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study's numbers, and whatever else the judgement depends on."""

    measurements: Measurements
    study: StudyIdentity
    series: SeriesFacts | None
    observations: Sequence[Observation]  # of earlier steps, about the study and its series
    laboratory: Laboratory


def judge(case: Case, basis: Basis) -> Judgement:
    """Withhold what the findings withhold, and compute scores from the rest."""
    ledger = _Ledger(basis, (one.name for one in case.measurements.unnamed))
    ledger.add(case.observations)
    ledger.add(case.measurements.observations)
    levels = tuple(_level(level, ledger) for level in case.measurements.levels)
    if case.measurements.unnamed:
        return _unnamed(case.measurements.unnamed, ledger)
    calibrated = ledger.allows(Output.BMD)
    if case.series is None or not levels:
        return Judgement(levels=levels, calibrated=calibrated, findings=tuple(ledger.findings))

    scores = _assessed(levels, case, case.series, ledger)
    features = None
    if case.measurements.features is not None and ledger.allows(Output.FEATURES, [FEATURE_LEVEL]):
        features = dict(case.measurements.features)
    score = _rad_score(features, scores.t_score, case, case.series, ledger)
    nomogram = _nomogram(score, scores.t_score, case, ledger)
    judgement = Judgement(
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
    ledger.add(_unexplained(judgement, ledger))
    return replace(judgement, findings=_about_what_is_there(ledger.findings, judgement))


def _unnamed(slices: Sequence[SliceResult], ledger: _Ledger) -> Judgement:
    """Single slices: densities without a level, and nothing that rests on one (`single_slice` says so)."""
    shown = []
    for one in slices:
        measured = _read(one.measured, ledger, [one.name])
        shown.append(
            replace(
                one,
                measured=measured,
                region_mm2=one.region_mm2 if measured else None,
                calibration=one.calibration if ledger.allows(Output.BMD, [one.name]) else None,
            )
        )
    judgement = Judgement(unnamed=tuple(shown))
    if judgement.measured:
        ledger.add([Observation(code="marrow_fat")])
    return replace(judgement, findings=tuple(ledger.findings))


def _level(level: LevelResult, ledger: _Ledger) -> LevelResult:
    """A level without what is withheld at it."""
    at = [level.name]
    return replace(
        level,
        volume_mm3=level.volume_mm3 if ledger.allows(Output.VOLUME, at) else None,
        core_volume_mm3=level.core_volume_mm3 if ledger.allows(Output.VOLUME, at) else None,
        measured=_read(level.measured, ledger, at),
        ellipse=_read(level.ellipse, ledger, at),
    )


def _read(measured: BmdResult | None, ledger: _Ledger, at: Sequence[str]) -> BmdResult | None:
    if measured is None or not ledger.allows(Output.HU, at):
        return None
    if not ledger.allows(Output.BMD, at):
        return replace(measured, bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None)
    return measured


def _equivalent(case: Case) -> Mineral | None:
    calibration = case.measurements.calibration
    return calibration.equivalent if calibration else None


def _assessed(levels: Sequence[LevelResult], case: Case, series: SeriesFacts, ledger: _Ledger) -> Assessment:
    reference = ledger.basis.reference
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
        conversion=ledger.basis.conversion,
        accept_unstated=ledger.basis.accept_unstated,
    )
    ledger.add(found.observations)
    on_reference = reference.levels if reference else ()
    on_density = found.density.levels if found.density else ()
    given = replace(
        found,
        t_score=found.t_score if ledger.allows(Output.T_SCORE, on_reference) else None,
        z_score=found.z_score if ledger.allows(Output.Z_SCORE, on_reference) else None,
        study_class=found.study_class if ledger.allows(Output.STUDY_CLASS, on_reference) else None,
        density=found.density if ledger.allows(Output.DENSITY_CATEGORY, on_density) else None,
    )
    ledger.add(remarks(given, reference=reference, age_years=case.study.age_years, sex=case.study.sex))
    return given


def _rad_score(
    features: dict[str, float] | None,
    t_score: ReferenceScore | None,
    case: Case,
    series: SeriesFacts,
    ledger: _Ledger,
) -> RadScore | None:
    card, refusal = ledger.basis.card, ledger.basis.card_refusal
    if refusal is not None:
        ledger.add([refusal])
        return None
    ledger.add(
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
    if card.radiomics_settings_sha256 != ledger.basis.radiomics_settings_sha256:
        reason = phrase("features-otherwise")
        ledger.add([Observation(code="model_range", values={"model": card.name, "reason": reason})])
    if features is not None and any(one.name not in features for one in card.features):
        reason = phrase("model-changed")
        ledger.add([Observation(code="model_range", values={"model": card.name, "reason": reason})])
    if features is None or t_score is None or not ledger.allows(Output.RAD_SCORE, [FEATURE_LEVEL]):
        return None
    score = rad_score(card, features)
    ledger.add(score_observations(card.term("rad_score"), score.value, model=card.name))
    return score if ledger.allows(Output.RAD_SCORE, [FEATURE_LEVEL]) else None


def _nomogram(
    score: RadScore | None, t_score: ReferenceScore | None, case: Case, ledger: _Ledger
) -> NomogramResult | None:
    card, laboratory = ledger.basis.card, case.laboratory
    if laboratory.problems:
        problems = clauses(laboratory.problems)
        ledger.add([Observation(code="laboratory_unreadable", values={"problems": problems})])
    if score is None or card is None or t_score is None:
        return None
    age, alp, homocysteine = case.study.age_years, laboratory.alp_u_l, laboratory.homocysteine_umol_l
    ledger.add(
        input_observations(card.terms, rad_score=score.value, age=age, alp=alp, homocysteine=homocysteine)
    )
    if not ledger.allows(Output.NOMOGRAM, [FEATURE_LEVEL]):
        return None
    found = apply_nomogram(card, rad_score=score.value, age=age, alp=alp, homocysteine=homocysteine)
    ledger.add(contradiction_observations(found, t_score.value))
    return found


def _about_what_is_there(findings: Sequence[Finding], judgement: Judgement) -> tuple[Finding, ...]:
    """Findings without remarks on numbers that the report does not give."""
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


def _unexplained(judgement: Judgement, ledger: _Ledger) -> list[Observation]:
    """What is absent though no finding withholds it: no place in a report is empty without a word."""
    given = {
        Output.BMD: judgement.measured,
        Output.T_SCORE: judgement.t_score is not None,
        Output.Z_SCORE: judgement.z_score is not None,
        Output.DENSITY_CATEGORY: judgement.density is not None,
        Output.STUDY_CLASS: judgement.study_class is not None,
        Output.FEATURES: judgement.features is not None or ledger.basis.card is None,
        Output.RAD_SCORE: judgement.rad_score is not None,
        Output.NOMOGRAM: judgement.nomogram is not None,
    }
    everywhere = tuple(level.name for level in judgement.levels)
    absent = [
        _WORDS[output]
        for output, present in given.items()
        if not present and ledger.allows(output, everywhere)
    ]
    return [Observation(code="not_available", values={"outputs": listed(absent)})] if absent else []


# What a study's numbers are judged by, as the settings name it, and the judgement.


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
    selection: SelectionArtefact, measurements: Measurements, laboratory: Laboratory, basis: Basis
) -> Judgement:
    """Everything that the findings leave of the measurements.

    Parameters
    ----------
    laboratory : values of this patient that count for this study.
    """
    case = Case(
        measurements=measurements,
        study=selection.study,
        series=selection.series,
        observations=selection.observations,
        laboratory=laboratory,
    )
    return judge(case, basis)


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


# Comparison of a judged study with earlier ones of the same patient.


_LEVELS_DOUBTED = frozenset({"level_unconfirmed", "numbering_conflict", "level_implausible"})
_CONTRAST = frozenset({"contrast_given", "contrast_doubtful", "contrast_suspected"})


def scan_of(
    judgement: Judgement,
    *,
    study: StudyIdentity,
    series: SeriesFacts,
    calibration: Calibration,
    engine: EngineInfo,
    settings: Settings,
) -> Scan | None:
    """What of this study a later one may be compared with; None without date or density."""
    densities = {
        level.name: level.measured.bmd_mg_cm3
        for level in judgement.levels
        if level.measured is not None and level.measured.bmd_mg_cm3 is not None
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
    """The change since the patient's earlier study; then this one is kept for the next."""
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
