"""`osteonode process`: the pipeline on a folder, without network, database or broker."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.catalog import require_configured
from config.findings import Severity
from config.phrases import error_in_words
from config.settings import ConfigurationError, Settings, load_settings, source_date_epoch
from node.clinical import CsvLaboratory, NoLaboratory
from node.commands.console import require_kept, require_outside, terminal
from node.commands.study_export import KeptArtefacts, describe_run
from node.dicom.errors import MaskUnreadable
from node.logs import configure
from node.pipeline.artefacts import (
    CALIBRATION_PNG,
    NOMOGRAM_PNG,
    OVERLAY_PNG,
    RESULT,
    TIMINGS,
    MemoryArtefacts,
    stored_objects,
)
from node.pipeline.engine import resolve_engine
from node.pipeline.ports import Artefacts, Issue, Step
from node.pipeline.step_functions import run_locally
from node.pipeline.study_run import Arrival, StudyImages, StudyRun
from node.research.extraction import NotOneStudy, study_in
from node.result_document import DensityEntry, ResultDocument, read_result
from node.store.errors import StoreUnavailable
from node.study_report import Outcome
from scoring.models.card import NEGATIVE_CLASS
from segmentation.engines.geometric.numbering import STATEABLE
from segmentation.errors import SegmentationError

REFUSED = 3
_PICTURES = (NOMOGRAM_PNG, OVERLAY_PNG, CALIBRATION_PNG)
_OURS = (RESULT, "report.dcm", "segmentation.dcm", "nomogram*.dcm", *_PICTURES)


def process(
    study_dir: Annotated[
        Path, typer.Argument(help="A folder with one study's DICOM files.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="Output folder; created if missing.", file_okay=False)],
    config: Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)] = None,
    clinical: Annotated[
        Path | None,
        typer.Option(
            help="CSV: patient_id, issuer, date, alp_u_l, homocysteine_umol_l.", exists=True, dir_okay=False
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Segmentation engine: auto, geometric, totalsegmentator, nnunet or mask."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Segmentation made elsewhere (NIfTI or DICOM SEG).", exists=True, dir_okay=False),
    ] = None,
    first_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Name of the topmost whole lumbar body in view, such as L1: names the levels where neither "
            "sacrum nor last rib is visible.",
        ),
    ] = None,
    issued_at: Annotated[
        str | None,
        typer.Option(
            help="Time of issue, ISO 8601 (UTC without an offset). Default: SOURCE_DATE_EPOCH, else now."
        ),
    ] = None,
    keep_artefacts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the inputs and outputs of each step.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Measure one study in a folder and write SR, SEG, pictures and result.json."""
    console = terminal(stderr=True)
    overrides = {"segmentation": {"engine": engine}} if engine else {}
    settings = load_settings(config, **overrides)
    configure(settings.log)
    require_configured(settings)
    if first_level is not None and first_level not in STATEABLE:
        raise typer.BadParameter(f"must be one of {', '.join(STATEABLE)}", param_hint="--first-level")
    issued = _issued_at(issued_at)
    require_outside(out, [study_dir])
    instances = _one_study(study_dir, console)
    laboratory = clinical or settings.clinical.csv_path
    require_kept(out, _OURS, [*instances, config, laboratory, mask])
    started = time.perf_counter()
    try:
        segmenter = resolve_engine(settings.segmentation, mask, first_level)
    except (SegmentationError, MaskUnreadable) as error:
        raise ConfigurationError(error_in_words(error)) from error
    _prepare(out)
    kept = None
    if keep_artefacts is not None:
        require_outside(keep_artefacts, [study_dir], option="--keep-artefacts")
        kept = KeptArtefacts(keep_artefacts)
        given: dict[str, object] = {"study": study_dir, "laboratory": laboratory, "mask": mask}
        given |= {"first_level": first_level, "issued_at": issued}
        describe_run(keep_artefacts, settings, {**given, "images": [path.name for path in instances]})
    artefacts = kept or MemoryArtefacts()
    study = StudyRun(
        settings=settings,
        images=StudyImages(instances, settings),
        artefacts=artefacts,
        engine=lambda: segmenter,
        clinical=_laboratory(settings, laboratory),
        issue=lambda: Issue(issued_at=issued),
        arrival=Arrival(declared_qct=True),
    )
    with console.status("select") as status:

        def begin(step: Step) -> None:
            status.update(step.value)
            if kept is not None:
                kept.begin(step)

        try:
            run = run_locally(study, begin)
        except SegmentationError as error:  # a mask that does not fit this study
            raise ConfigurationError(error_in_words(error)) from error
        except StoreUnavailable as error:  # which model is active cannot be told
            console.print(str(error), style="red", soft_wrap=True)
            raise typer.Exit(1) from error
    timings_s = run.timings_s | {"total": time.perf_counter() - started}
    artefacts.put(TIMINGS, json.dumps(timings_s).encode())
    result = read_result(artefacts.get(RESULT)).with_timings(timings_s)
    _write(out, artefacts, result)
    print_result(terminal(), result)
    if result.outcome is not Outcome.REPORTED:
        raise typer.Exit(REFUSED)


def _issued_at(stated: str | None) -> datetime:
    if stated is None:
        epoch = source_date_epoch()
        return datetime.fromtimestamp(epoch, UTC) if epoch is not None else datetime.now(UTC)
    try:
        when = datetime.fromisoformat(stated)
    except ValueError as error:
        raise typer.BadParameter("not an ISO 8601 time", param_hint="--issued-at") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _one_study(folder: Path, console: Console) -> tuple[Path, ...]:
    try:
        found = study_in(folder)
    except NotOneStudy as error:
        raise typer.BadParameter(str(error), param_hint="STUDY_DIR") from error
    if found.damaged:
        names = ", ".join(path.name for path in found.damaged)
        console.print(f"not readable as DICOM, skipped: {names}", style="yellow", soft_wrap=True)
    return found.instances


