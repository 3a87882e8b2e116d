"""To whom T, Z, both categories and the rad-score apply: a row for each clause, and the borders.

Densities go through the whole judgement (findings table included), as a report's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from statistics import NormalDist

import pytest

from config.catalog import load_reference
from config.findings import load_findings
from config.settings import ConfigurationError, load_settings
from node.pipeline.steps.judge import MeasuredStudy, ReportedResults, ReportingRules, judge
from node.pipeline.steps.score import Measurements
from node.study_report import Laboratory, LevelResult
from scoring.calibration import Calibration, Grade, Mineral
from scoring.calibration.spectrum import Spectrum
from scoring.density.bmd import AgeBin, DensityCategory, Reference, StudyClass
from scoring.density.scores import Conversion, assess, density_category, study_class
from segmentation.vertebrae import Observation, RegionKind
from tests.unit.judged_cases import CARD, SERIES, STUDY, calibration, level

YOUNG = AgeBin(age_from=20, age_to=29, mean_mg_cm3=173.11, sd_mg_cm3=28.56)
REFERENCE = Reference(
    name="test",
    population="Chinese men and, for this test, women",
    authority="none",
    source="made for this test",
    sex="any",
    equivalent=Mineral.K2HPO4,
    levels=("L1", "L2"),
    young=YOUNG,
    ages=(AgeBin(age_from=20, age_to=99, mean_mg_cm3=110.0, sd_mg_cm3=25.0),),
    kvp=(80.0, 140.0),
    demonstration=False,
    roi=RegionKind.CORE,
)


def judged(
    *levels: LevelResult,
    using: Calibration | None = None,
    reference: Reference | None = REFERENCE,
    conversion: Conversion | None = None,
    age_years: int | None = 67,
    sex: str = "F",
    kvp: float | None = SERIES.kvp,
    spectrum: Mapping[str, str] | None = None,
    noticed: tuple[Observation, ...] = (),
    accept_unstated: tuple[str, ...] = (),
) -> ReportedResults:
    """What is said of a woman of 67 with 70 mg/cm3 in L1 to L3, but for what is changed."""
    using = using or calibration()
    case = MeasuredStudy(
        measurements=Measurements(
            levels=levels or (level("L1", 70.0), level("L2", 70.0), level("L3", 70.0)),
            numbering_confirmed=True,
            calibration=using,
            features={one.name: one.mean for one in CARD.features},
        ),
        study=replace(STUDY, age_years=age_years, sex=sex),
        series=replace(SERIES, kvp=kvp, **(spectrum or {})),
        observations=noticed,
        laboratory=Laboratory(alp_u_l=80.0, homocysteine_umol_l=12.0),
    )
    basis = ReportingRules(
        table=load_findings(),
        language="en",
        reference=reference,
        card=replace(CARD, applicability=replace(CARD.applicability, equivalent=using.equivalent)),
        radiomics_settings_sha256=CARD.radiomics_settings_sha256,
        conversion=conversion,
        accept_unstated=accept_unstated,
    )
    return judge(case, basis)


def codes(judgement: ReportedResults) -> set[str]:
    return {finding.code for finding in judgement.findings}


def text(judgement: ReportedResults, code: str) -> str:
    return next(finding.text for finding in judgement.findings if finding.code == code)


def categories(judgement: ReportedResults) -> tuple[object, object]:
    return judgement.study_class, judgement.density


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One clause: what is different about the woman of `judged`, what she still gets, what she is told."""

    says: str
    densities: Mapping[str, float] = field(default_factory=lambda: {"L1": 70.0, "L2": 70.0, "L3": 70.0})
    region: RegionKind = RegionKind.CORE
    changes: Mapping[str, object] = field(default_factory=dict)
    given: frozenset[str]
    code: str
    words: str = ""


def _noticed(code: str, **values: str | int | float) -> Mapping[str, object]:
    return {"noticed": (Observation(code=code, values=values),)}


def _compared(**changes: object) -> Mapping[str, object]:
    return {"reference": replace(REFERENCE, **changes)}


