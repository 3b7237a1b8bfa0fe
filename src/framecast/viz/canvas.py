"""A page measured in inches, from the top left corner, on which timelines are drawn.

Uses matplotlib's Figure with the Agg canvas directly: no global state, safe in threads and servers.
Texts come from users' files, so they are never read as formulas and characters without a glyph are replaced.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from PIL import Image

from framecast.viz.images import cropped, to_image
from framecast.writing import write_file

DPI = 150
TALLEST = 1 << 16  # pixels that Agg can draw
INK, FAINT, HAIRLINE = "#16191d", "#6a717c", "#dfe2e6"
LINE_HEIGHT = 1.22  # of the font size
POINT = 1 / 72  # inches

# Only used for glyphs that DejaVu Sans lacks; the first one that is installed is enough.
EAST_ASIAN_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


@cache
def font_families() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *[name for name in EAST_ASIAN_FONTS if name in installed][:1])


@cache
def known_characters() -> frozenset[int]:
    paths = [font_manager.findfont(FontProperties(family=name)) for name in font_families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


def drawable(text: str) -> str:
    """The text with "\ufffd" for characters that no installed font can draw."""
    return "".join(c if ord(c) in known_characters() or c == "\n" else "\ufffd" for c in text)


class Page:
    """White paper of a width and height in inches."""

    def __init__(self, width: float, height: float) -> None:
        if height * DPI >= TALLEST:
            raise ValueError(f"a picture of {height * DPI:.0f} pixels is too tall; draw fewer rows or videos")
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.set_autoscale_on(False)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=color, linewidth=0))

    def line(
        self, x: tuple[float, float], y: tuple[float, float], color: str = HAIRLINE, width: float = 0.7
    ) -> None:
        """A straight line; its width is in points."""
        self.axes.plot(x, y, color=color, linewidth=width, solid_capstyle="butt")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        color: str = INK,
        *,
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
    ) -> None:
        """Write around the vertical middle y."""
        self.axes.text(
            x,
            y,
            drawable(text),
            fontproperties=font(size, bold),
            color=color,
            ha=align,
            va="center_baseline" if "\n" not in text else "center",
            linespacing=LINE_HEIGHT,
            parse_math=False,
            usetex=False,  # a user's matplotlib settings must not send file names through LaTeX
        )

    def picture(self, x: float, y: float, width: float, height: float, image: np.ndarray) -> None:
        """An image (H, W, 3) uint8, cropped around its middle to the shape of the box."""
        size = (max(1, round(width * DPI)), max(1, round(height * DPI)))
        pixels = np.asarray(
            cropped(to_image(image), size[0] / size[1]).resize(size, Image.Resampling.LANCZOS)
        )
        extent = (x, x + width, y + height, y)
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest")
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(self.height, 0)

    def save(self, path: str | Path) -> Path:
        """Write a PNG."""
        buffer = io.BytesIO()
        self.canvas.print_png(buffer, metadata={"Software": "framecast"})
        return write_file(path, buffer.getvalue())


@cache
def font(size: float, bold: bool = False) -> FontProperties:
    return FontProperties(family=list(font_families()), size=size, weight="bold" if bold else "normal")


@cache
def _measuring_renderer() -> Any:
    return FigureCanvasAgg(Figure(figsize=(1, 1), dpi=DPI)).get_renderer()


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width in inches of one line."""
    width, _, _ = _measuring_renderer().get_text_width_height_descent(
        drawable(text), font(size, bold), ismath=False
    )
    return width / DPI


def shortened(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, or its beginning and "…" where it is wider than `width` inches."""
    if text_width(text, size, bold) <= width:
        return text
    ends = range(len(text))
    kept = bisect_right(ends, width, key=lambda end: text_width(text[:end] + "…", size, bold)) - 1
    return text[: max(kept, 0)].rstrip() + "…"


def fitted(text: str, width: float, height: float, sizes: tuple[float, ...]) -> tuple[str, float] | None:
    """The text in one or two lines and the first size at which it fits a box of inches, None if none does."""
    for size in sizes:
        lines = [text, *balanced_lines(text)]
        for line in lines:
            parts = line.split("\n")
            tall = size * POINT * LINE_HEIGHT * len(parts)
            if tall <= height and max(text_width(part, size) for part in parts) <= width:
                return line, size
    return None


def balanced_lines(text: str) -> list[str]:
    """The text broken at the space that leaves the two lines most equal, if it has a space."""
    spaces = [i for i, c in enumerate(text) if c == " "]
    if not spaces:
        return []
    middle = min(spaces, key=lambda i: abs(2 * i - len(text)))
    return [text[:middle] + "\n" + text[middle + 1 :]]
