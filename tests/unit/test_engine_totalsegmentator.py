"""TotalSegmentator engine on small networks in its layout: they know one CT at most, the path is real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segmentation.ct_volume import CtVolume, Grid
from segmentation.engines.nnunet import Compute
from segmentation.engines.totalsegmentator import (
    TotalSegmentatorEngine,
    crop_box,
    resample_hu,
    resample_labels,
)
from segmentation.engines.totalsegmentator_weights import Mode
from segmentation.vertebrae import LABELS

COMPUTE = Compute(device="cpu", threads=0, mixed_precision=False)
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_packages")]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def part_of(volume: CtVolume, box: tuple[slice, slice, slice]) -> CtVolume:
    return CtVolume(hu=np.ascontiguousarray(volume.hu[box]), grid=volume.grid.part(box))


def engine_of(weights: Path, mode: Mode) -> TotalSegmentatorEngine:
    return TotalSegmentatorEngine(weights, mode, COMPUTE)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The user's home, where TotalSegmentator would leave a configuration."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.delenv("TOTALSEG_HOME_DIR", raising=False)
        yield folder


@pytest.fixture(scope="module")
def fast(weights_mini, no_network, home):
    return engine_of(weights_mini, Mode.FAST)


@pytest.fixture(scope="module")
def found(fast, example_ct):
    return fast.segment(example_ct)


def test_the_third_lumbar_body_is_found_where_the_real_networks_find_it(found, example_bodies):
    assert found.level("L3") is not None
    assert found.level("L3").complete
    assert dice(found.bodies == LABELS["L3"], example_bodies == LABELS["L3"]) > 0.9


def test_a_network_that_splits_a_vertebra_is_not_believed(found):
    """The small network names parts of L1 elsewhere, and knows S1 without the wings: no score goes out."""
    assert not found.numbering_confirmed
    codes = {one.code for one in found.observations}
    assert codes - {"label_not_one_body"} == {"level_implausible", "level_unconfirmed"}


def test_nothing_is_posted_and_nothing_written_in_the_user_s_home(found, no_network, home):
    assert no_network == []
    assert not (home / ".totalsegmentator").exists()


def test_results_name_version_weights_and_mode(found):
    assert found.engine.version == "2.18.0"
    assert not found.engine.model_free
    assert len(found.engine.weights_sha256) == 64
    assert found.engine.parameters["mode"] == "fast"
    assert found.engine.parameters["bodies"] == "vertebrae_body"


def test_weights_are_loaded_once(fast, found, example_ct, monkeypatch):
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("weights were loaded again"))
    fast.segment(part_of(example_ct, (slice(30, 60), slice(20, 60), slice(40, 80))))


def test_the_order_and_sense_of_the_array_s_axes_do_not_matter(fast, example_ct):
    part = part_of(example_ct, (slice(24, 88), slice(12, 76), slice(30, 94)))
    other = CtVolume(
        hu=np.ascontiguousarray(np.flip(part.hu.transpose(2, 0, 1), (0, 1))),
        grid=Grid(
            shape=(64, 64, 64),
            spacing_mm=part.grid.spacing_mm,
            origin_mm=tuple(part.grid.to_patient([63, 0, 63])),
            direction=(
                tuple(-one for one in part.grid.direction[2]),
                tuple(-one for one in part.grid.direction[0]),
                part.grid.direction[1],
            ),
        ),
    )
    one, two = fast.segment(part), fast.segment(other)
    assert one.bodies.any()
    assert np.array_equal(np.flip(one.bodies.transpose(2, 0, 1), (0, 1)), two.bodies)


def test_an_image_in_which_a_network_names_nothing_holds_no_lumbar_level(fast):
    air = CtVolume(
        hu=np.full((40, 40, 40), -1000.0, np.float32),
        grid=Grid(
            shape=(40, 40, 40),
            spacing_mm=(3.0, 3.0, 3.0),
            origin_mm=(0.0, 0.0, 0.0),
            direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
        ),
    )
    nothing = fast.segment(air)
    assert [one.code for one in nothing.observations] == ["no_lumbar_level"]
    assert (nothing.levels, nothing.bodies.any()) == ((), False)


@pytest.mark.parametrize("mode", [Mode.STANDARD, Mode.ROBUST])
def test_vertebrae_are_located_named_and_cut_to_bodies(weights_constant, example_ct, mode, no_network):
    part = part_of(example_ct, (slice(40, 60), slice(30, 50), slice(50, 70)))
    found = engine_of(weights_constant, mode).segment(part)
    assert (found.bodies == LABELS["L3"]).all()
    assert [level.complete for level in found.levels] == [False]
    # No vertebra is 60 mm high, and neither the sacrum nor T12 is in view.
    told = ["level_implausible", "label_not_one_body", "level_unconfirmed"]
    assert [one.code for one in found.observations] == told
    assert no_network == []


def test_a_daemonic_child_may_segment_and_the_process_that_forks_loads_no_torch(weights_constant):
    """A Celery pool's child is daemonic: it may have no children of its own."""
    script = """
import multiprocessing, pathlib, sys
import numpy as np
from segmentation.engines.nnunet import Compute
from segmentation.engines.totalsegmentator import TotalSegmentatorEngine
from segmentation.engines.totalsegmentator_weights import Mode
from segmentation.ct_volume import CtVolume, Grid

compute = Compute(device="auto", threads=1, mixed_precision=False)
engine = TotalSegmentatorEngine(pathlib.Path(sys.argv[1]), Mode.STANDARD, compute)
assert "torch" not in sys.modules
axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
grid = Grid(shape=(20, 20, 20), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(0.0, 0.0, 0.0), direction=axes)

def segment():
    found = engine.segment(CtVolume(hu=np.zeros(grid.shape, np.float32), grid=grid))
    sys.exit(0 if (found.bodies == 29).all() else 3)

child = multiprocessing.get_context("fork").Process(target=segment, daemon=True)
child.start()
child.join()
sys.exit(child.exitcode)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, weights_constant],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


shapes = st.tuples(*[st.integers(2, 12)] * 3)


@settings(max_examples=30, deadline=None)
@given(have=shapes, want=shapes, seed=st.integers(0, 9))
def test_labels_come_back_as_totalsegmentator_s_resampling_brings_them(have, want, seed):
    labels = np.random.default_rng(seed).integers(0, 5, have).astype(np.uint8)
    zoom = [new / old for new, old in zip(want, have, strict=True)]
    whole = resample_labels(labels, want)
    assert np.array_equal(whole, ndimage.zoom(labels, zoom, order=0, mode="nearest"))
    box = (slice(1, want[0]), slice(0, 1), slice(0, want[2] - 1))
    assert np.array_equal(resample_labels(labels, want, box), whole[box])


def test_an_image_at_the_model_s_spacing_is_not_resampled(example_ct):
    assert np.array_equal(resample_hu(example_ct.hu, (3.0, 3.0, 3.0), 3.0), np.trunc(example_ct.hu))
    assert resample_hu(example_ct.hu[:1], (3.0, 3.0, 3.0), 6.0).shape == (1, 50, 61)


def test_the_crop_leaves_a_margin_within_the_image(example_ct):
    inside = np.zeros((56, 50, 61), bool)
    inside[20:30, 0:5, 40:61] = True
    box = crop_box(inside, example_ct.grid)
    assert box is not None
    assert (box[1].start, box[2].stop) == (0, 122)
    marked = resample_labels(inside.astype(np.uint8), example_ct.grid.shape)
    outside = marked.copy()
    outside[box] = 0
    assert not outside.any()
    assert np.flatnonzero(marked.any(axis=(1, 2)))[0] - box[0].start == 6  # 20 mm in whole voxels of 3 mm
