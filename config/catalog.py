"""Phantoms, references, models and feature settings by name: shipped files, overlaid by a site's folder.

A site's folder has the same layout as this package (``phantoms/``, ``references/``, ``models/``,
``radiomics.yaml``); a file there takes the place of the shipped one of the same name. Every loader returns
what it read together with the SHA-256 of the file's bytes, so that a result can say exactly what it used.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from config.findings import load_findings
from config.phantom_files import certified, phantom_of
from config.phrases import LANGUAGES, load_phrases, phrase_files
from config.settings import ConfigurationError, Settings
from config.vocabulary import wide_font
from scoring.calibration import Grade, Mineral
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum
from scoring.density.bmd import AgeBin, Reference
from scoring.errors import ModelCardInvalid
from scoring.models.card import ModelCard, parse_model_card
from scoring.phantoms import PhantomModel
from segmentation.vertebrae import LUMBAR, RegionKind

AUTO = "auto"  # as `calibration.phantom`: the model is recognised among the catalogue's


class CatalogEntryMissing(ConfigurationError, LookupError):
    """No file of that kind and name, neither shipped nor in the site's folder."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no {kind} named {name!r}; known: {', '.join(known) or 'none'}")
        self.kind = kind
        self.name = name
        self.known = known


class CatalogEntryInvalid(ConfigurationError, ValueError):
    """A file that does not describe what its folder promises."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        super().__init__(f"{kind} {name!r}: {reason}")
        self.kind = kind
        self.name = name
        self.reason = reason


def list_phantoms(site: Path | None = None) -> tuple[str, ...]:
    """Names of all phantom models, sorted; a name with a dot is that of a certificate."""
    return tuple(name for name in _names("phantoms", ".toml", site) if "." not in name)


def list_models(site: Path | None = None) -> tuple[str, ...]:
    """Names of all model cards, sorted."""
    return _names("models", ".json", site)


def load_phantom(name: str, site: Path | None = None, *, serial: str = "") -> tuple[PhantomModel, str]:
    """A phantom's model, and the SHA-256 of what it was read from.

    Parameters
    ----------
    serial : of the phantom whose own certificate, the site's ``phantoms/NAME.SERIAL.toml``, states the
        densities; "" for those of the model. With it the SHA-256 is that of both files' bytes in turn.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
    """
    content = _content("phantoms", name, ".toml", site)
    try:
        model = phantom_of(_toml(content))
        if model.name != name:
            raise ValueError(f"it names itself {model.name!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogEntryInvalid("phantom", name, str(error)) from error
    if not serial:
        return _stamped(model, content)
    own = _content("phantoms", f"{name}.{serial}", ".toml", site)
    try:
        certificate = certified(model, _toml(own), serial)
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogEntryInvalid("certificate", f"{name}.{serial}", str(error)) from error
    return _stamped(certificate, content + own)


def _stamped(model: PhantomModel, content: bytes) -> tuple[PhantomModel, str]:
    sha256 = _sha256(content)
    return replace(model, sha256=sha256), sha256


def configured_phantoms(settings: Settings) -> Mapping[str, PhantomModel]:
    """The phantom models that a study may show, by name: the configured one, or those "auto" chooses among.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
    """
    site, wanted = settings.node.site_folder, settings.calibration
    if wanted.phantom != AUTO:
        return {wanted.phantom: load_phantom(wanted.phantom, site, serial=wanted.serial)[0]}
    return {name: load_phantom(name, site)[0] for name in wanted.candidates or list_phantoms(site)}


def load_reference(name: str, site: Path | None = None) -> tuple[Reference, str]:
    """A reference population and the SHA-256 of its file.

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
    """
    content = _content("references", name, ".toml", site)
    try:
        reference = _reference(_toml(content))
        if reference.name != name:
            raise ValueError(f"it names itself {reference.name!r}")
        return reference, _sha256(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogEntryInvalid("reference", name, str(error)) from error


def load_model_card(name: str, site: Path | None = None) -> tuple[ModelCard, str]:
    """A model card and the SHA-256 of its file (`ModelCard.sha256` is that of its canonical content).

    Raises
    ------
    CatalogEntryMissing, CatalogEntryInvalid
    """
    content = _content("models", name, ".json", site)
    try:
        return parse_model_card(content.decode("utf-8")), _sha256(content)
    except (ValueError, ModelCardInvalid) as error:
        raise CatalogEntryInvalid("model", name, str(error)) from error


def load_radiomics_settings_text(site: Path | None = None) -> tuple[str, str]:
    """The feature settings (pyradiomics' parameter format, YAML) and their SHA-256.

    `scoring.radiomics.parse_settings` reads the text: only that module may import pyradiomics.
    """
    content = _content("", "radiomics", ".yaml", site)
    return content.decode("utf-8"), _sha256(content)


def load_golden_features() -> Mapping[str, float]:
    """Every feature of the known image (`scoring.radiomics`), by the shipped settings and stock
    pyradiomics.
    """
    content = json.loads(files("config").joinpath("golden_features.json").read_text("utf-8"))
    return dict(content["features"])


def configuration_sha256(settings: Settings) -> str:
    """Hash of all that a site can change of what a report says: the settings, and the content of every file
    that they name (phantoms and certificates, reference, model card, feature settings, findings, phrases).

    An engine's weights are not among them: the one step that draws names them by their own hash.

    Raises
    ------
    CatalogEntryMissing
        If a named file is gone.
    """
    site, calibration, scoring = settings.node.site_folder, settings.calibration, settings.scoring
    phantoms = [calibration.phantom]
    if calibration.phantom == AUTO:
        phantoms = sorted(calibration.candidates or list_phantoms(site))
    if calibration.serial:
        phantoms.append(f"{calibration.phantom}.{calibration.serial}")
    named = [("phantoms", name, ".toml") for name in phantoms]
    named += [("references", name, ".toml") for name in (scoring.reference,) if name]
    named += [("models", name, ".json") for name in (scoring.model,) if name]
    named += [("", "radiomics", ".yaml"), ("", "findings", ".toml")]
    content = {
        f"{folder}/{name}": _sha256(_content(folder, name, suffix, site)) for folder, name, suffix in named
    }
    content["shipped findings"] = _sha256(files("config").joinpath("findings.toml").read_bytes())
    content |= {name: _sha256(text) for name, text in phrase_files(site).items()}
    content["settings"] = settings.sha256
    return _sha256(json.dumps(content, sort_keys=True).encode())


def require_configured(settings: Settings) -> None:
    """Make sure, before any work, that everything the settings name is there and can be read.

    Raises
    ------
    ConfigurationError
        In one line.
    """
    site, names = settings.node.site_folder, settings.scoring
    if site is not None and not site.is_dir():
        raise ConfigurationError(f"node.site: {site} is no folder")
    load_findings(site)
    for language in LANGUAGES:
        load_phrases(language, site)
    try:
        configured_phantoms(settings)
        for reference in {names.reference, *names.accept_unstated} - {""}:
            load_reference(reference, site)
        if names.model:
            load_model_card(names.model, site)
        wide_font(settings.node)
    except (CatalogEntryMissing, CatalogEntryInvalid) as error:
        raise ConfigurationError(str(error)) from error


def _names(folder: str, suffix: str, site: Path | None) -> tuple[str, ...]:
    found = {entry.name for entry in files("config").joinpath(folder).iterdir()}
    if site is not None and (site / folder).is_dir():
        found |= {entry.name for entry in (site / folder).iterdir()}
    return tuple(sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix)))


def _content(folder: str, name: str, suffix: str, site: Path | None) -> bytes:
    file_name = f"{name}{suffix}"
    if Path(file_name).name != file_name:  # a name, never a path out of the folder
        raise CatalogEntryMissing(folder or "settings", name, ())
    if site is not None and (own := site / folder / file_name).is_file():
        return own.read_bytes()
    shipped = files("config").joinpath(folder, file_name) if folder else files("config").joinpath(file_name)
    if not shipped.is_file():
        raise CatalogEntryMissing(folder or "settings", name, _names(folder, suffix, site) if folder else ())
    return shipped.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _toml(content: bytes) -> dict[str, Any]:
    return tomllib.loads(content.decode("utf-8"), parse_float=_finite)


def _finite(text: str) -> float:
    """TOML allows nan, which would pass every limit that it is compared with."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


# R: what a population of adults can have. Outside, a file is in other units or mistyped.
_MEANS_MG_CM3 = (20.0, 400.0)
_SDS_MG_CM3 = (2.0, 100.0)
_YOUNG = (18, 45)  # R: years

_REFERENCE_KEYS = frozenset(
    {"name", "population", "authority", "source", "sex", "equivalent", "levels", "young", "ages", "kvp"}
    | {"demonstration", "roi", "grades", "levels_stated", "energy", "beam_filter"}
)


def _reference(raw: Mapping[str, Any]) -> Reference:
    if unknown := sorted(set(raw) - _REFERENCE_KEYS):  # a misspelt `roi` would be left unstated
        raise ValueError(f"a reference has no {', '.join(unknown)}")
    levels = raw["levels"]
    if not levels or not set(levels) <= set(LUMBAR) or len(set(levels)) < len(levels):
        raise ValueError(f"levels must be some of {', '.join(LUMBAR)}, none of them twice")
    if raw["sex"] not in ("M", "F", "any"):
        raise ValueError(f"sex must be M, F or any, not {raw['sex']!r}")
    for name in ("name", "population", "source"):
        if not str(raw[name]).strip():
            raise ValueError(f"its {name} is empty: who was measured, and who says so, must be stated")
    for name in ("demonstration", "levels_stated"):
        if not isinstance(raw.get(name, True), bool):
            raise ValueError(f"{name} must be true or false")
    return Reference(
        name=str(raw["name"]),
        population=str(raw["population"]),
        authority=str(raw["authority"]),
        source=str(raw["source"]),
        sex=raw["sex"],
        equivalent=Mineral(raw["equivalent"]),
        levels=tuple(str(level) for level in raw["levels"]),
        young=_young(raw["young"]),
        ages=_ages(raw.get("ages", ())),
        kvp=_tube_voltages(raw["kvp"]) if "kvp" in raw else None,
        demonstration=raw["demonstration"],
        roi=RegionKind(raw["roi"]) if "roi" in raw else None,
        levels_stated=raw.get("levels_stated", True),
        spectrum=Spectrum(
            energy=str(raw.get("energy", CONVENTIONAL)), beam_filter=str(raw.get("beam_filter", NO_FILTER))
        ),
        grades=_grades(raw.get("grades", (Grade.PHANTOM,))),
    )


def _grades(raw: Sequence[str]) -> tuple[Grade, ...]:
    grades = tuple(Grade(name) for name in raw)
    if not grades or Grade.INTERNAL in grades:
        raise ValueError("grades are phantom, asynchronous, or both: internal calibration gives no score")
    return grades


def _ages(raw: Sequence[Mapping[str, Any]]) -> tuple[AgeBin, ...]:
    """Bins by rising age. One that overlaps another would have the file's order choose the Z-score."""
    ages = tuple(sorted((_age_bin(entry) for entry in raw), key=lambda one: one.age_from))
    for younger, older in pairwise(ages):
        if older.age_from <= younger.age_to:
            raise ValueError(f"two age bins hold the age of {older.age_from}")
        if older.age_from > younger.age_to + 1:
            raise ValueError(f"no age bin holds the age of {younger.age_to + 1}")
    return ages


def _young(raw: Mapping[str, Any]) -> AgeBin:
    """Who T-scores compare with: at the age of peak bone mass, or T would be a Z-score by another name."""
    young = _age_bin(raw)
    if young.age_from < _YOUNG[0] or young.age_to > _YOUNG[1]:
        raise ValueError(f"young adults are {_YOUNG[0]} to {_YOUNG[1]} years old, not {raw!r}")
    return young


def _age_bin(raw: Mapping[str, Any]) -> AgeBin:
    if unknown := sorted(set(raw) - {"age_from", "age_to", "mean_mg_cm3", "sd_mg_cm3"}):
        raise ValueError(f"an age bin has no {', '.join(unknown)}")
    for name in ("age_from", "age_to"):
        if type(raw[name]) is not int:  # which a bool is not either
            raise ValueError(f"{name} must be a whole number of years, not {raw[name]!r}")
    ages = AgeBin(
        age_from=raw["age_from"],
        age_to=raw["age_to"],
        mean_mg_cm3=float(raw["mean_mg_cm3"]),
        sd_mg_cm3=float(raw["sd_mg_cm3"]),
    )
    if not 0 <= ages.age_from <= ages.age_to:
        raise ValueError(f"impossible age bin {raw!r}")
    for name, value, (lower, upper) in (
        ("mean_mg_cm3", ages.mean_mg_cm3, _MEANS_MG_CM3),
        ("sd_mg_cm3", ages.sd_mg_cm3, _SDS_MG_CM3),
    ):
        if not lower <= value <= upper:
            raise ValueError(f"{name} = {value:g} does not lie between {lower:g} and {upper:g} mg/cm3")
    return ages


def _tube_voltages(raw: Any) -> tuple[float, float]:
    lower, upper = _pair(raw)
    if not lower > 0:
        raise ValueError(f"{raw!r} are no tube voltages")
    return lower, upper


def _pair(raw: Any) -> tuple[float, float]:
    lower, upper = (float(value) for value in raw)
    if not lower < upper:
        raise ValueError(f"{raw!r} is no range")
    return lower, upper
