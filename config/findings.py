"""The table of findings: words, severity and consequences of everything the node may notice."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, Protocol, TypeVar

from pydantic import AfterValidator, TypeAdapter

from config.phrases import ENGLISH, Phrasebook, load_phrases
from config.settings import ConfigurationError
from scoring.errors import reasons
from segmentation.vertebrae import UNNAMED, Observation


class Severity(StrEnum):
    INFO = "info"  # worth knowing, nothing is withheld on its account alone
    CAUTION = "caution"  # the reader must weigh it; some outputs may be withheld
    REFUSAL = "refusal"  # the study, or the level it names, is not measured


class Output(StrEnum):
    """What a finding can withhold. Per level: volume, hu, bmd. The rest belong to the study."""

    VOLUME = "volume"
    HU = "hu"
    BMD = "bmd"
    T_SCORE = "t_score"
    Z_SCORE = "z_score"
    DENSITY_CATEGORY = "density_category"
    STUDY_CLASS = "study_class"
    NORMAL = "normal"  # as category and as class: withheld alone, any other value of either stands
    FEATURES = "features"
    RAD_SCORE = "rad_score"
    NOMOGRAM = "nomogram"


# An output that cannot stand without another: a row that withholds the key must withhold these too. NORMAL is
# a value of two other outputs: it goes with either, and nothing follows from it.
FOLLOWS: Mapping[Output, frozenset[Output]] = {
    Output.HU: frozenset({Output.BMD}),
    Output.BMD: frozenset({Output.T_SCORE, Output.Z_SCORE, Output.DENSITY_CATEGORY}),
    Output.T_SCORE: frozenset({Output.STUDY_CLASS, Output.RAD_SCORE}),
    Output.FEATURES: frozenset({Output.RAD_SCORE}),
    Output.RAD_SCORE: frozenset({Output.NOMOGRAM}),
}


_SLICE = "slice "  # before the number of a slice whose level is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An observation in words, with its consequences."""

    code: str
    severity: Severity
    text: str  # English: for the structured report, result.json and logs
    level: str | None
    withholds: frozenset[Output]
    local_text: str | None = None  # in the site's language; None where that is English

    @property
    def shown(self) -> str:
        """The text for readers at the site."""
        return self.text if self.local_text is None else self.local_text


def _in_english(text: Mapping[str, str]) -> Mapping[str, str]:
    if ENGLISH not in text:
        raise ValueError("has no English text")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One row of findings.toml, under the finding's code."""

    severity: Severity
    withholds: frozenset[Output]
    hazard: str  # what could happen to a patient if this went unsaid
    text: Annotated[Mapping[str, str], AfterValidator(_in_english)]  # language -> text with {placeholders}


_ROWS = TypeAdapter(dict[str, FindingRow])


class Graded(Protocol):
    """Anything of a severity."""

    @property
    def severity(self) -> Severity: ...


AnyGraded = TypeVar("AnyGraded", bound=Graded)


def gravest_first(findings: Iterable[AnyGraded]) -> list[AnyGraded]:
    """Refusals, then cautions, then what is only worth knowing; within each as given."""
    grave = (Severity.REFUSAL, Severity.CAUTION, Severity.INFO)
    return sorted(findings, key=lambda finding: grave.index(finding.severity))


class UnknownFinding(KeyError):
    """An observation whose code stands in no row of the table."""


class FindingTable:
    """All rows of findings.toml.

    Parameters
    ----------
    site : the folder of a site, whose phrases findings fill in.
    """

    def __init__(self, rows: Mapping[str, FindingRow], site: Path | None = None) -> None:
        self.rows = rows
        self._site = site

    def phrases(self, language: str) -> Phrasebook:
        """What findings fill in, in one language."""
        return load_phrases(language, self._site)

    def describe(self, observation: Observation, language: str = ENGLISH) -> Finding:
        """The finding for an observation, in English and in the site's `language`.

        A row without words in that language is shown in English.

        Raises
        ------
        UnknownFinding
            If the table has no such code.
        """
        row = self.rows.get(observation.code)
        if row is None:
            raise UnknownFinding(observation.code)
        local = None if language == ENGLISH else row.text.get(language)
        return Finding(
            code=observation.code,
            severity=row.severity,
            text=_filled(row.text[ENGLISH], observation, self.phrases(ENGLISH)),
            level=observation.level,
            withholds=row.withholds,
            local_text=_filled(local, observation, self.phrases(language)) if local else None,
        )


