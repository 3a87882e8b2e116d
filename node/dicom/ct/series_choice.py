"""Which series of a study is measured, and why each other is not.

The headers of a series decide whether it is suitable at all. Of several suitable series, or sets of single
slices, the best is chosen by these criteria in this order: a usable phantom in view; no contrast medium by
the header; a conventional spectrum; how much of the lumbar spine is shown; the kernel; thin slices. Of
equals the one acquired first is chosen, then the one with the lowest series number, and last the one with
the lowest UID: the choice never depends on the order in which images arrived.

Coverage is an estimate, since nothing is segmented to choose a series: the extent of the slices along the
body, times the share of a few slices, evenly spread, that look lumbar (`segmentation.gates.noise`). Coverage
beyond the length of L1 to L5 does not count, and neither does a difference of less than a vertebra.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import inf

import numpy as np
from pydicom import Dataset

from node.dicom.ct.headers import Instance, SeriesHeaders, is_multi_frame_ct
from node.dicom.ct.slice_geometry import normal_of
from node.dicom.ct.technique import acquisition_time
from node.dicom.header_text import items_of, number_of, text_of
from node.dicom.result_headers import made_here
from node.study_report import RejectedSeries
from segmentation.phrase import Phrase, Value, phrase

# L1 to L5 with their discs are 170 to 200 mm long. R.
LUMBAR_MM = 200.0
_SAME_COVERAGE_MM = (
    25.0  # R: coverage that differs by less does not decide: less than a vertebra with its disc
)


class PhantomInView(IntEnum):
    """What a preview shows of the phantom in a series, best first."""

    COMPLETE = 0  # every rod is in view, without any objection
    FLAWED = 1  # in view, and not fit for use
    ABSENT = 2


class Contrast(IntEnum):
    """What headers state of intravenous contrast medium, best first."""

    NONE = 0
    DOUBTFUL = 1
    GIVEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPreview:
    """A series as a few of its slices, and their headers, show it.

    Attributes
    ----------
    phantom : in the slices.
    contrast : by the headers.
    spectral : whether it is monoenergetic or of several energies.
    extent_mm : of the lumbar spine in view, estimated.
    """

    phantom: PhantomInView
    contrast: Contrast
    spectral: bool
    extent_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Merits:
    """The properties that series are compared by.

    Attributes
    ----------
    covered_mm : coverage of the lumbar spine, at most `LUMBAR_MM`.
    sharpness : of the kernel, a `Sharpness`.
    acquired : date and time as digits; "" where unknown.
    number : SeriesNumber; None where it is not stated.
    uid : Series Instance UID; the lowest of several.
    """

    preview: SeriesPreview
    covered_mm: float
    sharpness: int
    thickness_mm: float | None
    acquired: str
    number: float | None
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRanking:
    """The best of some series, and why each other is not chosen.

    Attributes
    ----------
    best : its index.
    reasons : by the index of each other.
    passed_over : advantages of series that were not chosen for their phantom, contrast or spectrum.
    """

    best: int
    reasons: dict[int, Value]
    passed_over: tuple[Value, ...]


def rank_series(merits: Sequence[Merits]) -> SeriesRanking:
    """The best of some series by the criteria of this module.

    Parameters
    ----------
    merits : of at least one.

    Returns
    -------
    Each other has the first criterion by which it is worse as its reason.
    """
    left = list(range(len(merits)))
    reasons: dict[int, Value] = {}
    unfit: list[int] = []
    for criterion in _criteria():
        best = min(criterion.key(merits[index]) for index in left)
        for index in list(left):
            if criterion.is_worse(merits[index], best):
                reasons[index] = criterion.reason or phantom_reason(merits[index].preview.phantom)
                left.remove(index)
                unfit += [index] if criterion.of_fitness else []
    chosen = left[0]
    others = [merits[index] for index in unfit]
    return SeriesRanking(best=chosen, reasons=reasons, passed_over=_advantages(others, merits[chosen]))


def phantom_reason(seen: PhantomInView) -> Phrase:
    """Why a series is not chosen that shows a worse phantom than another."""
    if seen is PhantomInView.ABSENT:
        return phrase("not-chosen-no-phantom")
    return phrase("not-chosen-phantom-unusable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Criterion:
    """A criterion that series are compared by; less is better."""

    key: Callable[[Merits], tuple[float, str]]
    reason: Phrase | None  # of a series that is worse by it; None: as for the phantom
    advantage: Phrase | None = None  # of a better one
    tolerance: float = 0.0  # a difference up to this does not decide
    of_fitness: bool = False  # whether it concerns what a series is fit for, not how well it shows it

    def is_worse(self, one: Merits, best: tuple[float, str]) -> bool:
        number, text = self.key(one)
        if number != best[0]:  # checked first: infinity less infinity is no number
            return number - best[0] > self.tolerance
        return text > best[1]


def _criteria() -> tuple[_Criterion, ...]:
    return (
        _Criterion(key=lambda one: (one.preview.phantom, ""), reason=None, of_fitness=True),
        _Criterion(
            key=lambda one: (one.preview.contrast is Contrast.GIVEN, ""),
            reason=phrase("not-chosen-contrast-given"),
            advantage=phrase("advantage-no-contrast"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.preview.contrast is Contrast.DOUBTFUL, ""),
            reason=phrase("not-chosen-contrast-doubtful"),
            advantage=phrase("advantage-no-doubt"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.preview.spectral, ""),
            reason=phrase("not-chosen-spectrum"),
            advantage=phrase("advantage-spectrum"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (-one.covered_mm, ""),
            reason=phrase("not-chosen-coverage"),
            advantage=phrase("advantage-coverage"),
            tolerance=_SAME_COVERAGE_MM,
        ),
        _Criterion(
            key=lambda one: (one.sharpness, ""),
            reason=phrase("not-chosen-kernel"),
            advantage=phrase("advantage-kernel"),
        ),
        _Criterion(
            key=lambda one: (inf if one.thickness_mm is None else one.thickness_mm, ""),
            reason=phrase("not-chosen-thickness"),
            advantage=phrase("advantage-thickness"),
            tolerance=1e-3,
        ),
        _Criterion(
            key=lambda one: (not one.acquired, one.acquired),
            reason=phrase("not-chosen-acquired-later"),
        ),
        _Criterion(
            key=lambda one: (inf if one.number is None else one.number, ""),
            reason=phrase("not-chosen-series-number"),
        ),
        _Criterion(key=lambda one: (0.0, one.uid), reason=phrase("not-chosen-same")),
    )


def _advantages(others: Sequence[Merits], chosen: Merits) -> tuple[Value, ...]:
    """In what the others are better, of those that show about as much of the spine."""
    rivals = [one for one in others if one.covered_mm >= chosen.covered_mm - _SAME_COVERAGE_MM]
    return tuple(
        criterion.advantage
        for criterion in _criteria()
        if criterion.advantage and any(criterion.is_worse(chosen, criterion.key(one)) for one in rivals)
    )


# Limits for a series that can show a whole lumbar body; project choices (R in the fact sheet), not published.
MIN_SLICES = 4
_MIN_COVERAGE_MM = 30.0
AXIAL_COSINE = 0.85  # normal within about 30 degrees of the body axis

# Attributes that the slices of one stack share, though each may have come as a series of its own.
_OF_ONE_STACK = (
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "KVP",
    "ConvolutionKernel",
)

# Kernel names are the vendors' own (R); a sharp one withholds texture, and none refuses a series.
_SHARP_KERNEL = re.compile(r"BONE|LUNG|EDGE|SHARP|DETAIL|^YA|^YB|^L$|^FC[35]\d|^FC8\d", re.IGNORECASE)
_SOFT_KERNEL = re.compile(r"STANDARD|SOFT|^B$|^A$|^C$|^FC0\d|^FC1\d", re.IGNORECASE)
_SIEMENS_KERNEL = re.compile(r"^[BDHIQ][a-z]{0,2}(\d{2})", re.IGNORECASE)
_SIEMENS_SHARP_FROM = 50

# Words that mark derived images: the defined terms of value 4 of ImageType (PS3.3 C.8.16.1.4), and names of
# reformats, projections and filters that makers and DerivationDescription use (R).
_DERIVATION_WORDS = re.compile(
    r"\bMPR|\b[CV]PR\b|\bMIP|\bMINIP|REFORMAT|PROJECTION|PROJ\b|RENDER|\b3D\b|VRT|SSD|AVERAGE|\bAVG\b|\bMEAN\b|MEDIAN|"
    r"ADDITION|SUBTRACT|DIVISION|MULTIPLICATION|MASKED|MAXIMUM|MINIMUM|RESAMPL|STD_DEVIATION|FUSION|FUSED|"
    r"PERFUSION|FILTERED|SMOOTHED|SHARPENED|DENOISED|COMBINED",
    re.IGNORECASE,
)
_LOSSY_COMPRESSION = ("113040", "DCM")


def derivation_words(text: str) -> str:
    """The words of DerivationDescription that mark an image as derived, without the others.

    Returns
    -------
    The words joined by a blank; "" where there are none.
    """
    return " ".join(match[0] for match in _DERIVATION_WORDS.finditer(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The series to measure, if any, and the others.

    Attributes
    ----------
    chosen : None where no series is suitable.
    rejected : all others, with their reasons.
    too_few : slices of the longest series that lacks nothing but slices; None where one is chosen.
    passed_over : advantages of others that the chosen one lacks.
    """

    chosen: SeriesHeaders | None
    rejected: tuple[RejectedSeries, ...]
    too_few: int | None
    passed_over: tuple[Value, ...] = ()


