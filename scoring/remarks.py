"""What a reader must know of the scores and categories that a report gives.

Called when everything that a finding withholds has been taken out: a remark quotes what it is about, and must
not give away what is withheld.
"""

from __future__ import annotations

from collections.abc import Sequence

from scoring.assessment import (
    DENSITY_NORMAL_ABOVE,
    DENSITY_OSTEOPOROSIS_BELOW,
    T_FROM_YEARS,
    T_OSTEOPENIA_BELOW,
    T_OSTEOPOROSIS_FROM,
    Assessment,
    unstated_in_words,
)
from scoring.bmd import DensityCategory, DensityVerdict, Reference, ReferenceScore, StudyClass
from scoring.uncertainty import interval95
from segmentation.observation import Observation

# The two rules in each other's terms: "low bone mass" of the one stands where "osteopenia" of the other does.
_SAME = {
    StudyClass.NORMAL: DensityCategory.NORMAL,
    StudyClass.OSTEOPENIA: DensityCategory.LOW,
    StudyClass.OSTEOPOROSIS: DensityCategory.OSTEOPOROSIS,
}


def remarks(
    given: Assessment, *, reference: Reference | None, age_years: int | None, sex: str
) -> tuple[Observation, ...]:
    """Remarks on what is given: population, caveats, menopause, conversion, disagreement, straddled cut-offs.

    Parameters
    ----------
    given : without anything that a finding withholds.
    """
    return (
        *_on_reference(given, reference),
        *_on_menopause(given, age_years, sex),
        *_on_conversion(given.density),
        *disagreement(given.study_class, given.density),
        *_straddled_by_t(given),
        *_straddled_by_density(given.density),
    )


def disagreement(study_class: StudyClass | None, density: DensityVerdict | None) -> tuple[Observation, ...]:
    """`rules_disagree` where the T-score's class and the density's category differ; the density leads."""
    if study_class is None or density is None or _SAME[study_class] is density.category:
        return ()
    values: dict[str, str | int | float] = {
        "study_class": study_class.value,
        "category": density.category.value,
        "bmd": round(density.mean_mg_cm3, 1),
        "equivalent": density.equivalent.value,
    }
    return (Observation(code="rules_disagree", values=values),)


def _on_reference(given: Assessment, reference: Reference | None) -> tuple[Observation, ...]:
    if reference is None or (given.t_score is None and given.z_score is None):
        return ()
    found = [Observation(code="reference_population", values={"population": reference.population})]
    if reference.demonstration:
        found.append(Observation(code="demonstration_reference", values={"reference": reference.name}))
    if reference.unstated:  # and accepted by the site, else there were no score
        unstated = unstated_in_words(reference, reference.unstated)
        values = {"reference": reference.name, "unstated": unstated}
        found.append(Observation(code="reference_incomplete", values=values))
    if given.t_score is not None:
        found.append(Observation(code="not_dxa"))
    return tuple(found)


def _on_menopause(given: Assessment, age_years: int | None, sex: str) -> tuple[Observation, ...]:
    scored = given.t_score is not None or given.z_score is not None or given.density is not None
    if sex != "F" or age_years is None or not scored:
        return ()
    taken = (
        "postmenopausal, being 50 or older" if age_years >= T_FROM_YEARS else "premenopausal, being under 50"
    )
    return (Observation(code="menopause_unknown", values={"taken": taken}),)


def _on_conversion(density: DensityVerdict | None) -> tuple[Observation, ...]:
    if density is None or density.converted_from is None:
        return ()
    values = {"measured": density.converted_from.value, "equivalent": density.equivalent.value}
    return (Observation(code="density_converted", values=values),)


def _straddled_by_t(given: Assessment) -> tuple[Observation, ...]:
    score: ReferenceScore | None = given.t_score
    if score is None or given.study_class is None or score.bmd_uncertainty_mg_cm3 is None:
        return ()
    sigma = score.bmd_uncertainty_mg_cm3 / score.sd_mg_cm3
    return _straddled(
        "T-score", score.value, sigma, (T_OSTEOPOROSIS_FROM, T_OSTEOPENIA_BELOW), digits=2, unit=""
    )


def _straddled_by_density(density: DensityVerdict | None) -> tuple[Observation, ...]:
    if density is None or density.uncertainty_mg_cm3 is None:
        return ()
    cut_offs = (DENSITY_OSTEOPOROSIS_BELOW, DENSITY_NORMAL_ABOVE)
    what = f"Mean density of {density.levels[0]} and {density.levels[1]}"
    unit = f" mg/cm3 {density.equivalent}"
    return _straddled(what, density.mean_mg_cm3, density.uncertainty_mg_cm3, cut_offs, digits=1, unit=unit)


def _straddled(
    what: str, value: float, sigma: float, cut_offs: Sequence[float], *, digits: int, unit: str
) -> tuple[Observation, ...]:
    lower, upper = interval95(value, sigma)
    inside = [f"{cut_off:g}" for cut_off in cut_offs if lower <= cut_off <= upper]
    if not inside:
        return ()
    values: dict[str, str | int | float] = {
        "what": what,
        "interval": f"{lower:.{digits}f} to {upper:.{digits}f}{unit}",
        "cut_offs": " and ".join(inside),
    }
    return (Observation(code="cutoff_straddled", values=values),)
