"""Pictures of maps: north up, cells as wide as they are there, a colour bar with its unit, the date.

    draw_maps([panel_of(forecast, "danger")], "danger.png", title="Danger of fire")

Maps in degrees get the aspect of their middle latitude; those of a projection or a rotated pole are drawn in
their own coordinates under a net of meridians and parallels. Coast lines come where they are on this machine.
Shapes: H rows, W columns.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from framecast.data.map_systems import is_longitude_latitude, known_system, longitude_latitude
from framecast.structures import Forecast
from framecast.viz.canvas import (
    DPI,
    FAINT,
    HAIRLINE,
    INK,
    balanced_lines,
    drawable,
    font,
    shortened,
    text_width,
)
from framecast.viz.coast import coast_lines
from framecast.viz.map_style import UNKNOWN, MapStyle, style_of
from framecast.viz.palette import clean, readable
from framecast.writing import write_file

AREA = {1: 22.0, 2: 15.0, 3: 9.0}  # square inches of a map, by columns; more columns: 6
SIDES = (2.2, 9.0)  # inches, shortest and longest side of a map
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.72, 1.25, 0.95, 0.52, 0.34
LINES = 5  # degrees on each axis, at most
MOST_PANELS = 48


@dataclass(frozen=True)
class Panel:
    """One map with its style; `forecast` says where its cells are."""

    forecast: Forecast
    values: np.ndarray  # (H, W)
    style: MapStyle
    title: str = ""


def panel_of(
    forecast: Forecast, name: str, index: int = 0, *, spread: bool = False, style: MapStyle | None = None
) -> Panel:
    """The map of a variable at one of the forecast's times; the scale spans all of them."""
    maps = (forecast.spread if spread else forecast.values)[name]
    style = style or style_of(name, forecast.units[name], [maps], spread=spread)
    return Panel(forecast, maps[index], style, forecast.dates[index] if len(forecast) > 1 else "")


def draw_forecast(
    forecast: Forecast, name: str, path: str | Path, *, title: str = "", points: Sequence[Any] = ()
) -> Path:
    """A variable in one picture: one time with its spread beside it, or a panel per time.

    points: (y, x) in the maps' coordinates, marked 1, 2, …; of many times, evenly spread ones are shown.
    """
    forecast = known_part(forecast, points)
    if len(forecast) == 1:
        panels = [panel_of(forecast, name)]
        if name in forecast.spread:
            panels.append(panel_of(forecast, name, spread=True))
        title = title or f"{readable(name)}, {forecast.dates[0]}"
    else:
        shown = np.unique(np.linspace(0, len(forecast) - 1, min(len(forecast), 12)).round().astype(int))
        panels = [panel_of(forecast, name, int(i)) for i in shown]
        title = title or f"{readable(name)}, {forecast.dates[0]} to {forecast.dates[-1]}"
    return draw_maps(panels, path, title=title, below=source_line(forecast), points=points)


def known_part(forecast: Forecast, points: Sequence[Any] = (), margin: int = 2) -> Forecast:
    """The box round what is known at any time, and round points (y, x), so that wide empty edges are cut."""
    known = np.zeros(forecast.shape[1:], dtype=bool)
    for maps in forecast.values.values():
        known |= np.isfinite(maps).any(0)
    if not known.any():
        return forecast
    for y, x in points:
        known[forecast.cell(y, x)] = True
    rows, columns = (
        slice(max(int(places[0]) - margin, 0), int(places[-1]) + margin + 1)
        for places in (np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0)))
    )

    def cut(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: found[:, rows, columns] for name, found in maps.items()}

    return replace(
        forecast, values=cut(forecast.values), spread=cut(forecast.spread), y=forecast.y[rows],
        x=forecast.x[columns],
    )  # fmt: skip


def source_line(forecast: Forecast) -> str:
    """What the maps are, model and source in one line."""
    keys = ("note", "model", "source")
    return ", ".join(forecast.attrs[key] for key in keys if forecast.attrs.get(key))


