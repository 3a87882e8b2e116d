"""When a model card is not applied: each reason with its finding, and what is left of the scores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pytest

from config.findings import load_findings
from node.pipeline.steps.judge import MeasuredStudy, ReportedResults, ReportingRules, judge
from node.pipeline.steps.score import Measurements
from node.study_report import Laboratory
from scoring.calibration import Mineral
from scoring.calibration.spectrum import Spectrum
from scoring.density.bmd import AgeBin, Reference
from scoring.models.card import ModelCard
from segmentation.vertebrae import Observation, RegionKind
from tests.unit.judged_cases import CARD, SERIES, STUDY, calibration, level

REFERENCE = Reference(
    name="test",
    population="made for this test",
    authority="none",
    source="made for this test",
    sex="any",
    equivalent=Mineral.HA,
    levels=("L3",),
    young=AgeBin(age_from=20, age_to=29, mean_mg_cm3=170.0, sd_mg_cm3=30.0),
    ages=(AgeBin(age_from=20, age_to=110, mean_mg_cm3=110.0, sd_mg_cm3=25.0),),
    kvp=(80.0, 140.0),
    demonstration=False,
    roi=RegionKind.CORE,
)
FINE = replace(
    SERIES, kvp=120.0, slice_thickness_mm=2.0, slice_spacing_mm=2.0, pixel_spacing_mm=(0.7, 0.7), instances=60
)
TODAY = replace(STUDY, study_date=date(2026, 3, 1))
LABORATORY = Laboratory(alp_u_l=80.0, homocysteine_umol_l=12.0)
FEATURES = {one.name: one.mean for one in CARD.features}
BOTH, RAD_SCORE_ALONE, NEITHER = ("rad-score", "nomogram"), ("rad-score",), ()


def judged(
    *,
    series: dict[str, Any] | None = None,
    study: dict[str, Any] | None = None,
    laboratory: dict[str, Any] | None = None,
    features: dict[str, float] | None = FEATURES,
    bmd_mg_cm3: float = 110.0,
    reference: Reference | None = REFERENCE,
    equivalent: Mineral = Mineral.HA,
    card: ModelCard | None = CARD,
    **basis: Any,
) -> ReportedResults:
    """A woman of 67 with T -2 to whom the demonstration model applies, but for what is changed."""
    case = MeasuredStudy(
        measurements=Measurements(
            levels=(level("L3", bmd_mg_cm3, 1.0),),
            numbering_confirmed=True,
            calibration=calibration(equivalent, uncertainty_mg_cm3=1.0),
            features=features,
        ),
        study=replace(TODAY, **(study or {})),
        series=replace(FINE, **(series or {})),
        observations=(),
        laboratory=replace(LABORATORY, **(laboratory or {})),
    )
    given: dict[str, Any] = {
        "table": load_findings(),
        "language": "en",
        "reference": reference,
        "card": card,
        "radiomics_settings_sha256": CARD.radiomics_settings_sha256,
    }
    return judge(case, ReportingRules(**given | basis))


def shifted(sds: float) -> dict[str, float]:
    """Features of a rad-score so many SDs of the first feature away from the training mean."""
    first = CARD.features[0]
    return {**FEATURES, first.name: first.mean + sds * first.sd}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    says: str
    code: str
    words: str = ""
    left: tuple[str, ...] = NEITHER
    changes: dict[str, Any] = field(default_factory=dict)


def _spectral(**spectrum: str) -> dict[str, Any]:
    """A study of another spectrum, and a reference of the same: T is given."""
    return {"series": spectrum, "reference": replace(REFERENCE, spectrum=Spectrum(**spectrum))}


NO_REFERENCE = {"reference": None}
NOT_PINNED = Observation(code="model_not_pinned", values={"reason": "another card"})
REFUSALS = (
    Refusal(says="tube voltage above", code="model_range", words="140 kV is outside 115 to 125 kV",
            changes={"series": {"kvp": 140.0}}),
    Refusal(says="tube voltage below", code="model_range", words="100 kV is outside",
            changes={"series": {"kvp": 100.0}}),
    Refusal(says="tube voltage not stated", code="model_range", words="voltage is not stated",
            changes={"series": {"kvp": None}}),
    Refusal(says="a virtual energy", code="model_range",
            words="the energy type is virtual 70 keV; conventional is required",
            changes=_spectral(energy="virtual 70 keV")),
    Refusal(says="photons counted", code="model_range", words="the energy type is photon counting",
            changes=_spectral(energy="photon counting")),
    Refusal(says="tin before the tube", code="model_range", words="the spectral filter is tin; none",
            changes=_spectral(beam_filter="tin")),
    Refusal(says="slices too far apart", code="model_range", words="slices 4 mm apart",
            changes={"series": {"slice_spacing_mm": 4.0}}),
    Refusal(says="slices too near", code="model_range", words="slices 1 mm apart",
            changes={"series": {"slice_spacing_mm": 1.0}}),
    Refusal(says="slices that stand alone", code="model_range", words="its slices are single slices",
            changes={"series": {"slice_spacing_mm": None}}),
    Refusal(says="rows too far apart", code="model_range", words="pixels of 2 mm",
            changes={"series": {"pixel_spacing_mm": (2.0, 0.7)}}),
    Refusal(says="columns too far apart", code="model_range", words="pixels of 2 mm",
            changes={"series": {"pixel_spacing_mm": (0.7, 2.0)}}),
    Refusal(says="another mineral", code="model_range", words="densities are in K2HPO4",
            changes={"equivalent": Mineral.K2HPO4,
                     "reference": replace(REFERENCE, equivalent=Mineral.K2HPO4)}),
    Refusal(says="other feature settings", code="model_range", words="other settings",
            changes={"radiomics_settings_sha256": "ab" * 32}),
    Refusal(says="features of another model", code="model_range", words="another model was activated",
            changes={"features": {"original_firstorder_Mean": 100.0}}),
    Refusal(says="a rad-score that no bone gives", code="model_range", words="is outside -7 to 9",
            changes={"features": shifted(40.0)}),
    Refusal(says="T above -1", code="t_above_model", words="T-score -0.33", changes={"bmd_mg_cm3": 160.0}),
    Refusal(says="T of exactly -1", code="t_above_model", words="T-score -1", changes={"bmd_mg_cm3": 140.0}),
    Refusal(says="no T for want of a reference", code="no_reference", changes=NO_REFERENCE),
    Refusal(says="no T for a reference that does not fit", code="reference_mismatch",
            changes={"reference": replace(REFERENCE, sex="M")}),
    Refusal(says="no model", code="no_model", changes={"card": None}),
    Refusal(says="a model that is not the pinned one", code="model_not_pinned", words="(another card)",
            changes={"card": None, "card_refusal": NOT_PINNED}),
    Refusal(says="age unknown", code="age_unknown", changes={"study": {"age_years": None}}),
    Refusal(says="sex unknown", code="sex_unknown", changes={"study": {"sex": ""}}),
    Refusal(says="ALP missing", code="laboratory_missing", words="Not available: ALP.",
            left=RAD_SCORE_ALONE, changes={"laboratory": {"alp_u_l": None}}),
    Refusal(says="homocysteine missing", code="laboratory_missing", words="Not available: Homocysteine.",
            left=RAD_SCORE_ALONE, changes={"laboratory": {"homocysteine_umol_l": None}}),
    Refusal(says="ALP implausible", code="laboratory_implausible", words="ALP 2001 U/L is outside 5 to 2000",
            left=RAD_SCORE_ALONE, changes={"laboratory": {"alp_u_l": 2001.0}}),
    Refusal(says="homocysteine implausible", code="laboratory_implausible", words="Homocysteine 0.5 umol/L",
            left=RAD_SCORE_ALONE, changes={"laboratory": {"homocysteine_umol_l": 0.5}}),
    Refusal(says="ALP beyond training", code="input_range", words="ALP 181 U/L is outside the model's range "
            "(20 to 180)", left=RAD_SCORE_ALONE, changes={"laboratory": {"alp_u_l": 181.0}}),
    Refusal(says="homocysteine beyond training", code="input_range", words="Homocysteine 4.9 umol/L",
            left=RAD_SCORE_ALONE, changes={"laboratory": {"homocysteine_umol_l": 4.9}}),
    Refusal(says="age beyond training", code="input_range", words="Age 91 is outside",
            left=RAD_SCORE_ALONE, changes={"study": {"age_years": 91}}),
    Refusal(says="a rad-score beyond training", code="input_range", words="outside the model's range (-3 to",
            left=RAD_SCORE_ALONE, changes={"features": shifted(10.0)}),
)  # fmt: skip


def given(judgement: ReportedResults) -> tuple[str, ...]:
    scores = {"rad-score": judgement.rad_score, "nomogram": judgement.nomogram}
    return tuple(name for name, value in scores.items() if value is not None)


def test_the_model_applies_where_nothing_stands_in_its_way():
    found = judged()
    assert given(found) == BOTH
    assert found.t_score is not None
    assert found.t_score.value == pytest.approx(-2.0)
    assert {one.code for one in found.findings}.isdisjoint({row.code for row in REFUSALS})


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.says)
def test_a_card_is_not_applied(row):
    found = judged(**row.changes)
    assert given(found) == row.left
    texts = [one.text for one in found.findings if one.code == row.code]
    assert len(texts) == 1
    assert row.words in texts[0]
    assert found.measured  # density is given whatever the model says


@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_of_every_range_belong_to_it(end):
    """What the training patients span is covered, its extremes included."""
    found = judged(
        series={
            "kvp": CARD.applicability.kvp[end],
            "slice_spacing_mm": CARD.applicability.slice_spacing_mm[end],
            "pixel_spacing_mm": (CARD.applicability.pixel_spacing_mm[end],) * 2,
        },
        study={"age_years": int(CARD.term("age").axis[end])},
        laboratory={
            "alp_u_l": CARD.term("alp").axis[end],
            "homocysteine_umol_l": CARD.term("homocysteine").axis[end],
        },
    )
    assert given(found) == BOTH


def test_every_reason_is_told_at_once():
    found = judged(series={"kvp": 140.0, "slice_spacing_mm": 9.0}, laboratory={"alp_u_l": None})
    (told,) = [one.text for one in found.findings if one.code == "model_range"]
    assert "140 kV" in told
    assert "9 mm apart" in told


@pytest.mark.parametrize(
    ("bmd_mg_cm3", "sds", "contradicts"),
    [(92.0, 3.0, True), (92.0, -1.0, False), (110.0, -1.0, True), (110.0, 3.0, False)],
    ids=["T -2.6, osteopenia likelier", "T -2.6, agrees", "T -2, osteoporosis likelier", "T -2, agrees"],
)
def test_a_probability_that_the_measured_t_denies_is_said_and_the_measurement_leads(
    bmd_mg_cm3, sds, contradicts
):
    found = judged(bmd_mg_cm3=bmd_mg_cm3, features=shifted(sds))
    assert given(found) == BOTH
    texts = [one.text for one in found.findings if one.code == "contradiction"]
    assert bool(texts) is contradicts
    assert all("The measurement takes precedence" in text for text in texts)


def test_a_cards_notice_stands_beside_its_numbers_and_not_without_them():
    card = replace(CARD, demonstration=False, notice="For research in this hospital alone")
    told = "Rad-score and nomogram come from demonstration: For research in this hospital alone"
    found = judged(card=card)
    assert given(found) == BOTH
    assert [one.text for one in found.findings if one.code == "model_notice"] == [told]
    refused = judged(card=card, series={"kvp": 140.0})
    assert "model_notice" not in {one.code for one in refused.findings}
