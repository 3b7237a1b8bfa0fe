"""Futures as PNG: what was seen up to now, and right of it what may come.

On the right of the line "now", from top to bottom: the most probable class of every moment, sampled futures
with their shares, what really happened where that is known, the chance of every class over time, and the
entropy. Left of it, below what was seen: film strip, and the classes with their chance to happen at all.
All lengths are inches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from framecast.data.futures_files import ClassOutlook, FutureGroup
from framecast.structures import Futures, Segments
from framecast.viz.canvas import FAINT, HAIRLINE, INK, Page, shortened, text_width
from framecast.viz.chances import CURVE, ChanceStack, chance, draw_chances, draw_entropy
from framecast.viz.futures_view import FuturesView
from framecast.viz.palette import readable, text_color
from framecast.viz.timeline import (
    AXIS,
    LANE,
    LEGEND_ROW,
    LOW_GAP,
    LOW_LANE,
    MARGIN,
    SMALL,
    SWATCH,
    THINNEST,
    TITLE,
    WIDTH,
    FilmStrip,
    Lane,
    Legend,
    draw_axis,
    draw_lane,
    draw_title,
    film_strip,
)

RIGHT = 1.62  # column of the labels, right of the lanes
WIDEST_FUTURE = 7.2
HEADING, HEADING_SIZE = 0.30, 9.5
OVERVIEW, FUNNEL = 0.12, 0.15  # the whole of what was seen, where lanes show its last part
CHANCES, ENTROPY = 1.75, 0.42
LABEL_SIZE = 9.0
NARROW = 1.5  # pictures need more
SHARE = 0.42  # bar of a share
NOW_WIDTH = 1.4  # points
KEY_NAME = 1.05  # from the swatch of one class to where its name could begin, and the space to the next
MOST_MISSING = 40
MOST_STEPS = 600  # more cannot be seen


def draw_futures(
    futures: Futures,
    path: str | Path,
    *,
    title: str = "",
    truth: Segments | None = None,
    rows: int = 5,
    thumbnails: Sequence[np.ndarray] | None = None,
    thumbnail_times: Sequence[float] | np.ndarray | None = None,
) -> Path:
    """Draw what was seen and what may come, and write a PNG.

    truth: labels of the whole video from its first frame on; the part that was forecast is shown. rows: how
    many sampled futures are shown; samples with the same order of actions are one, with their share.
    thumbnails: (H, W, 3) uint8 frames of what was seen, with the seconds (frames where those are unknown) at
    which they are shown; without these they are spread evenly. Of a long past the last part is shown.

    Raises ValueError for futures without steps, a truth that ends before they begin, and wrong arrays.
    """
    view = FuturesView.of(futures, truth, rows)
    right = WIDTH - RIGHT
    past = (view.now - view.axis.start) / (view.axis.end - view.now)
    future = min((right - MARGIN) / (1.0 + past), WIDEST_FUTURE)
    now, left = right - future, right - future * (1.0 + past)
    legend = Legend.of(view.lanes, right - left, LOW_LANE)
    strip = past_strip(view, thumbnails, thumbnail_times, now - left, now - MARGIN)

    head = TITLE if title else 0.22
    top = head + HEADING + (OVERVIEW + FUNNEL if view.is_cut else 0.04)
    below = top + LANE + AXIS
    blocks = list(future_blocks(view, legend, (left, now, right)))
    end = below + sum(height for height, _ in blocks)
    strip_end = below + (strip.height + 0.2 if strip else 0.02)
    key = Key.of(view, legend, now - MARGIN - 0.3, end - strip_end)
    key_end = strip_end + key.height
    rest = replace(legend, numbers=key.missing(legend), width=now - MARGIN - 0.3)
    rest_top = key_end + 0.05
    if rest_top + rest.height > end:
        rest, rest_top = replace(rest, width=right - MARGIN), max(end, key_end)

    page = Page(WIDTH, max(end, key_end, rest_top + rest.height) + 0.2)
    draw_title(page, title)
    draw_headings(page, view, now, head + HEADING / 2)
    if view.is_cut:
        draw_overview(page, view, legend, (MARGIN, head + HEADING, left, now))
    for lane in (view.observed, view.mode):
        if lane is not None:
            draw_lane(page, lane, (left, top, right - left, LANE), legend)
    side_label(page, "forecast" if view.is_certain else "most probable", right, top + LANE / 2)
    draw_axis(page, view.axis, left, top + LANE + 0.03, right - left, unit_on_right=True, line_at=now)
    y = below
    for height, draw in blocks:
        draw(page, y)
        y += height
    line_end = y - AXIS + 0.03 if blocks else top + LANE + 0.06
    page.line((now, now), (head + HEADING / 2, line_end), INK, NOW_WIDTH)
    draw_now(page, view, now, head + HEADING / 2)
    if strip:
        strip.draw(page, now - strip.width, below)
    key.draw(page, MARGIN, strip_end)
    rest.draw(page, MARGIN, rest_top)
    return page.save(path)


def past_strip(
    view: FuturesView,
    thumbnails: Sequence[np.ndarray] | None,
    times: Sequence[float] | np.ndarray | None,
    width: float,
    room: float,
) -> FilmStrip | None:
    """Frames of the past that is shown, each where it happens; side by side where the past is narrow."""
    if thumbnails is None or view.observed is None:
        return None
    if times is None:
        times = (np.arange(len(thumbnails)) + 0.5) / max(len(thumbnails), 1) * view.now
    axis = replace(view.axis, end=view.now)
    return film_strip(thumbnails, times, axis, width if width > NARROW else room)


# -- around now -------------------------------------------------------------------------------------------


def now_words(view: FuturesView) -> str:
    return f"now {view.axis.text(view.now)}" if view.axis.unit == "seconds" else f"now: frame {view.now:.0f}"


def draw_now(page: Page, view: FuturesView, x: float, y: float) -> None:
    text = now_words(view)
    wide = text_width(text, LABEL_SIZE, True) + 0.18
    page.box(x - wide / 2, y - 0.11, wide, 0.22, INK)
    page.text(x, y, text, LABEL_SIZE, "#ffffff", align="center", bold=True)


def draw_headings(page: Page, view: FuturesView, now: float, y: float) -> None:
    aside = text_width(now_words(view), LABEL_SIZE, True) / 2 + 0.2
    seen = shortened(view.seen_words, HEADING_SIZE, now - aside - MARGIN, True)
    page.text(now - aside, y, seen, HEADING_SIZE, align="right", bold=True)
    page.text(now + aside, y, view.coming_words, HEADING_SIZE, bold=True)


def draw_overview(
    page: Page, view: FuturesView, legend: Legend, place: tuple[float, float, float, float]
) -> None:
    """All that was seen as a thin lane, and which part of it is the lane below."""
    margin, y, left, now = place
    width = now - margin
    for start, end, name in view.whole_past:
        wide = max((end - start) * width, THINNEST)
        page.box(margin + start * width, y, wide, OVERVIEW, legend.colors[name])
    first, upper = margin + width * view.axis.start / view.now, y + OVERVIEW
    corners = ((first, upper), (now, upper), (now, upper + FUNNEL), (left, upper + FUNNEL))
    page.axes.fill(*zip(*corners, strict=True), color=HAIRLINE, alpha=0.7, lw=0)
    page.line((first, first), (y - 0.03, y + OVERVIEW), INK)


def side_label(page: Page, text: str, right: float, y: float) -> None:
    page.text(right + 0.12, y, shortened(text, LABEL_SIZE, RIGHT - 0.2), LABEL_SIZE, FAINT)


# -- below the most probable ------------------------------------------------------------------------------

Block = tuple[float, Callable[[Page, float], None]]  # height, and what draws it from a y on


def future_blocks(view: FuturesView, legend: Legend, edges: tuple[float, float, float]) -> Iterator[Block]:
    """What stands on the right below the most probable class, from top to bottom."""
    left, now, right = edges
    wide = right - now

    def heading(text: str, faint: str = "") -> Block:
        return HEADING, lambda page, y: draw_heading(page, (now + 0.04, y + 0.1), text, faint)

    if view.group_lanes:
        yield heading(view.sample_words)
        for group, lane in zip(view.groups, view.group_lanes, strict=False):
            yield LOW_LANE + LOW_GAP, partial(draw_sample, view, legend, edges, group, lane)
        if view.rest_words:
            yield 0.22, lambda page, y: page.text(now + 0.04, y + 0.08, view.rest_words, SMALL, FAINT)
        yield 0.08, lambda page, y: None
    if view.truth is not None:
        truth = view.truth
        yield heading("What really happened")
        whole = right - left
        yield LOW_LANE + 0.12, lambda page, y: draw_lane(page, truth, (left, y, whole, LOW_LANE), legend)
    if not view.is_certain:
        stack = ChanceStack.of(view, MOST_STEPS)
        yield heading("Chance of each action, moment by moment")
        yield (
            CHANCES + 0.12,
            lambda page, y: draw_chances(page, view, stack, legend, (now, y, wide, CHANCES)),
        )
        yield heading("Uncertainty", "entropy in bits; 0: every future agrees")
        yield ENTROPY, lambda page, y: draw_entropy(page, view, stack, (now, y, wide, ENTROPY))
        yield AXIS, lambda page, y: draw_axis(page, view.coming, now, y + 0.03, wide, unit_on_right=True)
    elif view.truth is not None:
        yield AXIS, lambda page, y: draw_axis(page, view.coming, now, y - 0.09, wide, unit_on_right=True)


def draw_heading(page: Page, place: tuple[float, float], text: str, faint: str) -> None:
    x, y = place
    page.text(x, y, text, HEADING_SIZE, bold=True)
    page.text(x + text_width(text, HEADING_SIZE, True) + 0.1, y, faint, SMALL, FAINT)


def draw_sample(
    view: FuturesView,
    legend: Legend,
    edges: tuple[float, float, float],
    group: FutureGroup,
    lane: Lane,
    page: Page,
    y: float,
) -> None:
    """A sampled future, and beside it how many samples are like it."""
    left, _, right = edges
    draw_lane(page, lane, (left, y, right - left, LOW_LANE), legend)
    share, middle = len(group) / len(view.futures), y + LOW_LANE / 2
    page.box(right + 0.12, middle - 0.05, SHARE, 0.10, HAIRLINE)
    page.box(right + 0.12, middle - 0.05, max(SHARE * share, THINNEST), 0.10, CURVE)
    page.text(right + SHARE + 0.2, middle, view.share(group), LABEL_SIZE, INK)


# -- key --------------------------------------------------------------------------------------------------


@dataclass
class Key:
    """The classes that may come with their chances, in as many columns as there is room for."""

    view: FuturesView
    legend: Legend
    shown: list[ClassOutlook]
    columns: int
    width: float

    @classmethod
    def of(cls, view: FuturesView, legend: Legend, width: float, height: float) -> Key:
        """The most probable ones that fit; nothing where no chances are known."""
        likely = [] if view.is_certain else view.likely
        rows = max(int((height - HEADING) / LEGEND_ROW), 4)
        widest = max((text_width(readable(view.name(one)), LABEL_SIZE) for one in likely), default=0.0)
        columns = max(1, min(int(width / (min(widest, 1.7) + KEY_NAME)), -(-len(likely) // rows)))
        return cls(view, legend, likely[: rows * columns], columns, width)

    @property
    def rows(self) -> int:
        return -(-len(self.shown) // self.columns)

    @property
    def height(self) -> float:
        return HEADING + LEGEND_ROW * self.rows + 0.3 * self.is_partial if self.shown else 0.0

    @property
    def is_partial(self) -> bool:
        return len(self.shown) < len(self.view.outlook)

    def missing(self, legend: Legend) -> dict[str, str]:
        """Numbers of the classes that stand in the lanes but not in this key.

        Of very many only those whose number can be read in some lane.
        """
        shown = {self.view.name(one) for one in self.shown}
        missing = {name: number for name, number in legend.numbers.items() if name not in shown}
        if len(missing) <= MOST_MISSING:
            return missing
        pieces = [piece for lane in self.view.lanes for piece in lane.pieces(legend.width)]
        read = {name for _, wide, name in pieces if legend.inside(name, wide, LOW_LANE)}
        return {name: number for name, number in missing.items() if name in read}

    def draw(self, page: Page, left: float, top: float) -> None:
        if not self.shown:
            return
        words = next(
            (w for w in self.view.chance_words if text_width(w, HEADING_SIZE, True) <= self.width),
            self.view.chance_words[-1],
        )
        page.text(left, top + 0.1, words, HEADING_SIZE, bold=True)
        space = self.width / self.columns
        for i, one in enumerate(self.shown):
            x = left + i // self.rows * space
            y = top + HEADING + (i % self.rows + 0.5) * LEGEND_ROW
            name = self.view.name(one)
            color = self.legend.colors[name]
            page.box(x, y - 0.085, SWATCH, 0.17, color)
            number = self.legend.numbers.get(name, "")
            page.text(x + SWATCH / 2, y, number, 7.5, text_color(color), align="center")
            page.text(x + KEY_NAME - 0.3, y, chance(one.probability), LABEL_SIZE, INK, align="right")
            words = shortened(readable(name), LABEL_SIZE, space - KEY_NAME + 0.1)
            page.text(x + KEY_NAME - 0.22, y, words, LABEL_SIZE, INK)
        if self.is_partial:
            more = len(self.view.outlook) - len(self.shown)
            y = top + HEADING + self.rows * LEGEND_ROW + 0.13
            page.text(left, y, f"and {more} less probable", SMALL, FAINT)
