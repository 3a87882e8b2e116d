"""Extraction of many studies' features into one table, in parallel; existing rows are kept."""

from __future__ import annotations

import csv
import filecmp
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from config.catalog import load_radiomics_settings_text
from config.findings import Finding, Output, withheld
from config.phrases import error_in_words
from config.settings import ConfigurationError, Settings, load_settings
from node.csv_table import TableUnreadable, parse_table
from node.dicom.ct.headers import read_headers
from node.dicom.errors import MaskUnreadable
from node.dicom.header_text import text_of
from node.pipeline.artefacts import Segmentation, SelectionArtefact
from node.pipeline.engine import ResolvedEngine, resolve_engine
from node.pipeline.ports import FeatureRequest
from node.pipeline.steps.judge import ReportingRules, judge_study, load_reporting_rules, provenance_of
from node.pipeline.steps.score import FEATURE_LEVEL, Measurements, score
from node.pipeline.steps.segment import segment
from node.pipeline.steps.select import select
from node.pipeline.study_run import Arrival, StudyImages
from node.study_report import Laboratory, SeriesFacts
from scoring.density.bmd import BmdResult
from scoring.radiomics import feature_names, parse_settings
from segmentation.errors import SegmentationError
from segmentation.vertebrae import EngineInfo

# A folder that should hold one study's DICOM files.


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


