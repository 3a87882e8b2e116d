"""Gates that judge the image as such, not one body: contrast medium, motion, noise and streaks."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmentation.contrast import ContrastSettings, contrast_observations
from segmentation.motion import MotionSettings, motion_observations
from segmentation.noise import NoiseSettings, noise_observations
from segmentation.observation import Observation
from segmentation.vertebrae import Vertebrae
from segmentation.volume import CtVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQualitySettings:
    """Limits of the gates on the image. All values are proposals (R)."""

    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)


def image_observations(
    volume: CtVolume, vertebrae: Vertebrae, settings: ImageQualitySettings | None = None
) -> tuple[Observation, ...]:
    """What speaks against the image around the lumbar spine: contrast medium, motion, noise, streaks.

    Raises
    ------
    GridMismatch
        If volume and vertebrae lie on different grids.
    """
    rules = settings or ImageQualitySettings()
    return (
        *contrast_observations(volume, vertebrae, rules.contrast),
        *motion_observations(volume, vertebrae, rules.motion),
        *noise_observations(volume, vertebrae, rules.noise),
    )
