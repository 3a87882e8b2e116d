"""What the select step chose, and what headers say of contrast and energy."""

from __future__ import annotations

from dataclasses import dataclass

from node.study_report import RejectedSeries, SeriesFacts, StudyIdentity
from scoring.calibration.spectrum import energy_phrase, filter_phrase
from scoring.phantoms import PhantomReading
from segmentation.ct_volume import CtVolume
from segmentation.gates.great_vessels import brightest_vessel
from segmentation.phrase import Phrase, Value, phrase
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Observation, Vertebrae


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSlice:
    """One slice of single-slice QCT, and the phantom in it.

    Attributes
    ----------
    name : "slice 1": from superior to inferior.
    """

    name: str
    sop_instance_uid: str
    phantom: PhantomReading


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionArtefact:
    """Who was scanned, which series is measured and what its phantom reads.

    Attributes
    ----------
    series : None: nothing can be measured.
    phantom : None where no series is read as a volume.
    slices : measured one by one; then no series is read as a volume.
    """

    study: StudyIdentity
    series: SeriesFacts | None
    rejected: tuple[RejectedSeries, ...]
    phantom: PhantomReading | None
    observations: tuple[Observation, ...]
    slices: tuple[SelectedSlice, ...] = ()

    @property
    def is_identified(self) -> bool:
        """Whether patient and study are known; of others no DICOM object is made."""
        return bool(self.study.patient_id and self.study.study_instance_uid)


def slice_step_mm(series: SeriesFacts) -> float | None:
    """Thickness or distance of the slices, the larger; None where each slice stands alone."""
    if series.slice_spacing_mm is None:
        return None
    return max(series.slice_thickness_mm or 0.0, series.slice_spacing_mm)


# Contrast medium in a study: what headers say, and the great vessels where headers leave it open.


_UNREAD = phrase("vessels-unread")


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
        return (_in_doubt(series.contrast_agent, phrase("vessels-read", hu=f"{vessel.hu:.0f}")),)
    values: dict[str, str | int | float] = {
        "words": series.contrast_agent,
        "hu": round(vessel.hu),
        "limit": round(settings.contrast_hu),
    }
    return (Observation(code="contrast_not_seen", values=values),)


def _in_doubt(words: str, reason: Phrase) -> Observation:
    return Observation(code="contrast_doubtful", values={"words": words, "reason": reason})


# What a study's spectrum keeps from being said, and what is said of it.


def spectrum_observations(series: SeriesFacts) -> tuple[Observation, ...]:
    """`spectrum_unusual` where the tube voltage does not stand for the spectrum; `filter_unknown`."""
    found = []
    spectrum = series.spectrum
    if not spectrum.is_conventional:
        values: dict[str, Value] = {
            "energy": energy_phrase(spectrum.energy),
            "filter": filter_phrase(spectrum.beam_filter),
        }
        found.append(Observation(code="spectrum_unusual", values=values))
    if series.filter_unknown:
        found.append(Observation(code="filter_unknown", values={"filter": series.filter_unknown}))
    return tuple(found)