ABOUT = (
    "study", "study_instance_uid", "series_instance_uid", "level", "engine", "kvp", "energy", "beam_filter",
    "slice_spacing_mm", "pixel_spacing_mm", "kernel", "equivalent", "bmd_mg_cm3", "findings", "reason",
    "settings_sha256", "content_sha256",
)  # fmt: skip
Row = dict[str, str]
RowsOf = Callable[[Sequence[str], "Extraction", str], Iterator[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """How features are to be computed.

    Attributes
    ----------
    mask : name of a mask in each study's folder; None: the settings' engine draws.
    jobs : studies at a time.
    """

    settings: Settings
    mask: str | None
    jobs: int


def extract_features(
    studies: Sequence[Path], out: Path, how: Extraction, console: Console, rows_of: RowsOf | None = None
) -> tuple[Row, ...]:
    """Rows of all studies, in their order; the table stays at `out`, settings and versions at `out`.json.

    A row that equal settings left at `out` is kept while the study's images and mask are the same bytes, and
    so are rows of studies that are not asked for; a study without features is tried again. While it runs,
    rows go to `out`.partial as they are done: a run that was stopped is gone on with.

    Parameters
    ----------
    studies : folders; the table names them by their resolved paths.
    rows_of : computes the rows of studies, in any order, given the settings' hash; by processes if None.

    Raises
    ------
    ConfigurationError
        If the engine lacks something, or a study with features is gone: they could not be made again.
    """
    text, _ = load_radiomics_settings_text(how.settings.node.site_folder)
    names = feature_names(parse_settings(text))
    made_with = _made_with(how, text)
    sha256 = made_with_sha256(made_with)
    partial = out.with_name(out.name + ".partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = {row["study"]: row for row in (*_kept(out, names, sha256), *_kept(partial, names, sha256))}
    asked = tuple(dict.fromkeys(str(folder.resolve()) for folder in studies))
    _require_there([name for name in asked if name in rows and not rows[name]["reason"]], out)
    todo = [name for name in asked if not _stands(rows.get(name), how.mask)]
    if len(todo) < len(asked):
        console.print(
            f"{len(asked) - len(todo)} of {len(asked)} studies were done before: equal files, equal settings"
        )
    columns = [*ABOUT, *names]
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows.values())
        file.flush()  # a run stopped again before its first new row keeps all that were done
        for row in _progress(console, (rows_of or by_processes)(todo, how, sha256), len(todo)):
            writer.writerow(row)
            file.flush()
            rows[row["study"]] = row
    _write(out, columns, [*(rows[name] for name in asked), *(r for n, r in rows.items() if n not in asked)])
    out.with_name(out.name + ".json").write_text(json.dumps(made_with, indent=2) + "\n", "utf-8")
    partial.unlink()
    return tuple(rows[name] for name in asked)


def settings_sha256(how: Extraction) -> str:
    """Of everything that a row depends on besides the images.

    Raises
    ------
    ConfigurationError
        If the engine lacks something.
    """
    text, _ = load_radiomics_settings_text(how.settings.node.site_folder)
    return made_with_sha256(_made_with(how, text))


def made_with_sha256(made_with: Mapping[str, Any]) -> str:
    """SHA-256 of what a table was made with, by content and not by layout; each row carries it."""
    return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()


def _made_with(how: Extraction, radiomics: str) -> dict[str, Any]:
    """What the numbers depend on besides the images."""
    try:
        info = resolve_engine(how.settings.segmentation).info if how.mask is None else None
    except (SegmentationError, MaskUnreadable) as error:
        raise ConfigurationError(error_in_words(error)) from error
    used = provenance_of(how.settings, load_reporting_rules(how.settings), info)
    return {
        "software": f"{used.software} {used.version}",
        "engine": f"{info.name} {info.version}" if info else f"mask {how.mask}",
        "weights_sha256": info.weights_sha256 if info else None,
        "configuration_sha256": used.configuration_sha256,
        "radiomics_settings_sha256": used.radiomics_settings_sha256,
        "radiomics_settings": radiomics,
        "packages": dict(used.packages),
    }


def _kept(path: Path, names: Sequence[str], sha256: str) -> Iterator[Row]:
    """Rows that equal settings made; what a killed run left without the end of its line is none.

    Nor is a row that does not fit the head: its study is measured anew.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    try:
        table = parse_table(text[: text.rfind("\n") + 1])
    except TableUnreadable:
        return
    if table.columns != (*ABOUT, *names):
        return
    for row in table.rows:
        if row.cells["settings_sha256"] == sha256:
            yield dict(row.cells)


def _require_there(studies: Sequence[str], table: Path) -> None:
    """A row must not give way to "no such folder" because a disk is not there."""
    gone = [name for name in studies if not Path(name).is_dir()]
    if gone:
        raise ConfigurationError(
            f"{len(gone)} studies with features in {table} are gone, the first being {gone[0]}: "
            "restore them, or use the table as it is with --features"
        )


def _stands(row: Row | None, mask: str | None) -> bool:
    """Whether a kept row has features, and those of the files that are there now."""
    if row is None or row["reason"]:
        return False
    return row["content_sha256"] == study_content_sha256(row["study"], mask)


def study_content_sha256(name: str, mask: str | None) -> str:
    """SHA-256 of a study's images and mask as they are now.

    Parameters
    ----------
    name : the study's folder.
    mask : name of a mask file in it.

    Returns
    -------
    "" where the folder does not hold exactly one study.
    """
    folder = Path(name)
    try:
        return content_sha256(study_in(folder), folder / mask if mask else None)
    except NotOneStudy:
        return ""


def by_processes(studies: Sequence[str], how: Extraction, sha256: str) -> Iterator[Row]:
    """Compute rows in processes of this machine, and yield each when it is done: pyradiomics uses one core.

    Parameters
    ----------
    studies : folders.
    sha256 : of what the table is made with.
    """
    if not studies:
        return
    sections = how.settings.model_dump(mode="json")  # the class that was loaded cannot be sent
    pool = ProcessPoolExecutor(min(how.jobs, len(studies)), mp_context=get_context("spawn"))
    try:
        for done in as_completed([pool.submit(_row, name, sections, how.mask, sha256) for name in studies]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _row(name: str, sections: dict[str, Any], mask: str | None, sha256: str) -> Row:
    return study_row(name, load_settings(**sections), mask, sha256)


def reason_row(name: str, sha256: str, reason: str) -> Row:
    """The row of a study without features."""
    about = {"study": name, "level": FEATURE_LEVEL, "settings_sha256": sha256, "reason": reason}
    return dict.fromkeys(ABOUT, "") | about


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFeatures:
    """One study's features, or why it has none.

    Attributes
    ----------
    measured : at the features' level.
    """

    study_instance_uid: str
    series: SeriesFacts | None
    engine: EngineInfo | None
    equivalent: str | None
    measured: BmdResult | None
    values: Mapping[str, float] | None
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """Why there are no features, in the findings' words; empty where there are."""
        if self.values is not None:
            return ""
        told = [one.text for one in self.findings if withheld([one], Output.FEATURES, [FEATURE_LEVEL])]
        return " ".join(told) or f"{FEATURE_LEVEL} was not found"


def study_features(
    images: StudyImages, settings: Settings, engine: Callable[[], ResolvedEngine]
) -> StudyFeatures:
    """Select, segment and measure one study, with every feature that the settings name.

    Parameters
    ----------
    engine : gives what draws the vertebrae; called where there is a volume to draw in.
    """
    text, _ = load_radiomics_settings_text(settings.node.site_folder)
    names = feature_names(parse_settings(text))
    selection = select(images, settings, arrival=Arrival(declared_qct=True), scanners_watched=False)
    assert isinstance(selection, SelectionArtefact), "a study that was asked for is always selected from"
    segmentation, measurements = Segmentation(), Measurements()
    if selection.is_identified:
        chosen = images.read_chosen(selection)
        segmentation = segment(
            selection, chosen, files=images.paths, engine=engine, settings=settings.segmentation
        )
        scored = score(selection, chosen, segmentation, settings, declared_qct=True, feature_names=names)
        assert isinstance(scored, Measurements), "no scanner is watched here"
        measurements = scored
    judgement = judge_study(
        selection, measurements, Laboratory(), _without_model(load_reporting_rules(settings))
    )
    level = next((one for one in judgement.levels if one.name == FEATURE_LEVEL), None)
    return StudyFeatures(
        study_instance_uid=selection.study.study_instance_uid,
        series=selection.series,
        engine=segmentation.volume.vertebrae.engine if segmentation.volume else None,
        equivalent=measurements.calibration.equivalent if measurements.calibration else None,
        measured=level.measured if level else None,
        values=judgement.features,
        findings=judgement.findings,
    )


def _without_model(basis: ReportingRules) -> ReportingRules:
    """A cohort's features serve to make a model: what an earlier one thinks of them is no matter."""
    return replace(basis, card=None, card_refusal=None)


def study_row(name: str, settings: Settings, mask: str | None, sha256: str) -> Row:
    """Row of one study. A study that cannot be read gets its reason there and does not stop the others.

    Parameters
    ----------
    name : the study's folder.
    mask : name of a mask file in it; None: the settings' engine segments.
    sha256 : of what the table is made with.
    """
    blank = reason_row(name, sha256, "")
    folder = Path(name)
    drawn = folder / mask if mask else None
    try:
        study = study_in(folder)
        # Before the features: files that change meanwhile leave a row that the next run makes again.
        blank["content_sha256"] = content_sha256(study, drawn)
        found = study_features(
            StudyImages(study.instances, settings), settings, lambda: _engine(settings, drawn)
        )
    except (NotOneStudy, SegmentationError, MaskUnreadable, FileNotFoundError) as error:
        return blank | {"reason": error_in_words(error)}
    return blank | _about(found) | _texts(found.values or {})


_engines: dict[str, ResolvedEngine] = {}  # of this process: weights are loaded once


def _engine(settings: Settings, mask: Path | None) -> ResolvedEngine:
    if mask is not None:
        return resolve_engine(settings.segmentation, mask)
    if settings.sha256 not in _engines:
        _engines[settings.sha256] = resolve_engine(settings.segmentation)
    return _engines[settings.sha256]


def _about(found: StudyFeatures) -> Row:
    series, measured = found.series, found.measured
    return _texts(
        {
            "study_instance_uid": found.study_instance_uid,
            "engine": f"{found.engine.name} {found.engine.version}" if found.engine else "",
            "equivalent": found.equivalent or "",
            "bmd_mg_cm3": measured.bmd_mg_cm3 if measured else None,
            "findings": " ".join(sorted({one.code for one in found.findings})),
            "reason": found.reason,
            "series_instance_uid": series.series_instance_uid if series else "",
            "kvp": series.kvp if series else None,
            "energy": series.spectrum.energy if series else "",
            "beam_filter": series.spectrum.beam_filter if series else "",
            "slice_spacing_mm": series.slice_spacing_mm if series else None,
            "pixel_spacing_mm": max(series.pixel_spacing_mm) if series and series.pixel_spacing_mm else None,
            "kernel": series.kernel if series else "",
        }
    )


def _texts(values: Mapping[str, object]) -> Row:
    """Numbers with all their digits; nothing for None."""
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _write(out: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    whole = out.with_name(out.name + ".whole")
    with whole.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    whole.replace(out)


def _progress(console: Console, rows: Iterator[Row], total: int) -> Iterator[Row]:
    columns = (TextColumn("studies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        for row in rows:
            bar.advance(task)
            yield row


# Features by Celery workers: a message asks for one study, a file answers.
#
# Messages may be lost or repeated, as everywhere in the node: what counts is the answer's file beside the
# table that is being made, on a disk that command and workers share. A run that was stopped finds the
# answers that came meanwhile, to studies whose files are still the same.


POLL_S = 0.2
_ROWS = ".rows"


class WorkersSilent(Exception):
    """No worker has answered for too long; the answers so far are kept."""


def by_workers(publish: Callable[[FeatureRequest], None], out: Path, *, silence_s: float) -> RowsOf:
    """A way to have rows computed by workers of the queue `features`.

    Parameters
    ----------
    publish : hands a request to the broker.
    out : the table; answers come into the folder `out`.rows beside it, which is gone when all are taken.
    silence_s : how long to wait for the next answer.

    Raises
    ------
    WorkersSilent
        While rows are taken, if none comes for so long.
    """
    folder = out.resolve().with_name(out.name + _ROWS)

    def rows(studies: Sequence[str], how: Extraction, sha256: str) -> Iterator[Row]:
        if not studies:
            return
        folder.mkdir(exist_ok=True)
        waiting = {
            name: folder / f"{_digest(name, study_content_sha256(name, how.mask), sha256)}.json"
            for name in studies
        }
        for name, answer in waiting.items():
            if not answer.exists():
                publish(FeatureRequest(study=name, mask=how.mask, settings_sha256=sha256, answer=str(answer)))
        heard_at = time.monotonic()
        while waiting:
            come = [name for name, answer in waiting.items() if answer.exists()]
            for name in come:
                answer = waiting.pop(name)
                row: Row = json.loads(answer.read_text("utf-8"))
                yield row | {"study": name}
                answer.unlink()
                heard_at = time.monotonic()
            if waiting and time.monotonic() - heard_at > silence_s:
                raise WorkersSilent(
                    f"no worker has answered for {silence_s:g} s: {len(waiting)} studies wait"
                )
            if waiting and not come:
                time.sleep(POLL_S)
        shutil.rmtree(folder)  # with answers to what an earlier run had asked too

    return rows


def answer_request(request: FeatureRequest, settings: Settings) -> None:
    """Compute one study under this worker's settings, and write the answer.

    Settings or versions other than those that the table is made with give a row with that reason, never
    features.
    """
    own = settings_sha256(Extraction(settings=settings, mask=request.mask, jobs=1))
    if own != request.settings_sha256:
        row = reason_row(
            request.study,
            request.settings_sha256,
            "the worker has other settings or versions than the command",
        )
    else:
        row = study_row(request.study, settings, request.mask, own)
    write_answer(request, row)


def write_answer(request: FeatureRequest, row: Row) -> None:
    """Write the answer's file atomically, unless its folder is gone and nobody waits any more.

    Raises
    ------
    ValueError
        If the request does not name a .json file in a folder of answers.
    """
    answer = Path(request.answer)
    if not answer.parent.name.endswith(_ROWS) or answer.suffix != ".json":
        raise ValueError("an answer belongs into a folder of answers")
    whole = answer.with_suffix(".part")
    with suppress(FileNotFoundError):
        whole.write_text(json.dumps(row), "utf-8")
        whole.replace(answer)


def _digest(name: str, content_sha256: str, settings_sha256: str) -> str:
    return hashlib.sha256(f"{settings_sha256} {content_sha256} {name}".encode()).hexdigest()[:32]
