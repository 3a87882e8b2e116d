"""TotalSegmentator's weights: which are required, where they are, whether they are unchanged; their download.

Only tasks that need no licence: `total` (datasets 292, 297, 298) and `vertebrae_body` (305).
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from shutil import rmtree

from segmentation.engines.nnunet import INSTALL, ModelFolder, file_sha256, missing_packages, read_model_folder
from segmentation.errors import EngineUnavailable

ENGINE = "totalsegmentator"
CHECKSUMS = "SHA256SUMS"  # beside the Dataset folders, as sha256sum writes it
_PACKAGES = ("torch", "nnunetv2", "totalsegmentator")


class Mode(StrEnum):
    """Which models are used: a compromise between time and sensitivity."""

    STANDARD = "standard"  # vertebrae are located at 6 mm and named at 1.5 mm: what `--roi_subset` does
    ROBUST = "robust"  # located at 3 mm: several times slower, misses less
    FAST = "fast"  # named at 3 mm alone: what `--fast` does; borders are coarse


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsModel:
    """One of TotalSegmentator's networks, with the parameters of TotalSegmentator 2.18.

    Attributes
    ----------
    dataset : number of nnU-Net's Dataset folder.
    classes : key of its class map.
    tile_step : step between tiles, as a share of their size.
    """

    dataset: int
    classes: str
    spacing_mm: float
    tile_step: float


TOTAL_6_MM = WeightsModel(dataset=298, classes="total", spacing_mm=6.0, tile_step=0.8)
TOTAL_3_MM = WeightsModel(dataset=297, classes="total", spacing_mm=3.0, tile_step=0.8)
VERTEBRAE = WeightsModel(dataset=292, classes="class_map_part_vertebrae", spacing_mm=1.5, tile_step=0.8)
BODIES = WeightsModel(dataset=305, classes="vertebrae_body", spacing_mm=1.5, tile_step=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsOfMode:
    """The models of one mode."""

    locating: WeightsModel | None
    naming: WeightsModel


MODELS_OF_MODE: Mapping[Mode, ModelsOfMode] = {
    Mode.STANDARD: ModelsOfMode(locating=TOTAL_6_MM, naming=VERTEBRAE),
    Mode.ROBUST: ModelsOfMode(locating=TOTAL_3_MM, naming=VERTEBRAE),
    Mode.FAST: ModelsOfMode(locating=None, naming=TOTAL_3_MM),
}


def required_models(mode: Mode) -> tuple[WeightsModel, ...]:
    """The models that a mode requires. `BODIES` is optional."""
    parts = MODELS_OF_MODE[mode]
    return (parts.naming,) if parts.locating is None else (parts.locating, parts.naming)


def missing_requirements(folder: Path, mode: Mode) -> str | None:
    """What the engine lacks, with remedies; None if it can run.

    Parameters
    ----------
    folder : the folder that holds TotalSegmentator's Dataset folders. Nothing is imported or hashed.
    """
    if missing := missing_packages(*_PACKAGES):
        return f"{', '.join(missing)} not installed: {INSTALL}, or set segmentation.engine to geometric"
    if absent := [
        f"Dataset{model.dataset}" for model in required_models(mode) if _find_folder(folder, model) is None
    ]:
        return (
            f"{', '.join(absent)} not in {folder}: run osteonode check --download, or name the folder that "
            "holds the weights (segmentation.weights, or TOTALSEG_WEIGHTS_PATH in the environment), or set "
            "segmentation.engine to geometric"
        )
    return None


def find_weights(folder: Path, mode: Mode) -> Mapping[WeightsModel, ModelFolder]:
    """The models of a mode, `BODIES` among them where it is there.

    Raises
    ------
    EngineUnavailable
        If a package or a model is missing, or one is of another version of TotalSegmentator.
    """
    if reason := missing_requirements(folder, mode):
        raise EngineUnavailable(ENGINE, reason)
    found = {}
    for model in (*required_models(mode), BODIES):
        if (place := _find_folder(folder, model)) is not None:
            found[model] = read_model_folder(place, ENGINE)
            _require_classes(model, found[model])
    return found


def class_map(model: WeightsModel) -> Mapping[int, str]:
    """Names of a model's values, as the installed TotalSegmentator has them."""
    from totalsegmentator.map_to_binary import class_map as whole  # noqa: PLC0415 - an extra
    from totalsegmentator.map_to_binary import class_map_5_parts  # noqa: PLC0415

    names: Mapping[int, str] = {**whole, **class_map_5_parts}[model.classes]
    return names


def _require_classes(model: WeightsModel, folder: ModelFolder) -> None:
    expected = len(class_map(model))
    if len(folder.classes) != expected:
        raise EngineUnavailable(
            ENGINE, f"{folder.path} names {len(folder.classes)} classes where its version has {expected}"
        )


