"""Accuracy against cost: one point per model, the models that nothing beats joined by a line.

A model is beaten by one that costs no more and scores no less. Costs stand on a logarithmic axis where they
span more than a factor of four.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from framecast.viz.canvas import (
    DPI,
    FAINT,
    HAIRLINE,
    INK,
    LINE_HEIGHT,
    POINT,
    drawable,
    font,
    shortened,
    text_width,
)
from framecast.viz.markup import Markup, element, join, page
from framecast.viz.palette import class_color, clean
from framecast.viz.report import facts_card, header
from framecast.writing import write_file

PANEL, HEIGHT = (4.3, 3.1), 4.3  # inches: a panel's axes, the picture
LEFT, GAP, TOP = 0.75, 0.75, 0.62
LABEL_SIZE, TICK_SIZE = 8.5, 8.0
LABEL_WIDTH = 1.7
DOT = 0.055  # radius


@dataclass(frozen=True)
class CostPoint:
    """One model: its score, and what it costs in each unit, for example {"GMACs": 4.6, "ms": 31}."""

    name: str
    score: float
    costs: Mapping[str, float]


def frontier(points: Sequence[CostPoint], cost: str) -> list[CostPoint]:
    """The models that none beats, from the cheapest to the best."""
    front: list[CostPoint] = []
    for point in sorted(points, key=lambda p: (p.costs[cost], -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def draw_cost(points: Sequence[CostPoint], path: str | Path, *, metric: str, title: str = "") -> Path:
    """Draw a panel per cost that all models have; the suffix, .png or .svg, is the kind of picture.

    Raises ValueError without points, and where the models share no cost.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path} is neither .png nor .svg")
    return write_file(path, _picture(points, path.suffix, metric, title))


def write_cost_page(
    path: str | Path,
    points: Sequence[CostPoint],
    rows: Sequence[Mapping[str, str]],
    *,
    metric: str,
    title: str = "Accuracy against cost",
    facts: Mapping[str, str] | None = None,
    more: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
) -> Path:
    """Write one self-contained page: the picture, where there are points, a table of all rows, and more
    tables by title.
    """
    picture = Markup("")
    if points:
        code = base64.b64encode(_picture(points, ".svg", metric, "")).decode()
        text = f"{metric} against cost of {', '.join(p.name for p in points)}"
        source = f"data:image/svg+xml;base64,{code}"
        picture = element("section", element("img", src=source, alt=text, style=None), class_="card cost")
    content = page(
        "cost.html",
        "index.js",
        title=title,
        header=header(title, [f"{len(rows)} models" if len(rows) > 1 else "one model"], None, None),
        picture=picture,
        table=join([_table(rows), *(_titled(name, part) for name, part in (more or {}).items())]),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def _titled(title: str, rows: Sequence[Mapping[str, str]]) -> Markup:
    return join([element("h2", title), _table(rows)])


def _table(rows: Sequence[Mapping[str, str]]) -> Markup:
    titles = list(dict.fromkeys(key for row in rows for key in row))
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    body = [element("tr", *(element("td", row.get(title, "")) for title in titles)) for row in rows]
    return element("table", element("thead", head), element("tbody", *body))


# -- picture ----------------------------------------------------------------------------------------------


def _picture(points: Sequence[CostPoint], suffix: str, metric: str, title: str) -> bytes:
    if not points:
        raise ValueError("no model has a score; pass the folders of trained runs")
    costs = [key for key in points[0].costs if all(p.costs.get(key, 0) > 0 for p in points)]
    if not costs:
        raise ValueError("the models share no cost that is known of all of them")
    top = TOP if title else 0.3
    width = LEFT + len(costs) * PANEL[0] + (len(costs) - 1) * GAP + 0.25
    height = HEIGHT - TOP + top
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    if title:
        words = drawable(shortened(clean(title), 13, width - LEFT, True))
        x, y = LEFT / width, 1 - 0.28 / height
        figure.text(x, y, words, fontproperties=font(13, True), color=INK, va="center", parse_math=False)
    for i, cost in enumerate(costs):
        left = LEFT + i * (PANEL[0] + GAP)
        bottom = height - top - PANEL[1]
        box = (left / width, bottom / height, PANEL[0] / width, PANEL[1] / height)
        _panel(figure.add_axes(box), points, cost, metric if i == 0 else "")
    buffer = io.BytesIO()
    if suffix == ".svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": "framecast"})
    else:
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "framecast"})
    return buffer.getvalue()


