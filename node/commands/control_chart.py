"""Control charts as a picture: readings with their limits, and the CUSUM beneath."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scoring.quality_control import ControlChart
from scoring.scanner_reading import ScannerReading

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
