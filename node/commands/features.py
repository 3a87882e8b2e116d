"""`osteonode features`: every radiomic feature of many studies, one CSV row each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from config.catalog import require_configured
from config.settings import ConfigurationError, Settings, load_settings
from node.commands.console import terminal
from node.commands.output_folders import require_outside, require_table_of_features
from node.logs import configure
from node.pipeline.ports import StepMessage
from node.research.extraction import Extraction, RowsOf, WorkersSilent, by_workers, extract_features
from node.worker.tasks import BrokerAway, CeleryBroker, create_app

REFUSED = 3
DEFAULT_JOBS = max(1, (os.cpu_count() or 1) // 2)


def features(
    study_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY_DIR...", help="Folders, one study each.", exists=True, file_okay=False),
    ],
    out: Annotated[
        Path,
        typer.Option(help="CSV; rows of a run with equal settings are kept.", dir_okay=False),
    ],
    config: Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)] = None,
    engine: Annotated[str | None, typer.Option(help="Segmentation engine, as for process.")] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Name of a mask (NIfTI or DICOM SEG) in each study's folder, to use as drawn."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Studies at a time.", min=1)] = DEFAULT_JOBS,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Use workers (`osteonode worker --queues features`) that share broker, disk and settings.",
        ),
    ] = False,
) -> None:
    """Compute all features of L3 for each study: OUT, with settings and versions in OUT.json beside it."""
    settings = load_settings(config, **({"segmentation": {"engine": engine}} if engine else {}))
    configure(settings.log)
    require_configured(settings)
    console = terminal(stderr=True)
    require_outside(out.parent, study_dirs)
    require_table_of_features(out)
    how = Extraction(settings=settings, mask=mask, jobs=jobs)
    rows_of = _by_workers(settings, out) if workers else None
    try:
        rows = extract_features(study_dirs, out, how, console, rows_of)
    except (BrokerAway, WorkersSilent) as error:
        console.print(f"{error}; run again to continue", style="red", soft_wrap=True)
        raise typer.Exit(1) from error
    without = [row for row in rows if row["reason"]]
    for row in without:
        told = f"no features: {row['study']}: {row['reason']}"
        console.print(told, style="yellow", soft_wrap=True)
    console.print(f"{len(rows) - len(without)} of {len(rows)} studies have features: {out}")
    if len(without) == len(rows):
        raise typer.Exit(REFUSED)


def _by_workers(settings: Settings, out: Path) -> RowsOf:
    if not settings.broker.url:
        raise ConfigurationError("--workers needs broker.url: the Redis that the workers use")
    broker = CeleryBroker(create_app(settings, _refuse))
    # A study that a worker lost is handed to another after its time limit.
    return by_workers(broker.request_features, out, silence_s=2 * settings.worker.time_limit_s)


def _refuse(message: StepMessage) -> None:
    raise AssertionError(f"this command asks and does not work: {message}")