def level_in_words(level: str, say: Phrasebook) -> str:
    """What a level is called, or a slice or body whose level is not known."""
    if level.startswith(_SLICE):
        return say("slice-numbered", number=level.removeprefix(_SLICE))
    return unnamed_in_words(level, say)


def unnamed_in_words(text: str, say: Phrasebook) -> str:
    """The text with each body without a name called by its place, as in "lumbar body 1 of 3"."""
    return UNNAMED.sub(lambda found: say("body-numbered", number=found[1], count=found[2]), text)


def _filled(template: str, observation: Observation, say: Phrasebook) -> str:
    level = level_in_words(observation.level, say) if observation.level else say("the-study")
    values = {name: unnamed_in_words(say.words(value), say) for name, value in observation.values.items()}
    return Formatter().vformat(template, (), {"level": level, **values})


def withheld(findings: Iterable[Finding], output: Output, levels: Iterable[str] = ()) -> bool:
    """Whether any finding withholds `output`.

    Parameters
    ----------
    levels : the vertebral levels that the output rests on. A finding that names a level counts only for
        outputs that rest on that level; one that names none counts for all.
    """
    resting_on = frozenset(levels)
    return any(
        output in finding.withholds and (finding.level is None or finding.level in resting_on)
        for finding in findings
    )


def parse_findings(text: str) -> FindingTable:
    """The table in TOML form -> `FindingTable`.

    Raises
    ------
    ValueError
        If a row lacks a field, names an unknown output or severity, or has no English text.
    """
    return FindingTable(_ROWS.validate_python(tomllib.loads(text)))


def load_findings(site: Path | None = None) -> FindingTable:
    """The shipped table, overlaid row by row with ``findings.toml`` of a site's folder.

    Raises
    ------
    ConfigurationError
        If the site's file cannot be read, or a row of it names no finding, fills in what the finding does not
        have, or withholds too little; with every such row.
    """
    table = dict(parse_findings(files("config").joinpath("findings.toml").read_text("utf-8")).rows)
    if site is not None and (overlay := site / "findings.toml").exists():
        table |= _overlaid(table, overlay)
    return FindingTable(table, site)


def _overlaid(shipped: Mapping[str, FindingRow], overlay: Path) -> Mapping[str, FindingRow]:
    try:
        rows = parse_findings(overlay.read_text("utf-8")).rows
    except OSError as error:
        raise ConfigurationError(f"{overlay}: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{overlay}: {reasons(error, 'the table')}") from error
    wrong = [
        f"{code}: {reason}" for code, row in rows.items() for reason in _objections(row, shipped.get(code))
    ]
    if wrong:
        raise ConfigurationError(f"{overlay}: {'; '.join(wrong)}")
    return rows


def _objections(row: FindingRow, shipped: FindingRow | None) -> Iterator[str]:
    """What would make a row fail when its finding is told, or let an output through that cannot stand."""
    if shipped is None:
        yield "no finding has this code"
        return
    known = {"level", *_placeholders(shipped.text[ENGLISH])}
    for language, text in row.text.items():
        try:
            unknown = _placeholders(text) - known
        except ValueError as error:
            yield f"its text ({language}) has braces that do not match ({error})"
            continue
        if unknown:
            yield f"its text ({language}) fills in {', '.join(sorted(unknown))}: the finding has none such"
    for output in sorted(row.withholds):
        if lacking := FOLLOWS.get(output, frozenset()) - row.withholds:
            yield f"it withholds {output} but not {', '.join(sorted(lacking))}, which depends on it"
    if row.severity is Severity.REFUSAL and (lacking := _least_of_refusal(shipped) - row.withholds):
        yield f"it refuses and does not withhold {', '.join(sorted(lacking))}"


def _least_of_refusal(shipped: FindingRow) -> frozenset[Output]:
    """What a row must withhold as a refusal: what the shipped row does, density in any case."""
    least = (
        frozenset({Output.BMD, Output.STUDY_CLASS, Output.RAD_SCORE, Output.NOMOGRAM}) | FOLLOWS[Output.BMD]
    )
    return least | shipped.withholds if shipped.severity is Severity.REFUSAL else least


def _placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}
