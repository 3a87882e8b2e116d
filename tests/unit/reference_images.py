"""Images for the tests of gates: digital reference studies and a real crop, with the bodies drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK

from node.reference.render import raster_of, render
from node.reference.spec import Faults, StudySpec
from node.reference.spine import build_spine
from node.reference.study import truth_mask
from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.mask import Convention, LabelImage, MaskEngine
from segmentation.vertebrae import LABELS, Vertebrae

STRAIGHT = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def study(faults: Faults | None = None, **changes: object) -> tuple[CtVolume, Vertebrae]:
    """A reduced study from L1 to L4, and its bodies as they truly are."""
    spec = StudySpec.reduced(**{"view": ("L1", "L4"), **changes}, **({"faults": faults} if faults else {}))
    spine = build_spine(spec)
    raster = raster_of(spec, spine)
    hu = render(spec, spine, raster)
    corner = (float(raster.x_mm[0]), float(raster.y_mm[0]), float(raster.z_mm[0]))
    spacing = (spec.slice_spacing_mm, *spec.pixel_spacing_mm)
    grid = Grid(shape=hu.shape, spacing_mm=spacing, origin_mm=corner, direction=STRAIGHT)
    volume = CtVolume(hu=hu, grid=grid)
    return volume, drawn(volume, truth_mask(spine, raster))


def drawn(volume: CtVolume, labels: np.ndarray) -> Vertebrae:
    """The vertebrae of a mask with TotalSegmentator's numbers, on the volume's grid."""
    mask = LabelImage(labels=labels, grid=volume.grid)
    return MaskEngine(mask, Convention.TOTALSEGMENTATOR).segment(volume)


def as_volume(image: SimpleITK.Image) -> CtVolume:
    """An image as SimpleITK reads it."""
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return CtVolume(
        hu=hu,
        grid=Grid(
            shape=hu.shape,
            spacing_mm=tuple(image.GetSpacing()[::-1]),
            origin_mm=tuple(image.GetOrigin()),
            direction=tuple(tuple(direction[:, axis]) for axis in (2, 1, 0)),
        ),
    )


def crop_around_l3(test_data: Path) -> tuple[CtVolume, Vertebrae]:
    """A noisy real CT cut close around L3: no great vessel is in it, and little muscle."""
    folder = test_data / "tptbox_L3"
    image, names, parts = (
        SimpleITK.ReadImage(str(folder / f"sub-ct_{kind}.nii.gz"))
        for kind in ("label-22_ct", "seg-vert_label-22_msk", "seg-subreg_label-22_msk")
    )
    hu, vertebrae, subregions = (SimpleITK.GetArrayFromImage(one) for one in (image, names, parts))
    direction = np.reshape(image.GetDirection(), (3, 3)).T[::-1]
    grid = Grid(
        shape=hu.shape,
        spacing_mm=image.GetSpacing()[::-1],
        origin_mm=image.GetOrigin(),
        direction=tuple(tuple(float(part) for part in axis) for axis in direction),
    )
    volume = CtVolume(hu=hu.astype(np.float32), grid=grid)
    labels = np.where((vertebrae == 22) & np.isin(subregions, (49, 50)), LABELS["L3"], 0)
    return volume, drawn(volume, labels.astype(np.uint8))
