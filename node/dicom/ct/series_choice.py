"""Which series to measure, why the others are not, and whose studies these are."""

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

# Which of several series, or sets of single slices, is measured, and by what the others lost to it.
#
# In this order: a phantom in view that can be used; no contrast medium by the header; a conventional
# spectrum; how much of the lumbar spine is shown; the kernel; thin slices. Of equals the one that was
# acquired first is taken, then the one with the lowest series number, and last that with the lowest UID, so
# that the choice never depends on the order in which images arrived.
#
# Coverage is an estimate, for nothing is segmented to choose a series: the extent of the slices along the
# body, times the share of a few slices, evenly spread, that look like a lumbar one
# (`segmentation.gates.noise`). What exceeds the length of L1 to L5 does not count, and neither does a
# difference of less than a vertebra.


# L1 to L5 with their discs are 170 to 200 mm long. R.
LUMBAR_MM = 200.0
_ALIKE_MM = 25.0  # R: coverage that differs by less does not decide: less than a vertebra with its disc


class PhantomInView(IntEnum):
    """What is known of the phantom in a series, best first."""

    COMPLETE = 0  # every rod is in view, and nothing is to be said against them
    FLAWED = 1  # in view, and not fit for use
    ABSENT = 2


class Contrast(IntEnum):
    """What headers say of intravenous contrast medium, best first."""

    NONE = 0
    DOUBTFUL = 1
    GIVEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPreview:
    """What a few slices of a series, and their headers, tell."""

    phantom: PhantomInView
    contrast: Contrast  # by the headers
    spectral: bool  # whether it is monoenergetic or of several energies
    extent_mm: float  # of the lumbar spine in view, estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class Merits:
    """What series are compared by."""

    glance: SeriesPreview
    covered_mm: float  # what counts as coverage, at most `LUMBAR_MM`
    sharpness: int
    thickness_mm: float | None
    acquired: str  # date and time as digits; "" where it is not known
    number: float | None  # SeriesNumber
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRanking:
    """The place of the best, and why each other lost to it."""

    best: int
    reasons: dict[int, Value]
    passed_over: tuple[Value, ...]  # what others have that lost for their phantom, contrast or spectrum


def rank_series(merits: Sequence[Merits]) -> SeriesRanking:
    """The best of at least one, by the criteria in their order; each other is told by which it lost."""
    left = list(range(len(merits)))
    reasons: dict[int, Value] = {}
    unfit: list[int] = []
    for criterion in _criteria():
        best = min(criterion.key(merits[place]) for place in left)
        for place in list(left):
            if criterion.is_worse(merits[place], best):
                reasons[place] = criterion.reason or lacking_phantom(merits[place].glance.phantom)
                left.remove(place)
                unfit += [place] if criterion.of_fitness else []
    chosen = left[0]
    others = [merits[place] for place in unfit]
    return SeriesRanking(best=chosen, reasons=reasons, passed_over=_advantages(others, merits[chosen]))


