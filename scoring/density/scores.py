"""T-score, Z-score, the T-score's class and the density category: where they apply, and their values.

Every rule works on unrounded values. Whatever does not apply is None, and an observation states the reason.

Sources: T-score and classes, Xie et al. 2022; density rule, ACR/ISCD criteria as given in PMC7495321 Table 2
(its K2HPO4 basis is recalled, to be confirmed); ages, ISCD official positions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scoring.calibration import Calibration, Grade, Mineral
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, Spectrum, spectrum_differences
from scoring.density.bmd import (
    AgeBin,
    BmdResult,
    DensityCategory,
    DensityVerdict,
    Reference,
    ReferenceScore,
    StudyClass,
    interval95,
    mean_density_uncertainty,
)
from segmentation.phrase import Phrase, Value, clauses, phrase, together
from segmentation.vertebrae import Observation, RegionKind

GRADES = {
    Grade.PHANTOM: phrase("calibration-phantom"),
    Grade.ASYNCHRONOUS: phrase("calibration-asynchronous"),
    Grade.INTERNAL: phrase("calibration-internal"),
}
REGIONS = {RegionKind.CORE: phrase("region-is-core"), RegionKind.ELLIPSE: phrase("region-is-ellipse")}

ADULT_FROM_YEARS = 20  # below: no score
T_FROM_YEARS = 50  # below: the Z-score counts (ISCD)
T_OSTEOPENIA_BELOW = -1.0
T_OSTEOPOROSIS_FROM = -2.5
DENSITY_NORMAL_ABOVE = 120.0  # mg/cm3 K2HPO4
DENSITY_OSTEOPOROSIS_BELOW = 80.0
# Pairs for the density rule in order of preference: L1 and L2 (ISCD), else the pair nearest L3.
DENSITY_PAIRS = (("L1", "L2"), ("L2", "L3"), ("L3", "L4"), ("L4", "L5"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Scores, classes and observations of one study.

    Attributes
    ----------
    study_class : by the T-score.
    density : category by the mean density of two bodies.
    """

    t_score: ReferenceScore | None
    z_score: ReferenceScore | None
    study_class: StudyClass | None
    density: DensityVerdict | None
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A site's line between minerals: ``K2HPO4 = slope * HA + intercept``, in mg/cm3.

    Published pairs disagree (Goodsitt 1992: K2HPO4 / HA = 0.86 at 80 kVp, 0.81 at 140 kVp; Faulkner 1993:
    HA = 1.15 * K2HPO4 - 7.32); therefore none is shipped.
    """

    slope: float
    intercept_mg_cm3: float


def assess(
    levels: Mapping[str, BmdResult],
    *,
    calibration: Calibration | None,
    reference: Reference | None,
    age_years: int | None,
    sex: str,
    kvp: float | None,
    roi: RegionKind,
    spectrum: Spectrum = CONVENTIONAL_SPECTRUM,
    conversion: Conversion | None = None,
    accept_unstated: Collection[str] = (),
) -> Assessment:
    """Scores and classes, with observations on what prevents them.

    Parameters
    ----------
    levels : the measured lumbar levels by name. A level that a finding withholds must not be among them.
    calibration : None: nothing is assessed.
    sex : DICOM's "M" or "F"; anything else counts as not stated.
    kvp : tube voltage of the series.
    roi : the region in which densities were read.
    spectrum : of the series; the tube voltage alone determines it in a conventional image.
    conversion : applies the density rule to HA; None: HA has no category.
    accept_unstated : of `Reference.unstated`, what the site accepts; the rest withholds T and Z.
    """
    measured = {name: result for name, result in levels.items() if result.bmd_mg_cm3 is not None}
    if calibration is None or not measured:
        return Assessment(t_score=None, z_score=None, study_class=None, density=None, observations=())
    notes = [Observation(code="marrow_fat")]
    barred = patient_observations(age_years=age_years, sex=sex)
    notes += barred
    codes = {note.code for note in barred}
    scored = not codes & {"age_unknown", "age_under_20", "sex_unknown"}
    if calibration.grade is Grade.INTERNAL:
        notes.append(Observation(code="internal_calibration"))
        scored = False
    elderly = scored and "age_under_50" not in codes
    misfit = reference_observations(
        reference,
        equivalent=calibration.equivalent,
        grade=calibration.grade,
        sex=sex,
        kvp=kvp,
        spectrum=spectrum,
        roi=roi,
        measured=frozenset(measured),
        accept_unstated=accept_unstated,
    )
    notes += misfit if scored else []
    t, z = None, None
    if scored and not misfit and reference is not None and age_years is not None:
        z, missing = z_score(measured, calibration, reference, age_years)
        notes += missing
        t = t_score(measured, calibration, reference) if elderly else None
    density = None
    if elderly:
        density, withheld = density_verdict(measured, calibration, conversion)
        notes += withheld
    return Assessment(
        t_score=t,
        z_score=z,
        study_class=None if t is None else study_class(t.value),
        density=density,
        observations=tuple(notes),
    )


def patient_observations(*, age_years: int | None, sex: str) -> list[Observation]:
    """`sex_unknown`, `age_unknown`, `age_under_20` and `age_under_50`.

    Parameters
    ----------
    sex : DICOM's "M" or "F"; anything else counts as not stated.
    """
    found = []
    if sex not in ("M", "F"):
        found.append(Observation(code="sex_unknown"))
    if age_years is None:
        found.append(Observation(code="age_unknown"))
    elif age_years < ADULT_FROM_YEARS:
        found.append(Observation(code="age_under_20"))
    elif age_years < T_FROM_YEARS:
        found.append(Observation(code="age_under_50"))
    return found


def reference_observations(
    reference: Reference | None,
    *,
    equivalent: Mineral,
    grade: Grade,
    sex: str,
    kvp: float | None,
    spectrum: Spectrum,
    roi: RegionKind,
    measured: frozenset[str],
    accept_unstated: Collection[str] = (),
) -> list[Observation]:
    """Why a reference does not apply to this study; empty where it does.

    `no_reference`; `reference_mismatch` where the two differ; `reference_unstated` where the reference does
    not state whether they do.

    Parameters
    ----------
    measured : names of the levels that have a density.
    accept_unstated : of `Reference.unstated`, what the site accepts.
    """
    if reference is None:
        return [Observation(code="no_reference")]
    unknown = [name for name in reference.unstated if name not in accept_unstated]
    unstated = []
    if unknown:
        words = unstated_phrase(reference, unknown)
        values: dict[str, Value] = {"reference": reference.name, "unstated": words}
        unstated.append(Observation(code="reference_unstated", values=values))
    reasons: list[Value] = []
    if reference.equivalent is not equivalent:
        reasons.append(phrase("equivalent-differs", theirs=reference.equivalent, own=equivalent))
    if grade not in reference.grades:
        grades = together(GRADES[one] for one in reference.grades)
        reasons.append(phrase("grade-differs", grades=grades, grade=GRADES[grade]))
    if reference.sex not in ("any", sex):
        reasons.append(phrase("sex-differs", sex=reference.sex))
    if reference.kvp is not None:
        lower, upper = reference.kvp
        if kvp is None:
            reasons.append(phrase("kvp-not-stated"))
        elif not lower <= kvp <= upper:
            limits = phrase("range", low=f"{lower:g}", high=f"{upper:g}")
            reasons.append(phrase("kvp-outside", kvp=f"{kvp:g}", limits=limits))
        reasons += spectrum_differences(spectrum, reference.spectrum)
    if reference.roi is not None and reference.roi is not roi:
        reasons.append(phrase("region-differs", theirs=REGIONS[reference.roi], own=REGIONS[roi]))
    unmeasured = [level for level in reference.levels if level not in measured]
    if unmeasured:
        needed, lacking = ", ".join(reference.levels), ", ".join(unmeasured)
        reasons.append(phrase("levels-needed", levels=needed, unmeasured=lacking))
    if not reasons:
        return unstated
    values = {"reference": reference.name, "reason": clauses(reasons)}
    return [Observation(code="reference_mismatch", values=values), *unstated]


def unstated_phrase(reference: Reference, names: Sequence[str]) -> Value:
    """What a reference's source does not state."""
    words = {
        "kvp": phrase("tube-voltage"),
        "roi": phrase("region-of-interest"),
        "levels": phrase("levels-taken-as", levels=", ".join(reference.levels)),
    }
    return together(words[name] for name in names)


