"""Several passes over the same part of the body in one series: found, and one of them selected.

Two passes between which the patient moved, interleaved in one volume, show no vertebra correctly. An
attribute tells passes apart if the images that share a value of it overlap along the patient: together they
are no stack, each part may be one. Acquisitions that follow one another along the patient are parts of one
pass. So are images that each have a number or a time of their own, as long as these rise in one direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from node.dicom.ct.contrast_agent import ContrastStatement
from node.dicom.ct.headers import Instance, comparable
from node.dicom.ct.slice_geometry import normal_of, stack_slices
from node.dicom.errors import SeriesUnusable, Unusable
from node.dicom.header_text import number_of, text_of
from node.study_report import MeasuredPass
from segmentation.phrase import Phrase, Value, listed, phrase

_SAME_PLACE_MM = 0.01
_COMPLETE_SHARE = 0.9  # R: of the series' extent that a pass must cover to be measured alone
# R: images of one part that may lie within another before times or image numbers separate passes: clocks
# have a resolution, and neighbours may be swapped.
_MOST_SWAPPED = 2
_LEAST_GROUPS = 4  # R: of a run of single images or rotations; fewer show no direction
_ORDERLY_SHARE = 0.9  # R: of the images that must lie in such runs; less is an order by chance
_LEAST_OF_A_STEP = 0.75  # R: images nearer to a run than this share of its step do not continue it

_Depths = npt.NDArray[np.float64]
_Value = str | float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedPass:
    """The images of a series that are measured.

    Attributes
    ----------
    instances : in the order of the series.
    measured : which pass this is; None where the series holds one pass, and all of it is measured.
    contrast : stated for this pass and for any that may have come before; None where all images are measured.
    """

    instances: tuple[Instance, ...]
    measured: MeasuredPass | None
    contrast: ContrastStatement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attribute:
    """An attribute that may tell passes apart."""

    name: Phrase
    values: Sequence[_Value | None]  # of each image; None where it is not stated
    is_loose: bool = False  # a few images may be out of order
    is_weak: bool = False  # ignored where it does not divide the series into whole passes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Images that follow one another along the patient, in the order of an attribute."""

    places: tuple[int, ...]
    groups: int  # values of the attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Images that no attribute divides any further."""

    places: tuple[int, ...]
    is_usable: bool  # complete, even, and no mixture of acquisitions
    attribute: Value  # that tells them from the others


def select_pass(instances: Sequence[Instance], contrast: Sequence[ContrastStatement]) -> SelectedPass:
    """The images of one complete pass where a series holds several; else all images.

    The first complete pass without documented contrast medium, in itself or in a pass before it, is selected;
    else the first complete pass.

    Parameters
    ----------
    instances : without copies: no two show the same in one place.
    contrast : what the header of each states.

    Raises
    ------
    SeriesUnusable
        If passes overlap and none is complete by itself.
    """
    depths = _depths_of(instances)
    if depths is None:
        return SelectedPass(instances=tuple(instances), measured=None, contrast=None)
    headers = [instance.header for instance in instances]
    parts = _Series(headers, depths).parts(range(len(headers)), _attributes(headers, contrast))
    if len(parts) < 2:
        return SelectedPass(instances=tuple(instances), measured=None, contrast=None)
    attributes = listed(dict.fromkeys(part.attribute for part in parts))
    if not any(part.is_usable for part in parts):
        detail = phrase("parts-overlap", count=len(parts), attributes=attributes)
        raise SeriesUnusable(Unusable.SEVERAL_PASSES, detail, slices=len(headers))
    orders = [_order([headers[place] for place in part.places]) for part in parts]
    given = [_contrast_in(number, parts, orders, contrast) for number in range(len(parts))]
    in_order = sorted(range(len(parts)), key=lambda number: orders[number].key)
    usable = [number for number in in_order if parts[number].is_usable]
    chosen = min(usable, key=lambda number: bool(given[number].words))  # the first of those that are equal
    is_native = not given[chosen].words and any(statement.words for statement in contrast)
    return SelectedPass(
        instances=tuple(instances[place] for place in sorted(parts[chosen].places)),
        measured=MeasuredPass(
            number=in_order.index(chosen) + 1,
            passes=len(parts),
            told_by=attributes,
            reason=_FIRST_NATIVE if is_native else _FIRST,
            images_left_out=len(instances) - len(parts[chosen].places),
        ),
        contrast=given[chosen],
    )


_FIRST = phrase("first-complete")
_FIRST_NATIVE = phrase("first-complete-native")

_PHASES = {
    "TemporalPositionIdentifier": phrase("temporal-position"),
    "TemporalPositionIndex": phrase("temporal-position"),
    "TemporalPositionTimeOffset": phrase("temporal-position"),
    "NominalPercentageOfCardiacPhase": phrase("cardiac-phase"),
    "CardiacCyclePosition": phrase("cardiac-phase"),
    "TriggerTime": phrase("cardiac-phase"),
    "NominalCardiacTriggerDelayTime": phrase("cardiac-phase"),
    "ActualCardiacTriggerDelayTime": phrase("cardiac-phase"),
}
# Attributes that number passes in the order of acquisition; the first that is stated counts.
_IN_ORDER = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
)
_CONTRAST_DETAILS = (
    "ContrastBolusAgentAdministered",  # of a frame
    "ContrastBolusVolume",
    "ContrastBolusStartTime",
    "ContrastBolusStopTime",
    "ContrastBolusTotalDose",
)


