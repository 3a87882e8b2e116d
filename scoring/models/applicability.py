"""Whether a model may speak about a study: its range, the patient's T-score, the laboratory's values."""

from __future__ import annotations

from collections.abc import Sequence

from scoring.calibration import Mineral
from scoring.calibration.spectrum import Spectrum, spectrum_differences
from scoring.density.classification import T_OSTEOPENIA_BELOW, T_OSTEOPOROSIS_FROM
from scoring.models.card import Applicability, CardTerm, ModelCard, Range
from scoring.models.nomogram import NomogramResult
from segmentation.phrase import Phrase, Value, clauses, listed, phrase
from segmentation.vertebrae import Observation

# Remarks on a model's numbers, which withhold nothing, and say nothing where the numbers are withheld.
REMARKS_ON_MODEL = frozenset({"demonstration_model", "model_notice"})
# UCUM units that nobody says after a number: of a score, and of an age in years.
_UNSAID = frozenset({"1", "a"})


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
    """What keeps the rad-score and the nomogram from being given, and what is said with a model's numbers.

    `no_model`, `model_range`, `t_above_model`; `REMARKS_ON_MODEL` withhold nothing. A missing T-score or
    calibration is not repeated here: whatever withheld it withholds the scores too.

    Parameters
    ----------
    slice_spacing_mm : None where slices stand alone: no model is trained on such.
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
    """Why a model of studies by one technique does not cover a study by another; empty where it does.

    Parameters
    ----------
    slice_spacing_mm : None where slices stand alone.
    pixel_spacing_mm : those known; none: not stated.
    equivalent : None where there is no calibration, which withholds by itself.
    """
    reasons: list[Value] = []
    if kvp is None:
        reasons.append(phrase("kvp-not-stated"))
    elif not _within(kvp, trained.kvp):
        reasons.append(phrase("kvp-outside", kvp=f"{kvp:g}", limits=_words(trained.kvp)))
    reasons += spectrum_differences(spectrum, trained.spectrum)
    if slice_spacing_mm is None:
        reasons.append(phrase("slices-stand-alone"))
    elif not _within(slice_spacing_mm, trained.slice_spacing_mm):
        limits = _words(trained.slice_spacing_mm)
        reasons.append(phrase("slices-outside", spacing=f"{slice_spacing_mm:g}", limits=limits))
    if not pixel_spacing_mm:
        reasons.append(phrase("pixel-spacing-not-stated"))
    elif not all(_within(pixel, trained.pixel_spacing_mm) for pixel in pixel_spacing_mm):
        limits = _words(trained.pixel_spacing_mm)
        reasons.append(phrase("pixels-outside", size=f"{max(pixel_spacing_mm):g}", limits=limits))
    if equivalent is not None and equivalent is not trained.equivalent:
        reasons.append(phrase("densities-differ", own=equivalent, theirs=trained.equivalent))
    return reasons


def score_observations(term: CardTerm, rad_score: float, *, model: str) -> list[Observation]:
    """`model_range` for a rad-score that the card holds implausible: what was measured is no such bone.

    Parameters
    ----------
    term : the card's of the rad-score.
    model : the card's name.
    """
    if _within(rad_score, term.plausible):
        return []
    limits = _words(term.plausible)
    return [_out_of_range(model, phrase("rad-score-outside", score=f"{rad_score:.2f}", limits=limits))]


def input_observations(
    terms: Sequence[CardTerm],
    *,
    rad_score: float,
    age: float | None,
    alp: float | None,
    homocysteine: float | None,
) -> list[Observation]:
    """What keeps the nomogram from being computed: `laboratory_missing`, `laboratory_implausible`,
    `input_range`.

    Plausible ranges are the card's own: R, to be confirmed for each laboratory. A plausible value beyond the
    axis is one that the model has not seen: a probability there would be extrapolated.

    Parameters
    ----------
    terms : the card's, of every input.
    """
    found = []
    by_name = {term.name: term for term in terms}
    given = {"rad_score": rad_score, "age": age, "alp": alp, "homocysteine": homocysteine}
    missing = [label_in_words(by_name[name].label) for name, value in given.items() if value is None]
    if missing:
        found.append(Observation(code="laboratory_missing", values={"names": listed(missing)}))
    for name, value in given.items():
        if value is None:
            continue
        term = by_name[name]
        if not _within(value, term.plausible) and name != "rad_score":  # see `score_observations`
            found.append(_beyond("laboratory_implausible", term, value, term.plausible))
        elif not _within(value, term.axis):
            found.append(_beyond("input_range", term, value, term.axis))
    return found


def _beyond(code: str, term: CardTerm, value: float, limits: Range) -> Observation:
    unit = "" if term.unit in _UNSAID else f" {term.unit}"
    values: dict[str, Value] = {
        "name": label_in_words(term.label),
        "value": f"{value:.4g}",
        "unit": unit,
        "lower": f"{limits[0]:g}",
        "upper": f"{limits[1]:g}",
    }
    return Observation(code=code, values=values)


def contradiction_observations(nomogram: NomogramResult, t_score: float) -> list[Observation]:
    """`contradiction` where the model thinks the class more likely that the measured T-score denies."""
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


def _words(limits: Range) -> Phrase:
    return phrase("range", low=f"{limits[0]:g}", high=f"{limits[1]:g}")


_LABELS = {
    "Rad-score": phrase("rad-score-axis"),
    "Age": phrase("age-axis"),
    "ALP": phrase("alp-axis"),
    "Alkaline phosphatase": phrase("alkaline-phosphatase-axis"),
    "Homocysteine": phrase("homocysteine-axis"),
    "homocysteine": phrase("label-homocysteine"),
}


def label_in_words(label: str) -> Value:
    """The phrase for a usual label of a model card's term; another label stays as it is."""
    return _LABELS.get(label, label)
