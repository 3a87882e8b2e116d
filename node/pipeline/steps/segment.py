"""Segment: find and name the vertebrae, and draw the regions that are measured."""

from __future__ import annotations

import numpy as np

from node.dicom.ct.reading import LoadedSeries
from node.pipeline.artefacts import (
    SEGMENTATION,
    SLICES,
    NamedSlice,
    SegmentationArtefact,
    segmentation_to_bytes,
    slices_to_bytes,
)
from node.pipeline.context import PROCEED, StepContext, StepResult
from node.pipeline.engine import StudyMask
from node.pipeline.steps.score import slice_finder
from node.pipeline.steps.selection import load_chosen, load_slices, selection_of, slice_step_mm
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.recognised import cross_checked
from segmentation.regions.cancellous import regions_of
from segmentation.vertebrae import LUMBAR, EngineInfo, Observation, Regions, Vertebrae
from segmentation.volume import CtVolume


def segment(context: StepContext) -> StepResult:
    """Write `segmentation.npz` where a series can be measured, or `slices.npz`; nothing where none can."""
    selection = selection_of(context)
    slices = load_slices(context, selection)
    if slices:
        finder = slice_finder(context.settings.segmentation)
        shown = [
            NamedSlice(name=chosen.name, shown=finder.find(one.volume, chosen.name, one.facts.kvp))
            for chosen, one in zip(selection.slices, slices, strict=True)
        ]
        context.artefacts.put(SLICES, slices_to_bytes(shown))
    loaded = load_chosen(context, selection)
    if loaded is not None:
        vertebrae = _vertebrae(context, loaded)
        artefact = SegmentationArtefact(
            vertebrae=vertebrae, regions=_lumbar_regions(context, loaded.volume, vertebrae)
        )
        context.artefacts.put(SEGMENTATION, segmentation_to_bytes(artefact))
    return PROCEED


def _vertebrae(context: StepContext, series: LoadedSeries) -> Vertebrae:
    engine, settings = context.engine(), context.settings.segmentation
    step_mm, limit_mm = slice_step_mm(series.facts), settings.geometric_max_step_mm
    too_thick = step_mm is not None and step_mm > limit_mm
    if isinstance(engine, StudyMask):
        found = engine.segment_study(context.instances, series)
    elif isinstance(engine, GeometricEngine) and too_thick:
        values = {"thickness_mm": f"{step_mm:.3g}", "limit_mm": f"{limit_mm:.3g}"}
        return _unseen(series.volume, engine.info, Observation(code="slices_too_thick", values=values))
    else:
        found = engine.segment(series.volume)
    if settings.cross_check and not found.engine.model_free and not too_thick:
        return cross_checked(series.volume, found, GeometricEngine(settings.geometric, settings.identity))
    return found


def _unseen(volume: CtVolume, engine: EngineInfo, reason: Observation) -> Vertebrae:
    """No vertebra, because nobody looked."""
    return Vertebrae(
        grid=volume.grid,
        bodies=np.zeros(volume.grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=engine,
        observations=(reason,),
    )


def _lumbar_regions(context: StepContext, volume: CtVolume, vertebrae: Vertebrae) -> tuple[Regions, ...]:
    settings = context.settings.segmentation.regions
    return tuple(
        regions_of(volume, vertebrae, level.name, settings)
        for level in vertebrae.levels
        if level.complete and level.name in LUMBAR
    )
