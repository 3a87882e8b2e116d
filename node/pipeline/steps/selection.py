"""The typed result of the select step, and how later steps load what it chose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from config.sections import LimitSettings
from node.dicom.ct.headers import SeriesHeaders, group_series, read_headers, text_of
from node.dicom.ct.reading import LoadedSeries, read_series, require_within
from node.dicom.ct.series_choice import without_localizers
from node.dicom.ct.single_slices import read_lone_slices
from node.pipeline.artefacts import SELECTION, from_json
from node.pipeline.context import StepContext
from node.study_report import RejectedSeries, SeriesFacts, StudyIdentity
from scoring.calibration.spectrum import energy_in_words
from scoring.phantoms import PhantomReading
from segmentation.gates.great_vessels import brightest_vessel
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Observation, Vertebrae
from segmentation.volume import CtVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSlice:
    """One slice of single-slice QCT, and the phantom in it."""

    name: str  # "slice 1": from superior to inferior
    sop_instance_uid: str
    phantom: PhantomReading


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionArtefact:
    """Who was scanned, which series is measured and what its phantom reads."""

    study: StudyIdentity
    header_source: str  # file name of the instance whose identity results copy
    series: SeriesFacts | None  # None: nothing can be measured
    rejected: tuple[RejectedSeries, ...]
    phantom: PhantomReading | None  # None where no series is read as a volume
    observations: tuple[Observation, ...]
    slices: tuple[SelectedSlice, ...] = ()  # measured one by one; then no series is read as a volume


def selection_of(context: StepContext) -> SelectionArtefact:
    """What the select step left behind."""
    return from_json(SelectionArtefact, context.artefacts.get(SELECTION))


def slice_step_mm(series: SeriesFacts) -> float | None:
    """Thickness or distance of the slices, the larger; None where each slice stands alone."""
    if series.slice_spacing_mm is None:
        return None
    return max(series.slice_thickness_mm or 0.0, series.slice_spacing_mm)


def load_chosen(context: StepContext, selection: SelectionArtefact) -> LoadedSeries | None:
    """The chosen series as a volume, None where there is none."""
    if selection.series is None or selection.slices:
        return None
    return load_series(context, selection.series.series_instance_uid)


def load_slices(context: StepContext, selection: SelectionArtefact) -> tuple[LoadedSeries, ...]:
    """The chosen single slices, in the selection's order; none where a volume is measured."""
    if not selection.slices:
        return ()
    return _read_slices(tuple(context.instances), tuple(one.sop_instance_uid for one in selection.slices))


@lru_cache(maxsize=1)  # as below
def _read_slices(paths: tuple[Path, ...], sop_instance_uids: tuple[str, ...]) -> tuple[LoadedSeries, ...]:
    by_uid = {text_of(one.header, "SOPInstanceUID"): one for one in read_headers(paths)}
    return read_lone_slices([by_uid[uid] for uid in sop_instance_uids])


def load_series(context: StepContext, series_instance_uid: str) -> LoadedSeries:
    """Decode one series out of a study's files, without the localizers among its slices.

    Raises
    ------
    SeriesUnusable
        If it is larger than the limits, or its slices are no regular grid or cannot be decoded.
    LookupError
        If no such series is among the files.
    """
    return _read_series(
        tuple(context.instances),
        series_instance_uid,
        context.settings.selection.gantry_tilt_degrees,
        context.settings.limits,
    )


@lru_cache(maxsize=1)  # the steps of one study follow one another in one process: decode once
def _read_series(
    paths: tuple[Path, ...], series_instance_uid: str, tilt_tolerance_degrees: float, limits: LimitSettings
) -> LoadedSeries:
    series = _series_named(group_series(read_headers(paths)), series_instance_uid)
    chosen = without_localizers(series)[0]
    require_within(chosen, limits)
    return read_series(chosen, tilt_tolerance_degrees=tilt_tolerance_degrees)


def _series_named(series: tuple[SeriesHeaders, ...], uid: str) -> SeriesHeaders:
    found = next((candidate for candidate in series if candidate.series_instance_uid == uid), None)
    if found is None:
        raise LookupError("the chosen series is no longer among the files")
    return found


# Contrast medium in a study: what headers say, and the great vessels where headers leave it open.


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


# What a study's spectrum keeps from being said, and what is said of it.


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
