"""The nomogram among a training's figures: what is read off it is what the model computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from config.catalog import load_model_card
from scoring.models.card import NomogramScale, nomogram_scale
from scoring.training.figures import nomogram_figure


@pytest.fixture(scope="module")
def scale() -> NomogramScale:
    return nomogram_scale(load_model_card("demonstration")[0])


@pytest.fixture(scope="module")
def figure(scale: NomogramScale) -> Figure:
    return drawn(scale)


def drawn(scale: NomogramScale) -> Figure:
    return nomogram_figure(
        scale, positive_class="osteoporosis", negative_class="osteopenia", title="a nomogram"
    )


def words(figure: Figure) -> list[Text]:
    return [one for one in figure.findobj(Text) if one.get_text() and one.get_visible()]


def ticks(figure: Figure, row: int) -> dict[float, float]:
    """Value -> place, 0 to 100, of the axis in that row."""
    (axes,) = figure.axes
    return {
        float(text.get_text()): float(text.get_position()[0])
        for text in axes.texts
        if round(-text.get_position()[1] - 0.08, 6) == row and text.get_ha() == "center"
    }


def test_every_predictor_has_its_axis_with_the_points_that_the_model_gives(
    scale: NomogramScale, figure: Figure
) -> None:
    for row, axis in enumerate(scale.axes, start=1):
        found = ticks(figure, row)
        assert len(found) >= 2
        for value, place in found.items():
            assert axis.lower <= value <= axis.upper
            share = (value - axis.lower) / (axis.upper - axis.lower)
            points = axis.points_at_lower + share * (axis.points_at_upper - axis.points_at_lower)
            assert place == pytest.approx(points)


def test_a_total_stands_above_its_probability(scale: NomogramScale, figure: Figure) -> None:
    totals, probabilities = (ticks(figure, len(scale.axes) + offset) for offset in (1, 2))
    for total, place in totals.items():
        assert place == pytest.approx(100.0 * total / scale.total_points_max)
    assert {0.01, 0.5, 0.99} <= set(probabilities)
    for probability, place in probabilities.items():
        assert scale.probability(place * scale.total_points_max / 100.0) == pytest.approx(probability)


def test_the_probability_says_of_what_against_what(figure: Figure) -> None:
    told = {" ".join(one.get_text().split()) for one in words(figure)}
    assert "Probability of osteoporosis rather than osteopenia (T rule)" in told


@pytest.mark.parametrize(
    ("coefficient", "told"), [(1e-5, "4 to 40"), (-1e-5, "40 to 4")], ids=["rises", "falls"]
)
def test_an_axis_too_short_for_numbers_has_its_ends_beside_it_in_the_order_of_points(
    coefficient: float, told: str
) -> None:
    card, _ = load_model_card("demonstration")
    terms = [
        replace(one, coefficient=coefficient, axis=(4.0, 40.0)) if one.name == "homocysteine" else one
        for one in card.terms
    ]
    figure = drawn(nomogram_scale(replace(card, clinical=replace(card.clinical, terms=tuple(terms)))))
    assert told in [one.get_text() for one in words(figure)]
    require_no_overlap(figure)


def test_no_words_overlap(figure: Figure) -> None:
    assert len(words(figure)) > 30
    require_no_overlap(figure)


def require_no_overlap(figure: Figure) -> None:
    figure.canvas.draw()
    boxes = [one.get_window_extent() for one in words(figure)]
    for place, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[place + 1 :])
