"""Segment: find and name the vertebrae, and draw the regions that are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from config.sections import SegmentationSettings
from node.dicom.ct.reading import LoadedSeries
from node.pipeline.artefacts import NamedSlice, Segmentation, SegmentationArtefact, SelectionArtefact
from node.pipeline.engine import ResolvedEngine, StudyMask
from node.pipeline.steps.score import slice_finder
from node.pipeline.steps.select import slice_step_mm
from node.pipeline.study_run import ChosenImages
from segmentation.ct_volume import CtVolume
from segmentation.engines.geometric import GeometricEngine
from segmentation.engines.name_checks import cross_check
from segmentation.regions.cancellous import cut_regions
from segmentation.vertebrae import EngineInfo, Observation, Regions, Vertebrae, is_lumbar


def segment(
    selection: SelectionArtefact,
    images: ChosenImages,
    *,
    files: Sequence[Path],
    engine: Callable[[], ResolvedEngine],
    settings: SegmentationSettings,
) -> Segmentation:
    """Find the vertebrae in the volume, or the body in each single slice.

    Parameters
    ----------
    files : all files of the study; a segmentation among them may be what counts.
    engine : gives what draws in a volume; not called for single slices, which have a finder of their own.
    """
    slices: list[NamedSlice] = []
    if images.slices:
        finder = slice_finder(settings)
        slices = [
            NamedSlice(name=chosen.name, shown=finder.find(one.volume, chosen.name, one.facts.kvp))
            for chosen, one in zip(selection.slices, images.slices, strict=True)
        ]
    if images.volume is None:
        return Segmentation(slices=tuple(slices))
    vertebrae = _vertebrae(images.volume, files, engine(), settings)
    regions = _lumbar_regions(images.volume.volume, vertebrae, settings)
    return Segmentation(volume=SegmentationArtefact(vertebrae=vertebrae, regions=regions))


def _vertebrae(
    series: LoadedSeries, files: Sequence[Path], engine: ResolvedEngine, settings: SegmentationSettings
) -> Vertebrae:
    step_mm, limit_mm = slice_step_mm(series.facts), settings.geometric_max_step_mm
    too_thick = step_mm is not None and step_mm > limit_mm
    if isinstance(engine, StudyMask):
        found = engine.segment_study(files, series)
    elif isinstance(engine, GeometricEngine) and too_thick:
        values = {"thickness_mm": f"{step_mm:.3g}", "limit_mm": f"{limit_mm:.3g}"}
        return _not_segmented(series.volume, engine.info, Observation(code="slices_too_thick", values=values))
    else:
        found = engine.segment(series.volume)
    if settings.cross_check and not found.engine.model_free and not too_thick:
        return cross_check(series.volume, found, GeometricEngine(settings.geometric, settings.identity))
    return found


def _not_segmented(volume: CtVolume, engine: EngineInfo, reason: Observation) -> Vertebrae:
    """No vertebrae, because nothing was segmented."""
    return Vertebrae(
        grid=volume.grid,
        bodies=np.zeros(volume.grid.shape, np.uint8),
        levels=(),
        numbering_confirmed=False,
        numbering_basis="none",
        engine=engine,
        observations=(reason,),
    )


def _lumbar_regions(
    volume: CtVolume, vertebrae: Vertebrae, settings: SegmentationSettings
) -> tuple[Regions, ...]:
    return tuple(
        cut_regions(volume, vertebrae, level.name, settings.regions)
        for level in vertebrae.levels
        if level.complete and is_lumbar(level.name)
    )
