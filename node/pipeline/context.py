"""What a step is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from config.settings import Settings
from node.pipeline.engine import Settled
from node.pipeline.ports import Artefacts, ClinicalValues, Issue, PatientHistory, ScannerHistory
from node.study_report import Completeness


class Verdict(StrEnum):
    """Where a step leaves the study."""

    PROCEED = "proceed"
    NOT_APPLICABLE = "not applicable"  # not a QCT study: nothing goes back
    SET_ASIDE = "set aside"  # a person must look: nothing is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    verdict: Verdict
    reason: str = ""  # for the operator; without patient identity


PROCEED = StepResult(verdict=Verdict.PROCEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """Everything a step may use. Steps read and write artefacts; they know no database and no broker."""

    settings: Settings
    instances: Sequence[Path]  # Part 10 files of the study; other files are ignored
    artefacts: Artefacts
    engine: Callable[[], Settled]  # built on first use, kept by the caller
    clinical: ClinicalValues
    issue: Callable[[], Issue]  # minted once per generation
    called_ae_titles: frozenset[str] = frozenset()  # under which the instances arrived
    declared_qct: bool = False  # True where a person asked for this study by name
    scanners: ScannerHistory | None = None  # None where nothing is remembered
    patients: PatientHistory | None = None  # likewise
    completeness: Completeness | None = None  # None where nothing was waited for
    begun_again: str | None = None  # why, where the first steps were done twice
    feature_names: tuple[str, ...] | None = None  # to compute; None: those that the model asks for


StepFunction = Callable[[StepContext], StepResult]
