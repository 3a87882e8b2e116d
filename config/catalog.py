"""Phantoms, references, models and feature settings by name: shipped files, overlaid by a site's folder.

A site's folder has the same layout as this package (``phantoms/``, ``references/``, ``models/``,
``radiomics.yaml``); a file there takes the place of the shipped one of the same name. Every loader returns
what it read together with the SHA-256 of the file's bytes, so that a result can say exactly what it used.

Here also stands what the files of a phantom, of its own certificate and of a reference population must say.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from config.findings import load_findings
from config.phrases import LANGUAGES, load_phrases, phrase_files, wide_font
from config.settings import ConfigurationError, Settings
from scoring.calibration import FitRules, Grade, Mineral
from scoring.calibration.methods import LEAST_SQUARES, MINDWAYS, TWO_POINT
from scoring.calibration.methods import RODS as MINDWAYS_RODS
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum
from scoring.density.bmd import AgeBin, Reference
from scoring.errors import ModelCardInvalid, reasons
from scoring.models.card import ModelCard, parse_model_card
from scoring.phantoms import PhantomLimits, PhantomModel, RodModel
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


# What the files say.

# R: phantoms of one model differ by a few mg/cm3; what differs by more was mistyped, or is another rod's.
_CERTIFIED_WITHIN = 0.15
_CERTIFIED_WITHIN_MG_CM3 = 10.0
_WATER_WITHIN = 0.05
_TABLES = ("sigma_ref", "hu_per_mg")  # of [fit]: rows of kV, lowest, highest


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"{pair[0]:g} to {pair[1]:g} is not a range")
    return pair


def _stated(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty and must be stated: who was measured, by whom, who says so")
    return text


Pair = Annotated[tuple[float, float], AfterValidator(_rising)]
Stated = Annotated[str, AfterValidator(_stated)]


class SiteFile(BaseModel):
    """A file that people write. A key that nothing reads is refused: it may be another one, misspelt."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


