"""A study during its steps: its images, what a runner supplies, and the result of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset

from config.settings import Settings
from node.dicom.ct.headers import Instance, SeriesHeaders, group_series, read_headers
from node.dicom.ct.reading import LoadedSeries, read_series, require_within
from node.dicom.ct.series_choice import without_localizers
from node.dicom.ct.slice_reading import read_single_slices
from node.dicom.header_text import text_of
from node.pipeline.artefacts import SelectionArtefact
from node.pipeline.engine import ResolvedEngine
from node.pipeline.ports import Artefacts, ClinicalValues, Issue, PatientHistory, ScannerHistory
from node.study_report import Completeness


class Verdict(StrEnum):
    """How the study continues after a step."""

    PROCEED = "proceed"
    NOT_APPLICABLE = "not applicable"  # not a QCT study: nothing goes back
    SET_ASIDE = "set aside"  # a person must look: nothing is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    verdict: Verdict
    reason: str = ""  # for the operator; without patient identity


PROCEED = StepResult(verdict=Verdict.PROCEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is known of a study besides its images.

    Attributes
    ----------
    called_ae_titles : under which the instances arrived.
    declared_qct : whether an operator declared this study to be QCT.
    completeness : None where the study was not received over the network.
    """

    called_ae_titles: frozenset[str] = frozenset()
    declared_qct: bool = False
    completeness: Completeness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenImages:
    """The decoded images that a selection names: a volume, or single slices, or nothing.

    Attributes
    ----------
    slices : in the selection's order.
    """

    volume: LoadedSeries | None = None
    slices: tuple[LoadedSeries, ...] = ()

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """Headers of every image of the volume, or of each slice."""
        if self.volume is not None:
            return self.volume.headers
        return tuple(one.headers[0] for one in self.slices)


class StudyImages:
    """The received files of one study. Headers are read once, and the series read last stays decoded.

    Not for several threads at once.

    Parameters
    ----------
    paths : DICOM files (PS3.10) of the study; other files are passed over.
    settings : of which the limits of size and of gantry tilt are used.
    """

    def __init__(self, paths: Sequence[Path], settings: Settings) -> None:
        self.paths = tuple(paths)
        self._limits = settings.limits
        self._tilt_tolerance_degrees = settings.selection.gantry_tilt_degrees
        self._instances: tuple[Instance, ...] | None = None
        self._series: tuple[SeriesHeaders, ...] | None = None
        self._decoded: tuple[str, LoadedSeries] | None = None
        self._decoded_slices: tuple[tuple[str, ...], tuple[LoadedSeries, ...]] | None = None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The headers of all files."""
        if self._instances is None:
            self._instances = read_headers(self.paths)
        return self._instances

    @property
    def series(self) -> tuple[SeriesHeaders, ...]:
        """The CT images by series; each frame of a multi-frame object is an image."""
        if self._series is None:
            self._series = group_series(self.instances)
        return self._series

    @property
    def ct_headers(self) -> tuple[Dataset, ...]:
        """The headers of all CT images."""
        return tuple(instance.header for one in self.series for instance in one.instances)

    def read_series(self, series_instance_uid: str) -> LoadedSeries:
        """Decode one series, without the localizers among its slices.

        Raises
        ------
        SeriesUnusable
            If it is larger than the limits, or its slices are no regular grid or cannot be decoded.
        LookupError
            If no such series is among the files.
        """
        if self._decoded is None or self._decoded[0] != series_instance_uid:
            chosen = without_localizers(self._series_named(series_instance_uid))[0]
            require_within(chosen, self._limits)
            loaded = read_series(chosen, tilt_tolerance_degrees=self._tilt_tolerance_degrees)
            self._decoded = series_instance_uid, loaded
        return self._decoded[1]

    def read_slices(self, sop_instance_uids: Sequence[str]) -> tuple[LoadedSeries, ...]:
        """Decode single slices, in the order of their SOP Instance UIDs.

        Raises
        ------
        KeyError
            If no such image is among the files.
        """
        wanted = tuple(sop_instance_uids)
        if self._decoded_slices is None or self._decoded_slices[0] != wanted:
            by_uid = {text_of(one.header, "SOPInstanceUID"): one for one in self.instances}
            self._decoded_slices = wanted, read_single_slices([by_uid[uid] for uid in wanted])
        return self._decoded_slices[1]

    def read_chosen(self, selection: SelectionArtefact) -> ChosenImages:
        """Decode what is measured, and release the headers of all other images.

        Raises
        ------
        SeriesUnusable, LookupError
            As `read_series`.
        """
        if selection.series is None:
            return ChosenImages()
        if selection.slices:
            uids = [one.sop_instance_uid for one in selection.slices]
            chosen = ChosenImages(slices=self.read_slices(uids))
        else:
            chosen = ChosenImages(volume=self.read_series(selection.series.series_instance_uid))
        self._instances = self._series = None
        return chosen

    def _series_named(self, uid: str) -> SeriesHeaders:
        found = next((one for one in self.series if one.series_instance_uid == uid), None)
        if found is None:
            raise LookupError("the chosen series is no longer among the files")
        return found


class ImagesCache:
    """Decoded images of the study that a process worked on last, kept for its next step."""

    def __init__(self) -> None:
        self._images: StudyImages | None = None
        self._made_for: tuple[tuple[Path, ...], Settings] | None = None

    def of(self, paths: Sequence[Path], settings: Settings, *, anew: bool) -> StudyImages:
        """Images of a study, as its last step left them.

        Parameters
        ----------
        anew : whether files are read again even if this was the last study; True for the first step.
        """
        wanted = tuple(paths), settings
        if self._images is None or anew or wanted != self._made_for:
            self._images = None  # the earlier study's volume goes before another is decoded
            self._images, self._made_for = StudyImages(paths, settings), wanted
        return self._images


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRun:
    """One study, and what a runner supplies for it.

    `node.pipeline.step_functions` reads from it and stores in it. The functions that do a step's work do not
    get it: their parameters state what they use.

    Attributes
    ----------
    engine : built on first use, kept by the caller.
    issue : gives the issue, made once per generation.
    scanners : None where no phantom readings are stored.
    patients : None where no earlier measurements are stored.
    begun_again : why, where the first steps were repeated.
    """

    settings: Settings
    images: StudyImages
    artefacts: Artefacts
    engine: Callable[[], ResolvedEngine]
    clinical: ClinicalValues
    issue: Callable[[], Issue]
    arrival: Arrival = field(default_factory=Arrival)
    scanners: ScannerHistory | None = None
    patients: PatientHistory | None = None
    begun_again: str | None = None


StepFunction = Callable[[StudyRun], StepResult]
