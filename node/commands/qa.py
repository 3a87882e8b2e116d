"""`osteonode qa`: control charts of each scanner, from what its calibration phantom reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from config.settings import ConfigurationError, load_settings
from node.commands.control_chart import draw_charts
from node.pipeline.calibration_rules import lending_rules
from node.pipeline.scanner import chart_rules, since_baseline
from node.store.errors import StoreError
from node.store.store import open_store
from scoring.asynchronous import lends_until
from scoring.quality_control import ChartRules, ControlChart, Protocol, ScannerReading, scanner_charts


def qa(
    scanner: Annotated[
        str | None, typer.Option("--scanner", help="Serial number; without it, all scanners.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the charts (PNG).", file_okay=False)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", dir_okay=False)] = None,
) -> None:
    """Whether scanners drift: a line for each chart, and the charts themselves."""
    settings = load_settings(config)
    storage = settings.storage
    if not storage.database_url and not storage.root.is_dir():  # looking must not make one
        raise ConfigurationError(f"no node has kept anything under {storage.root.resolve()}")
    try:
        with closing(open_store(storage)) as store:
            kept = store.scanners.readings(scanner)
    except StoreError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    readings = since_baseline(kept, settings.quality.baseline_from)
    if not readings:
        Console().print("no phantom readings")
        return
    rules = chart_rules(settings.quality)
    lending = settings.calibration.asynchronous
    headings = ["scanner", "protocol", "readings", "quantity", "baseline", "latest", "state"]
    table = Table(box=None, pad_edge=False)
    for heading in (*headings, "lends until") if lending.enabled else headings:
        table.add_column(heading, overflow="fold")
    for protocol, group in by_protocol(readings):
        charts = scanner_charts(group, rules)
        lent = (_until(lends_until(group, lending_rules(lending), rules)),) if lending.enabled else ()
        for cells in _rows(protocol, group, charts, rules):
            table.add_row(*cells, *lent)
        if out is not None and charts:
            out.mkdir(parents=True, exist_ok=True)
            (out / file_name(protocol)).write_bytes(draw_charts(protocol, group, charts))
    Console().print(table)


def _until(day: date | None) -> str:
    return "not lent" if day is None else day.isoformat()


def by_protocol(
    readings: Sequence[ScannerReading],
) -> tuple[tuple[Protocol, tuple[ScannerReading, ...]], ...]:
    """Readings that may be compared with one another, each group oldest first."""

    def key(one: ScannerReading) -> tuple[str, float, str, str, str]:
        same = one.protocol
        return same.device_serial, same.kvp, same.kernel, same.phantom, same.phantom_serial

    grouped = groupby(sorted(readings, key=key), key=lambda one: one.protocol)  # sorting keeps their order
    return tuple((protocol, tuple(group)) for protocol, group in grouped)


def file_name(protocol: Protocol) -> str:
    """A chart's file: letters, digits, dots and dashes alone, whatever the headers say."""
    parts = ("qa", protocol.device_serial, f"{protocol.kvp:g}kV", protocol.kernel, protocol.phantom)
    named = "-".join(part for part in (*parts, protocol.phantom_serial) if part)
    return re.sub(r"[^A-Za-z0-9.-]+", "_", named) + ".png"


def _rows(
    protocol: Protocol, readings: Sequence[ScannerReading], charts: Sequence[ControlChart], rules: ChartRules
) -> list[tuple[str, ...]]:
    who = f"{readings[-1].model} {protocol.device_serial}".strip()
    how = f"{protocol.kvp:g} kV {protocol.kernel} {protocol.phantom} {protocol.phantom_serial}".strip()
    count = str(len(readings))
    if not charts:
        return [(who, how, count, "", "", "", f"baseline: {rules.baseline_readings} readings are needed")]
    return [
        (
            who,
            how,
            count,
            chart.quantity,
            f"{chart.mean:.4g} +- {chart.sigma:.2g} {chart.unit}",
            f"{chart.points[-1].value:.4g} on {readings[-1].taken_on}",
            chart.signal.value if chart.signal else "in control",
        )
        for chart in charts
    ]
