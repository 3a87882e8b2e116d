"""The model card, as one JSON document, and what it computes: the rad-score and the nomogram.

A card holds everything that turns features and laboratory values into a score. The document has the fields of
`ModelCard`: all but `applicability.energy` and `applicability.beam_filter` are required, no others are
allowed, and all numbers are finite. "energy" is "single" for conventional images, else as tables of features
name it ("virtual 70 keV"); "beam_filter" is "none" or what it is made of ("tin"). A card that is silent on
them is one of conventional images behind ordinary filters.

Of `training` some keys are read, where they are given: "cutoff_radiomics" and "cutoff_combined", the
probabilities of osteoporosis from which an evaluation counts a patient as positive, and "studies", digests by
which it identifies the training patients. A card's identity is the SHA-256 of its canonical JSON (sorted
keys, no spaces, UTF-8), whatever the layout of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from scoring.calibration import Mineral
from scoring.calibration.spectrum import CONVENTIONAL, NO_FILTER, Spectrum
from scoring.errors import LaboratoryMissing, ModelCardInvalid, UnknownFeature, reasons

SCHEMA: Final = "osteonode-model-card"
SCHEMA_VERSION: Final = 1
CLINICAL_INPUTS = ("rad_score", "age", "alp", "homocysteine")
NEGATIVE_CLASS = "osteopenia"
# Model -> where a card's `training` keeps its cut-off.
CUTOFFS = {"radiomics": "cutoff_radiomics", "combined": "cutoff_combined"}

_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError(f"{limits[0]:g} is not below {limits[1]:g}")
    return limits


def _scalar(raw: object) -> object:
    if not isinstance(raw, str | int | float) or (isinstance(raw, float) and not isfinite(raw)):
        raise ValueError("must be a text, a finite number, true or false")
    return raw


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
_Text = Annotated[str, Field(min_length=1)]
_Scalar = Annotated[str | int | float | bool, PlainValidator(_scalar)]
_FEATURE_NAME = r"^(original|wavelet-[LH]{3})_(shape|firstorder|glcm|gldm|glrlm|glszm|ngtdm)_[0-9A-Za-z]+$"


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class CardFeature:
    """One feature of the rad-score: coefficient * (value - mean) / sd.

    Attributes
    ----------
    name : pyradiomics name.
    mean : of the training cohort.
    origin : whether the publication of the method names the feature.
    """

    name: Annotated[str, Field(pattern=_FEATURE_NAME)]
    mean: float
    sd: Annotated[float, Field(gt=0)]
    coefficient: float
    origin: Literal["documented", "chosen"]


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class CardTerm:
    """One predictor of the combined model: coefficient * value, on the log-odds scale.

    Attributes
    ----------
    name : one of `CLINICAL_INPUTS`.
    label : as printed.
    unit : UCUM code.
    coefficient : per unit.
    axis : range of the training patients: the nomogram's axis, and the range in which the model applies.
    plausible : values outside this range are taken for errors.
    """

    name: str
    label: _Text
    unit: _Text
    coefficient: float
    axis: Range
    plausible: Range


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Applicability:
    """What the model was trained on. Inclusive ranges.

    Attributes
    ----------
    equivalent : mineral of the densities behind the training labels.
    energy : None for conventional images.
    beam_filter : None for ordinary filters.
    """

    kvp: Range
    slice_spacing_mm: Range
    pixel_spacing_mm: Range
    equivalent: Mineral
    energy: _Text | None = None
    beam_filter: _Text | None = None

    @property
    def spectrum(self) -> Spectrum:
        """Of the images that it was trained on."""
        return Spectrum(energy=self.energy or CONVENTIONAL, beam_filter=self.beam_filter or NO_FILTER)


def _each_once(features: tuple[CardFeature, ...]) -> tuple[CardFeature, ...]:
    if len({feature.name for feature in features}) != len(features):
        raise ValueError("a feature is named twice")
    return features


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class RadScoreModel:
    """The rad-score: the intercept and what each feature adds."""

    intercept: float
    features: Annotated[tuple[CardFeature, ...], Field(min_length=1), AfterValidator(_each_once)]


def _each_input_once(terms: tuple[CardTerm, ...]) -> tuple[CardTerm, ...]:
    if sorted(term.name for term in terms) != sorted(CLINICAL_INPUTS):
        raise ValueError(f"must name each of {', '.join(CLINICAL_INPUTS)} once")
    if all(term.coefficient == 0 for term in terms):
        raise ValueError("no coefficient other than 0")
    return terms


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class ClinicalModel:
    """The combined model: log-odds of the positive class.

    Attributes
    ----------
    terms : in the order of the nomogram's axes.
    """

    intercept: float
    terms: Annotated[tuple[CardTerm, ...], AfterValidator(_each_input_once)]


def _probabilities(training: dict[str, Any]) -> dict[str, Any]:
    for key in CUTOFFS.values():
        value = training.get(key, 0)
        if isinstance(value, str | bool) or not 0 <= value <= 1:
            raise ValueError(f"{key} must be a probability, not {value!r}")
    return training


@checked_dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class ModelCard:
    """A model, whole.

    Attributes
    ----------
    demonstration : True for a model whose every number is marked as a demonstration.
    notice : shown beside every number of the model; required for a demonstration.
    positive_class : the class whose probability the model gives.
    label : how the training labels were made.
    software : versions that computed the features and fitted the model.
    radiomics_settings_sha256 : SHA-256 of the settings file.
    """

    schema: Literal["osteonode-model-card"]
    schema_version: Literal[1]
    name: _Text
    version: _Text
    demonstration: bool
    notice: str
    positive_class: Literal["osteoporosis"]
    negative_class: Literal["osteopenia"]
    label: _Text
    rad_score: RadScoreModel
    clinical: ClinicalModel
    applicability: Applicability
    software: dict[str, _Text]
    radiomics_settings_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    training: Annotated[dict[str, _Scalar], AfterValidator(_probabilities)]

    @model_validator(mode="after")
    def _says_what_it_demonstrates(self) -> Self:
        if self.demonstration and not self.notice:
            raise ValueError("a demonstration model must carry a notice")
        return self

    @property
    def features(self) -> tuple[CardFeature, ...]:
        return self.rad_score.features

    @property
    def terms(self) -> tuple[CardTerm, ...]:
        return self.clinical.terms

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of the whole card."""
        return hashlib.sha256(canonical_json(self).encode("utf-8")).hexdigest()

    def term(self, name: str) -> CardTerm:
        return next(term for term in self.terms if term.name == name)


