"""The model-free engine: finds lumbar vertebrae by their geometry, without a trained network or a download.

The steps, each a module: `canal` tracks the spinal canal; `column` lays a curve through the bodies in front
of it; `discs` finds what divides it; `body` fits each body's wall and, with `endplates`, its ends;
`thick_slices` fits the endplates on thick slices; `numbering` names the bodies from the sacrum and the last
rib. All work in millimetres (`frame`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmentation.ct_volume import (
    Box,
    CtVolume,
    FloatArray,
    LabelMap,
    Mask,
    Reorientation,
    bone_contrast,
    canonical,
)
from segmentation.engines.geometric.body import THICK_MM, Body, fit_body, move_to_cortex, voxel_shares
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
from segmentation.engines.geometric.thick_slices import refit_endplates
from segmentation.gates.fracture import without_collapsed
from segmentation.levels import identity_observations, in_anatomical_order, measure_level
from segmentation.settings import GeometricSettings, IdentitySettings
from segmentation.vertebrae import (
    EngineInfo,
    Observation,
    Occupancy,
    Vertebrae,
    is_lumbar,
    label_of,
    no_vertebrae,
)

_CORTEX_KVP = 120.0


class GeometricEngine:
    """A `Segmenter` that measures shapes, without a trained network.

    Parameters
    ----------
    identity : limits of the plausibility of names.
    first_level : name of the topmost whole lumbar body in view, where a person states it; one of `STATEABLE`.
    """

    def __init__(
        self,
        settings: GeometricSettings | None = None,
        identity: IdentitySettings | None = None,
        *,
        first_level: str | None = None,
    ) -> None:
        self._settings = settings or GeometricSettings()
        self._identity = identity
        self._first_level = first_level

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name="geometric",
            version="3",
            model_free=True,
            parameters={
                "working_step_mm": self._settings.working_step_mm,
                "cortex_hu": self._settings.cortex_hu,
                **({"first_level": self._first_level} if self._first_level else {}),
            },
        )

    def segment(self, volume: CtVolume) -> Vertebrae:
        """Label the vertebral bodies of `volume`; see `segmentation.engines.Segmenter`."""
        turned, turn = canonical(volume)
        canal = track_canal(coarsen(turned, self._settings.working_step_mm), self._settings.canal)
        curve = body_curve(canal, float(extent_mm(turned)[0])) if canal is not None else None
        if curve is None:
            return no_vertebrae(volume, self.info)
        discs_mm = find_discs(turned, curve, self._settings.discs)
        segments = describe_segments(straighten(turned, curve), discs_mm, self._settings.anchors)
        bodies = self._bodies(turned, curve, segments)
        sized = [self._lumbar_sized(body) for body in bodies]
        numbering = number_segments(segments, sized, self._first_level)
        return self._labelled(volume, turned, turn, bodies, numbering)

    def _bodies(self, volume: CtVolume, curve: Curve, segments: Sequence[ColumnSegment]) -> list[Body | None]:
        """The body of each segment; None where none is found or the segment is longer than a vertebra."""
        cortex_hu = self._settings.cortex_hu * bone_contrast(volume.kvp, relative_to=_CORTEX_KVP)
        bodies: list[Body | None] = []
        for number, segment in enumerate(segments):
            body = None
            if segment.last_mm - segment.first_mm <= self._settings.discs.spacing_mm[1] and not segment.wings:
                body = fit_body(
                    volume,
                    curve,
                    segment.first_mm if number > 0 else None,
                    segment.last_mm if number < len(segments) - 1 else None,
                )
            bodies.append(body and move_to_cortex(body, volume, cortex_hu))
        return refit_endplates(bodies, volume, cortex_hu) if volume.grid.spacing_mm[0] >= THICK_MM else bodies

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
        if not any(is_lumbar(name) and self._lumbar_sized(body) for name, body in named):
            return no_vertebrae(volume, self.info)
        labels: LabelMap = np.zeros(turned.grid.shape, np.uint8)
        levels, occupancy = [], {}
        for name, body in named:
            box, share = voxel_shares(body, turned)
            share[labels[box] > 0] = 0.0
            inside = share >= 0.5
            if not inside.any():
                continue
            labels[box][inside] = label_of(name)
            occupancy[name] = _occupancy(box, share, turned, turn)
            levels.append(
                measure_level(
                    name,
                    inside,
                    turned.grid,
                    axis=turned.grid.step_matrix() @ (body.frame.along / np.asarray(turned.grid.spacing_mm)),
                    complete=body.complete and not _touches_edge(box, inside, turned.grid.shape),
                    corner=[part.start for part in box],
                    share=share,
                )
            )
        row = in_anatomical_order(levels)
        doubts = (*_numbering_doubts(numbering), *identity_observations(row, self._identity))
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


def _occupancy(box: Box, share: FloatArray, turned: CtVolume, turn: Reorientation) -> Occupancy:
    """Shares in the canonical frame, brought to the source volume."""
    there = turn.box_backward(box, turned.grid.shape)
    return Occupancy(
        corner=(there[0].start, there[1].start, there[2].start),
        share=turn.backward(np.round(share * 255).astype(np.uint8)),
    )


def _touches_edge(box: Box, inside: Mask, shape: tuple[int, int, int]) -> bool:
    """Whether the body reaches the volume's first or last voxel along any axis."""
    return any(
        (part.start == 0 and bool(np.take(inside, 0, axis).any()))
        or (part.stop == size and bool(np.take(inside, -1, axis).any()))
        for axis, (part, size) in enumerate(zip(box, shape, strict=True))
    )


def _numbering_doubts(numbering: Numbering) -> tuple[Observation, ...]:
    if numbering.conflict is not None:
        return (Observation(code="numbering_conflict", values={"detail": numbering.conflict}),)
    if numbering.basis == "none":
        return (Observation(code="levels_unnamed"),)
    return () if numbering.confirmed else (Observation(code="level_unconfirmed"),)
