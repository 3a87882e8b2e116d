"""A segmentation drawn elsewhere, read as vertebral bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import CtVolume, Grid, LabelMap, canonical
from segmentation.engines.drawn import drawing_grid
from segmentation.engines.name_checks import check_names
from segmentation.errors import GridMismatch, LevelUnknown, MaskNotUsable
from segmentation.gates.fracture import without_collapsed
from segmentation.phrase import phrase
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Observation, Vertebrae, no_vertebrae


class Convention(StrEnum):
    """Numbering convention of a mask."""

    AUTO = "auto"
    TOTALSEGMENTATOR = "totalsegmentator"
    VERSE = "verse"


# Class map of TotalSegmentator's `total` task, version 2.
TOTALSEGMENTATOR: Mapping[int, str] = {27: "L5", 28: "L4", 29: "L3", 30: "L2", 31: "L1", 32: "T12", 33: "T11"}
TOTALSEGMENTATOR_SACRUM: Mapping[int, str] = {25: "sacrum", 26: "S1"}
TOTALSEGMENTATOR_LAST_VERTEBRA = 50  # C1; organs have the numbers around
# Sekuboyina et al., VerSe: labels 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13.
VERSE: Mapping[int, str] = {18: "T11", 19: "T12", 20: "L1", 21: "L2", 22: "L3", 23: "L4", 24: "L5"}
VERSE_SACRUM: Mapping[int, str] = {26: "sacrum"}
VERSE_L6 = 25
# Class map of TotalSegmentator's first version (R); its thoracic numbers go on upwards to 41.
TOTALSEGMENTATOR_1: Mapping[int, str] = {
    18: "L5", 19: "L4", 20: "L3", 21: "L2", 22: "L1", 23: "T12", 24: "T11"
}  # fmt: skip
BINARY = frozenset({1, 255})  # what binary masks carry, of whatever they show
# Sacrum or L6, S1 or sacrum, L5 or coccyx, L4 or T13; and what VerSe and TotalSegmentator 1 name differently.
AMBIGUOUS_ALONE = frozenset({25, 26, 27, 28}) | {
    value for value, name in VERSE.items() if TOTALSEGMENTATOR_1.get(value) != name
}
_CONVENTIONS = (TOTALSEGMENTATOR, VERSE, TOTALSEGMENTATOR_1)
_LEVEL_IN_NAME = re.compile(r"(?<![A-Za-z0-9])(T1[0-2]|L[1-5])(?![A-Za-z0-9])", re.IGNORECASE)
_VERSE_NAME = re.compile(r"_seg-vert(?![A-Za-z0-9])")  # as the VerSe data set and TPTBox name their files

MIN_VOXELS = 20
MIN_OVERLAP = 0.5  # share of the mask that must lie inside the volume


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImage:
    """A label map with its grid.

    Attributes
    ----------
    labels : (z, y, x), 0 where nothing is drawn.

    Raises
    ------
    GridMismatch
        If `labels` has another shape than the grid.
    """

    labels: npt.NDArray[np.int_] | npt.NDArray[np.uint8] | npt.NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise GridMismatch("shape", self.labels.shape, self.grid.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNameHints:
    """What a mask's file name states about its values.

    Attributes
    ----------
    level : the level of a mask that shows one vertebra; None where it is not stated.
    is_verse : whether the name is one of VerSe's, and the values are therefore VerSe's.
    """

    level: str | None
    is_verse: bool


def read_file_name(name: str) -> FileNameHints:
    """Level and convention by a file name.

    `vertebrae_L1.nii.gz` shows L1, `sub-1_seg-vert_msk.nii.gz` has VerSe's numbers; a name with two levels
    states none.
    """
    levels = {found.upper() for found in _LEVEL_IN_NAME.findall(name)}
    return FileNameHints(
        level=levels.pop() if len(levels) == 1 else None, is_verse=bool(_VERSE_NAME.search(name))
    )


class MaskEngine:
    """A `Segmenter` that returns a mask drawn elsewhere.

    Parameters
    ----------
    convention : whose numbers the mask has, or a mapping from its values to level names.
    file_name : of the mask; "" where it has none. It may resolve a single ambiguous value.
    source : parameters for the results' provenance.
    vouched : whether a person assigned this mask to this study and is responsible for its names. Otherwise
        they need an anchor, as a network's do.
    """

    def __init__(
        self,
        mask: LabelImage,
        convention: Convention | Mapping[int, str] = Convention.AUTO,
        *,
        file_name: str = "",
        source: Mapping[str, str] | None = None,
        identity: IdentitySettings | None = None,
        canal: CanalSettings | None = None,
        vouched: bool = False,
    ) -> None:
        self._mask = mask
        self._convention = convention
        self._named = read_file_name(file_name)
        self._source = dict(source or {})
        self._identity = identity
        self._canal = canal
        self._vouched = vouched

    @property
    def info(self) -> EngineInfo:
        named = self._convention.value if isinstance(self._convention, Convention) else "explicit"
        return mask_info({"convention": named, **self._source})

    def segment(self, volume: CtVolume) -> Vertebrae:
        """The mask's vertebral bodies on the volume's grid; see `segmentation.engines.Segmenter`.

        Names that no spine has (a gap, a doubled, merged or split label, a wrong order) are kept, with
        observations; so are names without a sacrum that nobody vouched for. A single vertebra without a name
        is not measured, and an observation states that.

        Raises
        ------
        GridMismatch
            If the mask does not lie over the volume.
        MaskNotUsable
            If its values are no vertebral levels, or no vertebra can be cut to its body.
        """
        labels = resample_mask(self._mask, volume.grid)
        try:
            naming = resolve_naming(labels, volume.grid, self._convention, self._named)
        except LevelUnknown as error:
            unknown = Observation(code="mask_level_unknown", values={"reason": error.reason})
            return no_vertebrae(volume, self.info, unknown)
        turned, turn = canonical(volume)
        judged = check_names(
            turn.forward(_renumbered(labels, _with_sacrum(naming))),
            turned,
            min_body_mm3=MIN_VOXELS * volume.grid.voxel_volume_mm3,
            identity=self._identity,
            canal=self._canal,
        )
        if not any(level.name in LUMBAR for level in judged.row):
            if judged.uncut:
                raise MaskNotUsable(judged.uncut[0])
            return no_vertebrae(volume, self.info)
        doubts = judged.doubts
        if naming.items() <= VERSE.items() and bool((labels == VERSE_L6).any()) and "L5" in naming.values():
            doubts = (
                *doubts,
                Observation(code="numbering_conflict", values={"detail": phrase("mask-names-l6")}),
            )
        if not self._vouched:
            doubts = (*doubts, *judged.unanchored)
        found = Vertebrae(
            grid=volume.grid,
            bodies=turn.backward(judged.bodies),
            levels=judged.row,
            numbering_confirmed=not doubts,
            numbering_basis="mask" if self._vouched else judged.basis,
            engine=self.info,
            observations=doubts,
            drawn_on=drawing_grid(self._mask.labels, self._mask.grid),
        )
        return without_collapsed(found, self._identity)


def mask_info(parameters: Mapping[str, str]) -> EngineInfo:
    """The mask engine as results name it, with the mask's provenance."""
    return EngineInfo(name="mask", version="2", model_free=False, parameters=dict(parameters))