def is_qct_candidate(instances: Iterable[Instance], procedure_codes: Collection[str]) -> bool:
    """Whether the study is declared as QCT by its procedure codes.

    Parameters
    ----------
    procedure_codes : "CODE^SCHEME", as in the settings.
    """
    wanted = frozenset(procedure_codes)
    return any(not wanted.isdisjoint(_procedure_codes(instance.header)) for instance in instances)


def _procedure_codes(header: Dataset) -> Iterable[str]:
    for holder in (header, *items_of(header, "RequestAttributesSequence")):
        for keyword in ("ProcedureCodeSequence", "RequestedProcedureCodeSequence"):
            for code in items_of(holder, keyword):
                yield f"{text_of(code, 'CodeValue')}^{text_of(code, 'CodingSchemeDesignator')}"


def select_series(
    series: Sequence[SeriesHeaders], previews: Mapping[str, SeriesPreview] | None = None
) -> Selection:
    """Choose among the CT series of one study by the criteria of this module.

    Parameters
    ----------
    previews : of each suitable series, by its UID. Without them headers alone decide, and the distance from
        the first slice to the last counts as coverage.
    """
    fit, rejected, short = _by_suitability(series)
    if not fit:
        return Selection(chosen=None, rejected=rejected, too_few=max(short, default=None))
    ranking = rank_series([merits_of([one], (previews or {}).get(one.series_instance_uid)) for one in fit])
    not_chosen = (_rejection(fit[index], reason) for index, reason in ranking.reasons.items())
    return Selection(
        chosen=fit[ranking.best],
        rejected=(*rejected, *not_chosen),
        too_few=None,
        passed_over=ranking.passed_over,
    )


