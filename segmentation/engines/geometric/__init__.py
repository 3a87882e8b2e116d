"""The model-free engine: finds lumbar vertebrae by their geometry, without a trained network or a download.

The steps, each a module: `canal` tracks the spinal canal; `column` lays a curve through the bodies before it;
`discs` divides it; `body` (with `endplates`, `outline` and `cortex`) draws each body in its own axes; `thick`
(with `slabs`, `expected` and `descent`) finds the endplates of slices too thick for that; `numbering` names
the bodies from the sacrum and the last rib.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmentation.engines.geometric.body import THICK_MM, Body, body_between, occupied, settled
from segmentation.engines.geometric.canal import track_canal
from segmentation.engines.geometric.column import Curve, body_curve
from segmentation.engines.geometric.discs import find_discs
from segmentation.engines.geometric.frame import coarsen, extent_mm
from segmentation.engines.geometric.numbering import (
    ColumnSegment,
    Numbering,
    describe_segments,
    number_segments,
    straighten,
)
from segmentation.engines.geometric.thick_slices import refit
from segmentation.gates.fracture import without_collapsed
from segmentation.levels import from_superior, identity_observations, level_of
from segmentation.settings import GeometricSettings, IdentitySettings
from segmentation.vertebrae import LABELS, LUMBAR, EngineInfo, Observation, Occupancy, Vertebrae
from segmentation.volume import CtVolume, FloatArray, LabelMap, Mask, Reorientation, bone_contrast, canonical

_CORTEX_KVP = 120.0


class GeometricEngine:
    """A `Segmenter` that measures shapes instead of recognising them."""

    def __init__(
        self, settings: GeometricSettings | None = None, identity: IdentitySettings | None = None
    ) -> None:
        self._settings = settings or GeometricSettings()
        self._identity = identity

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name="geometric",
            version="2",
            model_free=True,
            parameters={
                "working_step_mm": self._settings.working_step_mm,
                "cortex_hu": self._settings.cortex_hu,
            },
        )

    def segment(self, volume: CtVolume) -> Vertebrae:
        """Label the vertebral bodies of `volume`; see `segmentation.engines.Segmenter`."""
        turned, turn = canonical(volume)
        canal = track_canal(coarsen(turned, self._settings.working_step_mm), self._settings.canal)
        curve = body_curve(canal, float(extent_mm(turned)[0])) if canal is not None else None
        if curve is None:
            return self._nothing(volume)
        discs = find_discs(turned, curve, self._settings.discs)
        segments = describe_segments(straighten(turned, curve), discs.at_mm, self._settings.anchors)
        bodies = self._bodies(turned, curve, segments)
        numbering = number_segments(segments, [self._lumbar_sized(body) for body in bodies])
        return self._labelled(volume, turned, turn, bodies, numbering)

    def _nothing(self, volume: CtVolume) -> Vertebrae:
        return Vertebrae(
            grid=volume.grid,
            bodies=np.zeros(volume.grid.shape, np.uint8),
            levels=(),
            numbering_confirmed=False,
            numbering_basis="none",
            engine=self.info,
            observations=(Observation(code="no_lumbar_level"),),
        )

    def _bodies(self, volume: CtVolume, curve: Curve, segments: Sequence[ColumnSegment]) -> list[Body | None]:
        """The body of each segment; None where none is found or the segment is longer than a vertebra."""
        cortex_hu = self._settings.cortex_hu * bone_contrast(volume.kvp, relative_to=_CORTEX_KVP)
        bodies: list[Body | None] = []
        for number, segment in enumerate(segments):
            body = None
            if segment.last_mm - segment.first_mm <= self._settings.discs.spacing_mm[1] and not segment.wings:
                body = body_between(
                    volume,
                    curve,
                    segment.first_mm if number > 0 else None,
                    segment.last_mm if number < len(segments) - 1 else None,
                )
            bodies.append(body and settled(body, volume, cortex_hu))
        return refit(bodies, volume, cortex_hu) if volume.grid.spacing_mm[0] >= THICK_MM else bodies

    def _lumbar_sized(self, body: Body | None) -> bool:
        rules = self._settings
        return (
            body is not None
            and body.complete
            and body.width_mm >= rules.min_width_mm
            and body.depth_mm >= rules.min_depth_mm
            and rules.height_mm[0] <= body.height_mm <= rules.height_mm[1]
        )

    def _labelled(
        self,
        volume: CtVolume,
        turned: CtVolume,
        turn: Reorientation,
        bodies: Sequence[Body | None],
        numbering: Numbering,
    ) -> Vertebrae:
        """Bodies and names as a label map on the source grid."""
        named = [(name, body) for name, body in zip(numbering.names, bodies, strict=True) if name and body]
        if not any(name in LUMBAR and self._lumbar_sized(body) for name, body in named):
            return self._nothing(volume)
        labels: LabelMap = np.zeros(turned.grid.shape, np.uint8)
        levels, occupancy = [], {}
        for name, body in named:
            box, share = occupied(body, turned)
            share[labels[box] > 0] = 0.0
            inside = share >= 0.5
            if not inside.any():
                continue
            labels[box][inside] = LABELS[name]
            occupancy[name] = _occupancy(box, share, turned, turn)
            levels.append(
                level_of(
                    name,
                    inside,
                    turned.grid,
                    axis=turned.grid.step_matrix() @ (body.frame.along / np.asarray(turned.grid.spacing_mm)),
                    complete=body.complete and not _touches_edge(box, inside, turned.grid.shape),
                    corner=[part.start for part in box],
                    share=share,
                )
            )
        row = from_superior(levels)
        doubts = (*_numbering_observations(numbering), *identity_observations(row, self._identity))
        found = Vertebrae(
            grid=volume.grid,
            bodies=turn.backward(labels),
            levels=row,
            numbering_confirmed=not doubts,
            numbering_basis=numbering.basis,
            engine=self.info,
            observations=doubts,
            occupancy=occupancy,
        )
        return without_collapsed(found, self._identity)


def _occupancy(
    box: tuple[slice, slice, slice], share: FloatArray, turned: CtVolume, turn: Reorientation
) -> Occupancy:
    """Shares found in the canonical frame, in the source volume's."""
    there = turn.box_backward(box, turned.grid.shape)
    return Occupancy(
        corner=(there[0].start, there[1].start, there[2].start),
        share=turn.backward(np.round(share * 255).astype(np.uint8)),
    )


def _touches_edge(box: tuple[slice, slice, slice], inside: Mask, shape: tuple[int, int, int]) -> bool:
    """Whether the body reaches the volume's first or last voxel along any axis."""
    return any(
        (part.start == 0 and bool(np.take(inside, 0, axis).any()))
        or (part.stop == size and bool(np.take(inside, -1, axis).any()))
        for axis, (part, size) in enumerate(zip(box, shape, strict=True))
    )


def _numbering_observations(numbering: Numbering) -> tuple[Observation, ...]:
    if numbering.conflict is not None:
        return (Observation(code="numbering_conflict", values={"detail": numbering.conflict}),)
    return () if numbering.confirmed else (Observation(code="level_unconfirmed"),)
