"""Which series of a study is measured, and whether a phantom is in view of any of them.

A few slices of every candidate are looked at before one is read whole; where the chosen one shows no phantom,
so are all other series, whether or not they can be stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from config.catalog import configured_phantoms
from config.settings import Settings
from node.dicom.ct.contrast_agent import contrast_of
from node.dicom.ct.headers import Instance, SeriesHeaders
from node.dicom.ct.passes import select_pass
from node.dicom.ct.reading import LoadedSeries
from node.dicom.ct.series_choice import (
    MIN_SLICES,
    Contrast,
    PhantomInView,
    SeriesPreview,
    phantom_reason,
    select_series,
    suitable_series,
    without_localizers,
)
from node.dicom.ct.slice_reading import (
    SampledStack,
    is_single_slice_series,
    may_be_axial,
    rank_single_slices,
    read_single_slices,
    sample_series,
    single_slice_candidates,
    slices_per_series,
)
from node.dicom.errors import SeriesUnusable, Unusable
from node.pipeline.steps.calibrate import shows_phantom
from node.pipeline.study_run import StudyImages
from node.study_report import RejectedSeries, SeriesFacts
from scoring.phantoms import PhantomModel, PhantomReading
from scoring.phantoms.rod_reading import PhantomImage, explain_absence, read_phantom, read_rods
from segmentation.gates.noise import shows_lumbar_spine
from segmentation.phrase import Phrase, Value, clauses, phrase
from segmentation.vertebrae import Observation

_MOST_READ_WHOLE = 3  # where the whole of a series shows a worse phantom than its slices promised
# What a few slices far apart cannot tell: the whole series is asked.
_LEFT_TO_THE_WHOLE = frozenset({"calibration_drift", "water_rod_drift"})
# Rows of discs that chance makes in a patient have neither the sizes nor the order of rods.
_NO_RODS = frozenset({"rod_order", "rod_area_off"})
_NOTHING_SEEN = SeriesPreview(
    phantom=PhantomInView.ABSENT, contrast=Contrast.NONE, spectral=False, extent_mm=0.0
)
_CUT_SEEN_MM = 80.0  # R: along less, chance looks like a phantom that the border cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The best readable series, otherwise single slices, and the reasons against the other series."""

    loaded: LoadedSeries | None = None
    slices: tuple[LoadedSeries, ...] = ()  # where each slice is measured by itself; then nothing is `loaded`
    readings: tuple[PhantomReading, ...] = ()  # of the phantom in the volume, or in each slice
    rejected: tuple[RejectedSeries, ...] = ()
    few_slices: int | None = None  # slices of a series that only lacks slices
    passed_over: tuple[Value, ...] = ()  # what a series has that is better, and was not measured all the same
    phantom_in: tuple[str, ...] = ()  # UIDs of series that are not measured and show a phantom
    disagreement: bool = False  # whether another series shows phantoms that disagree, and the chosen does not
    localizers: int = 0  # images that were left out of the volume
    unseen: bool = False  # whether there are images that may be axial, and none could be looked at

    @property
    def shown(self) -> tuple[LoadedSeries, ...]:
        return (self.loaded,) if self.loaded is not None else self.slices

    @property
    def facts(self) -> SeriesFacts | None:
        found = next(iter(self.shown), None)
        return found.facts if found else None

    @property
    def shows_phantom(self) -> bool:
        return bool(self.phantom_in) or any(shows_phantom(reading) for reading in self.readings)


def choose(images: StudyImages, settings: Settings) -> Choice:
    """Choose the best CT series of a study, with its phantom reading.

    Ranked as `node.dicom.ct.series_choice` says. A volume goes before single slices, unless these alone
    show a phantom that can be used."""
    search, series = _RodSearch(images, settings), images.series
    lone = [one for one in series if is_single_slice_series(one)]
    chosen = _best_volume(search, [one for one in series if not is_single_slice_series(one)])
    if chosen.loaded is not None and _grade(chosen.readings) is PhantomInView.COMPLETE:
        return _also_rejecting(chosen, lone, phrase("not-chosen-single-slices"))
    if lone:
        chosen = _single_slices_or_volume(search, lone, chosen)
    return chosen if chosen.shows_phantom else _search_other_series(search, chosen, series)


