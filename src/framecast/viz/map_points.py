"""What a forecast says at chosen places over time, with its spread.

One line per place in the colours of classes; a band is one standard deviation of the members either way.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from framecast.structures import Forecast
from framecast.viz.canvas import DPI, FAINT, HAIRLINE, INK, drawable, font, shortened, text_width
from framecast.viz.map_style import style_of
from framecast.viz.palette import class_color, clean, readable
from framecast.writing import write_file

WIDTH, HEIGHT = 7.4, 3.2  # inches
LEFT, RIGHT, TOP, BOTTOM = 0.75, 0.3, 0.85, 0.5
MOST_DATES = 8  # on the axis


def draw_points(
    forecast: Forecast,
    name: str,
    points: Sequence[tuple[float, float]],
    path: str | Path,
    *,
    labels: Sequence[str] = (),
    title: str = "",
) -> Path:
    """Write a PNG of a variable at points (y, x) over the forecast's times; a single time is a dot.

    labels: names of the points, by default 1, 2, … as on the maps. Raises ValueError for a point outside the
    maps, or without points.
    """
    if not points:
        raise ValueError("no points to draw; name one at least")
    labels = labels or [str(i) for i in range(1, len(points) + 1)]
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    across, up = (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, across, up))
    steps, style = np.arange(len(forecast)), style_of(name, forecast.units[name], [forecast.values[name]])
    for i, (y, x) in enumerate(points):
        row, column = forecast.cell(y, x)
        line, color = forecast.values[name][:, row, column].astype(float), class_color(i)
        if name in forecast.spread:
            spread = forecast.spread[name][:, row, column]
            if len(forecast) == 1:
                axes.errorbar(steps, line, yerr=spread, color=color, capsize=3, linewidth=1)
            axes.fill_between(steps, line - spread, line + spread, color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, line, color=color, linewidth=1.6, marker="o", markersize=3.5)
    if style.unit == "probability":
        axes.set_ylim(-0.02, 1.02)
    _axes(axes, forecast, style.unit)
    heading = title or f"{readable(name)} at {len(points)} place{'s' if len(points) > 1 else ''}"
    figure.text(
        LEFT / WIDTH, 1 - 0.24 / HEIGHT, drawable(shortened(clean(heading), 11, WIDTH - LEFT - RIGHT, True)),
        fontproperties=font(11, True), color=INK, va="center", parse_math=False,
    )  # fmt: skip
    _key(figure, labels, "band: one standard deviation of the members" if name in forecast.spread else "")
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": "framecast"})
    return write_file(path, buffer.getvalue())


def _axes(axes: Any, forecast: Forecast, unit: str) -> None:
    for side, spine in axes.spines.items():
        spine.set(color=HAIRLINE, linewidth=0.7)
        spine.set_visible(side in ("left", "bottom"))
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.6)
    axes.set_axisbelow(True)
    shown = range(0, len(forecast), -(-len(forecast) // MOST_DATES))
    axes.set_xlim(-0.3, len(forecast) - 0.7)
    axes.xaxis.set_major_locator(FixedLocator(list(shown)))
    axes.xaxis.set_major_formatter(FixedFormatter([forecast.dates[i] for i in shown]))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(length=2.5, width=0.6, color=FAINT, labelcolor=FAINT)
    if unit:
        axes.set_ylabel(drawable(clean(unit)), fontproperties=font(8), color=FAINT)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(font(7.5))


def _key(figure: Figure, labels: Sequence[str], note: str) -> None:
    """Names of the places in their colours, in one row."""
    x, y = LEFT, 1 - 0.54 / HEIGHT
    for i, label in enumerate(labels):
        text = shortened(clean(label), 8, 2.0)
        if x + text_width(text, 8, True) > WIDTH - RIGHT:
            break
        figure.text(
            x / WIDTH, y, drawable(text), fontproperties=font(8, True), color=class_color(i), va="center",
            parse_math=False,
        )  # fmt: skip
        x += text_width(text, 8, True) + 0.18
    if note and x + text_width(note, 7.5) < WIDTH - RIGHT:
        figure.text(x / WIDTH, y, note, fontproperties=font(7.5), color=FAINT, va="center")
