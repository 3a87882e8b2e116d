"""`osteonode features`: every radiomic feature of many studies, one CSV row each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from config.catalog import require_configured
from config.settings import load_settings
from node.logs import configure
from node.research.extraction import Extraction, extract_features

REFUSED = 3
DEFAULT_JOBS = max(1, (os.cpu_count() or 1) // 2)


def features(
    study_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY_DIR...", help="Folders, one study each.", exists=True, file_okay=False),
    ],
    out: Annotated[
        Path,
        typer.Option(help="CSV; what a run with equal settings left there is kept.", dir_okay=False),
    ],
    config: Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)] = None,
    engine: Annotated[str | None, typer.Option(help="Segmentation engine, as for process.")] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Name of a mask (NIfTI or DICOM SEG) in each study's folder, to use as drawn."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Studies at a time.", min=1)] = DEFAULT_JOBS,
) -> None:
    """Compute all features of L3 for each study: OUT, with settings and versions in OUT.json beside it."""
    settings = load_settings(config, **({"segmentation": {"engine": engine}} if engine else {}))
    configure(settings.log)
    require_configured(settings)
    console = Console(stderr=True)
    rows = extract_features(study_dirs, out, Extraction(settings=settings, mask=mask, jobs=jobs), console)
    without = [row for row in rows if row["reason"]]
    for row in without:
        told = f"no features: {row['study']}: {row['reason']}"
        console.print(told, style="yellow", markup=False, soft_wrap=True)
    console.print(f"{len(rows) - len(without)} of {len(rows)} studies have features: {out}")
    if len(without) == len(rows):
        raise typer.Exit(REFUSED)
