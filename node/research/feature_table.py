"""The table that `osteonode features` wrote, with what stands beside it: checked before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from node.research.extraction import ABOUT, made_with_sha256
from node.research.rows import first_of, read_rows, repeated
from scoring.calibration import Mineral
from scoring.decimals import decimal
from scoring.errors import RadiomicsSettingsInvalid
from scoring.radiomics import feature_names, parse_settings
from scoring.training.errors import CohortUnusable

SPECTRUM = ("energy", "beam_filter")  # which a table of an earlier version, or made by hand, may lack
MEASURES = ("kvp", "slice_spacing_mm", "pixel_spacing_mm")  # of a study's technique; may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeWith:
    """What a table's features were made with, as far as a model depends on it."""

    radiomics_settings_sha256: str
    provided: frozenset[str]  # features that these settings give
    packages: Mapping[str, str]  # name -> version


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Features by study."""

    names: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]  # by the study's resolved path
    made_with: MadeWith

    @property
    def silent(self) -> int:
        """How many studies with features state no energy type: they count as conventional images."""
        return sum(not row["energy"] for row in self.rows.values() if not row["reason"])


def study_key(study: str, folder: Path) -> str:
    """A study's resolved path, as a table in `folder` names it."""
    return str((folder / study).resolve())


def read_features(path: Path) -> FeatureTable:
    """A table of features with the settings beside it. A relative study counts from the table's own folder.

    Raises
    ------
    CohortUnusable
        If it is none, holds a study twice, a feature that the settings beside it do not give, or what is no
        number, no such mineral or no such settings, or rows were made with settings that differ, or are not
        those beside it.
    """
    rows = read_rows(path)
    lacking = [name for name in ABOUT if not rows or name not in {*rows[0], *SPECTRUM}]
    if lacking:
        raise CohortUnusable(f"{path} is no table of osteonode features: it lacks {', '.join(lacking)}")
    if len({row["settings_sha256"] for row in rows}) > 1:
        raise CohortUnusable(f"{path} holds features made with different settings")
    names = tuple(name for name in rows[0] if name not in ABOUT)
    made_with = _made_with(path.with_name(path.name + ".json"), rows[0]["settings_sha256"])
    if unknown := [name for name in names if name not in made_with.provided]:
        raise CohortUnusable(
            f"{path} holds columns that are no features of these settings: {first_of(unknown)}"
        )
    rows = [dict.fromkeys(SPECTRUM, "") | row for row in rows]
    keys = [study_key(row["study"], path.parent) for row in rows]
    if twice := repeated(keys):
        raise CohortUnusable(f"{path} holds these studies twice: {', '.join(twice)}")
    odd = [told for row in rows if not row["reason"] for told in _odd_cells(row, names)]
    if odd:
        raise CohortUnusable(f"{path}: {len(odd)} values cannot be: {first_of(odd)}")
    return FeatureTable(names=names, rows=dict(zip(keys, rows, strict=True)), made_with=made_with)


def _odd_cells(row: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    """Features that are no finite numbers, technique that is not positive, a mineral that is none."""
    odd = [name for name in names if not isfinite(_number(row[name]))]
    odd += [name for name in MEASURES if row[name] and not 0 < _number(row[name]) < float("inf")]
    if row["equivalent"] not in ("", *Mineral):
        odd.append("equivalent")
    return [f"{name} of {row['study']} ({row[name]!r})" for name in odd]


def _number(cell: str) -> float:
    """NaN for what is none."""
    found = decimal(cell)
    return nan if found is None else found


def _made_with(path: Path, settings_sha256: str) -> MadeWith:
    try:
        raw: Any = json.loads(path.read_text("utf-8"))
        sha256, packages = raw["radiomics_settings_sha256"], dict(raw["packages"])
        text = str(raw["radiomics_settings"])
        provided = frozenset(feature_names(parse_settings(text)))
    except (OSError, ValueError, TypeError, KeyError, RadiomicsSettingsInvalid) as error:
        raise CohortUnusable(f"{path} must say how the features were made: {error!r}") from error
    if sha256 != hashlib.sha256(text.encode()).hexdigest():
        raise CohortUnusable(f"{path}: radiomics_settings_sha256 is not of radiomics_settings")
    if not all(isinstance(one, str) and one for one in packages.values()):
        raise CohortUnusable(f"{path}: packages must name a version of each")
    if made_with_sha256(raw) != settings_sha256:
        raise CohortUnusable(f"{path} is not of the settings that the table's features were made with")
    return MadeWith(radiomics_settings_sha256=sha256, provided=provided, packages=packages)
