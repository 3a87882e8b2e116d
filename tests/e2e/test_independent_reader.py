"""dcmqi, which shares no code with what wrote it, reads from the SEG what was measured, voxel for voxel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread, dcmwrite

from node.dicom.ct.headers import group_series, read_headers
from node.dicom.ct.reading import LoadedSeries, read_series
from node.dicom.seg import Part
from node.pipeline.artefacts import SEGMENTATION, SegmentationArtefact, segmentation_from_bytes
from node.reference.spec import StudySpec
from segmentation.engines.mask import LabelImage, MaskEngine
from segmentation.vertebrae import LABELS
from tests.e2e.in_process import Run
from tests.made_studies import write_reference_study

READER = Path(sys.executable).with_name("segimage2itkimage")
# About the patient's x axis, then y: slices that lie across no axis of the patient.
_X, _Y = np.deg2rad(14.0), np.deg2rad(-9.0)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(_X), -np.sin(_X)], [0, np.sin(_X), np.cos(_X)]]) @ np.array(
    [[np.cos(_Y), 0, np.sin(_Y)], [0, 1, 0], [-np.sin(_Y), 0, np.cos(_Y)]]
)


def oblique(dataset: Dataset) -> None:
    cosines = np.asarray(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    dataset.ImageOrientationPatient = [f"{value:.10f}" for value in (cosines @ OBLIQUE.T).ravel()]
    place = OBLIQUE @ np.asarray(dataset.ImagePositionPatient, dtype=float)
    dataset.ImagePositionPatient = [f"{value:.10f}" for value in place]


def reversed_order(dataset: Dataset) -> None:
    """Rows from posterior to anterior: the normal then points to the feet, and slices count from the head."""
    pixels = dataset.pixel_array
    x, y, z = (float(value) for value in dataset.ImagePositionPatient)
    last = y + float(dataset.PixelSpacing[0]) * (pixels.shape[0] - 1)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    dataset.ImagePositionPatient = [x, last, z]
    dataset.PixelData = np.ascontiguousarray(pixels[::-1]).tobytes()


def unchanged(dataset: Dataset) -> None:
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_reference_study(folder, StudySpec.reduced())
    return folder


def processed(folder: Path, truth: np.ndarray) -> tuple[LoadedSeries, SegmentationArtefact, bytes]:
    """The series, what was measured on it, and the SEG that goes out."""
    paths = tuple(sorted(folder.glob("*.dcm")))
    series = read_series(group_series(read_headers(paths))[0])
    engine = MaskEngine(
        LabelImage(labels=truth, grid=series.volume.grid),
        {value: name for name, value in LABELS.items()},
        vouched=True,
    )
    run = Run(folder, engine=engine)
    (seg,) = [one.content for one in run.objects if one.file_name == "segmentation.dcm"]
    return series, segmentation_from_bytes(run.artefacts.get(SEGMENTATION)), seg


def read_by_dcmqi(content: bytes, folder: Path) -> dict[str, SimpleITK.Image]:
    """Every segment by its label, as dcmqi writes it."""
    (folder / "segmentation.dcm").write_bytes(content)
    subprocess.run(
        [READER, "--inputDICOM", folder / "segmentation.dcm", "--outputDirectory", folder, "-p", "read"],
        check=True,
        capture_output=True,
        text=True,
    )
    described = json.loads((folder / "read-meta.json").read_text("utf-8"))["segmentAttributes"]
    return {
        item["SegmentLabel"]: SimpleITK.ReadImage(str(folder / f"read-{item['labelID']}.nrrd"))
        for group in described
        for item in group
    }


@pytest.mark.parametrize("change", [unchanged, oblique, reversed_order])
def test_dcmqi_reads_the_masks_that_were_measured(study, tmp_path, change: Callable[[Dataset], None]):
    folder = tmp_path / "study"
    folder.mkdir()
    for path in study.glob("*.dcm"):
        dataset = dcmread(path)
        change(dataset)
        dcmwrite(folder / path.name, dataset)
    truth = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(study / "truth_mask.nii.gz")))
    if change is reversed_order:
        truth = truth[::-1, ::-1]
    series, measured, content = processed(folder, truth)
    expected = {}
    for region in measured.regions:
        level = measured.vertebrae.level(region.level)
        assert level is not None
        expected[f"{region.level} {Part.BODY.value}"] = measured.vertebrae.bodies == level.label
        expected[f"{region.level} {Part.BMD.value}"] = region.bmd
        if region.level == "L3":
            expected[f"L3 {Part.RADIOMICS.value}"] = region.radiomics
    images = read_by_dcmqi(content, tmp_path)
    rods = {label: image for label, image in images.items() if "rod" in label}
    assert len(rods) == 2
    images = {label: image for label, image in images.items() if label not in rods}
    assert set(images) == set(expected)
    assert len(images) == 11
    grid = series.volume.grid
    for label, image in images.items():
        assert image.GetSpacing() == pytest.approx(grid.spacing_mm[::-1], abs=1e-4)
        # ITK's columns are the directions of x, y, z; slices may be counted from either end.
        columns = np.reshape(image.GetDirection(), (3, 3)).T
        assert columns[0] == pytest.approx(grid.direction[2], abs=1e-5)
        assert columns[1] == pytest.approx(grid.direction[1], abs=1e-5)
        assert np.abs(columns[2]) == pytest.approx(np.abs(grid.direction[0]), abs=1e-5)
        steps = columns * np.asarray(image.GetSpacing())[:, None]
        inside = np.argwhere(SimpleITK.GetArrayViewFromImage(image))[:, ::-1]
        index = grid.to_index(inside @ steps + image.GetOrigin())
        assert np.abs(index - np.round(index)).max() < 0.01
        there = np.zeros(grid.shape, bool)
        there[tuple(np.round(index).astype(int).T)] = True
        assert np.array_equal(there, expected[label]), label
