"""nnU-Net v2 in process: a trained model folder, loaded once for any number of images.

nnU-Net's command starts two pools of processes for each image. A child of a Celery pool is daemonic and may
have no children, and starting them takes longer than a small image does; therefore its parts are called one
by one. torch and nnunetv2 are imported when a network is first used: in the process that uses it, after any
fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from segmentation.ct_volume import CtVolume, FloatArray, LabelMap, canonical
from segmentation.engines.name_checks import NetworkLabels, to_vertebrae
from segmentation.errors import EngineUnavailable
from segmentation.settings import CanalSettings, IdentitySettings
from segmentation.vertebrae import LABELS, EngineInfo, Vertebrae, no_vertebrae

CHECKPOINT = "checkpoint_final.pth"
INSTALL = "install it (make setup-totalsegmentator)"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and how a network runs.

    Attributes
    ----------
    device : "auto" (a CUDA GPU where there is one), "cpu", "cuda" or "cuda:1".
    threads : CPU threads; 0 leaves the number to torch.
    """

    device: str
    threads: int
    # On a processor: bfloat16 where it is safe, for half the time on one that has it. On a GPU nnU-Net always
    # mixes float16 in.
    mixed_precision: bool

    def provenance(self) -> Mapping[str, str | bool]:
        """The parameters that can change a voxel, for the results' provenance."""
        return {"device": self.device, "mixed_precision": self.mixed_precision}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A trained configuration as nnU-Net v2 leaves it: plans, data set and one checkpoint for each fold.

    Attributes
    ----------
    classes : value by name, without background.
    """

    path: Path
    folds: tuple[str, ...]
    classes: Mapping[str, int]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that determine the network's output."""
        checkpoints = (self.path / f"fold_{fold}" / CHECKPOINT for fold in self.folds)
        return (self.path / "plans.json", self.path / "dataset.json", *checkpoints)