class _RodSearch:
    """Parameters of the search for rods in one study."""

    def __init__(self, images: StudyImages, settings: Settings) -> None:
        self.images = images
        self._noise_window_mm = settings.scoring.noise_window_mm
        self.models: Mapping[str, PhantomModel] = configured_phantoms(settings)
        self.glances: dict[str, SeriesPreview] = {}  # by series
        self.read_whole: set[str] = set()  # series
        self.disagreement = False  # whether any of them shows phantoms that disagree

    def read(self, shown: Sequence[LoadedSeries]) -> tuple[PhantomReading, ...]:
        return self._read([PhantomImage(volume=one.volume, kvp=one.facts.beam_kvp) for one in shown])

    def _read(self, images: Sequence[PhantomImage]) -> tuple[PhantomReading, ...]:
        return read_phantom(images, self.models, noise_window_mm=self._noise_window_mm)

    def sample_for_rods(self, images: Sequence[Instance], most_slices: int) -> SeriesPreview | None:
        """Search a few slices for rods; None where none of them can be read."""
        stacks = sample_series(images, most_slices)
        if not stacks:
            return None
        longest = max(stacks, key=lambda stack: stack.extent_mm)
        return glance_of(
            longest.facts,
            phantom=min(self._phantom_in(stack) for stack in stacks),
            extent_mm=sum(map(_lumbar_mm, stacks)),
        )

    def _phantom_in(self, stack: SampledStack) -> PhantomInView:
        volume = stack.volume
        if not any(_are_rods(read_rods(volume, model)) for model in self.models.values()):
            return PhantomInView.ABSENT
        (reading,) = self._read([PhantomImage(volume=volume, kvp=stack.facts.beam_kvp)])
        self.disagreement |= _disagree([reading])
        return _grade([replace(reading, observations=_told_by_a_few(reading))])

    def truncated_phantom_in(self, images: Sequence[Instance], most_slices: int) -> bool:
        """Whether the border of the image cuts a phantom, of which not all rods are in view."""
        return any(
            one.code == "phantom_truncated"
            for stack in sample_series(images, most_slices)
            if stack.extent_mm >= _CUT_SEEN_MM
            for model in self.models.values()
            for one in explain_absence(stack.volume, model).observations
        )


def _disagree(readings: Sequence[PhantomReading]) -> bool:
    return any(one.code == "phantoms_disagree" for reading in readings for one in reading.observations)


def glance_of(facts: SeriesFacts, *, phantom: PhantomInView, extent_mm: float) -> SeriesPreview:
    return SeriesPreview(
        phantom=phantom,
        contrast=_contrast_in(facts),
        spectral=not facts.spectrum.is_conventional,
        extent_mm=extent_mm,
    )


def _contrast_in(facts: SeriesFacts) -> Contrast:
    if not facts.contrast_agent:
        return Contrast.NONE
    return Contrast.DOUBTFUL if facts.contrast_doubtful else Contrast.GIVEN


def _are_rods(reading: PhantomReading | None) -> bool:
    return reading is not None and not _NO_RODS & {one.code for one in reading.observations}


def _told_by_a_few(reading: PhantomReading) -> tuple[Observation, ...]:
    return tuple(one for one in reading.observations if one.code not in _LEFT_TO_THE_WHOLE)


def _grade(readings: Sequence[PhantomReading]) -> PhantomInView:
    """Of the images that are measured together: complete where every one shows a usable phantom."""
    if readings and all(reading.usable for reading in readings):
        return PhantomInView.COMPLETE
    return PhantomInView.FLAWED if any(map(shows_phantom, readings)) else PhantomInView.ABSENT


def _lumbar_mm(stack: SampledStack) -> float:
    """About how much of the series shows a lumbar spine: by the share of its places that do."""
    _, dy, dx = stack.volume.grid.spacing_mm
    shown = [shows_lumbar_spine(image, (dy, dx)) for image in stack.volume.hu]
    return stack.extent_mm * sum(shown) / len(shown)


