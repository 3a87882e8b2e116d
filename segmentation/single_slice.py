"""The vertebral body in one thick slice, as single-slice QCT takes it through the middle of a vertebra.

One slice shows neither neighbours nor endplates, so that no level can be named; and what it shows must itself
say that it is the middle of a lumbar body. A gate that fails gives an observation and no region: a slice
through a disc, an endplate, the sacrum or the chest is never measured.

`slice_outline` finds canal and body, `slice_gates` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from segmentation.bone import bone_contrast
from segmentation.observation import Observation
from segmentation.settings import CanalSettings, GateSettings, RegionSettings, SliceSettings
from segmentation.slice_gates import SliceRules, objections
from segmentation.slice_outline import find_outline, masks_of
from segmentation.vertebrae import EngineInfo
from segmentation.volume import CtVolume, Mask, canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceBody:
    """What one slice shows. With any observation there is no region."""

    body: Mask | None  # shape of the volume, (1, y, x) in any axis order; None where no body was found
    region: Mask | None  # cancellous bone in which density is read
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFinder:
    """Finds the lumbar body in single slices, by one site's limits."""

    slices: SliceSettings = field(default_factory=SliceSettings)
    regions: RegionSettings = field(default_factory=RegionSettings)
    quality: GateSettings = field(default_factory=GateSettings)
    canal: CanalSettings = field(default_factory=CanalSettings)

    @property
    def info(self) -> EngineInfo:
        """What reports name in an engine's place."""
        return EngineInfo(
            name="single-slice",
            version="2",
            model_free=True,
            parameters={
                "ring_hu": self.slices.ring_hu,
                "rim": self.slices.rim,
                "erosion_mm": self.regions.erosion_mm,
            },
        )

    def find(self, volume: CtVolume, name: str, kvp: float | None) -> SliceBody:
        """The lumbar body in a volume of one slice.

        Parameters
        ----------
        volume : HU; one slice in any axis order and sense, its normal within 45 degrees of the body's axis.
        name : of the slice, for the observations: "slice 1".
        kvp : tube voltage, by which the contrast of bone is judged; None where it is not known.

        Returns
        -------
        SliceBody
            Observations: `slice_body_not_found`, `slice_not_lumbar`, `slice_not_mid_body`, `slice_ring_open`,
            `slice_uneven`, `metal_near_body`. Where several places look like a canal, those of the likeliest.

        Raises
        ------
        ValueError
            If the volume has more than one slice.
        """
        if 1 not in volume.grid.shape:
            raise ValueError("the volume has more than one slice")
        turned, turn = canonical(volume)
        # A slice that is not transverse holds no closed outline.
        found = find_outline(turned, self.slices, self.canal) if turned.grid.shape[0] == 1 else None
        if found is None:
            nothing = Observation(code="slice_body_not_found", level=name)
            return SliceBody(body=None, region=None, observations=(nothing,))
        body, region = masks_of(turned, found, self.regions)
        limits = SliceRules(slices=self.slices, quality=self.quality, contrast=bone_contrast(kvp))
        observations = tuple(
            replace(one, level=name) for one in objections(turned, found, body, region, limits)
        )
        return SliceBody(
            body=turn.backward(body),
            region=None if observations else turn.backward(region),
            observations=observations,
        )
