"""What a study's spectrum keeps from being said, and what is said of it."""

from __future__ import annotations

from node.report import SeriesFacts
from scoring.spectrum import energy_in_words
from segmentation.observation import Observation


def spectrum_observations(series: SeriesFacts) -> tuple[Observation, ...]:
    """`spectrum_unusual` where the tube voltage does not stand for the spectrum; `filter_unknown`."""
    found = []
    spectrum = series.spectrum
    if not spectrum.is_conventional:
        values: dict[str, str | int | float] = {
            "energy": energy_in_words(spectrum.energy),
            "filter": spectrum.beam_filter,
        }
        found.append(Observation(code="spectrum_unusual", values=values))
    if series.filter_unknown:
        found.append(Observation(code="filter_unknown", values={"filter": series.filter_unknown}))
    return tuple(found)
