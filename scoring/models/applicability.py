"""Whether a model applies to a study (technique, T-score, laboratory values), and two models compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scoring.calibration import Mineral
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, Spectrum, spectrum_differences
from scoring.density.scores import T_OSTEOPENIA_BELOW, T_OSTEOPOROSIS_FROM
from scoring.models.card import (
    Applicability,
    CardTerm,
    ModelCard,
    NomogramResult,
    Range,
    apply_nomogram,
    rad_score,
)
from segmentation.phrase import Phrase, Value, clauses, listed, phrase
from segmentation.vertebrae import Observation

# Remarks on a model's numbers: they withhold nothing, and are left out where the numbers are withheld.
REMARKS_ON_MODEL = frozenset({"demonstration_model", "model_notice"})
# UCUM units that are not written after a number: of a score, and of an age in years.
_UNITS_NOT_SHOWN = frozenset({"1", "a"})


def model_observations(
    card: ModelCard | None,
    *,
    kvp: float | None,
    spectrum: Spectrum,
    slice_spacing_mm: float | None,
    pixel_spacing_mm: tuple[float, float],
    equivalent: Mineral | None,
    t_score: float | None,
) -> list[Observation]:
    """What withholds rad-score and nomogram, and remarks on a model's numbers.

    `no_model`, `model_range`, `t_above_model`; `REMARKS_ON_MODEL` withhold nothing. A missing T-score or
    calibration is not repeated: what withheld it withholds the scores too.

    Parameters
    ----------
    slice_spacing_mm : None for single slices: no model is trained on such.
    pixel_spacing_mm : (row, column).
    """
    if card is None:
        return [Observation(code="no_model")]
    found = []
    if card.demonstration:
        found.append(Observation(code="demonstration_model", values={"model": card.name}))
    elif card.notice:
        found.append(Observation(code="model_notice", values={"model": card.name, "notice": card.notice}))
    reasons = technique_reasons(
        card.applicability,
        kvp=kvp,
        spectrum=spectrum,
        slice_spacing_mm=slice_spacing_mm,
        pixel_spacing_mm=pixel_spacing_mm,
        equivalent=equivalent,
    )
    if reasons:
        found.append(_out_of_range(card.name, clauses(reasons)))
    if t_score is not None and not t_score < T_OSTEOPENIA_BELOW:
        found.append(Observation(code="t_above_model", values={"t": round(t_score, 2)}))
    return found


def technique_reasons(
    trained: Applicability,
    *,
    kvp: float | None,
    spectrum: Spectrum,
    slice_spacing_mm: float | None,
    pixel_spacing_mm: Sequence[float],
    equivalent: Mineral | None,
) -> list[Value]:
    """Why a model does not apply to a study's technique; empty where it does.

    Parameters
    ----------
    slice_spacing_mm : None for single slices.
    pixel_spacing_mm : those known; empty: not stated.
    equivalent : None without a calibration, which withholds by itself.
    """
    reasons: list[Value] = []
    if kvp is None:
        reasons.append(phrase("kvp-not-stated"))
    elif not _within(kvp, trained.kvp):
        reasons.append(phrase("kvp-outside", kvp=f"{kvp:g}", limits=_range_phrase(trained.kvp)))
    reasons += spectrum_differences(spectrum, trained.spectrum)
    if slice_spacing_mm is None:
        reasons.append(phrase("slices-stand-alone"))
    elif not _within(slice_spacing_mm, trained.slice_spacing_mm):
        limits = _range_phrase(trained.slice_spacing_mm)
        reasons.append(phrase("slices-outside", spacing=f"{slice_spacing_mm:g}", limits=limits))
    if not pixel_spacing_mm:
        reasons.append(phrase("pixel-spacing-not-stated"))
    elif not all(_within(pixel, trained.pixel_spacing_mm) for pixel in pixel_spacing_mm):
        limits = _range_phrase(trained.pixel_spacing_mm)
        reasons.append(phrase("pixels-outside", size=f"{max(pixel_spacing_mm):g}", limits=limits))
    if equivalent is not None and equivalent is not trained.equivalent:
        reasons.append(phrase("densities-differ", own=equivalent, theirs=trained.equivalent))
    return reasons


def score_observations(term: CardTerm, rad_score: float, *, model: str) -> list[Observation]:
    """`model_range` for a rad-score outside the card's plausible range.

    Parameters
    ----------
    term : the card's term of the rad-score.
    model : the card's name.
    """
    if _within(rad_score, term.plausible):
        return []
    limits = _range_phrase(term.plausible)
    return [_out_of_range(model, phrase("rad-score-outside", score=f"{rad_score:.2f}", limits=limits))]


def input_observations(
    terms: Sequence[CardTerm],
    *,
    rad_score: float,
    age: float | None,
    alp: float | None,
    homocysteine: float | None,
) -> list[Observation]:
    """What withholds the nomogram: `laboratory_missing`, `laboratory_implausible`, `input_range`.

    Plausible ranges are the card's: R, to be confirmed for each laboratory. A plausible value beyond the axis
    is outside the training data: the probability would be extrapolated.

    Parameters
    ----------
    terms : the card's, of every input.
    age : in years.
    alp : in U/L.
    homocysteine : in umol/L.
    """
    found = []
    by_name = {term.name: term for term in terms}
    given = {"rad_score": rad_score, "age": age, "alp": alp, "homocysteine": homocysteine}
    missing = [label_phrase(by_name[name].label) for name, value in given.items() if value is None]
    if missing:
        found.append(Observation(code="laboratory_missing", values={"names": listed(missing)}))
    for name, value in given.items():
        if value is None:
            continue
        term = by_name[name]
        if not _within(value, term.plausible) and name != "rad_score":  # see `score_observations`
            found.append(_input_observation("laboratory_implausible", term, value, term.plausible))
        elif not _within(value, term.axis):
            found.append(_input_observation("input_range", term, value, term.axis))
    return found


def _input_observation(code: str, term: CardTerm, value: float, limits: Range) -> Observation:
    unit = "" if term.unit in _UNITS_NOT_SHOWN else f" {term.unit}"
    values: dict[str, Value] = {
        "name": label_phrase(term.label),
        "value": f"{value:.4g}",
        "unit": unit,
        "lower": f"{limits[0]:g}",
        "upper": f"{limits[1]:g}",
    }
    return Observation(code=code, values=values)


def contradiction_observations(nomogram: NomogramResult, t_score: float) -> list[Observation]:
    """`contradiction` where probability and measured T-score speak for different classes.

    Parameters
    ----------
    t_score : osteoporosis from -2.5 down.
    """
    if (nomogram.probability > 0.5) == (t_score <= T_OSTEOPOROSIS_FROM):
        return []
    values: dict[str, str | int | float] = {
        "probability": f"{nomogram.probability:.0%}",
        "t": round(t_score, 2),
    }
    return [Observation(code="contradiction", values=values)]


def _out_of_range(model: str, reason: Value) -> Observation:
    return Observation(code="model_range", values={"model": model, "reason": reason})


def _within(value: float, limits: Range) -> bool:
    return limits[0] <= value <= limits[1]


def _range_phrase(limits: Range) -> Phrase:
    return phrase("range", low=f"{limits[0]:g}", high=f"{limits[1]:g}")


_LABELS = {
    "Rad-score": phrase("rad-score-axis"),
    "Age": phrase("age-axis"),
    "ALP": phrase("alp-axis"),
    "Alkaline phosphatase": phrase("alkaline-phosphatase-axis"),
    "Homocysteine": phrase("homocysteine-axis"),
    "homocysteine": phrase("label-homocysteine"),
}


def label_phrase(label: str) -> Value:
    """The phrase for a usual label of a model card's term; another label stays as it is."""
    return _LABELS.get(label, label)