_CARD = TypeAdapter(ModelCard)


def card_document(card: ModelCard) -> dict[str, Any]:
    """The card as a JSON document, as `parse_model_card` reads it; keys without a value are left out."""
    document: dict[str, Any] = _CARD.dump_python(card, mode="json", exclude_none=True)
    return document


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
        If the text is no JSON, a key is missing, unknown or repeated, or a value does not match the schema.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelCardInvalid(f"no JSON: {error}") from error
    try:
        return _CARD.validate_json(json.dumps(raw))
    except ValueError as error:
        raise ModelCardInvalid(reasons(error, "card")) from error


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


# What a card computes: the rad-score; and the nomogram, with points, their total and its probability.


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramAxis:
    """One predictor's scale: points rise linearly from one end of its range to the other.

    Attributes
    ----------
    name : "rad_score", "age", "alp", "homocysteine".
    label : as printed.
    unit : UCUM code.
    """

    name: str
    label: str
    unit: str
    lower: float
    upper: float
    points_at_lower: float
    points_at_upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramInput:
    """This patient's value on one axis.

    Attributes
    ----------
    unit : UCUM code.
    """

    name: str
    value: float
    unit: str
    points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramScale:
    """The drawing's axes: they belong to the model, not to the patient.

    Attributes
    ----------
    points_per_lp : points for one unit of the linear predictor.
    lp_at_zero_points : linear predictor at a total of 0 points.
    """

    axes: tuple[NomogramAxis, ...]
    total_points_max: float
    points_per_lp: float
    lp_at_zero_points: float

    def probability(self, total_points: float) -> float:
        """Probability of the positive class at a total of points (logistic link)."""
        return logistic(self.lp_at_zero_points + total_points / self.points_per_lp)


@dataclass(frozen=True, slots=True, kw_only=True)
class NomogramResult:
    """This patient on the nomogram.

    Attributes
    ----------
    positive_class : "osteoporosis".
    """

    scale: NomogramScale
    inputs: tuple[NomogramInput, ...]
    total_points: float
    probability: float
    positive_class: str
    model_name: str
    demonstration: bool