EVERYTHING = frozenset({"T", "Z", "class", "density", "rad-score"})
NOTHING: frozenset[str] = frozenset()
BY_REFERENCE = EVERYTHING - {"density"}
SECOND = AgeBin(age_from=70, age_to=79, mean_mg_cm3=95.0, sd_mg_cm3=26.0)
ELLIPSE, ASYNCHRONOUS = RegionKind.ELLIPSE, calibration(grade=Grade.ASYNCHRONOUS)
VIRTUAL = Spectrum(energy="virtual 70 keV")
AS_MEASURED = {"using": calibration(Mineral.HA)}
UNSURE = {"using": calibration(uncertainty_mg_cm3=6.0)}
CLAUSES = (
    Clause(says="the reference's mineral equivalent matches", changes=AS_MEASURED, given=NOTHING,
           code="reference_mismatch", words="stated in K2HPO4; the phantom measures HA"),
    Clause(says="the rule's mineral equivalent matches", changes=AS_MEASURED, given=NOTHING,
           code="density_rule_equivalent"),
    Clause(says="the reference's sex matches", changes=_compared(sex="M"), given=frozenset({"density"}),
           code="reference_mismatch", words="sex M"),
    Clause(says="the reference has this age", changes=_compared(ages=(SECOND,)), given=EVERYTHING - {"Z"},
           code="z_reference_missing"),
    Clause(says="the population is named and left to the reader", given=EVERYTHING,
           code="reference_population", words=REFERENCE.population),
    Clause(says="the reference's levels are measured", changes=_compared(levels=("L4",)),
           given=frozenset({"density"}), code="reference_mismatch", words="not measured: L4"),
    Clause(says="the rule's levels are measured", changes=_compared(levels=("L3",)),
           densities={"L1": 70.0, "L3": 70.0}, given=BY_REFERENCE, code="density_levels_missing"),
    Clause(says="the reference's region matches", changes=_compared(roi=ELLIPSE),
           given=frozenset({"density"}), code="reference_mismatch",
           words="its region is the ellipse; that of this study is the core"),
    Clause(says="this study's region matches", region=ELLIPSE, given=frozenset({"density"}),
           code="reference_mismatch", words="its region is the core; that of this study is the ellipse"),
    Clause(says="the reference states its tube voltage", changes=_compared(kvp=None),
           given=frozenset({"density"}), code="reference_unstated", words="does not state its tube voltage."),
    Clause(says="the reference states its region", changes=_compared(roi=None), given=frozenset({"density"}),
           code="reference_unstated", words="does not state its region of interest."),
    Clause(says="the reference states its levels", changes=_compared(levels_stated=False),
           given=frozenset({"density"}), code="reference_unstated",
           words="does not state its vertebral levels (taken as L1, L2)."),
    Clause(says="what is unstated may be accepted, and is printed", given=EVERYTHING,
           changes=_compared(kvp=None, roi=None) | {"accept_unstated": ("kvp", "roi")},
           code="reference_incomplete", words="tube voltage and region of interest; this site has accepted"),
    Clause(says="what is accepted is that alone", given=frozenset({"density"}),
           changes=_compared(kvp=None, roi=None) | {"accept_unstated": ("kvp",)},
           code="reference_unstated", words="does not state its region of interest."),
    Clause(says="accepting the unstated excuses nothing that differs", given=frozenset({"density"}),
           changes=_compared(sex="M", kvp=None) | {"accept_unstated": ("kvp",)},
           code="reference_mismatch", words="sex M"),
    Clause(says="the reference's calibration grade matches", changes={"using": ASYNCHRONOUS}, given=NOTHING,
           code="reference_mismatch", words="requires phantom calibration; the calibration of this"),
    Clause(says="the rule's calibration grade matches", given=BY_REFERENCE, code="density_rule_grade",
           changes={"using": ASYNCHRONOUS} | _compared(grades=(Grade.PHANTOM, Grade.ASYNCHRONOUS))),
    Clause(says="the reference's tube voltage matches", changes={"kvp": 70.0}, given=frozenset({"density"}),
           code="reference_mismatch", words="70 kV"),
    Clause(says="the tube voltage is stated", changes={"kvp": None}, given=frozenset({"density"}),
           code="reference_mismatch", words="not stated"),
    Clause(says="the reference's tube voltage stands for conventional images", given=frozenset({"density"}),
           changes={"spectrum": {"energy": "virtual 70 keV"}}, code="reference_mismatch",
           words="the energy type is virtual 70 keV; conventional is required"),
    Clause(says="and for a beam without a metal filter", given=frozenset({"density"}),
           changes={"spectrum": {"beam_filter": "tin"}}, code="reference_mismatch",
           words="the spectral filter is tin; none is required"),
    Clause(says="a reference may state another spectrum", given=EVERYTHING - {"rad-score"},
           changes={"spectrum": {"energy": "virtual 70 keV"}} | _compared(spectrum=VIRTUAL),
           code="model_range", words="the energy type is virtual 70 keV"),
    Clause(says="without a reference the rule stands alone", changes={"reference": None},
           given=frozenset({"density"}), code="no_reference"),
    Clause(says="under 50: Z only", changes={"age_years": 49}, given=frozenset({"Z"}), code="age_under_50"),
    Clause(says="from 50 on: everything", changes={"age_years": 50}, given=EVERYTHING, code="not_dxa"),
    Clause(says="under 20: nothing", changes={"age_years": 19}, given=NOTHING, code="age_under_20"),
    Clause(says="age unknown: nothing", changes={"age_years": None}, given=NOTHING, code="age_unknown"),
    Clause(says="sex unknown: nothing", changes={"sex": ""}, given=NOTHING, code="sex_unknown"),
    Clause(says="sex other: nothing", changes={"sex": "O"}, given=NOTHING, code="sex_unknown"),
    Clause(says="contrast documented: nothing", changes=_noticed("contrast_given", agent="iohexol"),
           given=NOTHING, code="contrast_given"),
    Clause(says="contrast seen: nothing", changes=_noticed("contrast_suspected", hu=120, limit=60),
           given=NOTHING, code="contrast_suspected"),
    Clause(says="internal calibration: nothing", changes={"using": calibration(grade=Grade.INTERNAL)},
           given=NOTHING, code="internal_calibration"),
    Clause(says="level unconfirmed: nothing", changes=_noticed("level_unconfirmed"), given=NOTHING,
           code="level_unconfirmed"),
    Clause(says="level in conflict: nothing", changes=_noticed("numbering_conflict", detail="-"),
           given=NOTHING, code="numbering_conflict"),
    Clause(says="menopause unknown is said from 50 on", given=EVERYTHING, code="menopause_unknown",
           words="postmenopausal"),
    Clause(says="menopause unknown is said under 50", changes={"age_years": 49}, given=frozenset({"Z"}),
           code="menopause_unknown", words="premenopausal"),
    Clause(says="both rules are given, their disagreement said", densities={"L1": 90.0, "L2": 90.0},
           given=EVERYTHING, code="rules_disagree", words="The measured density takes precedence."),
    Clause(says="an interval that straddles a cut-off is said", densities={"L1": 75.0, "L2": 75.0},
           changes=UNSURE, given=EVERYTHING, code="cutoff_straddled", words="Mean density of L1 and L2"),
    Clause(says="a suspected fracture anywhere withholds categories", given=EVERYTHING - {"class", "density"},
           changes=_noticed("fracture_in_spine", levels="T12"), code="fracture_in_spine"),
    Clause(says="ISCD's caveat is said", given=EVERYTHING, code="not_dxa", words="not equivalent to DXA"),
)  # fmt: skip


