"""A body's waist between crisp endplates is no disc: columns whose rim is known mm by mm."""

from dataclasses import replace

import numpy as np
import pytest

from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.geometric.column import Curve
from segmentation.engines.geometric.discs import find_discs
from segmentation.settings import DiscSettings

DISC_HU, BODY_HU, ENDPLATE_HU = 85.0, 285.0, 350.0
DISCS = (20, 61, 96, 131, 170, 203, 234)
DISC_HALF_MM, ENDPLATE_MM = 4, 6


def rim_of(discs: tuple[int, ...], endplate_hu: float = ENDPLATE_HU) -> np.ndarray:
    """One brightness per mm: discs, endplates beside them, bodies between."""
    rim = np.full(discs[-1] + 14, BODY_HU, np.float32)
    for at in discs:
        rim[at - DISC_HALF_MM - ENDPLATE_MM : at + DISC_HALF_MM + ENDPLATE_MM + 1] = endplate_hu
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
    assert find_discs(volume, curve, DiscSettings()) == pytest.approx(DISCS, abs=2)


@pytest.mark.parametrize("disc_hu", [DISC_HU, 190.0])
def test_a_disc_between_two_low_bodies_stays(disc_hu: float) -> None:
    """Two bodies of 20 mm, crushed: a disc as dark as others, or one half as dark, still divides them."""
    discs = (18, 52, 72, 92, 127, 162, 197)
    rim = rim_of(discs)
    rim[72 - DISC_HALF_MM : 72 + DISC_HALF_MM + 1] = disc_hu
    volume, curve = column_with(rim)
    assert find_discs(volume, curve, DiscSettings()) == pytest.approx(discs, abs=2)


def test_a_site_says_how_bright_a_waist_is() -> None:
    """The half-dark disc lies 0.525 of the way from discs (85 HU) to bodies (285 HU)."""
    discs = (18, 52, 72, 92, 127, 162, 197)
    rim = rim_of(discs)
    rim[72 - DISC_HALF_MM : 72 + DISC_HALF_MM + 1] = 190.0
    volume, curve = column_with(rim)
    found = find_discs(volume, curve, DiscSettings(waist_share=0.5))
    assert found == pytest.approx([at for at in discs if at != 72], abs=2)


def test_a_site_says_how_many_discs_have_a_median() -> None:
    """Gas makes one disc of seven dark: their median still tells what a disc is, that one does not."""
    discs = (18, 52, 72, 92, 127, 162, 197)
    rim = rim_of(discs)
    for at, hu in ((72, 200.0), (127, -100.0)):
        rim[at - DISC_HALF_MM : at + DISC_HALF_MM + 1] = hu
    volume, curve = column_with(rim)
    assert find_discs(volume, curve, DiscSettings(waist_least_discs=7)) == pytest.approx(discs, abs=2)
    few = find_discs(volume, curve, DiscSettings(waist_least_discs=8))
    assert few == pytest.approx([at for at in discs if at != 72], abs=2)


def test_a_waist_in_a_view_of_one_body_is_no_disc() -> None:
    """The body was refused: no half of it is a vertebra."""
    volume, curve = column_with(rim_of((12, 50)))
    assert find_discs(volume, curve, DiscSettings()) == pytest.approx((12, 50), abs=2)


@pytest.mark.parametrize("sense", [-1, 1])
def test_a_waist_at_the_end_of_a_chain_hides_no_disc_beyond_it(sense: int) -> None:
    """Endplates as bright as spurs make them: the chain began at a waist, too near to the disc before it."""
    rim = rim_of((11, 48, 87, 126), endplate_hu=410.0)
    volume, curve = column_with(rim[::sense])
    discs = sorted(at if sense > 0 else len(rim) - 1 - at for at in (11, 48, 87, 126))
    assert find_discs(volume, curve, DiscSettings()) == pytest.approx(discs, abs=2)


def test_a_site_says_how_far_discs_lie_apart_and_how_they_stand_out() -> None:
    """A child's bodies of 15 mm, and rims that are hardly brighter than their discs."""
    small = tuple(range(12, 100, 17))
    volume, curve = column_with(rim_of(small, endplate_hu=BODY_HU))
    assert find_discs(volume, curve, DiscSettings()) != pytest.approx(small, abs=2)
    assert find_discs(volume, curve, DiscSettings(spacing_mm=(14.0, 50.0))) == pytest.approx(small, abs=2)
    faint = DISC_HU + (rim_of(DISCS) - DISC_HU) * 0.12
    volume, curve = column_with(faint)
    assert find_discs(volume, curve, DiscSettings()) == ()
    assert len(find_discs(volume, curve, DiscSettings(min_contrast_hu=20.0))) == len(DISCS)


@pytest.mark.parametrize(("usual_mm", "seen"), [(34.0, True), (28.0, False)])
def test_a_site_says_where_the_next_disc_is_looked_for_if_one_alone_is_seen(
    usual_mm: float, seen: bool
) -> None:
    """The other disc stands at the very end of the volume: no endplate is seen beyond it."""
    rim = rim_of((6, 48), endplate_hu=BODY_HU)[6:]
    volume, curve = column_with(rim)
    found = find_discs(volume, curve, DiscSettings(usual_spacing_mm=usual_mm))
    assert any(at < 8 for at in found) == seen


@pytest.mark.parametrize("sense", [-1, 1])
def test_the_last_disc_in_view_stays_though_it_is_bright(sense: int) -> None:
    """Ossified, it is all that ends its body: no other disc is seen beyond."""
    rim = rim_of((30, 66, 101, 136))
    rim[30 - DISC_HALF_MM : 30 + DISC_HALF_MM + 1] = 250.0
    volume, curve = column_with(rim[::sense])
    discs = sorted(at if sense > 0 else len(rim) - 1 - at for at in (30, 66, 101, 136))
    assert find_discs(volume, curve, DiscSettings()) == pytest.approx(discs, abs=2)


def with_pedicles(column: tuple[CtVolume, Curve], discs: tuple[int, ...]) -> tuple[CtVolume, Curve]:
    """The column with a canal behind it, and bone beside that canal from 4 to 18 mm below each disc."""
    volume, curve = column
    behind = 24  # the canal's middle
    deep = np.pad(volume.hu, ((0, 0), (0, 30), (0, 0)), constant_values=0.0)
    middle = volume.hu.shape[1] // 2
    deep[:, middle + behind - 10 :, :] = 0.0
    for at in discs:
        for side in (-1, 1):
            columns = sorted((middle + side * 8, middle + side * 22))
            rows = slice(middle + behind - 9, middle + behind + 2)
            deep[max(0, at - 18) : max(0, at - 4), rows, slice(*columns)] = 400.0
    canal = curve.centre_mm + np.array([0.0, float(behind), 0.0])
    grid = replace(volume.grid, shape=deep.shape)
    return CtVolume(hu=deep, grid=grid), replace(curve, canal_mm=canal)


@pytest.mark.parametrize("first", [18, 35])
def test_pedicles_tell_discs_from_waists_that_are_as_dark(first: int) -> None:
    """Dark bands every 17 mm, all alike: discs and waists alternate. Pedicles lie below every second one."""
    bands = tuple(range(18, 18 + 17 * 10, 17))
    discs = bands[(first - 18) // 17 :: 2]
    column = with_pedicles(column_with(rim_of(bands)), discs)
    found = find_discs(*column, DiscSettings())
    assert found == pytest.approx(discs, abs=2)