def draw_maps(
    panels: Sequence[Panel],
    path: str | Path,
    *,
    title: str,
    below: str = "",
    columns: int | None = None,
    points: Sequence[Any] = (),
) -> Path:
    """Write a PNG of one or more maps; those that share a style share a colour bar."""
    return write_file(path, map_png(panels, title=title, below=below, columns=columns, points=points))


def map_png(
    panels: Sequence[Panel],
    *,
    title: str,
    below: str = "",
    columns: int | None = None,
    points: Sequence[Any] = (),
) -> bytes:
    """As `draw_maps`, as the bytes of the file."""
    buffer = io.BytesIO()
    _draw(panels, title, below, columns, points).print_png(buffer, metadata={"Software": "framecast"})
    return buffer.getvalue()


def map_pixels(
    panels: Sequence[Panel], *, title: str, below: str = "", points: Sequence[Any] = ()
) -> np.ndarray:
    """As `draw_maps`, as pixels (H, W, 3) uint8 of even height and width."""
    canvas = _draw(panels, title, below, None, points)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    return np.ascontiguousarray(pixels[:height, :width])


def _draw(
    panels: Sequence[Panel], title: str, below: str, columns: int | None, points: Sequence[Any]
) -> FigureCanvasAgg:
    if not panels or len(panels) > MOST_PANELS:
        raise ValueError(f"{len(panels)} maps in one picture; draw 1 to {MOST_PANELS}")
    columns = columns or min(len(panels), 4 if len(panels) > 6 and len(panels) != 9 else 3)
    rows = math.ceil(len(panels) / columns)
    width, height = _map_size(panels[0].forecast, AREA.get(columns, 6.0))
    shared = len({panel.style for panel in panels}) == 1 and len(panels) > 1
    apart = GAP if shared else RIGHT + LEFT
    between = 0.4 if shared else BOTTOM + 0.4
    wide = LEFT + columns * width + (columns - 1) * apart + RIGHT
    wide = max(wide, 4.6)
    tall = TOP + rows * height + (rows - 1) * between + BOTTOM
    figure = Figure(figsize=(wide, tall), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _heading(figure, wide, tall, title, below)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        x, y = LEFT + column * (width + apart), TOP + row * (height + between)
        axes = figure.add_axes((x / wide, 1 - (y + height) / tall, width / wide, height / tall))
        lowest = i + columns >= len(panels)
        _map(axes, panel, points, labels=(column == 0 or not shared, lowest or not shared))
        if panel.title:
            axes.set_title(drawable(panel.title), fontproperties=font(8.5), color=INK, pad=4, loc="left")
        if not shared:
            _color_bar(figure, panel.style, (x + width + 0.12, y, height), wide, tall)
    if shared:
        tops = rows * height + (rows - 1) * between
        bar = min(tops, 4.0)
        place = (LEFT + columns * width + (columns - 1) * apart + 0.16, TOP + (tops - bar) / 2, bar)
        _color_bar(figure, panels[0].style, place, wide, tall)
    if any(np.isnan(panel.values).any() for panel in panels):
        _unknown_key(figure, wide, tall)
    return canvas


def _heading(figure: Figure, wide: float, tall: float, title: str, below: str) -> None:
    room = wide - LEFT - 0.2
    for text, size, bold, color, down in ((title, 12.5, True, INK, 0.26), (below, 8.0, False, FAINT, 0.48)):
        if text:
            shown = shortened(clean(text), size, room, bold)
            figure.text(
                LEFT / wide, 1 - down / tall, drawable(shown), fontproperties=font(size, bold), color=color,
                va="center", parse_math=False,
            )  # fmt: skip


def _unknown_key(figure: Figure, wide: float, tall: float) -> None:
    text = "not known: sea, lakes, edges"
    side = 0.11
    x = wide - text_width(text, 7.5) - 0.16
    y = 0.13
    corner = ((x - side - 0.06) / wide, (y - side / 2) / tall)
    figure.add_artist(
        Rectangle(corner, side / wide, side / tall, facecolor=UNKNOWN, transform=figure.transFigure)
    )
    figure.text(x / wide, y / tall, text, fontproperties=font(7.5), color=FAINT, va="center")


# One map --------------------------------------------------------------------------------------------


def edges(axis: np.ndarray) -> np.ndarray:
    """Borders of cells from their middles, one more than there are cells."""
    if len(axis) == 1:
        return np.array([axis[0] - 0.5, axis[0] + 0.5])
    middles = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[2 * axis[0] - middles[0]], middles, [2 * axis[-1] - middles[-1]]])


