"""The stability of a training run in one picture: the loss with its jumps, and every layer over the steps.

Below the loss stand three maps with a row per layer, from the input to the head, and a column per watched
step: how large activations, the largest number and gradients are, in colours on a logarithmic scale. What is
not finite is red.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from framecast.viz.canvas import DPI, FAINT, HAIRLINE, INK, drawable, font, shortened, text_width
from framecast.viz.palette import PALETTE, clean
from framecast.writing import write_file

MAPS = {
    "activation": "activation, root mean square",
    "largest": "largest number in the output",
    "gradient": "gradient norm before clipping",
}
WIDTH, MARGIN, TOP, GAP = 12.0, 0.32, 0.62, 0.42  # inches
LOSS, LAYER, LOWEST_MAP, AXIS = 1.9, 0.13, 0.9, 0.5
BAR = 1.0  # the colours' legend at the right, with its figures
NAMES_AT_MOST, COLUMNS_AT_MOST, POINTS_AT_MOST = 2.2, 600, 1500
BROKEN, JUMP = "#d0342c", PALETTE[1]


def draw_stability(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path:
    """Draw the lines of a run's stability.jsonl; the suffix, .png or .svg, is the kind of picture.

    Raises ValueError where no step was watched.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path} is neither .png nor .svg")
    watched = [row for row in rows if row.get("layers")]
    if not watched:
        raise ValueError("no step was watched; train with --set watch_every=20, for example")
    return write_file(path, _picture(rows, watched, path.suffix, title))


def _picture(
    rows: Sequence[Mapping[str, Any]], watched: Sequence[Mapping[str, Any]], suffix: str, title: str
) -> bytes:
    layers = {key: _layers_with(watched, key) for key in MAPS}
    steps = np.array([row["step"] for row in watched], dtype=float)
    last = max(row["step"] for row in rows)
    top = TOP if title else 0.3
    tall = {key: max(LOWEST_MAP, LAYER * len(names)) for key, names in layers.items()}
    height = top + LOSS + sum(tall.values()) + len(MAPS) * GAP + AXIS
    widest = max((text_width(shown, 7) for names in layers.values() for shown in _shown(names)), default=0.0)
    left = max(MARGIN + widest + 0.12, 0.85)
    wide = WIDTH - left - MARGIN - BAR
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    if title:
        words = drawable(shortened(clean(title), 13, WIDTH - 2 * MARGIN, True))
        at = (MARGIN / WIDTH, 1 - 0.3 / height)
        figure.text(*at, words, fontproperties=font(13, True), color=INK, va="center", parse_math=False)

    def axes(y: float, tall: float, x: float = left, wide: float = wide) -> Axes:
        """Axes whose top lies y inches below that of the page."""
        made = figure.add_axes((x / WIDTH, 1 - (y + tall) / height, wide / WIDTH, tall / height))
        made.tick_params(colors=FAINT, length=3, width=0.7)
        made.set_xlim(0.5, last + 0.5)
        return made

    y = top
    _draw_loss(axes(y, LOSS), rows)
    y += LOSS
    for i, (key, label) in enumerate(MAPS.items()):
        y += GAP
        values = np.array(
            [[_number(row["layers"].get(name, {}), key) for row in watched] for name in layers[key]]
        )
        panel = axes(y, tall[key])
        bar = axes(y, tall[key], left + wide + 0.15, 0.14)
        _draw_map(panel, bar, steps, last, values)
        panel.set_title(label, fontproperties=font(9), color=INK, loc="left", pad=4)
        _name_layers(panel, _shown(layers[key]), tall[key])
        if i + 1 < len(MAPS):
            panel.set_xticklabels([])
        else:
            panel.set_xlabel("step", fontproperties=font(9), color=INK)
        _small(panel, bar)
        y += tall[key]
    buffer = io.BytesIO()
    if suffix == ".svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": "framecast"})
    else:
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "framecast"})
    return buffer.getvalue()