def outputs(judgement: ReportedResults) -> set[str]:
    found = {
        "T": judgement.t_score,
        "Z": judgement.z_score,
        "class": judgement.study_class,
        "density": judgement.density,
        "rad-score": judgement.rad_score,
    }
    return {name for name, value in found.items() if value is not None}


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.says)
def test_every_clause_of_the_rules(clause):
    levels = [level(name, bmd, region=clause.region) for name, bmd in clause.densities.items()]
    found = judged(*levels, **clause.changes)
    assert outputs(found) == clause.given
    assert clause.words in text(found, clause.code)
    assert found.measured  # density itself is always given


def test_a_reference_of_several_levels_is_compared_with_their_mean():
    found = judged(level("L1", 80.0), level("L2", 110.0), level("L3", 300.0))
    assert found.t_score.levels == ("L1", "L2")
    assert found.t_score.bmd_mg_cm3 == pytest.approx(95.0)
    assert found.t_score.equivalent is Mineral.K2HPO4
    assert found.density.mean_mg_cm3 == pytest.approx(95.0)


def test_menopause_is_not_spoken_of_where_no_womans_score_rests_on_it():
    assert "menopause_unknown" not in codes(judged(sex="M"))
    assert "menopause_unknown" not in codes(judged(age_years=19))


