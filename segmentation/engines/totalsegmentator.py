"""TotalSegmentator's open models, asked in process: locate, crop, name, and tell bodies from the rest.

Its command resamples, tiles and crops as it is done here, so that the same weights give the same mask. What
is left out is all around that: a Python start, the loading of weights and pools of processes for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.engines.nnunet import Compute, Network, combined_sha256, renumbered
from segmentation.engines.recognised import Recognised, nothing_found, one_piece_each, to_vertebrae
from segmentation.engines.totalsegmentator_weights import (
    BODIES,
    ENGINE,
    PARTS,
    Mode,
    Model,
    class_map,
    find_weights,
    verified_sha256,
)
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae
from segmentation.volume import CtVolume, FloatArray, Grid, LabelMap, Mask, Vector, canonical

# Between the last rib and the sacrum; both anchors included.
NEEDED = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1")
_NEEDED_VALUES = [LABELS[name] for name in NEEDED]
CROP_MARGIN_MM = 20.0  # TotalSegmentator's own

Box = tuple[slice, slice, slice]


class TotalSegmentatorEngine:
    """A `Segmenter` with TotalSegmentator's weights.

    Parameters
    ----------
    weights : the folder that holds TotalSegmentator's Dataset folders.

    Raises
    ------
    EngineUnavailable
        If the extra is not installed, or weights are missing or not what they were.
    """

    def __init__(
        self,
        weights: Path,
        mode: Mode,
        compute: Compute,
        identity: IdentitySettings | None = None,
        canal: CanalSettings | None = None,
    ) -> None:
        self._identity = identity
        self._canal = canal
        found = find_weights(weights, mode)
        digests = verified_sha256(weights, tuple(found.values()))
        self._parts = PARTS[mode]
        self._networks = {
            model: Network(folder, compute, tile_step=model.tile_step) for model, folder in found.items()
        }
        self._info = EngineInfo(
            name=ENGINE,
            version=version("TotalSegmentator"),
            model_free=False,
            weights_sha256=combined_sha256(digests),
            parameters={
                "mode": mode.value,
                "bodies": BODIES.classes if BODIES in found else "geometry",
                "nnunetv2": version("nnunetv2"),
                **compute.told(),
                **{f"dataset_{model.dataset}": folder.path.parent.name for model, folder in found.items()},
            },
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def load(self) -> None:
        """Load all weights now, not with the first image."""
        for network in self._networks.values():
            network.load()

    def segment(self, volume: CtVolume) -> Vertebrae:
        """Label the vertebral bodies of `volume`; see `segmentation.engines.Segmenter`."""
        turned, turn = canonical(volume)
        named = self.name(turned)
        if named is None:
            return nothing_found(volume, self.info)
        box, labels = named
        labels, split = one_piece_each(labels)
        inner = box_around(np.isin(labels, _NEEDED_VALUES), turned.grid.part(box))
        if inner is None:
            return nothing_found(volume, self.info)
        box, labels = within(box, inner), labels[inner]
        return to_vertebrae(
            volume,
            Recognised(
                turned=turned,
                turn=turn,
                box=box,
                labels=labels,
                bodies=self._bodies(turned.hu[box], turned.grid.spacing_mm),
                split=split,
            ),
            self.info,
            self._identity,
            self._canal,
        )

    def name(self, turned: CtVolume) -> tuple[Box, LabelMap] | None:
        """Whole vertebrae as the networks name them, unjudged: the command's own mask.

        Parameters
        ----------
        turned : in the canonical frame.

        Returns
        -------
        A part of the image and values of `LABELS` in it; None where no vertebra is located.
        """
        locating = self._parts.locating or self._parts.naming
        coarse = self._levels(locating, turned.hu, turned.grid.spacing_mm)
        box = box_around(np.isin(coarse, _NEEDED_VALUES), turned.grid)
        if box is None:
            return None
        if self._parts.locating is None:
            return box, at_steps(coarse, turned.grid.shape, box)
        fine = self._levels(self._parts.naming, turned.hu[box], turned.grid.spacing_mm)
        return box, at_steps(fine, turned.grid.part(box).shape)

    def _levels(self, model: Model, hu: FloatArray, spacing_mm: Vector) -> LabelMap:
        """Values of `LABELS`, at the model's spacing."""
        names = {value: name.removeprefix("vertebrae_") for value, name in class_map(model).items()}
        values = {value: name for value, name in names.items() if name in (*NEEDED, "sacrum")}
        return renumbered(self._answer(model, hu, spacing_mm), values)

    def _bodies(self, hu: FloatArray, spacing_mm: Vector) -> Mask | None:
        if BODIES not in self._networks:
            return None
        (body,) = (value for value, name in class_map(BODIES).items() if name == "vertebrae_body")
        bodies: Mask = at_steps(self._answer(BODIES, hu, spacing_mm), hu.shape) == body
        return bodies

    def _answer(self, model: Model, hu: FloatArray, spacing_mm: Vector) -> LabelMap:
        step = model.spacing_mm
        return self._networks[model].label(at_spacing(hu, spacing_mm, step), (step, step, step))


def at_spacing(hu: FloatArray, spacing_mm: Vector, target_mm: float) -> FloatArray:
    """Whole HU at another spacing, linearly, first and last voxel centres in place: as TotalSegmentator."""
    if all(step == target_mm for step in spacing_mm):
        return np.trunc(hu)
    zoom = [
        max(1, round(size * step / target_mm)) / size for size, step in zip(hu.shape, spacing_mm, strict=True)
    ]
    resampled: FloatArray = ndimage.zoom(hu, zoom, order=1, mode="nearest")
    return np.trunc(resampled)


def at_steps(labels: LabelMap, shape: Sequence[int], box: Box | None = None) -> LabelMap:
    """The way back from `at_spacing`, by nearest neighbour.

    Parameters
    ----------
    shape : of the image that `labels` answers.
    box : the part of that image that is wanted; all of it if None.
    """
    index = _nearest_index(labels.shape, shape)
    if box is not None:
        index = [axis[part] for axis, part in zip(index, box, strict=True)]
    return labels[np.ix_(*index)]


def box_around(inside: Mask, grid: Grid) -> Box | None:
    """The part of an image, with a margin, where a mask at another spacing is set; None where it is empty."""
    if not inside.any():
        return None
    parts = []
    for axis, index in enumerate(_nearest_index(inside.shape, grid.shape)):
        hit = np.asarray(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        there = np.flatnonzero(hit[index])
        margin = int(CROP_MARGIN_MM / grid.spacing_mm[axis])
        parts.append(slice(max(0, int(there[0]) - margin), min(len(index), int(there[-1]) + 1 + margin)))
    return (parts[0], parts[1], parts[2])


def within(outer: Box, inner: Box) -> Box:
    """A box within a box, in the terms of the array that the outer one cuts."""
    parts = [
        slice(whole.start + part.start, whole.start + part.stop)
        for whole, part in zip(outer, inner, strict=True)
    ]
    return (parts[0], parts[1], parts[2])


def _nearest_index(have: Sequence[int], want: Sequence[int]) -> list[npt.NDArray[np.int_]]:
    """Per axis, which voxel of the resampled image lies nearest to each voxel of the original."""
    return [
        np.floor(np.arange(size) * ((there - 1) / max(1, size - 1)) + 0.5).astype(int)
        for there, size in zip(have, want, strict=True)
    ]
