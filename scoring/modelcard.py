"""The model card: everything that turns features and laboratory values into a score, as one JSON document.

Schema version 1. All keys but two are required, no other keys are allowed, all numbers are finite::

    {
      "schema": "osteonode-model-card", "schema_version": 1,
      "name": str, "version": str,
      "demonstration": bool,
      "notice": str,                    # stands beside every number of the model; a demonstration, which must
                                        # have one too, is marked as such instead
      "positive_class": "osteoporosis", # the class that the probability is of
      "negative_class": "osteopenia",
      "label": str,                     # how the training labels came about
      "rad_score": {
        "intercept": number,
        "features": [{"name": pyradiomics name, "mean": number, "sd": number > 0, "coefficient": number,
                      "origin": "documented" | "chosen"}]   # named by the method's publication or not
      },
      "clinical": {
        "intercept": number,
        "terms": [{"name": "rad_score" | "age" | "alp" | "homocysteine", "label": str, "unit": UCUM str,
                   "coefficient": number, "axis": [from, to], "plausible": [from, to]}]   # each name once
      },
      "applicability": {"kvp": [from, to], "slice_spacing_mm": [from, to], "pixel_spacing_mm": [from, to],
                        "equivalent": "HA" | "K2HPO4",
                        "energy": str, "beam_filter": str},   # these two may be missing: see below
      "software": {str: str},           # what computed features and fit
      "radiomics_settings_sha256": str, # of the settings file's bytes
      "training": {str: str | number | bool}
    }

"energy" is "single" for conventional images, else as tables of features name it ("virtual 70 keV");
"beam_filter" is "none" or what it is made of ("tin"). A card that is silent on them is one of conventional
images behind ordinary filters.

"axis" is the range of the patients that the model was made from, drawn on the nomogram; a value beyond it
gives no probability. "plausible" is the range that is no mistake. Of "training" some keys are read, where
they are given: "cutoff_radiomics" and "cutoff_combined", the probabilities of osteoporosis from which an
evaluation counts a patient as positive, and "studies", digests by which it tells the patients who
trained. A card's identity is the SHA-256 of its canonical JSON (sorted keys, no spaces, UTF-8), whatever
the layout of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from scoring.calibration import Mineral
from scoring.errors import ModelCardInvalid
from scoring.spectrum import CONVENTIONAL, NO_FILTER, Spectrum

SCHEMA = "osteonode-model-card"
SCHEMA_VERSION = 1
CLINICAL_INPUTS = ("rad_score", "age", "alp", "homocysteine")
POSITIVE_CLASS = "osteoporosis"
NEGATIVE_CLASS = "osteopenia"
ORIGINS = ("documented", "chosen")
# Model -> where a card's `training` keeps its cut-off.
CUTOFFS = {"radiomics": "cutoff_radiomics", "combined": "cutoff_combined"}
Range = tuple[float, float]

_FEATURE_NAME = re.compile(
    r"(original|wavelet-[LH]{3})_(shape|firstorder|glcm|gldm|glrlm|glszm|ngtdm)_[0-9A-Za-z]+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFeature:
    """One feature of the rad-score: coefficient * (value - mean) / sd."""

    name: str  # pyradiomics name
    mean: float  # of the training cohort
    sd: float
    coefficient: float
    origin: str  # "documented": named by the publication of the method; "chosen": not


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTerm:
    """One predictor of the combined model: coefficient * value, on the log-odds scale."""

    name: str  # of CLINICAL_INPUTS
    label: str  # as printed
    unit: str  # UCUM
    coefficient: float  # per unit
    axis: Range  # of the patients it was made from; drawn on the nomogram, and not left
    plausible: Range  # values outside are taken for mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicability:
    """What the model was trained on. Inclusive ranges."""

    kvp: Range
    slice_spacing_mm: Range
    pixel_spacing_mm: Range
    equivalent: Mineral  # of the densities behind the labels
    energy: str | None = None  # None: the card is silent, and one of conventional images
    beam_filter: str | None = None  # None: likewise, and ordinary filters

    @property
    def spectrum(self) -> Spectrum:
        """Of the images that it was trained on."""
        return Spectrum(energy=self.energy or CONVENTIONAL, beam_filter=self.beam_filter or NO_FILTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model, whole: see the module's description of its JSON form."""

    name: str
    version: str
    demonstration: bool
    notice: str
    positive_class: str
    negative_class: str
    label: str
    rad_score_intercept: float
    features: tuple[CardFeature, ...]
    clinical_intercept: float
    terms: tuple[CardTerm, ...]  # in the order in which the nomogram shows them
    applicability: Applicability
    software: Mapping[str, str]
    radiomics_settings_sha256: str
    training: Mapping[str, str | int | float | bool]

    @property
    def sha256(self) -> str:
        """Of the canonical JSON of the whole card, nothing left out."""
        return hashlib.sha256(canonical_json(self).encode("utf-8")).hexdigest()

    def term(self, name: str) -> CardTerm:
        return next(term for term in self.terms if term.name == name)