def t_score(
    measured: Mapping[str, BmdResult], calibration: Calibration, reference: Reference
) -> ReferenceScore:
    """``T = (BMD - mean_young) / SD_young`` on the mean of the reference's levels.

    Parameters
    ----------
    measured : contains all levels of the reference.

    Source: Xie et al. 2022.
    """
    return _score(measured, calibration, reference, reference.young)


def z_score(
    measured: Mapping[str, BmdResult], calibration: Calibration, reference: Reference, age_years: int
) -> tuple[ReferenceScore | None, list[Observation]]:
    """``Z = (BMD - mean_age) / SD_age`` on the mean of the reference's levels.

    Parameters
    ----------
    measured : contains all levels of the reference.

    Returns
    -------
    None and `z_reference_missing` where the reference has no bin for this age.
    """
    matched = next((ages for ages in reference.ages if ages.age_from <= age_years <= ages.age_to), None)
    if matched is None:
        values: dict[str, Value] = {"reference": reference.name, "age": age_years}
        return None, [Observation(code="z_reference_missing", values=values)]
    return _score(measured, calibration, reference, matched), []


def _score(
    measured: Mapping[str, BmdResult], calibration: Calibration, reference: Reference, compared: AgeBin
) -> ReferenceScore:
    bmd, uncertainty = _mean(measured, calibration, reference.levels)
    return ReferenceScore(
        value=(bmd - compared.mean_mg_cm3) / compared.sd_mg_cm3,
        equivalent=reference.equivalent,
        levels=reference.levels,
        bmd_mg_cm3=bmd,
        mean_mg_cm3=compared.mean_mg_cm3,
        sd_mg_cm3=compared.sd_mg_cm3,
        bmd_uncertainty_mg_cm3=uncertainty,
    )