def logistic(linear_predictor: float) -> float:
    """Probability by log-odds, without overflow at either end."""
    if linear_predictor >= 0:
        return 1.0 / (1.0 + exp(-linear_predictor))
    odds = exp(linear_predictor)
    return odds / (1.0 + odds)


def nomogram_scale(card: ModelCard) -> NomogramScale:
    """The axes of a card's nomogram: the predictor whose axis moves the log-odds most spans 100 points.

    ``points_k = (x_k * beta_k - min_k) * sc`` with ``sc = 100 / max_k(range of x_k * beta_k)``, min_k the
    least of ``x_k * beta_k`` on its axis; ``LP = intercept + sum(min_k) + total / sc``.

    Source: the algorithm of rms::nomogram (Harrell).
    """
    effects = [(term.axis[0] * term.coefficient, term.axis[1] * term.coefficient) for term in card.terms]
    points_per_lp = 100.0 / max(abs(upper - lower) for lower, upper in effects)
    axes = tuple(
        NomogramAxis(
            name=term.name,
            label=term.label,
            unit=term.unit,
            lower=term.axis[0],
            upper=term.axis[1],
            points_at_lower=(lower - min(lower, upper)) * points_per_lp,
            points_at_upper=(upper - min(lower, upper)) * points_per_lp,
        )
        for term, (lower, upper) in zip(card.terms, effects, strict=True)
    )
    return NomogramScale(
        axes=axes,
        total_points_max=sum(max(axis.points_at_lower, axis.points_at_upper) for axis in axes),
        points_per_lp=points_per_lp,
        lp_at_zero_points=card.clinical.intercept + sum(min(effect) for effect in effects),
    )


def apply_nomogram(
    card: ModelCard, *, rad_score: float, age: float | None, alp: float | None, homocysteine: float | None
) -> NomogramResult:
    """This patient's points and probability. Values beyond an axis have points beyond its ends.

    Parameters
    ----------
    age : in years.
    alp : in U/L.
    homocysteine : in umol/L.

    Raises
    ------
    LaboratoryMissing
        If an input is None: missing values are never replaced.
    """
    given = {"rad_score": rad_score, "age": age, "alp": alp, "homocysteine": homocysteine}
    values = {name: value for name, value in given.items() if value is not None}
    if len(values) != len(given):
        raise LaboratoryMissing(tuple(name for name in given if name not in values))
    scale = nomogram_scale(card)
    inputs = tuple(
        NomogramInput(
            name=term.name,
            value=values[term.name],
            unit=term.unit,
            points=(values[term.name] * term.coefficient - min(end * term.coefficient for end in term.axis))
            * scale.points_per_lp,
        )
        for term in card.terms
    )
    total = sum(entry.points for entry in inputs)
    return NomogramResult(
        scale=scale,
        inputs=inputs,
        total_points=total,
        probability=scale.probability(total),
        positive_class=card.positive_class,
        model_name=card.name,
        demonstration=card.demonstration,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTerm:
    """One feature's contribution to the score: coefficient * (value - mean) / sd.

    Attributes
    ----------
    name : pyradiomics name, such as "wavelet-LLL_firstorder_10Percentile".
    """

    name: str
    value: float
    standardised: float
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RadScore:
    """Rad-score = intercept + sum of the contributions.

    Source: Xie et al. 2022.
    """

    value: float
    intercept: float
    terms: tuple[FeatureTerm, ...]
    model_name: str
    model_sha256: str
    demonstration: bool


def rad_score(card: ModelCard, features: Mapping[str, float]) -> RadScore:
    """``intercept + sum of coefficient * (value - mean) / sd``, mean and SD being the training cohort's.

    Raises
    ------
    UnknownFeature
        If a feature that the card needs is not among `features`.

    Source: Xie et al. 2022, Methods.
    """
    missing = tuple(feature.name for feature in card.features if feature.name not in features)
    if missing:
        raise UnknownFeature(missing)
    terms = []
    for feature in card.features:
        standardised = (features[feature.name] - feature.mean) / feature.sd
        terms.append(
            FeatureTerm(
                name=feature.name,
                value=features[feature.name],
                standardised=standardised,
                contribution=feature.coefficient * standardised,
            )
        )
    return RadScore(
        value=card.rad_score.intercept + sum(term.contribution for term in terms),
        intercept=card.rad_score.intercept,
        terms=tuple(terms),
        model_name=card.name,
        model_sha256=card.sha256,
        demonstration=card.demonstration,
    )
