"""Segment: find and name the vertebrae, and draw the regions that are measured."""

from __future__ import annotations

from node.dicom.read import LoadedSeries
from node.pipeline.artefacts import (
    SEGMENTATION,
    SLICES,
    NamedSlice,
    SegmentationArtefact,
    segmentation_to_bytes,
    slices_to_bytes,
)
from node.pipeline.context import PROCEED, StepContext, StepResult
from node.pipeline.image_rules import geometric_engine, region_settings
from node.pipeline.selection import load_chosen, load_slices, selection_of
from node.pipeline.study_mask import StudyMask
from segmentation.engines.crosscheck import cross_checked
from segmentation.single_slice import find_slice_body
from segmentation.vertebra import regions_of
from segmentation.vertebrae import LUMBAR, Regions, Vertebrae
from segmentation.volume import CtVolume


def segment(context: StepContext) -> StepResult:
    """Write `segmentation.npz` where a series can be measured, or `slices.npz`; nothing where none can."""
    selection = selection_of(context)
    slices = load_slices(context, selection)
    if slices:
        shown = [
            NamedSlice(name=chosen.name, shown=find_slice_body(one.volume, chosen.name))
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
    engine = context.engine()
    if isinstance(engine, StudyMask):
        found = engine.segment_study(context.instances, series)
    else:
        found = engine.segment(series.volume)
    if context.settings.segmentation.cross_check and not found.engine.model_free:
        return cross_checked(series.volume, found, geometric_engine(context.settings.segmentation))
    return found


def _lumbar_regions(context: StepContext, volume: CtVolume, vertebrae: Vertebrae) -> tuple[Regions, ...]:
    settings = region_settings(context.settings.segmentation)
    return tuple(
        regions_of(volume, vertebrae, level.name, settings)
        for level in vertebrae.levels
        if level.complete and level.name in LUMBAR
    )