def test_a_z_score_under_fifty_is_the_one_of_that_age():
    assert judged(age_years=49).z_score.value == pytest.approx(-1.6)  # (70 - 110) / 25


def test_everything_is_said_of_a_woman_to_whom_everything_applies():
    found = judged()
    assert found.t_score.value == pytest.approx((70.0 - 173.11) / 28.56)
    assert found.z_score.value == pytest.approx((70.0 - 110.0) / 25.0)
    assert found.study_class is StudyClass.OSTEOPOROSIS
    assert found.density.category is DensityCategory.OSTEOPOROSIS
    assert found.density.levels == ("L1", "L2")
    assert found.rad_score is not None


def test_nothing_is_said_to_be_unstated_of_a_reference_that_states_all():
    assert not {"reference_incomplete", "reference_unstated"} & codes(judged())
    alone = judged(reference=replace(REFERENCE, roi=None))
    assert "reference_incomplete" not in codes(alone)  # a remark on a score that is not given


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("L1", "L2", "L3", "L4"), ("L1", "L2")),
        (("L2", "L3", "L4", "L5"), ("L2", "L3")),
        (("L1", "L3", "L4", "L5"), ("L3", "L4")),
        (("L1", "L4", "L5"), ("L4", "L5")),
        (("L1", "L3", "L5"), None),
        (("L3",), None),
    ],
)
def test_the_density_rule_rests_on_l1_and_l2_else_on_the_pair_nearest_l3(names, pair):
    found = judged(*(level(name, 70.0) for name in names))
    assert (found.density.levels if found.density else None) == pair
    assert ("density_levels_missing" in codes(found)) == (pair is None)


def test_a_level_that_is_not_measured_for_metal_is_no_part_of_the_pair():
    metal = Observation(code="metal_near_body", level="L1", values={"volume_mm3": 100, "limit_hu": 2000})
    assert judged(noticed=(metal,)).density.levels == ("L2", "L3")


def test_an_ellipse_beside_the_core_is_withheld_with_it():
    one = level("L1", 70.0)
    metal = Observation(code="metal_near_body", level="L1", values={"volume_mm3": 100, "limit_hu": 2000})
    found = judged(replace(one, ellipse=one.measured), level("L2", 70.0), noticed=(metal,))
    assert (found.levels[0].measured, found.levels[0].ellipse) == (None, None)


def test_ha_is_judged_by_the_rule_for_k2hpo4_only_through_the_sites_own_pair():
    alone = judged(using=calibration(Mineral.HA))
    assert alone.density is None
    assert "density_rule_equivalent" in codes(alone)

    pair = Conversion(slope=1.2, intercept_mg_cm3=5.0)
    found = judged(using=calibration(Mineral.HA, uncertainty_mg_cm3=2.0), conversion=pair)
    assert found.density.mean_mg_cm3 == pytest.approx(1.2 * 70.0 + 5.0)
    assert found.density.category is DensityCategory.LOW
    assert (found.density.equivalent, found.density.converted_from) == (Mineral.K2HPO4, Mineral.HA)
    assert found.density.uncertainty_mg_cm3 == pytest.approx(2.4)
    assert "density_converted" in codes(found)
    assert found.t_score is None  # a reference in K2HPO4 is never compared with HA


def test_k2hpo4_is_never_converted():
    found = judged(conversion=Conversion(slope=2.0, intercept_mg_cm3=0.0))
    assert found.density.mean_mg_cm3 == pytest.approx(70.0)
    assert "density_converted" not in codes(found)


def test_no_conversion_is_shipped_and_a_site_names_a_slope_and_an_intercept():
    assert load_settings().scoring.k2hpo4_from_ha == ()
    assert load_settings(scoring={"k2hpo4_from_ha": [0.87, 6.4]}).scoring.k2hpo4_from_ha == (0.87, 6.4)
    for wrong in ([0.0, 1.0], [-1.0, 0.0], [0.9]):
        with pytest.raises(ConfigurationError, match="k2hpo4_from_ha"):
            load_settings(scoring={"k2hpo4_from_ha": wrong})


