"""Two phantoms in one image: both are read, and a density is given only where they agree on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from config.catalog import load_phantom
from scoring.phantoms import PhantomReading
from scoring.phantoms.rod_reading import PhantomImage, calibrate_from_reading, find_rods, read_phantom
from segmentation.ct_volume import CtVolume
from tests.unit.phantom_scans import Scan, drawn

OSTEO = load_phantom("siemens-osteo")[0]
HALF_BAR_MM = 17.0
BEHIND_MM, BEFORE_MM = 60.0, -88.0  # y of the rows of rods

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return drawn(Scan(phantom=OSTEO.name))


def rows_about(volume: CtVolume, y_mm: float) -> slice:
    first = round((y_mm - HALF_BAR_MM - volume.grid.origin_mm[1]) / volume.grid.spacing_mm[1])
    return slice(first, first + round(2 * HALF_BAR_MM / volume.grid.spacing_mm[1]))


def brighter(factor: float) -> Change:
    return lambda hu: np.where(hu > -200, hu * factor, hu)


def shifted(offset_hu: float) -> Change:
    return lambda hu: np.where(hu > -200, hu + offset_hu, hu)


def changed(volume: CtVolume, *, before: Change | None = None, behind: Change | None = None) -> CtVolume:
    """With a second phantom before the belly, a copy of the one behind the back, and either changed."""
    hu = volume.hu.copy()
    there, here = rows_about(volume, BEFORE_MM), rows_about(volume, BEHIND_MM)
    bar = hu[:, here].copy()
    if before is not None:
        hu[:, there] = before(bar)
    if behind is not None:
        hu[:, here] = behind(bar)
    return CtVolume(hu=hu, grid=volume.grid)


def row_mm(reading: PhantomReading) -> float:
    """Where it lies from front to back."""
    return float(np.mean([point[1] for rod in reading.rods for point in rod.axis_points_mm]))


def codes(reading: PhantomReading) -> tuple[list[str], list[str]]:
    return [one.code for one in reading.observations], [one.code for one in reading.remarks]


@pytest.mark.parametrize("factor", [1.08, 0.92])
def test_two_phantoms_that_disagree_give_no_density_and_both_are_told(
    volume: CtVolume, factor: float
) -> None:
    reading = find_rods(changed(volume, before=brighter(factor)), OSTEO)
    assert codes(reading) == (["phantoms_disagree"], [])
    assert calibrate_from_reading(reading, OSTEO, 120.0)[0] is None
    values = reading.observations[0].values
    assert float(values["second_slope"]) == pytest.approx(float(values["first_slope"]) / factor, rel=0.01)
    assert "y 60," in str(values["first"])
    assert "y -8" in str(values["second"])


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_of_two_that_agree_the_one_behind_is_read_however_bright_and_that_is_told(
    volume: CtVolume, factor: float
) -> None:
    reading = find_rods(changed(volume, before=brighter(factor)), OSTEO)
    assert codes(reading) == ([], ["phantoms_agree"])
    assert row_mm(reading) == pytest.approx(BEHIND_MM, abs=1.0)
    assert calibrate_from_reading(reading, OSTEO, 120.0)[0] is not None


@pytest.mark.parametrize(
    ("before", "behind", "read_mm"),
    [(shifted(30.0), None, BEHIND_MM), (brighter(1.0), shifted(30.0), BEFORE_MM)],
    ids=["before", "behind"],
)
def test_beside_one_that_passes_every_check_one_that_fails_is_named(
    volume: CtVolume, before: Change, behind: Change | None, read_mm: float
) -> None:
    reading = find_rods(changed(volume, before=before, behind=behind), OSTEO)
    assert codes(reading) == ([], ["phantom_beside_refused"])
    assert row_mm(reading) == pytest.approx(read_mm, abs=1.0)
    assert reading.remarks[0].values["checks"] == "water_rod_off"


def test_what_only_looks_like_a_row_of_rods_is_not_named(volume: CtVolume) -> None:
    """Streaks as of metal across a copy: discs as uneven as bowel."""

    def streaked(hu: np.ndarray) -> np.ndarray:
        return hu + 30.0 * np.sin(np.arange(hu.shape[2]) / 3.0)

    assert codes(find_rods(changed(volume, before=streaked), OSTEO)) == ([], [])


def test_one_phantom_alone_is_read_as_ever(volume: CtVolume) -> None:
    assert codes(find_rods(volume, OSTEO)) == ([], [])


@pytest.mark.parametrize(("factor", "told"), [(1.08, ["phantoms_disagree"]), (1.0, [])])
def test_a_phantom_across_the_join_of_two_beds_is_read_on_both(
    volume: CtVolume, factor: float, told: list[str]
) -> None:
    """The table moved aside between them: what reads otherwise beyond the join must not go unseen."""
    hu = volume.hu.copy()
    upper = slice(hu.shape[0] // 2, None)
    hu[upper] = brighter(factor)(np.roll(hu[upper], 10, axis=2))
    assert codes(find_rods(CtVolume(hu=hu, grid=volume.grid), OSTEO))[0] == told


@pytest.mark.parametrize(("factor", "told"), [(1.12, ["phantoms_disagree"]), (1.0, [])])
def test_a_single_slice_with_two_phantoms_is_no_exception(
    volume: CtVolume, factor: float, told: list[str]
) -> None:
    both = changed(volume, before=brighter(factor))
    grid = replace(both.grid, shape=(1, *both.grid.shape[1:]), spacing_mm=(10.0, *both.grid.spacing_mm[1:]))
    slice_ = CtVolume(hu=both.hu[:5].mean(axis=0, keepdims=True), grid=grid)
    assert codes(find_rods(slice_, OSTEO))[0] == told


def test_phantoms_of_two_models_in_one_image_give_no_density(volume: CtVolume) -> None:
    other = load_phantom("mindways-3")[0]
    hu = volume.hu.copy()
    of_other = drawn(Scan(phantom=other.name))
    hu[:, rows_about(volume, BEFORE_MM)] = of_other.hu[:, rows_about(of_other, BEHIND_MM)]
    (reading,) = read_phantom(
        [PhantomImage(volume=CtVolume(hu=hu, grid=volume.grid), kvp=120.0)],
        {OSTEO.name: OSTEO, other.name: other},
    )
    assert codes(reading)[0] == ["phantom_ambiguous"]
    assert not reading.usable
