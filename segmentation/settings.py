"""Every limit of segmentation and its gates, stated once: default, unit, bounds and meaning.

The classes are the tables of a site's configuration file (`[segmentation.regions]` is `RegionSettings`):
pydantic fills and checks them there, and the functions of this room take them as they are. This module
imports nothing of the room, so that a process which only receives images loads no image library.

A comment that begins with `#:` is the setting's text in config/default.toml and docs/configuration.md; one
that begins with `#` says why. `Site` marks what a site decides; everything else is for experts. No value is
published for this use: each is a proposal for adults (R), to be confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt

SITE = "a site decides this"

_T = TypeVar("_T")
Site = Annotated[_T, SITE]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Le(1)]
Loss = Annotated[float, Gt(0), Lt(1)]
Ratio = Annotated[float, Ge(1)]
Hounsfield = Annotated[float, Ge(-1024), Le(32767)]
Span = tuple[float, float]  # from, to


class Limits:
    """What the tables of limits have in common: a span rises."""

    __slots__ = ()

    def __post_init__(self) -> None:
        limits: Any = self  # each subclass is a dataclass
        for one in fields(limits):
            value = getattr(self, one.name)
            if isinstance(value, tuple) and isinstance(value[0], float) and value[0] >= value[1]:
                raise ValueError(f"{one.name} must rise")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanalSettings(Limits):
    """What counts as a spinal canal, in volumes and in single slices."""

    bone_hu: Hounsfield = 200.0  #: around the canal: arch and pedicles at 2 mm, even in osteoporosis
    # Epidural fat to dural sac; most cancellous bone lies above.
    soft_hu: Span = (-120.0, 110.0)  #: what fills the canal
    # The lumbar canal is at most about 30 mm wide; the body is wider.
    ray_mm: Positive = 17.0  #: bone is met within this, seen from the canal's middle
    min_enclosure: Share = 0.42  #: mean share of rays that meet bone, over a vertebra's height
    # The marrow of the iliac bones, 50 mm and more to either side, is enclosed too.
    near_midline_mm: NotNegative = 20.0  #: from the trunk's middle: what rings further aside counts for less
    marrow_above_sac_hu: Positive = 50.0  #: brighter than the patient's own sac: marrow, not canal
    # On less of the path it may be a nerve root, a ligament or noise.
    #: of the canal's length that such marrow fills before the canal is sought again below that marrow's HU
    marrow_mm: Positive = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscSettings(Limits):
    """What discs are, and what tells one from a body's waist between crisp endplates."""

    min_contrast_hu: Positive = 40.0  #: of the column's rim at bodies over that at a disc
    # Lower thoracic 24 to lumbar 42, and room for a collapse.
    spacing_mm: Span = (19.0, 50.0)  #: from disc to disc
    # The body between two endplates is looked for in its middle.
    usual_spacing_mm: Annotated[float, Ge(28)] = 34.0  #: 28 or more; where one disc alone is in view
    waist_share: Share = 0.75  #: of the step in HU from disc to body: a valley brighter than this is a waist
    # A false disc lies between two others: fewer do not outvote it.
    #: 3 or more; of fewer in view the darkest tells what a disc is, not the median
    waist_least_discs: Annotated[int, Ge(3)] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSettings(Limits):
    """What counts as a rib and as a wing of the sacrum.

    Lengths to the side are from the column's middle, those to the back from the body's.
    """

    bone_hu: Hounsfield = 160.0  #: of ribs after interpolation to 2 mm
    # Transverse processes end by about 50 mm, L3's being the longest.
    rib_reach_mm: Positive = 58.0  #: what reaches this far to the side is a rib
    # Between the two lie long processes and stunted ribs.
    process_reach_mm: Positive = (
        53.0  #: what reaches less far is a process; between the two nothing is proven
    )
    rib_neck_behind_mm: Span = (10.0, 48.0)  #: where necks leave: behind the body's back third
    # A rib leaves the upper half of its vertebra.
    rib_room_mm: Positive = 20.0  #: less of a vertebra in view does not prove that it has no rib
    thoracic_spacing_mm: Positive = 24.0  #: of lower thoracic discs, at least
    # A wing springs from the body's side; arch and joints lie further back.
    wing_root_behind_mm: Positive = 30.0  #: root of a sacral wing, at most
    # A wing is as high where it meets the ilium as at its root; a process tapers: 44 mm from the middle the
    # largest seen, a fifth lumbar one on a real CT, is 14 mm high.
    wing_height_mm: Positive = 17.0  #: of a wing where it meets the ilium, at least
    # Its marrow is the faintest of the spine; psoas with contrast is fainter still.
    wing_hu: Hounsfield = 110.0  #: of all of a wing
    # Beyond the processes a twentieth of a wing, its and the ilium's cortex, is brighter than this, and than
    # this share of what four fifths of the vertebra's own bone stay below (metal hardly moves it). On a real
    # CT turned by up to 15 degrees, its bone faded by up to a third, wings have 240 HU and 0.93 at least,
    # processes 0.85 at most. Liver, spleen and kidney with contrast are fainter.
    wing_bright_hu: Hounsfield = 230.0  #: the brightest twentieth of a wing beyond the processes, at least
    wing_bright_share: Positive = 0.9  #: the same over what four fifths of the vertebra's own bone stay below
    sacral_height_mm: Positive = 36.0  #: of the first sacral body along the column, at most

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if self.process_reach_mm > self.rib_reach_mm:
            raise ValueError("process_reach_mm must not exceed rib_reach_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricSettings(Limits):
    """Limits of the model-free engine."""

    # At 4 mm the sacrum is lost; below 1 mm a study takes minutes.
    working_step_mm: Annotated[float, Ge(1), Le(3)] = 2.0  #: voxels in which the column is sought; 1 to 3
    # From 500 to 900 HU volumes fall by 5 %; masks that others drew on real CTs are 5 to 10 % larger than
    # bodies drawn with 600.
    #: a body's thin shell, pores included and free of partial volume, at 120 kV; bone's contrast scales it
    cortex_hu: Hounsfield = 550.0
    min_width_mm: Positive = 30.0  #: of a lumbar body; necks and upper chests stay below
    min_depth_mm: Positive = 22.0  #: of a lumbar body
    height_mm: Span = (10.0, 45.0)  #: of a lumbar body
    canal: CanalSettings = field(default_factory=CanalSettings)  #: of single slices too, but for marrow
    discs: DiscSettings = field(default_factory=DiscSettings)  #: a waist between crisp endplates is none
    #: last rib and sacrum; to the side from the column's middle, to the back from the body's
    anchors: AnchorSettings = field(default_factory=AnchorSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings(Limits):
    """When a row of vertebrae with its names is not believed, whoever gave them."""

    # Lumbar bodies lie 30 to 42 mm apart; a collapsed one nearer, a missed one doubles it.
    spacing_mm: Span = (18.0, 55.0)  #: middle to middle
    spacing_ratio: Ratio = 1.6  #: between neighbouring spacings: more is a missed or a split vertebra
    volume_ratio: Ratio = 1.8  #: between neighbouring whole bodies
    # Lumbar bodies are 25 to 35 mm high, spurs included below 45: more is two vertebrae under one name.
    max_height_mm: Positive = 50.0  #: of one body
    # As they are drawn: discs are 4 to 15 mm high, a lower thoracic vertebra with both its discs 28 and more.
    max_gap_mm: Positive = 25.0  #: between neighbouring bodies, or L5 and the sacrum, where they are nearest
    # 1.05 to 1.1 down the spine.
    min_volume_trend: Positive = (
        0.9  #: a body's volume over that of the one above, in the middle of all pairs
    )
    min_sacrum_mm3: Positive = 3000.0  #: less of a sacrum anchors no names


class DensityRegions(StrEnum):
    """Where density is read. Of both, the core leads: scores and categories rest on it."""

    CORE = "core"
    ELLIPSE = "ellipse"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class EllipseSettings(Limits):
    """Where the ellipse lies in its body. Makers' regions are not published."""

    height_mm: Positive = 9.0  #: across the plane between the endplates
    width: Share = 0.55  #: share of the body's width there
    front: Annotated[float, Ge(0), Lt(1)] = 0.15  #: where it begins behind the front wall: share of the depth
    # The basivertebral veins leave through the half behind.
    back: Share = 0.5  #: where it ends: share of the depth

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if self.front >= self.back:
            raise ValueError("front must be less than back")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSettings(Limits):
    """How the measured regions are cut from a body."""

    #: where density is read: core | ellipse (mid-body, in front of the veins) | both (the core leads)
    bmd: Site[DensityRegions] = DensityRegions.CORE
    erosion_mm: NotNegative = 3.0  #: from the body's surface: cortex, its blur, and subcortical bone
    min_erosion_voxels: Annotated[int, Ge(0)] = 2  #: across the body's axis
    central_height: Share = 0.55  #: share of the body's height, around its middle, that density is read in
    wedge_half_angle_deg: Annotated[float, Ge(0), Lt(90)] = 25.0  #: of the basivertebral veins; 0 keeps them
    dense_hu: Hounsfield = 300.0  #: clusters above are left out: sclerosis, bone islands, cement
    # Young bone at 80 kVp exceeds 300 HU.
    dense_above_median_hu: NotNegative = 150.0  #: and so much denser than the region
    dense_smoothing_mm: NotNegative = 1.0  #: so that noise makes no clusters
    dense_min_mm3: NotNegative = 20.0  #: of one cluster
    ellipse: EllipseSettings = field(default_factory=EllipseSettings)  #: midway between the endplates


@dataclass(frozen=True, slots=True, kw_only=True)
class FractureSettings(Limits):
    """When a body is taken for fractured, by losses of height. They follow Genant's grades."""

    suspected_loss: Loss = 0.2  #: of height: a fracture is suspected
    refused_loss: Loss = 0.25  #: of height: the body is not measured
    # Heights read from a label map step with its slices: further apart they step by more than a grade.
    #: between voxels along a body, whoever drew it: above, heights are not assessed
    max_step_mm: Positive = 3.2
    # A plainly crushed body is not passed over: from Genant's grade 3 on.
    #: of height: reported as a fracture above `max_step_mm` too
    coarse_loss: Loss = 0.4
    # Endplates are hollow.
    middle_share: Share = 0.9  #: the middle of an intact body over the mean of its ends
    # Osteophytes heighten fronts.
    posterior_share: Share = 0.93  #: the back of an intact body over its front, against the level's typical
    # On a real CT at hand the uppermost body reads 17 % more than its neighbours behind, in our drawing and
    # in another's alike: the root of an arch, not a body's height.
    posterior_excess: Ratio = 1.05  #: of its back over the neighbours' second tallest: more is an arch's root
    # Intact bodies at hand: 0.68 to 0.79.
    #: mean height of an intact body over the square root of its mean cross-section
    proportion: Positive = 0.72
    # Intact bodies of a narrow build: up to 0.84. A sclerotic body drawn together with its disc has 0.89 and
    # more, and would make all its neighbours look crushed.
    most_proportion: Positive = 0.87  #: the same ratio, at most, of a body that others are compared with
    neighbours_apart: Annotated[int, Ge(1)] = 5  #: levels, up to which another body counts as a neighbour
    # Fish vertebrae throughout: the median loss of the middles, each within its own body, of several bodies.
    # Of a person whose bodies are intact it is 0.02 on a real CT; reference bodies that all lost a fifth
    # read 0.08 and more.
    alike_loss: Loss = 0.075  #: median loss of the middles of `alike_bodies` and more: biconcave alike
    alike_bodies: Annotated[int, Ge(2)] = 3  #: how many bodies that are

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if self.suspected_loss > self.refused_loss:
            raise ValueError("suspected_loss must not exceed refused_loss")
        if self.refused_loss > self.coarse_loss:
            raise ValueError("refused_loss must not exceed coarse_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionSettings(Limits):
    """When a cluster inside a body, or a body, is no bone."""

    depth_mm: NotNegative = 4.0  #: beneath the body's surface: past cortex and endplates, and their blur
    smoothing_mm: NotNegative = 2.0  #: so that neither noise nor trabeculae make clusters
    cement_hu: Hounsfield = 500.0  #: above: cement
    cement_min_mm3: NotNegative = 100.0  #: of one piece of cement
    # Young bone at 80 kVp may reach 300 HU: both limits must be exceeded.
    dense_above_median_hu: NotNegative = 150.0  #: of a dense lesion over the body's median ...
    dense_hu: Hounsfield = 300.0  #: ... and by itself: both must be exceeded
    # Bone islands are smaller; the regions leave them out by themselves.
    dense_min_mm3: NotNegative = 300.0  #: of one dense lesion
    lytic_below_median_hu: NotNegative = 60.0  #: of a lytic lesion beneath the body's median ...
    # Lytic tissue replaces marrow fat as well: it is not darker than blood. Fat in a haemangioma is.
    # Dense bone about a hole is blurred into it: there the limit lies midway from such tissue to the median.
    lytic_hu: Span = (0.0, 80.0)  #: ... and by itself
    # A sphere of 10 mm; the veins' entry and fatty gaps are smaller.
    lytic_min_mm3: NotNegative = 500.0  #: of one lytic lesion
    #: as such tissue commonly reads: above what is looked for, a lesion cannot be seen, which is said
    lytic_tissue_hu: Hounsfield = 30.0
    # Intact bodies of one spine differ by less: by 12 HU in the real CT at hand. Dense spines vary by more.
    unlike_hu: Positive = 60.0  #: a body's median against that of the others in view ...
    unlike_share: NotNegative = 0.4  #: ... and as a share of it: both must be exceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings(Limits):
    """Limits of the gates on a vertebral body and its regions."""

    height_mm: Span = (18.0, 40.0)  #: of a body
    # Whole bodies of two real CTs have 0.32 and more, but for one with a lesion; of reference studies 0.6.
    # Drawings that have slipped by half a vertebra are below 0, those by a third below 0.2.
    #: bone beside the canal at the body's upper half over that at its lower half, as a share of the largest
    #: difference there: less is part of one body and part of the next
    min_pedicles_above: Annotated[float, Ge(-1), Le(1)] = 0.2
    # Compact bone reaches 1,600 HU in a sclerotic spine on slices of 1 mm, and 2,150 where a bone kernel
    # enhances its edges, in single voxels. Screws of titanium have hundreds of voxels above 2,500, on slices
    # of 5 mm too.
    metal_hu: Hounsfield = 2000.0  #: at 120 kV, scaled as bone's contrast: what no bone reaches is metal
    metal_joined_hu: Hounsfield = (
        1000.0  #: at 120 kV: in a body, what is joined to it and as dense is part of it
    )
    metal_margin_mm: NotNegative = 10.0  #: how far around it metal is looked for
    # A screw has hundreds, noise has a voxel or two.
    metal_min_mm3: NotNegative = 30.0  #: above `metal_hu`, of one connected piece
    metal_min_voxels: Annotated[int, Ge(1)] = 3  #: the same in voxels
    # Even a body of 20 mg/cm3 stands out from muscle, fat and bowel by its cortex: this is half of what the
    # least dense bodies of the digital reference study and of the real CTs at hand show.
    min_contrast_hu: NotNegative = 40.0  #: of a body over what surrounds it: less is no bone
    min_region_cm3: NotNegative = 3.0  #: of the density region
    # One slice of 5 mm holds 0.8 to 1.1.
    min_ellipse_cm3: NotNegative = 0.6  #: of the ellipse in its place
    max_region_sd_hu: Positive = 80.0  #: of the density region
    fracture: FractureSettings = field(default_factory=FractureSettings)  #: losses of height
    lesions: LesionSettings = field(default_factory=LesionSettings)  #: cement, dense and lytic lesions


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings(Limits):
    """Limits of the gates on the image around the spine."""

    # Such slices blend endplates into cancellous bone and leave little texture along the body.
    thick_slices_mm: Positive = 5.0  #: thickness or distance of slices, the larger: above, no texture
    # Uncompressed to compressed size. Measured on made images: docs/segmentation.md.
    lossy_ratio: Positive = 10.0  #: of lossy compression (10:1): above, no density
    # Unenhanced blood reads 35 to 55 HU, at 80 kV as at 120 kV (haemoglobin's iron adds a few HU); the portal
    # venous phase, which raises BMD, leaves 100 and more.
    contrast_hu: Positive = 60.0  #: of the aorta or vena cava
    contrast_length_mm: Positive = 40.0  #: over which a vessel must be followed to be believed
    contrast_edge_hu: Positive = 25.0  #: by which it must stand out from the fat about it
    # Without motion the jump stays below 1 mm in the digital reference study and in the real CTs at hand, at
    # slices of 0.6 to 5 mm and scoliosis up to 20 degrees.
    motion_mm: Positive = 2.0  #: between neighbouring slices, beyond what is usual there
    # Without it 0.02 mm are usual, 0.04 the most seen, on slices of 0.6 to 5 mm, at a noise of up to 60 HU,
    # in the reference study and in two real CTs.
    alternate_mm: Positive = 0.5  #: of every second slice, as where two passes are woven into one series
    motion_thickest_mm: Positive = 6.0  #: distance of slices up to which motion is judged
    noise_hu: Positive = 50.0  #: SD of voxels in muscle: two of the radiomic bins of 25 HU
    streaks_hu: Positive = 30.0  #: SD of streaks from side to side in muscle: beyond trabeculae's pattern ...
    streaks_ratio: Ratio = 2.0  #: ... and against what varies along the other direction
    streaks_share: Share = 0.2  #: of a body's height that they must reach
    muscle_hu: Span = (
        0.0,
        110.0,
    )  #: what is taken for muscle, blurred by 3 mm; streaks stay within


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSettings(Limits):
    """Limits of single slices, whose HU hold at 80 kV: at other voltages bone's part of them is scaled.

    They were chosen on digital reference studies (slices of 10 mm, 80 and 140 kV, up to 14 mm off the body's
    middle) and looked at on slabs of 9 mm of real CTs. How the region is cut from the body, and what counts
    as metal, is as in volumes: `RegionSettings`, `GateSettings`.
    """

    enclosure: Share = 0.5  #: share of rays from the canal that meet bone within 17 mm
    canal_behind_mm: Span = (18.0, 36.0)  #: the canal's middle behind the body's
    canal_beside_mm: Positive = 5.0  #: the canal's middle beside the body's
    # Pedicles take the rest.
    supported: Share = 0.7  #: share of the outline with an edge against soft tissue
    width_mm: Span = (32.0, 65.0)  #: of a body
    depth_mm: Span = (22.0, 48.0)  #: of a body
    region_mm2: Positive = 200.0  #: the least region that is read
    # Pedicles spring from the body's upper half, lamina and spinous process from behind its lower half: a
    # thick slice holds much of both at mid-body alone. Above it the canal is open behind, below at its sides.
    # Compared is the root of the product of what closes the canal's sides and back.
    ring_hu: NotNegative = 220.0  #: bone that closes the canal at its sides and behind, above soft tissue
    soft_hu: Hounsfield = 50.0  #: muscle, dural sac
    # The cortex is far denser than what it encloses; a disc's rim is not. Dense young bone comes near it:
    # between the two HU the least ratio, (cortex - interior) / interior, falls from `rim` to `rim_of_dense`.
    rim: NotNegative = 0.7  #: cortex above the interior, as a share of it: median of the outline ...
    rim_of_dense: NotNegative = 0.08  #: ... falling to this
    dense_interior_hu: Span = (250.0, 400.0)  #: ... where the interior is so dense
    cortex_hu: Hounsfield = 170.0  #: of that median: beneath, the outline is a disc's rim
    rim_above_hu: NotNegative = 25.0  #: of the cortex above the interior ...
    rim_everywhere: Share = 0.7  #: ... along this share of the outline
    beside_bone: Share = 0.2  #: share of what lies 4 to 14 mm beside the body: ribs' heads, sacral wings
    bone_hu: Hounsfield = 130.0  #: of bone beside the body
    # A little of the recess may reach down to L1.
    lung_cm2: NotNegative = 5.0  #: behind the body's front
    lung_hu: Span = (-960.0, -600.0)  #: of lung
    region_sd_hu: Positive = 70.0  #: of the region
    cluster_hu: Positive = 150.0  #: denser or fainter than the region's median, smoothed by 2 mm
    cluster_mm2: NotNegative = 50.0  #: of such a cluster
    metal_min_mm2: NotNegative = 6.0  #: of metal
    # Neighbours differ by less, unless one is broken or diseased: a slice that reads higher by both of these
    # is taken for an endplate.
    excess_mg_cm3: NotNegative = 30.0  #: of a slice's density over the median of the study's others ...
    excess_ratio: Ratio = 1.6  #: ... and over that median as a multiple

    def bone_above_soft_hu(self, hu: float, contrast: float) -> float:
        """A limit that bone reaches and soft tissue does not, at another contrast of bone than at 80 kV."""
        return self.soft_hu + (hu - self.soft_hu) * contrast
