"""Gates that judge the image as such, not one body: contrast medium, motion, noise and streaks."""

from __future__ import annotations

from segmentation.contrast import contrast_observations
from segmentation.motion import motion_observations
from segmentation.noise import noise_observations
from segmentation.observation import Observation
from segmentation.settings import ImageSettings
from segmentation.vertebrae import Vertebrae
from segmentation.volume import CtVolume


def image_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageSettings | None = None
) -> tuple[Observation, ...]:
    """What speaks against the image around the lumbar spine: contrast medium, motion, noise, streaks.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    rules = settings or ImageSettings()
    return (
        *contrast_observations(volume, vertebrae, rules),
        *motion_observations(volume, vertebrae, rules),
        *noise_observations(volume, vertebrae, rules),
    )
