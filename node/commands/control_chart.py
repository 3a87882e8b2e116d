"""Control charts as a picture: readings with their limits, and the CUSUM beneath."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scoring.quality_control import ControlChart, Protocol, ScannerReading

_READING, _SIGNAL, _LIMIT, _LOWER = "#1f4e79", "#c00000", "#7f7f7f", "#c55a11"


def draw_charts(
    protocol: Protocol, readings: Sequence[ScannerReading], charts: Sequence[ControlChart]
) -> bytes:
    """One column for each chart, Shewhart above CUSUM.

    Parameters
    ----------
    readings : of the protocol, oldest first; each chart has a point for each.

    Returns
    -------
    bytes
        A PNG.
    """
    figure = Figure(figsize=(6.4 * len(charts), 6.4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(charts), squeeze=False, sharex=True)
    name = f"{readings[-1].model} {protocol.device_serial}".strip()
    phantom = f"{protocol.phantom} {protocol.phantom_serial}".strip()
    figure.suptitle(
        f"{name}   {protocol.kvp:g} kV   {protocol.kernel}   {phantom}\n"
        f"{readings[0].taken_on} to {readings[-1].taken_on}",
        parse_math=False,
    )
    for column, chart in enumerate(charts):
        _draw_readings(axes[0, column], chart)
        _draw_sums(axes[1, column], chart)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _draw_readings(axes: Axes, chart: ControlChart) -> None:
    numbers = range(1, len(chart.points) + 1)
    reach = chart.rules.limit_sigmas * chart.sigma
    axes.axvspan(0.5, chart.baseline_readings + 0.5, color="#e8eef4", label="baseline")
    axes.axhline(chart.mean, color=_LIMIT, linewidth=1)
    for limit in (chart.mean - reach, chart.mean + reach):
        axes.axhline(limit, color=_LIMIT, linewidth=1, linestyle="--")
    axes.plot(
        numbers, [point.value for point in chart.points], "o-", color=_READING, markersize=4, linewidth=1
    )
    out = [(n, point.value) for n, point in zip(numbers, chart.points, strict=True) if point.signal]
    if out:
        axes.plot(*zip(*out, strict=True), "o", color=_SIGNAL, markersize=7, label="out of control")
    axes.set_title(f"{chart.quantity}: {chart.signal.value if chart.signal else 'in control'}", loc="left")
    axes.set_ylabel(f"{chart.quantity} [{chart.unit}]")
    axes.legend(loc="best", fontsize="small")


def _draw_sums(axes: Axes, chart: ControlChart) -> None:
    numbers = range(1, len(chart.points) + 1)
    axes.axhline(chart.rules.cusum_h, color=_LIMIT, linewidth=1, linestyle="--")
    axes.axhline(-chart.rules.cusum_h, color=_LIMIT, linewidth=1, linestyle="--")
    axes.plot(numbers, [point.upper_sum for point in chart.points], color=_READING, label="upwards")
    axes.plot(numbers, [-point.lower_sum for point in chart.points], color=_LOWER, label="downwards")
    axes.set_ylabel("CUSUM [SD of the baseline]")
    axes.set_xlabel("reading")
    axes.legend(loc="best", fontsize="small")