def _layers_with(watched: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Layers of which that is known in some step, in the order of the file; at least one row is drawn."""
    named = dict.fromkeys(name for row in watched for name, layer in row["layers"].items() if key in layer)
    return list(named) or [""]


def _shown(names: Sequence[str]) -> list[str]:
    return [shortened(clean(name), 7, NAMES_AT_MOST) for name in names]


def _number(layer: Mapping[str, float | None], key: str) -> float:
    """Infinite for what was not finite, NaN for what was not there."""
    if key not in layer:
        return math.nan
    value = layer[key]
    return math.inf if value is None else value


# -- loss -------------------------------------------------------------------------------------------------


def losses(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of all steps that the lines tell of, NaN where not finite."""
    steps: list[int] = []
    values: list[float] = []
    for row in rows:
        known = row.get("losses", ())
        steps += range(row["step"] - len(known) + 1, row["step"] + 1)
        values += [math.nan if loss is None else loss for loss in known]
    return np.array(steps), np.array(values, dtype=float)


def _draw_loss(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    steps, values = losses(rows)
    at = dict(zip(steps.tolist(), values.tolist(), strict=True))
    jumps = [step for row in rows for step in row.get("spikes", ()) if math.isfinite(at.get(step, math.nan))]
    broken = sorted({row["step"] for row in rows if "nonfinite" in row} | set(steps[np.isnan(values)]))
    known = values[np.isfinite(values)]
    log = len(known) > 0 and known.min() > 0 and known.max() > 20 * known.min()
    for step in broken:
        axes.axvline(step, color=BROKEN, lw=0.9, zorder=1)
    axes.plot(*_thinned(steps, values), color="#5b6b82", lw=0.9, zorder=2)
    axes.plot(jumps, [at[step] for step in jumps], "o", ms=4.5, color=JUMP, mec="white", mew=0.6, zorder=3)
    if log:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=HAIRLINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xticklabels([])
    axes.set_title("loss", fontproperties=font(9), color=INK, loc="left", pad=4)
    told = [(f"● {len(jumps)} jump{'s' * (len(jumps) != 1)}", JUMP)] if jumps else []
    told += [(f"| {len(broken)} step{'s' * (len(broken) != 1)} not finite", BROKEN)] if broken else []
    x, wide = 1.0, axes.get_position().width * WIDTH
    for words, color in reversed(told):
        axes.text(
            *(x, 1.03, words), transform=axes.transAxes, color=color, ha="right", fontproperties=font(8.5)
        )
        x -= (text_width(words, 8.5) + 0.2) / wide
    _small(axes)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbouring steps where more points than can be seen are there."""
    size = -(-len(steps) // POINTS_AT_MOST)
    if size <= 1:
        return steps, values
    cuts = np.arange(0, len(steps), size)
    count = np.diff(np.append(cuts, len(steps)))
    return np.add.reduceat(steps, cuts) / count, np.add.reduceat(values, cuts) / count


# -- layers -----------------------------------------------------------------------------------------------


def _draw_map(axes: Axes, bar: Axes, steps: np.ndarray, last: float, values: np.ndarray) -> None:
    """values: (layers, watched steps). Of neighbouring columns that would be too thin the largest counts."""
    size = -(-len(steps) // COLUMNS_AT_MOST)
    cuts = np.arange(0, len(steps), size)
    values = np.fmax.reduceat(values, cuts, axis=1)
    firsts = steps[cuts]
    edges = np.concatenate([[0.5], (firsts[1:] + firsts[:-1]) / 2, [last + 0.5]])
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (1.0, 1.0)
    middle = math.sqrt(low * high)
    low, high = min(low, middle / 10**0.5), max(high, middle * 10**0.5)  # a decade or more
    norm = LogNorm(low, high)
    colors = colormaps["viridis"].with_extremes(bad="#ffffff", over=BROKEN)
    shown = np.ma.masked_invalid(np.where(np.isposinf(values), high * 10, np.maximum(values, low)))
    rows = np.arange(len(values) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, shown, norm=norm, cmap=colors, rasterized=True)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(mesh, cax=bar)
    bar.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,), numticks=8))
    bar.yaxis.set_minor_locator(NullLocator())
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.tick_params(colors=FAINT, length=2, width=0.6)
    for spine in bar.spines.values():
        spine.set_visible(False)


def _name_layers(axes: Axes, names: Sequence[str], tall: float) -> None:
    every = max(1, math.ceil(0.125 / (tall / len(names))))
    axes.set_yticks(range(0, len(names), every))
    axes.set_yticklabels([drawable(name) for name in names[::every]], parse_math=False)
    axes.tick_params(axis="y", length=0)


def _small(*many: Axes) -> None:
    for axes in many:
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_fontproperties(font(7))
            label.set_color(FAINT)
