"""The steps that make a report, each a function of its context."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from config.catalog import load_radiomics_settings_text
from config.findings import Finding, Output, withheld
from node.pipeline.artefacts import MEASUREMENTS, SEGMENTATION, from_json, segmentation_from_bytes
from node.pipeline.context import StepContext, StepFunction, Verdict
from node.pipeline.ports import Step
from node.pipeline.steps.judge import Basis, basis_of, judge_study
from node.pipeline.steps.report import report
from node.pipeline.steps.score import FEATURE_LEVEL, Measurements, score
from node.pipeline.steps.segment import segment
from node.pipeline.steps.select import select
from node.pipeline.steps.selection import selection_of
from node.study_report import SeriesFacts
from scoring.density.bmd import BmdResult
from scoring.radiomics import feature_names, parse_settings
from segmentation.vertebrae import EngineInfo

FUNCTIONS: Mapping[Step, StepFunction] = {
    Step.SELECT: select,
    Step.SEGMENT: segment,
    Step.SCORE: score,
    Step.REPORT: report,
}

# The whole journey of one study in this process, without database, broker or network.


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """How far a study came."""

    verdict: Verdict
    reason: str
    timings_s: dict[str, float]


def run_locally(context: StepContext, progress: Callable[[Step], None] = lambda _: None) -> LocalRun:
    """Run select, segment, score and report. A study set aside still gets its refusal written."""
    timings_s: dict[str, float] = {}
    verdict, reason = Verdict.PROCEED, ""
    for step, function in FUNCTIONS.items():
        progress(step)
        started = time.perf_counter()
        result = function(context)
        timings_s[step.value] = time.perf_counter() - started
        if result.verdict is Verdict.NOT_APPLICABLE:
            return LocalRun(verdict=result.verdict, reason=result.reason, timings_s=timings_s)
        if result.verdict is Verdict.SET_ASIDE:
            verdict, reason = result.verdict, result.reason
    return LocalRun(verdict=verdict, reason=reason, timings_s=timings_s)


# All radiomic features of a study: the pipeline as far as that, judged by the same findings as a report.


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
