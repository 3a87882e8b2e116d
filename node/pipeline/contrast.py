"""Contrast medium in a study: what headers say, and the great vessels where headers leave it open."""

from __future__ import annotations

from node.report import SeriesFacts
from segmentation.contrast import brightest_vessel
from segmentation.observation import Observation
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Vertebrae
from segmentation.volume import CtVolume

_UNREAD = "the great vessels could not be read"


def contrast_in_headers(series: SeriesFacts) -> tuple[Observation, ...]:
    """`contrast_given` where it is documented; in single slices, without vessels, doubt counts as well."""
    if not series.contrast_agent:
        return ()
    if not series.contrast_doubtful:
        return (Observation(code="contrast_given", values={"agent": series.contrast_agent}),)
    return (_in_doubt(series.contrast_agent, _UNREAD),) if series.slice_spacing_mm is None else ()


def contrast_in_doubt(
    volume: CtVolume, vertebrae: Vertebrae, series: SeriesFacts, settings: ImageSettings
) -> tuple[Observation, ...]:
    """Where a volume's headers leave contrast open the vessels decide; where they cannot be read it counts.

    `contrast_doubtful`, which withholds what contrast does, or `contrast_not_seen`.
    """
    if not series.contrast_agent or not series.contrast_doubtful:
        return ()
    vessel = brightest_vessel(volume, vertebrae, settings)
    if vessel is None:
        return (_in_doubt(series.contrast_agent, _UNREAD),)
    if vessel.hu > settings.contrast_hu:
        return (_in_doubt(series.contrast_agent, f"the great vessels read {vessel.hu:.0f} HU"),)
    values: dict[str, str | int | float] = {
        "words": series.contrast_agent,
        "hu": round(vessel.hu),
        "limit": round(settings.contrast_hu),
    }
    return (Observation(code="contrast_not_seen", values=values),)


def _in_doubt(words: str, reason: str) -> Observation:
    return Observation(code="contrast_doubtful", values={"words": words, "reason": reason})