def _mean(
    measured: Mapping[str, BmdResult], calibration: Calibration, levels: Sequence[str]
) -> tuple[float, float | None]:
    """Mean density of some levels, all measured, with its standard uncertainty where that is known."""
    chosen = [measured[level] for level in levels]
    densities = [one.bmd_mg_cm3 for one in chosen if one.bmd_mg_cm3 is not None]
    return sum(densities) / len(levels), mean_density_uncertainty(calibration, chosen)


def study_class(t: float) -> StudyClass:
    """Class of a T-score: osteoporosis from -2.5 down, normal from -1 up.

    Source: Xie et al. 2022.
    """
    if t <= T_OSTEOPOROSIS_FROM:
        return StudyClass.OSTEOPOROSIS
    return StudyClass.OSTEOPENIA if t < T_OSTEOPENIA_BELOW else StudyClass.NORMAL


def density_verdict(
    measured: Mapping[str, BmdResult], calibration: Calibration, conversion: Conversion | None
) -> tuple[DensityVerdict | None, list[Observation]]:
    """The density category by the mean of two lumbar bodies, L1 and L2 where measured.

    Returns
    -------
    None with `density_rule_equivalent` where the densities are not of K2HPO4, for which the rule was made,
    and no conversion is configured; with `density_levels_missing` where no adjacent pair was measured; with
    `density_rule_grade` where no phantom is in the image, on which the cut-offs are based.
    """
    if calibration.grade is not Grade.PHANTOM:
        return None, [Observation(code="density_rule_grade", values={"grade": GRADES[calibration.grade]})]
    equivalent = calibration.equivalent
    converted = equivalent is not Mineral.K2HPO4
    if converted and conversion is None:
        return None, [Observation(code="density_rule_equivalent", values={"equivalent": equivalent.value})]
    pair = next((p for p in DENSITY_PAIRS if p[0] in measured and p[1] in measured), None)
    if pair is None:
        return None, [Observation(code="density_levels_missing")]
    mean, uncertainty = _mean(measured, calibration, pair)
    if converted and conversion is not None:
        mean = conversion.slope * mean + conversion.intercept_mg_cm3
        uncertainty = None if uncertainty is None else abs(conversion.slope) * uncertainty
    verdict = DensityVerdict(
        category=density_category(mean),
        levels=pair,
        mean_mg_cm3=mean,
        equivalent=Mineral.K2HPO4,
        uncertainty_mg_cm3=uncertainty,
        converted_from=equivalent if converted else None,
    )
    return verdict, []


