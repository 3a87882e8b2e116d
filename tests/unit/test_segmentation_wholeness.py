"""A drawing that is part of one vertebra and part of the next is told from a whole body."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from config.findings import Output, load_findings, withheld
from segmentation.ct_volume import CtVolume
from segmentation.gates.bodies import quality_observations
from segmentation.gates.wholeness import pedicles_above, wholeness_observations
from segmentation.settings import GateSettings
from segmentation.vertebrae import Vertebrae
from tests.unit.reference_images import study

pytestmark = pytest.mark.slow


def slipped(found: Vertebrae, share: float) -> Vertebrae:
    """Each whole body's drawing moved by a share of its distance to the body below."""
    moved = np.zeros_like(found.bodies)
    levels = []
    for level, below in pairwise(level for level in found.levels if level.complete):
        step_mm = np.subtract(below.centroid_mm, level.centroid_mm) * share
        index = np.round(found.grid.to_index(np.asarray(found.grid.origin_mm) + step_mm)).astype(int)
        moved[np.roll(found.bodies == level.label, tuple(index), (0, 1, 2))] = level.label
        centroid = np.add(level.centroid_mm, step_mm)
        levels.append(replace(level, centroid_mm=tuple(centroid.tolist())))
    return replace(found, bodies=moved, levels=tuple(levels), occupancy={})


@pytest.fixture(scope="module", params=[1.0, 5.0])
def sound(request: pytest.FixtureRequest) -> tuple[CtVolume, Vertebrae]:
    """Thin and thick slices."""
    return study(slice_spacing_mm=request.param, seed=12)


def test_whole_bodies_have_their_pedicles_at_the_upper_half(sound: tuple[CtVolume, Vertebrae]) -> None:
    volume, found = sound
    whole = [level for level in found.levels if level.complete]
    shares = [pedicles_above(volume, found.bodies == level.label, level) for level in whole]
    assert len(shares) == 4
    assert all(share is not None and share > 0.3 for share in shares)
    assert wholeness_observations(volume, found) == ()


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6])
def test_halves_of_two_vertebrae_are_not_measured(sound: tuple[CtVolume, Vertebrae], share: float) -> None:
    volume, whole = sound
    found = slipped(whole, share)
    names = [level.name for level in found.levels if level.complete]
    observed = quality_observations(volume, found, {})
    assert [one.level for one in observed if one.code == "body_not_whole"] == names
    # Their height is not that of a body: no fracture is told of them.
    assert not [one for one in observed if one.level and one.code.startswith("fracture")]
    table = load_findings()
    findings = [table.describe(one) for one in observed]
    assert all(withheld(findings, Output.BMD, [name]) for name in names)


def test_a_site_says_how_much_bone_pedicles_are(sound: tuple[CtVolume, Vertebrae]) -> None:
    volume, found = sound
    assert len(wholeness_observations(volume, found, GateSettings(min_pedicles_above=1.0))) == 4


def test_nothing_is_said_where_the_volume_ends_beside_the_canal(sound: tuple[CtVolume, Vertebrae]) -> None:
    volume, found = sound
    level = next(level for level in found.levels if level.complete)
    last = int(np.argwhere(found.bodies == level.label)[:, 1].max()) - 4
    depth, _, width = volume.grid.shape
    grid = volume.grid.part((slice(0, depth), slice(0, last), slice(0, width)))
    cut = CtVolume(hu=np.ascontiguousarray(volume.hu[:, :last]), grid=grid)
    assert pedicles_above(cut, found.bodies[:, :last] == level.label, level) is None


def test_levels_whose_pedicles_metal_hides_are_left_out(sound: tuple[CtVolume, Vertebrae]) -> None:
    volume, whole = sound
    found = slipped(whole, 0.5)
    names = [str(one.level) for one in wholeness_observations(volume, found)]
    left = wholeness_observations(volume, found, unread=names[:1])
    assert [one.level for one in left] == names[1:]
