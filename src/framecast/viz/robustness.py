"""Accuracy against the severity of corruptions, and against the quality of JPEG, of one or more models.

Small panels with common axes: the mean over the corruptions first, then one panel per corruption.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from framecast.viz.canvas import DPI, FAINT, HAIRLINE, INK, drawable, font, shortened, text_width
from framecast.viz.palette import class_color, clean
from framecast.writing import write_file

COLUMNS = 4
PANEL, CURVE = (2.05, 1.35), (5.6, 3.1)  # inches: axes of a small panel, of the JPEG curve
LEFT, RIGHT, TOP, BOTTOM = 0.72, 0.22, 0.5, 0.6
GAP = (0.22, 0.44)
LEGEND_ROW, SAMPLE = 0.26, 0.3
MEAN_COLOR = "#f6f7f9"  # behind the panel of the mean


@dataclass(frozen=True)
class RobustnessCurves:
    """Top-1 in 0..100 of one model: clean, by corruption and severity, by JPEG quality."""

    name: str
    clean: float
    corruptions: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    jpeg: Mapping[int, float] = field(default_factory=dict)

    def mean(self) -> dict[int, float]:
        """Over the corruptions, at severities that all of them have."""
        found = list(self.corruptions.values())
        shared = [s for s in range(1, 6) if found and all(s in one for one in found)]
        return {s: float(np.mean([one[s] for one in found])) for s in shared}


def draw_severities(curves: Sequence[RobustnessCurves], path: str | Path, *, title: str = "") -> Path:
    """Draw a panel per corruption that all models have; the suffix is .png or .svg.

    Raises ValueError where the models share no corruption.
    """
    names = [n for n in (curves[0].corruptions if curves else ()) if all(n in c.corruptions for c in curves)]
    if not names:
        raise ValueError("there is no corruption that was measured for all models")
    panels = {"mean": [c.mean() for c in curves]} if len(names) > 1 else {}
    panels |= {name: [dict(c.corruptions[name]) for c in curves] for name in names}
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    sheet = _Sheet(curves, title, columns, rows, PANEL)
    top = nice_top(
        max(c.clean for c in curves), *(v for p in panels.values() for one in p for v in one.values())
    )
    for i, (name, values) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        axes = sheet.axes(row, column)
        last = i + columns >= len(panels)  # nothing stands below
        _style(axes, top, labelled=column == 0)
        axes.set_xlim(-0.3, 5.3)
        axes.xaxis.set_major_locator(FixedLocator(range(6)))
        axes.xaxis.set_major_formatter(FixedFormatter(["clean", *"12345"] if last else [""] * 6))
        axes.set_title(drawable(name), fontproperties=font(9, i == 0 and len(names) > 1), color=INK, pad=4)
        if i == 0 and len(names) > 1:
            axes.set_facecolor(MEAN_COLOR)
        _tick_fonts(axes)
        for model, (curve, one) in enumerate(zip(curves, values, strict=True)):
            _line(axes, [0, *one], [curve.clean, *one.values()], model)
    sheet.axis_names("severity", "top-1 in %")
    return sheet.save(path)


def draw_jpeg(curves: Sequence[RobustnessCurves], path: str | Path, *, title: str = "") -> Path:
    """Draw accuracy against JPEG quality, falling from left to right on a logarithmic axis."""
    if not curves or not all(c.jpeg for c in curves):
        raise ValueError("the JPEG curve was not measured for all models; evaluate them with --jpeg")
    sheet = _Sheet(curves, title, 1, 1, CURVE)
    axes = sheet.axes(0, 0)
    values = [v for c in curves for v in (c.clean, *c.jpeg.values())]
    _style(axes, nice_top(*values), labelled=True)
    qualities = sorted({q for c in curves for q in c.jpeg}, reverse=True)
    places = {q: -math.log10(q) for q in qualities}
    first = places[qualities[0]] - 0.1
    axes.set_xlim(first - 0.05, places[qualities[-1]] + 0.05)
    axes.xaxis.set_major_locator(FixedLocator([first, *places.values()]))
    axes.xaxis.set_major_formatter(FixedFormatter(["clean", *map(str, qualities)]))
    _tick_fonts(axes)
    for model, curve in enumerate(curves):
        own = sorted(curve.jpeg, reverse=True)
        xs = [first, *(places[q] for q in own)]
        _line(axes, xs, [curve.clean, *(curve.jpeg[q] for q in own)], model)
    sheet.axis_names("JPEG quality", "top-1 in %")
    return sheet.save(path)


def nice_top(*values: float) -> float:
    """The end of the axis: the next multiple of ten above all values, at most 100."""
    return min(100.0, max(10.0, 10.0 * math.ceil((max(values) + 1) / 10)))


class _Sheet:
    """A grid of panels below a title and, with several models, their names in their colours."""

    def __init__(
        self,
        curves: Sequence[RobustnessCurves],
        title: str,
        columns: int,
        rows: int,
        panel: tuple[float, float],
    ) -> None:
        self.panel = panel
        self.inside = columns * panel[0] + (columns - 1) * GAP[0], rows * panel[1] + (rows - 1) * GAP[1]
        self.width = LEFT + self.inside[0] + RIGHT
        names = [clean(c.name) for c in curves] if len(curves) > 1 else []
        lines = self._legend(names)
        head = (0.34 if title else 0.0) + LEGEND_ROW * len(lines)
        self.top = head + (TOP if panel is PANEL and head else 0.3)
        self.height = self.top + self.inside[1] + BOTTOM
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")
        if title:
            words = drawable(shortened(clean(title), 12, self.inside[0], True))
            self._text(LEFT, 0.27, words, 12, bold=True)
        y = (0.34 if title else 0.0) + 0.24
        for line in lines:
            for x, i, words in line:
                mark = Line2D(
                    [x / self.width, (x + SAMPLE - 0.08) / self.width],
                    [1 - y / self.height] * 2,
                    color=class_color(i),
                    linewidth=2.2,
                )
                self.figure.add_artist(mark)
                self._text(x + SAMPLE, y, words, 9)
            y += LEGEND_ROW

    def _legend(self, names: Sequence[str]) -> list[list[tuple[float, int, str]]]:
        """Lines of (place from the left, number, name)."""
        lines: list[list[tuple[float, int, str]]] = []
        x = self.width  # the first name opens a line
        for i, name in enumerate(names):
            words = drawable(shortened(name, 9, self.inside[0] - SAMPLE))
            needs = SAMPLE + text_width(words, 9) + 0.25
            if not lines or x + needs - 0.25 > LEFT + self.inside[0]:
                lines.append([])
                x = LEFT
            lines[-1].append((x, i, words))
            x += needs
        return lines

    def _text(self, x: float, y: float, text: str, size: float, *, bold: bool = False) -> None:
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            fontproperties=font(size, bold),
            color=INK,
            va="center_baseline",
            parse_math=False,
        )

    def axes(self, row: int, column: int) -> Axes:
        left = LEFT + column * (self.panel[0] + GAP[0])
        bottom = self.height - self.top - row * (self.panel[1] + GAP[1]) - self.panel[1]
        size = self.panel[0] / self.width, self.panel[1] / self.height
        return self.figure.add_axes((left / self.width, bottom / self.height, *size))

    def axis_names(self, across: str, up: str) -> None:
        x, y = LEFT + self.inside[0] / 2, self.top + self.inside[1] / 2
        self._name(x / self.width, 0.17 / self.height, across, 0)
        self._name(0.2 / self.width, 1 - y / self.height, up, 90)

    def _name(self, x: float, y: float, text: str, turned: float) -> None:
        self.figure.text(
            x, y, text, rotation=turned, fontproperties=font(9.5), color=INK, ha="center", va="center"
        )

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        if path.suffix not in (".png", ".svg"):
            raise ValueError(f"{path} is neither .png nor .svg")
        buffer = io.BytesIO()
        if path.suffix == ".svg":
            FigureCanvasSVG(self.figure).print_svg(buffer, metadata={"Date": None, "Creator": "framecast"})
        else:
            FigureCanvasAgg(self.figure).print_png(buffer, metadata={"Software": "framecast"})
        return write_file(path, buffer.getvalue())


def _style(axes: Axes, top: float, *, labelled: bool) -> None:
    axes.set_ylim(0, top)
    step = 25 if top > 60 else 20 if top > 40 else 10 if top > 10 else 5
    axes.yaxis.set_major_locator(FixedLocator(list(np.arange(0, top + 0.1, step))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=3, width=0.7, labelleft=labelled)


def _tick_fonts(axes: Axes) -> None:
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(font(8))
        label.set_color(FAINT)


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[float], model: int) -> None:
    axes.plot(
        xs,
        ys,
        color=class_color(model),
        linewidth=1.6,
        marker="o",
        markersize=3.2,
        markeredgewidth=0,
        clip_on=False,
        zorder=3,
    )
