"""Phantoms, references, models and feature settings by name: shipped files, overlaid by a site's folder.

A site's folder has the same layout as this package (``phantoms/``, ``references/``, ``models/``,
``radiomics.yaml``); a file there takes the place of the shipped one of the same name. Every loader returns
what it read together with the SHA-256 of the file's bytes, so that a result can say exactly what it used.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from config.findings import load_findings
from config.phrases import LANGUAGES, load_phrases, phrase_files, wide_font
from config.settings import ConfigurationError, Settings
from config.site_files import certified, phantom_of, reference_of
from scoring.density.bmd import Reference
from scoring.errors import ModelCardInvalid, reasons
from scoring.models.card import ModelCard, parse_model_card
from scoring.phantoms import PhantomModel

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
    except ValueError as error:
        raise CatalogEntryInvalid("phantom", name, reasons(error, "a phantom")) from error
    if not serial:
        return _stamped(model, content)
    own = _content("phantoms", f"{name}.{serial}", ".toml", site)
    try:
        certificate = certified(model, _toml(own), serial)
    except ValueError as error:
        raise CatalogEntryInvalid(
            "certificate", f"{name}.{serial}", reasons(error, "a certificate")
        ) from error
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
        reference = reference_of(_toml(content))
        if reference.name != name:
            raise ValueError(f"it names itself {reference.name!r}")
        return reference, _sha256(content)
    except ValueError as error:
        raise CatalogEntryInvalid("reference", name, reasons(error, "a reference")) from error


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
        raise ConfigurationError(f"node.site: {site} is not a folder")
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
        raise ValueError(f"{text} is not a number")
    return value
