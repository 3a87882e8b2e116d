"""Whether anybody lies on the table: a scan of a calibration phantom alone is no patient's study."""

from __future__ import annotations

import numpy as np

from segmentation.volume import CtVolume

TISSUE_HU = (-200.0, 3071.0)  # R: what is denser than foam and clothing
# R: the cross-section of a mat with its rods is about 100 cm2, that of a slender abdomen 300 cm2 and more.
PATIENT_CM2 = 200.0
SHARE_OF_SLICES = 0.05  # so many slices may show more: the end of something


def holds_no_patient(volume: CtVolume) -> bool:
    """Whether slices show too little matter for a patient's trunk.

    Parameters
    ----------
    volume : HU; the last two axes lie in the slice.
    """
    _, dy, dx = volume.grid.spacing_mm
    dense = (volume.hu > TISSUE_HU[0]) & (volume.hu < TISSUE_HU[1])
    areas_cm2 = dense.sum(axis=(1, 2)) * dy * dx / 100.0
    return float(np.quantile(areas_cm2, 1.0 - SHARE_OF_SLICES)) < PATIENT_CM2