def _limit(raw: Any) -> Any:
    """A limit is a number: unlike other numbers, none is read out of a text or `true`."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw < 0:
        raise ValueError(f"must be a number, not negative: {raw!r}")
    return raw


def _limits(raw: Any) -> Any:
    for key, value in raw.items() if isinstance(raw, Mapping) else ():
        try:
            _limit(0 if key in _TABLES else value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return raw


def _sound(rules: FitRules) -> FitRules:
    if not 0 <= rules.r2_refused_below <= rules.r2_doubted_below <= 1:
        raise ValueError("0 <= r2_refused_below <= r2_doubted_below <= 1 does not hold")
    for name in _TABLES:
        rows = getattr(rules, name)
        if not rows or any(a[0] >= b[0] for a, b in pairwise(rows)):
            raise ValueError(f"{name} needs rows of rising tube voltage")
        if any(not 0 < low < high for _, low, high in rows):
            raise ValueError(f"{name} needs slopes above 0, the lowest before the highest")
    return rules


def _rod(rod: RodModel) -> RodModel:
    _rising(rod.expected_hu)
    _rising(rod.search_hu)
    return rod


def _by_hu(rods: tuple[RodModel, ...]) -> tuple[RodModel, ...]:
    return tuple(sorted(rods, key=lambda rod: sum(rod.expected_hu)))


class _PhantomFile(SiteFile):
    """The fields of a `PhantomModel`; its rules are the shipped ones, but for what [fit] states."""

    name: str
    manufacturer: str
    equivalent: Mineral
    method: Literal["two-point", "least-squares", "mindways"]
    rods: Annotated[tuple[Annotated[RodModel, AfterValidator(_rod)], ...], AfterValidator(_by_hu)]
    body_hu: Pair
    roi_margin_mm: Annotated[float, BeforeValidator(_limit)]
    limits: Annotated[PhantomLimits, BeforeValidator(_limits)]
    source: str
    fit: Annotated[FitRules, BeforeValidator(_limits), AfterValidator(_sound)] = FitRules()


class _CertifiedRod(SiteFile):
    name: str
    density_mg_cm3: float
    water_mg_cm3: float | None = None  # where a rod is certified as mineral and water


class _Certificate(SiteFile):
    """All that a certificate states: nothing else of a phantom differs from its model."""

    model: str
    serial: str
    source: Stated
    rods: tuple[_CertifiedRod, ...]


def phantom_of(raw: Mapping[str, Any]) -> PhantomModel:
    """A phantom model from its file's content.

    Raises
    ------
    ValueError
        If something is missing or makes no sense.
    """
    stated = dict(_PhantomFile.model_validate(raw))
    model = PhantomModel(rules=stated.pop("fit"), **stated)
    if len(model.rods) < 2 or model.rod_distance_mm <= 0:
        raise ValueError("a phantom needs two rods apart from each other")
    if len({rod.name for rod in model.rods}) < len(model.rods):
        raise ValueError("two rods have the same name")
    if any(rod.diameter_mm / 2 <= model.roi_margin_mm for rod in model.rods):
        raise ValueError("roi_margin_mm leaves nothing of a rod")
    _require_suited(model)
    return model


def certified(model: PhantomModel, raw: Mapping[str, Any], serial: str) -> PhantomModel:
    """`model` with the densities of one phantom's own certificate, and nothing else changed.

    Parameters
    ----------
    raw : the certificate's file.

    Raises
    ------
    ValueError
        If it is another phantom's, does not name each rod once, or says anything else.
    """
    certificate = _Certificate.model_validate(raw)
    if (certificate.model, certificate.serial) != (model.name, serial):
        raise ValueError(f"this is the certificate of {certificate.model} {certificate.serial}")
    given = {rod.name: rod for rod in certificate.rods}
    if len(given) != len(certificate.rods) or set(given) != {rod.name for rod in model.rods}:
        raise ValueError(f"it must name each of the rods {', '.join(rod.name for rod in model.rods)} once")
    own = replace(
        model,
        rods=tuple(_certified_rod(rod, given[rod.name]) for rod in model.rods),
        source=f"{model.source} Densities of {serial}: {certificate.source}",
        serial=serial,
    )
    _require_suited(own)
    return own


def _certified_rod(rod: RodModel, own: _CertifiedRod) -> RodModel:
    if (own.density_mg_cm3 == 0) != (rod.density_mg_cm3 == 0):
        raise ValueError(f"rod {rod.name}: a water rod is not a mineral rod")
    allowed = max(_CERTIFIED_WITHIN * abs(rod.density_mg_cm3), _CERTIFIED_WITHIN_MG_CM3)
    if abs(own.density_mg_cm3 - rod.density_mg_cm3) > allowed:
        raise ValueError(f"rod {rod.name}: {own.density_mg_cm3:g} mg/cm3 is another rod's, or mistyped")
    water, nominal = own.water_mg_cm3, rod.water_mg_cm3
    if water is not None and nominal is not None and abs(water - nominal) > _WATER_WITHIN * nominal:
        raise ValueError(f"rod {rod.name}: {water:g} mg/cm3 of water is another rod's, or mistyped")
    return replace(rod, density_mg_cm3=own.density_mg_cm3, water_mg_cm3=water)


def _require_suited(model: PhantomModel) -> None:
    """Raise ValueError where the method's formula does not hold for these rods."""
    densities = sorted(rod.density_mg_cm3 for rod in model.rods)
    dissolved = [rod.water_mg_cm3 is not None for rod in model.rods]
    if model.method == MINDWAYS:
        if model.equivalent is not Mineral.K2HPO4 or len(model.rods) != MINDWAYS_RODS:
            raise ValueError(f"method {MINDWAYS!r} needs {MINDWAYS_RODS} rods of {Mineral.K2HPO4}")
        if not all(dissolved):
            raise ValueError(f"method {MINDWAYS!r} needs water_mg_cm3 of every rod")
    elif any(dissolved):
        raise ValueError(f"water_mg_cm3 belongs to method {MINDWAYS!r}: {model.method!r} would ignore it")
    elif densities[0] < 0:
        raise ValueError(f"method {model.method!r} takes no density below 0")
    if model.method == TWO_POINT and not (len(densities) == 2 and densities[0] == 0 < densities[1]):
        raise ValueError(f"method {TWO_POINT!r} needs two rods, one of water (density 0) and one of mineral")
    if model.method == LEAST_SQUARES:
        if len(set(densities)) < len(densities):
            raise ValueError("two rods have the same density: their order is undefined")
        if sum(density <= model.rules.fit_up_to_mg_cm3 for density in densities) < 2:
            raise ValueError(f"fit_up_to_mg_cm3 leaves method {LEAST_SQUARES!r} fewer than two rods")