# Two models side by side on the same patients: what a change of model would change.


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePatient:
    """One invented patient with everything that a model may ask for.

    Attributes
    ----------
    features : values by pyradiomics name.
    pixel_spacing_mm : (row, column).
    age : years.
    alp : U/L.
    homocysteine : umol/L.
    """

    name: str
    features: Mapping[str, float]
    kvp: float | None
    slice_spacing_mm: float | None
    pixel_spacing_mm: tuple[float, float]
    equivalent: Mineral | None
    age: float
    alp: float
    homocysteine: float
    spectrum: Spectrum = CONVENTIONAL_SPECTRUM


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore:
    """One model's result for one patient.

    Attributes
    ----------
    probability : of the positive class.
    likelier_class : the class with the larger probability.
    outside : why a node gives no class: the model does not apply; "" where it gives one.
    """

    rad_score: float
    probability: float
    likelier_class: str
    outside: str

    @property
    def reported_class(self) -> str | None:
        """The class that a node reports; None where the model does not apply."""
        return None if self.outside else self.likelier_class


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """One patient before and after a change of model.

    Attributes
    ----------
    before : None where no earlier model can score the patient.
    """

    patient: str
    before: ModelScore | None
    after: ModelScore

    @property
    def class_changes(self) -> bool:
        """Whether the reported class changes, appears or disappears."""
        return self.before is not None and self.before.reported_class != self.after.reported_class


def compare_models(
    before: ModelCard | None,
    after: ModelCard,
    patients: Sequence[ReferencePatient],
    in_words: Callable[[Value], str],
) -> tuple[ModelComparison, ...]:
    """Both models' results for each patient, in order.

    Numbers are given where a model does not apply too, with the reason; the node itself gives none there.

    Parameters
    ----------
    before : None without an earlier model.
    in_words : translates a reason.

    Raises
    ------
    UnknownFeature
        If a patient lacks a feature of a model.
    """
    return tuple(
        ModelComparison(
            patient=one.name,
            before=_scored(before, one, in_words) if before is not None else None,
            after=_scored(after, one, in_words),
        )
        for one in patients
    )


def _scored(card: ModelCard, patient: ReferencePatient, in_words: Callable[[Value], str]) -> ModelScore:
    score = rad_score(card, patient.features).value
    nomogram = apply_nomogram(
        card, rad_score=score, age=patient.age, alp=patient.alp, homocysteine=patient.homocysteine
    )
    images = model_observations(
        card,
        kvp=patient.kvp,
        spectrum=patient.spectrum,
        slice_spacing_mm=patient.slice_spacing_mm,
        pixel_spacing_mm=patient.pixel_spacing_mm,
        equivalent=patient.equivalent,
        t_score=None,  # a T-score is the reference's to give, not the model's
    )
    noticed = [
        *images,
        *score_observations(card.term("rad_score"), score, model=card.name),
        *input_observations(
            card.terms, rad_score=score, age=patient.age, alp=patient.alp, homocysteine=patient.homocysteine
        ),
    ]
    return ModelScore(
        rad_score=score,
        probability=nomogram.probability,
        likelier_class=card.positive_class if nomogram.probability > 0.5 else card.negative_class,
        outside=in_words(clauses(_reason(one) for one in noticed if one.code not in REMARKS_ON_MODEL)),
    )


def _reason(noticed: Observation) -> Value:
    values = noticed.values
    if noticed.code == "model_range":
        return values["reason"]
    limits = phrase("range", low=values["lower"], high=values["upper"])
    value = f"{values['value']}{values['unit']}"
    return phrase("input-outside", name=values["name"], value=value, limits=limits)