def _with_sacrum(naming: Mapping[int, str]) -> Mapping[int, str]:
    """The naming, with its convention's number of the sacrum, which must follow the fifth lumbar vertebra."""
    for convention, sacrum in ((TOTALSEGMENTATOR, TOTALSEGMENTATOR_SACRUM), (VERSE, VERSE_SACRUM)):
        if naming.items() <= convention.items():
            return {**naming, **sacrum}
    return naming


def _renumbered(labels: npt.NDArray[np.int16], naming: Mapping[int, str]) -> LabelMap:
    """Values of `LABELS` in place of a mask's own."""
    drawn: LabelMap = np.zeros(labels.shape, np.uint8)
    for value, name in naming.items():
        drawn[labels == value] = LABELS[name]
    return drawn


def resample_mask(mask: LabelImage, grid: Grid) -> npt.NDArray[np.int16]:
    """The mask's values at a grid's voxel centres (nearest neighbour); 0 where the mask does not reach.

    Raises
    ------
    GridMismatch
        If less than half of the mask lies inside the grid.
    """
    values = mask.labels.astype(np.int16)
    try:
        mask.grid.require_same(grid)
    except GridMismatch:
        _require_overlap(mask, grid)
    else:
        return values
    step = np.linalg.inv(mask.grid.step_matrix()) @ grid.step_matrix()
    start = mask.grid.to_index(grid.origin_mm)
    moved: npt.NDArray[np.int16] = ndimage.affine_transform(
        values, step, offset=start, output_shape=grid.shape, order=0, prefilter=False, mode="grid-constant"
    )
    return moved


