"""TotalSegmentator's open models in process: locate the vertebrae, crop, name them, and segment their bodies.

Resampling, tiling and cropping are those of its command, so that the same weights give the same mask. For
each image this saves a start of Python, the loading of weights, and pools of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentation.ct_volume import Box, CtVolume, FloatArray, Grid, LabelMap, Mask, Vector, canonical
from segmentation.engines.name_checks import NetworkLabels, largest_pieces, to_vertebrae
from segmentation.engines.nnunet import Compute, Network, combined_sha256, to_level_labels
from segmentation.engines.totalsegmentator_weights import (
    BODIES,
    ENGINE,
    MODELS_OF_MODE,
    Mode,
    WeightsModel,
    class_map,
    find_weights,
    verified_sha256,
)
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae, no_vertebrae

# Between the last rib and the sacrum; both anchors included.
NEEDED = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1")
_NEEDED_VALUES = [LABELS[name] for name in NEEDED]
CROP_MARGIN_MM = 20.0  # TotalSegmentator's own


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
        self._parts = MODELS_OF_MODE[mode]
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
                **compute.provenance(),
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
            return no_vertebrae(volume, self.info)
        box, labels = named
        labels, split = largest_pieces(labels)
        inner = crop_box(np.isin(labels, _NEEDED_VALUES), turned.grid.part(box))
        if inner is None:
            return no_vertebrae(volume, self.info)
        box, labels = nested_box(box, inner), labels[inner]
        return to_vertebrae(
            volume,
            NetworkLabels(
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
        box = crop_box(np.isin(coarse, _NEEDED_VALUES), turned.grid)
        if box is None:
            return None
        if self._parts.locating is None:
            return box, resample_labels(coarse, turned.grid.shape, box)
        fine = self._levels(self._parts.naming, turned.hu[box], turned.grid.spacing_mm)
        return box, resample_labels(fine, turned.grid.part(box).shape)

    def _levels(self, model: WeightsModel, hu: FloatArray, spacing_mm: Vector) -> LabelMap:
        """Values of `LABELS`, at the model's spacing."""
        names = {value: name.removeprefix("vertebrae_") for value, name in class_map(model).items()}
        values = {value: name for value, name in names.items() if name in (*NEEDED, "sacrum")}
        return to_level_labels(self._answer(model, hu, spacing_mm), values)

    def _bodies(self, hu: FloatArray, spacing_mm: Vector) -> Mask | None:
        if BODIES not in self._networks:
            return None
        (body,) = (value for value, name in class_map(BODIES).items() if name == "vertebrae_body")
        bodies: Mask = resample_labels(self._answer(BODIES, hu, spacing_mm), hu.shape) == body
        return bodies

    def _answer(self, model: WeightsModel, hu: FloatArray, spacing_mm: Vector) -> LabelMap:
        step = model.spacing_mm
        return self._networks[model].label(resample_hu(hu, spacing_mm, step), (step, step, step))


def resample_hu(hu: FloatArray, spacing_mm: Vector, target_mm: float) -> FloatArray:
    """Whole HU at another isotropic spacing, linearly, as TotalSegmentator resamples them.

    Parameters
    ----------
    hu : (z, y, x).
    spacing_mm : along (z, y, x).

    Returns
    -------
    The first and last voxels' centres stay in place.
    """
    if all(step == target_mm for step in spacing_mm):
        return np.trunc(hu)
    zoom = [
        max(1, round(size * step / target_mm)) / size for size, step in zip(hu.shape, spacing_mm, strict=True)
    ]
    resampled: FloatArray = ndimage.zoom(hu, zoom, order=1, mode="nearest")
    return np.trunc(resampled)


def resample_labels(labels: LabelMap, shape: Sequence[int], box: Box | None = None) -> LabelMap:
    """Labels on an image's own grid: the inverse of `resample_hu`, by nearest neighbour.

    Parameters
    ----------
    shape : of the image that `labels` belong to.
    box : the part of that image that is returned; all of it if None.
    """
    index = _nearest_index(labels.shape, shape)
    if box is not None:
        index = [axis[part] for axis, part in zip(index, box, strict=True)]
    return labels[np.ix_(*index)]


def crop_box(inside: Mask, grid: Grid) -> Box | None:
    """The part of an image around a mask, with a margin; None where the mask is empty.

    Parameters
    ----------
    inside : at another spacing than the image.
    grid : of the image.
    """
    if not inside.any():
        return None
    parts = []
    for axis, index in enumerate(_nearest_index(inside.shape, grid.shape)):
        hit = np.asarray(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        there = np.flatnonzero(hit[index])
        margin = int(CROP_MARGIN_MM / grid.spacing_mm[axis])
        parts.append(slice(max(0, int(there[0]) - margin), min(len(index), int(there[-1]) + 1 + margin)))
    return (parts[0], parts[1], parts[2])


def nested_box(outer: Box, inner: Box) -> Box:
    """A box within a box, relative to the array that the outer box cuts."""
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