# With 173.11 +- 28.56, T = -2.5 lies at 101.71 and T = -1 at 144.55 mg/cm3.
@pytest.mark.parametrize(
    ("bmd", "disagree"),
    [
        (79.9, False),
        (80.0, True),
        (101.70, True),
        (101.72, False),
        (120.0, False),
        (120.01, True),
        (144.54, True),
        (144.56, False),
    ],
)
def test_between_80_and_102_and_between_120_and_145_the_rules_disagree_and_the_density_leads(bmd, disagree):
    found = judged(*(level(name, bmd) for name in ("L1", "L2", "L3")))
    assert None not in categories(found)  # both are given
    assert ("rules_disagree" in codes(found)) == disagree
    if disagree:
        said = text(found, "rules_disagree")
        assert "The measured density takes precedence." in said
        assert found.study_class.value in said
        assert found.density.category.value in said


def test_a_remark_never_gives_away_a_withheld_category():
    fracture = Observation(code="fracture_in_spine", values={"levels": "T12"})
    found = judged(level("L1", 100.0, 30.0), level("L2", 100.0, 30.0), noticed=(fracture,))
    assert categories(found) == (None, None)
    assert not codes(found) & {"rules_disagree", "cutoff_straddled"}


@pytest.mark.parametrize("bmd", [70.0, 100.0, 200.0])
def test_a_suspected_fracture_anywhere_withholds_normal_and_every_milder_word_than_it_deserves(bmd):
    fracture = Observation(code="fracture_in_spine", values={"levels": "T12"})
    found = judged(level("L1", bmd), level("L2", bmd), noticed=(fracture,))
    assert categories(found) == (None, None)
    assert found.t_score is not None
    assert "fragility fracture" in text(found, "fracture_in_spine")


UNASSESSED = Observation(code="fracture_not_assessed", values={"step_mm": 5.0, "percent": 40})


@pytest.mark.parametrize("bmd", [70.0, 100.0, 200.0])
def test_normal_is_never_said_where_fractures_were_not_assessed_and_lower_words_stand(bmd):
    """200 mg/cm3 are normal by both rules, 100 and 70 by neither."""
    at = (level("L1", bmd), level("L2", bmd), level("L3", bmd))
    free, found = judged(*at), judged(*at, noticed=(UNASSESSED,))
    assert None not in categories(free)
    assert (free.density.category is DensityCategory.NORMAL) == (bmd == 200.0)
    assert categories(found) == ((None, None) if bmd == 200.0 else categories(free))
    assert found.t_score == free.t_score
    assert (found.rad_score, found.nomogram) == (free.rad_score, free.nomogram)
    assert "not_available" not in codes(found)
    assert codes(found) - codes(free) == {"fracture_not_assessed"}
    assert "normal" in text(found, "fracture_not_assessed")


def test_of_two_rules_the_one_that_says_normal_is_withheld_alone():
    """At 105 mg/cm3 in L1 to L3 density is low; against young people of 100 mg/cm3 the class is normal."""
    at = (level("L1", 105.0), level("L2", 105.0), level("L3", 105.0))
    young = replace(YOUNG, mean_mg_cm3=100.0)
    found = judged(*at, reference=replace(REFERENCE, young=young), noticed=(UNASSESSED,))
    assert found.study_class is None
    assert found.density.category is DensityCategory.LOW
    assert not codes(found) & {"not_available", "rules_disagree"}


def test_categories_come_from_unrounded_values():
    near = 79.996  # shown as 80.0
    assert judged(level("L1", near), level("L2", near)).density.category is DensityCategory.OSTEOPOROSIS
    just = YOUNG.mean_mg_cm3 - 2.4999 * YOUNG.sd_mg_cm3  # T shown as -2.50
    assert judged(level("L1", just), level("L2", just)).study_class is StudyClass.OSTEOPENIA


Z95 = NormalDist().inv_cdf(0.975)


def test_an_interval_that_holds_a_cut_off_is_said_and_one_that_ends_before_it_is_not():
    for sigma, straddled in ((5.0 / Z95 + 0.01, True), (5.0 / Z95 - 0.01, False)):
        found = judged(level("L1", 75.0), level("L2", 75.0), using=calibration(uncertainty_mg_cm3=sigma))
        assert ("cutoff_straddled" in codes(found)) == straddled
    said = text(
        judged(level("L1", 79.0), level("L2", 79.0), using=calibration(uncertainty_mg_cm3=1.0)),
        "cutoff_straddled",
    )
    assert "Mean density of L1 and L2" in said
    assert "(77.0 to 81.0 mg/cm3 K2HPO4)" in said