def _panel(axes: Axes, points: Sequence[CostPoint], cost: str, metric: str) -> None:
    values = [p.costs[cost] for p in points]
    log = max(values) > 4 * min(values)
    axes.set_xlim(*_x_limits(values, log))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_log_ticks(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scores = [p.score for p in points]
    margin = 0.16 * (max(scores) - min(scores)) or max(0.05 * abs(scores[0]), 0.5)
    axes.set_ylim(min(scores) - margin, max(scores) + margin)

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=3, width=0.7)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_fontproperties(font(TICK_SIZE))
        label.set_color(FAINT)
    axes.set_xlabel(drawable(cost), fontproperties=font(9.5), color=INK, labelpad=5)
    if metric:
        axes.set_ylabel(drawable(clean(metric)), fontproperties=font(9.5), color=INK, labelpad=6)

    front = frontier(points, cost)
    axes.plot([p.costs[cost] for p in front], [p.score for p in front], color="#aeb6c1", lw=1.2, zorder=2)
    for i, point in enumerate(points):
        dot = Line2D([point.costs[cost]], [point.score], marker="o", ms=2 * DOT / POINT, color=class_color(i))
        dot.set(mec="white", mew=0.8, zorder=3)
        axes.add_line(dot)
    _label(axes, points, front, cost)


def _x_limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        factor = (high / low) ** 0.12
        return low / factor, high * factor
    margin = 0.2 * (high - low) or 0.2 * high
    return max(low - margin, 0.0), high + margin


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the limits, powers of ten alone over many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = (step * 10.0**decade for decade in decades for step in steps)
    return [tick for tick in ticks if low <= tick <= high]


Box = tuple[float, float, float, float]  # left, bottom, right, top in inches inside the axes


def _label(axes: Axes, points: Sequence[CostPoint], front: Sequence[CostPoint], cost: str) -> None:
    """Names beside their points, each on the side where it covers least."""
    to_axes = axes.transData + axes.transAxes.inverted()

    def place(point: CostPoint) -> tuple[float, float]:
        x, y = to_axes.transform((point.costs[cost], point.score))
        return float(x) * PANEL[0], float(y) * PANEL[1]

    centres = [place(p) for p in points]
    taken: list[Box] = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in centres]
    for (x0, y0), (x1, y1) in pairwise(place(p) for p in front):
        steps = max(2, round(math.hypot(x1 - x0, y1 - y0) / 0.04))
        along = ((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps))
        taken += [(x - 0.02, y - 0.02, x + 0.02, y + 0.02) for x, y in along]
    tall = LABEL_SIZE * POINT * LINE_HEIGHT
    for point, (x, y) in zip(points, centres, strict=True):
        name = shortened(clean(point.name), LABEL_SIZE, LABEL_WIDTH)
        wide, reach = text_width(name, LABEL_SIZE), DOT + 0.05
        corners = [
            (x + reach, y - tall / 2),
            (x - reach - wide, y - tall / 2),
            (x - wide / 2, y + reach),
            (x - wide / 2, y - reach - tall),
            (x + reach, y + reach / 2),
            (x - reach - wide, y - reach / 2 - tall),
            (x + reach, y - reach / 2 - tall),
            (x - reach - wide, y + reach / 2),
        ]
        boxes = [(a, b, a + wide, b + tall) for a, b in corners]
        best = min(boxes, key=lambda box: _covered(box, taken) + 3 * _outside(box))
        taken.append(best)
        axes.text(
            best[0] / PANEL[0],
            (best[1] + best[3]) / 2 / PANEL[1],
            drawable(name),
            transform=axes.transAxes,
            fontproperties=font(LABEL_SIZE),
            color=INK,
            va="center_baseline",
            parse_math=False,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
            zorder=2.5,
        )


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """Area that is covered already."""
    shared = (
        (min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
    return sum(wide * tall for wide, tall in shared if wide > 0 and tall > 0)


def _outside(box: Box) -> float:
    """How far a box reaches out of the panel; a little to the right is free."""
    beyond = (-box[0], -box[1], box[2] - PANEL[0] - 0.2, box[3] - PANEL[1])
    return sum(max(distance, 0.0) for distance in beyond)
