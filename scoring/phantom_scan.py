"""Whether anybody lies on the table: a scan of a calibration phantom alone is no patient's study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmentation.volume import CtVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRules:
    """What counts as a patient's trunk. All R: chosen here, to be confirmed."""

    tissue_hu: tuple[float, float] = (-200.0, 3071.0)  # what is denser than foam and clothing
    # The cross-section of a mat with its rods is about 100 cm2, that of a slender abdomen 300 cm2 and more.
    least_cm2: float = 200.0
    share_of_slices: float = 0.05  # so many slices may show more: the end of something


SHIPPED_RULES = PatientRules()


def holds_no_patient(volume: CtVolume, rules: PatientRules = SHIPPED_RULES) -> bool:
    """Whether slices show too little matter for a patient's trunk.

    Parameters
    ----------
    volume : HU; the last two axes lie in the slice.
    """
    _, dy, dx = volume.grid.spacing_mm
    dense = (volume.hu > rules.tissue_hu[0]) & (volume.hu < rules.tissue_hu[1])
    areas_cm2 = dense.sum(axis=(1, 2)) * dy * dx / 100.0
    return float(np.quantile(areas_cm2, 1.0 - rules.share_of_slices)) < rules.least_cm2
