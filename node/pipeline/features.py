"""All radiomic features of a study: the pipeline as far as that, judged by the same findings as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.catalog import load_radiomics_settings_text
from config.findings import Finding, Output, withheld
from node.pipeline.artefacts import MEASUREMENTS, SEGMENTATION, from_json, segmentation_from_bytes
from node.pipeline.assessment import Basis
from node.pipeline.context import StepContext, Verdict
from node.pipeline.judging import basis_of, judge_study
from node.pipeline.measurement import FEATURE_LEVEL, Measurements
from node.pipeline.ports import Step
from node.pipeline.selection import selection_of
from node.pipeline.steps import FUNCTIONS
from node.report import SeriesFacts
from scoring.bmd import BmdResult
from scoring.radiomics import feature_names, parse_settings
from segmentation.vertebrae import EngineInfo

_STEPS = (Step.SELECT, Step.SEGMENT, Step.SCORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFeatures:
    """One study's features, or why it has none."""

    study_instance_uid: str
    series: SeriesFacts | None
    engine: EngineInfo | None
    equivalent: str | None
    measured: BmdResult | None  # at the features' level
    values: Mapping[str, float] | None
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """Why there are no features, in the findings' words; empty where there are."""
        if self.values is not None:
            return ""
        told = [one.text for one in self.findings if withheld([one], Output.FEATURES, [FEATURE_LEVEL])]
        return " ".join(told) or f"{FEATURE_LEVEL} was not found"


def study_features(context: StepContext) -> StudyFeatures:
    """Select, segment and measure one study, with every feature that the settings name."""
    text, _ = load_radiomics_settings_text(context.settings.node.site_folder)
    asked = replace(context, feature_names=feature_names(parse_settings(text)))
    for step in _STEPS:
        if FUNCTIONS[step](asked).verdict is not Verdict.PROCEED:
            break
    selection = selection_of(asked)
    made, measurements, engine = asked.artefacts.names(), Measurements(), None
    if MEASUREMENTS in made:
        measurements = from_json(Measurements, asked.artefacts.get(MEASUREMENTS))
    if SEGMENTATION in made:
        engine = segmentation_from_bytes(asked.artefacts.get(SEGMENTATION)).vertebrae.engine
    _, judgement = judge_study(asked, selection, measurements, _without_model(basis_of(asked.settings)))
    level = next((one for one in judgement.levels if one.name == FEATURE_LEVEL), None)
    return StudyFeatures(
        study_instance_uid=selection.study.study_instance_uid,
        series=selection.series,
        engine=engine,
        equivalent=measurements.calibration.equivalent if measurements.calibration else None,
        measured=level.measured if level else None,
        values=judgement.features,
        findings=judgement.findings,
    )


def _without_model(basis: Basis) -> Basis:
    """A cohort's features serve to make a model: what an earlier one thinks of them is no matter."""
    return replace(basis, card=None, card_refusal=None)