def suitable_series(series: Sequence[SeriesHeaders]) -> tuple[SeriesHeaders, ...]:
    """The series that may be measured, by their headers.

    Returns
    -------
    In the order given: axial, original, long enough, and not a part of a stack that was split into series.
    """
    return tuple(_by_suitability(series)[0])


def _by_suitability(
    series: Sequence[SeriesHeaders],
) -> tuple[list[SeriesHeaders], tuple[RejectedSeries, ...], list[int]]:
    """The suitable ones, the others with their reasons, and how long those are that only lack slices."""
    fit, rejected, short = [], [], []
    split = _split_stacks(series)
    for candidate in series:
        count = len(candidate.instances)
        if reason := unsuitable_reason(candidate):
            rejected.append(_rejection(candidate, reason))
        elif together := split.get(candidate.series_instance_uid):
            rejected.append(_rejection(candidate, phrase("stack-in-parts", count=together)))
        elif count < MIN_SLICES:
            rejected.append(_rejection(candidate, phrase("only-few-slices", count=count)))
            short.append(count)
        elif (covered := coverage_mm(candidate)) < _MIN_COVERAGE_MM:
            rejected.append(_rejection(candidate, phrase("covers-little", length=f"{covered:.0f}")))
        else:
            fit.append(candidate)
    return fit, tuple(rejected), short


