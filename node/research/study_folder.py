"""A folder that should hold one study's DICOM files."""

from __future__ import annotations

import filecmp
import hashlib
from dataclasses import dataclass
from pathlib import Path

from node.dicom.headers import read_headers, text_of


class NotOneStudy(Exception):
    """A folder without DICOM files, or with those of several studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFolder:
    instances: tuple[Path, ...]  # exact copies of an image count once
    damaged: tuple[Path, ...]  # called DICOM by their names, and not readable as such


def study_in(folder: Path) -> StudyFolder:
    """The study's files.

    Raises
    ------
    NotOneStudy
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    instances = [one for one in read_headers(files) if one.sop_class_uid]
    if not instances:
        raise NotOneStudy(f"{folder} holds no DICOM file")
    studies = sorted({text_of(instance.header, "StudyInstanceUID") for instance in instances})
    if len(studies) > 1:
        named = ", ".join(uid or "(empty)" for uid in studies)
        raise NotOneStudy(f"{folder} holds {len(studies)} studies, not one: {named}")
    kept: dict[str, Path] = {}
    copies = set()
    for instance in instances:
        first = kept.setdefault(text_of(instance.header, "SOPInstanceUID"), instance.path)
        if first != instance.path and filecmp.cmp(first, instance.path, shallow=False):
            copies.add(instance.path)
    readable = {one.path for one in instances}
    return StudyFolder(
        instances=tuple(one.path for one in instances if one.path not in copies),
        damaged=tuple(sorted(path for path in files if path.suffix == ".dcm" and path not in readable)),
    )


def content_sha256(study: StudyFolder, mask: Path | None) -> str:
    """Of the bytes of a study's images and of its mask, whatever their names: what its features come from.

    Parameters
    ----------
    mask : drawn outside the node; None, or no such file: none is counted in.
    """
    images = sorted(_file_sha256(path) for path in study.instances)
    drawn = [f"mask {_file_sha256(mask)}"] if mask is not None and mask.is_file() else []
    return hashlib.sha256("\n".join([*images, *drawn]).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