def test_a_t_score_whose_interval_holds_its_cut_off_is_said():
    bmd = YOUNG.mean_mg_cm3 - 2.5 * YOUNG.sd_mg_cm3 + 3.0  # 3 mg/cm3 above T = -2.5
    for sigma, straddled in ((3.0 / Z95 + 0.01, True), (3.0 / Z95 - 0.01, False)):
        found = judged(level("L1", bmd), level("L2", bmd), using=calibration(uncertainty_mg_cm3=sigma))
        said = [one.text for one in found.findings if one.code == "cutoff_straddled"]
        assert any(one.startswith("T-score") and "-2.5" in one for one in said) == straddled


def test_noise_of_two_levels_averages_out_in_the_interval():
    found = judged(level("L1", 70.0, 4.0), level("L2", 70.0, 4.0))
    assert found.density.uncertainty_mg_cm3 == pytest.approx(4.0 / 2**0.5)


def test_iscds_caveat_stands_beside_every_t_score_and_beside_nothing_else():
    assert "not equivalent to DXA" in text(judged(), "not_dxa")
    assert "not_dxa" not in codes(judged(age_years=49))
    assert "not_dxa" not in codes(judged(reference=None))


def test_a_shipped_reference_is_a_named_source_or_says_that_it_is_invented():
    shipped = {path.name for path in files("config").joinpath("references").iterdir()}
    assert shipped == {"chinese-men-mindways.toml", "demonstration.toml"}
    men, _ = load_reference("chinese-men-mindways")
    assert (men.young.mean_mg_cm3, men.young.sd_mg_cm3) == (173.11, 28.56)
    assert (men.sex, men.equivalent, men.ages) == ("M", Mineral.K2HPO4, ())
    assert not men.demonstration
    assert judged(reference=men, sex="M").t_score is None
    everything = ("kvp", "roi", "levels")
    assert judged(reference=men, sex="M", accept_unstated=everything[:2]).t_score is None
    assert judged(reference=men, sex="M", accept_unstated=everything).t_score is not None
    assert judged(reference=men, sex="F", accept_unstated=everything).t_score is None
    marked = judged(reference=replace(REFERENCE, demonstration=True))
    assert "NOT FOR CLINICAL USE" in text(marked, "demonstration_reference")


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (-2.5, StudyClass.OSTEOPOROSIS),
        (-2.4999999, StudyClass.OSTEOPENIA),
        (-1.0000001, StudyClass.OSTEOPENIA),
        (-1.0, StudyClass.NORMAL),
        (0.3, StudyClass.NORMAL),
    ],
)
def test_study_class_borders_lie_exactly_at_minus_one_and_minus_two_and_a_half(t, expected):
    assert study_class(t) is expected


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (79.9999, DensityCategory.OSTEOPOROSIS),
        (80.0, DensityCategory.LOW),
        (120.0, DensityCategory.LOW),
        (120.0001, DensityCategory.NORMAL),
    ],
)
def test_density_category_borders_lie_exactly_at_80_and_120(mean, expected):
    assert density_category(mean) is expected


def _assessed(using: Calibration | None, *levels: LevelResult):
    """Without the findings table."""
    return assess(
        {one.name: one.measured for one in levels},
        calibration=using,
        reference=REFERENCE,
        age_years=67,
        sex="F",
        kvp=120.0,
        roi=RegionKind.CORE,
    )


def test_an_internal_calibration_gives_no_score_whatever_the_findings_table_says():
    found = _assessed(calibration(grade=Grade.INTERNAL), level("L1", 70.0), level("L2", 70.0))
    assert (found.t_score, found.z_score, found.study_class, found.density) == (None,) * 4
    assert "internal_calibration" in {one.code for one in found.observations}


def test_without_a_calibration_or_a_density_nothing_is_said():
    one = level("L3", 95.0)
    bare = replace(one, measured=replace(one.measured, bmd_mg_cm3=None, bmd_uncertainty_mg_cm3=None))
    for found in (_assessed(None, one), _assessed(calibration(), bare), _assessed(calibration())):
        assert found.observations == ()
        assert found.t_score is None