def aspect_of(forecast: Forecast) -> float:
    """Length of a unit of y over that of x, where degrees get narrower towards the poles."""
    system = known_system(forecast.crs)
    degrees = is_longitude_latitude(forecast.crs) or (system is not None and system.is_geographic)
    if not degrees:
        return 1.0
    return 1.0 / max(math.cos(math.radians(float(forecast.y[0] + forecast.y[-1]) / 2)), 0.05)


def _map_size(forecast: Forecast, area: float) -> tuple[float, float]:
    """Width and height in inches."""
    tall, wide = np.ptp(edges(forecast.y)) * aspect_of(forecast), np.ptp(edges(forecast.x))
    ratio = float(np.clip(tall / wide, SIDES[0] / SIDES[1], SIDES[1] / SIDES[0]))
    width = math.sqrt(area / ratio)
    width = min(max(width, SIDES[0]), SIDES[1])
    return width, width * ratio


def _map(axes: Axes, panel: Panel, points: Sequence[Any], labels: tuple[bool, bool]) -> None:
    forecast, y, x = panel.forecast, edges(panel.forecast.y), edges(panel.forecast.x)
    axes.set_facecolor(UNKNOWN)
    shown = np.ma.masked_invalid(panel.values)
    color: dict[str, Any] = {"cmap": panel.style.colormap, "norm": panel.style.norm}
    if _even(forecast.y) and _even(forecast.x):
        fine = max(shown.shape) > 400  # more cells than pixels: their mean, not one of them
        axes.imshow(
            shown,
            extent=(x[0], x[-1], y[-1], y[0]),
            interpolation="auto" if fine and not panel.style.limits else "nearest",
            **color,
        )
    else:
        axes.pcolormesh(x, y, shown, **color)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[-1], y[0])
    axes.set_aspect(aspect_of(forecast), adjustable="datalim" if _narrow(forecast) else "box")
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
    _net(axes, forecast, labels)
    _coast(axes, forecast)
    for i, (at_y, at_x) in enumerate(points, start=1):
        axes.plot([at_x], [at_y], "o", markersize=9, markerfacecolor="white", markeredgecolor=INK, zorder=6)
        axes.text(
            at_x, at_y, str(i), fontproperties=font(6.5, True), color=INK, ha="center", va="center_baseline",
            zorder=7,
        )  # fmt: skip


def _narrow(forecast: Forecast) -> bool:
    """Whether the map is so long that its sides were limited."""
    ratio = np.ptp(edges(forecast.y)) * aspect_of(forecast) / np.ptp(edges(forecast.x))
    return not SIDES[0] / SIDES[1] <= ratio <= SIDES[1] / SIDES[0]


def _even(axis: np.ndarray) -> bool:
    steps = np.diff(axis)
    return len(steps) < 2 or bool(np.ptp(steps) < 0.02 * abs(steps.mean()))