# Reference populations.


_YOUNG = (18, 45)  # R: years


def _whole_years(raw: Any) -> Any:
    if type(raw) is not int:  # which a bool is not either
        raise ValueError(f"must be a whole number of years, not {raw!r}")
    return raw


_Years = Annotated[int, BeforeValidator(_whole_years), Field(ge=0)]


class _AgeBin(SiteFile):
    age_from: _Years
    age_to: _Years
    # R: what a population of adults can have. Outside, a file is in other units or mistyped.
    mean_mg_cm3: float = Field(ge=20.0, le=400.0)
    sd_mg_cm3: float = Field(ge=2.0, le=100.0)


def _bin(ages: _AgeBin) -> AgeBin:
    if ages.age_from > ages.age_to:
        raise ValueError(f"age_from {ages.age_from} is above age_to {ages.age_to}")
    return AgeBin(**dict(ages))


def _young(ages: AgeBin) -> AgeBin:
    """Who T-scores compare with: at the age of peak bone mass, or T would be a Z-score by another name."""
    if ages.age_from < _YOUNG[0] or ages.age_to > _YOUNG[1]:
        raise ValueError(f"young adults are {_YOUNG[0]} to {_YOUNG[1]} years old")
    return ages


def _adjoining(ages: tuple[AgeBin, ...]) -> tuple[AgeBin, ...]:
    """Bins by rising age. One that overlaps another would have the file's order choose the Z-score."""
    ages = tuple(sorted(ages, key=lambda one: one.age_from))
    for younger, older in pairwise(ages):
        if older.age_from <= younger.age_to:
            raise ValueError(f"two age bins hold the age of {older.age_from}")
        if older.age_from > younger.age_to + 1:
            raise ValueError(f"no age bin holds the age of {younger.age_to + 1}")
    return ages


def _lumbar(levels: tuple[str, ...]) -> tuple[str, ...]:
    if not levels or not set(levels) <= set(LUMBAR) or len(set(levels)) < len(levels):
        raise ValueError(f"must be some of {', '.join(LUMBAR)}, none of them twice")
    return levels


def _scored(grades: tuple[Grade, ...]) -> tuple[Grade, ...]:
    if not grades or Grade.INTERNAL in grades:
        raise ValueError("are phantom, asynchronous, or both: internal calibration gives no score")
    return grades


def _tube_voltages(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] > 0:
        raise ValueError(f"{pair[0]:g} is not a tube voltage")
    return pair


_Bin = Annotated[_AgeBin, AfterValidator(_bin)]


class _ReferenceFile(SiteFile):
    name: Stated
    population: Stated
    authority: str
    source: Stated
    sex: Literal["M", "F", "any"]
    equivalent: Mineral
    levels: Annotated[tuple[str, ...], AfterValidator(_lumbar)]
    young: Annotated[_Bin, AfterValidator(_young)]
    ages: Annotated[tuple[_Bin, ...], AfterValidator(_adjoining)] = ()
    kvp: Annotated[Pair, AfterValidator(_tube_voltages)] | None = None
    demonstration: StrictBool
    roi: RegionKind | None = None
    levels_stated: StrictBool = True
    energy: str = CONVENTIONAL
    beam_filter: str = NO_FILTER
    grades: Annotated[tuple[Grade, ...], AfterValidator(_scored)] = (Grade.PHANTOM,)


def reference_of(raw: Mapping[str, Any]) -> Reference:
    """A reference population from its file's content.

    Raises
    ------
    ValueError
        If something is missing or makes no sense.
    """
    stated = dict(_ReferenceFile.model_validate(raw))
    spectrum = Spectrum(energy=stated.pop("energy"), beam_filter=stated.pop("beam_filter"))
    return Reference(spectrum=spectrum, **stated)
