"""Two models side by side on the same patients: what a change of model would change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scoring.calibration import Mineral
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, Spectrum
from scoring.models.applicability import (
    REMARKS_ON_MODEL,
    input_observations,
    model_observations,
    score_observations,
)
from scoring.models.card import ModelCard
from scoring.models.nomogram import apply_nomogram, rad_score
from segmentation.phrase import Value, clauses, phrase
from segmentation.vertebrae import Observation


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
