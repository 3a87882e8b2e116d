"""Where a thin cortex truly ends: the blur of the scanner pushes the steepest place of its flank outward.

A plate of 1 mm seen through a blur of 2 mm has its steepest fall about half a millimetre outside its surface,
which on a whole body makes nearly a tenth of the volume. Fitting a blurred plate to the mean profile across
the surface finds the surface itself; after Treece et al., Med Image Anal 2010;14:276 (cortical thickness
below the resolution of CT, by a model of fixed cortical density).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from segmentation.engines.geometric.frame import Profile

INSIDE_MM, OUTSIDE_MM, STEP_MM = 6.0, 3.5, 0.25  # the stretch of profile that is fitted
MAX_SHIFT_MM = 1.5


def profile_distances() -> Profile:
    """Distances from the steepest place, outward positive, at which a profile is wanted."""
    return np.arange(-INSIDE_MM, OUTSIDE_MM + 0.01, STEP_MM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """The compact bone at a surface."""

    hu: float
    thickness_mm: float
    shift_mm: float  # of the true surface from the steepest place of the profile; negative is inward


def fit_plate(profile: Profile, cortex_hu: float) -> Plate:
    """The blurred plate that a mean profile across a surface shows.

    Parameters
    ----------
    profile : HU at `profile_distances`.
    cortex_hu : HU of compact bone in this patient, free of partial volume.
    """
    distance = profile_distances()

    def residual(guess: Profile) -> Profile:
        edge, thickness, blur, inner, outer = guess
        falling = special.ndtr((edge - distance) / blur)
        rising = special.ndtr((distance - edge + thickness) / blur)
        model = outer + (cortex_hu - outer) * falling - (cortex_hu - inner) * (1 - rising)
        difference: Profile = (model - profile) / 100.0
        return difference

    start = np.array([-0.3, 0.8, 1.0, profile[0], profile[-1]])
    lower = np.array([-MAX_SHIFT_MM, 0.05, 0.4, -200.0, -200.0])
    upper = np.array([MAX_SHIFT_MM, 3.0, 2.5, 600.0, 400.0])
    fit = optimize.least_squares(residual, np.clip(start, lower + 1e-3, upper - 1e-3), bounds=(lower, upper))
    return Plate(hu=cortex_hu, thickness_mm=float(fit.x[1]), shift_mm=float(fit.x[0]))
