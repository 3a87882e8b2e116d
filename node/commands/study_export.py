"""Folders in which a developer reads what became of a study, and repeats it.

`osteonode process --keep-artefacts` leaves one of a run, `osteonode studies export` one of a node's study.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import typer

from config.settings import Settings
from node import __version__
from node.dicom.deidentification import Deidentification
from node.dicom.seg.vertebra_masks import segmentations_among, write_mask
from node.pipeline.artefacts import (
    REPORT,
    SEGMENTATION,
    TIMINGS,
    MemoryArtefacts,
    from_json,
    segmentation_from_bytes,
)
from node.pipeline.ports import STEPS, Step
from node.pipeline.result_basis import active_model, computing_packages
from node.store.store import Store
from node.study_report import Laboratory, Report
from scoring.models.card import card_document
from segmentation.vertebrae import label_of

README, SETTINGS, VERSIONS, DATABASE = "README.txt", "settings.json", "versions.json", "database.json"
CONFIGURATION, LABORATORY, IMAGES, SITE = "osteonode.toml", "laboratory.csv", "images", "site"
VERTEBRAE_NIFTI, REGIONS_NIFTI = "vertebrae.nii.gz", "regions.nii.gz"
_TITLE = "Osteonode: one study, step by step"
_FOLDERS = {step: f"{number}-{step.value}" for number, step in enumerate(STEPS, start=1)}
_PACKAGES = ("pynetdicom", "pylibjpeg", "pyjpegls", "torch", "nnunetv2", "TotalSegmentator")
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def write_artefact(folder: Path, step: Step, name: str, content: bytes) -> None:
    """Put an artefact into the folder of its step; a label map in a form for viewers of images, too."""
    place = folder / _FOLDERS[step]
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    if name == SEGMENTATION:
        found = segmentation_from_bytes(content)
        grid = found.vertebrae.grid
        write_mask(place / VERTEBRAE_NIFTI, found.vertebrae.bodies, grid)
        regions = np.zeros(grid.shape, np.uint8)
        for one in found.regions:
            regions[one.bmd] = label_of(one.level)
        write_mask(place / REGIONS_NIFTI, regions, grid)


class KeptArtefacts(MemoryArtefacts):
    """Artefacts of a run that are written into a folder as they are made, so that an error leaves them there.

    Parameters
    ----------
    folder : made here, and emptied of what an earlier run left.

    Raises
    ------
    typer.BadParameter
        If the folder holds anything else, or cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        _make_folder(folder)
        self._folder = folder
        self._step = STEPS[0]

    def begin(self, step: Step) -> None:
        """What is put from now on was made by this step."""
        self._step = step

    def put(self, name: str, content: bytes) -> None:
        super().put(name, content)
        write_artefact(self._folder, self._step, name, content)


def _make_folder(folder: Path) -> None:
    option = "--keep-artefacts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            return
        note = folder / README
        if not note.is_file() or not note.read_text("utf-8").startswith(_TITLE):
            raise typer.BadParameter(f"{folder} holds other files: name an empty folder", param_hint=option)
        for name in (*_FOLDERS.values(), README, SETTINGS, VERSIONS, "run.json"):
            place = folder / name
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {folder}: {error.strerror}", param_hint=option) from error


def describe_run(folder: Path, settings: Settings, run: Mapping[str, object]) -> None:
    """Write what a run is given: `settings.json`, `versions.json`, `run.json` and `README.txt`.

    Parameters
    ----------
    run : inputs beside the settings, as JSON has them.
    """
    _write_json(folder / SETTINGS, settings_in_force(settings))
    _write_json(folder / VERSIONS, versions_of(settings))
    _write_json(folder / "run.json", run)
    (folder / README).write_text(f"{_TITLE}\n\n{_RUN_FILES}\n{_STEP_FILES}", "utf-8")


def settings_in_force(settings: Settings) -> dict[str, Any]:
    """Every setting as JSON has it; names and passwords in URLs are left out."""
    text = _SECRET_IN_URL.sub("...", settings.model_dump_json())
    found: dict[str, Any] = json.loads(text)
    return found