def _require_overlap(mask: LabelImage, grid: Grid) -> None:
    drawn = np.argwhere(mask.labels != 0)
    if len(drawn) == 0:
        return
    index = grid.to_index(mask.grid.to_patient(drawn))
    inside = ((index >= -0.5) & (index <= np.asarray(grid.shape) - 0.5)).all(axis=1)
    if inside.mean() < MIN_OVERLAP:
        raise GridMismatch("extent", f"{inside.mean():.0%} of the mask", "the volume")


def resolve_naming(
    labels: npt.NDArray[np.int16],
    grid: Grid,
    convention: Convention | Mapping[int, str],
    named: FileNameHints | None = None,
) -> Mapping[int, str]:
    """Level names by value, for the values that are present.

    A mask with one value has the level of its file name, otherwise the level that the value has in every
    convention. With several values, the direction in which the numbers rise along the spine decides between
    the conventions.

    Raises
    ------
    LevelUnknown
        If the mask has one value, and neither it nor the file name states the level, or the two contradict
        each other.
    MaskNotUsable
        If the mask is empty, fits both conventions or neither, or a mapping names an unknown level.
    """
    named = named or FileNameHints(level=None, is_verse=False)
    present = [int(value) for value in np.unique(labels) if value != 0]
    if not present:
        raise MaskNotUsable(phrase("mask-empty"))
    if not isinstance(convention, Convention):
        if unknown := sorted(set(convention.values()) - set(LABELS)):
            raise MaskNotUsable(phrase("mask-unknown-levels", names=", ".join(unknown)))
        return _present_levels(convention, present)
    if len(present) == 1 and present[0] in BINARY:
        return {present[0]: _level_of_binary(present[0], named)}
    if convention is Convention.TOTALSEGMENTATOR:
        return _present_levels(TOTALSEGMENTATOR, present)
    if convention is Convention.VERSE or named.is_verse:
        return _present_levels(VERSE, present)
    if len(present) == 1:
        return _naming_of_single(present[0], named.level)
    return _naming_by_order(labels, grid, present)


def _level_of_binary(value: int, named: FileNameHints) -> str:
    if named.level is None:
        raise LevelUnknown(phrase("mask-only-value", value=value))
    return named.level


def _present_levels(naming: Mapping[int, str], present: list[int]) -> Mapping[int, str]:
    used = {value: name for value, name in naming.items() if value in present}
    if not used:
        raise MaskNotUsable(phrase("mask-no-vertebra", values=str(present)))
    return used


def _naming_of_single(value: int, named: str | None) -> Mapping[int, str]:
    meant = [convention[value] for convention in _CONVENTIONS if value in convention]
    if named is not None:
        if meant and named not in meant:
            raise LevelUnknown(phrase("mask-name-contradicts", named=named, value=value, level=meant[0]))
        return {value: named}
    if value in AMBIGUOUS_ALONE:
        raise LevelUnknown(phrase("mask-value-ambiguous", value=value))
    if not meant:  # another organ, or another region of the spine
        raise MaskNotUsable(phrase("mask-value-no-vertebra", value=value))
    return {value: meant[0]}


def _naming_by_order(labels: npt.NDArray[np.int16], grid: Grid, present: list[int]) -> Mapping[int, str]:
    upward = _direction_of_numbers(labels, grid, [value for value in present if value in TOTALSEGMENTATOR])
    downward = _direction_of_numbers(labels, grid, [value for value in present if value in VERSE])
    organs = max(present) > TOTALSEGMENTATOR_LAST_VERTEBRA
    # In version 2 the lower of these are organs, which do not lie one above the other below the sacrum.
    spine = [value for value in present if min(TOTALSEGMENTATOR_1) <= value <= max(TOTALSEGMENTATOR)]
    if downward == 1 and _direction_of_numbers(labels, grid, spine) == 1:
        raise MaskNotUsable(phrase("mask-first-version", values=str(present)))
    if upward == 1 and (organs or downward != -1):
        return _present_levels(TOTALSEGMENTATOR, present)
    if downward == -1 and upward != 1:
        return _present_levels(VERSE, present)
    raise MaskNotUsable(phrase("mask-convention-unknown", values=str(present)))


def _direction_of_numbers(labels: npt.NDArray[np.int16], grid: Grid, values: list[int]) -> int:
    """+1 if values rise towards superior, -1 if they fall, 0 where neither is the case."""
    if len(values) < 2:
        return 0
    centres = ndimage.center_of_mass(np.ones_like(labels), labels, values)
    heights = grid.to_patient(np.asarray(centres))[:, 2]
    steps = np.sign(np.diff(heights))
    return int(steps[0]) if (steps == steps[0]).all() else 0