def _attributes(headers: Sequence[Dataset], contrast: Sequence[ContrastStatement]) -> tuple[_Attribute, ...]:
    """Strongest first: by meaning, then by number, then by time."""
    details = [[comparable(one, name) for name in _CONTRAST_DETAILS if name in one] for one in headers]
    agents = [" ".join([one.words, *detail]).strip() for one, detail in zip(contrast, details, strict=True)]
    return (
        *(_Attribute(name=name, values=_values(headers, keyword)) for keyword, name in _PHASES.items()),
        _Attribute(name=phrase("contrast-medium"), values=agents, is_weak=True),
        _Attribute(name=phrase("acquisition-number"), values=_values(headers, "AcquisitionNumber")),
        _Attribute(name=phrase("acquisition-number"), values=_values(headers, "FrameAcquisitionNumber")),
        _Attribute(name=phrase("acquisition-time"), values=[_moment(one) for one in headers], is_loose=True),
        _Attribute(name=phrase("irradiation-event"), values=_values(headers, "IrradiationEventUID")),
        _Attribute(
            name=phrase("image-number"),
            values=_values(headers, "InstanceNumber"),
            is_loose=True,
            is_weak=True,
        ),
    )


def _values(headers: Sequence[Dataset], keyword: str) -> list[_Value | None]:
    return [_value(header, keyword) if keyword in header else None for header in headers]


def _value(header: Dataset, keyword: str) -> _Value | None:
    number = number_of(header, keyword)
    return number if number is not None else comparable(header, keyword) or None


def _moment(header: Dataset) -> str | None:
    """Date and time of acquisition of an image, in a form that sorts."""
    time = text_of(header, "AcquisitionTime")
    whole = text_of(header, "AcquisitionDate") + time if time else text_of(header, "AcquisitionDateTime")
    seconds, _, fraction = whole.partition(".")
    return f"{seconds}.{fraction.ljust(6, '0')}" if whole else None


class _Series:
    """Images of a series and the depth of each along their normal, in mm."""

    def __init__(self, headers: Sequence[Dataset], depths: _Depths) -> None:
        self._headers = headers
        self._depths = depths

    def parts(self, places: Sequence[int], attributes: Sequence[_Attribute]) -> list[_Part]:
        """The passes among some images; one where no attribute divides them."""
        for number, attribute in enumerate(attributes):
            runs = self._overlapping_runs(places, attribute)
            usable = self._usable(runs)
            is_incomplete = any(attribute.values[place] is None for place in places)
            if not runs or ((attribute.is_weak or is_incomplete) and not any(usable)):
                continue
            parts: list[_Part] = []
            for run, is_usable in zip(runs, usable, strict=True):
                further = self.parts(run.places, attributes[number + 1 :]) if is_usable else []
                if len(further) < 2:
                    further = [_Part(places=run.places, is_usable=is_usable, attribute=attribute.name)]
                parts += further
            return parts
        return [_Part(places=tuple(places), is_usable=True, attribute="")]

    def _overlapping_runs(self, places: Sequence[int], attribute: _Attribute) -> list[_Run]:
        """The images by an attribute's values where the groups overlap; else nothing."""
        by_value: dict[_Value | None, list[int]] = {}
        for place in places:
            by_value.setdefault(attribute.values[place], []).append(place)
        groups = [by_value[value] for value in sorted(by_value, key=_sort_key)]
        if len(groups) < 2:
            return []
        most = _MOST_SWAPPED if attribute.is_loose else 0
        runs = self._runs(groups)
        if self._overlap([_Run(places=tuple(group), groups=1) for group in groups], most):
            return runs
        long = [run for run in runs if run.groups >= _LEAST_GROUPS]
        orderly = sum(len(run.places) for run in long) >= _ORDERLY_SHARE * len(places)
        return runs if orderly and self._overlap(long, _MOST_SWAPPED) else []

    def _runs(self, groups: Sequence[Sequence[int]]) -> list[_Run]:
        """Groups joined while each continues the one before in the same direction."""
        runs: list[_Run] = []
        direction = 0
        for group in groups:
            onwards = self._direction(runs[-1], group) if runs else 0
            if onwards and direction in (0, onwards):
                last = runs.pop()
                runs.append(_Run(places=(*last.places, *group), groups=last.groups + 1))
                direction = onwards
            else:
                runs.append(_Run(places=tuple(group), groups=1))
                direction = 0
        return runs

    def _direction(self, run: _Run, group: Sequence[int]) -> int:
        """Whether a group lies beyond a run's upper (1) or lower (-1) end; 0: neither, or too near to it."""
        own, other = self._depths[list(run.places)], self._depths[list(group)]
        step_mm = float(np.median(np.diff(np.sort(own)))) if len(own) >= _LEAST_GROUPS else 0.0
        least_mm = max(_SAME_PLACE_MM, _LEAST_OF_A_STEP * step_mm)
        return int(other.min() - own.max() > least_mm) - int(own.min() - other.max() > least_mm)

    def _overlap(self, runs: Sequence[_Run], most: int) -> bool:
        """Whether more than `most` images of one run lie between the first and the last of another."""
        large = [run for run in runs if len(run.places) > most]  # there may be a run for each image
        ends = [self._ends(run.places) for run in large]
        in_order = sorted(range(len(large)), key=lambda number: ends[number])
        for at, a in enumerate(in_order):
            for b in in_order[at + 1 :]:
                if ends[b][0] > ends[a][1] + _SAME_PLACE_MM:
                    break
                if max(self._within(large[a], ends[b]), self._within(large[b], ends[a])) > most:
                    return True
        return False

    def _ends(self, places: Sequence[int]) -> tuple[float, float]:
        own = self._depths[list(places)]
        return float(own.min()), float(own.max())

    def _within(self, run: _Run, ends: tuple[float, float]) -> int:
        own = self._depths[list(run.places)]
        return int(((own >= ends[0] - _SAME_PLACE_MM) & (own <= ends[1] + _SAME_PLACE_MM)).sum())

    def _usable(self, runs: Sequence[_Run]) -> list[bool]:
        """Which runs can be measured alone.

        Several acquisitions make one pass only where each run of them is whole: else it is unknown which of
        them belong together.
        """
        whole = [self._is_whole(run) for run in runs]
        return [
            is_whole and (run.groups == 1 or all(whole)) for run, is_whole in zip(runs, whole, strict=True)
        ]

    def _is_whole(self, run: _Run) -> bool:
        lowest, highest = self._ends(run.places)
        if highest - lowest < _COMPLETE_SHARE * float(np.ptp(self._depths)):
            return False
        try:
            stack_slices([self._headers[place] for place in run.places], tilt_tolerance_degrees=np.inf)
        except SeriesUnusable:
            return False
        return True


