"""Model cards: what is accepted, what identifies them, what they say about a study."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import pairwise

import pytest

from config.phrases import in_english
from scoring.calibration import Mineral
from scoring.calibration.spectrum import CONVENTIONAL_SPECTRUM, Spectrum
from scoring.errors import LaboratoryMissing, ModelCardInvalid, UnknownFeature
from scoring.models.applicability import input_observations, model_observations, score_observations
from scoring.models.card import (
    ModelCard,
    apply_nomogram,
    canonical_json,
    card_document,
    logistic,
    nomogram_scale,
    parse_model_card,
    rad_score,
)

DOCUMENT = {
    "schema": "osteonode-model-card",
    "schema_version": 1,
    "name": "test",
    "version": "1",
    "demonstration": False,
    "notice": "",
    "positive_class": "osteoporosis",
    "negative_class": "osteopenia",
    "label": "made for this test",
    "rad_score": {
        "intercept": 0.5,
        "features": [
            {
                "name": "wavelet-LLL_firstorder_10Percentile",
                "mean": 200.0,
                "sd": 50.0,
                "coefficient": -1.5,
                "origin": "documented",
            },
            {
                "name": "wavelet-LLH_firstorder_Skewness",
                "mean": 0.1,
                "sd": 0.2,
                "coefficient": 0.25,
                "origin": "chosen",
            },
        ],
    },
    "clinical": {
        "intercept": -4.0,
        "terms": [
            {"name": "rad_score", "label": "Rad-score", "unit": "1", "coefficient": 1.1,
             "axis": [-4, 6], "plausible": [-20, 20]},
            {"name": "age", "label": "Age", "unit": "a", "coefficient": 0.05,
             "axis": [50, 90], "plausible": [20, 110]},
            {"name": "alp", "label": "ALP", "unit": "U/L", "coefficient": 0.01,
             "axis": [20, 180], "plausible": [5, 1000]},
            {"name": "homocysteine", "label": "Homocysteine", "unit": "umol/L", "coefficient": -0.02,
             "axis": [4, 40], "plausible": [1, 300]},
        ],
    },
    "applicability": {
        "kvp": [80, 120],
        "slice_spacing_mm": [0.5, 5],
        "pixel_spacing_mm": [0.4, 1.2],
        "equivalent": "HA",
    },
    "software": {"pyradiomics": "3.0.1"},
    "radiomics_settings_sha256": "ab" * 32,
    "training": {"patients": 120, "penalty": 0.5, "note": "none", "seeded": True},
}  # fmt: skip


@pytest.fixture
def card() -> ModelCard:
    return parse_model_card(json.dumps(DOCUMENT))


def changed(path: tuple[str | int, ...], value: object) -> str:
    document = copy.deepcopy(DOCUMENT)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(document)


def test_a_card_survives_the_way_to_json_and_back(card):
    assert parse_model_card(json.dumps(card_document(card), indent=3)) == card
    assert parse_model_card(canonical_json(card)).sha256 == card.sha256


def test_layout_does_not_change_a_cards_identity_but_every_value_does(card):
    assert parse_model_card(json.dumps(DOCUMENT, indent=4, sort_keys=True)).sha256 == card.sha256
    for path, value in (
        (("name",), "other"),
        (("rad_score", "features", 0, "coefficient"), -1.5000001),
        (("training", "patients"), 121),
        (("software", "pyradiomics"), "3.1.0"),
    ):
        assert parse_model_card(changed(path, value)).sha256 != card.sha256


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 2),
        (("schema",), "another"),
        (("name",), ""),
        (("demonstration",), 1),
        (("demonstration",), True),  # without a notice
        (("positive_class",), "osteopenia"),
        (("unheard_of",), 1),
        (("rad_score", "intercept"), "0"),
        (("rad_score", "intercept"), True),
        (("rad_score", "intercept"), 10**400),
        (("rad_score", "features"), []),
        (("rad_score", "features", 0, "sd"), 0),
        (("rad_score", "features", 0, "name"), "wavelet-LLX_firstorder_Median"),
        (("rad_score", "features", 0, "name"), "wavelet-LLH_firstorder_Skewness"),  # twice
        (("rad_score", "features", 0, "origin"), "guessed"),
        (("clinical", "terms", 0, "name"), "bmi"),
        (("clinical", "terms", 0, "axis"), [6, -4]),
        (("clinical", "terms", 0, "axis"), [1]),
        (("clinical", "terms", 0, "unit"), None),
        (("applicability", "equivalent"), "CaCO3"),
        (("applicability", "kvp"), None),
        (("radiomics_settings_sha256",), "AB" * 32),
        (("training",), []),
        (("training", "nested"), {}),
        (("training", "cutoff_combined"), 7),
        (("training", "cutoff_radiomics"), True),
        (("training", "cutoff_radiomics"), "0.5"),
    ],
)
def test_a_card_that_breaks_the_schema_is_refused_by_the_name_of_the_key(path, value):
    with pytest.raises(ModelCardInvalid) as refused:
        parse_model_card(changed(path, value))
    assert path[0] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("unheard_of",), 1, "card has no unheard_of"),
        (("rad_score", "spread"), 1, "rad_score has no spread"),
        (
            ("rad_score", "features", 0, "sd"),
            -1,
            "rad_score.features.0.sd: Input should be greater than 0, not -1",
        ),
        (("clinical", "terms", 0, "axis"), [6, -4], "clinical.terms.0.axis: 6 is not below -4"),
        (("clinical", "terms", 0, "name"), "bmi", "clinical.terms: must name each of rad_score, age, alp"),
        (("training", "nested"), {}, "training.nested: must be a text, a finite number, true or false"),
        (("training", "cutoff_combined"), 7, "training: cutoff_combined must be a probability, not 7"),
        (("demonstration",), True, "card: a demonstration model must carry a notice"),
    ],
)
def test_a_refusal_says_what_is_wrong(path, value, told):
    with pytest.raises(ModelCardInvalid) as refused:
        parse_model_card(changed(path, value))
    assert told in str(refused.value)


@pytest.mark.parametrize("key", sorted(DOCUMENT))
def test_a_card_without_one_of_its_keys_is_refused(key):
    with pytest.raises(ModelCardInvalid, match=key):
        parse_model_card(json.dumps({name: value for name, value in DOCUMENT.items() if name != key}))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": NaN}', '{"name": 1, "name": 2}', "[" * 100_000])
def test_what_is_no_card_at_all_is_refused(text):
    with pytest.raises(ModelCardInvalid):
        parse_model_card(text)


def test_rad_score_by_hand(card):
    score = rad_score(
        card, {"wavelet-LLL_firstorder_10Percentile": 150.0, "wavelet-LLH_firstorder_Skewness": 0.5}
    )
    # 0.5 - 1.5 * (150 - 200)/50 + 0.25 * (0.5 - 0.1)/0.2
    assert score.value == pytest.approx(0.5 + 1.5 + 0.5)
    assert [term.standardised for term in score.terms] == pytest.approx([-1.0, 2.0])
    assert score.value == pytest.approx(score.intercept + sum(term.contribution for term in score.terms))
    assert score.model_sha256 == card.sha256


def test_a_rad_score_is_never_computed_without_one_of_its_features(card):
    with pytest.raises(UnknownFeature) as refused:
        rad_score(card, {"wavelet-LLL_firstorder_10Percentile": 150.0})
    assert refused.value.names == ("wavelet-LLH_firstorder_Skewness",)


def test_the_longest_axis_spans_100_points_and_every_axis_starts_at_0(card):
    scale = nomogram_scale(card)
    points = [(axis.points_at_lower, axis.points_at_upper) for axis in scale.axes]
    # Effects: rad-score 11, age 2, ALP 1.6, homocysteine -0.72; 100/11 points for one unit.
    assert points[0] == pytest.approx((0.0, 100.0))
    assert points[1] == pytest.approx((0.0, 200 / 11))
    assert points[2] == pytest.approx((0.0, 160 / 11))
    assert points[3] == pytest.approx((72 / 11, 0.0))  # a negative coefficient turns its axis round
    assert scale.points_per_lp == pytest.approx(100 / 11)
    assert scale.lp_at_zero_points == pytest.approx(-4.0 - 4.4 + 2.5 + 0.2 - 0.8)
    assert scale.total_points_max == pytest.approx((1100 + 200 + 160 + 72) / 11)


@pytest.mark.parametrize("score", [-15.0, -4.0, 0.0, 2.2, 6.0, 15.0])
@pytest.mark.parametrize(
    ("age", "alp", "homocysteine"), [(67, 85.0, 14.0), (91, 200.0, 60.0), (40, 10.0, 2.0)]
)
def test_the_nomogram_gives_the_logistic_models_probability(card, score, age, alp, homocysteine):
    result = apply_nomogram(card, rad_score=score, age=age, alp=alp, homocysteine=homocysteine)
    expected = logistic(-4.0 + 1.1 * score + 0.05 * age + 0.01 * alp - 0.02 * homocysteine)
    assert abs(result.probability - expected) <= 1e-12
    assert result.total_points == pytest.approx(sum(entry.points for entry in result.inputs))
    assert result.positive_class == "osteoporosis"


def test_probability_rises_with_the_total_points_throughout(card):
    scale = nomogram_scale(card)
    totals = [scale.total_points_max * step / 200 for step in range(201)]
    probabilities = [scale.probability(total) for total in totals]
    assert all(a < b for a, b in pairwise(probabilities))


def test_logistic_overflows_at_neither_end():
    assert logistic(1e4) == 1.0
    assert logistic(-1e4) == 0.0


def test_a_missing_laboratory_value_is_never_filled_in(card):
    with pytest.raises(LaboratoryMissing) as refused:
        apply_nomogram(card, rad_score=0.0, age=67, alp=None, homocysteine=None)
    assert refused.value.names == ("alp", "homocysteine")
    notes = input_observations(card.terms, rad_score=0.0, age=67, alp=None, homocysteine=None)
    assert [(note.code, in_english(note.values["names"])) for note in notes] == [
        ("laboratory_missing", "ALP, Homocysteine")
    ]


def test_implausible_inputs_are_named_with_their_range(card):
    notes = input_observations(card.terms, rad_score=0.0, age=67, alp=2000.0, homocysteine=14.0)
    assert [note.code for note in notes] == ["laboratory_implausible"]
    assert {name: in_english(value) for name, value in notes[0].values.items()} == {
        "name": "ALP",
        "value": "2000",
        "unit": " U/L",
        "lower": "5",
        "upper": "1000",
    }
    assert input_observations(card.terms, rad_score=0.0, age=67, alp=85.0, homocysteine=14.0) == []


def test_a_rad_score_that_no_bone_gives_is_out_of_the_model_s_range(card):
    assert [note.code for note in score_observations(card.term("rad_score"), 25.0, model=card.name)] == [
        "model_range"
    ]
    assert score_observations(card.term("rad_score"), 0.0, model=card.name) == []


def test_a_card_that_is_silent_on_energy_is_one_of_conventional_images_and_keeps_its_identity(card):
    assert card.applicability.spectrum == CONVENTIONAL_SPECTRUM
    assert "energy" not in card_document(card)["applicability"]
    stated = replace(card, applicability=replace(card.applicability, energy="virtual 60 keV"))
    assert parse_model_card(canonical_json(stated)) == stated
    assert covered(stated, spectrum=Spectrum(energy="virtual 60 keV")) == []
    assert [one.code for one in covered(stated)] == ["model_range"]


def covered(card, **changes):
    given = {
        "kvp": 120.0,
        "spectrum": CONVENTIONAL_SPECTRUM,
        "slice_spacing_mm": 2.0,
        "pixel_spacing_mm": (0.7, 0.7),
        "equivalent": Mineral.HA,
        "t_score": -1.8,
    } | changes
    return model_observations(card, **given)


def test_a_study_within_the_models_range_raises_nothing(card):
    assert covered(card) == []
    assert covered(card, t_score=None, equivalent=None) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"kvp": 140.0},
        {"kvp": None},
        {"spectrum": Spectrum(energy="virtual 70 keV")},
        {"spectrum": Spectrum(energy="photon counting")},
        {"spectrum": Spectrum(beam_filter="tin")},
        {"slice_spacing_mm": 10.0},
        {"pixel_spacing_mm": (0.7, 1.5)},
        {"equivalent": Mineral.K2HPO4},
    ],
)
def test_a_study_outside_the_models_range_is_refused(card, changes):
    assert [note.code for note in covered(card, **changes)] == ["model_range"]


@pytest.mark.parametrize(
    ("t", "expected"), [(-1.0, ["t_above_model"]), (0.4, ["t_above_model"]), (-1.001, [])]
)
def test_the_model_applies_below_t_minus_one_only(card, t, expected):
    assert [note.code for note in covered(card, t_score=t)] == expected


def test_a_cards_notice_is_said():
    (noticed,) = covered(parse_model_card(json.dumps(DOCUMENT | {"notice": "For research"})))
    assert (noticed.code, noticed.values["notice"]) == ("model_notice", "For research")
    assert covered(parse_model_card(json.dumps(DOCUMENT | {"notice": ""}))) == []


def test_no_model_and_a_demonstration_are_said():
    assert [note.code for note in covered(None)] == ["no_model"]
    document = copy.deepcopy(DOCUMENT) | {"demonstration": True, "notice": "NOT FOR CLINICAL USE"}
    assert [note.code for note in covered(parse_model_card(json.dumps(document)))] == ["demonstration_model"]