def _net(axes: Axes, forecast: Forecast, labels: tuple[bool, bool]) -> None:
    """Degrees on the axes, or a net of meridians and parallels where the axes are no degrees."""
    axes.tick_params(length=2.5, width=0.6, color=FAINT, labelsize=7.5, labelcolor=FAINT, pad=2)
    plain = is_longitude_latitude(forecast.crs)
    if not plain and known_system(forecast.crs) is not None:
        axes.set_xticks([])
        axes.set_yticks([])
        longitude, latitude = longitude_latitude(forecast)
        for values, ends in ((longitude, "WE"), (latitude, "SN")):
            levels = MaxNLocator(LINES, steps=[1, 2, 2.5, 5, 10]).tick_values(values.min(), values.max())
            inside = [v for v in levels if values.min() < v < values.max()]
            if inside and np.ptp(values) < 300:  # not across the date line
                lines = axes.contour(
                    forecast.x, forecast.y, values, inside, colors=FAINT, linewidths=0.5, linestyles="solid"
                )
                axes.clabel(lines, fmt=lambda v, ends=ends: degrees(v, ends), fontsize=6.5, colors=INK)
        return
    for axis, shown, ends in ((axes.yaxis, labels[0], "SN"), (axes.xaxis, labels[1], "WE")):
        axis.set_major_locator(MaxNLocator(LINES, steps=[1, 2, 2.5, 5, 10]))
        formatter = FuncFormatter(lambda v, _, ends=ends: degrees(v, ends) if plain else f"{v:g}")
        axis.set_major_formatter(formatter if shown else FuncFormatter(lambda *_: ""))
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(font(7.5))


def degrees(value: float, ends: str) -> str:
    """ "21.5° E": ends are the letters of negative and positive values."""
    value = (value + 180.0) % 360.0 - 180.0 if ends == "WE" else value
    value = round(float(value), 6)
    return f"{abs(value):g}°{'' if value == 0 else ' ' + ends[int(value > 0)]}"


def _coast(axes: Axes, forecast: Forecast) -> None:
    if is_longitude_latitude(forecast.crs):
        x, y = edges(forecast.x), edges(forecast.y)
        shift = 360.0 if x[-1] > 180.5 else 0.0
        lines = coast_lines((-180.0, y[-1], 180.0, y[0]) if shift else (x[0], y[-1], x[-1], y[0]))
        lines += [line + np.array((shift, 0.0)) for line in lines] if shift else []
    elif known_system(forecast.crs) is not None:
        longitude, latitude = longitude_latitude(forecast)
        box = float(longitude.min()), float(latitude.min()), float(longitude.max()), float(latitude.max())
        lines = [_in_system(line, forecast.crs) for line in coast_lines(box)]
    else:
        return
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=0.7, zorder=4), autolim=False)


def _in_system(line: np.ndarray, crs: str) -> np.ndarray:
    from framecast.extras import import_extra

    turn = import_extra("pyproj", "maps").Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return np.stack(turn.transform(line[:, 0], line[:, 1]), axis=1)


# Colour bar -----------------------------------------------------------------------------------------


def _color_bar(
    figure: Figure, style: MapStyle, place: tuple[float, float, float], wide: float, tall: float
) -> None:
    x, y, height = place
    axes = figure.add_axes((x / wide, 1 - (y + height) / tall, 0.13 / wide, height / tall))
    bar = figure.colorbar(ScalarMappable(style.norm, style.colormap), cax=axes)
    bar.outline.set(color=HAIRLINE, linewidth=0.5)
    axes.tick_params(length=2, width=0.5, color=FAINT, labelcolor=INK, pad=2)
    if style.limits and style.names:
        ends = [style.least, *style.limits, style.largest]
        bar.set_ticks([(a + b) / 2 for a, b in pairwise(ends)])
        bar.set_ticklabels([drawable(name) for name in style.names])
        axes.tick_params(length=0)
    else:
        bar.locator = MaxNLocator(6)
        bar.update_ticks()
    for label in axes.get_yticklabels():
        label.set_fontproperties(font(7.5))
    room, title = RIGHT - 0.2, clean(style.title)
    halves = balanced_lines(title) if text_width(title, 7.5) > room else []
    named = [*(halves[0].split("\n") if halves else [title]), style.unit]
    lines = [shortened(clean(line), 7.5, room) for line in named if line]
    axes.set_title(
        drawable("\n".join(lines)), fontproperties=font(7.5), color=INK, loc="left", pad=7, linespacing=1.2
    )