def _best_volume(search: _RodSearch, series: Sequence[SeriesHeaders]) -> Choice:
    """Try the series in order of preference; one that cannot be read is followed by the next.

    Where the whole of it shows a worse phantom than a few of its slices promised, it is ranked anew.
    """
    whole = [without_localizers(one)[0] for one in series]
    localizers = {one.series_instance_uid: without_localizers(one)[1] for one in series}
    fit = suitable_series(whole)
    if len(fit) > 1:  # of a single one nothing is to be decided
        most = slices_per_series(len(fit))
        for one in fit:
            search.glances[one.series_instance_uid] = (
                search.sample_for_rods(_one_pass(one), most) or _NOTHING_SEEN
            )
    unreadable: list[RejectedSeries] = []
    readings: dict[str, tuple[PhantomReading, ...]] = {}
    few_slices: int | None = None
    while True:
        selection = select_series(whole, search.glances)
        few_slices = few_slices or selection.too_few
        if selection.chosen is None:
            # Where a longer series failed for another reason, that reason is the one to tell.
            only_few = few_slices if all(_is_single(one) for one in unreadable) else None
            return Choice(rejected=(*selection.rejected, *unreadable), few_slices=only_few)
        uid = selection.chosen.series_instance_uid
        try:
            loaded = search.images.read_series(uid)
        except SeriesUnusable as error:
            reason = _with_localizers(error.said, localizers[uid], selection.chosen)
            unreadable.append(RejectedSeries(series_instance_uid=uid, reason=reason))
            if error.reason is Unusable.SINGLE_SLICE:
                few_slices = few_slices or 1
            whole = [one for one in whole if one.series_instance_uid != uid]
            continue
        if uid not in readings:
            readings[uid] = search.read([loaded])
            search.disagreement |= _disagree(readings[uid])
            search.read_whole.add(uid)
            grade, promised = _grade(readings[uid]), search.glances.get(uid)
            if promised and grade > promised.phantom and len(readings) < _MOST_READ_WHOLE:
                search.glances[uid] = replace(promised, phantom=grade)
                continue
        return Choice(
            loaded=loaded,
            readings=readings[uid],
            rejected=(*selection.rejected, *unreadable),
            passed_over=selection.passed_over,
            disagreement=search.disagreement and not _disagree(readings[uid]),
            localizers=localizers[uid],
        )


def _one_pass(series: SeriesHeaders) -> tuple[Instance, ...]:
    """The images that are read where a series holds several passes; else all."""
    try:
        said = [contrast_of([one.header]) for one in series.instances]
        return select_pass(series.instances, said).instances
    except SeriesUnusable:
        return series.instances


def _with_localizers(reason: Phrase, localizers: int, kept: SeriesHeaders) -> Value:
    """A series that cannot be read without its localizers might have been one with them."""
    if not localizers:
        return reason
    images = localizers + len(kept.instances)
    left_out = phrase("reason-of-some", reason=phrase("localizer"), count=localizers, images=images)
    return clauses([left_out, reason])


def _is_single(rejected: RejectedSeries) -> bool:
    return rejected.reason == Unusable.SINGLE_SLICE.value


def _also_rejecting(choice: Choice, series: Sequence[SeriesHeaders], reason: Value) -> Choice:
    rejected = [RejectedSeries(series_instance_uid=one.series_instance_uid, reason=reason) for one in series]
    return replace(choice, rejected=(*choice.rejected, *rejected))


def _single_slices_or_volume(search: _RodSearch, lone: Sequence[SeriesHeaders], volume: Choice) -> Choice:
    """The slices of single-slice QCT where there is no volume, or none whose phantom can be used."""
    read, lost, passed_over = _best_slices(search, lone)
    rejected = (*volume.rejected, *lost)
    if not read:
        return replace(volume, rejected=rejected)
    readings = search.read(read)
    if volume.loaded is not None:
        if _grade(readings) is not PhantomInView.COMPLETE:
            return _also_rejecting(volume, lone, phrase("not-chosen-single-slices"))
        rejected += (
            RejectedSeries(
                series_instance_uid=volume.loaded.facts.series_instance_uid,
                reason=phantom_reason(_grade(volume.readings)),
            ),
        )
    return Choice(slices=read, readings=readings, rejected=rejected, passed_over=passed_over)