def _sort_key(value: _Value | None) -> tuple[int, float, str]:
    """Numbers before texts; missing values last."""
    if value is None:
        return 2, 0.0, ""
    return (1, 0.0, value) if isinstance(value, str) else (0, value, "")


def _depths_of(instances: Sequence[Instance]) -> _Depths | None:
    """Depth of each image along the normal, in mm; None without geometry, which `stack_slices` reports."""
    try:
        cosines = np.array([instance.header.ImageOrientationPatient for instance in instances], dtype=float)
        places = np.array([instance.header.ImagePositionPatient for instance in instances], dtype=float)
    except (AttributeError, TypeError, ValueError):
        return None
    if cosines.shape[1:] != (6,) or places.shape[1:] != (3,):
        return None
    if not np.isfinite(cosines.sum() + places.sum()):
        return None
    if not np.linalg.norm(np.cross(cosines[0, :3], cosines[0, 3:])) > 0.5:
        return None
    return np.asarray(places @ normal_of(cosines[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """When a part was acquired, as far as its headers state it."""

    moment: str | None
    number: float | None  # of the temporal position, else of the acquisition
    image: float | None

    @property
    def key(self) -> tuple[str, float, float]:
        numbers = (np.inf if one is None else one for one in (self.number, self.image))
        return (self.moment or "", *numbers)  # type: ignore[return-value]


def _order(headers: Sequence[Dataset]) -> _Order:
    def least(keyword: str) -> float | None:
        return min((one for h in headers if (one := number_of(h, keyword)) is not None), default=None)

    numbers = map(least, _IN_ORDER)
    return _Order(
        moment=min(filter(None, map(_moment, headers)), default=None),
        number=next((one for one in numbers if one is not None), None),
        image=least("InstanceNumber"),
    )


def _is_earlier(one: _Order, other: _Order) -> bool | None:
    """None where it is not known."""
    if one.moment and other.moment and one.moment != other.moment:
        return one.moment < other.moment
    if one.number is not None and other.number is not None and one.number != other.number:
        return one.number < other.number
    return None


def _contrast_in(
    number: int, parts: Sequence[_Part], orders: Sequence[_Order], contrast: Sequence[ContrastStatement]
) -> ContrastStatement:
    """The statement for a part and all earlier ones; doubtful where only a perhaps earlier one has any."""

    def stated_for(others: Sequence[int]) -> ContrastStatement:
        return _of_all([contrast[place] for other in others for place in parts[other].places])

    others = [other for other in range(len(parts)) if other != number]
    earlier = {other: _is_earlier(orders[other], orders[number]) for other in others}
    own = stated_for([number, *(other for other, is_earlier in earlier.items() if is_earlier)])
    perhaps = stated_for([other for other, is_earlier in earlier.items() if is_earlier is None])
    return own if own.words else ContrastStatement(words=perhaps.words, doubtful=bool(perhaps.words))


def _of_all(statements: Sequence[ContrastStatement]) -> ContrastStatement:
    """A statement that contrast was given decides, else one that leaves it open."""
    with_words = sorted((one for one in statements if one.words), key=lambda one: one.doubtful)
    return next(iter(with_words), ContrastStatement())