def lacking_phantom(seen: PhantomInView) -> Phrase:
    """What a series is told that lost for its phantom."""
    if seen is PhantomInView.ABSENT:
        return phrase("not-chosen-no-phantom")
    return phrase("not-chosen-phantom-unusable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Criterion:
    """Something by which series are compared; less is better."""

    key: Callable[[Merits], tuple[float, str]]
    reason: Phrase | None  # what whoever loses by it is told; None: as for the phantom
    advantage: Phrase | None = None  # what a better one has
    alike: float = 0.0  # a difference up to this does not decide
    of_fitness: bool = False  # whether it says what a series is fit for, not how well it shows

    def is_worse(self, one: Merits, best: tuple[float, str]) -> bool:
        number, text = self.key(one)
        if number != best[0]:  # asked first: infinity less infinity is no number
            return number - best[0] > self.alike
        return text > best[1]


def _criteria() -> tuple[_Criterion, ...]:
    return (
        _Criterion(key=lambda one: (one.glance.phantom, ""), reason=None, of_fitness=True),
        _Criterion(
            key=lambda one: (one.glance.contrast is Contrast.GIVEN, ""),
            reason=phrase("not-chosen-contrast-given"),
            advantage=phrase("advantage-no-contrast"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.glance.contrast is Contrast.DOUBTFUL, ""),
            reason=phrase("not-chosen-contrast-doubtful"),
            advantage=phrase("advantage-no-doubt"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (one.glance.spectral, ""),
            reason=phrase("not-chosen-spectrum"),
            advantage=phrase("advantage-spectrum"),
            of_fitness=True,
        ),
        _Criterion(
            key=lambda one: (-one.covered_mm, ""),
            reason=phrase("not-chosen-coverage"),
            advantage=phrase("advantage-coverage"),
            alike=_ALIKE_MM,
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
            alike=1e-3,
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
    rivals = [one for one in others if one.covered_mm >= chosen.covered_mm - _ALIKE_MM]
    return tuple(
        criterion.advantage
        for criterion in _criteria()
        if criterion.advantage and any(criterion.is_worse(chosen, criterion.key(one)) for one in rivals)
    )


# Limits for a series that can show a whole lumbar body; project choices (R in the fact sheet), not published.
MIN_SLICES = 4
_MIN_COVERAGE_MM = 30.0
AXIAL_COSINE = 0.85  # normal within about 30 degrees of the body axis

# What the slices of one stack share, though each may have come as a series of its own.
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

# Words by which derived images say how they were made: the defined terms of value 4 of ImageType (PS3.3
# C.8.16.1.4) and what makers and DerivationDescription call reformats, projections and filters (R).
_DERIVATION_WORDS = re.compile(
    r"\bMPR|\b[CV]PR\b|\bMIP|\bMINIP|REFORMAT|PROJECTION|PROJ\b|RENDER|\b3D\b|VRT|SSD|AVERAGE|\bAVG\b|\bMEAN\b|MEDIAN|"
    r"ADDITION|SUBTRACT|DIVISION|MULTIPLICATION|MASKED|MAXIMUM|MINIMUM|RESAMPL|STD_DEVIATION|FUSION|FUSED|"
    r"PERFUSION|FILTERED|SMOOTHED|SHARPENED|DENOISED|COMBINED",
    re.IGNORECASE,
)
_LOSSY_COMPRESSION = ("113040", "DCM")


def derivation_words(text: str) -> str:
    """The words of DerivationDescription by which an image counts as derived, and no others."""
    return " ".join(match[0] for match in _DERIVATION_WORDS.finditer(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The series to measure, if any, and the others."""

    chosen: SeriesHeaders | None
    rejected: tuple[RejectedSeries, ...]
    too_few: int | None  # slices of the longest series that lacks nothing but slices, where none is chosen
    passed_over: tuple[Value, ...] = ()  # what others have that the chosen one has not


def is_qct_candidate(instances: Iterable[Instance], procedure_codes: Collection[str]) -> bool:
    """Whether the study is declared as QCT by its procedure codes.

    Parameters
    ----------
    procedure_codes : "CODE^SCHEME", as in the settings.
    """
    wanted = frozenset(procedure_codes)
    return any(wanted & frozenset(_procedure_codes(instance.header)) for instance in instances)


def _procedure_codes(header: Dataset) -> Iterable[str]:
    holders = [header, *items_of(header, "RequestAttributesSequence")]
    for holder in holders:
        for keyword in ("ProcedureCodeSequence", "RequestedProcedureCodeSequence"):
            for code in items_of(holder, keyword):
                yield f"{text_of(code, 'CodeValue')}^{text_of(code, 'CodingSchemeDesignator')}"


def select_series(
    series: Sequence[SeriesHeaders], glances: Mapping[str, SeriesPreview] | None = None
) -> Selection:
    """Choose among the CT series of one study, as `node.dicom.ct.series_choice` says.

    Parameters
    ----------
    glances : what each suitable series shows, by its UID. Without them headers alone decide, and the
        distance from the first slice to the last counts as coverage.
    """
    fit, rejected, short = _sorted_out(series)
    if not fit:
        return Selection(chosen=None, rejected=rejected, too_few=max(short, default=None))
    verdict = rank_series([merits_of([one], (glances or {}).get(one.series_instance_uid)) for one in fit])
    lost = tuple(_rejection(fit[place], reason) for place, reason in verdict.reasons.items())
    return Selection(
        chosen=fit[verdict.best],
        rejected=(*rejected, *lost),
        too_few=None,
        passed_over=verdict.passed_over,
    )


def suitable_series(series: Sequence[SeriesHeaders]) -> tuple[SeriesHeaders, ...]:
    """Those that may be measured, as far as their headers tell."""
    return tuple(_sorted_out(series)[0])


def _sorted_out(
    series: Sequence[SeriesHeaders],
) -> tuple[list[SeriesHeaders], tuple[RejectedSeries, ...], list[int]]:
    """The suitable ones, the others with their reasons, and how long those are that only lack slices."""
    fit, rejected, short = [], [], []
    scattered = _scattered(series)
    for candidate in series:
        count = len(candidate.instances)
        if reason := unsuitable(candidate):
            rejected.append(_rejection(candidate, reason))
        elif together := scattered.get(candidate.series_instance_uid):
            rejected.append(_rejection(candidate, phrase("stack-in-parts", count=together)))
        elif count < MIN_SLICES:
            rejected.append(_rejection(candidate, phrase("only-few-slices", count=count)))
            short.append(count)
        elif (covered := coverage_mm(candidate)) < _MIN_COVERAGE_MM:
            rejected.append(_rejection(candidate, phrase("covers-little", length=f"{covered:.0f}")))
        else:
            fit.append(candidate)
    return fit, tuple(rejected), short


def _scattered(series: Sequence[SeriesHeaders]) -> dict[str, int]:
    """Of short series that one stack of slices was cut into: how many there are, by their UIDs."""
    stacks: dict[tuple[str, ...], list[SeriesHeaders]] = {}
    for one in series:
        if len(one.instances) < MIN_SLICES and unsuitable(one) is None:
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
    series: Sequence[SeriesHeaders], glance: SeriesPreview | None, covered_mm: float | None = None
) -> Merits:
    """What series are compared by; several are measured together.

    Parameters
    ----------
    covered_mm : what counts as coverage; None: what the glance tells, else the extent of the first series.
    """
    header = series[0].first
    extent_mm = coverage_mm(series[0])
    seen = glance or SeriesPreview(
        phantom=PhantomInView.ABSENT, contrast=Contrast.NONE, spectral=False, extent_mm=extent_mm
    )
    return Merits(
        glance=seen,
        covered_mm=min(seen.extent_mm if covered_mm is None else covered_mm, LUMBAR_MM),
        sharpness=kernel_rank(text_of(header, "ConvolutionKernel")),
        thickness_mm=number_of(header, "SliceThickness"),
        acquired=min(filter(None, (_moment(image.header) for image in series[0].instances)), default=""),
        number=number_of(header, "SeriesNumber"),
        uid=min(one.series_instance_uid for one in series),
    )


def _moment(header: Dataset) -> str:
    """Day and second at which an image was acquired, as digits; "" where the time is not known."""
    time = acquisition_time(header)
    return f"{text_of(header, 'AcquisitionDate')}{time[:6]}" if time else ""


def _rejection(series: SeriesHeaders, reason: Value) -> RejectedSeries:
    return RejectedSeries(series_instance_uid=series.series_instance_uid, reason=reason)


def without_localizers(series: SeriesHeaders) -> tuple[SeriesHeaders, int]:
    """The series without the localizers among its slices, and how many they are; as it is, if all are."""
    kept = tuple(one for one in series.instances if not is_localizer(one.header))
    if not kept:
        return series, 0
    return replace(series, instances=kept), len(series.instances) - len(kept)


def is_localizer(header: Dataset) -> bool:
    """Whether an image is stated to be a scout."""
    return "LOCALIZER" in text_of(header, "ImageType").upper().split()


def unsuitable(series: SeriesHeaders) -> Phrase | None:
    """Why this series must not be measured at all, None if it may be. Every image of it is looked at."""
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
    # A normal that is no number (cosines that are zero) is for the geometry to refuse.
    if reason is None and abs(float(normal_of(np.asarray(orientation, dtype=float))[2])) < AXIAL_COSINE:
        reason = phrase("not-axial")
    return reason


def _is_original(header: Dataset, kinds: Sequence[str]) -> bool:
    """Whether the pixels are those of the scan, or those of the scan after lossy compression and no more.

    Lossy compression alone makes an image DERIVED (PS3.3 C.7.6.1.1.2 and C.7.6.1.1.5), so value 1 tells
    nothing of such an image: the other values, the derivation and the number of its sources do.
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
    """Extent along the slice normal, from the first slice centre to the last."""
    normal = normal_of(np.asarray(series.first.ImageOrientationPatient, dtype=float))
    depths = [
        float(np.asarray(place, dtype=float) @ normal)
        for place in (one.header.get("ImagePositionPatient") for one in series.instances)
        if place is not None
        and len(place) == len(normal)  # what is no position is for the geometry to refuse
    ]
    return max(depths) - min(depths) if depths else 0.0


class Sharpness(IntEnum):
    """What a kernel's name tells, best first."""

    SOFT = 0  # or standard
    UNKNOWN = 1
    SHARP = 2


def kernel_rank(kernel: str) -> Sharpness:
    """How sharp the images are, by ConvolutionKernel."""
    if _SHARP_KERNEL.search(kernel):
        return Sharpness.SHARP
    if _SOFT_KERNEL.search(kernel):
        return Sharpness.SOFT
    siemens = _SIEMENS_KERNEL.match(kernel)
    if siemens is None:
        return Sharpness.UNKNOWN
    return Sharpness.SHARP if int(siemens[1]) >= _SIEMENS_SHARP_FROM else Sharpness.SOFT
