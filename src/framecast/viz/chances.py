"""Chances of the classes over time as stacked areas, and their entropy.

Legend: K classes, M drawn steps. All lengths are inches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from framecast.viz.canvas import FAINT, LINE_HEIGHT, POINT, Page, text_width
from framecast.viz.futures_view import FuturesView
from framecast.viz.palette import is_background, readable, text_color
from framecast.viz.timeline import SMALL, Box, Legend

BAND_SIZES = (9.5, 8.0)  # of names inside the areas
CURVE, GROUND = "#5b6b82", "#f3f4f6"
PARTED = 0.04  # thinner areas have no white line above them, which would hide them
GRID = 0.03  # of the places at which a name is tried


@dataclass
class ChanceStack:
    """Probabilities of the classes on top of each other, those that come early at the bottom."""

    edges: np.ndarray  # (M + 1,) on the axis
    labels: np.ndarray  # (K',) classes with any probability
    tops: np.ndarray  # (K', M) sum of the probabilities up to that class
    entropy: np.ndarray  # (M,) bits

    @classmethod
    def of(cls, view: FuturesView, at_most: int) -> ChanceStack:
        """Steps that are too many to be seen are averaged."""
        futures = view.futures
        probabilities, steps = futures.probabilities, futures.num_steps
        cuts = np.linspace(0, steps, min(steps, at_most) + 1).astype(int)
        sizes = np.diff(cuts)
        shares = np.add.reduceat(probabilities, cuts[:-1], axis=1) / sizes
        entropy = np.add.reduceat(futures.entropy, cuts[:-1]) / sizes
        present = np.flatnonzero(probabilities.max(1) > 0)
        starts = {one.label: one.start for one in view.outlook}
        last = [is_background(futures.classes[k]) for k in present]  # on top
        labels = present[np.lexsort(([starts.get(int(k), steps) for k in present], last))]
        edges = view.now + cuts * (view.axis.end - view.now) / steps
        return cls(edges, labels, np.cumsum(shares[labels], axis=0), entropy)

    @property
    def most_bits(self) -> float:
        """The end of the axis of the entropy: whole bits, at least one."""
        return max(1.0, float(np.ceil(self.entropy.max() - 1e-9)))


def draw_chances(page: Page, view: FuturesView, stack: ChanceStack, legend: Legend, box: Box) -> None:
    """Stacked areas with the names of the classes where they are tall and long enough."""
    left, top, width, height = box
    x = left + width * np.array([view.coming.position(edge) for edge in stack.edges])
    tops = np.minimum(stack.tops, 1.0)
    page.box(left, top, width, height, GROUND)
    # From the top class down, each area reaching to the ground: no seams between neighbours.
    bottoms = np.vstack([np.zeros_like(tops[:1]), tops[:-1]])
    bands = list(zip(stack.labels, bottoms, tops, strict=True))
    for label, low, share in reversed(bands):
        y = top + height * (1.0 - np.append(share, share[-1]))
        color = legend.colors[view.futures.classes[label]]
        page.axes.fill_between(x, y, top + height, step="post", color=color, lw=0)
        visible = np.append(share - low, share[-1] - low[-1]) * height > PARTED
        page.axes.step(x, np.where(visible, y, np.nan), where="post", color="white", linewidth=0.6)
    for label, low, high in bands:
        name = view.futures.classes[label]
        limits = top + height * (1 - high), top + height * (1 - low)
        place = roomiest(name, legend.numbers.get(name), x, *limits)
        if place is not None:
            page.text(*place, text_color(legend.colors[name]), align="center")
    for share in (0.0, 0.5, 1.0):
        y = top + height * (1 - share)
        page.line((left + width, left + width + 0.05), (y, y), FAINT)
        page.text(left + width + 0.12, y, f"{share:.0%}", SMALL, FAINT)


def roomiest(
    name: str, number: str | None, x: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> tuple[float, float, str, float] | None:
    """Place (x, y), text and size of a name, or else a number, where a band (M,) is tallest."""
    texts = [(readable(name), size) for size in BAND_SIZES]
    for text, size in [*texts, (number, SMALL)] if number else texts:
        wide, tall = text_width(text, size) + 0.12, size * POINT * LINE_HEIGHT
        grid = np.arange(x[0], x[-1], GRID)
        column = np.minimum(np.searchsorted(x, grid, side="right") - 1, len(upper) - 1)
        span = int(np.ceil(wide / GRID))
        if span > len(grid):
            continue
        highest = sliding_window_view(upper[column], span).max(1)
        lowest = sliding_window_view(lower[column], span).min(1)
        room = lowest - highest
        if room.max() >= tall:
            widest = np.flatnonzero(room > 0.98 * room.max())
            best = widest[len(widest) // 2]
            middle = float(highest[best] + lowest[best]) / 2
            return float(grid[best]) + span * GRID / 2, middle, text, size
    return None


def draw_entropy(page: Page, view: FuturesView, stack: ChanceStack, box: Box) -> None:
    left, top, width, height = box
    x = left + width * np.array([view.coming.position(edge) for edge in stack.edges])
    y = top + height * (1.0 - stack.entropy / stack.most_bits)
    page.line((left, left + width), (top, top))
    page.axes.step(x, np.append(y, y[-1]), where="post", color=CURVE, linewidth=1.1)
    page.line((left, left + width), (top + height, top + height), "#aab1bb")
    page.text(
        left + width + 0.12, top, f"{stack.most_bits:.0f} bit{'s' * (stack.most_bits > 1)}", SMALL, FAINT
    )
    page.text(left + width + 0.12, top + height, "0", SMALL, FAINT)


def chance(share: float) -> str:
    """A probability in percent, never 0 or 100 where it is not quite."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