def density_category(mean_mg_cm3: float) -> DensityCategory:
    """Category of a mean density in mg/cm3 K2HPO4: normal above 120, osteoporosis below 80.

    Source: ACR/ISCD criteria as given in PMC7495321 Table 2.
    """
    if mean_mg_cm3 > DENSITY_NORMAL_ABOVE:
        return DensityCategory.NORMAL
    if mean_mg_cm3 < DENSITY_OSTEOPOROSIS_BELOW:
        return DensityCategory.OSTEOPOROSIS
    return DensityCategory.LOW


# Remarks on the scores and categories that a report gives. They quote numbers, and are made only after
# whatever a finding withholds has been removed.

# Equivalent classes of the two rules.
_SAME = {
    StudyClass.NORMAL: DensityCategory.NORMAL,
    StudyClass.OSTEOPENIA: DensityCategory.LOW,
    StudyClass.OSTEOPOROSIS: DensityCategory.OSTEOPOROSIS,
}
_CLASSES = {
    StudyClass.NORMAL: phrase("normal"),
    StudyClass.OSTEOPENIA: phrase("osteopenia"),
    StudyClass.OSTEOPOROSIS: phrase("osteoporosis"),
}
_CATEGORIES = {
    DensityCategory.NORMAL: phrase("normal"),
    DensityCategory.LOW: phrase("low-bone-mass"),
    DensityCategory.OSTEOPOROSIS: phrase("osteoporosis"),
}


def remarks(
    given: Assessment, *, reference: Reference | None, age_years: int | None, sex: str
) -> tuple[Observation, ...]:
    """Remarks: population, caveats, menopause, conversion, disagreement, cut-offs within an interval.

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
    values: dict[str, Value] = {
        "study_class": _CLASSES[study_class],
        "category": _CATEGORIES[density.category],
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
    if reference.unstated:  # accepted by the site: otherwise there is no score
        unstated = unstated_phrase(reference, reference.unstated)
        values: dict[str, Value] = {"reference": reference.name, "unstated": unstated}
        found.append(Observation(code="reference_incomplete", values=values))
    if given.t_score is not None:
        found.append(Observation(code="not_dxa"))
    return tuple(found)


def _on_menopause(given: Assessment, age_years: int | None, sex: str) -> tuple[Observation, ...]:
    scored = given.t_score is not None or given.z_score is not None or given.density is not None
    if sex != "F" or age_years is None or not scored:
        return ()
    postmenopausal = age_years >= T_FROM_YEARS
    taken = phrase("taken-postmenopausal") if postmenopausal else phrase("taken-premenopausal")
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
        phrase("t-score"), score.value, sigma, (T_OSTEOPOROSIS_FROM, T_OSTEOPENIA_BELOW), digits=2, unit=""
    )


def _straddled_by_density(density: DensityVerdict | None) -> tuple[Observation, ...]:
    if density is None or density.uncertainty_mg_cm3 is None:
        return ()
    cut_offs = (DENSITY_OSTEOPOROSIS_BELOW, DENSITY_NORMAL_ABOVE)
    first, second = density.levels
    what = phrase("mean-density-of", first=first, second=second)
    unit = f"mg/cm3 {density.equivalent}"
    return _straddled(what, density.mean_mg_cm3, density.uncertainty_mg_cm3, cut_offs, digits=1, unit=unit)


def _straddled(
    what: Phrase, value: float, sigma: float, cut_offs: Sequence[float], *, digits: int, unit: str
) -> tuple[Observation, ...]:
    lower, upper = interval95(value, sigma)
    inside = [f"{cut_off:g}" for cut_off in cut_offs if lower <= cut_off <= upper]
    if not inside:
        return ()
    low, high = f"{lower:.{digits}f}", f"{upper:.{digits}f}"
    values: dict[str, Value] = {
        "what": what,
        "interval": phrase("interval-with-unit", low=low, high=high, unit=unit)
        if unit
        else phrase("interval", low=low, high=high),
        "cut_offs": together(inside),
    }
    return (Observation(code="cutoff_straddled", values=values),)
