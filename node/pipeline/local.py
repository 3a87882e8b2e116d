"""The whole journey of one study in this process, without database, broker or network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from node.pipeline.context import StepContext, Verdict
from node.pipeline.ports import Step
from node.pipeline.steps import FUNCTIONS


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
