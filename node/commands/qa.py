"""`osteonode qa`: control charts of each scanner, from what its calibration phantom reads."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from config.catalog import configured_phantoms
from config.findings import load_findings
from config.phrases import in_english
from config.settings import ConfigurationError, Settings, load_settings
from node.commands.console import terminal
from node.pipeline.steps.calibrate import since_baseline
from node.store.errors import StoreError
from node.store.store import open_store
from scoring.calibration.control_charts import (
    ControlChart,
    ReadingGroup,
    ScannerReading,
    comparable_groups,
    drift_observations,
    scanner_charts,
    slope_unit,
)
from scoring.calibration.prior_scan import PriorScanUse, prior_scan_use
from scoring.calibration.spectrum import CONVENTIONAL

# Control charts as a picture: readings with their limits, and the CUSUM beneath.


_READING, _SIGNAL, _LIMIT, _LOWER = "#1f4e79", "#c00000", "#7f7f7f", "#c55a11"


def draw_charts(title: str, readings: Sequence[ScannerReading], charts: Sequence[ControlChart]) -> bytes:
    """One column for each chart, Shewhart above CUSUM; readings that failed stand beside the curves.

    Parameters
    ----------
    title : scanner and protocol, one line.
    readings : of one group, oldest first; each chart has a point for each that is charted.

    Returns
    -------
    bytes
        A PNG.
    """
    figure = Figure(figsize=(6.4 * len(charts), 6.4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(charts), squeeze=False, sharex=True)
    dates = f"{readings[0].taken_on} to {readings[-1].taken_on}"
    heading = fill(title, 90, break_on_hyphens=False)
    figure.suptitle(f"{heading}\n{dates}", parse_math=False, fontsize="medium")
    charted = [number for number, one in enumerate(readings, start=1) if one.charted]
    failed = [number for number, one in enumerate(readings, start=1) if not one.charted]
    for column, chart in enumerate(charts):
        _draw_readings(axes[0, column], chart, charted, failed)
        _draw_sums(axes[1, column], chart, charted)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _draw_readings(axes: Axes, chart: ControlChart, numbers: Sequence[int], failed: Sequence[int]) -> None:
    reach = chart.rules.limit_sigmas * chart.sigma
    axes.axvspan(
        numbers[0] - 0.5, numbers[chart.baseline_readings - 1] + 0.5, color="#e8eef4", label="baseline"
    )
    axes.axhline(chart.mean, color=_LIMIT, linewidth=1)
    for limit in (chart.mean - reach, chart.mean + reach):
        axes.axhline(limit, color=_LIMIT, linewidth=1, linestyle="--")
    axes.plot(
        numbers, [point.value for point in chart.points], "o-", color=_READING, markersize=4, linewidth=1
    )
    out = [(n, point.value) for n, point in zip(numbers, chart.points, strict=True) if point.signal]
    if out:
        axes.plot(*zip(*out, strict=True), "o", color=_SIGNAL, markersize=7, label="out of control")
    if failed:  # at the foot: what they read may lie far off, and would flatten the rest
        foot = axes.get_xaxis_transform()
        axes.plot(
            failed,
            [0.04] * len(failed),
            "x",
            color=_SIGNAL,
            transform=foot,
            label="failed a check, not charted",
        )
    axes.set_title(f"{chart.quantity}: {chart.signal.value if chart.signal else 'in control'}", loc="left")
    axes.set_ylabel(f"{chart.quantity} [{chart.unit}]")
    axes.margins(y=0.25)  # room for the legend above the curves, and for what failed below
    axes.legend(loc="upper left", fontsize="small", ncols=3)


def _draw_sums(axes: Axes, chart: ControlChart, numbers: Sequence[int]) -> None:
    axes.axhline(chart.rules.cusum_h, color=_LIMIT, linewidth=1, linestyle="--")
    axes.axhline(-chart.rules.cusum_h, color=_LIMIT, linewidth=1, linestyle="--")
    axes.plot(numbers, [point.upper_sum for point in chart.points], color=_READING, label="upwards")
    axes.plot(numbers, [-point.lower_sum for point in chart.points], color=_LOWER, label="downwards")
    axes.set_ylabel("CUSUM [SD of the baseline]")
    axes.set_xlabel("reading")
    axes.margins(y=0.25)
    axes.legend(loc="upper left", fontsize="small", ncols=2)


OUT_OF_CONTROL = 1  # exit status, as of `osteonode check` on a failure


def qa(
    scanner: Annotated[
        str | None, typer.Option("--scanner", help="Serial number; without it, all scanners.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the charts (PNG).", file_okay=False)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", dir_okay=False)] = None,
) -> None:
    """Whether scanners drift: a line for each chart, the charts themselves, and what failed. Exit 1 if so."""
    settings = load_settings(config)
    storage = settings.storage
    if not storage.database_url and not storage.root.is_dir():  # looking must not make one
        raise ConfigurationError(f"no node data under {storage.root.resolve()}")
    try:
        with closing(open_store(storage)) as store:
            kept = store.scanners.readings(scanner)
    except StoreError as error:
        terminal(stderr=True).print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from error
    readings = since_baseline(kept, settings.quality.baseline_from)
    if not readings:
        terminal().print("no phantom readings")
        return
    groups = comparable_groups(readings, settings.calibration.asynchronous)
    _print_charts(groups, readings, settings)
    _print_failed(readings)
    if out is not None:
        _draw(groups, settings, out)
    drifts = _drifts(groups, settings)
    unsound = _last_failed(readings)
    for line in (*drifts, *unsound):
        terminal().print(line, soft_wrap=True)
    if drifts or unsound:
        raise typer.Exit(OUT_OF_CONTROL)


def _print_charts(
    groups: Sequence[ReadingGroup], readings: Sequence[ScannerReading], settings: Settings
) -> None:
    prior_scans = settings.calibration.asynchronous.enabled
    headings = ["scanner", "protocol", "readings", "quantity", "baseline", "latest", "state"]
    table = Table(box=None, pad_edge=False)
    for heading in (*headings, "calibrates until") if prior_scans else headings:
        table.add_column(heading, overflow="fold")
    reasons: list[str] = []
    for group in groups:
        use: tuple[str, ...] = ()
        if prior_scans:
            found = _prior_scan_use(group, readings, settings)
            use = (found.until.isoformat() if found.until else "not used",)
            if found.reason:
                group_name = f"{scanner_name(group.latest)} {protocol_text(group)}"
                reason = in_english(found.reason)
                reasons.append(f"not used to calibrate other studies, {group_name}: {reason}")
        for cells in _rows(group, settings):
            table.add_row(*cells, *use)
    terminal().print(table)
    for reason in reasons:
        terminal().print(reason, soft_wrap=True)


def _prior_scan_use(
    group: ReadingGroup, readings: Sequence[ScannerReading], settings: Settings
) -> PriorScanUse:
    return prior_scan_use(
        group.readings,
        readings,
        {model.name: model.sha256 for model in configured_phantoms(settings).values()},
        rules=settings.calibration.asynchronous,
        charts=settings.quality,
    )


def _print_failed(readings: Sequence[ScannerReading]) -> None:
    """What did not pass every check, with the numbers that its rods gave."""
    unsound = [one for one in readings if one.findings]
    if not unsound:
        return
    table = Table(
        box=None, pad_edge=False, title="readings that did not pass every check", title_justify="left"
    )
    for heading in ("date", "scanner", "protocol", "findings", "slope", "water", "charted"):
        table.add_column(heading, overflow="fold")
    for one in sorted(unsound, key=lambda reading: reading.order):
        table.add_row(
            one.taken_on.isoformat(),
            scanner_name(one),
            protocol_text(ReadingGroup(readings=(one,))),
            ", ".join(one.findings),
            "-" if one.slope is None else f"{one.slope:.4g} {slope_unit([one])}",
            "-" if one.water_hu is None else f"{one.water_hu:.1f} HU",
            "yes" if one.charted else "no",
        )
    terminal().print(table)


def _draw(groups: Sequence[ReadingGroup], settings: Settings, out: Path) -> None:
    names = [file_name(group) for group in groups]
    for place, group in enumerate(groups):
        charts = scanner_charts(group.readings, settings.quality)
        if not charts:
            continue
        nth = names[: place + 1].count(names[place])  # of those that differ in table height, say
        name = names[place] if nth == 1 else f"{names[place]}-{nth}"
        out.mkdir(parents=True, exist_ok=True)
        title = f"{scanner_name(group.latest)}   {protocol_text(group)}"
        (out / f"{name}.png").write_bytes(draw_charts(title, group.readings, charts))


def _drifts(groups: Sequence[ReadingGroup], settings: Settings) -> list[str]:
    """The finding of each chart that is out of control, in words."""
    findings = load_findings(settings.node.site_folder)
    language = settings.node.language
    return [
        f"scanner_drift, {scanner_name(group.latest)}: {findings.describe(one, language).text}"
        for group in groups
        for one in drift_observations(group.readings, settings.quality)
    ]


def _last_failed(readings: Sequence[ScannerReading]) -> list[str]:
    """Of each scanner whose latest reading failed a check: which."""
    ordered = sorted(readings, key=lambda one: (scanner_name(one), one.order))
    latest = [tuple(group)[-1] for _, group in groupby(ordered, key=scanner_name)]
    return [
        f"reading failed, {scanner_name(one)}: the latest, of {one.taken_on}, did not pass all checks "
        f"({', '.join(one.findings)})"
        for one in latest
        if one.failed
    ]


def scanner_name(reading: ScannerReading) -> str:
    return f"{reading.model} {reading.protocol.device_serial}".strip()


def protocol_text(group: ReadingGroup) -> str:
    """What the readings of a group have in common, as far as headers state it."""
    protocol, technique = group.protocol, group.reference.technique
    parts = [f"{protocol.kvp:g} kV", protocol.kernel]
    if technique is not None:
        parts += [technique.spectral_filter, _spectral(technique.energy), technique.reconstruction]
        parts += [f"table {technique.table_height_mm:g} mm" if technique.table_height_mm is not None else ""]
        parts += [
            f"field {technique.field_of_view_mm:g} mm" if technique.field_of_view_mm is not None else ""
        ]
        parts += ["single slices" if technique.single_slice else ""]
    parts += [protocol.phantom or "phantom not recognised", protocol.phantom_serial]
    parts += ["without patient" if group.readings[0].alone else ""]
    return " ".join(part for part in parts if part)


def _spectral(energy: str) -> str:
    """What is told of the energy: nothing where it is the usual one."""
    return "" if energy == CONVENTIONAL else energy


def file_name(group: ReadingGroup) -> str:
    """A chart's file, without its ending: letters, digits, dots and dashes, whatever the headers say."""
    protocol, technique = group.protocol, group.reference.technique
    parts = ["qa", protocol.device_serial, f"{protocol.kvp:g}kV", protocol.kernel]
    if technique is not None:
        parts += [technique.spectral_filter, _spectral(technique.energy), technique.reconstruction]
        parts += ["slices" if technique.single_slice else ""]
    parts += [protocol.phantom, protocol.phantom_serial, "alone" if group.readings[0].alone else ""]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(part for part in parts if part))


def _rows(group: ReadingGroup, settings: Settings) -> list[tuple[str, ...]]:
    rules = settings.quality
    charted = group.charted
    charts = scanner_charts(charted, rules)
    failed = len(group.readings) - len(charted)
    count = f"{len(group.readings)}, {failed} failed" if failed else str(len(group.readings))
    lead = (scanner_name(group.latest), protocol_text(group), count)
    if not charts:
        return [(*lead, "", "", "", f"baseline: {rules.baseline_readings} readings are needed")]
    return [
        (
            *lead,
            chart.quantity,
            f"{chart.mean:.4g} +- {chart.sigma:.2g} {chart.unit}",
            f"{chart.points[-1].value:.4g} {chart.unit} on {charted[-1].taken_on}",
            _state(chart, group),
        )
        for chart in charts
    ]


def _state(chart: ControlChart, group: ReadingGroup) -> str:
    state = chart.signal.value if chart.signal else "in control"
    return f"{state}; then a reading failed" if group.latest.failed else state