def card_document(card: ModelCard) -> dict[str, Any]:
    """The card as the JSON document that `parse_model_card` reads."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "name": card.name,
        "version": card.version,
        "demonstration": card.demonstration,
        "notice": card.notice,
        "positive_class": card.positive_class,
        "negative_class": card.negative_class,
        "label": card.label,
        "rad_score": {
            "intercept": card.rad_score_intercept,
            "features": [
                {
                    "name": feature.name,
                    "mean": feature.mean,
                    "sd": feature.sd,
                    "coefficient": feature.coefficient,
                    "origin": feature.origin,
                }
                for feature in card.features
            ],
        },
        "clinical": {
            "intercept": card.clinical_intercept,
            "terms": [
                {
                    "name": term.name,
                    "label": term.label,
                    "unit": term.unit,
                    "coefficient": term.coefficient,
                    "axis": list(term.axis),
                    "plausible": list(term.plausible),
                }
                for term in card.terms
            ],
        },
        "applicability": {
            "kvp": list(card.applicability.kvp),
            "slice_spacing_mm": list(card.applicability.slice_spacing_mm),
            "pixel_spacing_mm": list(card.applicability.pixel_spacing_mm),
            "equivalent": card.applicability.equivalent.value,
            **{
                name: told
                for name in _SPECTRUM_KEYS
                if (told := getattr(card.applicability, name)) is not None
            },
        },
        "software": dict(card.software),
        "radiomics_settings_sha256": card.radiomics_settings_sha256,
        "training": dict(card.training),
    }


def canonical_json(card: ModelCard) -> str:
    """One text for one content: sorted keys, no spaces."""
    return json.dumps(
        card_document(card), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def parse_model_card(text: str) -> ModelCard:
    """A card from its JSON form.

    Raises
    ------
    ModelCardInvalid
        If the text is no JSON, a key is missing, unknown or doubled, or a value is not what the schema asks.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelCardInvalid(f"no JSON: {error}") from error
    card = _fields(raw, "card", _CARD_KEYS)
    if (card["schema"], card["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
        raise ModelCardInvalid(f"schema must be {SCHEMA!r}, version {SCHEMA_VERSION}")
    if (card["positive_class"], card["negative_class"]) != (POSITIVE_CLASS, NEGATIVE_CLASS):
        raise ModelCardInvalid(f"classes must be {POSITIVE_CLASS!r} against {NEGATIVE_CLASS!r}")
    if not isinstance(card["demonstration"], bool):
        raise ModelCardInvalid("demonstration must be true or false")
    if not isinstance(card["notice"], str) or (card["demonstration"] and not card["notice"]):
        raise ModelCardInvalid("a demonstration model must carry a notice")
    rad_score = _fields(card["rad_score"], "rad_score", {"intercept", "features"})
    clinical = _fields(card["clinical"], "clinical", {"intercept", "terms"})
    return ModelCard(
        name=_text(card["name"], "name"),
        version=_text(card["version"], "version"),
        demonstration=card["demonstration"],
        notice=card["notice"],
        positive_class=POSITIVE_CLASS,
        negative_class=NEGATIVE_CLASS,
        label=_text(card["label"], "label"),
        rad_score_intercept=_number(rad_score["intercept"], "rad_score.intercept"),
        features=_features(rad_score["features"]),
        clinical_intercept=_number(clinical["intercept"], "clinical.intercept"),
        terms=_terms(clinical["terms"]),
        applicability=_applicability(card["applicability"]),
        software={
            key: _text(value, f"software.{key}") for key, value in _mapping(card["software"], "software")
        },
        radiomics_settings_sha256=_sha256(card["radiomics_settings_sha256"]),
        training=_training(card["training"]),
    )


_CARD_KEYS = {
    "schema", "schema_version", "name", "version", "demonstration", "notice", "positive_class",
    "negative_class", "label", "rad_score", "clinical", "applicability", "software",
    "radiomics_settings_sha256", "training",
}  # fmt: skip


_SPECTRUM_KEYS = ("energy", "beam_filter")  # of a card that says which images it was trained on


def _features(raw: object) -> tuple[CardFeature, ...]:
    features = []
    for index, entry in enumerate(_list(raw, "rad_score.features")):
        where = f"rad_score.features[{index}]"
        fields = _fields(entry, where, {"name", "mean", "sd", "coefficient", "origin"})
        name = _text(fields["name"], f"{where}.name")
        if _FEATURE_NAME.fullmatch(name) is None:
            raise ModelCardInvalid(f"{where}: unknown feature {name!r}")
        if fields["origin"] not in ORIGINS:
            raise ModelCardInvalid(f"{where}.origin must be one of {', '.join(ORIGINS)}")
        sd = _number(fields["sd"], f"{where}.sd")
        if sd <= 0:
            raise ModelCardInvalid(f"{where}.sd must be positive")
        features.append(
            CardFeature(
                name=name,
                mean=_number(fields["mean"], f"{where}.mean"),
                sd=sd,
                coefficient=_number(fields["coefficient"], f"{where}.coefficient"),
                origin=fields["origin"],
            )
        )
    if len({feature.name for feature in features}) != len(features):
        raise ModelCardInvalid("a feature is named twice")
    return tuple(features)


def _terms(raw: object) -> tuple[CardTerm, ...]:
    terms = []
    for index, entry in enumerate(_list(raw, "clinical.terms")):
        where = f"clinical.terms[{index}]"
        fields = _fields(entry, where, {"name", "label", "unit", "coefficient", "axis", "plausible"})
        terms.append(
            CardTerm(
                name=_text(fields["name"], f"{where}.name"),
                label=_text(fields["label"], f"{where}.label"),
                unit=_text(fields["unit"], f"{where}.unit"),
                coefficient=_number(fields["coefficient"], f"{where}.coefficient"),
                axis=_range(fields["axis"], f"{where}.axis"),
                plausible=_range(fields["plausible"], f"{where}.plausible"),
            )
        )
    if sorted(term.name for term in terms) != sorted(CLINICAL_INPUTS):
        raise ModelCardInvalid(f"clinical.terms must name each of {', '.join(CLINICAL_INPUTS)} once")
    if all(term.coefficient == 0 for term in terms):
        raise ModelCardInvalid("clinical.terms has no coefficient other than 0")
    return tuple(terms)


def _applicability(raw: object) -> Applicability:
    required = {"kvp", "slice_spacing_mm", "pixel_spacing_mm", "equivalent"}
    stated = {name for name in _SPECTRUM_KEYS if isinstance(raw, dict) and name in raw}
    fields = _fields(raw, "applicability", required | stated)
    if fields["equivalent"] not in list(Mineral):
        raise ModelCardInvalid(f"applicability.equivalent must be one of {', '.join(Mineral)}")
    return Applicability(
        kvp=_range(fields["kvp"], "applicability.kvp"),
        slice_spacing_mm=_range(fields["slice_spacing_mm"], "applicability.slice_spacing_mm"),
        pixel_spacing_mm=_range(fields["pixel_spacing_mm"], "applicability.pixel_spacing_mm"),
        equivalent=Mineral(fields["equivalent"]),
        **{name: _text(fields[name], f"applicability.{name}") for name in stated},
    )


def _training(raw: object) -> dict[str, str | int | float | bool]:
    found = {key: _scalar(value, f"training.{key}") for key, value in _mapping(raw, "training")}
    for key in CUTOFFS.values():
        if key in found and not 0 <= _number(found[key], f"training.{key}") <= 1:
            raise ModelCardInvalid(f"training.{key} must be a probability")
    return found


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _fields(raw: object, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != keys:
        found = set(raw) if isinstance(raw, dict) else set()
        missing, unknown = ", ".join(sorted(keys - found)), ", ".join(sorted(found - keys))
        raise ModelCardInvalid(f"{where}: missing [{missing}], unknown [{unknown}]")
    return raw


def _mapping(raw: object, where: str) -> list[tuple[str, object]]:
    if not isinstance(raw, dict):
        raise ModelCardInvalid(f"{where} must be an object")
    return list(raw.items())


def _list(raw: object, where: str) -> list[object]:
    if not isinstance(raw, list) or not raw:
        raise ModelCardInvalid(f"{where} must be a list, not empty")
    return raw


def _text(raw: object, where: str) -> str:
    if not isinstance(raw, str) or not raw:
        raise ModelCardInvalid(f"{where} must be a text, not empty")
    return raw


def _number(raw: object, where: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ModelCardInvalid(f"{where} must be a number")
    try:
        value = float(raw)
    except OverflowError as error:
        raise ModelCardInvalid(f"{where} is too large") from error
    if not isfinite(value):
        raise ModelCardInvalid(f"{where} is too large")
    return value


def _scalar(raw: object, where: str) -> str | int | float | bool:
    if not isinstance(raw, str | int | float | bool):
        raise ModelCardInvalid(f"{where} must be a text, a number, true or false")
    return raw


def _range(raw: object, where: str) -> Range:
    if not isinstance(raw, list) or len(raw) != 2:
        raise ModelCardInvalid(f"{where} must be [from, to]")
    lower, upper = _number(raw[0], where), _number(raw[1], where)
    if not lower < upper:
        raise ModelCardInvalid(f"{where}: {lower:g} is not below {upper:g}")
    return lower, upper


def _sha256(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"[0-9a-f]{64}", raw):
        raise ModelCardInvalid("radiomics_settings_sha256 must be 64 hexadecimal digits")
    return raw
