"""What the pure rooms notice: a code and its particulars, without words or consequences.

The words (per language), the severity and the outputs that are withheld stand in config/findings.toml alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Something worth telling a reader about a study or one of its levels."""

    code: str  # a key of config/findings.toml
    level: str | None = None  # "L3", or None where it concerns the study
    values: Mapping[str, str | int | float] = field(default_factory=dict)  # fill the text's placeholders
