"""Timelines as PNG: who does what from when to when, one lane per source.

From top to bottom: title, film strip, lanes, confidence, time axis, legend. A name is written into a segment
where it fits. Where it does not the segment gets the number of its legend entry, and where even that does
not fit, its colour only. All lengths are inches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from framecast.structures import Segments
from framecast.viz.axis import TimeAxis, common_axis
from framecast.viz.canvas import FAINT, HAIRLINE, INK, Page, fitted, shortened, text_width
from framecast.viz.images import to_image
from framecast.viz.palette import clean, readable, shared_colors, text_color

WIDTH = 12.0
MARGIN = 0.32
TITLE = 0.62
LANE, LANE_GAP = 0.50, 0.09
VIDEO_NAME, LOW_LANE, LOW_GAP = 0.30, 0.34, 0.05  # where several videos share a page
STRIP_HEIGHT, STRIP_AT_MOST = 0.95, 1.5
CONFIDENCE = 0.42
AXIS = 0.34
LEGEND_ROW, SWATCH = 0.27, 0.27
NAME_SIZES = (9.5, 7.5)
GAP, THINNEST = 0.010, 0.013  # between segments; of a segment, so that none vanishes
SMALL = 8.5
TICK_SPACE = 0.95


def draw_timeline(
    rows: Mapping[str, Segments],
    path: str | Path,
    *,
    title: str = "",
    thumbnails: Sequence[np.ndarray] | None = None,
    thumbnail_times: Sequence[float] | np.ndarray | None = None,
    probs: np.ndarray | None = None,
) -> Path:
    """Draw one video, with a lane per row such as "prediction" and "ground truth", and write a PNG.

    thumbnails: (H, W, 3) uint8 frames of the video in order. thumbnail_times: when each is shown, in
    seconds (frames where the times of all rows are unknown); without them they are spread evenly.
    probs: (K, T) class probabilities of the first row, or (T,) confidence, for a lane below the rows;
    without them the first row's own `frame_probs` or segment `confidence` is shown, if it has any.

    Raises ValueError for rows that cannot share a time axis and for arrays of a wrong shape.
    """
    lanes = make_lanes(rows)
    axis = lanes[0].axis
    confidence = confidence_curve(lanes[0], probs)
    labels = [lane.label for lane in lanes] + (["confidence"] if confidence else [])
    left = lane_left(labels)
    width = WIDTH - left - MARGIN

    legend = Legend.of(lanes, width, LANE)
    strip = film_strip(thumbnails, thumbnail_times, axis, width)
    head = TITLE if title else 0.22
    height = head + (strip.height + 0.12 if strip else 0) + len(lanes) * (LANE + LANE_GAP)
    height += (CONFIDENCE + 0.10 if confidence else 0) + AXIS + legend.height + 0.18

    page = Page(WIDTH, height)
    draw_title(page, title)
    y = head
    if strip:
        strip.draw(page, left, y)
        y += strip.height + 0.12
    for lane in lanes:
        draw_lane(page, lane, (left, y, width, LANE), legend)
        y += LANE + LANE_GAP
    if confidence:
        draw_confidence(page, confidence, axis, (left, y + 0.02, width, CONFIDENCE))
        y += CONFIDENCE + 0.10
    draw_axis(page, axis, left, y - 0.02, width)
    legend.draw(page, left, y + AXIS)
    return page.save(path)


def draw_timelines(
    videos: Mapping[str, Mapping[str, Segments]],
    path: str | Path,
    *,
    title: str = "",
    same_scale: bool = True,
) -> Path:
    """Draw several videos below each other, each with its rows, and one legend for all; write a PNG.

    same_scale: whether a second is equally long in all videos; otherwise each fills the width and has its
    own axis. Videos of which only some have frame times are always drawn on their own axes.
    """
    if not videos:
        raise ValueError("no videos to draw; pass at least one name with its rows")
    groups = [make_lanes(rows) for rows in videos.values()]
    lanes = [lane for group in groups for lane in group]
    same_scale = same_scale and len({lane.axis.unit for lane in lanes}) == 1
    if same_scale:
        longest = TimeAxis(lanes[0].axis.unit, max(lane.axis.end for lane in lanes))
        for lane in lanes:
            lane.axis = longest
    left = lane_left([lane.label for lane in lanes])
    width = WIDTH - left - MARGIN
    legend = Legend.of(lanes, width, LOW_LANE)

    below = 0.08 if same_scale else AXIS + 0.08
    heights = [VIDEO_NAME + len(group) * (LOW_LANE + LOW_GAP) + below for group in groups]
    y = TITLE if title else 0.2
    page = Page(WIDTH, y + sum(heights) + (AXIS if same_scale else 0) + legend.height + 0.18)
    draw_title(page, title)
    for video, group, height in zip(videos, groups, heights, strict=True):
        page.text(left, y + 0.14, shortened(clean(video), 10, width, True), 10, bold=True)
        top = y + VIDEO_NAME
        for lane in group:
            draw_lane(page, lane, (left, top, width, LOW_LANE), legend)
            top += LOW_LANE + LOW_GAP
        if not same_scale:
            draw_axis(page, group[0].axis, left, top, width)
        y += height
    if same_scale:
        draw_axis(page, lanes[0].axis, left, y - 0.06, width)
        y += AXIS
    legend.draw(page, left, y)
    return page.save(path)


def draw_title(page: Page, title: str) -> None:
    if title:
        page.text(MARGIN, 0.34, shortened(clean(title), 14, WIDTH - 2 * MARGIN, True), 14, bold=True)


# -- lanes ------------------------------------------------------------------------------------------------


@dataclass
class Lane:
    """A row of segments with its name and the limits (N, 2) of the segments on the axis."""

    label: str
    row: Segments
    limits: np.ndarray
    axis: TimeAxis

    def pieces(self, width: float) -> list[tuple[float, float, str]]:
        """Left edge, width and class of every segment when the axis is so wide."""
        edges = [(self.axis.position(a) * width, self.axis.position(b) * width) for a, b in self.limits]
        return [(a, b - a, name) for (a, b), name in zip(edges, self.row.names, strict=True)]


def make_lanes(rows: Mapping[str, Segments]) -> list[Lane]:
    axis, limits = common_axis(list(rows.values()))
    named = zip(rows.items(), limits, strict=True)
    return [Lane(readable(name), row, limit, axis) for (name, row), limit in named]


Box = tuple[float, float, float, float]  # left, top, width, height


def lane_left(labels: Sequence[str]) -> float:
    """Where lanes begin: right of the longest lane label, which gets a fifth of the page at most."""
    return MARGIN + min(max(text_width(label, 10.0) for label in labels), WIDTH / 5) + 0.16


def lane_label(page: Page, text: str, left: float, y: float) -> None:
    page.text(left - 0.14, y, shortened(text, 10.0, WIDTH / 5), 10.0, FAINT, align="right")


def draw_lane(page: Page, lane: Lane, box: Box, legend: Legend) -> None:
    left, top, width, height = box
    lane_label(page, lane.label, left, top + height / 2)
    for x, wide, name in sorted(lane.pieces(width), key=lambda piece: -piece[1]):  # the thinnest on top
        color = legend.colors[name]
        page.box(left + x, top, max(wide - min(GAP, wide / 4), THINNEST), height, color)
        label = legend.inside(name, wide, height)
        if label:
            page.text(left + x + wide / 2, top + height / 2, *label, text_color(color), align="center")


def draw_axis(
    page: Page,
    axis: TimeAxis,
    left: float,
    y: float,
    width: float,
    *,
    unit_on_right: bool = False,
    line_at: float | None = None,
) -> None:
    """Ticks with their moments, and the unit where it is frames; no moment is written over a line at an x."""
    ticks = axis.ticks(int(width / TICK_SPACE))
    for value, text in ticks:
        x = left + axis.position(value) * width
        page.line((x, x), (y, y + 0.05), FAINT)
        if line_at is None or abs(x - line_at) > text_width(text, SMALL) / 2 + 0.05:
            page.text(x, y + 0.15, text, SMALL, FAINT, align="center")
    if axis.unit == "frames" and unit_on_right:
        page.text(left + width + 0.12, y + 0.15, "frames", SMALL, FAINT)
    elif axis.unit == "frames":
        page.text(left - 0.14, y + 0.15, "frames", SMALL, FAINT, align="right")


# -- confidence -------------------------------------------------------------------------------------------


def confidence_curve(
    lane: Lane, probs: np.ndarray | None, at_most: int = 1200
) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges (M + 1,) on the axis and mean probability (M,) of the label between them, None if unknown."""
    row = lane.row
    if probs is None and row.frame_probs is None:
        if row.confidence is None:
            return None
        return np.append(lane.limits[:, 0], lane.limits[-1, 1]), row.confidence
    given = np.asarray(row.frame_probs if probs is None else probs)
    shapes = ((row.num_frames,), (len(row.classes), row.num_frames))
    if given.shape not in shapes:
        raise ValueError(
            f"probs have shape {given.shape}; expected {shapes[1]} or {shapes[0]} for {lane.label!r}"
        )
    if given.ndim == 2:
        labels = row.frame_labels
        given = np.where(labels >= 0, given[np.maximum(labels, 0), np.arange(len(labels))], 0.0)
    first, last = lane.limits[0, 0], lane.limits[-1, 1]
    edges = np.linspace(first, last, len(given) + 1) if row.times is None else np.append(row.times, last)
    bins = min(len(given), at_most)  # more steps than that cannot be seen
    cuts = np.linspace(0, len(given), bins + 1).astype(int)
    return edges[cuts], np.array([given[a:b].mean() for a, b in pairwise(cuts)])


