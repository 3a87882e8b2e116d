"""A body's waist between crisp endplates is no disc: columns whose rim is known mm by mm."""

import numpy as np
import pytest

from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.discs import DiscSettings, find_discs
from segmentation.volume import CtVolume, Grid

DISC_HU, BODY_HU, ENDPLATE_HU = 85.0, 285.0, 350.0
DISCS = (20, 61, 96, 131, 170, 203, 234)
DISC_HALF_MM, ENDPLATE_MM = 4, 6


def rim_of(discs: tuple[int, ...]) -> np.ndarray:
    """One brightness per mm: discs, endplates beside them, bodies between."""
    rim = np.full(discs[-1] + 14, BODY_HU, np.float32)
    for at in discs:
        rim[at - DISC_HALF_MM - ENDPLATE_MM : at + DISC_HALF_MM + ENDPLATE_MM + 1] = ENDPLATE_HU
    for at in discs:
        rim[at - DISC_HALF_MM : at + DISC_HALF_MM + 1] = DISC_HU
    return rim


def column_with(rim: np.ndarray) -> tuple[CtVolume, Curve]:
    """A straight column of 1 mm voxels that has this rim at every radius, and the line through its middle."""
    middle = 35
    hu = np.ascontiguousarray(np.broadcast_to(rim[:, None, None], (len(rim), 2 * middle, 2 * middle)))
    line = np.column_stack([np.arange(float(len(rim))), *np.full((2, len(rim)), float(middle))])
    unit = np.eye(3)[:, None, :].repeat(len(rim), axis=1)
    curve = Curve(centre_mm=line, along=unit[0], front=-unit[1], left=unit[2], canal_mm=line)
    grid = Grid(
        shape=hu.shape,
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )
    return CtVolume(hu=hu, grid=grid), curve


def test_a_waist_between_crisp_endplates_divides_no_body() -> None:
    """Slices of 0.4 mm: a fifth lumbar body of 41 mm was halved, and every name above it moved by one."""
    volume, curve = column_with(rim_of(DISCS))
    assert find_discs(volume, curve, DiscSettings()).at_mm == pytest.approx(DISCS, abs=2)


@pytest.mark.parametrize("disc_hu", [DISC_HU, 190.0])
def test_a_disc_between_two_low_bodies_stays(disc_hu: float) -> None:
    """Two bodies of 20 mm, crushed: a disc as dark as others, or one half as dark, still divides them."""
    discs = (18, 52, 72, 92, 127, 162, 197)
    rim = rim_of(discs)
    rim[72 - DISC_HALF_MM : 72 + DISC_HALF_MM + 1] = disc_hu
    volume, curve = column_with(rim)
    assert find_discs(volume, curve, DiscSettings()).at_mm == pytest.approx(discs, abs=2)


def test_a_site_says_how_bright_a_waist_is() -> None:
    """The half-dark disc lies 0.525 of the way from discs (85 HU) to bodies (285 HU)."""
    discs = (18, 52, 72, 92, 127, 162, 197)
    rim = rim_of(discs)
    rim[72 - DISC_HALF_MM : 72 + DISC_HALF_MM + 1] = 190.0
    volume, curve = column_with(rim)
    found = find_discs(volume, curve, DiscSettings(waist_share=0.5)).at_mm
    assert found == pytest.approx([at for at in discs if at != 72], abs=2)


def test_a_site_says_how_many_discs_outvote_a_false_one() -> None:
    """Seven discs and the waist between the first two make a chain of eight."""
    volume, curve = column_with(rim_of(DISCS))
    assert len(find_discs(volume, curve, DiscSettings(waist_least_discs=8)).at_mm) == len(DISCS)
    assert len(find_discs(volume, curve, DiscSettings(waist_least_discs=9)).at_mm) == len(DISCS) + 1