def versions_of(settings: Settings) -> dict[str, str]:
    """Of this software, of Python and of every installed package that numbers or pixels rest on."""
    found = {"osteonode": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in (*computing_packages(settings), *_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


_RUN_FILES = """\
It holds the patient's identity, unless the images that were processed had none.

settings.json  every setting in force
versions.json  this software and the packages that numbers rest on
run.json       the images, and what else the command was given
"""

_STEP_FILES = """\
Each step reads what the steps before it left, and the images.

1-select   selection.json      who, which series, what its phantom reads, why other series are not measured
2-segment  segmentation.npz    label map and regions, as the next step reads them (slices.npz: single slices)
           vertebrae.nii.gz    the label map for a viewer of images; process takes it as --mask
           regions.nii.gz      the voxels in which each level's density is read
           27 is L5, 28 L4, 29 L3, 30 L2, 31 L1, 32 T12
3-score    measurements.json   every number, before findings withhold any
4-report   report.json         what is reported; result.json is made of it
           objects.json        the DICOM objects, in the order they are sent; then these, and pictures
           timings.json        seconds of each step
"""


# A study of the node.


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedStudy:
    """What was written, for the command to say."""

    images: int
    left_out: int  # received files that are neither CT images nor segmentations, or cannot be read
    artefacts: int
    command: str  # that repeats the study, from within the folder


def export_study(
    store: Store, settings: Settings, study_instance_uid: str, folder: Path, *, with_identity: bool
) -> ExportedStudy:
    """Write everything that a developer needs to repeat a study with `osteonode process`.

    Parameters
    ----------
    folder : made here, whole or not at all; must not exist, or be empty.
    with_identity : whether files are copied as they came. Otherwise see `Deidentification`.

    Raises
    ------
    NoSuchStudy, StoreUnavailable
    IdentityLeft
        If a value of the patient's identity would stand in a file.
    FileExistsError
        If `folder` holds anything.
    """
    rows = store.overview.rows(study_instance_uid)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files: name an empty folder")
    part = folder.with_name(f"{folder.name}.part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        made = _Export(store, settings, rows, part, with_identity=with_identity).write(study_instance_uid)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        if part.exists():
            shutil.rmtree(part)
    return made


_SITE_FILES = (
    "phantoms/*.toml", "references/*.toml", "models/*.json", "phrases/*.ftl", "radiomics.yaml",
    "findings.toml",
)  # fmt: skip
# Of a site's network, or of whoever sent: no part of what a developer needs.
_NOT_WITHOUT_IDENTITY = frozenset({
    "avoids", "called_ae", "calling_ae", "completeness", "identity_hmac", "image_sha256", "lease_owner",
    "patient_hmac", "path", "sha256",
})  # fmt: skip


class _Export:
    """One study's folder while it is written."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        folder: Path,
        *,
        with_identity: bool,
    ) -> None:
        self._store = store
        self._settings = settings
        self._rows = rows
        self._folder = folder
        self._hiding = None if with_identity else Deidentification()
        if self._hiding is not None:
            names = [one.name for one in settings.destinations]
            self._hiding.rename({name: f"destination {n}" for n, name in enumerate(names, start=1)})
            self._hiding.rename({one.ae_title: "peer" for one in settings.peers})

    def write(self, uid: str) -> ExportedStudy:
        images, left_out = self._images(uid)
        generation = max((row["generation"] for row in self._kept_artefacts()), default=0)
        artefacts = self._artefacts(uid, generation)
        report = None
        if REPORT in artefacts:
            report = from_json(Report, self._store.artefacts.get(uid, generation, REPORT))
        self._configuration(report)
        laboratory = report is not None and self._laboratory(report)
        self._text(DATABASE, _json(self._plain_rows()))
        self._text(VERSIONS, _json(versions_of(self._settings)))
        if self._hiding is None:
            self._text(SETTINGS, _json(settings_in_force(self._settings)))
        command = f"osteonode process {IMAGES} --out result --config {CONFIGURATION}"
        if laboratory:
            command += f" --clinical {LABORATORY}"
        if report is not None:
            command += f" --issued-at {report.issued_at.isoformat()}"
        self._text(README, self._note(command, images=images, left_out=left_out, report=report))
        return ExportedStudy(images=images, left_out=left_out, artefacts=len(artefacts), command=command)

    def _text(self, name: str, content: str) -> None:
        if self._hiding is not None:
            self._hiding.require_no_identity(content.encode())
        place = self._folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, "utf-8")

    def _images(self, uid: str) -> tuple[int, int]:
        place = self._folder / IMAGES
        place.mkdir()
        written = left_out = 0
        for path in self._received(uid):
            content = path.read_bytes() if self._hiding is None else self._hiding.image(path)
            if content is None:
                left_out += 1
                continue
            written += 1
            (place / f"{written:05d}.dcm").write_bytes(content)
        return written, left_out

    def _received(self, uid: str) -> Iterable[Path]:
        """In the order in which the steps read them; without identity, of segmentations what is measured."""
        paths = sorted(self._store.instances.paths(uid))
        if self._hiding is None:
            return paths
        measured = set(segmentations_among(paths, self._mask_from()))
        segmentations = set(segmentations_among(paths, {"manufacturer": "*"}))
        return [path for path in paths if path not in segmentations or path in measured]

    def _mask_from(self) -> dict[str, str]:
        return {str(key): pattern for key, pattern in self._settings.segmentation.mask_from.items()}

    def _kept_artefacts(self) -> list[Mapping[str, Any]]:
        return [row for row in self._rows["artefacts"] if row["removed_at"] is None]

    def _artefacts(self, uid: str, generation: int) -> set[str]:
        """Of the latest generation; without identity neither DICOM objects nor pictures, which name it."""
        written = set()
        for row in self._kept_artefacts():
            name, step = str(row["name"]), Step(row["step"])
            if row["generation"] != generation:
                continue
            content = self._store.artefacts.get(uid, generation, name)
            if self._hiding is not None:
                hidden = _without_identity(name, content, self._hiding)
                if hidden is None:
                    continue
                content = hidden
            write_artefact(self._folder, Step.REPORT if name == TIMINGS else step, name, content)
            written.add(name)
        return written

    def _plain_rows(self) -> Any:
        rows = {name: [dict(row) for row in found] for name, found in self._rows.items()}
        values = json.loads(_json(rows))
        if self._hiding is None:
            return values
        for found in values.values():
            for row in found:
                for column in _NOT_WITHOUT_IDENTITY & row.keys():
                    del row[column]
        return self._hiding.values(values)

    def _configuration(self, report: Report | None) -> None:
        """Settings that move a result, and the files of the site that they name."""
        settings = self._settings
        values = settings.model_dump(
            mode="json",
            include={
                "limits",
                "selection",
                "segmentation",
                "calibration",
                "scoring",
                "quality",
                "followup",
                "clinical",
            },
        )
        del values["clinical"]["csv"]
        for of_machine in ("weights", "nnunet_model", "device", "threads"):
            del values["segmentation"][of_machine]
        engine = report.provenance.engine if report is not None else None
        if engine is not None and engine.name in ("geometric", "totalsegmentator", "nnunet", "mask"):
            values["segmentation"]["engine"] = engine.name
        if self._hiding is not None:
            values["selection"]["qct_ae_titles"] = []
            values["quality"]["phantom_patient_ids"] = []
            if values["segmentation"]["mask_from"]:  # of the segmentations, what is measured alone is here
                values["segmentation"]["mask_from"] = {"manufacturer": "*"}
        values["node"] = {"language": settings.node.language}
        if self._site_files():
            values["node"]["site"] = SITE
        self._text(CONFIGURATION, _toml(values))

    def _site_files(self) -> int:
        """The site's own phantoms, references, model card, feature settings, findings and phrases."""
        site, written = self._settings.node.site_folder, 0
        activation = active_model(self._settings).activation
        card = f"models/{self._settings.scoring.model}.json"
        if activation is not None:
            self._text(f"{SITE}/{card}", _json(card_document(activation.card)))
            written += 1
        if site is None:
            return written
        for pattern in _SITE_FILES:
            for path in sorted(site.glob(pattern)):
                name = path.relative_to(site).as_posix()
                if activation is not None and name == card:
                    continue
                self._text(f"{SITE}/{name}", path.read_text("utf-8"))
                written += 1
        return written

    def _laboratory(self, report: Report) -> bool:
        """The values in force when the report was made, as a file for `--clinical`."""
        found, study = report.laboratory, report.study
        rows = list(_laboratory_rows(found))
        if not rows:
            return False
        patient_id, issuer = study.patient_id, study.issuer_of_patient_id
        if self._hiding is not None:
            patient_id, issuer = self._hiding.patient_id(patient_id), ""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["patient_id", "issuer", "date", "alp_u_l", "homocysteine_umol_l"])
        writer.writerows([patient_id, issuer, *row] for row in rows)
        self._text(LABORATORY, table.getvalue())
        return True

    def _note(self, command: str, *, images: int, left_out: int, report: Report | None) -> str:
        jobs = ", ".join(str(row["job_id"]) for row in self._rows["jobs"]) or "none"
        told = [_TITLE, ""]
        if self._hiding is None:
            told += ["This folder contains the patient's identity: handle it like the images.", ""]
        else:
            told += [_HIDDEN, ""]
        told += ["To repeat the study, in this folder:", "", f"    {command}", ""]
        told += [f"images/         {images} received files; {left_out} others are excluded", _EXPORT_FILES]
        told += [f"Lines of the node's log about it have job_id {jobs}.", ""]
        if not images:
            told += [
                "This folder contains no images: retention has removed them. The study cannot be repeated.",
                "",
            ]
        if report is not None and report.calibration is not None and not report.calibration.rods:
            told += [_NO_PHANTOM, ""]
        return "\n".join([*told, _STEP_FILES])


_HIDDEN = """\
It names no patient, physician or institution: docs/operation.md says what was taken away and what stayed.
UIDs and the Patient ID are others than in the archive. What is burnt into pixels was not looked for: look at
the images before you pass them on. DICOM objects and pictures that the node made are not here, for they name
the patient; the command makes them anew."""

_EXPORT_FILES = """\
osteonode.toml  the settings that move a result (weights, devices, addresses are the machine's own)
site/           files of the site's own that these name, if there are any
laboratory.csv  laboratory values that were in force, if there were any
database.json   the rows of the node's database about this study
versions.json   the software of the node
"""

_NO_PHANTOM = """\
The calibration is not that of a phantom in this study. If it is an earlier scan's, `process` cannot repeat
it, for it remembers no scans; database.json and measurements.json say which was taken."""


def _laboratory_rows(found: Laboratory) -> Iterable[tuple[str, str, str]]:
    if found.alp_u_l is not None and found.alp_taken_on is not None:
        yield found.alp_taken_on.isoformat(), str(found.alp_u_l), ""
    if found.homocysteine_umol_l is not None and found.homocysteine_taken_on is not None:
        yield found.homocysteine_taken_on.isoformat(), "", str(found.homocysteine_umol_l)


def _without_identity(name: str, content: bytes, hiding: Deidentification) -> bytes | None:
    """An artefact without identity; None where it cannot be had, as of pictures."""
    if name.endswith(".json"):
        values = hiding.values(_unnamed(json.loads(content), hiding))
        plain = json.dumps(values, indent=2, ensure_ascii=False).encode()
        hiding.require_no_identity(plain)
        return plain
    if name.endswith(".npz"):
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        described = hiding.text(arrays["description"].tobytes().decode())
        hiding.require_no_identity(described.encode())
        arrays["description"] = np.frombuffer(described.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
    return None


def _unnamed(values: Any, hiding: Deidentification) -> Any:
    """JSON values without those that name a patient by their key."""
    if isinstance(values, list):
        return [_unnamed(one, hiding) for one in values]
    if not isinstance(values, dict):
        return values
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if key == "patient_id" and isinstance(value, str):
            plain[key] = hiding.patient_id(value)
        elif key in ("issuer_of_patient_id", "accession_number") and isinstance(value, str):
            plain[key] = ""
        elif key == "birth_date":
            plain[key] = None
        else:
            plain[key] = _unnamed(value, hiding)
    return plain


def _write_json(path: Path, value: object) -> None:
    path.write_text(_json(value), "utf-8")


def _json(value: object) -> str:
    def plain(other: object) -> str:
        if isinstance(other, date):
            return other.isoformat()
        if isinstance(other, Path):
            return str(other)
        raise TypeError(f"{type(other).__name__} has no JSON form")

    return json.dumps(value, indent=2, ensure_ascii=False, default=plain) + "\n"


def _toml(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Tables of plain values as TOML; what is None stays out, for TOML has no word for it."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_toml_value(value)}" for key, value in plain.items() if value is not None]
    head = [f"[{'.'.join(map(_key, path))}]"] if path else []
    text = "\n".join([*head, *lines, ""]) if path else ""
    inner = [(key, value) for key, value in tables.items() if isinstance(value, Mapping)]
    return text + "".join("\n" + _toml(value, (*path, key)) for key, value in inner)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