def draw_confidence(page: Page, curve: tuple[np.ndarray, np.ndarray], axis: TimeAxis, box: Box) -> None:
    left, top, width, height = box
    lane_label(page, "confidence", left, top + height / 2)
    edges, values = curve
    x = left + width * np.array([axis.position(edge) for edge in edges])
    y = top + height * (1.0 - np.clip(values, 0.0, 1.0))
    page.line((left, left + width), (top, top))
    page.axes.fill_between(
        x, np.append(y, y[-1]), top + height, step="post", color="#8fa0b8", alpha=0.45, lw=0
    )
    page.axes.step(x, np.append(y, y[-1]), where="post", color="#5b6b82", linewidth=0.9)
    page.line((left, left + width), (top + height, top + height), "#aab1bb")
    page.text(left + width + 0.05, top, "1", 7, FAINT)
    page.text(left + width + 0.05, top + height, "0", 7, FAINT)


# -- legend -----------------------------------------------------------------------------------------------


@dataclass
class Legend:
    """Numbers of the classes of which some segment is too short for its name, and all colours."""

    numbers: dict[str, str]
    colors: dict[str, str]
    width: float

    @classmethod
    def of(cls, lanes: Sequence[Lane], width: float, height: float) -> Legend:
        """The legend of lanes of that size, its classes in order of time."""
        pieces = sorted((piece for lane in lanes for piece in lane.pieces(width)), key=lambda piece: piece[0])
        small = dict.fromkeys(name for _, wide, name in pieces if not name_inside(name, wide, height))
        numbers = {name: str(number) for number, name in enumerate(small, start=1)}
        return cls(numbers, shared_colors(lane.row for lane in lanes), width)

    def inside(self, name: str, width: float, height: float) -> tuple[str, float] | None:
        """Text and size for a segment of that class: its name, else its number, else nothing."""
        label = name_inside(name, width, height)
        if label or name not in self.numbers:
            return label
        return fitted(self.numbers[name], width - 0.03, height, (SMALL, 7.0, 6.0))

    @property
    def columns(self) -> int:
        widest = max((text_width(readable(name), SMALL) for name in self.numbers), default=0.0)
        return max(1, min(len(self.numbers), int(self.width / (widest + SWATCH + 0.35))))

    @property
    def height(self) -> float:
        return 0.12 + LEGEND_ROW * -(-len(self.numbers) // self.columns) if self.numbers else 0.0

    def draw(self, page: Page, left: float, y: float) -> None:
        columns, space = self.columns, self.width / self.columns
        for i, (name, number) in enumerate(self.numbers.items()):
            x, middle = left + i % columns * space, y + 0.12 + (i // columns + 0.5) * LEGEND_ROW
            color = self.colors[name]
            page.box(x, middle - 0.085, SWATCH, 0.17, color)
            page.text(x + SWATCH / 2, middle, number, 7.5, text_color(color), align="center")
            label = shortened(readable(name), SMALL, space - SWATCH - 0.2)
            page.text(x + SWATCH + 0.09, middle, label, SMALL, INK)


def name_inside(name: str, width: float, height: float) -> tuple[str, float] | None:
    return fitted(readable(name), width - 0.12, height - 0.06, NAME_SIZES)


# -- film strip -------------------------------------------------------------------------------------------


@dataclass
class FilmStrip:
    """Frames side by side; each stands where it happens."""

    cells: list[np.ndarray | None]  # None where no frame was given for that stretch of time
    width: float
    height: float

    def draw(self, page: Page, left: float, top: float) -> None:
        space = self.width / len(self.cells)
        for i, cell in enumerate(self.cells):
            box = (left + i * space + 0.01, top, space - 0.02, self.height)
            if cell is None:
                page.box(*box, HAIRLINE)
            else:
                page.picture(*box, cell)


def film_strip(
    thumbnails: Sequence[np.ndarray] | None,
    times: Sequence[float] | np.ndarray | None,
    axis: TimeAxis,
    width: float,
) -> FilmStrip | None:
    """Cut the axis into as many cells as frames fit; each shows the frame nearest its middle."""
    if thumbnails is None or len(thumbnails) == 0:
        return None
    count = len(thumbnails)
    moments = (
        axis.start + (np.arange(count) + 0.5) / count * axis.span
        if times is None
        else np.asarray(times, dtype=np.float64)
    )
    if moments.shape != (count,):
        raise ValueError(
            f"{count} thumbnails but thumbnail_times of shape {moments.shape}; pass one per thumbnail"
        )
    first = to_image(thumbnails[0])
    aspect = first.width / first.height
    cells = max(1, min(count, round(width / (STRIP_HEIGHT * aspect))))
    middles = axis.start + (np.arange(cells) + 0.5) / cells * axis.span
    chosen: list[np.ndarray | None] = []
    for middle in middles:
        nearest = int(np.abs(moments - middle).argmin())
        inside = abs(moments[nearest] - middle) <= axis.span / cells / 2 * 1.001
        chosen.append(thumbnails[nearest] if inside else None)
    return FilmStrip(chosen, width, min(STRIP_AT_MOST, width / cells / aspect))