def _split_stacks(series: Sequence[SeriesHeaders]) -> dict[str, int]:
    """By UID of short series that are parts of one stack of slices: the number of parts."""
    stacks: dict[tuple[str, ...], list[SeriesHeaders]] = {}
    for one in series:
        if len(one.instances) < MIN_SLICES and unsuitable_reason(one) is None:
            key = tuple(text_of(one.first, keyword) for keyword in _OF_ONE_STACK)
            stacks.setdefault(key, []).append(one)
    found = {}
    for parts in stacks.values():
        images = tuple(image for part in parts for image in part.instances)
        whole = replace(parts[0], instances=images)
        if len(parts) > 1 and len(images) >= MIN_SLICES and coverage_mm(whole) >= _MIN_COVERAGE_MM:
            found.update({part.series_instance_uid: len(parts) for part in parts})
    return found


def merits_of(
    series: Sequence[SeriesHeaders], preview: SeriesPreview | None, covered_mm: float | None = None
) -> Merits:
    """The properties that a series, or several that are measured together, is compared by.

    Parameters
    ----------
    series : at least one; the first gives kernel, thickness, number and time.
    preview : None to go by headers alone.
    covered_mm : coverage; by default the preview's, else the extent of the first series.
    """
    header = series[0].first
    extent_mm = coverage_mm(series[0])
    seen = preview or SeriesPreview(
        phantom=PhantomInView.ABSENT, contrast=Contrast.NONE, spectral=False, extent_mm=extent_mm
    )
    return Merits(
        preview=seen,
        covered_mm=min(seen.extent_mm if covered_mm is None else covered_mm, LUMBAR_MM),
        sharpness=kernel_rank(text_of(header, "ConvolutionKernel")),
        thickness_mm=number_of(header, "SliceThickness"),
        acquired=min(filter(None, (_moment(image.header) for image in series[0].instances)), default=""),
        number=number_of(header, "SeriesNumber"),
        uid=min(one.series_instance_uid for one in series),
    )


def _moment(header: Dataset) -> str:
    """Date and second of acquisition of an image, as digits; "" where the time is unknown."""
    time = acquisition_time(header)
    return f"{text_of(header, 'AcquisitionDate')}{time[:6]}" if time else ""


def _rejection(series: SeriesHeaders, reason: Value) -> RejectedSeries:
    return RejectedSeries(series_instance_uid=series.series_instance_uid, reason=reason)


def without_localizers(series: SeriesHeaders) -> tuple[SeriesHeaders, int]:
    """The series without the localizers among its slices.

    Returns
    -------
    The series, and how many localizers were left out; unchanged, and 0, if all slices are localizers.
    """
    kept = tuple(one for one in series.instances if not is_localizer(one.header))
    if not kept:
        return series, 0
    return replace(series, instances=kept), len(series.instances) - len(kept)


def is_localizer(header: Dataset) -> bool:
    """Whether ImageType states that an image is a localizer."""
    return "LOCALIZER" in text_of(header, "ImageType").upper().split()


def unsuitable_reason(series: SeriesHeaders) -> Phrase | None:
    """Why this series must not be measured at all. Every image of it is checked.

    Returns
    -------
    None if it may be measured; else the first image's reason, with a count where not all images share it.
    """
    reasons = [reason for instance in series.instances if (reason := _unsuitable_image(instance))]
    if not reasons:
        return None
    first, images = reasons[0], len(series.instances)
    count = reasons.count(first)
    return first if count == images else phrase("reason-of-some", reason=first, count=count, images=images)


