"""Any nnU-Net v2 model folder as an engine, by a label map alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmentation.ct_volume import CtVolume
from segmentation.engines.nnunet import (
    Compute,
    NnunetEngine,
    read_model_folder,
    resample_nearest,
    resolve_classes,
)
from segmentation.errors import EngineUnavailable
from segmentation.vertebrae import LABELS

COMPUTE = Compute(device="cpu", threads=0, mixed_precision=False)
CLASSES = {"sacrum": 1, "vertebrae_L5": 3, "vertebrae_L3": 5, "liver": 9}


@pytest.fixture(scope="module")
def model(weights_mini: Path) -> Path:
    return next(weights_mini.glob("Dataset297_*/*__3d_fullres"))


@pytest.mark.usefixtures("trained_packages")
def test_a_model_folder_and_its_class_names_make_an_engine(model, example_ct, example_bodies):
    engine = NnunetEngine(model, {"vertebrae_L3": "L3", "28": "L4"}, COMPUTE)
    part = (slice(22, 86), slice(14, 78), slice(30, 94))
    volume = CtVolume(hu=np.ascontiguousarray(example_ct.hu[part]), grid=example_ct.grid.part(part))
    found = engine.segment(volume)
    assert [level.name for level in found.levels] == ["L3", "L4"]
    ours, real = found.bodies == LABELS["L3"], example_bodies[part] == LABELS["L3"]
    # Whole vertebrae, cut to their bodies without a network for bodies.
    assert 2 * (ours & real).sum() / (ours.sum() + real.sum()) > 0.85
    assert (engine.info.name, engine.info.version, engine.info.model_free) == ("nnunet", "2.6.0", False)
    assert engine.info.parameters["classes"] == "28=L4, 29=L3"


@pytest.mark.usefixtures("trained_packages")
def test_a_gpu_that_is_not_there_is_an_engine_that_is_not_available(model):
    with pytest.raises(EngineUnavailable, match="finds no such GPU"):
        NnunetEngine(model, {}, replace(COMPUTE, device="cuda:99")).load()


def test_classes_named_like_levels_need_no_label_map():
    assert resolve_classes(CLASSES, {}) == {1: "sacrum", 3: "L5", 5: "L3"}


@pytest.mark.parametrize(
    ("naming", "text"),
    [
        ({"vertebrae_L9": "L3"}, "no class vertebrae_L9"),
        ({"liver": "L9"}, "unknown level L9"),
        ({"sacrum": "sacrum"}, "represents a vertebra"),
    ],
)
def test_a_label_map_with_a_mistake_is_refused(naming, text):
    with pytest.raises(EngineUnavailable, match=text):
        resolve_classes(CLASSES, naming)


def test_classes_that_overlap_are_refused(model, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    content = json.loads((copy / "dataset.json").read_text())
    content["labels"] = {"background": 0, "spine": [1, 2], "L3": 2}
    (copy / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(EngineUnavailable, match="overlap"):
        read_model_folder(copy, "nnunet")


def test_nearest_neighbours_keep_the_block_s_faces():
    labels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    assert resample_nearest(labels, (8, 1, 1)).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resample_nearest(labels, (2, 1, 1)).ravel().tolist() == [1, 3]
    assert resample_nearest(labels, (4, 2, 1)).shape == (4, 2, 1)