def _find_folder(folder: Path, model: WeightsModel) -> Path | None:
    """TotalSegmentator's own layout: Dataset<id>_<name>/<trainer>__nnUNetPlans__3d_fullres."""
    places = sorted(folder.glob(f"Dataset{model.dataset}_*/*__nnUNetPlans__3d_fullres"))
    return places[0] if places else None


def verified_sha256(folder: Path, models: Sequence[ModelFolder]) -> Mapping[str, str]:
    """Hash of each file of the models, by its path below `folder`.

    Raises
    ------
    EngineUnavailable
        If there is a `CHECKSUMS`, and a file is not in it or has another digest.
    """
    stated = _checksums(folder)
    digests = {}
    for model in models:
        for file in model.files:
            name = file.relative_to(folder).as_posix()
            digests[name] = file_sha256(file)
            if stated is None:
                continue
            if name not in stated:
                raise EngineUnavailable(ENGINE, f"{folder / CHECKSUMS} does not name {name}")
            if stated[name] != digests[name]:
                raise EngineUnavailable(ENGINE, f"{file} is not the file that {folder / CHECKSUMS} names")
    return digests


def _checksums(folder: Path) -> dict[str, str] | None:
    """Digests by path below `folder`, as sha256sum writes them in any of its modes; None without a list."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return None
    lines = (line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip())
    # "*" marks binary mode, "./" is how find names files.
    return {
        PurePosixPath(name.removeprefix("*").strip()).as_posix(): digest.lower() for digest, name in lines
    }


def download_weights(folder: Path, mode: Mode) -> tuple[str, ...]:
    """Fetch what a mode lacks, `BODIES` included, with TotalSegmentator's own code, and note the hashes.

    TotalSegmentator publishes no hashes. The first download is what its server sent over TLS; from then on
    the files are held to `CHECKSUMS`, on this machine and wherever that file is copied along.

    Returns
    -------
    Names of the folders that are new.

    Raises
    ------
    EngineUnavailable
        If a package is missing, or the download fails.
    """
    if missing := missing_packages(*_PACKAGES):
        raise EngineUnavailable(ENGINE, f"{', '.join(missing)} not installed: {INSTALL}")
    new = []
    for model in (*required_models(mode), BODIES):
        if _find_folder(folder, model) is None:
            new.append(_download(folder, model))
    return tuple(new)


def _download(folder: Path, model: WeightsModel) -> str:
    """One dataset, unpacked beside the others first: what is interrupted leaves nothing that looks whole."""
    incoming = folder / ".incoming"
    rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        with totalsegmentator_home(incoming, weights=incoming):
            from totalsegmentator.libs import download_pretrained_weights  # noqa: PLC0415 - after the home

            download_pretrained_weights(model.dataset)
        place = _find_folder(incoming, model)
        if place is None:
            raise EngineUnavailable(ENGINE, f"the download of dataset {model.dataset} holds no such model")
        digests = {
            file.relative_to(incoming).as_posix(): file_sha256(file)
            for file in read_model_folder(place, ENGINE).files
        }
        before = _checksums(folder)
        lines = {**(_digests_of_all(folder) if before is None else before), **digests}
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))
        (folder / CHECKSUMS).write_text(text, "utf-8")
        place.parent.rename(folder / place.parent.name)
        return place.parent.name
    except (OSError, zipfile.BadZipFile) as error:  # requests' errors are OSErrors
        raise EngineUnavailable(ENGINE, f"dataset {model.dataset} could not be fetched: {error}") from error
    finally:
        rmtree(incoming, ignore_errors=True)


def _digests_of_all(folder: Path) -> dict[str, str]:
    """Of the models that were there before there was a list."""
    places = (_find_folder(folder, model) for model in (TOTAL_6_MM, TOTAL_3_MM, VERTEBRAE, BODIES))
    models = (read_model_folder(place, ENGINE) for place in places if place is not None)
    return {file.relative_to(folder).as_posix(): file_sha256(file) for one in models for file in one.files}


@contextlib.contextmanager
def totalsegmentator_home(home: Path, *, weights: Path) -> Iterator[None]:
    """Keep the files of TotalSegmentator's code in `home`, and its usage statistics off.

    Without a configuration TotalSegmentator creates one in the user's home and reports each run. The node
    calls no code that does so; this holds if that changes.

    Parameters
    ----------
    home : folder of its configuration; exists.
    weights : folder of its weights.
    """
    (home / "config.json").write_text(
        json.dumps(
            {"totalseg_id": "", "send_usage_stats": False, "prediction_counter": 0}
            | {"statistics_disclaimer_shown": True}
        ),
        "utf-8",
    )
    ours = {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(weights)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
