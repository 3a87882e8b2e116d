"""`osteonode serve` and `osteonode worker`: the node, and a worker by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from config.catalog import require_configured
from config.settings import ConfigurationError, load_settings, remember_file
from node.pipeline.ports import FEATURES_QUEUE, Step
from node.processes import supervisor
from segmentation.errors import EngineUnavailable

Config = Annotated[Path | None, typer.Option(help="Settings (TOML).", dir_okay=False)]


def serve(config: Config = None) -> None:
    """Run the node: listener, workers, page and, unless one is configured, its own broker."""
    settings = load_settings(config)
    require_configured(settings)
    remember_file(config)
    raise typer.Exit(supervisor.serve(settings))


def worker(
    config: Config = None,
    queues: Annotated[
        str,
        typer.Option(
            help="Steps to work on, comma-separated, all of them by default; or features, for "
            "`osteonode features --workers`."
        ),
    ] = ",".join(Step),
) -> None:
    """Run one worker, on this or another machine that reaches the node's database, files and broker."""
    wanted = [name.strip() for name in queues.split(",")]
    unknown = sorted(set(wanted) - {*Step, FEATURES_QUEUE})
    if unknown:
        raise typer.BadParameter(f"no such step: {', '.join(unknown)}", param_hint="--queues")
    settings = load_settings(config)
    require_configured(settings)
    try:
        status = supervisor.worker(settings, wanted)
    except EngineUnavailable as error:
        raise ConfigurationError(str(error)) from error
    raise typer.Exit(status)