def _laboratory(settings: Settings, path: Path | None) -> CsvLaboratory | NoLaboratory:
    if path is None:
        return NoLaboratory()
    return CsvLaboratory(path, max_age_days=settings.clinical.max_age_days)


def _prepare(out: Path) -> None:
    """Make the folder and take away what an earlier run left: it may be another patient's."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for pattern in _OURS:
            for path in out.glob(pattern):
                path.unlink()
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {out}: {error.strerror}", param_hint="--out") from error


def _write(out: Path, artefacts: Artefacts, result: ResultDocument) -> None:
    for one in stored_objects(artefacts):
        (out / one.file_name).write_bytes(one.content)
    for picture in _PICTURES:
        if picture in artefacts.names():
            (out / picture).write_bytes(artefacts.get(picture))
    # Written last: whoever finds it finds everything it speaks of.
    (out / RESULT).write_text(result.to_text(), "utf-8")


# The result on the terminal. It names numbers and findings, never the patient.


_COLOUR = {Severity.REFUSAL: "red", Severity.CAUTION: "yellow", Severity.INFO: "dim"}


def print_result(console: Console, result: ResultDocument) -> None:
    """BMD per level, calibration, scores and findings."""
    if result.outcome is Outcome.REFUSED:
        console.print("Refused: this study could not be measured.", style="bold red")
    elif result.bodies:
        console.print(_levels(result))
    elif result.unnamed:
        console.print(_slices(result))
    for label, text in _facts(result):
        console.print(Text.assemble((f"{label:<14}", "bold"), text), soft_wrap=True)
    if result.findings:
        console.print("Findings", style="bold")
    for finding in result.findings:
        colour = _COLOUR[finding.severity]
        console.print(
            Text.assemble("  ", (f"{finding.severity.value:<8}", colour), f" {finding.text}"),
            soft_wrap=True,
        )


def _levels(result: ResultDocument) -> Table:
    equivalent = f" {result.calibration.equivalent.value}" if result.calibration else ""
    table = Table(box=None, pad_edge=False)
    ellipse = any(level.ellipse for level in result.bodies.values())
    read_in = f", {result.region.value}" if result.region else ""
    besides = ("ellipse",) if ellipse else ()
    level_heading = "level not known" if result.unnamed_bodies else "level"
    for heading in (level_heading, f"BMD mg/cm3{equivalent}{read_in}", "HU", *besides, "body cm3"):
        table.add_column(heading, justify="left" if heading == level_heading else "right")
    for name, level in result.bodies.items():
        table.add_row(
            name if result.numbering.confirmed or result.unnamed_bodies else f"{name}?",
            *_read(level),
            *([_read(level.ellipse or DensityEntry())[0]] if ellipse else []),
            f"{level.volume_mm3 / 1000:.1f}" if level.volume_mm3 is not None else "not available",
        )
    return table


def _slices(result: ResultDocument) -> Table:
    table = Table(box=None, pad_edge=False)
    equivalents = {one.equivalent.value for one in result.unnamed if one.equivalent}
    for heading in ("level not known", " ".join(["BMD mg/cm3", *equivalents]), "HU", "region mm2"):
        table.add_column(heading, justify="left" if heading == "level not known" else "right")
    for one in result.unnamed:
        region = f"{one.region_mm2:.0f}" if one.region_mm2 is not None else "not available"
        table.add_row(one.name, *_read(one), region)
    return table


def _read(read: DensityEntry) -> tuple[str, str]:
    """Density and HU of one vertebra."""
    density, hu = "not available", "not available"
    if read.bmd_mg_cm3 is not None:
        sigma = read.bmd_uncertainty_mg_cm3
        density = f"{read.bmd_mg_cm3:.1f}" + (f" ± {sigma:.1f}" if sigma is not None else "")
    if read.hu_mean is not None:
        hu = f"{read.hu_mean:.0f} (SD {read.hu_sd:.0f})"
    return density, hu


def _facts(result: ResultDocument) -> list[tuple[str, str]]:
    facts = []
    used, categories = result.provenance, result.categories
    if found := result.calibration:
        grade = f" ({found.grade.value})" if found.grade else ""
        facts.append(
            (
                "calibration",
                f"{found.method}, {found.phantom_named}{grade}: "
                f"BMD = {found.slope:.4f} x HU {found.intercept:+.2f} mg/cm3 {found.equivalent.value}",
            )
        )
    if result.t_score is not None:
        facts.append(("T-score", f"{result.t_score:+.2f} (reference {used.reference})"))
    if result.z_score is not None:
        facts.append(("Z-score", f"{result.z_score:+.2f} (reference {used.reference})"))
    if density := categories.density:
        facts.append(("density", f"{density.category.value} ({'+'.join(density.levels)})"))
    if categories.study_class:
        facts.append(("study rule", f"{categories.study_class.value} (Xie 2022, by T-score)"))
    if result.rad_score is not None:
        facts.append(("rad-score", f"{result.rad_score:+.3f} (model {used.model})"))
    if found_nomogram := result.nomogram:
        points = ", ".join(f"{one.name} {one.points:.0f}" for one in found_nomogram.inputs)
        facts.append(
            (
                "nomogram",
                f"{found_nomogram.total_points:.0f} points ({points}): "
                f"probability {found_nomogram.probability:.2f} of {found_nomogram.positive_class} "
                f"versus {NEGATIVE_CLASS} (T rule)",
            )
        )
    return facts
