"""What a slice through the middle of a lumbar body looks like, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSettings:
    """Limits of single slices, whose HU hold at 80 kV: at other voltages bone's part of them is scaled.

    All values are proposals (R). They were chosen on digital reference studies (slices of 10 mm, 80 and
    140 kV, up to 14 mm off the body's middle) and looked at on slabs of 9 mm of real CTs. How the region is
    cut from the body, and what counts as metal, is as in volumes: `RegionSettings`, `QualitySettings`.
    """

    enclosure: float = 0.5  # share of rays from the canal that meet bone within 17 mm
    canal_behind_mm: tuple[float, float] = (18.0, 36.0)  # of the canal's middle behind the body's
    canal_beside_mm: float = 5.0
    supported: float = 0.7  # share of the outline with an edge against soft tissue; pedicles take the rest
    width_mm: tuple[float, float] = (32.0, 65.0)
    depth_mm: tuple[float, float] = (22.0, 48.0)
    region_mm2: float = 200.0
    # Pedicles spring from the body's upper half, lamina and spinous process from behind its lower half: a
    # thick slice holds much of both at mid-body alone. Above it the canal is open behind, below at its sides.
    ring_hu: float = 220.0  # above soft tissue: root of the product of what closes the canal's sides and back
    soft_hu: float = 50.0  # muscle, dural sac
    # The cortex is far denser than what it encloses; a disc's rim is not. Dense young bone comes near it:
    # between the two HU the least ratio falls from `rim` to `rim_of_dense`.
    rim: float = 0.7  # (cortex - interior) / interior, median over the outline
    rim_of_dense: float = 0.08
    dense_interior_hu: tuple[float, float] = (250.0, 400.0)
    cortex_hu: float = 170.0  # of that median: beneath, the outline is a disc's rim
    rim_above_hu: float = 25.0  # of the cortex above the interior ...
    rim_everywhere: float = 0.7  # ... along this share of the outline
    beside_bone: float = 0.2  # share of what lies 4 to 14 mm beside the body: ribs' heads, sacral wings
    bone_hu: float = 130.0
    lung_cm2: float = 5.0  # behind the body's front: a little of the recess may reach down to L1
    lung_hu: tuple[float, float] = (-960.0, -600.0)
    region_sd_hu: float = 70.0
    cluster_hu: float = 150.0  # denser or fainter than the region's median, smoothed by 2 mm
    cluster_mm2: float = 50.0
    metal_min_mm2: float = 6.0
    # Neighbours differ by less, unless one is broken or diseased: a slice that reads higher by both of these
    # than the median of the study's others is taken for an endplate.
    excess_mg_cm3: float = 30.0
    excess_ratio: float = 1.6

    def bone_above_soft_hu(self, hu: float, contrast: float) -> float:
        """A limit that bone reaches and soft tissue does not, at another contrast of bone than at 80 kV."""
        return self.soft_hu + (hu - self.soft_hu) * contrast