def _unsuitable_image(instance: Instance) -> Phrase | None:
    header = instance.header
    kinds = text_of(header, "ImageType").upper().split()
    orientation = header.get("ImageOrientationPatient")
    problems = {
        phrase("frames-not-described"): is_multi_frame_ct(instance) and instance.frame is None,
        phrase("made-here"): made_here(header),
        phrase("not-original"): not _is_original(header, kinds),
        phrase("localizer"): is_localizer(header),
        phrase("reformatted"): _is_reformatted(header),
        phrase("no-orientation"): orientation is None or len(orientation) != 6,
    }
    reason = next((problem for problem, applies in problems.items() if applies), None)
    # `stack_slices` refuses a normal that is no number (cosines that are zero).
    if reason is None and abs(float(normal_of(np.asarray(orientation, dtype=float))[2])) < AXIAL_COSINE:
        reason = phrase("not-axial")
    return reason


def _is_original(header: Dataset, kinds: Sequence[str]) -> bool:
    """Whether the pixels are those of the scan, or those of the scan after lossy compression and no more.

    Lossy compression alone makes an image DERIVED (PS3.3 C.7.6.1.1.2 and C.7.6.1.1.5), so value 1 does not
    decide on such an image: the other values, the derivation and the number of its sources do.
    """
    if kinds[:2] == ["ORIGINAL", "PRIMARY"]:
        return True
    if kinds[:2] != ["DERIVED", "PRIMARY"] or text_of(header, "LossyImageCompression") != "01":
        return False
    if kinds[2:3] not in ([], ["AXIAL"], ["VOLUME"]):
        return False
    stated = " ".join((*kinds[3:], text_of(header, "DerivationDescription")))
    if _DERIVATION_WORDS.search(stated):
        return False
    # Frames of multi-frame CT state their derivation in a functional group.
    holders = (header, *items_of(header, "DerivationImageSequence"))
    derivations = [code for one in holders for code in items_of(one, "DerivationCodeSequence")]
    sources = [image for one in holders for image in items_of(one, "SourceImageSequence")]
    return len(sources) <= 1 and all(
        (text_of(code, "CodeValue"), text_of(code, "CodingSchemeDesignator")) == _LOSSY_COMPRESSION
        for code in derivations
    )


def _is_reformatted(header: Dataset) -> bool:
    """Whether a frame is stated to be a projection or a distorted view (PS3.3 C.8.16.2.1.2 and .3)."""
    properties = text_of(header, "VolumetricProperties").upper()
    technique = text_of(header, "VolumeBasedCalculationTechnique").upper()
    return properties not in ("", "VOLUME") or technique not in ("", "NONE")


def coverage_mm(series: SeriesHeaders) -> float:
    """Extent along the slice normal, from the first slice centre to the last.

    Returns
    -------
    0 where no image states a position.
    """
    normal = normal_of(np.asarray(series.first.ImageOrientationPatient, dtype=float))
    positions = (one.header.get("ImagePositionPatient") for one in series.instances)
    depths = [  # `stack_slices` refuses what is no position
        float(np.asarray(position, dtype=float) @ normal)
        for position in positions
        if position is not None and len(position) == len(normal)
    ]
    return max(depths) - min(depths) if depths else 0.0


class Sharpness(IntEnum):
    """How sharp the images of a kernel are by its name, best first."""

    SOFT = 0  # or standard
    UNKNOWN = 1
    SHARP = 2


def kernel_rank(kernel: str) -> Sharpness:
    """How sharp the images are.

    Parameters
    ----------
    kernel : ConvolutionKernel, as its maker names it.

    Source: makers' names are R; Siemens' numbers from 50 on count as sharp.
    """
    if _SHARP_KERNEL.search(kernel):
        return Sharpness.SHARP
    if _SOFT_KERNEL.search(kernel):
        return Sharpness.SOFT
    siemens = _SIEMENS_KERNEL.match(kernel)
    if siemens is None:
        return Sharpness.UNKNOWN
    return Sharpness.SHARP if int(siemens[1]) >= _SIEMENS_SHARP_FROM else Sharpness.SOFT