def _best_slices(
    search: _RodSearch, lone: Sequence[SeriesHeaders]
) -> tuple[tuple[LoadedSeries, ...], tuple[RejectedSeries, ...], tuple[Value, ...]]:
    """The best set of slices that can be read, why the other series are not used, and what those have."""
    readable: dict[int, tuple[LoadedSeries, ...]] = {}
    choices = single_slice_candidates(lone)
    reasons: dict[str, Value] = {}
    for place, choice in enumerate(choices):
        try:
            readable[place] = read_single_slices(choice.instances)
        except SeriesUnusable as error:
            reasons.update(dict.fromkeys(choice.series_instance_uids, error.said))
    places = list(readable)
    if not places:
        return (), _with_reasons(lone, reasons, frozenset()), ()
    glances = [_glance_of_slices(search, readable[place], len(places)) for place in places]
    verdict = rank_single_slices([choices[place] for place in places], glances)
    for place, reason in verdict.reasons.items():
        reasons.update(dict.fromkeys(choices[places[place]].series_instance_uids, reason))
    best = choices[places[verdict.best]]
    lost = _with_reasons(lone, reasons, best.series_instance_uids)
    return readable[places[verdict.best]], lost, verdict.passed_over


def _glance_of_slices(search: _RodSearch, slices: Sequence[LoadedSeries], sets: int) -> SeriesPreview:
    phantom = _grade(search.read(slices)) if sets > 1 else PhantomInView.ABSENT  # of one, nothing is decided
    return glance_of(slices[0].facts, phantom=phantom, extent_mm=0.0)


def _with_reasons(
    series: Sequence[SeriesHeaders], reasons: Mapping[str, Value], used: frozenset[str]
) -> tuple[RejectedSeries, ...]:
    return tuple(
        RejectedSeries(
            series_instance_uid=one.series_instance_uid,
            reason=reasons.get(one.series_instance_uid, phrase("not-chosen-repetition")),
        )
        for one in series
        if one.series_instance_uid not in used
    )


def _search_other_series(search: _RodSearch, choice: Choice, series: Sequence[SeriesHeaders]) -> Choice:
    """Search for rods in the remaining series, until some are found."""
    in_view = [
        uid
        for uid, sample_for_rods in search.glances.items()
        if sample_for_rods.phantom is not PhantomInView.ABSENT and uid not in search.read_whole
    ]
    if in_view:
        return replace(choice, phantom_in=tuple(in_view))
    glanced = {uid for uid, sample_for_rods in search.glances.items() if sample_for_rods is not _NOTHING_SEEN}
    seen = {one.facts.series_instance_uid for one in choice.shown} | glanced
    left = [one for one in series if one.series_instance_uid not in seen]
    parts: list[tuple[SeriesHeaders, ...]] = [(one,) for one in left if len(one.instances) >= MIN_SLICES]
    if short := tuple(one for one in left if len(one.instances) < MIN_SLICES):
        parts.append(short)  # perhaps one stack that came as many series
    parts.sort(key=lambda part: -sum(len(one.instances) for one in part))
    most = slices_per_series(len(parts))
    looked = bool(seen)
    for part in parts:
        images = [image for one in part for image in one.instances]
        sample_for_rods = search.sample_for_rods(images, most)
        looked |= sample_for_rods is not None
        if sample_for_rods is not None and sample_for_rods.phantom is not PhantomInView.ABSENT:
            return replace(choice, phantom_in=tuple(one.series_instance_uid for one in part))
    if parts and not choice.shown:
        images = [image for one in parts[0] for image in one.instances]
        if search.truncated_phantom_in(images, most):
            return replace(choice, phantom_in=tuple(one.series_instance_uid for one in parts[0]))
    images = [image for one in left for image in one.instances]
    return replace(choice, unseen=not looked and any(map(may_be_axial, images)))
