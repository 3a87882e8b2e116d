"""The steps that make a report, each a function of its context."""

from __future__ import annotations

from collections.abc import Mapping

from node.pipeline.context import StepFunction
from node.pipeline.ports import Step
from node.pipeline.steps.report import report
from node.pipeline.steps.score import score
from node.pipeline.steps.segment import segment
from node.pipeline.steps.select import select

FUNCTIONS: Mapping[Step, StepFunction] = {
    Step.SELECT: select,
    Step.SEGMENT: segment,
    Step.SCORE: score,
    Step.REPORT: report,
}