def read_model_folder(path: Path, engine: str) -> ModelFolder:
    """Read a model folder's description, without its weights.

    Raises
    ------
    EngineUnavailable
        If it is no model folder, or its classes overlap (region-based training) and name no voxel uniquely.
    """
    folds = tuple(
        sorted(found.parent.name.removeprefix("fold_") for found in path.glob(f"fold_*/{CHECKPOINT}"))
    )
    if not folds or not (path / "plans.json").is_file():
        raise EngineUnavailable(engine, f"{path} holds no plans.json or no fold_*/{CHECKPOINT}")
    try:
        labels = json.loads((path / "dataset.json").read_text("utf-8"))["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise EngineUnavailable(engine, f"{path / 'dataset.json'} cannot be read: {error}") from error
    if not all(isinstance(value, int) for value in labels.values()):
        raise EngineUnavailable(engine, f"{path}: its classes are regions that overlap")
    return ModelFolder(
        path=path, folds=folds, classes={name: value for name, value in labels.items() if value}
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def combined_sha256(digests: Mapping[str, str]) -> str:
    """One hash of several files, named by their hashes: of lines "hash  name" as sha256sum writes them."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def missing_packages(*names: str) -> tuple[str, ...]:
    """Those of the packages that are not installed. Imports none of them."""
    return tuple(name for name in names if find_spec(name) is None)


class Network:
    """One trained model. Loads its weights on first use and keeps them.

    Parameters
    ----------
    tile_step : how far tiles move, as a share of their size.
    orientation : where the model's axes x, y, z run: "RAS" for NIfTI as nibabel's canonical form has it.
    """

    def __init__(
        self, folder: ModelFolder, compute: Compute, *, tile_step: float = 0.5, orientation: str = "RAS"
    ) -> None:
        self._folder = folder
        self._compute = compute
        self._tile_step = tile_step
        # The canonical frame's axes (z, y, x) run towards superior, posterior and left.
        self._flipped = tuple(
            axis for axis, way in ((2, "R"), (1, "A"), (0, "I")) if way in orientation.upper()
        )
        self._predictor: Any = None

    def label(self, hu: FloatArray, spacing_mm: tuple[float, float, float]) -> LabelMap:
        """The class of each voxel.

        Parameters
        ----------
        hu : shape (z, y, x), in the canonical frame.
        spacing_mm : along (z, y, x). Where it is the model's own, nothing is resampled.

        Returns
        -------
        Values of the model's classes, shape of `hu`. From voxels of another size they come back by nearest
        neighbour, not by interpolated probabilities: as TotalSegmentator does it, unlike nnUNetv2_predict.
        """
        with _silenced():
            predictor = self.load()
            plans, configuration = predictor.plans_manager, predictor.configuration_manager
            data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
                np.flip(hu, self._flipped)[None],
                None,
                {"spacing": list(spacing_mm)},
                plans,
                configuration,
                predictor.dataset_json,
            )
            answered = self._tiled(predictor, data)
        labels = np.zeros(properties["shape_before_cropping"], np.uint8)
        inner = tuple(slice(*span) for span in properties["bbox_used_for_cropping"])
        labels[inner] = resample_nearest(answered, properties["shape_after_cropping_and_before_resampling"])
        return np.ascontiguousarray(np.flip(labels.transpose(plans.transpose_backward), self._flipped))

    def load(self) -> Any:
        """nnU-Net's predictor with its weights, loaded on the first call and kept.

        Raises
        ------
        EngineUnavailable
            If a GPU is configured and there is none.
        """
        if self._predictor is None:
            with _silenced():
                self._predictor = self._loaded()
        return self._predictor

    def _loaded(self) -> Any:
        import torch  # noqa: PLC0415 - seconds, and never before a fork
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

        if self._compute.threads:
            torch.set_num_threads(self._compute.threads)
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        wanted = ("cuda" if gpus else "cpu") if self._compute.device == "auto" else self._compute.device
        device = torch.device(wanted)
        if device.type == "cuda" and (device.index or 0) >= gpus:
            raise EngineUnavailable("nnunet", f"device {wanted} is configured, and torch finds no such GPU")
        predictor = nnUNetPredictor(
            tile_step_size=self._tile_step,
            use_mirroring=False,  # eight times the work; TotalSegmentator's models are trained without
            perform_everything_on_device=device.type == "cuda",
            device=device,
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(
            str(self._folder.path), use_folds=self._folder.folds, checkpoint_name=CHECKPOINT
        )
        if device.type == "cpu":  # a quarter faster at full size, with the same classes: bench/network.py
            predictor.network.to(memory_format=torch.channels_last_3d)
        return predictor

    def _tiled(self, predictor: Any, data: FloatArray) -> LabelMap:
        """Labels at the model's spacing: the mean over the folds, the strongest class."""
        import torch  # noqa: PLC0415 - see `_loaded`

        mixed = self._compute.mixed_precision and predictor.device.type == "cpu"
        logits = None
        for fold in predictor.list_of_parameters:
            if len(predictor.list_of_parameters) > 1:
                predictor.network.load_state_dict(fold)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                one = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
            logits = one if logits is None else logits.add_(one)
        assert logits is not None
        # Class by class: torch's argmax over the first axis takes twice the time, and numpy's ten times.
        strongest = logits[0].clone()
        labels = torch.zeros(strongest.shape, dtype=torch.uint8, device=logits.device)
        for value in range(1, len(logits)):
            labels.masked_fill_(logits[value] > strongest, value)
            torch.maximum(strongest, logits[value], out=strongest)
        found: LabelMap = labels.cpu().numpy()
        return found


def resample_nearest(labels: LabelMap, shape: tuple[int, int, int]) -> LabelMap:
    """The same block of space on another grid, by nearest neighbour; the block's outer faces stay in place.

    Parameters
    ----------
    shape : (z, y, x) of the result.
    """
    if labels.shape == tuple(shape):
        return labels
    index = [
        np.minimum(((np.arange(size) + 0.5) * have / size).astype(int), have - 1)
        for size, have in zip(shape, labels.shape, strict=True)
    ]
    return labels[np.ix_(*index)]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Discard nnU-Net's progress on standard output, which the node uses itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class NnunetEngine:
    """A `Segmenter` made of any nnU-Net v2 model that names vertebrae.

    Parameters
    ----------
    folder : holds plans.json, dataset.json and fold_*/.
    naming : from a class (its name, or its value as text) to a level, "sacrum" or "S1"; empty where the class
        names are levels themselves, with or without "vertebrae_" before them.
    orientation : see `Network`.

    Raises
    ------
    EngineUnavailable
        If nnU-Net is not installed, the folder is no model, or no class is a vertebra.
    """

    def __init__(
        self,
        folder: Path,
        naming: Mapping[str, str],
        compute: Compute,
        *,
        orientation: str = "RAS",
        identity: IdentitySettings | None = None,
        canal: CanalSettings | None = None,
    ) -> None:
        self._identity = identity
        self._canal = canal
        if missing := missing_packages("torch", "nnunetv2"):
            raise EngineUnavailable("nnunet", f"{', '.join(missing)} is not installed: {INSTALL}")
        model = read_model_folder(folder, "nnunet")
        self._values = resolve_classes(model.classes, naming)
        self._network = Network(model, compute, orientation=orientation)
        digests = {str(file.relative_to(folder)): file_sha256(file) for file in model.files}
        self._info = EngineInfo(
            name="nnunet",
            version=version("nnunetv2"),
            model_free=False,
            weights_sha256=combined_sha256(digests),
            parameters={
                "classes": ", ".join(f"{value}={name}" for value, name in sorted(self._values.items())),
                "folds": ", ".join(model.folds),
                "orientation": orientation,
                **compute.provenance(),
            },
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def load(self) -> None:
        """Load the weights now, not with the first image."""
        self._network.load()

    def segment(self, volume: CtVolume) -> Vertebrae:
        """Label the vertebral bodies of `volume`; see `segmentation.engines.Segmenter`."""
        turned, turn = canonical(volume)
        answered = self._network.label(turned.hu, turned.grid.spacing_mm)
        labels = to_level_labels(answered, self._values)
        if not labels.any():
            return no_vertebrae(volume, self.info)
        whole = tuple(slice(0, size) for size in labels.shape)
        return to_vertebrae(
            volume,
            NetworkLabels(
                turned=turned, turn=turn, box=(whole[0], whole[1], whole[2]), labels=labels, bodies=None
            ),
            self.info,
            self._identity,
            self._canal,
        )


def resolve_classes(classes: Mapping[str, int], naming: Mapping[str, str]) -> Mapping[int, str]:
    """Levels by the model's values.

    Raises
    ------
    EngineUnavailable
        If a class or a level in `naming` does not exist, or no class is a vertebra.
    """
    if not naming:
        plain = {name.removeprefix("vertebrae_").removeprefix("vertebra_"): v for name, v in classes.items()}
        values = {value: name for name, value in plain.items() if name in LABELS}
    else:
        known = {**classes, **{str(value): value for value in classes.values()}}
        if unknown := sorted(set(naming) - set(known)):
            raise EngineUnavailable("nnunet", f"the model has no class {', '.join(unknown)}")
        if unknown := sorted(set(naming.values()) - set(LABELS)):
            raise EngineUnavailable("nnunet", f"unknown level {', '.join(unknown)}")
        values = {known[one]: level for one, level in naming.items()}
    if not set(values.values()) - {"sacrum", "S1"}:
        raise EngineUnavailable("nnunet", "none of the model's classes represents a vertebra: name them")
    return values


def to_level_labels(answered: LabelMap, values: Mapping[int, str]) -> LabelMap:
    """A model's values as values of `LABELS`; values without a level become 0.

    Parameters
    ----------
    answered : uint8, values of the model.
    values : levels by value.
    """
    table = np.zeros(256, np.uint8)
    for value, name in values.items():
        table[value] = LABELS[name]
    return table[answered]
