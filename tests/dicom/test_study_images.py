"""The images of a study: headers are read once, and a series stays decoded from one step to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from config.settings import Settings, load_settings
from node.dicom.ct.headers import identity_of
from node.pipeline import study_run
from node.pipeline.artefacts import SelectionArtefact
from node.pipeline.ports import STEPS, Step
from node.pipeline.step_functions import FUNCTIONS
from node.pipeline.study_run import ImagesCache, StudyImages


@pytest.fixture
def settings() -> Settings:
    return load_settings()


SERIES = {"first": "2.25.1", "second": "2.25.2"}


@pytest.fixture
def study(tmp_path: Path, make_slice) -> tuple[Path, ...]:
    """Two series of four slices."""
    for place, uid in enumerate(SERIES.values()):
        for number in range(4):
            path = tmp_path / f"{10 * place + number}.dcm"
            make_slice(path, np.full((8, 8), number), (0.0, 0.0, 5.0 * number), SeriesInstanceUID=uid)
    return tuple(sorted(tmp_path.glob("*.dcm")))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the two ways of reading files were used, in order."""
    made: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        real = getattr(study_run, name)

        def call(*args: object, **how: object) -> object:
            made.append(name)
            return real(*args, **how)

        return call

    for name in ("read_headers", "read_series"):
        monkeypatch.setattr(study_run, name, counted(name))
    return made


def chosen(images: StudyImages, name: str) -> SelectionArtefact:
    return SelectionArtefact(
        study=identity_of(images.instances[0].header),
        series=images.read_series(SERIES[name]).facts,
        rejected=(),
        phantom=None,
        observations=(),
    )


def test_headers_are_read_once_however_many_series_are_tried(study, settings, calls):
    images = StudyImages(study, settings)
    for name in ("first", "second", "first"):
        images.read_series(SERIES[name])
    assert calls == ["read_headers", "read_series", "read_series", "read_series"]


def test_a_warm_worker_decodes_a_series_once_for_all_of_its_steps(study, settings, calls):
    in_hand = ImagesCache()
    selected = chosen(in_hand.of(study, settings, anew=True), "second")
    volumes = [in_hand.of(study, settings, anew=False).read_chosen(selected).volume for _ in range(3)]
    assert calls == ["read_headers", "read_series"]
    assert volumes[0] is volumes[1] is volumes[2]


def test_a_cold_worker_reads_the_headers_and_the_chosen_series(study, settings, calls):
    selected = chosen(StudyImages(study, settings), "first")
    calls.clear()
    ImagesCache().of(study, settings, anew=False).read_chosen(selected)
    assert calls == ["read_headers", "read_series"]


def test_a_first_step_reads_files_again_that_may_have_changed(study, settings, calls):
    in_hand = ImagesCache()
    before = in_hand.of(study, settings, anew=True)
    assert in_hand.of(study, settings, anew=True) is not before
    assert in_hand.of(study[:-1], settings, anew=False).paths == study[:-1]


def test_headers_of_what_is_not_measured_do_not_stay_in_memory(study, settings, calls):
    images = StudyImages(study, settings)
    images.read_chosen(chosen(images, "first"))
    assert len(images.ct_headers) == len(study)
    assert calls == ["read_headers", "read_series", "read_headers"]


def test_a_series_that_is_gone_is_an_error(study, settings):
    with pytest.raises(LookupError, match="no longer among the files"):
        StudyImages(study, settings).read_series("2.25.404")


def test_every_step_but_the_last_has_a_function_in_the_order_of_the_steps():
    assert set(STEPS) == set(Step)
    assert (*FUNCTIONS, Step.DELIVER) == STEPS
    assert [step.following for step in STEPS] == [*STEPS[1:], None]
